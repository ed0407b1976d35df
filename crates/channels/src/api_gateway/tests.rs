use super::*;
use crate::Whom;
use postrider_model::{NotificationId, Timestamp, UserId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A table made up as it is read: so many rows, each of another user but for those that are named.
struct Rows {
    count: usize,
    page: usize,
    named: BTreeMap<String, Vec<String>>,
    /// Rows handed out, to be compared with those that were pushed to.
    read: AtomicUsize,
    /// Reads that fail first.
    failures: AtomicU64,
    /// Of each batch that is deleted, so many are left at the first try.
    left: AtomicUsize,
    deleted: Mutex<Vec<Vec<Connection>>>,
}

impl Rows {
    fn of(count: usize, page: usize) -> Rows {
        Rows {
            count,
            page,
            named: BTreeMap::new(),
            read: AtomicUsize::new(0),
            failures: AtomicU64::new(0),
            left: AtomicUsize::new(0),
            deleted: Mutex::default(),
        }
    }

    fn named(users: &[(&str, &[&str])]) -> Rows {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let named = users.iter().map(|(user, of)| ((*user).to_owned(), ids(of)));
        Rows {
            named: named.collect(),
            ..Rows::of(0, 1)
        }
    }

    fn fail(&self) -> Result<(), TableFault> {
        let failing = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match failing {
            Ok(_) => Err(TableFault::Away("broken".into())),
            Err(_) => Ok(()),
        }
    }
}

#[async_trait]
impl ConnectionTable for Rows {
    async fn of_user(&self, user: &str, after: Option<&Connection>) -> Result<Page, TableFault> {
        self.fail()?;
        tokio::task::yield_now().await;
        let ids = self.named.get(user).cloned().unwrap_or_default();
        let from = after.map_or(0, |key| ids.iter().position(|id| *id == key.id).unwrap() + 1);
        let connections: Vec<_> = ids.iter().skip(from).take(self.page).collect();
        let connections = connections.into_iter().map(|id| Connection {
            user: user.to_owned(),
            id: id.clone(),
        });
        let connections: Vec<_> = connections.collect();
        let after = (from + connections.len() < ids.len())
            .then(|| connections.last().cloned())
            .flatten();
        Ok(Page { connections, after })
    }

    async fn of_segment(&self, segment: Segment, after: Option<&Connection>) -> Result<Page, TableFault> {
        self.fail()?;
        tokio::task::yield_now().await;
        let size = self.count.div_ceil(segment.of);
        let end = (size * (segment.number + 1)).min(self.count);
        let from = after.map_or(size * segment.number, |key| key.id.parse::<usize>().unwrap() + 1);
        let to = (from + self.page).min(end);
        let connections = (from..to).map(|n| Connection {
            user: format!("u{n}"),
            id: n.to_string(),
        });
        let connections: Vec<_> = connections.collect();
        self.read.fetch_add(connections.len(), Ordering::Relaxed);
        let after = (to < end).then(|| connections.last().cloned()).flatten();
        Ok(Page { connections, after })
    }

    async fn delete(&self, connections: &[Connection]) -> Result<Vec<Connection>, TableFault> {
        let left = self.left.swap(0, Ordering::Relaxed).min(connections.len());
        let (done, left) = connections.split_at(connections.len() - left);
        self.deleted.lock().unwrap().push(done.to_vec());
        Ok(left.to_vec())
    }
}

/// What a connection answers at which attempt, from 1.
type Rule = Box<dyn Fn(&str, u32) -> Answer + Send + Sync>;

/// Answers by a rule, and notes the most of everything.
struct Stage {
    rule: Rule,
    takes: Duration,
    posted: Mutex<BTreeMap<String, u32>>,
    pushed: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Stage {
    fn new(rule: impl Fn(&str, u32) -> Answer + Send + Sync + 'static) -> Arc<Stage> {
        Arc::new(Stage {
            rule: Box::new(rule),
            takes: Duration::from_millis(1),
            posted: Mutex::default(),
            pushed: AtomicUsize::new(0),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    fn times(&self, id: &str) -> u32 {
        self.posted.lock().unwrap().get(id).copied().unwrap_or(0)
    }
}

#[async_trait]
impl Endpoint for Stage {
    async fn post(&self, connection: &str, _data: &Bytes) -> Answer {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        tokio::time::sleep(self.takes).await;
        self.now.fetch_sub(1, Ordering::Relaxed);
        self.pushed.fetch_add(1, Ordering::Relaxed);
        let mut posted = self.posted.lock().unwrap();
        let times = posted.entry(connection.to_owned()).or_default();
        *times += 1;
        (self.rule)(connection, *times)
    }
}

#[derive(Default)]
struct Book {
    kept: Mutex<Vec<Failure>>,
    noted: Mutex<Vec<Happened>>,
}

#[async_trait]
impl Ledger for Book {
    fn note(&self, what: Happened) {
        self.noted.lock().unwrap().push(what);
    }
    async fn keep(&self, failure: Failure) {
        self.kept.lock().unwrap().push(failure);
    }
}

const PATIENCE: Patience = Patience {
    attempts: 3,
    pauses: Pauses {
        first: Millis(100),
        most: Millis(1_000),
    },
};

fn options() -> Options {
    #[allow(clippy::disallowed_methods, reason = "the paused clock of a test")]
    let start = tokio::time::Instant::now();
    Options {
        concurrency: 8,
        lookups: 4,
        segments: 4,
        patience: PATIENCE,
        max_payload: usize::MAX,
        steady: Arc::new(move || Timestamp(start.elapsed().as_millis() as u64)),
        random: || u64::MAX,
        standing: Arc::new(|_| {}),
    }
}

fn push_to(whom: Whom) -> Push {
    Push {
        id: NotificationId::new("n").unwrap(),
        whom,
        data: Bytes::from_static(b"1"),
    }
}

fn users(names: &[&str]) -> Whom {
    Whom::Users(names.iter().map(|name| UserId::new(name).unwrap()).collect())
}

fn everyone_but(names: &[&str]) -> Whom {
    Whom::EveryoneBut(names.iter().map(|name| UserId::new(name).unwrap()).collect())
}

/// What was pushed to, and how it ended.
async fn run(rows: Arc<Rows>, stage: Arc<Stage>, whom: Whom) -> (Tally, Book) {
    let book = Book::default();
    let channel = ApiGateway::new(rows, stage, options());
    let tally = channel.push(&push_to(whom), &book).await;
    (tally, book)
}

#[tokio::test(start_paused = true)]
async fn all_connections_of_the_named_users_and_of_no_others() {
    let rows = Rows::named(&[("a", &["1", "2", "3"]), ("b", &["4"]), ("c", &["5"]), ("d", &[])]);
    let stage = Stage::new(|_, _| Answer::Pushed);
    let (tally, _) = run(Arc::new(rows), stage.clone(), users(&["a", "c", "d", "nobody"])).await;
    assert_eq!(tally.notified, 4);
    let posted: Vec<_> = stage.posted.lock().unwrap().clone().into_iter().collect();
    let once = |id: &str| (id.to_owned(), 1);
    assert_eq!(posted, [once("1"), once("2"), once("3"), once("5")]);
}

#[tokio::test(start_paused = true)]
async fn everyone_less_the_excluded_once_each() {
    let stage = Stage::new(|_, _| Answer::Pushed);
    let (tally, _) = run(
        Arc::new(Rows::of(1_003, 10)),
        stage.clone(),
        everyone_but(&["u7", "u999"]),
    )
    .await;
    assert_eq!(tally.notified, 1_001);
    let posted = stage.posted.lock().unwrap();
    assert!(posted.values().all(|times| *times == 1));
    assert!(!posted.contains_key("7") && !posted.contains_key("999") && posted.contains_key("1002"));
}

#[tokio::test(start_paused = true)]
async fn slow_pushing_slows_the_reading() {
    const PAGE: usize = 500;
    let rows = Arc::new(Rows::of(200_000, PAGE));
    let (watched, most) = (rows.clone(), Arc::<AtomicUsize>::default());
    let (noting, pushed) = (most.clone(), Arc::<AtomicUsize>::default());
    let stage = Stage::new(move |_, _| {
        let pushed = pushed.fetch_add(1, Ordering::Relaxed);
        noting.fetch_max(watched.read.load(Ordering::Relaxed) - pushed, Ordering::Relaxed);
        Answer::Pushed
    });
    let (tally, _) = run(rows, stage.clone(), everyone_but(&[])).await;
    assert_eq!(tally.notified, 200_000);
    let of = options();
    let bound = PAGE * (of.segments + 1) + of.concurrency + 1;
    let held = most.load(Ordering::Relaxed);
    assert!(held <= bound, "{held} rows were in memory, {bound} are the bound");
    assert_eq!(stage.most.load(Ordering::Relaxed), of.concurrency);
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_is_tried_again_and_the_others_are_not_kept_waiting() {
    let stage = Stage::new(|id, times| match (id, times) {
        ("3", _) | ("4", 1) => Answer::of_status(503, "HTTP 503".into(), None),
        ("5", 1) => Answer::of_status(429, String::new(), Some(Millis(5_000))),
        ("6", _) => Answer::of_status(400, "HTTP 400, no such thing".into(), None),
        _ => Answer::Pushed,
    });
    let (tally, book) = run(Arc::new(Rows::of(10, 4)), stage.clone(), everyone_but(&[])).await;
    assert_eq!((tally.notified, tally.undelivered), (8, 2));
    let mut kept = book.kept.into_inner().unwrap();
    kept.sort_by(|a, b| a.recipient.cmp(&b.recipient));
    let failure = |n: u32, attempts, why: &str| Failure {
        user: format!("u{n}"),
        recipient: n.to_string(),
        attempts,
        why: format!("connection {n}: {why}"),
    };
    assert_eq!(
        kept,
        [
            failure(3, 3, "HTTP 503, 3 attempts"),
            failure(6, 1, "HTTP 400, no such thing")
        ]
    );
    assert_eq!((stage.times("4"), stage.times("5"), stage.times("0")), (2, 2, 1));
    let noted = book.noted.into_inner().unwrap();
    assert_eq!(noted.iter().filter(|one| **one == Happened::Throttled).count(), 1);
    assert_eq!(noted.iter().filter(|one| **one == Happened::Repeated).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_gone_are_struck_off_in_batches_and_what_is_left_over_is_tried_again() {
    let rows = Arc::new(Rows::of(60, 100));
    rows.left.store(5, Ordering::Relaxed);
    let stage = Stage::new(|id, _| match id {
        "0" => Answer::Pushed,
        _ => Answer::Gone,
    });
    let (tally, book) = run(rows.clone(), stage, everyone_but(&[])).await;
    let told = (tally.notified, tally.gone, tally.struck, tally.undelivered);
    assert_eq!(told, (1, 59, 59, 0));
    let deleted = rows.deleted.lock().unwrap();
    assert!(deleted.iter().all(|batch| batch.len() <= stale::BATCH));
    let all: BTreeSet<_> = deleted.iter().flatten().map(|one| one.id.clone()).collect();
    assert_eq!((all.len(), all.contains("0")), (59, false));
    let struck = book.noted.into_inner().unwrap().into_iter();
    let struck = struck.map(|one| match one {
        Happened::Struck(count) => count,
        _ => 0,
    });
    assert_eq!(struck.sum::<u64>(), 59);
}

/// Beside others that are served, so that the circuit never opens.
#[tokio::test(start_paused = true)]
async fn one_that_is_always_refused_holds_nobody_up() {
    let stage = Stage::new(|id, _| match id {
        "0" => Answer::of_status(403, "HTTP 403".into(), None),
        _ => Answer::Pushed,
    });
    let (tally, book) = run(Arc::new(Rows::of(5_000, 100)), stage, everyone_but(&[])).await;
    assert_eq!((tally.notified, tally.undelivered), (4_999, 1));
    let kept = book.kept.into_inner().unwrap();
    assert_eq!(kept[0].why, "connection 0: HTTP 403, 3 attempts");
}

/// So long each has that is to end by itself.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn one_that_fails_with_no_other_under_way_is_given_up_too() {
    for status in [403, 404, 500, 503] {
        let what = format!("HTTP {status}");
        let stage = Stage::new(move |id, _| match id {
            "bad" => Answer::of_status(status, what.clone(), None),
            _ => Answer::Pushed,
        });
        let rows = Arc::new(Rows::named(&[("bob", &["bad"]), ("ada", &["good"])]));
        let channel = ApiGateway::new(rows, stage.clone(), options());
        for _ in 0..5 {
            let book = Book::default();
            let push = push_to(users(&["bob"]));
            let ended = tokio::time::timeout(SOON, channel.push(&push, &book)).await;
            assert_eq!(ended.map(|tally| tally.undelivered), Ok(1), "{status}");
            let why = format!("connection bad: HTTP {status}, 3 attempts");
            assert_eq!(book.kept.into_inner().unwrap()[0].why, why);
        }
        assert_eq!(stage.times("bad"), 15);
    }
}

#[tokio::test(start_paused = true)]
async fn many_that_fail_alone_keep_nobody_waiting_and_are_given_up_once_others_are_served() {
    const BAD: [&str; 5] = ["1", "2", "3", "4", "5"];
    for (status, count, concurrency) in [(403, 5, 8), (404, 3, 1), (503, 5, 8), (503, 3, 1)] {
        let stage = Stage::new(move |id, _| match id {
            "good" => Answer::Pushed,
            _ => Answer::of_status(status, format!("HTTP {status}"), None),
        });
        let rows = Arc::new(Rows::named(&[("bob", &BAD[..count]), ("ada", &["good"])]));
        let standing = Arc::new(Mutex::new(Vec::new()));
        let told = standing.clone();
        let options = Options {
            standing: Arc::new(move |is_there| told.lock().unwrap().push(is_there)),
            concurrency,
            ..options()
        };
        let channel = ApiGateway::new(rows, stage.clone(), options);
        let (book, other) = (Book::default(), Book::default());
        let (bobs, adas) = (push_to(users(&["bob"])), push_to(users(&["ada"])));
        let push = async { tokio::time::timeout(2 * SOON, channel.push(&bobs, &book)).await };
        let beside = async {
            tokio::time::sleep(SOON).await;
            assert_eq!(*standing.lock().unwrap(), [false], "none is served");
            let at_once = Duration::from_millis(100);
            tokio::time::timeout(at_once, channel.push(&adas, &other)).await
        };
        let (failing, served) = tokio::join!(push, beside);
        assert_eq!(served.map(|tally| tally.notified), Ok(1), "{status}");
        assert_eq!(
            failing.map(|tally| tally.undelivered),
            Ok(count as u64),
            "{status}"
        );
        assert_eq!(*standing.lock().unwrap(), [false, true]);
    }
}

/// One that failed has given up its room, and may be the one that probes while others hold all the room there is.
#[tokio::test(start_paused = true)]
async fn a_probe_needs_no_room() {
    let (phase, rows) = (
        Arc::new(AtomicU64::new(0)),
        [("bob", &["b"][..]), ("ada", &["a"])],
    );
    let now = phase.clone();
    let stage = Stage::new(move |_, _| match now.load(Ordering::Relaxed) {
        0 => Answer::of_status(503, "HTTP 503".into(), None),
        1 => Answer::Away("connection refused".into()),
        _ => Answer::Pushed,
    });
    let options = Options {
        concurrency: 1,
        ..options()
    };
    let channel = ApiGateway::new(Arc::new(Rows::named(&rows)), stage, options);
    let (bobs, adas) = (push_to(users(&["bob"])), push_to(users(&["ada"])));
    let (book, other) = (Book::default(), Book::default());
    let course = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        phase.store(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(20)).await;
        // So that she wakes a moment after him, who probes then.
        tokio::time::advance(Duration::from_micros(500)).await;
        let mending = async {
            tokio::time::sleep(Duration::from_secs(300)).await;
            phase.store(2, Ordering::Relaxed);
        };
        tokio::join!(channel.push(&adas, &other), mending).0
    };
    let both = async { tokio::join!(channel.push(&bobs, &book), course) };
    let (bob, ada) = tokio::time::timeout(Duration::from_secs(3_600), both)
        .await
        .expect("nobody waits for ever");
    assert_eq!((bob.notified, ada.notified), (1, 1));
}

/// However short, and however few they are.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_or_refuses_all_costs_nobody_anything() {
    let of = |status| Answer::of_status(status, format!("HTTP {status}"), None);
    for (status, seconds, count) in [(503, 3, 4), (503, 3_600, 100), (403, 3, 4), (404, 3_600, 100)] {
        let away = Arc::new(AtomicBool::new(true));
        let is_away = away.clone();
        let stage = Stage::new(move |_, _| match is_away.load(Ordering::Relaxed) {
            true => of(status),
            false => Answer::Pushed,
        });
        let channel = ApiGateway::new(Arc::new(Rows::of(count, 10)), stage.clone(), options());
        let book = Book::default();
        let (push, mending) = (push_to(everyone_but(&[])), async {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            assert!(stage.pushed.load(Ordering::Relaxed) < 1_000, "it is left alone");
            away.store(false, Ordering::Relaxed);
        });
        let (tally, ()) = tokio::join!(channel.push(&push, &book), mending);
        assert_eq!((tally.notified, tally.undelivered), (count as u64, 0), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_nobody_anything() {
    let away = Arc::new(AtomicBool::new(true));
    let is_away = away.clone();
    let stage = Stage::new(move |_, _| match is_away.load(Ordering::Relaxed) {
        true => Answer::Away("connection refused".into()),
        false => Answer::Pushed,
    });
    let standing = Arc::new(Mutex::new(Vec::new()));
    let told = standing.clone();
    let options = Options {
        segments: 1,
        standing: Arc::new(move |is_there| told.lock().unwrap().push(is_there)),
        ..options()
    };
    let rows = Arc::new(Rows::of(100, 10));
    rows.failures.store(5, Ordering::Relaxed);
    let channel = ApiGateway::new(rows, stage.clone(), options);
    let book = Book::default();
    let (push, mending) = (push_to(everyone_but(&[])), async {
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert!(stage.pushed.load(Ordering::Relaxed) < 1_000, "it is left alone");
        away.store(false, Ordering::Relaxed);
    });
    let (tally, ()) = tokio::join!(channel.push(&push, &book), mending);
    assert_eq!((tally.notified, tally.undelivered), (100, 0));
    assert_eq!(
        *standing.lock().unwrap(),
        [false, true, false, true],
        "the table, then the endpoint"
    );
}

#[tokio::test(start_paused = true)]
async fn the_largest_payload() {
    let channel = ApiGateway::new(
        Arc::new(Rows::of(0, 1)),
        Stage::new(|_, _| Answer::Pushed),
        options(),
    );
    let mut push = push_to(users(&[]));
    push.data = vec![b'1'; MOST_PAYLOAD].into();
    assert_eq!(channel.check(&push), Ok(()));
    assert_eq!(channel.push(&push, &Book::default()).await, Tally::default());
    push.data = vec![b'1'; MOST_PAYLOAD + 1].into();
    let fault = channel.check(&push).unwrap_err();
    let text = "the payload has 131073 bytes; the channel takes at most 131072";
    assert_eq!(fault.to_string(), text);
}
