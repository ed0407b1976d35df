//! `sources.NAME.*` of the types `sqs` and `sqs_users`.

use super::built::Part;
use super::sources::{LEAVE_NEEDS_DELIVERED, NO_AUDIENCE, Offline, SettleOn, to_inbox, topic_fault};
use super::value::{quoted, quoted_url};
use postrider_model::Millis;
use postrider_sources::queue::{Decoder, Envelope};
use postrider_sources::template::Template;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What stands for the node's instance id in `queue_name`.
pub const INSTANCE: &str = "{instance}";
/// What a binary must have to run these.
pub(super) const PART: Part = Part::Aws;

/// `sources.NAME.*` of the type `sqs`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SqsConfig {
    /// The address of the queue. This or `queue_name` is needed.
    pub queue_url: Option<String>,
    /// The name of the queue, in the account and region of the credentials. `{instance}` in it is this node's `instance`.
    pub queue_name: Option<String>,
    /// The region. Unset: as the AWS SDK finds it, or the one in `queue_url`.
    pub region: Option<String>,
    /// Where SQS is, such as `http://127.0.0.1:4566`. Unset: as the AWS SDK finds it.
    pub endpoint: Option<String>,
    /// Whether the queue is made where it is not there.
    pub create: bool,
    /// Whether a queue that this node made is taken away when it drains, if nothing is in it.
    pub remove: bool,
    /// How long SQS holds a poll that finds nothing. Whole seconds.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "20s"))]
    pub wait: Millis,
    /// A message that was given out is nobody else's for so long; it is prolonged while it is worked on. Whole seconds.
    #[schemars(extend("x-minimum" = "2s", "x-maximum" = "12h"))]
    pub visibility: Millis,
    /// Most messages of one receive, handled together.
    #[schemars(range(min = 1, max = 10))]
    pub parallel: usize,
    /// Receives at the same time.
    #[schemars(range(min = 1, max = 64))]
    pub workers: usize,
    /// Most messages of this node that are not settled.
    #[schemars(range(min = 1, max = 100_000))]
    pub in_flight: usize,
    /// What is around the message that is decoded.
    pub envelope: Envelope,
    /// How a message becomes a notification. Its fields are the message's attributes.
    pub decoder: Decoder,
    /// All messages are for those who hear this topic.
    pub topic: Option<String>,
    /// The attribute that names the user whom a message is for.
    pub user_field: Option<String>,
    /// The attribute that names the topic that a message is for.
    pub topic_field: Option<String>,
    /// Where its notifications go: `inbox` (to their users' sessions, and stored until they have them), and names of
    /// `channels`. A message that goes to a channel is deleted once that is done with it.
    pub deliver_to: Vec<String>,
    /// Whether a message without an audience may go to everyone.
    pub broadcast: bool,
    /// When a message is deleted: once its notification is stored, or once its recipients have it.
    pub settle_on: SettleOn,
    /// With `settle_on: delivered`, how long its recipients are waited for; then it is given back.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1d"))]
    pub deliver_within: Millis,
    /// With `settle_on: delivered`, what becomes of a message none of whose users has a session on any node.
    pub offline: Offline,
    /// The time to live of its notifications, where a message says none. Unset: `retention.age`.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "3650d"))]
    pub ttl: Option<Millis>,
    /// A message that was given out so often and comes once more is deleted where its notification is stored. Else it is
    /// tried once more, alone; if it comes again even then, it becomes a dead letter. Does not count with `offline: leave`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_deliveries: u32,
    /// The first bound of the pause before a message that was given back comes again; it doubles up to `visibility`. SQS
    /// counts whole seconds.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1h"))]
    pub retry: Millis,
}

impl Default for SqsConfig {
    fn default() -> Self {
        SqsConfig {
            queue_url: None,
            queue_name: None,
            region: None,
            endpoint: None,
            create: false,
            remove: false,
            wait: Millis::from_secs(20),
            visibility: Millis::from_secs(30),
            parallel: 10,
            workers: 1,
            in_flight: 1024,
            envelope: Envelope::None,
            decoder: Decoder::Notification,
            topic: None,
            user_field: None,
            topic_field: None,
            deliver_to: to_inbox(),
            broadcast: false,
            settle_on: SettleOn::default(),
            deliver_within: Millis::from_secs(30),
            offline: Offline::default(),
            ttl: None,
            max_deliveries: 10,
            retry: Millis::from_secs(1),
        }
    }
}

/// `sources.NAME.*` of the type `sqs_users`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SqsUsersConfig {
    /// The address of a user's queue, such as `https://sqs.eu-central-1.amazonaws.com/123456789012/notes-{user}`. Needed.
    pub queue_url: Option<String>,
    /// The region. Unset: as the AWS SDK finds it, or the one in `queue_url`.
    pub region: Option<String>,
    /// Where SQS is, such as `http://127.0.0.1:4566`. Unset: as the AWS SDK finds it.
    pub endpoint: Option<String>,
    /// Most queues that are polled at the same time, each over a connection of its own. With more users than this their
    /// queues take turns, a second each.
    #[schemars(range(min = 1, max = 10_000))]
    pub connections: usize,
    /// A user's queue is polled for so long after the last session.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1h"))]
    pub linger: Millis,
    /// How long SQS holds a poll that finds nothing. Whole seconds.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "20s"))]
    pub wait: Millis,
    /// A message that was given out is nobody else's for so long; it is prolonged while it is worked on. Whole seconds.
    #[schemars(extend("x-minimum" = "2s", "x-maximum" = "12h"))]
    pub visibility: Millis,
    /// Most messages of one poll.
    #[schemars(range(min = 1, max = 10))]
    pub parallel: usize,
    /// Batches that are handled at the same time.
    #[schemars(range(min = 1, max = 64))]
    pub workers: usize,
    /// Most messages of this node that are not settled, beside one of each user, for which there is always room. No user has
    /// more than a fair part of them, 32 at most.
    #[schemars(range(min = 1, max = 100_000))]
    pub in_flight: usize,
    /// What is around the message that is decoded.
    pub envelope: Envelope,
    /// How a message becomes a notification. Its fields are the message's attributes. With `raw` it is for the user whose
    /// queue it was in.
    pub decoder: Decoder,
    /// Where its notifications go: `inbox` (to their users' sessions, and stored until they have them), and names of
    /// `channels`. A message that goes to a channel is deleted once that is done with it.
    pub deliver_to: Vec<String>,
    /// Whether a message without an audience may go to everyone.
    pub broadcast: bool,
    /// When a message is deleted: once its notification is stored, or once its recipients have it.
    pub settle_on: SettleOn,
    /// With `settle_on: delivered`, how long its recipients are waited for; then it is given back.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1d"))]
    pub deliver_within: Millis,
    /// With `settle_on: delivered`, what becomes of a message none of whose users has a session on any node.
    pub offline: Offline,
    /// The time to live of its notifications, where a message says none. Unset: `retention.age`.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "3650d"))]
    pub ttl: Option<Millis>,
    /// A message that was given out so often and comes once more is deleted where its notification is stored. Else it is
    /// tried once more, alone; if it comes again even then, it becomes a dead letter. Does not count with `offline: leave`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_deliveries: u32,
    /// The first bound of the pause before a message that was given back comes again; it doubles up to `visibility`. SQS
    /// counts whole seconds.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1h"))]
    pub retry: Millis,
}

impl Default for SqsUsersConfig {
    fn default() -> Self {
        let one = SqsConfig::default();
        SqsUsersConfig {
            queue_url: None,
            region: None,
            endpoint: None,
            connections: 2_000,
            linger: Millis::from_secs(2),
            wait: one.wait,
            visibility: one.visibility,
            parallel: one.parallel,
            workers: 4,
            in_flight: one.in_flight,
            envelope: one.envelope,
            decoder: Decoder::Raw,
            deliver_to: one.deliver_to,
            broadcast: one.broadcast,
            settle_on: one.settle_on,
            deliver_within: one.deliver_within,
            offline: one.offline,
            ttl: one.ttl,
            max_deliveries: one.max_deliveries,
            retry: one.retry,
        }
    }
}

/// Faults, by key.
pub(super) type Faults = Vec<(&'static str, String)>;

pub(super) fn rule(faults: &mut Faults, is_broken: bool, key: &'static str, what: &str) {
    if is_broken {
        faults.push((key, what.to_owned()));
    }
}

/// Rules that both types have.
fn common(
    wait: Millis,
    visibility: Millis,
    settle_on: SettleOn,
    offline: Offline,
    endpoint: Option<&String>,
) -> Faults {
    let mut faults = Faults::new();
    for (key, time) in [("wait", wait), ("visibility", visibility)] {
        let is_whole = time.0.is_multiple_of(1_000);
        let what = format!("must be whole seconds, as SQS counts, not {time}");
        rule(&mut faults, !is_whole, key, &what);
    }
    let is_early = offline == Offline::Leave && settle_on == SettleOn::Stored;
    rule(&mut faults, is_early, "offline", LEAVE_NEEDS_DELIVERED);
    faults.extend(address_fault("endpoint", endpoint));
    faults
}

/// What is wrong with an address of AWS, or of what stands in its place.
pub(super) fn address_fault(key: &'static str, url: Option<&String>) -> Option<(&'static str, String)> {
    let url = url.filter(|url| !is_url(url))?;
    let what = format!(
        "must be http://… or https://…, without a user, `?` and `#`, not {}",
        quoted_url(url)
    );
    Some((key, what))
}

fn is_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let is_plain = |b: u8| b.is_ascii_graphic() && !b"?#@\\\"<>".contains(&b);
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(is_plain))
}

impl SqsConfig {
    pub(super) fn faults(&self) -> Faults {
        let mut faults = common(
            self.wait,
            self.visibility,
            self.settle_on,
            self.offline,
            self.endpoint.as_ref(),
        );
        faults.extend(topic_fault(self.topic.as_ref()));
        let is_named_once = self.queue_url.is_some() != self.queue_name.is_some();
        let what = "is needed: the address of the queue, or its name as queue_name, not both";
        rule(&mut faults, !is_named_once, "queue_url", what);
        faults.extend(address_fault("queue_url", self.queue_url.as_ref()));
        let name = self.queue_name.as_deref().unwrap_or("x");
        let what = format!(
            "must be 1 to 80 of a-z, A-Z, 0-9, - and _, and may end in .fifo or hold {INSTANCE}, not {}",
            quoted(name)
        );
        let is_odd = !is_queue_name(&name.replace(INSTANCE, "x"));
        rule(&mut faults, is_odd, "queue_name", &what);
        let ways = [&self.topic, &self.user_field, &self.topic_field];
        let ways = ways.iter().filter(|way| way.is_some()).count();
        let what = "only one of topic, user_field and topic_field can say for whom";
        rule(&mut faults, ways > 1, "topic", what);
        let is_mute = ways == 0 && !self.decoder.names_audience();
        let what = format!("{NO_AUDIENCE}; set topic, user_field or topic_field");
        rule(&mut faults, is_mute, "decoder", &what);
        let is_wide = self.topic.is_some() || self.topic_field.is_some();
        let is_never = is_wide && self.settle_on == SettleOn::Delivered;
        let what = "`delivered` needs users: what goes to a topic is acknowledged by its members alone";
        rule(&mut faults, is_never, "settle_on", what);
        rule(
            &mut faults,
            self.remove && !self.create,
            "remove",
            "needs create: only what this node made is taken away",
        );
        faults
    }
}

impl SqsUsersConfig {
    pub(super) fn faults(&self) -> Faults {
        let mut faults = common(
            self.wait,
            self.visibility,
            self.settle_on,
            self.offline,
            self.endpoint.as_ref(),
        );
        match self.queue_url.as_deref() {
            None => faults.push((
                "queue_url",
                "is needed: the address of a user's queue, with {user} in it".into(),
            )),
            Some(url) => {
                let name = url.rsplit_once('/').map_or("", |(_, name)| name);
                let is_good = Template::parse(url, "{user}").is_ok() && name.contains("{user}");
                let what = format!(
                    "must hold {{user}} once, in the queue's name, not {}",
                    quoted_url(url)
                );
                rule(&mut faults, !is_good, "queue_url", &what);
                faults.extend(address_fault("queue_url", self.queue_url.as_ref()));
            }
        }
        faults
    }
}

/// As many characters as a UUID has, which is what a node is called where it is not told.
const FRESH_INSTANCE: &str = "00000000-0000-0000-0000-000000000000";

impl SqsConfig {
    /// What is wrong with the queue's name once this node's own is in it.
    pub(super) fn instance_fault(&self, instance: Option<&str>) -> Option<String> {
        let name = self.queue_name.as_deref()?;
        if is_queue_name(&name.replace(INSTANCE, instance.unwrap_or(FRESH_INSTANCE))) {
            return None;
        }
        let with = match instance {
            Some(instance) => format!("`instance`, which is {}", quoted(instance)),
            None => "a UUID of 36 characters, which `instance` is where it is not set".to_owned(),
        };
        Some(format!(
            "is {}, and with {with}, it is no name that SQS takes: 1 to 80 of a-z, A-Z, 0-9, - and _",
            quoted(name)
        ))
    }
}

fn is_queue_name(name: &str) -> bool {
    let plain = name.strip_suffix(".fifo").unwrap_or(name);
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    (1..=80).contains(&name.len()) && !plain.is_empty() && plain.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_once_and_well() {
        let by = |url: Option<&str>, name: Option<&str>| {
            let config = SqsConfig {
                queue_url: url.map(str::to_owned),
                queue_name: name.map(str::to_owned),
                ..SqsConfig::default()
            };
            config
                .faults()
                .into_iter()
                .map(|(key, _)| key)
                .collect::<Vec<_>>()
        };
        assert!(by(Some("https://sqs.eu-west-1.amazonaws.com/1/q"), None).is_empty());
        assert!(by(None, Some("notes-{instance}")).is_empty() && by(None, Some("notes.fifo")).is_empty());
        assert_eq!(by(None, None), ["queue_url"]);
        assert_eq!(by(Some("http://a/b"), Some("b")), ["queue_url"]);
        assert_eq!(by(Some("sqs://a/b"), None), ["queue_url"]);
        for name in ["", "a b", ".fifo", "a.b", "{user}"] {
            assert_eq!(by(None, Some(name)), ["queue_name"], "{name}");
        }
        for url in [
            "https://",
            "https://a b/q",
            "https://me:pw@a/1/q",
            "https://a/1/q?x",
        ] {
            assert_eq!(by(Some(url), None), ["queue_url"], "{url}");
        }
        let (_, told) = address_fault("queue_url", Some(&"https://me:hush@a/1/q".to_owned())).unwrap();
        assert!(told.contains("a/1/q") && !told.contains("hush"), "{told}");
    }

    #[test]
    fn a_queue_of_this_node_has_a_name_that_sqs_takes() {
        let by = |name: &str, instance| {
            let config = SqsConfig {
                queue_name: Some(name.to_owned()),
                ..SqsConfig::default()
            };
            assert!(config.faults().is_empty(), "{name}");
            config.instance_fault(instance)
        };
        let long = format!("{}-{{instance}}", "n".repeat(60));
        for (name, instance) in [
            ("notes-{instance}", None),
            ("notes-{instance}", Some("node-1")),
            (&long, Some("node-1")),
        ] {
            assert_eq!(by(name, instance), None, "{name} {instance:?}");
        }
        for (name, instance, told) in [
            (&long[..], None, "a UUID of 36 characters"),
            (
                "notes-{instance}",
                Some("node.1"),
                "`instance`, which is \"node.1\"",
            ),
        ] {
            let fault = by(name, instance).unwrap();
            assert!(fault.contains(told) && fault.contains(&name[..9]), "{fault}");
        }
    }

    #[test]
    fn rules_between_keys() {
        let good = SqsConfig {
            queue_name: Some("q".into()),
            ..SqsConfig::default()
        };
        let key = |config: SqsConfig| config.faults().first().map(|(key, _)| *key);
        assert_eq!(key(good.clone()), None);
        assert_eq!(good.deliver_to, ["inbox"]);
        let wait = Millis(1_500);
        assert_eq!(key(SqsConfig { wait, ..good.clone() }), Some("wait"));
        let offline = Offline::Leave;
        assert_eq!(
            key(SqsConfig {
                offline,
                ..good.clone()
            }),
            Some("offline")
        );
        let decoder = Decoder::Raw;
        assert_eq!(
            key(SqsConfig {
                decoder,
                ..good.clone()
            }),
            Some("decoder")
        );
        assert_eq!(
            key(SqsConfig {
                remove: true,
                ..good.clone()
            }),
            Some("remove")
        );
        let endpoint = Some("localhost:4566".into());
        assert_eq!(key(SqsConfig { endpoint, ..good }), Some("endpoint"));
    }

    #[test]
    fn a_users_queue_has_the_user_in_it() {
        let key = |url: Option<&str>| {
            let queue_url = url.map(str::to_owned);
            let config = SqsUsersConfig {
                queue_url,
                ..SqsUsersConfig::default()
            };
            config.faults().first().map(|(key, _)| *key)
        };
        assert_eq!(key(Some("https://sqs.eu-west-1.amazonaws.com/1/n-{user}")), None);
        for url in [
            None,
            Some("https://a/1/n"),
            Some("a/{user}"),
            Some("https://a/{user}/n"),
            Some("https://{user}/"),
        ] {
            assert_eq!(key(url), Some("queue_url"), "{url:?}");
        }
    }
}
