//! What the node counts, by the names that the interface promises.
//!
//! Everything here is cheap to count from any thread; text is made only when someone asks for it.

use crate::channels::ChannelMetrics;
use crate::registry::RegistryMetrics;
use crate::sources::SourceMetrics;
use postrider_model::{SettleKind, State, Transport};
use postrider_transports::{HubStats, Problem};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Buckets of the sync histogram, in seconds.
const SYNC_BUCKETS: [f64; 12] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0,
];

/// The places in what is counted by kind.
const KINDS: [SettleKind; 2] = [SettleKind::Delivered, SettleKind::Read];

pub(crate) type Labels = [(&'static str, &'static str); 1];

/// All metrics of a node.
pub struct Metrics {
    registry: Mutex<Registry>,
    accepted: Family<Labels, Counter>,
    rejected: Family<Labels, Counter>,
    deliveries: Family<Labels, Counter>,
    settled: Family<Labels, Counter>,
    /// What clients said by a request of the API, and by a frame; the metric is their sum.
    settled_by_api: [AtomicU64; 2],
    settled_by_frame: [AtomicU64; 2],
    evidence: Counter,
    imported: Family<Labels, Counter>,
    sessions: Family<Labels, Gauge>,
    sources: SourceMetrics,
    channels: ChannelMetrics,
    people: RegistryMetrics,
    connections: Gauge,
    transient_dropped: Counter,
    wakes_lost: Counter,
    tls_handshakes: Counter,
    tls_faults: Counter,
    sync_seconds: Histogram,
    dead_letters: Gauge,
    held_bytes: Gauge,
    store_bytes: Gauge,
    store_failing: Gauge,
    redis: OnceLock<RedisMetrics>,
}

/// How it stands with Redis now, and what was done since start.
#[derive(Debug, Clone, Copy, Default)]
pub struct RedisLevels {
    /// Whether some of it cannot be reached.
    pub down: bool,
    /// Connections to it.
    pub connections: u64,
    /// Batches of commands sent.
    pub round_trips: u64,
    /// Commands sent.
    pub commands: u64,
    /// Connections made again after one was lost.
    pub reconnects: u64,
    /// Transactions done again because another node changed what they rested on.
    pub conflicts: u64,
    /// Messages of other nodes that could not be read.
    pub unreadable: u64,
    /// Channels subscribed to.
    pub channels: u64,
    /// Feeds that sessions of this node hear.
    pub followed: u64,
    /// Nodes there are.
    pub nodes: u64,
}

/// The same as metrics, which are there where Redis is the engine.
#[derive(Debug, Default)]
struct RedisMetrics {
    down: Gauge,
    connections: Gauge,
    round_trips: Counter,
    commands: Counter,
    reconnects: Counter,
    conflicts: Counter,
    unreadable: Counter,
    channels: Gauge,
    followed: Gauge,
    nodes: Gauge,
}

impl RedisMetrics {
    fn register(&self, r: &mut Registry) {
        let what = "1 while Redis, or a part of it, cannot be reached";
        r.register("redis_down", what, self.down.clone());
        r.register(
            "redis_connections",
            "Connections to Redis",
            self.connections.clone(),
        );
        let what = "Batches of commands sent to Redis";
        r.register("redis_round_trips", what, self.round_trips.clone());
        r.register("redis_commands", "Commands sent to Redis", self.commands.clone());
        let what = "Connections to Redis made again after one was lost";
        r.register("redis_reconnects", what, self.reconnects.clone());
        let what = "Transactions done again because another node changed what they rested on";
        r.register("redis_conflicts", what, self.conflicts.clone());
        let what = "Messages of other nodes that could not be read";
        r.register("redis_unreadable", what, self.unreadable.clone());
        r.register("redis_channels", "Channels subscribed to", self.channels.clone());
        r.register(
            "feeds_followed",
            "Feeds that sessions of this node hear",
            self.followed.clone(),
        );
        r.register("nodes", "Nodes that share this Redis", self.nodes.clone());
    }

    fn take(&self, levels: RedisLevels) {
        let total = |counter: &Counter, value: u64| counter.inner().store(value, Ordering::Relaxed);
        let level = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        level(&self.down, u64::from(levels.down));
        level(&self.connections, levels.connections);
        total(&self.round_trips, levels.round_trips);
        total(&self.commands, levels.commands);
        total(&self.reconnects, levels.reconnects);
        total(&self.conflicts, levels.conflicts);
        total(&self.unreadable, levels.unreadable);
        level(&self.channels, levels.channels);
        level(&self.followed, levels.followed);
        level(&self.nodes, levels.nodes);
    }
}

/// How things are with the store now.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreLevels {
    /// Whether the last thing that was to be stored could not be.
    pub failing: bool,
    /// Dead letters there are.
    pub dead_letters: u64,
    /// Bytes that notifications hold.
    pub held_bytes: u64,
    /// Bytes that the store takes on the disk.
    pub store_bytes: u64,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Metrics {
            registry: Mutex::new(Registry::default()),
            accepted: Family::default(),
            rejected: Family::default(),
            deliveries: Family::default(),
            settled: Family::default(),
            settled_by_api: Default::default(),
            settled_by_frame: Default::default(),
            evidence: Counter::default(),
            imported: Family::default(),
            dead_letters: Gauge::default(),
            held_bytes: Gauge::default(),
            store_bytes: Gauge::default(),
            store_failing: Gauge::default(),
            redis: OnceLock::new(),
            connections: Gauge::default(),
            transient_dropped: Counter::default(),
            wakes_lost: Counter::default(),
            tls_handshakes: Counter::default(),
            tls_faults: Counter::default(),
            sessions: Family::default(),
            sources: SourceMetrics::default(),
            channels: ChannelMetrics::default(),
            people: RegistryMetrics::default(),
            sync_seconds: Histogram::new(SYNC_BUCKETS),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let mut registry = Registry::with_prefix("postrider");
        let r = &mut registry;
        r.register(
            "notifications_accepted",
            "Notifications accepted",
            self.accepted.clone(),
        );
        r.register(
            "notifications_rejected",
            "Notifications refused",
            self.rejected.clone(),
        );
        r.register(
            "deliveries",
            "Entries handed to sessions' sockets",
            self.deliveries.clone(),
        );
        r.register(
            "settled",
            "Entries that a client acknowledged or read by its own word",
            self.settled.clone(),
        );
        r.register(
            "evidence",
            "Settlements by evidence, each of which may cover many entries",
            self.evidence.clone(),
        );
        let what = "Users of imports, by what became of them";
        r.register("users_imported", what, self.imported.clone());
        r.register("sessions", "Sessions open now", self.sessions.clone());
        r.register(
            "connections",
            "Sockets held for inboxes now",
            self.connections.clone(),
        );
        let what = "Transient notifications for which a session had no room";
        r.register("transient_dropped", what, self.transient_dropped.clone());
        r.register(
            "wakes_lost",
            "Wakes for which a shard had no room",
            self.wakes_lost.clone(),
        );
        let what = "TLS handshakes completed";
        r.register("tls_handshakes", what, self.tls_handshakes.clone());
        let what = "Connections ended by a fault of TLS, or before their handshake was complete";
        r.register("tls_faults", what, self.tls_faults.clone());
        r.register(
            "store_sync_seconds",
            "Time of one commit to the store",
            self.sync_seconds.clone(),
        );
        r.register("dead_letters", "Dead letters held", self.dead_letters.clone());
        r.register(
            "held_bytes",
            "Bytes that retained notifications hold",
            self.held_bytes.clone(),
        );
        r.register(
            "store_bytes",
            "Bytes that the store takes on the disk",
            self.store_bytes.clone(),
        );
        let what = "1 while what is to be stored cannot be, and publishing is refused";
        r.register("store_failing", what, self.store_failing.clone());
        self.sources.register(r);
        self.channels.register(r);
        self.people.register(r);
        let build = Family::<Labels, Gauge>::default();
        build
            .get_or_create(&[("version", env!("CARGO_PKG_VERSION"))])
            .set(1);
        r.register("build_info", "The version that runs", build);
        for transport in Transport::ALL {
            drop(
                self.deliveries
                    .get_or_create(&[("transport", transport.as_str())]),
            );
            drop(self.sessions.get_or_create(&[("transport", transport.as_str())]));
        }
        self.count_accepted("http", 0);
        self.count_accepted("twirp", 0);
        self.registry = Mutex::new(registry);
    }

    /// Notifications that were accepted.
    pub fn count_accepted(&self, source: &'static str, count: u64) {
        self.accepted.get_or_create(&[("source", source)]).inc_by(count);
    }

    /// What is counted of channels.
    pub fn channels(&self) -> &ChannelMetrics {
        &self.channels
    }

    /// What is counted of the registry.
    pub fn registry(&self) -> &RegistryMetrics {
        &self.people
    }

    /// What is counted of sources.
    pub fn sources(&self) -> &SourceMetrics {
        &self.sources
    }

    /// One that was refused, with this code.
    pub fn count_rejected(&self, code: &'static str) {
        self.rejected.get_or_create(&[("code", code)]).inc();
    }

    /// What became of what was published by requests.
    pub fn count_outcomes<T>(&self, source: &'static str, outcomes: &[Result<T, Problem>]) {
        let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        let mut accepted = outcomes.len() as u64;
        for problem in refused {
            accepted -= 1;
            self.count_rejected(problem.code);
        }
        self.count_accepted(source, accepted);
    }

    /// Entries that a client's request settled.
    pub fn count_settled(&self, kind: SettleKind, count: u64) {
        self.settled_by_api[usize::from(kind == SettleKind::Read)].fetch_add(count, Ordering::Relaxed);
    }

    /// Users of an import, by what became of them: `created`, `changed`, `unchanged`, `rejected`.
    pub fn count_imported(&self, outcomes: &[(&'static str, u64)]) {
        for (outcome, count) in outcomes {
            self.imported
                .get_or_create(&[("outcome", *outcome)])
                .inc_by(*count);
        }
    }

    /// One commit of the store.
    pub fn observe_sync(&self, took: Duration) {
        self.sync_seconds.observe(took.as_secs_f64());
    }

    /// Takes over what the hub has counted since start, and how things are now.
    pub fn take_hub(&self, stats: &HubStats) {
        let total = |counter: &Counter, value: u64| counter.inner().store(value, Ordering::Relaxed);
        let level = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        for transport in Transport::ALL {
            let labels = [("transport", transport.as_str())];
            total(
                &self.deliveries.get_or_create(&labels),
                stats.deliveries(transport),
            );
            level(&self.sessions.get_or_create(&labels), stats.sessions(transport));
        }
        level(&self.connections, stats.connections());
        total(&self.transient_dropped, stats.transient_dropped());
        total(&self.wakes_lost, stats.wakes_lost());
        total(&self.tls_handshakes, stats.handshakes());
        total(&self.tls_faults, stats.tls_faults());
        total(&self.evidence, stats.settled());
        for (said, kind) in self.settled_by_frame.iter().zip(KINDS) {
            said.store(stats.said(kind), Ordering::Relaxed);
        }
    }

    /// Takes over how things are with the store.
    pub fn take_store(&self, levels: StoreLevels) {
        let level = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        level(&self.dead_letters, levels.dead_letters);
        level(&self.held_bytes, levels.held_bytes);
        level(&self.store_bytes, levels.store_bytes);
        level(&self.store_failing, u64::from(levels.failing));
    }

    /// Takes over how it stands with Redis.
    pub fn take_redis(&self, levels: RedisLevels) {
        let redis = self.redis.get_or_init(|| {
            let redis = RedisMetrics::default();
            redis.register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
            redis
        });
        redis.take(levels);
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        for (at, state) in [State::Delivered, State::Read].into_iter().enumerate() {
            let ways = [&self.settled_by_api[at], &self.settled_by_frame[at]];
            let total = ways.map(|way| way.load(Ordering::Relaxed)).iter().sum();
            let counter = self.settled.get_or_create(&[("state", state.as_str())]);
            counter.inner().store(total, Ordering::Relaxed);
        }
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if encode(&mut text, &registry).is_err() {
            // Only writing to memory can fail here, and memory does not.
            tracing::error!("metrics could not be written");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promised_names() {
        let metrics = Metrics::default();
        metrics.count_accepted("http", 3);
        metrics.count_rejected("too_large");
        metrics.count_settled(SettleKind::Read, 2);
        metrics.count_imported(&[("created", 2), ("rejected", 1)]);
        metrics.take_hub(&HubStats::default());
        metrics.observe_sync(Duration::from_millis(1));
        metrics.take_store(StoreLevels {
            failing: true,
            dead_letters: 7,
            held_bytes: 0,
            store_bytes: 11,
        });
        let without = metrics.render();
        assert!(!without.contains("postrider_redis"), "{without}");
        metrics.take_redis(RedisLevels {
            conflicts: 4,
            nodes: 3,
            ..RedisLevels::default()
        });
        metrics.take_redis(RedisLevels {
            conflicts: 5,
            nodes: 3,
            ..RedisLevels::default()
        });
        let text = metrics.render();
        for line in [
            "postrider_redis_down 0",
            "postrider_redis_connections 0",
            "postrider_redis_round_trips_total 0",
            "postrider_redis_commands_total 0",
            "postrider_redis_reconnects_total 0",
            "postrider_redis_conflicts_total 5",
            "postrider_redis_unreadable_total 0",
            "postrider_redis_channels 0",
            "postrider_feeds_followed 0",
            "postrider_nodes 3",
            "postrider_notifications_accepted_total{source=\"http\"} 3",
            "postrider_store_bytes 11",
            "postrider_users_imported_total{outcome=\"created\"} 2",
            "postrider_notifications_rejected_total{code=\"too_large\"} 1",
            "postrider_deliveries_total{transport=\"sse\"} 0",
            "postrider_settled_total{state=\"read\"} 2",
            "postrider_sessions{transport=\"websocket\"} 0",
            "postrider_store_sync_seconds_count 1",
            "postrider_dead_letters 7",
            "postrider_store_failing 1",
            "postrider_evidence_total 0",
            "postrider_source_ready{source=\"http\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
