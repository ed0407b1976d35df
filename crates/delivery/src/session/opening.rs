//! What a client asks for when it connects, and what the engine knows at that moment.

use crate::RedeliveryRules;
use postrider_model::{Cursor, FeedId, FeedSpan, SessionId, Topic, UserId};

/// How a session acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckMode {
    /// On the evidence that its transport gives.
    #[default]
    Auto,
    /// Only on the client's word.
    Explicit,
    /// Never; it only watches.
    None,
}

impl AckMode {
    /// Reads the `ack` parameter.
    pub fn parse(text: &str) -> Option<AckMode> {
        match text {
            "auto" => Some(AckMode::Auto),
            "explicit" => Some(AckMode::Explicit),
            "none" => Some(AckMode::None),
            _ => None,
        }
    }
}

/// What a client asked for when it connected.
#[derive(Debug, Clone)]
pub struct Opening {
    /// This session's id.
    pub session: SessionId,
    /// Whose inbox.
    pub user: UserId,
    /// How it acknowledges.
    pub ack: AckMode,
    /// What is not acknowledged is sent again by these rules, under `explicit`; `None` where the transport has no
    /// session over time.
    pub redelivery: Option<RedeliveryRules>,
    /// Where it goes on from.
    pub cursor: Option<Cursor>,
    /// Session topics: they carry no delivery state.
    pub topics: Vec<Topic>,
}

impl Opening {
    /// The feeds of its inbox: the user's own, `all`, and the session topics.
    pub fn feeds(&self) -> Vec<FeedId> {
        let own = [FeedId::User(self.user.clone()), FeedId::All];
        own.into_iter()
            .chain(self.topics.iter().cloned().map(FeedId::Topic))
            .collect()
    }
}

/// What the engine knows of one of the feeds at the moment a session opens.
#[derive(Debug, Clone, Copy)]
pub struct FeedStart {
    /// What is held.
    pub span: FeedSpan,
    /// The user's floor; 0 for a session topic.
    pub floor: u64,
    /// Everything at or below is settled: where a session without a cursor begins. Below the floor where an entry
    /// that is for the first device is still to be taken.
    pub begins: u64,
    /// Whether the cursor's position in this feed is a place of it; `None` where the cursor has none.
    pub held: Option<bool>,
}
