//! System calls of the store that fail, and that tarry.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Conn, Request};
use postrider_harness::injection::{Injection, SYNCS, WRITES};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::wait::{until_true, within};
use serde_json::json;

use crate::load::{Load, LoadSpec, is_unavailable};
use crate::still_works::{Witness, connects_and_listens, is_alive, is_not_ready, is_ready_again};

/// How long a slow sync takes.
const SLOW_SYNC_MS: u64 = 200;
/// How long a very slow one does: it is still under way when all of the crowd have come.
const VERY_SLOW_SYNC_MS: u64 = 600_000;
/// Publishers that come at once then, each with so much: twice what may wait for the writer.
const CROWD: usize = 1000;
const CROWD_DATA_BYTES: usize = 128_000;
/// Memory that they may cost. What waits (64 MiB) is there several times: in the queue, the transaction, the store's
/// own buffers; and each request is read before it is known that there is no room for it.
const GROWTH_MAX_BYTES: u64 = 640 << 20;

/// Everything fails for a while, in each of the ways, again and again.
#[test]
fn failing_calls_refuse_and_recover() -> Result<()> {
    run("failing_calls_refuse_and_recover", &[Need::Strace], || {
        let mut node = Node::start(&[])?;
        let witness = Witness::prepare(&node)?;
        let load = Load::start(&node, LoadSpec::small())?;
        let ways = [
            ("syncs fail", vec![format!("{SYNCS}:error=EIO")]),
            (
                "one sync in five fails",
                vec![format!("{SYNCS}:error=EIO:when=3+5")],
            ),
            ("the disk is full", vec![format!("{WRITES}:error=ENOSPC")]),
            (
                "it fills up by and by",
                vec![format!("{WRITES}:error=ENOSPC:when=20+")],
            ),
            ("writes fail", vec![format!("{WRITES}:error=EIO:when=2+3")]),
        ];
        for (name, rules) in ways {
            load.wait_accepted(20, within(120))
                .with_context(|| format!("before: {name}"))?;
            let injection = Injection::attach(node.pid()?, &rules)?;
            load.wait_refused(20, within(120))
                .with_context(|| name.to_owned())?;
            is_alive(&node).with_context(|| name.to_owned())?;
            witness.reads().with_context(|| name.to_owned())?;
            connects_and_listens(&node).with_context(|| name.to_owned())?;
            if rules.iter().all(|rule| !rule.contains("when=")) {
                println!(
                    "{name}: /ready says: {}",
                    is_not_ready(&node).with_context(|| name.to_owned())?
                );
            }
            injection.detach()?;
            load.wait_accepted(20, within(120))
                .with_context(|| format!("after: {name}"))?;
            is_ready_again(&node).with_context(|| format!("after: {name}"))?;
        }
        // What the page cache still held of a failed sync must not have been believed.
        node.kill9()?;
        node.restart()?;
        load.judge("failing calls", &node, within(120))?;
        Ok(())
    })
}

/// A crash in the middle of failing, so that what failed is looked at by the next start.
#[test]
fn a_crash_while_calls_fail_loses_nothing() -> Result<()> {
    run("a_crash_while_calls_fail_loses_nothing", &[Need::Strace], || {
        let mut node = Node::start(&[])?;
        let load = Load::start(&node, LoadSpec::small())?;
        for first in [1, 2, 3, 5, 8] {
            load.wait_accepted(20, within(120))?;
            let rules = [
                format!("{SYNCS}:error=EIO:when={first}+2"),
                format!("{WRITES}:error=ENOSPC:when={first}0+7"),
            ];
            let injection = Injection::attach(node.pid()?, &rules)?;
            load.wait_refused(3, within(120))
                .with_context(|| format!("failing from call {first} on"))?;
            node.kill9()?;
            injection.detach()?;
            node.restart()
                .with_context(|| format!("after failing from call {first} on"))?;
        }
        load.judge("crashes while calls fail", &node, within(120))?;
        Ok(())
    })
}

/// Syncs of 200 ms: publishing slows down, and nothing else does.
#[test]
fn slow_syncs_hold_up_publishers_only() -> Result<()> {
    run("slow_syncs_hold_up_publishers_only", &[Need::Strace], || {
        let node = Node::start(&[])?;
        let witness = Witness::prepare(&node)?;
        let load = Load::start(&node, LoadSpec::small())?;
        load.wait_accepted(50, within(120))?;
        let injection = Injection::attach(node.pid()?, &[tarrying(SLOW_SYNC_MS)])?;
        load.wait_accepted(10, within(120))
            .context("while syncs are slow")?;
        is_alive(&node)?;
        witness.reads()?;
        connects_and_listens(&node)?;
        injection.detach()?;
        load.judge("slow syncs", &node, within(120))?;
        Ok(())
    })
}

/// More than may wait comes while one sync takes minutes: it is refused, and not kept in memory.
#[test]
fn what_waits_for_a_slow_sync_is_bounded() -> Result<()> {
    run("what_waits_for_a_slow_sync_is_bounded", &[Need::Strace], || {
        // What has no room yet is not read, and is not to be given up for that.
        let node = Node::start(&[("http.head_timeout", "5m")])?;
        Publisher::new(&node.endpoint, KEY).accepted(&json!({"users": ["ada"], "data": 1}))?;
        let injection = Injection::attach(node.pid()?, &[tarrying(VERY_SLOW_SYNC_MS)])?;
        let before = node.rss_bytes()?;
        let mut waiting = crowd(&node)?;
        is_alive(&node)?;
        let mut peak = before;
        until_true("a refusal", within(120), || {
            peak = peak.max(node.rss_bytes()?);
            is_any_refused(&mut waiting)
        })?;
        is_alive(&node)?;
        injection.detach()?;
        let mut refused = 1;
        for mut conn in waiting {
            let answer = conn
                .answer(within(120))?
                .context("a publisher was left without an answer")?;
            if answer.status() != 202 {
                is_unavailable(&answer)?;
                refused += 1;
            }
            peak = peak.max(node.rss_bytes()?);
        }
        println!(
            "slow syncs: of {CROWD} at once {refused} were refused, {} MiB more",
            (peak - before) >> 20
        );
        ensure!(
            peak < before + GROWTH_MAX_BYTES,
            "resident memory grew from {before} to {peak} bytes"
        );
        Publisher::new(&node.endpoint, KEY).accepted(&json!({"users": ["ada"], "data": 1}))?;
        Ok(())
    })
}

/// Whether one of them is refused by now, which is then taken out. Nobody can be accepted while nothing is synced.
fn is_any_refused(waiting: &mut Vec<Conn>) -> Result<bool> {
    for nth in 0..waiting.len() {
        if let Some(answer) = waiting[nth].answer(Instant::now())? {
            is_unavailable(&answer)?;
            waiting.swap_remove(nth);
            return Ok(true);
        }
    }
    Ok(false)
}

fn tarrying(milliseconds: u64) -> String {
    format!("{SYNCS}:delay_enter={}", milliseconds * 1000)
}

/// Very many publish at the same moment.
fn crowd(node: &Node) -> Result<Vec<Conn>> {
    let addr = node.endpoint.addr()?;
    let body = json!({"users": ["nobody"], "data": "z".repeat(CROWD_DATA_BYTES)}).to_string();
    let request = Request::new("POST", "/v1/notifications")
        .bearer(KEY)
        .body("application/json", body)
        .bytes();
    let send = |_| {
        let mut conn = Conn::open(addr, None)?;
        conn.write(&request)?;
        Ok(conn)
    };
    (0..CROWD).map(send).collect()
}
