//! What is published: ids that rise with time as the product's do, users of a population, bodies that do
//! not compress. All of it is a function of a sequence number, so that whoever reads can verify.

use anyhow::{Context, Result};
use bytes::Bytes;
use postrider_model::{
    Audience, Devices, Durability, Entry, EntryKind, FeedId, Notification, NotificationId, Publication,
    Timestamp, UserId,
};
use std::sync::Arc;

/// Users that may be recipients, unless an experiment says otherwise.
pub const POPULATION: u64 = 10_000;
/// Recipients of one publication stand this far apart: a prime, so that all of them differ.
const STRIDE: u64 = 7_919;
/// When everything was published; no experiment depends on the time.
pub const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// The id of publication `seq`: the shape and the order of a UUIDv7.
pub fn id(seq: u64) -> Result<NotificationId> {
    Ok(NotificationId::new(&format!(
        "{:08x}-{:04x}-7000-8000-{seq:012x}",
        seq >> 16,
        seq & 0xffff
    ))?)
}

/// The number in an id.
pub fn seq_of(id: &NotificationId) -> Result<u64> {
    let tail = id.as_str().rsplit('-').next().context("an id without a number")?;
    Ok(u64::from_str_radix(tail, 16)?)
}

/// The feed of a user.
pub fn feed(user: u64) -> Result<FeedId> {
    Ok(FeedId::User(user_id(user)?))
}

/// A user.
pub fn user_id(user: u64) -> Result<UserId> {
    Ok(UserId::new(&format!("user-{user:07}"))?)
}

/// The recipients of publication `seq`.
pub fn audience(seq: u64, count: u64, population: u64) -> impl Iterator<Item = u64> {
    let first = mixed(seq) % population;
    (0..count).map(move |i| (first + i * STRIDE) % population)
}

/// Publication `seq`, for these users, with a body of `bytes`.
pub fn publication(seq: u64, users: impl Iterator<Item = u64>, bytes: usize) -> Result<Publication> {
    let users = users.map(user_id).collect::<Result<_>>()?;
    let notification = Notification {
        id: id(seq)?,
        time: NOW,
        subject: None,
        data: body(seq, bytes),
        audience: Audience::Users(users),
        exclude: Vec::new(),
        durability: Durability::Stored,
        expires_at: None,
        deliver_at: None,
        collapse_key: None,
        policy: None,
        devices: Devices::All,
        publisher: "bench".into(),
    };
    Ok(Publication {
        feeds: notification.feeds(),
        notification: Arc::new(notification),
        content: u128::from(mixed(seq)),
        request: None,
    })
}

/// What publication `seq` says.
pub fn body(seq: u64, bytes: usize) -> Bytes {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let mut text = Vec::with_capacity(bytes.max(8));
    text.extend_from_slice(b"{\"t\":\"");
    let mut state = seq;
    while text.len() + 2 < bytes {
        state = mixed(state);
        for shift in (0..60).step_by(6).take((bytes - 2 - text.len()).min(10)) {
            text.push(LETTERS[(state >> shift) as usize & 63]);
        }
    }
    text.extend_from_slice(b"\"}");
    text.into()
}

/// The number of the publication that an entry holds; its body is verified.
pub fn entry_seq(entry: &Entry, bytes: usize) -> Result<u64> {
    let EntryKind::Notification(notification, _) = &entry.kind else {
        anyhow::bail!(
            "{} {}: an entry that is no notification",
            entry.feed,
            entry.position.offset
        );
    };
    let seq = seq_of(&notification.id)?;
    anyhow::ensure!(
        notification.data == body(seq, bytes),
        "the body of {seq} is not what was published"
    );
    Ok(seq)
}

/// A number that looks random.
pub fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
