//! From the configuration of a source that reads from Redis to the source.

use super::{HOLDS, Made, direction};
use crate::config::{Offline, RedisPubsubConfig, RedisStreamsConfig, SettleOn, StreamStart};
use crate::sources::Handling;
use crate::sources::outside::{Following, Greeting};
use postrider_model::Millis;
use postrider_router::Limits;
use postrider_sources::http::Most;
use postrider_sources::queue::{Decoding, Direction, Envelope, Pauses};
use postrider_sources::redis::RedisAddress;
use postrider_sources::redis_pubsub::{PubSubOptions, RedisPubSub};
use postrider_sources::redis_streams::{RedisStreams, StreamOptions};
use postrider_sources::template::Template;
use postrider_transports::Hub;
use std::sync::Arc;

/// Messages that are handed out in one go, where nothing is settled.
const PUBSUB_BATCH: usize = 1_024;

/// The address; the configuration has been checked.
fn address(name: &str, url: Option<&crate::config::RedisAddress>) -> Option<RedisAddress> {
    match url.map(|url| RedisAddress::parse(url.expose())) {
        Some(Ok(address)) => Some(address),
        Some(Err(what)) => {
            tracing::error!(source = name, what, "the source's url cannot be used");
            None
        }
        None => None,
    }
}

pub(super) fn streams(name: &str, config: &RedisStreamsConfig, node: &str, limits: &Limits) -> Option<Made> {
    let (address, stream) = (address(name, config.url.as_ref())?, config.stream.clone()?);
    let direction = direction(&config.topic, &config.user_field, &config.topic_field);
    let source = RedisStreams::new(StreamOptions {
        address,
        stream,
        group: config.group.clone(),
        from_start: config.from == StreamStart::Oldest,
        workers: config.workers,
        claim_after: config.claim_after,
        delete: config.delete,
        node: format!("{node}-{name}"),
    });
    let handling = Handling {
        decoding: Decoding {
            decoder: config.decoder,
            direction,
            body_field: config.body_field.clone(),
            envelope: Envelope::None,
            is_exact: false,
            most: Most::from(limits),
        },
        may_broadcast: config.broadcast,
        settle_on: config.settle_on,
        deliver_within: config.deliver_within,
        offline: config.offline,
        leave_for: config.claim_after,
        ttl: config.ttl,
        max_deliveries: config.max_deliveries,
        retry: Pauses {
            first: config.retry,
            most: config.claim_after,
        },
        hold_every: Millis(config.claim_after.0 / HOLDS),
        workers: config.workers,
        batch: config.batch,
        max_payload: limits.data.as_usize(),
        in_flight: config.in_flight.max(config.workers),
    };
    Some((Arc::new(source), handling))
}

pub(super) fn pubsub(
    name: &str,
    config: &RedisPubsubConfig,
    node: &str,
    limits: &Limits,
    hub: &Hub,
) -> Option<Made> {
    let address = address(name, config.url.as_ref())?;
    let template =
        |text: &Option<String>, place| text.as_deref().and_then(|text| Template::parse(text, place).ok());
    let source = Arc::new(RedisPubSub::new(PubSubOptions {
        address,
        channels: config.channels.clone(),
        patterns: config.patterns.clone(),
        user_channel: template(&config.channel, "{user}"),
        topic_channel: template(&config.topic_channel, "{topic}"),
        sharded: config.sharded,
        linger: config.linger,
        node: format!("{node}-{name}"),
        steady: crate::steady_clock(),
    }));
    let direction = match (
        &config.topic,
        config.channel.is_some() || config.topic_channel.is_some(),
    ) {
        (Some(topic), _) => Direction::Topic(topic.clone()),
        (None, true) => Direction::Channel,
        (None, false) => Direction::Decoded,
    };
    if direction == Direction::Channel {
        hub.follow_at_once_with(Arc::new(Following(source.clone())));
        if let Some(state) = template(&config.state, "{user}") {
            hub.greet_with(Arc::new(Greeting {
                source: source.clone(),
                state,
            }));
        }
    }
    let handling = Handling {
        decoding: Decoding {
            decoder: config.decoder,
            direction,
            body_field: None,
            envelope: Envelope::None,
            is_exact: false,
            most: Most::from(limits),
        },
        may_broadcast: config.broadcast,
        settle_on: SettleOn::Stored,
        deliver_within: Millis(0),
        offline: Offline::Store,
        leave_for: Millis(0),
        ttl: None,
        max_deliveries: u32::MAX,
        retry: Pauses {
            first: Millis(0),
            most: Millis(0),
        },
        hold_every: Millis(0),
        // One reads what one connection brings, so that its order is kept.
        workers: 1,
        batch: PUBSUB_BATCH,
        max_payload: config.max_payload.as_usize(),
        in_flight: PUBSUB_BATCH,
    };
    Some((source, handling))
}
