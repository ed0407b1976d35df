//! The data directory itself: taken away, read-only, somebody else's, of another time; and too few open files.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postrider_harness::http::Conn;
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{KEY, Node, NodeOptions};
use postrider_harness::publish::Publisher;
use postrider_harness::user::User;
use postrider_harness::volume::Volume;
use postrider_harness::wait::{until_true, within};
use serde_json::json;

use crate::load::{Load, LoadSpec};
use crate::still_works::{Witness, connects_and_listens, is_alive};

/// Exit status of a node that could not start for a reason that is no fault of its configuration.
const FAILED: i32 = 1;

/// Starts a node that must refuse, and checks that its words name what they should.
fn refused(options: NodeOptions, names: &[&str]) -> Result<()> {
    let refusal = Node::refusal(options)?;
    let status = refusal.status.and_then(|status| status.code());
    ensure!(status == Some(FAILED), "exit {status:?}: {}", refusal.log);
    for name in names {
        ensure!(refusal.log.contains(name), "{name:?} is not in: {}", refusal.log);
    }
    ensure!(!refusal.log.contains("panicked"), "it panicked: {}", refusal.log);
    Ok(())
}

#[test]
fn a_second_process_is_refused() -> Result<()> {
    let first = Node::start(&[])?;
    let dir = first.data_dir();
    let name = dir.display().to_string();
    refused(NodeOptions::default().data_dir(&dir), &[&name, "in use"])?;
    Publisher::new(&first.endpoint, KEY).accepted(&json!({"users": ["ada"], "data": 1}))?;
    Ok(())
}

#[test]
fn a_version_from_the_future_is_refused_and_left_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let mut node = Node::start_with(NodeOptions::default().data_dir(&data))?;
    let id = Publisher::new(&node.endpoint, KEY).accepted(&json!({"users": ["ada"], "data": 1}))?;
    node.terminate(Duration::from_secs(25))?;
    let version = data.join("VERSION");
    let present = std::fs::read_to_string(&version)?;
    std::fs::write(&version, "postrider 1000000\n")?;
    refused(NodeOptions::default().data_dir(&data), &["newer version"])?;
    std::fs::write(&version, "not a version\n")?;
    refused(NodeOptions::default().data_dir(&data), &["VERSION"])?;
    std::fs::write(&version, present)?;
    node.restart()?;
    let pending = User::new(&node.endpoint, "ada")?.pending()?;
    ensure!(pending == [id], "after the refusals: {pending:?}");
    Ok(())
}

#[test]
fn a_directory_that_cannot_be_made_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file");
    std::fs::write(&file, "")?;
    for data in [file.clone(), file.join("below")] {
        let name = data.display().to_string();
        refused(NodeOptions::default().data_dir(&data), &[&name])?;
    }
    Ok(())
}

/// Its files are unlinked under the node. It may go on, or refuse; it must not lie, and must not die.
#[test]
fn a_directory_that_is_deleted() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let node = Node::start_with(NodeOptions::default().data_dir(&data))?;
    let witness = Witness::prepare(&node)?;
    let load = Load::start(&node, LoadSpec::small())?;
    load.wait_accepted(50, within(120))?;
    std::fs::remove_dir_all(&data)?;
    is_alive(&node)?;
    connects_and_listens(&node)?;
    witness.reads().context("after its files were deleted")?;
    load.judge("deleted directory", &node, within(60))?;
    Ok(())
}

/// The kernel has made the file system read-only: publishing is refused, and after a repair all is there.
#[test]
fn a_file_system_that_turns_read_only() -> Result<()> {
    run("a_file_system_that_turns_read_only", &[Need::LoopMounts], || {
        let mut volume = Volume::make(64)?;
        let data = volume.root().join("data");
        let mut node = Node::start_with(NodeOptions::default().data_dir(&data))?;
        let witness = Witness::prepare(&node)?;
        let load = Load::start(&node, LoadSpec::small())?;
        load.wait_accepted(100, within(120))?;
        volume.make_read_only()?;
        load.wait_refused(50, within(120))?;
        is_alive(&node)?;
        connects_and_listens(&node)?;
        witness.reads().context("while the file system is read-only")?;
        node.kill9()?;
        let name = data.display().to_string();
        refused(NodeOptions::default().data_dir(&data), &[&name])?;
        volume.mount_anew()?;
        node.restart()?;
        load.wait_accepted(20, within(120))?;
        load.judge("read-only file system", &node, within(60))?;
        Ok(())
    })
}

/// With few open files the node serves as many as it can, stays itself, and recovers.
#[test]
fn too_few_open_files() -> Result<()> {
    let options = NodeOptions {
        open_files: Some(160),
        ..NodeOptions::default()
    };
    let node = Node::start_with(options)?;
    let mut held = Vec::new();
    let addr = node.endpoint.addr()?;
    // Some ask for what the API serves, so that both sides hold files.
    for n in 0..400 {
        let Ok(mut conn) = Conn::open(addr, None) else {
            break;
        };
        if n % 2 == 0
            && conn
                .write(b"GET /v1/nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
                .is_err()
        {
            continue;
        }
        held.push(conn);
    }
    let (before, began) = (node.cpu_seconds()?, std::time::Instant::now());
    std::thread::park_timeout(Duration::from_secs(2));
    let busy = (node.cpu_seconds()? - before) / began.elapsed().as_secs_f64();
    ensure!(
        busy < 0.5,
        "a node without files to open takes {:.0} % of a core",
        busy * 100.0
    );
    let lines = node.log().lines().count();
    ensure!(lines < 100, "a node without files to open wrote {lines} lines");
    drop(held);
    until_true("publishing after the files were given back", within(120), || {
        let sent = json!({"users": ["ada"], "data": 1});
        Ok(Publisher::new(&node.endpoint, KEY)
            .one(&sent)
            .is_ok_and(|answer| answer.status() == 202))
    })?;
    is_alive(&node)
}
