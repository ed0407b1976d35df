//! A master, its replica, and three Sentinels that watch them.
//!
//! Invariant: when [`Replicated::start`] or [`Replicated::heal`] returns, the replica is in step, all Sentinels know each
//! other, and each has heard from the replica itself that it is one, so that a failover can begin at once. A Sentinel
//! that has not heard so takes what a failover promotes for a master of before that came back, and makes it a replica
//! again: the failover is given up, and nobody is told.
//!
//! It does not choose who is the master: the Sentinels do, and [`Replicated::master`] asks them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Answer, Client, PATIENCE, Server, ServerOptions};
use crate::wait::until_true;

/// What the Sentinels call the master.
const NAME: &str = "postrider";
const SENTINELS: usize = 3;
/// How long a failover may take, with one that the Sentinels could not agree upon before it.
const FAILOVER: Duration = Duration::from_secs(40);
/// How long a failover that was asked for may take before it is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(6);
/// How often hurried Sentinels look, where others look every one to ten seconds, in milliseconds. One that is no replica
/// though it should be is made one after four times `publish-period`: longer than it takes to tell all of a failover.
const HURRIED: [(&str, &str); 3] = [
    ("info-period", "200"),
    ("ping-period", "200"),
    ("publish-period", "500"),
];

/// Two servers and their Sentinels.
pub struct Replicated {
    servers: [Server; 2],
    sentinels: Vec<Server>,
}

impl Replicated {
    /// Starts them; the first server is the master.
    pub fn start(options: ServerOptions) -> Result<Replicated> {
        let first = Server::start(options.clone())?;
        let port = first.addr().port().to_string();
        let second = Server::start(options.with("replicaof", &format!("127.0.0.1 {port}")))?;
        let mut sentinels = Vec::new();
        for _ in 0..SENTINELS {
            sentinels.push(Server::start(ServerOptions {
                sentinel: Some(format!(
                    "sentinel monitor {NAME} 127.0.0.1 {port} 2\n\
                     sentinel down-after-milliseconds {NAME} 1000\n\
                     sentinel failover-timeout {NAME} 3000\n\
                     sentinel parallel-syncs {NAME} 1\n"
                )),
                ..ServerOptions::default()
            })?);
        }
        let all = Replicated {
            servers: [first, second],
            sentinels,
        };
        all.wait_whole()?;
        Ok(all)
    }

    /// Has the Sentinels look several times as often, until they are started again: for a test that fails over often, and
    /// in which it does not matter how soon that is noticed.
    pub fn hurry(&self) -> Result<()> {
        for sentinel in &self.sentinels {
            let mut client = sentinel.client()?;
            for (period, milliseconds) in HURRIED {
                client.must(&["SENTINEL", "DEBUG", period, milliseconds])?;
            }
        }
        Ok(())
    }

    /// `redis+sentinel://…`, as `engine.redis.url` takes it.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|s| s.addr().to_string()).collect();
        format!("redis+sentinel://{}/{NAME}", hosts.join(","))
    }

    /// The Sentinels.
    pub fn sentinels(&mut self) -> &mut [Server] {
        &mut self.sentinels
    }

    /// Both servers, whoever of them is the master.
    pub fn servers(&mut self) -> &mut [Server] {
        &mut self.servers
    }

    /// The address of the master, as most Sentinels have it.
    pub fn master_addr(&self) -> Result<SocketAddr> {
        let mut told = Vec::new();
        for sentinel in &self.sentinels {
            let answer = sentinel
                .client()?
                .must(&["SENTINEL", "get-master-addr-by-name", NAME])?;
            let port = answer.list().get(1).context("no address of a master")?.text();
            told.push(crate::ports::loopback(port.parse()?));
        }
        let most = told
            .iter()
            .max_by_key(|addr| told.iter().filter(|other| other == addr).count());
        most.copied().context("no Sentinel")
    }

    /// The server that the Sentinels take for the master.
    pub fn master(&mut self) -> Result<&mut Server> {
        let addr = self.master_addr()?;
        let found = self.servers.iter_mut().find(|server| server.addr() == addr);
        found.with_context(|| format!("{addr} is none of the servers"))
    }

    /// Has the Sentinels move the master to the replica, with both alive. Returns when it is done.
    pub fn move_master(&mut self) -> Result<()> {
        let before = self.master_addr()?;
        let mut asked = None::<Instant>;
        until_true("the master to be moved", Instant::now() + FAILOVER, || {
            // A Sentinel refuses soon after another failover, and may give one up that it has begun.
            if asked.is_none_or(|asked| asked.elapsed() > ASK_AGAIN) {
                let mut sentinel = self.sentinels[0].client()?;
                let answer = sentinel.ask(&["SENTINEL", "FAILOVER", NAME])?;
                asked = (answer.text() == "OK").then(Instant::now);
            }
            self.has_moved(before)
        })
    }

    /// Kills the master and waits until the other one is it. Returns the address of the one that was killed.
    pub fn fail_over(&mut self) -> Result<SocketAddr> {
        let before = self.master_addr()?;
        self.master()?.kill9()?;
        until_true("another master", Instant::now() + FAILOVER, || {
            self.has_moved(before)
        })?;
        Ok(before)
    }

    /// Starts whoever is down; returns when the replica is in step.
    pub fn heal(&mut self) -> Result<()> {
        for server in self.servers.iter_mut().chain(&mut self.sentinels) {
            if !server.is_running() {
                server.restart()?;
            }
        }
        self.wait_whole()
    }

    /// Whether the Sentinels name another master, and it says itself that it is one.
    fn has_moved(&self, before: SocketAddr) -> Result<bool> {
        let now = self.master_addr()?;
        if now == before {
            return Ok(false);
        }
        let role = Client::connect(now)?.info_value("replication", "role")?;
        Ok(role == "master")
    }

    /// Until the master has its replica in step, and each Sentinel knows the others and the replica.
    fn wait_whole(&self) -> Result<()> {
        until_true(
            "the replica and the Sentinels",
            Instant::now() + PATIENCE * 2,
            || {
                let mut master = Client::connect(self.master_addr()?)?;
                let info = master.info("replication")?;
                let mut whole = info.contains("role:master") && info.contains("state=online");
                for sentinel in &self.sentinels {
                    whole &= knows_all(&mut sentinel.client()?)?;
                }
                Ok(whole)
            },
        )?;
        ensure!(self.servers.iter().all(Server::is_running), "a server is down");
        Ok(())
    }
}

/// Whether a Sentinel knows the others, and has heard from the replica that it is one and has its master.
fn knows_all(sentinel: &mut Client) -> Result<bool> {
    let masters = sentinel.info("sentinel")?;
    let others = masters.contains("status=ok,")
        && masters.contains("slaves=1,")
        && masters.contains(&format!("sentinels={SENTINELS}"));
    let replicas = sentinel.must(&["SENTINEL", "REPLICAS", NAME])?;
    let is_one = |replica: &Answer| {
        let said = |name: &str| {
            let mut pairs = replica.list().chunks_exact(2);
            let pair = pairs.find(|pair| pair[0].text() == name);
            pair.map(|pair| pair[1].text()).unwrap_or_default()
        };
        (said("flags"), said("role-reported"), said("master-link-status"))
            == ("slave".to_owned(), "slave".to_owned(), "ok".to_owned())
    };
    Ok(others && replicas.list().iter().all(is_one))
}
