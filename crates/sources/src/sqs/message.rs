//! A message as SQS gives it.

use crate::queue::Message;
use bytes::Bytes;
use of_sqs::MessageSystemAttributeName as System;
use postrider_aws::sqs::types as of_sqs;

/// One that came, and by what it is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Incoming {
    pub message: Message,
    /// What it is settled by; another each time it is given out.
    pub handle: String,
    /// Its group, in a FIFO queue.
    pub group: Option<String>,
}

/// Its parts. `None` for one that could not be settled: SQS gives none such.
pub(super) fn incoming(message: of_sqs::Message) -> Option<Incoming> {
    let system = message.attributes.unwrap_or_default();
    let count = system.get(&System::ApproximateReceiveCount);
    let mut fields: Vec<(String, Bytes)> = message
        .message_attributes
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(name, value)| {
            let text = value.string_value.map(Bytes::from);
            let value = text.or_else(|| value.binary_value.map(|blob| blob.into_inner().into()))?;
            Some((name, value))
        })
        .collect();
    // SQS has them in no order; the same message is the same each time.
    fields.sort_unstable();
    Some(Incoming {
        message: Message {
            name: message.message_id,
            feed: None,
            body: Some(message.body.unwrap_or_default().into()),
            fields,
            deliveries: count.and_then(|text| text.parse().ok()).unwrap_or(1),
            // SQS tells nobody who had it.
            was_elsewhere: false,
        },
        handle: message.receipt_handle?,
        group: system.get(&System::MessageGroupId).cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use of_sqs::MessageAttributeValue;

    #[test]
    fn attributes_are_fields_and_the_count_is_kept() {
        let text = |text: &str| {
            let value = MessageAttributeValue::builder()
                .data_type("String")
                .string_value(text);
            value.build().unwrap()
        };
        let bytes = MessageAttributeValue::builder()
            .data_type("Binary")
            .binary_value(postrider_aws::sqs::primitives::Blob::new(b"\xff"));
        let given = of_sqs::Message::builder()
            .message_id("m")
            .receipt_handle("h")
            .body("{ \"a\": 1 }")
            .attributes(System::ApproximateReceiveCount, "3")
            .attributes(System::MessageGroupId, "g")
            .message_attributes("subject", text("s"))
            .message_attributes("addressee", text("ada"))
            .message_attributes("blob", bytes.build().unwrap());
        let came = incoming(given.clone().build()).unwrap();
        assert_eq!((came.handle.as_str(), came.group.as_deref()), ("h", Some("g")));
        let message = came.message;
        assert_eq!((message.name.as_deref(), message.deliveries), (Some("m"), 3));
        assert_eq!(message.body.as_deref(), Some(&b"{ \"a\": 1 }"[..]));
        let names: Vec<_> = message.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["addressee", "blob", "subject"]);
        assert_eq!(message.field("blob").unwrap(), &b"\xff"[..]);
        assert!(incoming(of_sqs::Message::builder().body("x").build()).is_none());
    }
}
