//! How many notifications a second are accepted, that is stored and synced: by one, 16 and 256 publishers that
//! each wait for their 202, by arrays of 100, and by one stream. What was accepted is read back from every inbox.

use super::readback;
use super::stage::{TAG, side};
use crate::disk;
use crate::options::How;
use crate::server::{self, Server};
use anyhow::{Result, bail};
use memchr::memmem;
use postrider_bench_load::clock;
use postrider_bench_load::figures::Measured;
use postrider_bench_load::histogram::Histogram;
use postrider_bench_load::net::{Conn, Load, Message, Net, Wire};
use postrider_bench_load::payload::Payload;
use postrider_bench_load::requests;
use postrider_bench_load::stream::Stream;
use postrider_bench_load::target::{Kind, Target};
use std::time::{Duration, Instant};

const USERS: usize = 10_000;
const DATA: usize = 200;
const TIME: Duration = Duration::from_secs(3);
const DISK_TIME: Duration = Duration::from_secs(1);
/// How long what is under way may take at the end.
const GRACE: Duration = Duration::from_secs(30);
/// Bytes of a stream that may wait before more is written.
const AHEAD: usize = 256 << 10;
/// Lines in a chunk of a stream.
const LINES: usize = 100;

pub fn run(how: &How, _: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    side(&mut measured, how, Kind::Postrider, |measured, server| {
        one(measured, how, server)
    })?;
    Ok(measured)
}

fn one(measured: &mut Measured, how: &How, server: &Server) -> Result<()> {
    let syncs = disk::syncs_per_second(server.dir(), how.time(DISK_TIME))?;
    let disk = "the disk's own rate, 512 bytes a sync";
    measured.add(disk, syncs, "syncs/s");
    let users = server::users(USERS)?;
    let mut next = 0;
    for (publishers, batch) in [(1, 1), (16, 1), (256, 1), (16, 100)] {
        next = requests_each(how, server, measured, &users.names, next, publishers, batch)?;
    }
    let ratio = "256 publishers ÷ the disk's own rate";
    measured.add_ratio(ratio, "256 publishers, one each", disk);
    next = stream(how, server, measured, &users.names, next)?;
    let sent = |user: usize| (next + (USERS - 1 - user) as u64) / USERS as u64;
    let counts: Vec<u64> = (0..USERS).map(sent).collect();
    measured.totals = readback::read_all(server, &users, &counts)?;
    let memory = server.meter.resident()? as f64 / 1e6;
    measured.add("resident memory at the end", memory, "MB");
    Ok(())
}

/// Publishers that wait for each answer. Returns the next number.
fn requests_each(
    how: &How,
    server: &Server,
    measured: &mut Measured,
    users: &[String],
    first: u64,
    publishers: usize,
    batch: usize,
) -> Result<u64> {
    let mut net = Net::new(server.target.addr)?;
    let (start, cpu) = (clock::now(), server.meter.cpu()?);
    let mut load = Publishers {
        target: &server.target,
        payload: Payload::new(DATA, TAG),
        users,
        batch,
        next: first,
        accepted: 0,
        until: start + how.time(TIME),
        began: vec![start; publishers],
        took: Histogram::default(),
        working: publishers,
    };
    for publisher in 0..publishers {
        let request = load.request();
        net.open(publisher, Wire::Http, &request)?;
    }
    let end = net.run(&mut load, how.time(TIME) + GRACE, "the answers", |_, l| {
        Ok(l.working == 0)
    })?;
    let each = if batch == 1 {
        "one each".into()
    } else {
        format!("arrays of {batch}")
    };
    let name = match publishers {
        1 => format!("1 publisher, {each}"),
        _ => format!("{publishers} publishers, {each}"),
    };
    let used = server.meter.cpu()? - cpu;
    measured.add_rate(&name, load.accepted, end - start, used, "notification");
    for (label, share) in [("p50", 0.5), ("p99", 0.99)] {
        measured.add(
            format!("{name}, answered {label}"),
            load.took.quantile_ms(share),
            "ms",
        );
    }
    Ok(load.next)
}

struct Publishers<'a> {
    target: &'a Target,
    payload: Payload,
    users: &'a [String],
    batch: usize,
    next: u64,
    accepted: u64,
    until: Instant,
    /// When each publisher sent what it waits for.
    began: Vec<Instant>,
    took: Histogram,
    working: usize,
}

impl Publishers<'_> {
    fn request(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        for index in 0..self.batch {
            if self.batch > 1 {
                body.push(if index == 0 { b'[' } else { b',' });
            }
            let user = &self.users[self.next as usize % self.users.len()];
            self.payload.push(&mut body, Some(user), self.next);
            self.next += 1;
        }
        if self.batch > 1 {
            body.push(b']');
        }
        let mut request = Vec::with_capacity(body.len() + 256);
        requests::publish(&mut request, self.target, &body, None);
        request
    }

    fn all_accepted(&self, body: &[u8]) -> bool {
        if self.batch == 1 {
            return memmem::find(body, b"\"accepted\":true").is_some();
        }
        memmem::find(body, b"\"rejected\":[]").is_some()
            && memmem::find_iter(body, b"\"index\":").count() == self.batch
    }
}

impl Load for Publishers<'_> {
    fn message(&mut self, net: &mut Net, conn: Conn, publisher: usize, message: Message<'_>) -> Result<()> {
        match message {
            Message::Answer {
                status: 202, body, ..
            } if self.all_accepted(body) => {}
            other => bail!("a publish was answered with {other:?}"),
        }
        let now = clock::now();
        self.took.record(now - self.began[publisher]);
        self.accepted += self.batch as u64;
        if now >= self.until {
            self.working -= 1;
            return Ok(());
        }
        self.began[publisher] = now;
        let request = self.request();
        net.send(conn, &request)
    }
}

/// One stream, as fast as it is taken. Returns the next number.
fn stream(how: &How, server: &Server, measured: &mut Measured, users: &[String], first: u64) -> Result<u64> {
    let mut net = Net::new(server.target.addr)?;
    let payload = Payload::new(DATA, TAG);
    let (start, cpu) = (clock::now(), server.meter.cpu()?);
    let until = start + how.time(TIME);
    let mut load = Streaming(Stream::open(&mut net, &server.target, 0)?);
    let mut open = true;
    let end = net.run(
        &mut load,
        how.time(TIME) + GRACE,
        "the stream's answers",
        |net, load| {
            let stream = &mut load.0;
            if open && clock::now() >= until {
                open = false;
                stream.end(net)?;
            }
            while open && stream.waiting(net) < AHEAD {
                for _ in 0..LINES {
                    let number = first + stream.sent;
                    stream.push(&payload, Some(&users[number as usize % users.len()]), number);
                }
                stream.flush(net)?;
            }
            Ok(stream.ended)
        },
    )?;
    let Stream { sent, accepted, .. } = load.0;
    if sent != accepted {
        bail!("{accepted} of {sent} lines were accepted");
    }
    let used = server.meter.cpu()? - cpu;
    measured.add_rate("one NDJSON stream", accepted, end - start, used, "notification");
    Ok(first + sent)
}

/// A load of one stream and nothing else.
struct Streaming(Stream);

impl Load for Streaming {
    fn message(&mut self, _: &mut Net, _: Conn, _: usize, message: Message<'_>) -> Result<()> {
        self.0.message(message)
    }
}
