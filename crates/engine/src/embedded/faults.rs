//! The engine and its directory against what disks do: calls that fail for a while, files that are cut or
//! garbled, directories of earlier formats. What a loss of power does is tried in `journal/trial.rs`.

use super::journal::{Failing, Journaled, Model, Rng};
use super::store::{Batch, Store, Table};
use super::tests::{Clock, Here};
use super::{Embedded, StoreFault};
use crate::contract::{Kit, Make};
use crate::{EngineError, Feeds, Settlements, Wakes};
use postrider_model::{FeedId, Millis, NotificationId, SettleKind, SettleTarget, Timestamp};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

type Rows = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

fn random_batch(rng: &mut Rng, number: u64, rows: &mut Rows) -> Batch {
    let mut batch = Batch::default();
    let mut put = |table: Table, key: Vec<u8>, value: Option<Vec<u8>>| {
        match &value {
            Some(value) => {
                rows.insert((table as usize, key.clone()), value.clone());
                batch.put(table, key, value.clone());
            }
            None => {
                rows.remove(&(table as usize, key.clone()));
                batch.remove(table, key);
            }
        };
    };
    put(
        Table::Meta,
        b"batch".to_vec(),
        Some(number.to_le_bytes().to_vec()),
    );
    for _ in 0..rng.below(20) {
        let table = Table::ALL[1 + rng.below(Table::ALL.len() - 1)];
        let key = format!("key-{}", rng.below(60)).into_bytes();
        let length = if rng.below(10) == 0 { 9000 } else { 200 };
        let value = vec![rng.next() as u8; rng.below(length)];
        put(table, key, (rng.below(4) > 0).then_some(value));
    }
    batch
}

fn all_rows(store: &dyn Store) -> Result<Rows, StoreFault> {
    let view = store.view()?;
    let mut rows = Rows::new();
    for &table in Table::ALL {
        for (key, value) in view.scan(table, &[], &[0xff; 9], usize::MAX)? {
            rows.insert((table as usize, key), value);
        }
    }
    Ok(rows)
}

#[test]
fn a_store_whose_making_was_cut_short_opens_and_one_that_went_away_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Embedded::open(Clock::default().options(Some(&dir))).map(|_| ());
    std::fs::write(dir.path().join("feeds.redb.new"), [7; 5000]).unwrap();
    open().unwrap();
    let file = dir.path().join("feeds.redb");
    std::fs::remove_file(dir.path().join("VERSION")).unwrap();
    open().unwrap();
    for text in [Some(""), Some("x"), None] {
        match text {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let fault = open().unwrap_err().to_string();
        assert!(fault.contains("feeds.redb"), "{text:?}: {fault}");
    }
}

fn sample_file(dir: &std::path::Path) -> (std::path::PathBuf, Rows) {
    let store = Journaled::open(dir, true).unwrap();
    let (mut rng, mut rows) = (Rng(7), Rows::new());
    for number in 0..40 {
        let batch = random_batch(&mut rng, number, &mut rows);
        store.commit(&batch, true).unwrap();
    }
    (dir.join("feeds.redb"), rows)
}

/// Opens a damaged file: an error that names it, or the table of a damaged row; or what was written; never
/// anything else.
fn judge(path: &std::path::Path, rows: &Rows, what: &str) -> bool {
    let opened = Journaled::open(path.parent().unwrap(), false);
    let found = opened.and_then(|store| all_rows(&store));
    match found {
        Ok(found) => {
            assert_eq!(
                found.len(),
                rows.len(),
                "{what}: rows went missing without a word"
            );
            assert!(found == *rows, "{what}: wrong rows without a word");
            false
        }
        Err(fault) => {
            let text = fault.to_string();
            let named = text.contains("feeds.redb") || matches!(fault, StoreFault::Corrupt { .. });
            assert!(named, "{what}: {text}");
            true
        }
    }
}

#[test]
fn a_cut_file_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, rows) = sample_file(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let mut rng = Rng(11);
    for trial in 0..60 {
        let cut = rng.below(whole.len());
        std::fs::write(&path, &whole[..cut]).unwrap();
        judge(
            &path,
            &rows,
            &format!("trial {trial}, cut at {cut} of {}", whole.len()),
        );
    }
}

#[test]
fn a_garbled_file_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, rows) = sample_file(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let mut rng = Rng(13);
    let mut seen = 0;
    for trial in 0..150 {
        let mut garbled = whole.clone();
        let (at, length) = (rng.below(whole.len()), 1 + rng.below(600));
        for byte in garbled.iter_mut().skip(at).take(length) {
            *byte = rng.next() as u8;
        }
        std::fs::write(&path, &garbled).unwrap();
        seen += usize::from(judge(
            &path,
            &rows,
            &format!("trial {trial}, {length} bytes at {at}"),
        ));
    }
    assert!(seen > 3, "only {seen} of the damaged files were noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_calls_refuse_and_heal() {
    let other = Some(ErrorKind::Other);
    let kinds = [
        (
            "EIO at a write",
            Failing {
                writes: other,
                ..Failing::default()
            },
        ),
        (
            "ENOSPC at a write",
            Failing {
                writes: Some(ErrorKind::StorageFull),
                ..Failing::default()
            },
        ),
        (
            "EIO at a sync",
            Failing {
                syncs: other,
                ..Failing::default()
            },
        ),
        (
            "EIO at any call",
            Failing {
                reads: other,
                writes: other,
                syncs: other,
                names: other,
            },
        ),
    ];
    for (what, failing) in kinds {
        let model = Model::new(1);
        let store = Arc::new(Journaled::on(&model).unwrap());
        let clock = Clock::default();
        clock.set(Timestamp(1));
        let engine = Arc::new(Embedded::with_store(store, None, clock.options(None)).unwrap());
        let told = Arc::new(AtomicUsize::new(0));
        let counter = told.clone();
        engine.listen(Box::new(move |wake| {
            if let crate::Wake::Appended(entries) = wake {
                counter.fetch_add(entries.len(), Ordering::SeqCst);
            }
        }));
        let make = |id: String| Make::new(id).user("ada").publication(Timestamp(1));
        let mut accepted = 0;
        for round in 0..3 {
            assert!(
                engine.publish(vec![make(format!("good-{round}"))]).await[0].is_ok(),
                "{what}"
            );
            accepted += 1;
            assert_eq!(told.load(Ordering::SeqCst), accepted, "{what}: wakes");
            model.with(|disk| disk.failing = failing);
            let mut callers = tokio::task::JoinSet::new();
            for n in 0..20 {
                let (engine, publication) = (engine.clone(), make(format!("bad-{round}-{n}")));
                callers.spawn(async move { engine.publish(vec![publication]).await });
            }
            while let Some(answers) = callers.join_next().await {
                let answers = answers.unwrap();
                assert!(
                    matches!(answers[..], [Err(EngineError::Store(_))]),
                    "{what}: {answers:?}"
                );
            }
            let place = (FeedId::All, postrider_model::Position::START);
            let target =
                postrider_model::SettleTarget::Ids(vec![make("good-0".into()).notification.id.clone()]);
            let ack = crate::contract::settlement("ada", SettleKind::Read, target).unwrap();
            let settled = engine.settle(vec![ack], crate::Sync::Durable).await;
            assert!(settled.is_err() || round > 0, "{what}: settled {settled:?}");
            assert_eq!(
                told.load(Ordering::SeqCst),
                accepted,
                "{what}: a wake for what failed"
            );
            model.with(|disk| disk.failing = Failing::default());
            // No restart is needed.
            let held = engine.holds(&[place]).await;
            assert!(held.is_ok(), "{what}: {held:?}");
        }
        let feed = make("x".into()).feeds[0].clone();
        let limit = crate::ReadLimit {
            entries: 1000,
            bytes: usize::MAX,
        };
        let page = engine.read(&feed, 0, limit).await.unwrap();
        let ids: Vec<_> = page
            .entries
            .iter()
            .filter_map(|e| e.notification())
            .map(|n| n.id.to_string())
            .collect();
        for round in 0..3 {
            let good = format!("good-{round}");
            assert_eq!(
                ids.iter().filter(|id| **id == good).count(),
                1,
                "{what}: {good} of {ids:?}"
            );
        }
        let offsets: Vec<_> = page.entries.iter().map(|e| e.position.offset).collect();
        assert_eq!(offsets, (1..=offsets.len() as u64).collect::<Vec<_>>(), "{what}");
    }
}

/// A file as a fixture holds it, in runs: length (4), 0 and the bytes, or 1 and the byte that is repeated.
fn unpacked(mut runs: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    while let Some((head, after)) = runs.split_first_chunk::<5>() {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let repeated = head[4] == 1;
        let (run, after) = after.split_at(if repeated { 1 } else { length });
        match repeated {
            true => file.resize(file.len() + length, run[0]),
            false => file.extend_from_slice(run),
        }
        runs = after;
    }
    file
}

/// A directory as the release before the journal left it: three notifications for ada and bob, one of which
/// ada has read, one for everyone, and one that was cancelled.
fn first_format(dir: &std::path::Path) {
    let file = unpacked(include_bytes!("fixtures/format-1.redb.runs"));
    std::fs::write(dir.join("feeds.redb"), file).unwrap();
    std::fs::write(dir.join("VERSION"), "postrider 1\n").unwrap();
}

/// A directory as a kill left it under the last release of format 2. In the base: `old-1` for ada and bob, read
/// by ada; for ada `old-ada`, `old-short` with an hour to live, and `old-later` in two hours; `old-wide` for
/// everyone. In the journal: `old-cancelled` for both, and `old-bob`.
fn second_format(dir: &std::path::Path) {
    let base = unpacked(include_bytes!("fixtures/format-2.redb.runs"));
    let segment = unpacked(include_bytes!("fixtures/format-2.log.runs"));
    std::fs::create_dir(dir.join("journal")).unwrap();
    std::fs::write(dir.join("feeds.redb"), base).unwrap();
    std::fs::write(dir.join("journal/00000001.log"), segment).unwrap();
    std::fs::write(dir.join("VERSION"), "postrider 2\n").unwrap();
}

/// A directory as a kill left it under the last release of format 3, all of it in the journal: `old-1` for ada and bob,
/// read by ada; `old-ada`; `old-wide` for everyone; `old-topic` for the topic `t`; `old-cancelled` for ada and bob.
fn third_format(dir: &std::path::Path) {
    let base = unpacked(include_bytes!("fixtures/format-3.redb.runs"));
    let segment = unpacked(include_bytes!("fixtures/format-3.log.runs"));
    std::fs::create_dir(dir.join("journal")).unwrap();
    std::fs::write(dir.join("feeds.redb"), base).unwrap();
    std::fs::write(dir.join("journal/00000001.log"), segment).unwrap();
    std::fs::write(dir.join("VERSION"), "postrider 3\n").unwrap();
}

#[tokio::test]
async fn a_directory_of_the_first_format_opens_with_all_it_held() {
    let dir = tempfile::tempdir().unwrap();
    first_format(dir.path());
    // An upgrade that was cut short before it was complete is begun again.
    drop(Journaled::open(dir.path(), false).unwrap());
    for opened in 0..2 {
        let clock = Clock::default();
        // When the fixture was made.
        clock.set(Timestamp(1_795_251_200_000));
        let engine = Embedded::open(clock.options(Some(&dir))).unwrap();
        let version = std::fs::read_to_string(dir.path().join("VERSION")).unwrap();
        assert_eq!(version, "postrider 4\n");
        let id = |text: &str| postrider_model::NotificationId::new(text).unwrap();
        for known in ["old-1", "old-2", "old-3", "old-wide", "old-cancelled"] {
            let stored = engine.lookup(&id(known)).await.unwrap();
            let stored = stored.unwrap_or_else(|| panic!("opening {opened}: {known} is gone"));
            assert_eq!(stored.cancelled_at.is_some(), known == "old-cancelled");
        }
        let states = engine
            .recipients(&id("old-1"), crate::Recipients::All)
            .await
            .unwrap();
        let states: Vec<_> = states.iter().map(|one| (one.user.as_str(), one.state)).collect();
        use postrider_model::State::{Pending, Read};
        assert_eq!(states, [("ada", Read), ("bob", Pending)], "opening {opened}");
        let again = engine
            .publish(vec![
                Make::new("new")
                    .user("ada")
                    .publication(Timestamp(1_795_251_200_000)),
            ])
            .await;
        assert!(again[0].is_ok());
    }
}

/// What it held is delivered, settled, expired and forgotten as if this version had written it.
#[tokio::test]
async fn a_directory_of_the_second_format_opens_and_lives_on() {
    use postrider_model::State::{Cancelled, Delivered, Expired, Pending, Read};
    /// When the fixture was made.
    const MADE: Timestamp = Timestamp(1_795_263_060_000);
    let hours = |n: u64| Millis::from_secs(n * 3600);
    let dir = tempfile::tempdir().unwrap();
    second_format(dir.path());
    let mut kit = Kit::new(Box::new(Here::in_dir(dir, MADE)));
    kit.pass(Millis(MADE.0 - Kit::BEGIN.0)).await;
    let ada = FeedId::User(postrider_model::UserId::new("ada").unwrap());
    for opening in 0..2 {
        let told = kit.told(&ada).await.unwrap();
        assert_eq!(
            told[..4],
            ["old-1", "old-ada", "old-short", "read old-1"],
            "{opening}"
        );
        let states = [
            ("old-1", "ada", Read),
            ("old-1", "bob", Pending),
            ("old-ada", "ada", Pending),
            ("old-wide", "cyd", Pending),
            ("old-later", "ada", Pending),
            ("old-cancelled", "bob", Cancelled),
            ("old-bob", "bob", Pending),
        ];
        for (id, user, state) in states {
            let found = kit.state(id, user).await.unwrap();
            assert_eq!(found, Some(state), "{id} for {user}, opening {opening}");
        }
        assert!(kit.restart().await);
    }
    kit.publish(Make::new("new").user("ada")).await.unwrap();
    let target = |id: &str| SettleTarget::Ids(vec![NotificationId::new(id).unwrap()]);
    let settled = kit.settle("ada", SettleKind::Delivered, target("old-ada")).await;
    assert_eq!(settled.unwrap(), 1);
    kit.pass(hours(3)).await;
    assert_eq!(kit.state("old-short", "ada").await.unwrap(), Some(Expired));
    assert_eq!(kit.state("old-ada", "ada").await.unwrap(), Some(Delivered));
    let told = kit.told(&ada).await.unwrap();
    assert!(told.contains(&"old-later".to_owned()), "{told:?}");
    kit.pass(hours(24 * 31)).await;
    assert_eq!(kit.told(&ada).await.unwrap(), Vec::<String>::new());
    assert_eq!(kit.state("old-bob", "bob").await.unwrap(), Some(Expired));
    kit.pass(hours(24 * 61)).await;
    for id in [
        "old-1",
        "old-ada",
        "old-short",
        "old-wide",
        "old-later",
        "old-bob",
        "new",
    ] {
        let id = NotificationId::new(id).unwrap();
        assert!(kit.engine().lookup(&id).await.unwrap().is_none(), "{id}");
    }
}

/// It lacks nothing but the tables of users: those who join go on from where its topics stand.
#[tokio::test]
async fn a_directory_of_the_third_format_takes_members() {
    use postrider_model::State::{Cancelled, Pending, Read};
    /// When the fixture was made.
    const MADE: Timestamp = Timestamp(1_795_284_243_000);
    let dir = tempfile::tempdir().unwrap();
    third_format(dir.path());
    let version = dir.path().join("VERSION");
    let mut kit = Kit::new(Box::new(Here::in_dir(dir, MADE)));
    kit.pass(Millis(MADE.0 - Kit::BEGIN.0)).await;
    // What an older version would not understand it refuses.
    assert_eq!(std::fs::read_to_string(version).unwrap(), "postrider 4\n");
    assert!(kit.join("ada", "t").await.unwrap());
    kit.publish(Make::new("new-topic").topics(&["t"])).await.unwrap();
    for opening in 0..2 {
        let states = [
            ("old-1", "ada", Some(Read)),
            ("old-1", "bob", Some(Pending)),
            ("old-ada", "ada", Some(Pending)),
            ("old-wide", "cyd", Some(Pending)),
            ("old-cancelled", "bob", Some(Cancelled)),
            ("old-topic", "ada", None),
            ("new-topic", "ada", Some(Pending)),
        ];
        for (id, user, state) in states {
            let found = kit.state(id, user).await.unwrap();
            assert_eq!(found, state, "{id} for {user}, opening {opening}");
        }
        let shown = kit.shown("ada", "t").await.unwrap();
        assert_eq!(shown, [("new-topic".to_owned(), Some(Pending))]);
        assert!(kit.restart().await);
    }
}
