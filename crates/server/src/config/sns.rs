//! `sources.NAME.*` of the type `sns`.

use super::secret::Secret;
use super::sources::{NO_AUDIENCE, to_inbox, topic_fault};
use super::sqs::{Faults, rule};
use super::value::quoted;
use postrider_model::Millis;
use postrider_sources::queue::Decoder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `sources.NAME.*` of the type `sns`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SnsConfig {
    /// The topics that are heard, as ARNs. Needed: a subscription to any other is not confirmed, and its messages are refused.
    pub topics: Vec<String>,
    /// Whether a subscription that asks for it is confirmed.
    pub confirm: bool,
    /// A message that was signed longer ago is refused. SNS tries for an hour by its default rule.
    #[schemars(extend("x-minimum" = "1m", "x-maximum" = "30d"))]
    pub replay_window: Millis,
    /// Hosts beside those of SNS from which certificates are taken and where subscriptions are confirmed, such as
    /// `http://127.0.0.1:4566` of an emulator. Whoever runs one of them can sign messages.
    pub hosts: Vec<String>,
    /// The user of the password.
    pub user: String,
    /// Where it is set, every post has to bring it; write it into the subscription's address:
    /// `https://USER:PASSWORD@HOST/v1/sources/NAME`.
    pub password: Option<Secret>,
    /// Whether messages of subscriptions with raw delivery are taken. They are not signed, so `password` is needed.
    pub raw_delivery: bool,
    /// How a message becomes a notification. Its fields are the message's attributes.
    pub decoder: Decoder,
    /// All messages are for those who hear this topic (of Postrider).
    pub topic: Option<String>,
    /// The attribute that names the user whom a message is for.
    pub user_field: Option<String>,
    /// The attribute that names the topic (of Postrider) that a message is for.
    pub topic_field: Option<String>,
    /// Where its notifications go: `inbox` (to their users' sessions, and stored until they have them), and names of
    /// `channels`. A post that goes to a channel is answered once that is done with it.
    pub deliver_to: Vec<String>,
    /// Whether a message without an audience may go to everyone.
    pub broadcast: bool,
    /// The time to live of its notifications, where a message says none. Unset: `retention.age`.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "3650d"))]
    pub ttl: Option<Millis>,
    /// Batches that are handled at the same time.
    #[schemars(range(min = 1, max = 64))]
    pub workers: usize,
    /// Most messages of this node that are not settled; SNS is told to send more later.
    #[schemars(range(min = 1, max = 100_000))]
    pub in_flight: usize,
}

impl Default for SnsConfig {
    fn default() -> Self {
        SnsConfig {
            topics: Vec::new(),
            confirm: true,
            replay_window: Millis::from_secs(2 * 3_600),
            hosts: Vec::new(),
            user: "sns".into(),
            password: None,
            raw_delivery: false,
            decoder: Decoder::Notification,
            topic: None,
            user_field: None,
            topic_field: None,
            deliver_to: to_inbox(),
            broadcast: false,
            ttl: None,
            workers: 1,
            in_flight: 1_024,
        }
    }
}

impl SnsConfig {
    pub(super) fn faults(&self) -> Faults {
        let mut faults = Faults::new();
        faults.extend(topic_fault(self.topic.as_ref()));
        rule(
            &mut faults,
            self.topics.is_empty(),
            "topics",
            "is needed: the ARNs of the topics that are heard",
        );
        if let Some(odd) = self.topics.iter().find(|arn| !is_topic_arn(arn)) {
            let what = "must be ARNs of topics, such as arn:aws:sns:eu-central-1:123456789012:notes";
            rule(
                &mut faults,
                true,
                "topics",
                &format!("{what}, not {}", quoted(odd)),
            );
        }
        let odd = hosts_fault(&self.hosts);
        rule(
            &mut faults,
            odd.is_some(),
            "hosts",
            odd.as_deref().unwrap_or_default(),
        );
        rule(
            &mut faults,
            self.raw_delivery && self.password.is_none(),
            "raw_delivery",
            "needs a password: raw messages are not signed",
        );
        rule(
            &mut faults,
            self.password.is_some() && (self.user.is_empty() || self.user.contains(':')),
            "user",
            &format!("must not be empty, and has no colon: {}", quoted(&self.user)),
        );
        let ways = [&self.topic, &self.user_field, &self.topic_field];
        let ways = ways.iter().filter(|way| way.is_some()).count();
        rule(
            &mut faults,
            ways > 1,
            "topic",
            "only one of topic, user_field and topic_field can say for whom",
        );
        let asks_attributes =
            self.user_field.is_some() || self.topic_field.is_some() || self.decoder == Decoder::Addressee;
        rule(
            &mut faults,
            asks_attributes && self.password.is_none(),
            "password",
            "is needed where attributes say for whom a message is: SNS does not sign them",
        );
        let has_fields_in_vain = self.raw_delivery && asks_attributes;
        rule(
            &mut faults,
            has_fields_in_vain,
            "raw_delivery",
            "brings no attributes over HTTP, so no user_field and no topic_field can be in them",
        );
        let is_mute = ways == 0 && !self.decoder.names_audience();
        let what = format!("{NO_AUDIENCE}; set topic, user_field or topic_field");
        rule(&mut faults, is_mute, "decoder", &what);
        faults
    }
}

/// `arn:PARTITION:sns:REGION:ACCOUNT:NAME`
fn is_topic_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    matches!(parts[..], ["arn", partition, "sns", region, account, name]
        if [partition, region, account, name].iter().all(|part| !part.is_empty()))
        && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(feature = "aws")]
fn hosts_fault(hosts: &[String]) -> Option<String> {
    let read = postrider_sources::sns::Hosts::with(hosts);
    read.err().map(|fault| fault.to_string())
}

/// A binary without the source says so; there is nothing to judge by.
#[cfg(not(feature = "aws"))]
fn hosts_fault(_hosts: &[String]) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused() {
        let topic = "arn:aws:sns:eu-central-1:123456789012:notes";
        let good = SnsConfig {
            topics: vec![topic.into()],
            ..SnsConfig::default()
        };
        assert_eq!(good.faults(), []);
        let of = |topics: &[&str]| SnsConfig {
            topics: topics.iter().map(|&topic| topic.into()).collect(),
            ..good.clone()
        };
        let with_password = SnsConfig {
            password: Some(Secret::new("hush")),
            ..good.clone()
        };
        for (config, key, told) in [
            (of(&[]), "topics", "is needed"),
            (of(&[topic, "notes"]), "topics", "not \"notes\""),
            (
                of(&["arn:aws:sqs:eu-central-1:123456789012:notes"]),
                "topics",
                "arn:aws:sqs:",
            ),
            (
                of(&["arn:aws:sns:eu-central-1:123456789012:"]),
                "topics",
                "must be ARNs",
            ),
            (
                SnsConfig {
                    hosts: vec!["http://a".into(), "http://b/".into()],
                    ..good.clone()
                },
                "hosts",
                "not \"http://b/\"",
            ),
            (
                SnsConfig {
                    raw_delivery: true,
                    ..good.clone()
                },
                "raw_delivery",
                "needs a password",
            ),
            (
                SnsConfig {
                    user_field: Some("user".into()),
                    ..good.clone()
                },
                "password",
                "is needed",
            ),
            (
                SnsConfig {
                    user: "a:b".into(),
                    ..with_password.clone()
                },
                "user",
                "no colon: \"a:b\"",
            ),
            (
                SnsConfig {
                    decoder: Decoder::Raw,
                    ..good.clone()
                },
                "decoder",
                "does not say for whom",
            ),
        ] {
            // Hosts are judged by the source itself.
            if key == "hosts" && cfg!(not(feature = "aws")) {
                continue;
            }
            let faults = config.faults();
            assert!(
                faults.len() == 1 && faults[0].0 == key && faults[0].1.contains(told),
                "{key} {told}: {faults:?}"
            );
        }
    }
}
