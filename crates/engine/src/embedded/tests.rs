//! The embedded engine before the contract, on disk and in memory.

use super::{Embedded, EmbeddedOptions};
use crate::Engine;
use crate::contract::{Instance, Subject, run};
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
        self.engine = Some(Arc::new(Embedded::open(self.clock.options(self.dir.as_ref())).unwrap()));
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
