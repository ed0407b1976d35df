//! A stand-in for API Gateway's connections: `POST /{stage}/@connections/{id}`, as the service's reference has it.
//!
//! Invariant: nothing is taken whose signature was not computed again here and found right. What a connection got is kept
//! in the order in which it was taken; what was answered with an error was not taken.
//!
//! It holds no WebSockets: a connection is there or gone because the test says so.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html>

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use super::serving::{Asked, Reply, Serving, Site};
use super::signature::{Scope, check};
use super::{ACCESS_KEY, REGION, SECRET_KEY};

/// Most bytes of what is posted: 128 KB, by the service's quotas.
const PAYLOAD_MAX: usize = 128 << 10;
/// The path before a connection's id, which an SDK may escape.
const PLACES: [&str; 2] = ["@connections", "%40connections"];

/// How a post is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Taken, or 410 where the connection is gone.
    Fair,
    /// 429 `LimitExceededException`.
    Throttles,
    /// This status of 5xx, `InternalServerException`.
    Fails(u16),
    /// Taken after this time.
    Tarries(Duration),
    /// Reset without an answer, not taken.
    Resets,
    /// 403 `ForbiddenException`, as where the policy lacks `execute-api:ManageConnections`.
    Forbids,
}

/// What a connection got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The connection.
    pub connection: String,
    /// What was posted.
    pub body: Vec<u8>,
    /// When.
    pub at: Instant,
}

/// The running stand-in.
pub struct ApiGateway {
    serving: Serving,
    desk: Arc<Desk>,
}

struct Desk(Mutex<Book>);

struct Book {
    /// Who is believed: an access key, and the secret one.
    keys: (String, String),
    connections: HashSet<String>,
    takes_all: bool,
    /// How the next posts to a connection are met.
    plans: HashMap<String, VecDeque<Mood>>,
    /// How every so many-eth post is met.
    every: Option<(u64, Mood)>,
    posts: u64,
    taken: Vec<Posted>,
    answers: BTreeMap<u16, u64>,
    forbidden: Vec<String>,
}

impl ApiGateway {
    /// Starts one without connections.
    pub fn start() -> Result<ApiGateway> {
        let book = Book {
            keys: (ACCESS_KEY.to_owned(), SECRET_KEY.to_owned()),
            connections: HashSet::new(),
            takes_all: false,
            plans: HashMap::new(),
            every: None,
            posts: 0,
            taken: Vec::new(),
            answers: BTreeMap::new(),
            forbidden: Vec::new(),
        };
        let desk = Arc::new(Desk(Mutex::new(book)));
        Ok(ApiGateway {
            serving: Serving::start(desk.clone())?,
            desk,
        })
    }

    /// As `APIGW_ENDPOINT` takes it, with a stage.
    pub fn endpoint(&self) -> String {
        format!("http://{}/prod", self.serving.addr())
    }

    /// From now on somebody else is believed, by this access key and secret one.
    pub fn believe(&self, access_key: &str, secret_key: &str) {
        self.desk.book().keys = (access_key.to_owned(), secret_key.to_owned());
    }

    /// These connections are there from now on.
    pub fn connect<I: Into<String>>(&self, ids: impl IntoIterator<Item = I>) {
        self.desk
            .book()
            .connections
            .extend(ids.into_iter().map(Into::into));
    }

    /// This one is gone from now on.
    pub fn disconnect(&self, id: &str) {
        self.desk.book().connections.remove(id);
    }

    /// Every connection that anybody names is there, for measurements.
    pub fn take_all(&self) {
        self.desk.book().takes_all = true;
    }

    /// How the next posts to a connection are met, in this order; then fairly.
    pub fn plan(&self, id: &str, moods: impl IntoIterator<Item = Mood>) {
        let mut book = self.desk.book();
        book.plans.entry(id.to_owned()).or_default().extend(moods);
    }

    /// How every `nth` post is met, beside the plans; 0 ends it.
    pub fn every(&self, nth: u64, mood: Mood) {
        self.desk.book().every = (nth > 0).then_some((nth, mood));
    }

    /// What a connection got, in order.
    pub fn received(&self, id: &str) -> Vec<Vec<u8>> {
        let book = self.desk.book();
        let own = book.taken.iter().filter(|posted| posted.connection == id);
        own.map(|posted| posted.body.clone()).collect()
    }

    /// All that was taken, in order.
    pub fn taken(&self) -> Vec<Posted> {
        self.desk.book().taken.clone()
    }

    /// How much was taken.
    pub fn taken_count(&self) -> usize {
        self.desk.book().taken.len()
    }

    /// How many posts were answered with each status; 0 stands for a reset.
    pub fn answers(&self) -> BTreeMap<u16, u64> {
        self.desk.book().answers.clone()
    }

    /// Why requests were not believed, in order.
    pub fn forbidden(&self) -> Vec<String> {
        self.desk.book().forbidden.clone()
    }

    /// How many TCP connections it has taken: few, with keep-alive.
    pub fn tcp_connections(&self) -> u64 {
        self.serving.accepted()
    }
}

impl Desk {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meet(&self, asked: &Asked) -> Option<Reply> {
        let Some(id) = connection_of(asked) else {
            return Some(error(403, "ForbiddenException", "Forbidden"));
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let (access_key, secret_key) = self.book().keys.clone();
        let scope = Scope {
            access_key: &access_key,
            secret_key: &secret_key,
            region: REGION,
            service: "execute-api",
        };
        if let Err(no) = check(asked, &scope, now.unwrap_or_default().as_secs()) {
            self.book().forbidden.push(no.says.to_owned());
            return Some(error(403, no.error, no.says));
        }
        match self.book().mood(&id) {
            Mood::Fair => {}
            Mood::Tarries(time) => std::thread::sleep(time),
            Mood::Throttles => return Some(error(429, "LimitExceededException", "Rate exceeded")),
            Mood::Fails(status) => {
                return Some(error(status, "InternalServerException", "Internal server error"));
            }
            Mood::Forbids => return Some(error(403, "ForbiddenException", "Forbidden")),
            Mood::Resets => return None,
        }
        if asked.body.len() > PAYLOAD_MAX {
            return Some(error(413, "PayloadTooLargeException", "Payload too large"));
        }
        Some(self.book().take(id, asked))
    }
}

impl Book {
    fn mood(&mut self, id: &str) -> Mood {
        self.posts += 1;
        if let Some(mood) = self.plans.get_mut(id).and_then(VecDeque::pop_front) {
            return mood;
        }
        match self.every {
            Some((nth, mood)) if self.posts.is_multiple_of(nth) => mood,
            _ => Mood::Fair,
        }
    }

    fn take(&mut self, id: String, asked: &Asked) -> Reply {
        if !self.takes_all && !self.connections.contains(&id) {
            return error(410, "GoneException", "Gone");
        }
        self.taken.push(Posted {
            connection: id,
            body: asked.body.clone(),
            at: Instant::now(),
        });
        Reply::new(200, "")
    }
}

impl Site for Desk {
    type Link = ();

    fn answer(&self, _: &mut (), asked: Asked) -> Option<Reply> {
        let reply = self.meet(&asked);
        let status = reply.as_ref().map_or(0, |reply| reply.status);
        *self.book().answers.entry(status).or_default() += 1;
        reply
    }
}

/// The id in `POST /{stage}/@connections/{id}`.
fn connection_of(asked: &Asked) -> Option<String> {
    let path = asked.target.split('?').next()?.strip_prefix('/')?;
    let [_stage, place, id] = path.split('/').collect::<Vec<_>>()[..] else {
        return None;
    };
    let is_place = PLACES.iter().any(|known| place.eq_ignore_ascii_case(known));
    (asked.method == "POST" && is_place)
        .then(|| unescape(id))
        .flatten()
}

/// Ids end with `=`, which is escaped in a path.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// The service's way to say no.
fn error(status: u16, name: &str, says: &str) -> Reply {
    Reply::new(status, serde_json::json!({"message": says}).to_string())
        .header("content-type", "application/json")
        .header("x-amzn-ErrorType", name)
}
