//! What is counted of channels.

use crate::metrics::Labels;
use crate::standing::Standing;
use postrider_channels::Happened;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Buckets of the histogram of batches, in seconds: from one push to a broadcast to millions.
const BATCH_BUCKETS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0, 300.0, 1_800.0,
];

/// The counters and levels of all channels.
#[derive(Debug)]
pub struct ChannelMetrics {
    standing: Standing,
    records: Family<Labels, Counter>,
    notified: Family<Labels, Counter>,
    gone: Family<Labels, Counter>,
    struck: Family<Labels, Counter>,
    repeated: Family<Labels, Counter>,
    throttled: Family<Labels, Counter>,
    undelivered: Family<Labels, Counter>,
    batch_seconds: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Default for ChannelMetrics {
    fn default() -> Self {
        ChannelMetrics {
            standing: Standing::default(),
            records: Family::default(),
            notified: Family::default(),
            gone: Family::default(),
            struck: Family::default(),
            repeated: Family::default(),
            throttled: Family::default(),
            undelivered: Family::default(),
            batch_seconds: Family::new_with_constructor(|| Histogram::new(BATCH_BUCKETS)),
        }
    }
}

/// The labels of one channel.
fn of(channel: &'static str) -> Labels {
    [("channel", channel)]
}

impl ChannelMetrics {
    /// Makes them known.
    pub fn register(&self, r: &mut Registry) {
        let what = "Whether what a channel needs is there";
        self.standing.register(r, "channel_ready", what);
        let what = "Notifications that were pushed to all whom they are for";
        r.register("channel_records", what, self.records.clone());
        let what = "Recipients that were notified over a channel";
        r.register("channel_notified", what, self.notified.clone());
        let what = "Recipients that were found gone";
        r.register("channel_gone", what, self.gone.clone());
        let what = "Recipients that were gone and were struck off the channel's list";
        r.register("channel_struck", what, self.struck.clone());
        let what = "Attempts that failed and were repeated";
        r.register("channel_repeated", what, self.repeated.clone());
        let what = "Attempts that were refused since there were too many, and were repeated";
        r.register("channel_throttled", what, self.throttled.clone());
        let what = "Recipients that will not be notified, each with its dead letter";
        r.register("channel_undelivered", what, self.undelivered.clone());
        let what = "From when a batch of a source was taken until all of it was pushed";
        r.register("channel_batch_seconds", what, self.batch_seconds.clone());
    }

    /// Whether what a channel needs is there.
    #[cfg_attr(
        not(feature = "aws"),
        allow(dead_code, reason = "no channel of this build needs anything")
    )]
    pub fn set_ready(&self, channel: &'static str, is_ready: bool) {
        self.standing.set(of(channel), is_ready);
    }

    /// The channels that lack something, by name.
    pub fn away(&self) -> Vec<&'static str> {
        self.standing.away()
    }

    /// Something happened while a push was under way.
    pub fn count(&self, channel: &'static str, what: Happened) {
        let (family, count) = match what {
            Happened::Notified => (&self.notified, 1),
            Happened::Gone => (&self.gone, 1),
            Happened::Struck(count) => (&self.struck, count),
            Happened::Repeated => (&self.repeated, 1),
            Happened::Throttled => (&self.throttled, 1),
        };
        family.get_or_create(&of(channel)).inc_by(count);
    }

    /// One recipient has its dead letter.
    pub fn count_undelivered(&self, channel: &'static str) {
        self.undelivered.get_or_create(&of(channel)).inc();
    }

    /// One notification was pushed to all.
    pub fn count_record(&self, channel: &'static str) {
        self.records.get_or_create(&of(channel)).inc();
    }

    /// A batch took so long.
    pub fn observe_batch(&self, channel: &'static str, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        self.batch_seconds.get_or_create(&of(channel)).observe(seconds);
    }
}
