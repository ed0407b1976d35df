//! One command connection and its whole life: what is asked goes out in the order in which it was taken, and answers
//! come back in that order.
//!
//! Invariant: of every request it is known whether any of it was handed to the socket. A connection on which nothing
//! came for [`QUIET`] is asked for a sign of life, and given up when none comes for as long again.
//!
//! It never connects again: another pipe takes its place.

use super::fault::LinkFault;
use super::wire::{Greeting, Replies, Wire, Writer, not_sent};
use redis::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// Silence after which a sign of life is asked for.
pub const QUIET: Duration = Duration::from_secs(1);
/// Intervals of silence after which a connection is given up.
const QUIET_MOST: u32 = 2;
/// Longest that a request may rightly be without an answer: a `WAIT` for replicas, which holds up what is behind it.
pub const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Requests that wait to be written. A full queue makes those who ask wait, and then fail as not sent.
const QUEUE: usize = 1024;
/// Requests written and not answered; further ones wait in the queue.
const UNANSWERED: usize = 1024;
/// Bytes of requests from taken in to answered. Larger requests go alone.
const ROOM_BYTES: usize = 32 << 20;
/// Bytes of several requests that one write joins.
const JOINED_BYTES: usize = 256 << 10;
/// Requests that one write joins: fewer than [`UNANSWERED`], or they would wait for answers to themselves.
const JOINED: usize = 256;

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Where a request stands.
const QUEUED: u8 = 0;
const TAKEN: u8 = 1;
const CANCELLED: u8 = 2;

/// A command connection.
#[derive(Debug)]
pub struct Pipe {
    queue: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    born: u64,
    greeting: Greeting,
    ended: watch::Receiver<Option<LinkFault>>,
    end: Arc<Notify>,
    task: JoinHandle<()>,
}

/// Commands that go out together.
#[derive(Debug)]
pub struct Asked {
    /// The commands as the server reads them, one after another.
    pub bytes: Vec<u8>,
    /// How many commands there are.
    pub count: usize,
    /// Whether one of them waits for something else than the server.
    pub waits: bool,
}

#[derive(Debug)]
struct Request {
    asked: Asked,
    stage: Arc<AtomicU8>,
    answer: oneshot::Sender<Vec<Value>>,
    room: OwnedSemaphorePermit,
}

/// A request that was taken in; its answers are waited for.
#[derive(Debug)]
pub struct Pending {
    stage: Arc<AtomicU8>,
    answer: oneshot::Receiver<Vec<Value>>,
    count: usize,
}

impl Pipe {
    /// Takes over a connection; `born` is its number among all.
    pub fn start(wire: Wire, born: u64, runtime: &Handle) -> Pipe {
        let (queue, requests) = mpsc::channel(QUEUE);
        let (told, ended) = watch::channel(None);
        let end = Arc::new(Notify::new());
        let ending = Arc::clone(&end);
        let task = runtime.spawn(async move {
            let fault = run(wire.replies, wire.writer, requests, &ending).await;
            told.send_replace(Some(fault));
        });
        let room = Arc::new(Semaphore::new(ROOM_BYTES));
        Pipe {
            queue,
            room,
            born,
            greeting: wire.greeting,
            ended,
            end,
            task,
        }
    }

    /// Its number among all connections of this node: rises with time.
    pub fn born(&self) -> u64 {
        self.born
    }

    /// What the server said of itself.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Hands in commands. Fails only where none of them was sent.
    pub async fn submit(&self, asked: Asked, deadline: Instant) -> Result<Pending, LinkFault> {
        let bytes = asked.bytes.len().clamp(1, ROOM_BYTES);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = timeout_at(deadline, Arc::clone(&self.room).acquire_many_owned(bytes)).await;
        let Ok(Ok(room)) = room else {
            return Err(not_sent("too much is waiting to be sent"));
        };
        let stage = Arc::new(AtomicU8::new(QUEUED));
        let (answer, answered) = oneshot::channel();
        let count = asked.count;
        let request = Request {
            asked,
            stage: Arc::clone(&stage),
            answer,
            room,
        };
        match timeout_at(deadline, self.queue.send(request)).await {
            Ok(Ok(())) => Ok(Pending {
                stage,
                answer: answered,
                count,
            }),
            Ok(Err(_)) => Err(not_sent("the connection ended")),
            Err(_) => Err(not_sent("too much is waiting to be sent")),
        }
    }

    /// [`Pipe::submit`] and the answers to it.
    pub async fn ask(&self, asked: Asked, deadline: Instant) -> Vec<Result<Value, LinkFault>> {
        let count = asked.count;
        match self.submit(asked, deadline).await {
            Ok(pending) => pending.answers(deadline).await,
            Err(fault) => vec![Err(fault); count],
        }
    }

    /// Ends it: what is under way fails as its stage says.
    pub fn end(&self) {
        self.end.notify_one();
    }

    /// True once it has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Returns when it has ended, with the reason.
    pub async fn ended(&self) -> LinkFault {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(fault) => fault.clone().unwrap_or(LinkFault::Closed),
            Err(_) => LinkFault::Closed,
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pending {
    /// The answers, as many as there are commands. Errors of the server are among the values.
    pub async fn answers(mut self, deadline: Instant) -> Vec<Result<Value, LinkFault>> {
        let mut answers: Vec<_> = match timeout_at(deadline, &mut self.answer).await {
            Ok(Ok(values)) => values.into_iter().map(Ok).collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        if answers.len() < self.count {
            let fault = self.give_up();
            answers.resize(self.count, Err(fault));
        }
        answers
    }

    /// Takes it back if nothing of it was sent, and says which it was.
    fn give_up(&self) -> LinkFault {
        let taken = self
            .stage
            .compare_exchange(QUEUED, CANCELLED, Ordering::AcqRel, Ordering::Acquire);
        match taken {
            Ok(_) => not_sent("it waited too long to be sent"),
            Err(_) => LinkFault::Unknown("no answer in time, or the connection ended".into()),
        }
    }
}

/// What was written and is not answered yet. Dropped, it hands over the answers that came.
struct Unanswered {
    values: Vec<Value>,
    count: usize,
    waits: bool,
    /// `None` for a sign of life that nobody else waits for.
    answer: Option<oneshot::Sender<Vec<Value>>>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        if let Some(answer) = self.answer.take()
            && answer.send(values).is_err()
        {
            tracing::trace!("an answer of Redis came after its caller had gone");
        }
    }
}

/// What the two directions of a connection tell one another.
#[derive(Default)]
struct Between {
    ask_for_life: Notify,
    /// Requests under way that may rightly take long.
    waiting: AtomicUsize,
}

async fn run(replies: Replies, writer: Writer, requests: mpsc::Receiver<Request>, end: &Notify) -> LinkFault {
    let between = Between::default();
    let (written, unanswered) = mpsc::channel(UNANSWERED);
    tokio::select! {
        fault = write(writer, requests, written, &between) => fault,
        fault = read(replies, unanswered, &between) => fault,
        () = end.notified() => not_sent("the connection was given up"),
    }
}

async fn write(
    mut writer: Writer,
    mut requests: mpsc::Receiver<Request>,
    written: mpsc::Sender<Unanswered>,
    between: &Between,
) -> LinkFault {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        tokio::select! {
            request = requests.recv() => {
                let Some(request) = request else {
                    return LinkFault::Closed;
                };
                take(request, &mut bytes, &written, between).await;
                for _ in 1..JOINED {
                    let room = bytes.len() < JOINED_BYTES;
                    let Some(request) = room.then(|| requests.try_recv().ok()).flatten() else {
                        break;
                    };
                    take(request, &mut bytes, &written, between).await;
                }
            }
            () = between.ask_for_life.notified() => {
                bytes.extend_from_slice(PING);
                note(&written, Unanswered { values: Vec::new(), count: 1, waits: false, answer: None, _room: None }).await;
            }
        }
        if let Err(error) = writer.write_all(&bytes).await {
            return not_sent(format!("the connection ended: {error}"));
        }
        if let Err(error) = writer.flush().await {
            return not_sent(format!("the connection ended: {error}"));
        }
    }
}

/// From here on a request counts as sent, unless its caller took it back before.
async fn take(request: Request, bytes: &mut Vec<u8>, written: &mpsc::Sender<Unanswered>, between: &Between) {
    let stage = &request.stage;
    if stage
        .compare_exchange(QUEUED, TAKEN, Ordering::AcqRel, Ordering::Acquire)
        .is_err()
    {
        return;
    }
    bytes.extend_from_slice(&request.asked.bytes);
    if request.asked.waits {
        between.waiting.fetch_add(1, Ordering::AcqRel);
    }
    let unanswered = Unanswered {
        values: Vec::with_capacity(request.asked.count),
        count: request.asked.count,
        waits: request.asked.waits,
        answer: Some(request.answer),
        _room: Some(request.room),
    };
    note(written, unanswered).await;
}

/// Waits for a place; the reading side makes room as answers to what was written before come in.
async fn note(written: &mpsc::Sender<Unanswered>, unanswered: Unanswered) {
    if written.send(unanswered).await.is_err() {
        tracing::trace!("the reading side of a connection to Redis has ended");
    }
}

async fn read(
    mut replies: Replies,
    mut unanswered: mpsc::Receiver<Unanswered>,
    between: &Between,
) -> LinkFault {
    let mut current: Option<Unanswered> = None;
    let mut quiet = 0;
    loop {
        match timeout(QUIET, replies.fill()).await {
            Err(_) => {
                quiet += 1;
                if quiet >= most_quiet(between) {
                    return not_sent("the server does not answer");
                }
                if quiet == 1 {
                    between.ask_for_life.notify_one();
                }
                continue;
            }
            Ok(Ok(0)) => return not_sent("the server closed the connection"),
            Ok(Err(error)) => return not_sent(format!("the connection ended: {error}")),
            Ok(Ok(_)) => quiet = 0,
        }
        loop {
            let value = match replies.next() {
                Ok(Some(value)) => value,
                Ok(None) => break,
                Err(fault) => return not_sent(fault.to_string()),
            };
            let Some(mut of) = current.take().or_else(|| unanswered.try_recv().ok()) else {
                return not_sent("the server answered what was not asked");
            };
            of.values.push(value);
            if of.values.len() < of.count {
                current = Some(of);
            } else if of.waits {
                between.waiting.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

/// Intervals of silence that end the connection: more while something waits for replicas.
fn most_quiet(between: &Between) -> u32 {
    if between.waiting.load(Ordering::Acquire) == 0 {
        QUIET_MOST
    } else {
        QUIET_MOST + (LONGEST_WAIT.as_secs() / QUIET.as_secs()) as u32
    }
}
