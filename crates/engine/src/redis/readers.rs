//! The threads on which a node looks at the store: a look waits for Redis, and no worker of the runtime may.
//!
//! Invariant: as many looks at once as there are threads, and a bounded number that wait for one; what is more is
//! refused as busy. Knows nothing of what is read.

use crate::{EngineError, StoreFault};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// Looks at once.
const THREADS: usize = 16;
/// Looks that wait; one more is refused.
const MAX_WAITING: usize = 4096;

type Work = Box<dyn FnOnce() + Send>;

/// The threads. They end when this is dropped, each after what it is at.
pub(super) struct Readers(SyncSender<Work>);

impl Readers {
    pub fn start() -> Result<Readers, StoreFault> {
        let (sender, receiver) = sync_channel::<Work>(MAX_WAITING);
        let receiver = Arc::new(Mutex::new(receiver));
        for n in 0..THREADS {
            let receiver = receiver.clone();
            std::thread::Builder::new()
                .name(format!("store-reader-{n}"))
                .spawn(move || {
                    while let Some(work) = next(&receiver) {
                        // Whoever asked sees that there is no answer; the thread goes on.
                        if catch_unwind(AssertUnwindSafe(work)).is_err() {
                            tracing::error!("a look at the store panicked");
                        }
                    }
                })
                .map_err(|error| StoreFault::Io(error.to_string()))?;
        }
        Ok(Readers(sender))
    }

    /// Does this on one of the threads.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.start_work(move || {
            if reply.send(work()).is_err() {
                tracing::trace!("whoever asked had gone before the answer");
            }
        })?;
        answer.await.map_err(|_| EngineError::Closed)
    }

    /// Does this on one of the threads, and nobody waits for it.
    pub fn start_work(&self, work: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
        self.0.try_send(Box::new(work)).map_err(|error| match error {
            TrySendError::Full(_) => EngineError::Busy,
            TrySendError::Disconnected(_) => EngineError::Closed,
        })
    }
}

fn next(receiver: &Mutex<Receiver<Work>>) -> Option<Work> {
    let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
    receiver.recv().ok()
}

/// Whom a future wakes that is driven by a thread of its own.
struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Drives a future on this thread, which needs no runtime around it.
pub(super) fn drive<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Parked(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_works_elsewhere_and_ends() {
        let readers = Readers::start().unwrap();
        let here = std::thread::current().id();
        let there = drive(readers.run(|| std::thread::current().id())).unwrap();
        assert_ne!(here, there);
        let broken: Result<(), _> = drive(readers.run(|| panic!("as a look may")));
        assert!(matches!(broken, Err(EngineError::Closed)));
        let again = drive(readers.run(|| 7)).unwrap();
        assert_eq!(again, 7, "one look that panics is the trouble of whoever asked");
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let readers = Readers::start().unwrap();
        let (open, gate) = sync_channel::<()>(0);
        let gate = Arc::new(Mutex::new(gate));
        let mut refused = 0;
        for _ in 0..MAX_WAITING + 2 * THREADS {
            let gate = gate.clone();
            let work = move || assert!(gate.lock().unwrap().recv().is_err(), "nothing is sent");
            refused += usize::from(matches!(readers.start_work(work), Err(EngineError::Busy)));
        }
        assert!((THREADS..=2 * THREADS).contains(&refused), "{refused}");
        drop(open);
    }
}
