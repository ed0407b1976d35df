//! From the configuration of a source of the type `sns` to the source, and what is posted to it.

use super::{Made, direction};
use crate::config::SnsConfig;
use crate::fetch;
use crate::sources::doors::Door;
use crate::sources::{Handling, Plant};
use async_trait::async_trait;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use postrider_model::{LogPace, Millis};
use postrider_sources::http::Most;
use postrider_sources::queue::{Decoding, Envelope, Message, Pauses, opened};
use postrider_sources::sns::{Checks, Fetch, Forged, Hosts, Keys, Offer, Post, Sns, SnsOptions, Verified};
use postrider_transports::Problem;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq as _;
use tokio::sync::{Semaphore, oneshot};

/// SNS waits 15 s for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(14);
/// When SNS may come again; it has its own times, and others have theirs.
const RETRY_AFTER_S: u32 = 5;
/// A certificate has a few thousand bytes; so has the answer to a confirmation.
const FETCHED_BYTES: u64 = 64 << 10;
/// For one certificate, or one confirmation.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// Messages that are handled together.
const BATCH: usize = 64;

/// `None` only where the configuration was not checked.
pub(super) fn one(name: &str, config: &SnsConfig, plant: &Plant) -> Option<Made> {
    let source = Arc::new(Sns::new(&SnsOptions {
        in_flight: config.in_flight,
    }));
    let checks = Checks {
        topics: config.topics.clone(),
        hosts: Hosts::with(&config.hosts).ok()?,
        window: config.replay_window,
        keys: Keys::new(Arc::new(Fetched), crate::steady_clock()),
    };
    let credentials = config.password.as_ref().map(|password| {
        let pair = format!("{}:{}", config.user, password.expose());
        format!("Basic {}", STANDARD.encode(pair))
    });
    let door = SnsDoor {
        name: name.to_owned(),
        source: source.clone(),
        checks,
        credentials,
        takes_raw: config.raw_delivery,
        confirms: config.confirm,
        forged: LogPace::new(),
    };
    plant.doors.open(name, Arc::new(door));
    let direction = direction(&config.topic, &config.user_field, &config.topic_field);
    let handling = Handling {
        decoding: Decoding {
            decoder: config.decoder,
            direction,
            body_field: None,
            envelope: Envelope::None,
            is_exact: true,
            most: Most::from(&plant.limits),
        },
        may_broadcast: config.broadcast,
        settle_on: crate::config::SettleOn::Stored,
        deliver_within: Millis(0),
        offline: crate::config::Offline::Store,
        leave_for: Millis(0),
        ttl: config.ttl,
        // SNS counts for itself, and has a dead-letter queue of its own.
        max_deliveries: u32::MAX,
        retry: Pauses {
            first: Millis(0),
            most: Millis(0),
        },
        hold_every: Millis::from_secs(3_600),
        workers: config.workers,
        batch: BATCH,
        max_payload: plant.limits.data.as_usize(),
        in_flight: config.in_flight.max(config.workers),
    };
    Some((source, handling))
}

/// Takes the posts of one source.
struct SnsDoor {
    name: String,
    source: Arc<Sns>,
    checks: Checks,
    /// The `Authorization` that every post has to have, where there is one.
    credentials: Option<String>,
    takes_raw: bool,
    confirms: bool,
    /// The pace of the lines about posts that are not believed.
    forged: LogPace,
}

impl Door for SnsDoor {
    fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(wanted) = &self.credentials else {
            return Ok(());
        };
        let given = headers
            .get(header::AUTHORIZATION)
            .map_or(&b""[..], |value| value.as_bytes());
        if bool::from(given.ct_eq(wanted.as_bytes())) {
            return Ok(());
        }
        Err(Problem {
            detail: "This source has a name and a password. Write them into the subscription's address: \
                     https://NAME:PASSWORD@HOST/…"
                .into(),
            ..Problem::key_invalid()
        })
    }

    fn post(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<(), Problem>> {
        Box::pin(async move {
            match self.takes_raw && is_raw(&headers) {
                true => self.take(self.raw(&headers, body)?).await,
                false => self.take_post(body).await,
            }
        })
    }
}

impl SnsDoor {
    async fn take_post(&self, body: Bytes) -> Result<(), Problem> {
        let post = Post::read(&body).map_err(|fault| Problem::invalid_request(sentence(&fault)))?;
        match self.checks.verify(&post, crate::now()).await {
            Err(forged) => Err(self.refuse(post.kind.as_str(), &forged)),
            Ok(Verified::Confirm(url)) => self.confirm(&post, url).await,
            Ok(Verified::Unsubscribed) => {
                tracing::warn!(
                    source = self.name,
                    topic = post.topic_arn,
                    "SNS has ended the subscription"
                );
                Ok(())
            }
            Ok(Verified::Notification) => {
                let whole = Message {
                    name: Some(post.message_id),
                    body: Some(body),
                    deliveries: 1,
                    ..Message::default()
                };
                // It was read as an envelope before.
                let mut message =
                    opened(&whole).map_err(|fault| Problem::invalid_request(sentence(&fault)))?;
                self.keep_signed(&mut message, post.subject);
                self.take(message).await
            }
        }
    }

    /// SNS signs no attributes, so whoever saw a post could send it once more with others: without a password none counts,
    /// and none ever gives a message another name.
    fn keep_signed(&self, message: &mut Message, subject: Option<String>) {
        match self.credentials {
            Some(_) => message.fields.retain(|(name, _)| name != "id"),
            None => {
                let signed = subject.into_iter().map(|text| ("subject".into(), text.into()));
                message.fields = signed.collect();
            }
        }
    }

    /// A message that was delivered raw: it is signed by nobody, so the password alone says whose it is.
    fn raw(&self, headers: &HeaderMap, body: Bytes) -> Result<Message, Problem> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if !text("x-amz-sns-topic-arn").is_some_and(|topic| self.checks.hears(topic)) {
            return Err(self.refuse("raw", &Forged::Topic));
        }
        let name = text("x-amz-sns-message-id")
            .filter(|id| !id.is_empty())
            .ok_or_else(|| {
                Problem::invalid_request("The message has no id. SNS sends it as x-amz-sns-message-id.")
            })?;
        Ok(Message {
            name: Some(name.to_owned()),
            body: Some(body),
            deliveries: 1,
            ..Message::default()
        })
    }

    /// Hands a message on, and waits for what becomes of it.
    async fn take(&self, message: Message) -> Result<(), Problem> {
        let told = match self.source.offer(message) {
            Offer::Done => return Ok(()),
            Offer::Refused => return Err(Problem::unavailable(RETRY_AFTER_S)),
            Offer::Waits(told) => told,
        };
        match tokio::time::timeout(ANSWER_WITHIN, told).await {
            Ok(Ok(true)) => Ok(()),
            _ => Err(Problem::unavailable(RETRY_AFTER_S)),
        }
    }

    async fn confirm(&self, post: &Post, url: String) -> Result<(), Problem> {
        let topic = &post.topic_arn;
        if !self.confirms {
            tracing::warn!(
                source = self.name,
                topic,
                url,
                "SNS asks for a confirmation, and `confirm` is off"
            );
            return Ok(());
        }
        match ask(url).await {
            Ok(_) => {
                tracing::info!(source = self.name, topic, "the subscription is confirmed");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(
                    source = self.name,
                    topic,
                    error,
                    "the subscription could not be confirmed"
                );
                Err(Problem::unavailable(RETRY_AFTER_S))
            }
        }
    }

    /// Nothing of a post that is not believed goes into the log but its kind.
    fn refuse(&self, kind: &'static str, forged: &Forged) -> Problem {
        if let Some(unsaid) = self.forged.due(crate::now()) {
            tracing::warn!(source = self.name, kind, %forged, unsaid, "a post is not believed");
        }
        if forged.may_pass_later() {
            return Problem::unavailable(RETRY_AFTER_S);
        }
        Problem {
            status: 403,
            code: "forged",
            detail: sentence(forged),
            pointer: None,
            retry_after: None,
            allow: None,
        }
    }
}

fn is_raw(headers: &HeaderMap) -> bool {
    headers
        .get("x-amz-sns-rawdelivery")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// A fault as a sentence.
fn sentence(fault: &dyn std::fmt::Display) -> String {
    let text = fault.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(letters).chain(['.']).collect()
}

/// Fetches certificates over HTTPS.
struct Fetched;

#[async_trait]
impl Fetch for Fetched {
    async fn fetch(&self, url: &str) -> Result<Vec<u8>, String> {
        ask(url.to_owned()).await
    }
}

/// So many are asked at the same time; who comes later waits.
static TURNS: Semaphore = Semaphore::const_new(4);

/// What lies at an address, asked by a blocking client on a thread of its own, which ends within [`FETCH_WITHIN`].
async fn ask(url: String) -> Result<Vec<u8>, String> {
    let what = fetch::What {
        accept: "*/*",
        most: FETCHED_BYTES,
        within: FETCH_WITHIN,
    };
    let turn = TURNS.acquire().await.map_err(|closed| closed.to_string())?;
    let (tell, told) = oneshot::channel();
    let work = move || {
        let answer = fetch::get(&url, &what).map_err(|fault| fault.to_string());
        drop(turn);
        // Who asked may be gone.
        tell.send(answer).unwrap_or_default();
    };
    let thread = std::thread::Builder::new().name("sns fetch".into());
    thread.spawn(work).map_err(|error| error.to_string())?;
    told.await.map_err(|gone| gone.to_string())?
}
