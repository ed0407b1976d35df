//! Digests that tell a repeat from a conflict, and ids that a repeat makes again.
//!
//! Invariant: the digest depends on what the publisher said and on nothing else: not on the time, not on a
//! generated id, not on white space in `data`, not on whether a default was written out.

use postrider_model::{Audience, Devices, Durability, Millis, Notification, NotificationId, Timestamp};
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Digest of one notification's content. `ttl` and `deliver_at` are taken as the publisher gave them.
pub(crate) fn content(
    notification: &Notification,
    ttl: Option<Millis>,
    deliver_at: Option<Timestamp>,
) -> u128 {
    let mut digest = Xxh3::new();
    field(&mut digest, b'd', &notification.data);
    match &notification.audience {
        Audience::Everyone => field(&mut digest, b'e', b""),
        Audience::Topics(topics) => topics
            .iter()
            .for_each(|topic| field(&mut digest, b't', topic.as_str().as_bytes())),
        Audience::Users(users) => {
            // A set: the order in which it was written says nothing.
            let mut users: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
            users.sort_unstable();
            users
                .iter()
                .for_each(|user| field(&mut digest, b'u', user.as_bytes()));
        }
    }
    for user in &notification.exclude {
        field(&mut digest, b'x', user.as_str().as_bytes());
    }
    if let Some(subject) = &notification.subject {
        field(&mut digest, b's', subject.as_bytes());
    }
    if let Some(ttl) = ttl {
        field(&mut digest, b'l', &ttl.0.to_le_bytes());
    }
    if let Some(at) = deliver_at {
        field(&mut digest, b'a', &at.0.to_le_bytes());
    }
    if let Some(key) = &notification.collapse_key {
        field(&mut digest, b'c', key.as_bytes());
    }
    if notification.durability == Durability::Transient {
        field(&mut digest, b'r', b"");
    }
    if notification.devices == Devices::First {
        field(&mut digest, b'f', b"");
    }
    digest.digest128()
}

/// Length-prefixed, so that no two different lists of fields run together.
fn field(digest: &mut Xxh3, tag: u8, bytes: &[u8]) {
    digest.update(&[tag]);
    digest.update(&(bytes.len() as u64).to_le_bytes());
    digest.update(bytes);
}

/// Digest of a whole request's body, for its `Idempotency-Key`.
pub fn request_content(body: &[u8]) -> u128 {
    xxh3_128(body)
}

/// The id of the `index`th notification of a request with an `Idempotency-Key`, where the publisher gave
/// none: the same for every repeat, and different for every publisher, key and index.
pub fn derived_id(publisher: &str, key: &str, index: u64) -> NotificationId {
    let mut digest = Sha256::new();
    digest.update((publisher.len() as u64).to_le_bytes());
    digest.update(publisher.as_bytes());
    digest.update((key.len() as u64).to_le_bytes());
    digest.update(key.as_bytes());
    digest.update(index.to_le_bytes());
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    id_of(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// A UUID as a notification id.
pub(crate) fn id_of(uuid: uuid::Uuid) -> NotificationId {
    let mut text = [0u8; uuid::fmt::Hyphenated::LENGTH];
    let text: &str = uuid.hyphenated().encode_lower(&mut text);
    // Hexadecimal digits and hyphens are all in an id's alphabet, and 36 is less than 128.
    match NotificationId::new(text) {
        Ok(id) => id,
        Err(e) => unreachable!("a UUID is a notification id: {e}"),
    }
}
