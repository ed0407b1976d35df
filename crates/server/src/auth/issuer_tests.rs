use super::super::public_key::tests::ED25519_PUBLIC;
use super::*;
use postrider_model::{Millis, Timestamp};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

const RULES: Rules = Rules {
    refresh: Millis::from_secs(600),
    min_interval: Millis::from_secs(30),
    max_stale: Millis::from_secs(3600),
};
type Fetched = Result<Vec<u8>, FetchFault>;

/// Longer than any step takes; a test that waits so long has failed.
const DEADLINE: Duration = Duration::from_secs(20);

fn set(id: &str) -> Vec<u8> {
    let der = super::super::public_key::tests::spki(ED25519_PUBLIC);
    use base64::Engine as _;
    let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&der[der.len() - 32..]);
    format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{id}","x":"{x}"}}]}}"#).into_bytes()
}

/// An issuer whose fetches are answered one by one by the test.
fn issuer(clock: SteadyClock) -> (Issuer, mpsc::SyncSender<Fetched>, Arc<AtomicUsize>) {
    let (answers, given) = mpsc::sync_channel::<Fetched>(16);
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = fetches.clone();
    let fetch = Box::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        given
            .recv_timeout(DEADLINE)
            .unwrap_or(Err(FetchFault(crate::fetch::FetchFault::Status(599))))
    });
    let issuer = Issuer::start("http://issuer.test/", RULES, clock, fetch).unwrap();
    (issuer, answers, fetches)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = crate::steady_clock();
    while !holds() {
        assert!(start().0 < DEADLINE.as_millis() as u64, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn who_asks_never_waits_for_the_fetch() {
    let (issuer, answers, fetches) = issuer(crate::steady_clock());
    until("the first fetch begins by itself", || {
        fetches.load(Ordering::SeqCst) == 1
    });
    assert!(matches!(issuer.ask(Some("a")), Answer::Later(1)));
    assert!(!issuer.is_ready());
    answers.send(Ok(set("a"))).unwrap();
    until("its keys are known", || issuer.is_ready());
    assert!(matches!(issuer.ask(Some("a")), Answer::Keys(_)));
    // Unknown ids, any number: within the interval there is no further fetch.
    for n in 0..1000 {
        assert!(matches!(issuer.ask(Some(&n.to_string())), Answer::Later(_)));
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    issuer.renew(RULES);
    until("an operator's fetch begins", || {
        fetches.load(Ordering::SeqCst) == 2
    });
    answers
        .send(Err(FetchFault(crate::fetch::FetchFault::Status(500))))
        .unwrap();
    assert!(
        matches!(issuer.ask(Some("a")), Answer::Keys(_)),
        "the last set stays"
    );
}

#[test]
fn an_unknown_id_rings_the_bell() {
    let seconds = Arc::new(AtomicUsize::new(0));
    let now = seconds.clone();
    let clock: SteadyClock = Arc::new(move || Timestamp(now.load(Ordering::SeqCst) as u64 * 1000));
    let (issuer, answers, fetches) = issuer(clock);
    answers.send(Ok(set("old"))).unwrap();
    until("the first set is known", || issuer.is_ready());
    seconds.store(31, Ordering::SeqCst);
    assert!(matches!(issuer.ask(Some("new")), Answer::Later(1)));
    answers.send(Ok(set("new"))).unwrap();
    until("the rotated key is known", || {
        matches!(issuer.ask(Some("new")), Answer::Keys(_))
    });
    assert_eq!(fetches.load(Ordering::SeqCst), 2);
}

#[test]
fn a_bad_set_keeps_the_last_one_and_the_thread_ends_with_its_issuer() {
    let (issuer, answers, fetches) = issuer(crate::steady_clock());
    answers.send(Ok(set("a"))).unwrap();
    until("the first set is known", || issuer.is_ready());
    issuer.renew(RULES);
    answers.send(Ok(b"<html>".to_vec())).unwrap();
    until("the second fetch has begun", || {
        fetches.load(Ordering::SeqCst) == 2
    });
    assert!(matches!(issuer.ask(Some("a")), Answer::Keys(_)));
    drop(issuer);
    // The thread held the other end of this channel.
    until("the thread has ended", || answers.send(Ok(Vec::new())).is_err());
}

#[test]
fn a_token_that_a_key_made_good_is_not_good_without_that_key() {
    use super::super::jwt::{Jwt, JwtConfig};
    use super::super::public_key::tests::ED25519_PRIVATE;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let seconds = Arc::new(AtomicUsize::new(0));
    let now = seconds.clone();
    let clock: SteadyClock = Arc::new(move || Timestamp(now.load(Ordering::SeqCst) as u64 * 1000));
    let (issuer, answers, _) = issuer(clock);
    answers.send(Ok(set("old"))).unwrap();
    until("the first set is known", || issuer.is_ready());
    let issuer = Arc::new(issuer);
    let jwt = Jwt::new(&JwtConfig::default(), Some(issuer.clone())).unwrap();
    let [header, claims] = [r#"{"alg":"EdDSA","kid":"old"}"#, r#"{"sub":"ada","exp":2000}"#];
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let key = jsonwebtoken::EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()).unwrap();
    let algorithm = jsonwebtoken::Algorithm::EdDSA;
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    let token = format!("{message}.{signature}");
    for _ in 0..2 {
        assert_eq!(jwt.verify(&token, Timestamp(0)).unwrap().user.as_str(), "ada");
    }
    let before = issuer.keys_in_use().unwrap();
    issuer.renew(RULES);
    answers.send(Ok(set("new"))).unwrap();
    until("the key is gone", || {
        issuer
            .keys_in_use()
            .is_some_and(|keys| !Arc::ptr_eq(&keys, &before))
    });
    assert!(jwt.verify(&token, Timestamp(0)).is_err());
    // Nor where the issuer could not be reached for too long.
    answers.send(Ok(set("old"))).unwrap();
    issuer.renew(RULES);
    until("it is back", || jwt.verify(&token, Timestamp(0)).is_ok());
    seconds.store(3700, Ordering::SeqCst);
    assert_eq!(jwt.verify(&token, Timestamp(0)).unwrap_err().status, 503);
}

#[test]
fn one_fetch_for_a_token_whose_key_nobody_has_and_one_more_when_it_asks_again() {
    use super::super::jwt::{Jwt, JwtConfig};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let seconds = Arc::new(AtomicUsize::new(0));
    let now = seconds.clone();
    let clock: SteadyClock = Arc::new(move || Timestamp(now.load(Ordering::SeqCst) as u64 * 1000));
    let (issuer, answers, fetches) = issuer(clock);
    answers.send(Ok(set("a"))).unwrap();
    until("the first set is known", || issuer.is_ready());
    let config = JwtConfig {
        jwks_doubt: true,
        ..JwtConfig::default()
    };
    let jwt = Jwt::new(&config, Some(Arc::new(issuer))).unwrap();
    let token = |id: &str| {
        let header = format!(r#"{{"alg":"EdDSA","kid":"{id}"}}"#);
        let parts = [&*header, r#"{"sub":"ada"}"#, "no signature"].map(|part| URL_SAFE_NO_PAD.encode(part));
        parts.join(".")
    };
    // The clock stands while each is put off, fetched for and refused.
    for (second, id) in [(40, "b"), (80, "c"), (120, "b"), (160, "a")] {
        seconds.store(second, Ordering::SeqCst);
        let before = fetches.load(Ordering::SeqCst);
        let refused = || jwt.verify(&token(id), Timestamp(0)).unwrap_err().status;
        assert_eq!(refused(), 503, "{id} at {second}");
        answers.send(Ok(set("a"))).unwrap();
        until("it is refused", || refused() == 401);
        assert_eq!(refused(), 401);
        assert_eq!(fetches.load(Ordering::SeqCst), before + 1, "{id} at {second}");
    }
}
