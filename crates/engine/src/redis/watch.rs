//! Sees whether the servers are still those that were met: a server that started anew, or was promoted, may have lost
//! what sessions were told of already, also where no subscription was lost meanwhile.
//!
//! Invariant: once another server was met, by whoever asked it something, the listeners are told that they may have
//! missed something; a node that asks nothing meets it within a [`STEP`] of its answering. The [standing](super::standing) of those that are
//! met is looked at as often as it says.

use super::engine::Shared;
use super::links::Moment;
use super::standing::STEPS;
use super::store::RedisStore;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// How often the servers are asked.
const STEP: Duration = Duration::from_secs(1);

/// The task that watches. It ends when this is dropped.
pub(super) struct Watch(JoinHandle<()>);

impl Watch {
    pub fn start(handle: &Handle, store: RedisStore, engine: &Arc<Shared>) -> Watch {
        Watch(handle.spawn(watch(store, Arc::downgrade(engine))))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn watch(store: RedisStore, engine: Weak<Shared>) {
    let mut settings = Settings::default();
    loop {
        tokio::select! {
            () = store.another() => match engine.upgrade() {
                Some(engine) => engine.missed(),
                None => return,
            },
            () = look_around(&store, &mut settings) => match engine.upgrade() {
                Some(engine) => engine.tell_unreadable(),
                None => return,
            },
        }
    }
}

/// When the settings of the servers are to be looked at.
#[derive(Debug, Default)]
struct Settings {
    /// Steps since the last look.
    steps: u32,
    /// No connection was made since.
    moment: Option<Moment>,
}

impl Settings {
    /// In each step. Whether it is time: now and then, and after each new connection.
    fn are_due(&mut self, moment: Moment) -> bool {
        self.steps += 1;
        let are_due = self.steps >= STEPS || self.moment != Some(moment);
        if are_due {
            (self.steps, self.moment) = (0, Some(moment));
        }
        are_due
    }
}

/// After a while.
async fn look_around(store: &RedisStore, settings: &mut Settings) {
    tokio::time::sleep(STEP).await;
    if let Err(fault) = store.look_around().await {
        tracing::debug!(%fault, "the servers cannot be asked who they are");
    }
    if settings.are_due(store.links().moment())
        && let Err(fault) = store.look_at_settings().await
    {
        settings.moment = None;
        tracing::debug!(%fault, "the servers cannot be asked for their settings");
    }
    store.try_again().await;
}
