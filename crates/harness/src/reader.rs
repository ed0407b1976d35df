//! A client as it should be written: it comes back after every cut, on any transport, from the last cursor it got,
//! and tells the account all that it receives.
//!
//! Invariant: a cursor is used only after all that came before it on the wire was told to the account.
//!
//! It does not decide what is right: a refusal, a gap or a wrong close code is told to the account as a violation.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::account::{Account, ReaderId};
use crate::http::Cut;
use crate::inbox::{AckMode, Connect, End, Inbox, Received, Refused, Transport};
use crate::node::Endpoint;
use crate::user::User;

/// How long a session is read before the reader looks whether it should stop.
const SLICE: Duration = Duration::from_millis(100);
/// Longest pause before a new session after a failed one.
const PAUSE_MAX_MS: u64 = 50;

/// What a reader is.
#[derive(Clone)]
pub struct ReaderSpec {
    /// Its name in reports.
    pub name: String,
    /// The user it is.
    pub user: String,
    /// The session topics it asks for.
    pub topics: Vec<String>,
    /// The transports it uses, one after the other; the same cursor goes through all.
    pub transports: Vec<Transport>,
    /// How it acknowledges.
    pub ack: AckMode,
    /// After how many notifications it leaves by itself; none to stay until cut.
    pub leaves_after: Option<RangeInclusive<u32>>,
    /// Seed of its choices.
    pub seed: u64,
}

/// A reader at work in a thread of its own.
pub struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Takes a first cursor, before which nothing is asked for, and starts reading. When this returns, all that is
    /// published later must reach the reader.
    pub fn start(endpoint: &Endpoint, account: &Arc<Account>, spec: ReaderSpec) -> Result<Reader> {
        let user = User::new(endpoint, &spec.user)?;
        let cursor = user.cursor(&spec.topics)?;
        let id = account.reader(&spec.name, &spec.user, &spec.topics);
        let stop = Arc::new(AtomicBool::new(false));
        let run = Run {
            endpoint: endpoint.clone(),
            account: account.clone(),
            stop: stop.clone(),
            token: user.token,
            rng: StdRng::seed_from_u64(spec.seed),
            id,
            cursor,
            spec,
        };
        Ok(Reader {
            stop,
            thread: Some(std::thread::spawn(move || run.run())),
        })
    }

    /// Asks the reader to stop and waits for it.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("harness: a reader panicked");
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.halt();
    }
}

struct Run {
    endpoint: Endpoint,
    account: Arc<Account>,
    stop: Arc<AtomicBool>,
    token: String,
    rng: StdRng,
    id: ReaderId,
    cursor: String,
    spec: ReaderSpec,
}

impl Run {
    fn run(mut self) {
        let mut sessions = 0;
        while !self.stopped() {
            let transport = self.spec.transports[sessions % self.spec.transports.len()];
            match self.open(transport) {
                Some(inbox) => {
                    if sessions > 0 {
                        self.account.reconnected(self.id);
                    }
                    sessions += 1;
                    self.session(transport, inbox);
                }
                None => {
                    std::thread::park_timeout(Duration::from_millis(self.rng.random_range(1..=PAUSE_MAX_MS)))
                }
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn violation(&self, what: String) {
        self.account.violation(format!("{}: {what}", self.spec.name));
    }

    /// A new session, or `None` where the node is away or says that it is.
    fn open(&mut self, transport: Transport) -> Option<Box<dyn Inbox>> {
        self.endpoint.wait(Instant::now() + SLICE).ok()?;
        let connect = Connect::new(&self.endpoint, &self.token)
            .cursor(&self.cursor)
            .ack(self.spec.ack)
            .topics(&self.spec.topics);
        match connect.open(transport) {
            Ok(inbox) => Some(inbox),
            Err(e) => {
                if let Some(Refused(answer)) = e.downcast_ref::<Refused>()
                    && answer.status() != 503
                {
                    self.violation(format!(
                        "{transport} refused: {} {}",
                        answer.status(),
                        answer.text()
                    ));
                    self.stop.store(true, Ordering::Relaxed);
                }
                None
            }
        }
    }

    fn session(&mut self, transport: Transport, mut inbox: Box<dyn Inbox>) {
        let mut left = self
            .spec
            .leaves_after
            .clone()
            .map(|range| self.rng.random_range(range));
        while !self.stopped() {
            match inbox.next(Instant::now() + SLICE) {
                Ok(None) => {}
                Ok(Some(Received::Notification(notification))) => {
                    self.account.received(self.id, &notification);
                    left = left.map(|left| left.saturating_sub(1));
                    if left == Some(0) {
                        return inbox.cut(if self.rng.random() { Cut::Close } else { Cut::Reset });
                    }
                }
                Ok(Some(Received::Cursor(cursor))) => {
                    self.account.cursor(self.id);
                    self.cursor = cursor;
                }
                Ok(Some(Received::End(end))) => return self.ended(transport, end),
                Ok(Some(Received::Gap(oldest))) => {
                    self.violation(format!("a gap on {transport}, {oldest:?}"))
                }
                Ok(Some(Received::Error(code))) => self.violation(format!("error {code} on {transport}")),
                Ok(Some(_)) => {}
                Err(e) => return self.violation(format!("{transport}: {e:#}")),
            }
        }
    }

    fn ended(&mut self, transport: Transport, end: End) {
        let fine = match &end {
            End::Closed(code, _) => *code == 4000 || *code == 1005 || *code == 1006,
            End::Refused(status, _) => *status == 503,
            End::Orderly | End::Broken(_) => true,
        };
        if !fine {
            self.violation(format!("{transport} ended by {end:?}"));
        }
    }
}
