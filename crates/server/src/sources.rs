//! Queue sources at work: each configured source with its workers, from the first message to the drain.
//!
//! A worker receives, decodes, passes what it has through intake and hands it to the engine, and then settles every
//! message for itself. Nothing is acknowledged before the engine's receipt; what cannot be decoded becomes a dead letter
//! before it is acknowledged.
//!
//! Invariant: of each source at most `in_flight` messages are unsettled on this node, of the queues of users one of each user
//! beside, which that source sees to by itself. A source that is away stops nobody
//! else, and is tried again with growing pauses; whether it is there shows in its metrics and at `/ready`.
//!
//! Does not know what any source is made of: [`make`] alone does.

mod done;
mod doors;
mod here;
mod make;
#[cfg(feature = "redis")]
mod outside;
mod take;
mod tally;
mod to_channel;
mod wait;
mod waits;
mod work;

pub use doors::Doors;
pub use tally::SourceMetrics;
pub use waits::Waits;

use crate::channels::Channels;
use crate::clock::fresh_number;
use crate::config::{Config, Offline, SettleOn};
use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::tasks::Tasks;
use futures_util::future::join_all;
use postrider_engine::{Engine, Presence};
use postrider_model::{Entry, LogPace, Millis};
use postrider_router::Limits;
use postrider_sources::queue::{Decoding, Pauses, Seldom, Source};
use postrider_transports::Hub;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use tokio::sync::Semaphore;

/// How a source's messages are handled, whatever it is.
#[derive(Debug, Clone)]
struct Handling {
    decoding: Decoding,
    /// What says nothing of an audience may go to everyone.
    may_broadcast: bool,
    settle_on: SettleOn,
    deliver_within: Millis,
    offline: Offline,
    /// What is left to the queue because nobody is there comes again after this.
    leave_for: Millis,
    /// The time to live of notifications whose messages say none.
    ttl: Option<Millis>,
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
    /// Ways out that are no sessions.
    pub channels: Channels,
    /// What this node is called by those who send to it.
    #[cfg_attr(
        not(feature = "aws"),
        allow(dead_code, reason = "no source of this build has a name of its own")
    )]
    pub instance: Arc<str>,
    /// Says whether a user is there.
    pub presence: Arc<dyn Presence>,
    /// Tells those who wait for a settlement.
    pub waits: Arc<Waits>,
    /// Sources that are posted to.
    #[cfg_attr(
        not(feature = "aws"),
        allow(dead_code, reason = "no source of this build is posted to")
    )]
    pub doors: Arc<Doors>,
    /// Who calls AWS.
    #[cfg(feature = "aws")]
    pub account: Arc<postrider_aws::Account>,
}

/// One source at work.
struct Running {
    name: &'static str,
    source: Arc<dyn Source>,
    handling: Handling,
    plant: Plant,
    /// Where its notifications go.
    ways: to_channel::Ways,
    /// One permit for each message that may be unsettled.
    room: Arc<Semaphore>,
    /// In a row, of all workers.
    failures: AtomicU32,
    passed_over: Seldom,
    /// What was pushed to channels.
    done: done::Done,
    /// The paces of the lines about dead letters, and about messages that could not be settled.
    buried: LogPace,
    unsettled: LogPace,
}

impl Running {
    async fn drained(&self) {
        // Every permit back: nothing is unsettled, and nobody takes any more.
        let all = u32::try_from(self.handling.in_flight).unwrap_or(u32::MAX);
        if self.room.acquire_many(all).await.is_ok() {
            self.source.close().await;
            self.room.close();
        }
    }
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
            let (source, handling) = make::make(name, one, &node, plant, hub)?;
            let running = Arc::new(Running {
                name,
                source,
                ways: to_channel::Ways::of(one.deliver_to(), &plant.channels),
                room: Arc::new(Semaphore::new(handling.in_flight)),
                failures: AtomicU32::new(0),
                passed_over: Seldom::default(),
                done: done::Done::default(),
                buried: LogPace::new(),
                unsettled: LogPace::new(),
                handling,
                plant: plant.clone(),
            });
            plant.metrics.sources().set_ready(name, false);
            work::start(&running);
            Some(running)
        });
        let running: Vec<_> = running.collect();
        if running.iter().any(|one| one.handling.offline == Offline::Leave) {
            plant
                .tasks
                .spawn("who leaves", waits::watch_leaving(plant.clone()));
        }
        Sources { running }
    }

    /// What was made for this node alone is left where it is: somebody may still send to it.
    pub fn keep(&self) {
        self.running.iter().for_each(|running| running.source.keep());
    }

    /// Waits until the workers have let go of what they had, and closes the sources, none after another. The drain has begun
    /// before.
    pub async fn drained(&self) {
        join_all(self.running.iter().map(|running| running.drained())).await;
    }
}
