//! The rules of sources whose messages come again until they are acknowledged.
//!
//! Whether one comes again that should not is asked of the server: it has none left. Nothing is waited for but what must come.

use super::{LONG, PATIENCE, SAYS_SO, SHORT, Subject, ack_all, open, payloads, receive_all, texts};
use crate::queue::{Delivery, Source, SourceFault};
use futures_util::future::join_all;
use postrider_model::Millis;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// More than one receive brings.
const MANY: usize = 42;
/// A rule about the time that a lease lasts is tried so often on a machine that stands still.
const TRIES: usize = 5;

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
    let source = subject.node("a", LONG).await;
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
    nothing_is_left(subject).await;
    if let Some(lag) = source.lag().await.expect("it is there") {
        assert_eq!((lag.unsettled, lag.waiting.unwrap_or(0)), (0, 0));
    }
    source.close().await;
}

async fn one_worker_each(subject: &dyn Subject) {
    subject.begin("one_worker_each").await;
    let (a, b) = (subject.node("a", LONG).await, subject.node("b", LONG).await);
    open(&*a).await;
    open(&*b).await;
    subject.put(&payloads(0..MANY as u32)).await;
    let mut seen = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while seen.len() < MANY {
        assert!(Instant::now() < deadline, "only {} of {MANY} came", seen.len());
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
    nothing_is_left(subject).await;
    a.close().await;
    b.close().await;
}

async fn given_back_comes_again(subject: &dyn Subject) {
    subject.begin("given_back_comes_again").await;
    let source = subject.node("a", LONG).await;
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
    nothing_is_left(subject).await;
    source.close().await;
}

async fn poison_harms_nobody(subject: &dyn Subject) {
    subject.begin("poison_harms_nobody").await;
    let source = subject.node("a", LONG).await;
    open(&*source).await;
    subject.put(&payloads(0..5)).await;
    let mut poison = Vec::new();
    let mut good = HashSet::new();
    while poison.len() < 3 || good.len() < 13 {
        for delivery in receive_all(&*source, 0, 1).await {
            let text = texts(subject, std::slice::from_ref(&delivery)).remove(0);
            if text == "payload 2" {
                poison.push(delivery.message().deliveries);
                // Not at once: a server that gives the oldest first would give nothing else.
                delivery.nack(Millis(1_000)).await.expect("it is there");
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
    let source = subject.node("a", LONG).await;
    let opened = tokio::time::timeout(SAYS_SO, source.open())
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
    let source = subject.node("a", SHORT).await;
    open(&*source).await;
    subject.put(&payloads(0..6)).await;
    let held = receive_all(&*source, 0, 3).await;
    subject.go_away().await;
    let noticed = async {
        while let Ok(came) = source.receive(1, 1).await {
            assert!(came.is_empty(), "nothing comes from what is away");
        }
    };
    tokio::time::timeout(SAYS_SO, noticed)
        .await
        .expect("it says so in time");
    let told = join_all(held.into_iter().map(Delivery::ack)).await;
    assert!(told.iter().all(Result::is_err), "nobody took the word");
    subject.come_back().await;
    open(&*source).await;
    subject.put(&payloads(6..8)).await;
    all_come(subject, &*source, payloads(0..8)).await;
    source.close().await;
}

async fn drained_is_anothers_at_once(subject: &dyn Subject) {
    subject.begin("drained_is_anothers_at_once").await;
    let (a, b) = (subject.node("a", LONG).await, subject.node("b", LONG).await);
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
    let (a, b) = (subject.node("a", SHORT).await, subject.node("b", SHORT).await);
    open(&*a).await;
    open(&*b).await;
    subject.put(&payloads(0..3)).await;
    let mut held = Vec::new();
    let mut names = HashMap::new();
    while names.len() < 3 {
        for delivery in receive_all(&*a, 0, 1).await {
            let text = texts(subject, std::slice::from_ref(&delivery)).remove(0);
            names.insert(text, delivery.message().name.clone());
            held.push(delivery);
        }
    }
    // As a crash between receiving and settling leaves it: nobody says anything.
    held.into_iter().for_each(std::mem::forget::<Delivery>);
    drop(a);
    for (text, name, deliveries) in all_come(subject, &*b, payloads(0..3)).await {
        assert_eq!(names[&text], name, "the same message, by the same name");
        assert!(deliveries >= 2, "{text}: {deliveries}");
    }
    b.close().await;
}

async fn held_by_the_living_is_not(subject: &dyn Subject) {
    subject.begin("held_by_the_living_is_not").await;
    let (a, b) = (subject.node("a", SHORT).await, subject.node("b", SHORT).await);
    open(&*a).await;
    open(&*b).await;
    for nth in 0..TRIES as u32 {
        subject.put(&payloads(nth..nth + 1)).await;
        let mut longest = Duration::ZERO;
        let mut since = Instant::now();
        let held = receive_all(&*a, 0, 1).await;
        // Longer than it takes until what a dead node held is taken over.
        let until = since + SHORT * 2;
        let working = async {
            while Instant::now() < until {
                let began = Instant::now();
                if held[0].hold().await.is_ok() {
                    longest = longest.max(since.elapsed());
                    since = began;
                }
                tokio::time::sleep(SHORT / 10).await;
            }
            longest = longest.max(since.elapsed());
        };
        let looking = async {
            let mut came = Vec::new();
            while Instant::now() < until {
                came.extend(b.receive(0, 10).await.expect("it is there"));
            }
            came
        };
        let ((), taken) = tokio::join!(working, looking);
        // Who stood still for as long as the lease has lost it, and shows nothing.
        let is_proof = longest < SHORT * 3 / 4;
        let name = held[0].message().name.clone();
        let is_taken = taken.iter().any(|other| other.message().name == name);
        assert!(!is_proof || !is_taken, "it was taken from who works on it");
        let mut acked = join_all(held.into_iter().chain(taken).map(Delivery::ack)).await;
        if is_proof {
            acked.remove(0).expect("it is there");
            a.close().await;
            b.close().await;
            return;
        }
    }
    panic!("this machine stands still for {SHORT:?} again and again");
}

async fn an_interrupted_receive_loses_nothing(subject: &dyn Subject) {
    subject.begin("an_interrupted_receive_loses_nothing").await;
    let source = subject.node("a", SHORT).await;
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
    let mut left: HashSet<_> = put.into_iter().collect();
    if let Ok(Ok(came)) = came {
        for delivery in came {
            let text = texts(subject, std::slice::from_ref(&delivery)).remove(0);
            if delivery.ack().await.is_ok() {
                left.remove(&text);
            }
        }
    }
    all_come(subject, &*source, left.into_iter().collect()).await;
    source.close().await;
}

/// Receives and acknowledges until all of these came: each with its name, and how often it was given out. A word that comes
/// after the lease may be refused, and then the message comes once more.
async fn all_come(
    subject: &dyn Subject,
    source: &dyn Source,
    payloads: Vec<String>,
) -> Vec<(String, Option<String>, u32)> {
    let mut left: HashSet<_> = payloads.into_iter().collect();
    let mut out = Vec::new();
    while !left.is_empty() {
        for delivery in receive_all(source, 0, 1).await {
            let text = texts(subject, std::slice::from_ref(&delivery)).remove(0);
            let (name, deliveries) = (delivery.message().name.clone(), delivery.message().deliveries);
            if delivery.ack().await.is_ok() {
                left.remove(&text);
                out.push((text, name, deliveries));
            }
        }
    }
    out
}

/// All that was given out is done with, as far as the server knows.
async fn nothing_is_left(subject: &dyn Subject) {
    let deadline = Instant::now() + SAYS_SO;
    loop {
        match subject.left().await {
            0 => return,
            left => assert!(Instant::now() < deadline, "{left} were acknowledged and are left"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
