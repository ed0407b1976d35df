//! The connections of a source: made, told what to subscribe to, asked whether they still answer, and given up.
//!
//! Invariant: turns are told one after another, each whole; one that fails costs the connections, so that everything is asked
//! for anew.

use super::interest::Changes;
use super::{RedisPubSub, Subscriber};
use crate::queue::SourceFault;
use crate::redis::{fault, slot};
use futures_util::future::join_all;
use postrider_model::{FeedId, Millis};
use redis::aio::ConnectionLike as _;
use redis::{cmd, pipe};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Every connection is asked so often whether it still answers, and has so long to.
const PING_EVERY: Millis = Millis(2_000);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Channels in one command.
const CHANNELS_PER_COMMAND: usize = 512;
/// Channels that are subscribed to between two looks at what came.
const CHANNELS_AT_ONCE: usize = 8_192;

impl RedisPubSub {
    /// Tells the server what has changed, as far as it goes into one turn. Whether there was anything.
    pub(super) async fn follow_up(&self) -> Result<bool, SourceFault> {
        let Some(changes) = self.interests().take(self.now(), CHANNELS_AT_ONCE) else {
            return Ok(false);
        };
        let turn = changes.turn;
        self.inlet.asking();
        let told = self.tell(changes).await;
        if told.is_err() {
            self.lose_links().await;
        }
        self.inlet.answered();
        told?;
        self.confirmed.send_replace(turn);
        Ok(true)
    }

    /// Both ways at once: no feed is in both.
    async fn tell(&self, changes: Changes) -> Result<(), SourceFault> {
        let (subscribe, unsubscribe) = match self.options.sharded {
            true => ("SSUBSCRIBE", "SUNSUBSCRIBE"),
            false => ("SUBSCRIBE", "UNSUBSCRIBE"),
        };
        let names = |feeds: Vec<FeedId>| feeds.iter().filter_map(|feed| self.channel_of(feed)).collect();
        let (left, come) = tokio::join!(
            self.send(unsubscribe, names(changes.unsubscribe)),
            self.send(subscribe, names(changes.subscribe)),
        );
        left.and(come)
    }

    /// Asks every connection whether it still answers, where it is time to: one that is half-open, or whose server hangs,
    /// says nothing by itself.
    pub(super) async fn ask_links(&self) -> Result<(), SourceFault> {
        let now = self.now();
        if now.since(self.presence().asked_at) < PING_EVERY {
            return Ok(());
        }
        self.presence().asked_at = now;
        let links = self.links.lock().await.clone();
        let asking = links.into_iter().map(|mut link| async move {
            let asking = cmd("PING");
            let asked = asking.query_async::<redis::Value>(&mut link.connection);
            match tokio::time::timeout(PING_TIMEOUT, asked).await {
                Ok(answered) => answered.map(drop).map_err(|error| fault(&error)),
                Err(_) => Err(SourceFault::Away("a connection fell silent".into())),
            }
        });
        let answered: Result<(), SourceFault> = join_all(asking).await.into_iter().collect();
        if answered.is_err() {
            self.lose_links().await;
        }
        answered
    }

    /// One command with many names; of sharded channels in a Cluster one for each slot. All in one go.
    async fn send(&self, command: &str, names: Vec<String>) -> Result<(), SourceFault> {
        let mut batches: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        let by_slot = self.options.sharded && self.connector.is_cluster();
        for name in names {
            let slot = if by_slot { slot(name.as_bytes()) } else { 0 };
            batches.entry(slot).or_default().push(name);
        }
        let links = self.links.lock().await.clone();
        let commands = batches
            .iter()
            .flat_map(|(slot, names)| names.chunks(CHANNELS_PER_COMMAND).map(move |some| (slot, some)));
        let sending = commands.map(|(slot, some)| {
            let link = links.iter().find(|link| link.slots.contains(slot)).cloned();
            async move {
                let mut connection = link
                    .ok_or_else(|| SourceFault::Away("it is not connected".into()))?
                    .connection;
                // Every name is confirmed for itself: as many answers as names belong to this one command.
                let mut telling = pipe();
                telling.cmd(command).arg(some);
                let told = connection.req_packed_commands(&telling, 0, some.len()).await;
                told.map(drop).map_err(|error| fault(&error))
            }
        });
        join_all(sending).await.into_iter().collect()
    }

    pub(super) async fn close_links(&self) {
        self.links.lock().await.clear();
        self.interests().lost(self.now());
    }

    /// As [`RedisPubSub::close_links`], where they are of no use any more: what is published until they are made anew is
    /// missed.
    pub(super) async fn lose_links(&self) {
        if !self.links.lock().await.is_empty() {
            self.interruptions.fetch_add(1, Ordering::Relaxed);
            let node = &self.options.node;
            tracing::warn!(%node, "a connection to Redis is lost: what is published until it stands again is missed");
        }
        let now = self.now();
        self.presence().away_since.get_or_insert(now);
        self.close_links().await;
    }

    /// Connects, and asks for all that is wanted.
    pub(super) async fn connect_and_ask(&self) -> Result<(), SourceFault> {
        let links = self.connect().await?;
        *self.links.lock().await = links;
        let subscribe = if self.options.sharded {
            "SSUBSCRIBE"
        } else {
            "SUBSCRIBE"
        };
        let fixed = async {
            self.send(subscribe, self.options.channels.clone()).await?;
            self.send("PSUBSCRIBE", self.options.patterns.clone()).await
        };
        if let Err(fault) = fixed.await {
            self.close_links().await;
            return Err(fault);
        }
        self.presence().asked_at = self.now();
        // Those who are there now. Who comes meanwhile is for `receive`, or it might never come to an end.
        let turns = self.interests().coming().div_ceil(CHANNELS_AT_ONCE);
        for _ in 0..turns {
            self.follow_up().await?;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Vec<Subscriber>, SourceFault> {
        let inlet = self.inlet.begin();
        let push = move |info| inlet.push(info);
        if self.options.sharded && self.connector.is_cluster() {
            let masters = self.connector.to_masters(push).await?;
            return Ok(masters
                .into_iter()
                .map(|(slots, connection)| Subscriber { slots, connection })
                .collect());
        }
        let connection = self.connector.to_subscribe(push).await?;
        Ok(vec![Subscriber {
            slots: 0..=u16::MAX,
            connection,
        }])
    }
}
