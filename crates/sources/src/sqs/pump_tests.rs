//! Sources against a stand-in for SQS, by a clock that runs only where everybody waits.

#![allow(clippy::disallowed_methods, reason = "a test, whose clock stands still")]

use crate::queue::{Delivery, Source, SourceFault};
use crate::sqs::stub::{Stub, VISIBILITY};
use crate::sqs::{Sqs, SqsUsers};
use futures_util::future::join_all;
use postrider_model::{FeedId, UserId};
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// No test waits longer for what has to come.
const SOON: Duration = Duration::from_secs(20);

fn user(name: &str) -> FeedId {
    FeedId::User(UserId::new(name).unwrap())
}

/// Receives until so many came.
async fn receive(source: &SqsUsers, count: usize) -> Vec<Delivery> {
    let all = async {
        let mut came = Vec::new();
        while came.len() < count {
            came.extend(source.receive(0, 64).await.unwrap());
        }
        came
    };
    tokio::time::timeout(SOON, all).await.expect("they come")
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_many_is_received_once_and_nothing_of_it_is_given_back() {
    let stub = Stub::start();
    let source = stub.users(32, 1_024);
    for n in 0..300 {
        stub.put(&format!("u{n}"), 10);
        source.follow(&user(&format!("u{n}")));
    }
    source.open().await.unwrap();
    let mut done = 0;
    while done < 3_000 {
        let acks = receive(&source, 1).await.into_iter().map(Delivery::ack);
        let acks = join_all(acks).await;
        assert!(acks.iter().all(Result::is_ok));
        done += acks.len();
    }
    assert_eq!(*stub.given_back.lock().unwrap(), 0);
    let received = stub.received.lock().unwrap();
    assert!(received.len() == 3_000 && received.values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn one_whose_messages_are_not_settled_leaves_room_for_others() {
    let stub = Stub::start();
    let source = stub.users(12, 1_024);
    stub.put("slow", 100);
    source.follow(&user("slow"));
    source.open().await.unwrap();
    let mut kept = receive(&source, 12).await;
    assert!(
        source.receive(0, 64).await.unwrap().is_empty(),
        "no more of his are fetched"
    );
    for n in 0..20 {
        stub.put(&format!("u{n}"), 1);
        source.follow(&user(&format!("u{n}")));
    }
    for delivery in receive(&source, 20).await {
        assert_ne!(delivery.message().feed, Some(user("slow")));
        delivery.ack().await.unwrap();
    }
    assert_eq!(stub.queues.lock().unwrap()["n-slow"].len(), 88);
    // One is acknowledged, and one only dropped.
    kept.pop().unwrap().ack().await.unwrap();
    drop(kept.pop());
    let more = receive(&source, 2).await;
    assert!(more.iter().all(|one| one.message().feed == Some(user("slow"))));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_refused_is_that_users_and_where_all_are_the_source_is_not_there() {
    let stub = Stub::start();
    let source = stub.users(12, 1_024);
    source.follow(&user("bad"));
    assert!(matches!(source.open().await, Err(SourceFault::Refused(_))));
    source.follow(&user("good"));
    stub.put("good", 1);
    source.open().await.unwrap();
    assert_eq!(receive(&source, 1).await.len(), 1);
    source.follow(&user("bad2"));
    for n in 0..3 {
        stub.put("good", n);
        assert_eq!(receive(&source, n).await.len(), n);
    }
    assert!(
        source.receive(0, 64).await.unwrap().is_empty(),
        "it is not away for the others"
    );
}

#[tokio::test(start_paused = true)]
async fn who_closes_waits_for_what_is_being_given_back() {
    let stub = Stub::start();
    let source = stub.users(12, 1_024);
    source.follow(&user("ada"));
    source.open().await.unwrap();
    assert!(source.receive(0, 64).await.unwrap().is_empty());
    source.unfollow(&user("ada"));
    stub.put("ada", 1);
    tokio::time::timeout(SOON, stub.giving_back.notified())
        .await
        .expect("nobody hears it: it is given back");
    let close = source.close();
    tokio::pin!(close);
    let is_waiting =
        std::future::poll_fn(|context| Poll::Ready(close.as_mut().poll(context).is_pending())).await;
    assert!(is_waiting, "it is not given back yet");
    stub.gate.add_permits(1);
    tokio::time::timeout(SOON, close).await.unwrap();
    assert_eq!(*stub.given_back.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn workers_that_open_at_once_ask_for_the_queue_once() {
    let stub = Stub::start();
    let source = stub.one("q", 4);
    let opened = join_all((0..4).map(|_| source.open())).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(stub.calls("GetQueueAttributes"), 1);
}

/// Receives as a worker does, and deletes, until so many were; each fault that was told.
async fn work(source: &Sqs, count: usize) -> Vec<SourceFault> {
    let (mut done, mut faults) = (0, Vec::new());
    while done < count {
        source.open().await.unwrap();
        match source.receive(0, 10).await {
            Ok(came) => {
                let acks = join_all(came.into_iter().map(Delivery::ack)).await;
                done += acks.iter().filter(|ack| ack.is_ok()).count();
            }
            Err(fault) => faults.push(fault),
        }
    }
    faults
}

#[tokio::test(start_paused = true)]
async fn every_other_call_fails_and_nothing_is_away_nor_comes_again() {
    let stub = Stub::start();
    let source = stub.one("q", 1);
    source.open().await.unwrap();
    stub.put("q", 1);
    assert!(work(&source, 1).await.is_empty());
    // Seven of fifteen, as where every third is throttled and every fifth fails.
    stub.fail(|_, nth| nth % 3 == 0 || nth % 5 == 0);
    stub.put("q", 1_250);
    let began = Instant::now();
    assert_eq!(work(&source, 1_250).await, []);
    // 125 batches of ten. Who waits for its own pauses only is through in less than the first message's visibility.
    assert!(began.elapsed() < VISIBILITY, "{:?}", began.elapsed());
    assert!(stub.received.lock().unwrap().values().all(|times| *times == 1));
    let deleted = stub.deleted.lock().unwrap();
    assert!(deleted.len() == 1_251 && deleted.values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_fails_is_said_again_with_others_and_not_for_ever() {
    let stub = Stub::start();
    let source = stub.one("q", 1);
    source.open().await.unwrap();
    stub.put("q", 15);
    let mut held = source.receive(0, 10).await.unwrap();
    stub.fail(|call, nth| call == "DeleteMessageBatch" && nth <= 4);
    let acks = join_all(held.drain(..).map(Delivery::ack)).await;
    assert!(acks.iter().all(Result::is_ok));
    assert_eq!(stub.calls("DeleteMessageBatch"), 5, "ten in a call, four in vain");
    held.extend(source.receive(0, 10).await.unwrap());
    stub.fail(|call, _| call == "DeleteMessageBatch");
    let began = Instant::now();
    let acks = join_all(held.drain(..).map(Delivery::ack)).await;
    assert!(acks.len() == 5 && acks.iter().all(|ack| matches!(ack, Err(SourceFault::Away(_)))));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_within_seconds_and_over_as_soon_as_a_poll_goes_well() {
    let stub = Stub::start();
    let source = stub.one("q", 4);
    source.open().await.unwrap();
    stub.put("q", 1);
    work(&source, 1).await;
    stub.fail(|call, _| call == "ReceiveMessage");
    stub.put("q", 1);
    let began = Instant::now();
    let told = loop {
        match source.receive(0, 10).await {
            Ok(none) => assert!(none.is_empty()),
            Err(fault) => break fault,
        }
    };
    assert!(matches!(told, SourceFault::Away(_)));
    let (took, tries) = (began.elapsed(), stub.calls("ReceiveMessage"));
    assert!((2..25).contains(&took.as_secs()), "{took:?}");
    assert!(tries < 40, "{tries} calls");
    assert!(
        source.receive(0, 10).await.is_err(),
        "nothing is asked of what is away"
    );
    assert_eq!(stub.calls("ReceiveMessage"), tries);
    // It is opened, and still fails: that is told at the first failure.
    source.open().await.unwrap();
    assert!(source.receive(0, 10).await.is_err());
    stub.fail(|_, _| false);
    let began = Instant::now();
    assert!(work(&source, 1).await.is_empty());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// However long SQS was away: who opens again and again, as a worker does, soon has what came for any user.
#[tokio::test(start_paused = true)]
async fn users_are_polled_again_soon_after_an_outage() {
    for away_for in [3, 60, 900] {
        let stub = Stub::start();
        let source = stub.users(32, 1_024);
        for n in 0..3 {
            source.follow(&user(&format!("u{n}")));
        }
        source.open().await.unwrap();
        stub.fail(|_, _| true);
        (0..3).for_each(|n| stub.put(&format!("u{n}"), 1));
        let (began, calls) = (Instant::now(), stub.calls("ReceiveMessage"));
        while began.elapsed() < Duration::from_secs(away_for) {
            // The first outage is noticed by what receives, and then by what opens.
            if source.open().await.is_ok() {
                let came = source.receive(0, 64).await.unwrap_or_default();
                assert!(came.is_empty());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let calls = stub.calls("ReceiveMessage") - calls;
        assert!(
            calls < 30 + 6 * usize::try_from(away_for).unwrap(),
            "{calls} calls in {away_for} s"
        );
        // It is back just after it failed once more.
        let calls = stub.calls("ReceiveMessage");
        while stub.calls("ReceiveMessage") == calls {
            assert!(source.open().await.is_err());
        }
        stub.fail(|_, _| false);
        let began = Instant::now();
        let mut done = 0;
        while done < 3 {
            if source.open().await.is_ok() {
                for delivery in source.receive(0, 64).await.unwrap_or_default() {
                    delivery.ack().await.unwrap();
                    done += 1;
                }
            } else {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{away_for} s: {:?}",
            began.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn failing_polls_of_some_users_are_no_outage_for_the_others() {
    let stub = Stub::start();
    let source = stub.users(32, 1_024);
    for n in 0..40 {
        stub.put(&format!("u{n}"), 5);
        source.follow(&user(&format!("u{n}")));
    }
    source.open().await.unwrap();
    stub.fail(|_, nth| nth % 3 == 0 || nth % 5 == 0);
    let mut done = 0;
    while done < 200 {
        let came = source.receive(0, 64).await.expect("it is not away");
        let acks = join_all(came.into_iter().map(Delivery::ack)).await;
        done += acks.iter().filter(|ack| ack.is_ok()).count();
    }
    assert!(stub.received.lock().unwrap().values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_nothing_costs_only_himself_however_many_they_are() {
    const SHARED: usize = 64;
    for stalled in [1, 32, 200] {
        let stub = Stub::start();
        let source = stub.users(32, SHARED);
        for n in 0..stalled {
            stub.put(&format!("s{n}"), 100);
            source.follow(&user(&format!("s{n}")));
        }
        source.open().await.unwrap();
        let mut kept = Vec::new();
        loop {
            let came = source.receive(0, 64).await.unwrap();
            if came.is_empty() {
                break;
            }
            kept.extend(came);
        }
        assert!(kept.len() >= stalled, "each has one");
        assert!(kept.len() <= stalled + SHARED);
        // One comes whose client takes everything: he gets all of his.
        stub.put("ada", 300);
        source.follow(&user("ada"));
        let began = Instant::now();
        let mut done = 0;
        while done < 300 {
            for delivery in receive(&source, 1).await {
                assert_eq!(delivery.message().feed, Some(user("ada")));
                delivery.ack().await.unwrap();
                done += 1;
            }
        }
        assert!(began.elapsed() < SOON);
        for delivery in kept {
            delivery.ack().await.unwrap();
        }
    }
}
