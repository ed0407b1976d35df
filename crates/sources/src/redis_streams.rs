//! The source `redis_streams`: entries of a Redis stream, taken by a consumer group.
//!
//! Every worker is a consumer of its own, reads with `XREADGROUP … BLOCK` on a connection of its own, and settles over one
//! connection that all share. The first worker also takes over (`XAUTOCLAIM`) what has not been settled for
//! [`StreamOptions::claim_after`]: what a consumer that died held, and what was given back. To give an entry back is to
//! make it look as if it had been idle for a while already, so that it is due after the pause that was asked for.
//!
//! Invariant: `XACK` comes only by [`Delivery::ack`]. The stream is never trimmed; an entry is deleted (`XDEL`) only after
//! its acknowledgement, and only where that was configured. A consumer is taken away only when it holds nothing, which
//! the server checks in the same step.

mod reply;
mod settle;

use crate::queue::{Delivery, Lag, Message, Promise, Source, SourceFault};
use crate::redis::{Connector, RedisAddress, fault, is_gone};
use async_trait::async_trait;
use postrider_model::Millis;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, Pipeline, RedisError, Value, cmd, pipe};
use settle::Slip;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// An `XREADGROUP` waits so long for a first entry.
const BLOCK: Duration = Duration::from_secs(1);
/// What is due again is looked for so often, at most.
const CLAIM_EVERY: Duration = Duration::from_millis(500);
/// Abandoned consumers are looked for each so many looks for what is due.
const TIDY_EVERY: u64 = 120;
/// A consumer that holds nothing is abandoned once it was silent for so many times `claim_after`, and a minute.
const ABANDONED_AFTER: u64 = 4;
/// Consumers that carry this before their name are Postrider's, to be taken away by any node.
const CONSUMER_PREFIX: &str = "postrider-";
/// Consumers that are none of Postrider's and hold something, of whom it is asked what; what more of them had counts as
/// Postrider's own.
const MOST_OTHERS: usize = 16;
/// Takes a consumer away if it holds nothing.
const REMOVE_CONSUMER: &str = "if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then \
     return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2]) end return -1";

/// How a stream is read.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Where Redis is.
    pub address: RedisAddress,
    /// The key of the stream.
    pub stream: String,
    /// The consumer group; made where it is not there.
    pub group: String,
    /// A group that is made begins with the oldest entry; else with what is added from then on.
    pub from_start: bool,
    /// Consumers of this node.
    pub workers: usize,
    /// What is not settled for so long is taken over. Also the longest pause before an entry that was given back.
    pub claim_after: Millis,
    /// Entries are deleted from the stream once they are acknowledged.
    pub delete: bool,
    /// Unlike for every node and every start: the consumers' name is made of it.
    pub node: String,
}

/// See the module.
pub struct RedisStreams {
    own: Arc<Shared>,
    readers: Vec<Mutex<Option<MultiplexedConnection>>>,
    claims: Mutex<Claims>,
}

/// What the deliveries of a source share with it.
struct Shared {
    options: StreamOptions,
    connector: Connector,
    /// For all that does not wait.
    commands: Mutex<Option<MultiplexedConnection>>,
    /// The group was there once. If it is gone, so is what it knew: everything that is there then is new.
    was_open: AtomicBool,
    is_open: AtomicBool,
}

/// Where the look for what is due stands.
struct Claims {
    cursor: String,
    looked: Option<tokio::time::Instant>,
    looks: u64,
}

impl RedisStreams {
    /// Reads as these options say; connects when it is opened.
    pub fn new(options: StreamOptions) -> RedisStreams {
        let connector = Connector::new(options.address.clone(), consumer(&options.node, None));
        RedisStreams {
            readers: (0..options.workers.max(1)).map(|_| Mutex::new(None)).collect(),
            own: Arc::new(Shared {
                connector,
                options,
                commands: Mutex::new(None),
                was_open: AtomicBool::new(false),
                is_open: AtomicBool::new(false),
            }),
            claims: Mutex::new(Claims {
                cursor: "0-0".into(),
                looked: None,
                looks: 0,
            }),
        }
    }

    /// Whether it is time to look for what is due.
    #[allow(clippy::disallowed_methods, reason = "a driver: when it looked last")]
    fn is_claim_due(claims: &mut Claims) -> bool {
        let now = tokio::time::Instant::now();
        if claims
            .looked
            .is_some_and(|looked| now.duration_since(looked) < CLAIM_EVERY)
        {
            return false;
        }
        claims.looked = Some(now);
        claims.looks += 1;
        true
    }

    /// What is due again, each with how often it was given out.
    async fn claim(&self, worker: usize, most: usize) -> Result<Vec<Delivery>, SourceFault> {
        let mut claims = self.claims.lock().await;
        if !RedisStreams::is_claim_due(&mut claims) {
            return Ok(Vec::new());
        }
        if claims.looks % TIDY_EVERY == 0 {
            self.own.tidy().await?;
        }
        let (next, entries, elsewhere) = self.take_over(worker, &claims.cursor, most).await?;
        claims.cursor = next;
        drop(claims);
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let options = &self.own.options;
        let mut counting = pipe();
        for entry in &entries {
            let of = counting.cmd("XPENDING").arg(&options.stream).arg(&options.group);
            of.arg(&entry.id).arg(&entry.id).arg(1);
        }
        let counts: Vec<Value> = self.own.ask_all(&counting).await?;
        let counts = counts.into_iter().map(reply::deliveries);
        let claimed = entries.into_iter().zip(counts);
        Ok(claimed
            .map(|(entry, count)| {
                let was_elsewhere = elsewhere.contains(&entry.id);
                self.own.delivery(worker, entry, count, was_elsewhere)
            })
            .collect())
    }

    /// Takes over what is due, from this id on: gives where to go on, the entries, and the ids of those that a consumer had
    /// which is none of Postrider's. Who had an entry is not told any more once it is taken over.
    async fn take_over(
        &self,
        worker: usize,
        cursor: &str,
        most: usize,
    ) -> Result<(String, Vec<reply::StreamEntry>, HashSet<String>), SourceFault> {
        let options = &self.own.options;
        let mut asking = cmd("XPENDING");
        asking.arg(&options.stream).arg(&options.group);
        let others = reply::holders(self.own.ask(&asking).await?);
        let is_other = |name: &String| !name.starts_with(CONSUMER_PREFIX);
        let others: Vec<_> = others.into_iter().filter(is_other).take(MOST_OTHERS).collect();
        let mut taking = pipe();
        if !others.is_empty() {
            // Nothing comes between them.
            taking.atomic();
        }
        for other in others {
            let of = taking.cmd("XPENDING").arg(&options.stream).arg(&options.group);
            of.arg("IDLE").arg(options.claim_after.0);
            of.arg(cursor).arg("+").arg(most).arg(other);
        }
        taking
            .cmd("XAUTOCLAIM")
            .arg(&options.stream)
            .arg(&options.group)
            .arg(consumer(&options.node, Some(worker)))
            .arg(options.claim_after.0)
            .arg(cursor)
            .arg("COUNT")
            .arg(most);
        let mut answers = self.own.ask_all(&taking).await?;
        let (next, entries) = reply::claimed(answers.pop().unwrap_or(Value::Nil));
        let elsewhere = answers.into_iter().flat_map(reply::pending_ids);
        Ok((next, entries, elsewhere.collect()))
    }

    /// What is new.
    async fn read(&self, worker: usize, most: usize) -> Result<Vec<Delivery>, SourceFault> {
        let options = &self.own.options;
        let mut asking = cmd("XREADGROUP");
        asking
            .arg("GROUP")
            .arg(&options.group)
            .arg(consumer(&options.node, Some(worker)));
        asking
            .arg("COUNT")
            .arg(most)
            .arg("BLOCK")
            .arg(BLOCK.as_millis() as u64);
        asking.arg("STREAMS").arg(&options.stream).arg(">");
        // A worker has its reader to itself; the lock is never waited for.
        let mut reader = self.readers[worker % self.readers.len()].lock().await;
        let mut connection = match reader.take() {
            Some(connection) => connection,
            None => {
                self.own
                    .connector
                    .to_key(options.stream.as_bytes(), BLOCK)
                    .await?
            }
        };
        // Where this future is dropped the connection goes with it: an answer that comes late is nobody's.
        let answer: Value = self.own.checked(asking.query_async(&mut connection).await)?;
        *reader = Some(connection);
        let entries = reply::read(answer).into_iter();
        Ok(entries
            .map(|entry| self.own.delivery(worker, entry, 1, false))
            .collect())
    }
}

#[async_trait]
impl Source for RedisStreams {
    fn promise(&self) -> Promise {
        Promise::AtLeastOnce
    }

    async fn open(&self) -> Result<(), SourceFault> {
        if self.own.is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        let options = &self.own.options;
        let is_new = !self.own.was_open.load(Ordering::Acquire);
        let from = if is_new && !options.from_start { "$" } else { "0" };
        let mut making = cmd("XGROUP");
        making
            .arg("CREATE")
            .arg(&options.stream)
            .arg(&options.group)
            .arg(from)
            .arg("MKSTREAM");
        let mut connection = self.own.connection().await?;
        match making.query_async::<()>(&mut connection).await {
            Ok(()) if !is_new => tracing::warn!(
                stream = %options.stream, group = %options.group,
                "the consumer group was gone and has been made anew, from the oldest entry"
            ),
            Ok(()) => {}
            Err(error) if error.code() == Some("BUSYGROUP") => {}
            Err(error) => {
                self.own.look_at(&error).await;
                return Err(fault(&error));
            }
        }
        self.own.was_open.store(true, Ordering::Release);
        self.own.is_open.store(true, Ordering::Release);
        Ok(())
    }

    async fn receive(&self, worker: usize, most: usize) -> Result<Vec<Delivery>, SourceFault> {
        if worker == 0 {
            let due = self.claim(worker, most).await?;
            if !due.is_empty() {
                return Ok(due);
            }
        }
        self.read(worker, most).await
    }

    async fn lag(&self) -> Result<Option<Lag>, SourceFault> {
        let options = &self.own.options;
        let mut asking = cmd("XINFO");
        asking.arg("GROUPS").arg(&options.stream);
        Ok(reply::lag(self.own.ask(&asking).await?, &options.group))
    }

    async fn close(&self) {
        for worker in 0..self.readers.len() {
            let name = consumer(&self.own.options.node, Some(worker));
            if let Err(error) = self.own.remove_consumer(&name).await {
                tracing::info!(%error, "a consumer was left behind; another node takes it away later");
                return;
            }
        }
    }
}

impl Shared {
    fn delivery(
        self: &Arc<Self>,
        worker: usize,
        entry: reply::StreamEntry,
        deliveries: u32,
        was_elsewhere: bool,
    ) -> Delivery {
        let slip = Slip {
            source: self.clone(),
            worker,
            id: entry.id.clone(),
        };
        let message = Message {
            was_elsewhere,
            ..entry.into_message(&self.options.stream, deliveries)
        };
        Delivery::new(message, Box::new(slip))
    }

    async fn connection(&self) -> Result<MultiplexedConnection, SourceFault> {
        let mut commands = self.commands.lock().await;
        if let Some(connection) = &*commands {
            return Ok(connection.clone());
        }
        let connection = self
            .connector
            .to_key(self.options.stream.as_bytes(), Duration::ZERO)
            .await?;
        Ok(commands.insert(connection).clone())
    }

    /// Remembers what an error says of the connection and of the group.
    async fn look_at(&self, error: &RedisError) {
        if error.code() == Some("NOGROUP") || is_gone(error) {
            self.is_open.store(false, Ordering::Release);
        }
        if is_gone(error) {
            *self.commands.lock().await = None;
        }
    }

    /// The answer of a reader's own connection.
    fn checked<T>(&self, answer: Result<T, RedisError>) -> Result<T, SourceFault> {
        answer.map_err(|error| {
            self.is_open.store(false, Ordering::Release);
            match error.code() {
                Some("NOGROUP") => SourceFault::Away("its consumer group is gone".into()),
                _ => fault(&error),
            }
        })
    }

    async fn ask<T: FromRedisValue>(&self, asking: &Cmd) -> Result<T, SourceFault> {
        let mut connection = self.connection().await?;
        match asking.query_async(&mut connection).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.look_at(&error).await;
                self.checked(Err(error))
            }
        }
    }

    async fn ask_all(&self, asking: &Pipeline) -> Result<Vec<Value>, SourceFault> {
        let mut connection = self.connection().await?;
        match asking.query_async(&mut connection).await {
            Ok(answers) => Ok(answers),
            Err(error) => {
                self.look_at(&error).await;
                self.checked(Err(error))
            }
        }
    }

    async fn remove_consumer(&self, name: &str) -> Result<(), SourceFault> {
        let mut asking = cmd("EVAL");
        asking
            .arg(REMOVE_CONSUMER)
            .arg(1)
            .arg(&self.options.stream)
            .arg(&self.options.group)
            .arg(name);
        self.ask::<i64>(&asking).await.map(drop)
    }

    /// Takes away the consumers of nodes that are gone.
    async fn tidy(&self) -> Result<(), SourceFault> {
        let mut asking = cmd("XINFO");
        asking
            .arg("CONSUMERS")
            .arg(&self.options.stream)
            .arg(&self.options.group);
        let silent = (self.options.claim_after.0 * ABANDONED_AFTER).max(60_000);
        for name in reply::abandoned(self.ask(&asking).await?, CONSUMER_PREFIX, silent) {
            self.remove_consumer(&name).await?;
        }
        Ok(())
    }
}

/// The name of a worker's consumer, or of the node's connections.
fn consumer(node: &str, worker: Option<usize>) -> String {
    match worker {
        Some(worker) => format!("{CONSUMER_PREFIX}{node}-{worker}"),
        None => format!("{CONSUMER_PREFIX}{node}"),
    }
}
