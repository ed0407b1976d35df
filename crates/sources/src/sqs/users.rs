//! The source `sqs_users`: a queue for each user, polled while a session of the user is on this node.

use super::SqsUsersOptions;
use super::plan::Plan;
use super::pump::{Pump, Tasks};
use super::turns::Turns;
use crate::queue::{Delivery, Lag, Promise, Seldom, Source, SourceFault};
use crate::template::Template;
use async_trait::async_trait;
use postrider_model::{FeedId, UserId};
use std::sync::Arc;
use tokio::sync::Mutex;

/// A queue's name has at most so many characters.
const NAME_MOST: usize = 80;
/// Users whose id no queue can carry are logged: one in so many.
const LOG_ONE_IN: u64 = 1_000;

/// See the module above.
pub struct SqsUsers {
    pump: Arc<Pump>,
    tasks: Mutex<Tasks>,
    steady: super::SteadyClock,
    names: Template,
    unnameable: Seldom,
}

impl SqsUsers {
    /// Reads as these options say; polls nothing before it is opened.
    pub fn new(options: SqsUsersOptions) -> SqsUsers {
        let turns = Turns::new(
            options.connections,
            options.access.wait,
            options.linger,
            options.unsettled,
            options.shared,
        );
        let names = options.queue.clone();
        let plan = Plan::Users {
            address: options.queue,
            turns: turns.into(),
        };
        let steady = options.steady.clone();
        let (pump, tasks) = Pump::new(options.access, plan, options.steady, options.random);
        SqsUsers {
            pump,
            tasks: Mutex::new(tasks),
            steady,
            names,
            unnameable: Seldom::default(),
        }
    }

    /// A session of this node hears this feed: a user's queue is polled from now on. Never waits.
    pub fn follow(&self, feed: &FeedId) {
        let FeedId::User(user) = feed else { return };
        if !can_name_queue(&self.names, user) {
            if let Some(count) = self.unnameable.due(LOG_ONE_IN) {
                tracing::warn!(
                    count,
                    "a user's id cannot be in the name of a queue; none is read for him"
                );
            }
            return;
        }
        self.with(|turns| turns.follow(user));
    }

    /// The last one has gone. Never waits.
    pub fn unfollow(&self, feed: &FeedId) {
        if let FeedId::User(user) = feed {
            let now = (self.steady)();
            self.with(|turns| turns.unfollow(user, now));
        }
    }

    fn with(&self, change: impl FnOnce(&mut Turns)) {
        self.pump.plan(|plan| {
            if let Plan::Users { turns, .. } = plan {
                change(turns);
            }
        });
    }

    /// How many queues are read, and how many polls are under way.
    pub fn polled(&self) -> (usize, usize) {
        self.pump.polled()
    }
}

/// Whether a queue's name can hold this id, and is not too long with it. Another id could even say another queue.
fn can_name_queue(names: &Template, user: &UserId) -> bool {
    let id = user.as_str();
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    let address = names.name(id);
    let name = address.rsplit('/').next().unwrap_or_default();
    name.len() <= NAME_MOST && id.bytes().all(is_plain)
}

#[async_trait]
impl Source for SqsUsers {
    fn promise(&self) -> Promise {
        Promise::AtLeastOnce
    }

    async fn open(&self) -> Result<(), SourceFault> {
        self.pump.start(&mut *self.tasks.lock().await);
        self.pump.prove().await
    }

    async fn receive(&self, _worker: usize, most: usize) -> Result<Vec<Delivery>, SourceFault> {
        self.pump.receive(most).await
    }

    /// Too many queues to be asked one by one.
    async fn lag(&self) -> Result<Option<Lag>, SourceFault> {
        Ok(None)
    }

    async fn close(&self) {
        self.pump.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_never_says_another_queue() {
        for (id, can) in [
            ("ada", true),
            ("5f-E_3", true),
            ("a/b", false),
            ("../x", false),
            ("a.b", false),
            ("a b", false),
            ("é", false),
            (&"x".repeat(73), true),
            (&"x".repeat(74), false),
        ] {
            let names = Template::parse("http://h/1/n-{user}.fifo", "{user}").unwrap();
            assert_eq!(can_name_queue(&names, &UserId::new(id).unwrap()), can, "{id}");
        }
    }
}
