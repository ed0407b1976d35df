//! The thread that reads the wire: connects, hands over, and connects again.

use super::Transport;
use super::long_poll::LongPoll;
use super::sse::Sse;
use super::websocket::Ws;
use super::wires::{Coming, Ended, Taken, Wanted, Wire};
use crate::backoff;
use crate::exit::Failure;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// A connection that did not last so long counts as a failed attempt, so that the pauses grow, unless the node says
/// when to come back.
const SHORT: Duration = Duration::from_secs(2);

/// What the writing thread is told.
pub enum News {
    /// Something came.
    Coming(Coming),
    /// The same as a cursor; how many are still wanted is to be answered once all before it is written out.
    Batch(String, SyncSender<Option<u64>>),
    /// There is no connection; what is being done about it.
    Lost(String),
    /// Another attempt would not help.
    Failed(Failure),
    /// Somebody wants it to end.
    Interrupted,
}

/// Begins to read; ends when nobody takes it any more.
pub fn begin(
    wanted: Wanted,
    transport: Transport,
    cursor: Option<String>,
    count: Option<u64>,
    news: SyncSender<News>,
) -> Result<(), Failure> {
    let wire: Box<dyn Wire> = match transport {
        Transport::Sse => Box::new(Sse),
        Transport::Websocket => Box::new(Ws),
        Transport::LongPoll => Box::new(LongPoll { left: count }),
    };
    let waits = transport == Transport::LongPoll;
    let reading = Reading { cursor, news, waits };
    let read = move || {
        let told = reading.news.clone();
        if let Err(failure) = reading.read(wire, &wanted) {
            // Nobody may be left to be told.
            drop(told.send(News::Failed(failure)));
        }
    };
    std::thread::Builder::new().name("reading".into()).spawn(read)?;
    Ok(())
}

struct Reading {
    cursor: Option<String>,
    news: SyncSender<News>,
    /// Whether a batch has to be written out before the next is asked for.
    waits: bool,
}

impl Reading {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a connection lasted says whether it was one"
    )]
    fn read(mut self, mut wire: Box<dyn Wire>, wanted: &Wanted) -> Result<(), Failure> {
        let mut failures = 0u32;
        loop {
            let cursor = self.cursor.clone();
            let begun = Instant::now();
            let mut hand = |coming| self.hand(coming);
            let (told, asked_ms) = match wire.follow(wanted, cursor.as_deref(), &mut hand)? {
                Ended::Enough => return Ok(()),
                Ended::Broke { why, retry_ms } => {
                    failures = match begun.elapsed() < SHORT && retry_ms.is_none() {
                        true => failures + 1,
                        false => 0,
                    };
                    (why, retry_ms)
                }
                Ended::Refused { why, retry_ms } => {
                    failures += 1;
                    (format!("no connection: {why}"), retry_ms)
                }
            };
            let pause = backoff::pause(asked_ms, failures)?;
            let told = format!("{told}; trying again in {:.1} s", pause.as_secs_f64());
            if self.news.send(News::Lost(told)).is_err() {
                return Ok(());
            }
            backoff::wait(pause);
        }
    }

    fn hand(&mut self, coming: Coming) -> Taken {
        let mut answer = None;
        let news = match coming {
            Coming::Cursor(cursor) => {
                self.cursor = Some(cursor.clone());
                match self.waits {
                    false => News::Coming(Coming::Cursor(cursor)),
                    true => {
                        let (told, left) = sync_channel(1);
                        answer = Some(left);
                        News::Batch(cursor, told)
                    }
                }
            }
            coming => News::Coming(coming),
        };
        let sent = self.news.send(news);
        match (sent, answer) {
            (Err(_), _) => Taken::Enough,
            (Ok(()), None) => Taken::GoOn(None),
            (Ok(()), Some(left)) => left.recv().map_or(Taken::Enough, Taken::GoOn),
        }
    }
}
