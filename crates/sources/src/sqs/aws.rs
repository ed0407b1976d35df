//! The calls that SQS is asked, and what its answers mean.

use super::SqsAccess;
use super::message::{Incoming, incoming};
use crate::queue::SourceFault;
use postrider_aws::sqs::Client;
use postrider_aws::sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageSystemAttributeName, QueueAttributeName,
};
use postrider_aws::{Trouble, trouble};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// How SQS says that a queue is not there.
const NO_QUEUE: [&str; 2] = ["NonExistentQueue", "QueueDoesNotExist"];
/// How AWS says that this identity may not.
const DENIED: [&str; 3] = ["AccessDenied", "AccessDeniedException", "AuthorizationError"];

/// SQS, from here.
pub(super) struct Service {
    pub access: SqsAccess,
    clients: OnceCell<Clients>,
    /// When a message was given back last.
    gave_back: Mutex<Option<Instant>>,
}

/// Two, since a poll waits longer than anything else may take.
struct Clients {
    calls: Client,
    polls: Client,
}

/// One message's word in a batch.
pub(super) struct Word<'a> {
    pub handle: &'a str,
    /// In so many seconds it is anybody's again; `None` deletes it.
    pub visible_in: Option<i32>,
}

/// A word of a batch that SQS did not take.
pub(super) struct Untaken {
    /// Which, counted as in the batch.
    pub index: usize,
    /// To say it again does not help.
    pub is_final: bool,
    pub code: String,
    pub text: String,
}

/// What SQS says of a queue.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub visible: u64,
    pub in_flight: u64,
    pub delayed: u64,
}

#[allow(
    clippy::disallowed_methods,
    reason = "a driver: how long ago a message was given back"
)]
fn now() -> Instant {
    Instant::now()
}

impl Service {
    pub fn new(access: SqsAccess) -> Service {
        Service {
            access,
            clients: OnceCell::new(),
            gave_back: Mutex::new(None),
        }
    }

    /// Messages are being given back.
    pub fn gives_back(&self) {
        *self.gave_back.lock().unwrap_or_else(PoisonError::into_inner) = Some(now());
    }

    /// Whether any message was given back in so long.
    pub fn gave_back_within(&self, time: Duration) -> bool {
        let last = *self.gave_back.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|at| now().duration_since(at) < time)
    }

    async fn clients(&self, url: Option<&str>) -> &Clients {
        let make = || async {
            let mut reach = self.access.reach.clone();
            reach.region = reach.region.or_else(|| url.and_then(region_of));
            let polls = reach.waiting(self.access.wait);
            let account = &self.access.account;
            Clients {
                calls: account.sqs(&reach).await,
                polls: account.sqs(&polls).await,
            }
        };
        self.clients.get_or_init(make).await
    }

    /// The first messages that come within `wait`, at most `most`. After a failure the same `attempt` brings those of a FIFO
    /// queue that were lost with the answer.
    pub async fn receive(
        &self,
        url: &str,
        wait: Duration,
        most: usize,
        attempt: Option<&str>,
    ) -> Result<Vec<Incoming>, Trouble> {
        let asked = self
            .clients(Some(url))
            .await
            .polls
            .receive_message()
            .queue_url(url)
            .max_number_of_messages(i32::try_from(most).unwrap_or(1))
            .visibility_timeout(seconds(self.access.visibility))
            .wait_time_seconds(seconds(wait))
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::MessageGroupId)
            .set_receive_request_attempt_id(attempt.map(str::to_owned));
        let answer = asked.send().await.map_err(|error| trouble(&error))?;
        let messages = answer.messages.unwrap_or_default();
        Ok(messages.into_iter().filter_map(incoming).collect())
    }

    /// Whether a message is there or comes within `wait`. It stays visible; SQS counts it as received once more.
    pub async fn has_any(&self, url: &str, wait: Duration) -> Result<bool, Trouble> {
        let asked = self
            .clients(Some(url))
            .await
            .calls
            .receive_message()
            .queue_url(url)
            .max_number_of_messages(1)
            .visibility_timeout(0)
            .wait_time_seconds(seconds(wait));
        let answer = asked.send().await.map_err(|error| trouble(&error))?;
        Ok(answer.messages.is_some_and(|messages| !messages.is_empty()))
    }

    /// The address of the queue of this name; `None` where there is none.
    pub async fn find(&self, name: &str) -> Result<Option<String>, Trouble> {
        let asked = self.clients(None).await.calls.get_queue_url().queue_name(name);
        match asked.send().await {
            Ok(answer) => Ok(answer.queue_url),
            Err(error) => match trouble(&error) {
                trouble if is_no_queue(&trouble) => Ok(None),
                trouble => Err(trouble),
            },
        }
    }

    /// Makes a queue, and says its address.
    pub async fn create(&self, name: &str) -> Result<Option<String>, Trouble> {
        let wait = seconds(self.access.wait).to_string();
        let mut asked = self
            .clients(None)
            .await
            .calls
            .create_queue()
            .queue_name(name)
            .attributes(QueueAttributeName::ReceiveMessageWaitTimeSeconds, wait);
        if is_fifo(name) {
            asked = asked.attributes(QueueAttributeName::FifoQueue, "true");
        }
        let answer = asked.send().await.map_err(|error| trouble(&error))?;
        Ok(answer.queue_url)
    }

    /// Takes a queue away, with all that is in it.
    pub async fn remove(&self, url: &str) -> Result<(), Trouble> {
        let asked = self.clients(Some(url)).await.calls.delete_queue().queue_url(url);
        asked.send().await.map(drop).map_err(|error| trouble(&error))
    }

    /// What is in a queue; `None` where this identity may not ask.
    pub async fn counts(&self, url: &str) -> Result<Option<Counts>, Trouble> {
        let mut asked = self
            .clients(Some(url))
            .await
            .calls
            .get_queue_attributes()
            .queue_url(url);
        for name in [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ] {
            asked = asked.attribute_names(name);
        }
        match asked.send().await {
            Ok(answer) => Ok(Some(counts(&answer.attributes.unwrap_or_default()))),
            Err(error) => match trouble(&error) {
                trouble if trouble.is(&DENIED) => Ok(None),
                trouble => Err(trouble),
            },
        }
    }

    /// Deletes messages; answers those that it did not take.
    pub async fn delete(&self, url: &str, words: &[Word<'_>]) -> Result<Vec<Untaken>, Trouble> {
        let entries = words.iter().enumerate().filter_map(|(index, word)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string());
            entry.receipt_handle(word.handle).build().ok()
        });
        let asked = self
            .clients(Some(url))
            .await
            .calls
            .delete_message_batch()
            .queue_url(url);
        let asked = asked.set_entries(Some(entries.collect()));
        let answer = asked.send().await.map_err(|error| trouble(&error))?;
        Ok(untaken(answer.failed))
    }

    /// Says when messages are anybody's again; answers those that it did not take.
    pub async fn show(&self, url: &str, words: &[Word<'_>]) -> Result<Vec<Untaken>, Trouble> {
        let entries = words.iter().enumerate().filter_map(|(index, word)| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(index.to_string());
            let entry = entry
                .receipt_handle(word.handle)
                .set_visibility_timeout(word.visible_in);
            entry.build().ok()
        });
        let client = &self.clients(Some(url)).await.calls;
        let asked = client.change_message_visibility_batch().queue_url(url);
        let asked = asked.set_entries(Some(entries.collect()));
        let answer = asked.send().await.map_err(|error| trouble(&error))?;
        Ok(untaken(answer.failed))
    }
}

fn untaken(failed: Vec<BatchResultErrorEntry>) -> Vec<Untaken> {
    let of = |entry: BatchResultErrorEntry| {
        // The ids are those that were sent.
        let index = entry.id.parse().ok()?;
        Some(Untaken {
            index,
            is_final: entry.sender_fault,
            code: entry.code,
            text: entry.message.unwrap_or_default(),
        })
    };
    failed.into_iter().filter_map(of).collect()
}

fn counts(attributes: &HashMap<QueueAttributeName, String>) -> Counts {
    let number = |name| {
        attributes
            .get(&name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    };
    Counts {
        visible: number(QueueAttributeName::ApproximateNumberOfMessages),
        in_flight: number(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
        delayed: number(QueueAttributeName::ApproximateNumberOfMessagesDelayed),
    }
}

/// Whole seconds, as SQS counts.
pub(super) fn seconds(time: Duration) -> i32 {
    i32::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(i32::MAX)
}

pub(super) fn is_no_queue(trouble: &Trouble) -> bool {
    trouble.is(&NO_QUEUE)
}

/// Whether the fault may be this queue's alone: whatever is refused, as where it is not there, not ours to read, or its name
/// no name.
pub(super) fn is_of_queue(trouble: &Trouble) -> bool {
    !trouble.is_transient()
}

/// Whether the queue of this name or address keeps an order.
pub(super) fn is_fifo(name: &str) -> bool {
    name.ends_with(".fifo")
}

/// What an error means to who takes messages.
pub(super) fn fault(trouble: &Trouble) -> SourceFault {
    match trouble {
        Trouble::Throttled(text) => SourceFault::Throttled(text.clone()),
        Trouble::Refused { text, .. } => SourceFault::Refused(text.clone()),
        other => SourceFault::Away(other.to_string()),
    }
}

/// The region in an address of AWS: `https://sqs.eu-central-1.amazonaws.com/123/name`.
fn region_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let host = rest.split(['/', ':']).next()?;
    let of_aws = host
        .strip_suffix(".amazonaws.com")
        .or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    // Old addresses have the region first.
    let region = of_aws
        .strip_prefix("sqs.")
        .or_else(|| of_aws.strip_suffix(".queue"))?;
    (!region.is_empty() && !region.contains('.')).then(|| region.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_of_an_address() {
        for (url, region) in [
            ("https://sqs.eu-central-1.amazonaws.com/1/q", Some("eu-central-1")),
            ("https://eu-west-1.queue.amazonaws.com/1/q", Some("eu-west-1")),
            ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", Some("cn-north-1")),
            ("http://127.0.0.1:4566/0/q", None),
            ("https://queue.amazonaws.com/1/q", None),
            ("q", None),
        ] {
            assert_eq!(region_of(url).as_deref(), region, "{url}");
        }
    }

    #[test]
    fn seconds_are_rounded_up() {
        let of = |millis| seconds(Duration::from_millis(millis));
        assert_eq!([of(0), of(1), of(1_000), of(1_001)], [0, 1, 1, 2]);
    }
}
