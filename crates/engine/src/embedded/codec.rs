//! How records are written. Every value begins with a version byte; what follows is fixed-width
//! little-endian numbers and length-prefixed bytes. Keys hold offsets and times big-endian, so that their
//! byte order is their order.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | meta | name | depends |
//! | notifications | id | [`Record`], or where it stands whole: user, position |
//! | entries | feed, offset | [`EntryRecord`]; a notification for one user stands in it whole, with its [`Record`] |
//! | feeds | feed | first held offset, head, epoch of the one before the first (written by trimming only) |
//! | recipients | id, 0, user | position, offset 0 while scheduled |
//! | floors | user, 0, feed, 1 (delivered), 2 (read) or 3 (joined) | offset |
//! | marks | user, 0, feed, offset, kind | [`encode_mark`] |
//! | ranges | user, 0, feed, last offset | kind, first offset …: what befell many entries at once |
//! | settlers | wide feed, user | nothing: this user has a floor or a mark in it |
//! | dropped | wide feed, offset | reason, time |
//! | collapse | feed, collapse key | offset of the newest |
//! | due | time, kind, id; to give up: also 0, user | to be delivered: its [lane](super::lanes); else nothing |
//! | requests | key | content digest, time |
//! | ages | stage, time, id (or request, or feed) | nothing: in this order things are forgotten |
//! | ages | stage 5, time to live, time, number | ids: a [`super::apply`] cohort, which grows old together |
//! | attempts | user, 0, feed, offset | how many, the time of the last |
//! | firsts | feed, offset | nothing: this one is for the first device that takes it |
//! | opens | user, 0, feed, offset | nothing: pending although the floor passed it |
//! | past | user's feed, offset | id of what stood there before it was trimmed |
//! | letters | dead letter | [`LetterRecord`] |
//! | letters_of | user, 0, dead letter | nothing |
//! | letter_for | id, 0, user | dead letter |
//! | erased | digest of a feed's key | the head that the feed had |
//! | erased | digest of a user's feed's key and `state` | the version at which the user's state map was erased |
//! | sizes | feed | bytes, first and head offset when they were counted (kept only where feeds are bounded by bytes) |
//! | users | user | when added, when changed, profile |
//! | memberships | user | by topic, its stays: the offset after which each began, and the last, if it ended |
//! | members | topic, 0, user | nothing: this user is a member now |
//! | topics | topic | how many members it has now |
//! | states | user | version, texts by name |
//!
//! Version 2 of a record has more than version 1: `kept_from` in notifications, `origin` in withdrawn entries.
//! Version 3 has the whole entries and the cohorts. Version 4 is only a dead letter's, where it has a detail; without one it is
//! written as before, so that those who know no details can read it.
//! A value this version cannot read is an error that names the table; it is never skipped.

mod entry;
pub(crate) mod key;
mod letter;
mod mark;
pub(super) mod people;
mod record;
#[cfg(test)]
mod tests;
mod value;

pub(super) use entry::{EntryKindRecord, EntryRecord};
pub(super) use letter::LetterRecord;
pub(super) use mark::{decode_mark, encode_mark, encode_range};
pub(super) use record::{Held, Home, Record};
pub(super) use value::{Reader, Writer};

/// The version byte that this code writes. It reads all versions up to this.
const VERSION: u8 = 3;
