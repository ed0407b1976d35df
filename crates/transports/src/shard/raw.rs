//! Requests of the raw dialect: what they come to, and how a refusal is told and logged.
//!
//! Where the keys of the token's issuer are just being fetched, the request waits for them a little, as its clients know
//! no answer that says "come back".

use super::*;
use crate::connection::Cors;
use crate::head::Head;
use crate::raw::{self, Trace};
use std::collections::HashSet;

/// A request waits so long at a time for the keys of its token's issuer, and so often.
const KEYS_PAUSE: Duration = Duration::from_millis(50);
const KEYS_PAUSES: u8 = 60;
/// It waits only for keys that are expected within so many seconds.
const KEYS_SOON_S: u32 = 2;
/// Requests of one outcome that a loop logs one by one in a second; of the rest it logs how many there were.
const LOGGED_MOST: u32 = 20;
const LOG_SPAN: Millis = Millis(1_000);

/// What the loop keeps for the dialect.
#[derive(Default)]
pub(super) struct RawDesk {
    /// Connections whose request waits for keys; no more than connections.
    waiting: HashSet<Key>,
    admitted: Pace,
    refused: Pace,
}

/// How many lines of one kind a loop logs.
#[derive(Default)]
struct Pace {
    /// Since when they are counted, and how many there were.
    since: Option<Timestamp>,
    count: u32,
}

impl Pace {
    /// Whether this one is logged by itself, and how many were not since the last that was.
    fn is_logged(&mut self, now: Timestamp) -> Option<u32> {
        if self.since.is_none_or(|since| now.since(since) >= LOG_SPAN) {
            let silent = self.count.saturating_sub(LOGGED_MOST);
            (self.since, self.count) = (Some(now), 1);
            return Some(silent);
        }
        self.count = self.count.saturating_add(1);
        (self.count <= LOGGED_MOST).then_some(0)
    }
}

impl Shard {
    /// Whether a request asks for the dialect.
    pub(super) fn is_raw(&self, head: &Head<'_>) -> bool {
        let rules = self.shared.raw.get();
        head.method == "GET" && rules.is_some_and(|rules| rules.path == head.path)
    }

    /// Acts on such a request; `rest` is what the client sent after it, and `waited` how often it has waited for keys.
    /// False where it waits.
    pub(super) fn take_raw_head(&mut self, slot: usize, head: &Head<'_>, rest: &[u8], waited: u8) -> bool {
        let (Some(rules), Some(connection)) = (self.shared.raw.get(), self.connections.get(slot)) else {
            return true;
        };
        let (key, client) = (connection.key, connection.client);
        if waited == 0 && self.raw.waiting.contains(&key) {
            return false;
        }
        let trace = Trace::of(head, self.shared.fresh_bits());
        let cors = head
            .header("origin")
            .and_then(|origin| self.shared.gate.cors(origin))
            .unwrap_or_default();
        let gate = &*self.shared.gate;
        match raw::read(head, client, rules, trace.clone(), gate, self.turn.wall) {
            Ok(request) => {
                if let Some(silent) = self.raw.admitted.is_logged(self.turn.now) {
                    let user = &request.identity.user;
                    tracing::info!(trace_id = trace.as_str(), %user, silent, "notifications are asked for");
                }
                self.begin(slot, request, cors, rest.to_vec());
            }
            Err(problem) if is_soon(&problem) && waited < KEYS_PAUSES => {
                self.wait_for_keys(key, waited + 1);
                return false;
            }
            Err(problem) => self.refuse_raw(slot, &trace, &problem, &cors),
        }
        true
    }

    fn wait_for_keys(&mut self, key: Key, waited: u8) {
        self.raw.waiting.insert(key);
        let mailbox = self.mailbox.clone();
        self.shared.spawn(async move {
            tokio::time::sleep(KEYS_PAUSE).await;
            mailbox.post(Post::KeysWaited(key, waited));
        });
    }

    /// A request has waited for keys.
    pub(super) fn keys_waited(&mut self, key: Key, waited: u8) {
        self.raw.waiting.remove(&key);
        let Some(connection) = self.connections.get_mut(key.slot).filter(|at| at.key == key) else {
            return;
        };
        let Stage::Head { buffer, .. } = &mut connection.stage else {
            return;
        };
        let bytes = std::mem::take(buffer);
        let taken = match head::parse(&bytes) {
            Parsed::Complete(head, length) if self.is_raw(&head) => {
                self.take_raw_head(key.slot, &head, &bytes[length..], waited)
            }
            _ => false,
        };
        if !taken
            && let Some(connection) = self.connections.get_mut(key.slot)
            && let Stage::Head { buffer, .. } = &mut connection.stage
        {
            *buffer = bytes;
        }
    }

    /// Tells the client why nothing comes of its request, and ends the connection.
    pub(super) fn refuse_raw(&mut self, slot: usize, trace: &Trace, problem: &Problem, cors: &Cors) {
        if let Some(silent) = self.raw.refused.is_logged(self.turn.now) {
            tracing::info!(
                trace_id = trace.as_str(),
                status = problem.status,
                code = problem.code,
                silent,
                "a request for notifications was refused"
            );
        }
        let (status, body) = raw::refusal(problem, trace);
        let mut extra: Vec<_> = cors.iter().map(|(name, value)| (*name, value.as_str())).collect();
        extra.push((raw::TRACE_HEADER, trace.as_str()));
        let retry = problem.retry_after.map(|seconds| seconds.to_string());
        extra.extend(retry.as_deref().map(|seconds| ("Retry-After", seconds)));
        if status == 401 {
            extra.push(("WWW-Authenticate", "Bearer"));
        }
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.out.push(response::json(status, &body, &extra));
            self.close(slot);
        }
    }

    /// The head of the answer; bodies follow.
    pub(super) fn begin_raw(&mut self, slot: usize, trace: &Trace, is_chunked: bool, cors: &Cors) -> Wire {
        let Some(connection) = self.connections.get_mut(slot) else {
            return Wire::Raw {
                tcp_evidence: false,
                is_chunked,
            };
        };
        let mut extra: Vec<_> = cors.iter().map(|(name, value)| (*name, value.as_str())).collect();
        extra.push((raw::TRACE_HEADER, trace.as_str()));
        connection.out.push(response::raw_stream(is_chunked, &extra));
        connection.socket.keep_watch();
        Wire::Raw {
            // Its clients say nothing: over the bridge there is no better evidence than that the API took it.
            tcp_evidence: self.shared.tcp_evidence,
            is_chunked,
        }
    }
}

/// Whether the keys of the token's issuer are expected in a moment.
fn is_soon(problem: &Problem) -> bool {
    problem.status == 503 && problem.retry_after.is_some_and(|seconds| seconds <= KEYS_SOON_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_logged_up_to_a_bound_and_the_rest_is_counted() {
        let mut pace = Pace::default();
        let logged = |pace: &mut Pace, now| {
            (0..50)
                .filter(|_| pace.is_logged(Timestamp(now)).is_some())
                .count()
        };
        assert_eq!(logged(&mut pace, 5), LOGGED_MOST as usize);
        assert_eq!(pace.is_logged(Timestamp(1_005)), Some(30));
        assert_eq!(pace.is_logged(Timestamp(1_006)), Some(0));
    }
}
