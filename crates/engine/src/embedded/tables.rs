//! Rows read back into values: the readings that the writer and the readers share.

use super::StoreFault;
use super::apply::{Due, MARK_DELIVERED_RANGE};
use super::codec::{EntryKindRecord, EntryRecord, Reader, Writer, decode_mark, key};
use super::store::{Row, Table};
use postrider_model::{
    EntryKind, Epoch, FeedId, FeedSpan, Mark, MarkKind, NotificationId, Position, Timestamp, UserId,
    WithdrawReason,
};

/// A feed's span: from its last entry, or from what trimming wrote down when it took the last away.
pub(super) fn span(
    feed: &FeedId,
    get_feed: impl FnOnce(&[u8]) -> Result<Option<Vec<u8>>, StoreFault>,
    last: impl FnOnce(Table, &[u8], &[u8]) -> Result<Option<Row>, StoreFault>,
) -> Result<FeedSpan, StoreFault> {
    let prefix = key::feed(feed);
    let mut span = match get_feed(&prefix)? {
        Some(value) => decode_span(&value)?,
        None => FeedSpan::EMPTY,
    };
    if let Some((row, value)) = last(Table::Entries, &prefix, &key::after(&prefix))? {
        let offset = offset(&row)?;
        span.head = Position {
            epoch: EntryRecord::decode(&value)?.epoch,
            offset,
        };
    }
    Ok(span)
}

pub(super) fn encode_span(span: FeedSpan) -> Vec<u8> {
    Writer::new()
        .u64(span.first)
        .u32(span.head.epoch.0)
        .u64(span.head.offset)
        .done()
}

fn decode_span(value: &[u8]) -> Result<FeedSpan, StoreFault> {
    let mut r = Reader::new("feeds", value)?;
    Ok(FeedSpan {
        first: r.u64()?,
        head: r.position()?,
    })
}

pub(super) fn offset(row: &[u8]) -> Result<u64, StoreFault> {
    key::offset_of(row).ok_or(StoreFault::Corrupt {
        table: "entries",
        detail: "the key has no offset",
    })
}

pub(super) fn decode_position(value: &[u8]) -> Result<Position, StoreFault> {
    let mut r = Reader::new("recipients", value)?;
    Ok(Position {
        epoch: Epoch(r.u32()?),
        offset: r.u64()?,
    })
}

pub(super) fn recipient_of_row(prefix: usize, (row, value): &Row) -> Result<(UserId, Position), StoreFault> {
    let user = std::str::from_utf8(&row[prefix..])
        .ok()
        .and_then(|text| UserId::new(text).ok());
    let user = user.ok_or(StoreFault::Corrupt {
        table: "recipients",
        detail: "the key has no user",
    })?;
    Ok((user, decode_position(value)?))
}

/// A mark from a row of `marks`; the key ends in the offset and the kind.
pub(super) fn mark_of_row((row, value): &Row) -> Result<Mark, StoreFault> {
    let damaged = |detail| StoreFault::Corrupt {
        table: "marks",
        detail,
    };
    let (kind, rest) = row.split_last().ok_or(damaged("an empty key"))?;
    let offset = key::offset_of(rest).ok_or(damaged("the key has no offset"))?;
    let kind = match *kind {
        MARK_DELIVERED_RANGE => MarkKind::Delivered,
        kind => MarkKind::from_byte(kind).ok_or(damaged("unknown kind of mark"))?,
    };
    decode_mark(offset, kind, value)
}

pub(super) fn floor(value: Option<Vec<u8>>) -> Result<u64, StoreFault> {
    value.map_or(Ok(0), |value| one_u64("floors", &value))
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
        _ => return Err(damaged("unknown kind of due time")),
    };
    let id = std::str::from_utf8(id)
        .ok()
        .and_then(|text| NotificationId::new(text).ok());
    Ok((
        Timestamp(u64::from_be_bytes(*at)),
        kind,
        id.ok_or(damaged("the key has no id"))?,
    ))
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
        EntryKind::Withdrawn { id, target, reason } => EntryKindRecord::Withdrawn {
            id: id.clone(),
            target: *target,
            reason: *reason,
        },
    }
}
