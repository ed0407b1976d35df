//! The table in DynamoDB under the contract, over moto, read by boto3 as a producer reads it; and as others made it.

#![cfg(feature = "aws")]
#![allow(missing_docs, clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test: it starts servers and reads clocks"
)]

mod setting;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use postrider_aws::{Account, Reach};
use postrider_harness::aws::{ACCESS_KEY, Boto, Emulator, Fault, REGION, SECRET_KEY, Trouble};
use postrider_harness::machine::{self, Need};
use postrider_model::{Millis, Timestamp, UserId};
use postrider_registry::contract::{Subject, check};
use postrider_registry::dynamodb::{DynamoDb, Names, Options};
use postrider_registry::{Lease, MOST_ROWS, Registry, RegistryFault};
use serde_json::{Value, json};
use setting::{runtime, users, writes_late};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const TABLE: &str = "notifier_instances";

fn some_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
}

fn options(endpoint: &str, instance: &str, lease: Millis, create: bool) -> Options {
    let start = std::time::Instant::now();
    Options {
        account: Arc::new(Account::with_keys(ACCESS_KEY, SECRET_KEY)),
        reach: Reach {
            region: Some(REGION.into()),
            endpoint: Some(endpoint.into()),
            // Of an emulator in Python, on a machine that does other things too.
            answer: Duration::from_secs(20),
            tries: 1,
        },
        names: Names {
            table: TABLE.parse().unwrap(),
            user: "user_id".into(),
            instance: "notifier_instance_id".into(),
        },
        create,
        instance: instance.into(),
        lease,
        steady: Arc::new(move || Timestamp(start.elapsed().as_millis() as u64)),
        random: some_number,
    }
}

fn instance(endpoint: &str, id: &str, create: bool) -> DynamoDb {
    DynamoDb::new(options(endpoint, id, Millis::from_secs(60), create))
}

fn many(count: usize) -> Vec<UserId> {
    (0..count)
        .map(|n| UserId::new(&format!("u{n:05}")).unwrap())
        .collect()
}

/// The table as somebody made it before: with an index over instances, or without.
fn make(boto: &mut Boto, with_index: bool) -> Result<()> {
    let attribute = |name: &str| json!({"AttributeName": name, "AttributeType": "S"});
    let key = |name: &str| json!([{"AttributeName": name, "KeyType": "HASH"}]);
    let mut table = json!({
        "TableName": TABLE, "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [attribute("user_id")], "KeySchema": key("user_id"),
    });
    if with_index {
        table["AttributeDefinitions"] = json!([attribute("user_id"), attribute("notifier_instance_id")]);
        table["GlobalSecondaryIndexes"] = json!([{
            "IndexName": "by-instance", "KeySchema": key("notifier_instance_id"),
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }]);
    }
    boto.call("dynamodb", "create_table", table)?;
    Ok(())
}

fn item(boto: &mut Boto, user: &str) -> Result<Value> {
    let key = json!({"user_id": {"S": user}});
    let mut found = boto.call("dynamodb", "get_item", json!({"TableName": TABLE, "Key": key}))?;
    Ok(found["Item"].take())
}

fn row(boto: &mut Boto, user: &str) -> Result<Option<String>> {
    let item = item(boto, user)?;
    Ok(item["notifier_instance_id"]["S"].as_str().map(str::to_owned))
}

struct OfMoto {
    moto: Emulator,
    boto: Mutex<Boto>,
}

impl OfMoto {
    fn boto(&self) -> MutexGuard<'_, Boto> {
        self.boto.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Subject for OfMoto {
    async fn begin(&self, rule: &str) {
        eprintln!("{rule}");
        let mut boto = self.boto();
        for (table, key) in [
            (TABLE, "user_id"),
            ("notifier_instances_alive", "notifier_instance_id"),
        ] {
            let Ok(found) = boto.call(
                "dynamodb",
                "scan",
                json!({"TableName": table, "ProjectionExpression": key}),
            ) else {
                continue;
            };
            for item in found["Items"].as_array().unwrap() {
                boto.call(
                    "dynamodb",
                    "delete_item",
                    json!({"TableName": table, "Key": item}),
                )
                .unwrap();
            }
        }
    }

    async fn instance(&self, id: &str, lease: Millis) -> Arc<dyn Registry> {
        Arc::new(DynamoDb::new(options(&self.moto.endpoint(), id, lease, true)))
    }

    async fn row(&self, user: &str) -> Option<String> {
        row(&mut self.boto(), user).unwrap()
    }

    async fn go_away(&self) {
        self.moto.pause().unwrap();
    }

    async fn come_back(&self) {
        self.moto.resume().unwrap();
    }

    /// moto does some hundreds of calls a second.
    fn many(&self) -> usize {
        120
    }
}

fn contract(name: &str, prepare: impl FnOnce(&mut Boto) -> Result<()>) -> Result<()> {
    machine::run(name, &[Need::Moto], || {
        let moto = Emulator::moto()?;
        let mut boto = Boto::start(&moto.endpoint())?;
        prepare(&mut boto)?;
        let boto = Mutex::new(boto);
        runtime()?.block_on(check(&OfMoto { moto, boto }));
        Ok(())
    })
}

#[test]
fn a_table_of_our_own_keeps_the_contract() -> Result<()> {
    contract("a_table_of_our_own_keeps_the_contract", |_| Ok(()))
}

#[test]
fn a_table_with_an_index_keeps_the_contract() -> Result<()> {
    contract("a_table_with_an_index_keeps_the_contract", |boto| {
        make(boto, true)
    })
}

/// What a run that crashed left is found by the index or by a look at the whole table, and is cleared a page at a time.
#[test]
fn what_an_earlier_run_left_is_cleared() -> Result<()> {
    machine::run("what_an_earlier_run_left_is_cleared", &[Need::Moto], || {
        // More than a page of the index.
        for (with_index, count) in [(false, 150), (true, MOST_ROWS + 7)] {
            let moto = Emulator::moto()?;
            let mut boto = Boto::start(&moto.endpoint())?;
            make(&mut boto, with_index)?;
            let all = many(count);
            runtime()?.block_on(async {
                let crashed = instance(&moto.endpoint(), "a", true);
                crashed.open().await?;
                crashed.leave().await?;
                crashed.beat().await?;
                for page in all.chunks(MOST_ROWS) {
                    crashed.put(page).await?;
                }
                let other = instance(&moto.endpoint(), "b", true);
                other.open().await?;
                other.put(&all[..1]).await?;
                let again = instance(&moto.endpoint(), "a", true);
                again.open().await?;
                again.leave().await
            })?;
            ensure!(row(&mut boto, all[0].as_str())?.as_deref() == Some("b"));
            for n in [1, count / 2, count - 1] {
                ensure!(row(&mut boto, all[n].as_str())?.is_none(), "{with_index} {n}");
            }
        }
        Ok(())
    })
}

#[test]
fn what_is_written_without_a_lease_is_cleared_by_the_next_who_beats() -> Result<()> {
    let name = "what_is_written_without_a_lease_is_cleared_by_the_next_who_beats";
    machine::run(name, &[Need::Moto], || {
        let moto = Emulator::moto()?;
        let [late, other] = ["late", "other"].map(|id| instance(&moto.endpoint(), id, true));
        runtime()?.block_on(writes_late(&late, &other))
    })
}

/// One that is held up while another clears its rows writes one that the other has looked at before: his claim is over then,
/// the lease stays, and the row is found.
#[test]
fn what_is_written_while_the_rows_are_cleared_is_found() -> Result<()> {
    machine::run(
        "what_is_written_while_the_rows_are_cleared_is_found",
        &[Need::Moto],
        || {
            let moto = Emulator::moto()?;
            let mut boto = Boto::start(&moto.endpoint())?;
            let runtime = runtime()?;
            let [late, other] = ["late", "other"].map(|id| instance(&moto.endpoint(), id, true));
            runtime.block_on(async {
                late.open().await?;
                late.beat().await?;
                late.put(&users(&["ada"])).await?;
                other.open().await
            })?;
            // As another leaves it who claimed the rows, has looked at all of them, and now ends the lease.
            let lease = |more: Value| {
                let mut call = json!({"TableName": "notifier_instances_alive", "Key": {"notifier_instance_id": {"S": "late"}}});
                call.as_object_mut()
                    .unwrap()
                    .extend(more.as_object().unwrap().clone());
                call
            };
            let claim = json!({
                "UpdateExpression": "SET beat = :b, lapsed = :o",
                "ExpressionAttributeValues": {":b": {"S": "claimed"}, ":o": {"BOOL": true}},
            });
            boto.call("dynamodb", "update_item", lease(claim))?;
            runtime.block_on(late.put(&users(&["bob"])))?;
            let end = json!({
                "ConditionExpression": "beat = :b", "ExpressionAttributeValues": {":b": {"S": "claimed"}},
            });
            ensure!(
                boto.call("dynamodb", "delete_item", lease(end)).is_err(),
                "the claim is over"
            );
            runtime.block_on(other.beat())?;
            for user in ["ada", "bob"] {
                ensure!(row(&mut boto, user)?.is_none(), "{user}");
            }
            ensure!(runtime.block_on(late.beat())? == Lease::Lapsed);
            Ok(())
        },
    )
}

/// What others keep in a user's item stays, and a row that says NULL is free.
#[test]
fn what_else_is_in_an_item_stays() -> Result<()> {
    machine::run("what_else_is_in_an_item_stays", &[Need::Moto], || {
        let moto = Emulator::moto()?;
        let mut boto = Boto::start(&moto.endpoint())?;
        make(&mut boto, false)?;
        let item_of =
            json!({"user_id": {"S": "ada"}, "notifier_instance_id": {"NULL": true}, "tier": {"S": "gold"}});
        boto.call(
            "dynamodb",
            "put_item",
            json!({"TableName": TABLE, "Item": item_of}),
        )?;
        let ada = users(&["ada"]);
        let runtime = runtime()?;
        let registry = instance(&moto.endpoint(), "a", false);
        runtime.block_on(async {
            registry.open().await?;
            // Without leases there is nothing to prolong.
            assert_eq!(registry.beat().await?, Lease::Held);
            assert_eq!(registry.take_over(&ada).await?, 1);
            Ok::<_, RegistryFault>(())
        })?;
        ensure!(row(&mut boto, "ada")?.as_deref() == Some("a"));
        runtime.block_on(registry.clear(&ada))?;
        let left = item(&mut boto, "ada")?;
        ensure!(
            left == json!({"user_id": {"S": "ada"}, "tier": {"S": "gold"}}),
            "{left}"
        );
        Ok(())
    })
}

#[test]
fn a_table_that_is_missing_or_keyed_otherwise_is_a_refusal() -> Result<()> {
    let name = "a_table_that_is_missing_or_keyed_otherwise_is_a_refusal";
    machine::run(name, &[Need::Moto], || {
        let moto = Emulator::moto()?;
        let runtime = runtime()?;
        let registry = instance(&moto.endpoint(), "a", false);
        let fault = runtime.block_on(registry.open()).unwrap_err();
        ensure!(fault.to_string().contains("registry.create"), "{fault}");
        let mut boto = Boto::start(&moto.endpoint())?;
        boto.connections_table(TABLE)?;
        let fault = runtime.block_on(registry.open()).unwrap_err();
        ensure!(matches!(fault, RegistryFault::Refused(_)), "{fault}");
        ensure!(fault.to_string().contains("no sort key"), "{fault}");
        Ok(())
    })
}

/// Single rows are repeated, and not the batch.
#[test]
fn a_throttled_table_is_written_all_the_same() -> Result<()> {
    machine::run("a_throttled_table_is_written_all_the_same", &[Need::Moto], || {
        let moto = Emulator::moto()?;
        let trouble = Trouble::before(moto.addr())?;
        let registry = instance(&trouble.endpoint(), "a", true);
        let all = many(200);
        let runtime = runtime()?;
        runtime.block_on(registry.open())?;
        for call in ["TransactWriteItems", "UpdateItem", "BatchGetItem"] {
            trouble.every(4, Some(call), Fault::Throttles);
        }
        runtime.block_on(async {
            registry.put(&all).await?;
            // Four steps, and a call for each row.
            registry.clear(&all[..8]).await?;
            registry.put(&all[..8]).await?;
            assert_eq!(registry.take_over(&all).await?, 0);
            // Of a batch of a few one is throttled, or two.
            for _ in 0..4 {
                registry.take_over(&all).await?;
            }
            Ok::<_, RegistryFault>(())
        })?;
        let met = trouble.met();
        ensure!(met.len() == 3, "{met:?}");
        let mut boto = Boto::start(&moto.endpoint())?;
        for user in [&all[0], &all[199]] {
            ensure!(row(&mut boto, user.as_str())?.as_deref() == Some("a"), "{user:?}");
        }
        Ok(())
    })
}
