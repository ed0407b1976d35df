//! How long a session lives: kept alive while the client is there, ended when its token expires or the
//! client has gone silent.

use postrider_model::{Millis, Timestamp};

/// The intervals, the same for all sessions of a transport.
#[derive(Debug, Clone, Copy)]
pub struct LifetimeRules {
    /// After so much silence of our own, something is sent.
    pub keep_alive: Millis,
    /// After so much silence of a client that must answer, it is gone; `None` where clients never answer.
    pub silence: Option<Millis>,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifetimeEvent {
    /// Send a keep-alive.
    KeepAlive,
    /// The client has not answered: drop it.
    Silent,
    /// The token has expired: end the session.
    TokenExpired,
}

/// The clocks of one session.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    /// When the token ends; [`Timestamp::MAX`] for one without an end.
    expires_at: Timestamp,
    heard_at: Timestamp,
    sent_at: Timestamp,
}

impl Lifetime {
    /// A session that begins now.
    pub fn new(expires_at: Option<Timestamp>, now: Timestamp) -> Lifetime {
        Lifetime {
            expires_at: expires_at.unwrap_or(Timestamp::MAX),
            heard_at: now,
            sent_at: now,
        }
    }

    /// The client brought a new token, which ends then.
    pub fn renew(&mut self, expires_at: Timestamp) {
        self.expires_at = expires_at;
    }

    /// Whether the token has ended.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.expires_at <= now
    }

    /// The client said something.
    pub fn heard(&mut self, now: Timestamp) {
        self.heard_at = now;
    }

    /// Something was sent.
    pub fn sent(&mut self, now: Timestamp) {
        self.sent_at = now;
    }

    /// When something was last sent.
    pub fn last_sent(&self) -> Timestamp {
        self.sent_at
    }

    /// When to look again, at the latest.
    pub fn next_at(&self, rules: &LifetimeRules) -> Timestamp {
        let keep_alive = self.sent_at.plus(rules.keep_alive);
        let silent = rules
            .silence
            .map_or(Timestamp::MAX, |silence| self.heard_at.plus(silence));
        keep_alive.min(silent).min(self.expires_at)
    }

    /// What is due now, the gravest first.
    pub fn due(&self, rules: &LifetimeRules, now: Timestamp) -> Option<LifetimeEvent> {
        if self.is_over(now) {
            Some(LifetimeEvent::TokenExpired)
        } else if rules
            .silence
            .is_some_and(|silence| self.heard_at.plus(silence) <= now)
        {
            Some(LifetimeEvent::Silent)
        } else if self.sent_at.plus(rules.keep_alive) <= now {
            Some(LifetimeEvent::KeepAlive)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_alive_then_gives_up_then_expires() {
        let rules = LifetimeRules {
            keep_alive: Millis(15),
            silence: Some(Millis(40)),
        };
        let mut life = Lifetime::new(Some(Timestamp(100)), Timestamp(0));
        assert_eq!(life.next_at(&rules), Timestamp(15));
        assert_eq!(life.due(&rules, Timestamp(14)), None);
        assert_eq!(life.due(&rules, Timestamp(15)), Some(LifetimeEvent::KeepAlive));
        life.sent(Timestamp(15));
        assert_eq!(life.due(&rules, Timestamp(29)), None);
        assert_eq!(life.due(&rules, Timestamp(40)), Some(LifetimeEvent::Silent));
        life.heard(Timestamp(40));
        life.sent(Timestamp(90));
        life.heard(Timestamp(90));
        assert_eq!(
            life.due(&rules, Timestamp(100)),
            Some(LifetimeEvent::TokenExpired)
        );
    }
}
