//! Sessions of many users, one each, over one transport: opened a few at a time, and what they are sent.

use super::readback::cursor;
use crate::net::{Conn, Message, Net, Wire};
use crate::payload::{Numbers, all_numbers};
use crate::requests;
use anyhow::{Result, bail};
use memchr::memmem;

/// Connections that are being opened at the same time: fewer than a listener's backlog, since one that does not
/// fit there waits a second for TCP to try again.
pub const OPENING: usize = 64;

/// How a session is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    LongPoll,
    Sse,
    WebSocket,
}

impl Transport {
    pub const ALL: [Transport; 3] = [Transport::LongPoll, Transport::Sse, Transport::WebSocket];

    pub fn name(self) -> &'static str {
        match self {
            Transport::LongPoll => "long poll",
            Transport::Sse => "SSE",
            Transport::WebSocket => "WebSocket",
        }
    }
}

/// One session for each token; a connection's tag is its user's number.
pub struct Sessions<'a> {
    transport: Transport,
    tokens: &'a [String],
    begun: usize,
    opened: usize,
    /// Where a poll has been answered for the first time.
    polled: Vec<bool>,
    numbers: Numbers,
}

impl<'a> Sessions<'a> {
    pub fn new(transport: Transport, tokens: &'a [String]) -> Sessions<'a> {
        Sessions {
            transport,
            tokens,
            begun: 0,
            opened: 0,
            polled: vec![false; tokens.len()],
            numbers: Numbers::default(),
        }
    }

    /// Opens more, if few are being opened. True when all are open.
    pub fn open_more(&mut self, net: &mut Net) -> Result<bool> {
        while self.begun < self.tokens.len() && self.begun - self.opened < OPENING {
            let token = &self.tokens[self.begun];
            let (wire, request) = match self.transport {
                // The first poll does not wait: its answer says that the inbox is known.
                Transport::LongPoll => (Wire::Http, requests::poll(token, "wait=0")),
                Transport::Sse => (Wire::Events, requests::events(token)),
                Transport::WebSocket => (Wire::WebSocket, requests::websocket(token)),
            };
            net.open(self.begun, wire, &request)?;
            self.begun += 1;
        }
        Ok(self.opened == self.tokens.len())
    }

    /// Takes what came on a session's connection; `received` is told each number.
    pub fn message(
        &mut self,
        net: &mut Net,
        conn: Conn,
        user: usize,
        message: Message<'_>,
        mut received: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        match message {
            Message::Opened => self.opened += 1,
            Message::Text(text) | Message::Event(text) => match self.numbers.only(text) {
                Some(number) => received(number)?,
                None => self.other(text)?,
            },
            Message::Answer { status: 200, body } => {
                self.other(body)?;
                all_numbers(body).try_for_each(received)?;
                let query = format!("wait=120&cursor={}", cursor(body)?);
                net.send(conn, &requests::poll(&self.tokens[user], &query))?;
                self.opened += usize::from(!std::mem::replace(&mut self.polled[user], true));
            }
            Message::Ping(_) => {}
            other => bail!("unexpected for user {user}: {other:?}"),
        }
        Ok(())
    }

    /// Hellos, cursors and the like are no deliveries; anything that tells of a loss ends the run.
    fn other(&self, text: &[u8]) -> Result<()> {
        const BAD: [&[u8]; 4] = [
            b"\"gap\":true",
            b"\"type\":\"gap\"",
            b"\"type\":\"error\"",
            b"event: gap",
        ];
        if BAD.iter().any(|bad| memmem::find(text, bad).is_some()) {
            bail!("the server told of a loss: {}", String::from_utf8_lossy(text));
        }
        Ok(())
    }
}
