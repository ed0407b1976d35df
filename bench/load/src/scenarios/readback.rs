//! Reads every inbox after a run, to see that all that was accepted is there, once and in order.

use super::stage::TAG;
use crate::server::Server;
use anyhow::{Result, bail};
use postrider_bench_load::account::{Account, Totals};
use postrider_bench_load::net::{Conn, Load, Message, Net, Wire};
use postrider_bench_load::payload::{Numbers, Payload};
use postrider_bench_load::requests;
use postrider_bench_load::sessions::cursor;
use postrider_bench_load::target::{Target, Users};
use std::time::Duration;

/// Connections that read, one inbox after the other.
const READERS: usize = 64;
const LIMIT: Duration = Duration::from_secs(120);

/// Reads all inboxes by long poll. User `u` was sent `counts[u]` notifications, whose numbers are `u`,
/// `u + users`, `u + 2 · users` … in this order.
pub fn read_all(server: &Server, users: &Users, counts: &[u64]) -> Result<Totals> {
    let mut net = Net::new(server.target.addr)?;
    let tokens = &users.tokens;
    let mut reading = Reading {
        target: &server.target,
        numbers: Payload::new(0, TAG).numbers(),
        tokens,
        counts,
        account: Account::new(tokens.len()),
        current: vec![0; READERS],
        next: 0,
        working: 0,
    };
    for reader in 0..READERS.min(tokens.len()) {
        let user = reading.take(reader);
        let request = requests::poll(&server.target, &tokens[user], QUERY);
        net.open(reader, Wire::Http, &request)?;
    }
    net.run(&mut reading, LIMIT, "reading all inboxes", |_, r| {
        Ok(r.working == 0)
    })?;
    reading.account.close(|user| counts[user])
}

const QUERY: &str = "ack=none&wait=0&limit=1000";

struct Reading<'a> {
    target: &'a Target,
    numbers: Numbers,
    tokens: &'a [String],
    counts: &'a [u64],
    account: Account,
    /// The user each connection is at.
    current: Vec<usize>,
    next: usize,
    working: usize,
}

impl Reading<'_> {
    fn take(&mut self, reader: usize) -> usize {
        self.current[reader] = self.next;
        self.next += 1;
        self.working += 1;
        self.current[reader]
    }
}

impl Load for Reading<'_> {
    fn message(&mut self, net: &mut Net, conn: Conn, reader: usize, message: Message<'_>) -> Result<()> {
        let Message::Answer {
            status: 200, body, ..
        } = message
        else {
            bail!("a poll was answered with {message:?}");
        };
        let user = self.current[reader];
        let users = self.tokens.len() as u64;
        let mut any = false;
        for number in self.numbers.all(body) {
            any = true;
            if number % users != user as u64 {
                bail!("user {user} got {number}, which is another's");
            }
            self.account.received(user, number / users)?;
        }
        if any && self.account.reached(user) < self.counts[user] {
            let query = format!("{QUERY}&cursor={}", cursor(body)?);
            return net.send(conn, &requests::poll(self.target, &self.tokens[user], &query));
        }
        // Complete, or nothing more comes; the books tell which.
        self.working -= 1;
        if self.next < self.tokens.len() {
            let user = self.take(reader);
            net.send(conn, &requests::poll(self.target, &self.tokens[user], QUERY))?;
        }
        Ok(())
    }
}
