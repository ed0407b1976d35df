//! The embedded engine before the contract, on disk and in memory.

use super::codec::key;
use super::store::{Batch, Memory, Store, Table};
use super::{Embedded, EmbeddedOptions, Rules};
use crate::Engine;
use crate::Feeds;
use crate::Settlements;
use crate::contract::{Instance, Make, Subject, run};
use async_trait::async_trait;
use postrider_model::{
    DeadLetterFilter, DeadReason, FeedId, Millis, NotificationId, SettleKind, SettleTarget, State, Timestamp,
    UserId,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone, Default)]
pub(super) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::SeqCst);
    }
    pub fn options(&self, dir: Option<&tempfile::TempDir>) -> EmbeddedOptions {
        let clock = self.0.clone();
        EmbeddedOptions {
            data_dir: dir.map(|dir| dir.path().to_owned()),
            rules: Rules::default(),
            clock: Arc::new(move || Timestamp(clock.load(Ordering::SeqCst))),
            on_commit: Box::new(|_, _| {}),
        }
    }
}

/// An embedded engine with a clock that is set by hand.
pub(super) struct Here {
    pub engine: Option<Arc<Embedded>>,
    pub clock: Clock,
    pub rules: Rules,
    pub dir: Option<tempfile::TempDir>,
}

impl Here {
    pub fn open(on_disk: bool, now: Timestamp) -> Here {
        Here::with(on_disk, now, Rules::default())
    }
    pub fn with(on_disk: bool, now: Timestamp, rules: Rules) -> Here {
        let dir = on_disk.then(|| tempfile::tempdir().unwrap());
        Here::at(dir, now, rules)
    }
    /// In a directory that is there.
    pub fn in_dir(dir: tempfile::TempDir, now: Timestamp) -> Here {
        Here::at(Some(dir), now, Rules::default())
    }
    fn at(dir: Option<tempfile::TempDir>, now: Timestamp, rules: Rules) -> Here {
        let clock = Clock::default();
        clock.set(now);
        let options = EmbeddedOptions {
            rules: rules.clone(),
            ..clock.options(dir.as_ref())
        };
        let engine = Embedded::open(options).unwrap();
        Here {
            rules,
            engine: Some(Arc::new(engine)),
            clock,
            dir,
        }
    }
    pub fn embedded(&self) -> &Arc<Embedded> {
        self.engine.as_ref().unwrap()
    }
}

#[async_trait]
impl Instance for Here {
    fn engine(&self) -> Arc<dyn Engine> {
        self.embedded().clone()
    }
    fn set_time(&self, now: Timestamp) {
        self.clock.set(now);
    }
    async fn tick(&self) {
        self.embedded().tick().await.unwrap();
    }
    async fn restart(&mut self) -> bool {
        if self.dir.is_none() {
            return false;
        }
        self.engine.take().unwrap().close();
        let options = EmbeddedOptions {
            rules: self.rules.clone(),
            ..self.clock.options(self.dir.as_ref())
        };
        self.engine = Some(Arc::new(Embedded::open(options).unwrap()));
        true
    }
    async fn close(&self) {
        self.embedded().close();
    }
}

struct Embeddeds {
    on_disk: bool,
}

#[async_trait]
impl Subject for Embeddeds {
    async fn open(&self, now: Timestamp, rules: Rules) -> Box<dyn Instance> {
        Box::new(Here::with(self.on_disk, now, rules))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_on_disk() {
    if let Err(faults) = run(&Embeddeds { on_disk: true }).await {
        panic!("{faults}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_in_memory() {
    if let Err(faults) = run(&Embeddeds { on_disk: false }).await {
        panic!("{faults}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_publishers_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let commits = Arc::new(AtomicU64::new(0));
    let counter = commits.clone();
    let mut options = Clock::default().options(Some(&dir));
    options.on_commit = Box::new(move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let engine = Arc::new(Embedded::open(options).unwrap());
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..256 {
        let engine = engine.clone();
        callers.spawn(async move {
            for m in 0..10 {
                let make = Make::new(format!("n-{n}-{m}")).user(&format!("u{n}"));
                let answer = engine.publish(vec![make.publication(Timestamp(0))]).await;
                assert!(answer[0].is_ok(), "{answer:?}");
            }
        });
    }
    callers.join_all().await;
    let commits = commits.load(Ordering::SeqCst);
    assert!(
        commits < 256,
        "{commits} commits for 2560 publications of 256 publishers"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_for_one_transaction_is_split() {
    let here = Here::open(false, Timestamp(1));
    let (engine, kit) = (here.embedded().clone(), |id: String| {
        Make::new(id)
            .users((0..300).map(|n| format!("u{n}")))
            .publication(Timestamp(1))
    });
    let batch = (0..60).map(|n| kit(format!("n-{n}"))).collect();
    let answers = engine.publish(batch).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let feed = kit("x".into()).feeds[7].clone();
    let limit = crate::ReadLimit {
        entries: 100,
        bytes: usize::MAX,
    };
    let page = engine.read(&feed, 0, limit).await.unwrap();
    let ids: Vec<_> = page
        .entries
        .iter()
        .filter_map(|e| e.notification())
        .map(|n| n.id.to_string())
        .collect();
    assert_eq!(ids, (0..60).map(|n| format!("n-{n}")).collect::<Vec<_>>());
}

/// What is damaged becomes a dead letter; what is not is delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_middle_is_given_up_and_the_rest_is_read() {
    let store = Arc::new(Memory::default());
    let now = Timestamp(1_000_000);
    let here = Here::open(false, now);
    let engine = Embedded::with_store(store.clone(), None, here.clock.options(None)).unwrap();
    let mut batch = Vec::new();
    for n in 1..=6 {
        batch.push(Make::new(format!("n-{n}")).users(["ada", "bob"]).publication(now));
        batch.push(Make::new(format!("e-{n}")).publication(now));
    }
    assert!(engine.publish(batch).await.iter().all(Result::is_ok));
    let (ada, all) = (FeedId::User(UserId::new("ada").unwrap()), FeedId::All);
    let mut damage = Batch::default();
    damage.put(Table::Notifications, b"n-2".to_vec(), b"\x02gone".to_vec());
    damage.remove(Table::Notifications, b"n-3".to_vec());
    // Nothing but bob's entry says any more that this one is for bob.
    let (n3, bob) = (NotificationId::new("n-3").unwrap(), UserId::new("bob").unwrap());
    damage.remove(Table::Recipients, key::recipient(&n3, &bob));
    damage.put(Table::Entries, key::entry(&ada, 5), b"\x02?".to_vec());
    damage.put(Table::Notifications, b"e-4".to_vec(), Vec::new());
    store.commit(&damage, true).unwrap();

    let limit = crate::ReadLimit {
        entries: 100,
        bytes: usize::MAX,
    };
    let engine: Arc<dyn Engine> = Arc::new(engine);
    let read = async |user: &str, feed: &FeedId| {
        let user = UserId::new(user).unwrap();
        let wanted = crate::PageWanted {
            user,
            feed: feed.clone(),
            member: false,
            after: 0,
            limit,
        };
        let page = crate::read_inbox(&*engine, wanted, now).await.unwrap();
        let pending = page
            .entries
            .iter()
            .filter(|one| one.state == Some(State::Pending) && !one.dismissed);
        let ids = pending.filter_map(|one| Some(one.entry.notification()?.id.to_string()));
        ids.collect::<Vec<_>>()
    };
    assert_eq!(read("ada", &ada).await, ["n-1", "n-4", "n-6"]);
    let bob = FeedId::User(UserId::new("bob").unwrap());
    assert_eq!(read("bob", &bob).await, ["n-1", "n-4", "n-5", "n-6"]);
    assert_eq!(read("bob", &all).await, ["e-1", "e-2", "e-3", "e-5", "e-6"]);

    let letters = engine
        .dead_letters(&DeadLetterFilter::default(), None, 100)
        .await
        .unwrap()
        .letters;
    let mut lost: Vec<_> = letters
        .iter()
        .map(|letter| {
            assert_eq!(letter.reason, DeadReason::Lost);
            let name = |id: &Option<NotificationId>| id.as_ref().map_or("?".into(), ToString::to_string);
            let user = letter
                .user
                .as_ref()
                .map_or("everyone".into(), ToString::to_string);
            format!("{} {user}", name(&letter.notification))
        })
        .collect();
    lost.sort();
    assert_eq!(
        lost,
        [
            "? ada",
            "e-4 everyone",
            "n-2 ada",
            "n-2 bob",
            "n-3 ada",
            "n-3 bob"
        ]
    );
    let states = |id: &str| {
        let (id, engine) = (NotificationId::new(id).unwrap(), engine.clone());
        async move { engine.recipients(&id, crate::Recipients::All).await.unwrap() }
    };
    let dead =
        |states: Vec<crate::RecipientState>| states.iter().filter(|one| one.state == State::Dead).count();
    assert_eq!(dead(states("n-2").await), 2);
    assert_eq!(dead(states("n-5").await), 1, "where ada's entry was damaged");
    assert_eq!(
        engine.redrive(vec![letters[0].id]).await.unwrap(),
        [crate::Redriven::Impossible]
    );
}

/// Publications of one batch may be of different publishers: what one meets is not the others' trouble.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_refuses_its_own_publication_and_no_other() {
    let store = Arc::new(Memory::default());
    let begin = Timestamp(1_000_000);
    let here = Here::open(false, begin);
    let options = here.clock.options(None);
    let engine = Arc::new(Embedded::with_store(store.clone(), None, options).unwrap());
    let publish = async |ids: &[String]| {
        let make = |id: &String| Make::new(id.as_str()).user("ada").publication(begin);
        engine.publish(ids.iter().map(make).collect()).await
    };
    let ids: Vec<String> = (0..40).map(|n| format!("n-{n}")).collect();
    assert!(publish(&ids).await.iter().all(Result::is_ok));
    let damage_some = |which: &dyn Fn(usize) -> bool| {
        let mut damage = Batch::default();
        for (_, id) in ids.iter().enumerate().filter(|(n, _)| which(*n)) {
            damage.put(Table::Notifications, id.clone().into(), b"\x02gone".to_vec());
        }
        store.commit(&damage, true).unwrap();
    };
    damage_some(&|n| n % 10 == 3);
    let receipts = publish(&ids).await;
    for (n, receipt) in receipts.iter().enumerate() {
        assert_eq!(receipt.is_err(), n % 10 == 3, "{n}: {receipt:?}");
    }
    // With too many of them, what is left of the batch is refused; nothing is answered twice, or never.
    damage_some(&|_| true);
    let receipts = publish(&ids).await;
    assert!(receipts.len() == ids.len() && receipts.iter().all(Result::is_err));
    let others: Vec<String> = (0..3).map(|n| format!("later-{n}")).collect();
    assert!(publish(&others).await.iter().all(Result::is_ok));
}

/// What is wrong with one record is not the others' trouble: not when it is due, when it grows old, when its
/// feed is full, nor when somebody speaks of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_stops_nobody_else() {
    let store = Arc::new(Memory::default());
    let (begin, second) = (Timestamp(1_000_000), Millis::from_secs(1));
    let rules = Rules {
        age: Millis::from_secs(10),
        entries_per_feed: 2,
        ..Rules::default()
    };
    let here = Here::with(false, begin, rules.clone());
    let options = EmbeddedOptions {
        rules,
        ..here.clock.options(None)
    };
    let engine = Arc::new(Embedded::with_store(store.clone(), None, options).unwrap());
    let publish = async |makes: Vec<Make>| {
        engine
            .publish(makes.iter().map(|make| make.publication(begin)).collect())
            .await
    };
    let later = |id: &str| Make::new(id).user("cyd").deliver_in(second);
    let makes = vec![
        Make::new("a-1").user("ada"),
        Make::new("a-2").user("ada"),
        later("l-1"),
        later("l-2"),
        Make::new("b-1").user("bob").ttl(second),
        Make::new("d-1").user("dan").ttl(second),
    ];
    assert!(publish(makes).await.iter().all(Result::is_ok));
    let mut damage = Batch::default();
    for id in ["a-1", "l-1"] {
        damage.put(Table::Notifications, id.into(), b"\x02gone".to_vec());
    }
    // This one stands whole in its entry, and falls due with others.
    let dan = FeedId::User(UserId::new("dan").unwrap());
    damage.put(Table::Entries, key::entry(&dan, 1), b"\x03gone".to_vec());
    store.commit(&damage, true).unwrap();

    // The oldest of a full feed, beside somebody else's in one batch.
    let both = publish(vec![Make::new("a-3").user("ada"), Make::new("b-2").user("bob")]).await;
    assert!(both.iter().all(Result::is_ok), "{both:?}");
    // An acknowledgement of what is damaged, beside one that is not.
    let ids = |name: &str| {
        crate::contract::settlement(
            name,
            SettleKind::Delivered,
            SettleTarget::Ids(vec![NotificationId::new("l-1").unwrap()]),
        )
    };
    drop(
        engine
            .settle(vec![ids("cyd").unwrap()], crate::Sync::Durable)
            .await,
    );
    assert!(!engine.is_failing());
    here.clock.set(begin.plus(second));
    engine.tick().await.unwrap();
    let state = async |id: &str, user: &str| {
        let which = crate::Recipients::One(UserId::new(user).unwrap());
        let states = engine
            .recipients(&NotificationId::new(id).unwrap(), which)
            .await
            .unwrap();
        states.first().map(|one| one.state)
    };
    assert_eq!(
        state("b-1", "bob").await,
        Some(State::Expired),
        "what else was due"
    );
    assert_eq!(
        state("l-2", "cyd").await,
        Some(State::Pending),
        "what else was scheduled"
    );
    assert_eq!(state("a-1", "ada").await, Some(State::Dead), "what was damaged");
    let mut damage = Batch::default();
    damage.put(Table::Notifications, b"a-2".to_vec(), b"\x02gone".to_vec());
    store.commit(&damage, true).unwrap();
    here.clock.set(begin.plus(Millis::from_secs(30)));
    engine.tick().await.unwrap();
    assert_eq!(
        state("b-2", "bob").await,
        Some(State::Expired),
        "what else grew old"
    );
}

/// What is whole is not given up because a feed that it is for cannot be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_scheduled_waits_for_a_damaged_feed() {
    let store = Arc::new(Memory::default());
    let (begin, second) = (Timestamp(1_000_000), Millis::from_secs(1));
    let here = Here::open(false, begin);
    let open = || Embedded::with_store(store.clone(), None, here.clock.options(None)).unwrap();
    let engine = open();
    let makes = [
        Make::new("a-1").user("ada"),
        Make::new("s-1").users(["ada", "bob"]).deliver_in(second),
    ];
    let published = engine.publish(makes.iter().map(|make| make.publication(begin)).collect());
    assert!(published.await.iter().all(Result::is_ok));
    drop(engine);
    let ada = key::entry(&FeedId::User(UserId::new("ada").unwrap()), 1);
    let whole = store.view().unwrap().get(Table::Entries, &ada).unwrap().unwrap();
    let put = |value: Vec<u8>| {
        let mut change = Batch::default();
        change.put(Table::Entries, ada.clone(), value);
        store.commit(&change, true).unwrap();
    };
    put(b"\x03gone".to_vec());
    // A new one, which holds nothing in memory.
    let engine = open();
    let bob = FeedId::User(UserId::new("bob").unwrap());
    let is_delivered = async || {
        let stored = engine.lookup(&NotificationId::new("s-1").unwrap()).await.unwrap();
        assert!(stored.is_some_and(|stored| !stored.notification.data.is_empty()));
        let limit = crate::ReadLimit {
            entries: 100,
            bytes: usize::MAX,
        };
        let page = engine.read(&bob, 0, limit).await.unwrap();
        assert!(page.entries.len() <= 1, "{page:?}");
        !page.entries.is_empty()
    };
    here.clock.set(begin.plus(second));
    engine.tick().await.unwrap();
    assert!(!is_delivered().await);
    put(whole);
    here.clock.set(begin.plus(Millis::from_secs(62)));
    engine.tick().await.unwrap();
    assert!(is_delivered().await);
}

/// What stands whole in an entry needs the row under its id only to be found by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_row_that_says_where_a_notification_stands_is_made_anew() {
    for lost in [None, Some(b"\x02gone".to_vec())] {
        let store = Arc::new(Memory::default());
        let now = Timestamp(1_000_000);
        let here = Here::open(false, now);
        let engine = Embedded::with_store(store.clone(), None, here.clock.options(None)).unwrap();
        let made = Make::new("a").user("ada").publication(now);
        assert!(engine.publish(vec![made]).await[0].is_ok());
        let mut damage = Batch::default();
        match lost {
            Some(value) => damage.put(Table::Notifications, b"a".to_vec(), value),
            None => damage.remove(Table::Notifications, b"a".to_vec()),
        }
        store.commit(&damage, true).unwrap();
        let ada = FeedId::User(UserId::new("ada").unwrap());
        let repaired = engine.ask(|reply| super::Command::Repair(ada, 1, reply)).await;
        repaired.unwrap();
        let id = NotificationId::new("a").unwrap();
        let which = crate::Recipients::All;
        let states = engine.recipients(&id, which).await.unwrap();
        assert_eq!(states[0].state, State::Pending);
        assert_eq!(engine.cancel(&id).await.unwrap(), Some(Some(1)));
    }
}

/// Each expires when it was said to, however long notifications are kept by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_age_after_a_restart_changes_nothing_about_what_expires() {
    let seconds = Millis::from_secs;
    for (before, after) in [(10, 100), (100, 10)] {
        let begin = Timestamp(1_000_000);
        let rules = Rules {
            age: seconds(before),
            ..Rules::default()
        };
        let mut here = Here::with(true, begin, rules);
        let made = ["a", "b"].map(|id| Make::new(id).user("ada").ttl(seconds(before)).publication(begin));
        let receipts = here.engine().publish(made.to_vec()).await;
        assert!(receipts.iter().all(Result::is_ok));
        here.rules.age = seconds(after);
        assert!(here.restart().await);
        let state = async |here: &Here| {
            let id = NotificationId::new("b").unwrap();
            let states = here.engine().recipients(&id, crate::Recipients::All).await;
            states.unwrap()[0].state
        };
        assert_eq!(state(&here).await, State::Pending);
        here.set_time(begin.plus(seconds(11)));
        here.tick().await;
        // Its life was over, or it was not kept any longer.
        assert_eq!(state(&here).await, State::Expired, "{before} then {after}");
        let ada = FeedId::User(UserId::new("ada").unwrap());
        let limit = crate::ReadLimit {
            entries: 100,
            bytes: usize::MAX,
        };
        let entries = here.engine().read(&ada, 0, limit).await.unwrap().entries;
        let marks = entries.iter().filter(|entry| entry.notification().is_none());
        assert_eq!(marks.count(), if after > before { 2 } else { 0 });
        here.set_time(begin.plus(seconds(before.max(after) + 1)));
        here.tick().await;
        let entries = here.engine().read(&ada, 0, limit).await.unwrap().entries;
        assert!(entries.iter().all(|entry| entry.notification().is_none()));
    }
}
