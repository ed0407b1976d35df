//! Why Redis did not do what it was asked, and whether it may have done it after all.

use std::borrow::Cow;

/// What a call, command or subscription came to when it failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkFault {
    /// It certainly did not run: no connection in time, no room, or a server that turned it away for now.
    #[error("Redis was not reached: {0}")]
    NotSent(Cow<'static, str>),
    /// It was handed to a server that did not answer in time: it may have run, or may run yet.
    #[error("Redis may have done it, but did not answer: {0}")]
    Unknown(Cow<'static, str>),
    /// The server's own word against it, which asking again does not change.
    #[error("Redis refused: {code} {detail}")]
    Refused {
        /// The first word of the error, such as `NOPERM`.
        code: String,
        /// The rest of it.
        detail: String,
    },
    /// It ran, but fewer replicas than wanted confirmed it in time.
    #[error("{confirmed} of {wanted} replicas confirmed in time")]
    Unconfirmed {
        /// How many must confirm.
        wanted: u32,
        /// How many did.
        confirmed: u32,
    },
    /// The server is not one that can serve: too old, a replica, without a Cluster where one was named.
    #[error("Redis cannot be used: {0}")]
    Unfit(String),
    /// The links are closed.
    #[error("the connections to Redis are closed")]
    Closed,
}

impl LinkFault {
    /// True where it certainly did not run, so that doing it again cannot do it twice.
    pub fn did_not_run(&self) -> bool {
        matches!(
            self,
            LinkFault::NotSent(_) | LinkFault::Unfit(_) | LinkFault::Closed
        )
    }

    /// Whether trying the same again later can succeed.
    pub fn is_transient(&self) -> bool {
        !matches!(
            self,
            LinkFault::Refused { .. } | LinkFault::Unfit(_) | LinkFault::Closed
        )
    }
}
