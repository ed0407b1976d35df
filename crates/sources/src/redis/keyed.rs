//! Questions about one key of a Cluster: each goes to the master that has the key, as far as is known, and on to where
//! that one says (`MOVED`, `ASK`).
//!
//! Invariant: which master has what is asked once, and anew only after one of them failed; a connection that failed is not
//! used again. A master that is away holds up nobody whose key another one has. What is asked may be sent more than once:
//! it is to change nothing.

use super::connect::{Connector, Host, is_gone, slot};
use crate::queue::SourceFault;
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, from_redis_value, pipe};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A question is sent on so often. One hop more than a slot that is on its way needs twice over.
const MOST_HOPS: usize = 5;

/// Connections to the masters of a Cluster.
pub struct Keyed {
    connector: Connector,
    known: Mutex<Known>,
    /// Held by the one who asks which master has what.
    learning: tokio::sync::Mutex<()>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Nobody could be asked.
    #[error(transparent)]
    Unreached(#[from] SourceFault),
    /// The server said so, or the connection to it broke.
    #[error(transparent)]
    Failed(#[from] RedisError),
}

/// What is known of the Cluster: of each slot at most one word, and of each master that has any a link.
#[derive(Default)]
struct Known {
    /// How often it was asked.
    nth: u64,
    slots: Vec<(RangeInclusive<u16>, Host)>,
    /// Slots that are elsewhere, as a master said since.
    moved: HashMap<u16, Host>,
    links: HashMap<Host, Link>,
}

/// The connection to one master; who comes first makes it.
type Link = Arc<tokio::sync::Mutex<Option<MultiplexedConnection>>>;

impl Known {
    fn host_of(&self, slot: u16) -> Option<(Host, u64)> {
        let by_slots = || self.slots.iter().find(|(slots, _)| slots.contains(&slot));
        let host = self.moved.get(&slot).or_else(|| Some(&by_slots()?.1));
        host.map(|host| (host.clone(), self.nth))
    }

    fn learn(&mut self, masters: Vec<(RangeInclusive<u16>, Host)>) {
        self.nth += 1;
        self.moved.clear();
        self.links
            .retain(|known, _| masters.iter().any(|(_, host)| host == known));
        self.slots = masters;
    }

    /// What was known then was wrong.
    fn forget(&mut self, nth: u64) {
        if self.nth == nth {
            self.slots.clear();
            self.moved.clear();
        }
    }
}

impl Keyed {
    /// Connects when it is asked.
    pub fn new(connector: Connector) -> Keyed {
        Keyed {
            connector,
            known: Mutex::default(),
            learning: tokio::sync::Mutex::default(),
        }
    }

    /// The answer to a question about this key. Takes as long as the connector's time limits let it: who cannot wait that
    /// long drops it.
    ///
    /// # Errors
    /// Nobody could be asked, or the server refuses. Trying again may mend it, as with any source.
    pub async fn ask<T: FromRedisValue>(&self, key: &[u8], question: &Cmd) -> Result<T, Unanswered> {
        let slot = slot(key);
        let (mut host, nth) = self.host_of(slot).await?;
        let mut is_on_its_way = false;
        for _ in 0..MOST_HOPS {
            let link = self.known().links.entry(host.clone()).or_default().clone();
            let asked = match self.connected(&link, &host).await {
                Ok(connection) => put(connection, question, is_on_its_way).await,
                Err(fault) => {
                    self.known().forget(nth);
                    return Err(fault.into());
                }
            };
            let Err(error) = asked else {
                return asked.map_err(Unanswered::from);
            };
            match next(&error, &host) {
                Some(next) => {
                    is_on_its_way = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
                    if !is_on_its_way {
                        self.known().moved.insert(slot, next.clone());
                    }
                    host = next;
                }
                None => {
                    if is_gone(&error) {
                        self.drop_link(&host, &link, nth);
                    }
                    return Err(error.into());
                }
            }
        }
        self.known().forget(nth);
        Err(SourceFault::Away("the masters send a question from one to another".into()).into())
    }

    async fn host_of(&self, slot: u16) -> Result<(Host, u64), SourceFault> {
        if let Some(found) = self.known().host_of(slot) {
            return Ok(found);
        }
        let _learning = self.learning.lock().await;
        if let Some(found) = self.known().host_of(slot) {
            return Ok(found);
        }
        let masters = self.connector.all_masters().await?;
        let mut known = self.known();
        known.learn(masters);
        let found = known.host_of(slot);
        found.ok_or_else(|| SourceFault::Away("no master has the slot".into()))
    }

    async fn connected(&self, link: &Link, host: &Host) -> Result<MultiplexedConnection, SourceFault> {
        let mut link = link.lock().await;
        if let Some(connection) = &*link {
            return Ok(connection.clone());
        }
        let connection = self.connector.to_master(host).await?;
        Ok(link.insert(connection).clone())
    }

    fn drop_link(&self, host: &Host, link: &Link, nth: u64) {
        let mut known = self.known();
        if known
            .links
            .get(host)
            .is_some_and(|known| Arc::ptr_eq(known, link))
        {
            known.links.remove(host);
        }
        known.forget(nth);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks; with leave to look at what is on its way to this master, where that is so.
async fn put<T: FromRedisValue>(
    mut connection: MultiplexedConnection,
    question: &Cmd,
    is_on_its_way: bool,
) -> Result<T, RedisError> {
    if !is_on_its_way {
        return question.query_async(&mut connection).await;
    }
    let mut both = pipe();
    both.cmd("ASKING").add_command(question.clone());
    let answers = connection.req_packed_commands(&both, 1, 1).await?;
    let answer = answers.into_iter().next().unwrap_or(redis::Value::Nil);
    Ok(from_redis_value(answer.extract_error()?)?)
}

/// Where a master says that the slot is; one that names no host means its own.
fn next(error: &RedisError, asked: &Host) -> Option<Host> {
    let (address, _) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    let host = if host.is_empty() { &asked.0 } else { host };
    Some((host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(port: u16) -> Host {
        ("a".to_owned(), port)
    }

    #[test]
    fn what_a_master_said_of_a_slot_goes_before_what_was_known_until_that_is_asked_anew() {
        let mut known = Known::default();
        assert_eq!(known.host_of(7), None);
        known.learn(vec![(0..=99, host(1)), (100..=199, host(2))]);
        known.moved.insert(7, host(2));
        assert_eq!(known.host_of(7), Some((host(2), 1)));
        assert_eq!(known.host_of(8), Some((host(1), 1)));
        for port in [1, 2] {
            known.links.insert(host(port), Link::default());
        }
        known.learn(vec![(0..=199, host(1))]);
        assert_eq!(known.host_of(7), Some((host(1), 2)));
        assert_eq!(known.links.len(), 1, "who has nothing any more is left");
        // Who finds out late that the first word was wrong says nothing of the second.
        known.forget(1);
        assert_eq!(known.host_of(150), Some((host(1), 2)));
        known.forget(2);
        assert_eq!(known.host_of(150), None);
    }

    #[test]
    fn where_a_slot_is() {
        for (text, then) in [
            ("7 b:6380", Some(("b", 6380))),
            ("7 :6380", Some(("a", 6380))),
            ("7 ::1:6380", Some(("::1", 6380))),
            ("7 b", None),
            ("", None),
        ] {
            for kind in [ServerErrorKind::Moved, ServerErrorKind::Ask] {
                let error = RedisError::from((ErrorKind::Server(kind), "elsewhere", text.to_owned()));
                let then = then.map(|(host, port)| (host.to_owned(), port));
                assert_eq!(next(&error, &host(1)), then, "{text}");
            }
        }
        let other = RedisError::from((
            ErrorKind::Server(ServerErrorKind::ReadOnly),
            "no",
            "7 b:1".to_owned(),
        ));
        assert_eq!(next(&other, &host(1)), None);
    }
}
