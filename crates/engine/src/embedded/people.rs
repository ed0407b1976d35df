//! Rows of the directory read back, and what of a topic is a user's: the readings that the writer and the readers
//! share.
//!
//! A notification for several topics is shown to a user once: at the first of its topics, in the order in which it
//! names them, of whose feed that place is the user's.

use super::StoreFault;
use super::codec::Record;
use super::codec::people::{UserRecord, decode_memberships, decode_state};
use super::codec::{Reader, Writer, key};
use super::reader::MISSING;
use super::store::{Added, Table, View};
use super::tables;
use postrider_model::{
    Audience, Entry, EntryKind, FeedId, FeedSpan, Membership, Notification, Position, Topic, UserId,
    UserState,
};
use std::collections::BTreeMap;

/// By topic; none for a user who never was a member.
pub(super) fn memberships(view: &dyn View, user: &UserId) -> Result<Vec<Membership>, StoreFault> {
    let value = view.get(Table::Memberships, user.as_str().as_bytes())?;
    value.map_or(Ok(Vec::new()), |value| decode_memberships(&value))
}

/// A user's membership in one topic.
pub(super) fn in_topic<'m>(memberships: &'m [Membership], topic: &Topic) -> Option<&'m Membership> {
    let at = memberships.binary_search_by(|one| one.topic.cmp(topic));
    at.ok().map(|at| &memberships[at])
}

pub(super) fn user(view: &dyn View, user: &UserId) -> Result<Option<UserRecord>, StoreFault> {
    let value = view.get(Table::Users, user.as_str().as_bytes())?;
    value.map(|value| UserRecord::decode(&value)).transpose()
}

/// How many members a topic has now. Below nothing, as where somebody's leaving is written before another's joining, there
/// is none.
pub(super) fn count(view: &dyn View, topic: &Topic) -> Result<u64, StoreFault> {
    let value = view.get(Table::Topics, topic.as_str().as_bytes())?;
    value.map_or(Ok(0), |value| {
        let mut r = Reader::new("topics", &value)?;
        let count = r.u64()?.cast_signed();
        r.end(u64::try_from(count).unwrap_or(0))
    })
}

/// By how much the members of these topics become more or less, as the store adds it to what [`count`] reads.
pub(super) fn added(joined: &BTreeMap<Topic, i64>) -> Vec<Added> {
    let changed = joined.iter().filter(|(_, change)| **change != 0);
    let added = changed.map(|(topic, change)| Added {
        table: Table::Topics,
        key: topic.as_str().as_bytes().to_vec(),
        none: Writer::new().u64(0).done(),
        change: *change,
    });
    added.collect()
}

pub(super) fn state(view: &dyn View, user: &UserId) -> Result<UserState, StoreFault> {
    if let Some(value) = view.get(Table::States, user.as_str().as_bytes())? {
        return decode_state(&value);
    }
    let erased = view.get(Table::Erased, &key::erased_state(user))?;
    let version = erased.map_or(Ok(0), |value| tables::one_u64("erased", &value))?;
    Ok(UserState::new(version, BTreeMap::new()))
}

/// Where a notification for topics stands in a user's inbox; nowhere for one who is no recipient.
pub(super) fn place<'r>(record: &'r Record, memberships: &[Membership]) -> Option<&'r (FeedId, Position)> {
    record.placements.iter().find(|(feed, position)| match feed {
        FeedId::Topic(topic) => {
            position.offset > 0 && in_topic(memberships, topic).is_some_and(|one| one.covers(position.offset))
        }
        FeedId::All | FeedId::User(_) => false,
    })
}

/// Whether a notification that stands at this place of a topic is shown to the user there.
pub(super) fn is_shown(
    view: &dyn View,
    memberships: &[Membership],
    topic: &Topic,
    offset: u64,
    notification: &Notification,
) -> Result<bool, StoreFault> {
    if !in_topic(memberships, topic).is_some_and(|one| one.covers(offset)) {
        return Ok(false);
    }
    let topics = match &notification.audience {
        Audience::Topics(topics) => topics.len(),
        _ => 0,
    };
    if topics < 2 {
        return Ok(true);
    }
    let record = tables::body(view, &notification.id)?;
    let first = place(&record, memberships);
    Ok(first.is_some_and(|(feed, _)| matches!(feed, FeedId::Topic(name) if name == topic)))
}

/// Whether a topic's entry is shown to a member, where that can be said without a look at other topics. A mark is where both it and what it speaks of are
/// the user's.
pub(super) fn shows_simply(membership: &Membership, user: &UserId, entry: &Entry) -> Option<bool> {
    let is_covered = membership.covers(entry.position.offset);
    match &entry.kind {
        EntryKind::Notification(notification, _) => match &notification.audience {
            Audience::Topics(topics) if topics.len() > 1 && is_covered => None,
            _ => Some(is_covered && !notification.excludes(user)),
        },
        EntryKind::Withdrawn { target, .. } => Some(is_covered && membership.covers(*target)),
        EntryKind::Read { .. } => Some(is_covered),
    }
}

/// Whether a topic's entry is shown to a user.
pub(super) fn shows(
    view: &dyn View,
    memberships: &[Membership],
    topic: &Topic,
    user: &UserId,
    entry: &Entry,
) -> Result<bool, StoreFault> {
    let Some(membership) = in_topic(memberships, topic) else {
        return Ok(false);
    };
    match (shows_simply(membership, user, entry), entry.notification()) {
        (Some(shown), _) => Ok(shown),
        (None, Some(notification)) if !notification.excludes(user) => {
            is_shown(view, memberships, topic, entry.position.offset, notification)
        }
        (None, _) => Ok(false),
    }
}

/// The place at an offset of a feed: of its entry, or just before the oldest.
pub(super) fn position(
    view: &dyn View,
    feed: &FeedId,
    span: FeedSpan,
    offset: u64,
) -> Result<Position, StoreFault> {
    if offset == span.head.offset {
        return Ok(span.head);
    }
    if offset >= span.first {
        let entry = tables::entry(view, feed, offset)?.ok_or(MISSING)?;
        let epoch = entry.epoch;
        return Ok(Position { epoch, offset });
    }
    let before = tables::trimmed(view, feed)?.map(|(_, before)| before);
    Ok(before.unwrap_or(Position::START))
}
