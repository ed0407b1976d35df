//! What may be around a message: a topic of Amazon SNS puts what it publishes into a JSON envelope, unless a subscription
//! asks for raw delivery.
//!
//! Invariant: total and pure; what is no envelope is a fault.

use super::Message;
use postrider_router::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is around the message that is decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Envelope {
    /// Nothing.
    #[default]
    None,
    /// The envelope of SNS: what is decoded is its `Message`, with its `MessageAttributes` as fields and, where none is
    /// called so, its `Subject` as the field `subject`.
    Sns,
}

/// What Postrider reads of an envelope.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfSns {
    message: String,
    subject: Option<String>,
    #[serde(default)]
    message_attributes: BTreeMap<String, Attribute>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    value: String,
}

/// The message in an envelope of SNS. Its name and count stay those of what came.
///
/// # Errors
/// It is in none.
pub fn opened(message: &Message) -> Result<Message, Fault> {
    let body = message.body.as_deref().unwrap_or_default();
    let of_sns: OfSns = serde_json::from_slice(body)
        .map_err(|error| Fault::invalid("/Message", format!("this is no envelope of SNS: {error}")))?;
    let attributes = of_sns.message_attributes.into_iter();
    let mut fields: Vec<_> = attributes.map(|(name, one)| (name, one.value.into())).collect();
    let has_subject = fields.iter().any(|(name, _)| name == "subject");
    if let Some(subject) = of_sns.subject.filter(|_| !has_subject) {
        fields.push(("subject".into(), subject.into()));
    }
    Ok(Message {
        body: Some(of_sns.message.into()),
        fields,
        name: message.name.clone(),
        feed: message.feed.clone(),
        deliveries: message.deliveries,
        was_elsewhere: message.was_elsewhere,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(text: &str) -> Message {
        Message {
            name: Some("m".into()),
            body: Some(text.to_owned().into()),
            deliveries: 2,
            ..Message::default()
        }
    }

    #[test]
    fn the_message_with_its_attributes() {
        let text = r#"{"Type":"Notification","MessageId":"7","Message":"{\"users\":[]}","Subject":"s","Timestamp":"t",
            "MessageAttributes":{"addressee":{"Type":"String","Value":"ada"}}}"#;
        let opened = opened(&came(text)).unwrap();
        assert_eq!(opened.body.as_deref(), Some(&br#"{"users":[]}"#[..]));
        assert_eq!(opened.field("addressee").unwrap(), "ada");
        assert_eq!(opened.field("subject").unwrap(), "s");
        assert_eq!((opened.name.as_deref(), opened.deliveries), (Some("m"), 2));
    }

    #[test]
    fn what_is_none() {
        for text in ["", "hello", "{}", r#"{"Message":{"a":1}}"#, "[]", "\u{0}"] {
            assert!(opened(&came(text)).is_err(), "{text}");
        }
        assert!(opened(&Message::default()).is_err());
    }
}
