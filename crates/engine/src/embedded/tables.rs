//! Rows read back into values: the readings that the writer and the readers share.

use super::StoreFault;
use super::codec::{
    EntryKindRecord, EntryRecord, Held, Home, LetterRecord, Reader, Record, Writer, decode_mark, key,
};
use super::people;
use super::store::{Row, Table, View};
use postrider_model::{
    EntryKind, Epoch, FeedId, FeedSpan, Mark, MarkKind, Notification, NotificationId, Position, Standing,
    State, Timestamp, UserId, WithdrawReason, state_of,
};

/// The kinds of floor. What is at or below it is acknowledged.
pub(super) const FLOOR_DELIVERED: u8 = 1;
/// What is at or below it has been looked at for marking as read.
pub(super) const FLOOR_READ: u8 = 2;
/// Up to it the user is no recipient.
pub(super) const FLOOR_JOINED: u8 = 3;
/// As many rows as there are, where something else bounds them.
pub(super) const ALL_ROWS: usize = usize::MAX;

/// What becomes due at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Due {
    Deliver = 1,
    Expire = 2,
    /// One ack timeout after the last attempt.
    GiveUp = 3,
}

/// Why a row stands in `ages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// A notification that is kept to be delivered.
    Kept = 1,
    /// A notification of which only is known what became of it.
    Record = 2,
    /// The key of a request.
    Request = 3,
    /// A feed got marks.
    Marks = 4,
    /// Notifications that are kept, which were accepted together.
    Cohort = 5,
}

pub(super) fn record(view: &dyn View, id: &NotificationId) -> Result<Option<Record>, StoreFault> {
    let value = view.get(Table::Notifications, id.as_str().as_bytes())?;
    match value.map(|value| Held::decode(id, &value)).transpose()? {
        None => Ok(None),
        Some(Held::Record(record)) => Ok(Some(*record)),
        Some(Held::Home(home)) => at_home(view, id, home).map(Some),
    }
}

/// Fails if a notification that was not found may be there all the same.
pub(super) fn vouch_unknown(view: &dyn View, id: &NotificationId) -> Result<(), StoreFault> {
    view.vouch_absent(Table::Notifications, id.as_str().as_bytes())
}

fn at_home(view: &dyn View, id: &NotificationId, (user, position): Home) -> Result<Record, StoreFault> {
    let feed = FeedId::User(user.clone());
    let value = view.get(Table::Entries, &key::entry(&feed, position.offset))?;
    let record = value.map(|value| Record::of_entry(&value, &user, position.offset));
    let record = record.transpose()?.flatten();
    record
        .filter(|record| record.notification.id == *id)
        .ok_or(StoreFault::Corrupt {
            table: "notifications",
            detail: "what stood whole in an entry is missing",
        })
}

/// The one recipient of what stands whole in an entry, and where it stands.
pub(super) fn home(view: &dyn View, id: &NotificationId) -> Result<Option<Home>, StoreFault> {
    let value = view.get(Table::Notifications, id.as_str().as_bytes())?;
    value.map_or(Ok(None), |value| Held::home(&value))
}

/// Where it stands, or is to stand, in the own feed of one of its recipients.
pub(super) fn recipient(
    view: &dyn View,
    id: &NotificationId,
    user: &UserId,
) -> Result<Option<Position>, StoreFault> {
    if let Some((only, position)) = home(view, id)? {
        return Ok((only == *user).then_some(position));
    }
    let value = view.get(Table::Recipients, &key::recipient(id, user))?;
    value.map(|value| decode_position(&value)).transpose()
}

/// All of them, by rising user id.
pub(super) fn recipients(view: &dyn View, id: &NotificationId) -> Result<Vec<Home>, StoreFault> {
    let home = match home(view, id) {
        // It tells nothing; rows of their own may.
        Err(StoreFault::Corrupt { .. }) => None,
        home => home?,
    };
    if let Some(home) = home {
        return Ok(vec![home]);
    }
    let prefix = key::recipients(id);
    let rows = view.scan(Table::Recipients, &prefix, &key::after(&prefix), ALL_ROWS)?;
    rows.iter()
        .map(|row| recipient_of_row(prefix.len(), row))
        .collect()
}

/// The record of a notification that stands in a feed.
pub(super) fn body(view: &dyn View, id: &NotificationId) -> Result<Record, StoreFault> {
    record(view, id)?.ok_or(NO_BODY)
}

pub(super) const NO_BODY: StoreFault = StoreFault::Corrupt {
    table: "notifications",
    detail: "a body is missing",
};

/// Whether a user's feed holds it, and nothing says that this user is a recipient: when a notification was given
/// up that row could not be read.
pub(super) fn is_stray(view: &dyn View, id: &NotificationId, feed: &FeedId) -> Result<bool, StoreFault> {
    match feed {
        FeedId::User(user) => Ok(recipient(view, id, user)?.is_none()),
        FeedId::All | FeedId::Topic(_) => Ok(false),
    }
}

pub(super) fn entry(view: &dyn View, feed: &FeedId, offset: u64) -> Result<Option<EntryRecord>, StoreFault> {
    view.get(Table::Entries, &key::entry(feed, offset))?
        .map(|value| EntryRecord::decode(&value))
        .transpose()
}

/// A feed's span: from its last entry, or from what trimming wrote down when it took the last away.
pub(super) fn span(view: &dyn View, feed: &FeedId) -> Result<FeedSpan, StoreFault> {
    let mut span = trimmed(view, feed)?.map_or(FeedSpan::EMPTY, |(span, _)| span);
    let prefix = key::feed(feed);
    if let Some((row, value)) = view.last(Table::Entries, &prefix, &key::after(&prefix))? {
        span.head = Position {
            epoch: EntryRecord::decode(&value)?.epoch,
            offset: offset(&row)?,
        };
    }
    if span.head.offset < span.first
        && let Some(value) = view.get(Table::Erased, &key::erased(feed))?
    {
        // An erased user's feed goes on where it was, so that no place is given twice.
        let head = Reader::new("erased", &value)?.position()?;
        if head.offset > span.head.offset {
            span = FeedSpan {
                first: head.offset + 1,
                head,
            };
        }
    }
    Ok(span)
}

/// What trimming wrote down: the span then, and the place just before the oldest held entry.
pub(super) fn trimmed(view: &dyn View, feed: &FeedId) -> Result<Option<(FeedSpan, Position)>, StoreFault> {
    let value = view.get(Table::Feeds, &key::feed(feed))?;
    value.map(|value| decode_trimmed(&value)).transpose()
}

pub(super) fn decode_trimmed(value: &[u8]) -> Result<(FeedSpan, Position), StoreFault> {
    let mut r = Reader::new("feeds", value)?;
    let span = FeedSpan {
        first: r.u64()?,
        head: r.position()?,
    };
    let before = Position {
        epoch: Epoch(r.u32()?),
        offset: span.first.saturating_sub(1),
    };
    Ok((span, before))
}

pub(super) fn encode_trimmed(span: FeedSpan, before: Epoch) -> Vec<u8> {
    Writer::new()
        .u64(span.first)
        .u32(span.head.epoch.0)
        .u64(span.head.offset)
        .u32(before.0)
        .done()
}

pub(super) fn floor(view: &dyn View, user: &UserId, feed: &FeedId, kind: u8) -> Result<u64, StoreFault> {
    view.get(Table::Floors, &key::floor(user, feed, kind))?
        .map_or(Ok(0), |value| one_u64("floors", &value))
}

/// The floor and the marks on `from..=to`.
pub(super) fn standing(
    view: &dyn View,
    user: &UserId,
    feed: &FeedId,
    from: u64,
    to: u64,
) -> Result<Standing, StoreFault> {
    let end = match to.checked_add(1) {
        Some(next) => key::mark(user, feed, next, 0),
        None => key::after(&key::user_feed(user, feed)),
    };
    let rows = view.scan(Table::Marks, &key::mark(user, feed, from, 0), &end, ALL_ROWS)?;
    let mut standing = Standing {
        floor: floor(view, user, feed, FLOOR_DELIVERED)?,
        marks: rows.iter().map(mark_of_row).collect::<Result<_, _>>()?,
        ..Standing::default()
    };
    if from <= standing.floor {
        let (from, to) = stretch(user, feed, from, to.min(standing.floor));
        let rows = view.scan(Table::Opens, &from, &to, ALL_ROWS)?;
        standing.open = rows
            .iter()
            .map(|(row, _)| offset(row))
            .collect::<Result<_, _>>()?;
    }
    Ok(standing)
}

/// What else a session is told of the user's place: where it begins, and earlier attempts.
pub(super) fn standing_for_session(
    view: &dyn View,
    user: &UserId,
    feed: &FeedId,
    from: u64,
    to: u64,
) -> Result<Standing, StoreFault> {
    let mut standing = standing(view, user, feed, from, to)?;
    let held_from = trimmed(view, feed)?.map_or(0, |(span, _)| span.first);
    let (begin, end) = stretch(user, feed, held_from, u64::MAX);
    let open = view.scan(Table::Opens, &begin, &end, 1)?;
    standing.first_open = open.first().map(|(row, _)| offset(row)).transpose()?;
    match feed {
        FeedId::User(_) => {}
        FeedId::All => {
            standing.joined = floor(view, user, feed, FLOOR_JOINED)?;
            standing.floor = standing.floor.max(standing.joined);
        }
        FeedId::Topic(topic) => {
            if let Some(membership) = people::in_topic(&people::memberships(view, user)?, topic) {
                standing.joined = membership.stays.first().map_or(0, |stay| stay.after);
                standing.floor = membership.floor(standing.floor);
            }
        }
    }
    let (from, to) = stretch(user, feed, from, to);
    for (row, value) in view.scan(Table::Attempts, &from, &to, ALL_ROWS)? {
        standing.attempts.push((offset(&row)?, attempts(&value)?.0));
    }
    Ok(standing)
}

/// How many attempts there were, and when the last was.
pub(super) fn attempts(value: &[u8]) -> Result<(u32, Timestamp), StoreFault> {
    let mut r = Reader::new("attempts", value)?;
    Ok((r.u32()?, Timestamp(r.u64()?)))
}

/// The keys of `from..=to` in tables that are kept by user, feed and offset.
fn stretch(user: &UserId, feed: &FeedId, from: u64, to: u64) -> (Vec<u8>, Vec<u8>) {
    let end = match to.checked_add(1) {
        Some(next) => key::range(user, feed, next),
        None => key::after(&key::user_feed(user, feed)),
    };
    (key::range(user, feed, from), end)
}

/// What was recorded about many entries at once and covers this one.
pub(super) fn range_at(
    view: &dyn View,
    user: &UserId,
    feed: &FeedId,
    offset: u64,
) -> Result<Option<Mark>, StoreFault> {
    let from = key::range(user, feed, offset);
    let rows = view.scan(Table::Ranges, &from, &key::after(&key::user_feed(user, feed)), 1)?;
    let Some((row, value)) = rows.first() else {
        return Ok(None);
    };
    let mut r = Reader::new("ranges", value)?;
    let kind = MarkKind::from_byte(r.u8()?).ok_or_else(|| r.corrupt("unknown kind of mark"))?;
    let end = key::offset_of(row).ok_or_else(|| r.corrupt("the key has no offset"))?;
    let mark = r.mark(end, kind)?;
    Ok((mark.from <= offset).then_some(mark))
}

/// The state of a notification that stands, or stood before it was trimmed, at `offset` for a user who is
/// one of its recipients; with what is recorded.
pub(super) fn state(
    view: &dyn View,
    user: &UserId,
    feed: &FeedId,
    offset: u64,
    notification: &Notification,
    now: Timestamp,
) -> Result<(State, Standing), StoreFault> {
    let standing = standing(view, user, feed, offset, offset)?;
    let mut judged = standing.clone();
    let withdrawn = match entry(view, feed, offset)?.map(|entry| entry.kind) {
        Some(EntryKindRecord::Notification { withdrawn, .. }) => withdrawn,
        Some(_) => None,
        None => {
            // Trimmed. A floor that moved over it afterwards did not deliver it.
            if feed.is_wide()
                && range_at(view, user, feed, offset)?.is_some_and(|mark| mark.kind == MarkKind::Expired)
            {
                judged.floor = 0;
            }
            let dropped = view.get(Table::Dropped, &key::entry(feed, offset))?;
            let reason = dropped.map(|value| dropped_reason(&value)).transpose()?;
            reason.or(Some(WithdrawReason::Expired))
        }
    };
    Ok((state_of(notification, withdrawn, offset, &judged, now), standing))
}

pub(super) fn offset(row: &[u8]) -> Result<u64, StoreFault> {
    key::offset_of(row).ok_or(StoreFault::Corrupt {
        table: "entries",
        detail: "the key has no offset",
    })
}

pub(super) fn decode_position(value: &[u8]) -> Result<Position, StoreFault> {
    Reader::new("recipients", value)?.position()
}

pub(super) fn recipient_of_row(prefix: usize, (row, value): &Row) -> Result<(UserId, Position), StoreFault> {
    Ok((user_at_end("recipients", prefix, row)?, decode_position(value)?))
}

/// The user whose id ends a key.
pub(super) fn user_at_end(table: &'static str, prefix: usize, row: &[u8]) -> Result<UserId, StoreFault> {
    let user = row.get(prefix..).and_then(|name| std::str::from_utf8(name).ok());
    let user = user.and_then(|text| UserId::new(text).ok());
    user.ok_or(StoreFault::Corrupt {
        table,
        detail: "the key has no user",
    })
}

/// A mark from a row of `marks`; the key ends in the offset and the kind.
pub(super) fn mark_of_row((row, value): &Row) -> Result<Mark, StoreFault> {
    let damaged = |detail| StoreFault::Corrupt {
        table: "marks",
        detail,
    };
    let (kind, rest) = row.split_last().ok_or(damaged("an empty key"))?;
    let offset = key::offset_of(rest).ok_or(damaged("the key has no offset"))?;
    let kind = MarkKind::from_byte(*kind).ok_or(damaged("unknown kind of mark"))?;
    decode_mark(offset, kind, value)
}

pub(super) fn one_u64(table: &'static str, value: &[u8]) -> Result<u64, StoreFault> {
    Reader::new(table, value)?.u64()
}

pub(super) fn request_content(value: &[u8]) -> Result<u128, StoreFault> {
    Reader::new("requests", value)?.u128()
}

pub(super) fn dropped_reason(value: &[u8]) -> Result<WithdrawReason, StoreFault> {
    let mut r = Reader::new("dropped", value)?;
    r.reason()?.ok_or_else(|| r.corrupt("no reason"))
}

pub(super) fn due_parts(row: &[u8]) -> Result<(Timestamp, Due, NotificationId), StoreFault> {
    let damaged = |detail| StoreFault::Corrupt { table: "due", detail };
    let (at, rest) = row
        .split_first_chunk::<8>()
        .ok_or(damaged("the key has no time"))?;
    let (kind, id) = rest.split_first().ok_or(damaged("the key has no kind"))?;
    let kind = match *kind {
        1 => Due::Deliver,
        2 => Due::Expire,
        3 => Due::GiveUp,
        _ => return Err(damaged("unknown kind of due time")),
    };
    let id = id.split(|byte| *byte == 0).next().unwrap_or_default();
    let id = std::str::from_utf8(id)
        .ok()
        .and_then(|text| NotificationId::new(text).ok());
    Ok((
        Timestamp(u64::from_be_bytes(*at)),
        kind,
        id.ok_or(damaged("the key has no id"))?,
    ))
}

/// Where a redriven entry stood before, as its mark keeps it: offset, space, feed.
pub(super) fn place_before(why: &str) -> Option<(FeedId, u64)> {
    let (offset, feed) = why.split_once(' ')?;
    Some((FeedId::parse(feed).ok()?, offset.parse().ok()?))
}

/// With which row to go on where something that grew old was begun.
pub(super) fn age_next(value: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
    let mut r = Reader::new("ages", value)?;
    match r.is_done() {
        true => Ok(None),
        false => Ok(Some(r.bytes()?.to_vec())),
    }
}

/// The id of what stood at a place before it was trimmed.
pub(super) fn past_id(value: &[u8]) -> Result<NotificationId, StoreFault> {
    Reader::new("past", value)?.id(NotificationId::new)
}

/// The user of a row about giving up.
pub(super) fn due_user(row: &[u8]) -> Result<UserId, StoreFault> {
    let start = row.iter().skip(9).position(|byte| *byte == 0);
    user_at_end("due", start.map_or(usize::MAX, |at| at + 10), row)
}

pub(super) fn letter(view: &dyn View, id: u64) -> Result<Option<LetterRecord>, StoreFault> {
    let value = view.get(Table::Letters, &id.to_be_bytes())?;
    value.map(|value| LetterRecord::decode(&value)).transpose()
}

pub(super) fn kind_record(kind: &EntryKind) -> EntryKindRecord {
    match kind {
        EntryKind::Notification(notification, withdrawn) => EntryKindRecord::Notification {
            id: notification.id.clone(),
            withdrawn: *withdrawn,
        },
        EntryKind::Read { ids, origin } => EntryKindRecord::Read {
            ids: ids.clone(),
            origin: origin.clone(),
        },
        EntryKind::Withdrawn {
            id,
            target,
            reason,
            origin,
        } => EntryKindRecord::Withdrawn {
            id: id.clone(),
            target: *target,
            reason: *reason,
            origin: origin.clone(),
        },
    }
}
