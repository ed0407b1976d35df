//! The ordered store that nodes share: rows in Redis, read through [`Look`]s and written by optimistic transactions.
//!
//! What always holds: a batch is applied whole or not at all, and only if nothing has changed that it rests on; whether
//! it was applied is known when [`RedisStore`] answers, or the answer says that it is not known. Nothing here decides
//! what rows mean.
//!
//! All of it blocks the thread it is called on, which must not be a runtime's worker, but for what is `async`.

use super::across::across;
use super::calls::{self, Held, Token, function};
use super::commit::Writes;
use super::fetch;
use super::links::{Call, Cell, Durability, LinkFault, Links};
use super::look::Look;
use super::owners::{self, Owner};
use super::standing::Standing;
use super::tokens::Tokens;
use crate::embedded::lanes::Share;
use crate::embedded::store::{Batch, Refused, Store, StoreFault, Tally, View, With};
use postrider_model::FeedId;
use redis::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The functions that run in Redis, for [`Links::open`].
pub const LIBRARY: &str = include_str!("library.lua");

/// How old the counts over all rows may be where a look has not read them itself.
const TALLY_AGE: Duration = Duration::from_secs(1);
/// Letters of a node's name that are kept in what Redis shows.
const MAX_NAME: usize = 32;
/// Letters of the token of a server that was emptied, or never used.
const UNMARKED: usize = 32;
/// Before what was not answered is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// How the store treats Redis.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// How many copies a commit must have before it is answered.
    pub durability: Durability,
    /// For how long what may have been done is repeated until it is known.
    pub patience: Duration,
}

/// Rows in Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RedisStore {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    links: Links,
    options: StoreOptions,
    /// By what transactions and leases of this start are known.
    node: String,
    tokens: Mutex<Arc<Tokens>>,
    /// The last commit's number. Held during a commit: of one node they come one after the other.
    number: Mutex<u64>,
    /// What is counted over all rows, as far as it is known.
    counted: Mutex<Counted>,
    /// What of that which nobody asks for falls to this node.
    share: Mutex<Share>,
    /// Whether Redis takes what is to be kept, and keeps it.
    pub(super) standing: Standing,
    /// Told when another server is there than before.
    pub(super) another: Notify,
    /// When the servers were last asked who they are, and what came of it. Held while they are.
    met: tokio::sync::Mutex<Option<(Instant, Result<(), StoreFault>)>>,
    /// What is kept for this node, if its lease is not over.
    pub(super) kept: Mutex<BTreeSet<Owner>>,
    /// Transactions whose fate nobody has to know any more.
    done: Mutex<Vec<(Cell, Vec<u8>)>>,
    /// Slots of the Cluster move: until then each cell is asked by itself.
    pub(super) apart_until: Mutex<Option<Instant>>,
    #[cfg(test)]
    pub(super) trial: super::store_tests::Trial,
}

#[derive(Debug, Default)]
struct Counted {
    /// Outside a Cluster all is counted in one cell; what the others hold, from a time in a Cluster, does not change.
    elsewhere: Tally,
    last: Option<(Instant, Tally)>,
}

impl RedisStore {
    /// Meets every master once. `node` is told to whoever looks into Redis; that it is not another's, or an earlier
    /// start's, is seen to here.
    pub async fn open(links: Links, node: &str, options: StoreOptions) -> Result<RedisStore, StoreFault> {
        let random = getrandom::u64().map_err(|error| StoreFault::Io(error.to_string()))?;
        let name = node
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c));
        let name: String = name.take(MAX_NAME).collect();
        let tokens = met(&links).await.map_err(|link| calls::fault(&link))?;
        let mut counted = Counted::default();
        if !links.is_cluster() {
            let others: Vec<Cell> = Cell::all().skip(1).collect();
            let told = one(links.call(vec![count(&others, false)]).await);
            counted.elsewhere = sum_of(&[told.map_err(|link| calls::fault(&link))?])?;
        }
        let store = RedisStore {
            inner: Arc::new(Inner {
                links,
                options,
                node: format!("{name}.{random:016x}"),
                tokens: Mutex::new(Arc::new(tokens)),
                number: Mutex::new(0),
                counted: Mutex::new(counted),
                share: Mutex::new(Share::NONE),
                standing: Standing::default(),
                another: Notify::new(),
                met: tokio::sync::Mutex::default(),
                kept: Mutex::default(),
                done: Mutex::default(),
                apart_until: Mutex::default(),
                #[cfg(test)]
                trial: super::store_tests::Trial::default(),
            }),
        };
        let looked = store.look_at_settings().await;
        looked.map_err(|link| calls::fault(&link))?;
        Ok(store)
    }

    /// Looks at the rows.
    pub fn look(&self) -> Look {
        Look::new(self.clone(), locked(&self.inner.tokens).clone())
    }

    /// The sharded channel on which news of a feed is told, and its cell.
    pub fn channel(feed: &FeedId) -> (Cell, Vec<u8>) {
        owners::channel(feed)
    }

    /// What [`Store::share`] answers from now on.
    pub(super) fn set_share(&self, share: Share) {
        *locked(&self.inner.share) = share;
    }

    pub(super) fn links(&self) -> &Links {
        &self.inner.links
    }

    pub(super) fn options(&self) -> StoreOptions {
        self.inner.options
    }

    pub(super) fn node(&self) -> &[u8] {
        self.inner.node.as_bytes()
    }

    pub(super) fn done(&self) -> MutexGuard<'_, Vec<(Cell, Vec<u8>)>> {
        locked(&self.inner.done)
    }

    /// Asks, and fails with the first fault.
    pub(super) fn ask(&self, calls: Vec<Call>) -> Result<Vec<Value>, StoreFault> {
        let answers = self.links().handle().block_on(self.links().call(calls));
        let answers: Result<_, LinkFault> = answers.into_iter().collect();
        answers.map_err(|link| {
            self.note_moves(&link);
            calls::fault(&link)
        })
    }

    /// Asks what may be asked again, until it is known that it ran, or was refused, or patience ends. Each answer in its place.
    pub(super) fn insist(&self, calls: Vec<Call>) -> Vec<Result<Value, LinkFault>> {
        let patience_ends = now() + self.options().patience;
        let mut answers: Vec<_> = calls.iter().map(|_| Err(LinkFault::Closed)).collect();
        let mut open: Vec<usize> = (0..calls.len()).collect();
        let mut sent: Vec<bool> = calls.iter().map(|_| false).collect();
        loop {
            let again = open.iter().map(|at| calls[*at].clone()).collect();
            let told = self.links().handle().block_on(self.links().call(again));
            for (at, answer) in open.iter().zip(told) {
                sent[*at] |= matches!(answer, Err(LinkFault::Unknown(_)));
                answers[*at] = match answer {
                    // That this one was not sent says nothing about the one before.
                    Err(LinkFault::NotSent(why)) if sent[*at] => Err(LinkFault::Unknown(why)),
                    Err(LinkFault::Refused { code, detail }) if sent[*at] => {
                        Err(LinkFault::Unknown(format!("{code} {detail}").into()))
                    }
                    answer => answer,
                };
            }
            let is_open =
                |at: &usize| matches!(answers[*at], Err(LinkFault::Unknown(_) | LinkFault::NotSent(_)));
            open.retain(is_open);
            let faults = answers.iter().filter_map(|answer| answer.as_ref().err());
            faults.for_each(|link| {
                self.note_moves(link);
                self.note_state(link);
            });
            if open.is_empty() || now() >= patience_ends {
                return answers;
            }
            self.pause(PAUSE);
        }
    }

    pub(super) fn pause(&self, time: Duration) {
        // Made within the runtime, whose clock it needs.
        self.links()
            .handle()
            .block_on(async { tokio::time::sleep(time).await });
    }

    /// Fails where a server is not the one that this look began with.
    pub(super) fn meet(&self, tokens: &Tokens, told: &[(Cell, Token)]) -> Result<(), StoreFault> {
        match told
            .iter()
            .all(|(cell, token)| tokens.of(*cell) == token.as_slice())
        {
            true => Ok(()),
            false => self.met_another(),
        }
    }

    /// Another server is there than before: the next look knows it.
    pub(super) fn met_another(&self) -> Result<(), StoreFault> {
        self.links().handle().block_on(self.meet_all())?;
        Err(StoreFault::Conflict)
    }

    /// Of those who want it at a time one does it for all: what began after they wanted it tells them what they want.
    pub(super) async fn meet_all(&self) -> Result<(), StoreFault> {
        let wanted = now();
        let mut last = self.inner.met.lock().await;
        if let Some((begun, told)) = &*last
            && *begun >= wanted
        {
            return told.clone();
        }
        let begun = now();
        let told = self.meet_now().await;
        *last = Some((begun, told.clone()));
        told
    }

    async fn meet_now(&self) -> Result<(), StoreFault> {
        let tokens = met(self.links()).await.map_err(|link| calls::fault(&link))?;
        if **locked(&self.inner.tokens) != tokens {
            // Before anything is committed to it.
            let looked = self.look_at_settings().await;
            looked.map_err(|link| calls::fault(&link))?;
        }
        let mut known = locked(&self.inner.tokens);
        if **known != tokens {
            match known.epoch() == tokens.epoch() {
                true => tracing::info!("slots of the Cluster have moved"),
                false => tracing::warn!(
                    epoch = tokens.epoch().0,
                    "a Redis server is not known by what it was before (it started anew, was promoted, was emptied, or got \
                     its first replica): entries are numbered in a new epoch"
                ),
            }
            *known = Arc::new(tokens);
            self.inner.another.notify_one();
        }
        Ok(())
    }

    /// Returns once a server was met that is not the one that was there before. Told to one who waits, once for each
    /// time, also for what came before it waited.
    pub async fn another(&self) {
        self.inner.another.notified().await;
    }

    /// Asks each server who it is, so that a node that asks nothing else sees it too.
    pub async fn look_around(&self) -> Result<(), StoreFault> {
        let mut servers = BTreeMap::new();
        for cell in Cell::all() {
            servers.entry(self.links().server_of(cell)).or_insert(cell);
        }
        let cells: Vec<Cell> = servers.into_values().collect();
        let known = locked(&self.inner.tokens).clone();
        let told = tokens_of(self.links(), &cells).await;
        let told = told.map_err(|link| calls::fault(&link))?;
        let marks = match self.links().is_cluster() {
            true => marks_of(self.links(), &cells).await,
            false => Ok(Vec::new()),
        };
        let marks = marks.map_err(|link| calls::fault(&link))?;
        let are_known = cells
            .iter()
            .zip(&told)
            .all(|(cell, token)| known.of(*cell) == token);
        let are_marked = cells
            .iter()
            .zip(&marks)
            .all(|(cell, mark)| known.mark(*cell) == mark);
        match are_known && are_marked {
            true => Ok(()),
            false => self.meet_all().await,
        }
    }

    /// What is counted over all rows, at most [`TALLY_AGE`] old.
    pub(super) fn tally(&self) -> Result<Tally, StoreFault> {
        if let Some((at, tally)) = locked(&self.inner.counted).last
            && now().saturating_duration_since(at) < TALLY_AGE
        {
            return Ok(tally);
        }
        let cells: Vec<Cell> = match self.links().is_cluster() {
            true => Cell::all().collect(),
            false => vec![Cell(0)],
        };
        let is_cluster = self.links().is_cluster();
        let groups = self.together(&cells);
        let calls = groups.iter().map(|cells| count(cells, is_cluster));
        let told = self.ask(calls.collect())?;
        Ok(self.counted(sum_of(&told)?))
    }

    /// What was counted where this store counts; all of it, with what is counted elsewhere.
    pub(super) fn counted(&self, tally: Tally) -> Tally {
        let mut counted = locked(&self.inner.counted);
        let tally = sum(tally, counted.elsewhere);
        counted.last = Some((now(), tally));
        tally
    }

    /// What was counted where this store counts, with what is counted elsewhere.
    pub(super) fn with_elsewhere(&self, tally: Tally) -> Tally {
        sum(tally, locked(&self.inner.counted).elsewhere)
    }

    fn commit_from(&self, look: Option<&Look>, batch: &Batch, with: &With<'_>) -> Result<(), Refused> {
        let mut number = locked(&self.inner.number);
        let tokens = match look {
            Some(look) => look.tokens(),
            None => locked(&self.inner.tokens).clone(),
        };
        let writes = Writes::new(look, batch, with, self.links().is_cluster());
        if with.sync && !writes.frees() {
            self.keeps_its_promise()?;
        }
        if writes.is_empty() {
            look.map_or(Ok(()), |look| self.vouch(look, with.sync))?;
            // Perhaps another node did what something is kept for.
            self.let_go(&writes, false);
            return Ok(());
        }
        *number += 1;
        let at_once = writes.fits_one_call(self.links().is_cluster()) && !self.is_in_two_phases();
        if let (false, Some(look)) = (at_once, look)
            && let Some(refused) = self.keep_first(look, &writes, with.tries)
        {
            return Err(refused);
        }
        let held = match at_once {
            true => self.commit_at_once(&tokens, &writes, *number, with.sync)?,
            false => self.commit_in_two_phases(&tokens, &writes, *number, with.sync)?,
        };
        if held.is_none() {
            self.let_go(&writes, at_once);
        }
        let Some(held) = held else {
            if let Some((_, last)) = &mut locked(&self.inner.counted).last {
                *last = sum(*last, with.tally);
            }
            return Ok(());
        };
        drop(number);
        Err(match look {
            Some(look) => self.refused(look, &writes, &held, with.tries)?,
            None => {
                self.unblock(&held)?;
                StoreFault::Conflict.into()
            }
        })
    }

    /// Sees to it that nobody waits for a transaction whose node went away. How many there were.
    pub(super) fn unblock(&self, held: &[Held]) -> Result<usize, StoreFault> {
        let over: Vec<_> = held.iter().filter(|held| held.is_over).collect();
        over.iter().try_for_each(|held| self.wait_for(held, 0))?;
        Ok(over.len())
    }
}

impl Store for RedisStore {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreFault> {
        Ok(Box::new(self.look()))
    }

    /// Rests on nothing.
    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreFault> {
        let with = With {
            sync,
            ..With::default()
        };
        self.commit_from(None, batch, &with)
            .map_err(|refused| refused.fault)
    }

    fn live_bytes(&self) -> u64 {
        0
    }

    fn file_bytes(&self) -> u64 {
        0
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn keeps_house(&self) -> bool {
        self.share().keeps_house()
    }

    fn share(&self) -> Share {
        *locked(&self.inner.share)
    }

    fn commit_on(&self, view: Box<dyn View + '_>, batch: &Batch, with: &With<'_>) -> Result<(), Refused> {
        match view.as_any().and_then(|view| view.downcast_ref::<Look>()) {
            Some(look) => self.commit_from(Some(look), batch, with),
            None => Err(StoreFault::Refused("a view of another store".into()).into()),
        }
    }

    fn gives_up(&self) {
        self.let_go_of_all(BTreeSet::new());
    }
}

#[cfg(not(test))]
#[allow(
    clippy::unused_self,
    clippy::unnecessary_wraps,
    reason = "tests end a node between any two of its steps"
)]
impl RedisStore {
    pub(super) fn step(&self) -> Result<(), StoreFault> {
        Ok(())
    }

    /// Several calls that do not rest on one another, at once.
    pub(super) fn round(&self, calls: Vec<Call>) -> Result<Vec<Result<Value, LinkFault>>, StoreFault> {
        Ok(self.insist(calls))
    }

    pub(super) fn is_in_two_phases(&self) -> bool {
        false
    }
}

/// What the servers are known by now. All cells are marked after this.
async fn met(links: &Links) -> Result<Tokens, LinkFault> {
    let all: Vec<Cell> = Cell::all().collect();
    if links.is_cluster() {
        let marks = met_marks(links, &all).await?;
        return Ok(Tokens::new(tokens_of(links, &all).await?, marks));
    }
    let told = tokens_of(links, &all).await?;
    if told[0].len() > UNMARKED && told.iter().all(|token| *token == told[0]) {
        return Ok(Tokens::new(told, Vec::new()));
    }
    let keys = all.iter().map(|cell| cell.key("mark")).collect();
    let marking = calls::writing(all[0], function::MARK, keys, vec![new_mark()?]);
    asked(links, vec![marking]).await?;
    Ok(Tokens::new(tokens_of(links, &all).await?, Vec::new()))
}

/// The marks of a Cluster, where each cell has its own. What is not there is made: of those who do so at a time the first
/// does, and all find the same.
async fn met_marks(links: &Links, all: &[Cell]) -> Result<Vec<Vec<u8>>, LinkFault> {
    let marks = marks_of(links, all).await?;
    let unmarked = all.iter().zip(&marks).filter(|(_, mark)| mark.is_empty());
    let random = new_mark()?;
    let marking = |(cell, _): (&Cell, _)| {
        calls::writing(
            *cell,
            function::MARK,
            vec![cell.key("mark")],
            vec![random.clone()],
        )
    };
    let marking: Vec<Call> = unmarked.map(marking).collect();
    if marking.is_empty() {
        return Ok(marks);
    }
    asked(links, marking).await?;
    let marks = marks_of(links, all).await?;
    match marks.iter().any(Vec::is_empty) {
        true => Err(LinkFault::NotSent("the servers are just being emptied".into())),
        false => Ok(marks),
    }
}

fn new_mark() -> Result<Vec<u8>, LinkFault> {
    let random = getrandom::u64().map_err(|error| LinkFault::NotSent(error.to_string().into()))?;
    Ok(format!("{random:016x}").into_bytes())
}

async fn marks_of(links: &Links, cells: &[Cell]) -> Result<Vec<Vec<u8>>, LinkFault> {
    let call = |cell: &Cell| calls::reading(*cell, function::MARKED, vec![cell.key("mark")], Vec::new());
    said(links, cells.iter().map(call).collect()).await
}

/// The tokens of the servers that have these cells.
async fn tokens_of(links: &Links, cells: &[Cell]) -> Result<Vec<Token>, LinkFault> {
    let call = |cell: &Cell| calls::reading(*cell, function::MEET, vec![cell.key("rows")], Vec::new());
    said(links, cells.iter().map(call).collect()).await
}

/// What each of these calls answered. The first fault, where there is one.
async fn asked(links: &Links, calls: Vec<Call>) -> Result<Vec<Value>, LinkFault> {
    links.call(calls).await.into_iter().collect()
}

/// The same, of calls that answer with a text.
async fn said(links: &Links, calls: Vec<Call>) -> Result<Vec<Vec<u8>>, LinkFault> {
    let text = |answer| match answer {
        Value::BulkString(text) => Ok(text),
        _ => Err(LinkFault::Unfit(
            "Redis does not say by what it is known".to_owned(),
        )),
    };
    asked(links, calls).await?.into_iter().map(text).collect()
}

/// Asks what is counted in these cells.
fn count(cells: &[Cell], is_cluster: bool) -> Call {
    let keys = cells.iter().map(|cell| cell.key("counts")).collect();
    across(
        calls::reading(cells[0], function::COUNT, keys, Vec::new()),
        is_cluster,
    )
}

fn sum_of(answers: &[Value]) -> Result<Tally, StoreFault> {
    answers.iter().try_fold(Tally::default(), |all, answer| {
        Ok(sum(all, fetch::tally(calls::array(answer)?)?))
    })
}

fn sum(a: Tally, b: Tally) -> Tally {
    Tally {
        held: a.held + b.held,
        records: a.records + b.records,
        scheduled: a.scheduled + b.scheduled,
        letters: a.letters + b.letters,
    }
}

/// The one answer of one call.
pub(super) fn one(answers: Vec<Result<Value, LinkFault>>) -> Result<Value, LinkFault> {
    answers.into_iter().next().unwrap_or(Err(LinkFault::Closed))
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bounds waits; nothing that is stored depends on it.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place; no decision about what is stored"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}
