//! From the configuration of a source to the source: the one place that knows every type.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "aws")]
mod sns;

use super::{Handling, Plant};
use crate::config::SourceConfig;
#[cfg(any(feature = "redis", feature = "aws"))]
use postrider_sources::queue::Direction;
use postrider_sources::queue::Source;
use postrider_transports::Hub;
use std::sync::Arc;

/// A delivery is held so many times before it would be taken over.
#[cfg_attr(
    not(any(feature = "redis", feature = "aws")),
    allow(dead_code, reason = "no source of this build holds")
)]
const HOLDS: u64 = 3;

/// A source, and how what it gives is handled.
type Made = (Arc<dyn Source>, Handling);

/// Makes one source. `None` only where the configuration was not checked.
#[cfg_attr(
    not(any(feature = "redis", feature = "aws")),
    allow(unused_variables, reason = "this build has no source")
)]
pub(super) fn make(name: &str, config: &SourceConfig, node: &str, plant: &Plant, hub: &Hub) -> Option<Made> {
    match config {
        #[cfg(feature = "redis")]
        SourceConfig::RedisStreams(config) => redis::streams(name, config, node, &plant.limits),
        #[cfg(feature = "redis")]
        SourceConfig::RedisPubsub(config) => redis::pubsub(name, config, node, &plant.limits, hub),
        #[cfg(feature = "aws")]
        SourceConfig::Sqs(config) => Some(aws::one(name, config, node, plant)),
        #[cfg(feature = "aws")]
        SourceConfig::SqsUsers(config) => aws::users(name, config, node, plant, hub),
        #[cfg(feature = "aws")]
        SourceConfig::Sns(config) => sns::one(name, config, plant),
        // Not of this build, which the check of the configuration has said.
        #[cfg(not(feature = "redis"))]
        SourceConfig::RedisStreams(_) | SourceConfig::RedisPubsub(_) => None,
        #[cfg(not(feature = "aws"))]
        SourceConfig::Sqs(_) | SourceConfig::SqsUsers(_) | SourceConfig::Sns(_) => None,
    }
}

/// For whom the messages of a source are: only one of these is set.
#[cfg(any(feature = "redis", feature = "aws"))]
fn direction(topic: &Option<String>, user_field: &Option<String>, topic_field: &Option<String>) -> Direction {
    match (topic, user_field, topic_field) {
        (Some(topic), _, _) => Direction::Topic(topic.clone()),
        (_, Some(field), _) => Direction::UserField(field.clone()),
        (_, _, Some(field)) => Direction::TopicField(field.clone()),
        _ => Direction::Decoded,
    }
}
