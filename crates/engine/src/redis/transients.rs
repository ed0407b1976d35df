//! Transient notifications on their way to the nodes that follow their feeds: nobody keeps them, so they are told
//! once, and those for which there is no room are dropped.
//!
//! Invariant: what waits is bounded in number and in bytes, whatever the number of feeds: a publication waits as it is,
//! and is encoded once, when its turn has come. Of one feed they are told in the order in which they came. A server that
//! is away holds up only what goes to its own cells.

use super::calls::{self, function};
use super::links::{Cell, Links};
use super::store::RedisStore;
use crate::embedded::news;
use postrider_model::{FeedId, LogPace, Publication};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Publications that wait in one lane; what is more is dropped.
const MAX_WAITING: usize = 4096;
/// Bytes that wait in all lanes; what is more is dropped. One publication is taken whatever its size.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// Feeds that one call tells: the server does nothing else meanwhile.
const MAX_TOLD: usize = 256;
/// Bytes that one call has the server say.
const MAX_TOLD_BYTES: usize = 4 << 20;
/// Publications taken from a lane at once.
const AT_ONCE: usize = 256;
/// What a publication, and each of its feeds, is taken to need beside its data.
const OVERHEAD: usize = 96;

/// Takes them in. The lanes end when this is dropped, once they are empty.
pub(super) struct Transients {
    /// In a Cluster one for each cell, else a single one.
    lanes: Vec<Sender<Part>>,
    waiting: Arc<AtomicUsize>,
    dropped: LogPace,
}

/// A publication that waits, in one lane or several.
struct Waiting {
    publication: Publication,
    bytes: usize,
    all: Arc<AtomicUsize>,
}

/// What one lane has of it: some of its feeds, by their places.
struct Part {
    of: Arc<Waiting>,
    feeds: Vec<u32>,
}

/// What one call tells.
#[derive(Default)]
struct Call {
    args: Vec<Vec<u8>>,
    feeds: usize,
    bytes: usize,
}

impl Transients {
    pub fn start(links: &Links) -> Transients {
        let lanes = if links.is_cluster() {
            Cell::all().count()
        } else {
            1
        };
        let cells = Cell::all().take(lanes);
        let lanes = cells.map(|cell| {
            let (sender, waiting) = channel(MAX_WAITING);
            // Ends when the last of those who transmit is gone.
            drop(links.handle().spawn(tell(links.clone(), cell, waiting)));
            sender
        });
        Transients {
            lanes: lanes.collect(),
            waiting: Arc::default(),
            dropped: LogPace::new(),
        }
    }

    /// Takes one in, or drops it. Does not block.
    pub fn send(&self, publication: Publication) {
        let now = publication.notification.time;
        let parts = parts(&publication.feeds, self.lanes.len());
        let Some(of) = Waiting::of(publication, &self.waiting) else {
            if let Some(unsaid) = self.dropped.due(now) {
                tracing::warn!(
                    unsaid,
                    "too many bytes of transient notifications wait: one is dropped"
                );
            }
            return;
        };
        for (lane, feeds) in self.lanes.iter().zip(parts) {
            let of = of.clone();
            if !feeds.is_empty()
                && lane.try_send(Part { of, feeds }).is_err()
                && let Some(unsaid) = self.dropped.due(now)
            {
                tracing::warn!(unsaid, "too many transient notifications wait: one is dropped");
            }
        }
    }
}

impl Waiting {
    /// `None`: there is no room for it.
    fn of(publication: Publication, all: &Arc<AtomicUsize>) -> Option<Arc<Waiting>> {
        let feeds: usize = publication.feeds.len() * (OVERHEAD + size_of::<FeedId>());
        let bytes = publication.notification.data.len() + OVERHEAD + feeds;
        let before = all.fetch_add(bytes, Ordering::Relaxed);
        // From here on it is counted off when it goes.
        let all = all.clone();
        let waiting = Arc::new(Waiting {
            publication,
            bytes,
            all,
        });
        (before == 0 || before + bytes <= MAX_WAITING_BYTES).then_some(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Which of these feeds go to which lane.
fn parts(feeds: &[FeedId], lanes: usize) -> Vec<Vec<u32>> {
    let mut parts = vec![Vec::new(); lanes];
    for (at, feed) in (0..).zip(feeds) {
        let lane = match lanes {
            1 => 0,
            _ => usize::from(RedisStore::channel(feed).0.0),
        };
        parts[lane].push(at);
    }
    parts
}

impl Call {
    /// Takes as many of these feeds as there is room for, one at least. How many.
    fn take(&mut self, part: &Part, from: usize, body: &[u8]) -> usize {
        let room = MAX_TOLD_BYTES.saturating_sub(self.bytes) / body.len().max(1);
        let room = room.min(MAX_TOLD.saturating_sub(self.feeds)).max(1);
        let now = &part.feeds[from..part.feeds.len().min(from + room)];
        self.args.extend([body.to_vec(), calls::number(now.len() * 2)]);
        for at in now {
            let feed = &part.of.publication.feeds[*at as usize];
            self.args
                .extend([RedisStore::channel(feed).1, news::transient_head(feed)]);
        }
        self.feeds += now.len();
        self.bytes += now.len() * body.len();
        now.len()
    }

    fn is_full(&self) -> bool {
        self.feeds >= MAX_TOLD || self.bytes >= MAX_TOLD_BYTES
    }

    async fn say(self, links: &Links, cell: Cell) {
        if self.feeds == 0 {
            return;
        }
        let call = calls::writing(cell, function::TELL, vec![cell.key("rows")], self.args);
        for answer in links.call(vec![call]).await {
            if let Err(fault) = answer {
                tracing::debug!(%fault, feeds = self.feeds, "transient notifications were not told");
            }
        }
    }
}

/// Tells what waits in one lane, in its order.
async fn tell(links: Links, cell: Cell, mut waiting: Receiver<Part>) {
    let mut parts = Vec::new();
    while waiting.recv_many(&mut parts, AT_ONCE).await > 0 {
        let mut call = Call::default();
        for part in parts.drain(..) {
            let body = news::transient_body(&part.of.publication.notification);
            let mut done = 0;
            while done < part.feeds.len() {
                done += call.take(&part, done, &body);
                if call.is_full() {
                    std::mem::take(&mut call).say(&links, cell).await;
                }
            }
        }
        call.say(&links, cell).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Make;
    use postrider_model::Timestamp;

    fn large(users: usize, bytes: usize) -> Publication {
        let data = format!("\"{}\"", "7".repeat(bytes));
        let make = Make::new("n").data(&data).transient();
        let names: Vec<String> = (0..users).map(|n| format!("u{n}")).collect();
        make.users(names.iter().map(String::as_str))
            .publication(Timestamp(1))
    }

    #[test]
    fn what_waits_is_bounded_by_its_bytes_and_not_by_its_feeds() {
        let all = Arc::new(AtomicUsize::new(0));
        let one = Waiting::of(large(10_000, 200_000), &all).unwrap();
        assert!(one.bytes < 3 << 20, "{}: the data waits once", one.bytes);
        let mut waiting = vec![one];
        while let Some(more) = Waiting::of(large(1, 1 << 20), &all) {
            waiting.push(more);
        }
        assert!((20..=32).contains(&waiting.len()), "{}", waiting.len());
        drop(waiting);
        assert_eq!(
            all.load(Ordering::Relaxed),
            0,
            "what has gone, or was refused, is not counted"
        );
        assert!(
            Waiting::of(large(1, MAX_WAITING_BYTES), &all).is_some(),
            "one is always taken"
        );
    }

    #[test]
    fn one_call_is_bounded_and_all_are_told_in_order() {
        for (users, bytes) in [(1000, 10), (100, 300_000), (3, MAX_TOLD_BYTES * 2)] {
            let publication = large(users, bytes);
            let body = news::transient_body(&publication.notification);
            let of = Waiting::of(publication, &Arc::default()).unwrap();
            let part = Part {
                feeds: (0..users as u32).collect(),
                of,
            };
            let (mut done, mut told) = (0, Vec::new());
            while done < users {
                let mut call = Call::default();
                done += call.take(&part, done, &body);
                assert!(call.feeds == 1 || call.feeds <= MAX_TOLD && call.bytes <= MAX_TOLD_BYTES);
                told.extend(call.args[2..].chunks(2).map(|pair| pair[0].clone()));
            }
            let channels = part
                .of
                .publication
                .feeds
                .iter()
                .map(|feed| RedisStore::channel(feed).1);
            assert_eq!(told, channels.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_feed_has_one_lane() {
        let publication = large(500, 1);
        assert_eq!(parts(&publication.feeds, 1)[0].len(), 500);
        let parts = parts(&publication.feeds, Cell::all().count());
        assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), 500);
        for (lane, feeds) in parts.iter().enumerate() {
            for at in feeds {
                let (cell, _) = RedisStore::channel(&publication.feeds[*at as usize]);
                assert_eq!(usize::from(cell.0), lane);
            }
        }
    }
}
