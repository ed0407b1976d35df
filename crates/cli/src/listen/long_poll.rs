//! Long polls, one after the other. The next one's cursor settles what the last one brought, so it is sent only once
//! that has been written out.

use super::event::Event;
use super::wires::{Coming, Ended, Taken, Wanted, Wire, refused};
use crate::client;
use crate::exit::Failure;
use anyhow::Context as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;

/// How long the node may wait with an empty answer. Seconds.
const WAIT: u64 = 30;
/// How long an answer may take: the wait, and some time on the way.
const SILENCE: Duration = Duration::from_secs(WAIT + 15);
/// Notifications of one answer, at most.
const LIMIT: u64 = 100;

/// The wire.
#[derive(Default)]
pub struct LongPoll {
    /// How many notifications are still wanted; all of them where that is not said.
    pub left: Option<u64>,
}

#[derive(Deserialize)]
struct Answer {
    notifications: Vec<Box<RawValue>>,
    #[serde(default)]
    events: Vec<Box<RawValue>>,
    cursor: String,
}

impl Wire for LongPoll {
    fn follow(
        &mut self,
        wanted: &Wanted,
        cursor: Option<&str>,
        hand: &mut dyn FnMut(Coming) -> Taken,
    ) -> Result<Ended, Failure> {
        let agent = wanted.url.following_agent(SILENCE)?;
        let url = wanted.url.join("/v1/inbox")?;
        let mut cursor = cursor.map(str::to_owned);
        let mut is_connected = false;
        loop {
            // The first is answered at once, so that it shows whether there is a node.
            let wait = if is_connected { WAIT } else { 0 }.to_string();
            let limit = self.left.unwrap_or(LIMIT).clamp(1, LIMIT).to_string();
            let request = agent
                .get(&url)
                .header("Authorization", &wanted.bearer)
                .query_pairs(wanted.query(cursor.as_deref()))
                .query_pairs([("wait", wait.as_str()), ("limit", limit.as_str())]);
            let text = match client::body(request.call()) {
                Ok(text) => text,
                Err(failure) => {
                    return Ok(match refused(failure)? {
                        Ended::Refused { why, retry_ms } if is_connected => Ended::Broke { why, retry_ms },
                        ended => ended,
                    });
                }
            };
            let answer: Answer =
                serde_json::from_str(&text).context("the answer is no inbox: is this a Postrider node?")?;
            if !std::mem::replace(&mut is_connected, true) && hand(Coming::Connected) == Taken::Enough {
                return Ok(Ended::Enough);
            }
            cursor = Some(answer.cursor.clone());
            match hand_over(answer, hand) {
                Taken::GoOn(left) => self.left = left,
                Taken::Enough => return Ok(Ended::Enough),
            }
        }
    }
}

/// Marks are told before what is new, as on the other wires.
fn hand_over(answer: Answer, hand: &mut dyn FnMut(Coming) -> Taken) -> Taken {
    let marks = answer
        .events
        .iter()
        .filter_map(|mark| Event::from_frame(mark.get()));
    let entries = answer.notifications.iter().map(|entry| Event {
        name: "notification".into(),
        data: entry.get().to_owned(),
    });
    for event in marks.chain(entries) {
        if hand(Coming::Event(event)) == Taken::Enough {
            return Taken::Enough;
        }
    }
    hand(Coming::Cursor(answer.cursor))
}
