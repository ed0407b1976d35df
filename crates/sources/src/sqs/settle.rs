//! What becomes of messages, said to SQS in batches: what is to be said about the same time goes together.
//!
//! A batch that did not get there, and the words that SQS did not take of one that did, are said again by themselves after
//! growing pauses with jitter, for as long as that may still matter: who gave an order need not care that SQS fails now and
//! then, and one call that fails makes no message come again.
//!
//! Invariant: every [`Order`] is answered, once its word was taken, cannot be, or was in vain for as long as its message is
//! surely ours: within [`PATIENCE`] and the time of one call, however many wait and however SQS hangs. A hold that nobody
//! waits for any more is not said.

use super::aws::{Service, Untaken, Word, fault, is_fifo};
use super::batches::{Batches, Kind};
use super::holds::Holding;
use super::{BATCH_MOST, Random};
use crate::queue::{Pauses, SourceFault};
use postrider_aws::Trouble;
use postrider_model::Millis;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What is ordered within this goes together, unless a batch is full before. Nobody waits for it but who closes.
const GATHER: Duration = Duration::from_millis(20);
/// The same of a FIFO queue, where the next of a group waits for it.
const GATHER_FIFO: Duration = Duration::from_millis(5);
/// Orders that wait to be gathered; above this, who gives one waits.
pub(super) const ORDERS_MOST: usize = 1_024;
/// Calls under way at the same time; above this, batches wait, and those whose patience is over by then are not said. There
/// are no more of these than who gave the orders has unsettled messages.
const CALLS_MOST: usize = 32;
/// Before something is said again.
const AGAIN: Pauses = Pauses {
    first: Millis(50),
    most: Millis(2_000),
};
/// No call begins after this. A node that drains while SQS is away waits as long, and for the call that is under way then.
const PATIENCE: Duration = Duration::from_secs(5);
/// How SQS says that a message is with nobody.
const NOT_OUT: &str = "MessageNotInflight";

/// A word to be said of a message.
pub(super) struct Order {
    pub queue: Arc<str>,
    pub handle: String,
    pub what: What,
    /// Of a hold: until it is answered nobody gives the message back.
    pub _holding: Option<Holding>,
    pub done: oneshot::Sender<Result<(), SourceFault>>,
}

/// What is said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Delete,
    /// It is anybody's in so many seconds. Where it is already, all is well.
    GiveBack(i32),
    /// It is nobody else's for so many seconds more.
    Hold(i32),
}

impl What {
    fn visible_in(self) -> Option<i32> {
        match self {
            What::Delete => None,
            What::GiveBack(seconds) | What::Hold(seconds) => Some(seconds),
        }
    }
}

impl Order {
    /// For how long it is worth saying: after its visibility a message comes again whatever is said, and before a third of it
    /// is over who holds one says so again.
    fn patience(&self, visibility: Duration) -> Duration {
        let worth = match self.what {
            What::Delete | What::GiveBack(_) => visibility,
            What::Hold(_) => visibility / 4,
        };
        worth.min(PATIENCE)
    }
}

/// Says what is ordered, for as long as somebody may give orders.
pub(super) async fn run(mut orders: mpsc::Receiver<Order>, service: Arc<Service>, random: Random) {
    let voice = Arc::new(Voice {
        service,
        calls: Semaphore::new(CALLS_MOST),
        random,
    });
    let (mut batches, mut due) = (Batches::new(), None::<Instant>);
    let mut saying = JoinSet::new();
    let mut came = Vec::with_capacity(ORDERS_MOST);
    loop {
        let gathered = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            count = orders.recv_many(&mut came, ORDERS_MOST) => if count == 0 { break },
            () = gathered => {
                due = None;
                for (kind, batch) in batches.take() {
                    saying.spawn(voice.clone().say(kind, batch));
                }
            }
            Some(_) = saying.join_next(), if !saying.is_empty() => {}
        }
        let time = now();
        for order in came.drain(..) {
            let kind = Kind {
                queue: order.queue.clone(),
                is_delete: order.what == What::Delete,
            };
            let until = time + if is_fifo(&kind.queue) { GATHER_FIFO } else { GATHER };
            due = Some(due.map_or(until, |due| due.min(until)));
            if let Some((kind, batch)) = batches.add(kind, order) {
                saying.spawn(voice.clone().say(kind, batch));
            }
        }
        if batches.is_empty() {
            due = None;
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a driver: how long something is said in vain"
)]
fn now() -> Instant {
    Instant::now()
}

/// What saying takes.
struct Voice {
    service: Arc<Service>,
    calls: Semaphore,
    random: Random,
}

impl Voice {
    /// Says a batch, and again what was not taken of it, until all of it is answered.
    async fn say(self: Arc<Self>, kind: Kind, mut batch: Vec<Order>) {
        if batch.iter().any(|order| matches!(order.what, What::GiveBack(_))) {
            self.service.gives_back();
        }
        let began = now();
        let visibility = self.service.access.visibility;
        for nth in 0.. {
            // It is never closed.
            let room = self.calls.acquire().await;
            batch = in_time(batch, began.elapsed(), visibility);
            if batch.is_empty() {
                return;
            }
            let said = self.call(&kind, &batch).await;
            drop(room);
            let pause = AGAIN.nth(nth, (self.random)()).as_duration();
            let then = began.elapsed() + pause;
            let may_again = |order: &Order| then < order.patience(visibility);
            batch = match said {
                Ok(untaken) => answer(batch, untaken, may_again),
                Err(trouble) => lost(batch, &trouble, may_again),
            };
            if batch.is_empty() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn call(&self, kind: &Kind, batch: &[Order]) -> Result<Vec<Untaken>, Trouble> {
        debug_assert!(batch.len() <= BATCH_MOST);
        let words: Vec<_> = batch
            .iter()
            .map(|order| Word {
                handle: &order.handle,
                visible_in: order.what.visible_in(),
            })
            .collect();
        match kind.is_delete {
            true => self.service.delete(&kind.queue, &words).await,
            false => self.service.show(&kind.queue, &words).await,
        }
    }
}

/// What of a batch is to be said now, so long after it was ordered: no hold that nobody waits for any more, and nothing whose
/// patience is over, which is answered.
fn in_time(batch: Vec<Order>, passed: Duration, visibility: Duration) -> Vec<Order> {
    let is_wanted = |order: &Order| !(matches!(order.what, What::Hold(_)) && order.done.is_closed());
    let (now, late): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .filter(is_wanted)
        .partition(|order| passed < order.patience(visibility));
    for order in late {
        let text = "SQS has not answered the calls before this one";
        tell(order, Err(SourceFault::Away(text.into())));
    }
    now
}

/// Answers a batch that did not get there; but those that may be said again are given back.
fn lost(batch: Vec<Order>, trouble: &Trouble, may_again: impl Fn(&Order) -> bool) -> Vec<Order> {
    let (again, over): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .partition(|order| trouble.is_transient() && may_again(order));
    for order in over {
        tell(order, Err(fault(trouble)));
    }
    again
}

/// Answers a batch that SQS took but for some: those that may be said again are given back.
fn answer(batch: Vec<Order>, untaken: Vec<Untaken>, may_again: impl Fn(&Order) -> bool) -> Vec<Order> {
    let mut untaken: std::collections::HashMap<usize, Untaken> =
        untaken.into_iter().map(|one| (one.index, one)).collect();
    let mut again = Vec::new();
    for (index, order) in batch.into_iter().enumerate() {
        let Some(one) = untaken.remove(&index) else {
            tell(order, Ok(()));
            continue;
        };
        let is_back = one.code.ends_with(NOT_OUT) && matches!(order.what, What::GiveBack(_));
        if is_back {
            tell(order, Ok(()));
        } else if !one.is_final && may_again(&order) {
            again.push(order);
        } else {
            let text = format!("{}: {}", one.code, one.text);
            tell(order, Err(SourceFault::Refused(text)));
        }
    }
    again
}

fn tell(order: Order, answer: Result<(), SourceFault>) {
    if order.done.send(answer).is_err() {
        tracing::trace!("nobody waits for the answer");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(what: What) -> (Order, oneshot::Receiver<Result<(), SourceFault>>) {
        let (done, told) = oneshot::channel();
        let (queue, handle) = ("q".into(), "h".into());
        let order = Order {
            queue,
            handle,
            what,
            _holding: None,
            done,
        };
        (order, told)
    }

    fn untaken(index: usize, is_final: bool, code: &str) -> Untaken {
        let (code, text) = (code.to_owned(), String::new());
        Untaken {
            index,
            is_final,
            code,
            text,
        }
    }

    #[test]
    fn what_is_late_is_answered_and_a_hold_that_nobody_waits_for_is_not_said() {
        const VISIBILITY: Duration = Duration::from_secs(8);
        let after = |passed| {
            let given = [What::Delete, What::GiveBack(0), What::Hold(8), What::Hold(8)];
            let (orders, mut told): (Vec<_>, Vec<_>) = given.map(order).into_iter().unzip();
            drop(told.pop());
            let now = in_time(orders, Duration::from_secs(passed), VISIBILITY);
            let late: Vec<_> = told.iter_mut().filter_map(|told| told.try_recv().ok()).collect();
            assert!(late.iter().all(|one| matches!(one, Err(SourceFault::Away(_)))));
            (now.len(), late.len())
        };
        assert_eq!(
            [0, 1, 2, 4, 5].map(after),
            [(3, 0), (3, 0), (2, 1), (2, 1), (0, 3)]
        );
    }

    #[test]
    fn one_that_failed_harms_no_other() {
        let given = [What::Delete, What::GiveBack(0), What::Hold(3), What::Delete];
        let (orders, mut told): (Vec<_>, Vec<_>) = given.map(order).into_iter().unzip();
        let failed = vec![
            untaken(0, false, "InternalError"),
            untaken(1, true, "AWS.SimpleQueueService.MessageNotInflight"),
            untaken(2, true, "MessageNotInflight"),
        ];
        let again = answer(orders, failed, |_| true);
        assert_eq!(again.len(), 1);
        assert!(told[0].try_recv().is_err(), "it is said again");
        assert_eq!(told[1].try_recv().unwrap(), Ok(()), "it is given back already");
        assert!(matches!(
            told[2].try_recv().unwrap(),
            Err(SourceFault::Refused(_))
        ));
        assert_eq!(told[3].try_recv().unwrap(), Ok(()));
        let again = answer(again, vec![untaken(0, false, "InternalError")], |_| false);
        assert!(again.is_empty());
        assert!(matches!(
            told[0].try_recv().unwrap(),
            Err(SourceFault::Refused(_))
        ));
    }
}
