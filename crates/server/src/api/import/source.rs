//! Where an import's users come from: a body, read piece by piece into batches.
//!
//! Invariant: held are one piece, one unfinished line and one batch, all within the room of bodies. A client that
//! brings no whole line for a while is not waited for.

use super::Form;
use super::answer::BadLine;
use crate::api::body;
use crate::api::refusal::{directory_problem, input_problem, sentence};
use crate::api::users::user_put;
use crate::bodies::Room;
use crate::drain::Drain;
use axum::body::Body;
use http_body_util::BodyExt as _;
use postrider_engine::{DirectoryError, UserPut};
use postrider_sources::users::{UserFault, UserReader};
use postrider_transports::Problem;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Sleep;

/// Most users of one batch.
const BATCH_USERS: usize = 1000;
/// A batch takes no more users once theirs amount to this.
const BATCH_BYTES: usize = 1 << 20;
/// A client that brings no whole line for so long is not waited for.
const GAP: Duration = Duration::from_secs(30);

/// Users that go to the engine together, and the bad lines among them.
#[derive(Debug, Default)]
pub struct Batch {
    /// The users.
    pub puts: Vec<UserPut>,
    /// The line of each.
    pub numbers: Vec<u64>,
    /// Lines that hold none.
    pub bad: Vec<BadLine>,
    bytes: usize,
}

impl Batch {
    /// How many lines it took.
    pub fn lines(&self) -> usize {
        self.puts.len() + self.bad.len()
    }

    fn is_full(&self) -> bool {
        self.lines() >= BATCH_USERS || self.bytes >= BATCH_BYTES
    }
}

/// The users to come.
pub struct Source {
    form: Form,
    /// Nothing once it has ended.
    body: Option<Body>,
    reader: UserReader,
    batch: Batch,
    /// Of the batch that is at the engine.
    taken_bytes: usize,
    /// Nothing where the body has it.
    room: Option<Room>,
    patience: Pin<Box<Sleep>>,
}

impl Source {
    /// Of a body.
    pub fn new(form: Form, body: Body, room: Option<Room>) -> Source {
        Source {
            form,
            body: Some(body),
            reader: form.reader(),
            batch: Batch::default(),
            taken_bytes: 0,
            room,
            patience: Box::pin(tokio::time::sleep(GAP)),
        }
    }

    /// Reads as far as users can begin.
    pub async fn open(&mut self, drain: &Drain) -> Result<(), Problem> {
        while !self.reader.is_open() {
            let Err(problem) = self.fill(drain).await else {
                continue;
            };
            // Of a client that still sends: it is to get the answer rather than a reset.
            if let (400 | 413, Some(body)) = (problem.status, &mut self.body) {
                body::discard(body).await;
            }
            return Err(problem);
        }
        Ok(())
    }

    /// Whether [`Source::fill`] would add something.
    pub fn has_room(&self) -> bool {
        !self.batch.is_full()
    }

    /// Whether nothing was gathered.
    pub fn is_empty(&self) -> bool {
        self.batch.lines() == 0
    }

    /// Takes out what was gathered.
    pub fn take(&mut self) -> Batch {
        self.taken_bytes = self.batch.bytes;
        std::mem::take(&mut self.batch)
    }

    /// What was taken out is done with. The wait for it was not the client's.
    pub fn done(&mut self) {
        self.taken_bytes = 0;
        self.be_patient();
    }

    /// Gathers what has come, or reads once. False when there is nothing more; an error is why nothing more comes.
    /// Cancel-safe: a read that does not finish has taken nothing.
    pub async fn fill(&mut self, drain: &Drain) -> Result<bool, Problem> {
        if self.gather()? {
            self.be_patient();
            return Ok(true);
        }
        let Some(body) = &mut self.body else {
            return Ok(false);
        };
        let frame = tokio::select! {
            biased;
            // First, so that a client that never pauses does not hold the node.
            () = drain.begun() => return Err(Problem::unavailable(1)),
            frame = body.frame() => frame,
            () = self.patience.as_mut() => return Err(Problem::body_timeout()),
        };
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.reader.push(data);
                }
            }
            // A line without its end counts where the body ended, not where it broke off.
            None => {
                self.body = None;
                self.reader.finish();
            }
            Some(Err(_)) => {
                self.body = None;
                return Err(body::cut());
            }
        }
        let held = self.reader.held() + self.batch.bytes + self.taken_bytes;
        let has_room = self.room.as_mut().is_none_or(|room| room.hold(held));
        has_room.then_some(true).ok_or_else(|| Problem::unavailable(1))
    }

    /// Moves users from what has come into the batch. False where there was none.
    fn gather(&mut self) -> Result<bool, Problem> {
        let before = self.batch.lines();
        while !self.batch.is_full() {
            let Some(line) = self.reader.take().map_err(header_problem)? else {
                break;
            };
            self.batch.bytes += line.bytes;
            match line.user {
                Ok(draft) => {
                    self.batch.puts.push(user_put(draft));
                    self.batch.numbers.push(line.number);
                }
                Err(fault) => self.batch.bad.push(BadLine::of(line.number, fault)),
            }
        }
        Ok(self.batch.lines() > before)
    }

    fn be_patient(&mut self) {
        self.patience = Box::pin(tokio::time::sleep(GAP));
    }

    /// A user whom the directory does not take.
    pub fn refused(&self, line: u64, error: &DirectoryError) -> BadLine {
        refused(self.form, line, error)
    }
}

/// A user whom the directory does not take, of a line in this form.
pub fn refused(form: Form, line: u64, error: &DirectoryError) -> BadLine {
    let problem = directory_problem(error, Some("/topics"));
    let (pointer, column) = match form {
        Form::Ndjson => (problem.pointer, None),
        Form::Csv => (None, problem.pointer.map(|_| "topics".to_owned())),
    };
    BadLine {
        line,
        code: problem.code,
        detail: problem.detail,
        pointer,
        column,
    }
}

/// The header of CSV cannot be understood.
pub fn header_problem(fault: UserFault) -> Problem {
    let detail = sentence(&fault.fault);
    let problem = input_problem(fault.fault, Problem::invalid_request(""));
    Problem {
        detail: format!("The header of the CSV cannot be read: {detail} Nothing was imported."),
        ..problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies::{Bodies, FREE_BYTES};
    use crate::drain::drain_switch;
    use bytes::Bytes;
    use http_body_util::channel::{Channel, Sender};

    fn source(room: Option<Room>) -> (Sender<Bytes, axum::Error>, Source) {
        let (sender, channel) = Channel::new(8);
        (sender, Source::new(Form::Ndjson, Body::new(channel), room))
    }

    async fn send(sender: &mut Sender<Bytes, axum::Error>, text: String) {
        sender.send_data(text.into()).await.unwrap();
    }

    /// Byte by byte is not line by line; a whole line now and then is enough.
    #[tokio::test(start_paused = true)]
    async fn whoever_brings_no_whole_line_is_not_waited_for() {
        let (_switch, drain) = drain_switch();
        let (mut sender, mut source) = source(None);
        let client = async move {
            for n in 0..9 {
                send(&mut sender, format!("{{\"id\":\"a{n}\"}}\n")).await;
                tokio::time::sleep(GAP - Duration::from_secs(1)).await;
            }
            for _ in 0..40 {
                send(&mut sender, "{".into()).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let reading = async {
            loop {
                if let Err(problem) = source.fill(&drain).await {
                    return problem;
                }
            }
        };
        tokio::select! {
            problem = reading => assert_eq!(problem, Problem::body_timeout()),
            () = client => panic!("it was waited for"),
        }
        assert_eq!(source.take().puts.len(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_no_room_or_time_it_ends() {
        let (switch, drain) = drain_switch();
        let bodies = Bodies::new(0);
        let (mut sender, mut tight) = source(Some(bodies.room()));
        send(&mut sender, "x".repeat(FREE_BYTES)).await;
        assert!(tight.fill(&drain).await.is_ok());
        send(&mut sender, "x".repeat(FREE_BYTES)).await;
        assert_eq!(tight.fill(&drain).await.unwrap_err().status, 503);
        let (_sender, mut source) = source(None);
        switch.begin();
        assert_eq!(source.fill(&drain).await.unwrap_err().status, 503);
    }

    #[tokio::test]
    async fn a_batch_is_bounded() {
        let (_switch, drain) = drain_switch();
        let (mut sender, mut source) = source(None);
        send(&mut sender, "7\n".repeat(5000)).await;
        while source.has_room() {
            assert!(source.fill(&drain).await.unwrap());
        }
        assert_eq!(source.take().lines(), BATCH_USERS);
        let long = format!("{{\"id\":\"{}\"}}\n", "x".repeat(100_000));
        let (mut sender, mut source) = self::source(None);
        send(&mut sender, long.repeat(20)).await;
        while source.has_room() {
            assert!(source.fill(&drain).await.unwrap());
        }
        assert_eq!(source.take().lines(), 1 + BATCH_BYTES / (long.len() - 1));
    }
}
