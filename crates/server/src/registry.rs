//! Tells the configured registry who is connected to this node.
//!
//! Invariant: a session never waits for it; what it lacks shows in its metrics and at `/ready`, and keeps nobody out. Once
//! the node drains, no row names it any more, before its last client has gone.

mod lookup;
mod make;

pub(crate) use lookup::{Lookup, LookupFault};

use crate::config::{Config, RegistryKind};
use crate::drain::Drain;
use crate::metrics::{Labels, Metrics};
use crate::tasks::Tasks;
use postrider_model::FeedId;
use postrider_registry::{Keeper, Ledger, RegistryFault, Watch};
use postrider_transports::{Follow, Hub};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Handle;

/// What is kept of it.
pub(crate) struct Kept {
    /// Idle once nothing names this node any more.
    pub tasks: Tasks,
    /// For those who ask.
    pub lookup: Lookup,
}

/// Begins to keep the registry, if there is to be one. To be called before anybody can connect.
pub(crate) fn start(
    config: &Config,
    instance: &Arc<str>,
    hub: &Hub,
    metrics: &Arc<Metrics>,
    drain: &Drain,
    runtime: Handle,
    #[cfg(feature = "aws")] account: &Arc<postrider_aws::Account>,
) -> Result<Kept, RegistryFault> {
    let tasks = Tasks::new(runtime);
    let by = make::By {
        config: &config.registry,
        instance,
        #[cfg(feature = "aws")]
        account,
    };
    let Some(registry) = by.make()? else {
        let lookup = match config.registry.kind {
            RegistryKind::Engine => Lookup::Own {
                instance: instance.clone(),
                drain: drain.clone(),
            },
            _ => Lookup::None,
        };
        return Ok(Kept { tasks, lookup });
    };
    let ledger = Arc::<Ledger>::default();
    hub.follow_at_once_with(Arc::new(Coming(ledger.clone())));
    hub.follow_with(Arc::new(Going(ledger.clone())));
    metrics.registry().set_ready(false);
    let keeper = Keeper::new(
        registry.clone(),
        by.rows(),
        ledger,
        Arc::new(Watching(metrics.clone())),
        config.registry.lease,
        crate::steady_clock(),
        crate::clock::fresh_number,
    );
    let drain = drain.clone();
    tasks.spawn("registry", keeper.run(async move { drain.begun().await }));
    let lookup = Lookup::table(registry);
    Ok(Kept { tasks, lookup })
}

/// Users who come, also back: another node may have had them meanwhile.
struct Coming(Arc<Ledger>);

impl Follow for Coming {
    fn follow(&self, feed: &FeedId) {
        if let FeedId::User(user) = feed {
            self.0.came(user);
        }
    }

    fn unfollow(&self, _: &FeedId) {}
}

/// Users who have gone, and did not come back within moments, as most do.
struct Going(Arc<Ledger>);

impl Follow for Going {
    fn follow(&self, _: &FeedId) {}

    fn unfollow(&self, feed: &FeedId) {
        if let FeedId::User(user) = feed {
            self.0.went(user);
        }
    }
}

/// What is counted of the registry. Nothing shows where there is none.
#[derive(Debug, Default)]
pub struct RegistryMetrics {
    ready: Family<Labels, Gauge>,
    rows: Family<Labels, Counter>,
    waiting: Family<Labels, Gauge>,
    unfit: Family<Labels, Counter>,
    is_away: AtomicBool,
}

/// There is one.
const OF_IT: Labels = [("registry", "users")];

impl RegistryMetrics {
    /// Makes them known.
    pub fn register(&self, r: &mut prometheus_client::registry::Registry) {
        let what = "Whether the table of users and instances is there";
        r.register("registry_ready", what, self.ready.clone());
        let what = "Users' rows that were written to the registry";
        r.register("registry_rows", what, self.rows.clone());
        let what = "Users whose rows in the registry are yet to be written";
        r.register("registry_waiting", what, self.waiting.clone());
        let what = "Users whom the registry's table cannot hold";
        r.register("registry_unfit", what, self.unfit.clone());
    }

    fn set_ready(&self, is_ready: bool) {
        self.is_away.store(!is_ready, Ordering::Relaxed);
        self.ready.get_or_create(&OF_IT).set(i64::from(is_ready));
    }

    /// Its name, while it is away.
    pub fn away(&self) -> Option<&'static str> {
        self.is_away.load(Ordering::Relaxed).then_some("registry")
    }
}

/// Counts what the keeper says.
struct Watching(Arc<Metrics>);

impl Watch for Watching {
    fn ready(&self, is_ready: bool) {
        self.0.registry().set_ready(is_ready);
    }

    fn wrote(&self, rows: u64) {
        self.0.registry().rows.get_or_create(&OF_IT).inc_by(rows);
    }

    fn waiting(&self, changes: usize) {
        let changes = i64::try_from(changes).unwrap_or(i64::MAX);
        self.0.registry().waiting.get_or_create(&OF_IT).set(changes);
    }

    fn unfit(&self) {
        self.0.registry().unfit.get_or_create(&OF_IT).inc();
    }
}
