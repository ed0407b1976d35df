//! Reads a client's WebSocket frames (RFC 6455, 5) as they arrive, in pieces of any size.
//!
//! Invariant: how the bytes are cut into pieces changes neither the messages nor the fault. At rest, with
//! no frame or message begun, no memory is held beyond the struct; a message that lies whole in one piece
//! is unmasked in place and never copied. Nothing is read after a close or a fault.
//! Does not answer: pongs, and the close that a [`Fault`] calls for, are the session's to send.

/// The longest message. Bytes; a longer one is a fault, 1009.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Into how many frames a message may be cut; more is a fault, 1009.
pub const MAX_FRAMES: u16 = 1024;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
/// The two leading bytes, an eight-byte length and the mask.
const MAX_HEADER: usize = 14;

/// What a client said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A whole text message.
    Text(&'a str),
    /// To be answered with a pong of the same payload, at most 125 bytes.
    Ping(&'a [u8]),
    /// The answer to a ping, or unasked.
    Pong(&'a [u8]),
    /// The client ends the connection, with the code and reason it gave. The last message.
    Close(Option<u16>, &'a str),
}

/// The client broke the protocol, or a limit. Send a close with this code, then end the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (close code {code})")]
pub struct Fault {
    /// 1002 protocol, 1003 binary, 1007 not UTF-8, 1009 too big.
    pub code: u16,
    /// What was wrong, for the close frame.
    pub reason: &'static str,
}

const fn fault(code: u16, reason: &'static str) -> Fault {
    Fault { code, reason }
}

const NOT_UTF8: Fault = fault(1007, "the text is not UTF-8");
const TOO_BIG: Fault = fault(1009, "the message is larger than 64 KiB");

/// The reading side of one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What has come of an unfinished message, then what has come of an unfinished control frame.
    held: Vec<u8>,
    /// How much of `held` is the message.
    message: u32,
    /// How much of the message is known to be UTF-8; the rest is the beginning of one character.
    valid: u32,
    /// How much of the current frame's payload is still to come.
    remaining: u32,
    /// Frames begun of an unfinished fragmented message; 0 where there is none.
    frames: u16,
    /// The mask, turned so that its first byte is for the next byte of payload.
    mask: [u8; 4],
    /// What has come of the current frame's header.
    header: [u8; MAX_HEADER],
    header_len: u8,
    stage: Stage,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Header,
    Payload,
    Ended,
}

impl Decoder {
    /// Reads one piece, unmasking it in place, and hands on the messages that are complete with it.
    ///
    /// # Errors
    /// A [`Fault`], once, after the messages before it; from then on input is ignored.
    pub fn feed(&mut self, input: &mut [u8], mut sink: impl FnMut(Message<'_>)) -> Result<(), Fault> {
        let result = self.read(input, &mut sink);
        if result.is_err() {
            self.end();
        }
        result
    }

    /// Whether nothing more is read, after a close or a fault.
    pub fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Bytes of what has come and is not handed on.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether no frame and no message is begun.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.stage == Stage::Header && self.header_len == 0 && self.frames == 0
    }

    fn end(&mut self) {
        *self = Decoder {
            stage: Stage::Ended,
            ..Decoder::default()
        };
    }

    fn read(&mut self, mut rest: &mut [u8], sink: &mut impl FnMut(Message<'_>)) -> Result<(), Fault> {
        loop {
            if self.stage == Stage::Header {
                let used = self.read_header(rest)?;
                rest = &mut rest[used..];
            }
            if self.stage != Stage::Payload {
                return Ok(());
            }
            let (piece, after) = rest.split_at_mut(rest.len().min(self.remaining as usize));
            rest = after;
            self.remaining -= piece.len() as u32;
            unmask(piece, &mut self.mask);
            match self.opcode() {
                CONTINUATION | TEXT => self.take_text(piece, sink)?,
                _ => self.take_control(piece, sink)?,
            }
            if self.remaining > 0 {
                return Ok(());
            }
            if self.stage == Stage::Payload {
                self.stage = Stage::Header;
                self.header_len = 0;
            }
        }
    }

    fn opcode(&self) -> u8 {
        self.header[0] & 0x0F
    }

    fn is_final(&self) -> bool {
        self.header[0] & 0x80 != 0
    }

    /// Gathers a header; the stage is `Payload` once it is whole. Returns how many bytes it took.
    fn read_header(&mut self, input: &[u8]) -> Result<usize, Fault> {
        let mut used = 0;
        loop {
            let needed = match (self.header_len, self.header[1] & 0x7F) {
                (0 | 1, _) => 2,
                (_, 126) => 8,
                (_, 127) => 14,
                _ => 6,
            };
            let have = usize::from(self.header_len);
            if have == needed {
                return self.begin_payload(needed).map(|()| used);
            }
            let more = (needed - have).min(input.len() - used);
            if more == 0 {
                return Ok(used);
            }
            self.header[have..have + more].copy_from_slice(&input[used..used + more]);
            self.header_len += more as u8;
            used += more;
            if have < 2 && self.header_len == 2 {
                self.check_start()?;
            }
        }
    }

    /// Judges the first two bytes, before anything else of the frame has to arrive.
    fn check_start(&self) -> Result<(), Fault> {
        let (control, open) = (self.opcode() >= CLOSE, self.frames > 0);
        match self.opcode() {
            _ if self.header[0] & 0x70 != 0 => Err(fault(1002, "a reserved bit is set")),
            0x3..=0x7 | 0xB..=0xF => Err(fault(1002, "the opcode is reserved")),
            _ if self.header[1] & 0x80 == 0 => Err(fault(1002, "a client's frame must be masked")),
            _ if control && !self.is_final() => Err(fault(1002, "a control frame is fragmented")),
            _ if control && self.header[1] & 0x7F > 125 => {
                Err(fault(1002, "a control frame is longer than 125 bytes"))
            }
            CONTINUATION if !open => Err(fault(1002, "there is no message to continue")),
            TEXT | BINARY if open => Err(fault(1002, "a message begins inside another")),
            BINARY => Err(fault(1003, "binary messages are not understood; send text")),
            _ => Ok(()),
        }
    }

    /// Reads length and mask from a whole header of `size` bytes.
    fn begin_payload(&mut self, size: usize) -> Result<(), Fault> {
        let (length, mask) = self.header[..size].split_at(size - 4);
        let (least, length) = match length {
            [_, short] => (0, u64::from(short & 0x7F)),
            [_, _, long @ ..] => {
                let value = long.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
                (if long.len() == 2 { 126 } else { 1 << 16 }, value)
            }
            _ => return Err(fault(1002, "the frame has no length")),
        };
        if length < least || length >> 63 != 0 {
            return Err(fault(1002, "the length is not in its shortest form"));
        }
        self.mask.copy_from_slice(mask);
        if self.opcode() < CLOSE {
            if length > (MAX_MESSAGE - self.message as usize) as u64 {
                return Err(TOO_BIG);
            }
            if !self.is_final() || self.frames > 0 {
                self.frames += 1;
            }
            if self.frames > MAX_FRAMES {
                return Err(fault(1009, "the message has more than 1024 frames"));
            }
        }
        self.remaining = length as u32;
        self.stage = Stage::Payload;
        Ok(())
    }

    fn take_text(&mut self, piece: &[u8], sink: &mut impl FnMut(Message<'_>)) -> Result<(), Fault> {
        let whole = self.remaining == 0 && self.is_final();
        if whole && self.message == 0 {
            sink(Message::Text(str::from_utf8(piece).map_err(|_| NOT_UTF8)?));
            self.frames = 0;
            return Ok(());
        }
        self.held.extend_from_slice(piece);
        self.message = self.held.len() as u32;
        if !whole {
            let start = self.valid as usize;
            self.valid += match str::from_utf8(&self.held[start..]) {
                Ok(text) => text.len(),
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                Err(_) => return Err(NOT_UTF8),
            } as u32;
            return Ok(());
        }
        sink(Message::Text(str::from_utf8(&self.held).map_err(|_| NOT_UTF8)?));
        self.held = Vec::new();
        (self.message, self.valid, self.frames) = (0, 0, 0);
        Ok(())
    }

    fn take_control(&mut self, piece: &[u8], sink: &mut impl FnMut(Message<'_>)) -> Result<(), Fault> {
        let message = self.message as usize;
        if self.remaining > 0 {
            self.held.extend_from_slice(piece);
            return Ok(());
        }
        if self.held.len() == message {
            return self.finish_control(piece, sink);
        }
        let mut payload = self.held.split_off(message);
        payload.extend_from_slice(piece);
        if message == 0 {
            self.held = Vec::new();
        }
        self.finish_control(&payload, sink)
    }

    fn finish_control(&mut self, payload: &[u8], sink: &mut impl FnMut(Message<'_>)) -> Result<(), Fault> {
        match self.opcode() {
            PING => sink(Message::Ping(payload)),
            PONG => sink(Message::Pong(payload)),
            _ => {
                sink(read_close(payload)?);
                self.end();
            }
        }
        Ok(())
    }
}

fn read_close(payload: &[u8]) -> Result<Message<'_>, Fault> {
    let (code, reason) = match payload {
        [] => return Ok(Message::Close(None, "")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        [_] => return Err(fault(1002, "half a close code")),
    };
    // RFC 6455, 7.4, and the registry it founded: 1004–1006 and 1015 never stand in a frame.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(fault(1002, "the close code is not one to send"));
    }
    let reason = str::from_utf8(reason).map_err(|_| NOT_UTF8)?;
    Ok(Message::Close(Some(code), reason))
}

/// Removes the mask and turns it on, so that it fits the byte that follows.
fn unmask(piece: &mut [u8], mask: &mut [u8; 4]) {
    let mut words = piece.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, key) in word.iter_mut().zip(*mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(*mask) {
        *byte ^= key;
    }
    mask.rotate_left(piece.len() % 4);
}

#[cfg(test)]
mod tests;
