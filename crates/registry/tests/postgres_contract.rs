//! The table in PostgreSQL under the contract, and as others made it: with UUIDs, without a key, over TLS.

#![cfg(feature = "postgres")]
#![allow(missing_docs, clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test: it starts servers")]

mod setting;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use postrider_harness::aws::Postgres as Server;
use postrider_harness::machine::{self, Need};
use postrider_harness::tls::Authority;
use postrider_harness::wait::{until_true, within};
use postrider_model::Millis;
use postrider_registry::contract::{Subject, check};
use postrider_registry::postgres::{Address, Options, Postgres};
use postrider_registry::{Lease, Registry, RegistryFault};
use setting::{runtime, users, writes_late};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const ID: &str = "f0c7b6c1-3a67-4d9b-9e36-6f4e5a3a1b11";
const ADA: &str = "0a1b2c3d-0000-4000-8000-000000000001";

fn options(server: &Server, instance: &str, create: bool) -> Options {
    Options {
        address: Address {
            host: "127.0.0.1".into(),
            port: server.addr().port(),
            user: server.user().into(),
            password: Some("my_password".into()),
            database: "message_service".into(),
            tls: false,
            ca: None,
        },
        table: "notifier_instances".parse().unwrap(),
        create,
        instance: instance.into(),
        lease: Millis::from_secs(15),
    }
}

struct OfPostgres {
    server: Mutex<Server>,
    create: bool,
}

impl OfPostgres {
    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Subject for OfPostgres {
    async fn begin(&self, rule: &str) {
        eprintln!("{rule}");
        let tables = ["notifier_instances", "notifier_instances_alive"];
        for table in tables {
            let there = format!("SELECT to_regclass('{table}')");
            if self.server().sql(&there).unwrap() == [table] {
                self.server().sql(&format!("DELETE FROM {table}")).unwrap();
            }
        }
    }

    async fn instance(&self, id: &str, lease: Millis) -> Arc<dyn Registry> {
        let options = Options {
            lease,
            ..options(&self.server(), id, self.create)
        };
        Arc::new(Postgres::new(options).unwrap())
    }

    async fn row(&self, user: &str) -> Option<String> {
        let user = user.replace('\'', "''");
        let read = format!("SELECT notifier_instance_id FROM notifier_instances WHERE user_id = '{user}'");
        let mut rows = self.server().sql(&read).unwrap();
        // Where nothing keeps it from that, two nodes at once make two rows, which say the same from then on.
        assert!(rows.len() < 2 || !self.create, "{rows:?}");
        rows.dedup();
        assert!(rows.len() < 2, "{rows:?}");
        rows.into_iter().next().filter(|row| !row.is_empty())
    }

    async fn go_away(&self) {
        self.server().stop().unwrap();
    }

    async fn come_back(&self) {
        self.server().restart().unwrap();
    }
}

fn contract(name: &str, prepare: &str) -> Result<()> {
    machine::run(name, &[Need::Postgres], || {
        let server = Server::start()?;
        server.sql(prepare)?;
        let subject = OfPostgres {
            server: Mutex::new(server),
            create: prepare.is_empty(),
        };
        runtime()?.block_on(check(&subject));
        Ok(())
    })
}

#[test]
fn the_contract_over_a_table_of_our_own() -> Result<()> {
    contract("the_contract_over_a_table_of_our_own", "")
}

#[test]
fn the_contract_over_a_table_that_keeps_nobody_from_two_rows() -> Result<()> {
    let prepare = "CREATE TABLE notifier_instances (user_id varchar(200), notifier_instance_id varchar(36));
                   CREATE TABLE notifier_instances_alive (notifier_instance_id text PRIMARY KEY, alive_until timestamptz)";
    contract(
        "the_contract_over_a_table_that_keeps_nobody_from_two_rows",
        prepare,
    )
}

#[test]
fn what_is_written_without_a_lease_is_cleared_by_the_next_who_beats() -> Result<()> {
    let name = "what_is_written_without_a_lease_is_cleared_by_the_next_who_beats";
    machine::run(name, &[Need::Postgres], || {
        let server = Server::start()?;
        let late = Postgres::new(options(&server, "late", true))?;
        let other = Postgres::new(options(&server, "other", true))?;
        runtime()?.block_on(writes_late(&late, &other))
    })
}

#[test]
fn a_table_of_uuids_takes_uuids_and_says_who_is_none() -> Result<()> {
    let name = "a_table_of_uuids_takes_uuids_and_says_who_is_none";
    machine::run(name, &[Need::Postgres], || {
        let server = Server::start()?;
        server
            .sql("CREATE TABLE notifier_instances (user_id uuid PRIMARY KEY, notifier_instance_id uuid)")?;
        runtime()?.block_on(async {
            let odd = Postgres::new(options(&server, "node-1", false))?;
            let fault = odd.open().await.unwrap_err();
            ensure!(matches!(fault, RegistryFault::Refused(_)), "{fault}");
            let registry = Postgres::new(options(&server, ID, false))?;
            registry.open().await?;
            registry.put(&users(&[ADA])).await?;
            let fault = registry.put(&users(&["ada", ADA])).await.unwrap_err();
            ensure!(matches!(fault, RegistryFault::Unfit(_)), "{fault}");
            // Without leases there is nothing to prolong.
            ensure!(registry.beat().await? == Lease::Held);
            let rows = server.sql("SELECT * FROM notifier_instances")?;
            ensure!(rows == [format!("{ADA}|{ID}")], "{rows:?}");
            registry.leave().await?;
            let rows = server.sql("SELECT * FROM notifier_instances")?;
            ensure!(rows == [format!("{ADA}|")], "{rows:?}");
            Ok(())
        })
    })
}

#[test]
fn a_table_that_is_missing_or_may_not_be_written_is_a_refusal() -> Result<()> {
    let name = "a_table_that_is_missing_or_may_not_be_written_is_a_refusal";
    machine::run(name, &[Need::Postgres], || {
        let server = Server::start()?;
        runtime()?.block_on(async {
            let registry = Postgres::new(options(&server, ID, false))?;
            let fault = registry.open().await.unwrap_err();
            ensure!(fault.to_string().contains("registry.create"), "{fault}");
            server.sql(
                "CREATE TABLE notifier_instances (user_id text, notifier_instance_id varchar(10));
                 CREATE ROLE reader LOGIN; GRANT SELECT ON notifier_instances TO reader",
            )?;
            let fault = registry.open().await.unwrap_err();
            ensure!(fault.to_string().contains("takes 10 characters"), "{fault}");
            let mut reader = options(&server, "short", false);
            reader.address.user = "reader".into();
            let reader = Postgres::new(reader)?;
            reader.open().await?;
            let fault = reader.put(&users(&["ada"])).await.unwrap_err();
            ensure!(matches!(fault, RegistryFault::Refused(_)), "{fault}");
            Ok(())
        })
    })
}

#[test]
fn over_tls_the_certificate_is_checked() -> Result<()> {
    machine::run("over_tls_the_certificate_is_checked", &[Need::Postgres], || {
        let (ours, other) = (Authority::new()?, Authority::new()?);
        let server = Server::with_tls(&ours)?;
        let (good, bad) = (ours.root_file()?, other.root_file()?);
        runtime()?.block_on(async {
            let plain = Postgres::new(options(&server, ID, true))?;
            ensure!(plain.open().await.is_err(), "it speaks TLS alone");
            for (ca, is_good) in [(bad, false), (good, true)] {
                let mut options = options(&server, ID, true);
                (options.address.tls, options.address.ca) = (true, Some(ca));
                let registry = Postgres::new(options)?;
                ensure!(registry.open().await.is_ok() == is_good, "{is_good}");
                if is_good {
                    registry.put(&users(&["ada"])).await?;
                }
            }
            Ok(())
        })
    })
}

/// A database that hangs is a fault within the time limit, and not a hang.
#[test]
fn a_statement_that_waits_for_a_lock_is_given_up() -> Result<()> {
    let name = "a_statement_that_waits_for_a_lock_is_given_up";
    machine::run(name, &[Need::Postgres], || {
        let server = Server::start()?;
        let registry = Postgres::new(options(&server, ID, true))?;
        let runtime = runtime()?;
        runtime.block_on(registry.open())?;
        std::thread::scope(|scope| {
            // Until it is ended below.
            let locking = scope
                .spawn(|| server.sql("BEGIN; LOCK TABLE notifier_instances; SELECT pg_sleep(60); COMMIT"));
            let holder = "FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted
                          AND relation = 'notifier_instances'::regclass";
            let locked = format!("SELECT 1 {holder}");
            until_true("the lock", within(30), || Ok(server.sql(&locked)? == ["1"]))?;
            let fault = runtime.block_on(registry.put(&users(&["ada"])));
            server.sql(&format!("SELECT pg_terminate_backend(pid) {holder}"))?;
            ensure!(locking.join().unwrap().is_err(), "the lock was not held so long");
            let fault = fault.unwrap_err();
            ensure!(fault.is_transient(), "{fault}");
            runtime.block_on(registry.put(&users(&["ada"])))?;
            Ok(())
        })
    })
}
