//! Redelivery against a model of what the engine knows: whenever entries come, are acknowledged, and pages are
//! read, a pending entry is sent in its time, never too often, and never once it was settled.

use super::tests::{Wire, entry, own, place, span, user};
use super::*;
use crate::RedeliveryRules;
use postrider_model::{FeedSpan, Millis};
use proptest::prelude::*;
use std::collections::BTreeMap;

const TIMEOUT: u64 = 800;
const RULES: RedeliveryRules = RedeliveryRules {
    ack_timeout: Millis(TIMEOUT),
    max_attempts: 4,
};
/// Entries of one page of the model's engine.
const PAGE: u64 = 7;

/// A user's feed, the engine's knowledge of it, and one session.
struct Bench {
    session: Session,
    wire: Wire,
    now: u64,
    head: u64,
    states: BTreeMap<u64, State>,
    /// Attempts of earlier sessions.
    before: u32,
    /// When each entry was sent.
    sent: BTreeMap<u64, Vec<u64>>,
    /// When it was told that an entry is not sent any more.
    stalled: BTreeMap<u64, u64>,
}

impl Bench {
    fn new(ack: AckMode, room: usize) -> Bench {
        let opening = Opening {
            session: SessionId::new("s").unwrap(),
            user: user(),
            ack,
            redelivery: Some(RULES),
            cursor: None,
            topics: Vec::new(),
        };
        let start = FeedStart {
            span: FeedSpan::EMPTY,
            floor: 0,
            begins: 0,
            held: None,
        };
        let mut wire = Wire {
            room,
            ..Wire::default()
        };
        let session = Session::open(&opening, &[start, start], &[], &mut wire);
        Bench {
            session,
            wire,
            now: 0,
            head: 0,
            states: BTreeMap::new(),
            before: 0,
            sent: BTreeMap::new(),
            stalled: BTreeMap::new(),
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: Timestamp(self.now),
            steady: Timestamp(self.now),
        }
    }

    fn append(&mut self, count: u64, woken: bool) {
        let new: Vec<_> = (self.head + 1..=self.head + count).map(entry).collect();
        self.states
            .extend((self.head + 1..=self.head + count).map(|offset| (offset, State::Pending)));
        self.head += count;
        if woken {
            self.session.appended(&new, self.moment(), &mut self.wire);
        }
        self.look();
    }

    fn settle(&mut self, offset: u64, state: State) {
        self.states.insert(offset, state);
    }

    /// Answers one read from what the engine knows now.
    fn answer(&mut self) {
        if self.wire.reads.is_empty() {
            return;
        }
        let (feed, reading) = self.wire.reads.remove(0);
        let pending = |offset: &u64| self.states[offset] == State::Pending;
        let floor = (1..=self.head).find(pending).unwrap_or(self.head + 1) - 1;
        let (after, most) = match reading {
            Reading::Forward { after } => (after, u64::MAX),
            Reading::Again { first, last } => ((first - 1).max(floor), last),
        };
        let mine = feed == own();
        let to = if mine {
            self.head.min(after + PAGE).min(most)
        } else {
            0
        };
        let entries = (after + 1..=to).map(|offset| InboxEntry {
            shown: true,
            entry: entry(offset),
            state: Some(self.states[&offset]),
            dismissed: false,
            attempts: self.before,
        });
        let page = InboxPage {
            entries: entries.collect(),
            span: if mine { span(1, self.head) } else { FeedSpan::EMPTY },
            floor: if mine { floor } else { 0 },
        };
        self.session
            .page(&feed, reading, &page, self.moment(), &mut self.wire);
        self.look();
    }

    /// Writes down what the wire carried, when.
    fn look(&mut self) {
        for offset in self.wire.got.drain(..) {
            assert_eq!(
                self.states[&offset],
                State::Pending,
                "{offset} was settled before it was read"
            );
            self.sent.entry(offset).or_default().push(self.now);
        }
        if let Some(redelivery) = &self.session.main[OWN].redelivery {
            redelivery.batches();
        }
        for id in self.wire.stalled.drain(..) {
            let offset = id.as_str()[1..].parse().unwrap();
            assert_eq!(self.stalled.insert(offset, self.now), None, "told twice");
        }
    }

    /// A driver that wakes when it is told to and gets its pages at once, until `until`.
    fn run(&mut self, until: u64) {
        while let Some(at) = self.session.redeliver_at().filter(|at| at.0 <= until) {
            self.now = self.now.max(at.0);
            self.session.redeliver(self.moment(), &mut self.wire);
            while !self.wire.reads.is_empty() {
                self.answer();
            }
        }
        self.now = until;
    }

    /// Whether an entry was sent in its time, given until when it was pending.
    fn in_time(&self, offset: u64, settled: Option<u64>) -> bool {
        let sent = &self.sent[&offset];
        let told = self.stalled.get(&offset);
        let spans = sent.iter().chain(told).collect::<Vec<_>>();
        let regular = spans
            .windows(2)
            .all(|pair| (TIMEOUT..=TIMEOUT / 4 * 5).contains(&(pair[1] - pair[0])));
        let last = *spans[spans.len() - 1];
        let complete = told.is_some() == (sent.len() == RULES.max_attempts as usize);
        regular
            && match settled {
                None => complete && told.is_some(),
                Some(at) => told.is_some() || last + TIMEOUT / 4 * 5 >= at,
            }
    }
}

proptest! {
    #[test]
    fn what_is_pending_is_sent_in_its_time(
        steps in proptest::collection::vec((0u8..4, 1u64..400), 1..80),
    ) {
        let mut bench = Bench::new(AckMode::Explicit, usize::MAX);
        let mut settled = BTreeMap::new();
        for (step, n) in steps {
            match step {
                0 | 1 => bench.append(n % 20, true),
                2 if bench.head > 0 => {
                    let offset = n % bench.head + 1;
                    if bench.states[&offset] == State::Pending {
                        let to = [State::Delivered, State::Expired, State::Cancelled, State::Dead];
                        bench.settle(offset, to[(n % 4) as usize]);
                        settled.insert(offset, bench.now);
                    }
                }
                _ => bench.run(bench.now + n),
            }
        }
        bench.run(bench.now + TIMEOUT * 10);
        prop_assert_eq!(bench.session.redeliver_at(), None, "at rest it has no timer");
        for offset in 1..=bench.head {
            let settled = settled.get(&offset).copied();
            prop_assert!(bench.sent[&offset].len() <= RULES.max_attempts as usize);
            prop_assert!(bench.in_time(offset, settled), "{} {:?} {:?}", offset, settled, bench.sent[&offset]);
        }
    }

    /// A client that takes little, pages that come late, wakes that are lost: late, but never too often or twice,
    /// and nothing is forgotten. First deliveries keep their order.
    #[test]
    fn a_slow_client_gets_everything_in_the_end(
        steps in proptest::collection::vec((0u8..6, 1u64..400), 1..120),
    ) {
        let mut bench = Bench::new(AckMode::Explicit, 3);
        for (step, n) in steps {
            match step {
                0 | 1 => bench.append(n % 20, step == 0),
                2 => {
                    bench.wire.room += n as usize % 8;
                    bench.session.catch_up(&mut bench.wire);
                }
                3 => bench.answer(),
                4 => bench.session.redeliver(bench.moment(), &mut bench.wire),
                _ => bench.now += n,
            }
        }
        bench.wire.room = usize::MAX;
        bench.session.suspect(&mut bench.wire);
        bench.session.catch_up(&mut bench.wire);
        while !bench.wire.reads.is_empty() {
            bench.answer();
        }
        bench.run(bench.now + TIMEOUT * 10);
        let firsts: Vec<u64> = bench.sent.values().map(|sent| sent[0]).collect();
        prop_assert!(firsts.is_sorted());
        for offset in 1..=bench.head {
            prop_assert_eq!(bench.sent[&offset].len(), RULES.max_attempts as usize);
            prop_assert!(bench.stalled.contains_key(&offset));
        }
    }
}

#[test]
fn attempts_go_on_from_earlier_sessions() {
    let mut bench = Bench::new(AckMode::Explicit, 100);
    bench.append(1, true);
    bench.before = 3;
    bench.append(1, false);
    bench.session.suspect(&mut bench.wire);
    while !bench.wire.reads.is_empty() {
        bench.answer();
    }
    bench.before = 1;
    bench.run(TIMEOUT * 10);
    let attempts: Vec<u32> = bench.wire.attempts.iter().flatten().copied().collect();
    // The engine counted no more than one here; what the session knows itself goes before.
    assert_eq!(attempts, [1, 4, 2, 2, 3, 3, 4, 4]);
}

#[test]
fn only_explicit_sends_again() {
    for ack in [AckMode::Auto, AckMode::None] {
        let mut bench = Bench::new(ack, 100);
        bench.append(3, true);
        assert_eq!(
            (bench.session.redeliver_at(), bench.wire.attempts.as_slice()),
            (None, &[None; 3][..])
        );
    }
}

#[test]
fn what_is_new_flows_while_a_page_is_read() {
    let mut bench = Bench::new(AckMode::Explicit, 100);
    bench.append(1, true);
    bench.now = TIMEOUT * 2;
    bench.session.redeliver(bench.moment(), &mut bench.wire);
    assert_eq!(bench.wire.reads, [(own(), Reading::Again { first: 1, last: 1 })]);
    bench.append(1, true);
    assert_eq!(bench.sent[&2], [TIMEOUT * 2]);
    assert!(!bench.session.is_reading());
    bench.answer();
    assert_eq!(bench.sent[&1], [0, TIMEOUT * 2]);
}

/// The mark that another device, or this one, took the first entry.
fn taken(offset: u64, by: &str) -> Arc<Entry> {
    let kind = EntryKind::Withdrawn {
        id: NotificationId::new("n1").unwrap(),
        target: 0,
        reason: WithdrawReason::Taken,
        origin: Some(SessionId::new(by).unwrap()),
    };
    let position = place(offset);
    Arc::new(Entry {
        position,
        kind,
        ..Entry::clone(&entry(offset))
    })
}

#[test]
fn a_page_that_a_mark_overtook_brings_nothing_back() {
    let mut bench = Bench::new(AckMode::Explicit, 100);
    bench.append(1, true);
    bench.now = TIMEOUT * 2;
    bench.session.redeliver(bench.moment(), &mut bench.wire);
    let (feed, reading) = bench.wire.reads.remove(0);
    // Read while it was pending, and under way when the client is told that it was taken.
    let late = InboxPage {
        entries: vec![InboxEntry {
            shown: true,
            entry: entry(1),
            state: Some(State::Pending),
            dismissed: false,
            attempts: 1,
        }],
        span: span(1, 1),
        floor: 0,
    };
    let mark = [taken(2, "another")];
    bench.session.appended(&mark, bench.moment(), &mut bench.wire);
    bench
        .session
        .page(&feed, reading, &late, bench.moment(), &mut bench.wire);
    assert_eq!(bench.wire.got, [2], "only the mark");
    assert_eq!(bench.wire.reads, [(feed, reading)], "it is read anew");
}

#[test]
fn a_taken_mark_is_not_told_to_the_taker() {
    let mut bench = Bench::new(AckMode::Auto, 100);
    let marks = [taken(1, "s"), taken(2, "another")];
    bench.session.appended(&marks, bench.moment(), &mut bench.wire);
    assert_eq!(bench.wire.got, [2]);
}
