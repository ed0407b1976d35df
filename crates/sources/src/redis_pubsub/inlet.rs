//! Where published messages wait between the connection that brings them and the worker that takes them.
//!
//! Invariant: what waits is bounded, in messages and in bytes; what has no room is dropped and counted. Nothing here
//! waits: the connection's own task calls it.

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Messages that may wait.
const MOST_WAITING: usize = 65_536;
/// Bytes of them that may wait.
const MOST_WAITING_BYTES: usize = 64 << 20;

/// A message as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub channel: String,
    /// It came by the channel's own name, rather than by a pattern.
    pub is_own: bool,
    pub payload: Bytes,
}

/// See the module.
pub(super) struct Inlet {
    waiting: Mutex<Waiting>,
    news: Arc<Notify>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Published>,
    bytes: usize,
    /// Connections of an earlier life say nothing any more.
    life: u64,
    is_lost: bool,
    /// Subscriptions were asked for and are not confirmed.
    is_asking: bool,
}

/// What one life's connections push into.
#[derive(Clone)]
pub(super) struct Mouth {
    inlet: Arc<Inlet>,
    life: u64,
}

impl Inlet {
    pub fn new(news: Arc<Notify>) -> Inlet {
        Inlet {
            waiting: Mutex::default(),
            news,
            dropped: AtomicU64::new(0),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections are being made anew. What waits stays.
    pub fn begin(self: &Arc<Self>) -> Mouth {
        let mut waiting = self.waiting();
        waiting.life += 1;
        waiting.is_lost = false;
        let life = waiting.life;
        drop(waiting);
        Mouth {
            inlet: self.clone(),
            life,
        }
    }

    pub fn take(&self, most: usize) -> Vec<Published> {
        let mut waiting = self.waiting();
        let count = waiting.messages.len().min(most);
        let taken: Vec<_> = waiting.messages.drain(..count).collect();
        waiting.bytes -= taken.iter().map(size).sum::<usize>();
        taken
    }

    /// A connection ended by itself, or does not have its channels any more.
    pub fn is_lost(&self) -> bool {
        self.waiting().is_lost
    }

    pub fn asking(&self) {
        self.waiting().is_asking = true;
    }

    pub fn answered(&self) {
        self.waiting().is_asking = false;
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Mouth {
    /// Takes what a connection has to say.
    pub fn push(&self, info: PushInfo) -> Result<(), std::convert::Infallible> {
        let mut waiting = self.inlet.waiting();
        if waiting.life != self.life {
            return Ok(());
        }
        let is_first = match info.kind {
            PushKind::Disconnection => {
                waiting.is_lost = true;
                true
            }
            // Nobody asked for that: the slot went to another master.
            PushKind::SUnsubscribe if !waiting.is_asking => {
                waiting.is_lost = true;
                true
            }
            kind => match published(&kind, info.data) {
                None => return Ok(()),
                Some(one) => {
                    let bytes = waiting.bytes + size(&one);
                    if waiting.messages.len() >= MOST_WAITING || bytes > MOST_WAITING_BYTES {
                        self.inlet.dropped.fetch_add(1, Ordering::Relaxed);
                        return Ok(());
                    }
                    waiting.bytes = bytes;
                    waiting.messages.push_back(one);
                    waiting.messages.len() == 1
                }
            },
        };
        drop(waiting);
        if is_first {
            self.inlet.news.notify_one();
        }
        Ok(())
    }
}

fn size(one: &Published) -> usize {
    one.channel.len() + one.payload.len()
}

fn published(kind: &PushKind, data: Vec<Value>) -> Option<Published> {
    let is_own = match kind {
        PushKind::Message | PushKind::SMessage => true,
        PushKind::PMessage => false,
        _ => return None,
    };
    let mut data = data.into_iter().skip(usize::from(!is_own));
    let Some(Value::BulkString(channel)) = data.next() else {
        return None;
    };
    let Some(Value::BulkString(payload)) = data.next() else {
        return None;
    };
    Some(Published {
        channel: String::from_utf8(channel).ok()?,
        is_own,
        payload: payload.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(kind: PushKind, data: &[&[u8]]) -> PushInfo {
        let data = data
            .iter()
            .map(|bytes| Value::BulkString(bytes.to_vec()))
            .collect();
        PushInfo { kind, data }
    }

    #[test]
    fn what_waits_is_bounded_and_an_earlier_life_says_nothing() {
        let inlet = Arc::new(Inlet::new(Arc::default()));
        let old = inlet.begin();
        let mouth = inlet.begin();
        old.push(info(PushKind::Message, &[b"c", b"old"])).unwrap();
        old.push(PushInfo {
            kind: PushKind::Disconnection,
            data: vec![],
        })
        .unwrap();
        assert!(!inlet.is_lost() && inlet.take(9).is_empty());
        mouth
            .push(info(PushKind::PMessage, &[b"p*", b"pc", b"\xff"]))
            .unwrap();
        mouth.push(info(PushKind::Subscribe, &[b"c"])).unwrap();
        let taken = inlet.take(9);
        assert_eq!(
            taken,
            [Published {
                channel: "pc".into(),
                is_own: false,
                payload: Bytes::from_static(b"\xff")
            }]
        );
        let large = vec![0; MOST_WAITING_BYTES / 2];
        for _ in 0..3 {
            mouth.push(info(PushKind::SMessage, &[b"c", &large])).unwrap();
        }
        assert_eq!(
            (inlet.dropped(), inlet.take(1).len(), inlet.take(9).len()),
            (2, 1, 0)
        );
        for _ in 0..MOST_WAITING + 1 {
            mouth.push(info(PushKind::Message, &[b"c", b""])).unwrap();
        }
        assert_eq!((inlet.dropped(), inlet.take(usize::MAX).len()), (3, MOST_WAITING));
        mouth
            .push(PushInfo {
                kind: PushKind::Disconnection,
                data: vec![],
            })
            .unwrap();
        assert!(inlet.is_lost());
    }
}
