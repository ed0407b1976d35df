//! How nodes hear of one another's commits: a sharded channel for each feed, to which a node subscribes while a
//! session of its own hears the feed.
//!
//! Invariant: a feed is subscribed to from the first [`Way::follow`] until it was let go as often; what is said of it
//! after [`Way::is_heard`] is heard, or the listeners are told that they missed something. Keeps nothing else.

use super::engine::Shared;
use super::links::{LinkFault, Links};
use super::store::RedisStore;
use super::transients::Transients;
use crate::EngineError;
use async_trait::async_trait;
use postrider_model::{FeedId, Publication};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How a node hears, and is heard.
#[async_trait]
pub(super) trait Way: Send + Sync {
    /// Hears this feed, once more.
    fn follow(&self, feed: &FeedId);
    /// Once less.
    fn unfollow(&self, feed: &FeedId);
    /// How many feeds are heard.
    fn followed(&self) -> usize;
    /// Waits until whatever is said of those of these feeds that are followed will be heard. Bounded.
    async fn is_heard(&self, feeds: &[FeedId]) -> Result<(), EngineError>;
    /// Says something that nobody keeps. Does not block.
    fn transmit(&self, publication: Publication);
}

/// The channels in Redis.
pub(super) struct Channels {
    links: Links,
    followed: Mutex<HashMap<FeedId, usize>>,
    transients: Transients,
}

impl Channels {
    pub fn start(links: Links) -> Channels {
        Channels {
            transients: Transients::start(&links),
            links,
            followed: Mutex::default(),
        }
    }

    /// Tells the engine what is heard, as long as it is there. Before the first feed is followed.
    pub fn hear(&self, engine: &Arc<Shared>) {
        let (hearing, losing): (Weak<Shared>, Weak<Shared>) =
            (Arc::downgrade(engine), Arc::downgrade(engine));
        self.links.on_message(
            Box::new(move |channel, payload| {
                // Presence has channels of its own.
                if is_of_feed(channel)
                    && let Some(engine) = hearing.upgrade()
                {
                    engine.heard(payload);
                }
            }),
            Box::new(move |_| {
                if let Some(engine) = losing.upgrade() {
                    engine.missed();
                }
            }),
        );
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<FeedId, usize>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `{tag}:feed:…`
fn is_of_feed(channel: &[u8]) -> bool {
    let end = channel.iter().position(|byte| *byte == b'}');
    end.is_some_and(|end| channel[end..].starts_with(b"}:feed:"))
}

#[async_trait]
impl Way for Channels {
    fn follow(&self, feed: &FeedId) {
        let mut followed = self.followed();
        let count = followed.entry(feed.clone()).or_default();
        *count += 1;
        if *count == 1 {
            let (cell, channel) = RedisStore::channel(feed);
            self.links.subscribe(cell, channel);
        }
    }

    fn unfollow(&self, feed: &FeedId) {
        let mut followed = self.followed();
        if let Entry::Occupied(mut count) = followed.entry(feed.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
                let (cell, channel) = RedisStore::channel(feed);
                self.links.unsubscribe(cell, channel);
            }
        }
    }

    fn followed(&self) -> usize {
        self.followed().len()
    }

    async fn is_heard(&self, feeds: &[FeedId]) -> Result<(), EngineError> {
        let channels: Vec<_> = {
            let followed = self.followed();
            let feeds = feeds.iter().filter(|feed| followed.contains_key(feed));
            feeds.map(|feed| RedisStore::channel(feed).1).collect()
        };
        if channels.is_empty() {
            return Ok(());
        }
        let heard = self.links.subscribed(&channels).await;
        heard.map_err(|fault: LinkFault| EngineError::Store(fault.to_string()))
    }

    fn transmit(&self, publication: Publication) {
        self.transients.send(publication);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::{Topic, UserId};

    #[test]
    fn channels_of_feeds_are_known_by_their_names() {
        let feeds = [
            FeedId::All,
            FeedId::User(UserId::new("a}:feed:b").unwrap_or(UserId::new("ada").unwrap())),
            FeedId::Topic(Topic::new("t").unwrap()),
        ];
        for feed in feeds {
            assert!(is_of_feed(&RedisStore::channel(&feed).1), "{feed}");
        }
        for other in [
            &b"{pr:default:00}:nodes"[..],
            b"{pr:default:00}:node:feed:",
            b"x",
            b"",
        ] {
            assert!(!is_of_feed(other));
        }
    }
}
