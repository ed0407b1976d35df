//! How long something took, by a clock that stands still while this process does.
//!
//! A machine that stops a test for seconds, or gives it no processor, says nothing of how fast the product is.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Builder;
use std::time::Duration;

const STEP: Duration = Duration::from_millis(5);

/// A moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnTime(u64);

impl OwnTime {
    pub(crate) fn now() -> OwnTime {
        OwnTime(steps().load(Ordering::Relaxed))
    }

    /// However late a step comes, it counts as one.
    pub(crate) fn elapsed(self) -> Duration {
        let steps = OwnTime::now().0 - self.0;
        STEP * u32::try_from(steps).unwrap_or(u32::MAX)
    }
}

fn steps() -> &'static AtomicU64 {
    static STEPS: OnceLock<&'static AtomicU64> = OnceLock::new();
    STEPS.get_or_init(|| {
        let steps: &AtomicU64 = Box::leak(Box::default());
        let count = move || {
            loop {
                std::thread::sleep(STEP);
                steps.fetch_add(1, Ordering::Relaxed);
            }
        };
        Builder::new()
            .name("own time".into())
            .spawn(count)
            .expect("a thread");
        steps
    })
}
