//! The good clients beside an attack: one session on each transport to which something is published all the time, and
//! a newcomer who connects again and again. They tell how long they had to wait.
//!
//! Invariant: a bystander that loses anything, gets it out of order, is cut off, or waits longer than [`PATIENCE`],
//! makes [`Bystanders::stop`] an error.
//!
//! They do not come back after a cut: nothing that others do may cut them off.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::http::Request;
use crate::inbox::{Connect, Inbox, TRANSPORTS, Transport, next_notification};
use crate::node::{KEY, Node};
use crate::publish::Publisher;
use crate::token;
use crate::user::User;
use crate::wait::within;

/// How long a good client waits before it complains, in seconds: much, since tests share slow machines.
pub const PATIENCE: u64 = 30;
/// The pause between two publications, and between two newcomers.
const EVERY: Duration = Duration::from_millis(40);
/// Publications that wait to be seen: more than can be sent while a reader is patient.
const UNDER_WAY: usize = 1000;

/// Good clients at work.
pub struct Bystanders {
    /// Who they are: nobody else's notification may be for them.
    pub users: Vec<String>,
    stop: Arc<AtomicBool>,
    waits: Arc<Mutex<Waits>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// How long they waited.
#[derive(Default)]
struct Waits {
    published: Vec<Duration>,
    delivered: Vec<Duration>,
    let_in: Vec<Duration>,
    sent_back: usize,
}

/// What they tell at the end: of each kind how many, the median, and the longest.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// From the request to the 202.
    pub published: (usize, Duration, Duration),
    /// From the request to the client, on any transport.
    pub delivered: (usize, Duration, Duration),
    /// From the first byte of a new connection to its answer; none where no newcomers were asked for.
    pub let_in: (usize, Duration, Duration),
    /// How often a newcomer was told to come again (503).
    pub sent_back: usize,
}

impl Bystanders {
    /// Sessions that are there already when the attack begins, and newcomers.
    pub fn start(node: &Node) -> Result<Bystanders> {
        Bystanders::begin(node, true)
    }

    /// Only those that are there already.
    pub fn without_newcomers(node: &Node) -> Result<Bystanders> {
        Bystanders::begin(node, false)
    }

    fn begin(node: &Node, newcomers: bool) -> Result<Bystanders> {
        let stop = Arc::new(AtomicBool::new(false));
        let waits = Arc::new(Mutex::new(Waits::default()));
        let (mut threads, mut readers) = (Vec::new(), Vec::new());
        // Of their own each time, so that nothing of before is pending.
        static EVER: AtomicU64 = AtomicU64::new(0);
        let nth = EVER.fetch_add(1, Ordering::Relaxed);
        let readers_are = TRANSPORTS.map(|transport| format!("beside-{nth}-{transport}"));
        let mut users = readers_are.to_vec();
        for (transport, user) in TRANSPORTS.into_iter().zip(&readers_are) {
            let token = token::user(user)?;
            let inbox = Connect::new(&node.endpoint, &token).open(transport)?;
            let (sent, awaited) = mpsc::sync_channel(UNDER_WAY);
            readers.push(sent);
            let waits = waits.clone();
            threads.push(std::thread::spawn(move || {
                read(transport, inbox, &awaited, &waits)
            }));
        }
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        // The connection is there before the attack is, as a back-end's is.
        publisher.look("none")?;
        let (stopped, told) = (stop.clone(), waits.clone());
        threads.push(std::thread::spawn(move || {
            publish(publisher, &readers_are, &readers, &stopped, &told)
        }));
        if newcomers {
            let (stopped, told) = (stop.clone(), waits.clone());
            let newcomer = format!("beside-{nth}-newcomer");
            let user = User::new(&node.endpoint, &newcomer)?;
            users.push(newcomer);
            threads.push(std::thread::spawn(move || arrive(&user, &stopped, &told)));
        }
        Ok(Bystanders {
            users,
            stop,
            waits,
            threads,
        })
    }

    /// Ends them; an error where one of them was harmed.
    pub fn stop(mut self) -> Result<Told> {
        let mut harm = Vec::new();
        for thread in self.halt() {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(e)) => harm.push(format!("{e:#}")),
                Err(_) => harm.push("a bystander panicked".to_owned()),
            }
        }
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let told = Told {
            published: sum_up(&mut waits.published),
            delivered: sum_up(&mut waits.delivered),
            let_in: sum_up(&mut waits.let_in),
            sent_back: waits.sent_back,
        };
        if !harm.is_empty() {
            bail!("bystanders were harmed: {}; {told}", harm.join("; "));
        }
        ensure!(told.delivered.0 >= 3, "nothing was delivered to the bystanders");
        Ok(told)
    }

    fn halt(&mut self) -> Vec<JoinHandle<Result<()>>> {
        self.stop.store(true, Ordering::Relaxed);
        std::mem::take(&mut self.threads)
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        for thread in self.halt() {
            if !matches!(thread.join(), Ok(Ok(()))) {
                eprintln!("harness: a bystander was harmed");
            }
        }
    }
}

fn publish(
    mut publisher: Publisher,
    users: &[String],
    readers: &[mpsc::SyncSender<(String, Instant)>],
    stop: &AtomicBool,
    waits: &Mutex<Waits>,
) -> Result<()> {
    // At least once, however soon the attack is over.
    loop {
        let began = Instant::now();
        let id = publisher.accepted(&json!({"users": users, "data": 1}))?;
        let took = began.elapsed();
        ensure!(took.as_secs() < PATIENCE, "a publication took {took:?}");
        waits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .published
            .push(took);
        for reader in readers {
            // A reader that gave up tells of it itself.
            if reader.try_send((id.clone(), began)).is_err() {
                return Ok(());
            }
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        std::thread::park_timeout(EVERY);
    }
}

fn read(
    transport: Transport,
    mut inbox: Box<dyn Inbox>,
    awaited: &mpsc::Receiver<(String, Instant)>,
    waits: &Mutex<Waits>,
) -> Result<()> {
    for (id, began) in awaited {
        let got = next_notification(&mut *inbox, within(PATIENCE)).with_context(|| transport.to_string())?;
        ensure!(got.id == id, "{transport} got {} instead of {id}", got.id);
        let took = began.elapsed();
        waits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .delivered
            .push(took);
    }
    Ok(())
}

fn arrive(user: &User, stop: &AtomicBool, waits: &Mutex<Waits>) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        loop {
            let answer = user
                .call(Request::new("GET", "/v1/inbox?wait=0&ack=none"))
                .context("a newcomer")?;
            let late = began.elapsed().as_secs() >= PATIENCE;
            match answer.status() {
                200 if !late => break,
                // A good client comes again, as it is told to.
                503 if !late => waits.lock().unwrap_or_else(PoisonError::into_inner).sent_back += 1,
                status => bail!("a newcomer was answered {status} after {:?}", began.elapsed()),
            }
        }
        let took = began.elapsed();
        waits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .let_in
            .push(took);
        std::thread::park_timeout(EVERY);
    }
    Ok(())
}

fn sum_up(waits: &mut [Duration]) -> (usize, Duration, Duration) {
    waits.sort_unstable();
    let median = waits.get(waits.len() / 2).copied().unwrap_or_default();
    (waits.len(), median, waits.last().copied().unwrap_or_default())
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        let kinds = [
            ("delivered", self.delivered),
            ("published", self.published),
            ("let in", self.let_in),
        ];
        write!(f, "others (median, longest, ms):")?;
        for (name, (count, median, longest)) in kinds {
            write!(f, " {count} {name} {:.1}, {:.0};", ms(median), ms(longest))?;
        }
        match self.sent_back {
            0 => Ok(()),
            count => write!(f, " {count} told to come again"),
        }
    }
}
