//! A watch over all nodes: this node's own, and a stream from each of the others; and serving such streams.
//!
//! Invariant: a stream is counted. Where something of it is missing, or nothing comes for a while, it is asked for from
//! the beginning, and until that has come whole, what it said before holds. A node that left the roster is gone for a
//! watch once its users have had the lingering time to come back elsewhere.

use super::merge::Merge;
use super::talk::{Filter, News, Said};
use super::{Inner, locked};
use crate::{PresenceNews, PresenceWatch};
use async_trait::async_trait;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A stream says so often at least that none of it is missing.
const SIGN: Duration = Duration::from_secs(2);
/// With no sign for so long it is asked for again.
const SILENT: Duration = Duration::from_secs(6);
/// A node that was asked has so long to begin.
const BEGINNING: Duration = Duration::from_secs(2);
/// How often a watch looks which nodes there are.
const LOOK: Duration = Duration::from_millis(250);
/// News of other nodes that wait for one watch. One more, and their streams begin anew.
const MAX_WAITING: usize = 4_096;
/// News that wait to be taken. One more, and whoever watches begins anew.
const MAX_UNTOLD: usize = 4_096;

type Item = (String, u64, Option<News>);

/// The watches of this node, to which others tell what happens there.
#[derive(Default)]
pub(super) struct FollowedNodes(Mutex<HashMap<u64, Arc<Inbox>>>);

/// What came for one watch.
struct Inbox {
    items: mpsc::Sender<Item>,
    /// Something did not fit, or may be lost.
    lost: std::sync::atomic::AtomicBool,
}

impl FollowedNodes {
    /// A node tells something to a watch.
    pub fn tell(&self, id: u64, from: String, nth: u64, news: Option<News>) {
        let Some(inbox) = locked(&self.0).get(&id).cloned() else {
            return;
        };
        if inbox.items.try_send((from, nth, news)).is_err() {
            inbox.lost.store(true, Ordering::Release);
        }
    }

    /// What came may have been lost: all streams begin anew.
    pub fn begin_again(&self) {
        let all = locked(&self.0);
        all.values()
            .for_each(|inbox| inbox.lost.store(true, Ordering::Release));
    }
}

/// How the stream of another node stands.
enum Stream {
    /// It was asked for.
    Asked(Instant),
    /// It comes: the number of what is next, and when there was a sign of it.
    Comes(u64, Instant),
    /// The node has left the roster.
    Gone(Instant),
}

/// A watch in the hands of whoever asked for it.
pub(super) struct Followed {
    inner: Arc<Inner>,
    id: u64,
    filter: Filter,
    local: Box<dyn PresenceWatch>,
    inbox: Arc<Inbox>,
    items: mpsc::Receiver<Item>,
    streams: HashMap<String, Stream>,
    merge: Merge,
    untold: VecDeque<PresenceNews>,
    /// The beginning was told.
    has_told: bool,
    begun_at: Option<Instant>,
    look: tokio::time::Interval,
}

impl Followed {
    pub fn new(inner: Arc<Inner>, id: u64, filter: Filter, local: Box<dyn PresenceWatch>) -> Followed {
        let (sender, items) = mpsc::channel(MAX_WAITING);
        let inbox = Arc::new(Inbox {
            items: sender,
            lost: false.into(),
        });
        locked(&inner.followed.0).insert(id, inbox.clone());
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Followed {
            inner,
            id,
            filter,
            local,
            inbox,
            items,
            streams: HashMap::new(),
            merge: Merge::default(),
            untold: VecDeque::new(),
            has_told: false,
            begun_at: None,
            look,
        }
    }

    /// Looks which nodes there are, and asks those that have nothing to say so far.
    async fn look_around(&mut self, now: Instant) {
        let others = self.inner.others();
        if self.inbox.lost.swap(false, Ordering::AcqRel) {
            self.streams.retain(|_, stream| matches!(stream, Stream::Gone(_)));
        }
        for node in others.iter() {
            let is_well = match self.streams.get(node) {
                Some(Stream::Asked(at)) => now - *at < BEGINNING,
                Some(Stream::Comes(_, at)) => now - *at < SILENT,
                Some(Stream::Gone(_)) | None => false,
            };
            if !is_well {
                self.ask(node, now).await;
            }
        }
        let gone: Vec<_> = self
            .streams
            .keys()
            .filter(|node| !others.contains(node))
            .cloned()
            .collect();
        for node in gone {
            match self.streams.get(&node) {
                Some(Stream::Gone(at)) if now - *at < self.inner.linger => {}
                Some(Stream::Gone(_)) => {
                    self.streams.remove(&node);
                    let news = self.merge.gone(&node, self.inner.now());
                    self.tell(news);
                }
                _ => _ = self.streams.insert(node, Stream::Gone(now)),
            }
        }
        self.tell_beginning(&others, now);
    }

    async fn ask(&mut self, node: &str, now: Instant) {
        self.streams.insert(node.to_owned(), Stream::Asked(now));
        let said = Said::Watch {
            from: self.inner.node.clone(),
            id: self.id,
            filter: self.filter.clone(),
        };
        if let Err(error) = self.inner.say(node, &said).await {
            tracing::debug!(%error, "a node could not be asked who comes and goes; it will be again");
        }
    }

    /// Tells everyone who is there, once all nodes have begun, or had the time to.
    fn tell_beginning(&mut self, others: &[String], now: Instant) {
        let begun_at = *self.begun_at.get_or_insert(now);
        let has_all = others
            .iter()
            .chain([&self.inner.node])
            .all(|node| self.merge.has_begun(node));
        if !self.has_told && (has_all || now - begun_at >= BEGINNING) {
            self.has_told = true;
            self.untold.extend(self.merge.everyone());
        }
    }

    fn tell(&mut self, news: Vec<PresenceNews>) {
        // Before the beginning was told it is in there.
        if !self.has_told {
            return;
        }
        if self.untold.len() + news.len() > MAX_UNTOLD {
            self.untold = VecDeque::from([PresenceNews::Lagged]);
            self.untold.extend(self.merge.everyone());
        } else {
            self.untold.extend(news);
        }
    }

    fn heard_here(&mut self, news: PresenceNews, now: Instant) {
        let node = self.inner.node.clone();
        let news = self.merge.hear(&node, news, self.inner.now());
        self.tell(news);
        let others = self.inner.others();
        self.tell_beginning(&others, now);
    }

    fn heard(&mut self, (node, nth, news): Item, now: Instant) {
        match self.streams.get_mut(&node) {
            Some(stream @ Stream::Asked(_)) if nth == 0 => {
                *stream = Stream::Comes(1, now);
                self.merge.begins(&node);
            }
            Some(Stream::Comes(next, at)) if *next == nth => (*next, *at) = (nth + 1, now),
            Some(stream @ Stream::Comes(..)) => {
                // Something is missing; the next look asks again.
                *stream = Stream::Asked(now - BEGINNING);
                return;
            }
            _ => return,
        }
        if let Some(news) = news {
            let news = self.merge.hear(&node, news.into(), self.inner.now());
            self.tell(news);
            let others = self.inner.others();
            self.tell_beginning(&others, now);
        }
    }
}

#[async_trait]
impl PresenceWatch for Followed {
    #[expect(
        clippy::disallowed_methods,
        reason = "it drives: what is decided by time is given it"
    )]
    async fn next(&mut self) -> Option<PresenceNews> {
        loop {
            if let Some(news) = self.untold.pop_front() {
                return Some(news);
            }
            if self.inner.is_closed.load(Ordering::Acquire) {
                return None;
            }
            tokio::select! {
                news = self.local.next() => self.heard_here(news?, Instant::now()),
                Some(item) = self.items.recv() => self.heard(item, Instant::now()),
                _ = self.look.tick() => self.look_around(Instant::now()).await,
            }
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        locked(&self.inner.followed.0).remove(&self.id);
        let (inner, id) = (self.inner.clone(), self.id);
        let nodes: Vec<_> = self.streams.keys().cloned().collect();
        let handle = inner.links.handle().clone();
        handle.spawn(async move {
            for node in nodes {
                let from = inner.node.clone();
                // Where it is lost, the node finds that nobody takes what it tells.
                if inner.say(&node, &Said::Unwatch { from, id }).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Tells another node's watch what happens here, until it is over, or nobody hears it.
pub(super) async fn serve(inner: Arc<Inner>, to: String, id: u64, mut watch: Box<dyn PresenceWatch>) {
    for nth in 0.. {
        let news = match tokio::time::timeout(SIGN, watch.next()).await {
            Ok(Some(news)) => Some(News::from(news)),
            Ok(None) => return,
            Err(_) => None,
        };
        let said = Said::News {
            from: inner.node.clone(),
            id,
            nth,
            news,
        };
        match inner.say(&to, &said).await {
            Ok(heard) if heard > 0 => {}
            outcome => {
                tracing::debug!(?outcome, to, "nobody takes who comes and goes here");
                return;
            }
        }
    }
}
