//! Parses answers out of a buffer of bytes: the head, and bodies by length, chunked, or up to the close.
//!
//! Invariant: what is not whole is not taken, so that a parse can be tried again when more bytes have come.
//!
//! It does not read from a socket.

use anyhow::{Context, Result, bail};

use super::{Answer, Head, Piece};

/// Bound on an answer's head, as a guard against a server that never ends it.
const HEAD_MAX_BYTES: usize = 256 * 1024;

/// How the body of the answer that is being streamed ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Framing {
    Chunked { left: usize, first: bool },
    Length(usize),
    UntilClose,
    Done,
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

pub(super) fn parse_head(buffer: &[u8]) -> Result<Option<(Head, usize)>> {
    let Some(end) = find(buffer, b"\r\n\r\n") else {
        if buffer.len() > HEAD_MAX_BYTES {
            bail!("head of more than {HEAD_MAX_BYTES} bytes");
        }
        return Ok(None);
    };
    let text = std::str::from_utf8(&buffer[..end]).context("head is not UTF-8")?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|digits| digits.parse().ok())
        .with_context(|| format!("not an HTTP/1 status line: {first:?}"))?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("header without a colon: {line:?}"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Some((Head { status, headers }, end + 4)))
}

pub(super) fn framing(head: &Head) -> Framing {
    if matches!(head.status, 101 | 204 | 304) {
        Framing::Done
    } else if head.is_chunked() {
        Framing::Chunked { left: 0, first: true }
    } else if let Some(length) = head.header("content-length").and_then(|v| v.parse().ok()) {
        Framing::Length(length)
    } else {
        Framing::UntilClose
    }
}

/// Takes what can be taken of the body; `None` when more bytes are needed.
pub(super) fn take_piece(buffer: &mut Vec<u8>, framing: &mut Framing) -> Result<Option<Piece>> {
    match *framing {
        Framing::Done | Framing::Length(0) => Ok(Some(Piece::End)),
        _ if buffer.is_empty() => Ok(None),
        Framing::UntilClose => Ok(Some(Piece::Bytes(std::mem::take(buffer)))),
        Framing::Length(left) => {
            let take = left.min(buffer.len());
            *framing = Framing::Length(left - take);
            Ok(Some(Piece::Bytes(buffer.drain(..take).collect())))
        }
        Framing::Chunked { left: 0, first } => {
            let skip = if first { 0 } else { 2 };
            let Some(line) = buffer.get(skip..).and_then(|rest| find(rest, b"\r\n")) else {
                return Ok(None);
            };
            let size = std::str::from_utf8(&buffer[skip..skip + line])?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
                .with_context(|| format!("chunk size {size:?}"))?;
            if size == 0 {
                let Some(end) = find(&buffer[skip + line..], b"\r\n\r\n") else {
                    return Ok(None);
                };
                buffer.drain(..skip + line + end + 4);
                *framing = Framing::Done;
                return Ok(Some(Piece::End));
            }
            buffer.drain(..skip + line + 2);
            *framing = Framing::Chunked {
                left: size,
                first: false,
            };
            take_piece(buffer, framing)
        }
        Framing::Chunked { left, .. } => {
            let take = left.min(buffer.len());
            *framing = Framing::Chunked {
                left: left - take,
                first: false,
            };
            Ok(Some(Piece::Bytes(buffer.drain(..take).collect())))
        }
    }
}

/// A whole answer at the start of `buffer` and its length; interim (1xx) answers are skipped.
pub(super) fn whole_answer(buffer: &[u8], closed: bool) -> Result<Option<(Answer, usize)>> {
    let mut skipped = 0;
    loop {
        let Some((head, used)) = parse_head(&buffer[skipped..])? else {
            return Ok(None);
        };
        if head.status == 100 || head.status == 103 {
            skipped += used;
            continue;
        }
        let mut framing = framing(&head);
        if let Framing::Length(length) = framing
            && buffer.len() < skipped + used + length
        {
            return Ok(None);
        }
        if framing == Framing::UntilClose && !closed {
            return Ok(None);
        }
        let mut rest = buffer[skipped + used..].to_vec();
        let mut body = Vec::new();
        loop {
            match take_piece(&mut rest, &mut framing)? {
                Some(Piece::Bytes(bytes)) => body.extend(bytes),
                Some(Piece::End) => return Ok(Some((Answer { head, body }, buffer.len() - rest.len()))),
                _ if framing == Framing::UntilClose => framing = Framing::Done,
                _ => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn chunked_answers_are_taken_whole_or_not_at_all() {
        let wire =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nrest";
        let end = wire.len() - 4;
        for cut in 0..end {
            assert!(
                whole_answer(&wire[..cut], false).unwrap().is_none(),
                "cut at {cut}"
            );
        }
        let (answer, used) = whole_answer(wire, false).unwrap().unwrap();
        assert_eq!((answer.body.as_slice(), used), (b"abcde".as_slice(), end));
    }

    #[test]
    fn a_body_without_length_ends_with_the_connection() {
        let wire = b"HTTP/1.1 400 Bad Request\r\n\r\n{}";
        assert!(whole_answer(wire, false).unwrap().is_none());
        assert_eq!(whole_answer(wire, true).unwrap().unwrap().0.body, b"{}");
    }
}
