//! The siege: three nodes over one Redis, 300 sessions that come back to any node, steady publishing through any node,
//! and meanwhile everything dies, drains, restarts, fails over, pauses, or is cut off; then everything is accounted for.
//!
//! Invariants checked, of every round:
//! 1. the [`Account`]: each id that was answered 202 reaches every recipient, per-feed order holds at first delivery, and
//!    nobody gets an id twice but by the rules that stand there;
//! 2. live delivery resumes within `POSTRIDER_RESUMES_WITHIN` seconds of Redis being back, on sessions that nobody had to
//!    open again: within 2 where the siege has the machine to itself, within [`RESUMES_WITHIN`] where it is one test of many;
//! 3. in the end all nodes tell the same state of every notification, and nothing is pending for who was there.
//!
//! Where Redis itself may lose something (a failover to a replica for which nobody waited), what it lost is counted
//! apart, and is allowed only to sessions that were told a gap.
//!
//! `POSTRIDER_ROUNDS` (2), `POSTRIDER_SEED` and `POSTRIDER_SHAPE` (`single`, `cluster`, `sentinel`, `careless`; by turns;
//! or `linked`) set its length and its choices. The seed fixes what is published and which faults come when, not how threads
//! interleave. Each round prints its account with the seed that makes the same choices again.

mod back_end;
mod crowd;
mod faults;
mod witness;

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::account::{Account, Report};
use postrider_harness::fleet::{AS_IT_COMES, Fleet};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::KEY;
use postrider_harness::publish::Publisher;
use postrider_harness::raw::room_for_files;
use postrider_harness::reader::Reader;
use postrider_harness::wait::{until_true, within};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

use crate::site::{NODES, Shape, Site};
use crate::{alone, chosen};
use back_end::BackEnd;
use witness::Witnesses;

/// How soon after Redis is back what is published must reach those who wait for it, on a machine that may do other things
/// as well. What it took is printed.
const RESUMES_WITHIN: u64 = 5;
/// So many are accepted from the beginning of a fault to the next one: a siege under which less is shows nothing.
const ACCEPTED_EACH: u64 = 8;
/// How long that may take once the fault is over.
const GOES_ON_WITHIN: u64 = 60;
/// How long recipients have at the end to get all that they lack.
const HEALS_WITHIN: Duration = Duration::from_secs(60);
/// Of so many notifications each node is asked for the state.
const STATES_ASKED: usize = 60;

#[test]
fn nothing_is_lost_over_faults() -> Result<()> {
    run("nothing_is_lost_over_faults", &[Need::Redis], || {
        let shape: Option<Shape> = chosen("POSTRIDER_SHAPE");
        let rounds = chosen("POSTRIDER_ROUNDS").unwrap_or(2);
        hold_rounds(
            (0..rounds).map(|round| shape.unwrap_or(Shape::EVERYWHERE[round % Shape::EVERYWHERE.len()])),
        )
    })
}

#[test]
fn nothing_is_lost_over_bad_links() -> Result<()> {
    let needs = [Need::Redis, Need::Network];
    run("nothing_is_lost_over_bad_links", &needs, || {
        hold_rounds([Shape::Linked].into_iter())
    })
}

fn hold_rounds(shapes: impl ExactSizeIterator<Item = Shape>) -> Result<()> {
    let _alone = alone();
    room_for_files()?;
    let seed: u64 = chosen("POSTRIDER_SEED").unwrap_or_else(rand::random);
    let rounds = shapes.len();
    let mut failed = Vec::new();
    for (round, shape) in shapes.enumerate() {
        let seed = seed.wrapping_add(round as u64);
        let name = format!("{shape}, POSTRIDER_SEED={seed} POSTRIDER_SHAPE={shape} POSTRIDER_ROUNDS=1");
        say(&format!("round {} of {rounds}: {name}", round + 1));
        let ended = siege(shape, seed);
        let (is_clean, account) = match &ended {
            Ok(report) => (report.is_clean(), report.text()),
            Err(e) => (false, format!("{e:?}")),
        };
        say(&account);
        if !is_clean {
            failed.push(format!("{name}\n{account}"));
        }
    }
    ensure!(
        failed.is_empty(),
        "the account does not balance:\n{}",
        failed.join("\n")
    );
    Ok(())
}

/// Past the test harness, which keeps to itself what a test prints that passes.
fn say(text: &str) {
    let text = text.replace('\n', "\nsiege of nodes: ");
    if let Err(e) = writeln!(std::io::stderr(), "siege of nodes: {text}") {
        println!("{text} (standard error: {e})");
    }
}

fn siege(shape: Shape, seed: u64) -> Result<Report> {
    let began = Instant::now();
    let mut rng = StdRng::seed_from_u64(seed);
    let resumes_within = Duration::from_secs(chosen("POSTRIDER_RESUMES_WITHIN").unwrap_or(RESUMES_WITHIN));
    let mut site = Site::start(shape)?;
    let sets = [
        ("topics.open", r#"["*"]"#),
        ("engine.redis.durability", shape.durability()),
        ("drain.spread", "1s"),
        AS_IT_COMES,
    ];
    let mut fleet = site.fleet(NODES, &sets)?;
    let account = Arc::new(Account::default());
    if shape.may_lose_tail() {
        account.store_may_lose();
    }
    let crowd = crowd::start(&fleet, &account, &mut rng)?;
    let mut witnesses = Witnesses::start(&fleet, resumes_within)?;
    let back_end = BackEnd::start(&fleet.endpoints(), &account, &mut rng);
    say(&format!(
        "{} sessions at work after {:.1} s",
        crowd.len(),
        began.elapsed().as_secs_f64()
    ));
    let held = hold(shape, &mut site, &mut fleet, &mut witnesses, &account, &mut rng);
    if let Err(e) = &held {
        say(&format!("given up: {e:?}{}", fleet.log_ends()));
    }
    let published = back_end.stop();
    held?;
    let published = published.with_context(|| fleet.log_ends())?;
    close(shape, &fleet, &account, &published, &mut rng)?;
    Reader::stop_all(crowd);
    let report = account.report();
    if !report.is_clean() {
        say(&fleet.log_ends());
    }
    let probes = witnesses.close()?;
    for node in &mut fleet.nodes {
        let status = node.terminate(Duration::from_secs(25))?;
        ensure!(status.success(), "exit after SIGTERM: {status}");
    }
    say(&format!(
        "{} requests to publish, {}, {:.1} s",
        published.requests,
        probes,
        began.elapsed().as_secs_f64()
    ));
    Ok(report)
}

/// All the faults, one after the other; after each it is seen whether live delivery is back.
fn hold(
    shape: Shape,
    site: &mut Site,
    fleet: &mut Fleet,
    witnesses: &mut Witnesses,
    account: &Account,
    rng: &mut StdRng,
) -> Result<()> {
    for fault in faults::plan(shape, rng) {
        pause(rng.random_range(200..1200));
        let (before, accepted) = (witnesses.ends(), account.accepted_count());
        let began = Instant::now();
        let done = faults::perform(&fault, shape, site, fleet, rng).with_context(|| format!("{fault:?}"))?;
        let (wrong, slowest) = witnesses.judge(&done, &before);
        say(&format!(
            "  {:?}: {:.1} s, live again after {:.2} s",
            fault,
            (done.back - began).as_secs_f64(),
            slowest.as_secs_f64()
        ));
        for what in wrong {
            account.violation(format!("{fault:?}: {what}"));
        }
        faults::heal(site, fleet).with_context(|| format!("after {fault:?}"))?;
        until_true("publishing to go on", within(GOES_ON_WITHIN), || {
            Ok(account.accepted_count() >= accepted + ACCEPTED_EACH)
        })
        .with_context(|| format!("after {fault:?}"))?;
    }
    Ok(())
}

fn pause(milliseconds: u64) {
    std::thread::park_timeout(Duration::from_millis(milliseconds));
}

/// Publishing is over: everybody gets what is missing, and the nodes agree.
fn close(
    shape: Shape,
    fleet: &Fleet,
    account: &Account,
    published: &back_end::Published,
    rng: &mut StdRng,
) -> Result<()> {
    let is_careless = shape == Shape::Careless;
    let deadline = Instant::now() + HEALS_WITHIN;
    if is_careless {
        complete_or_lost(fleet, account, deadline)?;
    } else {
        account.wait_complete(deadline);
    }
    for id in published.to_users.iter().choose_multiple(rng, STATES_ASKED) {
        if let Err(e) = agree(fleet, id, is_careless) {
            account.violation(format!("{e:#}"));
        }
    }
    Ok(())
}

/// Until everybody has all that Redis did not lose, which does not come however long one waits.
fn complete_or_lost(fleet: &Fleet, account: &Account, deadline: Instant) -> Result<()> {
    let mut asked = publishers(fleet);
    let mut lost = HashSet::new();
    while !account.wait_complete(deadline.min(Instant::now() + Duration::from_secs(1))) {
        let mut is_under_way = false;
        for id in account.missing() {
            if lost.contains(&id) {
                continue;
            }
            if gone(&mut asked, &id)? {
                account.store_lost(&id);
                lost.insert(id);
            } else {
                is_under_way = true;
            }
        }
        if !is_under_way || Instant::now() >= deadline {
            break;
        }
    }
    Ok(())
}

fn publishers(fleet: &Fleet) -> Vec<Publisher> {
    let nodes = fleet.nodes.iter();
    nodes.map(|node| Publisher::new(&node.endpoint, KEY)).collect()
}

/// Whether no node knows an id any more.
fn gone(nodes: &mut [Publisher], id: &str) -> Result<bool> {
    for node in nodes {
        if node.look(id)?.status() != 404 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Until all nodes say the same of a notification, and that nobody has yet to get it.
fn agree(fleet: &Fleet, id: &str, may_be_lost: bool) -> Result<()> {
    let mut nodes = publishers(fleet);
    if may_be_lost && gone(&mut nodes, id)? {
        return Ok(());
    }
    let mut told = Vec::new();
    until_true("nodes to agree", within(60), || {
        told.clear();
        for node in &mut nodes {
            told.push(node.look(id)?.json()?["counts"].clone());
        }
        Ok(told[0]["pending"] == 0 && told.iter().all(|other| *other == told[0]))
    })
    .with_context(|| format!("{id}: {told:?}"))
}
