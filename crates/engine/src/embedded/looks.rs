//! How often a look at a store that others change is done again, and when what the last one found has to do.
//!
//! Invariant: what was found torn is answered only where every row of it was there at some time, and only after
//! [`MAX_LOOKS`]; that the store changes is never told as its failure before patience has ended. Waits on the
//! caller's thread, which a store that others write never leaves to a runtime's worker.

use super::StoreFault;
use std::time::{Duration, Instant};

/// Looks at a store that others change meanwhile, before what the last one found is taken as it is.
const MAX_LOOKS: u32 = 8;
/// So often a look, or a transaction, is done again at once; after that with a pause, and with less in it.
pub(super) const AT_ONCE: u32 = 3;
/// The longest of these pauses, in milliseconds, and between looks for a store that is away.
pub(super) const MAX_PAUSE: u64 = 64;

/// The looks of one read.
pub(super) struct Looks<T> {
    begun: Instant,
    patience: Duration,
    torn: u32,
    /// What the last one that could be read found.
    last: Option<T>,
}

impl<T> Looks<T> {
    /// Done again for so long.
    pub fn new(patience: Duration) -> Looks<T> {
        Looks {
            begun: now(),
            patience,
            torn: 0,
            last: None,
        }
    }

    /// A look was torn. `is_sound` says whether nothing in what it found may be wrong because of that. Waits a little
    /// before the next one, or says what is to be answered.
    pub fn torn(&mut self, found: Option<T>, is_sound: bool) -> Option<Result<T, StoreFault>> {
        self.torn += 1;
        self.last = found.or(self.last.take());
        let is_late = self.begun.elapsed() >= self.patience;
        if is_late || (is_sound && self.torn >= MAX_LOOKS) {
            return Some(self.last.take().ok_or(StoreFault::Conflict));
        }
        if let Some(most) = pause_after(self.torn) {
            pause(most);
        }
        None
    }
}

/// The longest pause after so many failures in a row, in milliseconds.
pub(super) fn pause_after(failures: u32) -> Option<u64> {
    let over = failures.checked_sub(AT_ONCE).filter(|over| *over > 0)?;
    Some((1 << over.min(6)).min(MAX_PAUSE))
}

/// Waits up to so many milliseconds, a random part of them: nodes that are in one another's way do so at different
/// times afterwards.
#[allow(
    clippy::disallowed_methods,
    reason = "what is waited for is another node's turn, which nothing tells of"
)]
pub(super) fn pause(most: u64) {
    let part = getrandom::u64().unwrap_or(most) % most.max(1) + 1;
    std::thread::sleep(Duration::from_millis(part));
}

/// Bounds how long a read is done again; nothing that is stored depends on it.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place; no decision about what is stored"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_begin_late_and_end_soon() {
        let pauses: Vec<_> = (0..12).map(pause_after).collect();
        assert_eq!(pauses[..4], [None; 4]);
        assert_eq!(pauses[4..6], [Some(2), Some(4)]);
        assert!(
            pauses[6..]
                .iter()
                .all(|most| most.is_some_and(|most| most <= MAX_PAUSE))
        );
    }

    #[test]
    fn what_was_found_torn_has_to_do_at_last_and_what_may_be_wrong_later() {
        let mut looks = Looks::new(Duration::from_secs(3600));
        for n in 1..MAX_LOOKS {
            assert!(looks.torn(Some(n), true).is_none());
        }
        assert!(looks.torn(Some(MAX_LOOKS), false).is_none(), "it may be wrong");
        assert!(looks.torn(None, false).is_none());
        assert!(matches!(looks.torn(Some(99), true), Some(Ok(99))));
        let mut looks = Looks::new(Duration::ZERO);
        assert!(
            matches!(looks.torn(Some(1), false), Some(Ok(1))),
            "patience has ended"
        );
        let mut looks = Looks::<u32>::new(Duration::ZERO);
        assert!(matches!(looks.torn(None, false), Some(Err(StoreFault::Conflict))));
    }
}
