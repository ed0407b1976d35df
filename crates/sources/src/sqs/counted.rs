//! Messages of a user that are not settled yet: counted from when they came until nobody has them any more.
//!
//! Invariant: every [`Counted`] is told once, when it is dropped, however that came about. It takes no lock but its own, so
//! it may be dropped anywhere.

use postrider_model::UserId;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Who is told.
#[derive(Default)]
pub(super) struct Tally {
    /// Something may be to be begun.
    pub changed: Notify,
    /// Whose messages were settled since that was last taken: one entry each, so no more than there were messages.
    settled: Mutex<Vec<UserId>>,
}

impl Tally {
    /// Whose messages were settled since the last time.
    pub fn take(&self) -> Vec<UserId> {
        std::mem::take(&mut *self.settled.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One more message of this user is here.
    pub fn count(self: &Arc<Tally>, user: &UserId) -> Counted {
        let (user, tally) = (user.clone(), self.clone());
        Counted { user, tally }
    }
}

/// One message that is here.
pub(super) struct Counted {
    user: UserId,
    tally: Arc<Tally>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut settled = self.tally.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.push(self.user.clone());
        drop(settled);
        self.tally.changed.notify_one();
    }
}
