//! The configured channels, ready to be pushed to. Whoever leads notifications to one asks for it by its name.
//!
//! Invariant: a channel is made once for the node, so that its bounds are the node's, however many sources lead to it.

mod batch;
mod tally;

pub use batch::BatchTally;
pub use tally::ChannelMetrics;

use crate::config::Config;
#[cfg(feature = "aws")]
use crate::config::{ApiGatewayConfig, ChannelConfig};
use crate::metrics::Metrics;
use postrider_channels::Channel;
#[cfg(feature = "aws")]
use postrider_channels::api_gateway::{
    ApiGateway, DynamoTable, Management, Options, Patience, TableNames, endpoint_url,
};
use std::sync::Arc;

/// One channel and its name.
#[derive(Clone)]
pub struct Named {
    /// As configured; also the label of its metrics.
    pub name: &'static str,
    /// The way.
    pub channel: Arc<dyn Channel>,
}

/// All channels of a node.
#[derive(Clone, Default)]
pub struct Channels {
    made: Vec<Named>,
}

impl Channels {
    /// Makes what is configured. Nothing is reached yet.
    #[cfg(feature = "aws")]
    pub fn make(config: &Config, metrics: &Arc<Metrics>, account: &Arc<postrider_aws::Account>) -> Channels {
        let made = config.channels.iter().filter_map(|(name, one)| {
            // Names are labels of metrics, which live as long as the process. There are as many as were configured.
            let name: &'static str = Box::leak(name.clone().into_boxed_str());
            metrics.channels().set_ready(name, true);
            let channel = match one {
                ChannelConfig::ApiGateway(one) => api_gateway(name, one, metrics, account)?,
            };
            Some(Named { name, channel })
        });
        Channels { made: made.collect() }
    }

    /// None: the check of the configuration has said that this build has no channel.
    #[cfg(not(feature = "aws"))]
    pub fn make(_config: &Config, _metrics: &Arc<Metrics>) -> Channels {
        Channels::default()
    }

    /// Those of these names; the configuration has been checked.
    pub fn of(&self, names: &[String]) -> Vec<Named> {
        let named = self
            .made
            .iter()
            .filter(|one| names.iter().any(|name| name == one.name));
        named.cloned().collect()
    }
}

/// `None` only where the configuration was not checked.
#[cfg(feature = "aws")]
fn api_gateway(
    name: &'static str,
    config: &ApiGatewayConfig,
    metrics: &Arc<Metrics>,
    account: &Arc<postrider_aws::Account>,
) -> Option<Arc<dyn Channel>> {
    let reach = |endpoint| postrider_aws::Reach {
        region: config.region.clone(),
        endpoint,
        answer: config.timeout.as_duration(),
        tries: 1,
    };
    let endpoint = endpoint_url(config.endpoint.as_deref()?).ok()?;
    let names = TableNames {
        table: config.table.clone()?,
        user: config.user_key.clone(),
        connection: config.connection_key.clone(),
    };
    let table = DynamoTable::new(
        account.clone(),
        reach(config.table_endpoint.clone()),
        names,
        config.page,
    );
    let told = metrics.clone();
    let options = Options {
        concurrency: config.concurrency,
        lookups: config.lookups,
        segments: config.segments,
        patience: Patience {
            attempts: config.attempts,
            pauses: postrider_model::Pauses {
                first: config.backoff,
                most: config.backoff_max,
            },
        },
        max_payload: config.max_payload.as_usize(),
        steady: crate::steady_clock(),
        random: crate::clock::fresh_number,
        standing: Arc::new(move |is_there| told.channels().set_ready(name, is_there)),
    };
    let management = Management::new(account.clone(), reach(Some(endpoint)));
    Some(Arc::new(ApiGateway::new(
        Arc::new(table),
        Arc::new(management),
        options,
    )))
}
