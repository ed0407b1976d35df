//! A client as it should be written: it comes back after every cut, on any transport and to any node, from the last
//! cursor it got, and tells the account all that it receives. One that acknowledges by itself does so at any node.
//!
//! Invariant: a cursor is used only after all that came before it on the wire was told to the account.
//!
//! It does not decide what is right: a refusal or a wrong close code is told to the account as a violation, and a gap
//! as a gap.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};

use crate::account::{Account, ReaderId};
use crate::http::{Cut, Request};
use crate::inbox::{AckMode, Connect, End, Inbox, Received, Refused, Transport};
use crate::node::{AWAY, Endpoint};
use crate::user::User;
use crate::wait::{until, within};

/// How long a session is read before the reader looks whether it should stop.
const SLICE: Duration = Duration::from_millis(100);
/// How long an acknowledgement may take.
const ACK_PATIENCE: Duration = Duration::from_secs(5);
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
    /// The topics that its user is a member of.
    pub member_of: Vec<String>,
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
    has_begun: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Takes a first cursor, before which nothing is asked for, and starts reading. When this returns, all that is
    /// published later must reach the reader.
    pub fn start(endpoint: &Endpoint, account: &Arc<Account>, spec: ReaderSpec) -> Result<Reader> {
        Reader::start_at_any(std::slice::from_ref(endpoint), account, spec)
    }

    /// The same with several nodes, of which every session takes one at random.
    pub fn start_at_any(endpoints: &[Endpoint], account: &Arc<Account>, spec: ReaderSpec) -> Result<Reader> {
        let mut rng = StdRng::seed_from_u64(spec.seed);
        let first = endpoints.choose(&mut rng).context("no node")?;
        let user = User::new(first, &spec.user)?;
        let cursor = until("a first cursor", within(60), || match user.cursor(&spec.topics) {
            Err(e) if Refused::is_for_now(&e) => Ok(None),
            told => told.map(Some),
        })?;
        let topics = [spec.topics.as_slice(), &spec.member_of].concat();
        let id = account.reader(&spec.name, &spec.user, &topics);
        if spec.ack == AckMode::Explicit {
            account.explicit(id);
        }
        let (stop, has_begun) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let run = Run {
            endpoints: endpoints.to_vec(),
            account: account.clone(),
            stop: stop.clone(),
            has_begun: has_begun.clone(),
            token: user.token,
            rng,
            id,
            cursor,
            unacked: Vec::new(),
            spec,
        };
        Ok(Reader {
            stop,
            has_begun,
            thread: Some(std::thread::spawn(move || run.run())),
        })
    }

    /// Whether it has had a session: a cut from now on makes it come back.
    pub fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    /// Asks the reader to stop and waits for it.
    pub fn stop(mut self) {
        self.halt();
    }

    /// Asks all of them to stop, and waits for all.
    pub fn stop_all(readers: Vec<Reader>) {
        for reader in &readers {
            reader.stop.store(true, Ordering::Relaxed);
        }
        readers.into_iter().for_each(Reader::stop);
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
    endpoints: Vec<Endpoint>,
    account: Arc<Account>,
    stop: Arc<AtomicBool>,
    has_begun: Arc<AtomicBool>,
    token: String,
    rng: StdRng,
    id: ReaderId,
    cursor: String,
    /// What an explicit reader got and has not yet acknowledged, or has not been answered.
    unacked: Vec<String>,
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
                    self.has_begun.store(true, Ordering::Relaxed);
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

    /// One of the nodes that are up; `None` while there is none.
    fn any_node(&mut self) -> Option<Endpoint> {
        let up = self.endpoints.iter().filter(|node| node.is_up());
        match up.choose(&mut self.rng) {
            Some(node) => Some(node.clone()),
            None => {
                let first = self.endpoints.first()?;
                first.wait(Instant::now() + SLICE).ok()?;
                Some(first.clone())
            }
        }
    }

    /// A new session, or `None` where the node is away or says that it is.
    fn open(&mut self, transport: Transport) -> Option<Box<dyn Inbox>> {
        let connect = Connect::new(&self.any_node()?, &self.token)
            .cursor(&self.cursor)
            .ack(self.spec.ack)
            .topics(&self.spec.topics);
        match connect.open(transport) {
            Ok(inbox) => Some(inbox),
            Err(e) => {
                if let Some(Refused(answer)) = e.downcast_ref::<Refused>()
                    && !AWAY.contains(&answer.status())
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
                    // What is repeated is acknowledged once.
                    if self.spec.ack == AckMode::Explicit && !self.unacked.contains(&notification.id) {
                        self.unacked.push(notification.id);
                    }
                    left = left.map(|left| left.saturating_sub(1));
                    if left == Some(0) {
                        return inbox.cut(if self.rng.random() { Cut::Close } else { Cut::Reset });
                    }
                }
                Ok(Some(Received::Cursor(cursor))) => {
                    self.account.cursor(self.id);
                    self.cursor = cursor;
                    self.acknowledge();
                }
                Ok(Some(Received::End(end))) => return self.ended(transport, end),
                Ok(Some(Received::Gap(oldest))) => self
                    .account
                    .gap(self.id, &format!("a gap on {transport}, {oldest:?}")),
                Ok(Some(Received::Error(code))) => self.violation(format!("error {code} on {transport}")),
                Ok(Some(_)) => {}
                Err(e) => return self.violation(format!("{transport}: {e:#}")),
            }
        }
    }

    /// Acknowledges what came, at any node. Without an answer it is tried again with the next batch.
    fn acknowledge(&mut self) {
        if self.unacked.is_empty() {
            return;
        }
        let Some(node) = self.any_node() else { return };
        let body = serde_json::json!({ "ids": self.unacked }).to_string();
        let request = Request::new("POST", "/v1/inbox/ack")
            .bearer(&self.token)
            .body("application/json", body);
        let answer = node
            .connect(None)
            .and_then(|mut conn| conn.call(&request, Instant::now() + ACK_PATIENCE));
        match answer {
            Ok(answer) if answer.status() == 200 => {
                self.account.acked(self.id, &self.unacked);
                self.unacked.clear();
            }
            Ok(answer) if !AWAY.contains(&answer.status()) => {
                self.violation(format!(
                    "an ack was answered {}: {}",
                    answer.status(),
                    answer.text()
                ));
            }
            // The node is away or its store is.
            Ok(_) | Err(_) => {}
        }
    }

    fn ended(&mut self, transport: Transport, end: End) {
        let fine = match &end {
            End::Closed(code, _) => *code == 4000 || *code == 1005 || *code == 1006,
            End::Refused(status, _) => AWAY.contains(status),
            End::Orderly | End::Broken(_) => true,
        };
        if !fine {
            self.violation(format!("{transport} ended by {end:?}"));
        }
    }
}
