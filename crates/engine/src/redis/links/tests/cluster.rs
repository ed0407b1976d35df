//! A Cluster of three masters.

use super::*;
use crate::redis::testing::{Cluster, has_redis};

const WAIT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn each_cell_is_served_by_its_master_and_followed_when_it_moves() {
    if !has_redis("links: Cluster") {
        return;
    }
    let cluster = Cluster::start();
    let links = open(&cluster.url(), WAIT).await;
    assert!(links.is_cluster());
    assert_eq!(links.connections(), 7);
    let heard = Heard::by(&links);
    let answers = links
        .call(Cell::all().map(|cell| add(cell, i64::from(cell.0))).collect())
        .await;
    let wanted: Vec<_> = Cell::all()
        .map(|cell| Ok(Value::Int(i64::from(cell.0))))
        .collect();
    assert_eq!(answers, wanted);
    let channels: Vec<Vec<u8>> = Cell::all().map(|cell| cell.key("feed")).collect();
    Cell::all().for_each(|cell| links.subscribe(cell, cell.key("feed")));
    links.subscribed(&channels).await.expect("confirmed");
    for cell in Cell::all() {
        assert_eq!(
            one(&links, tell(cell, &cell.key("feed"), &format!("m{}", cell.0))).await,
            Ok(Value::Int(1))
        );
    }
    heard
        .until("all messages", |heard| {
            Cell::all().all(|cell| heard.has(&format!("m{}", cell.0)))
        })
        .await;
    assert_eq!(heard.losses(), [] as [Vec<Cell>; 0]);

    // A slot that holds a key is emptied first: only where it is served matters here.
    let cell = Cell::all()
        .find(|cell| cell.slot() < 5_000)
        .expect("cells are spread over all slots");
    cluster.masters[0].ask(redis::cmd("DEL").arg(cell.key("n")));
    cluster.move_slot(cell.slot(), 0, 2);
    assert_eq!(
        one(&links, add(cell, 3)).await,
        Ok(Value::Int(3)),
        "MOVED is followed"
    );
    let took = resumes(&links, &heard, cell, &cell.key("feed"), "moved").await;
    assert!(took < RESUMES_WITHIN, "{took:?}");
    // Told once the subscription is confirmed, which a message may come before.
    heard.until("a loss", |heard| !heard.losses().is_empty()).await;
    assert_eq!(heard.losses(), [[cell]], "the other cells missed nothing");
    assert_eq!(
        links.server_of(cell),
        links.server_of(Cell::all().max_by_key(|cell| cell.slot()).expect("a cell"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_on_its_way_is_asked_for_where_it_goes() {
    if !has_redis("links: ASK") {
        return;
    }
    let cluster = Cluster::start();
    let links = open(&cluster.url(), WAIT).await;
    let cell = Cell::all()
        .find(|cell| cell.slot() < 5_000)
        .expect("cells are spread over all slots");
    let other = Cell::all()
        .find(|cell| cell.slot() > 12_000)
        .expect("cells are spread over all slots");
    let id = |node: usize| match cluster.masters[node].ask_line("CLUSTER MYID") {
        Value::BulkString(id) => String::from_utf8_lossy(&id).into_owned(),
        other => panic!("{other:?}"),
    };
    cluster.masters[2].ask_line(&format!("CLUSTER SETSLOT {} IMPORTING {}", cell.slot(), id(0)));
    cluster.masters[0].ask_line(&format!("CLUSTER SETSLOT {} MIGRATING {}", cell.slot(), id(2)));
    let answers = links
        .call(vec![add(cell, 1), add(other, 9), add(cell, 1), get(cell)])
        .await;
    assert_eq!(
        answers,
        [
            Ok(Value::Int(1)),
            Ok(Value::Int(9)),
            Ok(Value::Int(2)),
            Ok(value("2"))
        ]
    );
    cluster.move_slot(cell.slot(), 0, 2);
    assert_eq!(one(&links, get(cell)).await, Ok(value("2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_dies_is_followed_to_its_replica() {
    if !has_redis("links: Cluster failover") {
        return;
    }
    let mut cluster = Cluster::start_with_replicas();
    let links = open(&cluster.url(), Duration::from_secs(20)).await;
    let heard = Heard::by(&links);
    Cell::all().for_each(|cell| links.subscribe(cell, cell.key("feed")));
    let channels: Vec<Vec<u8>> = Cell::all().map(|cell| cell.key("feed")).collect();
    links.subscribed(&channels).await.expect("confirmed");
    let cell = Cell::all()
        .find(|cell| cell.slot() < 5_000)
        .expect("cells are spread over all slots");
    one(&links, add(cell, 4)).await.expect("added");
    let moment = links.moment();
    assert_eq!(
        links
            .confirm(moment, &Cell::all().collect::<Vec<_>>(), Durability::Replicas(1))
            .await,
        Ok(())
    );
    cluster.masters[0].kill();
    until("the replica is promoted", || {
        match cluster.replicas[0].ask_line("INFO replication") {
            Value::BulkString(info) => String::from_utf8_lossy(&info).contains("role:master"),
            _ => false,
        }
    })
    .await;
    let took = resumes(&links, &heard, cell, &cell.key("feed"), "again").await;
    assert!(took < RESUMES_WITHIN, "{took:?}");
    assert_eq!(one(&links, get(cell)).await, Ok(value("4")));
    let has_lost = |heard: &Heard| heard.losses().concat().contains(&cell);
    heard.until("a loss", has_lost).await;
    let lost: Vec<Cell> = heard.losses().concat();
    assert!(
        lost.contains(&cell) && lost.iter().all(|cell| cell.slot() <= 5_461),
        "{lost:?}"
    );
    assert_eq!(links.connections(), 7);
}
