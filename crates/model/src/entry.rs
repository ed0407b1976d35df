//! An entry: a notification, or a mark about one, at a position of a feed. Its encoded forms hold nothing
//! of a session, so all sessions share the same bytes.

use crate::{
    Audience, Durability, FeedId, Notification, NotificationId, Position, SessionId, Timestamp,
    WithdrawReason, json,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::sync::{Arc, OnceLock};

/// What stands at a position of a feed.
#[derive(Debug, Clone)]
pub enum EntryKind {
    /// A notification, with the reason where it has been withdrawn for everyone in this feed.
    Notification(Arc<Notification>, Option<WithdrawReason>),
    /// The user has read these (on some device).
    Read {
        /// What was read.
        ids: Vec<NotificationId>,
        /// The session that said so, which need not be told.
        origin: Option<SessionId>,
    },
    /// Sessions that show this one should take it off.
    Withdrawn {
        /// What was withdrawn.
        id: NotificationId,
        /// Where it stands in this feed.
        target: u64,
        /// Why.
        reason: WithdrawReason,
        /// The session that took it, which keeps it on its screen.
        origin: Option<SessionId>,
    },
}

/// One entry of a feed.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The feed it stands in.
    pub feed: FeedId,
    /// Where; offset 0 for a transient notification, which has no place.
    pub position: Position,
    /// What.
    pub kind: EntryKind,
    /// Its encoded forms, made at first use.
    pub forms: Arc<Forms>,
}

/// Encoded forms of an entry, one per transport; each is made once, by the transport that first needs it.
#[derive(Debug, Default)]
pub struct Forms {
    /// The bare JSON object.
    pub json: OnceLock<Bytes>,
    /// A complete SSE block.
    pub sse: OnceLock<Bytes>,
    /// A complete WebSocket text frame.
    pub websocket: OnceLock<Bytes>,
    /// A complete WebSocket frame of nothing but the data. Boxed, as few entries ever have one.
    pub bare: OnceLock<Box<Bytes>>,
    /// The data as its publisher wrote it, where that was no JSON document; see [`Entry::raw`].
    pub raw: Option<Box<Bytes>>,
}

impl Entry {
    /// A transient notification from a publisher that knows nothing of JSON: `payload` is any bytes. Its `data` is the
    /// payload where that is a JSON document (on one line), else the payload as a JSON string, else, where it is not
    /// even UTF-8, `{"base64":"…"}`. The payload itself goes along, for a wire that carries it as it is.
    pub fn raw(
        feed: FeedId,
        id: NotificationId,
        time: Timestamp,
        payload: Bytes,
        publisher: impl Into<String>,
    ) -> Entry {
        let audience = match &feed {
            FeedId::User(user) => Audience::Users(vec![user.clone()]),
            FeedId::Topic(topic) => Audience::Topics(vec![topic.clone()]),
            FeedId::All => Audience::Everyone,
        };
        let notification = Notification {
            durability: Durability::Transient,
            publisher: publisher.into(),
            ..Notification::plain(id, time, audience, data_of(&payload))
        };
        let forms = Forms {
            raw: Some(Box::new(payload)),
            ..Forms::default()
        };
        Entry {
            feed,
            position: Position::START,
            kind: EntryKind::Notification(Arc::new(notification), None),
            forms: Arc::new(forms),
        }
    }

    /// The data as its publisher wrote it; nothing for a mark.
    pub fn payload(&self) -> &[u8] {
        match (&self.forms.raw, self.notification()) {
            (Some(raw), _) => raw,
            (None, Some(notification)) => &notification.data,
            (None, None) => &[],
        }
    }

    /// The notification, where this entry is one.
    pub fn notification(&self) -> Option<&Arc<Notification>> {
        match &self.kind {
            EntryKind::Notification(notification, _) => Some(notification),
            _ => None,
        }
    }

    /// The entry as the interface shows it: a notification's object without a type, a mark's with one.
    pub fn json(&self) -> &Bytes {
        self.forms.json.get_or_init(|| {
            let mut out = Vec::with_capacity(self.json_size());
            out.push(b'{');
            self.push_members(&mut out);
            out.push(b'}');
            out.into()
        })
    }

    /// About how many bytes its object has.
    pub fn json_size(&self) -> usize {
        self.notification().map_or(128, |notification| {
            // Braces, names, a time and mostly a time to live; the parts, where nothing of them is escaped.
            112 + notification.id.as_str().len()
                + notification.data.len()
                + notification.subject.as_ref().map_or(0, String::len)
        })
    }

    /// Appends what stands between the braces of its object: for those who put it into something larger, which is
    /// kept instead of it.
    pub fn push_members(&self, out: &mut Vec<u8>) {
        match &self.kind {
            EntryKind::Notification(notification, _) => push_notification(out, notification, &self.feed),
            EntryKind::Read { ids, .. } => {
                out.extend_from_slice(br#""type":"read","ids":["#);
                for (i, id) in ids.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    json::push_string(out, id.as_str());
                }
                out.push(b']');
            }
            EntryKind::Withdrawn { id, reason, .. } => {
                out.extend_from_slice(br#""type":"withdrawn","id":"#);
                json::push_string(out, id.as_str());
                out.extend_from_slice(br#","reason":""#);
                out.extend_from_slice(reason.as_str().as_bytes());
                out.push(b'"');
            }
        }
    }

    /// Whether everyone who hears the feed is shown this, as long as it has not expired: a notification that was not
    /// withdrawn, with nobody excluded and no other feed that could show it instead.
    pub fn is_for_everyone(&self) -> bool {
        let EntryKind::Notification(notification, None) = &self.kind else {
            return false;
        };
        notification.exclude.is_empty() && !self.is_for_several()
    }

    /// Whether it is a notification for several topics.
    pub fn is_for_several(&self) -> bool {
        let audience = self.notification().map(|notification| &notification.audience);
        matches!(audience, Some(Audience::Topics(topics)) if topics.len() > 1)
    }

    /// Whether this user's inbox shows the entry here. An id that stands in several of the inbox's feeds is
    /// shown in one only: the first of its audience that the inbox holds. `holds` says which it does.
    pub fn is_for(&self, user: &crate::UserId, holds: impl Fn(&FeedId) -> bool) -> bool {
        let Some(notification) = self.notification() else {
            return true;
        };
        if notification.excludes(user) {
            return false;
        }
        match (&notification.audience, &self.feed) {
            (Audience::Topics(topics), FeedId::Topic(_)) if topics.len() > 1 => {
                let first = topics
                    .iter()
                    .map(|topic| FeedId::Topic(topic.clone()))
                    .find(|feed| holds(feed));
                first.is_none_or(|first| first == self.feed)
            }
            _ => true,
        }
    }
}

/// More deeply nested documents travel as text: whoever parses them should not have to.
const DEPTH: usize = 64;

/// Any bytes as a JSON document: what [`Entry::raw`] makes its `data` of.
pub fn data_of(payload: &[u8]) -> Bytes {
    let Ok(text) = str::from_utf8(payload) else {
        return format!(r#"{{"base64":"{}"}}"#, STANDARD.encode(payload)).into();
    };
    if json::nests_within(payload, DEPTH) && serde_json::from_str::<&RawValue>(text).is_ok() {
        return json::compact(text);
    }
    let mut out = Vec::with_capacity(text.len() + 2);
    json::push_string(&mut out, text);
    out.into()
}

/// Appends the members of an entry's object.
fn push_notification(out: &mut Vec<u8>, notification: &Notification, feed: &FeedId) {
    out.extend_from_slice(br#""id":"#);
    json::push_string(out, notification.id.as_str());
    out.extend_from_slice(br#","time":""#);
    out.extend_from_slice(&notification.time.rfc3339());
    out.push(b'"');
    if let Some(subject) = &notification.subject {
        out.extend_from_slice(br#","subject":"#);
        json::push_string(out, subject);
    }
    if let FeedId::Topic(topic) = feed {
        out.extend_from_slice(br#","topic":"#);
        json::push_string(out, topic.as_str());
    }
    if let Some(at) = notification.expires_at {
        out.extend_from_slice(br#","expires_at":""#);
        out.extend_from_slice(&at.rfc3339());
        out.push(b'"');
    }
    out.extend_from_slice(br#","data":"#);
    out.extend_from_slice(&notification.data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Devices, Durability, Timestamp, Topic, UserId};

    fn notification(audience: Audience) -> Arc<Notification> {
        Arc::new(Notification {
            id: NotificationId::new("n-1").unwrap(),
            time: Timestamp(0),
            subject: Some("Hi \"you\"".into()),
            data: Bytes::from_static(b"{\"a\":1.0}"),
            audience,
            exclude: vec![UserId::new("eve").unwrap()],
            durability: Durability::Stored,
            expires_at: Some(Timestamp(1000)),
            deliver_at: None,
            collapse_key: None,
            policy: None,
            devices: Devices::All,
            publisher: "test".into(),
        })
    }

    fn entry(feed: FeedId, notification: Arc<Notification>) -> Entry {
        let kind = EntryKind::Notification(notification, None);
        Entry {
            feed,
            position: Position::START,
            kind,
            forms: Arc::default(),
        }
    }

    #[test]
    fn an_entry_is_one_json_object() {
        let topic = FeedId::Topic(Topic::new("t").unwrap());
        let audience = Audience::Topics(vec![Topic::new("t").unwrap()]);
        assert_eq!(
            entry(topic, notification(audience)).json(),
            r#"{"id":"n-1","time":"1970-01-01T00:00:00.000Z","subject":"Hi \"you\"","topic":"t","expires_at":"1970-01-01T00:00:01.000Z","data":{"a":1.0}}"#
        );
    }

    #[test]
    fn any_bytes_are_data_and_come_back_as_they_were() {
        let deep = "[".repeat(65) + &"]".repeat(65);
        for (payload, data) in [
            (&b" {\"a\" : \"x y\"}\n"[..], r#"{"a":"x y"}"#),
            (b"hello \"you\"", r#""hello \"you\"""#),
            (b"\"quoted\"", r#""quoted""#),
            (b"12 13", r#""12 13""#),
            (b"", r#""""#),
            (b"\xff\x00", r#"{"base64":"/wA="}"#),
            (deep.as_bytes(), &format!("\"{deep}\"")),
        ] {
            let feed = FeedId::User(UserId::new("ada").unwrap());
            let id = NotificationId::new("n").unwrap();
            let entry = Entry::raw(feed, id, Timestamp(0), Bytes::copy_from_slice(payload), "test");
            let notification = entry.notification().unwrap();
            assert_eq!(
                (&notification.data[..], entry.payload()),
                (data.as_bytes(), payload)
            );
            assert_eq!(notification.durability, Durability::Transient);
        }
        let topic = FeedId::Topic(Topic::new("t").unwrap());
        let stored = entry(topic, notification(Audience::Everyone));
        assert_eq!(stored.payload(), b"{\"a\":1.0}");
    }

    #[test]
    fn one_id_in_two_feeds_is_shown_in_the_first_that_the_inbox_holds() {
        let [a, b] = ["a", "b"].map(|name| Topic::new(name).unwrap());
        let notification = notification(Audience::Topics(vec![a.clone(), b.clone()]));
        let [in_a, in_b] = [a, b].map(|topic| entry(FeedId::Topic(topic), notification.clone()));
        let user = UserId::new("ada").unwrap();
        assert!(in_a.is_for(&user, |_| true));
        assert!(!in_b.is_for(&user, |_| true));
        assert!(in_b.is_for(&user, |feed| *feed == in_b.feed));
        assert!(!in_a.is_for(&UserId::new("eve").unwrap(), |_| true));
    }
}
