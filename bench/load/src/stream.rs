//! A publisher that streams NDJSON, and checks that every line is accepted.

use crate::net::{Conn, Message, Net, Wire};
use crate::payload::Payload;
use crate::requests;
use crate::target::Target;
use anyhow::{Result, bail};
use memchr::{memchr_iter, memmem};

/// One request that carries many notifications.
pub struct Stream {
    conn: Conn,
    lines: Vec<u8>,
    /// Lines put in.
    pub sent: u64,
    /// Lines the server accepted.
    pub accepted: u64,
    /// The answer is complete.
    pub ended: bool,
}

impl Stream {
    /// Begins the request.
    ///
    /// # Errors
    /// There is no connection to be had.
    pub fn open(net: &mut Net, target: &Target, tag: usize) -> Result<Stream> {
        Ok(Stream {
            conn: net.open(tag, Wire::Chunked, &requests::stream_head(target))?,
            lines: Vec::new(),
            sent: 0,
            accepted: 0,
            ended: false,
        })
    }

    /// Adds a line to the next chunk.
    pub fn push(&mut self, payload: &Payload, user: Option<&str>, number: u64) {
        payload.push(&mut self.lines, user, number);
        self.lines.push(b'\n');
        self.sent += 1;
    }

    /// Sends what was added.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn flush(&mut self, net: &mut Net) -> Result<()> {
        if !self.lines.is_empty() {
            let mut chunk = Vec::with_capacity(self.lines.len() + 16);
            requests::push_chunk(&mut chunk, &self.lines);
            self.lines.clear();
            net.send(self.conn, &chunk)?;
        }
        Ok(())
    }

    /// Bytes the socket has not taken.
    pub fn waiting(&self, net: &Net) -> usize {
        net.waiting(self.conn)
    }

    /// No more lines will come.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn end(&mut self, net: &mut Net) -> Result<()> {
        self.flush(net)?;
        net.send(self.conn, requests::LAST_CHUNK)
    }

    /// What the server said.
    ///
    /// # Errors
    /// It refused a line.
    pub fn message(&mut self, message: Message<'_>) -> Result<()> {
        match message {
            Message::Opened => {}
            Message::Chunk(lines) => {
                let count = memchr_iter(b'\n', lines).count();
                if count != memmem::find_iter(lines, b"\"accepted\":true").count() {
                    bail!("not all were accepted: {}", String::from_utf8_lossy(lines));
                }
                self.accepted += count as u64;
            }
            Message::End => self.ended = true,
            other => bail!("unexpected on a stream: {other:?}"),
        }
        Ok(())
    }
}
