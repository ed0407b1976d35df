//! Users come back: all were away while a hundred notifications for each were stored; now each opens a WebSocket,
//! reads what is there, answers the server's ping and goes. So many at a time; connecting is part of it.

use super::sessions::OPENING;
use super::stream::Stream;
use crate::account::Account;
use crate::clock;
use crate::figures::Measured;
use crate::net::{Conn, Load, Message, Net, Wire};
use crate::options::How;
use crate::payload::{Numbers, Payload};
use crate::requests;
use crate::server::Server;
use anyhow::{Result, bail};
use std::time::Duration;

const USERS: usize = 10_000;
const EACH: u64 = 100;
const DATA: usize = 200;
/// How many read at a time.
const READERS: [usize; 2] = [100, 1_000];
const LIMIT: Duration = Duration::from_secs(300);
/// Bytes of the stream that may wait before more is written.
const AHEAD: usize = 256 << 10;
/// Lines in a chunk.
const LINES: usize = 100;

pub fn run(how: &How, _: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let tokens = requests::tokens(how.count(USERS))?;
    for readers in READERS {
        let server = Server::postrider(how)?;
        fill(&server, &mut measured, tokens.len(), readers)?;
        read(&server, &mut measured, &tokens, readers)?;
    }
    Ok(measured)
}

/// Stores what will be read, by one stream.
fn fill(server: &Server, measured: &mut Measured, users: usize, readers: usize) -> Result<()> {
    let mut net = Net::new(server.addr)?;
    let (payload, total) = (Payload::new(DATA), users as u64 * EACH);
    let users: Vec<String> = (0..users).map(requests::user).collect();
    let (start, cpu) = (clock::now(), server.cpu()?);
    let mut load = Reading::new(&[], 0);
    load.stream = Some(Stream::open(&mut net, 0)?);
    let end = net.run(&mut load, LIMIT, "storing", |net, load| {
        let Some(stream) = &mut load.stream else {
            return Ok(true);
        };
        while stream.sent < total && stream.waiting(net) < AHEAD {
            for _ in 0..LINES {
                let number = stream.sent;
                stream.push(&payload, Some(&users[number as usize % users.len()]), number);
            }
            stream.flush(net)?;
            if stream.sent == total {
                stream.end(net)?;
            }
        }
        Ok(stream.ended)
    })?;
    let accepted = load.stream.map_or(0, |stream| stream.accepted);
    if accepted != total {
        bail!("{accepted} of {total} were accepted");
    }
    if readers == READERS[0] {
        measured.add_rate(
            "stored by one NDJSON stream",
            total,
            end - start,
            server.cpu()? - cpu,
            "notification",
        );
    }
    Ok(())
}

/// Reads it all.
fn read(server: &Server, measured: &mut Measured, tokens: &[String], readers: usize) -> Result<()> {
    let mut net = Net::new(server.addr)?;
    let (start, cpu) = (clock::now(), server.cpu()?);
    let mut load = Reading::new(tokens, readers);
    let end = net.run(&mut load, LIMIT, "reading", |net, load| load.go_on(net))?;
    let (count, used) = (load.account.delivered(), server.cpu()? - cpu);
    measured.add_rate(&format!("{readers} at a time"), count, end - start, used, "entry");
    let memory = server.resident()? as f64 / 1e6;
    measured.add(
        format!("{readers} at a time, resident memory after it"),
        memory,
        "MB",
    );
    measured.totals.add(load.account.close(|_| EACH)?);
    Ok(())
}

struct Reading<'a> {
    tokens: &'a [String],
    readers: usize,
    account: Account,
    numbers: Numbers,
    /// Users that have begun, those whose session is open, and those that have all.
    begun: usize,
    opened: usize,
    complete: usize,
    /// Closed when their last bytes have been looked at, so that a ping among them is answered.
    leaving: Vec<Conn>,
    stream: Option<Stream>,
}

impl<'a> Reading<'a> {
    fn new(tokens: &'a [String], readers: usize) -> Reading<'a> {
        Reading {
            tokens,
            readers,
            account: Account::new(tokens.len()),
            numbers: Numbers::default(),
            begun: 0,
            opened: 0,
            complete: 0,
            leaving: Vec::new(),
            stream: None,
        }
    }

    /// Lets those go that are done, and others come. True when all have been here.
    fn go_on(&mut self, net: &mut Net) -> Result<bool> {
        for conn in self.leaving.drain(..) {
            net.close(conn)?;
        }
        while self.begun < self.tokens.len()
            && self.begun - self.complete < self.readers
            && self.begun - self.opened < OPENING
        {
            let request = requests::websocket(&self.tokens[self.begun]);
            net.open(self.begun, Wire::WebSocket, &request)?;
            self.begun += 1;
        }
        Ok(self.complete == self.tokens.len())
    }
}

impl Load for Reading<'_> {
    fn message(&mut self, _: &mut Net, conn: Conn, user: usize, message: Message<'_>) -> Result<()> {
        if let Some(stream) = &mut self.stream {
            return stream.message(message);
        }
        let text = match message {
            Message::Text(text) => text,
            Message::Opened => {
                self.opened += 1;
                return Ok(());
            }
            _ => return Ok(()),
        };
        let Some(number) = self.numbers.only(text) else {
            return Ok(());
        };
        let users = self.tokens.len() as u64;
        if number % users != user as u64 {
            bail!("user {user} got {number}, which is another's");
        }
        if self.account.received(user, number / users)? && self.account.reached(user) == EACH {
            self.complete += 1;
            self.leaving.push(conn);
        }
        Ok(())
    }
}
