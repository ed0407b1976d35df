//! One master: the task that keeps a command connection to it, and the one that listens on it.

use super::backoff::{backoff, roll};
use super::channels::ServerId;
use super::fault::LinkFault;
use super::listen;
use super::pipe::{Asked, Pending, Pipe};
use super::shared::{Shared, now, unpoisoned};
use super::url::Address;
use super::wire::Speech;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// How long the functions may take to be looked up and loaded.
const LOAD_TIMEOUT: Duration = Duration::from_secs(3);

/// A master and the two connections to it. Dropped, it ends both.
pub struct Server {
    pub id: ServerId,
    pub address: Address,
    standing: watch::Receiver<Standing>,
    signals: Arc<Signals>,
    shared: Arc<Shared>,
    /// One load at a time: those who find the library missing wait for the first of them.
    loading: tokio::sync::Mutex<()>,
    tasks: [JoinHandle<()>; 2],
}

/// How the command connection stands.
#[derive(Debug, Clone)]
pub enum Standing {
    Down(LinkFault),
    Up(Arc<Pipe>),
}

/// What the listening task is told, and tells.
#[derive(Debug, Default)]
pub struct Signals {
    /// What is wanted of the channels has changed.
    pub wake: Notify,
    /// The connection is to be made anew.
    pub redial: Notify,
    /// Changed only while the channels are locked.
    pub is_listening: AtomicBool,
    down_since: Mutex<Option<Instant>>,
}

impl Server {
    /// Starts its tasks.
    pub fn start(address: Address, shared: &Arc<Shared>) -> Server {
        let id = shared.counts.servers.fetch_add(1, Ordering::AcqRel) + 1;
        let connecting = Standing::Down(LinkFault::NotSent(format!("{address}: connecting").into()));
        let (told, standing) = watch::channel(connecting);
        let signals = Arc::new(Signals {
            down_since: Mutex::new(Some(now())),
            ..Signals::default()
        });
        let keeping = keep(Arc::clone(shared), address.clone(), told, Arc::clone(&signals));
        let listening = listen::keep(Arc::clone(shared), address.clone(), id, Arc::clone(&signals));
        let tasks = [shared.runtime.spawn(keeping), shared.runtime.spawn(listening)];
        let shared = Arc::clone(shared);
        Server {
            id,
            address,
            standing,
            signals,
            shared,
            loading: tokio::sync::Mutex::default(),
            tasks,
        }
    }

    /// The command connection, or why there is none.
    pub fn pipe(&self) -> Result<Arc<Pipe>, LinkFault> {
        match &*self.standing.borrow() {
            Standing::Up(pipe) => Ok(Arc::clone(pipe)),
            Standing::Down(fault) => Err(fault.clone()),
        }
    }

    /// Returns when the command connection is up.
    pub async fn is_back(&self) {
        let mut standing = self.standing.clone();
        let up = standing
            .wait_for(|standing| matches!(standing, Standing::Up(_)))
            .await
            .is_ok();
        if !up {
            // Its task has ended with the links; whoever waits has a deadline.
            std::future::pending::<()>().await;
        }
    }

    /// Hands commands in and counts them.
    pub async fn submit(&self, pipe: &Pipe, asked: Asked, deadline: Instant) -> Result<Pending, LinkFault> {
        let counts = &self.shared.counts;
        counts.round_trips.fetch_add(1, Ordering::Relaxed);
        counts.commands.fetch_add(asked.count as u64, Ordering::Relaxed);
        pipe.submit(asked, deadline).await
    }

    /// Puts the functions onto it.
    pub async fn load(&self, pipe: &Pipe, deadline: Instant) -> Result<(), LinkFault> {
        let Some(library) = &self.shared.library else {
            return Ok(());
        };
        let _one = self.loading.lock().await;
        library.ensure(pipe, deadline).await
    }

    /// Makes both connections anew: the name may stand for another machine by now.
    pub fn redial(&self, pipe: &Pipe) {
        pipe.end();
        self.signals.redial.notify_one();
    }

    /// Has the listening task look at what is wanted.
    pub fn wake(&self) {
        self.signals.wake.notify_one();
    }

    pub fn is_listening(&self) -> bool {
        self.signals.is_listening.load(Ordering::Acquire)
    }

    /// For how long one of its connections has been missing.
    pub fn down_for(&self) -> Option<Duration> {
        unpoisoned(&self.signals.down_since).map(|since| since.elapsed())
    }

    /// Ends its tasks.
    pub fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Ok(pipe) = self.pipe() {
            pipe.end();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Signals {
    /// Notes whether commands can be sent.
    fn note(&self, is_up: bool) {
        let mut since = unpoisoned(&self.down_since);
        *since = if is_up {
            None
        } else {
            since.or_else(|| Some(now()))
        };
    }
}

/// Keeps a command connection for ever: each that ends is followed by another.
async fn keep(shared: Arc<Shared>, address: Address, told: watch::Sender<Standing>, signals: Arc<Signals>) {
    let mut failures = 0;
    loop {
        let fault = match connect(&shared, &address).await {
            Ok(pipe) => {
                failures = 0;
                let pipe = Arc::new(pipe);
                told.send_replace(Standing::Up(Arc::clone(&pipe)));
                signals.note(true);
                let fault = pipe.ended().await;
                shared.counts.reconnects.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(server = %address, %fault, "the connection to Redis was lost");
                fault
            }
            Err(fault) => fault,
        };
        failures += 1;
        tracing::debug!(server = %address, %fault, failures, "no connection to Redis");
        told.send_replace(Standing::Down(fault));
        signals.note(false);
        shared.trouble.notify_one();
        sleep(backoff(failures, roll())).await;
    }
}

async fn connect(shared: &Shared, address: &Address) -> Result<Pipe, LinkFault> {
    let wire = shared.dial(address, Speech::Resp2).await?;
    let pipe = Pipe::start(wire, shared.next_connection(), &shared.runtime);
    if let Some(library) = &shared.library {
        library.ensure(&pipe, now() + LOAD_TIMEOUT).await?;
    }
    Ok(pipe)
}
