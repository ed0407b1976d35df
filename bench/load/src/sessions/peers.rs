//! The same sessions on servers that are compared with: how each of them is asked and what it answers.

use super::nats::{self, Said};
use super::{Sessions, Transport};
use crate::net::{Conn, Message, Net, Wire};
use crate::requests::{self, EVERYONE};
use crate::target::Kind;
use anyhow::{Context as _, Result, bail};
use std::collections::HashMap;

/// What is known of a peer beside its sessions.
#[derive(Default)]
pub struct Peers {
    /// Where nginx is asked how many polls wait, and whether an answer is awaited.
    status: Option<Conn>,
    asked: bool,
    /// What nats-server began to say and has not finished, by user.
    begun: HashMap<usize, Vec<u8>>,
}

impl Sessions<'_> {
    fn channel(&self, user: usize) -> &str {
        if self.hold.own {
            &self.users.names[user]
        } else {
            EVERYONE
        }
    }

    pub(super) fn peer_request(&self, user: usize) -> (Wire, Vec<u8>) {
        let (target, transport) = (self.target, self.hold.transport);
        match (target.kind, transport) {
            (Kind::Nats, _) => (Wire::Binary, requests::plain_websocket(target, "/")),
            (Kind::Floor | Kind::Postrider, _) => {
                let path = format!("/{user}");
                (Wire::WebSocket, requests::plain_websocket(target, &path))
            }
            (Kind::Nchan, transport) => {
                let path = format!("/sub/{}", self.channel(user));
                match transport {
                    Transport::WebSocket => (Wire::WebSocket, requests::plain_websocket(target, &path)),
                    Transport::LongPoll => (Wire::Http, requests::plain_get(target, &path, "")),
                    Transport::Sse => {
                        let accept = "Accept: text/event-stream\r\n";
                        (Wire::Events, requests::plain_get(target, &path, accept))
                    }
                }
            }
        }
    }

    /// How many the server has for certain. A poll that waits says nothing, so nginx is asked.
    pub(super) fn confirmed(&mut self, net: &mut Net) -> Result<usize> {
        let silent = self.target.kind == Kind::Nchan && self.hold.transport == Transport::LongPoll;
        if silent && !self.peers.asked {
            self.peers.asked = true;
            let request = requests::plain_get(self.target, "/status", "");
            match self.peers.status {
                Some(conn) => net.send(conn, &request)?,
                None => self.peers.status = Some(net.open(self.status_tag(), Wire::Http, &request)?),
            }
        }
        Ok(self.opened)
    }

    /// Takes what nginx said of itself.
    ///
    /// # Errors
    /// It is not what was asked for.
    pub fn status(&mut self, message: &Message<'_>) -> Result<()> {
        let Message::Answer {
            status: 200, body, ..
        } = message
        else {
            bail!("the peer's status is {message:?}");
        };
        let text = std::str::from_utf8(body)?;
        let count = text.lines().find_map(|line| line.strip_prefix("subscribers:"));
        self.opened = count.context("a status without subscribers")?.trim().parse()?;
        self.peers.asked = false;
        Ok(())
    }

    pub(super) fn peer_message(
        &mut self,
        net: &mut Net,
        conn: Conn,
        user: usize,
        message: Message<'_>,
        mut received: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        match (self.target.kind, message) {
            // It is no session before it has subscribed.
            (Kind::Nats, Message::Opened) | (_, Message::Ping(_)) => {}
            (_, Message::Opened) => self.opened += 1,
            (Kind::Nats, Message::Text(text)) => return self.nats(net, conn, user, text, received),
            (_, Message::Text(text) | Message::Event(text)) => {
                if let Some(number) = self.numbers.only(text) {
                    received(number)?;
                }
            }
            (
                Kind::Nchan,
                Message::Answer {
                    status: 200,
                    head,
                    body,
                },
            ) => {
                self.numbers.all(body).try_for_each(received)?;
                let path = format!("/sub/{}", self.channel(user));
                let place = format!(
                    "If-Modified-Since: {}\r\nIf-None-Match: {}\r\n",
                    header(head, "last-modified")?,
                    header(head, "etag")?
                );
                net.send(conn, &requests::plain_get(self.target, &path, &place))?;
            }
            (_, other) => bail!("unexpected for user {user}: {other:?}"),
        }
        Ok(())
    }

    fn nats(
        &mut self,
        net: &mut Net,
        conn: Conn,
        user: usize,
        text: &[u8],
        mut received: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let begun = self.peers.begun.remove(&user).map(|mut begun| {
            begun.extend_from_slice(text);
            begun
        });
        let mut rest = begun.as_deref().unwrap_or(text);
        while let Some((length, said)) = nats::next(rest)? {
            rest = &rest[length..];
            match said {
                Said::Info => {
                    let hello = format!(
                        "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {} 1\r\nPING\r\n",
                        self.channel(user)
                    );
                    net.send(conn, &requests::client_frame(0x2, hello.as_bytes()))?;
                }
                Said::Pong => self.opened += 1,
                Said::Ping => net.send(conn, &requests::client_frame(0x2, b"PONG\r\n"))?,
                Said::Message(body) => {
                    if let Some(number) = self.numbers.only(body) {
                        received(number)?;
                    }
                }
            }
        }
        if !rest.is_empty() {
            self.peers.begun.insert(user, rest.to_vec());
        }
        Ok(())
    }
}

fn header<'a>(head: &'a [u8], name: &str) -> Result<&'a str> {
    let text = std::str::from_utf8(head)?;
    text.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .with_context(|| format!("an answer without {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_whatever_their_case() {
        let head = b"HTTP/1.1 200 OK\r\nLast-Modified: Sat\r\nETag: 3\r\n\r\n";
        assert_eq!(header(head, "last-modified").unwrap(), "Sat");
        assert_eq!(header(head, "etag").unwrap(), "3");
        assert!(header(head, "date").is_err());
    }
}
