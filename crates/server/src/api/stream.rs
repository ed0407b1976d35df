//! `POST /v1/notifications` as NDJSON: lines are published while they come, and answered line by line.
//!
//! Invariant: one batch is at the engine at a time, so lines are accepted in their order; while it is there
//! the next is read, and no more than that. When the engine is busy, or the client does not read its answers,
//! reading stops: nothing grows. Where the room of all bodies is used up, nothing is read ahead, and a long line
//! that is still coming is given up. A line over the key's rate waits for its turn in the same way. A line that
//! came whole is published even if the client is gone by then.

use super::Api;
use super::publish::{push_accepted, push_problem};
use super::refusal::intake_problem;
use super::submit::{Item, Outcome, Submission};
use crate::bodies::{FREE_BYTES, Room};
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use postrider_router::{Fault, FaultCode};
use postrider_sources::http::{self, Most};
use postrider_sources::{Line, Lines};
use postrider_transports::Problem;
use std::collections::VecDeque;
use std::sync::Arc;

/// Most lines of one batch.
const BATCH_LINES: usize = 1024;
/// A batch takes no more lines once theirs amount to this. A line itself may be longer.
const BATCH_BYTES: usize = 1 << 20;
/// Pieces of the answer that wait for the client to read.
const ANSWERS_WAITING: usize = 2;

/// Starts the stream; the answer's head leaves at once.
pub fn answer(api: &Arc<Api>, submission: Submission, body: Body) -> Response {
    let (answers, channel) = Channel::<Bytes, axum::Error>::new(ANSWERS_WAITING);
    let stream = Stream {
        api: api.clone(),
        submission,
        source: Source {
            body: Some(body),
            splitter: Lines::new(api.max_body),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            batch_bytes: 0,
            room: api.bodies.room(),
            pressed: false,
        },
        index: 0,
        answered: 0,
    };
    api.tasks.spawn("ndjson", stream.run(answers));
    let mut response = Response::new(Body::new(channel));
    *response.status_mut() = StatusCode::ACCEPTED;
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, ndjson);
    response
}

struct Stream {
    api: Arc<Api>,
    submission: Submission,
    source: Source,
    /// The place of the next line to be put in a batch.
    index: u64,
    /// The place of the next line to be answered.
    answered: u64,
}

impl Stream {
    async fn run(mut self, mut answers: Sender<Bytes, axum::Error>) {
        loop {
            while self.source.waiting.is_empty() {
                if !self.source.read(&self.api).await {
                    return;
                }
            }
            let batch = self.gather();
            let outcomes = {
                let mut publishing = std::pin::pin!(self.submission.submit_patiently(batch));
                loop {
                    tokio::select! {
                        biased;
                        outcomes = &mut publishing => break outcomes,
                        _ = self.source.read(&self.api), if self.source.has_room() => {}
                    }
                }
            };
            self.source.batch_done();
            if answers.send_data(self.lines(&outcomes)).await.is_err() {
                return;
            }
        }
    }

    /// Takes waiting lines through intake, up to the bounds of a batch.
    fn gather(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        let mut bytes = 0;
        let most = self.submission.batch_lines().min(BATCH_LINES);
        while items.len() < most && bytes < BATCH_BYTES {
            let Some(line) = self.source.take() else {
                break;
            };
            items.push(match line {
                Line::Whole(line) => {
                    bytes += line.len();
                    let draft = http::decode_line(&line, &Most::from(&self.api.limits));
                    self.submission.admit(draft, self.index)
                }
                Line::TooLong => {
                    let detail = format!("the line is longer than {} bytes", self.api.max_body);
                    Err(intake_problem(Fault::new(FaultCode::TooLarge, detail)))
                }
                Line::GivenUp => Err(Problem::unavailable(1)),
            });
            self.index += 1;
        }
        self.source.batch_bytes = bytes;
        items
    }

    fn lines(&mut self, outcomes: &[Outcome]) -> Bytes {
        let mut out = Vec::with_capacity(outcomes.len() * 80);
        for outcome in outcomes {
            match outcome {
                Ok(id) => push_accepted(&mut out, id),
                Err(problem) => {
                    out.extend_from_slice(
                        format!("{{\"accepted\":false,\"index\":{},", self.answered).as_bytes(),
                    );
                    push_problem(&mut out, problem);
                    out.push(b'}');
                }
            }
            out.push(b'\n');
            self.answered += 1;
        }
        out.into()
    }
}

/// The request's body as lines.
struct Source {
    body: Option<Body>,
    splitter: Lines,
    /// Whole lines that are in no batch yet. The last read may exceed the bounds of a batch.
    waiting: VecDeque<Line>,
    waiting_bytes: usize,
    /// Bytes of the batch that is at the engine.
    batch_bytes: usize,
    /// For all of these, and the line that is not whole yet.
    room: Room,
    /// There is none: nothing is read ahead.
    pressed: bool,
}

impl Source {
    /// Whether to read on while a batch is at the engine.
    fn has_room(&self) -> bool {
        self.body.is_some()
            && !self.pressed
            && self.waiting.len() < BATCH_LINES
            && self.waiting_bytes < BATCH_BYTES
    }

    fn take(&mut self) -> Option<Line> {
        let line = self.waiting.pop_front()?;
        self.waiting_bytes -= bytes_of(&line);
        Some(line)
    }

    /// Reads once. False when there is nothing more: the body has ended or broken off, or the node drains.
    /// Cancel-safe: a read that does not finish has taken nothing.
    async fn read(&mut self, api: &Api) -> bool {
        let Some(body) = &mut self.body else {
            return false;
        };
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = api.drain.begun() => None,
        };
        let mut lines = Vec::new();
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.splitter.push(data, &mut lines);
                }
            }
            // A line without its end counts where the body ended, not where it broke off.
            ended => {
                self.body = None;
                if ended.is_none() && !api.drain.has_begun() {
                    self.splitter.finish(&mut lines);
                }
            }
        }
        self.waiting_bytes += lines.iter().map(bytes_of).sum::<usize>();
        self.waiting.extend(lines);
        self.take_room();
        true
    }

    /// Lines that are whole go on; they are at most what one read brought.
    fn take_room(&mut self) {
        let whole = self.waiting_bytes + self.batch_bytes;
        self.pressed = !self.room.hold(whole + self.splitter.held());
        // A line of the usual size comes to its end without.
        if self.pressed && self.splitter.held() > FREE_BYTES {
            self.splitter.give_up();
        }
    }

    fn batch_done(&mut self) {
        self.batch_bytes = 0;
        self.take_room();
    }
}

fn bytes_of(line: &Line) -> usize {
    match line {
        Line::Whole(line) => line.len(),
        Line::TooLong | Line::GivenUp => 0,
    }
}
