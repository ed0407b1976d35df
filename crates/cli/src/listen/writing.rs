//! Writes what comes, counts it, and keeps what has been written from coming again.

use super::cursor_file::CursorFile;
use super::event::Event;
use super::recent::Recent;
use super::render::render;
use super::settling::Settling;
use crate::exit::Failure;
use crate::term::{Look, plain_json, plain_lines};
use postrider_model::Timestamp;
use serde_json::Value;
use std::io::Write as _;
use std::sync::mpsc::SyncSender;

/// Cursors that come while there is more to write before one of them is kept in the file.
const CURSORS_AT_ONCE: u32 = 100;

/// How it is to be written.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// As JSON.
    pub json: bool,
    /// Without notices.
    pub quiet: bool,
    /// Whether the wire is polled, so that a batch holds no more than is wanted.
    pub polls: bool,
    /// So many notifications.
    pub count: Option<u64>,
}

/// What goes to standard output, and what follows from it.
pub struct Writing {
    json: bool,
    quiet: bool,
    look: Look,
    /// How many notifications are still wanted.
    left: Option<u64>,
    recent: Recent,
    repeats_told: bool,
    was_connected: bool,
    unsettled_told: bool,
    settling: Settling,
    polls: bool,
    file: Option<CursorFile>,
    /// The cursor up to which all is written out, if the file does not hold it yet.
    unkept: Option<String>,
    unkept_count: u32,
    /// Whether the batch is whole.
    at_cursor: bool,
}

impl Writing {
    /// Nothing is written yet.
    pub fn new(how: How, settling: Settling, file: Option<CursorFile>) -> Writing {
        Writing {
            json: how.json,
            quiet: how.quiet,
            look: Look::stdout(),
            left: how.count,
            recent: Recent::default(),
            repeats_told: false,
            was_connected: false,
            unsettled_told: false,
            settling,
            polls: how.polls,
            file,
            unkept: None,
            unkept_count: 0,
            at_cursor: true,
        }
    }

    /// How many notifications are still wanted.
    pub fn left(&self) -> Option<u64> {
        self.left
    }

    /// Whether as many were written as are wanted. A poll brings no more than those: its cursor, which comes at once,
    /// belongs to them.
    pub fn is_done(&self) -> bool {
        self.left == Some(0) && (self.at_cursor || !self.polls)
    }

    /// A word about the connection.
    pub fn notice(&mut self, text: &str) {
        if !self.quiet {
            eprintln!("{}", Look::stderr().dim(plain_lines(text)));
        }
    }

    /// It is connected, for the first time or again.
    pub fn connected(&mut self) {
        let again = std::mem::replace(&mut self.was_connected, true);
        self.repeats_told = false;
        self.notice(if again {
            "connected again"
        } else {
            "connected; Ctrl-C stops"
        });
    }

    /// Writes one, unless it was written already.
    pub fn event(&mut self, event: &Event, now: Timestamp) -> Result<(), Failure> {
        if event.name == "withdrawn" && self.is_own(event) {
            return Ok(());
        }
        if event.name != "notification" {
            return Ok(self.write(event, now)?);
        }
        if self.left == Some(0) {
            return Ok(());
        }
        self.at_cursor = false;
        let parts = event.parts();
        let id = parts.id.as_deref().unwrap_or_default();
        if self.recent.repeats(id, parts.attempt.is_some()) {
            if !std::mem::replace(&mut self.repeats_told, true) {
                self.notice("what was shown before and comes again is left out");
            }
            return Ok(());
        }
        self.write(event, now)?;
        self.settling.written(id);
        self.left = self.left.map(|left| left.saturating_sub(1));
        if self.settling.is_due() {
            self.settle();
        }
        Ok(())
    }

    /// Whether all sessions are told that one of them took it, and it was this one.
    fn is_own(&self, event: &Event) -> bool {
        let parts = event.parts();
        parts.reason.as_deref() == Some("taken") && parts.id.is_some_and(|id| self.settling.took(&id))
    }

    fn write(&self, event: &Event, now: Timestamp) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        match self.json {
            true => {
                let name = Value::from(event.name.as_str());
                let line = format!("{{\"event\":{name},\"data\":{}}}", event.data);
                writeln!(out, "{}", plain_json(&line))?;
            }
            false => writeln!(out, "{}", render(event, self.look, now))?,
        }
        out.flush()
    }

    /// All before it is written out.
    pub fn cursor(&mut self, cursor: String, answer: Option<SyncSender<Option<u64>>>) -> Result<(), Failure> {
        self.at_cursor = true;
        self.settling.cursor(&cursor);
        self.unkept = Some(cursor);
        self.unkept_count += 1;
        if self.unkept_count >= CURSORS_AT_ONCE {
            self.keep()?;
        }
        if let Some(answer) = answer
            && self.left != Some(0)
        {
            // Who asked may be gone: then there is nobody to be told.
            answer.send(self.left).unwrap_or_default();
        }
        Ok(())
    }

    /// Nothing waits to be written.
    pub fn rest(&mut self) -> Result<(), Failure> {
        self.settle();
        self.keep()
    }

    /// What cannot be acknowledged now is tried again later.
    fn settle(&mut self) {
        if let Err(failure) = self.settling.settle() {
            if !std::mem::replace(&mut self.unsettled_told, true) {
                self.notice(&format!("acknowledging failed, and is tried again: {failure}"));
            }
        } else {
            self.unsettled_told = false;
        }
    }

    fn keep(&mut self) -> Result<(), Failure> {
        self.unkept_count = 0;
        match (&self.file, self.unkept.take()) {
            (Some(file), Some(cursor)) => Ok(file.keep(&cursor)?),
            _ => Ok(()),
        }
    }

    /// Keeps and acknowledges what is written out.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.keep()?;
        self.settling.finish()
    }
}
