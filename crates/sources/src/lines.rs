//! Splits a stream of bytes into lines, as the bytes come.
//!
//! Invariant: never holds more than one unfinished line of at most the given length; the rest of a longer
//! one is dropped up to its end, and the line is reported in its place.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

/// One line of the stream, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A whole line.
    Whole(Bytes),
    /// A line longer than allowed; its bytes are gone.
    TooLong,
    /// A line that was [given up](Lines::give_up); its bytes are gone.
    GivenUp,
}

/// An incremental splitter. Blank lines are left out.
#[derive(Debug)]
pub struct Lines {
    unfinished: BytesMut,
    /// What is reported at the end of the line that is being dropped.
    dropping: Option<Line>,
    most: usize,
}

impl Lines {
    /// Splits into lines of at most `most` bytes.
    pub fn new(most: usize) -> Lines {
        Lines {
            unfinished: BytesMut::new(),
            dropping: None,
            most,
        }
    }

    /// Takes the next bytes of the stream and appends the lines they finish.
    pub fn push(&mut self, mut bytes: Bytes, out: &mut Vec<Line>) {
        while let Some(end) = memchr(b'\n', &bytes) {
            let head = bytes.split_to(end + 1).slice(..end);
            self.finish_with(head, out);
        }
        if self.dropping.is_some() || bytes.is_empty() {
            return;
        }
        if self.unfinished.len() + bytes.len() > self.most {
            self.unfinished = BytesMut::new();
            self.dropping = Some(Line::TooLong);
        } else {
            self.unfinished.extend_from_slice(&bytes);
        }
    }

    /// Bytes that an unfinished line takes.
    pub fn held(&self) -> usize {
        self.unfinished.capacity()
    }

    /// Drops the unfinished line, where there is one, up to its end.
    pub fn give_up(&mut self) {
        if !self.unfinished.is_empty() {
            self.unfinished = BytesMut::new();
            self.dropping = Some(Line::GivenUp);
        }
    }

    /// The stream has ended: what is left is its last line.
    pub fn finish(&mut self, out: &mut Vec<Line>) {
        self.finish_with(Bytes::new(), out);
    }

    fn finish_with(&mut self, tail: Bytes, out: &mut Vec<Line>) {
        let dropped = self.dropping.take();
        let line = if self.unfinished.is_empty() {
            tail
        } else {
            self.unfinished.extend_from_slice(&tail);
            self.unfinished.split().freeze()
        };
        if let Some(why) = dropped {
            out.push(why);
        } else if line.len() > self.most {
            out.push(Line::TooLong);
        } else if !line.iter().all(u8::is_ascii_whitespace) {
            out.push(Line::Whole(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pieces: &[&[u8]], most: usize) -> Vec<Line> {
        let (mut lines, mut out) = (Lines::new(most), Vec::new());
        for piece in pieces {
            lines.push(Bytes::copy_from_slice(piece), &mut out);
            assert!(lines.unfinished.len() <= most);
        }
        lines.finish(&mut out);
        out
    }

    fn whole(text: &'static str) -> Line {
        Line::Whole(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn lines_over_pieces() {
        assert_eq!(
            split(&[b"a\nb", b"c", b"d\n", b"e"], 9),
            [whole("a"), whole("bcd"), whole("e")]
        );
        assert_eq!(split(&[b"\n \r\n\na\r\n"], 9), [whole("a\r")]);
    }

    #[test]
    fn a_long_line_is_dropped_to_its_end() {
        assert_eq!(
            split(&[b"abc", b"def", b"ghi\nok\n"], 4),
            [Line::TooLong, whole("ok")]
        );
        assert_eq!(split(&[b"abcde\nok\n"], 4), [Line::TooLong, whole("ok")]);
        assert_eq!(split(&[b"abcd\nabcde"], 4), [whole("abcd"), Line::TooLong]);
    }

    #[test]
    fn a_line_that_is_given_up_is_reported_once_in_its_place() {
        let (mut lines, mut out) = (Lines::new(99), Vec::new());
        lines.give_up();
        lines.push(Bytes::from_static(b"a\nbb"), &mut out);
        assert!(lines.held() >= 2);
        lines.give_up();
        assert_eq!(lines.held(), 0);
        lines.push(Bytes::from_static(b"bb"), &mut out);
        lines.push(Bytes::from_static(b"b\nc\n"), &mut out);
        assert_eq!(out, [whole("a"), Line::GivenUp, whole("c")]);
    }

    proptest! {
        #[test]
        fn how_the_stream_is_cut_changes_nothing(text in "[ab\n]{0,60}", cuts in proptest::collection::vec(1usize..9, 0..20)) {
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(split(&pieces, 5), split(&[text.as_bytes()], 5));
        }
    }
}
