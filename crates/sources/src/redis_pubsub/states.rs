//! What back-ends keep of a user beside what they publish: a hash, read when the user comes.
//!
//! Of one server it is read over the connection of the subscriptions. In a Cluster each key is where its slot is, whatever
//! the channels are: there it takes a connection to each master.
//!
//! Invariant: a server that is away for a moment is waited for, and no longer than that; what refuses is not asked again.

use super::{AWAY_AFTER, RedisPubSub};
use crate::queue::SourceFault;
use crate::redis::{ANSWER_TIMEOUT, Unanswered, fault};
use redis::cmd;
use std::collections::BTreeMap;
use std::time::Duration;

/// Where the server is away it is asked again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Keys that hold no hash are logged: the first, and then one in so many.
const LOG_ONE_IN: u64 = 1_000;

type Fields = BTreeMap<Vec<u8>, Vec<u8>>;

impl RedisPubSub {
    /// A hash of texts. An absent key is empty; so is one that holds something else, which is logged: whoever asks could
    /// not mend it. It is had or not within [`ANSWER_TIMEOUT`].
    ///
    /// # Errors
    /// It refuses, or has been away for more than a moment.
    pub async fn hash(&self, key: &str) -> Result<BTreeMap<String, String>, SourceFault> {
        let begun = self.now();
        let reading = async {
            loop {
                match self.fields(key).await {
                    Err(Unanswered::Failed(error)) if error.code() == Some("WRONGTYPE") => {
                        self.is_no_hash(key);
                        return Ok(Fields::new());
                    }
                    Ok(fields) => return Ok(fields),
                    Err(unanswered) => match of_source(unanswered) {
                        SourceFault::Away(_) if self.now().since(begun) < AWAY_AFTER => {}
                        fault => return Err(fault),
                    },
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        };
        let late = |_| SourceFault::Away("a state was not had in time".into());
        let read = tokio::time::timeout(ANSWER_TIMEOUT, reading).await;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let fields = read.map_err(late)??.into_iter();
        Ok(fields.map(|(name, value)| (text(name), text(value))).collect())
    }

    async fn fields(&self, key: &str) -> Result<Fields, Unanswered> {
        let mut question = cmd("HGETALL");
        question.arg(key);
        if self.connector.is_cluster() {
            return self.keyed.ask(key.as_bytes(), &question).await;
        }
        let link = self.links.lock().await.first().cloned();
        let link = link.ok_or_else(|| SourceFault::Away("it is not connected".into()))?;
        let mut connection = link.connection;
        Ok(question.query_async(&mut connection).await?)
    }

    fn is_no_hash(&self, key: &str) {
        if let Some(count) = self.wrong_types.due(LOG_ONE_IN) {
            tracing::warn!(key, count, "a key holds no hash: it is taken as an empty one");
        }
    }
}

fn of_source(unanswered: Unanswered) -> SourceFault {
    match unanswered {
        Unanswered::Unreached(fault) => fault,
        Unanswered::Failed(error) => fault(&error),
    }
}
