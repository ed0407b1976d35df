//! A Redis Cluster: three masters, each with a replica.
//!
//! Invariant: when a method returns that made or mended it, every member that runs says `cluster_state:ok`, and each
//! shard has a master.
//!
//! It does not move slots.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Client, PATIENCE, Server, ServerOptions};
use crate::wait::until_true;

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;
/// How long a replica that was told to take over may take before it is told again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The six servers; those of a shard stand [`MASTERS`] apart.
pub struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    /// Starts the servers and makes them one Cluster; the first three are the masters.
    pub fn start(options: ServerOptions) -> Result<Cluster> {
        let options = ServerOptions {
            is_clustered: true,
            ..options.with("cluster-node-timeout", "2000")
        };
        let servers = (0..MASTERS * 2)
            .map(|_| Server::start(options.clone()))
            .collect::<Result<Vec<_>>>()?;
        let cluster = Cluster { servers };
        cluster.assign_slots()?;
        cluster.meet()?;
        cluster.attach_replicas()?;
        cluster.wait_ok()?;
        cluster.wait_replicas()?;
        Ok(cluster)
    }

    /// `redis+cluster://…`, as `engine.redis.url` takes it.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.servers.iter().map(|s| s.addr().to_string()).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// All servers.
    pub fn servers(&mut self) -> &mut [Server] {
        &mut self.servers
    }

    /// The master of a shard, 0 to 2, at this moment.
    pub fn master(&mut self, shard: usize) -> Result<&mut Server> {
        let at = self.master_at(shard)?;
        Ok(&mut self.servers[at])
    }

    /// The addresses of the masters, by shard.
    pub fn masters(&self) -> Result<Vec<SocketAddr>> {
        (0..MASTERS)
            .map(|shard| Ok(self.servers[self.master_at(shard)?].addr()))
            .collect()
    }

    /// Kills the master of a shard and waits until its replica has taken over.
    pub fn fail_over(&mut self, shard: usize) -> Result<()> {
        let at = self.master_at(shard)?;
        self.servers[at].kill9()?;
        let other = self.twin(at);
        until_true("a replica to take over", Instant::now() + PATIENCE, || {
            self.is_master(other)
        })?;
        self.wait_ok()
    }

    /// Has the replica of a shard take over from a living master, without loss.
    pub fn move_master(&mut self, shard: usize) -> Result<()> {
        let other = self.twin(self.master_at(shard)?);
        let mut asked = None::<Instant>;
        until_true("a replica to take over", Instant::now() + PATIENCE, || {
            // Soon after another failover of a shard the masters do not vote for one, and a replica refuses while it has
            // not heard from its master for a while: it is asked for again.
            if asked.is_none_or(|asked| asked.elapsed() > ASK_AGAIN) {
                let answer = self.servers[other].client()?.ask(&["CLUSTER", "FAILOVER"])?;
                asked = (answer.text() == "OK").then(Instant::now);
            }
            self.is_master(other)
        })?;
        self.wait_ok()
    }

    /// Starts whoever is down; returns when all is well and every replica is in step.
    pub fn heal(&mut self) -> Result<()> {
        for server in self.servers.iter_mut().filter(|server| !server.is_running()) {
            server.restart()?;
        }
        self.wait_ok()?;
        self.wait_replicas()
    }

    fn twin(&self, at: usize) -> usize {
        (at + MASTERS) % (MASTERS * 2)
    }

    fn master_at(&self, shard: usize) -> Result<usize> {
        let pair = [shard, self.twin(shard)];
        let running = pair.into_iter().filter(|&at| self.servers[at].is_running());
        for at in running {
            if self.is_master(at)? {
                return Ok(at);
            }
        }
        None.with_context(|| format!("shard {shard} has no master"))
    }

    fn is_master(&self, at: usize) -> Result<bool> {
        let role = self.servers[at].client()?.info_value("replication", "role")?;
        Ok(role == "master")
    }

    fn assign_slots(&self) -> Result<()> {
        for (nth, server) in self.servers.iter().take(MASTERS).enumerate() {
            let from = SLOTS * nth / MASTERS;
            let to = SLOTS * (nth + 1) / MASTERS - 1;
            let epoch = (nth + 1).to_string();
            let mut client = server.client()?;
            client.must(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()])?;
            client.must(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])?;
        }
        Ok(())
    }

    /// Introduces all to the first, and waits until all know all.
    fn meet(&self) -> Result<()> {
        let mut first = self.servers[0].client()?;
        for server in &self.servers[1..] {
            let (port, bus) = (server.addr().port().to_string(), server.bus_port().to_string());
            first.must(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
        }
        self.until_all("members to know each other", |client| {
            let nodes = client.must(&["CLUSTER", "NODES"])?.text();
            Ok(nodes.lines().count() == MASTERS * 2 && !nodes.contains("handshake"))
        })
    }

    fn attach_replicas(&self) -> Result<()> {
        for at in MASTERS..MASTERS * 2 {
            let master = self.servers[self.twin(at)]
                .client()?
                .must(&["CLUSTER", "MYID"])?
                .text();
            self.servers[at]
                .client()?
                .must(&["CLUSTER", "REPLICATE", &master])?;
        }
        Ok(())
    }

    fn wait_ok(&self) -> Result<()> {
        self.until_all("the Cluster to be well", |client| {
            let info = client.must(&["CLUSTER", "INFO"])?.text();
            Ok(info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384"))
        })
    }

    fn wait_replicas(&self) -> Result<()> {
        self.until_all("replicas to be in step", |client| {
            let info = client.info("replication")?;
            let well = if info.contains("role:master") {
                "state=online"
            } else {
                "master_link_status:up"
            };
            Ok(info.contains(well))
        })
    }

    /// Until it holds of every server that runs.
    fn until_all(&self, what: &str, holds: impl Fn(&mut Client) -> Result<bool>) -> Result<()> {
        until_true(what, Instant::now() + PATIENCE * 2, || {
            for server in self.servers.iter().filter(|server| server.is_running()) {
                if !holds(&mut server.client()?)? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}
