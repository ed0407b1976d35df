//! A session over an engine that falls back: whatever is lost at whatever moment, the client has in the end, since the
//! last gap it was told of or since it began, exactly what the engine has; and where nothing of its own is lost, it is
//! told of none.

use super::tests::{own, user};
use super::*;
use postrider_model::{Audience, Epoch, FeedSpan, Forms, InboxEntry, Notification, Topic};
use proptest::prelude::*;

const NOW: Moment = Moment {
    wall: Timestamp(0),
    steady: Timestamp(0),
};

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Not to the client: what it has not got yet need not go.
    TakenBack,
    Gap,
    Entry(Position),
}

#[derive(Default)]
struct Wire {
    room: usize,
    told: Vec<Told>,
    reads: Vec<(FeedId, Reading)>,
    settled: Vec<Position>,
}

impl Outbox for Wire {
    fn has_room(&self) -> bool {
        self.room > 0
    }
    fn send(&mut self, entry: &Arc<Entry>, _attempt: Option<u32>) {
        self.room -= 1;
        self.told.push(Told::Entry(entry.position));
    }
    fn take_back(&mut self, _feed: &FeedId) {
        self.told.push(Told::TakenBack);
    }
    fn gap(&mut self, _oldest: Timestamp) {
        self.told.push(Told::Gap);
    }
    fn stalled(&mut self, _ids: &[NotificationId]) {}
    fn read(&mut self, feed: &FeedId, reading: Reading, _member: bool) {
        self.reads.push((feed.clone(), reading));
    }
    fn settle(&mut self, _feed: &FeedId, through: Position) {
        self.settled.push(through);
    }
}

/// A feed, by the epoch of each of its entries, and a session that hears it.
struct Bench {
    feed: FeedId,
    ack: AckMode,
    epochs: Vec<u32>,
    epoch: u32,
    floor: u64,
    wire: Wire,
    session: Session,
}

fn at(epoch: u32, offset: u64) -> Position {
    Position {
        epoch: Epoch(epoch),
        offset,
    }
}

fn topic() -> FeedId {
    FeedId::Topic(Topic::new("weather").unwrap())
}

fn entry(feed: &FeedId, position: Position) -> Arc<Entry> {
    let id = NotificationId::new(&format!("n{}-{}", position.epoch.0, position.offset)).unwrap();
    let audience = match feed {
        FeedId::Topic(topic) => Audience::Topics(vec![topic.clone()]),
        _ => Audience::Users(Vec::new()),
    };
    let notification = Notification::plain(id, Timestamp(position.offset), audience, "1");
    Arc::new(Entry {
        feed: feed.clone(),
        position,
        kind: EntryKind::Notification(Arc::new(notification), None),
        forms: Arc::<Forms>::default(),
    })
}

impl Bench {
    /// A session at the end of its user's feed, of so many entries of epoch 1.
    fn open(ack: AckMode, entries: u64, shared: bool) -> Bench {
        Bench::open_of(own(), ack, entries, shared)
    }

    fn open_of(feed: FeedId, ack: AckMode, entries: u64, shared: bool) -> Bench {
        let mut wire = Wire {
            room: 1000,
            ..Wire::default()
        };
        let epochs = vec![1; entries as usize];
        let session = begin(&feed, ack, None, &epochs, entries, shared, &mut wire);
        Bench {
            feed,
            ack,
            epochs,
            epoch: 1,
            floor: entries,
            wire,
            session,
        }
    }

    /// The client is cut off, and comes back with the cursor that its session would have told it.
    fn come_back(&mut self) {
        let cursor = Cursor::decode(&self.session.cursor(), &user()).unwrap();
        self.wire.reads.clear();
        let (feed, wire) = (&self.feed, &mut self.wire);
        self.session = begin(feed, self.ack, Some(cursor), &self.epochs, self.floor, true, wire);
    }

    /// Appends one, and says where.
    fn append(&mut self) -> Position {
        self.epochs.push(self.epoch);
        at(self.epoch, self.epochs.len() as u64)
    }

    fn append_and_wake(&mut self, count: u64) {
        for _ in 0..count {
            let position = self.append();
            self.wake(position);
        }
    }

    fn wake(&mut self, position: Position) {
        self.session
            .appended(&[entry(&self.feed, position)], NOW, &mut self.wire);
    }

    /// Another server takes over, which lacks the last entries.
    fn fall_back(&mut self, lost: u64) {
        let left = self.epochs.len().saturating_sub(lost as usize);
        self.epochs.truncate(left);
        self.floor = self.floor.min(left as u64);
        self.epoch += 1;
    }

    fn page(&self, after: u64, limit: u64) -> InboxPage {
        let head = self.epochs.len() as u64;
        let entries = (after + 1..=head.min(after + limit)).map(|offset| InboxEntry {
            shown: true,
            entry: entry(&self.feed, at(self.epochs[offset as usize - 1], offset)),
            state: Some(match offset <= self.floor {
                true => State::Delivered,
                false => State::Pending,
            }),
            dismissed: false,
            attempts: 0,
        });
        InboxPage {
            entries: entries.collect(),
            span: span(&self.epochs),
            floor: self.floor,
        }
    }

    /// Answers the read that was asked last. False where there is none.
    fn answer(&mut self, limit: u64) -> bool {
        let Some((feed, reading)) = self.wire.reads.pop() else {
            return false;
        };
        let page = match reading {
            Reading::Forward { after } if feed == self.feed => self.page(after, limit),
            _ => InboxPage {
                entries: Vec::new(),
                span: FeedSpan::EMPTY,
                floor: 0,
            },
        };
        self.session.page(&feed, reading, &page, NOW, &mut self.wire);
        true
    }

    /// Answers whatever is asked; it ends.
    fn serve(&mut self) {
        let mut answers = 0;
        while self.answer(3) {
            answers += 1;
            assert!(answers < 1000, "it asks for ever");
        }
    }

    fn gaps(&self) -> usize {
        self.wire.told.iter().filter(|told| **told == Told::Gap).count()
    }

    /// What the client was told since the last gap.
    fn since_gap(&self) -> Vec<Position> {
        let told = self.wire.told.rsplit(|told| *told == Told::Gap).next();
        let entries = told.unwrap_or_default().iter().filter_map(|told| match told {
            Told::Entry(position) => Some(*position),
            Told::Gap | Told::TakenBack => None,
        });
        entries.collect()
    }

    /// What the feed holds after `after`.
    fn held(&self, after: u64) -> Vec<Position> {
        let offsets = 1..=self.epochs.len() as u64;
        let held = offsets
            .zip(&self.epochs)
            .map(|(offset, epoch)| at(*epoch, offset));
        held.filter(|position| position.offset > after).collect()
    }
}

/// A session that begins where a feed's epochs say, judged as the engine does.
fn begin(
    feed: &FeedId,
    ack: AckMode,
    cursor: Option<Cursor>,
    epochs: &[u32],
    floor: u64,
    shared: bool,
    wire: &mut Wire,
) -> Session {
    let place = cursor.as_ref().and_then(|cursor| cursor.get(feed));
    let is_held = |place: Position| match place.offset {
        0 => true,
        offset => epochs.get(offset as usize - 1) == Some(&place.epoch.0),
    };
    let start = FeedStart {
        span: span(epochs),
        floor,
        begins: floor,
        held: place.map(is_held),
    };
    let empty = FeedStart {
        held: cursor.as_ref().map(|_| true),
        ..FeedStart::EMPTY
    };
    let (topics, starts) = match feed {
        FeedId::Topic(topic) => (vec![topic.clone()], [empty, empty, start]),
        _ => (Vec::new(), [start, empty, empty]),
    };
    let opening = Opening {
        session: SessionId::new("s").unwrap(),
        user: user(),
        ack,
        redelivery: None,
        cursor,
        topics,
    };
    let mut session = Session::open(&opening, &starts, &[], wire);
    if shared {
        session.expect_fall_back();
    }
    session
}

fn span(epochs: &[u32]) -> FeedSpan {
    let head = epochs.last().map(|epoch| at(*epoch, epochs.len() as u64));
    FeedSpan {
        first: 1,
        head: head.unwrap_or(Position::START),
    }
}

const MODES: [AckMode; 3] = [AckMode::Auto, AckMode::Explicit, AckMode::None];

/// How a session that has five entries more than the engine is told.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// By a wake of an entry below its place.
    Below,
    /// By one just at its place.
    At,
    /// By the one that comes next by its offset: the others were not told.
    Next,
    /// By one far above.
    Above,
    /// By a look, while nothing new is there.
    Look,
}

#[test]
fn who_stood_among_what_was_lost_is_told_and_begins_again() {
    for ack in MODES {
        for way in [Way::Below, Way::At, Way::Next, Way::Above, Way::Look] {
            let mut bench = Bench::open(ack, 100, true);
            bench.append_and_wake(5);
            assert_eq!(bench.since_gap(), bench.held(100));
            bench.fall_back(5);
            let told = match way {
                Way::Below => 2,
                Way::At => 5,
                Way::Next => 6,
                Way::Above => 9,
                Way::Look => 0,
            };
            let last = (0..told).map(|_| bench.append()).last();
            match last {
                Some(last) => bench.wake(last),
                None => bench.session.suspect(&mut bench.wire),
            }
            bench.serve();
            assert_eq!(bench.gaps(), 1, "{ack:?}, {way:?}");
            assert_eq!(bench.since_gap(), bench.held(0), "{ack:?}, {way:?}");
            let is_taken_back = |two: &[Told]| two == [Told::TakenBack, Told::Gap];
            assert!(bench.wire.told.windows(2).any(is_taken_back), "{ack:?}, {way:?}");
            assert!(!bench.session.is_behind());
            // Where nothing of the new epoch was there yet, one look more.
            bench.append_and_wake(1);
            bench.serve();
            bench.append_and_wake(2);
            assert_eq!(bench.since_gap(), bench.held(0), "it goes on as it comes");
            assert!(bench.wire.reads.is_empty() && bench.gaps() == 1);
        }
    }
}

#[test]
fn who_lost_nothing_is_told_nothing() {
    for ack in MODES {
        let mut bench = Bench::open(ack, 100, true);
        bench.append_and_wake(5);
        bench.fall_back(0);
        bench.session.suspect(&mut bench.wire);
        bench.serve();
        bench.append_and_wake(2);
        bench.serve();
        assert_eq!((bench.gaps(), bench.since_gap()), (0, bench.held(100)), "{ack:?}");
        assert!(!bench.wire.told.contains(&Told::TakenBack), "{ack:?}");
        assert!(!bench.session.is_behind());
    }
}

#[test]
fn what_was_told_of_and_is_lost_is_not_read_for_ever() {
    let mut bench = Bench::open(AckMode::Auto, 100, true);
    bench.wire.room = 0;
    bench.append_and_wake(5);
    bench.fall_back(5);
    bench.wire.room = 100;
    bench.session.catch_up(&mut bench.wire);
    bench.serve();
    assert_eq!(
        (bench.gaps(), bench.session.is_behind()),
        (0, false),
        "the client had none of it"
    );
    bench.append_and_wake(3);
    bench.serve();
    assert_eq!((bench.gaps(), bench.since_gap()), (0, bench.held(100)));
}

#[test]
fn a_place_that_is_lost_settles_nothing() {
    let mut bench = Bench::open(AckMode::Auto, 100, true);
    bench.append_and_wake(5);
    bench.session.begin_probe();
    bench.fall_back(5);
    bench.append_and_wake(5);
    bench.serve();
    bench.session.proven(&mut bench.wire);
    assert_eq!(bench.wire.settled, [], "the probe went out before the gap");
    bench.session.begin_probe();
    bench.session.proven(&mut bench.wire);
    assert_eq!(bench.wire.settled, [at(2, 105)]);
}

#[test]
fn until_the_gap_is_told_a_cursor_names_the_lost_place() {
    let mut bench = Bench::open(AckMode::Auto, 100, true);
    bench.append_and_wake(5);
    let cursor = bench.session.cursor();
    bench.fall_back(5);
    bench.append_and_wake(1);
    assert!(bench.answer(3) && bench.gaps() == 0);
    assert_eq!(
        bench.session.cursor(),
        cursor,
        "a client cut off now must find the gap again"
    );
    bench.serve();
    assert_ne!(bench.session.cursor(), cursor);
    assert_eq!(bench.gaps(), 1);
}

#[test]
fn who_is_cut_off_right_behind_the_gap_gets_all_that_is_held() {
    for (feed, ack) in [
        (own(), AckMode::Auto),
        (own(), AckMode::None),
        (topic(), AckMode::Auto),
    ] {
        let mut bench = Bench::open_of(feed.clone(), ack, 10, true);
        bench.append_and_wake(5);
        bench.fall_back(5);
        bench.append_and_wake(5);
        // What an answer has room for is full of another feed's when the page comes: its client is told the gap alone.
        while bench.gaps() == 0 {
            bench.wire.room = 0;
            assert!(bench.answer(3), "no gap was told");
            bench.wire.room = 1000;
            bench.session.catch_up(&mut bench.wire);
        }
        // Another session of the user's has all of it meanwhile.
        bench.floor = 15;
        bench.come_back();
        bench.serve();
        assert_eq!(
            (bench.gaps(), bench.since_gap()),
            (1, bench.held(0)),
            "{feed:?}, {ack:?}"
        );
    }
}

#[test]
fn a_look_that_fails_is_made_again() {
    let mut bench = Bench::open(AckMode::Auto, 100, true);
    bench.append_and_wake(5);
    bench.fall_back(5);
    bench.session.suspect(&mut bench.wire);
    for _ in 0..3 {
        for (feed, reading) in std::mem::take(&mut bench.wire.reads) {
            bench.session.page_failed(&feed, reading, &mut bench.wire);
        }
    }
    (0..5).for_each(|_| _ = bench.append());
    bench.serve();
    assert_eq!((bench.gaps(), bench.since_gap()), (1, bench.held(0)));
}

#[test]
fn a_stretch_of_another_epoch_is_looked_at() {
    let mut bench = Bench::open(AckMode::Auto, 100, true);
    let stretch = |first, last| Stretch { first, last };
    assert_eq!(bench.session.advance(&own(), stretch(101, at(1, 102))), Some(101));
    for last in [at(2, 102), at(2, 104)] {
        assert_eq!(bench.session.advance(&own(), stretch(101, last)), None);
    }
    let mut alone = Bench::open(AckMode::Auto, 100, false);
    assert_eq!(alone.session.advance(&own(), stretch(101, at(2, 102))), Some(101));
}

#[test]
fn an_engine_that_no_one_shares_is_asked_nothing_more() {
    let mut bench = Bench::open(AckMode::Auto, 100, false);
    bench.append_and_wake(5);
    // As for who comes back after a restart.
    bench.epoch = 2;
    bench.append_and_wake(5);
    assert_eq!((bench.wire.reads.len(), bench.since_gap()), (0, bench.held(100)));
}

proptest! {
    /// A look after the last fall back finds whatever was lost before it.
    #[test]
    fn in_the_end_a_client_has_what_is_held_since_its_gap(
        (feed, ack) in prop_oneof![(Just(own()), 0usize..3), (Just(topic()), 0usize..3)],
        steps in proptest::collection::vec((0u8..8, 0u64..5), 0..80),
    ) {
        let mut bench = Bench::open_of(feed.clone(), MODES[ack], 10, true);
        // What the client was told and the engine lost.
        let mut lost = false;
        for (step, n) in steps {
            match step {
                0 | 1 => bench.append_and_wake(n),
                // Nobody is told.
                2 => (0..n).for_each(|_| _ = bench.append()),
                3 => {
                    bench.fall_back(n);
                    let left = bench.held(0);
                    let has = bench.since_gap();
                    lost |= has.iter().any(|position| !left.contains(position));
                    lost |= bench.epochs.len() < 10;
                }
                4 => _ = bench.answer(n + 1),
                5 => {
                    bench.wire.room = n as usize;
                    bench.session.catch_up(&mut bench.wire);
                }
                // Under `explicit` it would be given again what its user has not acknowledged.
                6 if MODES[ack] != AckMode::Explicit || feed == topic() => bench.come_back(),
                _ => bench.session.suspect(&mut bench.wire),
            }
        }
        bench.wire.room = 10_000;
        bench.session.suspect(&mut bench.wire);
        bench.serve();
        prop_assert!(!bench.session.is_behind());
        let after = if bench.gaps() > 0 { 0 } else { 10 };
        prop_assert_eq!(bench.since_gap(), bench.held(after));
        prop_assert_eq!(bench.gaps() > 0, lost, "told {:?}", &bench.wire.told);
    }
}
