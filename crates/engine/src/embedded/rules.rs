//! What the engine keeps, how long, and when it gives up: the operator's choices.

use postrider_model::Millis;

/// Whether a user who was never seen gets the broadcasts of before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Broadcasts {
    /// All that are retained.
    #[default]
    Retained,
    /// Those from the user's first session on.
    FromFirstSession,
}

/// The choices; the defaults are those of the configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long a notification is kept to be delivered.
    pub age: Millis,
    /// Entries that one feed holds; 0 is no bound.
    pub entries_per_feed: u64,
    /// Bytes that one feed holds; 0 is no bound.
    pub bytes_per_feed: u64,
    /// Bytes that all notifications together hold; 0 is no bound.
    pub total_bytes: u64,
    /// How long it is known what became of a notification.
    pub audit: Millis,
    /// How long an id, or an `Idempotency-Key`, has its effect once.
    pub dedupe: Millis,
    /// Attempts are counted at most this often, and the last is waited for as long.
    pub ack_timeout: Millis,
    /// After so many attempts an entry is dead for its user.
    pub max_total_attempts: u32,
    /// With so many dead letters nothing more is accepted.
    pub dead_letters: u64,
    /// What a new user gets of the broadcasts of before.
    pub broadcasts: Broadcasts,
    /// Topics that a user is a member of, with those left that still hold something of the user's.
    pub topics_per_user: usize,
}

impl Default for Rules {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Rules {
            age: Millis::from_secs(30 * DAY),
            entries_per_feed: 100_000,
            bytes_per_feed: 0,
            total_bytes: 10 << 30,
            audit: Millis::from_secs(90 * DAY),
            dedupe: Millis::from_secs(DAY),
            ack_timeout: Millis::from_secs(30),
            max_total_attempts: 20,
            dead_letters: 1_000_000,
            broadcasts: Broadcasts::Retained,
            topics_per_user: 98,
        }
    }
}

impl Rules {
    /// How long a record is kept, in all.
    pub(super) fn record_age(&self) -> Millis {
        self.audit.max(self.age).max(self.dedupe)
    }
}
