//! The words of Postrider as types: ids, notifications, feeds, positions, cursors, entries, states.
//!
//! No I/O, no clock, no randomness. Everything here is a value or a pure function of values, so every
//! other crate, and every engine, agrees on what a word means by using the same type for it.
//!
//! Invariant: a value of a checked type (an id, a cursor, compact JSON) is always well formed; the only
//! way to make one from outside input is a function that returns a `Result`.

mod cursor;
mod date_time;
mod dead_letter;
mod entry;
mod feed;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod ids;
mod inbox;
pub mod json;
mod log_pace;
mod membership;
mod notification;
mod pause;
mod profile;
mod publication;
mod settlement;
mod state;
mod units;
mod user_state;

pub use cursor::{Cursor, CursorError, CursorSeal, MAX_CURSOR_FEEDS, MAX_INBOX_FEEDS};
pub use dead_letter::{DeadBody, DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterPage, DeadReason};
pub use entry::{Entry, EntryKind, Forms, data_of};
pub use feed::{Epoch, FeedId, FeedKind, FeedSpan, Position};
pub use ids::{IdError, NotificationId, SessionId, Topic, UserId};
pub use inbox::{FeedStart, InboxEntry, InboxPage};
pub use log_pace::LogPace;
pub use membership::{Membership, Stay};
pub use notification::{Audience, Devices, Durability, Notification};
pub use pause::Pauses;
pub use profile::Profile;
pub use publication::{Publication, Receipt, RequestKey};
pub use settlement::{Attempt, Evidence, SettleKind, SettleTarget, Settlement, Transport};
pub use state::{Mark, MarkKind, Standing, State, WithdrawReason, state_of};
pub use units::{ByteSize, Millis, Timestamp, UnitError};
pub use user_state::{MAX_STATE_BYTES, MAX_STATE_KEY, MAX_STATE_KEYS, StateChange, StateError, UserState};
