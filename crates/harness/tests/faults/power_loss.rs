//! The power goes: what was not synced is lost, and nothing that was answered is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{Node, NodeOptions};
use postrider_harness::volume::Volume;
use postrider_harness::wait::within;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::load::{Load, LoadSpec};

/// How often, unless `POSTRIDER_POWER_LOSSES` says otherwise.
const LOSSES: u32 = 10;
const VOLUME_MIB: u64 = 256;

#[test]
fn nothing_accepted_is_lost_when_the_power_goes() -> Result<()> {
    let needs = [Need::LoopMounts, Need::XfsIo];
    run("nothing_accepted_is_lost_when_the_power_goes", &needs, || {
        let losses = std::env::var("POSTRIDER_POWER_LOSSES").map_or(Ok(LOSSES), |text| text.parse())?;
        let seed: u64 = std::env::var("POSTRIDER_SEED").map_or(Ok(7), |text| text.parse())?;
        lose_power(losses, seed).with_context(|| format!("with POSTRIDER_SEED={seed}"))
    })
}

fn lose_power(losses: u32, seed: u64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut volume = Volume::make(VOLUME_MIB)?;
    let mut node = Node::start_with(NodeOptions::default().data_dir(&volume.root().join("data")))?;
    let load = Load::start(
        &node,
        LoadSpec {
            publishers: 4,
            data_bytes: 2000,
            seed,
        },
    )?;
    for loss in 1..=losses {
        load.wait_accepted(rng.random_range(1..150), within(120))
            .with_context(|| format!("before power loss {loss}"))?;
        volume.shut_down()?;
        // The node may find out by itself, and refuse; it must not answer anything else.
        std::thread::park_timeout(Duration::from_millis(rng.random_range(0..50)));
        node.kill9()?;
        volume.mount_anew()?;
        node.restart()
            .with_context(|| format!("start after power loss {loss}"))?;
    }
    let report = load.judge(&format!("{losses} power losses"), &node, within(60))?;
    ensure!(
        report.accepted >= u64::from(losses),
        "hardly anything was published"
    );
    Ok(())
}
