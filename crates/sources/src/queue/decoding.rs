//! From a message to a draft: by the decoder that the operator chose, and for whom the operator said.
//!
//! Invariant: total and pure: any message gives a draft or a fault, and the same message gives the same. It checks form;
//! intake checks the rules.

use super::envelope::{self, Envelope};
use super::exact::exact;
use super::fields;
use super::message::Message;
use crate::fields::as_text;
use crate::http::{self, Most};
use crate::pusher;
use bytes::Bytes;
use postrider_model::{FeedId, data_of};
use postrider_router::{Draft, Fault, FaultCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The field that holds the payload, where none is named.
const DATA_FIELD: &str = "data";
/// The field that holds the notification's id.
const ID_FIELD: &str = "id";
/// The field that holds the notification's line for people.
const SUBJECT_FIELD: &str = "subject";
/// The field that says which earlier notification of the user a new one takes the place of.
const COLLAPSE_FIELD: &str = "collapse_key";
/// The field that names the user, where none is named.
const ADDRESSEE_FIELD: &str = "addressee";

/// How a payload becomes a notification.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decoder {
    /// The payload is `data`, whatever it is: JSON stays JSON, other text becomes a JSON string, other bytes
    /// `{"base64":"…"}`. It does not say for whom it is.
    #[default]
    Raw,
    /// The payload is the JSON of `POST /v1/notifications`, one object; unknown fields are passed over. It says itself
    /// for whom it is.
    Notification,
    /// The payload is JSON with `users`, `exclude_users` and `data`; without users it is for everyone, which
    /// `broadcast` has to allow. Unknown fields are passed over.
    Pusher,
    /// The payload is `data`; the fields `addressee` (the user) and `subject` have to be there, `id` and `collapse_key`
    /// may be.
    Addressee,
}

impl Decoder {
    /// Whether what it makes says for whom it is.
    pub fn names_audience(self) -> bool {
        self != Decoder::Raw
    }
}

/// For whom the messages of a source are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Direction {
    /// For whom the decoder says.
    #[default]
    Decoded,
    /// For those who hear this topic.
    Topic(String),
    /// For the user whom this field names.
    UserField(String),
    /// For those who hear the topic that this field names.
    TopicField(String),
    /// For the feed that the message's channel says.
    Channel,
}

/// How the messages of one source are read.
#[derive(Debug, Clone)]
pub struct Decoding {
    /// The decoder.
    pub decoder: Decoder,
    /// For whom.
    pub direction: Direction,
    /// The field that holds the payload, of a message of fields. Where there is none, `raw` and `addressee` take the
    /// field `data`, or all other fields as a JSON object; to the others the fields are the notification's.
    pub body_field: Option<String>,
    /// What is around the message that is decoded.
    pub envelope: Envelope,
    /// The payload of `raw` and `addressee` keeps every byte: JSON that is written without spaces around it stays
    /// JSON as it is written, and all else becomes a JSON string of the text.
    pub is_exact: bool,
    /// How much of it is read.
    pub most: Most,
}

impl Decoding {
    /// The draft of a message.
    ///
    /// # Errors
    /// What no notification can be made of, with the reason.
    pub fn decode(&self, message: &Message) -> Result<Draft, Fault> {
        match self.envelope {
            Envelope::None => self.bared(message),
            Envelope::Sns => self.bared(&envelope::opened(message)?),
        }
    }

    /// The draft of a message without an envelope.
    fn bared(&self, message: &Message) -> Result<Draft, Fault> {
        let mut draft = match self.decoder {
            Decoder::Notification => http::decode_lenient(&self.whole(message)?, &self.most)?,
            Decoder::Pusher => pusher::decode(&self.whole(message)?, &self.most)?,
            Decoder::Raw => self.bare(message)?,
            Decoder::Addressee => self.addressed(message)?,
        };
        if draft.id.is_none() {
            draft.id = match self.decoder {
                // Here it is no notification's id but a part of its key, which bytes that are no text have none of.
                Decoder::Addressee => field_text(message, ID_FIELD).unwrap_or_default(),
                _ => field_text(message, ID_FIELD)?,
            };
        }
        self.direct(message, &mut draft)?;
        Ok(draft)
    }

    /// What names a message's notification within its source, where its draft has no id of its own: the message's name.
    ///
    /// With [`Decoder::Addressee`] a producer's `id` may be any text, and the same for many users: there it is taken from
    /// the draft, and the key is the user and that `id`, where there is one.
    pub fn key(&self, message: &Message, draft: &mut Draft) -> Option<String> {
        let id = match self.decoder {
            Decoder::Addressee => draft.id.take().filter(|id| !id.is_empty()),
            Decoder::Raw | Decoder::Notification | Decoder::Pusher => None,
        };
        let Some(id) = id else {
            return message.name.clone();
        };
        let whom = draft.users.as_ref().or(draft.topics.as_ref());
        let whom = whom.and_then(|names| names.first()).map_or("", String::as_str);
        // No name of a user, a topic or a message holds the byte between them.
        Some(format!("{whom}\0{id}"))
    }

    /// The JSON of a whole notification.
    fn whole(&self, message: &Message) -> Result<Bytes, Fault> {
        match self.body(message)? {
            Some(body) => Ok(body),
            None => Ok(fields::as_notification(message)?.into()),
        }
    }

    /// The payload as `data`.
    fn bare(&self, message: &Message) -> Result<Draft, Fault> {
        let payload = match self.body(message)?.or_else(|| message.field(DATA_FIELD).cloned()) {
            Some(payload) => payload,
            None => fields::as_texts(message, &self.other_fields())?.into(),
        };
        Ok(Draft {
            data: match self.is_exact {
                true => exact(&payload),
                false => data_of(&payload),
            },
            subject: field_text(message, SUBJECT_FIELD)?,
            ..Draft::default()
        })
    }

    /// Fields that are not part of the payload.
    fn other_fields(&self) -> Vec<&str> {
        let mut known = vec![ID_FIELD, SUBJECT_FIELD];
        match &self.direction {
            Direction::UserField(field) | Direction::TopicField(field) => known.push(field),
            _ if self.decoder == Decoder::Addressee => known.push(ADDRESSEE_FIELD),
            _ => {}
        }
        if self.decoder == Decoder::Addressee {
            known.push(COLLAPSE_FIELD);
        }
        known
    }

    fn addressed(&self, message: &Message) -> Result<Draft, Fault> {
        let mut draft = self.bare(message)?;
        if draft.subject.as_deref().is_none_or(str::is_empty) {
            return Err(missing(SUBJECT_FIELD));
        }
        if message.body.as_ref().is_some_and(Bytes::is_empty) {
            return Err(Fault::new(FaultCode::InvalidNotification, "the message is empty"));
        }
        if self.direction == Direction::Decoded {
            draft.users = Some(vec![required(message, ADDRESSEE_FIELD)?]);
        }
        draft.collapse_key = field_text(message, COLLAPSE_FIELD)?;
        Ok(draft)
    }

    /// The payload, where it stands apart: in the field that is named for it, or beside the fields.
    fn body(&self, message: &Message) -> Result<Option<Bytes>, Fault> {
        match &self.body_field {
            None => Ok(message.body.clone()),
            Some(field) => message
                .field(field)
                .cloned()
                .map(Some)
                .ok_or_else(|| missing(field)),
        }
    }

    fn direct(&self, message: &Message, draft: &mut Draft) -> Result<(), Fault> {
        let (users, topics) = match &self.direction {
            Direction::Decoded => return Ok(()),
            Direction::Topic(topic) => (None, Some(vec![topic.clone()])),
            Direction::UserField(field) => (Some(vec![required(message, field)?]), None),
            Direction::TopicField(field) => (None, Some(vec![required(message, field)?])),
            Direction::Channel => match &message.feed {
                Some(FeedId::User(user)) => (Some(vec![user.as_str().to_owned()]), None),
                Some(FeedId::Topic(topic)) => (None, Some(vec![topic.as_str().to_owned()])),
                Some(FeedId::All) => (None, None),
                None => {
                    let what = "the channel's name says no user and no topic";
                    return Err(Fault::new(FaultCode::InvalidNotification, what));
                }
            },
        };
        (draft.users, draft.topics) = (users, topics);
        Ok(())
    }
}

fn missing(field: &str) -> Fault {
    Fault::invalid(
        crate::fields::pointer(field),
        format!("the message has no field `{field}`"),
    )
}

fn required(message: &Message, field: &str) -> Result<String, Fault> {
    field_text(message, field)?.ok_or_else(|| missing(field))
}

fn field_text(message: &Message, field: &str) -> Result<Option<String>, Fault> {
    let found = message
        .field(field)
        .map(|value| as_text(value).map(str::to_owned));
    found.transpose()
}

#[cfg(test)]
#[path = "decoding_tests.rs"]
mod tests;
