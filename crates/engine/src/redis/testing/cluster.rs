//! A Cluster of three masters, with a replica each where a test fails them over.

use super::server::Server;
use super::{port, wait_until};
use crate::redis::links::RedisUrl;
use redis::Value;

const SLOTS: usize = 16_384;
const MASTERS: usize = 3;

#[derive(Debug)]
pub(crate) struct Cluster {
    /// The masters, by rising slots.
    pub(crate) masters: Vec<Server>,
    /// Their replicas, in the same order; empty where none were asked for.
    pub(crate) replicas: Vec<Server>,
}

impl Cluster {
    /// Three masters that share the slots evenly.
    pub(crate) fn start() -> Cluster {
        Cluster::start_of(0)
    }

    /// Three masters and a replica of each.
    pub(crate) fn start_with_replicas() -> Cluster {
        Cluster::start_of(MASTERS)
    }

    fn start_of(replicas: usize) -> Cluster {
        let mut nodes: Vec<(Server, u16)> = (0..MASTERS + replicas).map(|_| node()).collect();
        for (at, (master, _)) in nodes.iter().take(MASTERS).enumerate() {
            let (first, end) = (at * SLOTS / MASTERS, (at + 1) * SLOTS / MASTERS);
            master.ask_line(&format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1));
        }
        for (at, (node, _)) in nodes.iter().enumerate() {
            node.ask_line(&format!("CLUSTER SET-CONFIG-EPOCH {}", at + 1));
            let (met, bus) = &nodes[0];
            node.ask_line(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", met.port()));
        }
        wait_until("every node knows every node", || {
            nodes
                .iter()
                .all(|(node, _)| count(node, "cluster_known_nodes:") == nodes.len())
        });
        let ids: Vec<String> = nodes
            .iter()
            .map(|(node, _)| text(&node.ask_line("CLUSTER MYID")))
            .collect();
        for (at, (replica, _)) in nodes.iter().enumerate().skip(MASTERS) {
            let master = &ids[at - MASTERS];
            wait_until("a replica is taken", || {
                replica.ask_line(&format!("CLUSTER REPLICATE {master}")) == Value::Okay
            });
            wait_until("a replica follows", || {
                text(&replica.ask_line("INFO replication")).contains("master_link_status:up")
            });
        }
        wait_until("the Cluster is up", || {
            nodes
                .iter()
                .all(|(node, _)| text(&node.ask_line("CLUSTER INFO")).contains("cluster_state:ok"))
        });
        let replicas = nodes
            .split_off(MASTERS)
            .into_iter()
            .map(|(node, _)| node)
            .collect();
        Cluster {
            masters: nodes.into_iter().map(|(node, _)| node).collect(),
            replicas,
        }
    }

    pub(crate) fn url(&self) -> RedisUrl {
        let hosts: Vec<String> = self
            .masters
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
            .parse()
            .expect("a well-formed address")
    }

    /// Moves a slot that holds few keys from one master to another.
    pub(crate) fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_move(slot, from, to);
        let keys = self.masters[from].ask_line(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
        for key in keys.as_sequence().into_iter().flatten() {
            self.move_key(&text(key), from, to);
        }
        let id = text(&self.masters[to].ask_line("CLUSTER MYID"));
        for node in [to, from] {
            let told = self.masters[node].ask_line(&format!("CLUSTER SETSLOT {slot} NODE {id}"));
            assert_eq!(told, Value::Okay);
        }
    }

    /// From now on keys of the slot may lie on either of them.
    pub(crate) fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let [old, new] = [from, to].map(|node| text(&self.masters[node].ask_line("CLUSTER MYID")));
        for (node, way) in [
            (to, format!("IMPORTING {old}")),
            (from, format!("MIGRATING {new}")),
        ] {
            self.masters[node].ask_line(&format!("CLUSTER SETSLOT {slot} {way}"));
        }
    }

    pub(crate) fn move_key(&self, key: &str, from: usize, to: usize) {
        let port = self.masters[to].port();
        let moved = self.masters[from].ask_line(&format!("MIGRATE 127.0.0.1 {port} {key} 0 5000"));
        assert_eq!(moved, Value::Okay);
    }
}

fn node() -> (Server, u16) {
    let bus = port::free();
    let arguments = [
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "2000",
        "--appendonly",
        "yes",
        // Where a master is killed nothing that it answered may be lost: with `everysec` a busy disk puts writing off.
        "--appendfsync",
        "always",
        "--repl-diskless-sync-delay",
        "0",
        "--cluster-port",
    ];
    let bus_text = bus.to_string();
    let arguments: Vec<&str> = arguments.into_iter().chain([bus_text.as_str()]).collect();
    (Server::start_with(&arguments), bus)
}

/// A number of `CLUSTER INFO`.
fn count(node: &Server, name: &str) -> usize {
    let info = text(&node.ask_line("CLUSTER INFO"));
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("not a text: {other:?}"),
    }
}
