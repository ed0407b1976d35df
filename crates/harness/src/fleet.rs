//! Several nodes over one Redis, as behind a load balancer.
//!
//! Invariant: the nodes differ in nothing but their ports and their (unused) data directories, and share nothing but
//! Redis. Where the Redis is one server, each node speaks to it through a [`Proxy`] of its own, or over a link of its own.
//!
//! It does not balance: a client takes any of [`Fleet::endpoints`].

use std::net::SocketAddr;

use anyhow::Result;

use crate::node::{Endpoint, Node, NodeOptions};
use crate::proxy::Proxy;

/// How long the nodes wait for Redis: as long as `engine.redis.patience`, which it must not exceed.
const PATIENT: &str = "10s";
/// What a node has by itself, for who has Redis say nothing.
pub const AS_IT_COMES: (&str, &str) = ("engine.redis.timeout", "5s");
/// How much of each log is shown.
const LOG_LINES: usize = 12;
const LOG_LINE: usize = 400;

/// The nodes.
pub struct Fleet {
    /// In the order of their start.
    pub nodes: Vec<Node>,
    /// The bad network before each; empty where Redis is more than one server.
    pub proxies: Vec<Proxy>,
}

impl Fleet {
    /// So many nodes over the Redis at a URL.
    pub fn start(count: usize, url: &str, sets: &[(&str, &str)]) -> Result<Fleet> {
        let nodes = (0..count).map(|_| node(url, sets)).collect::<Result<_>>()?;
        Ok(Fleet {
            nodes,
            proxies: Vec::new(),
        })
    }

    /// So many nodes over one server, each with a proxy between.
    pub fn behind_proxies(count: usize, redis: SocketAddr, sets: &[(&str, &str)]) -> Result<Fleet> {
        let mut fleet = Fleet {
            nodes: Vec::new(),
            proxies: Vec::new(),
        };
        for _ in 0..count {
            let proxy = Proxy::start(&[redis])?;
            fleet
                .nodes
                .push(node(&format!("redis://{}", proxy.addr()), sets)?);
            fleet.proxies.push(proxy);
        }
        Ok(fleet)
    }

    /// A node for each of these URLs, which lead to the same Redis by different ways.
    pub fn by_ways(urls: &[String], sets: &[(&str, &str)]) -> Result<Fleet> {
        let nodes = urls.iter().map(|url| node(url, sets)).collect::<Result<_>>()?;
        Ok(Fleet {
            nodes,
            proxies: Vec::new(),
        })
    }

    /// The ends of what the nodes logged, for whoever has to find out what went wrong.
    pub fn log_ends(&self) -> String {
        let mut text = String::new();
        for (nth, node) in self.nodes.iter().enumerate() {
            let log = node.log();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("\"INFO\"")).collect();
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                let end = line.floor_char_boundary(LOG_LINE);
                text.push_str(&format!("\n  node {nth}: {}", &line[..end]));
            }
        }
        text
    }

    /// Where the nodes are, now and after every restart.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.nodes.iter().map(|node| node.endpoint.clone()).collect()
    }
}

fn node(url: &str, sets: &[(&str, &str)]) -> Result<Node> {
    let engine = [
        ("engine.type", "redis"),
        ("engine.redis.url", url),
        // A machine that stands still for some seconds is no Redis that is away; who makes one be away says otherwise.
        ("engine.redis.timeout", PATIENT),
    ];
    Node::start_with(NodeOptions::sets(&[&engine, sets].concat()))
}
