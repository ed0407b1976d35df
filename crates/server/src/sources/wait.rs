//! `settle_on: delivered`: a message stays its queue's until its recipients have its notification.

use super::Running;
use super::take::is_hold_due;
use postrider_engine::{RecipientState, Recipients};
use postrider_model::{Millis, NotificationId, State};
use postrider_sources::queue::Delivery;
use std::time::Duration;

/// Between the first looks at the recipients, and the later ones.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_MOST: Duration = Duration::from_secs(1);

/// How the waiting ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Taken,
    TooLate,
    Draining,
}

impl Running {
    /// Waits until the recipients have it, and acknowledges; else gives it back, to come again under the same id.
    pub(super) async fn wait_for(&self, delivery: Delivery, id: NotificationId) {
        match self.taken(&delivery, &id).await {
            Ended::Taken => self.ack_all(vec![delivery]).await,
            Ended::TooLate => {
                let after = self.pause_after(delivery.message().deliveries);
                self.give_back(delivery, after).await;
            }
            Ended::Draining => self.give_back(delivery, Millis(0)).await,
        }
    }

    async fn taken(&self, delivery: &Delivery, id: &NotificationId) -> Ended {
        let (mut waited, mut since_hold, mut look) = (Duration::ZERO, Duration::ZERO, LOOK_FIRST);
        loop {
            if self.is_taken(id).await {
                return Ended::Taken;
            }
            if self.plant.drain.has_begun() {
                return Ended::Draining;
            }
            if waited >= self.handling.deliver_within.as_duration() {
                return Ended::TooLate;
            }
            let now = look.min(self.handling.deliver_within.as_duration() - waited);
            self.pause(now).await;
            waited += now;
            look = (look * 2).min(LOOK_MOST);
            if is_hold_due(&mut since_hold, now, self.handling.hold_every) {
                self.log_all(vec![delivery.hold().await]);
            }
        }
    }

    async fn is_taken(&self, id: &NotificationId) -> bool {
        let engine = &self.plant.engine;
        let is_wide = match engine.lookup(id).await {
            Ok(Some(stored)) => stored.recipients.is_none(),
            // Nothing is kept of it any more, or it was transient: there is nothing to wait for.
            Ok(None) => return true,
            Err(_) => return false,
        };
        match engine.recipients(id, Recipients::All).await {
            Ok(states) => all_have(&states, is_wide),
            Err(_) => false,
        }
    }
}

/// Whether the recipients have it: every one of a list, which also who will never get it counts as; of a wide audience
/// one.
fn all_have(states: &[RecipientState], is_wide: bool) -> bool {
    if is_wide {
        return states
            .iter()
            .any(|one| matches!(one.state, State::Delivered | State::Read));
    }
    states.iter().all(|one| one.state != State::Pending)
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::UserId;

    #[test]
    fn who_has_it() {
        let states = |states: &[State]| -> Vec<RecipientState> {
            let user = UserId::new("u").unwrap();
            states
                .iter()
                .map(|state| RecipientState {
                    user: user.clone(),
                    state: *state,
                    marks: vec![],
                })
                .collect()
        };
        for (given, is_wide, taken) in [
            (&[][..], true, false),
            (&[State::Pending], false, false),
            (&[State::Delivered], false, true),
            (&[State::Delivered, State::Pending], false, false),
            (
                &[State::Read, State::Expired, State::Cancelled, State::Dead],
                false,
                true,
            ),
            (&[State::Delivered, State::Pending], true, true),
            (&[State::Cancelled], true, false),
        ] {
            assert_eq!(all_have(&states(given), is_wide), taken, "{given:?} {is_wide}");
        }
    }
}
