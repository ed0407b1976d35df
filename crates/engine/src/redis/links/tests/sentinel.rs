//! A master and its replica under three Sentinels.

use super::*;
use crate::redis::testing::{Watched, has_redis};

const CELL: Cell = Cell(11);

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_replica_is_followed() {
    if !has_redis("links: Sentinel failover") {
        return;
    }
    let mut watched = Watched::start();
    let links = open(&watched.url(), Duration::from_secs(20)).await;
    let heard = Heard::by(&links);
    let channel = CELL.key("feed");
    links.subscribe(CELL, channel.clone());
    links
        .subscribed(std::slice::from_ref(&channel))
        .await
        .expect("confirmed");
    assert_eq!(links.connections(), 3);
    let moment = links.moment();
    one(&links, add(CELL, 6)).await.expect("added");
    assert_eq!(
        links.confirm(moment, &[CELL], Durability::Replicas(1)).await,
        Ok(())
    );
    watched.master.kill();
    watched.wait_for_promotion();
    let took = resumes(&links, &heard, CELL, &channel, "again").await;
    assert!(took < RESUMES_WITHIN, "{took:?}");
    assert_eq!(one(&links, get(CELL)).await, Ok(value("6")));
    heard.until("the loss", |heard| heard.losses() == [[CELL]]).await;
    assert_eq!(links.connections(), 3);
    let again = links.confirm(moment, &[CELL], Durability::Replicas(1)).await;
    assert!(matches!(again, Err(LinkFault::Unknown(_))), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_that_is_away_is_passed_over() {
    if !has_redis("links: Sentinel away") {
        return;
    }
    let mut watched = Watched::start();
    watched.sentinels[0].kill();
    let links = open(&watched.url(), Duration::from_secs(20)).await;
    assert_eq!(one(&links, add(CELL, 1)).await, Ok(Value::Int(1)));
    let unknown = watched
        .url()
        .to_string()
        .replace("/main", "/other")
        .parse()
        .expect("well-formed");
    let options = LinkOptions {
        timeout: Duration::from_secs(3),
        ..LinkOptions::new(unknown, "test")
    };
    let fault = Links::open(options, "")
        .await
        .expect_err("nobody knows it")
        .to_string();
    assert!(fault.contains("other") || fault.contains("refused"), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_moved_and_lives_on_is_left() {
    if !has_redis("links: Sentinel, a planned move") {
        return;
    }
    let watched = Watched::start();
    let links = open(&watched.url(), Duration::from_secs(20)).await;
    let heard = Heard::by(&links);
    let channel = CELL.key("feed");
    links.subscribe(CELL, channel.clone());
    links
        .subscribed(std::slice::from_ref(&channel))
        .await
        .expect("confirmed");
    one(&links, add(CELL, 2)).await.expect("added");
    assert_eq!(
        links
            .confirm(links.moment(), &[CELL], Durability::Replicas(1))
            .await,
        Ok(())
    );
    assert_eq!(
        watched.sentinels[1].ask_line("SENTINEL FAILOVER main"),
        Value::Okay
    );
    watched.wait_for_promotion();
    let promoted = OwnTime::now();
    let at_replica = || links.inner.atlas.masters().servers[0].address.port == watched.replica.port();
    until("the new master is used", || {
        at_replica() && links.state().commanded == 1
    })
    .await;
    assert!(promoted.elapsed() < RESUMES_WITHIN, "{:?}", promoted.elapsed());
    let took = resumes(&links, &heard, CELL, &channel, "again").await;
    assert!(took < RESUMES_WITHIN, "{took:?}");
    assert_eq!(one(&links, get(CELL)).await, Ok(value("2")));
    heard.until("the loss", |heard| heard.losses() == [[CELL]]).await;
}
