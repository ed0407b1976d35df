//! Presence as this node's hub tells it: by asking the loops, which know their sessions, and by rolls, which know who
//! came and went.
//!
//! Invariant: what is asked is answered, or the node stops; how much is asked at a time is bounded. Nothing is kept of
//! a topic that nobody watches.

use crate::hub::{Hub, Shared};
use crate::mailbox::{Mailbox, Post};
use crate::roll::Roll;
use postrider_engine::{
    EngineError, Marks, NodePresence, Presence, PresenceFilter, PresenceWatch, PresentSession, TopicPresence,
    TopicShare, UserPresence,
};
use postrider_model::{Millis, Topic, UserId};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, oneshot};

/// Questions about users, and about topics, that are answered at a time. Each of the latter looks at all who hear it.
const MAX_USER_QUESTIONS: usize = 256;
const MAX_TOPIC_QUESTIONS: usize = 8;
/// Topics that are watched at a time. Of each, whoever hears it is on a roll.
const MAX_WATCHED_TOPICS: usize = 64;
/// Users that one watch names.
const MAX_WATCHED_USERS: usize = 10_000;

type WatchedTopics = HashMap<Topic, (Arc<Roll>, usize)>;

/// What the hub keeps for presence.
pub(crate) struct Asking {
    users: Semaphore,
    topics: Semaphore,
    /// The topics that are watched, each with how many watches it has.
    watched: Arc<Mutex<WatchedTopics>>,
    linger: Millis,
}

impl Asking {
    pub fn new(linger: Millis) -> Asking {
        Asking {
            users: Semaphore::new(MAX_USER_QUESTIONS),
            topics: Semaphore::new(MAX_TOPIC_QUESTIONS),
            watched: Arc::default(),
            linger,
        }
    }

    /// Ends all watches.
    pub fn close(&self) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.values().for_each(|(roll, _)| roll.close());
    }
}

/// Who hears a topic: a question to a loop.
pub(crate) struct WhoHears {
    pub topic: Topic,
    pub after: Option<UserId>,
    pub limit: usize,
    /// Whether marks of the users are wanted.
    pub marks: bool,
    pub reply: oneshot::Sender<Heard>,
}

/// What one loop knows of who hears a topic.
#[derive(Default)]
pub(crate) struct Heard {
    pub sessions: u64,
    /// Users whose sessions are all in this loop.
    pub users: u64,
    /// Digests of the others, whom other loops may count too.
    pub shared: Vec<u64>,
    /// The first after the one asked for, at most one more than was asked for.
    pub page: BTreeSet<UserId>,
    /// Where they are wanted.
    pub marks: Marks,
}

impl Heard {
    /// A user, to be named if it is among the first.
    pub fn name(&mut self, user: &UserId, limit: usize) {
        let is_among = self.page.len() <= limit || self.page.last().is_some_and(|last| user < last);
        if limit > 0 && is_among && self.page.insert(user.clone()) && self.page.len() > limit + 1 {
            self.page.pop_last();
        }
    }
}

fn joined(all: Vec<Heard>, limit: usize) -> TopicShare {
    let mut shared = HashSet::new();
    let mut told = TopicPresence::default();
    let mut page = BTreeSet::new();
    let mut marks = Marks::default();
    for heard in all {
        let zeros = marks.zeros().max(heard.marks.zeros());
        marks = Marks::of(zeros, marks.digests().chain(heard.marks.digests()));
        told.sessions += heard.sessions;
        told.users += heard.users;
        shared.extend(heard.shared);
        page.extend(heard.page);
    }
    told.users += shared.len() as u64;
    told.more = page.len() > limit;
    told.page = page.into_iter().take(limit).collect();
    TopicShare {
        presence: told,
        marks,
    }
}

impl Hub {
    async fn ask<T>(&self, question: impl Fn(oneshot::Sender<T>) -> Post) -> Result<Vec<T>, EngineError> {
        let ask = |mailbox: &Arc<Mailbox>| {
            let (reply, answer) = oneshot::channel();
            mailbox.post(question(reply));
            answer
        };
        let answers: Vec<_> = self.mailboxes().iter().map(ask).collect();
        let mut all = Vec::with_capacity(answers.len());
        for answer in answers {
            all.push(answer.await.map_err(|_| EngineError::Closed)?);
        }
        Ok(all)
    }

    async fn who_hears(
        &self,
        topic: &Topic,
        after: Option<UserId>,
        limit: usize,
        marks: bool,
    ) -> Result<TopicShare, EngineError> {
        let asking = &self.shared().asking;
        let _permit = asking.topics.try_acquire().map_err(|_| EngineError::Busy)?;
        let question = |reply| {
            let (topic, after) = (topic.clone(), after.clone());
            Post::WhoHears(WhoHears {
                topic,
                after,
                limit,
                marks,
                reply,
            })
        };
        Ok(joined(self.ask(question).await?, limit))
    }

    fn watch_topic(&self, topic: &Topic) -> Option<Box<dyn PresenceWatch>> {
        let asking = &self.shared().asking;
        let mut watched = asking.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !watched.contains_key(topic);
        if is_new && watched.len() >= MAX_WATCHED_TOPICS {
            return None;
        }
        let begun = (self.shared().steady)();
        let new = || (Arc::new(Roll::new(usize::MAX, asking.linger, begun)), 0);
        let (roll, watches) = watched.entry(topic.clone()).or_insert_with(new);
        let watching = roll.watch(None)?;
        *watches += 1;
        if is_new {
            let roll = roll.clone();
            let tell =
                |mailbox: &Arc<Mailbox>| mailbox.post(Post::Watched(topic.clone(), Some(roll.clone())));
            self.mailboxes().iter().for_each(tell);
        }
        let (all, mailboxes, topic) = (asking.watched.clone(), self.mailboxes().to_vec(), topic.clone());
        let unwatch = move || {
            let mut watched = all.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((_, watches)) = watched.get_mut(&topic) else {
                return;
            };
            *watches -= 1;
            if *watches == 0 {
                watched.remove(&topic);
                // Under the lock, so that the next who watches it is heard of after this.
                let tell = |mailbox: &Arc<Mailbox>| mailbox.post(Post::Watched(topic.clone(), None));
                mailboxes.iter().for_each(tell);
            }
        };
        Some(Box::new(watching.with_last(Box::new(unwatch))))
    }
}

#[async_trait::async_trait]
impl Presence for Hub {
    async fn user_presence(&self, user: &UserId) -> Result<UserPresence, EngineError> {
        let shared: &Shared = self.shared();
        let online = match shared.sessions.sessions_of(user) {
            None => false,
            Some(0) => true,
            Some(_) => {
                let _permit = shared.asking.users.try_acquire().map_err(|_| EngineError::Busy)?;
                let all: Vec<Vec<PresentSession>> =
                    self.ask(|reply| Post::WhoIs(user.clone(), reply)).await?;
                let mut sessions = all.concat();
                sessions.sort_by(|a, b| a.session.cmp(&b.session));
                let online = true;
                return Ok(UserPresence { online, sessions });
            }
        };
        let sessions = Vec::new();
        Ok(UserPresence { online, sessions })
    }

    async fn topic_presence(
        &self,
        topic: &Topic,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<TopicPresence, EngineError> {
        let told = self.who_hears(topic, after, limit, false).await?;
        Ok(told.presence)
    }

    fn watch_presence(&self, filter: PresenceFilter) -> Result<Box<dyn PresenceWatch>, EngineError> {
        let everyone = &self.shared().sessions;
        let boxed = |watching| -> Box<dyn PresenceWatch> { Box::new(watching) };
        let watching = match filter {
            PresenceFilter::All => everyone.watch(None).map(boxed),
            PresenceFilter::Users(users) if users.len() > MAX_WATCHED_USERS => None,
            PresenceFilter::Users(users) => everyone.watch(Some(users.into_iter().collect())).map(boxed),
            PresenceFilter::Topic(topic) => self.watch_topic(&topic),
        };
        watching.ok_or(EngineError::Busy)
    }
}

#[async_trait::async_trait]
impl NodePresence for Hub {
    fn gather(&self) {
        self.shared().sessions.gather();
    }

    fn changed(&self, most: usize) -> Vec<(UserId, Option<u32>)> {
        self.shared().sessions.changed(most)
    }

    async fn has_changed(&self) {
        self.shared().sessions.has_changed().await;
    }

    async fn topic_share(
        &self,
        topic: &Topic,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<TopicShare, EngineError> {
        self.who_hears(topic, after, limit, true).await
    }
}
