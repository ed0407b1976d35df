//! A session by long polling: each poll brings the cursor of the last answer, which acknowledges it under `auto`.
//!
//! Invariant: a poll is sent only when all of the answer before it was yielded, so that a cursor never runs ahead of
//! what the test has seen. A poll in flight at a deadline stays in flight.
//!
//! Under `explicit` every poll begins with what is pending at or below its cursor: what this session was sent before is
//! dropped by id, as a client does under at-least-once delivery. It does not pipeline polls.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::frame::{frame, notification};
use super::{Connect, End, Inbox, Received, Refused, is_cut};
use crate::http::{Answer, Conn, Cut};

/// A polling session.
pub struct LongPoll {
    connect: Connect,
    conn: Conn,
    queue: VecDeque<Received>,
    in_flight: bool,
    end: Option<End>,
    /// What was sent before; kept under `explicit` only.
    known: HashSet<String>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    notifications: Vec<&'a RawValue>,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    cursor: String,
    gap: bool,
}

impl LongPoll {
    /// Opens by a first poll that does not wait.
    pub fn open(connect: &Connect) -> Result<LongPoll> {
        let conn = connect.endpoint.connect(connect.recv_buffer)?;
        let mut poll = LongPoll {
            connect: connect.clone(),
            conn,
            queue: VecDeque::new(),
            in_flight: false,
            end: None,
            known: HashSet::new(),
        };
        poll.send_poll(0)?;
        let answer = poll
            .conn
            .answer(connect.opening_deadline())?
            .context("no answer to the first poll")?;
        if answer.status() != 200 {
            return Err(Refused(answer).into());
        }
        poll.take(&answer)?;
        Ok(poll)
    }

    fn send_poll(&mut self, wait: u32) -> Result<()> {
        let mut extra = vec![
            ("wait", wait.to_string()),
            ("limit", self.connect.poll_limit.to_string()),
        ];
        if let Some(cursor) = &self.connect.cursor {
            extra.push(("cursor", cursor.clone()));
        }
        let request = self.connect.request("/v1/inbox", &extra);
        self.conn.write(&request.bytes())?;
        self.in_flight = true;
        Ok(())
    }

    fn take(&mut self, answer: &Answer) -> Result<()> {
        self.in_flight = false;
        let text = std::str::from_utf8(&answer.body)?;
        let page: Page<'_> = serde_json::from_str(text).with_context(|| format!("not a page: {text}"))?;
        let is_empty = page.notifications.is_empty() && page.events.is_empty();
        let mut notifications = Vec::new();
        for raw in page.notifications {
            let notification = notification(raw.get())?;
            let explicit = self.connect.query.contains(&("ack".into(), "explicit".into()));
            if !explicit || self.connect.repeats || self.known.insert(notification.id.clone()) {
                notifications.push(notification);
            }
        }
        // It says only that there is one: nothing comes twice in an answer, so it stands before all.
        self.queue.extend(page.gap.then_some(Received::Gap(None)));
        self.queue
            .extend(notifications.into_iter().map(Received::Notification));
        self.queue.extend(is_empty.then_some(Received::KeepAlive));
        for raw in page.events {
            self.queue.push_back(frame(raw.get())?);
        }
        self.connect.cursor = Some(page.cursor.clone());
        self.queue.push_back(Received::Cursor(page.cursor));
        Ok(())
    }

    fn step(&mut self, deadline: Instant) -> Result<bool> {
        if !self.in_flight {
            self.send_poll(self.connect.poll_wait)?;
        }
        let Some(answer) = self.conn.answer(deadline)? else {
            return Ok(false);
        };
        if answer.status() == 200 {
            self.take(&answer)?;
        } else {
            self.end = Some(End::Refused(answer.status(), answer.code().unwrap_or_default()));
        }
        Ok(true)
    }
}

impl Inbox for LongPoll {
    fn next(&mut self, deadline: Instant) -> Result<Option<Received>> {
        loop {
            if let Some(received) = self.queue.pop_front() {
                return Ok(Some(received));
            }
            if let Some(end) = &self.end {
                return Ok(Some(Received::End(end.clone())));
            }
            match self.step(deadline) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(e) if is_cut(&e) => {
                    self.end = Some(End::Broken(format!("{e:#}")));
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn send(&mut self, frame: &Value) -> Result<()> {
        bail!("long poll cannot send {frame}")
    }

    fn cut(self: Box<Self>, how: Cut) {
        self.conn.cut(how);
    }
}
