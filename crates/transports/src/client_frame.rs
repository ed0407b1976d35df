//! What a client says over a WebSocket, decoded. Anything else ends the session with `protocol`.

use postrider_model::{Cursor, NotificationId, SettleKind, UserId};
use serde::Deserialize;

/// Ids in one frame.
const MAX_IDS: usize = 1000;

/// A frame from the client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientFrame {
    /// `ack` or `read`. With `reference`, the client wants to be told once it is durable.
    Settle {
        kind: SettleKind,
        target: Said,
        reference: Option<u64>,
    },
    /// A new token for the same user.
    Token(String),
    /// An `ack` or `read` through a cursor that is damaged, or another user's.
    BadCursor,
}

/// What an ack or read speaks of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Ids(Vec<NotificationId>),
    Through(Cursor),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Raw {
    Ack(RawSettle),
    Read(RawSettle),
    Token { token: String },
}

#[derive(Deserialize)]
struct RawSettle {
    ids: Option<Vec<String>>,
    cursor: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<u64>,
}

impl ClientFrame {
    /// Decodes a text message. The error is for the close reason's log, not for the client's eyes.
    pub fn parse(text: &str, user: &UserId) -> Result<ClientFrame, &'static str> {
        // A tagged enum would be read from an array as well.
        if !text.trim_start().starts_with('{') {
            return Err("not a JSON object");
        }
        let raw: Raw = serde_json::from_str(text).map_err(|_| "not a frame of this protocol")?;
        let (kind, raw) = match raw {
            Raw::Token { token } => return Ok(ClientFrame::Token(token)),
            Raw::Ack(raw) => (SettleKind::Delivered, raw),
            Raw::Read(raw) => (SettleKind::Read, raw),
        };
        let target = match (raw.ids, raw.cursor) {
            // What is no id is no notification's either: unknown ids are no error.
            (Some(ids), None) if ids.len() <= MAX_IDS => {
                Said::Ids(ids.iter().filter_map(|id| NotificationId::new(id).ok()).collect())
            }
            (Some(_), None) => return Err("more than 1000 ids in one frame"),
            (None, Some(cursor)) => match Cursor::decode(&cursor, user) {
                Ok(cursor) => Said::Through(cursor),
                Err(_) => return Ok(ClientFrame::BadCursor),
            },
            _ => return Err("needs either ids or cursor"),
        };
        Ok(ClientFrame::Settle {
            kind,
            target,
            reference: raw.reference,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let user = UserId::new("ada").unwrap();
        let parse = |text: &str| ClientFrame::parse(text, &user);
        let ids = Said::Ids(vec![NotificationId::new("a").unwrap()]);
        assert_eq!(
            parse(r#"{"type":"ack","ids":["a"],"ref":7}"#),
            Ok(ClientFrame::Settle {
                kind: SettleKind::Delivered,
                target: ids,
                reference: Some(7)
            })
        );
        assert_eq!(
            parse(r#"{"type":"token","token":"x"}"#),
            Ok(ClientFrame::Token("x".into()))
        );
        let cursor = Cursor::default().encode(&user);
        assert!(parse(&format!(r#"{{"type":"read","cursor":"{cursor}"}}"#)).is_ok());
        assert_eq!(
            parse(r#"{"type":"ack","cursor":"zzz"}"#),
            Ok(ClientFrame::BadCursor)
        );
        assert!(parse(r#"{"type":"ack","ids":["no spaces"]}"#).is_ok());
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"type":"shout"}"#,
            r#"{"type":"ack"}"#,
            r#"["ack",["a"]]"#,
            r#" ["ack",{"ids":["a"]}]"#,
            r#"{"type":"ack","ids":["a"],"cursor":"x"}"#,
            r#"{"type":"ack","ids":"a"}"#,
            r#"{"type":"token"}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
