//! What is said to SQS of messages, of those in somebody's hands and of those that wait behind them.

use super::{Held, Pump, now};
use crate::queue::SourceFault;
use crate::sqs::holds::{Holding, Holds};
use crate::sqs::settle::{Order, What};
use futures_util::future::join_all;
use std::sync::Arc;
use tokio::sync::oneshot;

impl Pump {
    /// Says what becomes of a message.
    pub async fn say(&self, queue: &Arc<str>, handle: &str, what: What) -> Result<(), SourceFault> {
        self.order(queue, handle, what, None).await
    }

    /// Says that it is nobody else's for so many seconds more.
    pub async fn hold(
        &self,
        queue: &Arc<str>,
        handle: &str,
        holds: &Holds,
        time: i32,
    ) -> Result<(), SourceFault> {
        match holds.begin() {
            None => Ok(()),
            holding => self.order(queue, handle, What::Hold(time), holding).await,
        }
    }

    async fn order(
        &self,
        queue: &Arc<str>,
        handle: &str,
        what: What,
        holding: Option<Holding>,
    ) -> Result<(), SourceFault> {
        let (done, told) = oneshot::channel();
        let order = Order {
            queue: queue.clone(),
            handle: handle.to_owned(),
            what,
            _holding: holding,
            done,
        };
        let closed = || SourceFault::Away("it was closed".into());
        self.orders.send(order).await.map_err(|_| closed())?;
        told.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Makes messages visible again at once.
    pub async fn release(&self, held: Vec<Held>) {
        self.give_back(held, 0).await;
    }

    /// Makes messages visible again after so many seconds.
    pub async fn give_back(&self, held: Vec<Held>, after: i32) {
        let said = held.iter().map(|one| async move {
            one.holds.ended().await;
            self.say(&one.queue, &one.incoming.handle, What::GiveBack(after))
                .await
        });
        let said = join_all(said).await;
        if let Some(fault) = said.into_iter().find_map(Result::err) {
            tracing::info!(%fault, "messages could not be given back; they come again in their time");
        }
    }

    /// The one of this group that was out is done with.
    pub fn let_out_next(&self, group: &str) {
        let mut state = self.state();
        if let Some(next) = state.groups.done(group) {
            state.ready.push_front(next);
            drop(state);
            self.arrived.notify_waiters();
        }
        self.tally.changed.notify_one();
    }

    /// What waits behind the one of this group that is out; from now on it does not.
    pub fn behind(&self, group: &str) -> Vec<Held> {
        let behind = self.state().groups.back(group);
        self.tally.changed.notify_one();
        behind
    }

    /// What waits behind the one of this group that is out, to be hidden as long as it.
    pub fn keep_behind(&self, group: &str) -> Vec<(String, Holds)> {
        let came = now();
        let mut state = self.state();
        let behind = state.groups.behind_mut(group);
        let kept = behind.map(|held| {
            held.came = came;
            (held.incoming.handle.clone(), held.holds.clone())
        });
        kept.collect()
    }
}
