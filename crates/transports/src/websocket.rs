//! The server's side of WebSocket (RFC 6455), without extensions: the handshake, and the frames it sends.
//!
//! Invariant: every frame is whole and unfragmented, and an entry's frame holds nothing of a session, so
//! all sessions share its bytes. Does not know what was sent to whom; reading is [`Decoder`]'s.

mod decoder;

pub use decoder::{Decoder, Fault, MAX_FRAMES, MAX_MESSAGE, Message};

use crate::head::Head;
use crate::problem::Problem;
use crate::sse::{push_ids, with_attempt};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use postrider_model::{Entry, NotificationId, Timestamp, json::push_string};
use sha1::{Digest as _, Sha1};

/// The subprotocol that is spoken, and named where the client offers it.
pub const SUBPROTOCOL: &str = "postrider.v1";
/// The most that a control frame carries. Bytes.
const MAX_CONTROL: usize = 125;

/// The longest head of an unmasked frame. Bytes.
const MAX_HEAD: usize = 10;
/// The member that a notification's object has more in a frame than elsewhere.
const NOTIFICATION: &[u8] = br#""type":"notification","#;
/// What a frame has more than an entry's object, at most. Bytes.
const FRAME_MORE: usize = NOTIFICATION.len() + MAX_HEAD;

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// What the 101 answer needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: String,
    /// Whether the client offered [`SUBPROTOCOL`].
    pub subprotocol: bool,
}

/// Checks an upgrade request (RFC 6455, 4.2.1).
///
/// # Errors
/// `upgrade_required` where it asks for no WebSocket, or another version than 13; `invalid_request` for a
/// key that is not 16 bytes of base64.
pub fn handshake(head: &Head) -> Result<Handshake, Problem> {
    let version = head.header("sec-websocket-version");
    if head.version_minor == 0 || !head.is_websocket_upgrade() || version != Some("13") {
        return Err(Problem::upgrade_required());
    }
    let key = head.header("sec-websocket-key").unwrap_or_default();
    if !STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        let detail =
            "The header `sec-websocket-key` is not 16 bytes in base64. Open this with a WebSocket client.";
        return Err(Problem::invalid_request(detail));
    }
    let subprotocol = head
        .header_values("sec-websocket-protocol")
        .flat_map(|value| value.split(','))
        .any(|offer| offer.trim() == SUBPROTOCOL);
    Ok(Handshake {
        accept: accept_key(key),
        subprotocol,
    })
}

/// The answer to a `Sec-WebSocket-Key`, which proves that the server understood it.
pub fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// A text message. `text` must be UTF-8.
pub fn text_frame(text: &[u8]) -> Bytes {
    frame(TEXT, &[text])
}

/// A ping; of `payload`, at most 125 bytes are sent.
pub fn ping(payload: &[u8]) -> Bytes {
    frame(PING, &[&payload[..payload.len().min(MAX_CONTROL)]])
}

/// Appends a ping with this number.
pub fn push_ping(out: &mut Vec<u8>, number: u64) {
    let payload = number.to_be_bytes();
    out.extend_from_slice(&[0x80 | PING, payload.len() as u8]);
    out.extend_from_slice(&payload);
}

/// The answer to a ping, with its payload.
pub fn pong(payload: &[u8]) -> Bytes {
    frame(PONG, &[&payload[..payload.len().min(MAX_CONTROL)]])
}

/// A close. The reason is cut to what fits, 123 bytes, between characters.
pub fn close(code: u16, reason: &str) -> Bytes {
    let fits = reason.floor_char_boundary(MAX_CONTROL - 2);
    frame(CLOSE, &[&code.to_be_bytes(), &reason.as_bytes()[..fits]])
}

/// The answer to a client's close: its own code, or none where it gave none (RFC 6455, 5.5.1).
pub fn close_reply(code: Option<u16>) -> Bytes {
    code.map_or_else(|| frame(CLOSE, &[]), |code| close(code, ""))
}

/// The frame of an entry: `notification`, `read` or `withdrawn`. Made once, shared by all sessions.
pub fn entry_frame(entry: &Entry) -> Bytes {
    let make = || {
        let mut out = Vec::with_capacity(entry.json_size() + FRAME_MORE);
        make_entry_frame(&mut out, entry);
        out.into()
    };
    entry.forms.websocket.get_or_init(make).clone()
}

/// Appends the same, without keeping it: for an entry that no other session will get from the same memory.
pub fn push_entry_frame(out: &mut Vec<u8>, entry: &Entry) {
    match entry.forms.websocket.get() {
        Some(frame) => out.extend_from_slice(frame),
        None => {
            out.reserve(entry.json_size() + FRAME_MORE);
            make_entry_frame(out, entry);
        }
    }
}

/// The frame of nothing but a notification's data, as its publisher wrote it: a text frame, or a binary one where that
/// is no UTF-8, at which a client would have to end the connection. Made once, shared by all sessions.
pub fn bare_frame(entry: &Entry) -> Bytes {
    let make = || {
        let mut out = Vec::with_capacity(entry.payload().len() + MAX_HEAD);
        push_bare_frame(&mut out, entry);
        Box::new(out.into())
    };
    Bytes::clone(entry.forms.bare.get_or_init(make))
}

/// Appends the same, without keeping it.
pub fn push_bare_frame(out: &mut Vec<u8>, entry: &Entry) {
    let payload = entry.payload();
    let opcode = match str::from_utf8(payload) {
        Ok(_) => TEXT,
        Err(_) => BINARY,
    };
    push_frame(out, opcode, payload.len(), |out| out.extend_from_slice(payload));
}

fn make_entry_frame(out: &mut Vec<u8>, entry: &Entry) {
    push_frame(out, TEXT, entry.json_size(), |out| {
        out.push(b'{');
        if entry.notification().is_some() {
            out.extend_from_slice(NOTIFICATION);
        }
        entry.push_members(out);
        out.push(b'}');
    });
}

/// The frame of a notification that is sent again; `attempt` is 2 or more. Not shared.
pub fn entry_frame_again(entry: &Entry, attempt: u32) -> Bytes {
    match entry.notification() {
        Some(_) => notification_frame(&with_attempt(entry.json(), attempt)),
        None => entry_frame(entry),
    }
}

/// Appends the first frame of a session.
pub fn push_hello_frame(out: &mut Vec<u8>, session: &str) {
    push_frame(out, TEXT, 0, |out| {
        out.extend_from_slice(br#"{"type":"hello","session":"#);
        push_string(out, session);
        out.push(b'}');
    });
}

/// Appends the frame with the session's cursor, after each batch. `cursor` appends that, which is base64url.
pub fn push_cursor_frame(out: &mut Vec<u8>, cursor: impl FnOnce(&mut Vec<u8>)) {
    // Mostly it is short.
    push_frame(out, TEXT, 0, |out| {
        out.extend_from_slice(br#"{"type":"cursor","cursor":""#);
        cursor(out);
        out.extend_from_slice(br#""}"#);
    });
}

/// Some of what the client missed is no longer held; `oldest` is the time of the oldest that is.
pub fn gap_frame(oldest: Timestamp) -> Bytes {
    member_frame("gap", "oldest", &oldest.to_string())
}

/// Something the client asked for could not be done, or it lost something.
pub fn error_frame(code: &str) -> Bytes {
    member_frame("error", "code", code)
}

/// These are not sent in this session any more, although the client has not acknowledged them.
pub fn stalled_frame(ids: &[NotificationId]) -> Bytes {
    let mut text = br#"{"type":"error","code":"delivery_stalled","#.to_vec();
    push_ids(&mut text, ids);
    text.push(b'}');
    text_frame(&text)
}

/// The user's state, a JSON object.
pub fn state_frame(state_json: &[u8]) -> Bytes {
    frame(TEXT, &[br#"{"type":"state","state":"#, state_json, b"}"])
}

/// `object` begins with `{` and has members.
fn notification_frame(object: &[u8]) -> Bytes {
    let members = object.get(1..).unwrap_or_default();
    frame(TEXT, &[b"{", NOTIFICATION, members])
}

/// `{"type":<kind>,<name>:<value>}`
fn member_frame(kind: &str, name: &str, value: &str) -> Bytes {
    let mut text = format!(r#"{{"type":"{kind}","{name}":"#).into_bytes();
    push_string(&mut text, value);
    text.push(b'}');
    text_frame(&text)
}

/// A final, unmasked frame; its payload is the parts joined.
fn frame(opcode: u8, parts: &[&[u8]]) -> Bytes {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + head_length(length));
    push_frame(&mut out, opcode, length, |out| {
        parts.iter().for_each(|part| out.extend_from_slice(part));
    });
    out.into()
}

/// Appends a final, unmasked frame. `write` appends its payload, which has about so many bytes: where that is right
/// as far as the frame's head goes, nothing has to be moved afterwards.
fn push_frame(out: &mut Vec<u8>, opcode: u8, about: usize, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let guessed = head_length(about);
    out.extend_from_slice(&[0; MAX_HEAD][..guessed]);
    write(out);
    let length = out.len() - start - guessed;
    let head = head_length(length);
    if head != guessed {
        out.splice(start..start + guessed, std::iter::repeat_n(0, head));
    }
    let (first, rest) = (0x80 | opcode, &mut out[start + 1..start + head]);
    match rest.len() {
        1 => rest[0] = length as u8,
        3 => {
            rest[0] = 126;
            rest[1..].copy_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            rest[0] = 127;
            rest[1..].copy_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out[start] = first;
}

/// The bytes before a payload of this length (RFC 6455, 5.2).
fn head_length(length: usize) -> usize {
    match length {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => MAX_HEAD,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::head::{Parsed, parse};
    use postrider_model::{Audience, EntryKind, FeedId, Notification};
    use postrider_model::{Position, UserId, WithdrawReason};
    use std::sync::Arc;

    pub(crate) fn notification() -> Entry {
        let user = UserId::new("ada").unwrap();
        let notification = Notification::plain(
            NotificationId::new("n-1").unwrap(),
            Timestamp(0),
            Audience::Users(vec![user.clone()]),
            Bytes::from_static("{\"a\":\"ü\"}".as_bytes()),
        );
        let kind = EntryKind::Notification(Arc::new(notification), None);
        Entry {
            feed: FeedId::User(user),
            position: Position::START,
            kind,
            forms: Default::default(),
        }
    }

    fn shake(headers: &str) -> Result<Handshake, Problem> {
        let text = format!("GET /v1/inbox/ws HTTP/1.1\r\nhost: h\r\n{headers}\r\n");
        match parse(text.as_bytes()) {
            Parsed::Complete(head, _) => handshake(&head),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_handshake_of_the_rfc() {
        let base = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let expected = Handshake {
            accept: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into(),
            subprotocol: false,
        };
        assert_eq!(shake(base).unwrap(), expected);
        let offered = format!("{base}Sec-WebSocket-Protocol: chat, postrider.v1\r\n");
        assert!(shake(&offered).unwrap().subprotocol);
        for (from, to, status) in [
            ("Version: 13", "Version: 8", 426),
            ("Upgrade: websocket\r\n", "", 426),
            ("Connection: Upgrade", "Connection: close", 426),
            ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "not base64", 400),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ] {
            assert_eq!(
                shake(&base.replace(from, to)).unwrap_err().status,
                status,
                "{from} -> {to}"
            );
        }
    }

    #[test]
    fn lengths_are_written_in_the_fewest_bytes() {
        for (length, head) in [
            (0, &[0x81u8, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xFF, 0xFF]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = text_frame(&vec![b'x'; length]);
            assert_eq!((&frame[..head.len()], frame.len()), (head, head.len() + length));
        }
    }

    #[test]
    fn a_frame_whose_length_was_guessed_wrong_is_the_same() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            for about in [0, 126, 65_536] {
                let mut out = b"before".to_vec();
                push_frame(&mut out, TEXT, about, |out| out.extend_from_slice(&payload));
                assert_eq!(out, [b"before", &text_frame(&payload)[..]].concat());
            }
        }
    }

    #[test]
    fn what_is_appended_for_one_session_is_what_all_would_share() {
        for length in [1, 40, 60, 65_400, 65_500] {
            let mut entry = notification();
            if let EntryKind::Notification(notification, _) = &mut entry.kind {
                Arc::make_mut(notification).data = vec![b'1'; length].into();
            }
            let (mut frame, mut block) = (b"before".to_vec(), b"before".to_vec());
            push_entry_frame(&mut frame, &entry);
            crate::sse::push_entry_block(&mut block, &entry);
            assert!(entry.forms.websocket.get().is_none() && entry.forms.sse.get().is_none());
            assert_eq!(frame[6..], entry_frame(&entry)[..]);
            assert_eq!(block[6..], crate::sse::entry_block(&entry)[..]);
            assert_eq!(frame[6..], notification_frame(entry.json())[..]);
            push_entry_frame(&mut frame, &entry);
            assert_eq!(frame.len(), 6 + 2 * entry_frame(&entry).len());
        }
    }

    #[test]
    fn control_frames() {
        assert_eq!(ping(b"7"), &[0x89, 1, b'7'][..]);
        assert_eq!(pong(&[1; 200]).len(), 127);
        assert_eq!(close(4000, "{}"), &[0x88, 4, 0x0F, 0xA0, b'{', b'}'][..]);
        // 61 two-byte characters are 122 bytes; the 62nd would be cut in two.
        assert_eq!(close(1000, &"ü".repeat(100)).len(), 2 + 2 + 122);
        assert_eq!(close_reply(None), &[0x88, 0][..]);
        assert_eq!(close_reply(Some(1001)), &[0x88, 2, 0x03, 0xE9][..]);
    }

    #[test]
    fn frames_of_the_interface() {
        let text = |frame: Bytes| String::from_utf8(frame[2..].to_vec()).unwrap();
        let entry = notification();
        let members = r#""id":"n-1","time":"1970-01-01T00:00:00.000Z","data":{"a":"ü"}"#;
        assert_eq!(
            text(entry_frame(&entry)),
            format!(r#"{{"type":"notification",{members}}}"#)
        );
        assert_eq!(entry_frame(&entry).as_ptr(), entry_frame(&entry).as_ptr());
        assert_eq!(
            text(entry_frame_again(&entry, 2)),
            format!(r#"{{"type":"notification",{members},"attempt":2}}"#)
        );
        let mut hello = Vec::new();
        push_hello_frame(&mut hello, "s\"1");
        assert_eq!(text(hello.into()), r#"{"type":"hello","session":"s\"1"}"#);
        for cursor in ["AQA", &"A".repeat(125)] {
            let mut out = b"before".to_vec();
            push_cursor_frame(&mut out, |out| out.extend_from_slice(cursor.as_bytes()));
            let frame = member_frame("cursor", "cursor", cursor);
            assert_eq!(out, [b"before", &frame[..]].concat());
        }
        let mut out = Vec::new();
        push_ping(&mut out, 7);
        assert_eq!(out, ping(&7u64.to_be_bytes()));
        assert_eq!(
            text(gap_frame(Timestamp(0))),
            r#"{"type":"gap","oldest":"1970-01-01T00:00:00.000Z"}"#
        );
        assert_eq!(
            text(error_frame("transient_dropped")),
            r#"{"type":"error","code":"transient_dropped"}"#
        );
        assert_eq!(
            text(stalled_frame(&[NotificationId::new("n-1").unwrap()])),
            r#"{"type":"error","code":"delivery_stalled","ids":["n-1"]}"#
        );
        assert_eq!(
            text(state_frame(b"{\"a\":\"1\"}")),
            r#"{"type":"state","state":{"a":"1"}}"#
        );
    }

    #[test]
    fn marks_say_their_type() {
        let id = NotificationId::new("a").unwrap();
        let kind = EntryKind::Withdrawn {
            id,
            target: 1,
            reason: WithdrawReason::Taken,
            origin: None,
        };
        let entry = Entry {
            kind,
            forms: Default::default(),
            ..notification()
        };
        assert_eq!(
            &entry_frame(&entry)[2..],
            br#"{"type":"withdrawn","id":"a","reason":"taken"}"#
        );
    }
}
