//! What an engine is: it keeps feeds and what is known of each user's place in them, and wakes the nodes.
//!
//! An engine is the traits here. Every engine passes the [`contract`] suite unchanged; nothing above
//! this crate knows which one runs. What always holds of every engine:
//!
//! * **Nothing is answered before it is durable.** A receipt, a settled count, a wake: each comes after the
//!   sync that makes it survive `kill -9` (except where a caller chose [`Sync::Lazy`]).
//! * **Order.** A feed's entries have the offsets 1, 2, 3 … without holes, in the order of their receipts.
//!   Whoever reads forward sees each once.
//! * **Idempotence.** The same id with the same content is accepted again and delivered once; settling what
//!   is settled changes nothing.
//! * **Floors never pass the head**, and a position that the feed does not have settles nothing.
//!
//! An engine knows nothing of sessions, transports, or HTTP, and decides nothing about retries.

pub mod contract;
mod directory;
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "the engine over Redis works with it")
)]
mod embedded;
mod error;
mod inbox;
mod presence;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "the links to Redis read all of it")
)]
pub mod redis_url;

pub use directory::{
    Directory, DirectoryError, MemberChange, MemberPage, Put, States, UserEntry, UserPage, UserPut,
};
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use embedded::fuzzing;
#[cfg(feature = "stores")]
pub use embedded::stores;
pub use embedded::{Broadcasts, Embedded, EmbeddedOptions, Rules, StoreFault};
pub use error::EngineError;
pub use inbox::{InboxEntry, InboxPage, read_inbox};
pub use presence::{
    Marks, NodePresence, Presence, PresenceFilter, PresenceNews, PresenceWatch, PresentSession,
    TopicPresence, TopicShare, UserPresence,
};

use async_trait::async_trait;
use postrider_model::{
    Attempt, Cursor, DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterPage, Entry, FeedId, FeedSpan,
    FeedStart, Mark, Notification, NotificationId, Position, Publication, Receipt, Settlement, Standing,
    State, Timestamp, Topic, UserId, UserState,
};
use std::sync::Arc;

/// Everything an engine does, for those who hold one.
pub trait Engine: Feeds + Settlements + Inboxes + DeadLetters + Users + Directory + States + Wakes {}
impl<T: Feeds + Settlements + Inboxes + DeadLetters + Users + Directory + States + Wakes> Engine for T {}

/// What is stored of a notification.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The notification.
    pub notification: Arc<Notification>,
    /// When it was cancelled, if it was.
    pub cancelled_at: Option<Timestamp>,
    /// How many recipients it has; `None` for a wide audience.
    pub recipients: Option<u64>,
}

/// A stretch of a feed.
#[derive(Debug, Clone)]
pub struct Page {
    /// Entries by rising offset, without holes.
    pub entries: Vec<Arc<Entry>>,
    /// What the feed held when it was read.
    pub span: FeedSpan,
}

/// How much of a feed one read returns: whichever bound is met first, but at least one entry.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimit {
    /// At most so many entries.
    pub entries: usize,
    /// Stop once the notifications' data amount to this.
    pub bytes: usize,
}

/// One recipient's part of a notification's story.
#[derive(Debug, Clone)]
pub struct RecipientState {
    /// Who.
    pub user: UserId,
    /// In what state it is for this user.
    pub state: State,
    /// What is recorded, oldest first.
    pub marks: Vec<Mark>,
}

/// Whether a caller waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Answered after the sync.
    Durable,
    /// Answered at once; a crash may lose it, and then the same ids are delivered again.
    Lazy,
}

/// Gets the answers to a batch of publications, in the order of the batch.
pub type Answered = Box<dyn FnOnce(Vec<Result<Receipt, EngineError>>) + Send>;

/// Feeds: append, read, take back.
#[async_trait]
pub trait Feeds: Send + std::marker::Sync {
    /// Accepts publications, in this order, each on its own: one that is refused leaves the others. Batches are
    /// accepted in the order in which they were submitted. Backs off by [`EngineError::Busy`], never by
    /// growing.
    ///
    /// `answered` is called once: after the sync, from the engine's own thread and under no lock; or before
    /// this returns, where the whole batch is refused at once. It must not block.
    fn submit(&self, batch: Vec<Publication>, answered: Answered);

    /// [`Feeds::submit`] for those who wait. Cancel-safe: dropping the future does not undo what was handed in.
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, EngineError>> {
        let count = batch.len();
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.submit(
            batch,
            Box::new(move |receipts| {
                if reply.send(receipts).is_err() {
                    tracing::trace!("the publisher had gone before the answer");
                }
            }),
        );
        answer
            .await
            .unwrap_or_else(|_| vec![Err(EngineError::Closed); count])
    }

    /// Reads forward from after `after`. Reading past the head gives no entries, and before the oldest
    /// held entry starts there.
    async fn read(&self, feed: &FeedId, after: u64, limit: ReadLimit) -> Result<Page, EngineError>;

    /// What of each feed is held, in the order asked. A feed nobody published to is [`FeedSpan::EMPTY`].
    async fn spans(&self, feeds: &[FeedId]) -> Result<Vec<FeedSpan>, EngineError>;

    /// Which of these places are places of their feeds: the offset is held (or just before the oldest, or
    /// the start of a feed whose first entry is held) and was numbered in that epoch.
    async fn holds(&self, places: &[(FeedId, Position)]) -> Result<Vec<bool>, EngineError>;

    /// Takes a notification back. Pending recipients' state becomes cancelled; sessions that may show it
    /// get a withdrawn entry. Returns how many became cancelled, `None` for a wide audience; the outer
    /// `None` for an unknown id. Cancelling again changes nothing and counts 0.
    async fn cancel(&self, id: &NotificationId) -> Result<Option<Option<u64>>, EngineError>;

    /// Forgets a feed's entries below `before`. Cursors older than that become gaps.
    async fn trim(&self, feed: &FeedId, before: u64) -> Result<(), EngineError>;
}

/// What users did with what they got.
#[async_trait]
pub trait Settlements: Send + std::marker::Sync {
    /// Records settlements, in this order, and returns for each how many entries it changed (0 for
    /// [`Sync::Lazy`], which does not wait to know). Of ids and positions that do not exist, nothing is
    /// recorded, and that is no error.
    async fn settle(&self, batch: Vec<Settlement>, sync: Sync) -> Result<Vec<u64>, EngineError>;

    /// Counts attempts: at most one per user, entry and `delivery.ack_timeout`, however many sessions were
    /// sent it meanwhile. One ack timeout after the last that is allowed the entry is dead for that user,
    /// unless it was settled. Does not wait for the disk: a crash may forget some, never add any.
    async fn attempt(&self, batch: Vec<Attempt>) -> Result<(), EngineError>;

    /// A user's floor in a feed and the single marks and attempts on `from..=to`.
    async fn standing(
        &self,
        user: &UserId,
        feed: &FeedId,
        from: u64,
        to: u64,
    ) -> Result<Standing, EngineError>;

    /// What is stored under this id.
    async fn lookup(&self, id: &NotificationId) -> Result<Option<Stored>, EngineError>;

    /// The states of a notification for its recipients, by rising user id. Empty for an unknown id.
    async fn recipients(
        &self,
        id: &NotificationId,
        which: Recipients,
    ) -> Result<Vec<RecipientState>, EngineError>;
}

/// Where a session's feeds are to be looked up.
#[derive(Debug, Clone)]
pub struct StartsWanted {
    /// Whose session.
    pub user: UserId,
    /// The feeds that it asks for by name, each with the place from which its client goes on, if it names one.
    pub places: Vec<(FeedId, Option<Position>)>,
    /// Where its client goes on, for the topics of which the user is a member: the client does not name them.
    pub cursor: Option<Cursor>,
    /// The user's state map is wanted too.
    pub state: bool,
}

/// Where a session's feeds stand for its user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Starts {
    /// Those that were asked for, in that order. A session topic has no floor.
    pub feeds: Vec<FeedStart>,
    /// The topics of which the user is a member, and those that the user left as long as they hold something of the
    /// user's; by name. One that was also asked for counts by this, as long as it has something of the user's; after
    /// that one that was left is a session topic.
    pub members: Vec<MemberStart>,
    /// The state map, where it was wanted.
    pub state: Option<Arc<UserState>>,
}

/// Where a topic stands of which the user is, or was, a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStart {
    /// Which topic.
    pub topic: Topic,
    /// The user is a member now. Where not, the feed ends for the user where the last stay did: nothing comes any more.
    pub is_current: bool,
    /// Where the client goes on; `None` where there is no cursor. It is the cursor's place, moved over what is not the
    /// user's. Where the cursor has none of this topic it is where the first stay began of which anything is held: the
    /// client never had anything of the topic.
    pub place: Option<Position>,
    /// As of one of the user's own feeds, with what became of `place`. The floor is never below the first stay; the
    /// head of a topic that the user left is the last that is the user's. Too old is only a place after which the user
    /// lost something.
    pub start: FeedStart,
}

/// A stretch of an inbox that is to be read.
#[derive(Debug, Clone)]
pub struct PageWanted {
    /// Whose inbox.
    pub user: UserId,
    /// Which feed of it.
    pub feed: FeedId,
    /// It is a topic that the inbox has by membership: what is not the user's is not shown, and the rest has a state.
    pub member: bool,
    /// From after this offset.
    pub after: u64,
    /// How much.
    pub limit: ReadLimit,
}

/// What sessions need of inboxes: for many at a time, and from memory where an engine has it there.
#[async_trait]
pub trait Inboxes: Send + std::marker::Sync {
    /// [`Inboxes::starts`] of one, where that can be said at once: from memory, without waiting for anything. It is
    /// what a look at the store would have told at a moment not before this call. `None`: ask the other way, as always
    /// where the state map is wanted.
    fn starts_now(&self, wanted: &StartsWanted) -> Option<Starts>;

    /// Where each session's feeds stand for its user.
    async fn starts(&self, wanted: &[StartsWanted]) -> Vec<Result<Starts, EngineError>>;

    /// [`Inboxes::pages`] of one, as [`Inboxes::starts_now`].
    fn page_now(
        &self,
        user: &UserId,
        feed: &FeedId,
        member: bool,
        after: u64,
        limit: ReadLimit,
        now: Timestamp,
    ) -> Option<InboxPage>;

    /// Reads forward, each entry with what is recorded for the user. In the order asked.
    async fn pages(&self, wanted: &[PageWanted], now: Timestamp) -> Vec<Result<InboxPage, EngineError>>;
}

/// Which recipients are asked for.
#[derive(Debug, Clone)]
pub enum Recipients {
    /// This user; of what is for everyone whoever it is, of what is for topics their members, unless excluded.
    One(UserId),
    /// Every recipient of a list of users, or every user with a mark on a wide notification.
    All,
}

/// What nothing could deliver.
#[async_trait]
pub trait DeadLetters: Send + std::marker::Sync {
    /// Those that fit the filter and come after `after`, oldest first, at most `limit`. Looks at a bounded
    /// number of rows: a page can be short, or empty, and yet say where to go on.
    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<DeadLetterPage, EngineError>;

    /// One of them.
    async fn dead_letter(&self, id: DeadLetterId) -> Result<Option<DeadLetter>, EngineError>;

    /// Appends each notification anew, under its id, to its user's feed, where it is pending; the dead letter
    /// is gone then. What cannot be redriven keeps its place. In the order asked.
    async fn redrive(&self, ids: Vec<DeadLetterId>) -> Result<Vec<Redriven>, EngineError>;

    /// Throws a dead letter away; the notification's state stays dead. False where there was none.
    async fn discard(&self, id: DeadLetterId) -> Result<bool, EngineError>;

    /// Keeps a source's message that no notification could be made of. The letter's own id is given here.
    async fn bury(&self, letter: DeadLetter) -> Result<DeadLetterId, EngineError>;

    /// How many there are.
    async fn count_dead_letters(&self) -> Result<u64, EngineError>;
}

/// What became of a dead letter that was to be redriven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redriven {
    /// It is pending again.
    Yes,
    /// There is no such dead letter (any more).
    Unknown,
    /// Its time has run out.
    Expired,
    /// It is no notification, or its body is gone.
    Impossible,
}

/// What is known of users.
#[async_trait]
pub trait Users: Send + std::marker::Sync {
    /// Forgets a user: feed, states, dead letters, the notifications that were for nobody else, what the directory says,
    /// memberships and the state map. False where nothing was known. Erasing again changes nothing.
    async fn erase(&self, user: &UserId) -> Result<bool, EngineError>;

    /// A session of this user begins. Where `inbox.broadcasts` is `from_first_session`, the first one decides
    /// from where on the user is a recipient of what is for everyone.
    async fn arrive(&self, user: &UserId) -> Result<(), EngineError>;
}

/// What an engine tells its listeners.
#[derive(Debug, Clone)]
pub enum Wake {
    /// These entries were appended and are durable. Per feed by rising offset; a listener that missed a
    /// wake sees a hole in the offsets and reads.
    Appended(Arc<[Arc<Entry>]>),
    /// A transient notification for the sessions that are here now.
    Transient(Arc<[Arc<Entry>]>),
    /// Users joined topics, or left them: durable, and for each user in order. What was appended to a topic may be told
    /// before or after; `at` says where it belongs. Whoever missed one asks where the feeds stand.
    Members(Arc<[MemberWake]>),
    /// A user's state map changed, and is durable. Versions rise; some may be missed.
    State(UserId, Arc<UserState>),
    /// Wakes of any kind may have been lost up to here, as where a node had lost the way to its engine: whoever
    /// depends on them looks where the feeds stand.
    Missed,
}

/// A user joined a topic, or left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberWake {
    /// Which topic.
    pub topic: Topic,
    /// Who.
    pub user: UserId,
    /// Joined; else left.
    pub joins: bool,
    /// The topic's head then: what comes after it is the user's from now on, or is not any more.
    pub at: u64,
}

/// Wakes: lossy, so that only latency ever depends on them.
pub trait Wakes: Send + std::marker::Sync {
    /// Adds a listener. It is called from the engine's own threads, in feed order, and must not block.
    fn listen(&self, listener: Box<dyn Fn(Wake) + Send + std::marker::Sync>);

    /// Hands a transient notification to the listeners of all nodes. At most once; nothing is kept.
    fn transmit(&self, publication: Publication);

    /// A session of this node hears this feed from now on: what is appended to it, and, of a user's feed, what else
    /// that user is told, comes to the listeners. Counted: a feed is followed until it was let go as often. What an
    /// engine answers about a feed's place after this is followed by every wake of what comes later. Listeners may
    /// hear of feeds that nobody follows. An engine that shares no store tells everything, and has nothing to do.
    fn follow(&self, _feed: &FeedId) {}

    /// One session less hears this feed.
    fn unfollow(&self, _feed: &FeedId) {}
}
