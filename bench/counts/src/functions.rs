//! The inner functions: what each notification, each delivery and each frame pays for.

use anyhow::{Context as _, Result, anyhow};
use postrider_delivery::{AckMode, Moment, Opening, Outbox, Reading, Session};
use postrider_engine::{Embedded, EmbeddedOptions, Feeds as _, Rules};
use postrider_model::{
    Entry, EntryKind, Epoch, FeedId, FeedStart, Forms, NotificationId, Position, Publication, SessionId,
    Timestamp, UserId,
};
use postrider_router::{Arrival, Limits, Publisher, admit};
use postrider_sources::http::{Most, decode_line};
use postrider_transports::websocket::{Decoder, entry_frame};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

/// When everything here happens: 2026-01-01, in milliseconds.
const NOW: Timestamp = Timestamp(1_767_225_600_000);
/// Notifications of one batch.
const BATCH: u64 = 100;
/// Sessions' user.
const USER: &str = "user-000001";
/// An ack by id, as a client sends it: masked by zeros.
const ACK: &[u8] = br#"{"type":"ack","ids":["01234567-89ab-7def-8123-456789abcdef"]}"#;

/// One function to count.
pub struct Function {
    pub name: &'static str,
    pub says: &'static str,
    /// How many calls are compared with twice as many.
    pub count: u64,
    pub run: fn(u64) -> Result<()>,
}

/// All of them.
pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "encode",
        says: "the WebSocket frame of a notification",
        count: 2_000,
        run: encode,
    },
    Function {
        name: "fan_out",
        says: "one session's decision on one entry",
        count: 2_000,
        run: fan_out,
    },
    Function {
        name: "intake",
        says: "one NDJSON line decoded and admitted",
        count: 2_000,
        run: intake,
    },
    Function {
        name: "apply",
        says: "one NDJSON line decoded, admitted and stored, in batches of 100, without a disk",
        count: 2_000,
        run: apply,
    },
    Function {
        name: "frame",
        says: "one client's frame decoded",
        count: 2_000,
        run: frame,
    },
];

fn line(nth: u64) -> String {
    format!(
        r#"{{"users":["user-{:06}"],"data":{{"n":"{nth:010}","p":"{}"}}}}"#,
        nth % 10_000,
        "x".repeat(100)
    )
}

fn publication(nth: u64) -> Result<Publication> {
    let limits = Limits::default();
    let draft =
        decode_line(line(nth).as_bytes(), &Most::from(&limits)).map_err(|fault| anyhow!("{fault:?}"))?;
    let publisher = Publisher {
        name: "bench",
        may_broadcast: true,
    };
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&nth.to_be_bytes());
    let arrival = Arrival {
        now: NOW,
        fresh: uuid::Builder::from_unix_timestamp_millis(
            1_767_225_600_000,
            bytes[6..].try_into().context("ten bytes")?,
        )
        .into_uuid(),
        derived: None,
        request: None,
    };
    admit(draft, &publisher, &limits, arrival).map_err(|fault| anyhow!("{fault:?}"))
}

fn entry(nth: u64) -> Result<Entry> {
    Ok(Entry {
        feed: FeedId::All,
        position: Position {
            epoch: Epoch(1),
            offset: nth + 1,
        },
        kind: EntryKind::Notification(publication(1)?.notification, None),
        forms: Arc::new(Forms::default()),
    })
}

fn encode(count: u64) -> Result<()> {
    let entry = entry(0)?;
    for _ in 0..count {
        let fresh = Entry {
            forms: Arc::new(Forms::default()),
            ..entry.clone()
        };
        black_box(entry_frame(&fresh));
    }
    Ok(())
}

fn intake(count: u64) -> Result<()> {
    for nth in 0..count {
        black_box(publication(nth)?);
    }
    Ok(())
}

/// Takes what a session sends, and nothing else ever comes.
#[derive(Default)]
struct Sent(u64);

impl Outbox for Sent {
    fn has_room(&self) -> bool {
        true
    }
    fn send(&mut self, _: &Arc<Entry>, _: Option<u32>) {
        self.0 += 1;
    }
    fn gap(&mut self, _: Timestamp) {}
    fn stalled(&mut self, _: &[NotificationId]) {}
    fn read(&mut self, _: &FeedId, _: Reading, _: bool) {}
    fn settle(&mut self, _: &FeedId, _: Position) {}
}

fn fan_out(count: u64) -> Result<()> {
    let opening = Opening {
        session: SessionId::new("s1")?,
        user: UserId::new(USER)?,
        ack: AckMode::Auto,
        redelivery: None,
        cursor: None,
        topics: Vec::new(),
    };
    let mut sent = Sent::default();
    let mut session = Session::open(&opening, &[FeedStart::EMPTY, FeedStart::EMPTY], &[], &mut sent);
    let now = Moment {
        wall: NOW,
        steady: NOW,
    };
    let mut shared = entry(0)?;
    for nth in 0..count {
        shared.position.offset = nth + 1;
        let entries = [Arc::new(shared.clone())];
        session.appended(black_box(&entries), now, &mut sent);
    }
    anyhow::ensure!(sent.0 == count, "{} of {count} were sent", sent.0);
    Ok(())
}

fn apply(count: u64) -> Result<()> {
    let engine = Embedded::open(EmbeddedOptions {
        data_dir: None,
        rules: Rules::default(),
        clock: Arc::new(|| NOW),
        on_commit: Box::new(|_, _| {}),
    })?;
    for first in (0..count).step_by(BATCH as usize) {
        let batch = (first..first + BATCH).map(publication).collect::<Result<_>>()?;
        let (reply, answer) = sync_channel(1);
        let answered = Box::new(move |receipts| drop(reply.send(receipts)));
        engine.submit(batch, answered);
        for receipt in answer.recv()? {
            receipt?;
        }
    }
    Ok(())
}

fn frame(count: u64) -> Result<()> {
    let mut bytes = vec![0x81, 0x80 | ACK.len() as u8, 1, 2, 3, 4];
    let masked = ACK
        .iter()
        .enumerate()
        .map(|(at, byte)| byte ^ [1, 2, 3, 4][at % 4]);
    bytes.extend(masked);
    let mut decoder = Decoder::default();
    let mut messages = 0;
    for _ in 0..count {
        let mut input = bytes.clone();
        decoder
            .feed(&mut input, |message| {
                black_box(&message);
                messages += 1;
            })
            .map_err(|fault| anyhow!("{fault:?}"))?;
    }
    anyhow::ensure!(messages == count, "{messages} of {count} were decoded");
    Ok(())
}
