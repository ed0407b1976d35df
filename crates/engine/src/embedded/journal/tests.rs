//! The store on a disk that loses power, fails and is damaged: the cases by name. Histories of all of them
//! are tried in `trial.rs`.

use super::model::{Failing, Model, Rng};
use super::*;
use crate::embedded::store::Row;
use std::collections::BTreeMap;
use std::io::ErrorKind;

/// Small, so that every bound is met within a few commits.
pub(super) const TIGHT: Bounds = Bounds {
    segment: 12 << 10,
    layer: 4 << 10,
    full: 8 << 10,
    unsynced: 1 << 10,
    slack: 0,
    chunk_rows: 12,
};

pub(super) type Rows = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

/// The same with room for all in memory: nobody takes checkpoints but the test.
const ROOMY: Bounds = Bounds {
    layer: 1 << 20,
    full: 1 << 30,
    ..TIGHT
};

fn open(model: &Model) -> Result<Core, StoreFault> {
    open_in(model, ROOMY)
}

pub(super) fn open_in(model: &Model, bounds: Bounds) -> Result<Core, StoreFault> {
    let fresh = !model.list().iter().any(|name| name == BASE);
    Core::open(Arc::new(model.clone()), bounds, fresh)
}

pub(super) fn rows(view: &dyn View) -> Result<Rows, StoreFault> {
    let mut found = Rows::new();
    for &table in Table::ALL {
        for (key, value) in view.scan(table, &[], &[0xff; 9], usize::MAX)? {
            found.insert((table as usize, key), value);
        }
    }
    Ok(found)
}

pub(super) fn all_rows(core: &Core) -> Result<Rows, StoreFault> {
    rows(&core.snapshot()?)
}

pub(super) fn random_batch(rng: &mut Rng, number: usize, rows: &mut Rows) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..1 + rng.below(8) {
        let table = Table::ALL[rng.below(4)];
        let key = format!("key-{:03}", rng.below(60)).into_bytes();
        if rng.below(3) == 0 {
            rows.remove(&(table as usize, key.clone()));
            batch.remove(table, key);
        } else {
            let value = vec![number as u8; rng.below(200)];
            rows.insert((table as usize, key.clone()), value.clone());
            batch.put(table, key, value);
        }
    }
    batch
}

fn one(key: &str, value: &str) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Marks, key.into(), value.into());
    batch
}

fn has(core: &Core, key: &str) -> bool {
    let view = core.view().unwrap();
    view.get(Table::Marks, key.as_bytes()).unwrap().is_some()
}

/// Commits `count` rows, each synced, named `key-1`, `key-2` …
fn filled(model: &Model, count: usize) -> Core {
    let core = open(model).unwrap();
    for number in 1..=count {
        core.commit(&one(&format!("key-{number}"), &"v".repeat(40)), true)
            .unwrap();
    }
    core
}

fn refused(model: &Model) -> String {
    let Err(fault) = open(model) else {
        panic!("a damaged store opens")
    };
    fault.to_string()
}

/// The segment that was begun last.
fn last_segment(core: &Core) -> String {
    files::segment_name(lock(&core.log).begun())
}

/// Where each record of a segment stands, by looking for the first bytes of heads.
fn record_offsets(bytes: &[u8]) -> Vec<usize> {
    let first = format::RECORDS_AT as usize;
    (first..bytes.len())
        .step_by(format::ALIGN)
        .filter(|at| format::looks_like_head(&bytes[*at..]))
        .collect()
}

#[test]
fn a_synced_commit_is_one_write_and_one_sync() {
    let model = Model::new(1);
    let core = filled(&model, 1);
    let before = model.with(|disk| (disk.writes, disk.syncs));
    core.commit(&one("a", "b"), true).unwrap();
    core.commit(&one("a", "c"), false).unwrap();
    let after = model.with(|disk| (disk.writes, disk.syncs));
    assert_eq!(after, (before.0 + 2, before.1 + 1));
}

#[test]
fn a_tail_that_is_torn_at_any_byte_is_where_the_log_ends() {
    let model = Model::new(2);
    let core = filled(&model, 3);
    let (name, whole) = (last_segment(&core), model.bytes(&last_segment(&core)));
    let last = *record_offsets(&whole).last().unwrap();
    let mut seen = [0, 0];
    for cut in last..last + 120 {
        let torn = model.after_kill();
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        torn.put(&name, bytes);
        let core = open(&torn).unwrap();
        assert!(has(&core, "key-1") && has(&core, "key-2"), "cut at {cut}");
        seen[usize::from(has(&core, "key-3"))] += 1;
        // It is not taken up again behind whatever is written now.
        core.commit(&one("key-4", ""), true).unwrap();
        let again = open(&torn.after_power_loss()).unwrap();
        assert_eq!(
            all_rows(&again).unwrap(),
            all_rows(&core).unwrap(),
            "cut at {cut}"
        );
    }
    assert!(seen[0] > 50 && seen[1] > 0, "{seen:?}");
}

#[test]
fn the_last_record_outlives_any_number_of_starts_that_are_cut_short() {
    for seed in 0..20 {
        let model = Model::new(seed);
        drop(filled(&model, 3));
        for power in 0..16 {
            // Nothing after it proves that the last record was synced.
            let found = model.after_power_loss();
            found.with(|disk| disk.power = Some(power));
            drop(open(&found));
            let core = open(&found.after_power_loss()).unwrap();
            assert!(has(&core, "key-3"), "seed {seed}, power for {power} calls");
        }
    }
}

#[test]
fn a_record_that_ends_in_zeros_is_whole() {
    for length in [0, 1, 4000, 4096, 9000, 50_000] {
        let model = Model::new(12);
        let core = open(&model).unwrap();
        let mut batch = Batch::default();
        batch.put(Table::Marks, b"zeros".to_vec(), vec![0; length]);
        core.commit(&batch, true).unwrap();
        let core = open(&model.after_power_loss()).unwrap();
        let found = core.view().unwrap().get(Table::Marks, b"zeros").unwrap();
        assert_eq!(found, Some(vec![0; length]));
    }
}

#[test]
fn damage_in_the_middle_is_told_exactly_and_nothing_is_skipped() {
    let model = Model::new(3);
    let core = filled(&model, 6);
    let (name, whole) = (last_segment(&core), model.bytes(&last_segment(&core)));
    let offsets = record_offsets(&whole);
    for (number, at) in offsets.iter().enumerate().take(5) {
        for byte in [0, 9, 30, 45, 70] {
            let damaged = model.after_kill();
            let mut bytes = whole.clone();
            bytes[at + byte] ^= 0x10;
            damaged.put(&name, bytes.clone());
            let fault = refused(&damaged);
            let told = [
                format!("record {} ", number + 1),
                format!("/model/{name} at byte {at}"),
                format!("touch /model/journal/ends-after-{number}`"),
            ];
            for part in told {
                assert!(
                    fault.contains(&part),
                    "record {number}, byte {byte}: no `{part}` in: {fault}"
                );
            }
            assert_eq!(damaged.bytes(&name), bytes, "opening changed what it refused");
            // What the operator is told to do works, and keeps what is said to be kept.
            damaged.put(&format!("journal/ends-after-{number}"), Vec::new());
            let core = open(&damaged).unwrap();
            assert_eq!(all_rows(&core).unwrap().len(), number);
            core.commit(&one("on", "we go"), true).unwrap();
            let core = open(&damaged.after_kill()).unwrap();
            assert_eq!(all_rows(&core).unwrap().len(), number + 1);
        }
    }
}

#[test]
fn a_segment_that_was_cut_is_refused_wherever_it_was_cut() {
    let model = Model::new(13);
    let core = filled(&model, 6);
    let name = last_segment(&core);
    let whole = model.bytes(&name);
    let offsets = record_offsets(&whole);
    for (number, at) in offsets.iter().enumerate() {
        for cut in [*at, at + 20] {
            let damaged = model.after_kill();
            damaged.put(&name, whole[..cut].to_vec());
            let fault = refused(&damaged);
            assert!(
                fault.contains(&format!("/model/{name} was cut at byte {cut}")),
                "{fault}"
            );
            damaged.put(&format!("journal/ends-after-{number}"), Vec::new());
            assert_eq!(all_rows(&open(&damaged).unwrap()).unwrap().len(), number);
        }
    }
}

#[test]
fn a_damaged_or_missing_segment_is_refused_and_can_be_given_up() {
    let model = Model::new(4);
    let core = filled(&model, 200);
    core.freeze_now();
    core.checkpoint().unwrap();
    core.commit(&one("after", ""), true).unwrap();
    let name = last_segment(&core);
    let whole = model.bytes(&name);
    let gone = model.after_kill();
    gone.remove(&name).unwrap();
    assert!(refused(&gone).contains(&format!("/model/{name} is missing")));
    let damaged = model.after_kill();
    let mut bytes = whole.clone();
    bytes[20] ^= 1;
    damaged.put(&name, bytes);
    let fault = refused(&damaged);
    assert!(
        fault.contains(&format!("/model/{name} at byte 0")) && fault.contains("truncate -s 0"),
        "{fault}"
    );
    for given_up in [gone, damaged] {
        given_up.put(&name, Vec::new());
        let core = open(&given_up).unwrap();
        assert!(has(&core, "key-200") && !has(&core, "after"));
    }
}

#[test]
fn a_segment_lost_from_the_middle_is_refused() {
    let model = Model::new(5);
    let core = open(&model).unwrap();
    let name = last_segment(&core);
    for number in 0..300 {
        core.commit(&one(&format!("key-{number}"), &"v".repeat(40)), true)
            .unwrap();
    }
    drop(core);
    model.remove(&name).unwrap();
    let fault = refused(&model);
    assert!(fault.contains("record 1 (its segment is missing)"), "{fault}");
}

#[test]
fn what_was_refused_never_comes_back_once_more_was_taken() {
    for seed in 0..60 {
        let model = Model::new(seed);
        let core = filled(&model, 3);
        core.commit(&one("unsynced", "but seen"), false).unwrap();
        let failing = match seed % 2 {
            0 => Failing {
                syncs: Some(ErrorKind::Other),
                ..Failing::default()
            },
            _ => Failing {
                writes: Some(ErrorKind::StorageFull),
                ..Failing::default()
            },
        };
        model.with(|disk| disk.failing = failing);
        for _ in 0..3 {
            assert!(core.commit(&one("refused", ""), true).is_err());
            assert!(core.commit(&one("refused", ""), false).is_err() || seed % 2 == 0);
        }
        assert!(!has(&core, "refused") || seed % 2 == 0, "seed {seed}");
        assert!(
            has(&core, "key-3") && has(&core, "unsynced"),
            "seed {seed}: reading goes on"
        );
        model.with(|disk| disk.failing = Failing::default());
        // The disk is back: no restart is needed.
        core.commit(&one("taken", ""), true).unwrap();
        let expected = all_rows(&core).unwrap();
        for found in [model.after_power_loss(), model.after_kill()] {
            assert_eq!(all_rows(&open(&found).unwrap()).unwrap(), expected, "seed {seed}");
        }
    }
}

#[test]
fn a_failed_sync_is_not_believed_the_second_time() {
    for seed in 0..60 {
        let model = Model::new(seed);
        let core = filled(&model, 1);
        core.commit(&one("unsynced", ""), false).unwrap();
        model.with(|disk| disk.failing.syncs = Some(ErrorKind::Other));
        assert!(core.commit(&Batch::default(), true).is_err());
        model.with(|disk| disk.failing.syncs = None);
        // The kernel would say yes now, and the pages be gone.
        core.commit(&Batch::default(), true).unwrap();
        assert!(
            has(&open(&model.after_power_loss()).unwrap(), "unsynced"),
            "seed {seed}"
        );
    }
}

#[test]
fn while_checkpoints_fail_commits_go_on_until_memory_is_full() {
    let model = Model::new(6);
    let core = open_in(&model, TIGHT).unwrap();
    core.commit(&one("first", ""), true).unwrap();
    core.freeze_now();
    model.with(|disk| disk.failing.writes = Some(ErrorKind::StorageFull));
    assert!(core.checkpoint().is_err());
    model.with(|disk| disk.failing = Failing::default());
    let mut taken = 0;
    let fault = loop {
        match core.commit(&one(&format!("key-{taken}"), &"v".repeat(100)), true) {
            Ok(()) => taken += 1,
            Err(fault) => break fault,
        }
        assert!(taken < 1000);
    };
    assert!(fault.to_string().contains("feeds.redb"), "{fault}");
    assert!(taken > 10 && lock(&core.state).active.bytes() <= TIGHT.full + 400);
    core.checkpoint().unwrap();
    core.commit(&one("again", ""), true).unwrap();
    assert_eq!(all_rows(&core).unwrap().len(), taken + 2);
}

#[test]
fn a_damaged_row_of_the_base_is_an_error_for_who_reads_it_only() {
    let model = Model::new(7);
    let core = open(&model).unwrap();
    core.commit(&one("bad", "a value that is easily found"), true)
        .unwrap();
    core.commit(&one("good", "another"), true).unwrap();
    core.freeze_now();
    core.checkpoint().unwrap();
    drop(core);
    let mut bytes = model.bytes(BASE);
    let needle = b"easily found";
    let places: Vec<usize> = (0..bytes.len() - needle.len())
        .filter(|at| bytes[*at..].starts_with(needle))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    model.put(BASE, bytes);
    let core = open(&model).unwrap();
    let judge = |core: &Core| {
        let view = core.view().unwrap();
        let fault = view.get(Table::Marks, b"bad").unwrap_err();
        let named = matches!(fault, StoreFault::Corrupt { table: "marks", .. });
        assert!(named, "{fault}");
        assert_eq!(
            view.get(Table::Marks, b"good").unwrap(),
            Some(b"another".to_vec())
        );
    };
    judge(&core);
    // A rewrite neither mends it nor stops at it.
    while core.rewrite_some() {}
    judge(&core);
    core.commit(&one("bad", "mended"), true).unwrap();
    assert!(has(&core, "bad"));
}

#[test]
fn a_checkpoint_amid_a_rewrite_is_in_the_new_base() {
    for parts in 0..30 {
        let model = Model::new(parts);
        let core = filled(&model, 60);
        core.freeze_now();
        core.checkpoint().unwrap();
        for _ in 0..parts {
            core.rewrite_some();
        }
        let mut batch = Batch::default();
        for number in 1..=60 {
            let key = format!("key-{number}").into_bytes();
            match number % 3 {
                0 => batch.remove(Table::Marks, key),
                _ => batch.put(Table::Marks, key, b"new".to_vec()),
            }
        }
        core.commit(&batch, true).unwrap();
        core.freeze_now();
        core.checkpoint().unwrap();
        while core.rewrite_some() {}
        let found = all_rows(&core).unwrap();
        assert_eq!(found.len(), 40, "{parts} parts");
        assert!(found.values().all(|value| value == b"new"), "{parts} parts");
        let again = open(&model.after_power_loss()).unwrap();
        assert_eq!(all_rows(&again).unwrap(), found, "{parts} parts");
    }
}

#[test]
fn segments_are_used_anew_and_their_number_is_bounded() {
    let model = Model::new(8);
    let core = open_in(&model, TIGHT).unwrap();
    let mut most = 0;
    for number in 0..2000 {
        core.commit(
            &one(&format!("key-{}", number % 50), &"v".repeat(60)),
            number % 3 == 0,
        )
        .unwrap();
        if lock(&core.state).spare_wanted {
            core.make_spare().unwrap();
        }
        core.checkpoint().unwrap();
        most = most.max(model.list().len());
    }
    assert!(most <= 9, "{most} files: {:?}", model.list());
    assert!(lock(&core.log).begun() > 30);
    let expected = all_rows(&core).unwrap();
    assert_eq!(all_rows(&open(&model.after_kill()).unwrap()).unwrap(), expected);
}

#[test]
fn starts_leave_no_segments_behind() {
    let model = Model::new(11);
    drop(filled(&model, 3));
    for _ in 0..5 {
        let core = open(&model).unwrap();
        core.freeze_now();
        core.checkpoint().unwrap();
        assert!(has(&core, "key-3"));
    }
    // The one that is written to, and those that are kept to be used anew.
    assert!(model.list().len() <= 1 + 1 + 2, "{:?}", model.list());
}

#[test]
fn a_start_on_a_full_disk_takes_the_room_of_what_nobody_needs() {
    let model = Model::new(12);
    drop(filled(&model, 3));
    for _ in 0..4 {
        drop(open(&model).unwrap());
    }
    let core = open(&model).unwrap();
    core.freeze_now();
    // The names of segments that are not needed stay, as a loss of power may bring them back.
    model.with(|disk| disk.failing.names = Some(ErrorKind::Other));
    core.checkpoint().unwrap();
    drop(core);
    model.with(|disk| disk.failing = Failing::default());
    assert!(model.list().len() > 5, "{:?}", model.list());
    model.with(|disk| disk.room = Some(disk.used()));
    let core = open(&model).unwrap();
    core.commit(&one("more", ""), true).unwrap();
    assert!(has(&core, "key-3") && has(&core, "more"));
    assert!(model.list().len() <= 1 + 1 + 2, "{:?}", model.list());
    assert!(has(&open(&model.after_power_loss()).unwrap(), "more"));
}

#[test]
fn a_newer_journal_is_newer() {
    let model = Model::new(9);
    let core = filled(&model, 2);
    let (name, mut bytes) = (last_segment(&core), model.bytes(&last_segment(&core)));
    let mut header = bytes[..format::HEADER].to_vec();
    format::make_newer(&mut header);
    bytes[..format::HEADER].copy_from_slice(&header);
    model.put(&name, bytes);
    assert!(matches!(open(&model), Err(StoreFault::Newer { .. })));
}

#[test]
fn a_merged_scan_is_what_a_map_would_say() {
    let mut rng = Rng(10);
    let model = Model::new(10);
    let core = open(&model).unwrap();
    let mut held = Rows::new();
    for round in 0..400 {
        let batch = random_batch(&mut rng, round, &mut held);
        core.commit(&batch, false).unwrap();
        match rng.below(9) {
            0 => drop(core.freeze_now()),
            1 => core.checkpoint().unwrap(),
            _ => {}
        }
        let view = core.snapshot().unwrap();
        let table = Table::ALL[rng.below(4)];
        let mut ends = [0, 0].map(|_| format!("key-{:03}", rng.below(62)).into_bytes());
        ends.sort();
        let [from, to] = ends;
        let within = |key: &[u8]| from.as_slice() <= key && key < to.as_slice();
        let mut expected: Vec<Row> = held
            .iter()
            .filter(|((of, key), _)| *of == table as usize && within(key))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(
            view.last(table, &from, &to).unwrap(),
            expected.last().cloned(),
            "round {round}"
        );
        let limit = rng.below(30);
        expected.truncate(limit);
        assert_eq!(
            view.scan(table, &from, &to, limit).unwrap(),
            expected,
            "round {round}"
        );
    }
}

/// Threads, the real file system, and rows that are removed: the base shrinks while they go on.
#[test]
fn removed_rows_leave_the_disk_while_others_read_and_write() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        slack: 4 << 20,
        layer: 2 << 20,
        full: 8 << 20,
        ..Bounds::DEFAULT
    };
    let files = Arc::new(Directory::of(dir.path().to_owned()).unwrap());
    let kept = Journaled::over(files.clone(), bounds, true).unwrap();
    let store = &kept;
    let put = |from: usize, to: usize| {
        let mut batch = Batch::default();
        for number in from..to {
            batch.put(
                Table::Notifications,
                format!("{number:08}").into(),
                vec![number as u8; 2000],
            );
        }
        store.commit(&batch, true).unwrap();
    };
    for part in 0..100 {
        put(part * 150, part * 150 + 150);
    }
    let (sender, done) = std::sync::mpsc::sync_channel::<()>(0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Until the sender is gone.
            while done.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                let view = store.view().unwrap();
                let kept = view
                    .scan(Table::Notifications, b"00014", b"00015", usize::MAX)
                    .unwrap();
                assert_eq!(kept.len(), 1000);
                assert_eq!(
                    view.get(Table::Notifications, b"00014999").unwrap(),
                    Some(vec![14999usize as u8; 2000])
                );
            }
        });
        for part in 0..90 {
            let mut batch = Batch::default();
            for number in part * 150..part * 150 + 150 {
                batch.remove(Table::Notifications, format!("{number:08}").into());
            }
            store.commit(&batch, true).unwrap();
        }
        let mut number = 15_000;
        let deadline = 20_000;
        while files.taken(BASE).unwrap() > 3 * store.live_bytes() + (4 << 20)
            || lock(&store.core.base).rewrite.is_some()
        {
            put(number, number + 1);
            number += 1;
            assert!(
                number < deadline,
                "{} bytes for {}",
                files.taken(BASE).unwrap(),
                store.live_bytes()
            );
        }
        drop(sender);
    });
    let expected = rows(&*store.view().unwrap()).unwrap();
    let live: usize = expected
        .iter()
        .map(|((_, key), value)| key.len() + value.len())
        .sum();
    drop(kept);
    let store = Journaled::over(files, bounds, false).unwrap();
    assert_eq!(rows(&*store.view().unwrap()).unwrap(), expected);
    assert_eq!(store.live_bytes(), live as u64);
}
