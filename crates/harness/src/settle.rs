//! Publishes until it is known that everything was accepted, with the same ids each time, over kills and restarts.
//!
//! Invariant: a notification that was answered is not sent again, and those of one call are sent in their order in
//! every attempt, so that a feed must hold them in that order.
//!
//! It does not make ids: every notification must bring one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::node::AWAY;
use crate::publish::{Item, Publisher};

/// Pause between attempts, so that a node that refuses is not hammered.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How long a stream's answers may take, one by one.
const LINE_DEADLINE: Duration = Duration::from_secs(30);

/// In which shape of request notifications are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One request each.
    Single,
    /// One array.
    Array,
    /// One stream of NDJSON.
    Stream,
}

/// Publishes all; `accepted` is told each id as soon as it is known to be accepted. Returns the attempts needed.
pub fn publish(
    publisher: &mut Publisher,
    shape: Shape,
    notifications: &[Value],
    deadline: Instant,
    mut accepted: impl FnMut(&str),
) -> Result<u32> {
    let mut done = 0;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let rest = &notifications[done..];
        let outcome = match shape {
            Shape::Single => single(publisher, rest, &mut done, &mut accepted),
            Shape::Array => array(publisher, rest, &mut done, &mut accepted),
            Shape::Stream => stream(publisher, rest, &mut done, &mut accepted),
        };
        match outcome {
            Ok(()) if done == notifications.len() => return Ok(attempts),
            Ok(()) => {}
            Err(e) if e.downcast_ref::<Unexpected>().is_some() => return Err(e),
            Err(e) if Instant::now() > deadline => return Err(e.context("publishing until answered")),
            Err(_) => {}
        }
        if Instant::now() > deadline {
            bail!("{done} of {} accepted before the deadline", notifications.len());
        }
        std::thread::park_timeout(RETRY_PAUSE);
    }
}

/// An answer that no retry makes good.
#[derive(Debug)]
struct Unexpected(String);

impl std::fmt::Display for Unexpected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unexpected {}

fn id(notification: &Value) -> Result<&str> {
    notification["id"]
        .as_str()
        .context("a notification to settle needs an id")
}

fn single(
    p: &mut Publisher,
    rest: &[Value],
    done: &mut usize,
    accepted: &mut impl FnMut(&str),
) -> Result<()> {
    for notification in rest {
        let answer = p.one(notification)?;
        match answer.status() {
            202 => accepted(id(notification)?),
            away if AWAY.contains(&away) => return Ok(()),
            status => return Err(Unexpected(format!("publish answered {status}: {}", answer.text())).into()),
        }
        *done += 1;
    }
    Ok(())
}

fn array(p: &mut Publisher, rest: &[Value], done: &mut usize, accepted: &mut impl FnMut(&str)) -> Result<()> {
    let answer = p.raw("application/json", serde_json::to_vec(rest)?)?;
    match answer.status() {
        202 => {}
        away if AWAY.contains(&away) => return Ok(()),
        status => return Err(Unexpected(format!("array answered {status}: {}", answer.text())).into()),
    }
    for (notification, item) in rest
        .iter()
        .zip(crate::publish::items(&answer.json()?, rest.len())?)
    {
        if !take(notification, item, accepted)? {
            return Ok(());
        }
        *done += 1;
    }
    Ok(())
}

fn stream(
    p: &mut Publisher,
    rest: &[Value],
    done: &mut usize,
    accepted: &mut impl FnMut(&str),
) -> Result<()> {
    let mut stream = p.stream()?;
    for notification in rest {
        stream.send(&notification.to_string())?;
    }
    stream.finish()?;
    for notification in rest {
        let item = stream
            .answer(Instant::now() + LINE_DEADLINE)?
            .context("the answer ended early")?;
        if !take(notification, item, accepted)? {
            return Ok(());
        }
        *done += 1;
    }
    Ok(())
}

/// False where the server asks to try again.
fn take(notification: &Value, item: Item, accepted: &mut impl FnMut(&str)) -> Result<bool> {
    match item {
        Item::Accepted(told) if told == id(notification)? => {
            accepted(&told);
            Ok(true)
        }
        Item::Rejected(code, _) if code == "unavailable" => Ok(false),
        other => Err(Unexpected(format!("{}: {other:?}", id(notification)?)).into()),
    }
}
