//! A node dies at any instant of a publication to a thousand users, over a Cluster, where the publication touches every
//! master. Another node finishes it, or it never was.
//!
//! Invariants checked: what was answered 202 is with every recipient; what was not is with all of them or with none;
//! what is published again, under the same `Idempotency-Key`, is with everybody once, whichever node made its id.
//!
//! `POSTRIDER_KILLS` (10) and `POSTRIDER_SEED` set its length and its choices.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::fleet::Fleet;
use postrider_harness::http::Request;
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{Endpoint, KEY};
use postrider_harness::user::User;
use postrider_harness::wait::{until_true, within};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::site::{Shape, Site};
use crate::{alone, chosen};

const USERS: usize = 1000;
/// The node that dies, and the one that stays.
const MORTAL: usize = 0;
const OTHER: usize = 1;
/// Publications that nobody kills, to learn how long one takes.
const CALIBRATION: usize = 3;
/// How soon the other node must have finished what was left.
const FINISHED_WITHIN: u64 = 60;

#[test]
fn a_publication_is_whole_or_is_not() -> Result<()> {
    run("a_publication_is_whole_or_is_not", &[Need::Redis], || {
        let _alone = alone();
        let kills = chosen("POSTRIDER_KILLS").unwrap_or(10);
        let seed = chosen("POSTRIDER_SEED").unwrap_or_else(rand::random);
        println!("half_done: POSTRIDER_SEED={seed} POSTRIDER_KILLS={kills}");
        kill_loop(kills, seed).with_context(|| format!("with POSTRIDER_SEED={seed}"))
    })
}

fn user(nth: usize) -> String {
    format!("one-of-many-{nth}")
}

/// What was asked for, by the number that is its data.
struct Asked {
    number: usize,
    /// Whether somebody was told 202.
    is_accepted: bool,
}

fn kill_loop(kills: usize, seed: u64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let site = Site::start(Shape::Cluster)?;
    let sets = [("limits.users_per_notification", "1000")];
    let mut fleet = site.fleet(2, &sets)?;
    let takes = calibrate(&fleet)?;
    let (mut asked, mut began_half) = (Vec::new(), 0);
    for number in CALIBRATION..CALIBRATION + kills {
        // Beyond its usual time too, so that some are killed right after their answer.
        let after = takes.mul_f64(rng.random_range(0.0..1.3));
        let mut is_accepted = kill_within(&mut fleet, number, after)?;
        began_half += usize::from(!is_accepted);
        // Half of them are published again by whoever did not get an answer, at the other node.
        if !is_accepted && rng.random() {
            let status = ask_again(&fleet.nodes[OTHER].endpoint, number)?;
            ensure!(status == 202, "published again: {status}");
            is_accepted = true;
        }
        asked.push(Asked { number, is_accepted });
        fleet.nodes[MORTAL].restart()?;
    }
    let mut whole = 0;
    // What was begun is finished by then, and nothing changes any more.
    until_true(
        "every publication whole or not there",
        within(FINISHED_WITHIN),
        || {
            let had = inboxes(&fleet)?;
            whole = judge(&asked, &had).unwrap_or(0);
            Ok(judge(&asked, &had).is_ok())
        },
    )
    .or_else(|_| judge(&asked, &inboxes(&fleet)?).map(|now| whole = now))?;
    println!(
        "half_done: {kills} publications to {USERS} users, {takes:?} each unhindered; {began_half} died without an \
         answer, {whole} are whole, {} were never there",
        kills - whole
    );
    Ok(())
}

fn body(number: usize) -> String {
    let users: Vec<String> = (0..USERS).map(user).collect();
    json!({"users": users, "data": number}).to_string()
}

fn request(number: usize) -> Request {
    Request::new("POST", "/v1/notifications")
        .bearer(KEY)
        .header("Idempotency-Key", &format!("half-done-{number}"))
        .body("application/json", body(number))
}

fn ask_again(node: &Endpoint, number: usize) -> Result<u16> {
    let mut status = 0;
    until_true("an answer", within(FINISHED_WITHIN), || {
        let answer = node
            .connect(None)?
            .call(&request(number), within(FINISHED_WITHIN))?;
        status = answer.status();
        Ok(status != 503)
    })?;
    Ok(status)
}

fn calibrate(fleet: &Fleet) -> Result<Duration> {
    let mut shortest = Duration::MAX;
    for number in 0..CALIBRATION {
        let began = Instant::now();
        let status = ask_again(&fleet.nodes[MORTAL].endpoint, number)?;
        ensure!(status == 202, "unhindered: {status}");
        shortest = shortest.min(began.elapsed());
    }
    Ok(shortest)
}

/// Publishes at the mortal node and kills it so long after; whether it answered 202 before.
fn kill_within(fleet: &mut Fleet, number: usize, after: Duration) -> Result<bool> {
    let mut conn = fleet.nodes[MORTAL].endpoint.connect(None)?;
    conn.write(&request(number).bytes())?;
    let at = Instant::now() + after;
    while Instant::now() < at {
        std::hint::spin_loop();
    }
    fleet.nodes[MORTAL].kill9()?;
    // A cut is no answer.
    Ok(conn
        .head(within(30))
        .ok()
        .flatten()
        .is_some_and(|head| head.status == 202))
}

/// What every user has, as the numbers in the data: each as often as it came, under whatever id.
fn inboxes(fleet: &Fleet) -> Result<Vec<Vec<usize>>> {
    let node = &fleet.nodes[OTHER].endpoint;
    let users: Vec<usize> = (0..USERS).collect();
    std::thread::scope(|scope| {
        let look = |part: &[usize]| {
            part.iter()
                .map(|nth| inbox(node, *nth))
                .collect::<Result<Vec<_>>>()
        };
        let parts = users.chunks(USERS.div_ceil(4));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || look(part))).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().ok().context("a thread panicked")??);
        }
        Ok(all)
    })
}

fn inbox(node: &Endpoint, nth: usize) -> Result<Vec<usize>> {
    let target = "/v1/inbox?wait=0&limit=1000&ack=none";
    let answer = User::new(node, &user(nth))?.call(Request::new("GET", target))?;
    ensure!(answer.status() == 200, "{} {}", answer.status(), answer.text());
    let page = answer.json()?;
    let list = page["notifications"].as_array().context("no notifications")?;
    let number = |entry: &Value| entry["data"].as_u64().map(|n| n as usize).context("no number");
    list.iter().map(number).collect()
}

/// How many publications are whole; an error where one is neither whole nor absent, is there twice, or was accepted
/// and is not there.
fn judge(asked: &[Asked], had: &[Vec<usize>]) -> Result<usize> {
    let mut holders: HashMap<usize, usize> = HashMap::new();
    for (nth, numbers) in had.iter().enumerate() {
        let once: HashSet<usize> = numbers.iter().copied().collect();
        ensure!(
            once.len() == numbers.len(),
            "{} has one twice: {numbers:?}",
            user(nth)
        );
        once.into_iter()
            .for_each(|number| *holders.entry(number).or_default() += 1);
    }
    let mut whole = 0;
    for Asked { number, is_accepted } in asked {
        let count = holders.get(number).copied().unwrap_or(0);
        ensure!(
            count == 0 || count == had.len(),
            "{number} is with {count} of {}",
            had.len()
        );
        ensure!(
            count > 0 || !is_accepted,
            "{number} was accepted and is with nobody"
        );
        whole += usize::from(count > 0);
    }
    Ok(whole)
}

#[test]
fn the_judge_finds_what_is_wrong() {
    let asked = |is_accepted| {
        [Asked {
            number: 7,
            is_accepted,
        }]
    };
    let judged = |accepted: bool, had: [&[usize]; 2]| judge(&asked(accepted), &had.map(<[usize]>::to_vec));
    assert_eq!(judged(true, [&[7], &[7]]).unwrap(), 1);
    assert_eq!(judged(false, [&[7], &[7]]).unwrap(), 1);
    assert_eq!(judged(false, [&[], &[]]).unwrap(), 0);
    assert!(judged(true, [&[], &[]]).is_err(), "accepted, and with nobody");
    assert!(judged(false, [&[7], &[]]).is_err(), "half of it");
    assert!(judged(true, [&[7, 7], &[7]]).is_err(), "twice");
}
