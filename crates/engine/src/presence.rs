//! Who is there: which users have sessions, and who among them hears a topic. Nothing of it is kept: after a crash
//! nobody is there until they come back.
//!
//! Invariant: a user is *online* from the first session on until [lingering](Presence) ended after the last one: so
//! long nobody takes a client for gone that reconnects, or that is between two polls. Does not know of what was
//! delivered.

use crate::EngineError;
use async_trait::async_trait;
use postrider_model::{SessionId, Timestamp, Topic, Transport, UserId};
use xxhash_rust::xxh3::xxh3_64;

/// A session of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentSession {
    /// Its id.
    pub session: SessionId,
    /// Over which wire.
    pub transport: Transport,
}

/// Whether a user is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPresence {
    /// Has a session, or had one a moment ago.
    pub online: bool,
    /// The sessions there are now, by id.
    pub sessions: Vec<PresentSession>,
}

/// Who hears a topic now: members and session topics alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicPresence {
    /// Sessions.
    pub sessions: u64,
    /// Distinct users.
    pub users: u64,
    /// Some of them, by rising id.
    pub page: Vec<UserId>,
    /// There are more after the last of the page.
    pub more: bool,
}

/// Whose coming and going is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceFilter {
    /// Everyone's.
    All,
    /// These users'.
    Users(Vec<UserId>),
    /// That of those who hear a topic: a user is there from the first session that hears it to the last.
    Topic(Topic),
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceNews {
    /// These are there. At the beginning, and after [`PresenceNews::Lagged`], all who are there come in parts; changes
    /// may stand between the parts, and whoever applies all in order knows who is there once the last part has come.
    Present {
        /// A part of them, each named once.
        users: Vec<UserId>,
        /// No more parts follow.
        last: bool,
    },
    /// A user came or went.
    Change {
        /// Who.
        user: UserId,
        /// Came; else went.
        online: bool,
        /// When the first session began; when the last one ended, which is told the lingering time later.
        at: Timestamp,
    },
    /// The watcher took too long and changes were dropped: forget who was there. What follows begins anew.
    Lagged,
}

/// Tells who is there. Counts are of about now: who comes or goes meanwhile may or may not be among them.
#[async_trait]
pub trait Presence: Send + Sync {
    /// Whether a user is there, with its sessions.
    async fn user_presence(&self, user: &UserId) -> Result<UserPresence, EngineError>;

    /// Who hears a topic, with a page of at most `limit` users, which may be 0, after `after`.
    ///
    /// # Errors
    /// [`EngineError::Busy`] where too many ask at a time.
    async fn topic_presence(
        &self,
        topic: &Topic,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<TopicPresence, EngineError>;

    /// Watches who comes and goes, from now on. Dropping the watch ends it.
    ///
    /// # Errors
    /// [`EngineError::Busy`] where too many watch at a time.
    fn watch_presence(&self, filter: PresenceFilter) -> Result<Box<dyn PresenceWatch>, EngineError>;
}

/// A watch on who comes and goes.
#[async_trait]
pub trait PresenceWatch: Send {
    /// What comes next. Cancel-safe. `None` once the node has stopped.
    async fn next(&mut self) -> Option<PresenceNews>;
}

/// One node's part of presence, for whoever answers for several nodes.
#[async_trait]
pub trait NodePresence: Presence {
    /// Gathers from now on whose number of sessions changes here, and first of all everyone who is here. Again, where
    /// what was told may be lost.
    fn gather(&self);

    /// Whose number of sessions here changed since this was last asked, at most `most` of them: how many there are now,
    /// 0 for one who lingers, `None` for one who is gone.
    fn changed(&self, most: usize) -> Vec<(UserId, Option<u32>)>;

    /// Waits until [`NodePresence::changed`] has something to tell. Cancel-safe.
    async fn has_changed(&self);

    /// [`Presence::topic_presence`] of this node, with marks of the users.
    ///
    /// # Errors
    /// [`EngineError::Busy`] where too many ask at a time.
    async fn topic_share(
        &self,
        topic: &Topic,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<TopicShare, EngineError>;
}

/// Who hears a topic on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicShare {
    /// As one node tells it.
    pub presence: TopicPresence,
    /// By which users are known again who are on other nodes too.
    pub marks: Marks,
}

/// Marks of distinct users: of all, as long as they are few; of more of them, those whose digest ends in so many zero
/// bits, a sample that is the same wherever it is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    zeros: u32,
    digests: std::collections::BTreeSet<u64>,
}

impl Marks {
    /// Marks that are kept. With no more users on any node the counts over nodes are exact.
    pub const MOST: usize = 16_384;

    /// Those of other marks, as they were told.
    pub fn of(zeros: u32, digests: impl IntoIterator<Item = u64>) -> Marks {
        let mut marks = Marks {
            zeros: zeros.min(u64::BITS),
            digests: Default::default(),
        };
        digests.into_iter().for_each(|digest| marks.keep(digest));
        marks
    }

    /// In how many zero bits a digest must end to be among them.
    pub fn zeros(&self) -> u32 {
        self.zeros
    }

    /// The digests, ascending.
    pub fn digests(&self) -> impl Iterator<Item = u64> {
        self.digests.iter().copied()
    }

    /// Marks a user.
    pub fn add(&mut self, user: &UserId) {
        self.keep(xxh3_64(user.as_str().as_bytes()));
    }

    fn keep(&mut self, digest: u64) {
        if digest.trailing_zeros() >= self.zeros {
            self.digests.insert(digest);
        }
        while self.digests.len() > Marks::MOST {
            self.thin(self.zeros + 1);
        }
    }

    /// A smaller sample.
    pub fn thin(&mut self, zeros: u32) {
        self.zeros = self.zeros.max(zeros);
        self.digests
            .retain(|digest| digest.trailing_zeros() >= self.zeros);
    }
}
