//! The embedded engine before the contract, on disk and in memory.

use super::{Embedded, EmbeddedOptions};
use crate::Engine;
use crate::Feeds;
use crate::contract::{Instance, Make, Subject, run};
use async_trait::async_trait;
use postrider_model::Timestamp;
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
            clock: Arc::new(move || Timestamp(clock.load(Ordering::SeqCst))),
            on_commit: Box::new(|_, _| {}),
        }
    }
}

/// An embedded engine with a clock that is set by hand.
pub(super) struct Here {
    pub engine: Option<Arc<Embedded>>,
    pub clock: Clock,
    pub dir: Option<tempfile::TempDir>,
}

impl Here {
    pub fn open(on_disk: bool, now: Timestamp) -> Here {
        let dir = on_disk.then(|| tempfile::tempdir().unwrap());
        let clock = Clock::default();
        clock.set(now);
        let engine = Embedded::open(clock.options(dir.as_ref())).unwrap();
        Here {
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
        self.engine = Some(Arc::new(
            Embedded::open(self.clock.options(self.dir.as_ref())).unwrap(),
        ));
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
    async fn open(&self, now: Timestamp) -> Box<dyn Instance> {
        Box::new(Here::open(self.on_disk, now))
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
