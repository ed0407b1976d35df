//! A session by Server-Sent Events, parsed as the HTML standard says (section 9.2.6, "Interpreting an event stream").
//!
//! Invariant: a block is yielded when its blank line has come, never before; a bare `id:` block is a cursor.
//!
//! It does not reconnect by itself, and it does not follow `retry:`, which it yields.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::frame::{mark, notification};
use super::{Connect, End, Inbox, Received, Refused, is_cut};
use crate::http::{Answer, Conn, Cut, Piece};

/// A streaming session.
pub struct Sse {
    conn: Conn,
    parser: Parser,
    queue: VecDeque<Received>,
    end: Option<End>,
}

impl Sse {
    /// Opens the stream; resumes by `Last-Event-ID`, as an `EventSource` would.
    pub fn open(connect: &Connect) -> Result<Sse> {
        let mut conn = connect.endpoint.connect(connect.recv_buffer)?;
        let mut request = connect
            .request("/v1/inbox/stream", &[])
            .header("Accept", "text/event-stream");
        if let Some(cursor) = &connect.cursor {
            request = request.header("Last-Event-ID", cursor);
        }
        conn.write(&request.bytes())?;
        let deadline = connect.opening_deadline();
        let head = conn.head(deadline)?.context("no head of the stream")?;
        if head.status != 200 {
            let body = conn.rest(deadline)?;
            return Err(Refused(Answer { head, body }).into());
        }
        let content_type = head.header("content-type").unwrap_or_default();
        if !content_type.starts_with("text/event-stream") {
            bail!("an event stream of type {content_type:?}");
        }
        Ok(Sse {
            conn,
            parser: Parser::default(),
            queue: VecDeque::new(),
            end: None,
        })
    }
}

impl Inbox for Sse {
    fn next(&mut self, deadline: Instant) -> Result<Option<Received>> {
        loop {
            if let Some(received) = self.queue.pop_front() {
                return Ok(Some(received));
            }
            if let Some(end) = &self.end {
                return Ok(Some(Received::End(end.clone())));
            }
            match self.conn.piece(deadline) {
                Ok(Piece::Bytes(bytes)) => {
                    for block in self.parser.feed(&bytes)? {
                        block.yield_into(&mut self.queue)?;
                    }
                }
                Ok(Piece::End) => self.end = Some(End::Orderly),
                Ok(Piece::Timeout) => return Ok(None),
                Err(e) if is_cut(&e) => self.end = Some(End::Broken(format!("{e:#}"))),
                Err(e) => return Err(e),
            }
        }
    }

    fn send(&mut self, frame: &Value) -> Result<()> {
        bail!("an event stream cannot send {frame}")
    }

    fn cut(self: Box<Self>, how: Cut) {
        self.conn.cut(how);
    }
}

/// What stands between two blank lines, or a comment by itself.
#[derive(Debug, Default, PartialEq)]
struct Block {
    event: String,
    data: Option<String>,
    id: Option<String>,
    retry: Option<u64>,
    comment: bool,
}

impl Block {
    fn yield_into(self, queue: &mut VecDeque<Received>) -> Result<()> {
        if self.comment {
            queue.push_back(Received::KeepAlive);
        }
        if let Some(milliseconds) = self.retry {
            queue.push_back(Received::Retry(milliseconds));
        }
        if let Some(data) = self.data {
            queue.push_back(match self.event.as_str() {
                "notification" => Received::Notification(notification(&data)?),
                kind => mark(
                    kind,
                    &serde_json::from_str(&data).with_context(|| format!("{kind}: {data}"))?,
                )?,
            });
        }
        if let Some(cursor) = self.id {
            queue.push_back(Received::Cursor(cursor));
        }
        Ok(())
    }
}

/// Turns bytes into blocks. Lines end with LF, CR or CRLF; a byte order mark at the start is dropped.
#[derive(Default)]
struct Parser {
    held: Vec<u8>,
    scanned: usize,
    block: Block,
    started: bool,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Block>> {
        self.held.extend_from_slice(bytes);
        let mut blocks = Vec::new();
        let mut from = 0;
        while let Some(at) = self.held[self.scanned..]
            .iter()
            .position(|b| matches!(b, b'\n' | b'\r'))
        {
            let end = self.scanned + at;
            // A CR at the very end may be half of a CRLF: wait for what follows.
            if self.held[end] == b'\r' && end + 1 == self.held.len() {
                self.scanned = end;
                self.held.drain(..from);
                self.scanned -= from;
                return Ok(blocks);
            }
            let crlf = self.held[end] == b'\r' && self.held[end + 1] == b'\n';
            let line = std::str::from_utf8(&self.held[from..end]).context("event stream is not UTF-8")?;
            let line = if self.started {
                line
            } else {
                line.trim_start_matches('\u{feff}')
            };
            self.started = true;
            if line.is_empty() {
                let block = std::mem::take(&mut self.block);
                if block != Block::default() {
                    blocks.push(block);
                }
            } else {
                field(&mut self.block, line);
            }
            from = end + if crlf { 2 } else { 1 };
            self.scanned = from;
        }
        self.held.drain(..from);
        self.scanned = self.held.len();
        Ok(blocks)
    }
}

fn field(block: &mut Block, line: &str) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    let value = value.strip_prefix(' ').unwrap_or(value);
    match name {
        "" => block.comment = true,
        "event" => block.event = value.to_owned(),
        "data" => match &mut block.data {
            Some(data) => {
                data.push('\n');
                data.push_str(value);
            }
            None => block.data = Some(value.to_owned()),
        },
        "id" if !value.contains('\0') => block.id = Some(value.to_owned()),
        "retry" => block.retry = value.parse().ok(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const WIRE: &str = "\u{feff}retry: 3000\n\n: keep-alive\n\nevent: notification\r\ndata: {\"a\":\r\ndata:  1}\r\n\r\n\
                        id: C1\n\nevent:x\rdata\r\rignored: y\n\n";

    fn block(event: &str, data: Option<&str>, id: Option<&str>, retry: Option<u64>, comment: bool) -> Block {
        let text = |t: &str| t.to_owned();
        Block {
            event: text(event),
            data: data.map(text),
            id: id.map(text),
            retry,
            comment,
        }
    }

    #[test]
    fn blocks_do_not_depend_on_how_the_bytes_are_cut() {
        let wanted = vec![
            block("", None, None, Some(3000), false),
            block("", None, None, None, true),
            block("notification", Some("{\"a\":\n 1}"), None, None, false),
            block("", None, Some("C1"), None, false),
            block("x", Some(""), None, None, false),
        ];
        for size in 1..WIRE.len() {
            let mut parser = Parser::default();
            let mut got = Vec::new();
            for piece in WIRE.as_bytes().chunks(size) {
                got.extend(parser.feed(piece).unwrap());
            }
            assert_eq!(got, wanted, "in pieces of {size}");
        }
    }
}
