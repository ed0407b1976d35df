//! The table in Redis: one hash of users and instances, which a producer reads by `HGET`.
//!
//! Beside it are a sorted set of leases and, for each instance, the set of the users that it wrote, by which its rows are
//! found when it is gone. Every step is one script on the master that has the hash, so it is whole or not at all.
//!
//! Invariant: a step that Redis comes to only when nobody waits for it any more is not done: each says until when it counts,
//! by the server's clock, which is read when the connection is made and again from time to time. So no step is overtaken
//! by a later one.
//!
//! Lookups have a connection of their own: the keeper waits for nobody who asks.
//!
//! What a failover of Redis loses, rows among it, is written again in the rounds. It knows no Pub/Sub: producers ask.

mod scripts;

pub use postrider_sources::redis::RedisAddress;

use crate::registry::{Lease, Registry, RegistryFault};
use crate::{MOST_ROWS, RedisKeyName};
use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, FromRedisValue, RedisError, cmd};
use async_trait::async_trait;
use postrider_model::{Millis, Timestamp, UserId};
use postrider_sources::queue::SourceFault;
use postrider_sources::redis::{Connector, is_gone};
use scripts::{BEAT, CLEAR, Keys, LATE, PUT, SWEEP, TAKE_OVER};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// A step counts for so long after it was sent: less than an answer is waited for
/// ([`postrider_sources::redis::ANSWER_TIMEOUT`]).
const COUNTS_FOR: Millis = Millis::from_secs(4);
/// The server's clock is read again after so long: clocks do not go alike, and one may be set.
const CLOCK_FOR: Millis = Millis::from_secs(120);
/// Those whose lease is over that are cleared after one beat.
const MOST_DEAD: usize = 16;

/// How the table is reached.
#[derive(Clone)]
pub struct Options {
    /// Where Redis is.
    pub address: RedisAddress,
    /// What the hash is called.
    pub key: RedisKeyName,
    /// What this instance is called.
    pub instance: String,
    /// How long its lease lasts.
    pub lease: Millis,
    /// Counts milliseconds and never jumps.
    pub steady: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// The table, as one instance writes it.
pub struct Redis {
    connector: Connector,
    keys: Keys,
    /// The set of this instance.
    mine: String,
    instance: String,
    lease: Millis,
    steady: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// For what is written.
    line: Mutex<Option<Line>>,
    /// For lookups; made with the first.
    reads: Mutex<Option<Line>>,
}

/// A connection, and how its server's clock stands.
struct Line {
    connection: MultiplexedConnection,
    clock: Clock,
}

/// The server's time, and ours after it was told: what is reckoned from them is behind the server's, never ahead.
#[derive(Clone, Copy)]
struct Clock {
    server: Millis,
    ours: Timestamp,
}

impl Redis {
    /// Nothing is reached yet.
    pub fn new(options: Options) -> Redis {
        let keys = Keys::new(options.key);
        Redis {
            connector: Connector::new(
                options.address,
                format!("postrider-registry-{}", options.instance),
            ),
            mine: keys.of(&options.instance),
            keys,
            instance: options.instance,
            lease: options.lease,
            steady: options.steady,
            line: Mutex::default(),
            reads: Mutex::default(),
        }
    }

    async fn connect(&self) -> Result<Line, RegistryFault> {
        let made = self.connector.to_key(self.keys.rows.as_bytes(), Duration::ZERO);
        let mut connection = made.await.map_err(of_source)?;
        let clock = self.clock(&mut connection).await?;
        Ok(Line { connection, clock })
    }

    async fn clock(&self, connection: &mut MultiplexedConnection) -> Result<Clock, RegistryFault> {
        let asked: Result<(u64, u64), RedisError> = cmd("TIME").query_async(connection).await;
        let (seconds, micros) = asked.map_err(|error| of_redis(&error))?;
        Ok(Clock {
            server: Millis(seconds * 1_000 + micros / 1_000),
            ours: (self.steady)(),
        })
    }

    /// Runs a script, which counts until nobody waits for it.
    async fn run<T: FromRedisValue>(
        &self,
        script: &str,
        keys: &[&str],
        arguments: impl FnOnce(&mut Cmd),
    ) -> Result<T, RegistryFault> {
        self.ask(&self.line, |clock| {
            let since = (self.steady)().0.saturating_sub(clock.ours.0);
            let mut eval = cmd("EVAL");
            eval.arg(script).arg(keys.len()).arg(keys);
            eval.arg(clock.server.0 + since + COUNTS_FOR.0);
            arguments(&mut eval);
            eval
        })
        .await
    }

    /// Asks on the connection of this place, which is made where there is none and dropped after a fault that may be its.
    async fn ask<T: FromRedisValue>(
        &self,
        place: &Mutex<Option<Line>>,
        command: impl FnOnce(Clock) -> Cmd,
    ) -> Result<T, RegistryFault> {
        let mut place = place.lock().await;
        // Not in its place while it is used: who is cancelled leaves none behind.
        let mut line = match place.take() {
            Some(line) => line,
            None => self.connect().await?,
        };
        if line.clock.ours.plus(CLOCK_FOR) <= (self.steady)() {
            line.clock = self.clock(&mut line.connection).await?;
        }
        let command = command(line.clock);
        let answer = command.query_async(&mut line.connection).await;
        // After one that came too late the clock is read anew.
        let is_of_use = |error: &RedisError| !is_gone(error) && error.code() != Some(LATE);
        if answer.as_ref().err().is_none_or(is_of_use) {
            *place = Some(line);
        }
        answer.map_err(|error| of_redis(&error))
    }

    async fn of_users(&self, script: &str, users: &[UserId]) -> Result<u64, RegistryFault> {
        self.run(script, &[&self.keys.rows, &self.mine, &self.keys.alive], |eval| {
            eval.arg(&self.instance);
            users.iter().for_each(|user| {
                eval.arg(user.as_str());
            });
        })
        .await
    }

    /// Clears all rows of an instance, a page at a time; of one that is not this only while its lease is over.
    async fn sweep(&self, instance: &str) -> Result<(), RegistryFault> {
        let theirs = self.keys.of(instance);
        let keys = [&*self.keys.rows, &*theirs, &*self.keys.alive];
        let is_own = u8::from(instance == self.instance);
        let page = |eval: &mut Cmd| {
            eval.arg(instance).arg(MOST_ROWS).arg(is_own);
        };
        while self.run::<u64>(SWEEP, &keys, page).await? > 0 {}
        Ok(())
    }
}

#[async_trait]
impl Registry for Redis {
    async fn open(&self) -> Result<(), RegistryFault> {
        let mut place = self.line.lock().await;
        *place = None;
        *place = Some(self.connect().await?);
        Ok(())
    }

    async fn put(&self, users: &[UserId]) -> Result<(), RegistryFault> {
        self.of_users(PUT, users).await.map(drop)
    }

    async fn take_over(&self, users: &[UserId]) -> Result<u64, RegistryFault> {
        self.of_users(TAKE_OVER, users).await
    }

    async fn clear(&self, users: &[UserId]) -> Result<(), RegistryFault> {
        self.of_users(CLEAR, users).await.map(drop)
    }

    async fn beat(&self) -> Result<Lease, RegistryFault> {
        let lease = self.lease.0;
        let arguments = |eval: &mut Cmd| {
            eval.arg(&self.instance).arg(lease).arg(MOST_DEAD);
        };
        let (held, dead): (bool, Vec<String>) = self.run(BEAT, &[&self.keys.alive], arguments).await?;
        for instance in dead {
            self.sweep(&instance).await?;
        }
        Ok(match held {
            true => Lease::Held,
            false => Lease::Lapsed,
        })
    }

    async fn leave(&self) -> Result<(), RegistryFault> {
        self.sweep(&self.instance).await
    }

    async fn instance_of(&self, user: &UserId) -> Result<Option<String>, RegistryFault> {
        let read = |_| {
            let mut read = cmd("HGET");
            read.arg(&self.keys.rows).arg(user.as_str());
            read
        };
        self.ask(&self.reads, read).await
    }
}

fn of_redis(error: &RedisError) -> RegistryFault {
    of_source(postrider_sources::redis::fault(error))
}

fn of_source(fault: SourceFault) -> RegistryFault {
    match fault {
        SourceFault::Refused(text) => RegistryFault::Refused(text),
        other => RegistryFault::Away(other.to_string()),
    }
}
