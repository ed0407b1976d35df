//! A disk that is full, and is not any more.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postrider_harness::http::Request;
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{Node, NodeOptions};
use postrider_harness::user::User;
use postrider_harness::volume::Volume;
use postrider_harness::wait::within;

use crate::load::{Load, LoadSpec, is_unavailable};
use crate::still_works::{Witness, connects_and_listens, is_alive, is_not_ready, is_ready_again};

const VOLUME_MIB: u64 = 64;
/// So many refusals in a row are no accident.
const REFUSALS: u64 = 200;
/// Memory that a node may take more while it refuses.
const GROWTH_MAX_BYTES: u64 = 48 << 20;

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() -> Result<()> {
    run(
        "a_full_disk_refuses_and_recovers_by_itself",
        &[Need::LoopMounts],
        || {
            let volume = Volume::make(VOLUME_MIB)?;
            let mut node = Node::start_with(NodeOptions::default().data_dir(&volume.root().join("data")))?;
            let witness = Witness::prepare(&node)?;
            let load = Load::start(
                &node,
                LoadSpec {
                    data_bytes: 20_000,
                    ..LoadSpec::small()
                },
            )?;
            load.wait_accepted(200, within(120))?;

            let taken = volume.fill()?;
            let before = node.rss_bytes()?;
            load.wait_refused(REFUSALS, within(240))
                .with_context(|| format!("a foreign file took {taken} bytes"))?;
            while_full(&node, &witness)?;
            load.wait_refused(REFUSALS, within(240))?;
            let after = node.rss_bytes()?;
            ensure!(
                after < before + GROWTH_MAX_BYTES,
                "resident memory grew from {before} to {after} bytes"
            );

            volume.empty()?;
            load.wait_accepted(100, within(120))
                .context("after room was made")?;
            is_ready_again(&node)?;
            witness.reads()?;
            // What was answered before the crash must hold after it, too.
            node.kill9()?;
            node.restart()?;
            load.wait_accepted(50, within(120)).context("after a restart")?;
            witness.reads()?;
            load.judge("full disk", &node, within(240))?;
            let status = node.terminate(Duration::from_secs(25))?;
            ensure!(status.success(), "exit after SIGTERM: {status}");
            Ok(())
        },
    )
}

fn while_full(node: &Node, witness: &Witness) -> Result<()> {
    let full = || "while the disk is full";
    is_alive(node).with_context(full)?;
    println!(
        "full disk: /ready says: {}",
        is_not_ready(node).with_context(full)?
    );
    witness.reads().with_context(full)?;
    connects_and_listens(node).with_context(full)?;
    let ack =
        Request::new("POST", "/v1/inbox/ack").body("application/json", r#"{"ids":["never-published"]}"#);
    let answer = User::new(&node.endpoint, "witness")?.call(ack)?;
    // It changes nothing, so that a store with a little room left may well say so.
    ensure!(
        answer.status() == 200 || is_unavailable(&answer).is_ok(),
        "ack: {} {}",
        answer.status(),
        answer.text()
    );
    Ok(())
}

/// A node that is killed while the disk is full must come up again, at the latest once there is room.
#[test]
fn a_crash_while_full_loses_nothing() -> Result<()> {
    run("a_crash_while_full_loses_nothing", &[Need::LoopMounts], || {
        let volume = Volume::make(VOLUME_MIB)?;
        let data = volume.root().join("data");
        let mut node = Node::start_with(NodeOptions::default().data_dir(&data))?;
        let mut load = Load::start(
            &node,
            LoadSpec {
                data_bytes: 20_000,
                ..LoadSpec::small()
            },
        )?;
        load.wait_accepted(200, within(120))?;
        volume.fill()?;
        load.wait_refused(50, within(240))?;
        load.stop_publishing();
        node.kill9()?;
        let began_full = node.restart();
        println!(
            "crash while full: starting on a full disk: {}",
            match &began_full {
                Ok(()) => "starts".to_owned(),
                Err(e) => format!("{e:#}"),
            }
        );
        volume.empty()?;
        if began_full.is_err() {
            node.restart().context("after room was made")?;
        }
        load.judge("crash while full", &node, within(240))?;
        Ok(())
    })
}
