//! From publish to receive: each notification is one HTTP request to one connected user, at a steady rate.
//!
//! Invariant: a delivery's time counts from the moment its publish was due, whether or not a connection was free to
//! send it then; so a server that stalls cannot hide it by slowing its publishers.

use super::sessions::{Sessions, Transport};
use crate::account::Account;
use crate::clock;
use crate::figures::Measured;
use crate::histogram::Histogram;
use crate::net::{Conn, Load, Message, Net, Wire};
use crate::options::How;
use crate::payload::Payload;
use crate::requests;
use crate::server::Server;
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

const USERS: usize = 1_000;
const DATA: usize = 200;
const RATES: [u32; 2] = [200, 2_000];
const TIME: Duration = Duration::from_secs(8);
/// Deliveries of the beginning that are checked, but not measured.
const WARM_UP: Duration = Duration::from_millis(500);
/// Connections that publish.
const PUBLISHERS: usize = 64;
const GRACE: Duration = Duration::from_secs(30);
/// Nearer than this the next publish is waited for by looking at the clock: a poll would oversleep.
const SPIN: Duration = Duration::from_millis(1);

pub fn run(how: &How, _: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let tokens = requests::tokens(USERS)?;
    for transport in Transport::ALL {
        let server = Server::postrider(how)?;
        let mut net = Net::new(server.addr)?;
        let mut load = Timed::new(Sessions::new(transport, &tokens));
        net.run(&mut load, GRACE, "opening sessions", |net, l| {
            l.sessions.open_more(net)
        })?;
        for publisher in 0..PUBLISHERS {
            let request = load.request();
            net.open(USERS + publisher, Wire::Http, &request)?;
        }
        net.run(&mut load, GRACE, "first deliveries", |_, l| Ok(l.is_quiet()))?;
        for rate in RATES {
            let cpu = server.cpu()?;
            let count = load.at_rate(&mut net, rate, how.time(TIME))?;
            let used = server.cpu()? - cpu;
            let name = format!("{}, {rate}/s", transport.name());
            for (label, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
                measured.add(format!("{name}, {label}"), load.took.quantile_ms(share), "ms");
            }
            measured.add(format!("{name}, longest"), load.took.max_ms(), "ms");
            let each = crate::figures::micros_each(used, count);
            measured.add(format!("{name}, server CPU"), each, "µs/notification");
        }
        let sent = load.next;
        let counts = |user: usize| (sent + (USERS - 1 - user) as u64) / USERS as u64;
        measured.totals.add(load.account.close(counts)?);
    }
    Ok(measured)
}

struct Timed<'a> {
    sessions: Sessions<'a>,
    account: Account,
    payload: Payload,
    users: Vec<String>,
    /// Connections that wait for nothing.
    idle: Vec<Conn>,
    next: u64,
    /// The first number that is measured, when the first was due, and the time between two.
    schedule: Option<(u64, u64, Instant, Duration)>,
    took: Histogram,
}

impl<'a> Timed<'a> {
    fn new(sessions: Sessions<'a>) -> Timed<'a> {
        Timed {
            sessions,
            account: Account::new(USERS),
            payload: Payload::new(DATA),
            users: (0..USERS).map(requests::user).collect(),
            idle: Vec::new(),
            next: 0,
            schedule: None,
            took: Histogram::default(),
        }
    }

    fn request(&mut self) -> Vec<u8> {
        let (mut body, mut request) = (Vec::new(), Vec::new());
        let user = &self.users[self.next as usize % USERS];
        self.payload.push(&mut body, Some(user), self.next);
        requests::publish(&mut request, &body);
        self.next += 1;
        request
    }

    /// Everything is answered and delivered.
    fn is_quiet(&self) -> bool {
        self.idle.len() == PUBLISHERS && self.account.delivered() == self.next
    }

    /// Publishes at a rate for a time; how many.
    fn at_rate(&mut self, net: &mut Net, rate: u32, time: Duration) -> Result<u64> {
        let (start, interval, first) = (clock::now(), Duration::from_secs(1) / rate, self.next);
        let warm_up = WARM_UP.as_millis() as u64 * u64::from(rate) / 1000;
        self.schedule = Some((first + warm_up, first, start, interval));
        self.took = Histogram::default();
        let mut due = start;
        while due < start + time {
            let now = clock::now();
            if now > start + time + GRACE {
                bail!("the server does not take {rate} publishes a second");
            }
            if due <= now
                && let Some(conn) = self.idle.pop()
            {
                let request = self.request();
                net.send(conn, &request)?;
                due += interval;
            } else if due > now + SPIN {
                net.turn(due - now - SPIN, self)?;
            } else {
                net.turn(Duration::ZERO, self)?;
            }
        }
        net.run(self, GRACE, "the last deliveries", |_, l| Ok(l.is_quiet()))?;
        Ok(self.next - first)
    }
}

impl Load for Timed<'_> {
    fn message(&mut self, net: &mut Net, conn: Conn, tag: usize, message: Message<'_>) -> Result<()> {
        if tag >= USERS {
            match message {
                Message::Answer { status: 202, .. } => self.idle.push(conn),
                other => bail!("a publish was answered with {other:?}"),
            }
            return Ok(());
        }
        let Timed {
            sessions,
            account,
            took,
            schedule,
            ..
        } = self;
        sessions.message(net, conn, tag, message, |number| {
            if number % USERS as u64 != tag as u64 {
                bail!("user {tag} got {number}, which is another's");
            }
            let new = account.received(tag, number / USERS as u64)?;
            if let Some((measured, first, start, interval)) = *schedule
                && new
                && number >= measured
            {
                let due = start + interval * u32::try_from(number - first)?;
                took.record(clock::now().saturating_duration_since(due));
            }
            Ok(())
        })
    }
}
