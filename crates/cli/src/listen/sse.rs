//! Server-sent events.

use super::event::Event;
use super::wires::{Coming, Ended, Taken, Wanted, Wire, refused};
use crate::client;
use crate::exit::Failure;
use crate::sse::{Block, Reader};
use anyhow::anyhow;
use std::time::Duration;

/// A stream that is silent for so long is gone: the node says something every 15 s.
pub const SILENCE: Duration = Duration::from_secs(45);

/// The wire.
#[derive(Default)]
pub struct Sse;

impl Wire for Sse {
    fn follow(
        &mut self,
        wanted: &Wanted,
        cursor: Option<&str>,
        hand: &mut dyn FnMut(Coming) -> Taken,
    ) -> Result<Ended, Failure> {
        let request = wanted
            .url
            .following_agent(SILENCE)?
            .get(wanted.url.join("/v1/inbox/stream")?)
            .header("Authorization", &wanted.bearer)
            .header("Accept", "text/event-stream")
            .query_pairs(wanted.query(cursor));
        let answer = match request.call() {
            Ok(answer) if answer.status() == 200 => answer,
            answer => {
                let failure = client::body(answer).err().unwrap_or_else(|| {
                    anyhow!("the node answered something else where a stream should be").into()
                });
                return refused(failure);
            }
        };
        if hand(Coming::Connected) == Taken::Enough {
            return Ok(Ended::Enough);
        }
        let mut reader = Reader::default();
        let ended = reader.follow(answer.into_body().into_reader(), &mut |block| {
            let coming = match block {
                Block::Id(cursor) => Coming::Cursor(cursor),
                Block::Event(crate::sse::Event { name, data }) => Coming::Event(Event { name, data }),
            };
            hand(coming) != Taken::Enough
        });
        let retry_ms = reader.retry_ms;
        Ok(ended.map_or(Ended::Enough, |why| Ended::Broke { why, retry_ms }))
    }
}
