//! What the nodes of one Redis agree on beside what the engine stores: who is there, how many sessions a user has, which
//! tickets have started one, and the key that tickets are signed with.
//!
//! Invariant: a ticket starts at most one session on all nodes. A session that begins counts those of its user on this
//! node and, as they were about 50 ms ago, on the others: more than `limits.sessions_per_user` there are only where
//! several begin on different nodes within that time.

use crate::auth::{Auth, TicketKey};
use async_trait::async_trait;
use postrider_engine::redis::RedisEngine;
use postrider_engine::redis::links::{Cell, LinkFault, Links};
use postrider_engine::redis::presence::{PresenceOptions, RedisPresence};
use postrider_engine::{Engine, NodePresence};
use postrider_model::{FeedId, LogPace, Millis, UserId};
use postrider_transports::{Admission, Entrance, Follow, Problem};
use redis::Value;
use std::io;
use std::sync::Arc;
use tokio::task::JoinSet;

/// The cell of what there is one of.
const CELL: Cell = Cell(0);
/// A ticket that started is remembered for so long after the time in which it could: clocks are not alike.
const CLOCKS_APART: Millis = Millis(60_000);
/// The client comes back after so many seconds.
const RETRY_S: u32 = 1;
/// The same, where sessions on other nodes are too many: those of a node that was killed count as long as its lease.
const LIMIT_RETRY_S: u32 = 5;

/// While Redis is away every session that begins comes to the same.
static UNCOUNTED: LogPace = LogPace::new();
static UNCLAIMED: LogPace = LogPace::new();

/// Tells the engine which feeds are heard here.
pub(crate) struct ToEngine(pub Arc<dyn Engine>);

impl Follow for ToEngine {
    fn follow(&self, feed: &FeedId) {
        self.0.follow(feed);
    }

    fn unfollow(&self, feed: &FeedId) {
        self.0.unfollow(feed);
    }
}

/// Opens presence over all nodes.
///
/// # Errors
/// Where Redis cannot be reached.
pub(crate) async fn open_presence(
    engine: &RedisEngine,
    links: &Links,
    linger: Millis,
    local: Arc<dyn NodePresence>,
) -> Result<RedisPresence, String> {
    let options = PresenceOptions {
        links: links.clone(),
        node: engine.node().to_owned(),
        about: about(),
        linger: linger.as_duration(),
        clock: Arc::new(crate::now),
    };
    let opened = RedisPresence::open(options, local).await;
    opened.map_err(|fault| fault.to_string())
}

/// What a node says of itself to operators.
fn about() -> String {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    format!(
        "postrider {} on {host}, process {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id()
    )
}

/// The key of tickets that all nodes share: made once, by the first.
pub(crate) async fn ticket_key(links: &Links) -> io::Result<TicketKey> {
    let name = CELL.key("tickets:key");
    let mut get = redis::cmd("GET");
    get.arg(&name);
    // Where it is there it is only read: a Redis that is full takes no other command, and a node may start all the same.
    if let Some(theirs) = key_in(asked(links, get).await?)? {
        return Ok(theirs);
    }
    let mine = TicketKey::random_bytes()?;
    let mut command = redis::cmd("SET");
    command.arg(&name).arg(&mine[..]).arg("NX").arg("GET");
    let theirs = key_in(asked(links, command).await?)?;
    Ok(theirs.unwrap_or_else(|| TicketKey::of_nodes(&mine)))
}

async fn asked(links: &Links, command: redis::Cmd) -> io::Result<Value> {
    links.command(CELL, command).await.map_err(|fault| match fault {
        LinkFault::Refused { code, .. } if code == "OOM" => io::Error::other(
            "Redis is full (maxmemory), and the key is not there yet: give it more memory, and start again",
        ),
        fault => io::Error::other(fault),
    })
}

/// The key that Redis has; `None` where it has none.
fn key_in(said: Value) -> io::Result<Option<TicketKey>> {
    match said {
        Value::Nil => Ok(None),
        Value::BulkString(theirs) => {
            let theirs = theirs.as_slice().try_into().map_err(|_| {
                let what = "the key {pr:default:00}:tickets:key in Redis is damaged: delete it, and a new one is made \
                            (pages then need new tickets)";
                io::Error::new(io::ErrorKind::InvalidData, what)
            })?;
            Ok(Some(TicketKey::of_nodes(theirs)))
        }
        other => Err(io::Error::other(format!(
            "Redis answered {other:?} where it was asked for a key"
        ))),
    }
}

/// Admits sessions for all nodes together.
pub(crate) struct Door {
    pub links: Links,
    pub presence: Arc<RedisPresence>,
    pub auth: Arc<Auth>,
    pub sessions_per_user: usize,
}

#[async_trait]
impl Admission for Door {
    async fn admit(&self, entrances: &[Entrance]) -> Vec<Result<(), Problem>> {
        let users: Vec<UserId> = entrances.iter().map(|entrance| entrance.user.clone()).collect();
        let elsewhere = match self.presence.sessions_elsewhere(&users).await {
            Ok(elsewhere) => elsewhere,
            Err(error) => {
                if let Some(unsaid) = UNCOUNTED.due(crate::now()) {
                    tracing::warn!(%error, unsaid, "sessions cannot begin: it is not known how many there are on other nodes");
                }
                return vec![Err(Problem::unavailable(RETRY_S)); entrances.len()];
            }
        };
        let counted = entrances.iter().zip(elsewhere).map(|(entrance, elsewhere)| {
            match entrance.sessions_here as u64 + elsewhere > self.sessions_per_user as u64 {
                true => Err(Problem {
                    retry_after: Some(LIMIT_RETRY_S),
                    ..Problem::session_limit()
                }),
                false => Ok(()),
            }
        });
        let mut said: Vec<_> = counted.collect();
        let mut claims = JoinSet::new();
        for (nth, entrance) in entrances.iter().enumerate() {
            if let (Ok(()), Some((ticket, resumes))) = (&said[nth], &entrance.ticket) {
                let claiming = claim(self.links.clone(), self.auth.clone(), ticket.clone(), *resumes);
                claims.spawn(async move { (nth, claiming.await) });
            }
        }
        while let Some(claimed) = claims.join_next().await {
            if let Ok((nth, claimed)) = claimed {
                said[nth] = claimed;
            }
        }
        said
    }
}

/// Takes a ticket for a session that begins; of one that goes on it is only noted that it has begun.
async fn claim(links: Links, auth: Arc<Auth>, ticket: String, resumes: bool) -> Result<(), Problem> {
    let Some((nonce, starts_until)) = auth.ticket_claim(&ticket) else {
        return Err(Problem::token_malformed());
    };
    let left = starts_until.plus(CLOCKS_APART).since(crate::now());
    if left == Millis(0) {
        // It can start nothing any more, and comes back by its cursor.
        return Ok(());
    }
    let cell = Cell(nonce[0] % postrider_engine::redis::links::CELLS);
    let name: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut command = redis::cmd("SET");
    command
        .arg(cell.key(&format!("ticket:{name}")))
        .arg("1")
        .arg("PX")
        .arg(left.0);
    if !resumes {
        command.arg("NX");
    }
    match links.command(cell, command).await {
        Ok(Value::Nil) => Err(Problem::token_expired()),
        Ok(_) => Ok(()),
        Err(error) => {
            if let Some(unsaid) = UNCLAIMED.due(crate::now()) {
                tracing::warn!(%error, unsaid, "a ticket cannot be used: it is not known whether it was on another node");
            }
            Err(Problem::unavailable(RETRY_S))
        }
    }
}
