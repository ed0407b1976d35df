//! What Redis is asked to do for one broadcast: as much as there are nodes, not as there are sessions.
//!
//! Invariant checked: the commands that Redis counts over a broadcast are no more with ten times the sessions.
//!
//! The sessions acknowledge nothing: what a settled entry costs is each user's own, and is measured in `bench/redis.py`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postrider_harness::inbox::{AckMode, Connect, Inbox, Transport, next_notification};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::KEY;
use postrider_harness::publish::Publisher;
use postrider_harness::raw::room_for_files;
use postrider_harness::redis::Client;
use postrider_harness::token;
use postrider_harness::wait::within;
use serde_json::json;

use crate::alone;
use crate::site::{Shape, Site};

const NODES: usize = 3;
/// Sessions on each node, before and after.
const FEW: usize = 10;
const MANY: usize = 100;
/// Broadcasts of which the one counts that cost least: the nodes ask Redis for other things too, now and then.
const BROADCASTS: usize = 8;
/// By how much it may differ: what nodes ask for beside it even so, the longer it takes the more. One for every fourth
/// session more would be above it.
const SLACK: u64 = ((MANY - FEW) * NODES / 4) as u64;

#[test]
fn a_broadcast_costs_redis_nothing_for_a_session() -> Result<()> {
    run(
        "a_broadcast_costs_redis_nothing_for_a_session",
        &[Need::Redis],
        || {
            let _alone = alone();
            room_for_files()?;
            let mut site = Site::start(Shape::Single)?;
            let fleet = site.fleet(NODES, &[])?;
            let mut redis = site.masters()?.pop().context("no master")?;
            let mut sessions = Vec::new();
            let mut costs = Vec::new();
            for per_node in [FEW, MANY] {
                let have = sessions.len() / NODES;
                for node in &fleet.nodes {
                    for nth in have..per_node {
                        let token = token::user(&format!("one-of-{nth}"))?;
                        let connect = Connect::new(&node.endpoint, &token).ack(AckMode::None);
                        sessions.push(connect.open(Transport::WebSocket)?);
                    }
                }
                let mut publisher = Publisher::new(&fleet.nodes[0].endpoint, KEY);
                let mut least = u64::MAX;
                for _ in 0..BROADCASTS {
                    least = least.min(broadcast(&mut publisher, &mut redis, &mut sessions)?);
                }
                println!(
                    "fan_out: a broadcast to {} sessions of {NODES} nodes: {least} commands",
                    sessions.len()
                );
                costs.push(least);
            }
            ensure!(
                costs[1] <= costs[0] + SLACK,
                "{} commands for {} sessions, {} for {}",
                costs[0],
                FEW * NODES,
                costs[1],
                MANY * NODES
            );
            Ok(())
        },
    )
}

/// What one broadcast cost, from before it was published until everybody had it.
fn broadcast(publisher: &mut Publisher, redis: &mut Client, sessions: &mut [Box<dyn Inbox>]) -> Result<u64> {
    let before = commands(redis)?;
    let id = publisher.accepted(&json!({"data": "to all"}))?;
    for inbox in sessions {
        while next_notification(&mut **inbox, within(30))?.id != id {}
    }
    let after = commands(redis)?;
    // Lets what hangs on to one broadcast be counted before the next.
    std::thread::park_timeout(Duration::from_millis(50));
    Ok(after - before)
}

/// All commands that Redis has run, those inside of functions too, but ours.
fn commands(redis: &mut Client) -> Result<u64> {
    let stats = redis.info("commandstats")?;
    let mut sum = 0;
    for line in stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
        let (name, rest) = line.split_once(":calls=").context("a line without calls")?;
        let calls = rest.split(',').next().context("no calls")?;
        if name != "info" {
            sum += calls.parse::<u64>()?;
        }
    }
    Ok(sum)
}
