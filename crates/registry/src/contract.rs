//! What every table does, as checks that any table can be put to.
//!
//! A [`Subject`] is a real table under a test's hand, read as a producer reads it. [`check`] runs all rules; each begins
//! with an empty table. A new kind of table adds a subject and passes them unchanged.

#![allow(
    clippy::disallowed_methods,
    reason = "a test suite is a driver: it reads clocks and sleeps"
)]
#![allow(clippy::panic, clippy::expect_used, reason = "a broken rule ends the test")]

use crate::{Lease, MOST_ROWS, Registry, RegistryFault};
use async_trait::async_trait;
use postrider_model::{Millis, UserId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A rule waits so long for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// A lease that outlives a rule on any machine.
const LONG: Millis = Millis::from_secs(600);
/// A lease that ends within one.
const SHORT: Millis = Millis(500);

/// A table, and the hand that empties it and takes it away.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Empties the table and the leases. Called before every rule.
    async fn begin(&self, rule: &str);

    /// The table as this instance writes it, not open yet.
    async fn instance(&self, id: &str, lease: Millis) -> Arc<dyn Registry>;

    /// What a producer reads for this user: the instance, or nobody.
    async fn row(&self, user: &str) -> Option<String>;

    /// Takes the whole server away; what it was told it keeps.
    async fn go_away(&self);

    /// Brings it back at the same place.
    async fn come_back(&self);

    /// Users of one statement in rules about many: [`MOST_ROWS`], but where a stand-in takes too long for those.
    fn many(&self) -> usize {
        MOST_ROWS
    }
}

/// Puts a table to every rule.
///
/// # Panics
/// Where a rule does not hold.
pub async fn check(subject: &dyn Subject) {
    subject.begin("who_comes_and_goes").await;
    who_comes_and_goes(subject).await;
    subject.begin("who_has_gone_to_another_is_there").await;
    who_has_gone_to_another_is_there(subject).await;
    subject.begin("only_free_rows_are_taken_over").await;
    only_free_rows_are_taken_over(subject).await;
    subject.begin("all_rows_go_with_the_instance").await;
    all_rows_go_with_the_instance(subject).await;
    subject.begin("the_dead_have_no_rows").await;
    the_dead_have_no_rows(subject).await;
    subject.begin("odd_names_are_names").await;
    odd_names_are_names(subject).await;
    subject.begin("two_write_the_same_rows").await;
    two_write_the_same_rows(subject).await;
    subject.begin("what_is_away_comes_back").await;
    what_is_away_comes_back(subject).await;
}

fn users(names: &[&str]) -> Vec<UserId> {
    let user = |name: &&str| UserId::new(name).expect("a name");
    names.iter().map(user).collect()
}

fn many(count: usize) -> Vec<UserId> {
    let user = |n| UserId::new(&format!("user-{n:05}")).expect("a name");
    (0..count).map(user).collect()
}

async fn opened(subject: &dyn Subject, id: &str, lease: Millis) -> Arc<dyn Registry> {
    let registry = subject.instance(id, lease).await;
    at_last("open", async || registry.open().await).await;
    registry
}

/// Said again where a machine that stood still made it come too late: said twice it does what it does once.
async fn at_last(what: &str, mut say: impl AsyncFnMut() -> Result<(), RegistryFault>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(fault) = say().await {
        let is_late = fault.is_transient() && Instant::now() < deadline;
        assert!(is_late, "{what}: {fault}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn put(registry: &dyn Registry, users: &[UserId]) {
    at_last("put", async || registry.put(users).await).await;
}

async fn clear(registry: &dyn Registry, users: &[UserId]) {
    at_last("clear", async || registry.clear(users).await).await;
}

async fn leave(registry: &dyn Registry) {
    at_last("leave", async || registry.leave().await).await;
}

async fn must_name(subject: &dyn Subject, user: &str, instance: Option<&str>) {
    assert_eq!(subject.row(user).await.as_deref(), instance, "the row of {user}");
}

async fn who_comes_and_goes(subject: &dyn Subject) {
    let a = opened(subject, "a", LONG).await;
    let both = users(&["ada", "bob"]);
    for _ in 0..2 {
        put(&*a, &both).await;
        must_name(subject, "ada", Some("a")).await;
        must_name(subject, "bob", Some("a")).await;
    }
    for _ in 0..2 {
        clear(&*a, &both[..1]).await;
        must_name(subject, "ada", None).await;
        must_name(subject, "bob", Some("a")).await;
        // What a producer reads here it can also ask an instance for.
        assert_eq!(a.instance_of(&both[0]).await, Ok(None));
        assert_eq!(a.instance_of(&both[1]).await, Ok(Some("a".into())));
    }
    let nobody = users(&["nobody"]);
    assert_eq!(a.instance_of(&nobody[0]).await, Ok(None));
    clear(&*a, &users(&["nobody"])).await;
    must_name(subject, "nobody", None).await;
    put(&*a, &both).await;
    must_name(subject, "ada", Some("a")).await;
}

async fn who_has_gone_to_another_is_there(subject: &dyn Subject) {
    let (a, b) = (opened(subject, "a", LONG).await, opened(subject, "b", LONG).await);
    let ada = users(&["ada"]);
    put(&*a, &ada).await;
    put(&*b, &ada).await;
    clear(&*a, &ada).await;
    must_name(subject, "ada", Some("b")).await;
    leave(&*a).await;
    must_name(subject, "ada", Some("b")).await;
}

async fn only_free_rows_are_taken_over(subject: &dyn Subject) {
    let (a, b) = (opened(subject, "a", LONG).await, opened(subject, "b", LONG).await);
    let all = users(&["ada", "bob", "eve"]);
    put(&*a, &all[..2]).await;
    clear(&*a, &all[..1]).await;
    assert_eq!(
        b.take_over(&all).await,
        Ok(2),
        "one that names nobody, and one that is missing"
    );
    must_name(subject, "ada", Some("b")).await;
    must_name(subject, "bob", Some("a")).await;
    must_name(subject, "eve", Some("b")).await;
    assert_eq!(b.take_over(&all).await, Ok(0));
}

async fn all_rows_go_with_the_instance(subject: &dyn Subject) {
    let (a, b) = (opened(subject, "a", LONG).await, opened(subject, "b", LONG).await);
    let most = subject.many();
    let all = many(2 * most + 7);
    for page in all.chunks(most) {
        put(&*a, page).await;
    }
    assert_eq!(a.beat().await, Ok(Lease::Lapsed), "the first");
    put(&*b, &all[5..6]).await;
    leave(&*a).await;
    for n in [0, 1, most, all.len() - 1] {
        must_name(subject, all[n].as_str(), None).await;
    }
    must_name(subject, all[5].as_str(), Some("b")).await;
    assert_eq!(a.beat().await, Ok(Lease::Lapsed), "its lease went too");
}

async fn the_dead_have_no_rows(subject: &dyn Subject) {
    let (dead, alive) = (
        opened(subject, "dead", SHORT).await,
        opened(subject, "alive", LONG).await,
    );
    let watcher = opened(subject, "watcher", LONG).await;
    let all = users(&["ada", "bob"]);
    assert_eq!(dead.beat().await, Ok(Lease::Lapsed));
    put(&*dead, &all[..1]).await;
    assert_eq!(alive.beat().await, Ok(Lease::Lapsed));
    put(&*alive, &all[1..]).await;
    let deadline = Instant::now() + PATIENCE;
    while subject.row("ada").await.is_some() {
        assert!(Instant::now() < deadline, "the row of the dead is still there");
        watcher.beat().await.expect("beat");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    must_name(subject, "bob", Some("alive")).await;
    assert_eq!(alive.beat().await, Ok(Lease::Held));
    assert_eq!(
        dead.beat().await,
        Ok(Lease::Lapsed),
        "it is told that its rows are gone"
    );
    assert_eq!(dead.take_over(&all).await, Ok(1));
    must_name(subject, "ada", Some("dead")).await;
}

async fn odd_names_are_names(subject: &dyn Subject) {
    let a = opened(subject, "a", LONG).await;
    let long = "x".repeat(100);
    let names = [
        "o'hara",
        "\"; DROP TABLE users; --",
        "{a,b}",
        "ä🙂",
        "NULL",
        "a\\b",
        &long,
    ];
    let given: Vec<UserId> = names.iter().filter_map(|name| UserId::new(name).ok()).collect();
    assert!(given.len() > 3, "some of them are users");
    put(&*a, &given).await;
    for user in &given {
        must_name(subject, user.as_str(), Some("a")).await;
    }
    clear(&*a, &given).await;
    for user in &given {
        must_name(subject, user.as_str(), None).await;
    }
}

/// In opposite orders, at once: nobody waits for ever, and each row names one of them.
async fn two_write_the_same_rows(subject: &dyn Subject) {
    let (a, b) = (opened(subject, "a", LONG).await, opened(subject, "b", LONG).await);
    let all = many(subject.many());
    let mut reversed = all.clone();
    reversed.reverse();
    for _ in 0..5 {
        tokio::join!(put(&*a, &all), put(&*b, &reversed));
        tokio::join!(clear(&*a, &all), clear(&*b, &reversed));
    }
    for n in [0, all.len() / 2, all.len() - 1] {
        must_name(subject, all[n].as_str(), None).await;
    }
}

async fn what_is_away_comes_back(subject: &dyn Subject) {
    let a = opened(subject, "a", LONG).await;
    let both = users(&["ada", "bob"]);
    put(&*a, &both[..1]).await;
    subject.go_away().await;
    let fault = a.put(&both).await.expect_err("it is away");
    assert!(fault.is_transient(), "{fault}");
    subject.come_back().await;
    at_last("it opens again", async || a.open().await).await;
    must_name(subject, "ada", Some("a")).await;
    put(&*a, &both).await;
    must_name(subject, "bob", Some("a")).await;
}
