//! The rules of sources that keep nothing. That messages come again, are counted, or are given to one node alone does not
//! apply: every node that listens hears each message, once.

use super::{LONG, SAYS_SO, Subject, open, payloads, receive_all, texts};
use crate::queue::SourceFault;

pub(super) async fn check(subject: &dyn Subject) {
    in_order(subject).await;
    every_node_hears(subject).await;
    away_at_the_start(subject).await;
    away_in_the_middle(subject).await;
}

async fn in_order(subject: &dyn Subject) {
    subject.begin("in_order").await;
    let source = subject.node("a", LONG).await;
    open(&*source).await;
    let put = payloads(0..150);
    subject.put(&put).await;
    let came = receive_all(&*source, 0, 150).await;
    assert_eq!(texts(subject, &came), put);
    for delivery in came {
        delivery.ack().await.expect("there is nothing to say");
    }
    source.close().await;
}

async fn every_node_hears(subject: &dyn Subject) {
    subject.begin("every_node_hears").await;
    let (a, b) = (subject.node("a", LONG).await, subject.node("b", LONG).await);
    open(&*a).await;
    open(&*b).await;
    let put = payloads(0..20);
    subject.put(&put).await;
    for source in [&a, &b] {
        assert_eq!(texts(subject, &receive_all(&**source, 0, 20).await), put);
        source.close().await;
    }
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
    assert_eq!(texts(subject, &receive_all(&*source, 0, 2).await), payloads(0..2));
    source.close().await;
}

async fn away_in_the_middle(subject: &dyn Subject) {
    subject.begin("away_in_the_middle").await;
    let source = subject.node("a", LONG).await;
    open(&*source).await;
    subject.put(&payloads(0..2)).await;
    assert_eq!(receive_all(&*source, 0, 2).await.len(), 2);
    subject.go_away().await;
    let noticed = async { while source.receive(0, 1).await.is_ok() {} };
    tokio::time::timeout(SAYS_SO, noticed)
        .await
        .expect("it says so in time");
    subject.come_back().await;
    open(&*source).await;
    subject.put(&payloads(2..4)).await;
    assert_eq!(texts(subject, &receive_all(&*source, 0, 2).await), payloads(2..4));
    source.close().await;
}
