//! Which poll begins when, and what becomes of what it brings, or of its failure.

use super::{Held, Pump, State, now};
use crate::queue::Pauses;
use crate::sqs::BATCH_MOST;
use crate::sqs::aws::{self, fault, is_no_queue, is_of_queue};
use crate::sqs::holds::Holds;
use crate::sqs::message::Incoming;
use crate::sqs::plan::Poll;
use postrider_aws::Trouble;
use postrider_model::{FeedId, Millis, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// While it is not known whether SQS is there, so many users' queues are polled, each for so long.
const PROBES: usize = 4;
const PROBE: Duration = Duration::from_secs(1);
/// Messages of FIFO queues that wait behind others of their groups. Above this nothing is fetched.
const BEHIND_MOST: usize = 256;
/// Before a user's queue is polled again that is not there, or refused.
const MISSING: Pauses = Pauses {
    first: Millis(2_000),
    most: Millis(60_000),
};
/// Before it is polled again after SQS was away: once SQS is back, its user waits no longer.
const AWAY: Pauses = Pauses {
    first: Millis(200),
    most: Millis(2_000),
};
/// Before it is polled again where SQS is asked too often.
const THROTTLED: Pauses = Pauses {
    most: Millis(10_000),
    ..AWAY
};
/// Before the one queue is polled again while it is in doubt whether SQS is away.
const DOUBT: Pauses = Pauses {
    first: Millis(50),
    most: Millis(500),
};
/// Of failures of single queues one in so many is logged.
const LOG_ONE_IN: u64 = 1_000;

impl Pump {
    /// Begins polls while there are some to be begun.
    pub(super) async fn conduct(self: Arc<Pump>) {
        let mut polls = JoinSet::new();
        loop {
            while let Some((poll, attempt)) = self.next() {
                polls.spawn(self.clone().poll(poll, attempt));
            }
            let due = self.state().plan.due();
            let pause = due.map(|at| at.0.saturating_sub((self.steady)().0).max(1));
            tokio::select! {
                Some(_) = polls.join_next(), if !polls.is_empty() => {}
                () = self.tally.changed.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(pause.unwrap_or(0))), if pause.is_some() => {}
            }
        }
    }

    /// The next poll to be begun, and the name of the attempt.
    fn next(&self) -> Option<(Poll, Option<String>)> {
        let (time, settled) = ((self.steady)(), self.tally.take());
        let mut state = self.state();
        let state = &mut *state;
        settled.iter().for_each(|user| state.plan.settled(user));
        state.plan.tick(time);
        let is_wanted = !state.is_closed && state.ready.is_empty() && state.groups.waiting() <= BEHIND_MOST;
        let is_probe = !state.circuit.is_proven() && !state.plan.is_one();
        // Who only opens wants an answer, and no message.
        let most = match state.waiting.values().min() {
            Some(most) => *most,
            None if is_probe && state.proving > 0 => 1,
            None => return None,
        };
        if !is_wanted || (state.fault.is_some() && state.plan.is_one()) {
            return None;
        }
        if is_probe && state.probes >= PROBES {
            return None;
        }
        let batch = most.clamp(1, self.service.access.parallel.clamp(1, BATCH_MOST));
        let mut poll = state.plan.next(time, state.waiting.len().max(1), batch)?;
        if is_probe {
            poll.is_probe = true;
            poll.wait = poll.wait.min(PROBE);
            state.probes += 1;
        }
        let attempt = aws::is_fifo(&poll.queue).then(|| state.attempt(&self.service.access.node));
        Some((poll, attempt))
    }

    async fn poll(self: Arc<Pump>, poll: Poll, attempt: Option<String>) {
        let mut under_way = UnderWay {
            pump: self.clone(),
            poll: Some(poll.clone()),
        };
        let answer = self
            .service
            .receive(&poll.queue, poll.wait, poll.most, attempt.as_deref())
            .await;
        under_way.poll = None;
        let unwanted = match answer {
            Ok(came) => self.came(&poll, came),
            Err(trouble) => {
                self.failed(&poll, &trouble, attempt);
                Vec::new()
            }
        };
        self.arrived.notify_waiters();
        if !unwanted.is_empty() {
            self.release(unwanted).await;
            self.state().releasing -= 1;
        }
        self.ended.notify_waiters();
    }

    /// Takes in what a poll brought; gives back what nobody wants.
    fn came(&self, poll: &Poll, came: Vec<Incoming>) -> Vec<Held> {
        let (time, came_at) = ((self.steady)(), now());
        let mut state = self.state();
        state.fault = None;
        state.refused = None;
        state.circuit.well(time);
        state.probes -= usize::from(poll.is_probe);
        let is_here = state.plan.done(poll, time, came.len());
        let is_wanted = is_here && !state.is_closed;
        // Of who has left nothing was counted.
        let user = poll.user.as_ref().filter(|_| is_here);
        let held = came.into_iter().map(|mut incoming| {
            incoming.message.feed = poll.user.clone().map(FeedId::User);
            Held {
                incoming,
                queue: poll.queue.clone(),
                came: came_at,
                holds: Holds::default(),
                counted: user.map(|user| self.tally.count(user)),
            }
        });
        let held: Vec<_> = held.collect();
        if !is_wanted {
            // Who closes waits until they are given back.
            state.releasing += usize::from(!held.is_empty());
            return held;
        }
        for one in &held {
            if let Some(group) = one.group() {
                state.groups.comes_anew(group);
            }
        }
        held.into_iter().for_each(|one| state.take_in(one));
        Vec::new()
    }

    fn failed(&self, poll: &Poll, trouble: &Trouble, attempt: Option<String>) {
        let is_of_queue = poll.user.is_some() && is_of_queue(trouble);
        let pauses = match &poll.user {
            Some(_) if is_of_queue => MISSING,
            Some(_) if matches!(trouble, Trouble::Throttled(_)) => THROTTLED,
            Some(_) => AWAY,
            None => DOUBT,
        };
        let (random, time) = ((self.random)(), (self.steady)());
        let mut state = self.state();
        state.plan.failed(poll, time, |nth| pauses.nth(nth, random));
        state.probes -= usize::from(poll.is_probe);
        state
            .lost_attempts
            .extend(attempt.filter(|_| trouble.is_transient()));
        if is_of_queue {
            self.queue_failed(&mut state, poll, trouble, time);
            return;
        }
        let is_likely = state.circuit.failed(poll.began, poll.wait, time);
        let is_away = is_likely && (!state.circuit.is_proven() || state.plan.all_fail());
        if is_away || !trouble.is_transient() {
            state.circuit.open();
            state.fault = Some(fault(trouble));
        }
    }

    /// A user's queue is refused; that alone is no fault of SQS.
    fn queue_failed(&self, state: &mut State, poll: &Poll, trouble: &Trouble, time: Timestamp) {
        if is_no_queue(trouble) {
            // SQS is there, and says so to us.
            state.circuit.well(time);
        } else if state.plan.all_fail() {
            state.circuit.open();
            state.fault = Some(fault(trouble));
        } else {
            state.refused = Some(fault(trouble));
        }
        if let Some(count) = self.missing.due(LOG_ONE_IN) {
            tracing::warn!(queue = %poll.queue, %trouble, count, "a user's queue cannot be read; it is tried again");
        }
    }
}

/// A poll under way; one that was broken off, or panicked, counts as failed.
struct UnderWay {
    pump: Arc<Pump>,
    poll: Option<Poll>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(poll) = self.poll.take() {
            let time = (self.pump.steady)();
            let mut state = self.pump.state();
            state.plan.failed(&poll, time, |_| AWAY.first);
            state.probes -= usize::from(poll.is_probe);
            drop(state);
            self.pump.ended.notify_waiters();
        }
    }
}
