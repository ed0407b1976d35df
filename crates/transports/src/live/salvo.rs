//! The short way of a fan-out: entries that everyone gets alike go to a socket that takes them at once, with the
//! session's cursor and its probe behind them, in one send. Whatever is not as simple as that takes the long way
//! ([`Live::apply`], then [`Live::finish`]), to the same effect.

use super::{Live, Wire};
use crate::connection::{Connection, Stage};
use crate::notify::Dialect;
use crate::shard::Turn;
use crate::volley::{Form, Volley, keep};
use postrider_delivery::Stretch;
use postrider_model::{Entry, FeedId, Timestamp};
use std::sync::Arc;

/// Entries that everyone who hears a feed gets alike.
pub(crate) struct Salvo<'a> {
    pub feed: &'a FeedId,
    pub stretch: Stretch,
    pub entries: &'a [Arc<Entry>],
    /// Their bytes, for SSE and for WebSocket, as far as they were needed.
    pub volleys: &'a mut [Volley; 2],
}

/// Whether a session could be served like everyone.
pub(crate) enum Alike {
    /// It was, or had everything.
    Done,
    /// The long way has to be taken; nothing has happened.
    No,
    /// Its connection is over.
    Broken,
}

impl Connection {
    /// Takes the short way, if it can, and says when to look at the connection again, if it did.
    pub fn take_salvo(&mut self, salvo: &mut Salvo<'_>, turn: &mut Turn) -> (Alike, Option<Timestamp>) {
        let is_busy = self.touched || self.blocked || self.out.waiting() > 0;
        let Stage::Live(live) = &mut self.stage else {
            return (Alike::No, None);
        };
        let Some(form) = live.form().filter(|_| !is_busy && !live.is_odd(turn)) else {
            return (Alike::No, None);
        };
        let volley = match form {
            Form::Sse => &mut salvo.volleys[0],
            Form::WebSocket => &mut salvo.volleys[1],
        };
        volley.join(salvo.entries);
        if volley.len_from(0) > turn.rules.bounds.outbox {
            return (Alike::No, None);
        }
        let Some(from) = live.session.advance(salvo.feed, salvo.stretch) else {
            return (Alike::No, None);
        };
        let nth = (from - salvo.stretch.first) as usize;
        let Some(entries) = salvo.entries.get(nth..).filter(|entries| !entries.is_empty()) else {
            return (Alike::Done, None);
        };
        turn.tail.clear();
        live.end_batch(
            &mut self.socket,
            self.out.end() + volley.len_from(nth) as u64,
            turn,
        );
        turn.delivered(live.transport(), entries.len() as u64);
        let tail = &turn.tail;
        let (out, socket) = (&mut self.out, &mut self.socket);
        let sent = volley.with_tail(nth, tail, |bytes| {
            out.send(bytes, socket, |rest, queue| {
                keep(form, entries, tail, rest.len(), queue);
            })
        });
        turn.tail.clear();
        let Ok(all) = sent else {
            return (Alike::Broken, None);
        };
        self.blocked = !all;
        self.progress_at = turn.now;
        live.said(turn.now);
        (Alike::Done, Some(live.look_at(turn)))
    }
}

impl Live {
    fn form(&self) -> Option<Form> {
        match self.wire {
            Wire::Poll(_) | Wire::Raw { .. } => None,
            Wire::Sse { .. } => Some(Form::Sse),
            Wire::WebSocket {
                dialect: Dialect::Notify,
                ..
            } => None,
            Wire::WebSocket { .. } => Some(Form::WebSocket),
        }
    }

    /// Whether the client has to be told something else first, or nothing more.
    fn is_odd(&self, turn: &Turn) -> bool {
        self.dropped_transient || self.held_back || self.lifetime.is_over(turn.now)
    }
}
