//! Topics in memory: where each stands, and its newest entries. A topic is kept once somebody asked for it.
//!
//! Invariant: as of [`super::Hot`]. Whoever fills a topic's slot takes its version first, then the view; a commit that
//! begins meanwhile changes the version, and one that was under way is known by its bit.

use super::slots::{Cost, Fate};
use super::tail::Tail;
use super::{Hot, known};
use crate::embedded::store::Batch;
use postrider_model::{Entry, FeedId, FeedKind, FeedSpan, FeedStart, Position, Topic};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A slot without its entries.
const SLOT_BYTES: usize = 128;

/// One topic's slot.
#[derive(Debug)]
pub(super) struct TopicSlot {
    /// A commit that changes it is under way.
    moving: bool,
    /// Another after each such commit.
    version: u64,
    /// `None` until it is filled.
    tail: Option<Tail>,
}

impl Cost for TopicSlot {
    fn cost(&self) -> usize {
        SLOT_BYTES + self.tail.as_ref().map_or(0, Tail::bytes)
    }
}

impl Hot {
    /// Which version of a topic a view that is taken after this shows at least; `None` while it changes.
    pub fn version_of_topic(&self, topic: &Topic) -> Option<u64> {
        if self.off {
            return None;
        }
        let slot = TopicSlot {
            moving: false,
            version: self.fillings.fetch_add(1, Ordering::Relaxed),
            tail: None,
        };
        self.topics.add(topic.clone(), slot);
        if self.moving.has(self.topics.hash(topic.as_str())) {
            return None;
        }
        let version = |slot: &mut TopicSlot| (Fate::Keep, (!slot.moving).then_some(slot.version));
        self.topics.look(topic.as_str(), true, version).flatten()
    }

    /// Whether it is known where a topic stands.
    pub fn has_topic(&self, topic: &Topic) -> bool {
        self.in_topic(topic, |_| Some(())).is_some()
    }

    /// What a topic held, and its newest entries, in a view that was taken at this version.
    pub fn fill_topic(&self, topic: &Topic, version: u64, span: FeedSpan, entries: &[Arc<Entry>]) {
        self.topics.look(topic.as_str(), false, |slot| {
            if !slot.moving && slot.version == version {
                Tail::fill(&mut slot.tail, span, entries);
            }
            (Fate::Keep, ())
        });
    }

    /// Looks at a topic, if it is here.
    pub(super) fn in_topic<R>(&self, topic: &Topic, look: impl FnOnce(&Tail) -> Option<R>) -> Option<R> {
        let found = self.topics.look(topic.as_str(), true, |slot| {
            let tail = slot.tail.as_ref().filter(|_| !slot.moving);
            (Fate::Keep, tail.and_then(look))
        });
        found.flatten()
    }

    /// Where a session topic stands.
    pub(super) fn topic_start(&self, topic: &Topic, place: Option<Position>) -> Option<FeedStart> {
        self.in_topic(topic, |tail| {
            let held = match place {
                None => None,
                Some(place) => Some(tail.holds(place)?),
            };
            Some(FeedStart {
                span: tail.span(),
                floor: 0,
                begins: 0,
                held,
            })
        })
    }

    /// A commit that changes a topic begins. True if the topic is here.
    pub(super) fn begin_topic(&self, name: &str) -> bool {
        self.moving.add(self.topics.hash(name));
        let version = self.fillings.fetch_add(1, Ordering::Relaxed);
        let is_here = self.topics.look(name, false, |slot| {
            (slot.moving, slot.version) = (true, version);
            (Fate::Keep, ())
        });
        is_here.is_some()
    }

    /// It ended.
    pub(super) fn end_topic(&self, name: &str, batch: &Batch, is_done: bool) {
        self.topics.look(name, false, |slot| {
            slot.moving = false;
            let mut feed = Vec::with_capacity(name.len() + 3);
            FeedId::join_key(FeedKind::Topic, name, &mut feed);
            let followed = slot
                .tail
                .as_mut()
                .map_or(Ok(()), |tail| known::follow_feed(tail, &feed, batch));
            let fate = if is_done && followed.is_ok() {
                Fate::Keep
            } else {
                Fate::Drop
            };
            (fate, ())
        });
    }

    /// An entry of a topic stands in a row that a commit wrote, which has ended.
    pub(super) fn appended_to_topic(&self, topic: &Topic, entry: &Arc<Entry>) {
        // It counts as used: what grows must stand where it is bounded.
        self.topics.look(topic.as_str(), true, |slot| {
            if let Some(tail) = &mut slot.tail {
                tail.push(entry);
            }
            (Fate::Keep, ())
        });
    }
}

/// The position at an offset of a feed, if it can be told.
pub(super) fn position(tail: &Tail, offset: u64) -> Option<Position> {
    match offset {
        _ if offset == tail.span().head.offset => Some(tail.span().head),
        0 => Some(Position::START),
        _ => tail.at(offset).map(|entry| entry.position),
    }
}
