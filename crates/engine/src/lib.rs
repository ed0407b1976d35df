//! What an engine is: it keeps feeds and what is known of each user's place in them, and wakes the nodes.
//!
//! An engine is the three traits here. Every engine passes the [`contract`] suite unchanged; nothing above
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
mod embedded;
mod error;
mod inbox;

pub use embedded::{Embedded, EmbeddedOptions, StoreFault};
pub use error::EngineError;
pub use inbox::{InboxEntry, InboxPage, read_inbox};

use async_trait::async_trait;
use postrider_model::{
    Entry, FeedId, FeedSpan, Mark, Notification, NotificationId, Position, Publication, Receipt, Settlement,
    Standing, State, Timestamp, UserId,
};
use std::sync::Arc;

/// Everything an engine does, for those who hold one.
pub trait Engine: Feeds + Settlements + Wakes {}
impl<T: Feeds + Settlements + Wakes> Engine for T {}

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

/// Feeds: append, read, take back.
#[async_trait]
pub trait Feeds: Send + std::marker::Sync {
    /// Accepts publications, in this order, each on its own: one that is refused leaves the others. The
    /// answers stand in the same order. Cancel-safe: dropping the future does not undo what was handed in.
    /// Backs off by [`EngineError::Busy`], never by growing.
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, EngineError>>;

    /// Reads forward from after `after`. Reading past the head gives no entries, and before the oldest
    /// held entry starts there.
    async fn read(&self, feed: &FeedId, after: u64, limit: ReadLimit) -> Result<Page, EngineError>;

    /// What of each feed is held, in the order asked. A feed nobody published to is [`FeedSpan::EMPTY`].
    async fn spans(&self, feeds: &[FeedId]) -> Result<Vec<FeedSpan>, EngineError>;

    /// Which of these places are places of their feeds: the offset is held (or just before the oldest, or
    /// the start of a feed whose first entry is held) and was numbered in that epoch.
    async fn holds(&self, places: &[(FeedId, Position)]) -> Result<Vec<bool>, EngineError>;

    /// What is stored under this id.
    async fn lookup(&self, id: &NotificationId) -> Result<Option<Stored>, EngineError>;

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

    /// A user's floor in a feed and the single marks on `from..=to`.
    async fn standing(
        &self,
        user: &UserId,
        feed: &FeedId,
        from: u64,
        to: u64,
    ) -> Result<Standing, EngineError>;

    /// The states of a notification for its recipients, by rising user id. Empty for an unknown id.
    async fn recipients(
        &self,
        id: &NotificationId,
        which: Recipients,
    ) -> Result<Vec<RecipientState>, EngineError>;
}

/// Which recipients are asked for.
#[derive(Debug, Clone)]
pub enum Recipients {
    /// This user; for a wide audience whoever it is, unless excluded.
    One(UserId),
    /// Every recipient of a list of users, or every user with a mark on a wide notification.
    All,
}

/// What an engine tells its listeners.
#[derive(Debug, Clone)]
pub enum Wake {
    /// These entries were appended and are durable. Per feed by rising offset; a listener that missed a
    /// wake sees a hole in the offsets and reads.
    Appended(Arc<[Arc<Entry>]>),
    /// A transient notification for the sessions that are here now.
    Transient(Arc<[Arc<Entry>]>),
}

/// Wakes: lossy, so that only latency ever depends on them.
pub trait Wakes: Send + std::marker::Sync {
    /// Adds a listener. It is called from the engine's own threads, in feed order, and must not block.
    fn listen(&self, listener: Box<dyn Fn(Wake) + Send + std::marker::Sync>);

    /// Hands a transient notification to the listeners of all nodes. At most once; nothing is kept.
    fn transmit(&self, publication: Publication);
}
