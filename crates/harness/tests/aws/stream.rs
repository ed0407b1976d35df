//! A client of `GET /notifications` as phones have it: a token, no framing but HTTP's, and bodies one after another.
//!
//! Invariant: what was read is taken off by who expects it; what comes beyond that is kept and seen by the next look.
//!
//! It cannot tell where a body ends, which the dialect does not say either: who sends knows.

use anyhow::{Context as _, Result, bail, ensure};
use postrider_harness::http::{Conn, Cut, Piece, Request};
use postrider_harness::node::Node;
use postrider_harness::token;
use postrider_harness::wait::within;

/// How long the next bytes may take.
const PATIENCE: u64 = 90;

/// One open stream.
pub struct Stream {
    conn: Conn,
    read: Vec<u8>,
}

impl Stream {
    /// Opens one as this user; the head is as the contract has it.
    pub fn open(node: &Node, user: &str) -> Result<Stream> {
        Stream::over(node.endpoint.connect(None)?, user)
    }

    /// Over a connection that is there.
    pub fn over(mut conn: Conn, user: &str) -> Result<Stream> {
        let request = Request::new("GET", "/notifications").bearer(&token::user(user)?);
        conn.write(&request.bytes())?;
        let head = conn.head(within(PATIENCE))?.context("no head")?;
        ensure!(
            head.status == 200
                && head.header("content-type") == Some("text/event-stream")
                && head.header("cache-control") == Some("no-cache"),
            "{head:?}"
        );
        Ok(Stream {
            conn,
            read: Vec::new(),
        })
    }

    /// The next bytes, so many of them.
    pub fn take(&mut self, length: usize) -> Result<String> {
        while self.read.len() < length {
            match self.conn.piece(within(PATIENCE))? {
                Piece::Bytes(bytes) => self.read.extend(bytes),
                other => bail!("{other:?} after {} of {length} bytes", self.read.len()),
            }
        }
        Ok(String::from_utf8(self.read.drain(..length).collect())?)
    }

    /// Exactly this comes next.
    pub fn expect(&mut self, body: &str) -> Result<()> {
        let read = self.take(body.len())?;
        ensure!(read == body, "{read:?} instead of {body:?}");
        Ok(())
    }

    /// Bodies of one length, sorted: so many come next, in any order.
    pub fn bodies(&mut self, count: usize, length: usize) -> Result<Vec<String>> {
        let mut bodies: Vec<String> = (0..count).map(|_| self.take(length)).collect::<Result<_>>()?;
        bodies.sort();
        Ok(bodies)
    }

    /// Leaves as a phone does that is switched off.
    pub fn leave(self) {
        self.conn.cut(Cut::Reset);
    }
}
