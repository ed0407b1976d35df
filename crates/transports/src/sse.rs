//! Server-sent events (WHATWG HTML, 9.2) as complete blocks.
//!
//! Invariant: every block ends with an empty line and is whole, so blocks can be written one after the
//! other in any grouping; an entry's block holds nothing of a session, and no `id:`, which the cursor's
//! own block brings. Does not know which session gets what.

use bytes::Bytes;
use postrider_model::{Entry, EntryKind, NotificationId, Timestamp, json::push_string};

/// What a notification's block has more than its object. Bytes.
const BLOCK_MORE: usize = 32;
/// Keeps proxies from closing a quiet connection; no event for the client.
pub const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// The block of an entry: `notification`, `read` or `withdrawn`. Made once, shared by all sessions.
pub fn entry_block(entry: &Entry) -> Bytes {
    let make = || {
        let mut out = Vec::with_capacity(entry.json_size() + BLOCK_MORE);
        make_entry_block(&mut out, entry);
        out.into()
    };
    entry.forms.sse.get_or_init(make).clone()
}

/// Appends the same, without keeping it: for an entry that no other session will get from the same memory.
pub fn push_entry_block(out: &mut Vec<u8>, entry: &Entry) {
    match entry.forms.sse.get() {
        Some(block) => out.extend_from_slice(block),
        None => {
            out.reserve(entry.json_size() + BLOCK_MORE);
            make_entry_block(out, entry);
        }
    }
}

/// The block of a notification that is sent again; `attempt` is 2 or more. Not shared.
pub fn entry_block_again(entry: &Entry, attempt: u32) -> Bytes {
    match entry.notification() {
        Some(_) => block("notification", &with_attempt(entry.json(), attempt)),
        None => entry_block(entry),
    }
}

/// How long a client waits before it comes back. Milliseconds.
pub fn retry(ms: u64) -> Bytes {
    format!("retry: {ms}\n\n").into()
}

/// Appends the block that sets EventSource's last event id without firing an event. `cursor` appends it, which is
/// base64url.
pub fn push_cursor_block(out: &mut Vec<u8>, cursor: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"id: ");
    cursor(out);
    out.extend_from_slice(b"\n\n");
}

/// Says that transient notifications were dropped because the client reads too slowly. Not named `error`, which
/// would fire EventSource's own error handler.
pub fn transient_dropped() -> Bytes {
    Bytes::from_static(b"event: transient_dropped\ndata: {}\n\n")
}

/// Some of what the client missed is no longer held; `oldest` is the time of the oldest that is.
pub fn gap(oldest: Timestamp) -> Bytes {
    block("gap", format!(r#"{{"oldest":"{oldest}"}}"#).as_bytes())
}

/// Says that these are not sent in this stream any more, although the client has not acknowledged them.
pub fn stalled(ids: &[NotificationId]) -> Bytes {
    let mut data = b"{".to_vec();
    push_ids(&mut data, ids);
    data.push(b'}');
    block("delivery_stalled", &data)
}

/// `"ids":[…]`
pub(crate) fn push_ids(out: &mut Vec<u8>, ids: &[NotificationId]) {
    out.extend_from_slice(br#""ids":["#);
    for (i, id) in ids.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_string(out, id.as_str());
    }
    out.push(b']');
}

/// The user's state, a compact JSON object.
pub fn state(state_json: &[u8]) -> Bytes {
    block("state", state_json)
}

/// An entry's object with its attempt as last member. `object` ends with `}` and is not empty.
pub(crate) fn with_attempt(object: &[u8], attempt: u32) -> Vec<u8> {
    let mut out = object[..object.len().saturating_sub(1)].to_vec();
    out.extend_from_slice(format!(r#","attempt":{attempt}}}"#).as_bytes());
    out
}

fn make_entry_block(out: &mut Vec<u8>, entry: &Entry) {
    match &entry.kind {
        EntryKind::Notification(..) => {
            out.extend_from_slice(b"event: notification\ndata: {");
            entry.push_members(out);
            out.extend_from_slice(b"}\n\n");
        }
        EntryKind::Read { ids, .. } => {
            out.extend_from_slice(b"event: read\ndata: {");
            push_ids(out, ids);
            out.extend_from_slice(b"}\n\n");
        }
        EntryKind::Withdrawn { id, reason, .. } => {
            out.extend_from_slice(b"event: withdrawn\ndata: {\"id\":");
            push_string(out, id.as_str());
            out.extend_from_slice(format!(r#","reason":"{}"}}"#, reason.as_str()).as_bytes());
            out.extend_from_slice(b"\n\n");
        }
    }
}

/// `data` is on one line already: compact JSON has no line break outside strings, and none in them.
fn block(event: &str, data: &[u8]) -> Bytes {
    debug_assert!(
        !data.iter().any(|b| matches!(b, b'\n' | b'\r')),
        "the data is not on one line"
    );
    [b"event: ", event.as_bytes(), b"\ndata: ", data, b"\n\n"]
        .concat()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::{FeedId, Position, UserId, WithdrawReason};

    fn entry(kind: EntryKind) -> Entry {
        let feed = FeedId::User(UserId::new("ada").unwrap());
        Entry {
            feed,
            position: Position::START,
            kind,
            forms: Default::default(),
        }
    }

    #[test]
    fn marks_byte_for_byte() {
        let id = |text| NotificationId::new(text).unwrap();
        let read = entry(EntryKind::Read {
            ids: vec![id("a"), id("b~1")],
            origin: None,
        });
        assert_eq!(
            entry_block(&read),
            "event: read\ndata: {\"ids\":[\"a\",\"b~1\"]}\n\n"
        );
        let withdrawn = entry(EntryKind::Withdrawn {
            id: id("a"),
            target: 1,
            reason: WithdrawReason::Collapsed,
            origin: None,
        });
        assert_eq!(
            entry_block(&withdrawn),
            "event: withdrawn\ndata: {\"id\":\"a\",\"reason\":\"collapsed\"}\n\n"
        );
        assert_eq!(entry_block_again(&withdrawn, 2), entry_block(&withdrawn));
    }

    #[test]
    fn a_notification_is_on_one_line_and_made_once() {
        let entry = crate::websocket::tests::notification();
        let first = entry_block(&entry);
        assert!(first.starts_with(b"event: notification\ndata: {\"id\":\"n-1\","));
        assert_eq!(first.iter().filter(|b| **b == b'\n').count(), 3);
        assert_eq!(first.as_ptr(), entry_block(&entry).as_ptr());
        assert!(entry_block_again(&entry, 3).ends_with(b",\"data\":{\"a\":\"\xc3\xbc\"},\"attempt\":3}\n\n"));
    }

    #[test]
    fn small_blocks() {
        assert_eq!(retry(1500), "retry: 1500\n\n");
        let mut out = b"before".to_vec();
        push_cursor_block(&mut out, |out| out.extend_from_slice(b"AQA"));
        assert_eq!(out, b"beforeid: AQA\n\n");
        assert_eq!(
            gap(Timestamp(0)),
            "event: gap\ndata: {\"oldest\":\"1970-01-01T00:00:00.000Z\"}\n\n"
        );
        assert_eq!(
            state(b"{\"unread\":\"3\"}"),
            "event: state\ndata: {\"unread\":\"3\"}\n\n"
        );
        let ids = ["a", "b"].map(|id| NotificationId::new(id).unwrap());
        assert_eq!(
            stalled(&ids),
            "event: delivery_stalled\ndata: {\"ids\":[\"a\",\"b\"]}\n\n"
        );
        assert_eq!(KEEP_ALIVE, ": keep-alive\n\n");
    }
}
