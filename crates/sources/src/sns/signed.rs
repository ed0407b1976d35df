//! What SNS signs of a post: some of its fields, each as its name, a line break, its value and a line break, in the
//! order of their names.

use super::post::{Kind, Post};

/// The text that is signed.
pub(super) fn signed(post: &Post) -> String {
    let some = |name, value: &'_ Option<String>| value.clone().map(|value| (name, value));
    let is_notification = post.kind == Kind::Notification;
    let fields = [
        Some(("Message", post.message.clone())),
        Some(("MessageId", post.message_id.clone())),
        // An empty subject counts as none.
        some("Subject", &post.subject).filter(|(_, subject)| is_notification && !subject.is_empty()),
        some("SubscribeURL", &post.subscribe_url).filter(|_| !is_notification),
        Some(("Timestamp", post.timestamp.clone())),
        some("Token", &post.token).filter(|_| !is_notification),
        Some(("TopicArn", post.topic_arn.clone())),
        Some(("Type", post.kind.as_str().to_owned())),
    ];
    let mut text = String::with_capacity(post.message.len() + 512);
    for (name, value) in fields.into_iter().flatten() {
        text.push_str(name);
        text.push('\n');
        text.push_str(&value);
        text.push('\n');
    }
    text
}
