//! A WebSocket decoder as plain as can be: it has all bytes at once, knows no pieces, and was written from RFC 6455
//! alone, for a server without extensions that takes text only.

use crate::websocket::{MAX_FRAMES, MAX_MESSAGE};

/// The longest payload of a control frame. Bytes.
pub(super) const MAX_CONTROL: usize = 125;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

/// What was said, and the code of the fault that ended it.
pub(super) type Outcome = (Vec<Said>, Option<u16>);

/// RFC 6455, 5.2 to 5.6 and 7.4.
pub(super) fn plain(mut stream: &[u8]) -> Outcome {
    let mut said = Vec::new();
    // The message that is being continued, and in how many frames it came.
    let mut open: Option<(Vec<u8>, u16)> = None;
    loop {
        let frame = match frame(
            stream,
            open.is_some(),
            open.as_ref().map_or(0, |(text, _)| text.len()),
        ) {
            Ok(Some(frame)) => frame,
            Ok(None) => return (said, None),
            Err(code) => return (said, Some(code)),
        };
        stream = frame.after;
        if frame.opcode >= 8 {
            if !frame.whole {
                return (said, None);
            }
            match control(frame.opcode, frame.payload) {
                Ok(end @ Said::Close(..)) => {
                    said.push(end);
                    return (said, None);
                }
                Ok(message) => said.push(message),
                Err(code) => return (said, Some(code)),
            }
            continue;
        }
        let counts = open.is_some() || !frame.last;
        let (mut text, count) = open.take().unwrap_or_default();
        let count = count + u16::from(counts);
        if count > MAX_FRAMES {
            return (said, Some(1009));
        }
        text.extend(&frame.payload);
        let ends = frame.whole && frame.last;
        match str::from_utf8(&text) {
            Ok(good) if ends => said.push(Said::Text(good.into())),
            Ok(_) => {}
            Err(error) if !ends && error.error_len().is_none() => {}
            Err(_) => return (said, Some(1007)),
        }
        if !frame.whole {
            return (said, None);
        }
        open = (!ends).then_some((text, count));
    }
}

struct Frame<'a> {
    opcode: u8,
    last: bool,
    payload: Vec<u8>,
    /// All of its payload has come.
    whole: bool,
    after: &'a [u8],
}

/// The next frame; `None` where its header has not come. `before` is how much of its message came earlier.
fn frame(stream: &[u8], open: bool, before: usize) -> Result<Option<Frame<'_>>, u16> {
    let [first, second, rest @ ..] = stream else {
        return Ok(None);
    };
    let (opcode, last, short) = (first & 15, first >> 7 == 1, second & 127);
    if first & 0b0111_0000 != 0 || second >> 7 == 0 {
        return Err(1002);
    }
    match opcode {
        0 if open => {}
        1 if !open => {}
        2 if !open => return Err(1003),
        8..=10 if last && usize::from(short) <= MAX_CONTROL => {}
        _ => return Err(1002),
    }
    let (width, least) = match short {
        126 => (2, 126),
        127 => (8, 65_536),
        _ => (0, 0),
    };
    if rest.len() < width + 4 {
        return Ok(None);
    }
    let (long, rest) = rest.split_at(width);
    let (mask, rest) = rest.split_at(4);
    let value = long
        .iter()
        .fold(0u128, |value, byte| value * 256 + u128::from(*byte));
    let length = if width == 0 { u128::from(short) } else { value };
    if length < least || length >= 1 << 63 {
        return Err(1002);
    }
    if opcode < 8 && length + before as u128 > MAX_MESSAGE as u128 {
        return Err(1009);
    }
    let (payload, after) = rest.split_at((length as usize).min(rest.len()));
    Ok(Some(Frame {
        opcode,
        last,
        payload: payload
            .iter()
            .enumerate()
            .map(|(i, byte)| byte ^ mask[i % 4])
            .collect(),
        whole: payload.len() as u128 == length,
        after,
    }))
}

fn control(opcode: u8, payload: Vec<u8>) -> Result<Said, u16> {
    match opcode {
        9 => return Ok(Said::Ping(payload)),
        10 => return Ok(Said::Pong(payload)),
        _ if payload.is_empty() => return Ok(Said::Close(None, String::new())),
        _ if payload.len() == 1 => return Err(1002),
        _ => {}
    }
    let code = u16::from(payload[0]) << 8 | u16::from(payload[1]);
    let is_one_to_send = match code {
        1000..3000 => code < 1015 && !(1004..=1006).contains(&code),
        3000..5000 => true,
        _ => false,
    };
    if !is_one_to_send {
        return Err(1002);
    }
    let reason = String::from_utf8(payload[2..].to_vec()).map_err(|_| 1007u16)?;
    Ok(Said::Close(Some(code), reason))
}
