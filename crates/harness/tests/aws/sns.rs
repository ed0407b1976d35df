//! A topic of SNS that posts to a node: confirmed, believed, delivered; and what nobody signed is refused.

use anyhow::{Context as _, Result, ensure};
use postrider_harness::aws::{Boto, Emulator};
use postrider_harness::http::{Answer, Request, once};
use postrider_harness::inbox::{Connect, Inbox, Transport, next_notification};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{KEY, Node};
use postrider_harness::people::People;
use postrider_harness::token;
use postrider_harness::wait::{until, until_true, within};
use serde_json::{Value, json};

const PASSWORD: &str = "a-long-password";

/// A node whose source `s` hears this topic, with more keys of it.
fn node(emulator: &Emulator, topic: &str, more: &[(&str, &str)]) -> Result<Node> {
    let (topics, hosts) = (
        json!([topic]).to_string(),
        json!([emulator.endpoint()]).to_string(),
    );
    let mut sets = vec![
        ("sources.s.type", "sns"),
        ("sources.s.topics", &topics),
        ("sources.s.hosts", &hosts),
        ("sources.s.decoder", "pusher"),
    ];
    sets.extend(more);
    Node::start(&sets)
}

fn subscribe(boto: &mut Boto, topic: &str, address: &str, is_raw: bool) -> Result<()> {
    let attributes = json!({"RawMessageDelivery": is_raw.to_string()});
    let wanted = json!({
        "TopicArn": topic, "Protocol": "http", "Endpoint": address, "Attributes": attributes,
        "ReturnSubscriptionArn": true,
    });
    boto.call("sns", "subscribe", wanted)?;
    until_true("the subscription is confirmed", within(90), || {
        let page = boto.call("sns", "list_subscriptions_by_topic", json!({"TopicArn": topic}))?;
        let subscriptions = page["Subscriptions"].as_array().cloned().unwrap_or_default();
        let is_confirmed = |one: &Value| {
            one["SubscriptionArn"]
                .as_str()
                .is_some_and(|arn| arn.starts_with("arn:"))
        };
        // LocalStack says an ARN at once: what counts is whether it is pending.
        let arns = subscriptions.iter().filter(|one| is_confirmed(one));
        for one in arns {
            let asked = json!({"SubscriptionArn": one["SubscriptionArn"]});
            let attributes = boto.call("sns", "get_subscription_attributes", asked)?;
            if attributes["Attributes"]["PendingConfirmation"] == "true" {
                return Ok(false);
            }
        }
        Ok(!subscriptions.is_empty())
    })
}

fn session(node: &Node, user: &str) -> Result<Box<dyn Inbox>> {
    Connect::new(&node.endpoint, &token::user(user)?).open(Transport::Sse)
}

fn post(node: &Node, body: &Value) -> Result<Answer> {
    let request = Request::new("POST", "/v1/sources/s").body("text/plain; charset=UTF-8", body.to_string());
    once(node.endpoint.addr()?, &request)
}

fn accepted(node: &Node) -> f64 {
    node.metric("postrider_notifications_accepted_total{source=\"s\"}")
        .unwrap_or_default()
}

#[test]
fn a_topic_posts_to_a_node() -> Result<()> {
    run("a_topic_posts_to_a_node", &[Need::LocalStack, Need::Moto], || {
        let emulator = Emulator::localstack()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let topic = boto.topic("notes")?;
        let node = node(&emulator, &topic, &[])?;
        let mut ada = session(&node, "ada")?;
        let address = format!("http://{}/v1/sources/s", node.endpoint.addr()?);
        subscribe(&mut boto, &topic, &address, false)?;
        for version in ["1", "2"] {
            let signed = json!({
                "TopicArn": topic, "AttributeName": "SignatureVersion", "AttributeValue": version,
            });
            boto.call("sns", "set_topic_attributes", signed)?;
            let request = json!({"users": ["ada", "ada"], "data": {"signed": version}});
            boto.publish(&topic, &request.to_string())?;
            let got = next_notification(&mut *ada, within(90))?;
            let wanted = format!("{{\"signed\":\"{version}\"}}");
            ensure!(got.data == wanted, "{got:?}");
        }
        // Nobody is asked for, which `broadcast` would have to allow.
        boto.publish(&topic, "{\"data\":1}")?;
        let mut people = People::new(&node.endpoint, KEY);
        let letters = until("a dead letter", within(90), || {
            let page = people.ask("GET", "/v1/dead-letters?source=s&reason=undecodable")?;
            let letters = page["dead_letters"].as_array().cloned().unwrap_or_default();
            Ok((!letters.is_empty()).then_some(letters))
        })?;
        // {"data":1}
        ensure!(
            letters.len() == 1 && letters[0]["raw_base64"] == "eyJkYXRhIjoxfQ==",
            "{letters:?}"
        );
        ensure!(accepted(&node) == 2.0);
        Ok(())
    })
}

#[test]
fn what_sns_did_not_sign_changes_nothing() -> Result<()> {
    run(
        "what_sns_did_not_sign_changes_nothing",
        &[Need::LocalStack, Need::Moto],
        || {
            let emulator = Emulator::localstack()?;
            let mut boto = Boto::start(&emulator.endpoint())?;
            let topic = boto.topic("notes")?;
            let node = node(&emulator, &topic, &[])?;
            let ready = once(node.ops, &Request::new("GET", "/ready"))?;
            let now = ready.head.header("date").context("no date")?;
            let forged = json!({
                "Type": "Notification", "MessageId": "m-1", "TopicArn": topic,
                "Message": "{\"users\":[\"ada\"],\"data\":\"forged\"}",
                "Timestamp": rfc3339(now)?,
                "SignatureVersion": "2", "Signature": "Zm9yZ2Vk",
                "SigningCertURL": format!("{}/_aws/sns/SimpleNotificationService-0.pem", emulator.endpoint()),
            });
            let with = |key: &str, value: &str| {
                let mut one = forged.clone();
                one[key] = json!(value);
                one
            };
            let mut unsigned = forged.clone();
            for key in ["SignatureVersion", "Signature", "SigningCertURL"] {
                unsigned.as_object_mut().context("an object")?.remove(key);
            }
            for (one, says) in [
                (unsigned, "version"),
                (with("TopicArn", "arn:aws:sns:eu-central-1:1:other"), "topic"),
                (with("Timestamp", "2020-01-01T00:00:00.000Z"), "timestamp"),
                (
                    with("SigningCertURL", "http://127.0.0.1:1/x.pem"),
                    "SigningCertURL",
                ),
                (
                    with(
                        "SigningCertURL",
                        "https://sns.eu-central-1.amazonaws.com.evil.example/x.pem",
                    ),
                    "SigningCertURL",
                ),
                (with("SignatureVersion", "9"), "version"),
            ] {
                let answer = post(&node, &one)?;
                ensure!(
                    answer.status() == 403 && answer.code().as_deref() == Some("forged"),
                    "{}",
                    answer.text()
                );
                ensure!(answer.text().contains(says), "{}", answer.text());
            }
            for body in ["", "{}", "hello", "[1]"] {
                let request = Request::new("POST", "/v1/sources/s").body("text/plain", body);
                ensure!(once(node.endpoint.addr()?, &request)?.status() == 400, "{body}");
            }
            let unknown = Request::new("POST", "/v1/sources/other").body("text/plain", "{}");
            ensure!(once(node.endpoint.addr()?, &unknown)?.status() == 404);
            ensure!(accepted(&node) == 0.0);
            let letters = People::new(&node.endpoint, KEY).ask("GET", "/v1/dead-letters")?;
            ensure!(letters["dead_letters"] == json!([]), "{letters}");
            Ok(())
        },
    )
}

#[test]
fn raw_delivery_needs_the_password() -> Result<()> {
    run(
        "raw_delivery_needs_the_password",
        &[Need::LocalStack, Need::Moto],
        || {
            let emulator = Emulator::localstack()?;
            let mut boto = Boto::start(&emulator.endpoint())?;
            let topic = boto.topic("notes")?;
            let node = node(
                &emulator,
                &topic,
                &[
                    ("sources.s.raw_delivery", "true"),
                    ("sources.s.password", PASSWORD),
                ],
            )?;
            let mut ada = session(&node, "ada")?;
            let addr = node.endpoint.addr()?;
            let raw = |password: Option<&str>, id: &str| {
                let request = Request::new("POST", "/v1/sources/s")
                    .header("x-amz-sns-rawdelivery", "true")
                    .header("x-amz-sns-topic-arn", &topic)
                    .header("x-amz-sns-message-id", id)
                    .body("text/plain", "{\"users\":[\"ada\"],\"data\":\"by hand\"}");
                let request = match password {
                    // sns:a-long-password
                    Some(basic) => request.header("authorization", &format!("Basic {basic}")),
                    None => request,
                };
                once(addr, &request)
            };
            let refused = raw(None, "m-1")?;
            ensure!(refused.status() == 401, "{}", refused.text());
            ensure!(raw(Some("c25zOndyb25n"), "m-1")?.status() == 401);
            for _ in 0..3 {
                // Three times the same message.
                ensure!(raw(Some("c25zOmEtbG9uZy1wYXNzd29yZA=="), "m-1")?.status() == 200);
            }
            ensure!(next_notification(&mut *ada, within(90))?.data == "\"by hand\"");
            ensure!(accepted(&node) == 1.0);
            subscribe(
                &mut boto,
                &topic,
                &format!("http://sns:{PASSWORD}@{addr}/v1/sources/s"),
                true,
            )?;
            boto.publish(&topic, "{\"users\":[\"ada\"],\"data\":\"from SNS\"}")?;
            ensure!(next_notification(&mut *ada, within(90))?.data == "\"from SNS\"");
            Ok(())
        },
    )
}

/// From a date of HTTP, such as `Sun, 22 Nov 2026 01:02:03 GMT`.
fn rfc3339(http: &str) -> Result<String> {
    let parts: Vec<_> = http.split([' ', ',']).filter(|part| !part.is_empty()).collect();
    let [_, day, month, year, time, _] = parts[..] else {
        anyhow::bail!("no date: {http}");
    };
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months.find(month).context("no month")? / 3 + 1;
    Ok(format!("{year}-{month:02}-{day:0>2}T{time}.000Z"))
}
