//! A stand-in before an emulator of SQS that throttles, fails, tarries, loses answers, and does batches in part, as the
//! service may.
//!
//! Invariant: what it says has failed was not done, but where the fault is to lose the answer of what was done.
//!
//! It changes nothing else of what goes through. For a bad network there is [`crate::proxy::Proxy`], which may stand
//! before it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::serving::{Asked, Reply, Serving, Site};
use crate::http::{Conn, Request};

/// How long the emulator may take; a long poll takes 20 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// Each so many-eth entry of a batch fails.
const ENTRY: u64 = 3;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 400 `ThrottlingException`.
    Throttles,
    /// This status of 5xx, `InternalFailure`.
    Fails(u16),
    /// The request is lost, and the connection reset.
    LosesRequests,
    /// It is done, and the answer is lost: the connection is reset.
    LosesAnswers,
    /// It is done after this time.
    Tarries(Duration),
    /// Each third entry of a batch is not done and reported as failed, by the service's own fault.
    DoesBatchesInPart,
}

/// The running stand-in.
pub struct Trouble {
    serving: Serving,
    desk: Arc<Desk>,
}

struct Desk {
    target: SocketAddr,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    rules: Vec<Rule>,
    entries: u64,
    /// Which call met which fault, and how often.
    met: BTreeMap<String, u64>,
}

struct Rule {
    call: Option<String>,
    nth: u64,
    fault: Fault,
    seen: u64,
}

impl Trouble {
    /// Before this emulator; without faults yet.
    pub fn before(target: SocketAddr) -> Result<Trouble> {
        let desk = Arc::new(Desk {
            target,
            book: Mutex::default(),
        });
        Ok(Trouble {
            serving: Serving::start(desk.clone())?,
            desk,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.serving.addr()
    }

    /// As `AWS_ENDPOINT_URL` takes it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Every `nth` call of this name (`ReceiveMessage`; none for all calls) meets the fault from now on.
    pub fn every(&self, nth: u64, call: Option<&str>, fault: Fault) {
        self.desk.book().rules.push(Rule {
            call: call.map(str::to_owned),
            nth: nth.max(1),
            fault,
            seen: 0,
        });
    }

    /// No more faults.
    pub fn clear(&self) {
        self.desk.book().rules.clear();
    }

    /// How often which call met which fault, for the account.
    pub fn met(&self) -> BTreeMap<String, u64> {
        self.desk.book().met.clone()
    }

    /// How many TCP connections it has taken.
    pub fn tcp_connections(&self) -> u64 {
        self.serving.accepted()
    }

    /// How many of them there are now.
    pub fn tcp_open(&self) -> usize {
        self.serving.open()
    }
}

impl Desk {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the request on, and the answer back; the connection to the emulator is kept as the client's is.
    fn pass(&self, link: &mut Option<Conn>, asked: &Asked) -> Result<Reply> {
        let mut request = Request::new(&asked.method, &asked.target);
        for (name, value) in &asked.headers {
            if !matches!(
                name.as_str(),
                "host" | "content-length" | "connection" | "content-type"
            ) {
                request = request.header(name, value);
            }
        }
        let kind = asked
            .header("content-type")
            .unwrap_or("application/x-amz-json-1.0");
        request = request.body(kind, asked.body.clone());
        let mut conn = match link.take() {
            Some(conn) => conn,
            None => Conn::open(self.target, None)?,
        };
        let answer = conn.call(&request, Instant::now() + PATIENCE)?;
        let keeps = |value: &str| !value.eq_ignore_ascii_case("close");
        if answer.head.header("connection").is_none_or(keeps) {
            *link = Some(conn);
        }
        let mut reply = Reply::new(answer.status(), answer.body);
        for (name, value) in answer.head.headers {
            if !matches!(
                name.as_str(),
                "content-length" | "transfer-encoding" | "connection"
            ) {
                reply = reply.header(&name, &value);
            }
        }
        Ok(reply)
    }

    /// A batch of which some entries are left out, and said to have failed.
    fn pass_in_part(&self, link: &mut Option<Conn>, mut asked: Asked) -> Result<Reply> {
        let mut batch: Value = serde_json::from_slice(&asked.body)?;
        let entries = batch["Entries"].take();
        let entries = entries.as_array().context("no entries")?;
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for entry in entries {
            let mut book = self.book();
            book.entries += 1;
            match book.entries.is_multiple_of(ENTRY) {
                true => failed.push(json!({
                    "Id": entry["Id"], "SenderFault": false, "Code": "InternalError", "Message": "try again",
                })),
                false => done.push(entry.clone()),
            }
        }
        if done.is_empty() {
            let body = json!({"Successful": [], "Failed": failed}).to_string();
            return Ok(Reply::new(200, body).header("content-type", "application/x-amz-json-1.0"));
        }
        batch["Entries"] = done.into();
        asked.body = batch.to_string().into_bytes();
        let mut reply = self.pass(link, &asked)?;
        let mut answer: Value = serde_json::from_slice(&reply.body)?;
        match answer["Failed"].as_array_mut() {
            Some(more) => more.extend(failed),
            None => answer["Failed"] = failed.into(),
        }
        reply.body = answer.to_string().into_bytes();
        Ok(reply)
    }
}

impl Book {
    /// What the call meets. Every rule counts, the first that falls due is met.
    fn meet(&mut self, call: &str) -> Option<Fault> {
        let mut met = None;
        let of_call = |rule: &&mut Rule| rule.call.as_deref().is_none_or(|named| named == call);
        for rule in self.rules.iter_mut().filter(of_call) {
            rule.seen += 1;
            if rule.seen.is_multiple_of(rule.nth) {
                met = met.or(Some(rule.fault));
            }
        }
        if let Some(fault) = met {
            *self.met.entry(format!("{call} {fault:?}")).or_default() += 1;
        }
        met
    }
}

impl Site for Desk {
    type Link = Option<Conn>;

    fn answer(&self, link: &mut Option<Conn>, asked: Asked) -> Option<Reply> {
        // `AmazonSQS.ReceiveMessage`
        let target = asked.header("x-amz-target").unwrap_or_default();
        let call = target.rsplit('.').next().unwrap_or_default().to_owned();
        let is_batch = call.ends_with("Batch");
        let fault = self.book().meet(&call);
        let passed = match fault {
            Some(Fault::Throttles) => return Some(error(400, "ThrottlingException", "Rate exceeded")),
            Some(Fault::Fails(status)) => return Some(error(status, "InternalFailure", "try again")),
            Some(Fault::LosesRequests) => return None,
            Some(Fault::LosesAnswers) => {
                // Whether the emulator did it is as unknown here as it is to the client.
                self.pass(link, &asked).ok();
                return None;
            }
            Some(Fault::DoesBatchesInPart) if is_batch => self.pass_in_part(link, asked),
            Some(Fault::Tarries(time)) => {
                std::thread::sleep(time);
                self.pass(link, &asked)
            }
            Some(Fault::DoesBatchesInPart) | None => self.pass(link, &asked),
        };
        // An emulator that is away is a reset.
        passed.ok()
    }
}

/// An error by SQS's JSON protocol.
fn error(status: u16, name: &str, says: &str) -> Reply {
    let body = json!({"__type": format!("com.amazonaws.sqs#{name}"), "message": says});
    Reply::new(status, body.to_string())
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amzn-ErrorType", name)
}
