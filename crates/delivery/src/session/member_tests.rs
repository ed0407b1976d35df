//! A session whose user joins topics and leaves them as they grow: whatever the interleaving of changes, wakes (some
//! lost), pages and full outboxes, the client gets what came during the user's stays, once and in order, and nothing
//! else.

use super::tests::{Wire, place, span, user};
use super::*;
use postrider_model::{Audience, FeedSpan, Forms, Membership, Notification, NotificationId, Topic};
use proptest::prelude::*;

const START: Moment = Moment {
    wall: Timestamp(0),
    steady: Timestamp(0),
};

fn news() -> Topic {
    Topic::new("news").unwrap()
}

fn feed() -> FeedId {
    FeedId::Topic(news())
}

fn entry_for(offset: u64, topics: &[&str]) -> Arc<Entry> {
    let topics = topics.iter().map(|name| Topic::new(name).unwrap());
    let notification = Notification::plain(
        NotificationId::new(&format!("n{offset}")).unwrap(),
        Timestamp(offset),
        Audience::Topics(topics.collect()),
        "1",
    );
    Arc::new(Entry {
        feed: feed(),
        position: place(offset),
        kind: EntryKind::Notification(Arc::new(notification), None),
        forms: Arc::<Forms>::default(),
    })
}

fn entry(offset: u64) -> Arc<Entry> {
    entry_for(offset, &["news"])
}

/// A topic, who is a member when, and what a session was told of both.
struct Bench {
    head: u64,
    /// By another device.
    acknowledged: u64,
    membership: Membership,
    wire: Wire,
    session: Session,
    /// Told since anything was lost.
    certain: bool,
}

impl Bench {
    fn open(
        cursor: Option<&str>,
        membership: Membership,
        head: u64,
        acknowledged: u64,
        room: usize,
    ) -> Bench {
        let mut wire = Wire {
            room,
            ..Wire::default()
        };
        let cursor = cursor.map(|cursor| Cursor::decode(cursor, &user()).unwrap());
        let members = starts(&membership, head, acknowledged, cursor.as_ref());
        let opening = Opening {
            session: SessionId::new("s").unwrap(),
            user: user(),
            ack: AckMode::Auto,
            redelivery: None,
            cursor,
            topics: Vec::new(),
        };
        let empty = FeedStart {
            held: opening.cursor.as_ref().map(|_| true),
            ..FeedStart::EMPTY
        };
        let session = Session::open(&opening, &[empty; 2], &members, &mut wire);
        let certain = true;
        Bench {
            head,
            acknowledged,
            membership,
            wire,
            session,
            certain,
        }
    }

    fn change(&mut self, told: bool) {
        let joins = !self.membership.is_current();
        match joins {
            true => self.membership.join(self.head),
            false => self.membership.leave(self.head),
        };
        match (told, joins) {
            (false, _) => {
                // What a shard does that lost a change.
                self.certain = false;
                self.session.doubt_members();
                self.session.suspect(&mut self.wire);
            }
            (true, true) => self.session.join(&news(), self.head, &mut self.wire),
            (true, false) => self.session.leave(&news(), self.head, &mut self.wire),
        }
    }

    fn append(&mut self, count: u64, told: bool) {
        let new: Vec<_> = (self.head + 1..=self.head + count).map(entry).collect();
        self.head += count;
        if told {
            self.session.appended(&new, START, &mut self.wire);
        } else {
            self.session.suspect(&mut self.wire);
        }
    }

    /// The engine says who is a member.
    fn ask(&mut self) {
        self.certain = true;
        let fresh = Cursor::default();
        let members = starts(&self.membership, self.head, self.acknowledged, Some(&fresh));
        self.session.members_are(&members, &mut self.wire);
    }

    fn answer(&mut self, count: u64) -> bool {
        let Some((asked, reading, member)) = self.wire.pages.pop() else {
            return false;
        };
        self.wire.reads.clear();
        let Reading::Forward { after } = reading else {
            panic!("nothing is sent again here");
        };
        let page = match asked == feed() {
            true => {
                let mut page = page(&self.membership, after, self.head, count, member);
                for one in &mut page.entries {
                    if one.shown && one.entry.position.offset <= self.acknowledged {
                        one.state = Some(State::Delivered);
                    }
                }
                page
            }
            false => InboxPage {
                entries: Vec::new(),
                span: FeedSpan::EMPTY,
                floor: 0,
            },
        };
        self.session.page(&asked, reading, &page, START, &mut self.wire);
        true
    }

    fn settle(&mut self) {
        self.wire.room = 100_000;
        if !self.certain {
            self.ask();
        }
        self.session.suspect(&mut self.wire);
        self.session.catch_up(&mut self.wire);
        while self.answer(3) {}
    }

    fn stays(&self) -> Vec<u64> {
        (1..=self.head).filter(|at| self.membership.covers(*at)).collect()
    }
}

/// As an engine says it: a cursor without the topic stands at the first stay, whatever another device has acknowledged.
fn starts(membership: &Membership, head: u64, acknowledged: u64, cursor: Option<&Cursor>) -> Vec<MemberFeed> {
    let Some(first) = membership.stays.first() else {
        return Vec::new();
    };
    let last = membership.end().unwrap_or(head);
    let at = cursor.map(|cursor| cursor.get(&feed()).unwrap_or(place(first.after)));
    let at = at.map(|at| if at.offset > last { place(last) } else { at });
    let floor = first.after.max(acknowledged).min(last);
    vec![MemberFeed {
        topic: news(),
        is_current: membership.is_current(),
        place: at,
        start: FeedStart {
            span: span(1, last),
            floor,
            begins: floor,
            held: at.map(|_| true),
        },
    }]
}

fn page(membership: &Membership, after: u64, head: u64, count: u64, member: bool) -> InboxPage {
    let entries = (after + 1..=head.min(after + count)).map(|offset| {
        let shown = !member || membership.covers(offset);
        InboxEntry {
            entry: entry(offset),
            shown,
            state: shown.then_some(State::Pending),
            dismissed: false,
            attempts: 0,
        }
    });
    InboxPage {
        entries: entries.collect(),
        span: span(1, head),
        floor: 0,
    }
}

proptest! {
    #[test]
    fn what_came_during_a_stay_once_and_in_order_and_nothing_else(
        steps in proptest::collection::vec((0u8..9, 1u64..4, any::<bool>()), 0..60),
    ) {
        let mut bench = Bench::open(None, Membership::new(news()), 0, 0, 3);
        // Of each session in turn: what it got, and where it began.
        for (step, n, told) in steps {
            match step {
                0 | 1 => bench.append(n, told),
                2 | 3 => bench.change(told || n > 1),
                4 => { bench.answer(n); }
                5 => bench.ask(),
                6 => bench.acknowledged = bench.head,
                _ => {
                    bench.wire.room += n as usize;
                    bench.session.catch_up(&mut bench.wire);
                }
            }
            let outside = bench.wire.got.iter().find(|at| !bench.membership.covers(**at));
            prop_assert_eq!(outside, None, "shown from outside a stay");
            prop_assert!(bench.wire.got.is_sorted_by(|a, b| a < b), "{:?}", bench.wire.got);
        }
        bench.settle();
        let (got, wanted) = (&bench.wire.got, bench.stays());
        prop_assert_eq!(got, &wanted);
        prop_assert!(!bench.session.is_behind());
        // The cursor goes on from there, over leaving and coming back.
        let cursor = bench.session.cursor();
        let mut later = bench.membership.clone();
        let head = bench.head + 2;
        let mut next = Vec::new();
        if later.is_current() {
            next.extend([bench.head + 1, bench.head + 2]);
            later.leave(head);
        }
        later.join(head + 1);
        next.push(head + 2);
        let mut bench = Bench::open(Some(&cursor), later, head + 2, head + 2, 1000);
        bench.settle();
        let fresh: Vec<_> = bench.wire.got.iter().filter(|at| !wanted.contains(at)).copied().collect();
        prop_assert_eq!(fresh, next);
        prop_assert_eq!(bench.wire.gaps, 0);
    }
}

#[test]
fn nothing_comes_after_leaving_however_late_it_is_told() {
    let mut bench = Bench::open(None, Membership::new(news()), 0, 0, 100);
    bench.change(true);
    bench.append(2, true);
    bench.settle();
    bench.change(true);
    // The wake of what came before the leave, and of what came after it.
    let both: Vec<_> = (2..=4).map(entry).collect();
    bench.session.appended(&both, START, &mut bench.wire);
    let last = place(4);
    let first = 3;
    assert_eq!(bench.session.advance(&feed(), Stretch { first, last }), None);
    assert!(!bench.session.transient(&entry(0), &mut bench.wire));
    assert_eq!(bench.wire.got, [1, 2]);
    assert!(bench.session.heard_topics().next().is_none());
}

#[test]
fn what_is_for_several_topics_comes_in_the_one_of_which_its_user_is_a_member() {
    let mut bench = Bench::open(None, Membership::new(news()), 0, 0, 100);
    let other = Topic::new("other").unwrap();
    bench.change(true);
    bench.settle();
    // Not a member of the other: it is shown here.
    let both = entry_for(1, &["other", "news"]);
    bench.session.appended(&[both], START, &mut bench.wire);
    assert_eq!(bench.wire.got, [1]);
    bench.session.join(&other, 0, &mut bench.wire);
    let both = entry_for(2, &["other", "news"]);
    bench.session.appended(&[both], START, &mut bench.wire);
    assert_eq!(
        bench.wire.got,
        [1],
        "it comes in the other, if that was joined before: the engine is asked"
    );
    bench.head = 2;
    bench.settle();
    assert_eq!(bench.wire.got, [1, 2], "it was not");
    // And left again, it is shown here again.
    bench.session.leave(&other, 0, &mut bench.wire);
    let both = entry_for(3, &["other", "news"]);
    bench.session.appended(&[both], START, &mut bench.wire);
    bench.head = 3;
    bench.settle();
    assert_eq!(bench.wire.got, [1, 2, 3]);
}

#[test]
fn a_session_topic_that_its_user_joins_goes_on_with_a_state() {
    let mut wire = Wire {
        room: 100,
        ..Wire::default()
    };
    let opening = Opening {
        session: SessionId::new("s").unwrap(),
        user: user(),
        ack: AckMode::Auto,
        redelivery: None,
        cursor: None,
        topics: vec![news()],
    };
    let mut session = Session::open(&opening, &[FeedStart::EMPTY; 3], &[], &mut wire);
    session.appended(&[entry(1)], START, &mut wire);
    assert!(!session.is_unsettled(), "a session topic has no state");
    session.join(&news(), 1, &mut wire);
    let mut membership = Membership::new(news());
    membership.join(1);
    session.page(
        &feed(),
        Reading::Forward { after: 1 },
        &page(&membership, 1, 1, 3, true),
        START,
        &mut wire,
    );
    session.appended(&[entry(2)], START, &mut wire);
    assert_eq!(wire.got, [1, 2]);
    assert!(session.is_unsettled());
    session.begin_probe();
    session.proven(&mut wire);
    assert_eq!(wire.settled, [(feed(), place(2))]);
    session.leave(&news(), 2, &mut wire);
    session.appended(&[entry(3)], START, &mut wire);
    assert_eq!(wire.got, [1, 2], "what stands after the leave is no member's");
    let (asked, reading, member) = wire.pages.pop().unwrap();
    assert_eq!((&asked, member), (&feed(), false), "it goes on as it began");
    session.page(
        &asked,
        reading,
        &page(&membership, 2, 3, 3, false),
        START,
        &mut wire,
    );
    session.appended(&[entry(4)], START, &mut wire);
    assert_eq!(wire.got, [1, 2, 3, 4]);
    assert!(session.topics().eq([&news()]));
}

#[test]
fn a_client_that_goes_on_is_told_also_what_another_device_acknowledged_since_the_join() {
    let mut before = Bench::open(None, Membership::new(news()), 3, 0, 100);
    before.settle();
    let cursor = before.session.cursor();
    let mut membership = Membership::new(news());
    membership.join(3);
    let mut bench = Bench::open(Some(&cursor), membership, 5, 5, 100);
    bench.settle();
    assert_eq!(bench.wire.got, [4, 5]);
}

/// The session of a client that asks for a topic which its user left after the second entry, and which has five by now.
fn asking_for_what_was_left(cursor: Option<Cursor>, wire: &mut Wire) -> (Session, Membership) {
    let mut membership = Membership::new(news());
    membership.join(0);
    membership.leave(2);
    let members = starts(&membership, 5, 0, cursor.as_ref());
    let held = cursor
        .as_ref()
        .and_then(|cursor| cursor.get(&feed()))
        .map(|_| true);
    let topic = FeedStart {
        span: span(1, 5),
        held,
        ..FeedStart::EMPTY
    };
    let opening = Opening {
        session: SessionId::new("s").unwrap(),
        user: user(),
        ack: AckMode::Auto,
        redelivery: None,
        cursor,
        topics: vec![news()],
    };
    let starts = [FeedStart::EMPTY, FeedStart::EMPTY, topic];
    (Session::open(&opening, &starts, &members, wire), membership)
}

#[test]
fn who_asks_for_a_topic_that_its_user_left_gets_what_is_left_of_the_stay_and_goes_on() {
    let mut wire = Wire {
        room: 100,
        ..Wire::default()
    };
    let (mut session, membership) = asking_for_what_was_left(None, &mut wire);
    while let Some((asked, reading, member)) = wire.pages.pop() {
        let Reading::Forward { after } = reading else {
            panic!("nothing is sent again here");
        };
        let page = match asked == feed() {
            true => page(&membership, after, 5, 3, member),
            false => InboxPage {
                entries: Vec::new(),
                span: FeedSpan::EMPTY,
                floor: 0,
            },
        };
        session.page(&asked, reading, &page, START, &mut wire);
    }
    assert_eq!(
        wire.got,
        [1, 2],
        "what came after the leave was not asked for yet"
    );
    session.appended(&[entry(6)], START, &mut wire);
    assert_eq!(wire.got, [1, 2, 6]);
}

#[test]
fn who_had_more_of_it_goes_on_from_there() {
    let mut wire = Wire {
        room: 100,
        ..Wire::default()
    };
    let at = |offset| Cursor::new([(&feed(), place(offset))]);
    let (mut session, membership) = asking_for_what_was_left(Some(at(4)), &mut wire);
    let asked = wire.pages.iter().find(|(asked, ..)| *asked == feed()).cloned();
    let (asked, reading, member) = asked.unwrap();
    assert_eq!((reading, member), (Reading::Forward { after: 4 }, false));
    session.page(
        &asked,
        reading,
        &page(&membership, 4, 5, 3, false),
        START,
        &mut wire,
    );
    assert_eq!(wire.got, [5]);
}
