//! What has to hold of this crate's parsers for any bytes: one function per fuzz target, which panics where it
//! does not. The targets under `fuzz/` feed them for hours, the tests with the inputs that are kept.
//!
//! No part of the interface: it is there for tests and under the feature `fuzzing`.

mod frames;
mod head;
mod plain;
mod request;

pub use frames::websocket;
pub use head::http_head;
pub use request::inbox_request;

use crate::client_frame::{ClientFrame, Said};
use postrider_model::{NotificationId, SettleKind, UserId};
use serde_json::{Value, json};

/// Ids that one frame may name.
const MAX_IDS: usize = 1000;

/// A client's text message over a WebSocket: what is understood is an object of a known type, and means the same
/// when it is written anew.
pub fn client_frame(data: &[u8]) {
    let (Ok(text), Ok(user)) = (str::from_utf8(data), UserId::new("ada")) else {
        return;
    };
    let Ok(frame) = ClientFrame::parse(text, &user) else {
        return;
    };
    let value: Value = serde_json::from_str(text).expect("a frame is JSON");
    let kind = value["type"].as_str().expect("a frame is an object with a type");
    assert!(matches!(kind, "ack" | "read" | "token"), "{kind}");
    if let Some(again) = written(&frame, &user) {
        assert_eq!(ClientFrame::parse(&again, &user).as_ref(), Ok(&frame), "{again}");
    }
}

/// A frame as a client would write it; `None` where there is no one way to.
fn written(frame: &ClientFrame, user: &UserId) -> Option<String> {
    let (kind, target, reference) = match frame {
        ClientFrame::Token(token) => return Some(json!({"type": "token", "token": token}).to_string()),
        ClientFrame::BadCursor => return None,
        ClientFrame::Settle {
            kind,
            target,
            reference,
        } => (kind, target, reference),
    };
    let kind = match kind {
        SettleKind::Delivered => "ack",
        SettleKind::Read => "read",
    };
    let mut value = json!({"type": kind, "ref": reference});
    match target {
        Said::Ids(ids) => {
            assert!(ids.len() <= MAX_IDS);
            value["ids"] = ids.iter().map(NotificationId::as_str).collect();
        }
        Said::Through(cursor) => value["cursor"] = cursor.encode(user).into(),
    }
    Some(value.to_string())
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::corpus;

    #[test]
    fn the_kept_inputs_hold() {
        corpus("websocket", super::websocket);
        corpus("client_frame", super::client_frame);
        corpus("http_head", super::http_head);
        corpus("inbox_request", super::inbox_request);
    }
}
