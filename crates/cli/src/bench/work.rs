//! The scenarios: what is opened, what is published, and what of it is a result.

use super::node::Site;
use super::{BenchArgs, EACH_WINDOW, Scenario, WIDE_WINDOW};
use anyhow::{Context as _, Result};
use postrider_bench_load::account::Totals;
use postrider_bench_load::clock;
use postrider_bench_load::crowd::{Audience, Crowd, Drive, Lane};
use postrider_bench_load::drain::Backlog;
use postrider_bench_load::figures::micros_each;
use postrider_bench_load::histogram::Histogram;
use postrider_bench_load::net::Net;
use postrider_bench_load::payload::Payload;
use postrider_bench_load::publisher::Way;
use postrider_bench_load::sessions::{Hold, Sessions, Transport};
use postrider_bench_load::storm::storm;
use std::time::Duration;

/// After the last delivery: acks that are due by then are paid for too.
const TRAIL: Duration = Duration::from_millis(1_500);
/// Users that read at a time in a drain.
const READERS: usize = 100;
/// What every notification has, so that nothing of a bench stays.
const TTL: &str = r#""ttl":"5m","#;

/// What one scenario found.
pub struct Found {
    /// Which.
    pub scenario: Scenario,
    /// What is counted: deliveries, sessions, entries.
    pub what: &'static str,
    /// How many.
    pub count: u64,
    /// In how long.
    pub time: Duration,
    /// How long each took.
    pub took: Histogram,
    /// What was delivered on the way.
    pub totals: Totals,
    /// The node's CPU time for each, in µs, if it may be looked at.
    pub cpu: Option<f64>,
    /// The node's memory for each session, in bytes.
    pub memory: Option<f64>,
}

/// Measures one scenario.
pub fn measure(scenario: Scenario, nth: usize, site: &Site, args: &BenchArgs) -> Result<Found> {
    let bench = Bench {
        site,
        args,
        payload: Payload::new(args.data as usize, &format!("{}{nth}", site.tag)).with(TTL),
    };
    let found = match scenario {
        Scenario::Connect => bench.connect(),
        Scenario::Idle => bench.idle(),
        Scenario::Broadcast => bench.wide(scenario, Transport::WebSocket, WIDE_WINDOW),
        Scenario::Sse => bench.wide(scenario, Transport::Sse, WIDE_WINDOW),
        Scenario::LongPoll => bench.wide(scenario, Transport::LongPoll, 1),
        Scenario::Unicast => bench.unicast(),
        Scenario::Storm => bench.storm(),
        Scenario::Drain => bench.drain(),
    };
    found.with_context(|| format!("{} failed", scenario.name()))
}

struct Bench<'a> {
    site: &'a Site,
    args: &'a BenchArgs,
    payload: Payload,
}

impl<'a> Bench<'a> {
    fn open(&self, transport: Transport) -> Result<(Net, Crowd<'a>)> {
        let mut hold = Hold::new(transport);
        hold.topic.clone_from(&self.site.topic);
        let mut net = Net::new(self.site.target.addr)?;
        let sessions = Sessions::new(&self.site.target, &self.site.users, &self.payload, hold);
        let crowd = Crowd::open(&mut net, sessions)?;
        Ok((net, crowd))
    }

    fn lane(&self, net: &mut Net, crowd: &mut Crowd<'_>, audience: Audience, way: Way) -> Result<()> {
        let mut payload = self.payload.clone();
        if let (Audience::Everyone, Some(topic)) = (&audience, &self.site.topic) {
            payload = payload.with(&format!(r#""topics":["{topic}"],"#));
        }
        let place = (crowd.lanes.len(), crowd.next_tag());
        let (target, count) = (&self.site.target, crowd.sessions.count());
        let lane = Lane::open(net, target, audience, count, &payload, way, place)?;
        crowd.lanes.push(lane);
        Ok(())
    }

    /// CPU time of the node for each, if it may be looked at.
    fn each(&self, used: Duration, count: u64) -> Option<f64> {
        (!self.site.meter.0.is_empty()).then(|| micros_each(used, count))
    }

    fn connect(&self) -> Result<Found> {
        let (start, cpu) = (clock::now(), self.site.meter.cpu()?);
        let (_net, crowd) = self.open(Transport::WebSocket)?;
        let (time, used) = (start.elapsed(), self.site.meter.cpu()? - cpu);
        let count = crowd.sessions.count() as u64;
        Ok(Found {
            scenario: Scenario::Connect,
            what: "sessions",
            count,
            time,
            took: crowd.sessions.took().clone(),
            totals: Totals::default(),
            cpu: self.each(used, count),
            memory: None,
        })
    }

    fn idle(&self) -> Result<Found> {
        let before = self.site.meter.resident()?;
        let (mut net, mut crowd) = self.open(Transport::WebSocket)?;
        let cpu = self.site.meter.cpu()?;
        crowd.rest(&mut net, self.args.time())?;
        let used = self.site.meter.cpu()? - cpu;
        let grown = self.site.meter.resident()?.saturating_sub(before);
        let count = crowd.sessions.count() as u64;
        // Each must still be alive.
        self.lane(&mut net, &mut crowd, Audience::Everyone, Way::Stream)?;
        crowd.run(&mut net, &[Drive::Burst(1)])?;
        let known = self.each(used, count);
        Ok(Found {
            scenario: Scenario::Idle,
            what: "sessions",
            count,
            time: self.args.time(),
            took: Histogram::default(),
            totals: crowd.close()?,
            cpu: known,
            memory: known.map(|_| grown as f64 / count as f64),
        })
    }

    fn wide(&self, scenario: Scenario, transport: Transport, window: u64) -> Result<Found> {
        let (mut net, mut crowd) = self.open(transport)?;
        self.lane(&mut net, &mut crowd, Audience::Everyone, Way::Stream)?;
        self.drive(scenario, net, crowd, window)
    }

    fn unicast(&self) -> Result<Found> {
        let (mut net, mut crowd) = self.open(Transport::WebSocket)?;
        let way = if self.args.stream {
            Way::Stream
        } else {
            let most = (self.site.users.count() / 4).clamp(1, 256);
            let connections = most.min(self.args.window(EACH_WINDOW) as usize);
            Way::Requests {
                connections,
                batch: 1,
            }
        };
        let each = Audience::Each(self.site.users.names.clone());
        self.lane(&mut net, &mut crowd, each, way)?;
        self.drive(Scenario::Unicast, net, crowd, EACH_WINDOW)
    }

    fn drive(&self, scenario: Scenario, mut net: Net, mut crowd: Crowd<'_>, window: u64) -> Result<Found> {
        let time = self.args.time();
        let drive = match self.args.rate {
            Some(rate) => Drive::Rate(f64::from(rate), time),
            None => Drive::Window(self.args.window(window), time),
        };
        let cpu = self.site.meter.cpu()?;
        let outcome = crowd.run(&mut net, &[drive])?.pop().context("no lane")?;
        crowd.rest(&mut net, TRAIL)?;
        let used = self.site.meter.cpu()? - cpu;
        Ok(Found {
            scenario,
            what: "deliveries",
            count: outcome.delivered,
            time: outcome.time,
            took: outcome.took,
            totals: crowd.close()?,
            cpu: self.each(used, outcome.delivered),
            memory: None,
        })
    }

    fn storm(&self) -> Result<Found> {
        let (mut net, mut crowd) = self.open(Transport::WebSocket)?;
        self.lane(&mut net, &mut crowd, Audience::Everyone, Way::Stream)?;
        let cost = storm(&mut net, &mut crowd, &self.site.meter, true)?;
        let count = crowd.sessions.count() as u64;
        Ok(Found {
            scenario: Scenario::Storm,
            what: "sessions",
            count,
            time: cost.time,
            took: crowd.sessions.took().clone(),
            totals: crowd.close()?,
            cpu: self.each(cost.losing + cost.back, count),
            memory: None,
        })
    }

    fn drain(&self) -> Result<Found> {
        let backlog = Backlog {
            target: &self.site.target,
            users: &self.site.users,
            payload: &self.payload,
            each: self.args.backlog,
        };
        backlog.store()?;
        let cpu = self.site.meter.cpu()?;
        let drained = backlog.read(READERS)?;
        let used = self.site.meter.cpu()? - cpu;
        Ok(Found {
            scenario: Scenario::Drain,
            what: "entries",
            count: drained.totals.delivered,
            time: drained.time,
            took: drained.took,
            totals: drained.totals,
            cpu: self.each(used, drained.totals.delivered),
            memory: None,
        })
    }
}
