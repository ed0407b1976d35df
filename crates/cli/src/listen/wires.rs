//! What the three ways to receive have in common: they connect with a cursor and hand over what comes.

use super::event::Event;
use crate::client::{Refused, UrlArg};
use crate::exit::Failure;

/// What a wire hands over.
#[derive(Debug)]
pub enum Coming {
    /// It is connected.
    Connected,
    /// A notification or a mark.
    Event(Event),
    /// Everything before it has been handed over.
    Cursor(String),
}

/// What whoever takes it says to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Go on; so many notifications are still wanted.
    GoOn(Option<u64>),
    /// Nobody wants more.
    Enough,
}

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// Nobody wants more.
    Enough,
    /// It was there, and is gone.
    Broke { why: String, retry_ms: Option<u64> },
    /// There was none.
    Refused { why: String, retry_ms: Option<u64> },
}

/// What a client asks for, whatever the wire.
pub struct Wanted {
    /// The node.
    pub url: UrlArg,
    /// `Authorization`.
    pub bearer: String,
    /// `ack`.
    pub ack: &'static str,
    /// Session topics.
    pub topics: Option<String>,
    /// Whether the state comes too.
    pub state: bool,
}

impl Wanted {
    /// The parameters of every wire.
    pub fn query<'a>(&'a self, cursor: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
        let mut query = vec![("ack", self.ack)];
        query.extend(self.topics.as_deref().map(|topics| ("topics", topics)));
        query.extend(self.state.then_some(("state", "1")));
        query.extend(cursor.map(|cursor| ("cursor", cursor)));
        query
    }
}

/// One way to receive.
pub trait Wire: Send {
    /// Connects, going on after the cursor, and hands over what comes, in order, until it ends. What cannot be mended
    /// by another attempt is the failure.
    fn follow(
        &mut self,
        wanted: &Wanted,
        cursor: Option<&str>,
        hand: &mut dyn FnMut(Coming) -> Taken,
    ) -> Result<Ended, Failure>;
}

/// What is to be done about an answer that is no success: try again, or not.
pub fn refused(failure: Failure) -> Result<Ended, Failure> {
    let Some(refused) = failure.refused() else {
        return match failure {
            // No answer at all: the node may come back.
            Failure::Other(error) => Ok(Ended::Refused {
                why: format!("{error:#}"),
                retry_ms: None,
            }),
            usage => Err(usage),
        };
    };
    match again(refused) {
        Some(ended) => Ok(ended),
        None => Err(failure),
    }
}

/// What the client did wrong stays wrong; what the node cannot do now it may do later.
pub fn again(refused: &Refused) -> Option<Ended> {
    let asked = refused
        .retry_after
        .and_then(|after| u64::try_from(after.as_millis()).ok());
    refused.is_transient().then(|| Ended::Refused {
        why: refused.short(),
        retry_ms: asked,
    })
}
