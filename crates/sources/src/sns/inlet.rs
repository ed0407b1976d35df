//! From posts to deliveries: a post waits, without end of its own, for what becomes of its message.
//!
//! SNS waits 15 s for an answer and then sends the message once more. A message that comes again while it is worked on
//! joins the post that came first, and one that was done with is told so at once.
//!
//! Invariant: at most `in_flight` messages are in hand; a post for which there is no room is refused, and SNS repeats it.
//! What is dropped unsettled is told to its posts as not taken.

use crate::queue::{Delivery, Lag, Message, Promise, Receipt, Source, SourceFault};
use async_trait::async_trait;
use postrider_model::Millis;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a worker waits for the first message.
const RECEIVE: Duration = Duration::from_secs(1);
/// Names of messages that were done with, to know them when they come again.
const MOST_DONE: usize = 4_096;
/// Posts that wait for one message; SNS repeats one three times in a minute.
const MOST_POSTS: usize = 16;

/// What a source of SNS needs.
#[derive(Debug, Clone)]
pub struct SnsOptions {
    /// Messages that may be in hand.
    pub in_flight: usize,
}

/// What becomes of a message that is offered.
#[derive(Debug)]
pub enum Offer {
    /// It is in hand, or was: true comes when it is done with, and false or nothing when it is to come again.
    Waits(oneshot::Receiver<bool>),
    /// It is done with.
    Done,
    /// There is no room, or the node drains.
    Refused,
}

/// The source.
pub struct Sns {
    inlet: mpsc::Sender<Delivery>,
    outlet: tokio::sync::Mutex<mpsc::Receiver<Delivery>>,
    desk: Arc<Desk>,
    /// Messages that may be in hand, those among them that a worker has.
    most: usize,
}

/// Who waits for what.
#[derive(Default)]
struct Desk(Mutex<Posts>);

#[derive(Default)]
struct Posts {
    is_closed: bool,
    open: HashMap<String, Vec<oneshot::Sender<bool>>>,
    done: VecDeque<String>,
}

impl Desk {
    fn posts(&self) -> MutexGuard<'_, Posts> {
        // What is in it stands after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, name: &str, is_done: bool) {
        let mut posts = self.posts();
        let waiting = posts.open.remove(name);
        if is_done && waiting.is_some() {
            if posts.done.len() >= MOST_DONE {
                posts.done.pop_front();
            }
            posts.done.push_back(name.to_owned());
        }
        drop(posts);
        for post in waiting.into_iter().flatten() {
            // Who posted it may be gone.
            post.send(is_done).unwrap_or_default();
        }
    }
}

impl Sns {
    /// One that nothing was offered yet.
    pub fn new(options: &SnsOptions) -> Sns {
        let most = options.in_flight.max(1);
        let (inlet, outlet) = mpsc::channel(most);
        Sns {
            inlet,
            outlet: tokio::sync::Mutex::new(outlet),
            desk: Arc::default(),
            most,
        }
    }

    /// Offers a message, which has to have a name.
    pub fn offer(&self, message: Message) -> Offer {
        let Some(name) = message.name.clone() else {
            return Offer::Refused;
        };
        let mut posts = self.desk.posts();
        if posts.is_closed {
            return Offer::Refused;
        }
        if posts.done.contains(&name) {
            return Offer::Done;
        }
        let (tell, told) = oneshot::channel();
        if let Some(open) = posts.open.get_mut(&name) {
            open.retain(|post| !post.is_closed());
            if open.len() >= MOST_POSTS {
                return Offer::Refused;
            }
            open.push(tell);
            return Offer::Waits(told);
        }
        if posts.open.len() >= self.most {
            return Offer::Refused;
        }
        let Ok(place) = self.inlet.try_reserve() else {
            return Offer::Refused;
        };
        posts.open.insert(name.clone(), vec![tell]);
        drop(posts);
        let slip = Slip {
            name,
            desk: self.desk.clone(),
            is_settled: AtomicBool::new(false),
        };
        place.send(Delivery::new(message, Box::new(slip)));
        Offer::Waits(told)
    }
}

/// The receipt of one message.
struct Slip {
    name: String,
    desk: Arc<Desk>,
    is_settled: AtomicBool,
}

impl Slip {
    /// Once: after it the same message may be offered anew.
    fn settle(&self, is_done: bool) {
        if !self.is_settled.swap(true, Ordering::Relaxed) {
            self.desk.settle(&self.name, is_done);
        }
    }
}

#[async_trait]
impl Receipt for Slip {
    async fn ack(&self) -> Result<(), SourceFault> {
        self.settle(true);
        Ok(())
    }

    async fn nack(&self, _after: Millis) -> Result<(), SourceFault> {
        // SNS has its own times.
        self.settle(false);
        Ok(())
    }

    async fn hold(&self) -> Result<(), SourceFault> {
        Ok(())
    }
}

impl Drop for Slip {
    fn drop(&mut self) {
        // Where it was not settled, nobody waits in vain.
        self.settle(false);
    }
}

#[async_trait]
impl Source for Sns {
    fn promise(&self) -> Promise {
        Promise::AtLeastOnce
    }

    async fn open(&self) -> Result<(), SourceFault> {
        Ok(())
    }

    async fn receive(&self, _worker: usize, most: usize) -> Result<Vec<Delivery>, SourceFault> {
        let mut outlet = self.outlet.lock().await;
        // The sender lives as long as this does.
        let first = tokio::time::timeout(RECEIVE, outlet.recv()).await;
        let mut received: Vec<_> = first.ok().flatten().into_iter().collect();
        while !received.is_empty() && received.len() < most {
            match outlet.try_recv() {
                Ok(next) => received.push(next),
                Err(_) => break,
            }
        }
        Ok(received)
    }

    async fn lag(&self) -> Result<Option<Lag>, SourceFault> {
        Ok(Some(Lag {
            // What waits at SNS it does not say.
            waiting: None,
            unsettled: self.desk.posts().open.len() as u64,
            ..Lag::default()
        }))
    }

    async fn close(&self) {
        self.desk.posts().is_closed = true;
        let mut outlet = self.outlet.lock().await;
        outlet.close();
        while let Some(delivery) = outlet.recv().await {
            // To give it back cannot fail.
            delivery.nack(Millis(0)).await.unwrap_or_default();
        }
    }
}
