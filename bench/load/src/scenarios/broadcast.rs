//! One notification to every session, with a number of publications in flight: one is in flight until every session
//! has it. Ours are stored, synced and acknowledged (the load answers pings, as browsers do); beside it, in the
//! same run, the floor, which only copies bytes to sockets.

use super::sessions::{Sessions, Transport};
use super::stream::Stream;
use crate::account::Account;
use crate::clock;
use crate::figures::{Measured, micros_each};
use crate::floor;
use crate::net::{Conn, Load, Message, Net, Wire};
use crate::options::How;
use crate::payload::Payload;
use crate::requests;
use crate::server::Server;
use anyhow::{Context as _, Result};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const SESSIONS: usize = 5_000;
const DATA: usize = 128;
const WINDOWS: [u64; 2] = [1, 16];
const TIME: Duration = Duration::from_secs(6);
/// After the last delivery: acks that are due by then are paid for too.
const TRAIL: Duration = Duration::from_millis(1_500);
const LIMIT: Duration = Duration::from_secs(60);

pub fn run(how: &How, _: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let tokens = requests::tokens(how.count(SESSIONS))?;
    one(&mut measured, how, true, &tokens)?;
    one(&mut measured, how, false, &tokens)?;
    for window in WINDOWS {
        let cpu = |who: &str| measured.value(&format!("{who}W = {window}, server CPU"));
        let ratio = cpu("") / cpu("floor, ").max(0.001);
        measured.add(format!("W = {window}, server CPU ÷ floor"), ratio, "");
    }
    Ok(measured)
}

/// Measures the product, or the floor.
fn one(measured: &mut Measured, how: &How, product: bool, tokens: &[String]) -> Result<()> {
    let server = if product {
        Server::postrider(how)?
    } else {
        Server::floor(how)?
    };
    let mut net = Net::new(server.addr)?;
    let mut load = Fan::new(tokens);
    net.run(&mut load, LIMIT, "opening sessions", |net, l| {
        l.sessions.open_more(net)
    })?;
    load.publisher = Some(Publisher::open(&mut net, product, tokens.len())?);
    for window in WINDOWS {
        let (cpu, before) = (server.cpu()?, load.account.delivered());
        let start = clock::now();
        let until = start + how.time(TIME);
        let end = net.run(&mut load, LIMIT, "deliveries", |net, load| {
            load.keep(net, window, until)
        })?;
        let trail = end + TRAIL;
        net.run(&mut load, LIMIT, "acks", |_, _| Ok(clock::now() >= trail))?;
        let (cpu, count) = (server.cpu()? - cpu, load.account.delivered() - before);
        let name = format!("{}W = {window}", if product { "" } else { "floor, " });
        measured.add(
            name.clone(),
            count as f64 / (end - start).as_secs_f64(),
            "deliveries/s",
        );
        measured.add(
            format!("{name}, server CPU"),
            micros_each(cpu, count),
            "µs/delivery",
        );
    }
    let sent = load.next;
    measured.totals.add(load.account.close(|_| sent)?);
    Ok(())
}

struct Fan<'a> {
    sessions: Sessions<'a>,
    account: Account,
    publisher: Option<Publisher>,
    payload: Payload,
    next: u64,
    /// How many sessions have yet to get each publication in flight, the oldest first.
    missing: VecDeque<usize>,
    receivers: usize,
}

impl<'a> Fan<'a> {
    fn new(tokens: &'a [String]) -> Fan<'a> {
        Fan {
            sessions: Sessions::new(Transport::WebSocket, tokens),
            account: Account::new(tokens.len()),
            publisher: None,
            payload: Payload::new(DATA),
            next: 0,
            missing: VecDeque::new(),
            receivers: tokens.len(),
        }
    }

    /// Publishes as long as there is time and room in the window. True when the time is up and all is delivered.
    fn keep(&mut self, net: &mut Net, window: u64, until: Instant) -> Result<bool> {
        let publisher = self.publisher.as_mut().context("no publisher")?;
        let go_on = clock::now() < until;
        if go_on && (self.missing.len() as u64) < window {
            while (self.missing.len() as u64) < window {
                publisher.push(&self.payload, self.next);
                self.missing.push_back(self.receivers);
                self.next += 1;
            }
            publisher.flush(net)?;
        }
        Ok(!go_on && self.missing.is_empty() && publisher.accepted(self.next))
    }
}

impl Load for Fan<'_> {
    fn message(&mut self, net: &mut Net, conn: Conn, tag: usize, message: Message<'_>) -> Result<()> {
        let Fan {
            sessions,
            account,
            publisher,
            missing,
            next,
            receivers,
            ..
        } = self;
        if tag == *receivers {
            return publisher.as_mut().context("no publisher")?.message(message);
        }
        sessions.message(net, conn, tag, message, |number| {
            if account.received(tag, number)? {
                let oldest = *next - missing.len() as u64;
                let left = number
                    .checked_sub(oldest)
                    .and_then(|at| missing.get_mut(at as usize))
                    .with_context(|| format!("{number} was delivered before, or not sent yet"))?;
                *left -= 1;
                while missing.front() == Some(&0) {
                    missing.pop_front();
                }
            }
            Ok(())
        })
    }
}

/// Where publications go in.
enum Publisher {
    Product(Stream),
    Floor(Conn, Vec<u8>),
}

impl Publisher {
    fn open(net: &mut Net, product: bool, tag: usize) -> Result<Publisher> {
        if product {
            return Ok(Publisher::Product(Stream::open(net, tag)?));
        }
        Ok(Publisher::Floor(
            net.open(tag, Wire::Http, floor::PUBLISHER)?,
            Vec::new(),
        ))
    }

    fn push(&mut self, payload: &Payload, number: u64) {
        match self {
            Publisher::Product(stream) => stream.push(payload, None, number),
            Publisher::Floor(_, lines) => floor::push_line(lines, payload, number),
        }
    }

    fn flush(&mut self, net: &mut Net) -> Result<()> {
        match self {
            Publisher::Product(stream) => stream.flush(net),
            Publisher::Floor(conn, lines) => net.send(*conn, &std::mem::take(lines)),
        }
    }

    /// Whether all of these were accepted; the floor does not tell.
    fn accepted(&self, sent: u64) -> bool {
        match self {
            Publisher::Product(stream) => stream.accepted == sent,
            Publisher::Floor(..) => true,
        }
    }

    fn message(&mut self, message: Message<'_>) -> Result<()> {
        match self {
            Publisher::Product(stream) => stream.message(message),
            Publisher::Floor(..) => Ok(()),
        }
    }
}
