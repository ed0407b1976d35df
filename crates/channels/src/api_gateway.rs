//! The channel `api_gateway`: WebSocket connections that an Amazon API Gateway holds, and a table lists.
//!
//! A [`ConnectionTable`] says who is connected, an [`Endpoint`] hands one connection one payload. What is for named users
//! is looked up user by user; what is for everyone reads the table in segments, side by side. Connections that are gone
//! are struck off the table in batches.
//!
//! Invariant: of the table no more is in memory than one page for each query or segment that is being read; the next is
//! read when the connections of the last have begun to be pushed to. At most `concurrency` pushes are under way at a
//! time, those that wait for their next attempt included: what slows the pushing slows the reading. Only those that failed
//! and wait for the endpoint to be trusted again leave their room to others, which may be served; of one notification there
//! are at most as many.
//!
//! Does not know what is at the end of a table or an endpoint: `dynamodb` and `management` do.

mod answer;
mod connection;
#[cfg(feature = "aws")]
mod dynamodb;
mod endpoint_url;
#[cfg(feature = "aws")]
mod management;
mod reading;
mod stale;

pub use answer::{Answer, Patience};
pub use connection::{Connection, ConnectionTable, Endpoint, Page, Segment, TableFault};
#[cfg(feature = "aws")]
pub use dynamodb::{DynamoTable, TableNames};
pub use endpoint_url::{NoEndpoint, endpoint_url};
#[cfg(feature = "aws")]
pub use management::Management;

use crate::channel::{Channel, Failure, Happened, Ledger, Push, Tally, Unfit};
use crate::circuit::Health;
use crate::gate::Gate;
use crate::{Standing, SteadyClock, Whom};
use answer::Next;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use postrider_model::{Millis, Pauses};
use stale::Stale;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit};

/// API Gateway takes no more bytes than this in one payload.
pub const MOST_PAYLOAD: usize = 128 * 1024;
/// Scans of the whole table at a time; further ones wait, so that many broadcasts cost no more memory, and no more of
/// the table's read capacity, than these.
const SCANS: usize = 4;
/// Batches of one push that are being struck off at a time; where there are more, no further connections are begun.
const STRIKING: usize = 4;
/// How often a batch is tried to be struck off. What is left over is found gone again by the next push.
const STRIKES: u32 = 5;
/// Between two of those.
const STRIKE_PAUSES: Pauses = Pauses {
    first: Millis(100),
    most: Millis(2_000),
};

/// How the channel works.
#[derive(Clone)]
pub struct Options {
    /// Most pushes at a time.
    pub concurrency: usize,
    /// Most queries at a time.
    pub lookups: usize,
    /// Parts in which the table is read for everyone.
    pub segments: usize,
    /// How often one push is attempted, and with what pauses.
    pub patience: Patience,
    /// Most bytes of a payload; no more than [`MOST_PAYLOAD`] is ever taken.
    pub max_payload: usize,
    /// For pauses.
    pub steady: SteadyClock,
    /// Any number, for jitter.
    pub random: fn() -> u64,
    /// Is told whether both the table and the endpoint are there.
    pub standing: Standing,
}

/// The channel.
pub struct ApiGateway {
    table: Arc<dyn ConnectionTable>,
    endpoint: Arc<dyn Endpoint>,
    options: Options,
    gate: Gate,
    room: Semaphore,
    lookups: Semaphore,
    scans: Semaphore,
    standing: Arc<Both>,
}

/// Whether the endpoint and the table are there.
struct Both {
    /// The last that was told goes with the last that was set: telling is part of the lock.
    are_there: Mutex<[bool; 2]>,
    standing: Standing,
}

/// What can be there or not.
#[derive(Clone, Copy)]
enum Half {
    Endpoint,
    Table,
}

impl Both {
    fn set(&self, half: Half, is_there: bool) {
        let mut are_there = self.are_there.lock().unwrap_or_else(PoisonError::into_inner);
        let before = are_there[0] && are_there[1];
        are_there[half as usize] = is_there;
        let after = are_there[0] && are_there[1];
        if before != after {
            (self.standing)(after);
        }
    }
}

/// What ended while a push is under way.
enum Ended {
    /// One connection has it.
    Notified,
    /// One is not there any more.
    Gone(Connection),
    /// One will not be given it, which the ledger keeps.
    Undelivered,
    /// So many were struck off.
    Struck(u64),
}

#[async_trait]
impl Channel for ApiGateway {
    fn check(&self, push: &Push) -> Result<(), Unfit> {
        let most = self.options.max_payload.min(MOST_PAYLOAD);
        match push.data.len() {
            bytes if bytes > most => Err(Unfit::TooLarge { bytes, most }),
            _ => Ok(()),
        }
    }

    async fn push(&self, push: &Push, ledger: &dyn Ledger) -> Tally {
        let mut scan = match push.whom {
            Whom::Users(_) => None,
            Whom::EveryoneBut(_) => room(&self.scans).await,
        };
        let others_served = AtomicBool::new(false);
        let mut connections = self.connections(&push.whom);
        let mut under_way: FuturesUnordered<BoxFuture<'_, Ended>> = FuturesUnordered::new();
        let (mut tally, mut stale, mut striking) = (Tally::default(), Stale::default(), 0);
        let (mut next, mut is_more) = (None, true);
        loop {
            let begun = under_way.len() - striking;
            let is_free = striking < STRIKING && begun < self.options.concurrency.max(1);
            tokio::select! {
                biased;
                Some(ended) = under_way.next(), if !under_way.is_empty() => match ended {
                    Ended::Notified => tally.notified += 1,
                    Ended::Undelivered => tally.undelivered += 1,
                    Ended::Gone(connection) => {
                        tally.gone += 1;
                        if let Some(batch) = stale.add(connection) {
                            striking += 1;
                            under_way.push(self.strike(batch, ledger).boxed());
                        }
                    }
                    Ended::Struck(count) => {
                        striking -= 1;
                        tally.struck += count;
                    }
                },
                permit = room(&self.room), if is_free && next.is_some() => {
                    if let Some(connection) = next.take() {
                        let one = (connection, push.data.clone());
                        under_way.push(self.deliver(one, ledger, &others_served, permit).boxed());
                    }
                }
                found = connections.next(), if is_free && is_more && next.is_none() => {
                    is_more = found.is_some();
                    next = found;
                    if !is_more {
                        // Whoever waits to read the table need not wait for the last of these connections.
                        drop(scan.take());
                    }
                }
                else => match stale.rest() {
                    Some(batch) => {
                        striking += 1;
                        under_way.push(self.strike(batch, ledger).boxed());
                    }
                    None => return tally,
                },
            }
        }
    }
}

/// A permit; `None` never comes, since nobody closes it.
async fn room(room: &Semaphore) -> Option<SemaphorePermit<'_>> {
    room.acquire().await.ok()
}

impl ApiGateway {
    /// One of this table and endpoint.
    pub fn new(table: Arc<dyn ConnectionTable>, endpoint: Arc<dyn Endpoint>, options: Options) -> ApiGateway {
        let standing = Arc::new(Both {
            are_there: Mutex::new([true; 2]),
            standing: options.standing.clone(),
        });
        let both = standing.clone();
        let gate = Gate::new(
            options.steady.clone(),
            options.random,
            Arc::new(move |is_closed| {
                match is_closed {
                    true => tracing::info!("API Gateway does what it is asked again"),
                    false => tracing::warn!(
                        "API Gateway fails; it is left alone for a while, and what is to be pushed waits"
                    ),
                }
                both.set(Half::Endpoint, is_closed);
            }),
        );
        ApiGateway {
            gate,
            room: Semaphore::new(options.concurrency.max(1)),
            lookups: Semaphore::new(options.lookups.max(1)),
            scans: Semaphore::new(SCANS),
            standing,
            table,
            endpoint,
            options,
        }
    }

    /// Hands one connection the payload, as often as it takes or is allowed. `others_served` is whether another connection
    /// of the same push was.
    async fn deliver(
        &self,
        (connection, data): (Connection, Bytes),
        ledger: &dyn Ledger,
        others_served: &AtomicBool,
        mut permit: Option<SemaphorePermit<'_>>,
    ) -> Ended {
        let (mut counted, mut repeats, mut was_failed) = (0, 0, false);
        loop {
            if was_failed {
                // It may have to wait until another is served, which takes room.
                drop(permit.take());
            }
            let pass = self.gate.pass(was_failed).await;
            // A probe takes no room: those who hold it all may wait for what becomes of the probe.
            if permit.is_none() && !pass.is_probe() {
                permit = room(&self.room).await;
            }
            let answer = self.endpoint.post(&connection.id, &data).await;
            let random = (self.options.random)();
            let patience = &self.options.patience;
            let weight = answer.weight(was_failed, others_served.load(Ordering::Relaxed));
            let health = answer.health((&connection.id, weight), patience, repeats, random);
            if health == Health::Well {
                others_served.store(true, Ordering::Relaxed);
            }
            was_failed |= answer.is_failed();
            counted += u32::from(answer.counts(pass.tell(health)));
            match answer.next(patience, counted, repeats, random) {
                Next::Notified => {
                    ledger.note(Happened::Notified);
                    return Ended::Notified;
                }
                Next::Gone => {
                    ledger.note(Happened::Gone);
                    return Ended::Gone(connection);
                }
                Next::Again(pause) => {
                    ledger.note(match answer {
                        Answer::Throttled { .. } => Happened::Throttled,
                        _ => Happened::Repeated,
                    });
                    if repeats == 0 {
                        tracing::debug!(connection = connection.id, ?answer, "a push is tried again");
                    }
                    tokio::time::sleep(pause.as_duration()).await;
                    repeats += 1;
                }
                Next::Never(why) => {
                    let failure = Failure {
                        why: format!("connection {}: {why}", connection.id),
                        user: connection.user,
                        recipient: connection.id,
                        attempts: counted.max(1),
                    };
                    ledger.keep(failure).await;
                    return Ended::Undelivered;
                }
            }
        }
    }

    /// Strikes connections off the table, at most one batch.
    async fn strike(&self, mut batch: Vec<Connection>, ledger: &dyn Ledger) -> Ended {
        let mut struck = 0;
        for nth in 0..STRIKES {
            let before = batch.len();
            let fault = match self.table.delete(&batch).await {
                Ok(left) => {
                    batch = left;
                    None
                }
                Err(fault) => Some(fault),
            };
            let count = before.saturating_sub(batch.len()) as u64;
            if count > 0 {
                struck += count;
                ledger.note(Happened::Struck(count));
            }
            if batch.is_empty() {
                break;
            }
            if nth + 1 == STRIKES {
                let (count, fault) = (batch.len(), fault.map(|fault| fault.to_string()));
                tracing::warn!(
                    count,
                    fault,
                    "connections that are gone cannot be struck off; they will be found gone again"
                );
                break;
            }
            let pause = STRIKE_PAUSES.nth(nth, (self.options.random)());
            tokio::time::sleep(pause.as_duration()).await;
        }
        Ended::Struck(struck)
    }
}

#[cfg(test)]
#[path = "api_gateway/tests.rs"]
mod tests;
