//! What every source does, as checks that any source can be put to.
//!
//! A [`Subject`] is a real queue under a test's hand. [`check`] runs all rules that its promise includes; each rule begins
//! with an empty queue of its own. A new source adds a subject and passes them unchanged.
//!
//! The rules say nothing of decoders or engines: those see only what a source gives.

#![allow(
    clippy::disallowed_methods,
    reason = "a test suite is a driver: it reads clocks and sleeps"
)]
#![allow(clippy::panic, reason = "a broken rule ends the test")]

mod kept;
mod lost;

use crate::queue::{Delivery, Promise, Source};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A rule waits so long for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is away is said to be so within this.
const SAYS_SO: Duration = Duration::from_secs(20);
/// A lease that outlives a rule: what comes again does so because it was given back.
const LONG: Duration = Duration::from_secs(600);
/// A lease that ends within a rule. The rule holds on a machine that stands still for longer too.
const SHORT: Duration = Duration::from_secs(3);

/// A queue, and the hand that fills it and takes it away.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Empties the queue, or takes another: what was there before never comes. Called before every rule.
    async fn begin(&self, rule: &str);

    /// The source as a node of this name has it, with two workers, not open yet. Two nodes share the queue; what one holds
    /// that is dead is another's after the lease.
    async fn node(&self, name: &str, lease: Duration) -> Arc<dyn Source>;

    /// Adds these payloads, in order. For a source that keeps nothing: once somebody listens.
    async fn put(&self, payloads: &[String]);

    /// How many messages the server itself says are not done with; of one that keeps nothing, none.
    async fn left(&self) -> usize;

    /// The payload of a message that [`Subject::put`] added.
    fn payload(&self, delivery: &Delivery) -> Bytes;

    /// Takes the whole server away; what it promised to keep it keeps.
    async fn go_away(&self);

    /// Brings it back at the same place.
    async fn come_back(&self);
}

/// Puts a source to every rule that its promise includes.
///
/// # Panics
/// Where a rule does not hold.
pub async fn check(subject: &dyn Subject) {
    subject.begin("which_promise").await;
    match subject.node("a", LONG).await.promise() {
        Promise::AtLeastOnce => kept::check(subject).await,
        Promise::AtMostOnce => lost::check(subject).await,
    }
}

fn payloads(names: std::ops::Range<u32>) -> Vec<String> {
    names.map(|n| format!("payload {n}")).collect()
}

/// Opens a source, however often that takes.
async fn open(source: &dyn Source) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(fault) = source.open().await {
        assert!(Instant::now() < deadline, "it does not open: {fault}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Receives until there are `count`. A source that is away is opened again.
async fn receive_all(source: &dyn Source, worker: usize, count: usize) -> Vec<Delivery> {
    let deadline = Instant::now() + PATIENCE;
    let mut out = Vec::new();
    while out.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} came", out.len());
        match source.receive(worker, count - out.len()).await {
            Ok(deliveries) => {
                assert!(deliveries.len() <= count - out.len(), "more than was asked for");
                out.extend(deliveries);
            }
            Err(_) => open(source).await,
        }
    }
    out
}

async fn ack_all(deliveries: Vec<Delivery>) {
    for acked in join_all(deliveries.into_iter().map(Delivery::ack)).await {
        acked.expect("it is there");
    }
}

fn texts(subject: &dyn Subject, deliveries: &[Delivery]) -> Vec<String> {
    let text = |delivery| String::from_utf8_lossy(&subject.payload(delivery)).into_owned();
    deliveries.iter().map(text).collect()
}
