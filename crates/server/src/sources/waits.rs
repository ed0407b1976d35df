//! Whose settlements are waited for, and who tells: whoever settles something for a user on this node, and presence, when
//! a user leaves any node.
//!
//! A word is a hint and no more: whoever waits looks for itself, and also looks without a word, now and then. So a word may
//! be lost, and what was settled on another node is found a little later.
//!
//! Invariant: what is kept is a name for each user that is waited for, at most [`MOST_NAMED`] of one message, and goes with
//! the wait.

use super::Plant;
use postrider_engine::{PresenceFilter, PresenceNews, PresenceWatch};
use postrider_model::{NotificationId, SettleTarget, Settlement, UserId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Recipients of one message whose words are heard; of one with more, those of the others are found by looking.
const MOST_NAMED: usize = 100;
/// Where presence cannot be watched now, it is tried again after this.
const WATCH_AGAIN: Duration = Duration::from_secs(5);

/// For each user: of which notification, and the bell of who waits.
type ByUser = HashMap<UserId, Vec<(NotificationId, Arc<Notify>)>>;

/// Who waits for whom.
#[derive(Debug, Default)]
pub struct Waits {
    by_user: Mutex<ByUser>,
}

impl Waits {
    /// These were settled.
    pub fn settled(&self, settlements: &[Settlement]) {
        let by_user = self.lock();
        if by_user.is_empty() {
            return;
        }
        for one in settlements {
            let waiting = by_user.get(&one.user).into_iter().flatten();
            waiting
                .filter(|(id, _)| match &one.target {
                    SettleTarget::Ids(ids) => ids.contains(id),
                    SettleTarget::Through(_) => true,
                })
                .for_each(|(_, bell)| bell.notify_one());
        }
    }

    /// This user left.
    fn left(&self, user: &UserId) {
        if let Some(waiting) = self.lock().get(user) {
            waiting.iter().for_each(|(_, bell)| bell.notify_one());
        }
    }

    /// Words may have been lost.
    fn all(&self) {
        let by_user = self.lock();
        by_user.values().flatten().for_each(|(_, bell)| bell.notify_one());
    }

    /// From now on words about this notification and these users ring a bell.
    pub(super) fn register(self: &Arc<Self>, id: &NotificationId, users: &[UserId]) -> Registered {
        let bell = Arc::new(Notify::new());
        let users: Vec<UserId> = users.iter().take(MOST_NAMED).cloned().collect();
        let mut by_user = self.lock();
        for user in &users {
            let waiting = by_user.entry(user.clone()).or_default();
            waiting.push((id.clone(), bell.clone()));
        }
        drop(by_user);
        Registered {
            waits: self.clone(),
            users,
            bell,
        }
    }

    fn lock(&self) -> MutexGuard<'_, ByUser> {
        self.by_user.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wait that words reach; until it is dropped.
pub(super) struct Registered {
    waits: Arc<Waits>,
    users: Vec<UserId>,
    bell: Arc<Notify>,
}

impl Registered {
    /// Returns once there was a word since this was last asked. Cancel-safe.
    pub async fn word(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut by_user = self.waits.lock();
        for user in &self.users {
            if let Some(waiting) = by_user.get_mut(user) {
                waiting.retain(|(_, bell)| !Arc::ptr_eq(bell, &self.bell));
                if waiting.is_empty() {
                    by_user.remove(user);
                }
            }
        }
    }
}

/// Tells of users who leave, until the node drains.
pub(super) async fn watch_leaving(plant: Plant) {
    while !plant.drain.has_begun() {
        match plant.presence.watch_presence(PresenceFilter::All) {
            Ok(mut watch) => tell_leaving(&plant, &mut *watch).await,
            Err(error) => tracing::debug!(%error, "who leaves is not watched now; it is looked at"),
        }
        tokio::select! {
            () = plant.drain.begun() => {}
            () = tokio::time::sleep(WATCH_AGAIN) => {}
        }
    }
}

async fn tell_leaving(plant: &Plant, watch: &mut dyn PresenceWatch) {
    loop {
        let news = tokio::select! {
            () = plant.drain.begun() => return,
            news = watch.next() => news,
        };
        match news {
            Some(PresenceNews::Change {
                user, online: false, ..
            }) => plant.waits.left(&user),
            Some(PresenceNews::Lagged) => plant.waits.all(),
            Some(_) => {}
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use postrider_model::{Evidence, SettleKind};

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn id(name: &str) -> NotificationId {
        NotificationId::new(name).unwrap()
    }

    fn settlement(name: &str, target: SettleTarget) -> Settlement {
        Settlement {
            user: user(name),
            kind: SettleKind::Delivered,
            target,
            evidence: Evidence::Client,
            session: None,
            transport: None,
        }
    }

    fn heard(registered: &Registered) -> bool {
        registered.word().now_or_never().is_some()
    }

    #[test]
    fn a_word_reaches_who_waits_for_it_and_nobody_else() {
        let waits = Arc::new(Waits::default());
        let one = waits.register(&id("1"), &[user("ada")]);
        let two = waits.register(&id("2"), &[user("ada"), user("bob")]);
        waits.left(&user("bob"));
        assert_eq!((heard(&one), heard(&two)), (false, true));
        assert!(!heard(&two), "one word is heard once");
        waits.settled(&[settlement("ada", SettleTarget::Ids(vec![id("1"), id("9")]))]);
        assert_eq!((heard(&one), heard(&two)), (true, false));
        waits.settled(&[settlement("ada", SettleTarget::Through(vec![]))]);
        assert_eq!((heard(&one), heard(&two)), (true, true));
        waits.settled(&[settlement("eve", SettleTarget::Through(vec![]))]);
        assert_eq!((heard(&one), heard(&two)), (false, false));
        waits.all();
        assert_eq!((heard(&one), heard(&two)), (true, true));
    }

    #[test]
    fn what_is_kept_goes_with_the_wait_and_is_bounded() {
        let waits = Arc::new(Waits::default());
        let many: Vec<UserId> = (0..MOST_NAMED + 50).map(|n| user(&format!("u{n}"))).collect();
        let one = waits.register(&id("1"), &many);
        let other = waits.register(&id("2"), &many[..1]);
        assert_eq!(waits.lock().len(), MOST_NAMED);
        drop(one);
        assert_eq!(waits.lock().len(), 1, "another waits for u0");
        drop(other);
        assert!(waits.lock().is_empty());
    }
}
