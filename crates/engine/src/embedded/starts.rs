//! Where the topics stand of which a user is, or was, a member: from one view of the store.

use super::StoreFault;
use super::people;
use super::reader::Reader;
use super::tables;
use crate::MemberStart;
use postrider_model::{Cursor, FeedId, FeedSpan, FeedStart, Membership, Position, UserId};

/// The start of one topic; nothing where the topic holds nothing of the user's, and nothing will come.
pub(super) fn member_start(
    reader: &Reader<'_>,
    user: &UserId,
    membership: &Membership,
    span: FeedSpan,
    cursor: Option<&Cursor>,
) -> Result<Option<MemberStart>, StoreFault> {
    if !membership.holds(span.first) {
        return Ok(None);
    }
    let (view, feed) = (&*reader.view, FeedId::Topic(membership.topic.clone()));
    let standing = tables::standing_for_session(view, user, &feed, 1, 0)?;
    let seen = clipped(reader, &feed, membership, span)?;
    let place = cursor.map(|cursor| cursor.get(&feed));
    let (place, held) = match place {
        None => (None, None),
        Some(place) => {
            let judged = judge(reader, &feed, membership, span, place)?;
            match judged {
                Judged::Held(offset) => {
                    let offset = offset.min(seen.head.offset);
                    (Some(people::position(view, &feed, span, offset)?), Some(true))
                }
                Judged::Gap(place) => (Some(place), Some(false)),
            }
        }
    };
    Ok(Some(MemberStart {
        topic: membership.topic.clone(),
        is_current: membership.is_current(),
        place,
        start: FeedStart {
            span: seen,
            floor: standing.floor.min(seen.head.offset),
            begins: standing.start().min(seen.head.offset),
            held,
        },
    }))
}

/// What of a topic a user may see: one who left sees nothing behind the last stay.
pub(super) fn clipped(
    reader: &Reader<'_>,
    feed: &FeedId,
    membership: &Membership,
    span: FeedSpan,
) -> Result<FeedSpan, StoreFault> {
    match membership.end() {
        Some(end) if end < span.head.offset => Ok(FeedSpan {
            head: people::position(&*reader.view, feed, span, end)?,
            ..span
        }),
        _ => Ok(span),
    }
}

/// What a cursor's place in a topic comes to for a member.
enum Judged {
    /// The client has everything of the user's up to here.
    Held(u64),
    /// It may lack something.
    Gap(Position),
}

fn judge(
    reader: &Reader<'_>,
    feed: &FeedId,
    membership: &Membership,
    span: FeedSpan,
    place: Option<Position>,
) -> Result<Judged, StoreFault> {
    let oldest = span.first.saturating_sub(1);
    let Some(place) = place else {
        // The client never had anything of it: everything since the first stay of which anything is held.
        let first = membership
            .stays
            .iter()
            .find(|stay| stay.through.is_none_or(|end| end > oldest));
        return Ok(Judged::Held(first.map_or(oldest, |stay| stay.after.max(oldest))));
    };
    if reader.is_place(feed, span, place)? {
        return Ok(Judged::Held(membership.floor(place.offset).max(oldest)));
    }
    // Retention took it, with nothing of the user's after it.
    let is_spared = place.offset < oldest && !membership.covers_any(place.offset + 1, oldest);
    Ok(match is_spared {
        true => Judged::Held(membership.floor(oldest)),
        false => Judged::Gap(place),
    })
}
