//! What a turn hands to the engine when it ends: settlements by evidence, attempts to count. The loop waits for none
//! of it; answers come back as posts.

use super::*;

/// Settlements by evidence that are handed to the engine at once.
const MAX_FLUSHED: usize = 128;

/// Settlements by evidence that are due.
#[derive(Default)]
pub(super) struct Flushing {
    waiting: VecDeque<Settlement>,
    /// The engine has some of them; the others wait.
    under_way: bool,
}

impl Shard {
    /// Hands settlements by evidence to the engine, all of an interval at once.
    pub(super) fn flush_settlements(&mut self, at_once: bool) {
        let now = self.turn.now;
        if !self.flushing.waiting.is_empty() || self.flushing.under_way {
            return self.flush_more(at_once);
        }
        if self.turn.settlements.is_empty() {
            self.flush_at = None;
            return;
        }
        let due = *self.flush_at.get_or_insert(now.plus(self.shared.ack_flush));
        // Evidence that came in time must not lose to an expiry that comes before the flush.
        let expiring = self
            .turn
            .soonest_expiry
            .is_some_and(|at| at <= self.turn.wall.plus(self.shared.ack_flush));
        self.turn.soonest_expiry.take_if(|at| *at <= self.turn.wall);
        if due > now && !at_once && !expiring && !self.turn.draining {
            return;
        }
        self.flush_at = None;
        let batch = std::mem::take(&mut self.turn.settlements);
        self.turn.stats.add_settled(batch.len() as u64);
        self.flushing.waiting = merged(batch).into();
        self.flush_more(at_once);
    }

    /// Hands over the next of what is due: a part at a time, so that what others publish waits for no more than that.
    fn flush_more(&mut self, at_once: bool) {
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        if at_once {
            // The engine closes next: what is known must reach it before.
            let mut batch: Vec<_> = std::mem::take(&mut self.flushing.waiting).into();
            batch.append(&mut self.turn.settlements);
            if let Err(error) = self.shared.block_on(shared.engine.settle(batch, Sync::Lazy)) {
                tracing::debug!(%error, "the last settlements were not taken");
            }
            return;
        }
        if self.flushing.under_way || self.flushing.waiting.is_empty() {
            return;
        }
        self.flushing.under_way = true;
        let count = self.flushing.waiting.len().min(MAX_FLUSHED);
        let batch: Vec<_> = self.flushing.waiting.drain(..count).collect();
        if self.flushing.waiting.is_empty() {
            // At rest it keeps no memory.
            self.flushing.waiting = VecDeque::new();
        }
        self.shared.spawn(async move {
            let left = match shared.settle(batch.clone(), Sync::Lazy).await {
                Ok(_) => Vec::new(),
                Err(error) => {
                    tracing::debug!(%error, "settlements will be tried again");
                    // In a drain they are handed over again as soon as they are back.
                    tokio::time::sleep(SETTLE_PAUSE).await;
                    batch
                }
            };
            mailbox.post(Post::Flushed(left));
        });
    }

    /// The engine has a part of what was due, but for these, which are to be tried again with the next.
    pub(super) fn flushed(&mut self, left: Vec<Settlement>) {
        self.flushing.under_way = false;
        let room = MAX_UNFLUSHED.saturating_sub(self.turn.settlements.len());
        self.turn.settlements.extend(left.into_iter().take(room));
    }

    /// Hands the attempts that are due to be counted to the engine. One batch at a time, so that a slow store gathers
    /// them here and not in tasks.
    pub(super) fn flush_attempts(&mut self) {
        let now = self.turn.now;
        if self.counting || self.turn.attempts.front().is_none_or(|(due, _)| *due > now) {
            return;
        }
        self.counting = true;
        let due = self.turn.attempts.partition_point(|(due, _)| *due <= now);
        let batch: Vec<_> = self
            .turn
            .attempts
            .drain(..due)
            .map(|(_, attempt)| attempt)
            .collect();
        if self.turn.attempts.is_empty() {
            // At rest it keeps no memory.
            self.turn.attempts = VecDeque::new();
        }
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        self.shared.spawn(async move {
            let left = match shared.engine.attempt(batch.clone()).await {
                Ok(()) => Vec::new(),
                Err(error) if error.is_transient() => {
                    tracing::debug!(%error, "attempts will be counted later");
                    tokio::time::sleep(SETTLE_PAUSE).await;
                    batch
                }
                Err(error) => {
                    tracing::warn!(%error, "attempts could not be counted");
                    Vec::new()
                }
            };
            mailbox.post(Post::Attempted(left));
        });
    }

    /// The engine closes next: what was attempted should reach it before.
    pub(super) fn flush_last_attempts(&mut self) {
        let waiting = std::mem::take(&mut self.turn.attempts);
        if waiting.is_empty() {
            return;
        }
        let batch = waiting.into_iter().map(|(_, attempt)| attempt).collect();
        if let Err(error) = self.shared.block_on(self.shared.engine.attempt(batch)) {
            tracing::debug!(%error, "the last attempts were not counted");
        }
    }
}

/// What covers another: evidence of the same kind, later, of the same user in the same feed.
type Covers = (UserId, FeedId, Evidence, Transport);

/// Leaves those that say more than the ones after them: of a user who polled ten times meanwhile, the last.
fn merged(settlements: Vec<Settlement>) -> Vec<Settlement> {
    let mut kept: Vec<Settlement> = Vec::with_capacity(settlements.len());
    let mut last: foldhash::HashMap<Covers, usize> = foldhash::HashMap::default();
    last.reserve(settlements.len());
    for settlement in settlements {
        let (SettleTarget::Through(places), Some(transport)) = (&settlement.target, settlement.transport)
        else {
            kept.push(settlement);
            continue;
        };
        let [(feed, place)] = &places[..] else {
            kept.push(settlement);
            continue;
        };
        let covers = (
            settlement.user.clone(),
            feed.clone(),
            settlement.evidence,
            transport,
        );
        let at = *last.entry(covers).or_insert(kept.len());
        match kept.get_mut(at) {
            None => kept.push(settlement),
            Some(before) if reaches(before) <= place.offset => *before = settlement,
            Some(_) => {}
        }
    }
    kept
}

/// The offset through which it settles.
fn reaches(settlement: &Settlement) -> u64 {
    match &settlement.target {
        SettleTarget::Through(places) => places.first().map_or(0, |(_, place)| place.offset),
        SettleTarget::Ids(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::{Epoch, NotificationId, Position, SettleKind};

    fn settlement(user: &str, feed: FeedId, offset: u64, evidence: Evidence) -> Settlement {
        let epoch = Epoch(1);
        Settlement {
            user: UserId::new(user).unwrap(),
            kind: SettleKind::Delivered,
            target: SettleTarget::Through(vec![(feed, Position { epoch, offset })]),
            evidence,
            session: Some(session_id(1, offset)),
            transport: Some(Transport::LongPoll),
        }
    }

    #[test]
    fn only_what_a_later_one_covers_is_left_out() {
        let own = || FeedId::User(UserId::new("ada").unwrap());
        let ids = Settlement {
            target: SettleTarget::Ids(vec![NotificationId::new("n").unwrap()]),
            ..settlement("ada", own(), 0, Evidence::Cursor)
        };
        let all = [
            settlement("ada", own(), 1, Evidence::Cursor),
            settlement("bob", FeedId::All, 7, Evidence::Cursor),
            settlement("ada", own(), 3, Evidence::Cursor),
            settlement("ada", FeedId::All, 2, Evidence::Cursor),
            ids.clone(),
            settlement("ada", own(), 2, Evidence::Cursor),
            settlement("ada", own(), 1, Evidence::Pong),
            ids,
        ];
        let kept = merged(all.to_vec());
        let wanted = [2, 1, 3, 4, 6, 7].map(|at: usize| format!("{:?}", all[at]));
        assert_eq!(
            kept.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>(),
            wanted
        );
    }
}
