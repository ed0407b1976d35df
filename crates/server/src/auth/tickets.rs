//! Tickets: stand in for a token in a URL, where a browser cannot send a header.
//!
//! Invariant: at most [`MAX_TICKETS`] are held, as hashes; when there are more, the oldest unused one goes,
//! and where all are used, the oldest. A ticket starts a session within its time, and may then come back
//! until the token that it was made with ends.

use super::api_keys::hash;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postrider_model::{Millis, Timestamp};
use postrider_transports::{Identity, Problem};
use std::collections::{HashMap, VecDeque};

/// Tickets held at a time. At about 300 bytes each this is 20 MB.
const MAX_TICKETS: usize = 65_536;
/// Bytes of randomness in a ticket.
const TICKET_BYTES: usize = 24;

type Key = [u8; 32];

#[derive(Debug)]
struct Ticket {
    identity: Identity,
    /// Until when it can start a session.
    starts_until: Timestamp,
    used: bool,
}

/// The tickets of this node.
#[derive(Debug)]
pub(super) struct Tickets {
    ttl: Millis,
    most: usize,
    held: HashMap<Key, Ticket>,
    /// In the order issued; may name tickets that are gone or used.
    unused: VecDeque<Key>,
    /// In the order of first use; may name tickets that are gone.
    used: VecDeque<Key>,
}

impl Tickets {
    pub(super) fn new(ttl: Millis) -> Tickets {
        Tickets {
            ttl,
            most: MAX_TICKETS,
            held: HashMap::new(),
            unused: VecDeque::new(),
            used: VecDeque::new(),
        }
    }

    /// Makes a ticket. Fails only where the system has no randomness.
    pub(super) fn issue(&mut self, identity: Identity, now: Timestamp) -> Result<String, getrandom::Error> {
        let mut bytes = [0u8; TICKET_BYTES];
        getrandom::fill(&mut bytes)?;
        let text = URL_SAFE_NO_PAD.encode(bytes);
        self.forget(now);
        let key = hash(&text);
        self.held.insert(
            key,
            Ticket {
                identity,
                starts_until: now.plus(self.ttl),
                used: false,
            },
        );
        self.unused.push_back(key);
        Ok(text)
    }

    /// The user of a ticket. Its first use starts a session; later ones must come back to it with a cursor.
    pub(super) fn redeem(
        &mut self,
        ticket: &str,
        resumes: bool,
        now: Timestamp,
    ) -> Result<Identity, Problem> {
        let key = hash(ticket);
        let ticket = self.held.get_mut(&key).ok_or_else(Problem::token_malformed)?;
        let may_come = if ticket.used {
            resumes
        } else {
            ticket.starts_until > now
        };
        if !may_come || ticket.identity.expires_at.is_some_and(|at| at <= now) {
            return Err(Problem::token_expired());
        }
        if !ticket.used {
            ticket.used = true;
            self.used.push_back(key);
        }
        Ok(ticket.identity.clone())
    }

    /// Makes room for one more, and forgets what has ended.
    fn forget(&mut self, now: Timestamp) {
        while let Some(key) = self.unused.front() {
            let stays = self
                .held
                .get(key)
                .is_some_and(|t| !t.used && t.starts_until > now);
            if stays && self.held.len() < self.most {
                break;
            }
            if self.held.get(key).is_some_and(|t| !t.used) {
                self.held.remove(key);
            }
            self.unused.pop_front();
        }
        while let Some(key) = self.used.front() {
            let ended = |t: &Ticket| t.identity.expires_at.is_some_and(|at| at <= now);
            if self.held.get(key).is_some_and(|t| !ended(t)) && self.held.len() < self.most {
                break;
            }
            self.held.remove(key);
            self.used.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::UserId;

    fn identity(expires_at: u64) -> Identity {
        let user = UserId::new("ada").unwrap();
        Identity {
            user,
            expires_at: Some(Timestamp(expires_at)),
            topics: Vec::new(),
        }
    }

    #[test]
    fn a_ticket_starts_in_its_time_and_resumes_until_the_token_ends() {
        let mut tickets = Tickets::new(Millis(30));
        let at = Timestamp;
        let ticket = tickets.issue(identity(1000), at(0)).unwrap();
        assert!(tickets.redeem(&ticket, false, at(29)).is_ok());
        assert!(tickets.redeem(&ticket, true, at(999)).is_ok());
        assert_eq!(
            tickets.redeem(&ticket, false, at(999)).unwrap_err().code,
            "token_expired"
        );
        assert_eq!(
            tickets.redeem(&ticket, true, at(1000)).unwrap_err().code,
            "token_expired"
        );
        let late = tickets.issue(identity(1000), at(0)).unwrap();
        assert_eq!(
            tickets.redeem(&late, false, at(30)).unwrap_err().code,
            "token_expired"
        );
        assert_eq!(
            tickets.redeem("made up", false, at(0)).unwrap_err().code,
            "token_malformed"
        );
    }

    #[test]
    fn the_oldest_unused_makes_room() {
        let mut tickets = Tickets {
            most: 3,
            ..Tickets::new(Millis(1000))
        };
        let now = Timestamp(0);
        let all: Vec<_> = (0..3)
            .map(|_| tickets.issue(identity(9000), now).unwrap())
            .collect();
        assert!(tickets.redeem(&all[0], false, now).is_ok());
        let fourth = tickets.issue(identity(9000), now).unwrap();
        let alive = |tickets: &mut Tickets, ticket: &str| tickets.redeem(ticket, true, now).is_ok();
        assert!(alive(&mut tickets, &all[0]) && !alive(&mut tickets, &all[1]));
        assert!(alive(&mut tickets, &all[2]) && alive(&mut tickets, &fourth));
        for _ in 0..100 {
            tickets.issue(identity(9000), now).unwrap();
            assert!(tickets.held.len() <= 3 && tickets.unused.len() <= 4 && tickets.used.len() <= 4);
        }
    }
}
