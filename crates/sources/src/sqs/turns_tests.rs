use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const WAIT: Duration = Duration::from_secs(20);
const LINGER: Millis = Millis(100);
const ROOM: usize = 1_024;

fn user(n: usize) -> UserId {
    UserId::new(&format!("u{n}")).unwrap()
}

fn next(turns: &mut Turns) -> Option<(UserId, Duration)> {
    turns.next(10).map(|next| (next.user, next.wait))
}

fn at(millis: u64) -> Timestamp {
    Timestamp(millis)
}

#[test]
fn long_polls_while_there_are_connections_and_turns_above() {
    let mut turns = Turns::new(2, WAIT, LINGER, 32, ROOM);
    turns.follow(&user(1));
    turns.follow(&user(2));
    assert_eq!(next(&mut turns), Some((user(2), WAIT)));
    assert_eq!(next(&mut turns), Some((user(1), WAIT)));
    turns.follow(&user(3));
    assert_eq!((next(&mut turns), turns.polling()), (None, 2));
    assert!(turns.done(&user(1), at(0), 0));
    assert_eq!(next(&mut turns), Some((user(3), TURN)), "who is new goes first");
    assert!(turns.done(&user(2), at(0), 0) && turns.done(&user(3), at(0), 0));
    let order: Vec<_> = (0..2).filter_map(|_| next(&mut turns)).collect();
    assert_eq!(order, [(user(1), TURN), (user(2), TURN)]);
}

#[test]
fn who_left_is_polled_no_more_and_may_come_back() {
    let mut turns = Turns::new(9, WAIT, LINGER, 32, ROOM);
    turns.follow(&user(1));
    turns.follow(&user(2));
    assert_eq!(next(&mut turns).unwrap().0, user(2));
    for n in [1, 2] {
        turns.unfollow(&user(n), at(0));
        turns.unfollow(&user(n), at(50));
    }
    assert_eq!(turns.due(), Some(at(100)));
    turns.follow(&user(1));
    turns.tick(at(100));
    assert_eq!(next(&mut turns).unwrap().0, user(1));
    assert!(!turns.done(&user(2), at(100), 0), "nobody hears what it brings");
    assert_eq!((turns.users(), turns.due()), (1, None));
    turns.unfollow(&user(1), at(200));
    assert!(
        turns.done(&user(1), at(250), 0),
        "within the linger it is still heard"
    );
    turns.tick(at(300));
    assert_eq!((turns.users(), next(&mut turns), turns.polling()), (0, None, 0));
}

#[test]
fn what_failed_waits_longer_each_time() {
    let mut turns = Turns::new(9, WAIT, LINGER, 32, ROOM);
    turns.follow(&user(1));
    let pause = |nth: u32| Millis(10 << nth);
    let mut now = 0;
    for nth in 0..4 {
        assert!(next(&mut turns).is_some());
        turns.failed(&user(1), at(now), pause);
        turns.tick(at(now));
        assert_eq!(
            (next(&mut turns), turns.due()),
            (None, Some(at(now + (10 << nth))))
        );
        now += 10 << nth;
        turns.tick(at(now));
    }
    assert!(next(&mut turns).is_some() && turns.done(&user(1), at(now), 0) && next(&mut turns).is_some());
    turns.failed(&user(1), at(now), pause);
    assert_eq!(turns.due(), Some(at(now + 10)), "a success begins anew");
    turns.unfollow(&user(1), at(now));
    turns.tick(at(now + 100));
    assert_eq!((turns.users(), turns.due()), (0, None));
}

#[test]
fn one_message_each_and_more_only_after_a_full_poll_and_where_there_is_room() {
    let mut turns = Turns::new(99, WAIT, LINGER, 32, ROOM);
    let ask = |turns: &mut Turns| -> Vec<_> {
        let asked = std::iter::from_fn(|| turns.next(10));
        asked.map(|next| (next.most, next.wait)).collect()
    };
    (0..20).for_each(|n| turns.follow(&user(n)));
    assert_eq!(ask(&mut turns), vec![(1, WAIT); 20]);
    (0..20).for_each(|n| assert!(turns.done(&user(n), at(0), 1)));
    let most: Vec<_> = ask(&mut turns);
    let extra: usize = most.iter().map(|(most, _)| most - 1).sum();
    assert_eq!((most.len(), extra), (20, EXTRA_MOST), "{most:?}");
    assert!(most.iter().all(|(most, wait)| (*most == 1) == (*wait == WAIT)));
    turns.failed(&user(0), at(0), |_| Millis(9));
    (1..20).for_each(|n| assert!(turns.done(&user(n), at(0), 0)));
    assert_eq!(turns.extra, 0);
    assert_eq!(ask(&mut turns), vec![(1, WAIT); 19]);
}

#[test]
fn who_has_too_many_unsettled_waits_until_they_are_settled() {
    let mut turns = Turns::new(9, WAIT, LINGER, 12, ROOM);
    turns.follow(&user(1));
    for (most, left) in [(1, 11), (10, 1), (1, 0)] {
        assert_eq!(turns.next(10).unwrap().most, most);
        assert!(turns.done(&user(1), at(0), most));
        assert_eq!(turns.unsettled[&user(1)], 12 - left);
    }
    assert_eq!(turns.next(10), None);
    // To leave and to come back makes no room.
    turns.unfollow(&user(1), at(0));
    turns.tick(at(100));
    assert_eq!(turns.users(), 0);
    turns.follow(&user(1));
    assert_eq!(turns.next(10), None);
    turns.settled(&user(1));
    assert_eq!(turns.next(10).unwrap().user, user(1));
    (0..11).for_each(|_| turns.settled(&user(1)));
    assert!(turns.unsettled.is_empty());
}

/// Lets each of these users have all that he may, and settles nothing.
fn fill(turns: &mut Turns, users: std::ops::Range<usize>) {
    users.for_each(|n| turns.follow(&user(n)));
    while let Some(next) = turns.next(10) {
        assert!(turns.done(&next.user, at(0), next.most));
    }
}

#[test]
fn those_who_take_nothing_leave_room_for_the_others() {
    for stalled in [1, 32, 100, 1_000, 5_000] {
        let mut turns = Turns::new(9_999, WAIT, LINGER, 32, ROOM);
        fill(&mut turns, 0..stalled);
        let least = turns.unsettled.values().min().copied();
        assert!(least >= Some(1) && turns.shared <= ROOM, "{stalled}: {least:?}");
        // Another comes, and gets about as much as any of them.
        fill(&mut turns, stalled..stalled + 1);
        let his = turns.unsettled[&user(stalled)];
        let theirs = turns.unsettled[&user(0)];
        assert!(his * 5 + 5 >= theirs * 4, "{stalled}: {his} of {theirs}");
        assert!(turns.shared <= ROOM);
        // He goes on, whatever they do: whenever he has settled some of his, he gets more.
        for _ in 0..100 {
            let next = loop {
                turns.settled(&user(stalled));
                if let Some(next) = turns.next(10) {
                    break next;
                }
            };
            assert_eq!(next.user, user(stalled));
            assert!(turns.done(&user(stalled), at(0), next.most));
            assert!(turns.shared <= ROOM);
        }
    }
}

#[test]
fn room_is_given_back_when_messages_are_settled_also_of_who_left() {
    let mut turns = Turns::new(99, WAIT, LINGER, 32, 40);
    fill(&mut turns, 0..9);
    let unsettled = turns.unsettled.clone();
    assert_eq!(
        unsettled.values().map(|count| count - 1).sum::<usize>(),
        turns.shared
    );
    (0..9).for_each(|n| turns.unfollow(&user(n), at(0)));
    turns.tick(at(100));
    assert_eq!(turns.users(), 0);
    for (one, count) in unsettled {
        (0..count).for_each(|_| turns.settled(&one));
    }
    assert_eq!((turns.shared, turns.reserved, turns.unsettled.len()), (0, 0, 0));
}

#[test]
fn all_fail_only_where_nobodys_last_poll_went_well() {
    let mut turns = Turns::new(9, WAIT, LINGER, 9, ROOM);
    assert!(!turns.all_fail());
    (1..3).for_each(|n| turns.follow(&user(n)));
    for n in [2, 1] {
        turns.tick(at(0));
        assert!(turns.next(1).is_some());
        assert!(!turns.all_fail());
        turns.failed(&user(n), at(0), |_| Millis(0));
    }
    assert!(turns.all_fail());
    turns.tick(at(0));
    assert!(turns.next(1).is_some() && turns.done(&user(2), at(0), 0));
    assert!(!turns.all_fail());
    (1..3).for_each(|n| turns.unfollow(&user(n), at(0)));
    turns.tick(at(100));
    assert_eq!((turns.failing, turns.users()), (0, 0));
}

proptest! {
    #[test]
    fn never_twice_and_never_too_many(steps in prop::collection::vec((0u8..8, 0usize..6, 0u64..80), 1..200)) {
        const SHARED: usize = 7;
        let mut turns = Turns::new(3, WAIT, LINGER, 5, SHARED);
        let (mut now, mut polled, mut out) = (0, HashMap::new(), Vec::new());
        for (step, n, passed) in steps {
            now += passed;
            let one = user(n);
            match step {
                0 | 1 => turns.follow(&one),
                2 => turns.unfollow(&one, at(now)),
                3 => if let Some(most) = polled.remove(&one) {
                    let brought = n % (most + 1);
                    if turns.done(&one, at(now), brought) { out.extend(vec![one; brought]); }
                },
                4 => if polled.remove(&one).is_some() { turns.failed(&one, at(now), |_| Millis(30)); },
                5 => if !out.is_empty() { turns.settled(&out.swap_remove(n % out.len())); },
                _ => while let Some(next) = turns.next(10) { prop_assert!(polled.insert(next.user, next.most).is_none()); },
            }
            let shared: usize = turns.unsettled.values().map(|count| count - 1).sum();
            prop_assert_eq!((turns.shared, turns.unsettled.values().sum::<usize>()), (shared, out.len()));
            prop_assert!(shared + turns.reserved <= SHARED && turns.unsettled.values().all(|count| *count <= 5));
            turns.tick(at(now));
            prop_assert_eq!(turns.polling(), polled.len());
            prop_assert!(polled.len() <= 3);
        }
        // Everybody leaves: nothing stays behind.
        for n in 0..6 { turns.unfollow(&user(n), at(now)); }
        for one in polled.into_keys() { turns.done(&one, at(now + 200), 0); }
        out.iter().for_each(|one| turns.settled(one));
        turns.tick(at(now + 200));
        prop_assert_eq!((turns.users(), turns.due(), next(&mut turns), turns.ready.len()), (0, None, None, 0));
        prop_assert_eq!((turns.shared, turns.reserved, turns.extra, turns.unsettled.len()), (0, 0, 0, 0));
    }
}
