//! A stand-in for SQS inside a test: it keeps its queues in memory, counts, and fails as it is told. Nothing goes over a
//! network, so a test may stop the clock.

#![allow(clippy::disallowed_methods, reason = "a test, whose clock stands still")]

use super::{SqsAccess, SqsOptions, SqsUsers, SqsUsersOptions};
use crate::sqs::{QueueName, Sqs};
use crate::template::Template;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use postrider_aws::{Account, Reach};
use postrider_model::{Millis, Timestamp};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

const ENDPOINT: &str = "http://stub";
pub(super) const VISIBILITY: Duration = Duration::from_secs(30);

/// Says of the nth call of a kind (`ReceiveMessage`) whether it fails.
type Fails = Box<dyn Fn(&str, usize) -> bool + Send + Sync>;

/// See the module.
pub(super) struct Stub {
    pub queues: Mutex<HashMap<String, VecDeque<String>>>,
    /// Messages so far.
    put: AtomicUsize,
    /// Who was given out and not deleted, and from when he is anybody's again.
    hidden: Mutex<HashMap<String, (String, Instant)>>,
    /// How often each message was received, and deleted.
    pub received: Mutex<HashMap<String, usize>>,
    pub deleted: Mutex<HashMap<String, usize>>,
    pub given_back: Mutex<usize>,
    /// Which message is anybody's in how many seconds, in the order in which that was done.
    pub shown: Mutex<Vec<(String, u64)>>,
    /// Calls by kind.
    calls: Mutex<HashMap<String, usize>>,
    fails: Mutex<Fails>,
    came: Notify,
    pub giving_back: Notify,
    /// Closed, it keeps those waiting who give back.
    pub gate: Semaphore,
}

impl std::fmt::Debug for Stub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stub")
    }
}

#[derive(Debug)]
struct Line(Arc<Stub>);

impl HttpConnector for Line {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let stub = self.0.clone();
        HttpConnectorFuture::new(async move {
            let target = request.headers().get("x-amz-target").unwrap_or_default();
            let call = target.rsplit('.').next().unwrap_or_default().to_owned();
            let body = request.body().bytes().unwrap_or_default();
            let asked: Value = serde_json::from_slice(body).unwrap();
            let (status, answer) = stub.answer(&call, &asked).await;
            let mut answer = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(answer.to_string()));
            let kind = "application/x-amz-json-1.0";
            answer.headers_mut().insert("content-type", kind);
            Ok(answer)
        })
    }
}

impl Stub {
    pub fn start() -> Arc<Stub> {
        Arc::new(Stub {
            queues: Mutex::default(),
            put: AtomicUsize::new(0),
            hidden: Mutex::default(),
            received: Mutex::default(),
            deleted: Mutex::default(),
            given_back: Mutex::default(),
            shown: Mutex::default(),
            calls: Mutex::default(),
            fails: Mutex::new(Box::new(|_, _| false)),
            came: Notify::new(),
            giving_back: Notify::new(),
            gate: Semaphore::new(0),
        })
    }

    /// From now on calls fail of which this says so.
    pub fn fail(&self, fails: impl Fn(&str, usize) -> bool + Send + Sync + 'static) {
        *self.fails.lock().unwrap() = Box::new(fails);
    }

    /// Calls of this kind so far.
    pub fn calls(&self, call: &str) -> usize {
        self.calls.lock().unwrap().get(call).copied().unwrap_or(0)
    }

    /// Puts so many messages into the queue `n-{name}`.
    pub fn put(&self, name: &str, count: usize) {
        let mut queues = self.queues.lock().unwrap();
        let first = self.put.fetch_add(count, Ordering::Relaxed);
        let ids = (first..first + count).map(|n| format!("{name}-{n}"));
        queues.entry(format!("n-{name}")).or_default().extend(ids);
        drop(queues);
        self.came.notify_waiters();
    }

    fn access(self: &Arc<Stub>) -> SqsAccess {
        let line = SharedHttpConnector::new(Line(self.clone()));
        let client: SharedHttpClient = http_client_fn(move |_, _| line.clone());
        SqsAccess {
            account: Arc::new(Account::with_keys("a", "s").answered_by(client)),
            reach: Reach {
                region: Some("eu-central-1".into()),
                endpoint: Some(ENDPOINT.into()),
                ..Reach::default()
            },
            wait: Duration::from_secs(20),
            visibility: VISIBILITY,
            parallel: 10,
            node: "n".into(),
        }
    }

    pub fn users(self: &Arc<Stub>, unsettled: usize, shared: usize) -> SqsUsers {
        SqsUsers::new(SqsUsersOptions {
            access: self.access(),
            queue: Template::parse(&format!("{ENDPOINT}/1/n-{{user}}"), "{user}").unwrap(),
            connections: 500,
            unsettled,
            shared,
            linger: Millis(0),
            steady: steady(),
            random: Arc::new(|| u64::MAX / 2),
        })
    }

    pub fn one(self: &Arc<Stub>, name: &str, workers: usize) -> Sqs {
        Sqs::new(SqsOptions {
            access: self.access(),
            queue: QueueName::Url(format!("{ENDPOINT}/1/n-{name}")),
            workers,
            create: false,
            remove: false,
            steady: steady(),
            random: Arc::new(|| u64::MAX / 2),
        })
    }

    async fn answer(&self, call: &str, asked: &Value) -> (u16, Value) {
        let nth = {
            let mut calls = self.calls.lock().unwrap();
            let nth = calls.entry(call.to_owned()).or_default();
            *nth += 1;
            *nth
        };
        if self.fails.lock().unwrap()(call, nth) {
            let failed = json!({"__type": "com.amazonaws.sqs#InternalFailure", "message": "try again"});
            return (503, failed);
        }
        match call {
            "ReceiveMessage" => self.receive(asked).await,
            "GetQueueAttributes" => {
                // Others ask meanwhile.
                tokio::task::yield_now().await;
                (200, json!({"Attributes": {}}))
            }
            _ => (200, self.settle(call, asked).await),
        }
    }

    async fn settle(&self, call: &str, asked: &Value) -> Value {
        let entries = asked["Entries"].as_array().unwrap();
        let handles = entries
            .iter()
            .map(|entry| entry["ReceiptHandle"].as_str().unwrap());
        if call.contains("Visibility") {
            *self.given_back.lock().unwrap() += entries.len();
            self.giving_back.notify_one();
            drop(self.gate.acquire().await.unwrap());
            let shown = entries.iter().map(|entry| {
                let handle = entry["ReceiptHandle"].as_str().unwrap().to_owned();
                (handle, entry["VisibilityTimeout"].as_u64().unwrap())
            });
            self.shown.lock().unwrap().extend(shown);
        } else {
            for handle in handles {
                self.hidden.lock().unwrap().remove(handle);
                *self.deleted.lock().unwrap().entry(handle.to_owned()).or_default() += 1;
            }
        }
        let done: Vec<_> = entries.iter().map(|entry| json!({"Id": entry["Id"]})).collect();
        json!({"Successful": done, "Failed": []})
    }

    fn take(&self, name: &str, most: usize) -> Vec<String> {
        let mut queues = self.queues.lock().unwrap();
        let mut hidden = self.hidden.lock().unwrap();
        let now = Instant::now();
        let is_back = |(of, until): &(String, Instant)| of == name && *until <= now;
        let back: Vec<_> = hidden
            .extract_if(|_, one| is_back(one))
            .map(|(id, _)| id)
            .collect();
        let queue = queues.entry(name.to_owned()).or_default();
        queue.extend(back);
        let ids: Vec<_> = (0..most).map_while(|_| queue.pop_front()).collect();
        let mut received = self.received.lock().unwrap();
        for id in &ids {
            hidden.insert(id.clone(), (name.to_owned(), now + VISIBILITY));
            *received.entry(id.clone()).or_default() += 1;
        }
        ids
    }

    async fn receive(&self, asked: &Value) -> (u16, Value) {
        let name = asked["QueueUrl"].as_str().unwrap().rsplit('/').next().unwrap();
        if name.starts_with("n-bad") {
            let refused = json!({"__type": "com.amazonaws.sqs#InvalidAddress", "message": "no"});
            return (400, refused);
        }
        let most = usize::try_from(asked["MaxNumberOfMessages"].as_u64().unwrap()).unwrap();
        let until = Instant::now() + Duration::from_secs(asked["WaitTimeSeconds"].as_u64().unwrap());
        loop {
            let came = self.came.notified();
            let ids = self.take(name, most);
            if !ids.is_empty() {
                let message = |id: &String| json!({"MessageId": id, "ReceiptHandle": id, "Body": id});
                let messages: Vec<_> = ids.iter().map(message).collect();
                return (200, json!({"Messages": messages}));
            }
            if tokio::time::timeout_at(until, came).await.is_err() {
                return (200, json!({}));
            }
        }
    }
}

fn steady() -> crate::sqs::SteadyClock {
    let start = Instant::now();
    Arc::new(move || Timestamp(u64::try_from(start.elapsed().as_millis()).unwrap()))
}
