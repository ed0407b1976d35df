use super::*;
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

/// A table in memory, that can be away, refuses a user called `bad`, and counts its statements. It may take so many rows
/// of a statement and no more, and its time.
#[derive(Default)]
struct Table(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    rows: HashMap<String, &'static str>,
    is_away: bool,
    has_lapsed: bool,
    statements: usize,
    takes: Option<usize>,
    takes_time: Duration,
    last_beat: Option<tokio::time::Instant>,
    /// The longest between two beats.
    without_beat: Duration,
}

impl Table {
    fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, users: &[UserId], with: impl FnOnce(&mut Inner) -> T) -> Result<T, RegistryFault> {
        self.with(|inner| {
            inner.statements += 1;
            if inner.is_away {
                return Err(RegistryFault::Away("away".into()));
            }
            if inner.takes.is_some_and(|most| users.len() > most) {
                return Err(RegistryFault::Away("too many at once".into()));
            }
            if users.iter().any(|user| user.as_str() == "bad") {
                return Err(RegistryFault::Unfit("bad".into()));
            }
            Ok(with(inner))
        })
    }

    fn names(&self, user: &str) -> Option<&'static str> {
        self.with(|inner| inner.rows.get(user).copied())
    }
}

#[async_trait]
impl Registry for Table {
    async fn open(&self) -> Result<(), RegistryFault> {
        self.change(&[], |_| ())
    }

    async fn put(&self, users: &[UserId]) -> Result<(), RegistryFault> {
        tokio::time::sleep(self.with(|inner| inner.takes_time)).await;
        self.change(users, |inner| {
            let rows = users.iter().map(|user| (user.as_str().to_owned(), "me"));
            inner.rows.extend(rows);
        })
    }

    async fn take_over(&self, users: &[UserId]) -> Result<u64, RegistryFault> {
        self.change(users, |inner| {
            let before = inner.rows.len();
            for user in users {
                inner.rows.entry(user.as_str().to_owned()).or_insert("me");
            }
            (inner.rows.len() - before) as u64
        })
    }

    async fn clear(&self, users: &[UserId]) -> Result<(), RegistryFault> {
        self.change(users, |inner| {
            let is_gone = |user: &str| users.iter().any(|one| one.as_str() == user);
            inner
                .rows
                .retain(|user, instance| !(is_gone(user) && *instance == "me"));
        })
    }

    #[allow(clippy::disallowed_methods, reason = "a test is a driver")]
    async fn beat(&self) -> Result<Lease, RegistryFault> {
        let now = tokio::time::Instant::now();
        self.change(&[], |inner| {
            let last = inner.last_beat.replace(now).unwrap_or(now);
            inner.without_beat = inner.without_beat.max(now - last);
        })?;
        self.change(&[], |inner| match std::mem::take(&mut inner.has_lapsed) {
            true => Lease::Lapsed,
            false => Lease::Held,
        })
    }

    async fn leave(&self) -> Result<(), RegistryFault> {
        self.change(&[], |inner| inner.rows.retain(|_, instance| *instance != "me"))
    }

    async fn instance_of(&self, user: &UserId) -> Result<Option<String>, RegistryFault> {
        Ok(self.names(user.as_str()).map(str::to_owned))
    }
}

#[derive(Default)]
struct Seen {
    ready: AtomicBool,
    unfit: AtomicBool,
}

impl Watch for Seen {
    fn ready(&self, is_ready: bool) {
        self.ready.store(is_ready, Ordering::Relaxed);
    }
    fn wrote(&self, _: u64) {}
    fn waiting(&self, _: usize) {}
    fn unfit(&self) {
        self.unfit.store(true, Ordering::Relaxed);
    }
}

/// A keeper at work, on a clock of the test's own.
struct Rig {
    table: Arc<Table>,
    ledger: Arc<Ledger>,
    seen: Arc<Seen>,
    end: oneshot::Sender<()>,
    running: tokio::task::JoinHandle<()>,
}

fn rig(table: Table) -> Rig {
    rig_of(table, crate::MOST_ROWS)
}

#[allow(clippy::disallowed_methods, reason = "a test is a driver")]
fn rig_of(table: Table, rows: usize) -> Rig {
    let (table, ledger, seen) = (Arc::new(table), Arc::<Ledger>::default(), Arc::<Seen>::default());
    let start = tokio::time::Instant::now();
    let steady = Arc::new(move || Timestamp(start.elapsed().as_millis() as u64));
    let lease = Millis::from_secs(15);
    let keeper = Keeper::new(
        table.clone(),
        rows,
        ledger.clone(),
        seen.clone(),
        lease,
        steady,
        || u64::MAX,
    );
    let (end, ended) = oneshot::channel();
    let running = tokio::spawn(keeper.run(async move {
        ended.await.ok();
    }));
    Rig {
        table,
        ledger,
        seen,
        end,
        running,
    }
}

impl Rig {
    /// Time that nobody waits for in earnest.
    async fn after(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn thousands_are_few_statements_and_the_end_clears_all() {
    let rig = rig(Table::default());
    for n in 0..3 * crate::MOST_ROWS {
        rig.ledger.came(&user(&format!("u{n}")));
    }
    rig.after(2).await;
    assert_eq!(rig.table.with(|inner| inner.rows.len()), 3 * crate::MOST_ROWS);
    let statements = rig.table.with(|inner| inner.statements);
    assert!(statements < 16, "{statements} statements");
    rig.ledger.went(&user("u7"));
    rig.after(1).await;
    assert_eq!((rig.table.names("u7"), rig.table.names("u8")), (None, Some("me")));
    rig.end.send(()).unwrap();
    rig.running.await.unwrap();
    assert!(rig.table.with(|inner| inner.rows.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn what_was_said_while_the_table_was_away_is_written_when_it_is_back() {
    let rig = rig(Table::default());
    rig.ledger.came(&user("ada"));
    rig.ledger.came(&user("bob"));
    rig.after(1).await;
    rig.table.with(|inner| inner.is_away = true);
    rig.ledger.went(&user("ada"));
    rig.ledger.came(&user("eve"));
    rig.after(60).await;
    assert!(!rig.seen.ready.load(Ordering::Relaxed));
    // It forgot something meanwhile.
    rig.table.with(|inner| {
        inner.is_away = false;
        inner.rows.remove("bob");
    });
    rig.after(15).await;
    assert!(rig.seen.ready.load(Ordering::Relaxed));
    let rows = ["ada", "bob", "eve"].map(|name| rig.table.names(name));
    assert_eq!(rows, [None, Some("me"), Some("me")]);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_names_nobody_is_taken_over_and_anothers_is_left() {
    let rig = rig(Table::default());
    rig.ledger.came(&user("ada"));
    rig.ledger.came(&user("bob"));
    rig.after(1).await;
    rig.table.with(|inner| {
        inner.rows.remove("ada");
        inner.rows.insert("bob".into(), "other");
    });
    rig.after(11).await;
    assert_eq!(
        (rig.table.names("ada"), rig.table.names("bob")),
        (Some("me"), Some("other"))
    );
    rig.ledger.went(&user("bob"));
    rig.after(1).await;
    assert_eq!(rig.table.names("bob"), Some("other"));
}

#[tokio::test(start_paused = true)]
async fn a_user_that_the_table_cannot_hold_keeps_nobody_else_out() {
    let rig = rig(Table::default());
    for n in 0..99 {
        rig.ledger.came(&user(&format!("u{n}")));
    }
    rig.ledger.came(&user("bad"));
    rig.after(1).await;
    assert_eq!(rig.table.with(|inner| inner.rows.len()), 99);
    assert!(rig.seen.unfit.load(Ordering::Relaxed) && rig.seen.ready.load(Ordering::Relaxed));
    let before = rig.table.with(|inner| inner.statements);
    rig.after(60).await;
    let more = rig.table.with(|inner| inner.statements) - before;
    assert!(more < 30, "it is not tried again and again: {more}");
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_left_goes_and_a_lapse_is_mended() {
    let table = Table::default();
    table.with(|inner| inner.rows.insert("old".into(), "me"));
    let rig = rig(table);
    rig.ledger.came(&user("ada"));
    rig.after(1).await;
    assert_eq!(
        (rig.table.names("old"), rig.table.names("ada")),
        (None, Some("me"))
    );
    rig.table.with(|inner| {
        inner.has_lapsed = true;
        inner.rows.clear();
    });
    rig.after(6).await;
    assert_eq!(rig.table.names("ada"), Some("me"));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_takes_few_rows_and_its_time_is_written_and_the_lease_holds() {
    let table = Table::default();
    table.with(|inner| {
        inner.takes = Some(5);
        inner.takes_time = Duration::from_secs(2);
    });
    let rig = rig_of(table, 64);
    for n in 0..200 {
        rig.ledger.came(&user(&format!("u{n}")));
    }
    rig.after(600).await;
    rig.table.with(|inner| {
        assert_eq!(inner.rows.len(), 200);
        assert!(
            inner.without_beat < Duration::from_secs(15),
            "{:?}",
            inner.without_beat
        );
    });
}
