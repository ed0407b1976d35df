//! The engine of one node over a store that nodes share: the logic of [`Embedded`] over rows in Redis.
//!
//! What always holds: all that is kept is in the store, so that a node can vanish at any moment; and whatever is
//! appended, by any node, is told to the listeners of every node that follows the feed, this one too, by what it
//! hears and by nothing else. Reads are done by [`Readers`], never by a worker of the runtime.

use super::links::{Durability, LinkOptions, Links, RedisUrl, TlsOptions};
use super::readers::{Readers, drive};
use super::standing::Trouble;
use super::store::{LIBRARY, RedisStore, StoreOptions};
use super::sweep::House;
use super::wakes::{Channels, Way};
use super::watch::Watch;
use crate::embedded::news::{self, Heard};
use crate::embedded::store::Store;
use crate::{
    Answered, DeadLetters, Directory, DirectoryError, Embedded, EmbeddedOptions, EngineError, Feeds, Inboxes,
    MemberChange, MemberPage, Page, PageWanted, Put, ReadLimit, RecipientState, Recipients, Redriven, Rules,
    Settlements, Starts, StartsWanted, States, StoreFault, Stored, Sync, UserEntry, UserPage, UserPut, Users,
    Wake, Wakes,
};
use async_trait::async_trait;
use postrider_model::{
    Attempt, DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterPage, FeedId, FeedSpan, InboxPage,
    Membership, NotificationId, Position, Publication, Settlement, Standing, StateChange, StateError,
    Timestamp, Topic, UserId, UserState,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Entries that are read at once where another node only named them.
const NAMED_STEP: ReadLimit = ReadLimit {
    entries: 256,
    bytes: 1 << 20,
};

/// How to open the engine of a node.
pub struct RedisOptions {
    /// Where Redis is.
    pub url: RedisUrl,
    /// Whom to trust, and as whom to come, where the URL asks for TLS.
    pub tls: TlsOptions,
    /// How long one question to Redis may take.
    pub timeout: Duration,
    /// What Redis has to have done before a caller is answered.
    pub durability: Durability,
    /// How long what waits is kept while Redis is away.
    pub patience: Duration,
    /// What is kept, how long, and when to give up. The same on all nodes.
    pub rules: Rules,
    /// Tells the time.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + std::marker::Sync>,
    /// Called after each commit with the number of commands it carried and how long it took.
    pub on_commit: Box<dyn Fn(usize, Duration) + Send>,
}

/// How long what waits is kept while Redis is away, unless told otherwise.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

/// What a node did, for its metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeCounters {
    /// Transactions that were done again because another node changed what they rested on.
    pub conflicts: u64,
    /// Feeds that sessions of this node hear.
    pub followed: usize,
    /// What was heard and could not be read.
    pub unreadable: u64,
}

/// The engine of one node.
pub struct RedisEngine {
    node: String,
    shared: Arc<Shared>,
    way: Arc<dyn Way>,
    links: Option<Links>,
    house: Mutex<Option<House>>,
    watch: Mutex<Option<Watch>>,
    /// Where it is over Redis.
    store: Option<RedisStore>,
}

/// What those who tell of news hold too.
pub(super) struct Shared {
    inner: Embedded,
    readers: Readers,
    unreadable: AtomicU64,
    /// How many of those came since the listeners were told of one, and it.
    since_told: AtomicU64,
}

impl RedisEngine {
    /// Connects. Must be called in a runtime, which outlives the engine.
    pub async fn open(options: RedisOptions) -> Result<RedisEngine, StoreFault> {
        let node = random_node()?;
        let mut to = LinkOptions::new(options.url, node.clone());
        (to.tls, to.timeout) = (options.tls, options.timeout);
        let refused = |fault: super::links::LinkFault| StoreFault::Refused(fault.to_string());
        let links = Links::open(to, LIBRARY).await.map_err(refused)?;
        let patience = options.patience;
        let store = StoreOptions {
            durability: options.durability,
            patience,
        };
        let store = RedisStore::open(links.clone(), &node, store).await?;
        let channels = Arc::new(Channels::start(links.clone()));
        let embedded = EmbeddedOptions {
            data_dir: None,
            rules: options.rules,
            clock: options.clock,
            on_commit: options.on_commit,
        };
        let way: Arc<dyn Way> = channels.clone();
        let mut engine = RedisEngine::over(node, Arc::new(store.clone()), way, embedded, patience)?;
        channels.hear(&engine.shared);
        engine.watch = Mutex::new(Some(Watch::start(links.handle(), store.clone(), &engine.shared)));
        engine.house = Mutex::new(Some(House::start(links.handle(), store.clone(), &engine.shared)));
        engine.store = Some(store);
        engine.links = Some(links);
        Ok(engine)
    }

    /// Over any store that is shared, with a way to tell the nodes.
    pub(super) fn over(
        node: String,
        store: Arc<dyn Store>,
        way: Arc<dyn Way>,
        options: EmbeddedOptions,
        patience: Duration,
    ) -> Result<RedisEngine, StoreFault> {
        let shared = Shared {
            inner: Embedded::over_shared(store, options, patience)?,
            readers: Readers::start()?,
            unreadable: AtomicU64::default(),
            since_told: AtomicU64::default(),
        };
        Ok(RedisEngine {
            node,
            shared: Arc::new(shared),
            way,
            links: None,
            house: Mutex::default(),
            watch: Mutex::default(),
            store: None,
        })
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What of that which nobody asks for falls to this node.
    #[cfg(test)]
    pub(super) fn share(&self) -> crate::embedded::lanes::Share {
        self.shared.inner.share()
    }

    /// Where it is over Redis.
    #[cfg(test)]
    pub(super) fn store(&self) -> Option<&RedisStore> {
        self.store.as_ref()
    }

    /// Ends as a killed node does: it lets go of nothing, and cannot reach Redis any more.
    #[cfg(test)]
    pub(super) async fn die(&self) {
        if let Some(house) = self.house.lock().unwrap_or_else(PoisonError::into_inner).take() {
            house.die();
        }
        self.shared.give_up();
        if let Some(links) = &self.links {
            links.close().await;
        }
    }

    /// The connections; those of an engine that is opened by [`RedisEngine::open`].
    pub fn links(&self) -> Option<&Links> {
        self.links.as_ref()
    }

    /// The name of this node since its start: random.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Does what is due by the clock now, and returns when it is done.
    pub async fn tick(&self) -> Result<(), EngineError> {
        self.shared.inner.tick().await
    }

    /// Whether the last thing that was to be stored could not be.
    pub fn is_failing(&self) -> bool {
        self.shared.inner.is_failing()
    }

    /// Why nothing that is to be kept is taken now, if Redis is such that that is so: until somebody mends it.
    pub fn trouble(&self) -> Option<Trouble> {
        self.store.as_ref().and_then(RedisStore::trouble)
    }

    /// Dead letters there are, as of about a second ago.
    pub fn dead_letter_count(&self) -> u64 {
        self.shared.inner.dead_letter_count()
    }

    /// Bytes that notifications hold, as `retention.total_bytes` counts them, as of about a second ago.
    pub fn held_bytes(&self) -> u64 {
        self.shared.inner.held_bytes()
    }

    /// What this node did.
    pub fn counters(&self) -> NodeCounters {
        NodeCounters {
            conflicts: self.shared.inner.clashes(),
            followed: self.way.followed(),
            unreadable: self.shared.unreadable.load(Ordering::Relaxed),
        }
    }

    /// Finishes what was taken in, lets go of what this node held for all, and disconnects. What comes later is
    /// refused as closed.
    pub async fn close(&self) {
        if let Err(error) = self.finish_writing().await {
            tracing::error!(%error, "what was taken in may not be finished");
        }
        drop(self.watch.lock().unwrap_or_else(PoisonError::into_inner).take());
        let house = self.house.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(house) = house {
            house.close().await;
        }
        if let Some(links) = &self.links {
            links.close().await;
        }
    }

    /// On a thread of its own: the readers may have enough to do.
    pub(super) async fn finish_writing(&self) -> Result<(), EngineError> {
        let shared = self.shared.clone();
        let (done, finished) = tokio::sync::oneshot::channel();
        let finish = move || {
            shared.inner.close();
            if done.send(()).is_err() {
                tracing::trace!("whoever closed it did not wait");
            }
        };
        let thread = std::thread::Builder::new().name("store-close".to_owned());
        let started = thread.spawn(finish);
        started.map_err(|error| EngineError::Store(error.to_string()))?;
        finished.await.map_err(|_| EngineError::Closed)
    }

    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Embedded) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let shared = self.shared.clone();
        self.shared.readers.run(move || read(&shared.inner)).await?
    }

    async fn reading_all<T: Send + 'static>(
        &self,
        count: usize,
        read: impl FnOnce(&Embedded) -> Vec<Result<T, EngineError>> + Send + 'static,
    ) -> Vec<Result<T, EngineError>> {
        let shared = self.shared.clone();
        match self.shared.readers.run(move || read(&shared.inner)).await {
            Ok(answers) => answers,
            Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
        }
    }
}

impl Drop for RedisEngine {
    /// Whoever did not close it does not wait for it either: its threads finish by themselves.
    fn drop(&mut self) {
        self.shared.inner.leave();
    }
}

impl Shared {
    /// As [`Embedded::give_up`].
    #[cfg(test)]
    pub fn give_up(&self) {
        self.inner.give_up();
    }

    pub fn chores(&self) -> u64 {
        self.inner.chores()
    }

    pub fn readers(&self) -> &Readers {
        &self.readers
    }

    /// Another node, or this one, said this.
    pub fn heard(self: &Arc<Self>, payload: &[u8]) {
        match news::decode(payload) {
            Ok(Heard::Wake(wake)) => self.inner.tell(&wake),
            Ok(Heard::Named { feed, from, through }) => self.fetch(feed, from, through),
            Err(fault) => {
                self.unreadable.fetch_add(1, Ordering::Relaxed);
                if self.since_told.fetch_add(1, Ordering::AcqRel) == 0 {
                    tracing::warn!(%fault, "what another node told cannot be read; sessions look for themselves");
                    self.missed();
                }
            }
        }
    }

    /// To be called about once a second. Of what cannot be read the first is told at once, and all that follow within
    /// such a step together, at its end: however many there are, nobody looks more often.
    pub fn tell_unreadable(&self) {
        let since = self.since_told.load(Ordering::Acquire);
        match since {
            0 => {}
            // What comes in between is told in the next step.
            1 => drop(
                self.since_told
                    .compare_exchange(1, 0, Ordering::AcqRel, Ordering::Acquire),
            ),
            _ => {
                self.since_told.store(1, Ordering::Release);
                tracing::warn!(count = since - 1, "more of what other nodes told cannot be read");
                self.missed();
            }
        }
    }

    /// Something may have been said that was not heard.
    pub fn missed(&self) {
        self.inner.tell(&Wake::Missed);
    }

    /// Reads what was only named, and tells it. What comes in between may be told before: whoever hears that sees the
    /// hole.
    fn fetch(self: &Arc<Self>, feed: FeedId, from: u64, through: u64) {
        let shared = self.clone();
        let fetched = self.readers.start_work(move || {
            let mut after = from - 1;
            while after < through {
                let entries = match drive(shared.inner.read(&feed, after, NAMED_STEP)) {
                    Ok(page) => page.entries,
                    Err(error) => {
                        tracing::warn!(%feed, %error, "what was appended cannot be read; sessions look for themselves");
                        return shared.missed();
                    }
                };
                let Some(last) = entries.last() else { return };
                after = last.position.offset;
                shared.inner.tell(&Wake::Appended(entries.into()));
            }
        });
        if fetched.is_err() {
            self.missed();
        }
    }
}

/// 128 random bits: no two starts of nodes have the same.
fn random_node() -> Result<String, StoreFault> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StoreFault::Io(error.to_string()))?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

#[async_trait]
impl Feeds for RedisEngine {
    fn submit(&self, batch: Vec<Publication>, answered: Answered) {
        self.shared.inner.submit(batch, answered);
    }

    async fn read(&self, feed: &FeedId, after: u64, limit: ReadLimit) -> Result<Page, EngineError> {
        let feed = feed.clone();
        self.reading(move |inner| drive(inner.read(&feed, after, limit)))
            .await
    }

    async fn spans(&self, feeds: &[FeedId]) -> Result<Vec<FeedSpan>, EngineError> {
        let feeds = feeds.to_vec();
        self.reading(move |inner| drive(inner.spans(&feeds))).await
    }

    async fn holds(&self, places: &[(FeedId, Position)]) -> Result<Vec<bool>, EngineError> {
        let places = places.to_vec();
        self.reading(move |inner| drive(inner.holds(&places))).await
    }

    async fn cancel(&self, id: &NotificationId) -> Result<Option<Option<u64>>, EngineError> {
        self.shared.inner.cancel(id).await
    }

    async fn trim(&self, feed: &FeedId, before: u64) -> Result<(), EngineError> {
        self.shared.inner.trim(feed, before).await
    }
}

#[async_trait]
impl Settlements for RedisEngine {
    async fn settle(&self, batch: Vec<Settlement>, sync: Sync) -> Result<Vec<u64>, EngineError> {
        self.shared.inner.settle(batch, sync).await
    }

    async fn attempt(&self, batch: Vec<Attempt>) -> Result<(), EngineError> {
        self.shared.inner.attempt(batch).await
    }

    async fn standing(
        &self,
        user: &UserId,
        feed: &FeedId,
        from: u64,
        to: u64,
    ) -> Result<Standing, EngineError> {
        let (user, feed) = (user.clone(), feed.clone());
        self.reading(move |inner| drive(inner.standing(&user, &feed, from, to)))
            .await
    }

    async fn lookup(&self, id: &NotificationId) -> Result<Option<Stored>, EngineError> {
        let id = id.clone();
        self.reading(move |inner| drive(inner.lookup(&id))).await
    }

    async fn recipients(
        &self,
        id: &NotificationId,
        which: Recipients,
    ) -> Result<Vec<RecipientState>, EngineError> {
        let id = id.clone();
        self.reading(move |inner| drive(inner.recipients(&id, which)))
            .await
    }
}

#[async_trait]
impl Inboxes for RedisEngine {
    fn starts_now(&self, _wanted: &StartsWanted) -> Option<Starts> {
        None
    }

    async fn starts(&self, wanted: &[StartsWanted]) -> Vec<Result<Starts, EngineError>> {
        let places = wanted
            .iter()
            .flat_map(|one| one.places.iter().map(|(feed, _)| feed.clone()));
        let own = wanted.iter().map(|one| FeedId::User(one.user.clone()));
        let feeds: Vec<_> = own.chain(places).collect();
        if let Err(error) = self.way.is_heard(&feeds).await {
            return (0..wanted.len()).map(|_| Err(error.clone())).collect();
        }
        let wanted = wanted.to_vec();
        self.reading_all(wanted.len(), move |inner| drive(inner.starts(&wanted)))
            .await
    }

    fn page_now(
        &self,
        _user: &UserId,
        _feed: &FeedId,
        _member: bool,
        _after: u64,
        _limit: ReadLimit,
        _now: Timestamp,
    ) -> Option<InboxPage> {
        None
    }

    async fn pages(&self, wanted: &[PageWanted], now: Timestamp) -> Vec<Result<InboxPage, EngineError>> {
        let feeds: Vec<_> = wanted.iter().map(|one| one.feed.clone()).collect();
        if let Err(error) = self.way.is_heard(&feeds).await {
            return (0..wanted.len()).map(|_| Err(error.clone())).collect();
        }
        let wanted = wanted.to_vec();
        self.reading_all(wanted.len(), move |inner| drive(inner.pages(&wanted, now)))
            .await
    }
}

#[async_trait]
impl DeadLetters for RedisEngine {
    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<DeadLetterPage, EngineError> {
        let filter = filter.clone();
        self.reading(move |inner| drive(inner.dead_letters(&filter, after, limit)))
            .await
    }

    async fn dead_letter(&self, id: DeadLetterId) -> Result<Option<DeadLetter>, EngineError> {
        self.reading(move |inner| drive(inner.dead_letter(id))).await
    }

    async fn redrive(&self, ids: Vec<DeadLetterId>) -> Result<Vec<Redriven>, EngineError> {
        self.shared.inner.redrive(ids).await
    }

    async fn discard(&self, id: DeadLetterId) -> Result<bool, EngineError> {
        self.shared.inner.discard(id).await
    }

    async fn bury(&self, letter: DeadLetter) -> Result<DeadLetterId, EngineError> {
        self.shared.inner.bury(letter).await
    }

    async fn count_dead_letters(&self) -> Result<u64, EngineError> {
        self.reading(|inner| drive(inner.count_dead_letters())).await
    }
}

#[async_trait]
impl Users for RedisEngine {
    async fn erase(&self, user: &UserId) -> Result<bool, EngineError> {
        self.shared.inner.erase(user).await
    }

    async fn arrive(&self, user: &UserId) -> Result<(), EngineError> {
        let user = user.clone();
        self.reading(move |inner| drive(inner.arrive(&user))).await
    }
}

#[async_trait]
impl Directory for RedisEngine {
    async fn put_users(&self, users: Vec<UserPut>) -> Result<Vec<Result<Put, DirectoryError>>, EngineError> {
        self.shared.inner.put_users(users).await
    }

    async fn user(&self, user: &UserId) -> Result<Option<UserEntry>, EngineError> {
        let user = user.clone();
        self.reading(move |inner| drive(inner.user(&user))).await
    }

    async fn users(&self, after: Option<UserId>, limit: usize) -> Result<UserPage, EngineError> {
        self.reading(move |inner| drive(inner.users(after, limit))).await
    }

    async fn remove_user(&self, user: &UserId) -> Result<bool, EngineError> {
        self.shared.inner.remove_user(user).await
    }

    async fn change_members(
        &self,
        changes: Vec<MemberChange>,
    ) -> Result<Vec<Result<bool, DirectoryError>>, EngineError> {
        self.shared.inner.change_members(changes).await
    }

    async fn members(
        &self,
        topic: &Topic,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<MemberPage, EngineError> {
        let topic = topic.clone();
        self.reading(move |inner| drive(inner.members(&topic, after, limit)))
            .await
    }

    async fn memberships(&self, user: &UserId) -> Result<Vec<Membership>, EngineError> {
        let user = user.clone();
        self.reading(move |inner| drive(inner.memberships(&user))).await
    }
}

#[async_trait]
impl States for RedisEngine {
    async fn state(&self, user: &UserId) -> Result<UserState, EngineError> {
        let user = user.clone();
        self.reading(move |inner| drive(inner.state(&user))).await
    }

    async fn change_state(
        &self,
        user: &UserId,
        change: StateChange,
    ) -> Result<Result<UserState, StateError>, EngineError> {
        self.shared.inner.change_state(user, change).await
    }
}

impl Wakes for RedisEngine {
    fn listen(&self, listener: Box<dyn Fn(Wake) + Send + std::marker::Sync>) {
        self.shared.inner.listen(listener);
    }

    fn transmit(&self, publication: Publication) {
        self.way.transmit(publication);
    }

    fn follow(&self, feed: &FeedId) {
        self.way.follow(feed);
    }

    fn unfollow(&self, feed: &FeedId) {
        self.way.unfollow(feed);
    }
}
