//! Polls, and hands on what they bring.
//!
//! A poll begins only while somebody waits in [`Pump::receive`] and nothing is there for him: what is fetched is worked on
//! at once, and a node that has its hands full fetches nothing.
//!
//! Invariant: what a poll brings is in `ready`, behind its group, or on its way back to SQS. While this node lives a
//! poll is broken off only where SQS has fallen silent: what it brings late is made visible again at once. What it brings in time has room: nothing is
//! polled for while anything is in `ready`, and polls under way ask for no more than there is room for. One queue has so
//! many polls as workers; for users' queues see [`turns`](super::turns).
//!
//! A poll that failed is made again after a pause; whether SQS is away says the [`circuit`](super::circuit), and only then
//! does who receives hear of it.

mod polls;
mod waiting;
mod words;

use super::aws::Service;
use super::circuit::{Circuit, TRIED};
use super::counted::{Counted, Tally};
use super::groups::Groups;
use super::holds::Holds;
use super::message::Incoming;
use super::plan::Plan;
use super::settle::{self, ORDERS_MOST, Order};
use super::slip::Slip;
use super::{Random, SqsAccess, SteadyClock};
use crate::queue::{Delivery, Seldom, SourceFault};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use waiting::{Proves, Waits};

/// Who receives waits so long for something.
const RECEIVE: Duration = Duration::from_secs(1);
/// Who closes waits so long for the polls that are under way.
const CLOSE: Duration = Duration::from_secs(3);
/// Who opens waits so long for the first poll of many to end.
const PROVE: Duration = Duration::from_secs(3);

/// See the module.
pub(super) struct Pump {
    pub service: Arc<Service>,
    orders: mpsc::Sender<Order>,
    state: Mutex<State>,
    /// Is told when something may be to be begun.
    tally: Arc<Tally>,
    /// Something is there to be received.
    arrived: Notify,
    /// A poll has ended.
    ended: Notify,
    missing: Seldom,
    steady: SteadyClock,
    random: Random,
}

/// The tasks of a pump. They end with it.
pub(super) struct Tasks {
    orders: Option<mpsc::Receiver<Order>>,
    running: JoinSet<()>,
}

struct State {
    plan: Plan,
    ready: VecDeque<Held>,
    groups: Groups<Held>,
    /// Who waits for messages, and for how many.
    waiting: BTreeMap<u64, usize>,
    tickets: u64,
    /// Why nothing can be taken, since the circuit says so.
    fault: Option<SourceFault>,
    /// What a user's queue was last refused for, since one was read.
    refused: Option<SourceFault>,
    /// Whether SQS is there.
    circuit: Circuit,
    /// Who waits for that, and the polls that are to show it.
    proving: usize,
    probes: usize,
    /// Attempts whose answer was lost: asked again, a FIFO queue gives the same messages.
    lost_attempts: Vec<String>,
    attempts: u64,
    /// Polls whose messages are being given back.
    releasing: usize,
    is_closed: bool,
}

/// A message that this node has and that is in nobody's hands.
pub(super) struct Held {
    incoming: Incoming,
    queue: Arc<str>,
    came: Instant,
    holds: Holds,
    /// Where it is a user's.
    counted: Option<Counted>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "a driver: how long a message is hidden already"
)]
fn now() -> Instant {
    Instant::now()
}

impl Pump {
    pub fn new(access: SqsAccess, plan: Plan, steady: SteadyClock, random: Random) -> (Arc<Pump>, Tasks) {
        let (orders, receiver) = mpsc::channel(ORDERS_MOST);
        let state = State {
            plan,
            ready: VecDeque::new(),
            groups: Groups::new(),
            waiting: BTreeMap::new(),
            tickets: 0,
            fault: None,
            refused: None,
            circuit: Circuit::new(),
            proving: 0,
            probes: 0,
            lost_attempts: Vec::new(),
            attempts: 0,
            releasing: 0,
            is_closed: false,
        };
        let pump = Pump {
            service: Arc::new(Service::new(access)),
            orders,
            state: Mutex::new(state),
            tally: Arc::default(),
            arrived: Notify::new(),
            ended: Notify::new(),
            missing: Seldom::default(),
            steady,
            random,
        };
        let tasks = Tasks {
            orders: Some(receiver),
            running: JoinSet::new(),
        };
        (Arc::new(pump), tasks)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is polled.
    pub fn plan<T>(&self, change: impl FnOnce(&mut Plan) -> T) -> T {
        let changed = change(&mut self.state().plan);
        self.tally.changed.notify_one();
        changed
    }

    /// Starts the tasks, once.
    pub fn start(self: &Arc<Pump>, tasks: &mut Tasks) {
        if let Some(orders) = tasks.orders.take() {
            let random = self.random.clone();
            tasks
                .running
                .spawn(settle::run(orders, self.service.clone(), random));
            tasks.running.spawn(self.clone().conduct());
        }
    }

    pub fn visibility(&self) -> Duration {
        self.service.access.visibility
    }

    /// Why nothing can be taken, where that is so.
    fn fault(&self) -> Option<SourceFault> {
        let mut state = self.state();
        if state.plan.is_idle() {
            state.fault = None;
        }
        state.fault.clone()
    }

    /// Forgets why nothing could be taken, so that polls begin again.
    pub fn forget_fault(&self) {
        self.state().fault = None;
    }

    /// Waits until a poll says whether SQS is there; at once where nothing is polled.
    pub async fn prove(&self) -> Result<(), SourceFault> {
        let last = {
            let mut state = self.state();
            if state.circuit.is_proven() || state.plan.is_idle() {
                state.fault = None;
                return Ok(());
            }
            state.fault.take()
        };
        let _proves = Proves::begin(self);
        let deadline = now() + PROVE;
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            {
                let state = self.state();
                // Nothing is polled before what is there is received.
                if state.circuit.is_proven() || state.plan.is_idle() || !state.ready.is_empty() {
                    return Ok(());
                }
                if let Some(fault) = &state.fault {
                    return Err(fault.clone());
                }
            }
            if tokio::time::timeout_at(deadline, ended).await.is_err() {
                let silent = || SourceFault::Away("no poll has had an answer yet".into());
                let refused = self.state().refused.clone();
                return Err(last.or(refused).unwrap_or_else(silent));
            }
        }
    }

    /// What is there, at most `most`; waits about a second for it, and a little longer where it is just being found out
    /// whether SQS is away.
    pub async fn receive(self: &Arc<Pump>, most: usize) -> Result<Vec<Delivery>, SourceFault> {
        let _waits = Waits::begin(self, most);
        let mut deadline = now() + RECEIVE;
        let last = deadline + TRIED.as_duration() + RECEIVE;
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            // Who is woken may find that another has taken it.
            if let Some(answer) = self.take(most) {
                return answer;
            }
            if tokio::time::timeout_at(deadline, arrived).await.is_err() {
                if let Some(answer) = self.take(most) {
                    return answer;
                }
                if deadline == last || !self.state().circuit.is_in_doubt() {
                    return Ok(Vec::new());
                }
                deadline = last;
            }
        }
    }

    fn take(self: &Arc<Pump>, most: usize) -> Option<Result<Vec<Delivery>, SourceFault>> {
        let mut state = self.state();
        let fresh = self.visibility() / 2;
        let mut out = Vec::new();
        while out.len() < most.max(1) {
            let Some(held) = state.ready.pop_front() else {
                break;
            };
            // It was not received for so long that it may soon be another's. It comes again.
            if held.came.elapsed() > fresh {
                if let Some(group) = held.group() {
                    drop(state.groups.back(group));
                }
                continue;
            }
            out.push(self.delivery(held));
        }
        drop(state);
        if !out.is_empty() {
            return Some(Ok(out));
        }
        self.fault().map(Err)
    }

    fn delivery(self: &Arc<Pump>, held: Held) -> Delivery {
        let slip = Slip {
            pump: self.clone(),
            queue: held.queue,
            handle: held.incoming.handle,
            holds: held.holds,
            group: held.incoming.group,
            is_settled: AtomicBool::new(false),
            _counted: held.counted,
        };
        Delivery::new(held.incoming.message, Box::new(slip))
    }

    /// Begins no more polls, gives back what is there, and waits a little for the polls under way.
    pub async fn close(&self) {
        let held: Vec<_> = {
            let mut state = self.state();
            state.is_closed = true;
            let mut held: Vec<_> = state.ready.drain(..).collect();
            held.extend(state.groups.clear());
            held
        };
        let quiet = async {
            self.release(held).await;
            loop {
                let ended = self.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                {
                    let state = self.state();
                    if state.plan.polling() + state.releasing == 0 {
                        return;
                    }
                }
                ended.await;
            }
        };
        if tokio::time::timeout(CLOSE, quiet).await.is_err() {
            tracing::info!(
                "polls are still under way; while this node lives what they bring is given back at once"
            );
        }
    }

    /// Whom or what is polled, in numbers: queues, polls under way.
    pub fn polled(&self) -> (usize, usize) {
        let state = self.state();
        (state.plan.queues(), state.plan.polling())
    }
}

impl State {
    /// The name of a new attempt, or of one whose answer was lost.
    fn attempt(&mut self, node: &str) -> String {
        self.attempts += 1;
        let fresh = || format!("{node}-{}", self.attempts);
        self.lost_attempts.pop().unwrap_or_else(fresh)
    }

    /// Puts a message where it can be received, or behind its group.
    fn take_in(&mut self, held: Held) {
        let out = match held.group().map(str::to_owned) {
            Some(group) => self.groups.came(&group, held),
            None => Some(held),
        };
        self.ready.extend(out);
    }
}

impl Held {
    fn group(&self) -> Option<&str> {
        self.incoming.group.as_deref()
    }
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;
