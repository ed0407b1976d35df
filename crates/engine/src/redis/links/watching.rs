//! The one connection that asks a Sentinel, or a node of the Cluster, where the masters are: at intervals, and at once
//! where something went wrong. Requests to look are coalesced.
//!
//! One that is asked may be wrong itself: while a master is away and the answer stays the same, another is asked.

use super::fault::LinkFault;
use super::library::ask;
use super::masters::Atlas;
use super::pipe::Pipe;
use super::shared::{Shared, now};
use super::topology::{Homes, homes_of_slots, master_of_sentinel, one_home};
use super::url::{Address, RedisKind};
use super::wire::{Speech, not_sent};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks at a Sentinel while all is well: a promotion that the old master survives is noticed within it.
const SENTINEL_INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks at the Cluster while all is well; a slot that moves is told by `MOVED` at once.
const CLUSTER_INTERVAL: Duration = Duration::from_secs(2);
/// Between two looks, however much goes wrong.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);
/// How long one may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Watches for ever.
pub struct Watcher {
    shared: Arc<Shared>,
    atlas: Arc<Atlas>,
    /// The hosts that the operator named.
    seeds: Vec<Address>,
    /// Whom to ask next, among all that are known.
    turn: usize,
    asked: Option<(Address, Pipe)>,
}

impl Watcher {
    pub fn new(shared: Arc<Shared>, atlas: Arc<Atlas>, seeds: Vec<Address>) -> Watcher {
        Watcher {
            shared,
            atlas,
            seeds,
            turn: 0,
            asked: None,
        }
    }

    /// Runs until its task is ended.
    pub async fn run(mut self) {
        let interval = match self.shared.kind {
            RedisKind::Cluster => CLUSTER_INTERVAL,
            _ => SENTINEL_INTERVAL,
        };
        loop {
            match self.look().await {
                Ok(homes) => {
                    let changed = self.atlas.take_over(homes);
                    self.shared.note_look(None);
                    if !changed && self.is_one_away() {
                        self.ask_another();
                    }
                }
                Err(fault) => {
                    tracing::debug!(%fault, "no news of the masters of Redis");
                    self.shared.note_look(Some(fault));
                    self.ask_another();
                }
            }
            sleep(LEAST_INTERVAL).await;
            tokio::select! {
                () = self.shared.trouble.notified() => {}
                () = sleep(interval - LEAST_INTERVAL) => {}
            }
        }
    }

    fn is_one_away(&self) -> bool {
        let masters = self.atlas.masters();
        !masters.is_whole() || masters.servers.iter().any(|server| server.pipe().is_err())
    }

    fn ask_another(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        self.asked = None;
    }

    async fn look(&mut self) -> Result<Homes, LinkFault> {
        let deadline = now() + ANSWER_TIMEOUT;
        let shared = Arc::clone(&self.shared);
        let (address, pipe) = self.connected().await?;
        match &shared.kind {
            RedisKind::Sentinel { service } => {
                let mut command = redis::cmd("SENTINEL");
                command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
                let master = master_of_sentinel(&ask(pipe, &command, deadline).await?);
                let unknown =
                    || LinkFault::Unfit(format!("the Sentinel {address} knows no master {service:?}"));
                Ok(one_home(&master.ok_or_else(unknown)?))
            }
            _ => {
                let answer = ask(pipe, redis::cmd("CLUSTER").arg("SLOTS"), deadline).await?;
                homes_of_slots(&answer, address)
                    .ok_or_else(|| not_sent(format!("{address} does not say where the slots are")))
            }
        }
    }

    async fn connected(&mut self) -> Result<&(Address, Pipe), LinkFault> {
        let hint = self
            .shared
            .take_hint()
            .filter(|hint| self.asked.as_ref().is_none_or(|(at, _)| at != hint));
        let kept = match self.asked.take() {
            Some(asked) if hint.is_none() && !asked.1.has_ended() => asked,
            _ => {
                let address = hint.unwrap_or_else(|| self.candidate());
                let pipe = self.connect(&address).await?;
                (address, pipe)
            }
        };
        Ok(self.asked.insert(kept))
    }

    async fn connect(&self, address: &Address) -> Result<Pipe, LinkFault> {
        let shared = &self.shared;
        let wire = match shared.kind {
            RedisKind::Sentinel { .. } => shared.dialer.dial_sentinel(address).await?,
            // A replica knows the slots as well.
            _ => shared.dialer.dial(address, Speech::Resp2).await?,
        };
        let wanted = if matches!(shared.kind, RedisKind::Sentinel { .. }) {
            "sentinel"
        } else {
            "cluster"
        };
        if wire.greeting.mode != wanted {
            return Err(LinkFault::Unfit(format!("{address} is not a {wanted} node")));
        }
        Ok(Pipe::start(wire, 0, &shared.runtime))
    }

    /// In turn: the masters that are known, then those that the operator named.
    fn candidate(&self) -> Address {
        let masters = self.atlas.masters();
        let known = masters.servers.iter().map(|server| &server.address);
        let known = known.filter(|_| self.shared.kind == RedisKind::Cluster);
        let all: Vec<&Address> = known.chain(&self.seeds).collect();
        all[self.turn % all.len()].clone()
    }
}
