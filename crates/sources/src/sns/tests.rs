//! Posts that were signed with OpenSSL, by a key that is gone; whoever changes one cannot sign it anew.

use super::*;
use crate::queue::{Message, Source as _};
use async_trait::async_trait;
use postrider_model::{Millis, Timestamp};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const KEY: &[u8] = include_bytes!("fixtures/key.pem");
const SHORT: &[u8] = include_bytes!("fixtures/short.pem");
const CURVE: &[u8] = include_bytes!("fixtures/curve.pem");
const SHA1: &str = include_str!("fixtures/sha1.json");
const SHA256: &str = include_str!("fixtures/sha256.json");
const SUBSCRIBE: &str = include_str!("fixtures/subscribe.json");
const UNSUBSCRIBE: &str = include_str!("fixtures/unsubscribe.json");
/// Well signed, and asks for another host.
const ELSEWHERE: &str = include_str!("fixtures/elsewhere.json");
const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:notes";

/// Gives what it was made with, and counts.
struct Shelf {
    file: Mutex<Result<Vec<u8>, String>>,
    asked: AtomicUsize,
    /// Milliseconds of the steady clock.
    steady: AtomicU64,
}

#[async_trait]
impl Fetch for Shelf {
    async fn fetch(&self, _url: &str) -> Result<Vec<u8>, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.file.lock().unwrap().clone()
    }
}

fn shelf(file: Result<&[u8], &str>) -> Arc<Shelf> {
    Arc::new(Shelf {
        file: Mutex::new(file.map(<[u8]>::to_vec).map_err(str::to_owned)),
        asked: AtomicUsize::new(0),
        steady: AtomicU64::new(0),
    })
}

fn checks(shelf: &Arc<Shelf>) -> Checks {
    let clock = shelf.clone();
    let steady = Arc::new(move || Timestamp(clock.steady.load(Ordering::Relaxed)));
    Checks {
        topics: vec![TOPIC.into()],
        hosts: Hosts::default(),
        window: Millis::from_secs(3_600),
        keys: Keys::new(shelf.clone(), steady),
    }
}

fn post(text: &str) -> Post {
    Post::read(text.as_bytes()).unwrap()
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

/// Half a minute after the posts were signed.
fn soon() -> Timestamp {
    at("2026-12-01T00:00:30Z")
}

#[tokio::test]
async fn what_sns_signed_is_believed() {
    let checks = checks(&shelf(Ok(KEY)));
    for text in [SHA1, SHA256] {
        assert_eq!(
            checks.verify(&post(text), soon()).await,
            Ok(Verified::Notification)
        );
    }
    assert_eq!(
        checks.verify(&post(UNSUBSCRIBE), soon()).await,
        Ok(Verified::Unsubscribed)
    );
    let confirm = checks.verify(&post(SUBSCRIBE), soon()).await;
    assert!(matches!(confirm, Ok(Verified::Confirm(url)) if url.starts_with("https://sns.eu-central-1.")));
}

#[tokio::test]
async fn whatever_was_changed_is_noticed() {
    let checks = checks(&shelf(Ok(KEY)));
    let changes: &[fn(&mut Post)] = &[
        |p| p.message.push(' '),
        |p| p.message_id.push('0'),
        |p| p.subject = Some("Other".into()),
        |p| p.subject = None,
        |p| p.timestamp = "2026-12-01T00:00:01.000Z".into(),
        |p| p.signature_version = "1".into(),
        |p| {
            p.signature
                .replace_range(0..1, if p.signature.starts_with('A') { "B" } else { "A" })
        },
        |p| p.signature = "no base64!".into(),
        |p| p.signature = String::new(),
        |p| p.kind = Kind::UnsubscribeConfirmation,
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut post = post(SHA256);
        change(&mut post);
        assert_eq!(
            checks.verify(&post, soon()).await,
            Err(Forged::Signature),
            "{index}"
        );
    }
    let mut post = post(SUBSCRIBE);
    post.subscribe_url = Some("https://sns.us-east-1.amazonaws.com/?other".into());
    assert_eq!(checks.verify(&post, soon()).await, Err(Forged::Signature));
}

#[tokio::test]
async fn what_is_refused_without_asking_for_a_certificate() {
    let shelf = shelf(Ok(KEY));
    let checks = checks(&shelf);
    let refused = async |change: fn(&mut Post), now: &str| {
        let mut post = post(SHA256);
        change(&mut post);
        checks.verify(&post, at(now)).await.unwrap_err()
    };
    let now = "2026-12-01T00:00:30Z";
    assert_eq!(refused(|p| p.topic_arn.push('x'), now).await, Forged::Topic);
    assert_eq!(refused(|_| (), "2026-12-01T01:00:01Z").await, Forged::Old);
    assert_eq!(refused(|_| (), "2026-11-30T23:54:59Z").await, Forged::Old);
    assert_eq!(
        refused(|p| p.timestamp = "yesterday".into(), now).await,
        Forged::Old
    );
    assert_eq!(
        refused(|p| p.signature_version = "3".into(), now).await,
        Forged::Version
    );
    let elsewhere = |p: &mut Post| {
        p.signing_cert_url =
            "https://sns.eu-central-1.amazonaws.com/?Action=GetEndpointAttributes&.pem".into()
    };
    assert_eq!(refused(elsewhere, now).await, Forged::Host("SigningCertURL"));
    assert_eq!(shelf.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_subscription_is_confirmed_at_sns_alone() {
    let checks = checks(&shelf(Ok(KEY)));
    let verified = checks.verify(&post(ELSEWHERE), soon()).await;
    assert_eq!(verified, Err(Forged::Host("SubscribeURL")));
}

#[tokio::test]
async fn a_certificate_is_fetched_once() {
    let shelf = shelf(Ok(KEY));
    let checks = checks(&shelf);
    for _ in 0..50 {
        checks.verify(&post(SHA256), soon()).await.unwrap();
    }
    assert_eq!(shelf.asked.load(Ordering::Relaxed), 1);
    shelf.steady.store(24 * 3_600_000, Ordering::Relaxed);
    checks.verify(&post(SHA256), soon()).await.unwrap();
    assert_eq!(shelf.asked.load(Ordering::Relaxed), 2, "and anew after a day");
}

#[tokio::test]
async fn forged_addresses_fetch_so_often_and_no_more() {
    let shelf = shelf(Ok(KEY));
    let checks = checks(&shelf);
    let forged = |n: usize| {
        let mut post = post(SHA256);
        post.signing_cert_url =
            format!("https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-{n:x}.pem");
        post.message = "forged".into();
        post
    };
    let mut busy = 0;
    for n in 0..100 {
        let error = checks.verify(&forged(n), soon()).await.unwrap_err();
        busy += usize::from(error == Forged::Key(KeyFault::Busy));
        assert_eq!(error.may_pass_later(), error != Forged::Signature);
    }
    assert_eq!((shelf.asked.load(Ordering::Relaxed), busy), (20, 80));
    // Somebody who sets the clock changes nothing.
    let set = at("2026-12-01T00:01:31Z");
    let busy = checks.verify(&post(SHA256), set).await;
    assert_eq!(busy, Err(Forged::Key(KeyFault::Busy)));
    // A minute later what is authentic is believed again, though the clock was set back.
    shelf.steady.store(61_000, Ordering::Relaxed);
    let back = at("2026-12-01T00:00:01Z");
    assert_eq!(
        checks.verify(&post(SHA256), back).await,
        Ok(Verified::Notification)
    );
}

#[tokio::test]
async fn certificates_that_do_not_count() {
    for (file, again) in [
        (Err("no route"), true),
        (Ok(SHORT), false),
        (Ok(CURVE), false),
        (Ok(&b"<html>"[..]), false),
        (
            Ok(Box::leak([b"<xml>\n", KEY].concat().into_boxed_slice())),
            false,
        ),
        (Ok(&b""[..]), false),
    ] {
        let error = checks(&shelf(file))
            .verify(&post(SHA256), soon())
            .await
            .unwrap_err();
        assert!(matches!(error, Forged::Key(_)), "{error}");
        assert_eq!(error.may_pass_later(), again, "{error}");
    }
    assert!(!Certificate::read(KEY).unwrap().counts_at(Timestamp(0)));
    assert!(!Certificate::read(KEY).unwrap().counts_at(Timestamp::MAX));
}

#[test]
fn what_is_no_post() {
    for text in ["", "{}", "[]", "null", "\u{0}", r#"{"Type":"Notification"}"#] {
        assert!(Post::read(text.as_bytes()).is_err(), "{text}");
    }
    let unknown = SHA256.replace("\"Notification\"", "\"Other\"");
    assert!(Post::read(unknown.as_bytes()).is_err());
}

fn message(name: &str) -> Message {
    Message {
        name: Some(name.into()),
        deliveries: 1,
        ..Message::default()
    }
}

fn waits(offer: Offer) -> tokio::sync::oneshot::Receiver<bool> {
    match offer {
        Offer::Waits(told) => told,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_post_waits_for_its_message() {
    let source = Sns::new(&SnsOptions { in_flight: 2 });
    let (first, again) = (
        waits(source.offer(message("a"))),
        waits(source.offer(message("a"))),
    );
    let second = waits(source.offer(message("b")));
    assert!(
        matches!(source.offer(message("c")), Offer::Refused),
        "there is no room"
    );
    let mut received = source.receive(0, 10).await.unwrap();
    assert_eq!(received.len(), 2, "a message that came twice is given once");
    assert!(
        matches!(source.offer(message("c")), Offer::Refused),
        "what a worker has takes up room too"
    );
    received.remove(0).ack().await.unwrap();
    assert!(first.await.unwrap() && again.await.unwrap());
    assert!(matches!(source.offer(message("a")), Offer::Done), "it is known");
    received.remove(0).nack(Millis(0)).await.unwrap();
    assert!(!second.await.unwrap());
    // What was given back is taken once more.
    let second = waits(source.offer(message("b")));
    drop(source.receive(0, 10).await.unwrap());
    assert!(!second.await.unwrap(), "who drops it is noticed");
    assert!(source.receive(0, 10).await.unwrap().is_empty());
    let last = waits(source.offer(message("d")));
    source.close().await;
    assert!(!last.await.unwrap());
    assert!(matches!(source.offer(message("e")), Offer::Refused));
}
