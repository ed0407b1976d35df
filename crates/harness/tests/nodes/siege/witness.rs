//! Sessions that look at the clock: two on each node, which stay where they are, and probes that are published to all
//! of them as soon as Redis is back.
//!
//! Invariant: a witness opens a new session only when its own has ended, and each end is counted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use postrider_harness::fleet::Fleet;
use postrider_harness::inbox::{Connect, Inbox, Received, Transport};
use postrider_harness::node::Endpoint;
use postrider_harness::token;
use postrider_harness::wait::{until, within};
use serde_json::{Value, json};

use super::back_end::post;
use super::faults::Done;
use super::pause;

const SLICE: Duration = Duration::from_millis(50);
/// How long a probe is looked for, and published, before the siege is given up.
const LOOKED_FOR: Duration = Duration::from_secs(30);
/// Pause after a refusal, in milliseconds.
const AGAIN: u64 = 20;

pub struct Witnesses {
    all: Vec<Witness>,
    endpoints: Vec<Endpoint>,
    publishers: Vec<JoinHandle<Result<()>>>,
    resumes_within: Duration,
    stop: Arc<AtomicBool>,
    probes: usize,
    slowest: Duration,
    sum: Duration,
}

struct Witness {
    node: usize,
    user: String,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    probes: HashMap<String, Instant>,
    ends: Vec<String>,
    is_open: bool,
}

impl Witnesses {
    pub fn start(fleet: &Fleet, resumes_within: Duration) -> Result<Witnesses> {
        let endpoints = fleet.endpoints();
        let stop = Arc::new(AtomicBool::new(false));
        let mut all = Vec::new();
        for (node, endpoint) in endpoints.iter().enumerate() {
            for transport in [Transport::WebSocket, Transport::Sse] {
                let user = format!("witness-{node}-{transport}");
                let connect = Connect::new(endpoint, &token::user(&user)?);
                let seen = Arc::new(Mutex::new(Seen::default()));
                let (own, stop) = (seen.clone(), stop.clone());
                all.push(Witness {
                    node,
                    user,
                    seen,
                    thread: Some(std::thread::spawn(move || {
                        watch(&connect, transport, &own, &stop)
                    })),
                });
            }
        }
        let witnesses = Witnesses {
            all,
            endpoints,
            publishers: Vec::new(),
            resumes_within,
            stop,
            probes: 0,
            slowest: Duration::ZERO,
            sum: Duration::ZERO,
        };
        until("witnesses to be there", within(60), || {
            let open = witnesses
                .all
                .iter()
                .all(|witness| witness.with(|seen| seen.is_open));
            Ok(open.then_some(()))
        })?;
        Ok(witnesses)
    }

    /// How many sessions of each have ended so far.
    pub fn ends(&self) -> Vec<usize> {
        let all = self.all.iter();
        all.map(|witness| witness.with(|seen| seen.ends.len())).collect()
    }

    /// Publishes a probe and looks for it; what was wrong about how it came, and how long the last had to wait.
    pub fn judge(&mut self, done: &Done, before: &[usize]) -> (Vec<String>, Duration) {
        self.probes += 1;
        let id = format!("probe-{}", self.probes);
        let users: Vec<&str> = self.all.iter().map(|witness| witness.user.as_str()).collect();
        let body = json!({"id": id, "users": users, "data": id});
        // It may be accepted only when a replica is back: that is waited for at the end.
        let publisher = self.publish(body);
        self.publishers.push(publisher);
        let (mut wrong, mut slowest) = (Vec::new(), Duration::ZERO);
        for (witness, before) in self.all.iter().zip(before) {
            let came = until("a probe", done.back + LOOKED_FOR, || {
                Ok(witness.with(|seen| seen.probes.get(&id).copied()))
            });
            let took = came.map_or(LOOKED_FOR, |came| came.saturating_duration_since(done.back));
            self.sum += took;
            // Whose node went, too, had to come back first.
            if done.nodes.contains(&witness.node) && took < LOOKED_FOR {
                continue;
            }
            slowest = slowest.max(took);
            if took > self.resumes_within {
                wrong.push(format!("{} had to wait {took:?} for a probe", witness.user));
            }
            let ends = witness.with(|seen| seen.ends[*before..].join(", "));
            if !ends.is_empty() {
                wrong.push(format!("the session of {} ended: {ends}", witness.user));
            }
        }
        self.slowest = self.slowest.max(slowest);
        (wrong, slowest)
    }

    /// Tries until it is accepted, in a thread of its own, since it may be seen long before.
    fn publish(&self, body: Value) -> JoinHandle<Result<()>> {
        let endpoints = self.endpoints.clone();
        let turn = self.probes;
        std::thread::spawn(move || {
            let until = Instant::now() + LOOKED_FOR;
            for attempt in turn.. {
                let node = &endpoints[attempt % endpoints.len()];
                if node.is_up()
                    && let Ok((status, said)) = post(node, &body)
                {
                    match status {
                        202 => return Ok(()),
                        503 => {}
                        _ => eprintln!("siege of nodes: a probe was answered {status}: {said}"),
                    }
                }
                if Instant::now() > until {
                    break;
                }
                pause(AGAIN);
            }
            bail!("a probe was not accepted")
        })
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for witness in &mut self.all {
            if let Some(thread) = witness.thread.take()
                && thread.join().is_err()
            {
                eprintln!("siege of nodes: a witness panicked");
            }
        }
    }

    /// Until every probe is accepted, and nobody watches any more; the figures.
    pub fn close(&mut self) -> Result<String> {
        self.halt();
        for publisher in self.publishers.drain(..) {
            publisher.join().ok().context("a publisher panicked")??;
        }
        let all = (self.probes * self.all.len()).max(1) as f64;
        Ok(format!(
            "{} probes, live again after {:.2} s at worst, {:.2} s in the mean",
            self.probes,
            self.slowest.as_secs_f64(),
            self.sum.as_secs_f64() / all
        ))
    }
}

impl Drop for Witnesses {
    fn drop(&mut self) {
        self.halt();
    }
}

impl Witness {
    fn with<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn watch(connect: &Connect, transport: Transport, seen: &Mutex<Seen>, stop: &AtomicBool) {
    let lock = || seen.lock().unwrap_or_else(PoisonError::into_inner);
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut inbox) = connect.open(transport) else {
            pause(AGAIN);
            continue;
        };
        lock().is_open = true;
        let end = session(&mut *inbox, seen, stop);
        if let Err(end) = end {
            lock().ends.push(format!("{end:#}"));
        }
    }
}

/// Reads until the session ends, which is an error, or the siege does.
fn session(inbox: &mut dyn Inbox, seen: &Mutex<Seen>, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        match inbox.next(Instant::now() + SLICE).context("a session")? {
            Some(Received::Notification(notification)) => {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.probes.entry(notification.id).or_insert_with(Instant::now);
            }
            Some(Received::End(end)) => bail!("{end:?}"),
            _ => {}
        }
    }
    Ok(())
}
