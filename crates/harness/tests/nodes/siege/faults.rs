//! What can happen, and making it happen.
//!
//! Invariant: the choice of the faults and of their times is made by the seed alone; [`heal`] undoes whatever a fault
//! left behind.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::fleet::Fleet;
use postrider_harness::network;
use postrider_harness::proxy::{Way, Weather};
use postrider_harness::wait::{until_true, within};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::pause;
use crate::site::{NODES, Shape, Site};

/// How long Redis is stopped.
const PAUSE_MS: u64 = 5000;
/// How long the weather between a node and Redis is bad, or its link: longer than `engine.redis.timeout`.
const WEATHER_MS: u64 = 3000;
/// How long a drained node may take.
const DRAINS_WITHIN: Duration = Duration::from_secs(25);

/// What happens. A number names the node, or the shard of a Cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    RedisKilled(usize),
    RedisRestarted(usize),
    RedisPaused(usize),
    FailedOver(usize),
    MasterMoved(usize),
    Cut(usize),
    Late(usize),
    Throttled(usize),
    HalfOpen(usize),
    Deaf(usize),
    Dumb(usize),
    NodeKilled(usize),
    NodeDrained(usize),
    /// The node dies while Redis says nothing.
    NodeKilledInAPause(usize),
    /// The kernel harms a node's link to Redis.
    Link(usize, network::Fault),
}

/// What was done.
#[derive(Debug)]
pub struct Done {
    /// From when on Redis can be reached again.
    pub back: Instant,
    /// The nodes that died or drained, so that their sessions had to come back.
    pub nodes: Vec<usize>,
}

/// Every fault of a shape once, in an order of chance.
pub fn plan(shape: Shape, rng: &mut StdRng) -> Vec<Fault> {
    let mut one = || rng.random_range(0..NODES);
    if shape == Shape::Linked {
        use network::Fault::{Dropped, Lossy, Narrow, Reset};

        let harms = [Dropped, Dropped, Reset, Lossy, Narrow];
        let mut faults = harms.map(|harm| Fault::Link(one(), harm)).to_vec();
        faults.extend([Fault::NodeKilled(one()), Fault::RedisKilled(0)]);
        faults.shuffle(rng);
        return faults;
    }
    let mut faults = vec![
        Fault::NodeKilled(one()),
        Fault::NodeKilled(one()),
        Fault::NodeDrained(one()),
        Fault::NodeKilledInAPause(one()),
        Fault::RedisRestarted(one()),
    ];
    if shape == Shape::Single {
        faults.extend([
            Fault::RedisKilled(0),
            Fault::RedisPaused(0),
            Fault::Cut(one()),
            Fault::Late(one()),
            Fault::Throttled(one()),
            Fault::HalfOpen(one()),
            Fault::Deaf(one()),
            Fault::Dumb(one()),
        ]);
    } else {
        faults.extend([
            Fault::FailedOver(one()),
            Fault::MasterMoved(one()),
            Fault::RedisPaused(one()),
        ]);
    }
    faults.shuffle(rng);
    faults
}

/// Makes it happen, from its beginning until Redis, the network and the node are back.
pub fn perform(
    fault: &Fault,
    shape: Shape,
    site: &mut Site,
    fleet: &mut Fleet,
    rng: &mut StdRng,
) -> Result<Done> {
    let mut nodes = Vec::new();
    match *fault {
        Fault::RedisKilled(shard) => {
            let server = site.master(shard)?;
            server.kill9()?;
            pause(rng.random_range(0..500));
            server.restart()?;
        }
        Fault::RedisRestarted(shard) => {
            let server = site.master(shard)?;
            server.stop()?;
            server.restart()?;
            site.heal()?;
        }
        Fault::RedisPaused(shard) => {
            let server = site.master(shard)?;
            server.pause()?;
            pause(PAUSE_MS);
            server.resume()?;
            // Another one may have become the master meanwhile: then this one has to become its replica first.
            site.heal()?;
        }
        Fault::FailedOver(shard) => {
            site.fail_over(shard)?;
            // Where a replica has to confirm what is published, Redis is back when there is one again.
            if shape != Shape::Careless {
                site.heal()?;
            }
        }
        Fault::MasterMoved(shard) => {
            site.move_master(shard)?;
            site.heal()?;
        }
        Fault::Cut(node) => fleet.proxies[node].cut(),
        Fault::Late(node) => {
            let delay = Duration::from_millis(rng.random_range(50..400));
            weather(
                fleet,
                node,
                Weather {
                    delay,
                    ..Weather::default()
                },
            );
        }
        Fault::Throttled(node) => {
            let bytes_per_second = Some(rng.random_range(5_000..50_000));
            weather(
                fleet,
                node,
                Weather {
                    bytes_per_second,
                    ..Weather::default()
                },
            );
        }
        Fault::HalfOpen(node) => swallow(fleet, node, vec![Way::There, Way::Back]),
        Fault::Deaf(node) => swallow(fleet, node, vec![Way::Back]),
        Fault::Dumb(node) => swallow(fleet, node, vec![Way::There]),
        Fault::Link(node, harm) => {
            let network = site.network().context("there are no links")?;
            network.harm(node, harm)?;
            pause(WEATHER_MS);
            // That it was one: nothing proves less than a fault that did not happen.
            until_true("a packet to meet it", within(30), || {
                Ok(harm == network::Fault::Narrow || network.met()? > 0)
            })?;
            network.clear()?;
        }
        Fault::NodeKilled(node) => {
            nodes.push(node);
            fleet.nodes[node].kill9()?;
            pause(rng.random_range(0..1500));
            fleet.nodes[node].restart()?;
        }
        Fault::NodeDrained(node) => {
            nodes.push(node);
            let status = fleet.nodes[node].terminate(DRAINS_WITHIN)?;
            ensure!(status.success(), "a drained node ended with {status}");
            fleet.nodes[node].restart()?;
        }
        Fault::NodeKilledInAPause(node) => {
            nodes.push(node);
            let server = site.master(0)?;
            server.pause()?;
            pause(rng.random_range(0..600));
            fleet.nodes[node].kill9()?;
            server.resume()?;
            fleet.nodes[node].restart()?;
        }
    }
    Ok(Done {
        back: Instant::now(),
        nodes,
    })
}

fn weather(fleet: &Fleet, node: usize, weather: Weather) {
    fleet.proxies[node].weather(weather);
    pause(WEATHER_MS);
    fleet.proxies[node].clear();
}

fn swallow(fleet: &Fleet, node: usize, swallows: Vec<Way>) {
    weather(
        fleet,
        node,
        Weather {
            swallows,
            ..Weather::default()
        },
    );
}

/// Whoever is down is started, and all is waited for.
pub fn heal(site: &mut Site, fleet: &mut Fleet) -> Result<()> {
    fleet.proxies.iter().for_each(|proxy| proxy.clear());
    site.heal()
}

#[test]
fn the_seed_chooses_the_faults() {
    use rand::SeedableRng;

    for shape in Shape::ALL {
        let plan = |seed| super::faults::plan(shape, &mut StdRng::seed_from_u64(seed));
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }
}
