//! What is said of a message while SQS hangs, or while another word of it is under way; by a clock that runs only where
//! everybody waits.

#![allow(clippy::disallowed_methods, reason = "a test, whose clock stands still")]

use super::ENDS;
use crate::queue::{Delivery, Source, SourceFault};
use crate::sqs::Sqs;
use crate::sqs::stub::{Stub, VISIBILITY};
use futures_util::future::join_all;
use postrider_model::Millis;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

const CALL: &str = "ChangeMessageVisibilityBatch";

async fn receive(stub: &Arc<Stub>, count: usize) -> (Sqs, Vec<Delivery>) {
    let source = stub.one("q", 1);
    source.open().await.unwrap();
    stub.put("q", count);
    let mut came = Vec::new();
    while came.len() < count {
        came.extend(source.receive(0, 10).await.unwrap());
    }
    (source, came)
}

async fn only_begin(work: Pin<&mut impl Future>) {
    let mut work = Some(work);
    std::future::poll_fn(|context| {
        let is_pending = work.take().is_none_or(|work| work.poll(context).is_pending());
        assert!(is_pending);
        Poll::Ready(())
    })
    .await;
}

/// A hold gets to SQS, which keeps it waiting; nobody here waits for it any more.
async fn hold_under_way(stub: &Stub, delivery: &Delivery) {
    tokio::select! {
        _ = delivery.hold() => panic!("it is kept waiting"),
        () = stub.giving_back.notified() => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_hangs_costs_patience_and_one_call_however_many_wait() {
    let stub = Stub::start();
    let (_source, came) = receive(&stub, 1_030).await;
    let began = Instant::now();
    let told = join_all(came.into_iter().map(|one| one.nack(Millis(0)))).await;
    assert!(told.iter().all(|one| matches!(one, Err(SourceFault::Away(_)))));
    assert!(began.elapsed() < Duration::from_secs(16), "{:?}", began.elapsed());
    assert_eq!(stub.calls(CALL), 32, "nothing begins that is too late");
}

#[tokio::test(start_paused = true)]
async fn a_message_is_given_back_after_the_hold_that_was_under_way() {
    let stub = Stub::start();
    let (_source, mut came) = receive(&stub, 1).await;
    let delivery = came.pop().unwrap();
    hold_under_way(&stub, &delivery).await;
    let mut back = std::pin::pin!(delivery.nack(Millis(5_000)));
    assert!(tokio::time::timeout(ENDS / 2, &mut back).await.is_err());
    assert_eq!(stub.calls(CALL), 1, "the hold alone");
    stub.gate.add_permits(1);
    back.await.unwrap();
    let said = [VISIBILITY.as_secs(), 5].map(|time| ("q-0".to_owned(), time));
    assert_eq!(*stub.shown.lock().unwrap(), said);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_was_only_ordered_is_not_said_once_the_message_is_given_back() {
    let stub = Stub::start();
    stub.gate.add_permits(1);
    let (_source, mut came) = receive(&stub, 1).await;
    let delivery = came.pop().unwrap();
    only_begin(std::pin::pin!(delivery.hold()).as_mut()).await;
    delivery.nack(Millis(5_000)).await.unwrap();
    assert_eq!(*stub.shown.lock().unwrap(), [("q-0".to_owned(), 5)]);
    assert_eq!(stub.calls(CALL), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_hangs_keeps_nobody_waiting_for_long() {
    let stub = Stub::start();
    let (_source, mut came) = receive(&stub, 1).await;
    let delivery = came.pop().unwrap();
    hold_under_way(&stub, &delivery).await;
    let mut back = std::pin::pin!(delivery.nack(Millis(0)));
    tokio::select! {
        _ = &mut back => panic!("it is kept waiting"),
        said = tokio::time::timeout(ENDS * 2, stub.giving_back.notified()) => said.expect("it is said all the same"),
    }
}
