//! What the writer asks of memory when a user acknowledges: where the entry stands, how the user stands, and whether
//! what lies between is simple. Most acknowledgements name the newest entry of somebody who is connected, and those
//! need no look at the store.
//!
//! Invariant: what is answered is what a view of the store would say after the batch that is being built. Where the
//! batch changes something that memory cannot follow, nothing is answered.

use super::Hot;
use super::known::Place;
use super::tail::Tail;
use crate::embedded::codec::key;
use crate::embedded::store::{Batch, Table};
use postrider_model::{Devices, Entry, EntryKind, FeedId, Notification, NotificationId, Timestamp, UserId};
use std::sync::Arc;

/// What lies between a user's floor in a feed and an entry above it.
#[derive(Debug, Clone, Copy)]
pub(in crate::embedded) struct Ground {
    /// How the user stands in the feed.
    pub place: Place,
    /// Everything above the floor up to the entry is held and was withdrawn from nobody, and nothing of it is for the
    /// first device: a floor may pass over it as it is.
    pub plain: bool,
    /// What comes after the entry is pending, or nothing comes: a floor ends there.
    pub stops: bool,
}

/// A notification in a user's inbox.
#[derive(Debug)]
pub(in crate::embedded) struct Found {
    pub feed: FeedId,
    pub offset: u64,
    pub notification: Arc<Notification>,
    pub ground: Ground,
}

/// What is asked, and after what.
#[derive(Clone, Copy)]
pub(in crate::embedded) struct Asked<'a> {
    pub user: &'a UserId,
    /// Changes that are not yet committed.
    pub batch: &'a Batch,
    pub now: Timestamp,
}

impl Hot {
    /// A notification with this id in a user's inbox. It is the one that an acknowledgement means if no mark stands at
    /// it: one that was put elsewhere since has one.
    pub fn find(&self, asked: Asked<'_>, id: &NotificationId) -> Option<Found> {
        let (feed, entry, ground) = self.with(asked.user, |known, all| {
            // What is for all is looked at by all, and so at hand.
            let (feed, tail, place, entry) = match all.find(id) {
                Some(entry) => (FeedId::All, all, known.all, entry),
                None => {
                    let own = FeedId::User(asked.user.clone());
                    (own, &known.tail, known.own, known.tail.find(id)?)
                }
            };
            let place = place.after(asked.batch, asked.user, &feed)?;
            let ground = ground(tail, place, asked, &feed, entry.position.offset);
            Some((feed, entry.clone(), ground))
        })?;
        Some(Found {
            feed,
            offset: entry.position.offset,
            notification: entry.notification()?.clone(),
            ground,
        })
    }

    /// What lies between a user's floor and an entry of a feed.
    pub fn ground(&self, asked: Asked<'_>, feed: &FeedId, to: u64) -> Option<Ground> {
        self.with(asked.user, |known, all| {
            if let FeedId::Topic(topic) = feed {
                let (membership, place) = self.member_place(known, asked, topic)?;
                // Not where some of it lies outside the stay.
                let is_within = membership
                    .stays
                    .last()
                    .is_some_and(|stay| stay.after <= place.floor);
                let judge = |tail: &Tail| Some(ground(tail, place, asked, feed, to));
                return is_within.then(|| self.in_topic(topic, judge)).flatten();
            }
            let (tail, place) = super::parts(known, all, asked.user, feed)?;
            let place = place.after(asked.batch, asked.user, feed)?;
            Some(ground(tail, place, asked, feed, to))
        })
    }

    /// How a user stands in a feed.
    pub fn place(&self, asked: Asked<'_>, feed: &FeedId) -> Option<Place> {
        self.with(asked.user, |known, all| {
            if let FeedId::Topic(topic) = feed {
                return self.member_place(known, asked, topic).map(|(_, place)| place);
            }
            let (_, place) = super::parts(known, all, asked.user, feed)?;
            place.after(asked.batch, asked.user, feed)
        })
    }
}

fn ground(tail: &Tail, place: Place, asked: Asked<'_>, feed: &FeedId, to: u64) -> Ground {
    let (from, next) = (place.floor.saturating_add(1), to.saturating_add(1));
    let is_held = tail.span().first <= from && !changes(asked.batch, feed, from, to);
    let plain = is_held && (from..=to).all(|offset| tail.at(offset).is_some_and(|entry| is_plain(entry)));
    // What the batch appends is as good as pending: a floor that stays below it moves on with the next one.
    let ends = to == tail.span().head.offset;
    let is_next_pending = || {
        let is_pending = tail.at(next).is_some_and(|entry| is_pending(entry, asked));
        is_pending && place.marked <= to && !changes(asked.batch, feed, next, next)
    };
    Ground {
        place,
        plain,
        stops: is_held && (ends || is_next_pending()),
    }
}

/// Whether the batch writes one of these entries, or takes it away.
fn changes(batch: &Batch, feed: &FeedId, from: u64, to: u64) -> bool {
    let entries = batch.table(Table::Entries);
    if entries.is_empty() {
        return false;
    }
    let (from, to) = (key::entry(feed, from), key::entry(feed, to.saturating_add(1)));
    entries.range(&from, &to).next().is_some()
}

fn is_plain(entry: &Entry) -> bool {
    match &entry.kind {
        EntryKind::Notification(notification, None) => notification.devices == Devices::All,
        EntryKind::Notification(_, Some(_)) => false,
        EntryKind::Read { .. } | EntryKind::Withdrawn { .. } => true,
    }
}

/// Whether a user has yet to acknowledge an entry at which nothing is recorded.
fn is_pending(entry: &Entry, asked: Asked<'_>) -> bool {
    match &entry.kind {
        EntryKind::Notification(notification, None) => {
            notification.expires_at.is_none_or(|at| at > asked.now) && !notification.excludes(asked.user)
        }
        _ => false,
    }
}
