//! The bytes of entries that many sessions get alike, joined once for all of them. A session's own words go behind
//! them for its send, and are taken off again.
//!
//! Invariant: the bytes are those of the entries' own frames or blocks, in order. Does not know who gets them.

use crate::{sse, websocket};
use bytes::{Buf, Bytes};
use postrider_model::Entry;
use std::collections::VecDeque;
use std::sync::Arc;

/// More memory than this is given back when nothing is joined.
const KEPT_BYTES: usize = 64 << 10;

/// How entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Sse,
    WebSocket,
}

impl Form {
    fn of(self, entry: &Entry) -> Bytes {
        match self {
            Form::Sse => sse::entry_block(entry),
            Form::WebSocket => websocket::entry_frame(entry),
        }
    }
}

/// Entries in one form.
pub(crate) struct Volley {
    form: Form,
    bytes: Vec<u8>,
    /// Where each entry begins.
    starts: Vec<usize>,
}

impl Volley {
    pub fn new(form: Form) -> Volley {
        Volley {
            form,
            bytes: Vec::new(),
            starts: Vec::new(),
        }
    }

    /// Joins those of `entries`, which begin with the ones that are joined, that are not yet.
    pub fn join(&mut self, entries: &[Arc<Entry>]) {
        for entry in entries.get(self.starts.len()..).unwrap_or_default() {
            self.starts.push(self.bytes.len());
            self.bytes.extend_from_slice(&self.form.of(entry));
        }
    }

    /// The first entries are no longer among them.
    pub fn forget(&mut self, entries: usize) {
        let gone = match self.starts.get(entries) {
            Some(start) => *start,
            None => self.bytes.len(),
        };
        self.bytes.drain(..gone);
        self.starts.drain(..entries.min(self.starts.len()));
        self.starts.iter_mut().for_each(|start| *start -= gone);
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// How many bytes there are from this entry on.
    pub fn len_from(&self, entry: usize) -> usize {
        self.bytes.len() - self.start(entry)
    }

    fn start(&self, entry: usize) -> usize {
        self.starts.get(entry).copied().unwrap_or(self.bytes.len())
    }

    /// Lets `act` have the bytes from this entry on, with `tail` behind them.
    pub fn with_tail<T>(&mut self, entry: usize, tail: &[u8], act: impl FnOnce(&[u8]) -> T) -> T {
        let (own, start) = (self.bytes.len(), self.start(entry));
        self.bytes.extend_from_slice(tail);
        let done = act(&self.bytes[start..]);
        self.bytes.truncate(own);
        done
    }
}

/// Queues what is left of these entries and of `tail` once a socket took all but the last `left` bytes. The
/// entries' bytes are shared with everyone who has them.
pub(crate) fn keep(
    form: Form,
    entries: &[Arc<Entry>],
    tail: &[u8],
    left: usize,
    queue: &mut VecDeque<Bytes>,
) {
    let mut skip =
        (entries.iter().map(|entry| form.of(entry).len()).sum::<usize>() + tail.len()).saturating_sub(left);
    let frames = entries.iter().map(|entry| form.of(entry));
    for mut bytes in frames.chain([Bytes::copy_from_slice(tail)]) {
        let gone = skip.min(bytes.len());
        skip -= gone;
        bytes.advance(gone);
        if !bytes.is_empty() {
            queue.push_back(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::tests::notification;

    #[test]
    fn bytes_are_the_frames_in_order_and_the_rest_is_what_was_not_taken() {
        let entries: Vec<_> = (0..3).map(|_| Arc::new(notification())).collect();
        let frames: Vec<_> = entries
            .iter()
            .map(|entry| websocket::entry_frame(entry))
            .collect();
        let all = [&frames.concat()[..], b"tail"].concat();
        let mut volley = Volley::new(Form::WebSocket);
        volley.join(&entries[..1]);
        volley.join(&entries);
        volley.with_tail(0, b"tail", |bytes| assert_eq!(bytes, all));
        let second = all.len() - frames[0].len();
        volley.with_tail(1, b"tail", |bytes| assert_eq!(bytes, &all[frames[0].len()..]));
        for left in 0..=second {
            let mut queue = VecDeque::new();
            keep(Form::WebSocket, &entries[1..], b"tail", left, &mut queue);
            let queued: Vec<u8> = queue.iter().flatten().copied().collect();
            assert_eq!(queued, all[all.len() - left..]);
        }
        volley.forget(2);
        assert_eq!(volley.len_from(0), frames[2].len());
        volley.with_tail(0, b"", |bytes| assert_eq!(bytes, frames[2]));
        volley.forget(1);
        assert_eq!((volley.len_from(0), volley.len_from(7)), (0, 0));
    }
}
