//! The Redis below a fleet in each of its shapes, with what can happen to it.
//!
//! Invariant: after [`Site::heal`] every server of the site runs and is in step, and no weather is left.
//!
//! It does not choose what happens: the siege does.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use postrider_harness::fleet::Fleet;
use postrider_harness::network::Network;
use postrider_harness::redis::{Client, Cluster, Fsync, Replicated, Server, ServerOptions};

/// How many nodes are over it.
pub const NODES: usize = 3;

/// The shapes in which Redis is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One server that writes to its disk before it answers.
    Single,
    /// A master and a replica under Sentinels; a node answers when the replica has it, too.
    Sentinel,
    /// The same, but a node answers without waiting for the replica, so that a failover may lose the last of it.
    Careless,
    /// Three masters, each with a replica that has to have it.
    Cluster,
    /// One server as [`Shape::Single`], to which each node has a link of the kernel's own; where the machine allows that.
    Linked,
}

impl Shape {
    /// Those that need nothing but `redis-server`.
    pub const EVERYWHERE: [Shape; 4] = [Shape::Single, Shape::Cluster, Shape::Sentinel, Shape::Careless];
    pub const ALL: [Shape; 5] = [
        Shape::Single,
        Shape::Cluster,
        Shape::Sentinel,
        Shape::Careless,
        Shape::Linked,
    ];

    /// `engine.redis.durability`.
    pub fn durability(self) -> &'static str {
        match self {
            Shape::Single | Shape::Linked => "aof",
            Shape::Careless => "none",
            Shape::Sentinel | Shape::Cluster => "wait:1",
        }
    }

    /// Whether a session may see its feed fall back, by a failover to a replica that lags behind.
    pub fn may_lose_tail(self) -> bool {
        !matches!(self, Shape::Single | Shape::Linked)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shape::Single => "single",
            Shape::Sentinel => "sentinel",
            Shape::Careless => "careless",
            Shape::Cluster => "cluster",
            Shape::Linked => "linked",
        })
    }
}

impl FromStr for Shape {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Shape> {
        match Shape::ALL.into_iter().find(|shape| shape.to_string() == text) {
            Some(shape) => Ok(shape),
            None => bail!("no shape {text}"),
        }
    }
}

/// A Redis of one of the shapes.
pub enum Site {
    Single(Server),
    Replicated(Replicated),
    Cluster(Cluster),
    /// The server, and a link for each node, with one more for the test itself.
    Linked(Server, Network),
}

impl Site {
    pub fn start(shape: Shape) -> Result<Site> {
        let options = ServerOptions::fsync(match shape {
            Shape::Single | Shape::Linked => Fsync::Always,
            _ => Fsync::EverySecond,
        });
        Ok(match shape {
            Shape::Single => Site::Single(Server::start(options)?),
            Shape::Sentinel | Shape::Careless => Site::Replicated(Replicated::start(options)?),
            Shape::Cluster => Site::Cluster(Cluster::start(options)?),
            Shape::Linked => {
                let network = Network::new(NODES + 1)?;
                let within = Some((network.namespace().to_owned(), network.far_end(NODES)));
                Site::Linked(Server::start(ServerOptions { within, ..options })?, network)
            }
        })
    }

    /// A fleet over it; where it is one server, with proxies or links between.
    pub fn fleet(&self, count: usize, sets: &[(&str, &str)]) -> Result<Fleet> {
        match self {
            Site::Single(server) => Fleet::behind_proxies(count, server.addr(), sets),
            Site::Replicated(all) => Fleet::start(count, &all.url(), sets),
            Site::Cluster(cluster) => Fleet::start(count, &cluster.url(), sets),
            Site::Linked(server, network) => {
                let port = server.addr().port();
                let url = |link| format!("redis://{}:{port}", network.far_end(link));
                Fleet::by_ways(&(0..count).map(url).collect::<Vec<_>>(), sets)
            }
        }
    }

    /// A connection to each master.
    pub fn masters(&mut self) -> Result<Vec<Client>> {
        match self {
            Site::Single(server) | Site::Linked(server, _) => Ok(vec![server.client()?]),
            Site::Replicated(all) => Ok(vec![all.master()?.client()?]),
            Site::Cluster(cluster) => cluster.masters()?.into_iter().map(Client::connect).collect(),
        }
    }

    /// A master: of a Cluster the one of this shard.
    pub fn master(&mut self, shard: usize) -> Result<&mut Server> {
        match self {
            Site::Single(server) | Site::Linked(server, _) => Ok(server),
            Site::Replicated(all) => all.master(),
            Site::Cluster(cluster) => cluster.master(shard),
        }
    }

    /// Kills a master; returns when another one has taken over.
    pub fn fail_over(&mut self, shard: usize) -> Result<()> {
        match self {
            Site::Single(_) | Site::Linked(..) => bail!("there is nobody to take over"),
            Site::Replicated(all) => all.fail_over().map(drop),
            Site::Cluster(cluster) => cluster.fail_over(shard),
        }
    }

    /// Has a replica take over from a living master.
    pub fn move_master(&mut self, shard: usize) -> Result<()> {
        match self {
            Site::Single(_) | Site::Linked(..) => bail!("there is nobody to take over"),
            Site::Replicated(all) => all.move_master(),
            Site::Cluster(cluster) => cluster.move_master(shard),
        }
    }

    /// The links, where each node has one.
    pub fn network(&self) -> Option<&Network> {
        match self {
            Site::Linked(_, network) => Some(network),
            _ => None,
        }
    }

    /// Mends the links and starts whoever is down; returns when all are in step.
    pub fn heal(&mut self) -> Result<()> {
        if let Site::Linked(_, network) = self {
            network.clear()?;
        }
        match self {
            Site::Single(server) | Site::Linked(server, _) if server.is_running() => Ok(()),
            Site::Single(server) | Site::Linked(server, _) => server.restart(),
            Site::Replicated(all) => all.heal(),
            Site::Cluster(cluster) => cluster.heal(),
        }
    }
}

#[test]
fn shapes_have_names() -> Result<()> {
    for shape in Shape::ALL {
        ensure!(shape.to_string().parse::<Shape>()? == shape);
    }
    Ok(())
}
