use super::*;

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn batch(here: &[&str], gone: &[&str]) -> Batch {
    Batch {
        here: here.iter().map(|name| user(name)).collect(),
        gone: gone.iter().map(|name| user(name)).collect(),
    }
}

#[test]
fn the_last_word_counts_and_the_oldest_goes_first() {
    let ledger = Ledger::default();
    ledger.came(&user("ada"));
    ledger.came(&user("bob"));
    ledger.went(&user("ada"));
    ledger.came(&user("eve"));
    assert_eq!(ledger.waiting(), 3);
    assert_eq!(ledger.take(), batch(&["bob", "eve"], &["ada"]));
    assert!(ledger.take().is_empty() && !ledger.is_behind());
}

#[test]
fn what_was_not_written_waits_again_but_for_a_later_word() {
    let ledger = Ledger::default();
    ledger.came(&user("ada"));
    ledger.came(&user("bob"));
    let taken = ledger.take();
    ledger.went(&user("ada"));
    ledger.put_back(taken);
    assert_eq!(ledger.take(), batch(&["bob"], &["ada"]));
    assert_eq!(ledger.lock().gone, 0);
}

/// A batch under way when too many have gone: who left meanwhile is not put back as here.
#[test]
fn who_was_forgotten_while_a_batch_failed_does_not_come_back() {
    let ledger = Ledger::default();
    ledger.came(&user("ada"));
    let taken = ledger.take();
    ledger.went(&user("ada"));
    for n in 0..=MOST_GONE {
        let one = user(&format!("u{n}"));
        ledger.came(&one);
        ledger.went(&one);
    }
    assert!(ledger.must_start_over());
    ledger.put_back(taken);
    assert!(ledger.take().here.is_empty());
}

#[test]
fn a_batch_is_bounded() {
    let ledger = Ledger::default();
    for n in 0..MOST_ROWS + 7 {
        ledger.came(&user(&format!("u{n}")));
    }
    assert_eq!(ledger.take().here.len(), MOST_ROWS);
    assert!(ledger.is_behind());
    assert_eq!(ledger.take().here.len(), 7);
}

/// Too many who are gone are not remembered one by one, and nobody who is here is forgotten.
#[test]
fn too_many_who_are_gone_start_it_over() {
    let ledger = Ledger::default();
    ledger.came(&user("ada"));
    for n in 0..=MOST_GONE {
        let one = user(&format!("u{n}"));
        ledger.came(&one);
        assert!(!ledger.must_start_over());
        ledger.went(&one);
    }
    assert!(ledger.must_start_over());
    assert_eq!((ledger.waiting(), ledger.lock().order.len()), (1, 1));
    assert_eq!(ledger.take(), batch(&["ada"], &[]));
    assert!(ledger.is_behind());
    ledger.started_over();
    assert_eq!(ledger.page(Timestamp(0)), [user("ada")]);
    assert!(!ledger.is_behind());
}

#[test]
fn who_was_struck_off_is_left_alone_until_it_comes_again() {
    let ledger = Ledger::default();
    ledger.came(&user("ada"));
    ledger.take();
    ledger.strike_off(&user("ada"));
    assert!(ledger.page(Timestamp(0)).is_empty());
    ledger.went(&user("ada"));
    assert!(ledger.take().is_empty());
    ledger.came(&user("ada"));
    assert_eq!(ledger.take(), batch(&["ada"], &[]));
}
