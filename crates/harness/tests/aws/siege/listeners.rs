//! Users who have a session whenever a node is up, over all transports, and tell the ledger what they get.
//!
//! Invariant: a listener that was cut comes back by itself, without a cursor: what is pending then comes first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use postrider_harness::inbox::{Connect, End, Notification, Received, TRANSPORTS, Transport};
use postrider_harness::node::Endpoint;
use postrider_harness::token;

use super::ledger::Ledger;

/// How long is read before a listener looks whether it should stop.
const SLICE: Duration = Duration::from_millis(100);
/// Before a new session after a failed one.
const PAUSE: Duration = Duration::from_millis(20);

pub struct Listeners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// The name of a listener.
pub fn name(nth: usize) -> String {
    format!("listener-{nth}")
}

impl Listeners {
    /// So many of them.
    pub fn start(count: usize, endpoint: &Endpoint, ledger: &Arc<Ledger>) -> Result<Listeners> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for nth in 0..count {
            let token = token::user(&name(nth))?;
            let connect = Connect::new(endpoint, &token);
            let transport = TRANSPORTS[nth % TRANSPORTS.len()];
            let (stop, ledger) = (stop.clone(), ledger.clone());
            threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Err(e) = listen(&connect, transport, &stop, &ledger)
                        && !is_absence(&e)
                    {
                        ledger.fault(format!("{transport}: {e:#}"));
                        return;
                    }
                    std::thread::park_timeout(PAUSE);
                }
            }));
        }
        Ok(Listeners { stop, threads })
    }

    /// Ends them, and waits.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            if thread.join().is_err() {
                eprintln!("harness: a listener panicked");
            }
        }
    }
}

/// One session, to its end.
fn listen(connect: &Connect, transport: Transport, stop: &AtomicBool, ledger: &Ledger) -> Result<()> {
    let mut inbox = connect.open(transport)?;
    while !stop.load(Ordering::Relaxed) {
        match inbox.next(Instant::now() + SLICE)? {
            Some(Received::Notification(notification)) => {
                ledger.delivered(&notification.id, &text(&notification)?)
            }
            Some(Received::End(End::Refused(..) | End::Broken(_) | End::Orderly | End::Closed(..))) => {
                return Ok(());
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// The message's body: a text is a JSON string of it, anything else is as it is.
fn text(notification: &Notification) -> Result<String> {
    match notification.data.starts_with('"') {
        true => Ok(serde_json::from_str(&notification.data)?),
        false => Ok(notification.data.clone()),
    }
}

/// Whether the node is down, or was going down or up just then.
fn is_absence(e: &anyhow::Error) -> bool {
    let is_io = e.chain().any(|cause| cause.is::<std::io::Error>());
    is_io
        || ["connection closed", "the node is down", "refused with 503"]
            .iter()
            .any(|said| format!("{e:#}").contains(said))
}
