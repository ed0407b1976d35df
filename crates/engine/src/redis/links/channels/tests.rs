//! A subscription's way, and that a loss is told once, and not too early.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

const A: ServerId = 1;
const B: ServerId = 2;
const CELL: Cell = Cell(5);

fn channels() -> Channels {
    let mut channels = Channels::new(100);
    for cell in Cell::all() {
        channels.move_cell(cell, Some(A), false);
    }
    channels
}

fn join(names: &[&str]) -> Vec<Order> {
    vec![Order::Join(
        CELL,
        names.iter().map(|name| Name::from(name.as_bytes())).collect(),
    )]
}

fn leave(names: &[&str]) -> Vec<Order> {
    vec![Order::Leave(
        CELL,
        names.iter().map(|name| Name::from(name.as_bytes())).collect(),
    )]
}

fn on(channels: &mut Channels, name: &str) {
    channels.want(CELL, name.as_bytes());
    channels.up(A);
    assert_eq!(channels.orders(A, 10), join(&[name]));
    channels.joined(A, CELL, name.as_bytes());
}

#[test]
fn what_is_wanted_before_a_connection_is_joined_when_it_is_up() {
    let mut channels = channels();
    assert_eq!(channels.want(CELL, b"a"), Some(A));
    assert_eq!(channels.orders(A, 10), []);
    channels.up(A);
    assert_eq!(channels.orders(A, 10), join(&["a"]));
    assert_eq!(channels.orders(A, 10), [], "nothing is asked twice");
    channels.joined(A, CELL, b"a");
    assert_eq!(channels.mended(A), [], "nobody relied on it before");
}

#[test]
fn a_change_of_mind_waits_for_the_answer_that_is_on_its_way() {
    let mut channels = channels();
    on(&mut channels, "a");
    channels.unwant(CELL, b"a");
    assert_eq!(channels.orders(A, 10), leave(&["a"]));
    assert_eq!(channels.want(CELL, b"a"), None);
    assert_eq!(channels.orders(A, 10), [], "it is still leaving");
    assert!(!channels.left(A, CELL, b"a"), "it was asked to leave");
    assert_eq!(channels.orders(A, 10), join(&["a"]));
    channels.unwant(CELL, b"a");
    channels.joined(A, CELL, b"a");
    assert_eq!(channels.orders(A, 10), leave(&["a"]));
    channels.left(A, CELL, b"a");
    assert_eq!(channels.orders(A, 10), []);
    assert_eq!(channels.count(), 0);
}

#[test]
fn a_loss_is_told_once_when_all_that_was_on_is_on_again() {
    let mut channels = channels();
    on(&mut channels, "a");
    channels.want(CELL, b"b");
    channels.want(Cell(6), b"c");
    for order in channels.orders(A, 10) {
        let (Order::Join(cell, names) | Order::Leave(cell, names)) = order;
        names.iter().for_each(|name| channels.joined(A, cell, name));
    }
    channels.down(A);
    assert_eq!(channels.mended(A), []);
    channels.up(A);
    // One that comes only now does not hold the news up.
    channels.want(CELL, b"new");
    assert_eq!(channels.orders(A, 10).len(), 2);
    channels.joined(A, CELL, b"a");
    channels.joined(A, Cell(6), b"c");
    assert_eq!(channels.mended(A), [], "b is still missing");
    channels.joined(A, CELL, b"b");
    assert_eq!(channels.mended(A), [CELL, Cell(6)]);
    assert_eq!(channels.mended(A), []);
}

#[test]
fn letting_go_of_the_last_that_is_missing_tells_the_loss() {
    let mut channels = channels();
    on(&mut channels, "a");
    channels.down(A);
    channels.up(A);
    channels.unwant(CELL, b"a");
    assert_eq!(channels.orders(A, 10), []);
    assert_eq!(channels.mended(A), [CELL]);
    assert_eq!(channels.count(), 0);
}

#[test]
fn a_slot_that_moves_is_a_loss_until_it_is_joined_where_it_went() {
    let mut channels = channels();
    on(&mut channels, "a");
    assert!(channels.left(A, CELL, b"a"), "nobody asked for this");
    assert_eq!(
        channels.orders(A, 10),
        [],
        "the cell waits for a look at the Cluster"
    );
    assert!(channels.is_held(A));
    channels.move_cell(CELL, Some(B), true);
    assert_eq!(channels.orders(B, 10), join(&["a"]));
    channels.joined(A, CELL, b"a");
    assert_eq!(channels.mended(B), [], "the old server's word does not count");
    channels.joined(B, CELL, b"a");
    assert_eq!(channels.mended(B), [CELL]);
}

#[test]
fn what_is_turned_away_is_asked_again_later() {
    let mut channels = channels();
    channels.up(A);
    channels.want(CELL, b"a");
    assert_eq!(channels.orders(A, 10), join(&["a"]));
    channels.refused(A, CELL);
    assert_eq!(channels.orders(A, 10), []);
    channels.retry(A);
    assert_eq!(channels.orders(A, 10), join(&["a"]));
}

#[test]
fn one_server_that_is_away_does_not_hold_the_others_up() {
    let mut channels = channels();
    on(&mut channels, "a");
    channels.move_cell(Cell(6), Some(B), false);
    channels.up(B);
    channels.want(Cell(6), b"c");
    channels.orders(B, 10);
    channels.joined(B, Cell(6), b"c");
    channels.down(A);
    channels.down(B);
    channels.up(A);
    channels.orders(A, 10);
    channels.joined(A, CELL, b"a");
    assert_eq!(channels.mended(A), [CELL]);
}

#[test]
fn commands_are_few_and_bounded() {
    let mut channels = Channels::new(10_000);
    channels.move_cell(CELL, Some(A), true);
    for number in 0..2_000 {
        channels.want(CELL, format!("c{number}").as_bytes());
    }
    let orders = channels.orders(A, 3);
    assert_eq!(orders.len(), 3);
    let orders = [orders, channels.orders(A, 10)].concat_len();
    assert_eq!(orders, (4, 2_000));
}

trait ConcatLen {
    fn concat_len(&self) -> (usize, usize);
}

impl ConcatLen for [Vec<Order>; 2] {
    fn concat_len(&self) -> (usize, usize) {
        let all = || self.iter().flatten();
        let names = |order: &Order| match order {
            Order::Join(_, names) | Order::Leave(_, names) => names.len(),
        };
        (all().count(), all().map(names).sum())
    }
}

#[test]
fn past_the_bound_nothing_is_taken() {
    let mut channels = Channels::new(1);
    channels.want(CELL, b"a");
    channels.want(CELL, b"b");
    assert_eq!(channels.count(), 1);
    assert_eq!(channels.wait(&[(CELL, b"b")]).err(), Some(NotWanted));
    channels.unwant(CELL, b"a");
    channels.want(CELL, b"b");
    assert!(
        channels
            .wait(&[(CELL, b"b")])
            .is_ok_and(|waiter| waiter.is_some())
    );
}

#[derive(Debug, Clone)]
enum Step {
    Want(u8),
    Unwant(u8),
    Up,
    Down,
    Refuse,
    Retry,
    Kick(u8),
    Answer,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..6).prop_map(Step::Want),
        (0u8..6).prop_map(Step::Unwant),
        Just(Step::Up),
        Just(Step::Down),
        Just(Step::Refuse),
        Just(Step::Retry),
        (0u8..6).prop_map(Step::Kick),
        Just(Step::Answer),
        Just(Step::Answer),
    ]
}

/// A second, plain account: what the server sends messages of, and who was told so.
#[derive(Default)]
struct Model {
    up: bool,
    wanted: HashSet<Vec<u8>>,
    /// What the server sends messages of.
    heard: HashSet<Vec<u8>>,
    /// Wanted channels of which it was said that they are heard.
    relied_on: HashSet<Vec<u8>>,
    /// Of these, those that ceased to be heard, and nobody was told yet.
    owed: HashSet<Vec<u8>>,
    sent: Vec<Order>,
}

impl Model {
    fn lose(&mut self, name: &[u8]) {
        self.heard.remove(name);
        if self.relied_on.remove(name) {
            self.owed.insert(name.to_vec());
        }
    }

    fn lose_all(&mut self) {
        self.sent.clear();
        for name in self.heard.clone() {
            self.lose(&name);
        }
    }

    fn unwant(&mut self, name: &[u8]) {
        self.wanted.remove(name);
        self.relied_on.remove(name);
        self.owed.remove(name);
    }

    fn answer(&mut self, channels: &mut Channels) {
        if self.sent.is_empty() {
            return;
        }
        match self.sent.remove(0) {
            Order::Join(cell, names) => names.iter().for_each(|name| {
                self.heard.insert(name.to_vec());
                channels.joined(A, cell, name);
            }),
            Order::Leave(cell, names) => names.iter().for_each(|name| {
                self.heard.remove(&name.to_vec());
                assert!(!channels.left(A, cell, name));
            }),
        }
    }

    fn act(&mut self, step: &Step, channels: &mut Channels) {
        match step {
            Step::Want(n) => {
                channels.want(CELL, &[*n]);
                self.wanted.insert(vec![*n]);
            }
            Step::Unwant(n) => {
                channels.unwant(CELL, &[*n]);
                self.unwant(&[*n]);
            }
            Step::Up if !self.up => {
                self.up = true;
                channels.up(A);
            }
            Step::Down if self.up => {
                self.up = false;
                self.lose_all();
                channels.down(A);
            }
            // As with a slot that has moved away: all that is on its way there is turned away.
            Step::Refuse if matches!(self.sent.first(), Some(Order::Join(..))) => {
                for name in self.heard.clone() {
                    channels.left(A, CELL, &name);
                }
                self.lose_all();
                channels.refused(A, CELL);
            }
            Step::Retry => channels.retry(A),
            Step::Kick(n) if self.heard.contains(&vec![*n]) && self.sent.is_empty() => {
                self.lose(&[*n]);
                channels.left(A, CELL, &[*n]);
            }
            Step::Answer => self.answer(channels),
            _ => {}
        }
    }

    /// After each step: commands go out, and what is told must be true.
    fn check(&mut self, channels: &mut Channels) {
        self.sent.extend(channels.orders(A, 4));
        if !channels.mended(A).is_empty() {
            assert!(
                self.owed.is_subset(&self.heard),
                "told too early: {:?}",
                self.owed
            );
            self.owed.clear();
        }
        for name in &self.wanted {
            if matches!(channels.wait(&[(CELL, name)]), Ok(None)) {
                assert!(self.heard.contains(name), "{name:?} is not heard");
                self.relied_on.insert(name.clone());
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_all_that_is_wanted_is_heard_in_the_end_and_no_loss_is_kept_quiet(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut channels = channels();
        let mut model = Model::default();
        for step in steps.iter().chain(&[Step::Down, Step::Up]) {
            model.act(step, &mut channels);
            model.check(&mut channels);
        }
        channels.retry(A);
        for _ in 0..100 {
            model.check(&mut channels);
            model.answer(&mut channels);
        }
        prop_assert_eq!(&model.heard, &model.wanted);
        prop_assert!(model.owed.is_empty(), "a loss was not told");
        prop_assert_eq!(channels.count(), model.wanted.len());
    }
}
