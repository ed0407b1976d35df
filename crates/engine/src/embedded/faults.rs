//! The store against what disks do: power that goes at any write, calls that fail for a while, files that
//! are cut or garbled. Every trial has a seed, which a failure prints.

use super::disk::Disk;
use super::store::{Batch, Store, Table};
use super::tests::Clock;
use super::{Embedded, StoreFault};
use crate::contract::Make;
use crate::{EngineError, Feeds, Settlements, Wakes};
use postrider_model::{FeedId, SettleKind, Timestamp};
use redb::{Database, StorageBackend};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Length(length) => to.resize(*length, 0),
            Change::Write(at, data) => {
                to.resize(to.len().max(at + data.len()), 0);
                to[*at..at + data.len()].copy_from_slice(data);
            }
        }
    }
}

/// A disk: what surely is on it, and what was written since the last sync.
#[derive(Debug, Default)]
struct Platter {
    synced: Vec<u8>,
    seen: Vec<u8>,
    journal: Vec<Change>,
    /// Changes and syncs until the power goes.
    power: Option<usize>,
    /// Which calls fail, and how.
    writes_fail: Option<ErrorKind>,
    syncs_fail: Option<ErrorKind>,
    reads_fail: Option<ErrorKind>,
}

impl Platter {
    fn spend(&mut self) -> Result<(), Error> {
        match &mut self.power {
            Some(0) => Err(Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, change: Change) -> Result<(), Error> {
        self.writes_fail.map_or(Ok(()), |kind| Err(Error::from(kind)))?;
        // The one during which the power goes may still leave something.
        let alive = self.power != Some(0);
        if alive {
            self.journal.push(change.clone());
        }
        self.spend()?;
        change.apply(&mut self.seen);
        Ok(())
    }

    /// What is found when the power is back: of what was not synced any part, in any pieces.
    fn after_power_loss(&self, rng: &mut Rng) -> Vec<u8> {
        let mut found = self.synced.clone();
        let keep = rng.below(5);
        for change in &self.journal {
            if rng.below(4) > keep.min(3) {
                continue;
            }
            match change {
                Change::Write(at, data) if rng.below(3) == 0 => {
                    let cut = rng.below(data.len() + 1);
                    let torn = match rng.below(2) {
                        0 => Change::Write(*at, data[..cut].to_vec()),
                        _ => Change::Write(at + cut, data[cut..].to_vec()),
                    };
                    torn.apply(&mut found);
                }
                // A shorter file takes nothing back that is not written anew.
                change => change.apply(&mut found),
            }
        }
        found
    }
}

#[derive(Debug, Clone, Default)]
struct Drive(Arc<Mutex<Platter>>);

impl Drive {
    fn holding(image: Vec<u8>) -> Drive {
        Drive(Arc::new(Mutex::new(Platter {
            synced: image.clone(),
            seen: image,
            ..Platter::default()
        })))
    }
    fn with<T>(&self, look: impl FnOnce(&mut Platter) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }
    fn open(&self) -> Result<Disk, StoreFault> {
        let drive = self.clone();
        Disk::with("the-drive".into(), move || {
            Database::builder()
                .set_cache_size(1 << 20)
                .create_with_backend(drive.clone())
        })
    }
}

impl StorageBackend for Drive {
    fn len(&self) -> Result<u64, Error> {
        self.with(|platter| Ok(platter.seen.len() as u64))
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.with(|platter| {
            platter.reads_fail.map_or(Ok(()), |kind| Err(Error::from(kind)))?;
            let from = offset as usize;
            let part = platter.seen.get(from..from + out.len());
            out.copy_from_slice(part.ok_or(ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }
    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.with(|platter| platter.change(Change::Length(len as usize)))
    }
    fn sync_data(&self) -> Result<(), Error> {
        self.with(|platter| {
            platter.syncs_fail.map_or(Ok(()), |kind| Err(Error::from(kind)))?;
            platter.spend()?;
            platter.synced = platter.seen.clone();
            platter.journal.clear();
            Ok(())
        })
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.with(|platter| platter.change(Change::Write(offset as usize, data.to_vec())))
    }
}

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
fn power_loss_at_any_write_keeps_every_answered_batch_whole() {
    for seed in 0..500 {
        let mut rng = Rng(seed);
        // The states after each batch; the first is the empty store.
        let mut states = vec![Rows::new()];
        let (mut number, mut safe) = (0usize, 0usize);
        let drive = Drive::default();
        drop(drive.open().unwrap());
        let mut image = drive.with(|platter| platter.seen.clone());
        for life in 0..4 {
            let drive = Drive::holding(image);
            let power = rng.below(120);
            drive.with(|platter| platter.power = (life < 3).then_some(power));
            if let Ok(disk) = drive.open() {
                let rows =
                    all_rows(&disk).unwrap_or_else(|fault| panic!("seed {seed}, life {life}: {fault}"));
                let found = (safe..=number).rev().find(|n| states[*n] == rows);
                number = found.unwrap_or_else(|| {
                    panic!("seed {seed}, life {life}: the rows are of no batch of {safe}..={number}")
                });
                // Opening syncs: what was read then must not go away again.
                states.truncate(number + 1);
                safe = number;
                if life == 3 {
                    break;
                }
                for _ in 0..30 {
                    let mut rows = states[number].clone();
                    let batch = random_batch(&mut rng, number as u64 + 1, &mut rows);
                    let sync = rng.below(3) > 0;
                    states.push(rows);
                    number += 1;
                    match disk.commit(&batch, sync) {
                        Ok(()) if sync => safe = number,
                        Ok(()) => {}
                        Err(_) => break,
                    }
                }
            } else {
                assert!(life < 3, "seed {seed}: the store does not open with the power on");
            }
            image = drive.with(|platter| platter.after_power_loss(&mut rng));
        }
    }
}

#[test]
fn a_store_whose_making_was_cut_short_opens_and_one_that_went_away_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Embedded::open(Clock::default().options(Some(&dir))).map(|_| ());
    std::fs::write(dir.path().join("feeds.new"), [7; 5000]).unwrap();
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
    let path = dir.join("feeds.redb");
    Disk::make(&path).unwrap();
    let disk = Disk::open(&path).unwrap();
    let (mut rng, mut rows) = (Rng(7), Rows::new());
    for number in 0..40 {
        let batch = random_batch(&mut rng, number, &mut rows);
        disk.commit(&batch, true).unwrap();
    }
    (path, rows)
}

/// Opens a damaged file: an error that names it, or what was written, never anything else.
fn judge(path: &std::path::Path, rows: &Rows, what: &str) -> bool {
    let found = Disk::open(path).and_then(|disk| all_rows(&disk));
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
            assert!(text.contains("feeds.redb"), "{what}: {text}");
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
    for trial in 0..120 {
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
    for trial in 0..400 {
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
    assert!(seen > 10, "only {seen} of the damaged files were noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_calls_refuse_and_heal() {
    type Switch = fn(&mut Platter, Option<ErrorKind>);
    let kinds: [(&str, Switch, ErrorKind); 4] = [
        (
            "EIO at a write",
            |platter, kind| platter.writes_fail = kind,
            ErrorKind::Other,
        ),
        (
            "ENOSPC at a write",
            |platter, kind| platter.writes_fail = kind,
            ErrorKind::StorageFull,
        ),
        (
            "EIO at a sync",
            |platter, kind| platter.syncs_fail = kind,
            ErrorKind::Other,
        ),
        (
            "EIO at any call",
            |platter, kind| {
                platter.syncs_fail = kind;
                platter.writes_fail = kind;
                platter.reads_fail = kind;
            },
            ErrorKind::Other,
        ),
    ];
    for (what, switch, kind) in kinds {
        let drive = Drive::default();
        let store = Arc::new(drive.open().unwrap());
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
            drive.with(|platter| switch(platter, Some(kind)));
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
            drive.with(|platter| switch(platter, None));
            // The first use after the fault opens the store anew.
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
