//! Who may connect: the seam between the front, which holds sockets, and whoever knows keys and tokens.

use crate::addresses::Address;
use crate::problem::Problem;
use async_trait::async_trait;
use postrider_model::{Timestamp, Topic, UserId};

/// Decides who a client is. Called from a loop that serves thousands of sockets: never waits.
pub trait Gate: Send + Sync {
    /// The user behind a request for an inbox. Changes nothing: a request that is refused later may come again.
    fn identify(&self, credentials: &Credentials<'_>, now: Timestamp) -> Result<Identity, Problem>;

    /// Uses up a ticket that [`Gate::identify`] let in, now that its session can begin. Of several that come
    /// with the same ticket at once, one gets through.
    fn spend(&self, ticket: &str, resumes: bool, now: Timestamp) -> Result<(), Problem>;

    /// Until when a new token of the same user lets a session go on.
    fn renew(&self, user: &UserId, token: &str, now: Timestamp) -> Result<Timestamp, Problem>;

    /// Whether this user may have `topic` as a session topic.
    fn may_subscribe(&self, identity: &Identity, topic: &Topic) -> bool;

    /// The token in a `Cookie` header, if one of its cookies may hold one.
    fn cookie<'c>(&self, cookies: &'c str) -> Option<&'c str>;

    /// The headers that let a page of `origin` read the answer; `None` where it may not.
    fn cors(&self, origin: &str) -> Option<Vec<(&'static str, String)>>;
}

/// Decides whether a session may begin where more than this node has a say in it: nodes that share an engine.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Whether each of these may begin; in the order asked. Takes a bounded time. A ticket is used up by it, unless the
    /// answer is [`Problem::session_limit`]: then the session may be asked for once more, a moment later.
    async fn admit(&self, entrances: &[Entrance]) -> Vec<Result<(), Problem>>;
}

/// A session that is to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrance {
    /// Whose.
    pub user: UserId,
    /// Sessions that the user has on this node, this one and those that came before it.
    pub sessions_here: usize,
    /// The ticket that it came with, which this node has taken for good, and whether it resumes.
    pub ticket: Option<(String, bool)>,
}

/// What a request brought to show who it is.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
    /// The raw `Cookie` header.
    pub cookie: Option<&'a str>,
    /// The `ticket` parameter.
    pub ticket: Option<&'a str>,
    /// The `Origin` header.
    pub origin: Option<&'a str>,
    /// The `Sec-Fetch-Site` header.
    pub sec_fetch_site: Option<&'a str>,
    /// The `Host` header.
    pub host: Option<&'a str>,
    /// It names a cursor to go on from, so it may be a session coming back.
    pub resumes: bool,
    /// Whose connection it is.
    pub client: Option<Address>,
}

/// A user, let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub user: UserId,
    /// When the token ends; `None` for one without an end.
    pub expires_at: Option<Timestamp>,
    /// The patterns of session topics that the token allows.
    pub topics: Vec<String>,
}
