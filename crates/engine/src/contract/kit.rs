//! What the cases are written with: short names for publishing, settling, and looking.

use super::{Fault, Instance, holds};
use crate::{
    Engine, EngineError, InboxPage, MemberChange, MemberStart, PageWanted, ReadLimit, RecipientState,
    Recipients, StartsWanted, Sync, read_inbox,
};
use bytes::Bytes;
use postrider_model::{
    Attempt, Audience, Cursor, DeadLetter, DeadLetterFilter, Devices, Durability, Entry, EntryKind, Evidence,
    FeedId, IdError, Millis, Notification, NotificationId, Position, Publication, Receipt, RequestKey,
    SessionId, SettleKind, SettleTarget, Settlement, State, Timestamp, Topic, Transport, UserId,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::xxh3_128;

/// An engine under judgement with short names.
pub struct Kit {
    instance: Box<dyn Instance>,
    now: AtomicU64,
}

/// A page as large as any case needs.
pub(super) const WHOLE: ReadLimit = ReadLimit {
    entries: 100_000,
    bytes: usize::MAX,
};

impl Kit {
    /// When every case begins.
    pub const BEGIN: Timestamp = Timestamp(1_700_000_000_000);
    /// How often [`Kit::eventually`] looks.
    const LOOKS: usize = 5000;

    /// Wraps an instance whose clock stands at [`Kit::BEGIN`].
    pub fn new(instance: Box<dyn Instance>) -> Kit {
        Kit {
            instance,
            now: AtomicU64::new(Self::BEGIN.0),
        }
    }

    /// The engine.
    pub fn engine(&self) -> Arc<dyn Engine> {
        self.instance.engine()
    }

    /// What time it is for the engine.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    /// Lets time pass, and has the engine do what became due.
    pub async fn pass(&self, span: Millis) {
        let now = self.now().plus(span);
        self.now.store(now.0, Ordering::SeqCst);
        self.instance.set_time(now);
        self.instance.tick().await;
    }

    /// Restarts the engine where it keeps its data.
    pub async fn restart(&mut self) -> bool {
        self.instance.restart().await
    }

    /// Shuts the engine down.
    pub async fn close(&self) {
        self.instance.close().await;
    }

    /// Publishes one.
    pub async fn publish(&self, make: Make) -> Result<Receipt, EngineError> {
        let mut receipts = self.engine().publish(vec![make.publication(self.now())]).await;
        receipts.pop().unwrap_or(Err(EngineError::Closed))
    }

    /// Publishes each, and fails if one is refused.
    pub async fn publish_all(&self, makes: impl IntoIterator<Item = Make>) -> Result<(), EngineError> {
        let batch = makes.into_iter().map(|make| make.publication(self.now()));
        for receipt in self.engine().publish(batch.collect()).await {
            receipt?;
        }
        Ok(())
    }

    /// A whole feed.
    pub async fn feed(&self, feed: &FeedId) -> Result<Vec<Arc<Entry>>, EngineError> {
        Ok(self.engine().read(feed, 0, WHOLE).await?.entries)
    }

    /// A whole feed, an entry as a short text: `n-1`, `read n-1`, `withdrawn n-1 at 1 (cancelled)`.
    pub async fn told(&self, feed: &FeedId) -> Result<Vec<String>, EngineError> {
        Ok(self.feed(feed).await?.iter().map(|entry| short(entry)).collect())
    }

    /// A user's whole share of a feed; of a topic, as its member.
    pub async fn inbox(&self, user: &str, feed: &FeedId) -> Result<InboxPage, Fault> {
        let engine = self.engine();
        let wanted = PageWanted {
            user: user_id(user)?,
            feed: feed.clone(),
            member: matches!(feed, FeedId::Topic(_)),
            after: 0,
            limit: WHOLE,
        };
        Ok(read_inbox(&*engine, wanted, self.now()).await?)
    }

    /// The place of the entry at `offset`.
    pub async fn place(&self, feed: &FeedId, offset: u64) -> Result<Position, Fault> {
        let entries = self.feed(feed).await?;
        let entry = entries.iter().find(|entry| entry.position.offset == offset);
        let missing = || Fault::from(format!("{feed} has no entry at offset {offset}"));
        Ok(entry.ok_or_else(missing)?.position)
    }

    /// What a user's part of the story is; `None` for one who is no recipient.
    pub async fn story(&self, id: &str, user: &str) -> Result<Option<RecipientState>, Fault> {
        let who = Recipients::One(user_id(user)?);
        let mut states = self.engine().recipients(&notification_id(id)?, who).await?;
        holds!(states.len() <= 1, "one user was asked for, {} came", states.len());
        Ok(states.pop())
    }

    /// The state of `id` for a user.
    pub async fn state(&self, id: &str, user: &str) -> Result<Option<State>, Fault> {
        Ok(self.story(id, user).await?.map(|story| story.state))
    }

    /// All recipients' states, as far as there is something to say.
    pub async fn states(&self, id: &str) -> Result<Vec<(String, State)>, Fault> {
        let states = self
            .engine()
            .recipients(&notification_id(id)?, Recipients::All)
            .await?;
        Ok(states
            .into_iter()
            .map(|one| (one.user.to_string(), one.state))
            .collect())
    }

    /// A user's floor in a feed.
    pub async fn floor(&self, user: &str, feed: &FeedId) -> Result<u64, Fault> {
        let user = user_id(user)?;
        Ok(self.engine().standing(&user, feed, 1, 1).await?.floor)
    }

    /// A user joins a topic, or leaves it. Says whether that changed anything.
    pub async fn moves(&self, user: &str, topic: &str, joins: bool) -> Result<bool, Fault> {
        let change = MemberChange {
            topic: topic_named(topic)?,
            user: user_id(user)?,
            joins,
        };
        let mut changed = self.engine().change_members(vec![change]).await?;
        let changed = changed.pop().ok_or_else(|| Fault::from("no answer".to_owned()))?;
        changed.map_err(|error| Fault::from(format!("{user} was refused: {error}")))
    }

    /// A user joins a topic.
    pub async fn join(&self, user: &str, topic: &str) -> Result<bool, Fault> {
        self.moves(user, topic, true).await
    }

    /// A user leaves a topic.
    pub async fn leave(&self, user: &str, topic: &str) -> Result<bool, Fault> {
        self.moves(user, topic, false).await
    }

    /// What a user's inbox shows of a topic by membership, with the states.
    pub async fn shown(&self, user: &str, topic: &str) -> Result<Vec<(String, Option<State>)>, Fault> {
        let page = self.inbox(user, &of_topic(topic)?).await?;
        let shown = page.entries.iter().filter(|one| one.shown);
        Ok(shown.map(|one| (short(&one.entry), one.state)).collect())
    }

    /// Where the topics stand of which a user is, or was, a member, for a client with this cursor.
    pub async fn member_starts(&self, user: &str, cursor: Option<Cursor>) -> Result<Vec<MemberStart>, Fault> {
        let wanted = StartsWanted {
            user: user_id(user)?,
            places: Vec::new(),
            cursor,
            state: false,
        };
        let mut starts = self.engine().starts(std::slice::from_ref(&wanted)).await;
        let starts = starts.pop().unwrap_or(Err(EngineError::Closed))?;
        if let Some(now) = self.engine().starts_now(&wanted) {
            holds!(now == starts, "from memory {now:?}, from the store {starts:?}");
        }
        Ok(starts.members)
    }

    /// Takes a notification back.
    pub async fn cancel(&self, id: &str) -> Result<Option<Option<u64>>, Fault> {
        Ok(self.engine().cancel(&notification_id(id)?).await?)
    }

    /// Acknowledges by ids.
    pub async fn ack(&self, user: &str, ids: &[&str]) -> Result<u64, Fault> {
        self.settle(user, SettleKind::Delivered, by_ids(ids)?).await
    }

    /// Marks as read by ids.
    pub async fn read(&self, user: &str, ids: &[&str]) -> Result<u64, Fault> {
        self.settle(user, SettleKind::Read, by_ids(ids)?).await
    }

    /// Acknowledges through a position.
    pub async fn through(&self, user: &str, feed: &FeedId, position: Position) -> Result<u64, Fault> {
        let target = SettleTarget::Through(vec![(feed.clone(), position)]);
        self.settle(user, SettleKind::Delivered, target).await
    }

    /// Settles, durably.
    pub async fn settle(&self, user: &str, kind: SettleKind, target: SettleTarget) -> Result<u64, Fault> {
        let settlement = settlement(user, kind, target)?;
        let counts = self.engine().settle(vec![settlement], Sync::Durable).await?;
        holds!(counts.len() == 1, "one settlement, {} counts", counts.len());
        Ok(counts[0])
    }

    /// Reports an attempt on what stands at `offset`.
    pub async fn attempt(&self, user: &str, feed: &FeedId, offset: u64) -> Result<(), Fault> {
        let attempt = Attempt {
            user: user_id(user)?,
            feed: feed.clone(),
            offset,
        };
        self.engine().attempt(vec![attempt]).await?;
        // Nothing waits for an attempt; whatever is asked next comes after it.
        self.instance.tick().await;
        Ok(())
    }

    /// The dead letters that fit a filter, oldest first.
    pub async fn letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, EngineError> {
        Ok(self.engine().dead_letters(filter, None, 1000).await?.letters)
    }

    /// The only dead letter there is.
    pub async fn letter(&self) -> Result<DeadLetter, Fault> {
        let mut letters = self.letters(&DeadLetterFilter::default()).await?;
        holds!(letters.len() == 1, "one dead letter, not {letters:?}");
        letters
            .pop()
            .ok_or_else(|| Fault::from("no dead letter".to_owned()))
    }

    /// What a session without a cursor begins after.
    pub async fn start(&self, user: &str, feed: &FeedId) -> Result<u64, Fault> {
        let standing = self.engine().standing(&user_id(user)?, feed, 1, 1).await?;
        Ok(standing.start())
    }

    /// Waits for something that an engine may do a little later.
    pub async fn eventually<F>(&self, what: &str, mut look: impl FnMut() -> F) -> Result<(), Fault>
    where
        F: Future<Output = Result<bool, Fault>>,
    {
        for _ in 0..Self::LOOKS {
            if look().await? {
                return Ok(());
            }
            self.instance.tick().await;
        }
        Err(Fault::from(format!("never seen: {what}")))
    }
}

/// A settlement as the cases make it: session `s-1`, over a WebSocket, on the client's word.
pub(crate) fn settlement(user: &str, kind: SettleKind, target: SettleTarget) -> Result<Settlement, Fault> {
    Ok(Settlement {
        user: user_id(user)?,
        kind,
        target,
        evidence: Evidence::Client,
        session: Some(SessionId::new("s-1").map_err(bad)?),
        transport: Some(Transport::WebSocket),
    })
}

pub(super) fn by_ids(ids: &[&str]) -> Result<SettleTarget, Fault> {
    let ids = ids.iter().map(|id| notification_id(id));
    Ok(SettleTarget::Ids(ids.collect::<Result<_, _>>()?))
}

pub(super) fn user_id(name: &str) -> Result<UserId, Fault> {
    UserId::new(name).map_err(bad)
}

pub(super) fn notification_id(id: &str) -> Result<NotificationId, Fault> {
    NotificationId::new(id).map_err(bad)
}

/// A user's feed.
pub(super) fn of_user(name: &str) -> Result<FeedId, Fault> {
    Ok(FeedId::User(user_id(name)?))
}

pub(super) fn topic_named(name: &str) -> Result<Topic, Fault> {
    Topic::new(name).map_err(bad)
}

/// A topic's feed.
pub(super) fn of_topic(name: &str) -> Result<FeedId, Fault> {
    Ok(FeedId::Topic(topic_named(name)?))
}

fn bad(error: IdError) -> Fault {
    Fault::from(format!("the case itself is wrong: {error}"))
}

pub(super) fn short(entry: &Entry) -> String {
    match &entry.kind {
        EntryKind::Notification(notification, _) => notification.id.to_string(),
        EntryKind::Read { ids, .. } => {
            let ids: Vec<_> = ids.iter().map(NotificationId::as_str).collect();
            format!("read {}", ids.join(" "))
        }
        EntryKind::Withdrawn {
            id, target, reason, ..
        } => {
            format!("withdrawn {id} at {target} ({})", reason.as_str())
        }
    }
}

/// A notification in the making.
#[derive(Debug, Clone)]
pub struct Make {
    id: String,
    data: String,
    audience: (char, Vec<String>),
    exclude: Vec<String>,
    collapse_key: Option<String>,
    ttl: Option<Millis>,
    deliver_in: Option<Millis>,
    request: Option<RequestKey>,
    durability: Durability,
    devices: Devices,
}

impl Make {
    /// For everyone, unless told otherwise.
    pub fn new(id: impl Into<String>) -> Make {
        Make {
            id: id.into(),
            data: "{}".into(),
            audience: ('e', Vec::new()),
            exclude: Vec::new(),
            collapse_key: None,
            ttl: None,
            deliver_in: None,
            request: None,
            durability: Durability::Stored,
            devices: Devices::All,
        }
    }
    /// Is for the first device that takes it.
    pub fn first(mut self) -> Self {
        self.devices = Devices::First;
        self
    }
    /// For these users.
    pub fn users<T: ToString>(mut self, users: impl IntoIterator<Item = T>) -> Self {
        self.audience = ('u', users.into_iter().map(|user| user.to_string()).collect());
        self
    }
    /// For one user.
    pub fn user(self, user: &str) -> Self {
        self.users([user])
    }
    /// For the subscribers of these topics.
    pub fn topics(mut self, topics: &[&str]) -> Self {
        self.audience = ('t', topics.iter().map(|topic| (*topic).to_owned()).collect());
        self
    }
    /// Not for these.
    pub fn exclude(mut self, users: &[&str]) -> Self {
        self.exclude = users.iter().map(|user| (*user).to_owned()).collect();
        self.exclude.sort();
        self
    }
    /// What it says.
    pub fn data(mut self, data: impl Into<String>) -> Self {
        self.data = data.into();
        self
    }
    /// Replaces the last with the same key.
    pub fn collapse(mut self, key: &str) -> Self {
        self.collapse_key = Some(key.to_owned());
        self
    }
    /// Expires that long after it is published.
    pub fn ttl(mut self, ttl: Millis) -> Self {
        self.ttl = Some(ttl);
        self
    }
    /// Is delivered that long after it is published.
    pub fn deliver_in(mut self, span: Millis) -> Self {
        self.deliver_in = Some(span);
        self
    }
    /// Comes in a request with this key and content.
    pub fn request(mut self, key: &str, content: u128) -> Self {
        let key = key.to_owned();
        self.request = Some(RequestKey { key, content });
        self
    }
    /// Is not to be stored.
    pub fn transient(mut self) -> Self {
        self.durability = Durability::Transient;
        self
    }

    /// The publication, made at `now`. Panics on names that are none: the case is wrong then.
    #[allow(
        clippy::expect_used,
        reason = "a case with a bad name is to be mended, not handled"
    )]
    pub fn publication(&self, now: Timestamp) -> Publication {
        let user = |name: &String| UserId::new(name).expect("a user id");
        let audience = match self.audience.0 {
            'u' => Audience::Users(self.audience.1.iter().map(user).collect()),
            't' => {
                let topics = self.audience.1.iter().map(|name| Topic::new(name));
                Audience::Topics(topics.collect::<Result<_, _>>().expect("topics"))
            }
            _ => Audience::Everyone,
        };
        let notification = Notification {
            id: NotificationId::new(&self.id).expect("a notification id"),
            time: now,
            subject: None,
            data: Bytes::from(self.data.clone()),
            audience,
            exclude: self.exclude.iter().map(user).collect(),
            durability: self.durability,
            expires_at: self.ttl.map(|ttl| now.plus(ttl)),
            deliver_at: self.deliver_in.map(|span| now.plus(span)),
            collapse_key: self.collapse_key.clone(),
            policy: None,
            devices: self.devices,
            publisher: "contract".into(),
        };
        let said = format!("{:?} {:?} {:?}", self.data, self.audience, self.exclude);
        Publication {
            feeds: notification.feeds(),
            notification: Arc::new(notification),
            content: xxh3_128(said.as_bytes()),
            request: self.request.clone(),
        }
    }
}
