//! Publish requests that a loop serves itself: small ones of HTTP/1.1, whose body has a length. What a turn's requests
//! bring is handed to the engine together when the turn ends, and their answers come back in one post.
//!
//! Invariant: one request of a connection is under way at a time, and they are answered in order. What is kept of
//! bodies that are not whole counts in [`Publishes::held`] for exactly as long as it is kept.
//!
//! Does not know keys or notifications: the [`Desk`](crate::desk::Desk) does. Other publish requests are referred
//! like whatever is no inbox request.

use super::*;
use crate::desk::{Answer, Order, Taken};
use crate::head::Head;
use postrider_engine::EngineError;
use postrider_model::{Publication, Receipt};

/// Where notifications are published.
const PATH: &str = "/v1/notifications";
/// A request with a longer body is referred.
const MAX_BODY: usize = 64 << 10;
/// Bytes kept of bodies that are not whole, in one loop; who brings more is answered 503.
const MAX_HELD: usize = 64 << 20;
/// A body must be whole this soon after its head; in a drain, when [`CLOSING_TIMEOUT`] has passed.
const BODY_TIMEOUT: Millis = Millis(30_000);
/// Publications handed to the engine at once, and their bytes; the last may exceed it.
const MAX_BATCH: usize = 1024;
const MAX_BATCH_BYTES: usize = 1 << 20;
/// When a client for whose body there is no room may try again.
const RETRY_AFTER_S: u32 = 1;

type Cors = Vec<(&'static str, String)>;

/// A connection's publish request.
pub(crate) enum Publishing {
    /// Its body is still coming.
    Body {
        /// The request so far, from its head on.
        bytes: Vec<u8>,
        /// Bytes of the whole request.
        whole: usize,
        deadline: Timestamp,
        cors: Cors,
    },
    /// The engine has it, or gets it when the turn ends.
    Waiting {
        keep_alive: bool,
        cors: Cors,
        /// What the client sent after it: the next one.
        rest: Vec<u8>,
    },
}

impl Publishing {
    /// Whether the client has to wait with what it sends next.
    pub fn is_full(&self) -> bool {
        matches!(self, Publishing::Waiting { rest, .. } if rest.len() >= MAX_AHEAD)
    }

    /// Bytes kept for a body that is not whole.
    fn held(&self) -> usize {
        match self {
            Publishing::Body { bytes, .. } => bytes.capacity(),
            Publishing::Waiting { .. } => 0,
        }
    }
}

/// The publish requests of a loop.
#[derive(Default)]
pub(super) struct Publishes {
    /// Bytes kept of bodies that are not whole.
    held: usize,
    /// What is to be handed to the engine, and for whom.
    orders: Vec<Ordered>,
    publications: Vec<Publication>,
    bytes: usize,
}

/// An order that the engine has, and who waits for its answer.
pub(crate) struct Ordered {
    key: Key,
    order: Box<dyn Order>,
    /// So many of the publications are its.
    count: usize,
}

impl Publishes {
    fn add(&mut self, key: Key, mut order: Box<dyn Order>) {
        let publications = order.publications();
        let count = publications.len();
        self.bytes += publications
            .iter()
            .map(|publication| publication.notification.data.len())
            .sum::<usize>();
        self.publications.extend(publications);
        self.orders.push(Ordered { key, order, count });
    }

    fn is_full(&self) -> bool {
        self.publications.len() >= MAX_BATCH || self.bytes >= MAX_BATCH_BYTES
    }
}

impl Shard {
    /// Serves a request whose head has `length` of the `bytes` that came, if it is one for this loop. False
    /// where somebody else has to.
    pub(super) fn try_publish(&mut self, slot: usize, head: &Head<'_>, length: usize, bytes: &[u8]) -> bool {
        let Some(body) = own_body(head, self.shared.desk.max_body().min(MAX_BODY)) else {
            return false;
        };
        let Some(connection) = self.connections.get(slot) else {
            return true;
        };
        let (key, client, keep_alive) = (connection.key, connection.client, head.keep_alive());
        let origin = head.header("origin");
        let cors = origin
            .and_then(|origin| self.shared.gate.cors(origin))
            .unwrap_or_default();
        let whole = length + body;
        let Some(body) = bytes.get(length..whole) else {
            match self.shared.desk.admit(head, client) {
                Ok(()) => self.keep_body(slot, bytes, whole, cors),
                Err(problem) => self.answer(slot, &problem, false, &cors),
            }
            return true;
        };
        let taken = self.shared.desk.take(head, client, body);
        let rest = bytes[whole..].to_vec();
        match taken {
            Taken::Answer(answer) => self.publish_answered(slot, &answer, keep_alive, &cors, rest),
            Taken::Order(order) => {
                let waiting = Publishing::Waiting {
                    keep_alive,
                    cors,
                    rest,
                };
                self.enter(slot, Stage::Publishing(Box::new(waiting)));
                self.publishes.add(key, order);
                if self.publishes.is_full() {
                    self.hand_in();
                }
            }
        }
        true
    }

    /// Waits for the rest of a body.
    fn keep_body(&mut self, slot: usize, bytes: &[u8], whole: usize, cors: Cors) {
        let patience = if self.turn.draining {
            CLOSING_TIMEOUT
        } else {
            BODY_TIMEOUT
        };
        let deadline = self.turn.now.plus(patience);
        let body = Publishing::Body {
            bytes: bytes.to_vec(),
            whole,
            deadline,
            cors,
        };
        self.publishes.held += body.held();
        self.enter(slot, Stage::Publishing(Box::new(body)));
        self.set_timer(slot, deadline);
        self.check_held(slot);
        // While the request before it waited, its rest may have been left in the socket.
        self.read_what_was_left(slot);
    }

    /// More came from a client with a publish request under way.
    pub(super) fn publish_received(&mut self, slot: usize, more: &[u8]) {
        let Some(publishing) = self.publishing(slot) else {
            return;
        };
        let before = publishing.held();
        let deadline = match publishing {
            Publishing::Waiting { rest, .. } => return rest.extend_from_slice(more),
            Publishing::Body {
                bytes,
                whole,
                deadline,
                ..
            } => {
                bytes.extend_from_slice(more);
                (bytes.len() >= *whole).then_some(*deadline)
            }
        };
        let now_held = publishing.held();
        self.publishes.held += now_held - before;
        let Some(deadline) = deadline else {
            return self.check_held(slot);
        };
        // It is whole: what follows is what would have followed had it come at once.
        if let Some(Publishing::Body { bytes, .. }) = self.publishing(slot) {
            let buffer = std::mem::take(bytes);
            self.publishes.held -= buffer.capacity();
            self.enter(
                slot,
                Stage::Head {
                    buffer,
                    deadline,
                    kept: None,
                },
            );
            self.try_head(slot);
        }
    }

    /// Refuses who brought more than there is room for.
    fn check_held(&mut self, slot: usize) {
        if self.publishes.held > MAX_HELD {
            self.refuse_body(slot, &Problem::unavailable(RETRY_AFTER_S));
        }
    }

    /// Its time has come: a body that is not whole is given up.
    pub(super) fn publish_late(&mut self, slot: usize) {
        let now = self.turn.now;
        match self.publishing(slot) {
            Some(Publishing::Body { deadline, .. }) if *deadline > now => {
                let at = *deadline;
                self.set_timer(slot, at);
            }
            Some(Publishing::Body { .. }) => self.refuse_body(slot, &Problem::body_timeout()),
            _ => {}
        }
    }

    /// The node drains: a body that is not whole has to be so soon.
    pub(super) fn hasten_body(&mut self, slot: usize) {
        let soon = self.turn.now.plus(CLOSING_TIMEOUT);
        if let Some(Publishing::Body { deadline, .. }) = self.publishing(slot)
            && *deadline > soon
        {
            *deadline = soon;
            self.set_timer(slot, soon);
        }
    }

    fn refuse_body(&mut self, slot: usize, problem: &Problem) {
        self.shared.desk.refused(problem);
        let cors = match self.publishing(slot) {
            Some(Publishing::Body { cors, .. }) => std::mem::take(cors),
            _ => Cors::new(),
        };
        self.answer(slot, problem, false, &cors);
    }

    /// A connection leaves its publish request, whatever became of that.
    pub(super) fn leave_publishing(&mut self, publishing: &Publishing) {
        self.publishes.held -= publishing.held();
    }

    /// Hands to the engine what this turn's requests brought.
    pub(super) fn hand_in(&mut self) {
        if self.publishes.orders.is_empty() {
            return;
        }
        self.publishes.bytes = 0;
        let publications = std::mem::take(&mut self.publishes.publications);
        let orders = std::mem::take(&mut self.publishes.orders);
        let mailbox = self.mailbox.clone();
        let answered = move |receipts| mailbox.post(Post::Published(orders, receipts));
        self.shared.engine.submit(publications, Box::new(answered));
    }

    /// The engine has told what became of these. Whose connection is gone by now needs no answer.
    pub(super) fn published(&mut self, orders: Vec<Ordered>, receipts: Vec<Result<Receipt, EngineError>>) {
        let mut receipts = receipts.into_iter();
        for Ordered { key, order, count } in orders {
            let answer = order.answer(receipts.by_ref().take(count).collect());
            if !self.is_current(key) {
                continue;
            }
            if let Some(Publishing::Waiting {
                keep_alive,
                cors,
                rest,
            }) = self.publishing(key.slot)
            {
                let (keep_alive, cors, rest) = (*keep_alive, std::mem::take(cors), std::mem::take(rest));
                self.publish_answered(key.slot, &answer, keep_alive, &cors, rest);
            }
        }
    }

    fn publish_answered(
        &mut self,
        slot: usize,
        answer: &Answer,
        keep_alive: bool,
        cors: &[(&'static str, String)],
        rest: Vec<u8>,
    ) {
        let keep_alive = keep_alive && !self.turn.draining;
        match answer {
            Err(problem) => self.answer(slot, problem, keep_alive, cors),
            Ok(json) => {
                let extra: Vec<_> = cors.iter().map(|(name, value)| (*name, value.as_str())).collect();
                if let Some(connection) = self.connections.get_mut(slot) {
                    connection.out.push(response::accepted(json, keep_alive, &extra));
                }
                if !keep_alive {
                    self.close(slot);
                }
            }
        }
        if keep_alive {
            self.next_request(slot, rest);
        }
    }

    fn publishing(&mut self, slot: usize) -> Option<&mut Publishing> {
        match &mut self.connections.get_mut(slot)?.stage {
            Stage::Publishing(publishing) => Some(publishing),
            _ => None,
        }
    }
}

/// The length of the body of a publish request that a loop serves itself: plainly addressed, with a body of JSON
/// that comes at once and has at most `most` bytes.
fn own_body(head: &Head<'_>, most: usize) -> Option<usize> {
    let plain = head.method == "POST" && head.target == PATH && head.version_minor == 1;
    let special = ["transfer-encoding", "content-encoding", "expect", "upgrade"];
    if !plain || special.iter().any(|name| head.header(name).is_some()) {
        return None;
    }
    let mut types = head.header_values("content-type");
    if let Some(given) = types.next() {
        let essence = given.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/json") || types.next().is_some() {
            return None;
        }
    }
    let length = head.header("content-length")?.parse().ok()?;
    (length <= most).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(lines: &str) -> Option<usize> {
        let bytes = format!("{lines}\r\nHost: x\r\n\r\n");
        match head::parse(bytes.as_bytes()) {
            Parsed::Complete(head, _) => own_body(&head, 100),
            other => panic!("{lines}: {other:?}"),
        }
    }

    #[test]
    fn which_requests_a_loop_serves_itself() {
        let post = "POST /v1/notifications HTTP/1.1";
        for (lines, length) in [
            ("Content-Length: 7", 7),
            ("Content-Length: 100\r\nContent-Type: application/json", 100),
            (
                "content-length: 0\r\ncontent-type: Application/JSON; charset=utf-8",
                0,
            ),
            (
                "Content-Length: 7\r\nIdempotency-Key: k\r\nConnection: close\r\nOrigin: https://a.example",
                7,
            ),
        ] {
            assert_eq!(judged(&format!("{post}\r\n{lines}")), Some(length), "{lines}");
        }
        for lines in [
            "X: no length",
            "Content-Length: 101",
            "Content-Length: 99999999999999999999999",
            "Transfer-Encoding: chunked",
            "Content-Length: 7\r\nContent-Encoding: gzip",
            "Content-Length: 7\r\nExpect: 100-continue",
            "Content-Length: 7\r\nUpgrade: h2c",
            "Content-Length: 7\r\nContent-Type: application/x-ndjson",
            "Content-Length: 7\r\nContent-Type:",
            "Content-Length: 7\r\nContent-Type: application/json\r\nContent-Type: application/json",
        ] {
            assert_eq!(judged(&format!("{post}\r\n{lines}")), None, "{lines}");
        }
        for line in [
            "POST /v1/notifications HTTP/1.0",
            "POST /v1/notifications/ HTTP/1.1",
            "POST /v1/notifications?x HTTP/1.1",
            "POST http://x/v1/notifications HTTP/1.1",
            "PUT /v1/notifications HTTP/1.1",
            "POST /v1/notifications/7 HTTP/1.1",
        ] {
            assert_eq!(judged(&format!("{line}\r\nContent-Length: 7")), None, "{line}");
        }
    }
}
