//! Sees whether the servers are still those that were met: a server that started anew, or was promoted, may have lost
//! what sessions were told of already, also where no subscription was lost meanwhile.
//!
//! Invariant: once another server was met, by whoever asked it something, the listeners are told that they may have
//! missed something; a node that asks nothing meets it within a [`STEP`] of its answering. The
//! [standing](super::standing) of those that are met is looked at as often as it says, whatever is told meanwhile.

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
    // Neither waits for the other: a look that was dropped half way would have seen nothing.
    tokio::select! {
        () = tell_missed(&store, &engine) => {}
        () = look_around(&store, &engine) => {}
    }
}

/// Until the engine is gone.
async fn tell_missed(store: &RedisStore, engine: &Weak<Shared>) {
    loop {
        store.another().await;
        match engine.upgrade() {
            Some(engine) => engine.missed(),
            None => return,
        }
    }
}

/// Until the engine is gone.
async fn look_around(store: &RedisStore, engine: &Weak<Shared>) {
    let mut settings = Settings::default();
    loop {
        tokio::time::sleep(STEP).await;
        look(store, &mut settings).await;
        match engine.upgrade() {
            Some(engine) => engine.tell_unreadable(),
            None => return,
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
        self.steps = self.steps.saturating_add(1);
        self.steps >= STEPS || self.moment != Some(moment)
    }

    /// All servers said what they are, at this moment or later.
    fn seen(&mut self, moment: Moment) {
        (self.steps, self.moment) = (0, Some(moment));
    }
}

async fn look(store: &RedisStore, settings: &mut Settings) {
    if let Err(fault) = store.look_around().await {
        tracing::debug!(%fault, "the servers cannot be asked who they are");
    }
    let moment = store.links().moment();
    if settings.are_due(moment) {
        match store.look_at_settings().await {
            Ok(()) => settings.seen(moment),
            Err(fault) => tracing::debug!(%fault, "the servers cannot be asked for their settings"),
        }
    }
    store.try_again().await;
}
