//! Queue sources at work: each configured source with its workers, from the first message to the drain.
//!
//! A worker receives, decodes, passes what it has through intake and hands it to the engine, and then settles every
//! message for itself. Nothing is acknowledged before the engine's receipt; what cannot be decoded becomes a dead letter
//! before it is acknowledged.
//!
//! Invariant: of each source at most `in_flight` messages are unsettled on this node. A source that is away stops nobody
//! else, and is tried again with growing pauses; whether it is there shows in its metrics and at `/ready`.
//!
//! Does not know what any source is made of: [`make`] alone does.

mod here;
mod make;
mod outside;
mod take;
mod tally;
mod wait;
mod work;

pub use tally::SourceMetrics;

use crate::clock::fresh_number;
use crate::config::{Config, SettleOn};
use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::tasks::Tasks;
use postrider_engine::Engine;
use postrider_model::{Entry, Millis};
use postrider_router::Limits;
use postrider_sources::queue::{Decoding, Pauses, Seldom, Source};
use postrider_transports::Hub;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// How a source's messages are handled, whatever it is.
#[derive(Debug, Clone)]
struct Handling {
    decoding: Decoding,
    /// What says nothing of an audience may go to everyone.
    may_broadcast: bool,
    settle_on: SettleOn,
    deliver_within: Millis,
    max_deliveries: u32,
    retry: Pauses,
    /// A delivery that is worked on longer has to be held.
    hold_every: Millis,
    workers: usize,
    batch: usize,
    in_flight: usize,
    /// Most bytes of a payload that is handed on as it came.
    max_payload: usize,
}

/// Brings entries to the sessions of this node alone.
pub type Bring = Arc<dyn Fn(Arc<[Arc<Entry>]>) + Send + Sync>;

/// What sources need of the node.
#[derive(Clone)]
pub struct Plant {
    /// Takes the notifications.
    pub engine: Arc<dyn Engine>,
    /// What is transient, and heard by every node for itself, goes here.
    pub bring: Bring,
    /// What a notification may be.
    pub limits: Limits,
    /// Where things are counted.
    pub metrics: Arc<Metrics>,
    /// Ends the taking.
    pub drain: Drain,
    /// Runs the workers.
    pub tasks: Tasks,
}

/// One source at work.
struct Running {
    name: &'static str,
    source: Arc<dyn Source>,
    handling: Handling,
    plant: Plant,
    /// One permit for each message that may be unsettled.
    room: Arc<Semaphore>,
    passed_over: Seldom,
}

/// The sources of a node, at work.
pub struct Sources {
    running: Vec<Arc<Running>>,
}

impl Sources {
    /// Makes every configured source, and puts it to work. To be called before anybody can connect: a source may have to
    /// know who comes.
    pub fn start(config: &Config, hub: &Hub, plant: &Plant) -> Sources {
        // Unlike for every node and every start.
        let node = format!("{:016x}", fresh_number());
        let running = config.sources.iter().filter_map(|(name, one)| {
            // Names are labels of metrics, which live as long as the process. There are as many as were configured.
            let name: &'static str = Box::leak(name.clone().into_boxed_str());
            let (source, handling) = make::make(name, one, &node, &config.limits, hub)?;
            let running = Arc::new(Running {
                name,
                source,
                room: Arc::new(Semaphore::new(handling.in_flight)),
                passed_over: Seldom::default(),
                handling,
                plant: plant.clone(),
            });
            plant.metrics.sources().set_ready(name, false);
            work::start(&running);
            Some(running)
        });
        Sources {
            running: running.collect(),
        }
    }

    /// Waits until the workers have let go of what they had, and closes the sources. The drain has begun before.
    pub async fn drained(&self) {
        for running in &self.running {
            // Every permit back: nothing is unsettled, and nobody takes any more.
            let all = u32::try_from(running.handling.in_flight).unwrap_or(u32::MAX);
            if running.room.acquire_many(all).await.is_ok() {
                running.source.close().await;
                running.room.close();
            }
        }
    }
}
