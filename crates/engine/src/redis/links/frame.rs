//! Finds where one reply of RESP2 or RESP3 ends, within bounds, so that it can be parsed whole.
//!
//! Invariant: nothing is taken apart twice however a reply is cut into packets, but for its last unfinished line.

use redis::Value;

/// Longest single string of a reply.
const MAX_STRING_BYTES: usize = 64 << 20;
/// Longest line: a number, a status or an error.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Most values in one reply, at all depths together.
const MAX_VALUES: u64 = 8 << 20;
/// Deepest nesting.
const MAX_DEPTH: usize = 32;

/// Why what came is not a reply that is taken. The connection is of no use after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// Not the protocol.
    #[error("the server's answer is not RESP")]
    Garbled,
    /// Past a bound.
    #[error("the server's answer is larger than is taken")]
    TooLarge,
}

/// How far into the reply at the front of a buffer one has looked.
#[derive(Debug, Default)]
pub struct Frame {
    /// Bytes that were looked at.
    at: usize,
    /// Values met so far.
    values: u64,
    /// At each depth, how many values are still to come.
    open: Vec<u64>,
}

impl Frame {
    /// The reply at the front of `buffer`, and how many bytes it took; `None` while it is not whole. `buffer` may only
    /// grow until it was.
    pub fn take(&mut self, buffer: &[u8]) -> Result<Option<(Value, usize)>, FrameFault> {
        let Some(end) = self.end(buffer)? else {
            return Ok(None);
        };
        *self = Frame::default();
        // An error line may quote what a client sent, which need not be UTF-8.
        let parsed = match buffer[0] {
            b'-' => redis::parse_redis_value(String::from_utf8_lossy(&buffer[..end]).as_bytes()),
            _ => redis::parse_redis_value(&buffer[..end]),
        };
        let value = parsed.map_err(|_| FrameFault::Garbled)?;
        Ok(Some((value, end)))
    }

    fn end(&mut self, buffer: &[u8]) -> Result<Option<usize>, FrameFault> {
        if self.at == 0 && self.open.is_empty() {
            self.open.push(1);
        }
        while let Some(left) = self.open.last_mut() {
            if *left == 0 {
                self.open.pop();
                continue;
            }
            let Some(item) = Item::read(&buffer[self.at..])? else {
                return Ok(None);
            };
            *left -= 1;
            self.values = self.values.saturating_add(1).saturating_add(item.inside);
            if self.values > MAX_VALUES || self.open.len() >= MAX_DEPTH {
                return Err(FrameFault::TooLarge);
            }
            if item.inside > 0 {
                self.open.push(item.inside);
            }
            self.at += item.bytes;
        }
        Ok(Some(self.at))
    }
}

/// One value, without those inside it.
struct Item {
    bytes: usize,
    inside: u64,
}

impl Item {
    fn read(bytes: &[u8]) -> Result<Option<Item>, FrameFault> {
        let Some(line) = line(bytes)? else {
            return Ok(None);
        };
        let after = line.len() + 2;
        let (kind, rest) = line.split_first().ok_or(FrameFault::Garbled)?;
        let inside = match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => 0,
            b'$' | b'=' | b'!' => match number(rest)? {
                None => 0,
                Some(size) => return string(bytes, after, size),
            },
            b'*' | b'~' | b'>' => number(rest)?.unwrap_or(0),
            b'%' => number(rest)?.unwrap_or(0).saturating_mul(2),
            // Names and values, and then what they are said of.
            b'|' => number(rest)?.unwrap_or(0).saturating_mul(2).saturating_add(1),
            _ => return Err(FrameFault::Garbled),
        };
        Ok(Some(Item { bytes: after, inside }))
    }
}

fn string(bytes: &[u8], after: usize, size: u64) -> Result<Option<Item>, FrameFault> {
    let size = usize::try_from(size).map_err(|_| FrameFault::TooLarge)?;
    if size > MAX_STRING_BYTES {
        return Err(FrameFault::TooLarge);
    }
    let end = after + size + 2;
    Ok((bytes.len() >= end).then_some(Item {
        bytes: end,
        inside: 0,
    }))
}

/// The first line, without its end.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, FrameFault> {
    match bytes
        .windows(2)
        .take(MAX_LINE_BYTES)
        .position(|pair| pair == b"\r\n")
    {
        Some(end) => Ok(Some(&bytes[..end])),
        None if bytes.len() > MAX_LINE_BYTES => Err(FrameFault::TooLarge),
        None => Ok(None),
    }
}

/// A length; `None` for the -1 by which RESP2 says that there is nothing.
fn number(text: &[u8]) -> Result<Option<u64>, FrameFault> {
    if text == b"-1" {
        return Ok(None);
    }
    let text = std::str::from_utf8(text).map_err(|_| FrameFault::Garbled)?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FrameFault::Garbled);
    }
    text.parse().map(Some).map_err(|_| FrameFault::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REPLIES: &[&[u8]] = &[
        b"+OK\r\n",
        b"-ERR no \xff such\r\n",
        b":-12\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"_\r\n",
        b"$0\r\n\r\n",
        b"$6\r\na\r\nb\r\n\r\n",
        b"*0\r\n",
        b"*2\r\n*1\r\n:1\r\n$1\r\nx\r\n",
        b">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n",
        b"%1\r\n+a\r\n*2\r\n:1\r\n:2\r\n",
        b"|1\r\n+ttl\r\n:9\r\n+v\r\n",
        b"=5\r\ntxt:a\r\n",
        b"~2\r\n#t\r\n,1.5\r\n",
    ];

    #[test]
    fn every_cut_gives_the_same_replies() {
        for reply in REPLIES {
            let two = [*reply, b"+next\r\n"].concat();
            let mut frame = Frame::default();
            for cut in 0..reply.len() {
                assert_eq!(
                    frame.take(&two[..cut]),
                    Ok(None),
                    "{:?} cut at {cut}",
                    reply.escape_ascii().to_string()
                );
            }
            let (_, end) = frame.take(&two).expect("well-formed").expect("whole");
            assert_eq!(end, reply.len());
            let next = frame.take(&two[end..]).expect("well-formed").expect("whole");
            assert_eq!(next.0, Value::SimpleString("next".into()));
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let take = |bytes: &[u8]| Frame::default().take(bytes).expect_err("out of bounds");
        assert_eq!(take(b"hello\r\n"), FrameFault::Garbled);
        assert_eq!(take(b"\r\n"), FrameFault::Garbled);
        assert_eq!(take(b"$-2\r\n"), FrameFault::Garbled);
        assert_eq!(take(b"$99999999999\r\n"), FrameFault::TooLarge);
        assert_eq!(take(b"*9999999999999999999999\r\n"), FrameFault::TooLarge);
        assert_eq!(take(b"*18446744073709551615\r\n"), FrameFault::TooLarge);
        assert_eq!(take(&b"*1\r\n".repeat(MAX_DEPTH + 1)), FrameFault::TooLarge);
        assert_eq!(take(&vec![b'+'; MAX_LINE_BYTES + 2]), FrameFault::TooLarge);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((_, end))) = Frame::default().take(&bytes) {
                prop_assert!(end <= bytes.len());
            }
        }

        #[test]
        fn no_mix_of_replies_makes_it_panic(parts in proptest::collection::vec(0..REPLIES.len(), 1..20), cut in 0usize..200) {
            let bytes: Vec<u8> = parts.iter().flat_map(|part| REPLIES[*part].iter().copied()).collect();
            let from = cut.min(bytes.len());
            if let Ok(Some((_, end))) = Frame::default().take(&bytes[from..]) {
                prop_assert!(end <= bytes.len() - from);
            }
        }
    }
}
