//! How long a session lives: kept alive while the client is there, ended when its token expires or the
//! client has gone silent.

use postrider_model::{Millis, Timestamp};

/// The intervals, the same for all sessions of a transport.
#[derive(Debug, Clone, Copy)]
pub struct LifetimeRules {
    /// After so much silence of our own, something is sent; to a client that has to speak, so long after it was last
    /// asked to.
    pub keep_alive: Millis,
    /// After so much silence a client is gone, unless it need not speak and its TCP shows that it is there; `None`
    /// where nobody listens for it.
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
    /// What a keep-alive counts from.
    kept_at: Timestamp,
}

impl Lifetime {
    /// A session that begins now.
    pub fn new(expires_at: Option<Timestamp>, now: Timestamp) -> Lifetime {
        Lifetime {
            expires_at: expires_at.unwrap_or(Timestamp::MAX),
            heard_at: now,
            sent_at: now,
            kept_at: now,
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

    /// Something was sent, which keeps alive what is on the way.
    pub fn sent(&mut self, now: Timestamp) {
        (self.sent_at, self.kept_at) = (now, now);
    }

    /// Something was sent to a client that has to speak: it calls for no answer, so that a keep-alive is due as before.
    pub fn sent_without_asking(&mut self, now: Timestamp) {
        self.sent_at = now;
    }

    /// When something was last sent.
    pub fn last_sent(&self) -> Timestamp {
        self.sent_at
    }

    /// When to look again, at the latest.
    pub fn next_at(&self, rules: &LifetimeRules) -> Timestamp {
        let keep_alive = self.kept_at.plus(rules.keep_alive);
        let silent = rules
            .silence
            .map_or(Timestamp::MAX, |silence| self.heard_at.plus(silence));
        keep_alive.min(silent).min(self.expires_at)
    }

    /// As [`Lifetime::due`], of a client that need not speak. Where it was silent for too long, `sign` is asked how long
    /// ago its TCP showed that it is there; `None` where that cannot be known.
    pub fn due_by_sign(
        &mut self,
        rules: &LifetimeRules,
        now: Timestamp,
        sign: impl FnOnce() -> Option<Millis>,
    ) -> Option<LifetimeEvent> {
        let due = self.due(rules, now);
        if due != Some(LifetimeEvent::Silent) {
            return due;
        }
        let ago = sign().unwrap_or_default();
        self.heard_at = self.heard_at.max(Timestamp(now.0.saturating_sub(ago.0)));
        self.due(rules, now)
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
        } else if self.kept_at.plus(rules.keep_alive) <= now {
            Some(LifetimeEvent::KeepAlive)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event stream's client that vanishes: its keep-alives are not acknowledged any more, and it is gone after the
    /// silence and one keep-alive at most.
    #[test]
    fn who_vanishes_is_gone_in_time_and_who_is_slow_is_not() {
        let rules = LifetimeRules {
            keep_alive: Millis(15),
            silence: Some(Millis(45)),
        };
        for vanishes in 0..100 {
            let mut life = Lifetime::new(None, Timestamp(0));
            // When its TCP last answered, and whether something was sent since.
            let (mut answered, mut unanswered) = (0, false);
            let gone = (1..1000).find(|now| {
                let ago = if unanswered {
                    Millis(*now - answered)
                } else {
                    Millis(0)
                };
                match life.due_by_sign(&rules, Timestamp(*now), || Some(ago)) {
                    Some(LifetimeEvent::Silent) => return true,
                    Some(_) => {
                        life.sent(Timestamp(*now));
                        match *now < vanishes {
                            true => answered = *now,
                            false => unanswered = true,
                        }
                    }
                    None => {}
                }
                false
            });
            let gone = gone.expect("it is gone some time");
            assert!(
                gone >= vanishes && gone <= vanishes + 45 + 15,
                "{vanishes}: {gone}"
            );
        }
        // One that takes nothing answers that it takes nothing; of a bridged one nothing is known.
        let mut life = Lifetime::new(None, Timestamp(0));
        for now in 1..1000 {
            let sign = (now < 500).then_some(Millis(44));
            let due = life.due_by_sign(&rules, Timestamp(now), || sign);
            assert_ne!(due, Some(LifetimeEvent::Silent), "at {now}");
            life.sent(Timestamp(now));
        }
    }

    /// A client that is sent something all the time is asked for a sign of life all the same.
    #[test]
    fn who_is_spoken_to_is_asked_too() {
        let rules = LifetimeRules {
            keep_alive: Millis(15),
            silence: Some(Millis(45)),
        };
        let mut life = Lifetime::new(None, Timestamp(0));
        let mut asked = Vec::new();
        for now in 1..=100 {
            life.sent_without_asking(Timestamp(now));
            match life.due(&rules, Timestamp(now)) {
                Some(LifetimeEvent::KeepAlive) => {
                    asked.push(now);
                    life.sent(Timestamp(now));
                    life.heard(Timestamp(now));
                }
                due => assert_eq!(due, None, "at {now}"),
            }
        }
        assert_eq!(asked, [15, 30, 45, 60, 75, 90]);
        assert_eq!(life.last_sent(), Timestamp(100));
    }

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
