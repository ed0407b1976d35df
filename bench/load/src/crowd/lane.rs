//! One kind of publications: who gets them, how they go in, when, and how long they took.

use crate::account::{Account, Totals};
use crate::histogram::Histogram;
use crate::net::Net;
use crate::payload::Payload;
use crate::publisher::{Publisher, Way};
use crate::target::Target;
use anyhow::{Context as _, Result, bail};
use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Numbers of a lane lie between multiples of this one.
const NUMBERS: u64 = 2_500_000_000;
/// Publications that may wait in one turn before sockets are looked at again.
const TURN: usize = 200;
/// Deliveries of the beginning of a steady rate that are checked, but not measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// Who gets a lane's publications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Every session gets each.
    Everyone,
    /// One user gets each, in turn, by these names.
    Each(Vec<String>),
}

/// When a lane publishes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Drive {
    /// Not now.
    Off,
    /// As fast as it is taken, with so many publications in flight, that is not delivered yet, for a time.
    Window(u64, Duration),
    /// So many a second, for a time.
    Rate(f64, Duration),
    /// So many at once, and that is all.
    Burst(u64),
}

impl Drive {
    /// How long it publishes.
    pub fn time(&self) -> Duration {
        match self {
            Drive::Off | Drive::Burst(_) => Duration::ZERO,
            Drive::Window(_, time) | Drive::Rate(_, time) => *time,
        }
    }
}

/// What became of one drive.
#[derive(Clone, Default)]
pub struct Outcome {
    /// Publications.
    pub published: u64,
    /// Deliveries.
    pub delivered: u64,
    /// From the first publication to the last delivery.
    pub time: Duration,
    /// How long deliveries took.
    pub took: Histogram,
}

/// A lane.
pub struct Lane {
    pub(super) tags: Range<usize>,
    pub(super) publisher: Publisher,
    audience: Audience,
    first: u64,
    receivers: usize,
    payload: Payload,
    is_ordered: bool,
    next: u64,
    account: Account,
    /// Of publications to everyone: how many have yet to get each, and since when, the oldest first.
    in_flight: VecDeque<(usize, Instant)>,
    /// Of publications to one: when the last one to each was sent.
    began: Vec<Instant>,
    drive: Drive,
    start: Instant,
    start_next: u64,
    start_delivered: u64,
    last: Instant,
    took: Histogram,
}

/// Whether what each receiver gets has an order that can be judged: requests over several connections have none
/// among them, however far they lie apart, since any connection may be held up.
fn is_ordered(way: Way) -> bool {
    matches!(way, Way::Stream | Way::Requests { connections: 1, .. })
}

impl Lane {
    /// Opens its publisher. `nth` tells its numbers from other lanes'; connections' tags count from `tag`.
    ///
    /// # Errors
    /// There is no connection to be had.
    pub fn open(
        net: &mut Net,
        target: &Target,
        audience: Audience,
        receivers: usize,
        payload: &Payload,
        way: Way,
        place: (usize, usize),
    ) -> Result<Lane> {
        let (nth, tag) = place;
        let connections = match way {
            Way::Stream => 1,
            Way::Requests { connections, .. } => connections,
        };
        let now = net.now();
        Ok(Lane {
            tags: tag..tag + connections,
            publisher: Publisher::open(net, target, way, tag)?,
            first: nth as u64 * NUMBERS,
            is_ordered: is_ordered(way),
            began: match &audience {
                Audience::Everyone => Vec::new(),
                Audience::Each(_) => vec![now; receivers],
            },
            audience,
            receivers,
            payload: payload.clone(),
            next: 0,
            account: Account::new(receivers),
            in_flight: VecDeque::new(),
            drive: Drive::Off,
            start: now,
            start_next: 0,
            start_delivered: 0,
            last: now,
            took: Histogram::default(),
        })
    }

    pub(super) fn owns(&self, number: u64) -> bool {
        (self.first..self.first + NUMBERS).contains(&number)
    }

    pub(super) fn begin(&mut self, drive: Drive, now: Instant) {
        self.drive = drive;
        self.start = now;
        self.last = now;
        self.start_next = self.next;
        self.start_delivered = self.account.delivered();
        self.took = Histogram::default();
    }

    /// Publishes what is due now. True when nothing more will be published and all is delivered and accepted.
    pub(super) fn feed(&mut self, net: &mut Net, now: Instant) -> Result<bool> {
        let mut pushed = 0;
        // A request that was begun is filled, whatever the window says.
        while pushed < TURN
            && (self.wants(now) || self.publisher.is_gathering())
            && self.publisher.has_room(net)
        {
            self.push(net, now)?;
            pushed += 1;
        }
        if pushed > 0 {
            self.publisher.flush(net)?;
        }
        Ok(!self.goes_on(now) && self.undelivered() == 0 && self.publisher.is_settled())
    }

    /// Whether so many were published and all of them accepted.
    pub(super) fn is_accepted(&self, count: u64) -> bool {
        self.published() >= count && self.publisher.is_settled()
    }

    /// The account so far.
    pub fn totals(&self) -> Totals {
        self.account.totals()
    }

    /// Whether it could publish more at once.
    pub(super) fn has_more(&self, net: &Net, now: Instant) -> bool {
        self.wants(now) && self.publisher.has_room(net)
    }

    fn undelivered(&self) -> u64 {
        match self.audience {
            Audience::Everyone => self.in_flight.len() as u64,
            Audience::Each(_) => self.next - self.account.delivered(),
        }
    }

    fn published(&self) -> u64 {
        self.next - self.start_next
    }

    /// Whether there is more to publish, now or later.
    fn goes_on(&self, now: Instant) -> bool {
        match self.drive {
            Drive::Off => false,
            Drive::Window(_, time) => now < self.start + time,
            Drive::Rate(rate, time) => (self.published() as f64) < rate * time.as_secs_f64(),
            Drive::Burst(count) => self.published() < count,
        }
    }

    fn wants(&self, now: Instant) -> bool {
        self.goes_on(now)
            && match self.drive {
                Drive::Window(most, _) => self.undelivered() < most,
                Drive::Rate(..) => self.next_due().is_some_and(|due| due <= now),
                _ => true,
            }
    }

    /// When the next publication of a steady rate is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let Drive::Rate(rate, _) = self.drive else {
            return None;
        };
        self.goes_on(self.start).then(|| self.due(rate, self.published()))
    }

    fn due(&self, rate: f64, nth: u64) -> Instant {
        self.start + Duration::from_secs_f64(nth as f64 / rate)
    }

    fn push(&mut self, net: &mut Net, now: Instant) -> Result<()> {
        let since = match self.drive {
            Drive::Rate(rate, _) => self.due(rate, self.published()),
            _ => now,
        };
        let user = match &self.audience {
            Audience::Everyone => {
                self.in_flight.push_back((self.receivers, since));
                None
            }
            Audience::Each(names) => {
                let index = (self.next % self.receivers as u64) as usize;
                self.began[index] = since;
                Some((index, names[index].as_str()))
            }
        };
        self.publisher
            .push(net, &self.payload, user, self.first + self.next)?;
        self.next += 1;
        Ok(())
    }

    pub(super) fn received(&mut self, user: usize, number: u64, now: Instant) -> Result<()> {
        let (nth, users) = (number - self.first, self.receivers as u64);
        let since = match &self.audience {
            Audience::Everyone => {
                if !self.account.received(user, nth)? {
                    return Ok(());
                }
                let oldest = self.next - self.in_flight.len() as u64;
                let left = nth.checked_sub(oldest);
                let (left, since) = left
                    .and_then(|at| self.in_flight.get_mut(at as usize))
                    .with_context(|| format!("{number} was delivered before, or not sent yet"))?;
                *left -= 1;
                let since = *since;
                while self.in_flight.front().is_some_and(|(left, _)| *left == 0) {
                    self.in_flight.pop_front();
                }
                since
            }
            Audience::Each(_) => {
                if nth % users != user as u64 {
                    bail!("user {user} got {number}, which is another's");
                }
                if !self.account.received(user, nth / users)? {
                    return Ok(());
                }
                self.began[user]
            }
        };
        self.last = now;
        if !matches!(self.drive, Drive::Rate(..)) || since >= self.start + WARM_UP {
            self.took.record(now.saturating_duration_since(since));
        }
        Ok(())
    }

    pub(super) fn outcome(&mut self) -> Outcome {
        let drive = std::mem::replace(&mut self.drive, Drive::Off);
        let is_idle = drive == Drive::Off;
        Outcome {
            published: self.published(),
            delivered: self.account.delivered() - self.start_delivered,
            time: if is_idle {
                Duration::ZERO
            } else {
                self.last - self.start
            },
            took: std::mem::take(&mut self.took),
        }
    }

    pub(super) fn behind(&self) -> String {
        format!(
            "{} published, {} not delivered, {}",
            self.next,
            self.undelivered(),
            if self.publisher.is_settled() {
                "all accepted"
            } else {
                "not all accepted"
            }
        )
    }

    pub(super) fn close(self) -> Result<Totals> {
        let (next, users) = (self.next, self.receivers as u64);
        let account = self.account;
        let sent = |user: usize| match self.audience {
            Audience::Everyone => next,
            Audience::Each(_) => (next + users - 1 - user as u64) / users,
        };
        if self.is_ordered {
            account.close(sent)
        } else {
            account.close_unordered(sent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_judged_where_there_is_one() {
        let requests = |connections| Way::Requests {
            connections,
            batch: 1,
        };
        assert!(is_ordered(Way::Stream) && is_ordered(requests(1)));
        assert!(!is_ordered(requests(2)));
    }
}
