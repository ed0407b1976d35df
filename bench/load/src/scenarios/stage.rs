//! What most scenarios have in common: a server, sessions on it, and drives whose cost is taken.

use crate::options::How;
use crate::server::Server;
use anyhow::Result;
use postrider_bench_load::crowd::{Audience, Crowd, Drive, Lane, Outcome};
use postrider_bench_load::figures::{Measured, micros_each};
use postrider_bench_load::histogram::Histogram;
use postrider_bench_load::net::Net;
use postrider_bench_load::payload::Payload;
use postrider_bench_load::publisher::Way;
use postrider_bench_load::sessions::{Hold, Sessions};
use postrider_bench_load::target::{Kind, Users};
use std::time::Duration;

/// The tag of a run's numbers: each server is new, so one is enough.
pub const TAG: &str = "b1";
/// The size of `data` where it is compared with peers. Bytes.
pub const DATA: usize = 128;
/// After the last delivery: acks that are due by then are paid for too.
const TRAIL: Duration = Duration::from_millis(2_800);

/// Sessions on a server.
pub struct Stage<'a> {
    pub net: Net,
    pub crowd: Crowd<'a>,
    server: &'a Server,
    payload: Payload,
}

impl<'a> Stage<'a> {
    /// Opens a session for each user.
    pub fn open(server: &'a Server, users: &'a Users, hold: Hold, data: usize) -> Result<Stage<'a>> {
        Stage::open_some_first(server, users, hold, data, 0)
    }

    /// As [`Stage::open`]; the load looks at the first so many sessions before all others.
    pub fn open_some_first(
        server: &'a Server,
        users: &'a Users,
        hold: Hold,
        data: usize,
        first: usize,
    ) -> Result<Stage<'a>> {
        let mut net = Net::new(server.target.addr)?;
        if first > 0 {
            net.prefer(0..first)?;
        }
        let payload = Payload::new(data, TAG);
        let sessions = Sessions::new(&server.target, users, &payload, hold);
        Ok(Stage {
            crowd: Crowd::open(&mut net, sessions)?,
            net,
            server,
            payload,
        })
    }

    /// Adds what publishes to everyone, or to each of the first users in turn.
    pub fn add_lane(&mut self, audience: Audience, way: Way) -> Result<()> {
        let place = (self.crowd.lanes.len(), self.crowd.next_tag());
        let count = match &audience {
            Audience::Everyone => self.crowd.sessions.count(),
            Audience::Each(names) => names.len(),
        };
        let lane = Lane::open(
            &mut self.net,
            &self.server.target,
            audience,
            count,
            &self.payload,
            way,
            place,
        )?;
        self.crowd.lanes.push(lane);
        Ok(())
    }

    /// Runs the drives; what became of each, and the server's CPU time until its acks are done.
    pub fn run(&mut self, drives: &[Drive]) -> Result<(Vec<Outcome>, Duration)> {
        let before = self.server.meter.cpu()?;
        let outcomes = self.crowd.run(&mut self.net, drives)?;
        if self.server.target.kind == Kind::Postrider {
            self.crowd.rest(&mut self.net, TRAIL)?;
        }
        Ok((outcomes, self.server.meter.cpu()? - before))
    }

    /// Runs one drive on the first lane, and adds its rate and its CPU for each delivery.
    pub fn rate(&mut self, measured: &mut Measured, name: &str, drive: Drive, each: &str) -> Result<()> {
        let (outcomes, cpu) = self.run(&[drive])?;
        let outcome = &outcomes[0];
        measured.add_rate(name, outcome.delivered, outcome.time, cpu, each);
        Ok(())
    }

    /// Runs a steady rate on the first lane, and adds its quantiles and its CPU for each delivery.
    pub fn steady(
        &mut self,
        measured: &mut Measured,
        name: &str,
        rate: f64,
        time: Duration,
        each: &str,
    ) -> Result<()> {
        let (outcomes, cpu) = self.run(&[Drive::Rate(rate, time)])?;
        add_quantiles(measured, name, &outcomes[0].took);
        let used = micros_each(cpu, outcomes[0].delivered);
        measured.add(format!("{name}, server CPU"), used, &format!("µs/{each}"));
        Ok(())
    }

    /// Closes the books.
    pub fn close(self, measured: &mut Measured) -> Result<()> {
        measured.totals.add(self.crowd.close()?);
        Ok(())
    }
}

/// Adds a histogram's quantiles.
pub fn add_quantiles(measured: &mut Measured, name: &str, took: &Histogram) {
    for (label, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
        measured.add(format!("{name}, {label}"), took.quantile_ms(share), "ms");
    }
    measured.add(format!("{name}, longest"), took.max_ms(), "ms");
}

/// Measures one server; where it is a peer, what fails is a note and no failure.
pub fn side(
    measured: &mut Measured,
    how: &How,
    kind: Kind,
    run: impl FnOnce(&mut Measured, &Server) -> Result<()>,
) -> Result<()> {
    let done = Server::start(how, kind).and_then(|server| run(measured, &server));
    match (done, kind) {
        (Err(error), Kind::Nchan | Kind::Nats) => {
            let name = if kind == Kind::Nchan { "nchan" } else { "nats" };
            measured.note(name, &error);
            Ok(())
        }
        (done, _) => done,
    }
}
