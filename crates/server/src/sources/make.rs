//! From the configuration of a source to the source: the one place that knows every type.

use super::Handling;
use super::outside::{Following, Greeting};
use crate::config::{RedisPubsubConfig, RedisStreamsConfig, SettleOn, SourceConfig, StreamStart};
use postrider_model::Millis;
use postrider_router::Limits;
use postrider_sources::http::Most;
use postrider_sources::queue::{Decoding, Direction, Pauses, Source};
use postrider_sources::redis::RedisAddress;
use postrider_sources::redis_pubsub::{PubSubOptions, RedisPubSub, Template};
use postrider_sources::redis_streams::{RedisStreams, StreamOptions};
use postrider_transports::Hub;
use std::sync::Arc;

/// Messages that are handed out in one go, where nothing is settled.
const PUBSUB_BATCH: usize = 1_024;
/// A delivery is held so many times before it would be taken over.
const HOLDS: u64 = 3;

/// A source, and how what it gives is handled.
type Made = (Arc<dyn Source>, Handling);

/// Makes one source. `None` only where the configuration was not checked.
pub(super) fn make(
    name: &str,
    config: &SourceConfig,
    node: &str,
    limits: &Limits,
    hub: &Hub,
) -> Option<Made> {
    match config {
        SourceConfig::RedisStreams(config) => streams(name, config, node, limits),
        SourceConfig::RedisPubsub(config) => pubsub(name, config, node, limits, hub),
    }
}

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

fn streams(name: &str, config: &RedisStreamsConfig, node: &str, limits: &Limits) -> Option<Made> {
    let (address, stream) = (address(name, config.url.as_ref())?, config.stream.clone()?);
    let direction = match (&config.topic, &config.user_field, &config.topic_field) {
        (Some(topic), _, _) => Direction::Topic(topic.clone()),
        (_, Some(field), _) => Direction::UserField(field.clone()),
        (_, _, Some(field)) => Direction::TopicField(field.clone()),
        _ => Direction::Decoded,
    };
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
            most: Most::from(limits),
        },
        may_broadcast: config.broadcast,
        settle_on: config.settle_on,
        deliver_within: config.deliver_within,
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

fn pubsub(name: &str, config: &RedisPubsubConfig, node: &str, limits: &Limits, hub: &Hub) -> Option<Made> {
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
        hub.follow_with(Arc::new(Following(source.clone())));
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
            most: Most::from(limits),
        },
        may_broadcast: config.broadcast,
        settle_on: SettleOn::Stored,
        deliver_within: Millis(0),
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
