use super::super::public_key::tests::ED25519_PUBLIC;
use super::*;

const RULES: Rules = Rules {
    refresh: Millis::from_secs(600),
    min_interval: Millis::from_secs(30),
    max_stale: Millis::from_secs(3600),
};

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1000)
}

fn keys(ids: &[&str]) -> Vec<PublicKey> {
    let key = PublicKey::read(ED25519_PUBLIC).unwrap().remove(0);
    ids.iter()
        .map(|id| key.clone().named(Some((*id).to_owned())))
        .collect()
}

/// A cache that fetched keys of these ids at second 0.
fn filled(ids: &[&str]) -> KeyCache {
    let mut cache = KeyCache::new(RULES, at(0));
    fetch(&mut cache, ids, 0);
    cache
}

fn fetch(cache: &mut KeyCache, ids: &[&str], second: u64) {
    assert_eq!(
        cache.wait(at(second)),
        Some(Millis(0)),
        "a fetch is due at {second}"
    );
    cache.begin(at(second));
    cache.succeeded(keys(ids), at(second), 0);
}

#[derive(Debug, PartialEq)]
enum Said {
    Keys,
    Later(u32),
}
use Said::{Keys, Later};

fn ask(cache: &mut KeyCache, id: &str, second: u64) -> Said {
    match cache.ask(Some(id), at(second)) {
        Answer::Keys(_) => Keys,
        Answer::Later(seconds) => Later(seconds),
    }
}

fn doubt(cache: &mut KeyCache, id: &str, second: u64) -> Said {
    match cache.doubt(Some(id), at(second)) {
        Answer::Keys(_) => Keys,
        Answer::Later(seconds) => Later(seconds),
    }
}

#[test]
fn before_the_first_set_everyone_waits() {
    let mut cache = KeyCache::new(RULES, at(5));
    assert_eq!(cache.wait(at(5)), Some(Millis(0)));
    assert_eq!(ask(&mut cache, "a", 5), Later(1));
    cache.begin(at(5));
    assert_eq!(cache.wait(at(5)), None);
    assert_eq!(ask(&mut cache, "a", 6), Later(1));
    cache.failed(at(6), 0);
    assert!(!cache.is_ready(at(6)));
    assert_eq!(cache.wait(at(6)), Some(Millis(1000)));
    cache.begin(at(7));
    cache.failed(at(8), 0);
    assert_eq!(cache.wait(at(8)), Some(Millis(2000)));
    assert_eq!(ask(&mut cache, "a", 8), Later(2));
    cache.begin(at(10));
    cache.succeeded(keys(&["a"]), at(11), 0);
    assert_eq!(ask(&mut cache, "a", 11), Keys);
    assert_eq!(cache.wait(at(11)), Some(RULES.refresh));
}

#[test]
fn pauses_after_failures_grow_up_to_the_interval() {
    let mut cache = KeyCache::new(RULES, at(0));
    let mut pauses = Vec::new();
    let mut now = at(0);
    for _ in 0..20 {
        cache.begin(now);
        cache.failed(now, 0);
        let pause = cache.wait(now).unwrap();
        pauses.push(pause.0 / 1000);
        now = now.plus(pause);
    }
    assert_eq!(pauses[..7], [1, 2, 4, 8, 16, 30, 30]);
    assert_eq!(pauses[19], 30);
}

#[test]
fn a_rotated_issuers_first_token_brings_the_fetch_forward() {
    let mut cache = filled(&["old"]);
    assert_eq!(ask(&mut cache, "old", 100), Keys);
    assert_eq!(cache.wait(at(100)), Some(Millis(500_000)));
    assert_eq!(ask(&mut cache, "new", 100), Later(1));
    fetch(&mut cache, &["old", "new"], 100);
    assert_eq!(ask(&mut cache, "new", 100), Keys);
    assert_eq!(ask(&mut cache, "old", 100), Keys);
}

#[test]
fn within_the_interval_an_unknown_key_waits_for_its_end() {
    let mut cache = filled(&["old"]);
    assert_eq!(ask(&mut cache, "new", 10), Later(20));
    assert_eq!(ask(&mut cache, "new", 25), Later(5));
    assert_eq!(cache.wait(at(25)), Some(Millis(5000)));
    fetch(&mut cache, &["new"], 30);
    assert_eq!(ask(&mut cache, "new", 30), Keys);
}

#[test]
fn an_id_that_the_issuer_does_not_know_is_refused_and_asks_again_after_the_interval() {
    let mut cache = filled(&["a"]);
    assert_eq!(ask(&mut cache, "made up", 100), Later(1));
    fetch(&mut cache, &["a"], 101);
    // The first comes back for its answer at 103.
    for second in 103..131 {
        assert_eq!(
            ask(&mut cache, "made up", second),
            Keys,
            "its own keys do not check it"
        );
        assert!(
            cache.wait(at(second)).unwrap() > Millis::from_secs(500),
            "nothing but the refresh is due at {second}"
        );
    }
    // By now the issuer may have it.
    assert_eq!(ask(&mut cache, "made up", 131), Later(1));
    fetch(&mut cache, &["a", "made up"], 131);
    assert_eq!(ask(&mut cache, "made up", 131), Keys);
    assert_eq!(cache.wait(at(131)), Some(RULES.refresh));
}

#[test]
fn one_fetch_answers_an_unknown_id_even_in_the_millisecond_it_came_in() {
    let mut cache = filled(&["a"]);
    assert_eq!(ask(&mut cache, "made up", 100), Later(1));
    fetch(&mut cache, &["a"], 100);
    assert_eq!(ask(&mut cache, "made up", 100), Keys);
    assert_eq!(doubt(&mut cache, "made up", 100), Keys, "no second question");
    assert_eq!(cache.wait(at(100)), Some(RULES.refresh), "no second fetch");
}

#[test]
fn a_bad_signature_by_a_key_that_was_just_fetched_makes_no_second_fetch() {
    let mut cache = filled(&["a"]);
    assert_eq!(ask(&mut cache, "new", 100), Later(1));
    fetch(&mut cache, &["a", "new"], 100);
    assert_eq!(ask(&mut cache, "new", 100), Keys);
    assert_eq!(doubt(&mut cache, "new", 100), Keys);
    assert_eq!(cache.wait(at(100)), Some(RULES.refresh));
    // Later on it is a question of its own.
    assert_eq!(doubt(&mut cache, "new", 130), Later(1));
}

#[test]
fn whoever_comes_back_late_hears_the_answer() {
    let rules = Rules {
        min_interval: Millis::from_secs(1),
        ..RULES
    };
    let mut cache = KeyCache::new(rules, at(0));
    fetch(&mut cache, &["a"], 0);
    for round in 1..10 {
        let second = round * 20;
        assert_eq!(ask(&mut cache, "made up", second), Later(1));
        fetch(&mut cache, &["a"], second);
        // Later than the interval: it would be put off for ever if it asked anew.
        assert_eq!(ask(&mut cache, "made up", second + 9), Keys);
    }
}

#[test]
fn a_key_that_a_fetch_under_way_brings_needs_no_other() {
    let mut cache = filled(&["a"]);
    cache.begin(at(600));
    assert_eq!(ask(&mut cache, "new", 601), Later(1));
    cache.succeeded(keys(&["a", "new"]), at(602), 0);
    assert_eq!(ask(&mut cache, "new", 602), Keys);
    assert_eq!(cache.wait(at(602)), Some(RULES.refresh));
}

#[test]
fn any_number_of_unknown_ids_make_one_fetch_an_interval() {
    let mut cache = filled(&["a"]);
    let mut fetches = 0;
    for second in 100..400 {
        for n in 0..100 {
            ask(&mut cache, &format!("{second} {n}"), second);
        }
        if cache.wait(at(second)) == Some(Millis(0)) {
            fetches += 1;
            fetch(&mut cache, &["a"], second);
        }
        assert_eq!(
            ask(&mut cache, "a", second),
            Keys,
            "the others are not kept waiting"
        );
    }
    assert!((2..=10).contains(&fetches), "{fetches} in 300 s");
    assert!(cache.asked.len() <= MAX_ASKED);
}

#[test]
fn made_up_ids_do_not_keep_a_new_key_out() {
    let mut cache = filled(&["a"]);
    for (round, new) in [(0, "b"), (1, "c")] {
        let second = 600 + round * 100;
        for n in 0..2 * MAX_ASKED {
            ask(&mut cache, &format!("made-up-{round}-{n}"), second);
        }
        assert!(
            matches!(ask(&mut cache, new, second), Later(_)),
            "{new} is asked for"
        );
        fetch(&mut cache, &["a", "b", new], second + 40);
        assert_eq!(ask(&mut cache, new, second + 40), Keys);
        assert!(cache.asked.len() <= MAX_ASKED);
    }
}

#[test]
fn an_id_that_comes_while_a_fetch_is_under_way_gets_one_of_its_own() {
    let mut cache = filled(&["a"]);
    cache.begin(at(600));
    assert_eq!(ask(&mut cache, "new", 601), Later(1));
    cache.succeeded(keys(&["a"]), at(602), 0);
    assert_eq!(ask(&mut cache, "new", 602), Later(28));
    fetch(&mut cache, &["a", "new"], 630);
    assert_eq!(ask(&mut cache, "new", 630), Keys);
}

#[test]
fn while_the_issuer_is_away_the_last_set_is_used_up_to_its_age() {
    let mut cache = filled(&["a"]);
    let mut now = at(600);
    while now < at(3599) {
        cache.begin(now);
        cache.failed(now, 0);
        assert_eq!(ask(&mut cache, "a", now.0 / 1000), Keys);
        assert_ne!(
            ask(&mut cache, "unknown", now.0 / 1000),
            Keys,
            "nobody can say that it is wrong"
        );
        now = now.plus(cache.wait(now).unwrap());
    }
    assert!(cache.is_ready(at(3599)) && !cache.is_ready(at(3600)));
    assert!(matches!(ask(&mut cache, "a", 3600), Later(1..=30)));
    let back = now.0 / 1000;
    fetch(&mut cache, &["a"], back);
    assert_eq!(ask(&mut cache, "a", back), Keys);
}

#[test]
fn keys_without_ids_fit_any_token_and_ask_for_nothing() {
    let mut cache = filled(&[]);
    let mut nameless = keys(&["x"]);
    nameless.extend(PublicKey::read(ED25519_PUBLIC).unwrap());
    cache.begin(at(600));
    cache.succeeded(nameless, at(600), 0);
    assert_eq!(ask(&mut cache, "any", 601), Keys);
    assert!(matches!(cache.ask(None, at(601)), Answer::Keys(_)));
    assert_eq!(cache.wait(at(601)), Some(Millis(599_000)));
}

#[test]
fn an_operator_gets_a_fetch_even_while_one_is_under_way() {
    let mut cache = filled(&["a"]);
    cache.renew(RULES, at(10));
    assert_eq!(cache.wait(at(10)), Some(Millis(0)));
    cache.begin(at(10));
    cache.renew(RULES, at(11));
    cache.succeeded(keys(&["a"]), at(12), 0);
    assert_eq!(cache.wait(at(12)), Some(Millis(0)));
    fetch(&mut cache, &["b"], 12);
    assert_eq!(cache.wait(at(12)), Some(RULES.refresh));
}

#[test]
fn nodes_that_started_together_do_not_stay_together() {
    assert_eq!(spread(Millis(1000), 0), Millis(1000));
    assert_eq!(spread(Millis(1000), 255), Millis(900));
}

#[test]
fn a_bad_signature_fetches_once_for_its_id_and_never_storms() {
    let mut cache = filled(&["a"]);
    let doubt = |cache: &mut KeyCache, second| doubt(cache, "a", second);
    assert_eq!(doubt(&mut cache, 10), Later(20), "no sooner than the interval");
    assert_eq!(ask(&mut cache, "a", 10), Keys, "whoever is signed well goes on");
    fetch(&mut cache, &["a"], 30);
    assert_eq!(doubt(&mut cache, 31), Keys, "refused now, by the new set");
    (32..600).for_each(|second| assert_eq!(doubt(&mut cache, second), Keys, "{second}"));
    assert!(
        cache.wait(at(599)).unwrap() > Millis(0),
        "nobody fetches for them"
    );
    fetch(&mut cache, &["a"], 630);
    assert_eq!(
        doubt(&mut cache, 700),
        Later(1),
        "after a while it may be asked again"
    );
}
