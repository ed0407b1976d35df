//! The engine over Redis under the contract, on each kind of Redis. What a restart is to a case is a kill of the servers
//! here, and a failover where Sentinels watch them.
//!
//! Invariant: one contract at a time has the machine. Sentinels and a Cluster that are kept from running take each other
//! for dead.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test: it starts servers")]

use anyhow::Result;
use async_trait::async_trait;
use postrider_engine::contract::{Instance, Subject, run};
use postrider_engine::redis::links::{Durability, TlsOptions};
use postrider_engine::redis::{RedisEngine, RedisOptions};
use postrider_engine::{Engine, Rules};
use postrider_harness::machine::{self, Need};
use postrider_harness::redis::{Client, Cluster, Replicated, Server, ServerOptions};
use postrider_model::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A Redis of the test's own.
enum Servers {
    Single(Server),
    Replicated(Replicated),
    Cluster(Cluster),
}

impl Servers {
    fn url(&self) -> String {
        match self {
            Servers::Single(server) => server.url(),
            Servers::Replicated(all) => all.url(),
            Servers::Cluster(cluster) => cluster.url(),
        }
    }

    /// Forgets all rows.
    fn flush(&mut self) -> Result<()> {
        let masters = match self {
            Servers::Single(server) => vec![server.addr()],
            Servers::Replicated(all) => vec![all.master_addr()?],
            Servers::Cluster(cluster) => cluster.masters()?,
        };
        for master in masters {
            Client::connect(master)?.must(&["FLUSHALL"])?;
        }
        Ok(())
    }

    /// Kills them and starts them again over their files; where Sentinels watch them, another takes over.
    fn restart(&mut self) -> Result<()> {
        match self {
            Servers::Single(server) => {
                server.kill9()?;
                server.restart()
            }
            Servers::Replicated(all) => {
                all.move_master()?;
                all.heal()
            }
            Servers::Cluster(cluster) => {
                for shard in 0..cluster.masters()?.len() {
                    let master = cluster.master(shard)?;
                    master.kill9()?;
                    master.restart()?;
                }
                cluster.heal()
            }
        }
    }

    fn durability(&self) -> Durability {
        match self {
            // So that the one that takes over has what was answered.
            Servers::Replicated(_) => Durability::Replicas(1),
            Servers::Single(_) | Servers::Cluster(_) => Durability::None,
        }
    }
}

/// One node with a clock that is set by hand.
struct OneNode {
    servers: Arc<Mutex<Servers>>,
    clock: Arc<AtomicU64>,
    rules: Rules,
    engine: Option<Arc<RedisEngine>>,
}

impl OneNode {
    async fn start(&mut self) {
        let (url, durability) = {
            let servers = locked(&self.servers);
            (servers.url(), servers.durability())
        };
        let clock = self.clock.clone();
        let options = RedisOptions {
            url: url.parse().unwrap(),
            tls: TlsOptions::default(),
            timeout: Duration::from_secs(5),
            durability,
            patience: Duration::from_secs(10),
            rules: self.rules.clone(),
            clock: Arc::new(move || Timestamp(clock.load(Ordering::SeqCst))),
            on_commit: Box::new(|_, _| {}),
        };
        self.engine = Some(Arc::new(RedisEngine::open(options).await.unwrap()));
    }

    fn node(&self) -> &Arc<RedisEngine> {
        self.engine.as_ref().unwrap()
    }
}

fn locked(servers: &Mutex<Servers>) -> MutexGuard<'_, Servers> {
    servers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Instance for OneNode {
    fn engine(&self) -> Arc<dyn Engine> {
        self.node().clone()
    }
    fn set_time(&self, now: Timestamp) {
        self.clock.store(now.0, Ordering::SeqCst);
    }
    async fn tick(&self) {
        self.node().tick().await.unwrap();
    }
    async fn restart(&mut self) -> bool {
        self.close().await;
        self.engine = None;
        let servers = self.servers.clone();
        tokio::task::block_in_place(move || locked(&servers).restart()).unwrap();
        self.start().await;
        true
    }
    async fn close(&self) {
        self.node().close().await;
    }
}

/// The same servers for all cases; what a case left is flushed.
struct OneAfterTheOther(Arc<Mutex<Servers>>);

#[async_trait]
impl Subject for OneAfterTheOther {
    async fn open(&self, now: Timestamp, rules: Rules) -> Box<dyn Instance> {
        tokio::task::block_in_place(|| locked(&self.0).flush()).unwrap();
        let mut node = OneNode {
            servers: self.0.clone(),
            clock: Arc::new(AtomicU64::new(now.0)),
            rules,
            engine: None,
        };
        node.start().await;
        Box::new(node)
    }
}

fn the_contract(test: &str, start: impl FnOnce() -> Result<Servers>) -> Result<()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    machine::run(test, &[Need::Redis], || {
        // A test that failed has told so itself.
        let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        let subject = OneAfterTheOther(Arc::new(Mutex::new(start()?)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let ended = runtime.block_on(run(&subject));
        ended.map(drop).map_err(anyhow::Error::msg)
    })
}

#[test]
fn on_a_single_server() -> Result<()> {
    the_contract("the contract on a single server", || {
        Ok(Servers::Single(Server::start(ServerOptions::default())?))
    })
}

#[test]
fn with_sentinels() -> Result<()> {
    the_contract("the contract with Sentinels", || {
        let all = Replicated::start(ServerOptions::default())?;
        all.hurry()?;
        Ok(Servers::Replicated(all))
    })
}

#[test]
fn on_a_cluster() -> Result<()> {
    the_contract("the contract on a Cluster", || {
        // A master that is killed comes back itself: nothing waits for replicas, so that one would have less.
        let options = ServerOptions::default().with("cluster-replica-no-failover", "yes");
        Ok(Servers::Cluster(Cluster::start(options)?))
    })
}
