//! The one place where tasks are started: each has a name, is counted, and its panic is logged.

#![allow(clippy::disallowed_methods, reason = "the supervised place for spawn")]

use std::future::Future;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Starts tasks on a runtime and can wait for them to end.
#[derive(Debug, Clone)]
pub struct Tasks {
    runtime: Handle,
    running: watch::Sender<usize>,
}

impl Tasks {
    /// Tasks on this runtime.
    pub fn new(runtime: Handle) -> Tasks {
        Tasks {
            runtime,
            running: watch::Sender::new(0),
        }
    }

    /// Starts a task. It ends by itself, or with the runtime.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.running.send_modify(|count| *count += 1);
        let ended = Ended {
            name,
            running: self.running.clone(),
        };
        self.runtime.spawn(async move {
            task.await;
            drop(ended);
        });
    }

    /// How many run now.
    pub fn running(&self) -> usize {
        *self.running.borrow()
    }

    /// Returns when none runs.
    pub async fn idle(&self) {
        let mut running = self.running.subscribe();
        // The sender lives in `self`, so this cannot fail while it waits.
        if running.wait_for(|count| *count == 0).await.is_err() {
            tracing::debug!("the task counter is gone");
        }
    }

    /// The runtime they run on.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// Counts a task out, and says where it panicked.
struct Ended {
    name: &'static str,
    running: watch::Sender<usize>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.name, "a task panicked");
        }
        self.running.send_modify(|count| *count -= 1);
    }
}
