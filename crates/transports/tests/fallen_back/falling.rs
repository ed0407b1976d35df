//! An engine that falls back: a copy of its data from before is put in its place while the hub runs, as where a server
//! is promoted that lacks the newest entries.

use super::now;
use async_trait::async_trait;
use postrider_engine::*;
use postrider_model::*;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

type Listener = Arc<dyn Fn(Wake) + Send + std::marker::Sync>;

/// See the module.
pub struct Falling {
    now: RwLock<Arc<Embedded>>,
    /// One of each of the hub's loops.
    listeners: Mutex<Vec<Listener>>,
}

/// The engine whose data is here.
pub fn open(dir: &Path) -> Embedded {
    let options = EmbeddedOptions {
        data_dir: Some(dir.to_owned()),
        rules: Default::default(),
        clock: Arc::new(now),
        on_commit: Box::new(|_, _| {}),
    };
    Embedded::open(options).unwrap()
}

impl Falling {
    pub fn over(engine: Embedded) -> Falling {
        Falling {
            now: RwLock::new(Arc::new(engine)),
            listeners: Mutex::default(),
        }
    }

    pub fn now(&self) -> Arc<Embedded> {
        self.now.read().unwrap().clone()
    }

    /// What is here takes its place. Nobody is told.
    pub fn fall_back_to(&self, engine: Embedded) {
        for listener in self.listeners.lock().unwrap().clone() {
            engine.listen(Box::new(move |wake| listener(wake)));
        }
        *self.now.write().unwrap() = Arc::new(engine);
    }

    pub fn tell(&self, wake: Wake) {
        let listeners = self.listeners.lock().unwrap().clone();
        listeners.iter().for_each(|listener| listener(wake.clone()));
    }
}

#[async_trait]
impl Feeds for Falling {
    fn submit(&self, batch: Vec<Publication>, answered: Answered) {
        self.now().submit(batch, answered);
    }
    async fn read(&self, feed: &FeedId, after: u64, limit: ReadLimit) -> Result<Page, EngineError> {
        self.now().read(feed, after, limit).await
    }
    async fn spans(&self, feeds: &[FeedId]) -> Result<Vec<FeedSpan>, EngineError> {
        self.now().spans(feeds).await
    }
    async fn holds(&self, places: &[(FeedId, Position)]) -> Result<Vec<bool>, EngineError> {
        self.now().holds(places).await
    }
    async fn cancel(&self, id: &NotificationId) -> Result<Option<Option<u64>>, EngineError> {
        self.now().cancel(id).await
    }
    async fn trim(&self, feed: &FeedId, before: u64) -> Result<(), EngineError> {
        self.now().trim(feed, before).await
    }
}

#[async_trait]
impl Settlements for Falling {
    async fn settle(&self, batch: Vec<Settlement>, sync: Sync) -> Result<Vec<u64>, EngineError> {
        self.now().settle(batch, sync).await
    }
    async fn attempt(&self, batch: Vec<Attempt>) -> Result<(), EngineError> {
        self.now().attempt(batch).await
    }
    async fn standing(
        &self,
        user: &UserId,
        feed: &FeedId,
        from: u64,
        to: u64,
    ) -> Result<Standing, EngineError> {
        self.now().standing(user, feed, from, to).await
    }
    async fn lookup(&self, id: &NotificationId) -> Result<Option<Stored>, EngineError> {
        self.now().lookup(id).await
    }
    async fn recipients(
        &self,
        id: &NotificationId,
        which: Recipients,
    ) -> Result<Vec<RecipientState>, EngineError> {
        self.now().recipients(id, which).await
    }
}

#[async_trait]
impl Inboxes for Falling {
    fn starts_now(&self, _: &StartsWanted) -> Option<Starts> {
        None
    }
    async fn starts(&self, wanted: &[StartsWanted]) -> Vec<Result<Starts, EngineError>> {
        self.now().starts(wanted).await
    }
    fn page_now(
        &self,
        _: &UserId,
        _: &FeedId,
        _: bool,
        _: u64,
        _: ReadLimit,
        _: Timestamp,
    ) -> Option<postrider_engine::InboxPage> {
        None
    }
    async fn pages(
        &self,
        wanted: &[PageWanted],
        now: Timestamp,
    ) -> Vec<Result<postrider_engine::InboxPage, EngineError>> {
        self.now().pages(wanted, now).await
    }
}

#[async_trait]
impl DeadLetters for Falling {
    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<DeadLetterPage, EngineError> {
        self.now().dead_letters(filter, after, limit).await
    }
    async fn dead_letter(&self, id: DeadLetterId) -> Result<Option<DeadLetter>, EngineError> {
        self.now().dead_letter(id).await
    }
    async fn redrive(&self, ids: Vec<DeadLetterId>) -> Result<Vec<Redriven>, EngineError> {
        self.now().redrive(ids).await
    }
    async fn discard(&self, id: DeadLetterId) -> Result<bool, EngineError> {
        self.now().discard(id).await
    }
    async fn bury(&self, letter: DeadLetter) -> Result<DeadLetterId, EngineError> {
        self.now().bury(letter).await
    }
    async fn count_dead_letters(&self) -> Result<u64, EngineError> {
        self.now().count_dead_letters().await
    }
}

#[async_trait]
impl Users for Falling {
    async fn erase(&self, user: &UserId) -> Result<bool, EngineError> {
        self.now().erase(user).await
    }
    async fn arrive(&self, user: &UserId) -> Result<(), EngineError> {
        self.now().arrive(user).await
    }
}

#[async_trait]
impl Directory for Falling {
    async fn put_users(&self, users: Vec<UserPut>) -> Result<Vec<Result<Put, DirectoryError>>, EngineError> {
        self.now().put_users(users).await
    }
    async fn user(&self, user: &UserId) -> Result<Option<UserEntry>, EngineError> {
        self.now().user(user).await
    }
    async fn users(&self, after: Option<UserId>, limit: usize) -> Result<UserPage, EngineError> {
        self.now().users(after, limit).await
    }
    async fn remove_user(&self, user: &UserId) -> Result<bool, EngineError> {
        self.now().remove_user(user).await
    }
    async fn change_members(
        &self,
        changes: Vec<MemberChange>,
    ) -> Result<Vec<Result<bool, DirectoryError>>, EngineError> {
        self.now().change_members(changes).await
    }
    async fn members(
        &self,
        topic: &Topic,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<MemberPage, EngineError> {
        self.now().members(topic, after, limit).await
    }
    async fn memberships(&self, user: &UserId) -> Result<Vec<Membership>, EngineError> {
        self.now().memberships(user).await
    }
}

#[async_trait]
impl States for Falling {
    async fn state(&self, user: &UserId) -> Result<UserState, EngineError> {
        self.now().state(user).await
    }
    async fn change_state(
        &self,
        user: &UserId,
        change: StateChange,
    ) -> Result<Result<UserState, StateError>, EngineError> {
        self.now().change_state(user, change).await
    }
}

impl Wakes for Falling {
    fn listen(&self, listener: Box<dyn Fn(Wake) + Send + std::marker::Sync>) {
        let listener: Listener = listener.into();
        self.listeners.lock().unwrap().push(listener.clone());
        self.now().listen(Box::new(move |wake| listener(wake)));
    }
    fn transmit(&self, publication: Publication) {
        self.now().transmit(publication);
    }
}
