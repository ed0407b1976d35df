//! The sessions: a hundred users with three each, by every transport, acknowledging by themselves or not, with topics of
//! the session and of the directory.

use std::ops::RangeInclusive;
use std::sync::Arc;

use anyhow::{Context, Result};
use postrider_harness::account::Account;
use postrider_harness::fleet::Fleet;
use postrider_harness::inbox::{AckMode, TRANSPORTS};
use postrider_harness::node::KEY;
use postrider_harness::people::People;
use postrider_harness::reader::{Reader, ReaderSpec};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

pub const USERS: usize = 100;
const SESSIONS_EACH: usize = 3;
/// What sessions may ask for; a quarter of the users each.
pub const SESSION_TOPICS: [&str; 4] = ["weather", "news:eu", "builds/main", "chat~1"];
/// What every tenth user is a member of.
pub const TEAM: &str = "team";
/// How many notifications of a session the restless take. The most is above a page of a feed (256): a cursor comes with
/// the last of a page, so that who always leaves within one, and has to begin with the oldest after a gap, never gets on.
const LEAVES_AFTER: RangeInclusive<u32> = 5..=400;
/// How many sessions are opened at a time.
const AT_ONCE: usize = 6;

pub fn name(user: usize) -> String {
    format!("user-{user}")
}

/// Opens them all; what is published after this must reach them.
pub fn start(fleet: &Fleet, account: &Arc<Account>, rng: &mut StdRng) -> Result<Vec<Reader>> {
    let mut people = People::new(&fleet.nodes[0].endpoint, KEY);
    for user in (0..USERS).filter(|user| is_member(*user)) {
        people.join(TEAM, &name(user))?;
    }
    let specs: Vec<ReaderSpec> = (0..USERS * SESSIONS_EACH).map(|nth| spec(nth, rng)).collect();
    let endpoints = fleet.endpoints();
    std::thread::scope(|scope| {
        let open = |specs: &[ReaderSpec]| -> Result<Vec<Reader>> {
            let open = |spec: &ReaderSpec| Reader::start_at_any(&endpoints, account, spec.clone());
            specs.iter().map(open).collect()
        };
        let parts = specs.chunks(specs.len().div_ceil(AT_ONCE));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || open(part))).collect();
        let mut readers = Vec::new();
        for thread in threads {
            readers.extend(thread.join().ok().context("a thread panicked")??);
        }
        Ok(readers)
    })
}

fn is_member(user: usize) -> bool {
    user.is_multiple_of(10)
}

fn spec(nth: usize, rng: &mut StdRng) -> ReaderSpec {
    let user = nth / SESSIONS_EACH;
    let transport = TRANSPORTS[nth % TRANSPORTS.len()];
    let ack = *[AckMode::Auto, AckMode::Auto, AckMode::Explicit]
        .choose(rng)
        .unwrap_or(&AckMode::Auto);
    let topics = if user.is_multiple_of(4) {
        vec![SESSION_TOPICS[user / 4 % SESSION_TOPICS.len()].to_owned()]
    } else {
        Vec::new()
    };
    // Some change their transport and leave by themselves, others stay until they are cut.
    let is_restless = rng.random_ratio(1, 10);
    ReaderSpec {
        name: format!("{} by {transport}, {ack:?}", name(user)),
        user: name(user),
        topics,
        member_of: if is_member(user) {
            vec![TEAM.to_owned()]
        } else {
            Vec::new()
        },
        transports: if is_restless {
            TRANSPORTS.to_vec()
        } else {
            vec![transport]
        },
        ack,
        leaves_after: is_restless.then_some(LEAVES_AFTER),
        seed: rng.random(),
    }
}
