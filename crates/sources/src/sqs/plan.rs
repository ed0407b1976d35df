//! What is polled: one queue, by so many at a time, or the queues of users in turns.

use super::turns::Turns;
use crate::template::Template;
use postrider_model::{Millis, Timestamp, UserId};
use std::sync::Arc;
use std::time::Duration;

/// A poll that may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Poll {
    pub queue: Arc<str>,
    /// Whose it is, where queues are users'.
    pub user: Option<UserId>,
    pub wait: Duration,
    /// For so many messages.
    pub most: usize,
    pub began: Timestamp,
    /// It is to find out whether SQS is there.
    pub is_probe: bool,
}

/// See the module.
pub(super) enum Plan {
    One {
        /// Not known before it was found.
        queue: Option<Arc<str>>,
        wait: Duration,
        workers: usize,
        polling: usize,
        /// Polls that failed in a row, and when there may be another.
        failures: u32,
        resume: Option<Timestamp>,
    },
    Users {
        address: Template,
        turns: Box<Turns>,
    },
}

impl Plan {
    /// One queue, whose address is not known yet.
    pub fn one(wait: Duration, workers: usize) -> Plan {
        Plan::One {
            queue: None,
            wait,
            workers: workers.max(1),
            polling: 0,
            failures: 0,
            resume: None,
        }
    }

    pub fn tick(&mut self, now: Timestamp) {
        match self {
            Plan::Users { turns, .. } => turns.tick(now),
            Plan::One { resume, .. } => *resume = resume.filter(|at| *at > now),
        }
    }

    /// The next poll to be begun, while so many wait for messages, for at most `batch`. One queue has no more polls than
    /// that; of many each may have the message that is waited for.
    pub fn next(&mut self, now: Timestamp, waiting: usize, batch: usize) -> Option<Poll> {
        if waiting == 0 {
            return None;
        }
        match self {
            Plan::One {
                queue,
                wait,
                workers,
                polling,
                resume,
                ..
            } => {
                let queue = queue.clone()?;
                let may_begin = resume.is_none() && *polling < waiting.min(*workers);
                *polling += usize::from(may_begin);
                may_begin.then_some(Poll {
                    queue,
                    user: None,
                    wait: *wait,
                    most: batch,
                    began: now,
                    is_probe: false,
                })
            }
            Plan::Users { address, turns } => {
                let next = turns.next(batch)?;
                Some(Poll {
                    queue: address.name(next.user.as_str()).into(),
                    user: Some(next.user),
                    wait: next.wait,
                    most: next.most,
                    began: now,
                    is_probe: false,
                })
            }
        }
    }

    /// A poll ended well, and brought so many messages. Whether they are wanted.
    pub fn done(&mut self, poll: &Poll, now: Timestamp, brought: usize) -> bool {
        match (self, &poll.user) {
            (Plan::Users { turns, .. }, Some(user)) => turns.done(user, now, brought),
            (
                Plan::One {
                    polling,
                    failures,
                    resume,
                    ..
                },
                _,
            ) => {
                *polling = polling.saturating_sub(1);
                (*failures, *resume) = (0, None);
                true
            }
            _ => true,
        }
    }

    /// A poll failed.
    pub fn failed(&mut self, poll: &Poll, now: Timestamp, pause: impl FnOnce(u32) -> Millis) {
        match (self, &poll.user) {
            (Plan::Users { turns, .. }, Some(user)) => turns.failed(user, now, pause),
            (
                Plan::One {
                    polling,
                    failures,
                    resume,
                    ..
                },
                _,
            ) => {
                *polling = polling.saturating_sub(1);
                *resume = Some(now.plus(pause(*failures)));
                *failures = failures.saturating_add(1);
            }
            _ => {}
        }
    }

    /// One message of this user is nobody's any more.
    pub fn settled(&mut self, user: &UserId) {
        if let Plan::Users { turns, .. } = self {
            turns.settled(user);
        }
    }

    /// Whether the last poll failed of the one queue, or of every user's: no other says that SQS is there. To be asked after
    /// one failed.
    pub fn all_fail(&self) -> bool {
        match self {
            Plan::One { .. } => true,
            Plan::Users { turns, .. } => turns.all_fail(),
        }
    }

    /// When something is due by itself.
    pub fn due(&self) -> Option<Timestamp> {
        match self {
            Plan::One { resume, .. } => *resume,
            Plan::Users { turns, .. } => turns.due(),
        }
    }

    pub fn is_one(&self) -> bool {
        matches!(self, Plan::One { .. })
    }

    /// Whether there is nothing to be polled.
    pub fn is_idle(&self) -> bool {
        self.queues() == 0
    }

    pub fn queues(&self) -> usize {
        match self {
            Plan::One { queue, .. } => usize::from(queue.is_some()),
            Plan::Users { turns, .. } => turns.users(),
        }
    }

    pub fn polling(&self) -> usize {
        match self {
            Plan::One { polling, .. } => *polling,
            Plan::Users { turns, .. } => turns.polling(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_queue_is_polled_again_after_a_pause_that_a_success_ends() {
        let mut plan = Plan::one(Duration::from_secs(20), 2);
        let at = Timestamp;
        assert_eq!(plan.next(at(0), 9, 10), None, "no address");
        if let Plan::One { queue, .. } = &mut plan {
            *queue = Some("q".into());
        }
        let first = plan.next(at(0), 9, 10).unwrap();
        let second = plan.next(at(0), 9, 10).unwrap();
        assert_eq!((plan.next(at(0), 9, 10), plan.polling()), (None, 2));
        let pause = |nth: u32| Millis(10 << nth);
        plan.failed(&first, at(100), pause);
        assert_eq!((plan.next(at(100), 9, 10), plan.due()), (None, Some(at(110))));
        plan.failed(&second, at(105), pause);
        plan.tick(at(124));
        assert_eq!((plan.next(at(124), 9, 10), plan.due()), (None, Some(at(125))));
        plan.tick(at(125));
        let again = plan.next(at(125), 9, 10).unwrap();
        plan.failed(&again, at(126), pause);
        plan.tick(at(166));
        let again = plan.next(at(166), 9, 10).unwrap();
        assert!(plan.done(&again, at(170), 1));
        let again = plan.next(at(170), 9, 10).unwrap();
        plan.failed(&again, at(171), pause);
        assert_eq!(plan.due(), Some(at(181)), "it begins anew");
    }
}
