//! What is counted of sources.

use crate::metrics::Labels;
use crate::standing::Standing;
use postrider_sources::queue::Lag;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::Ordering;

/// The counters and levels of all sources.
#[derive(Debug, Default)]
pub struct SourceMetrics {
    standing: Standing,
    waiting: Family<Labels, Gauge>,
    unsettled: Family<Labels, Gauge>,
    redelivered: Family<Labels, Counter>,
    given_back: Family<Labels, Counter>,
    undecodable: Family<Labels, Counter>,
    dropped: Family<Labels, Counter>,
    interruptions: Family<Labels, Counter>,
}

/// The labels of one source.
fn of(source: &'static str) -> Labels {
    [("source", source)]
}

fn level(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl SourceMetrics {
    /// Makes them known.
    pub fn register(&self, r: &mut Registry) {
        self.standing.set(of("http"), true);
        let what = "Whether a source can take notifications";
        self.standing.register(r, "source_ready", what);
        let what = "Messages in a source that nobody was given yet";
        r.register("source_waiting", what, self.waiting.clone());
        let what = "Messages of a source that were given out and are not settled, on all nodes";
        r.register("source_unsettled", what, self.unsettled.clone());
        let what = "Messages that a source gave again";
        r.register("source_redelivered", what, self.redelivered.clone());
        let what = "Messages that were given back to their source";
        r.register("source_given_back", what, self.given_back.clone());
        let what = "Messages of a source of which no notification could be made";
        r.register("source_undecodable", what, self.undecodable.clone());
        let what = "Messages of a source that keeps none, which were lost for want of room";
        r.register("source_dropped", what, self.dropped.clone());
        let what = "Times that a source that keeps none lost its connection, and what came meanwhile";
        r.register("source_interruptions", what, self.interruptions.clone());
    }

    /// Whether a source is there.
    pub fn set_ready(&self, source: &'static str, is_ready: bool) {
        self.standing.set(of(source), is_ready);
    }

    /// The sources that are not there, by name.
    pub fn away(&self) -> Vec<&'static str> {
        self.standing.away()
    }

    pub(super) fn set_lag(&self, source: &'static str, lag: Lag) {
        if let Some(waiting) = lag.waiting {
            self.waiting.get_or_create(&of(source)).set(level(waiting));
        }
        self.unsettled
            .get_or_create(&of(source))
            .set(level(lag.unsettled));
        self.dropped
            .get_or_create(&of(source))
            .inner()
            .store(lag.dropped, Ordering::Relaxed);
        self.interruptions
            .get_or_create(&of(source))
            .inner()
            .store(lag.interruptions, Ordering::Relaxed);
    }

    pub(super) fn count_redelivered(&self, source: &'static str, count: u64) {
        self.redelivered.get_or_create(&of(source)).inc_by(count);
    }

    pub(super) fn count_given_back(&self, source: &'static str) {
        self.given_back.get_or_create(&of(source)).inc();
    }

    pub(super) fn count_undecodable(&self, source: &'static str) {
        self.undecodable.get_or_create(&of(source)).inc();
    }
}
