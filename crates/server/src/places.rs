//! The places for connections of the API. Where all are taken, a newcomer gets that of the connection that has rested
//! longest between two requests, and that one is told to leave.
//!
//! Invariant: no more connections hold a place than there are, and besides them at most [`LEAVING`] are on their way
//! out. Who has a request under way is never told to leave. A request is under way until the last of its answer is
//! with the connection's buffers: who is still taking those rests already, and gets a while to take them.
//!
//! It closes nothing itself: who serves a connection waits for [`Place::unwanted`].

use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::Notify;

/// Connections that were told to leave and have not yet; while there are so many, nobody else is.
const LEAVING: usize = 256;

/// All places of one kind of connection.
#[derive(Debug)]
pub struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    connections: HashMap<u64, Standing>,
    /// Those with nothing under way, in the order in which they began to rest, by when that was: who.
    resting: BTreeMap<u64, u64>,
    leaving: usize,
    /// Counts connections and rests; no number is used twice.
    next: u64,
}

/// How one connection stands.
#[derive(Debug)]
struct Standing {
    under_way: usize,
    /// Where it is among the resting, if it rests.
    rests_since: Option<u64>,
    was_told: bool,
    leave: Arc<Notify>,
}

impl Places {
    /// So many places.
    pub fn new(most: usize) -> Arc<Places> {
        Arc::new(Places {
            most,
            taken: Mutex::default(),
        })
    }

    /// A place for a connection, which does not rest before its first request is answered; `None` where all are
    /// taken by connections that are busy.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let leave = Arc::new(Notify::new());
        let who = self.lock().seat(self.most, leave.clone())?;
        let places = self.clone();
        Some(Place { places, who, leave })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn seat(&mut self, most: usize, leave: Arc<Notify>) -> Option<u64> {
        if self.connections.len() - self.leaving >= most {
            self.unseat()?;
        }
        let who = self.number();
        let standing = Standing {
            under_way: 0,
            rests_since: None,
            was_told: false,
            leave,
        };
        self.connections.insert(who, standing);
        Some(who)
    }

    /// Tells the one that has rested longest to leave.
    fn unseat(&mut self) -> Option<()> {
        if self.leaving >= LEAVING {
            return None;
        }
        let (_, who) = self.resting.pop_first()?;
        let standing = self.connections.get_mut(&who)?;
        standing.rests_since = None;
        standing.was_told = true;
        standing.leave.notify_one();
        self.leaving += 1;
        Some(())
    }

    fn begin(&mut self, who: u64) {
        if let Some(standing) = self.connections.get_mut(&who) {
            standing.under_way += 1;
            if let Some(since) = standing.rests_since.take() {
                self.resting.remove(&since);
            }
        }
    }

    fn end(&mut self, who: u64) {
        let since = self.number();
        if let Some(standing) = self.connections.get_mut(&who) {
            standing.under_way -= 1;
            if standing.under_way == 0 && !standing.was_told {
                standing.rests_since = Some(since);
                self.resting.insert(since, who);
            }
        }
    }

    fn leave(&mut self, who: u64) {
        if let Some(gone) = self.connections.remove(&who) {
            self.leaving -= usize::from(gone.was_told);
            if let Some(since) = gone.rests_since {
                self.resting.remove(&since);
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    who: u64,
    leave: Arc<Notify>,
}

impl Place {
    /// It rests from the start, since its first request may never come.
    pub fn rest(&self) {
        drop(self.counter().begin());
    }

    /// Returns when somebody else has this place: the connection rests, and should end.
    pub async fn unwanted(&self) {
        self.leave.notified().await;
    }

    /// Whether a request is under way.
    pub fn is_busy(&self) -> bool {
        let taken = self.places.lock();
        taken.connections.get(&self.who).is_some_and(|s| s.under_way > 0)
    }

    /// Lets requests be counted.
    pub fn counter(&self) -> Counter {
        Counter {
            places: self.places.clone(),
            who: self.who,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().leave(self.who);
    }
}

/// Counts the requests of one connection.
#[derive(Debug)]
pub struct Counter {
    places: Arc<Places>,
    who: u64,
}

impl Counter {
    /// A request has begun.
    pub fn begin(&self) -> UnderWay {
        self.places.lock().begin(self.who);
        UnderWay(self.places.clone(), self.who)
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
pub struct UnderWay(Arc<Places>, u64);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().end(self.1);
    }
}

/// An answer's body, and what is held until it has gone.
pub struct Held<B, T> {
    body: B,
    _held: T,
}

impl<B, T> Held<B, T> {
    /// Drops `held` with the body.
    pub fn new(body: B, held: T) -> Held<B, T> {
        Held { body, _held: held }
    }
}

impl<B: HttpBody + Unpin, T: Unpin> HttpBody for Held<B, T> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(place: &Place) -> bool {
        use std::future::Future as _;
        let mut waiting = std::pin::pin!(place.unwanted());
        waiting
            .as_mut()
            .poll(&mut Context::from_waker(std::task::Waker::noop()))
            .is_ready()
    }

    #[test]
    fn a_newcomer_gets_the_place_of_who_rested_longest() {
        let places = Places::new(3);
        let [first, second, third] = [(); 3].map(|()| places.take().unwrap());
        assert!(places.take().is_none(), "none has answered anything yet");
        for place in [&first, &second, &third] {
            place.rest();
        }
        // Who asks again has rested least.
        drop(first.counter().begin());
        let fourth = places.take().unwrap();
        assert_eq!([&first, &second, &third].map(told), [false, true, false]);
        let under_way = (third.counter().begin(), third.counter().begin());
        let fifth = places.take().unwrap();
        assert_eq!([&first, &third].map(told), [true, false]);
        drop(under_way.0);
        assert!(third.is_busy());
        assert!(places.take().is_none(), "a request is under way, two are new");
        drop(under_way.1);
        let _sixth = places.take().unwrap();
        assert!(told(&third));
        drop((first, second, third, fourth, fifth));
        let taken = places.lock();
        assert_eq!(
            (taken.connections.len(), taken.leaving, taken.resting.len()),
            (1, 0, 0)
        );
    }

    #[test]
    fn who_was_told_and_asks_once_more_is_answered_and_not_told_twice() {
        let places = Places::new(1);
        let first = places.take().unwrap();
        drop(first.counter().begin());
        let second = places.take().unwrap();
        drop(first.counter().begin());
        assert!(places.take().is_none());
        drop(second);
        assert!(
            places.take().is_some(),
            "the place is free; who leaves does not count"
        );
    }

    #[test]
    fn those_on_their_way_out_are_bounded() {
        let places = Places::new(LEAVING + 1);
        let rest = |place: Place| {
            place.rest();
            place
        };
        let held: Vec<Place> = (0..=LEAVING).map(|_| rest(places.take().unwrap())).collect();
        let newcomers: Vec<Place> = (0..LEAVING).map(|_| places.take().unwrap()).collect();
        assert!(places.take().is_none());
        assert_eq!(held.iter().filter(|place| told(place)).count(), LEAVING);
        drop(held);
        assert!(places.take().is_some());
        drop(newcomers);
    }
}
