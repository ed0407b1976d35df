//! Tickets: stand in for a token in a URL, where a browser cannot send a header.
//!
//! Invariant: a ticket starts at most one session, within its time, and may then come back with a cursor
//! until the token that it was made with ends. One that this process made, and that never started, cannot
//! come back. At most [`MAX_STARTED`] started tickets are known, by nonce alone; the oldest make room.
//!
//! What cannot be known is decided by the cursor: a ticket of an earlier process, or one as old as those that
//! made room, may come back with one. Such an old ticket of this process can no longer start; one of an earlier
//! process can, once more, within its time.
//!
//! Where several nodes share the key, a ticket of any of them is as one of an earlier process here; that it starts once
//! is for them to agree on ([`Tickets::claim`]).

use super::ticket::{Maker, Nonce, Ticket};
use super::ticket_key::TicketKey;
use postrider_model::{Millis, Timestamp};
use postrider_transports::{Identity, Problem};
use std::collections::{HashSet, VecDeque};

/// Started tickets known at a time. At about 80 bytes each this is 20 MB.
const MAX_STARTED: usize = 262_144;

#[derive(Debug)]
struct Started {
    nonce: Nonce,
    issued: Timestamp,
    /// When its token ends.
    ends: Option<Timestamp>,
}

/// Makes tickets, and lets them in.
#[derive(Debug)]
pub(super) struct Tickets {
    key: TicketKey,
    ttl: Millis,
    most: usize,
    /// This process.
    maker: Maker,
    started: HashSet<Nonce>,
    /// The same in the order of their starts.
    order: VecDeque<Started>,
    /// Of tickets issued up to here it is not known whether they started: some made room.
    forgotten_until: Option<Timestamp>,
}

impl Tickets {
    /// Tickets of a process that calls itself `maker`, a random name.
    pub(super) fn new(key: TicketKey, maker: Maker, ttl: Millis) -> Tickets {
        Tickets {
            key,
            ttl,
            most: MAX_STARTED,
            maker,
            started: HashSet::new(),
            order: VecDeque::new(),
            forgotten_until: None,
        }
    }

    /// Makes a ticket; `nonce` is random. Refuses an identity that is too long for a URL.
    pub(super) fn issue(&self, identity: Identity, nonce: Nonce, now: Timestamp) -> Result<String, Problem> {
        let ticket = Ticket {
            maker: self.maker,
            nonce,
            issued: now,
            starts_until: now.plus(self.ttl),
            identity,
        };
        let too_long = || {
            Problem::too_large(
                "The token allows too many topics for a ticket. Use a token with fewer or shorter patterns in `topics`.",
                None,
            )
        };
        ticket.seal(&self.key).ok_or_else(too_long)
    }

    /// How long a ticket made from now on can start a session.
    pub(super) fn set_ttl(&mut self, ttl: Millis) {
        self.ttl = ttl;
    }

    /// The user of a ticket that could be used now. Uses nothing up.
    pub(super) fn look(&self, text: &str, resumes: bool, now: Timestamp) -> Result<Identity, Problem> {
        self.open(text, resumes, now).map(|ticket| ticket.identity)
    }

    /// Uses a ticket. Its first use starts a session; later ones must come back to it with a cursor.
    pub(super) fn redeem(&mut self, text: &str, resumes: bool, now: Timestamp) -> Result<Identity, Problem> {
        let ticket = self.open(text, resumes, now)?;
        self.remember(&ticket, now);
        Ok(ticket.identity)
    }

    /// What tells a ticket from all others, and until when it can start a session; for those who ask other nodes.
    #[cfg(feature = "redis")]
    pub(super) fn claim(&self, text: &str) -> Option<(Nonce, Timestamp)> {
        let ticket = Ticket::open(text, &self.key)?;
        Some((ticket.nonce, ticket.starts_until))
    }

    fn open(&self, text: &str, resumes: bool, now: Timestamp) -> Result<Ticket, Problem> {
        let ticket = Ticket::open(text, &self.key).ok_or_else(Problem::token_malformed)?;
        let has_ended = ticket.identity.expires_at.is_some_and(|at| at <= now);
        if has_ended || !self.may_come(&ticket, resumes, now) {
            return Err(Problem::token_expired());
        }
        Ok(ticket)
    }

    fn may_come(&self, ticket: &Ticket, resumes: bool, now: Timestamp) -> bool {
        if self.started.contains(&ticket.nonce) {
            return resumes;
        }
        let is_ours = ticket.maker == self.maker && !self.key.is_shared();
        let is_forgotten = self.forgotten_until.is_some_and(|until| ticket.issued <= until);
        let may_start = ticket.starts_until > now && !(is_ours && is_forgotten);
        may_start || (resumes && (!is_ours || is_forgotten))
    }

    /// Notes that a ticket has started, and makes room for it.
    fn remember(&mut self, ticket: &Ticket, now: Timestamp) {
        if !self.started.insert(ticket.nonce) {
            return;
        }
        while let Some(oldest) = self.order.front() {
            let has_ended = oldest.ends.is_some_and(|at| at <= now);
            if !has_ended && self.order.len() < self.most {
                break;
            }
            if !has_ended {
                self.forgotten_until = self.forgotten_until.max(Some(oldest.issued));
            }
            self.started.remove(&oldest.nonce);
            self.order.pop_front();
        }
        self.order.push_back(Started {
            nonce: ticket.nonce,
            issued: ticket.issued,
            ends: ticket.identity.expires_at,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::UserId;

    const ENDS: u64 = 1000;
    const START: bool = false;
    const RESUME: bool = true;

    fn identity(expires_at: Option<u64>) -> Identity {
        Identity {
            user: UserId::new("ada").unwrap(),
            expires_at: expires_at.map(Timestamp),
            topics: vec!["news/*".into()],
        }
    }

    /// A process with the key of the data directory, in which tickets start for 30 ms.
    fn process(maker: u8) -> Tickets {
        Tickets::new(TicketKey::new(&[9; 32]), [maker; 8], Millis(30))
    }

    fn ticket(tickets: &Tickets, nonce: u8, at: u64) -> String {
        let issued = tickets.issue(identity(Some(ENDS)), [nonce; 16], Timestamp(at));
        issued.unwrap()
    }

    fn come(tickets: &mut Tickets, text: &str, resumes: bool, at: u64) -> Result<(), &'static str> {
        let came = tickets.redeem(text, resumes, Timestamp(at));
        came.map(|came| assert_eq!(came, identity(Some(ENDS))))
            .map_err(|problem| problem.code)
    }

    type Answer = Result<(), &'static str>;
    /// Whether with a cursor, when, and the answer.
    type Step = (bool, u64, Answer);
    const REFUSED: Answer = Err("token_expired");

    /// Steps of one ticket, issued at 0.
    #[test]
    fn in_one_process() {
        let table: &[(&str, &[Step])] = &[
            ("starts in its time", &[(START, 29, Ok(()))]),
            ("not after it", &[(START, 30, REFUSED), (START, 999, REFUSED)]),
            (
                "starts once",
                &[(START, 1, Ok(())), (START, 2, REFUSED), (START, 50, REFUSED)],
            ),
            (
                "comes back as often as it likes until the token ends",
                &[
                    (START, 1, Ok(())),
                    (RESUME, 2, Ok(())),
                    (START, 3, REFUSED),
                    (RESUME, 999, Ok(())),
                    (RESUME, 1000, REFUSED),
                ],
            ),
            (
                "a cursor of before starts too",
                &[(RESUME, 29, Ok(())), (START, 29, REFUSED)],
            ),
            (
                "cannot come back unstarted",
                &[(RESUME, 30, REFUSED), (RESUME, 999, REFUSED)],
            ),
        ];
        for (name, steps) in table {
            let mut tickets = process(1);
            let text = ticket(&tickets, 1, 0);
            for (resumes, at, expected) in *steps {
                assert_eq!(
                    come(&mut tickets, &text, *resumes, *at),
                    *expected,
                    "{name} at {at}"
                );
            }
        }
    }

    /// The same, where another process has begun in between.
    #[test]
    fn over_a_restart() {
        let table: &[(&str, bool, &[Step])] = &[
            (
                "a session comes back",
                true,
                &[(RESUME, 40, Ok(())), (RESUME, 999, Ok(())), (START, 999, REFUSED)],
            ),
            (
                "nobody knows that it never was one",
                false,
                &[(RESUME, 40, Ok(()))],
            ),
            ("no start after its time", true, &[(START, 40, REFUSED)]),
            (
                "a fresh one starts once",
                false,
                &[(START, 20, Ok(())), (START, 21, REFUSED)],
            ),
            ("none after the token", true, &[(RESUME, 1000, REFUSED)]),
        ];
        for (name, was_started, steps) in table {
            let mut before = process(1);
            let text = ticket(&before, 1, 0);
            if *was_started {
                come(&mut before, &text, START, 1).unwrap();
            }
            let mut after = process(2);
            for (resumes, at, expected) in *steps {
                assert_eq!(
                    come(&mut after, &text, *resumes, *at),
                    *expected,
                    "{name} at {at}"
                );
            }
            let mut other = Tickets::new(TicketKey::new(&[8; 32]), [1; 8], Millis(30));
            assert_eq!(
                come(&mut other, &text, RESUME, 20),
                Err("token_malformed"),
                "{name}"
            );
        }
    }

    #[test]
    fn over_nodes_that_share_the_key() {
        let node = |maker| Tickets::new(TicketKey::of_nodes(&[9; 32]), [maker; 8], Millis(30));
        let (mut a, mut b) = (node(1), node(2));
        let text = ticket(&a, 1, 0);
        assert_eq!(a.claim(&text), Some(([1; 16], Timestamp(30))));
        assert_eq!(b.claim(&text), a.claim(&text));
        assert_eq!(process(1).claim("no ticket"), None);
        assert_eq!(come(&mut b, &text, START, 1), Ok(()));
        assert_eq!(come(&mut b, &text, START, 2), REFUSED);
        // The session of node `b` comes back to the node that made the ticket, which never saw it start.
        assert_eq!(come(&mut a, &text, RESUME, 500), Ok(()));
        assert_eq!(come(&mut a, &text, START, 500), REFUSED);
    }

    #[test]
    fn the_oldest_make_room_and_are_then_as_if_of_before() {
        let mut tickets = Tickets {
            most: 3,
            ..process(1)
        };
        let all: Vec<_> = (0..5).map(|n| ticket(&tickets, n, u64::from(n))).collect();
        for text in &all[..4] {
            assert_eq!(come(&mut tickets, text, START, 10), Ok(()));
        }
        assert_eq!((tickets.started.len(), tickets.order.len()), (3, 3));
        assert_eq!(come(&mut tickets, &all[0], START, 10), REFUSED);
        assert_eq!(come(&mut tickets, &all[1], RESUME, 99), Ok(()));
        assert_eq!(come(&mut tickets, &all[0], RESUME, 99), Ok(()));
        assert_eq!(come(&mut tickets, &all[4], RESUME, 99), REFUSED);
        for n in 5..200 {
            let text = ticket(&tickets, n, 100 + u64::from(n));
            assert_eq!(come(&mut tickets, &text, START, 100 + u64::from(n)), Ok(()));
            assert!(tickets.started.len() <= 3 && tickets.order.len() <= 3);
        }
    }

    #[test]
    fn what_has_ended_is_forgotten_without_a_trace() {
        let mut tickets = process(1);
        for n in 0..9 {
            let text = ticket(&tickets, n, 0);
            assert_eq!(come(&mut tickets, &text, START, 1), Ok(()));
        }
        let issued = tickets.issue(identity(None), [99; 16], Timestamp(ENDS)).unwrap();
        assert!(tickets.redeem(&issued, START, Timestamp(ENDS)).is_ok());
        assert!(tickets.redeem(&issued, RESUME, Timestamp::MAX).is_ok());
        assert_eq!((tickets.started.len(), tickets.order.len()), (1, 1));
        assert_eq!(tickets.forgotten_until, None);
    }

    #[test]
    fn an_identity_that_is_too_long_gets_none() {
        let long = Identity {
            topics: vec!["t".repeat(200); 10],
            ..identity(None)
        };
        let refused = process(1).issue(long, [0; 16], Timestamp(0)).unwrap_err();
        assert_eq!(refused.code, "too_large");
    }
}
