//! `settle_on: delivered`: a message stays its queue's until its recipients have its notification.
//!
//! The wait ends by a word ([`super::waits`]): somebody settled something for a recipient, or a recipient left. Without
//! any it looks now and then, for what happened on another node.
//!
//! With `offline: leave` the queue stays the store. A message none of whose users is there is not published but left to
//! it, so that the queue counts the attempt and its own rules decide how often there is another. One that was published,
//! and whose users left before they had it, is let go at once; it waits in their inboxes too, and whoever takes it there
//! has it acknowledged when it comes again.
//!
//! Invariant: a message is acknowledged only where nobody of its audience lacks it. Whoever's presence cannot be told
//! counts as there: then it is stored, which loses nothing.

use super::Running;
use super::waits::Registered;
use crate::config::Offline;
use postrider_engine::{RecipientState, Recipients};
use postrider_model::{Audience, Millis, NotificationId, State, UserId};
use postrider_sources::queue::{Delivery, Message};
use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, Sleep};

/// After a word what was settled shows a moment later; between looks without a word.
const LOOK_FIRST: Duration = Duration::from_millis(10);
const LOOK_MOST: Duration = Duration::from_secs(2);
/// Users of one message who are asked for. One with more counts as having somebody there.
const MOST_ASKED: usize = 100;
/// With `offline: leave`, a message whose users are there is held for so long at most: less than the 12 hours after which SQS
/// gives it to another whatever is said.
const HELD_MOST: Duration = Duration::from_secs(11 * 3_600 + 1_800);

/// How the waiting ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Taken,
    TooLate,
    /// Nobody who lacks it is there.
    Left,
    /// It expired in the inboxes of who lacks it, or was given up.
    Missed,
    Draining,
}

/// Where a notification stands with its recipients.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing is kept of it: it was transient, or never published.
    Unknown,
    Had,
    /// These lack it; of a wide audience nobody knows who.
    Awaited(Vec<UserId>),
    /// They cannot get it any more, and were not there before.
    Missed,
}

/// What is to become of a message before anything is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Publish,
    /// It was delivered, after it had been given back.
    Had,
    /// Nobody whom it is for is there.
    Absent,
}

impl Running {
    /// Waits until the recipients have it, and acknowledges; else gives it back, to come again under the same id.
    pub(super) async fn wait_for(&self, mut delivery: Delivery, id: NotificationId) {
        // It is stored, and may wait long.
        delivery.forget_payload();
        match self.taken(&delivery, &id).await {
            Ended::Taken => self.ack_all(vec![delivery]).await,
            Ended::TooLate => {
                let after = self.pause_after(delivery.message().deliveries);
                self.give_back(delivery, after).await;
            }
            Ended::Missed => self.give_back(delivery, self.handling.leave_for).await,
            Ended::Left | Ended::Draining => self.give_back(delivery, Millis(0)).await,
        }
    }

    async fn taken(&self, delivery: &Delivery, id: &NotificationId) -> Ended {
        let mut over = pin!(tokio::time::sleep(self.handling.deliver_within.as_duration()));
        let mut hold = hold_every(self.handling.hold_every);
        let mut heard: Option<Registered> = None;
        let (mut look, mut asks_presence, mut is_long) = (LOOK_MOST, false, false);
        loop {
            let standing = self.standing(id).await;
            let may_be_long = outlasts(standing.as_ref(), self.handling.offline);
            match standing {
                Some(Standing::Had | Standing::Unknown) => return Ended::Taken,
                Some(Standing::Missed) => return Ended::Missed,
                Some(Standing::Awaited(users)) if heard.is_none() => {
                    heard = Some(self.plant.waits.register(id, &users));
                    // What was settled meanwhile had nobody to tell.
                    continue;
                }
                Some(Standing::Awaited(users)) if asks_presence && self.is_left_by(&users).await => {
                    return Ended::Left;
                }
                _ => {}
            }
            if self.plant.drain.has_begun() {
                return Ended::Draining;
            }
            if over.is_elapsed() {
                if is_long || !may_be_long {
                    return Ended::TooLate;
                }
                is_long = true;
                let more = HELD_MOST.saturating_sub(self.handling.deliver_within.as_duration());
                let until = over.deadline() + more;
                over.as_mut().reset(until);
            }
            let is_word = self
                .next_look(delivery, heard.as_ref(), look, over.as_mut(), &mut hold)
                .await;
            asks_presence = is_word || look == LOOK_MOST;
            look = if is_word {
                LOOK_FIRST
            } else {
                (look * 2).min(LOOK_MOST)
            };
        }
    }

    /// Waits until there is a reason to look, and holds the delivery meanwhile; true where it is a word.
    async fn next_look(
        &self,
        delivery: &Delivery,
        heard: Option<&Registered>,
        look: Duration,
        mut over: Pin<&mut Sleep>,
        hold: &mut Interval,
    ) -> bool {
        let mut look = pin!(tokio::time::sleep(look));
        let word = async {
            match heard {
                Some(registered) => registered.word().await,
                None => std::future::pending().await,
            }
        };
        let mut word = pin!(word);
        loop {
            tokio::select! {
                biased;
                () = self.plant.drain.begun() => return false,
                () = &mut word => return true,
                () = &mut over => return false,
                _ = hold.tick() => self.log_all(vec![delivery.hold().await]),
                () = &mut look => return false,
            }
        }
    }

    /// What is to become of each of these messages. To be asked only where absent users' messages are left.
    pub(super) async fn fates(&self, asked: Vec<Option<Asked>>) -> Vec<Fate> {
        let mut there = HashMap::new();
        let mut fates = Vec::with_capacity(asked.len());
        for one in asked {
            let Some(one) = one else {
                fates.push(Fate::Publish);
                continue;
            };
            let is_had = one.again && self.standing(&one.id).await == Some(Standing::Had);
            fates.push(match is_had {
                true => Fate::Had,
                false if self.is_any_there(&one.users, &mut there).await => Fate::Publish,
                false => Fate::Absent,
            });
        }
        fates
    }

    /// What is to be asked about a message; `None` where nobody knows whom it is for, and for what is no notification.
    pub(super) fn asked(&self, message: &Message) -> Option<Asked> {
        let notification = self.publication(message).ok()?.notification;
        let Audience::Users(users) = &notification.audience else {
            return None;
        };
        Some(Asked {
            id: notification.id.clone(),
            users: users.to_vec(),
            again: message.deliveries > 1,
        })
    }

    /// Whether every recipient has it. `None` where that cannot be told now.
    pub(super) async fn is_had(&self, id: &NotificationId) -> Option<bool> {
        Some(self.standing(id).await? == Standing::Had)
    }

    async fn standing(&self, id: &NotificationId) -> Option<Standing> {
        let engine = &self.plant.engine;
        let is_wide = match engine.lookup(id).await {
            Ok(Some(stored)) => stored.recipients.is_none(),
            Ok(None) => return Some(Standing::Unknown),
            Err(_) => return None,
        };
        let states = engine.recipients(id, Recipients::All).await.ok()?;
        Some(standing_of(&states, is_wide, self.handling.offline))
    }

    async fn is_left_by(&self, users: &[UserId]) -> bool {
        self.handling.offline == Offline::Leave && !self.is_any_there(users, &mut HashMap::new()).await
    }

    /// Whether anybody of these has a session, on any node; `known` is who was asked for before.
    async fn is_any_there(&self, users: &[UserId], known: &mut HashMap<UserId, bool>) -> bool {
        if users.is_empty() || users.len() > MOST_ASKED {
            return true;
        }
        for user in users {
            let is_there = match known.get(user) {
                Some(is_there) => *is_there,
                None => match self.plant.presence.user_presence(user).await {
                    Ok(presence) => presence.online,
                    Err(_) => true,
                },
            };
            known.insert(user.clone(), is_there);
            if is_there {
                return true;
            }
        }
        false
    }
}

/// A message of which it is asked what is to become of it.
pub(super) struct Asked {
    id: NotificationId,
    users: Vec<UserId>,
    /// It was given out before.
    again: bool,
}

/// Ticks when what is in hand is to be held once more; not at once.
pub(super) fn hold_every(every: Millis) -> Interval {
    let mut hold = tokio::time::interval(every.max(Millis(1)).as_duration());
    hold.set_missed_tick_behavior(MissedTickBehavior::Delay);
    hold.reset();
    hold
}

/// Whether the wait goes on after `deliver_within`, for as long as they are there who lack it. Where the queue is the store,
/// what is given back while its user is there costs one of the times that its redrive policy allows.
fn outlasts(standing: Option<&Standing>, offline: Offline) -> bool {
    let is_asked_for = match standing {
        Some(Standing::Awaited(users)) => (1..=MOST_ASKED).contains(&users.len()),
        Some(_) => false,
        // It cannot be told now.
        None => true,
    };
    offline == Offline::Leave && is_asked_for
}

/// Whether the recipients have it: every one of a list, which also who will never get it counts as; of a wide audience
/// one. What expired, or was given up, was not had where the queue is the store.
fn standing_of(states: &[RecipientState], is_wide: bool, offline: Offline) -> Standing {
    if is_wide {
        let is_had = states
            .iter()
            .any(|one| matches!(one.state, State::Delivered | State::Read));
        return if is_had {
            Standing::Had
        } else {
            Standing::Awaited(Vec::new())
        };
    }
    let lacking = states.iter().filter(|one| one.state == State::Pending);
    let lacking: Vec<UserId> = lacking.map(|one| one.user.clone()).collect();
    let is_lost = |one: &RecipientState| matches!(one.state, State::Expired | State::Dead);
    let missed = offline == Offline::Leave && states.iter().any(is_lost);
    match (lacking.is_empty(), missed) {
        (false, _) => Standing::Awaited(lacking),
        (true, true) => Standing::Missed,
        (true, false) => Standing::Had,
    }
}

#[cfg(test)]
#[path = "wait_tests.rs"]
mod tests;
