//! Which of what nobody asked for falls to this node: what is due, what is too old, what another node left in the
//! middle. By the book of [`leases`](super::leases), which is read and renewed here.
//!
//! Invariant: two nodes that both believe they hold a part do each thing once all the same, since what they do rests on
//! the same rows. So the leases spare work, and nothing depends on them.

use super::engine::Shared;
use super::leases::{Book, LEASE};
use super::links::Cell;
use super::store::RedisStore;
use crate::embedded::lanes::{LANES, Share};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot::{Receiver, Sender, channel};
use tokio::task::{JoinError, JoinHandle, JoinSet};

/// How often the lease is renewed. Whoever begins, and whoever takes over, has its part within two of them.
const STEP: Duration = Duration::from_millis(500);
/// Every so many steps what others left in the middle is looked for in a Cluster; and elsewhere, where a transaction
/// is one call, and nothing of this kind is left but what a time in a Cluster left.
const FINISH_STEPS: u32 = 2;
const FINISH_STEPS_OUTSIDE: u32 = 20;
/// A writer that came to nothing of what falls to it for so many steps in a row is held up, and others do it.
const MISSED_STEPS: u32 = 5;
/// Every so many steps the book is read whole: a failover may have taken some of its changes back.
const WHOLE_STEPS: u32 = 16;

const _: () = assert!(LEASE.as_millis() >= 4 * STEP.as_millis());
/// What was left in the middle in a cell is finished by whoever has the lane of this number.
const _: () = assert!(LANES == super::links::CELLS);

/// The task that sees to the lease.
pub(super) struct House {
    stop: Sender<()>,
    task: JoinHandle<()>,
}

impl House {
    pub fn start(handle: &Handle, store: RedisStore, engine: &Arc<Shared>) -> House {
        let (stop, stopped) = channel();
        let task = handle.spawn(keep(store, Arc::downgrade(engine), stopped));
        House { stop, task }
    }

    /// Lets go of all that falls to this node, so that others take it at once.
    pub async fn close(self) {
        drop(self.stop);
        if self.task.await.is_err() {
            tracing::error!("whoever saw to the lease panicked");
        }
    }

    /// Ends as a killed node does: nothing is let go.
    #[cfg(test)]
    pub fn die(self) {
        self.task.abort();
    }
}

async fn keep(store: RedisStore, engine: Weak<Shared>, mut stopped: Receiver<()>) {
    let (mut turn, mut book) = (0_u32, Book::default());
    let mut pulse = Pulse::default();
    // What takes longer than a step does not keep the lease from being renewed. Ends with this task.
    let mut finishing = JoinSet::new();
    while let Some(chores) = engine.upgrade().map(|engine| engine.chores()) {
        if turn.is_multiple_of(WHOLE_STEPS) {
            book = Book::default();
        }
        let share = attend(&store, &mut book, &mut pulse, chores).await;
        store.set_share(share);
        let steps = if store.links().is_cluster() {
            FINISH_STEPS
        } else {
            FINISH_STEPS_OUTSIDE
        };
        while let Some(ended) = finishing.try_join_next() {
            say_panic(&ended);
        }
        let is_time = turn.is_multiple_of(steps) && !share.is_empty() && finishing.is_empty();
        if let Some(engine) = engine.upgrade().filter(|_| is_time) {
            finishing.spawn(finish(store.clone(), engine, share));
        }
        turn = turn.wrapping_add(1);
        if tokio::time::timeout(STEP, &mut stopped).await.is_ok() {
            break;
        }
    }
    store.set_share(Share::NONE);
    if let Err(fault) = store.leave().await {
        tracing::debug!(%fault, "the lease runs out by itself");
    }
    while let Some(ended) = finishing.join_next().await {
        say_panic(&ended);
    }
}

/// One step: renews the lease, where the writer does anything with what falls to it; else lets go of that, so that
/// others do it. `chores`: how often the writer came to it. What falls to this node now.
async fn attend(store: &RedisStore, book: &mut Book, pulse: &mut Pulse, chores: u64) -> Share {
    let told = match pulse.felt(chores) {
        true => store.attend(book).await,
        false => store.leave().await.map(|()| Book::default()),
    };
    match told {
        Ok(told) => {
            *book = told;
            book.share(&store.name())
        }
        Err(fault) => {
            // Redis is away, and the writer waits for it as all others do.
            pulse.rest();
            tracing::debug!(%fault, "the lease cannot be renewed");
            Share::NONE
        }
    }
}

/// Whether the writer does anything.
#[derive(Debug, Default)]
struct Pulse {
    /// How often it had come to what nobody asked for.
    chores: u64,
    /// Steps in a row in which it did not.
    missed: u32,
}

impl Pulse {
    /// In each step. False: it is held up for too long.
    fn felt(&mut self, chores: u64) -> bool {
        let has_moved = std::mem::replace(&mut self.chores, chores) != chores;
        self.missed = if has_moved {
            0
        } else {
            self.missed.saturating_add(1)
        };
        self.missed < MISSED_STEPS
    }

    /// Nothing is known of it.
    fn rest(&mut self) {
        self.missed = 0;
    }
}

fn say_panic(ended: &Result<(), JoinError>) {
    if ended.as_ref().is_err_and(JoinError::is_panic) {
        tracing::error!("whoever finished what others had left panicked");
    }
}

/// Finishes what other nodes left in the middle, in the cells that fall to this one.
async fn finish(store: RedisStore, engine: Arc<Shared>, share: Share) {
    let cells: Vec<_> = share.lanes().map(Cell).collect();
    match engine.readers().run(move || store.finish_abandoned(&cells)).await {
        Ok(Ok(0)) | Err(_) => {}
        Ok(Ok(count)) => tracing::info!(count, "finished what another node had left in the middle"),
        Ok(Err(fault)) => tracing::warn!(%fault, "what other nodes left cannot be looked at"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_that_is_held_up_is_told_from_one_that_is_not() {
        let mut pulse = Pulse::default();
        assert!((1..20).all(|chores| pulse.felt(chores)));
        let held_up: Vec<_> = (0..9).map(|_| pulse.felt(19)).collect();
        assert_eq!(
            held_up,
            [true, true, true, true, false, false, false, false, false]
        );
        assert!(pulse.felt(20), "it goes on");
        // While Redis is away that says nothing.
        for _ in 0..20 {
            assert!(pulse.felt(20));
            pulse.rest();
        }
    }
}
