//! From the configuration of a source that reads from Amazon SQS to the source.

use super::{HOLDS, Made, direction};
use crate::clock::fresh_number;
use crate::config::{INSTANCE, Offline, SqsConfig, SqsUsersConfig};
use crate::sources::{Handling, Plant};
use postrider_aws::Reach;
use postrider_model::{FeedId, Millis};
use postrider_sources::http::Most;
use postrider_sources::queue::{Decoder, Decoding, Direction, Pauses};
use postrider_sources::sqs::{QueueName, Sqs, SqsAccess, SqsOptions, SqsUsers, SqsUsersOptions};
use postrider_sources::template::Template;
use postrider_transports::{Follow, Hub};
use std::sync::Arc;

/// Messages of users' queues that are handled together.
const USERS_BATCH: usize = 64;

/// Messages of one user's queue that are handled at the same time: a client that takes nothing leaves room for others.
const USER_UNSETTLED: usize = 32;
/// The source itself sees to how much is unsettled: `in_flight`, and one message of each user. No node has so many users.
const ONE_OF_EACH: usize = 1 << 20;

/// Tells a source who comes and goes.
struct Following(Arc<SqsUsers>);

impl Follow for Following {
    fn follow(&self, feed: &FeedId) {
        self.0.follow(feed);
    }

    fn unfollow(&self, feed: &FeedId) {
        self.0.unfollow(feed);
    }
}

pub(super) fn one(name: &str, config: &SqsConfig, node: &str, plant: &Plant) -> Made {
    let queue = match (&config.queue_url, &config.queue_name) {
        (Some(url), _) => QueueName::Url(url.clone()),
        // One of the two is there: the configuration has been checked.
        (None, queue) => {
            let queue = queue.as_deref().unwrap_or_default();
            QueueName::Name(queue.replace(INSTANCE, &plant.instance))
        }
    };
    let access = SqsAccess {
        account: plant.account.clone(),
        reach: reach(&config.region, &config.endpoint),
        wait: config.wait.as_duration(),
        visibility: config.visibility.as_duration(),
        parallel: config.parallel,
        node: format!("{node}-{name}"),
    };
    let source = Sqs::new(SqsOptions {
        access,
        queue,
        workers: config.workers,
        create: config.create,
        remove: config.remove,
        steady: crate::steady_clock(),
        random: Arc::new(fresh_number),
    });
    let direction = direction(&config.topic, &config.user_field, &config.topic_field);
    let handling = Handling {
        decoding: Decoding {
            decoder: config.decoder,
            direction,
            body_field: None,
            envelope: config.envelope,
            is_exact: true,
            most: Most::from(&plant.limits),
        },
        may_broadcast: config.broadcast,
        settle_on: config.settle_on,
        deliver_within: config.deliver_within,
        offline: config.offline,
        leave_for: config.visibility,
        ttl: config.ttl,
        max_deliveries: most_deliveries(config.max_deliveries, config.offline),
        retry: retry(config.retry, config.visibility),
        hold_every: Millis(config.visibility.0 / HOLDS),
        workers: config.workers,
        batch: config.parallel,
        max_payload: plant.limits.data.as_usize(),
        in_flight: config.in_flight.max(config.workers),
    };
    (Arc::new(source), handling)
}

/// The queues of users. `None` only where the configuration was not checked.
pub(super) fn users(
    name: &str,
    config: &SqsUsersConfig,
    node: &str,
    plant: &Plant,
    hub: &Hub,
) -> Option<Made> {
    let queue = Template::parse(config.queue_url.as_deref()?, "{user}").ok()?;
    let source = Arc::new(SqsUsers::new(SqsUsersOptions {
        access: SqsAccess {
            account: plant.account.clone(),
            reach: reach(&config.region, &config.endpoint),
            wait: config.wait.as_duration(),
            visibility: config.visibility.as_duration(),
            parallel: config.parallel,
            node: format!("{node}-{name}"),
        },
        queue,
        connections: config.connections,
        unsettled: USER_UNSETTLED,
        shared: config.in_flight,
        linger: config.linger,
        steady: crate::steady_clock(),
        random: Arc::new(fresh_number),
    }));
    hub.follow_at_once_with(Arc::new(Following(source.clone())));
    let direction = match config.decoder {
        Decoder::Raw => Direction::Channel,
        _ => Direction::Decoded,
    };
    let handling = Handling {
        decoding: Decoding {
            decoder: config.decoder,
            direction,
            body_field: None,
            envelope: config.envelope,
            is_exact: true,
            most: Most::from(&plant.limits),
        },
        may_broadcast: config.broadcast,
        settle_on: config.settle_on,
        deliver_within: config.deliver_within,
        offline: config.offline,
        leave_for: config.visibility,
        ttl: config.ttl,
        max_deliveries: most_deliveries(config.max_deliveries, config.offline),
        retry: retry(config.retry, config.visibility),
        hold_every: Millis(config.visibility.0 / HOLDS),
        workers: config.workers,
        batch: USERS_BATCH,
        max_payload: plant.limits.data.as_usize(),
        in_flight: config.in_flight + ONE_OF_EACH,
    };
    Some((source, handling))
}

fn reach(region: &Option<String>, endpoint: &Option<String>) -> Reach {
    Reach {
        region: region.clone(),
        endpoint: endpoint.clone(),
        ..Reach::default()
    }
}

/// What is left to the queue is counted by the queue, whose dead-letter queue gets it.
fn most_deliveries(configured: u32, offline: Offline) -> u32 {
    match offline {
        Offline::Leave => u32::MAX,
        Offline::Store => configured,
    }
}

fn retry(first: Millis, most: Millis) -> Pauses {
    Pauses { first, most }
}
