//! The source `redis_pubsub`: what is published on channels of Redis Pub/Sub.
//!
//! It listens to channels by name, by pattern, or to one channel for each user and topic that a session of this node
//! hears: it is told who comes and goes, and subscribes to many channels in one command. All of it goes over one
//! connection, or one for each master of a Cluster where the channels are sharded, however many sessions there are.
//!
//! Redis keeps nothing of what it publishes: what comes while the connection is away is lost, and so is what this node
//! has no room for; both are counted. A connection that fell silent is found out by asking over it.
//!
//! Invariant: what is subscribed to follows what is wanted; a message is given out once for each feed whose channel it
//! came on, in the order in which its connection brought it. Who comes waits for the turn that asks for their channels, and for no
//! later one: however many others come and go.

mod inlet;
mod interest;
mod links;
mod states;

pub use crate::template::Template;

use crate::queue::{Delivery, Lag, Message, Promise, Seldom, Source, SourceFault};
use crate::redis::{ANSWER_TIMEOUT, Connector, Keyed, RedisAddress};
use async_trait::async_trait;
use inlet::{Inlet, Published};
use interest::Interests;
use postrider_model::{FeedId, Millis, Timestamp, Topic, UserId};
use redis::aio::MultiplexedConnection;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Who waits for a first message waits so long.
const WAIT: Duration = Duration::from_secs(1);
/// Who comes while the server has been away for longer is told at once. Before, it is waited for: it may be starting anew.
const AWAY_AFTER: Millis = Millis(2_000);

/// What is listened to, and how.
#[derive(Clone)]
pub struct PubSubOptions {
    /// Where Redis is.
    pub address: RedisAddress,
    /// Channels by name.
    pub channels: Vec<String>,
    /// Channels by pattern (`PSUBSCRIBE`).
    pub patterns: Vec<String>,
    /// The channel of a user.
    pub user_channel: Option<Template>,
    /// The channel of a topic.
    pub topic_channel: Option<Template>,
    /// By sharded Pub/Sub (`SSUBSCRIBE`).
    pub sharded: bool,
    /// A channel of a user or topic is left so long after the last session.
    pub linger: Millis,
    /// Unlike for every node and every start.
    pub node: String,
    /// Counts milliseconds from anywhere, and never jumps.
    pub steady: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// See the module.
pub struct RedisPubSub {
    options: PubSubOptions,
    connector: Connector,
    inlet: Arc<Inlet>,
    interests: Mutex<Interests>,
    /// Somebody came, or the connection went.
    changed: Arc<Notify>,
    /// The last turn that was confirmed.
    confirmed: watch::Sender<u64>,
    links: tokio::sync::Mutex<Vec<Subscriber>>,
    /// For what is read of a Cluster, whose keys are not where its channels are.
    keyed: Keyed,
    presence: Mutex<Presence>,
    /// Times that a connection was lost which had stood.
    interruptions: AtomicU64,
    wrong_types: Seldom,
}

/// Whether the server is there.
#[derive(Debug, Clone, Copy, Default)]
struct Presence {
    /// Since when it is not, as far as was found out.
    away_since: Option<Timestamp>,
    asked_at: Timestamp,
}

/// A connection, and the slots whose sharded channels it has.
#[derive(Clone)]
struct Subscriber {
    slots: RangeInclusive<u16>,
    connection: MultiplexedConnection,
}

impl RedisPubSub {
    /// Listens as these options say; connects when it is opened.
    pub fn new(options: PubSubOptions) -> RedisPubSub {
        let changed = Arc::<Notify>::default();
        let connector = Connector::new(options.address.clone(), format!("postrider-{}", options.node));
        RedisPubSub {
            keyed: Keyed::new(connector.clone()),
            connector,
            inlet: Arc::new(Inlet::new(changed.clone())),
            interests: Mutex::new(Interests::new(options.linger)),
            changed,
            confirmed: watch::Sender::new(0),
            links: tokio::sync::Mutex::default(),
            presence: Mutex::default(),
            interruptions: AtomicU64::new(0),
            wrong_types: Seldom::default(),
            options,
        }
    }

    /// The first session of this node hears this feed. Never waits.
    pub fn follow(&self, feed: &FeedId) {
        if self.channel_of(feed).is_some() {
            let now = self.now();
            let mut interests = self.interests();
            interests.follow(feed);
            // Who polls comes and goes all the time, and is there still.
            if interests.is_due(now) {
                self.changed.notify_one();
            }
        }
    }

    /// The last one has gone. Never waits.
    pub fn unfollow(&self, feed: &FeedId) {
        if self.channel_of(feed).is_some() {
            let now = self.now();
            let mut interests = self.interests();
            let before = interests.next_leave();
            interests.unfollow(feed, now);
            if interests.next_leave() != before {
                self.changed.notify_one();
            }
        }
    }

    /// Returns once what is published from now on for these feeds is heard here. A feed without a channel is passed
    /// over.
    ///
    /// # Errors
    /// It did not come to that in time.
    pub async fn heard(&self, feeds: &[FeedId]) -> Result<(), SourceFault> {
        let now = self.now();
        let is_away = |since: Timestamp| now.since(since) > AWAY_AFTER;
        if self.presence().away_since.is_some_and(is_away) {
            return Err(SourceFault::Away("it has been away for a while".into()));
        }
        let of_channels = || feeds.iter().filter(|feed| self.channel_of(feed).is_some());
        let mut confirmed = self.confirmed.subscribe();
        let wait = Millis(u64::try_from(ANSWER_TIMEOUT.as_millis()).unwrap_or(u64::MAX));
        for feed in of_channels() {
            self.interests().expect(feed, now, wait);
        }
        self.changed.notify_one();
        let all = async {
            loop {
                let turn = *confirmed.borrow_and_update();
                let is_heard = |asked: u64| asked <= turn;
                if of_channels().all(|feed| self.interests().asked_in(feed).is_some_and(is_heard)) {
                    return;
                }
                if confirmed.changed().await.is_err() {
                    return;
                }
            }
        };
        let late = |_| SourceFault::Away("the subscription was not confirmed in time".into());
        tokio::time::timeout(ANSWER_TIMEOUT, all).await.map_err(late)
    }

    /// Users and topics whose channels are wanted.
    pub fn following(&self) -> usize {
        self.interests().count()
    }

    fn now(&self) -> Timestamp {
        (self.options.steady)()
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn interests(&self) -> MutexGuard<'_, Interests> {
        self.interests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel_of(&self, feed: &FeedId) -> Option<String> {
        match feed {
            FeedId::User(user) => self
                .options
                .user_channel
                .as_ref()
                .map(|name| name.name(user.as_str())),
            FeedId::Topic(topic) => self
                .options
                .topic_channel
                .as_ref()
                .map(|name| name.name(topic.as_str())),
            FeedId::All => None,
        }
    }

    /// The feeds whose channel has this name.
    fn feeds_of(&self, channel: &str) -> impl Iterator<Item = FeedId> {
        let id = |template: &Option<Template>| {
            template
                .as_ref()
                .and_then(|name| name.id(channel))
                .map(str::to_owned)
        };
        let user = id(&self.options.user_channel).and_then(|id| UserId::new(&id).ok());
        let topic = id(&self.options.topic_channel).and_then(|id| Topic::new(&id).ok());
        user.map(FeedId::User).into_iter().chain(topic.map(FeedId::Topic))
    }

    fn deliveries(&self, published: Published) -> Vec<Delivery> {
        let Published {
            channel,
            is_own,
            payload,
        } = published;
        let message = |feed| {
            Delivery::unsettled(Message {
                feed,
                body: Some(payload.clone()),
                deliveries: 1,
                ..Message::default()
            })
        };
        if is_own && !self.options.channels.contains(&channel) {
            return self.feeds_of(&channel).map(|feed| message(Some(feed))).collect();
        }
        vec![message(None)]
    }

    fn until_next_leave(&self) -> Duration {
        let now = self.now();
        let next = self.interests().next_leave();
        next.map_or(WAIT, |at| at.since(now).as_duration().min(WAIT))
    }
}

#[async_trait]
impl Source for RedisPubSub {
    fn promise(&self) -> Promise {
        Promise::AtMostOnce
    }

    async fn open(&self) -> Result<(), SourceFault> {
        if !self.inlet.is_lost() && !self.links.lock().await.is_empty() {
            return Ok(());
        }
        self.lose_links().await;
        self.connect_and_ask().await?;
        self.presence().away_since = None;
        Ok(())
    }

    async fn receive(&self, _worker: usize, most: usize) -> Result<Vec<Delivery>, SourceFault> {
        if self.inlet.is_lost() {
            self.lose_links().await;
            return Err(SourceFault::Away("the connection is gone".into()));
        }
        self.ask_links().await?;
        // One turn, so that what has come is not held up by those who come and go.
        let mut waited = self.follow_up().await?;
        loop {
            let taken = self.inlet.take(most);
            if !taken.is_empty() || waited {
                return Ok(taken.into_iter().flat_map(|one| self.deliveries(one)).collect());
            }
            // A message, somebody who came, or the end of the connection; or somebody who is to be left.
            waited = true;
            let news = tokio::time::timeout(self.until_next_leave(), self.changed.notified()).await;
            if news.is_ok() && (self.interests().is_due(self.now()) || self.inlet.is_lost()) {
                return Ok(Vec::new());
            }
        }
    }

    async fn lag(&self) -> Result<Option<Lag>, SourceFault> {
        Ok(Some(Lag {
            dropped: self.inlet.dropped(),
            interruptions: self.interruptions.load(Ordering::Relaxed),
            ..Lag::default()
        }))
    }

    async fn close(&self) {
        self.close_links().await;
    }
}
