//! One message as its source had it.

use bytes::Bytes;
use postrider_model::FeedId;

/// What a source gave: bytes, and what stands beside them. Nothing is judged yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Names it within its source, the same whenever it comes again: of this a notification's id is made where the
    /// message says none. `None` where the source has no such name.
    pub name: Option<String>,
    /// The feed that its channel is for, where the channel's name says it.
    pub feed: Option<FeedId>,
    /// The payload, where the source has one apart from fields.
    pub body: Option<Bytes>,
    /// Fields or attributes, in the order of the source.
    pub fields: Vec<(String, Bytes)>,
    /// How often it was given out, this time included: from 1.
    pub deliveries: u32,
    /// Whoever had it last is known to be none of Postrider's: what became of it there says nothing of what it does here.
    pub was_elsewhere: bool,
}

impl Message {
    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<&Bytes> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value)
    }

    /// The bytes that a dead letter keeps of it: the payload, or all fields, each as `name`, a line break, the value
    /// and a line break.
    pub fn raw(&self) -> Bytes {
        if let Some(body) = &self.body {
            return body.clone();
        }
        let mut raw = Vec::new();
        for (name, value) in &self.fields {
            raw.extend_from_slice(name.as_bytes());
            raw.push(b'\n');
            raw.extend_from_slice(value);
            raw.push(b'\n');
        }
        raw.into()
    }
}
