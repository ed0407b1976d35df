//! What the endpoint said to one attempt, and what follows from that.
//!
//! Invariant: pure. What is the endpoint's own trouble (it is away, or fails whomever it is asked for) is never counted
//! against a connection; what it says of one connection is, and ends.

use crate::circuit::{Health, OPENS_AT};
use postrider_model::{Millis, Pauses};

/// A `Retry-After` counts up to this.
const MOST_RETRY_AFTER: Millis = Millis(60_000);
/// So many connections in a row that fail (5xx), with none served, are the endpoint's own trouble,
const UNWELL: u32 = 2;
/// and so many that are refused.
const REFUSED: u32 = 3;

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The connection has it (2xx).
    Pushed,
    /// The connection is not there any more (410).
    Gone,
    /// This will never go to this connection (400, 413).
    Unfit(String),
    /// Too many attempts (429).
    Throttled {
        /// Its `Retry-After`.
        after: Option<Millis>,
    },
    /// It failed (5xx), or gave no answer in time.
    Unwell {
        /// What it said, for people.
        what: String,
        /// Its `Retry-After`.
        after: Option<Millis>,
    },
    /// It refuses (403, 404 and the like): this connection, or, where it refuses all, this node, for its credentials or a
    /// wrong address.
    Refused(String),
    /// It cannot be reached.
    Away(String),
}

/// How often an attempt is repeated, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Most attempts that count against a connection.
    pub attempts: u32,
    /// Between two attempts.
    pub pauses: Pauses,
}

/// What follows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Notified,
    Gone,
    /// After so long.
    Again(Millis),
    /// It is given up, for this reason.
    Never(String),
}

impl Answer {
    /// From the status of an HTTP answer, what it said, and its `Retry-After`.
    pub fn of_status(status: u16, what: String, after: Option<Millis>) -> Answer {
        match status {
            200..=299 => Answer::Pushed,
            410 => Answer::Gone,
            429 => Answer::Throttled { after },
            400 | 413 => Answer::Unfit(what),
            500..=599 => Answer::Unwell { what, after },
            _ => Answer::Refused(what),
        }
    }

    /// Whether it failed, or refused, the connection. Where it does so to all, that is the endpoint's.
    pub(super) fn is_failed(&self) -> bool {
        matches!(self, Answer::Unwell { .. } | Answer::Refused(_))
    }

    /// Whether it is an attempt of the connection, rather than trouble of the endpoint with everybody. `is_closed` is
    /// whether the endpoint is trusted after it.
    pub(super) fn counts(&self, is_closed: bool) -> bool {
        match self {
            Answer::Unwell { .. } | Answer::Refused(_) => is_closed,
            Answer::Away(_) => false,
            _ => true,
        }
    }

    /// What a failure says of the endpoint, in the weight of a circuit. Only the first of a connection says anything, and
    /// little where others of the same push were served.
    pub(super) fn weight(&self, was_failed: bool, others_served: bool) -> u32 {
        match self {
            _ if was_failed => 0,
            _ if others_served => 1,
            Answer::Unwell { .. } => OPENS_AT.div_ceil(UNWELL),
            _ => OPENS_AT.div_ceil(REFUSED),
        }
    }

    /// What follows for the endpoint. A failure is of this connection, and weighs so much; `repeats` is how often this
    /// push was tried before.
    pub(super) fn health<'a>(
        &self,
        (recipient, weight): (&'a str, u32),
        patience: &Patience,
        repeats: u32,
        random: u64,
    ) -> Health<'a> {
        match self {
            Answer::Pushed | Answer::Gone | Answer::Unfit(_) => Health::Well,
            Answer::Throttled { after } => Health::Slow(pause(*after, patience, repeats, random)),
            Answer::Unwell { .. } | Answer::Refused(_) => Health::Failed { recipient, weight },
            Answer::Away(_) => Health::Away,
        }
    }

    /// What follows for this push. `counted` are the attempts that count, this one included where it does.
    pub(super) fn next(&self, patience: &Patience, counted: u32, repeats: u32, random: u64) -> Next {
        let again = |after: Option<Millis>| Next::Again(pause(after, patience, repeats, random));
        let is_last = counted >= patience.attempts;
        match self {
            Answer::Pushed => Next::Notified,
            Answer::Gone => Next::Gone,
            Answer::Unfit(what) => Next::Never(what.clone()),
            Answer::Throttled { .. } if is_last => {
                Next::Never(format!("too many requests (429), {counted} attempts"))
            }
            Answer::Unwell { what, .. } | Answer::Refused(what) if is_last => {
                Next::Never(format!("{what}, {counted} attempts"))
            }
            Answer::Throttled { after } | Answer::Unwell { after, .. } => again(*after),
            Answer::Refused(_) | Answer::Away(_) => again(None),
        }
    }
}

fn pause(after: Option<Millis>, patience: &Patience, repeats: u32, random: u64) -> Millis {
    let own = patience.pauses.nth(repeats, random);
    own.max(after.unwrap_or(Millis(0)).min(MOST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        attempts: 3,
        pauses: Pauses {
            first: Millis(100),
            most: Millis(1_000),
        },
    };

    fn next(answer: &Answer, counted: u32, repeats: u32) -> Next {
        answer.next(&PATIENCE, counted, repeats, u64::MAX)
    }

    #[test]
    fn what_a_status_means() {
        let of = |status| Answer::of_status(status, "x".into(), Some(Millis(5)));
        let after = Some(Millis(5));
        assert_eq!((of(200), of(204)), (Answer::Pushed, Answer::Pushed));
        assert_eq!(of(410), Answer::Gone);
        assert_eq!(of(429), Answer::Throttled { after });
        for unfit in [400, 413] {
            assert_eq!(of(unfit), Answer::Unfit("x".into()));
        }
        for unwell in [500, 502, 503, 504] {
            let what = "x".into();
            assert_eq!(of(unwell), Answer::Unwell { what, after });
        }
        for refused in [301, 401, 403, 404] {
            assert_eq!(of(refused), Answer::Refused("x".into()));
        }
    }

    #[test]
    fn what_is_over_is_over() {
        for (answer, over) in [
            (Answer::Pushed, Next::Notified),
            (Answer::Gone, Next::Gone),
            (Answer::Unfit("no".into()), Next::Never("no".into())),
        ] {
            assert_eq!(next(&answer, 1, 0), over);
            assert_eq!(answer.health(("c", 0), &PATIENCE, 0, 0), Health::Well);
        }
    }

    #[test]
    fn trouble_of_one_connection_ends_and_that_of_all_does_not() {
        let what = "HTTP 503".to_owned();
        let unwell = Answer::Unwell { what, after: None };
        assert_eq!(next(&unwell, 1, 0), Next::Again(Millis(100)));
        assert_eq!(next(&unwell, 2, 1), Next::Again(Millis(200)));
        let given_up = Next::Never("HTTP 503, 3 attempts".into());
        assert_eq!(next(&unwell, 3, 2), given_up);
        let throttled = Answer::Throttled { after: None };
        assert_eq!(next(&throttled, 2, 1), Next::Again(Millis(200)));
        assert!(matches!(next(&throttled, 3, 2), Next::Never(_)));
        for everybodys in [Answer::Away("x".into()), Answer::Refused("x".into()), unwell] {
            assert!(!everybodys.counts(false));
            assert_eq!(next(&everybodys, 0, 99), Next::Again(Millis(1_000)));
        }
    }

    #[test]
    fn only_the_first_failure_of_a_connection_says_anything_of_the_endpoint() {
        let of = |status| Answer::of_status(status, "x".into(), None);
        for (answer, several) in [(of(503), UNWELL), (of(403), REFUSED)] {
            let weight = answer.weight(false, false);
            assert!(weight * several >= OPENS_AT && weight * (several - 1) < OPENS_AT);
            assert_eq!((answer.weight(true, false), answer.weight(true, true)), (0, 0));
            assert_eq!(answer.weight(false, true), 1);
            let (recipient, weight) = ("c", 1);
            let health = Health::Failed { recipient, weight };
            assert_eq!(answer.health((recipient, weight), &PATIENCE, 0, 0), health);
        }
    }

    #[test]
    fn who_alone_is_refused_is_given_up() {
        let refused = Answer::Refused("HTTP 403".into());
        assert!(refused.counts(true) && !Answer::Away("x".into()).counts(true));
        assert_eq!(next(&refused, 2, 1), Next::Again(Millis(200)));
        assert_eq!(next(&refused, 3, 2), Next::Never("HTTP 403, 3 attempts".into()));
    }

    #[test]
    fn a_longer_retry_after_goes_before_the_own_pause() {
        let throttled = |after| Answer::Throttled {
            after: Some(Millis(after)),
        };
        assert_eq!(next(&throttled(50), 1, 0), Next::Again(Millis(100)));
        assert_eq!(next(&throttled(2_000), 1, 0), Next::Again(Millis(2_000)));
        assert_eq!(next(&throttled(u64::MAX), 1, 0), Next::Again(MOST_RETRY_AFTER));
        let slow = throttled(2_000).health(("c", 0), &PATIENCE, 0, 0);
        assert_eq!(slow, Health::Slow(Millis(2_000)));
    }
}
