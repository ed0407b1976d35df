//! What a client asks for when it connects.

use crate::RedeliveryRules;
use postrider_model::{Cursor, FeedId, SessionId, Topic, UserId};

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
