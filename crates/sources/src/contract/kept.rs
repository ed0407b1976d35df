//! The rules of sources whose messages come again until they are acknowledged.

use super::{PATIENCE, Subject, ack_all, open, payloads, receive, receive_all, texts};
use crate::queue::{Delivery, SourceFault};
use postrider_model::Millis;
use std::collections::HashSet;
use std::time::Duration;

/// So long nothing may come of what was settled.
const QUIET: Duration = Duration::from_secs(5);
/// More than one receive brings, and few enough to have them all before the first comes again, on a slow machine too.
const MANY: usize = 42;

pub(super) async fn check(subject: &dyn Subject) {
    in_order_and_once(subject).await;
    one_worker_each(subject).await;
    given_back_comes_again(subject).await;
    poison_harms_nobody(subject).await;
    away_at_the_start(subject).await;
    away_in_the_middle(subject).await;
    drained_is_anothers_at_once(subject).await;
    held_by_the_dead_is_taken_over(subject).await;
    held_by_the_living_is_not(subject).await;
    an_interrupted_receive_loses_nothing(subject).await;
}

async fn in_order_and_once(subject: &dyn Subject) {
    subject.begin("in_order_and_once").await;
    let source = subject.node("a").await;
    open(&*source).await;
    let put = payloads(0..MANY as u32);
    subject.put(&put).await;
    let came = receive_all(&*source, 0, MANY).await;
    assert_eq!(texts(subject, &came), put);
    let names: HashSet<_> = came.iter().map(|one| one.message().name.clone()).collect();
    assert_eq!(names.len(), MANY, "each has a name of its own");
    assert!(!names.contains(&None));
    assert!(came.iter().all(|one| one.message().deliveries == 1));
    if let Some(lag) = source.lag().await.expect("it is there") {
        assert_eq!(lag.unsettled, MANY as u64);
    }
    ack_all(came).await;
    assert!(
        receive(&*source, 0, 1, QUIET).await.is_empty(),
        "what was acknowledged came again"
    );
    if let Some(lag) = source.lag().await.expect("it is there") {
        assert_eq!((lag.unsettled, lag.waiting.unwrap_or(0)), (0, 0));
    }
    source.close().await;
}

async fn one_worker_each(subject: &dyn Subject) {
    subject.begin("one_worker_each").await;
    let (a, b) = (subject.node("a").await, subject.node("b").await);
    open(&*a).await;
    open(&*b).await;
    subject.put(&payloads(0..MANY as u32)).await;
    let mut seen = Vec::new();
    while seen.len() < MANY {
        let (one, two, three) = tokio::join!(a.receive(0, 7), a.receive(1, 7), b.receive(0, 7));
        for deliveries in [one, two, three] {
            let deliveries = deliveries.expect("it is there");
            seen.extend(texts(subject, &deliveries));
            ack_all(deliveries).await;
        }
    }
    let distinct: HashSet<_> = seen.iter().collect();
    assert_eq!(
        (seen.len(), distinct.len()),
        (MANY, MANY),
        "one was given out twice"
    );
    a.close().await;
    b.close().await;
}

async fn given_back_comes_again(subject: &dyn Subject) {
    subject.begin("given_back_comes_again").await;
    let source = subject.node("a").await;
    open(&*source).await;
    subject.put(&payloads(0..3)).await;
    let mut came = receive_all(&*source, 0, 3).await;
    let back = came.remove(1);
    let name = back.message().name.clone();
    back.nack(Millis(0)).await.expect("it is there");
    ack_all(came).await;
    let again = receive_all(&*source, 0, 1).await;
    assert_eq!(texts(subject, &again), ["payload 1"]);
    assert_eq!(
        (again[0].message().name.clone(), again[0].message().deliveries),
        (name, 2)
    );
    ack_all(again).await;
    assert!(receive(&*source, 0, 1, QUIET).await.is_empty());
    source.close().await;
}

async fn poison_harms_nobody(subject: &dyn Subject) {
    subject.begin("poison_harms_nobody").await;
    let source = subject.node("a").await;
    open(&*source).await;
    subject.put(&payloads(0..5)).await;
    let mut poison = Vec::new();
    let mut good = HashSet::new();
    while poison.len() < 3 || good.len() < 13 {
        for delivery in receive_all(&*source, 0, 1).await {
            let text = texts(subject, std::slice::from_ref(&delivery)).remove(0);
            if text == "payload 2" {
                poison.push(delivery.message().deliveries);
                delivery.nack(Millis(0)).await.expect("it is there");
                if poison.len() <= 3 {
                    let next = 5 + 3 * (poison.len() as u32 - 1);
                    subject.put(&payloads(next..next + 3)).await;
                }
            } else {
                assert!(good.insert(text), "one came twice beside the poison");
                delivery.ack().await.expect("it is there");
            }
        }
    }
    assert_eq!(&poison[..3], [1, 2, 3], "it is counted");
    source.close().await;
}

async fn away_at_the_start(subject: &dyn Subject) {
    subject.begin("away_at_the_start").await;
    subject.go_away().await;
    let source = subject.node("a").await;
    let opened = tokio::time::timeout(PATIENCE, source.open())
        .await
        .expect("it says so in time");
    assert!(matches!(opened, Err(SourceFault::Away(_))), "{opened:?}");
    subject.come_back().await;
    open(&*source).await;
    subject.put(&payloads(0..2)).await;
    let came = receive_all(&*source, 0, 2).await;
    assert_eq!(texts(subject, &came), payloads(0..2));
    ack_all(came).await;
    source.close().await;
}

async fn away_in_the_middle(subject: &dyn Subject) {
    subject.begin("away_in_the_middle").await;
    let source = subject.node("a").await;
    open(&*source).await;
    subject.put(&payloads(0..6)).await;
    let held = receive_all(&*source, 0, 3).await;
    subject.go_away().await;
    let failed = tokio::time::timeout(PATIENCE, source.receive(1, 1))
        .await
        .expect("it says so in time");
    assert!(failed.is_err(), "nothing comes from what is away");
    let mut told = Vec::new();
    for delivery in held {
        told.push(delivery.ack().await.is_ok());
    }
    assert_eq!(told, [false; 3], "nobody took the word");
    subject.come_back().await;
    open(&*source).await;
    subject.put(&payloads(6..8)).await;
    let mut seen = HashSet::new();
    while seen.len() < 8 {
        let came = receive_all(&*source, 0, 1).await;
        seen.extend(texts(subject, &came));
        ack_all(came).await;
    }
    assert_eq!(seen, payloads(0..8).into_iter().collect());
    source.close().await;
}

async fn drained_is_anothers_at_once(subject: &dyn Subject) {
    subject.begin("drained_is_anothers_at_once").await;
    let (a, b) = (subject.node("a").await, subject.node("b").await);
    open(&*a).await;
    open(&*b).await;
    subject.put(&payloads(0..4)).await;
    for delivery in receive_all(&*a, 0, 4).await {
        delivery.nack(Millis(0)).await.expect("it is there");
    }
    a.close().await;
    let came = receive_all(&*b, 0, 4).await;
    let seen: HashSet<_> = texts(subject, &came).into_iter().collect();
    assert_eq!(seen, payloads(0..4).into_iter().collect());
    ack_all(came).await;
    b.close().await;
}

async fn held_by_the_dead_is_taken_over(subject: &dyn Subject) {
    subject.begin("held_by_the_dead_is_taken_over").await;
    let (a, b) = (subject.node("a").await, subject.node("b").await);
    open(&*a).await;
    open(&*b).await;
    subject.put(&payloads(0..3)).await;
    let held = receive_all(&*a, 0, 3).await;
    let names: HashSet<_> = held.iter().map(|one| one.message().name.clone()).collect();
    // As a crash between receiving and settling leaves it: nobody says anything.
    held.into_iter().for_each(std::mem::forget::<Delivery>);
    drop(a);
    let came = receive_all(&*b, 0, 3).await;
    let again: HashSet<_> = came.iter().map(|one| one.message().name.clone()).collect();
    assert_eq!(again, names, "the same messages, by the same names");
    assert!(came.iter().all(|one| one.message().deliveries == 2));
    ack_all(came).await;
    b.close().await;
}

async fn held_by_the_living_is_not(subject: &dyn Subject) {
    subject.begin("held_by_the_living_is_not").await;
    let (a, b) = (subject.node("a").await, subject.node("b").await);
    open(&*a).await;
    open(&*b).await;
    subject.put(&payloads(0..1)).await;
    let held = receive_all(&*a, 0, 1).await;
    // Longer than it takes until what a dead node held is taken over.
    let working = async {
        for _ in 0..16 {
            held[0].hold().await.expect("it is there");
            tokio::time::sleep(QUIET / 16).await;
        }
    };
    let (taken, ()) = tokio::join!(receive(&*b, 0, 1, QUIET), working);
    assert!(taken.is_empty(), "it was taken from who works on it");
    ack_all(held).await;
    a.close().await;
    b.close().await;
}

async fn an_interrupted_receive_loses_nothing(subject: &dyn Subject) {
    subject.begin("an_interrupted_receive_loses_nothing").await;
    let source = subject.node("a").await;
    open(&*source).await;
    for n in 0..4u64 {
        let soon = Duration::from_millis(3 * n);
        if let Ok(came) = tokio::time::timeout(soon, source.receive(0, 4)).await {
            assert!(came.expect("it is there").is_empty());
        }
    }
    let put = payloads(0..5);
    let (came, ()) = tokio::join!(
        tokio::time::timeout(Duration::from_millis(1), source.receive(0, 4)),
        subject.put(&put)
    );
    let mut seen = HashSet::new();
    if let Ok(Ok(came)) = came {
        seen.extend(texts(subject, &came));
        ack_all(came).await;
    }
    while seen.len() < put.len() {
        let came = receive_all(&*source, 0, 1).await;
        seen.extend(texts(subject, &came));
        ack_all(came).await;
    }
    source.close().await;
}
