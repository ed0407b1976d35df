//! What a session at rest costs: resident bytes of the process, and CPU while nothing happens. At the end one
//! notification to everyone shows that every session is alive.

use super::sessions::{Sessions, Transport};
use crate::account::Account;
use crate::clock;
use crate::figures::Measured;
use crate::floor;
use crate::net::{Conn, Load, Message, Net, Wire};
use crate::options::How;
use crate::payload::Payload;
use crate::requests;
use crate::server::Server;
use anyhow::{Result, bail};
use std::time::Duration;

const USERS: usize = 10_000;
/// Rest before memory is looked at: a server may let go of what it needed to open sessions.
const QUIET: Duration = Duration::from_secs(10);
/// How long CPU is watched; in the first run only, as it hardly varies.
const WATCHED: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(60);

pub fn run(how: &How, nth: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let tokens = requests::tokens(how.count(USERS))?;
    for transport in Transport::ALL {
        let watched = (nth == 0).then(|| how.time(WATCHED));
        one(&mut measured, how, Some(transport), &tokens, watched)?;
    }
    one(&mut measured, how, None, &tokens, None)?;
    let ratio = measured.value("WebSocket, memory") / measured.value("floor (WebSocket), memory").max(1.0);
    measured.add("WebSocket memory ÷ floor", ratio, "");
    Ok(measured)
}

/// Measures one transport, or the floor.
fn one(
    measured: &mut Measured,
    how: &How,
    transport: Option<Transport>,
    tokens: &[String],
    watched: Option<Duration>,
) -> Result<()> {
    let (server, name) = match transport {
        Some(transport) => (Server::postrider(how)?, transport.name()),
        None => (Server::floor(how)?, "floor (WebSocket)"),
    };
    let mut net = Net::new(server.addr)?;
    let mut load = Resting {
        sessions: Sessions::new(transport.unwrap_or(Transport::WebSocket), tokens),
        account: Account::new(tokens.len()),
        receivers: tokens.len(),
        published: false,
    };
    rest(&mut net, &mut load, SETTLE)?;
    let before = server.resident()?;
    let (start, cpu) = (clock::now(), server.cpu()?);
    let opened = net.run(&mut load, LIMIT, "opening sessions", |net, l| {
        l.sessions.open_more(net)
    })?;
    let rate = tokens.len() as f64 / (opened - start).as_secs_f64();
    measured.add(format!("{name}, opened"), rate, "sessions/s");
    let each = crate::figures::micros_each(server.cpu()? - cpu, tokens.len() as u64);
    measured.add(format!("{name}, opening, server CPU"), each, "µs/session");
    rest(&mut net, &mut load, how.time(QUIET))?;
    let grown = server.resident()?.saturating_sub(before);
    measured.add(
        format!("{name}, memory"),
        grown as f64 / tokens.len() as f64,
        "bytes/session",
    );
    if let Some(time) = watched {
        let cpu = server.cpu()?;
        rest(&mut net, &mut load, time)?;
        let share = (server.cpu()? - cpu).as_secs_f64() / time.as_secs_f64();
        measured.add(format!("{name}, CPU at rest"), share * 100.0, "% of a core");
    }
    prove_alive(&mut net, &mut load, transport.is_some())?;
    measured.totals.add(load.account.close(|_| 1)?);
    Ok(())
}

/// Sends one notification to everyone, and waits until everyone has it.
fn prove_alive(net: &mut Net, load: &mut Resting<'_>, product: bool) -> Result<()> {
    let mut request = Vec::new();
    if product {
        let mut body = Vec::new();
        Payload::new(100).push(&mut body, None, 0);
        requests::publish(&mut request, &body);
    } else {
        floor::push_publisher(&mut request, &Payload::new(100), 0);
    }
    let all = load.receivers;
    net.open(all, Wire::Http, &request)?;
    net.run(load, LIMIT, "one to everyone", |_, load| {
        Ok(load.account.delivered() == all as u64 && (load.published || !product))
    })?;
    Ok(())
}

/// Lets time pass while connections are kept.
fn rest(net: &mut Net, load: &mut Resting<'_>, time: Duration) -> Result<()> {
    let until = clock::now() + time;
    net.run(load, time + LIMIT, "rest", |_, _| Ok(clock::now() >= until))?;
    Ok(())
}

struct Resting<'a> {
    sessions: Sessions<'a>,
    account: Account,
    receivers: usize,
    published: bool,
}

impl Load for Resting<'_> {
    fn message(&mut self, net: &mut Net, conn: Conn, tag: usize, message: Message<'_>) -> Result<()> {
        let Resting {
            sessions,
            account,
            published,
            ..
        } = self;
        match message {
            Message::Answer { status: 202, .. } => *published = true,
            Message::Answer { status, .. } if status != 200 => bail!("user {tag}: answered {status}"),
            message => sessions.message(net, conn, tag, message, |number| {
                account.received(tag, number).map(drop)
            })?,
        }
        Ok(())
    }
}
