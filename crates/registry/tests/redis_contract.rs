//! The table in Redis under the contract, over each shape of it, read as a producer reads it.

#![cfg(feature = "redis")]
#![allow(missing_docs, clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test: it starts servers and reads clocks"
)]

mod setting;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use postrider_harness::machine::{self, Need};
use postrider_harness::redis::{Answer, Client, Cluster, Fsync, Replicated, Server, ServerOptions};
use postrider_harness::wait::{until_true, within};
use postrider_model::{Millis, Timestamp};
use postrider_registry::contract::{Subject, check};
use postrider_registry::redis::{Options, Redis, RedisAddress};
use postrider_registry::{Registry, RegistryFault};
use setting::{runtime, users, writes_late};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const KEY: &str = "notifier_instances";

fn options(url: &str, instance: &str, lease: Millis) -> Options {
    let start = std::time::Instant::now();
    Options {
        address: RedisAddress::parse(url).unwrap(),
        key: KEY.parse().unwrap(),
        instance: instance.into(),
        lease,
        steady: Arc::new(move || Timestamp(start.elapsed().as_millis() as u64)),
    }
}

/// A Redis of some shape.
trait Shape: Send {
    fn url(&self) -> String;
    /// Where commands about the hash go.
    fn masters(&self) -> Result<Vec<SocketAddr>>;
    fn stop(&mut self) -> Result<()>;
    fn restart(&mut self) -> Result<()>;
}

impl Shape for Server {
    fn url(&self) -> String {
        Server::url(self)
    }
    fn masters(&self) -> Result<Vec<SocketAddr>> {
        Ok(vec![self.addr()])
    }
    fn stop(&mut self) -> Result<()> {
        Server::stop(self)
    }
    fn restart(&mut self) -> Result<()> {
        Server::restart(self)
    }
}

impl Shape for Replicated {
    fn url(&self) -> String {
        Replicated::url(self)
    }
    fn masters(&self) -> Result<Vec<SocketAddr>> {
        Ok(vec![self.master_addr()?])
    }
    fn stop(&mut self) -> Result<()> {
        self.servers().iter().try_for_each(Server::pause)
    }
    fn restart(&mut self) -> Result<()> {
        self.servers().iter().try_for_each(Server::resume)
    }
}

impl Shape for Cluster {
    fn url(&self) -> String {
        Cluster::url(self)
    }
    fn masters(&self) -> Result<Vec<SocketAddr>> {
        Cluster::masters(self)
    }
    fn stop(&mut self) -> Result<()> {
        self.servers().iter().try_for_each(Server::pause)
    }
    fn restart(&mut self) -> Result<()> {
        self.servers().iter().try_for_each(Server::resume)
    }
}

/// What the master that has the hash answers.
fn ask(shape: &dyn Shape, words: &[&str]) -> Result<Answer> {
    for master in shape.masters()? {
        let answer = Client::connect(master)?.ask(words)?;
        if !matches!(&answer, Answer::Error(error) if error.starts_with("MOVED")) {
            return Ok(answer);
        }
    }
    anyhow::bail!("no master has it")
}

struct OfRedis<S>(Mutex<S>);

impl<S: Shape> OfRedis<S> {
    fn shape(&self) -> MutexGuard<'_, S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl<S: Shape> Subject for OfRedis<S> {
    async fn begin(&self, rule: &str) {
        eprintln!("{rule}");
        for master in self.shape().masters().unwrap() {
            Client::connect(master).unwrap().must(&["FLUSHALL"]).unwrap();
        }
    }

    async fn instance(&self, id: &str, lease: Millis) -> Arc<dyn Registry> {
        Arc::new(Redis::new(options(&self.shape().url(), id, lease)))
    }

    async fn row(&self, user: &str) -> Option<String> {
        match ask(&*self.shape(), &["HGET", KEY, user]).unwrap() {
            Answer::Nil => None,
            answer => Some(answer.text()),
        }
    }

    async fn go_away(&self) {
        self.shape().stop().unwrap();
    }

    async fn come_back(&self) {
        self.shape().restart().unwrap();
    }
}

fn contract<S: Shape>(name: &str, start: impl FnOnce() -> Result<S>) -> Result<()> {
    machine::run(name, &[Need::Redis], || {
        let subject = OfRedis(Mutex::new(start()?));
        runtime()?.block_on(check(&subject));
        Ok(())
    })
}

#[test]
fn one_server_keeps_the_contract() -> Result<()> {
    contract("one_server_keeps_the_contract", || {
        Server::start(ServerOptions::fsync(Fsync::Always))
    })
}

#[test]
fn a_master_that_sentinels_name_keeps_the_contract() -> Result<()> {
    contract("a_master_that_sentinels_name_keeps_the_contract", || {
        Replicated::start(ServerOptions::fsync(Fsync::Always))
    })
}

#[test]
fn a_cluster_keeps_the_contract() -> Result<()> {
    contract("a_cluster_keeps_the_contract", || {
        Cluster::start(ServerOptions::fsync(Fsync::Always))
    })
}

/// Whatever the failover lost is written again by who looks the rows over.
#[test]
fn after_a_failover_the_new_master_is_written() -> Result<()> {
    let name = "after_a_failover_the_new_master_is_written";
    machine::run(name, &[Need::Redis], || {
        let mut redis = Replicated::start(ServerOptions::fsync(Fsync::Always))?;
        let registry = Redis::new(options(&redis.url(), "a", Millis::from_secs(15)));
        let runtime = runtime()?;
        runtime.block_on(async {
            registry.open().await?;
            registry.put(&users(&["ada"])).await
        })?;
        redis.fail_over()?;
        until_true("it is written", within(60), || {
            let both = users(&["ada", "bob"]);
            Ok(runtime.block_on(async { registry.take_over(&both).await.is_ok() }))
        })?;
        let rows = ask(&redis, &["HMGET", KEY, "ada", "bob"])?;
        let rows: Vec<String> = rows.list().iter().map(Answer::text).collect();
        ensure!(rows == ["a", "a"], "{rows:?}");
        Ok(())
    })
}

/// What a server that hung comes to afterwards is not done: what was said meanwhile stays.
#[test]
fn a_step_that_comes_too_late_is_not_done() -> Result<()> {
    let name = "a_step_that_comes_too_late_is_not_done";
    machine::run(name, &[Need::Redis], || {
        let server = Server::start(ServerOptions::default())?;
        let registry = Redis::new(options(&server.url(), "a", Millis::from_secs(15)));
        let runtime = runtime()?;
        runtime.block_on(registry.open())?;
        server.pause()?;
        let fault = runtime.block_on(registry.put(&users(&["ada"]))).unwrap_err();
        ensure!(fault.is_transient(), "{fault}");
        server.resume()?;
        // Whatever the server still had of that connection it has come to by then.
        let mut client = server.client()?;
        until_true("the connection is gone", within(60), || {
            let list = client.must(&["CLIENT", "LIST"])?.text();
            Ok(!list.contains("postrider-registry-a"))
        })?;
        ensure!(
            client
                .must(&["INFO", "commandstats"])?
                .text()
                .contains("cmdstat_eval"),
            "it never came to it"
        );
        ensure!(client.must(&["HGET", KEY, "ada"])? == Answer::Nil);
        runtime.block_on(registry.put(&users(&["ada"])))?;
        ensure!(client.must(&["HGET", KEY, "ada"])?.text() == "a");
        Ok(())
    })
}

#[test]
fn what_is_written_without_a_lease_is_cleared_by_the_next_who_beats() -> Result<()> {
    let name = "what_is_written_without_a_lease_is_cleared_by_the_next_who_beats";
    machine::run(name, &[Need::Redis], || {
        let server = Server::start(ServerOptions::default())?;
        let [late, other] =
            ["late", "other"].map(|id| Redis::new(options(&server.url(), id, Millis::from_secs(15))));
        runtime()?.block_on(writes_late(&late, &other))
    })
}

/// What lies in Redis is bounded by who is here.
#[test]
fn nothing_stays_of_who_is_gone() -> Result<()> {
    machine::run("nothing_stays_of_who_is_gone", &[Need::Redis], || {
        let server = Server::start(ServerOptions::default())?;
        let [one, two] =
            ["one", "two"].map(|id| Redis::new(options(&server.url(), id, Millis::from_secs(15))));
        runtime()?.block_on(async {
            for registry in [&one, &two] {
                registry.open().await?;
                registry.beat().await?;
                registry.put(&users(&["ada", "bob"])).await?;
            }
            one.clear(&users(&["ada"])).await?;
            one.leave().await?;
            two.leave().await
        })?;
        let left = server.client()?.must(&["KEYS", "*"])?;
        ensure!(left.list().is_empty(), "{left:?}");
        Ok(())
    })
}

#[test]
fn a_key_of_another_type_or_a_wrong_password_is_a_refusal() -> Result<()> {
    let name = "a_key_of_another_type_or_a_wrong_password_is_a_refusal";
    machine::run(name, &[Need::Redis], || {
        let server = Server::start(ServerOptions::default())?;
        server.client()?.must(&["SET", KEY, "x"])?;
        let port = server.addr().port();
        runtime()?.block_on(async {
            let registry = Redis::new(options(&server.url(), "a", Millis::from_secs(15)));
            registry.open().await?;
            let fault = registry.put(&users(&["ada"])).await.unwrap_err();
            ensure!(matches!(fault, RegistryFault::Refused(_)), "{fault}");
            let wrong = format!("redis://me:hush-hush@127.0.0.1:{port}");
            let registry = Redis::new(options(&wrong, "a", Millis::from_secs(15)));
            let fault = tokio::time::timeout(Duration::from_secs(60), registry.open()).await;
            let fault = fault.context("it hangs")?.unwrap_err();
            ensure!(matches!(fault, RegistryFault::Refused(_)), "{fault}");
            ensure!(!fault.to_string().contains("hush-hush"), "{fault}");
            Ok(())
        })
    })
}
