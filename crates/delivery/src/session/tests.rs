//! A session against a feed that grows at any moment: whatever the interleaving of wakes (some lost), pages
//! and full outboxes, the client gets every entry once, in order.

use super::*;
use postrider_model::{Audience, Epoch, FeedSpan, Forms, InboxEntry, Notification, NotificationId};
use proptest::prelude::*;

#[derive(Default)]
pub(super) struct Wire {
    pub room: usize,
    pub got: Vec<u64>,
    pub attempts: Vec<Option<u32>>,
    pub stalled: Vec<NotificationId>,
    pub gaps: usize,
    pub reads: Vec<(FeedId, Reading)>,
    /// The same, and whether each is read as a member's.
    pub pages: Vec<(FeedId, Reading, bool)>,
    pub settled: Vec<(FeedId, Position)>,
}

impl Outbox for Wire {
    fn has_room(&self) -> bool {
        self.room > 0
    }
    fn send(&mut self, entry: &Arc<Entry>, attempt: Option<u32>) {
        self.room -= 1;
        self.got.push(entry.position.offset);
        self.attempts.push(attempt);
    }
    fn gap(&mut self, _oldest: Timestamp) {
        self.gaps += 1;
    }
    fn stalled(&mut self, ids: &[NotificationId]) {
        self.stalled.extend_from_slice(ids);
    }
    fn read(&mut self, feed: &FeedId, reading: Reading, member: bool) {
        self.reads.push((feed.clone(), reading));
        self.pages.push((feed.clone(), reading, member));
    }
    fn settle(&mut self, feed: &FeedId, through: Position) {
        self.settled.push((feed.clone(), through));
    }
}

pub(super) const EPOCH: Epoch = Epoch(7);

const START: Moment = Moment {
    wall: Timestamp(0),
    steady: Timestamp(0),
};

pub(super) fn user() -> UserId {
    UserId::new("ada").unwrap()
}

pub(super) fn own() -> FeedId {
    FeedId::User(user())
}

pub(super) fn place(offset: u64) -> Position {
    Position { epoch: EPOCH, offset }
}

pub(super) fn entry(offset: u64) -> Arc<Entry> {
    let notification = Notification::plain(
        NotificationId::new(&format!("n{offset}")).unwrap(),
        Timestamp(offset),
        Audience::Users(Vec::new()),
        "1",
    );
    let kind = EntryKind::Notification(Arc::new(notification), None);
    Arc::new(Entry {
        feed: own(),
        position: place(offset),
        kind,
        forms: Arc::<Forms>::default(),
    })
}

pub(super) fn span(first: u64, head: u64) -> FeedSpan {
    FeedSpan {
        first,
        head: if head == 0 { Position::START } else { place(head) },
    }
}

fn page(after: u64, head: u64, limit: u64, floor: u64) -> InboxPage {
    let entries = (after + 1..=head.min(after + limit)).map(|offset| {
        let state = if offset <= floor {
            State::Delivered
        } else {
            State::Pending
        };
        InboxEntry {
            shown: true,
            entry: entry(offset),
            state: Some(state),
            dismissed: false,
            attempts: 0,
        }
    });
    InboxPage {
        entries: entries.collect(),
        span: span(1, head),
        floor,
    }
}

fn open(ack: AckMode, cursor: Option<u64>, floor: u64, head: u64, wire: &mut Wire) -> Session {
    let opening = Opening {
        session: SessionId::new("s").unwrap(),
        user: user(),
        ack,
        redelivery: None,
        cursor: cursor.map(|offset| Cursor::new([(&own(), place(offset))])),
        topics: Vec::new(),
    };
    let own = FeedStart {
        span: span(1, head),
        floor,
        begins: floor,
        held: cursor.map(|offset| offset <= head),
    };
    let all = FeedStart {
        span: FeedSpan::EMPTY,
        floor: 0,
        begins: 0,
        held: None,
    };
    Session::open(&opening, &[own, all], &[], wire)
}

fn forward(after: u64) -> Reading {
    Reading::Forward { after }
}

/// Answers every read from a feed of `head` entries.
fn serve(session: &mut Session, wire: &mut Wire, head: u64, floor: u64) {
    while let Some((feed, reading)) = wire.reads.pop() {
        let page = match reading {
            Reading::Forward { after } if feed == own() => page(after, head, 3, floor),
            _ => page(0, 0, 0, 0),
        };
        session.page(&feed, reading, &page, START, wire);
    }
}

/// What a client sees, and what it leaves of the session.
type Seen = (Vec<u64>, Vec<(FeedId, Reading)>, String, bool, bool);

/// Gives a session the entries `first..=head` of its feed, as one stretch if `whole`, after the same past.
fn see(whole: bool, ack: AckMode, past: (Option<u64>, u64, u64), stretch: (u64, u64), step: u8) -> Seen {
    let (cursor, floor, before) = past;
    let mut wire = Wire {
        room: 1000,
        ..Wire::default()
    };
    let mut session = open(ack, cursor, floor, before, &mut wire);
    match step {
        0 => serve(&mut session, &mut wire, before, floor),
        1 => session.suspect(&mut wire),
        _ => {}
    }
    let (first, head) = stretch;
    let advanced = whole.then(|| {
        let last = place(head);
        session.advance(&own(), Stretch { first, last })
    });
    match advanced.flatten() {
        Some(from) => wire.got.extend(from..=head),
        None => {
            let entries: Vec<_> = (first..=head).map(entry).collect();
            session.appended(&entries, START, &mut wire);
        }
    }
    let (behind, unsettled) = (session.is_behind(), session.is_unsettled());
    (wire.got, wire.reads, session.cursor(), behind, unsettled)
}

proptest! {
    #[test]
    fn a_stretch_is_what_its_entries_are(
        ack in 0u8..3,
        cursor in proptest::option::of(0u64..8),
        floor in 0u64..4,
        more in 0u64..6,
        first in 1u64..10,
        length in 0u64..5,
        step in 0u8..3,
    ) {
        let ack = [AckMode::Auto, AckMode::Explicit, AckMode::None][usize::from(ack)];
        let (past, stretch) = ((cursor, floor, floor + more), (first, first + length));
        let whole = see(true, ack, past, stretch, step);
        prop_assert_eq!(whole, see(false, ack, past, stretch, step));
    }

    #[test]
    fn every_entry_once_in_order(
        before in 0u64..20,
        steps in proptest::collection::vec((0u8..4, 1u64..5), 0..60),
    ) {
        let mut wire = Wire { room: 4, ..Wire::default() };
        let mut session = open(AckMode::Auto, None, 0, before, &mut wire);
        let mut head = before;
        for (step, n) in steps {
            match step {
                // Entries are appended; the wake arrives, or is lost.
                0 | 1 => {
                    let new: Vec<_> = (head + 1..=head + n).map(entry).collect();
                    head += n;
                    if step == 0 {
                        session.appended(&new, START, &mut wire);
                    }
                }
                2 => {
                    if let Some((feed, reading)) = wire.reads.pop()
                        && let Reading::Forward { after } = reading
                    {
                        session.page(&feed, reading, &page(after, head, n, 0), START, &mut wire);
                    }
                }
                _ => {
                    wire.room += n as usize;
                    session.catch_up(&mut wire);
                }
            }
            prop_assert_eq!(&wire.got, &(1..=wire.got.len() as u64).collect::<Vec<_>>());
        }
        // Quiet at last: one more wake, and room for everything.
        wire.room = 10_000;
        head += 1;
        session.appended(&[entry(head)], START, &mut wire);
        session.catch_up(&mut wire);
        serve(&mut session, &mut wire, head, 0);
        prop_assert_eq!(&wire.got, &(1..=head).collect::<Vec<_>>());
        prop_assert_eq!(session.main[OWN].unsettled(), Some(place(head)));
        prop_assert_eq!(wire.gaps, 0);
    }
}

#[test]
fn without_a_cursor_it_starts_with_what_is_pending() {
    let mut wire = Wire {
        room: 100,
        ..Wire::default()
    };
    let mut session = open(AckMode::Auto, None, 4, 6, &mut wire);
    serve(&mut session, &mut wire, 6, 4);
    assert_eq!(wire.got, [5, 6]);
}

#[test]
fn with_a_cursor_auto_settles_and_goes_on_after_it() {
    let mut wire = Wire {
        room: 100,
        ..Wire::default()
    };
    let mut session = open(AckMode::Auto, Some(3), 1, 6, &mut wire);
    assert_eq!(wire.settled, [(own(), place(3))]);
    serve(&mut session, &mut wire, 6, 3);
    assert_eq!(wire.got, [4, 5, 6]);
}

#[test]
fn explicit_gets_what_is_pending_below_its_cursor_first() {
    let mut wire = Wire {
        room: 100,
        ..Wire::default()
    };
    let mut session = open(AckMode::Explicit, Some(3), 1, 5, &mut wire);
    assert_eq!(
        session.cursor(),
        Cursor::new([(&own(), place(3)), (&FeedId::All, Position::START)]).encode(&user())
    );
    serve(&mut session, &mut wire, 5, 1);
    assert_eq!(wire.got, [2, 3, 4, 5]);
    assert_eq!(
        wire.attempts,
        [Some(2), Some(2), Some(1), Some(1)],
        "it had those up to 3"
    );
    assert!(wire.settled.is_empty() && !session.is_unsettled());
}

#[test]
fn none_settles_nothing() {
    let mut wire = Wire {
        room: 100,
        ..Wire::default()
    };
    let mut session = open(AckMode::None, Some(3), 1, 5, &mut wire);
    serve(&mut session, &mut wire, 5, 1);
    assert_eq!(wire.got, [4, 5]);
    assert!(wire.settled.is_empty() && !session.is_unsettled());
}

#[test]
fn a_cursor_that_is_no_place_is_a_gap_and_settles_nothing() {
    let mut wire = Wire {
        room: 100,
        ..Wire::default()
    };
    let mut session = open(AckMode::Auto, Some(9), 1, 5, &mut wire);
    assert!(wire.settled.is_empty());
    let told = Cursor::new([(&own(), place(9)), (&FeedId::All, Position::START)]);
    assert_eq!(
        session.cursor(),
        told.encode(&user()),
        "a client cut off now must find the gap again"
    );
    serve(&mut session, &mut wire, 5, 1);
    assert_eq!((wire.gaps, &wire.got[..]), (1, &[1, 2, 3, 4, 5][..]));
}

#[test]
fn a_client_that_never_reads_costs_no_entries() {
    let mut wire = Wire {
        room: 2,
        ..Wire::default()
    };
    let mut session = open(AckMode::Auto, None, 0, 0, &mut wire);
    for offset in 1..=1000 {
        session.appended(&[entry(offset)], START, &mut wire);
    }
    assert_eq!((wire.got.len(), wire.reads.len()), (2, 0));
    wire.room = 5000;
    session.catch_up(&mut wire);
    serve(&mut session, &mut wire, 1000, 0);
    assert_eq!(wire.got, (1..=1000).collect::<Vec<_>>());
}

#[test]
fn a_page_older_than_a_wake_hides_nothing() {
    let mut wire = Wire {
        room: 100,
        ..Wire::default()
    };
    let mut session = open(AckMode::Auto, None, 5, 5, &mut wire);
    session.suspect(&mut wire);
    session.appended(&[entry(6)], START, &mut wire);
    assert!(wire.got.is_empty(), "a page is being read");
    wire.reads.clear();
    session.page(&own(), forward(5), &page(5, 5, 3, 5), START, &mut wire);
    assert_eq!(
        wire.reads,
        [(own(), forward(5))],
        "the wake said that there is more"
    );
    serve(&mut session, &mut wire, 6, 5);
    assert_eq!(wire.got, [6]);
    assert!(!session.is_behind());
}

#[test]
fn a_page_of_long_ago_moves_nothing_back() {
    let mut wire = Wire {
        room: 100,
        ..Wire::default()
    };
    let mut session = open(AckMode::Auto, None, 0, 3, &mut wire);
    serve(&mut session, &mut wire, 3, 0);
    let cursor = session.cursor();
    session.page(&own(), forward(1), &page(1, 1, 3, 0), START, &mut wire);
    serve(&mut session, &mut wire, 3, 0);
    assert_eq!((session.cursor(), &wire.got[..]), (cursor, &[1, 2, 3][..]));
}
