//! `postrider listen`: a user's notifications as they come, over any of the three wires; resumes by itself where it
//! stopped.
//!
//! Invariant: a cursor is kept, and an explicit acknowledgement sent, only for what has been written out. One thread
//! reads the wire, this one writes; between them is a bounded queue, so that a slow reader slows the wire.

mod cursor_file;
mod event;
mod long_poll;
mod reading;
mod recent;
mod render;
mod settling;
mod sse;
mod websocket;
pub mod wires;
mod writing;

use crate::client::{Call, TokenArg, UrlArg};
use crate::exit::Failure;
use crate::interrupt;
use crate::term;
use anyhow::anyhow;
use clap::{Args, ValueEnum};
use cursor_file::CursorFile;
use postrider_model::Millis;
use reading::News;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use wires::{Coming, Wanted};
use writing::{How, Writing};

/// What waits to be written, at most.
const QUEUE: usize = 64;
/// How long an acknowledgement may take, while nothing is written.
const SETTLE: Duration = Duration::from_secs(10);
/// How often is looked whether anybody still reads.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Arguments of `listen`.
#[derive(Args)]
#[command(after_help = LISTEN_HELP)]
#[command(
    about = "Show a user's notifications as they come",
    long_about = "Show a user's notifications as they come.\n\n\
    After a break it connects again by itself and goes on where it was, with growing pauses, until it is stopped. With \
    --cursor-file it also goes on where an earlier run stopped. Ctrl-C ends it with exit status 0."
)]
pub struct ListenArgs {
    /// Session topics, separated by commas
    #[arg(long, value_name = "TOPIC,…")]
    topics: Option<String>,
    /// Show the user's state first, and as it changes
    #[arg(long)]
    state: bool,
    /// What acknowledges
    #[arg(long, value_enum, default_value = "auto")]
    ack: Ack,
    /// The wire [default: sse; long-poll with --count, since that takes no more than is shown]
    #[arg(long, value_enum)]
    transport: Option<Transport>,
    /// Where to go on, as an earlier answer said
    #[arg(long)]
    cursor: Option<String>,
    /// Go on where the cursor in this file says, and keep it there
    #[arg(long, value_name = "FILE", conflicts_with = "cursor")]
    cursor_file: Option<PathBuf>,
    /// Stop after so many notifications
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop after this time, e.g. 10s; exit status 1 if --count were not there by then
    #[arg(long = "for", value_name = "TIME")]
    time: Option<String>,
    /// Write each event as one line of JSON: {"event":"notification","data":{…}}
    #[arg(long)]
    json: bool,
    /// Say nothing of connections on standard error
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    url: UrlArg,
    #[command(flatten)]
    token: TokenArg,
}

const LISTEN_HELP: &str = "\
Under --ack auto, SSE and WebSocket count as delivered what has reached this machine. --ack explicit acknowledges what was \
written out; what was not, comes again.

Examples:
  export POSTRIDER_TOKEN=\"$(postrider token --user ada --config postrider.yaml)\"
  postrider listen --topics news
  postrider listen --json | jq -r 'select(.event == \"notification\") | .data.subject'
  postrider listen --count 1 --for 30s                  wait for one, at most so long
  postrider listen --cursor-file ada.cursor --ack none  watch, and go on there the next time";

/// What acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ack {
    /// The wire's evidence
    Auto,
    /// This program, by id, once it has written one out
    Explicit,
    /// Nothing: it only watches
    None,
}

impl Ack {
    fn word(self) -> &'static str {
        match self {
            Ack::Auto => "auto",
            Ack::Explicit => "explicit",
            Ack::None => "none",
        }
    }
}

/// The wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Transport {
    /// Server-sent events
    Sse,
    /// A WebSocket
    Websocket,
    /// One poll after the other
    LongPoll,
}

/// Why nothing more is shown.
enum Stop {
    /// As many as were asked for.
    Count,
    /// The time is over.
    Time,
    /// Somebody said so, or nobody reads any more.
    Asked,
}

/// Shows what comes until it is stopped.
pub fn run(args: ListenArgs) -> Result<(), Failure> {
    let time = args.time.as_deref().map(Millis::parse).transpose();
    let time = time.map_err(|e| Failure::usage(format!("--for: {e}")))?;
    let transport = args.transport.unwrap_or(match args.count {
        None => Transport::Sse,
        Some(_) => Transport::LongPoll,
    });
    let (file, cursor) = match &args.cursor_file {
        None => (None, args.cursor.clone()),
        Some(path) => {
            let (file, cursor) = CursorFile::open(path)?;
            (Some(file), cursor)
        }
    };
    let bearer = args.token.bearer()?;
    let settling = settling::Settling::new(
        Call::within(&args.url, bearer.clone(), SETTLE)?,
        args.ack,
        transport,
    );
    let how = How {
        json: args.json,
        quiet: args.quiet,
        polls: transport == Transport::LongPoll,
        count: args.count,
    };
    let mut writing = Writing::new(how, settling, file);
    let wanted = Wanted {
        url: args.url,
        bearer,
        ack: args.ack.word(),
        topics: args.topics,
        state: args.state,
    };
    let (news, queue) = sync_channel(QUEUE);
    let stop = news.clone();
    interrupt::watch(move || drop(stop.send(News::Interrupted)))?;
    reading::begin(wanted, transport, cursor, args.count, news)?;
    let stop = until_stopped(&queue, &mut writing, time)?;
    writing.finish()?;
    match (stop, args.count) {
        (Stop::Time, Some(count)) => Err(anyhow!(
            "{} of {count} came in {}",
            count - writing.left().unwrap_or(0),
            args.time.unwrap_or_default()
        )
        .into()),
        _ => Ok(()),
    }
}

#[expect(clippy::disallowed_methods, reason = "it stops after a time")]
fn until_stopped(
    queue: &Receiver<News>,
    writing: &mut Writing,
    time: Option<Millis>,
) -> Result<Stop, Failure> {
    let deadline = time.map(|time| Instant::now() + Duration::from_millis(time.0));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Stop::Time);
        }
        // Nothing is there to be written: time for what may be done once for many.
        let news = match queue.try_recv() {
            Ok(news) => Ok(news),
            Err(_) => {
                writing.rest()?;
                queue.recv_timeout(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY))
            }
        };
        match news {
            Ok(News::Coming(Coming::Connected)) => writing.connected(),
            Ok(News::Coming(Coming::Event(event))) => writing.event(&event, postrider_server::now())?,
            Ok(News::Coming(Coming::Cursor(cursor))) => writing.cursor(cursor, None)?,
            Ok(News::Batch(cursor, answer)) => writing.cursor(cursor, Some(answer))?,
            Ok(News::Lost(told)) => writing.notice(&told),
            Ok(News::Failed(failure)) => {
                // What ended it is what there is to tell.
                if let Err(other) = writing.finish() {
                    writing.notice(&other.to_string());
                }
                return Err(failure);
            }
            Ok(News::Interrupted) => return Ok(Stop::Asked),
            Err(RecvTimeoutError::Timeout) if term::output_is_closed() => return Ok(Stop::Asked),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("nothing is read any more").into()),
        }
        if writing.is_done() {
            return Ok(Stop::Count);
        }
    }
}
