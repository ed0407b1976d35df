//! What the writer of a node does that nobody asked for: what is due of what falls to it; and, where it keeps house,
//! forgetting what is too old.
//!
//! Invariant: each of them is done in a transaction of its own kind. What is too old is never forgotten ahead of what
//! is due, whichever node is to do that. A node to which nothing falls asks the store nothing for it, and one where
//! nothing is due asks once in a [`MOST_REST`].

use super::super::{DUE_INTERVAL, SWEEP_RETRY, Turn, WriterThread, now};
use super::{Fate, believed};
use crate::embedded::StoreFault;
use crate::embedded::apply::{Apply, Counts, Upcoming};
use crate::embedded::lanes::Share;
use crate::embedded::looks::AT_ONCE;
use postrider_model::Timestamp;
use std::time::{Duration, Instant};

/// How often what is too old is looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time between two looks for what is due. What other nodes put later than that is seen in time; what they
/// put sooner they do themselves.
const MOST_REST: Duration = Duration::from_secs(1);
/// The shortest: what falls due meanwhile is done together.
const LEAST_REST: Duration = Duration::from_millis(25);
/// The longest where what falls to this node waits for others: they need not be asked more often the longer it takes.
const MOST_WAIT: Duration = Duration::from_millis(500);
/// How often one transaction of what is due is done in a row while the store keeps it for this node.
const MOST_KEPT: u32 = 4;
/// How long a node goes on with what it put itself, after its time.
const GRACE: Duration = Duration::from_millis(200);

/// When a node looks for what is due, and for how much of it.
#[derive(Debug)]
pub(super) struct Rhythm {
    /// When to look. `None`: now.
    look: Option<Instant>,
    /// What fell to it when it last looked.
    share: Share,
    /// Transactions in a row that others were in the way of.
    crowd: u32,
    /// Looks in a row that found nothing but what waits for others.
    waited: u32,
    /// It does all that is due until then.
    all_until: Option<Instant>,
}

impl Default for Rhythm {
    fn default() -> Self {
        Rhythm {
            look: None,
            share: Share::NONE,
            crowd: 0,
            waited: 0,
            all_until: None,
        }
    }
}

impl Rhythm {
    /// This node put something that becomes due at `due`. Whoever it falls to may not look before that.
    pub fn put(&mut self, due: Timestamp, clock: Timestamp, now: Instant) {
        let ahead = Duration::from_millis(due.0.saturating_sub(clock.0));
        if ahead <= MOST_REST {
            let at = now + ahead;
            self.look = self.look.map(|look| look.min(at));
            self.all_until = Some(at + GRACE).max(self.all_until);
        }
    }

    /// How long the writer may rest where nothing else is to be done.
    pub fn rest(&self, now: Instant) -> Duration {
        let until = self.look.map(|at| at.saturating_duration_since(now));
        until.map_or(DUE_INTERVAL, |rest| {
            rest.clamp(Duration::from_millis(1), DUE_INTERVAL)
        })
    }

    /// What this node does now, of what falls to it by the book.
    fn does(&self, falls: Share, now: Instant) -> Share {
        match self.all_until {
            Some(until) if now < until => Share::ALL,
            _ => falls,
        }
    }

    fn is_time(&self, share: Share, now: Instant) -> bool {
        share != self.share || self.look.is_none_or(|at| now >= at)
    }

    /// It looked, by a clock that said `clock`, and found this.
    fn found(&mut self, upcoming: &Upcoming, clock: Timestamp, now: Instant) {
        let ahead = Duration::from_millis(upcoming.undone.0.saturating_sub(clock.0));
        self.waited = match upcoming.waits && upcoming.rows.is_empty() {
            true => self.waited.saturating_add(1),
            false => 0,
        };
        let rest = match upcoming.waits {
            true => (LEAST_REST * (1 << self.waited.saturating_sub(1).min(8))).min(MOST_WAIT),
            // It is others', who are late.
            false if ahead.is_zero() => DUE_INTERVAL,
            false => ahead.clamp(LEAST_REST, MOST_REST),
        };
        self.look = Some(now + rest);
    }

    /// What it found cannot be read, and will not be for a while.
    fn met_damage(&mut self, now: Instant) {
        self.look = Some(now + MOST_REST);
    }

    /// Others were in the way.
    fn met_others(&mut self, now: Instant) {
        self.crowd = self.crowd.saturating_add(1);
        self.look = Some(now + LEAST_REST);
    }
}

impl WriterThread {
    /// Does all that is due by now, whoever it falls to, and answers.
    pub(super) fn tick(&self, turn: &mut Turn) {
        let due = |turn: &mut Turn| self.do_due(turn, Share::ALL);
        let sweep = |turn: &mut Turn| self.forget_old(turn);
        for chore in [&due as &dyn Fn(&mut Turn) -> _, &sweep] {
            loop {
                match chore(turn) {
                    Ok(true) => turn.shared.passed(),
                    Ok(false) => {
                        turn.shared.passed();
                        break;
                    }
                    Err(fault) if self.is_to_be_tried_again(turn, &fault) => {}
                    Err(fault) => {
                        let tick = turn.jobs.pop_front().map(|job| (job, false));
                        return self.refuse_shared(turn, tick.into_iter().collect(), &fault);
                    }
                }
            }
        }
        if let Some(tick) = turn.jobs.pop_front() {
            tick.answer();
        }
    }

    /// Does some of what falls to this node: of what is due, and of what is too old.
    pub(super) fn keep_house(&self, turn: &mut Turn) {
        if turn.closing {
            return;
        }
        self.see_to_due(turn);
        if !self.store.keeps_house() {
            // It is another's: nothing here keeps the writer from its rest.
            turn.more_old = false;
            return self.count(turn);
        }
        if !turn.more_due && (turn.more_old || turn.sweep.is_none_or(|at| now() >= at)) {
            let swept = self.forget_old(turn);
            let swept = self.kept(turn, swept);
            turn.more_old = swept == Some(true);
            let rest = if swept.is_some() {
                SWEEP_INTERVAL
            } else {
                SWEEP_RETRY
            };
            turn.sweep = Some(now() + rest);
        }
    }

    fn see_to_due(&self, turn: &mut Turn) {
        self.health.chores.fetch_add(1, super::super::Ordering::Relaxed);
        let share = turn.shared.rhythm.does(self.store.share(), now());
        if share.is_empty() {
            turn.more_due = false;
            (turn.shared.rhythm.share, turn.shared.rhythm.look) = (share, None);
            return;
        }
        if !turn.more_due && !turn.shared.rhythm.is_time(share, now()) {
            return;
        }
        turn.shared.rhythm.share = share;
        let done = self.do_due(turn, share);
        match &done {
            Ok(_) => turn.shared.rhythm.crowd = 0,
            Err(StoreFault::Conflict) => turn.shared.rhythm.met_others(now()),
            Err(_) => turn.shared.rhythm.look = Some(now() + DUE_INTERVAL),
        }
        turn.more_due = self.kept(turn, done) == Some(true);
    }

    /// Where another node keeps house: now and then looks how much there is.
    fn count(&self, turn: &mut Turn) {
        if turn.sweep.is_some_and(|at| now() < at) {
            return;
        }
        turn.sweep = Some(now() + SWEEP_INTERVAL);
        match self.store.view().and_then(|view| view.tally()) {
            Ok(tally) => {
                let counts = Counts::of_tally(&tally.unwrap_or_default());
                self.says(&counts);
                self.works(turn);
            }
            Err(fault) => {
                self.is_to_be_tried_again(turn, &fault);
            }
        }
    }

    /// What became of a chore; `None` where it could not be done.
    fn kept(&self, turn: &mut Turn, done: Result<bool, StoreFault>) -> Option<bool> {
        match done {
            Ok(more) => Some(more),
            // Somebody else does it, or it is done next time: not at once, as others are at work there.
            Err(StoreFault::Conflict) => {
                self.health.clashes.fetch_add(1, super::super::Ordering::Relaxed);
                Some(false)
            }
            Err(fault @ StoreFault::Unready(_)) => {
                tracing::debug!(%fault, "what is due, or too old, waits");
                None
            }
            Err(fault) => {
                tracing::warn!(%fault, "what is due, or too old, waits");
                self.is_to_be_tried_again(turn, &fault);
                None
            }
        }
    }

    /// A look, and one transaction of what is due of this share. True if there is more.
    fn do_due(&self, turn: &mut Turn, share: Share) -> Result<bool, StoreFault> {
        self.health.chores.fetch_add(1, super::super::Ordering::Relaxed);
        // A look of its own: what is done must not rest on rows that fall to others, who are just doing them.
        let mut apply = self.open_shared(turn)?;
        let looked_at = apply.now;
        let upcoming = apply.upcoming(share, turn.shared.rhythm.crowd);
        let Some(upcoming) = readable(&apply, upcoming)? else {
            turn.shared.rhythm.met_damage(now());
            return Ok(false);
        };
        drop(apply);
        turn.shared.rhythm.found(&upcoming, looked_at, now());
        if upcoming.is_ripe && share.keeps_house() {
            let mut apply = self.open_shared(turn)?;
            let broken_up = apply.break_up_due();
            if readable(&apply, broken_up)?.is_some() && !apply.txn.batch().is_empty() {
                return self.done(apply, None, turn).map(|()| true);
            }
        }
        if upcoming.rows.is_empty() {
            self.works(turn);
            return Ok(false);
        }
        let done = self.do_found(&upcoming, turn);
        if matches!(done, Ok(_) | Err(StoreFault::Conflict)) {
            // Commands come next, and nothing is kept for those.
            self.store.gives_up();
        }
        done
    }

    /// One transaction of what a look found. True if there is more. Where others are in the way of much, the store keeps
    /// it for this node; then it is done again at once, before any command, whose commit would let go of what is kept.
    fn do_found(&self, upcoming: &Upcoming, turn: &mut Turn) -> Result<bool, StoreFault> {
        let before = turn.shared.rhythm.crowd.min(AT_ONCE);
        let mut kept = None;
        for tries in before..before + MOST_KEPT {
            let was_kept = kept.is_some();
            let mut apply = self.open_again(kept, turn)?;
            let left = apply.do_upcoming(upcoming);
            let Some(left) = readable(&apply, left)? else {
                turn.shared.rhythm.met_damage(now());
                return Ok(false);
            };
            if apply.txn.batch().is_empty() && !was_kept {
                self.works(turn);
                return Ok(left || upcoming.more);
            }
            let done = self.done(apply, Some(tries), turn);
            kept = turn.shared.kept.take();
            match done {
                Err(StoreFault::Conflict) if kept.is_some() => {}
                done => return done.map(|()| left || upcoming.more),
            }
            self.health.clashes.fetch_add(1, super::super::Ordering::Relaxed);
        }
        Err(StoreFault::Conflict)
    }

    /// One transaction of forgetting what is too old. True if there is more.
    fn forget_old(&self, turn: &mut Turn) -> Result<bool, StoreFault> {
        let mut apply = self.open_shared(turn)?;
        let upcoming = apply.upcoming(Share::NONE, u32::MAX);
        let Some(upcoming) = readable(&apply, upcoming)? else {
            return Ok(false);
        };
        drop(apply);
        let mut apply = self.open_shared(turn)?;
        // What is due at that time comes first.
        let before = Timestamp(upcoming.undone.0.saturating_sub(1));
        apply.now = apply.now.min(before);
        let more = apply.sweep();
        let Some(more) = readable(&apply, more)? else {
            return Ok(false);
        };
        if apply.txn.batch().is_empty() {
            self.works(turn);
            return Ok(more);
        }
        self.done(apply, None, turn)?;
        Ok(more)
    }

    /// Commits what a chore did. `tries`: as of [`With`](crate::embedded::store::With).
    fn done(&self, apply: Apply<'_>, tries: Option<u32>, turn: &mut Turn) -> Result<(), StoreFault> {
        let sync = !apply.appended.is_empty();
        match self.try_to_commit(apply, sync, 1, tries, turn) {
            Fate::Done => Ok(()),
            Fate::Again(fault) | Fate::Unknown(fault) => Err(fault),
        }
    }
}

/// What was made of rows; `None` where they are damaged, which is said.
fn readable<T>(apply: &Apply<'_>, made: Result<T, StoreFault>) -> Result<Option<T>, StoreFault> {
    match made.map_err(|fault| believed(&apply.txn, fault)) {
        Err(fault @ (StoreFault::Corrupt { .. } | StoreFault::Newer { .. })) => {
            tracing::error!(%fault, "what is due, or too old, cannot be done");
            Ok(None)
        }
        made => made.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upcoming(waits: bool, undone: u64) -> Upcoming {
        Upcoming {
            rows: Vec::new(),
            is_ripe: false,
            more: false,
            waits,
            undone: Timestamp(undone),
        }
    }

    #[test]
    fn who_waits_for_others_looks_less_and_less_often() {
        let (mut rhythm, clock, begin) = (Rhythm::default(), Timestamp(1000), now());
        let mut rests = Vec::new();
        for _ in 0..40 {
            rhythm.found(&upcoming(true, 900), clock, begin);
            rests.push((rhythm.look.unwrap() - begin).as_millis());
        }
        assert_eq!(rests[..6], [25, 50, 100, 200, 400, 500]);
        assert!(rests[6..].iter().all(|rest| *rest == 500));
        rhythm.found(&upcoming(false, 2000), clock, begin);
        rhythm.found(&upcoming(true, 900), clock, begin);
        assert_eq!(rhythm.look, Some(begin + LEAST_REST), "it waits anew");
    }

    #[test]
    fn what_cannot_be_read_is_not_looked_at_over_and_over() {
        let (mut rhythm, begin) = (Rhythm::default(), now());
        rhythm.met_damage(begin);
        assert!(!rhythm.is_time(Share::NONE, begin + MOST_REST / 2));
        assert_eq!(rhythm.rest(begin), DUE_INTERVAL);
    }
}
