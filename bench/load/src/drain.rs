//! Users come back: all were away while notifications for each were stored; now each opens a WebSocket, reads what
//! is there, answers the server's ping and goes. So many at a time; connecting is part of it.

use crate::account::{Account, Totals};
use crate::clock;
use crate::histogram::Histogram;
use crate::net::{Conn, Load, Message, Net, Wire};
use crate::payload::{Numbers, Payload};
use crate::requests;
use crate::sessions::OPENING;
use crate::stream::Stream;
use crate::target::{Target, Users};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How long storing may take, and reading.
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes of the stream that may wait before more is written.
const AHEAD: usize = 256 << 10;
/// Lines in a chunk.
const LINES: usize = 100;

/// What will be stored for whom.
pub struct Backlog<'a> {
    /// Where.
    pub target: &'a Target,
    /// For whom.
    pub users: &'a Users,
    /// What each notification holds.
    pub payload: &'a Payload,
    /// How many for each user.
    pub each: u64,
}

/// What reading it took.
pub struct Drained {
    /// From the first connection to the last entry.
    pub time: Duration,
    /// From connecting until a user had all.
    pub took: Histogram,
    /// What was read.
    pub totals: Totals,
}

impl Backlog<'_> {
    /// Stores it all by one stream; how long that took.
    ///
    /// # Errors
    /// Not all was accepted in time.
    pub fn store(&self) -> Result<Duration> {
        let mut net = Net::new(self.target.addr)?;
        let names = &self.users.names;
        let total = names.len() as u64 * self.each;
        let start = clock::now();
        let mut load = Storing(Stream::open(&mut net, self.target, 0)?);
        let end = net.run(&mut load, LIMIT, "storing", |net, Storing(stream)| {
            while stream.sent < total && stream.waiting(net) < AHEAD {
                for _ in 0..LINES.min((total - stream.sent) as usize) {
                    let number = stream.sent;
                    let user = &names[(number % names.len() as u64) as usize];
                    stream.push(self.payload, Some(user), number);
                }
                stream.flush(net)?;
                if stream.sent == total {
                    stream.end(net)?;
                }
            }
            Ok(stream.ended)
        })?;
        if load.0.accepted != total {
            bail!("{} of {total} were accepted", load.0.accepted);
        }
        Ok(end - start)
    }

    /// Reads it all, `readers` users at a time.
    ///
    /// # Errors
    /// Not all was read in time, or something was lost.
    pub fn read(&self, readers: usize) -> Result<Drained> {
        let mut net = Net::new(self.target.addr)?;
        let start = clock::now();
        let mut load = Reading {
            backlog: self,
            readers,
            account: Account::new(self.users.count()),
            numbers: self.payload.numbers(),
            began: vec![start; self.users.count()],
            took: Histogram::default(),
            begun: 0,
            opened: 0,
            complete: 0,
            leaving: Vec::new(),
        };
        let end = net.run(&mut load, LIMIT, "reading", |net, load| load.go_on(net))?;
        Ok(Drained {
            time: end - start,
            took: load.took,
            totals: load.account.close(|_| self.each)?,
        })
    }
}

struct Storing(Stream);

impl Load for Storing {
    fn message(&mut self, _: &mut Net, _: Conn, _: usize, message: Message<'_>) -> Result<()> {
        self.0.message(message)
    }
}

struct Reading<'a> {
    backlog: &'a Backlog<'a>,
    readers: usize,
    account: Account,
    numbers: Numbers,
    /// When each user began to connect.
    began: Vec<Instant>,
    took: Histogram,
    /// Users that have begun, those whose session is open, and those that have all.
    begun: usize,
    opened: usize,
    complete: usize,
    /// Closed when their last bytes have been looked at, so that a ping among them is answered.
    leaving: Vec<Conn>,
}

impl Reading<'_> {
    /// Lets those go that are done, and others come. True when all have been here.
    fn go_on(&mut self, net: &mut Net) -> Result<bool> {
        for conn in self.leaving.drain(..) {
            net.close(conn)?;
        }
        let tokens = &self.backlog.users.tokens;
        while self.begun < tokens.len()
            && self.begun - self.complete < self.readers
            && self.begun - self.opened < OPENING
        {
            let request = requests::websocket(self.backlog.target, &tokens[self.begun], "");
            self.began[self.begun] = clock::now();
            net.open(self.begun, Wire::WebSocket, &request)?;
            self.begun += 1;
        }
        Ok(self.complete == tokens.len())
    }
}

impl Load for Reading<'_> {
    fn message(&mut self, net: &mut Net, conn: Conn, user: usize, message: Message<'_>) -> Result<()> {
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
        let users = self.backlog.users.count() as u64;
        if number % users != user as u64 {
            bail!("user {user} got {number}, which is another's");
        }
        if self.account.received(user, number / users)? && self.account.reached(user) == self.backlog.each {
            self.took
                .record(net.now().saturating_duration_since(self.began[user]));
            self.complete += 1;
            self.leaving.push(conn);
        }
        Ok(())
    }
}
