//! The ordered store that nodes share: rows in Redis, read through [`Look`]s and written by optimistic transactions.
//!
//! What always holds: a batch is applied whole or not at all, and only if nothing has changed that it rests on; whether
//! it was applied is known when [`RedisStore`] answers, or the answer says that it is not known. Nothing here decides
//! what rows mean.
//!
//! All of it blocks the thread it is called on, which must not be a runtime's worker, but for what is `async`.

use super::calls::{self, Held, Token, bytes, function, number};
use super::commit::Writes;
use super::fetch;
use super::links::{Call, Cell, Durability, LinkFault, Links};
use super::look::Look;
use super::owners;
use super::tokens::Tokens;
use crate::embedded::store::{Batch, Store, StoreFault, Tally, View, With};
use postrider_model::FeedId;
use redis::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The functions that run in Redis, for [`Links::open`].
pub const LIBRARY: &str = include_str!("library.lua");

/// How old the counts over all rows may be where a look has not read them itself.
const TALLY_AGE: Duration = Duration::from_secs(1);
/// Letters of a node's name that are kept in what Redis shows.
const MAX_NAME: usize = 32;
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
    keeps_house: AtomicBool,
    /// Told when another server is there than before.
    another: Notify,
    /// Transactions whose fate nobody has to know any more.
    done: Mutex<Vec<(Cell, Vec<u8>)>>,
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
        let tokens = met(&links).await?;
        let mut counted = Counted::default();
        if !links.is_cluster() {
            let others: Vec<Cell> = Cell::all().skip(1).collect();
            counted.elsewhere = count(&links, &others).await?;
        }
        Ok(RedisStore {
            inner: Arc::new(Inner {
                links,
                options,
                node: format!("{name}.{random:016x}"),
                tokens: Mutex::new(Arc::new(tokens)),
                number: Mutex::new(0),
                counted: Mutex::new(counted),
                keeps_house: AtomicBool::new(false),
                another: Notify::new(),
                done: Mutex::default(),
                #[cfg(test)]
                trial: super::store_tests::Trial::default(),
            }),
        })
    }

    /// Looks at the rows.
    pub fn look(&self) -> Look {
        Look::new(self.clone(), locked(&self.inner.tokens).clone())
    }

    /// The sharded channel on which news of a feed is told, and its cell.
    pub fn channel(feed: &FeedId) -> (Cell, Vec<u8>) {
        owners::channel(feed)
    }

    /// Takes a lease, or renews it. True where this node has it for `ttl` from now.
    pub async fn hold(&self, name: &str, ttl: Duration) -> Result<bool, StoreFault> {
        let args = vec![self.node().to_vec(), number(ttl.as_millis())];
        let key = Cell(0).key(&format!("lease:{name}"));
        let call = calls::writing(Cell(0), function::HOLD, vec![key], args);
        let answers = self.inner.links.call(vec![call]).await;
        Ok(calls::int(&one(answers).map_err(|link| calls::fault(&link))?)? == 1)
    }

    /// Gives a lease up, if it is this node's.
    pub async fn let_go(&self, name: &str) -> Result<(), StoreFault> {
        let key = Cell(0).key(&format!("lease:{name}"));
        let call = calls::writing(Cell(0), function::LET_GO, vec![key], vec![self.node().to_vec()]);
        let answers = self.inner.links.call(vec![call]).await;
        one(answers).map(drop).map_err(|link| calls::fault(&link))
    }

    /// What [`Store::keeps_house`] answers from now on.
    pub fn set_keeps_house(&self, keeps: bool) {
        self.inner.keeps_house.store(keeps, Ordering::Release);
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
        answers.map_err(|link| calls::fault(&link))
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

    async fn meet_all(&self) -> Result<(), StoreFault> {
        let tokens = met(self.links()).await?;
        let mut known = locked(&self.inner.tokens);
        if **known != tokens {
            tracing::warn!(
                epoch = tokens.epoch().0,
                "a Redis server is not known by what it was before (it started anew, was promoted, or got its first replica): \
                 entries are numbered in a new epoch"
            );
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
        for (cell, token) in cells.iter().zip(tokens_of(self.links(), &cells).await?) {
            if known.of(*cell) != token {
                return self.meet_all().await;
            }
        }
        Ok(())
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
        let tally = self.links().handle().block_on(count(self.links(), &cells))?;
        Ok(self.counted(tally))
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

    fn commit_from(&self, look: Option<&Look>, batch: &Batch, with: &With<'_>) -> Result<(), StoreFault> {
        let mut number = locked(&self.inner.number);
        let tokens = match look {
            Some(look) => look.tokens(),
            None => locked(&self.inner.tokens).clone(),
        };
        let writes = Writes::new(look, batch, with, self.links().is_cluster());
        if writes.is_empty() {
            return look.map_or(Ok(()), |look| self.vouch(look, with.sync));
        }
        *number += 1;
        let at_once = writes.fits_one_call(self.links().is_cluster()) && !self.is_in_two_phases();
        let held = match at_once {
            true => self.commit_at_once(&tokens, &writes, *number, with.sync)?,
            false => self.commit_in_two_phases(&tokens, &writes, *number, with.sync)?,
        };
        let Some(held) = held else {
            if let Some((_, last)) = &mut locked(&self.inner.counted).last {
                *last = sum(*last, with.tally);
            }
            return Ok(());
        };
        drop(number);
        self.unblock(&held)?;
        Err(StoreFault::Conflict)
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
        self.inner.keeps_house.load(Ordering::Acquire)
    }

    fn commit_on(&self, view: Box<dyn View + '_>, batch: &Batch, with: &With<'_>) -> Result<(), StoreFault> {
        match view.as_any().and_then(|view| view.downcast_ref::<Look>()) {
            Some(look) => self.commit_from(Some(look), batch, with),
            None => Err(StoreFault::Refused("a view of another store".into())),
        }
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

/// What the servers are known by now.
async fn met(links: &Links) -> Result<Tokens, StoreFault> {
    let cells = Cell::all().take(if links.is_cluster() { usize::MAX } else { 1 });
    let cells: Vec<Cell> = cells.collect();
    Ok(Tokens::new(tokens_of(links, &cells).await?))
}

/// The tokens of the servers that have these cells.
async fn tokens_of(links: &Links, cells: &[Cell]) -> Result<Vec<Token>, StoreFault> {
    let call = |cell: &Cell| calls::reading(*cell, function::MEET, vec![cell.key("rows")], Vec::new());
    let mut tokens = Vec::new();
    for answer in links.call(cells.iter().map(call).collect()).await {
        tokens.push(bytes(&answer.map_err(|link| calls::fault(&link))?)?.to_vec());
    }
    Ok(tokens)
}

/// What is counted in these cells.
async fn count(links: &Links, cells: &[Cell]) -> Result<Tally, StoreFault> {
    let call =
        |cell: &Cell| calls::reading(*cell, function::FETCH, vec![cell.key("counts")], vec![number(1)]);
    let mut all = Tally::default();
    for answer in links.call(cells.iter().map(call).collect()).await {
        let answer = answer.map_err(|link| calls::fault(&link))?;
        let counts = calls::part(calls::array(&answer)?, 1)?;
        all = sum(all, fetch::tally(calls::array(counts)?)?);
    }
    Ok(all)
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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
