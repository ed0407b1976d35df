//! Who of the nodes keeps house: does what is due, and forgets what is too old. The one that holds a lease, which
//! another takes over when that node is gone.
//!
//! Invariant: two nodes that both believe they hold it do each thing once all the same, since what they do rests on
//! the same rows. So the lease spares work, and nothing depends on it.

use super::engine::Shared;
use super::store::RedisStore;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

/// For so long a node has the lease. After its death another has it at most this and a [`STEP`] later.
const TTL: Duration = Duration::from_secs(2);
/// How often it is renewed, or tried for.
const STEP: Duration = Duration::from_millis(500);
/// What the lease is called.
const NAME: &str = "house";

/// The task that sees to the lease.
pub(super) struct House {
    stop: Sender<()>,
    task: JoinHandle<()>,
}

impl House {
    pub fn start(handle: &Handle, store: RedisStore, engine: &Arc<Shared>) -> House {
        let (stop, stopped) = channel();
        let task = handle.spawn(keep(store, Arc::downgrade(engine), stopped));
        House { stop, task }
    }

    /// Lets the lease go, so that another takes it at once.
    pub async fn close(self) {
        drop(self.stop);
        if self.task.await.is_err() {
            tracing::error!("whoever saw to the lease panicked");
        }
    }
}

async fn keep(store: RedisStore, engine: std::sync::Weak<Shared>, mut stopped: Receiver<()>) {
    let mut turn = 0_u32;
    loop {
        let keeps = match store.hold(NAME, TTL).await {
            Ok(keeps) => keeps,
            Err(fault) => {
                tracing::debug!(%fault, "the lease cannot be taken");
                false
            }
        };
        store.set_keeps_house(keeps);
        let Some(engine) = engine.upgrade() else { break };
        if keeps && turn.is_multiple_of(2) {
            finish(&store, &engine).await;
        }
        drop(engine);
        turn = turn.wrapping_add(1);
        if tokio::time::timeout(STEP, &mut stopped).await.is_ok() {
            break;
        }
    }
    store.set_keeps_house(false);
    if let Err(fault) = store.let_go(NAME).await {
        tracing::debug!(%fault, "the lease runs out by itself");
    }
}

/// Finishes what other nodes left in the middle.
async fn finish(store: &RedisStore, engine: &Shared) {
    let store = store.clone();
    match engine.readers().run(move || store.finish_abandoned()).await {
        Ok(Ok(0)) | Err(_) => {}
        Ok(Ok(count)) => tracing::info!(count, "finished what another node had left in the middle"),
        Ok(Err(fault)) => tracing::warn!(%fault, "what other nodes left cannot be looked at"),
    }
}
