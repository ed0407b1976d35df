//! What a node does while Redis is full, or is told to be another than was chosen; against servers of the tests' own.

use super::Trouble;
use super::engine::{RedisEngine, RedisOptions};
use super::engine_tests::options;
use super::links::{Cell, Durability, LinkFault, RedisUrl};
use super::store::now;
use super::testing::{Cluster, Server, has_redis, wait_until};
use crate::contract::{Kit, Make};
use crate::{EngineError, Feeds as _};
use postrider_model::{FeedId, Position, UserId};
use std::time::Duration;

/// What a publication says, made anew each time.
async fn publish(node: &RedisEngine, id: &str) -> Result<(), EngineError> {
    let publication = Make::new(id).user("ada").publication(Kit::BEGIN);
    let mut said = node.publish(vec![publication]).await;
    said.remove(0).map(drop)
}

async fn open(server: &Server, durability: Durability) -> RedisEngine {
    open_at(server.url(), durability).await
}

async fn open_at(url: RedisUrl, durability: Durability) -> RedisEngine {
    let options = RedisOptions {
        durability,
        ..options(url)
    };
    RedisEngine::open(options).await.unwrap()
}

fn becomes_so(what: &str, is_so: impl FnMut() -> bool) {
    tokio::task::block_in_place(|| wait_until(what, is_so));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_chosen_has_to_hold_while_a_node_runs() {
    if !has_redis("settings that are changed while a node runs") {
        return;
    }
    let table = [
        (Durability::Aof, "appendfsync everysec", "appendfsync always"),
        (Durability::Aof, "appendonly no", "appendonly yes"),
        (
            Durability::None,
            "maxmemory-policy allkeys-lru",
            "maxmemory-policy noeviction",
        ),
    ];
    // Each waits for looks that are seconds apart: side by side, each on a server of its own.
    let servers = table.map(|_| Server::start());
    let mut nodes = Vec::new();
    for ((durability, bad, _), server) in table.iter().zip(&servers) {
        let node = open(server, *durability).await;
        publish(&node, "before").await.unwrap();
        assert_eq!(node.trouble(), None);
        server.ask_line(&format!("CONFIG SET {bad}"));
        nodes.push(node);
    }
    for ((_, bad, good), (node, server)) in table.iter().zip(nodes.iter().zip(&servers)) {
        becomes_so("the node sees it", || node.trouble().is_some());
        let refused = publish(node, "while").await;
        let (_, value) = bad.split_once(' ').unwrap();
        let is_precise = matches!(&refused, Err(EngineError::Unready(why)) if why.contains(value));
        assert!(is_precise, "{bad}: {refused:?}");
        // What is only looked at goes on, and a repeated one is not answered as safe.
        assert!(!node.is_failing());
        assert!(publish(node, "before").await.is_err());
        server.ask_line(&format!("CONFIG SET {good}"));
    }
    for node in nodes {
        becomes_so("the node sees that it is mended", || node.trouble().is_none());
        publish(&node, "after").await.unwrap();
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_away_says_nothing_of_the_settings_of_others() {
    if !has_redis("settings in a Cluster of which a part is away") {
        return;
    }
    let cluster = Cluster::start();
    let node = open_at(cluster.url(), Durability::None).await;
    cluster.masters[2].pause();
    cluster.masters[0].ask_line("CONFIG SET maxmemory-policy allkeys-lru");
    becomes_so(
        "the node sees it",
        || matches!(node.trouble(), Some(Trouble::Unsafe(why)) if why.contains("allkeys-lru")),
    );
    cluster.masters[0].ask_line("CONFIG SET maxmemory-policy noeviction");
    becomes_so("the node sees that it is mended", || node.trouble().is_none());
    cluster.masters[2].resume();
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_away_keeps_nothing_full() {
    if !has_redis("a Cluster that was full, of which a part is away") {
        return;
    }
    let cluster = Cluster::start();
    let node = open_at(cluster.url(), Durability::None).await;
    let full = LinkFault::Refused {
        code: "OOM".into(),
        detail: "command not allowed".into(),
    };
    cluster.masters[2].pause();
    node.store().unwrap().note_state(&full);
    assert!(matches!(node.trouble(), Some(Trouble::Full(_))));
    // Without the third none of a Cluster's masters takes anything.
    cluster.masters[0].ask_line("CONFIG SET cluster-require-full-coverage no");
    cluster.masters[1].ask_line("CONFIG SET cluster-require-full-coverage no");
    becomes_so("the others take something", || node.trouble().is_none());
    cluster.masters[2].resume();
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_looked_at_however_often_another_server_is_met() {
    if !has_redis("settings beside one failover after the other") {
        return;
    }
    let server = Server::start();
    let node = open(&server, Durability::None).await;
    server.ask_line("CONFIG SET maxmemory-policy allkeys-lru");
    becomes_so("the node sees it", || {
        node.store().unwrap().inner.another.notify_one();
        node.trouble().is_some()
    });
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_those_who_ask_at_a_time_who_the_servers_are_one_asks_for_all() {
    if !has_redis("servers that many want to meet") {
        return;
    }
    let server = Server::start();
    let node = open(&server, Durability::None).await;
    let store = node.store().unwrap();
    let asked = || {
        let said = format!("{:?}", server.ask_line("INFO commandstats"));
        let calls = said.split("cmdstat_fcall_ro:calls=").nth(1).unwrap();
        calls.split(',').next().unwrap().parse::<usize>().unwrap()
    };
    let before = asked();
    let met = futures_util::future::join_all((0..50).map(|_| store.meet_all())).await;
    assert!(met.iter().all(Result::is_ok));
    // The first began before the others came, and the second asks for all of them; each asks every cell. Beside them the
    // node looks around each second, however long they take here. One for each would be 50.
    let count = asked() - before;
    assert!(count < 10 * 64, "{count}");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_as_another_is_looked_at_before_anything_is_written_to_it() {
    if !has_redis("settings after a restart") {
        return;
    }
    let mut server = Server::start();
    let node = open(&server, Durability::Aof).await;
    publish(&node, "before").await.unwrap();
    // Nothing of it is in a file: the server starts with what it was started with, which is changed before the node asks.
    tokio::task::block_in_place(|| {
        server.kill();
        server.restart_with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    });
    let refused = publish(&node, "after").await;
    assert!(
        matches!(&refused, Err(EngineError::Unready(why)) if why.contains("everysec")),
        "{refused:?}"
    );
    assert!(matches!(node.trouble(), Some(Trouble::Unsafe(_))));
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_settings_may_not_be_read_a_node_goes_on_as_it_started() {
    if !has_redis("settings that may not be read") {
        return;
    }
    let server = Server::start_with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "everysec",
        "--rename-command",
        "CONFIG",
        "",
    ]);
    let node = open(&server, Durability::Aof).await;
    publish(&node, "one").await.unwrap();
    assert_eq!(node.trouble(), None);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_is_full_until_it_takes_something() {
    if !has_redis("a Redis that is full") {
        return;
    }
    let server = Server::start();
    let node = open(&server, Durability::None).await;
    publish(&node, "before").await.unwrap();
    server.ask_line("CONFIG SET maxmemory 1");
    let refused = publish(&node, "while").await;
    assert!(
        matches!(&refused, Err(EngineError::Unready(why)) if why.contains("maxmemory")),
        "{refused:?}"
    );
    // Nobody publishes to a node that is not ready, and what it does by itself writes nothing, or frees something.
    let begun = now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert!(
            matches!(node.trouble(), Some(Trouble::Full(_))),
            "after {:?}",
            begun.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A node can begin meanwhile, and has nothing to say before it was refused something.
    let other = open(&server, Durability::None).await;
    assert_eq!(other.trouble(), None);
    server.ask_line("CONFIG SET maxmemory 0");
    becomes_so("it takes something again", || node.trouble().is_none());
    publish(&node, "while").await.unwrap();
    node.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_emptied_is_numbered_in_another_epoch_from_its_first_entry() {
    if !has_redis("a Redis that is emptied while nodes run") {
        return;
    }
    let server = Server::start();
    let nodes = [
        open(&server, Durability::None).await,
        open(&server, Durability::None).await,
    ];
    let feed = [FeedId::User(UserId::new("ada").unwrap())];
    let mut epochs = vec![];
    for (n, node) in [&nodes[0], &nodes[1], &nodes[0], &nodes[1]]
        .into_iter()
        .enumerate()
    {
        publish(node, &format!("first-{n}")).await.unwrap();
        let head = node.spans(&feed).await.unwrap()[0].head;
        assert_eq!(head.offset, 1);
        assert!(!epochs.contains(&head.epoch), "{head:?} in {epochs:?}");
        epochs.push(head.epoch);
        // What was seen before is not there, though its offset is.
        publish(node, &format!("second-{n}")).await.unwrap();
        let places: Vec<_> = epochs
            .iter()
            .map(|epoch| {
                (
                    feed[0].clone(),
                    Position {
                        epoch: *epoch,
                        offset: 1,
                    },
                )
            })
            .collect();
        let held = node.holds(&places).await.unwrap();
        assert_eq!(held.iter().filter(|held| **held).count(), 1, "{held:?}");
        assert_eq!(held.last(), Some(&true));
        server.ask_line("FLUSHDB");
    }
    for node in nodes {
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_emptied_is_numbered_in_another_epoch() {
    if !has_redis("a Cluster that is emptied while nodes run") {
        return;
    }
    let cluster = Cluster::start();
    let nodes = [
        open_at(cluster.url(), Durability::None).await,
        open_at(cluster.url(), Durability::None).await,
    ];
    let epochs = || [&nodes[0], &nodes[1]].map(|node| node.store().unwrap().look().tokens().epoch());
    let mut before = epochs();
    assert_eq!(before[0], before[1]);
    // All of it, or one master.
    for emptied in [0..3, 1..2] {
        let id = format!("after-{emptied:?}");
        for master in emptied {
            cluster.masters[master].ask_line("FLUSHALL");
        }
        becomes_so("both see it, and agree", || {
            let [a, b] = epochs();
            a == b && a != before[0]
        });
        // They may agree before they have seen the last of it.
        for node in &nodes {
            node.store().unwrap().meet_all().await.unwrap();
        }
        before = epochs();
        assert_eq!(before[0], before[1]);
        publish(&nodes[0], &id).await.unwrap();
    }
    // Nothing else is a reason for another: not who comes, nor who looks again, nor a slot of which a part has moved.
    let third = open_at(cluster.url(), Durability::None).await;
    let moved = Cell::all().find(|cell| cell.slot() < 5_000).unwrap();
    let mark = String::from_utf8(moved.key("mark")).unwrap();
    cluster.begin_move(moved.slot(), 0, 2);
    for is_at_the_other in [false, true] {
        for node in nodes.iter().chain([&third]) {
            let store = node.store().unwrap();
            store.look_around().await.unwrap();
            store.meet_all().await.unwrap();
            assert_eq!(store.look().tokens().epoch(), before[0], "{is_at_the_other}");
        }
        if !is_at_the_other {
            cluster.move_key(&mark, 0, 2);
        }
    }
    for node in nodes.into_iter().chain([third]) {
        node.close().await;
    }
}
