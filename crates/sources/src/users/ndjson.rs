//! Users as NDJSON: one JSON object on every line.

use super::{LINE_BYTES, UserFault, UserLine, json};
use crate::{InputFault, Line, Lines};
use bytes::Bytes;
use memchr::memchr;

/// Reads users line by line.
#[derive(Debug)]
pub struct NdjsonUsers {
    lines: Lines,
    /// What of the last piece has not been looked at.
    piece: Bytes,
    /// Lines that have ended.
    ended: u64,
    /// The input is over, and its last line was not taken yet.
    is_finished: bool,
}

impl Default for NdjsonUsers {
    fn default() -> NdjsonUsers {
        NdjsonUsers {
            lines: Lines::new(LINE_BYTES),
            piece: Bytes::new(),
            ended: 0,
            is_finished: false,
        }
    }
}

impl NdjsonUsers {
    /// See [`UserReader`](super::UserReader).
    pub fn push(&mut self, bytes: Bytes) {
        self.piece = bytes;
    }

    /// See [`UserReader`](super::UserReader).
    pub fn finish(&mut self) {
        self.is_finished = true;
    }

    /// The next user of what has come.
    pub fn take(&mut self) -> Option<UserLine> {
        // The splitter leaves out blank lines: it is given one line at a time, so that they are counted.
        let mut line = Vec::with_capacity(1);
        while let Some(end) = memchr(b'\n', &self.piece) {
            self.lines.push(self.piece.split_to(end + 1), &mut line);
            self.ended += 1;
            if let Some(line) = line.pop() {
                return Some(numbered(self.ended, line));
            }
        }
        self.lines.push(std::mem::take(&mut self.piece), &mut line);
        if self.is_finished {
            self.is_finished = false;
            self.lines.finish(&mut line);
        }
        line.pop().map(|line| numbered(self.ended + 1, line))
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.piece.len() + self.lines.held()
    }
}

fn numbered(number: u64, line: Line) -> UserLine {
    let (bytes, user) = match line {
        Line::Whole(line) => {
            // What editors put at the begin of a file (a byte order mark) is no part of it.
            let text = match number {
                1 => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line),
                _ => &line,
            };
            (line.len(), json::decode_line(text).map_err(UserFault::from))
        }
        Line::TooLong | Line::GivenUp => {
            let detail = format!("the line is longer than {LINE_BYTES} bytes");
            (0, Err(InputFault::too_large(None, detail).into()))
        }
    };
    UserLine { number, bytes, user }
}
