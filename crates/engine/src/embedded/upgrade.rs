//! Brings the rows of an older format up to date. Format 1 had nothing by which notifications grow old. Those of
//! formats 2 and 3 are read as they are, and written as they are now when they change; format 4 has more tables.
//!
//! Invariant: every step can be cut short and done again; the directory says the new format only when all of
//! it is synced.

use super::StoreFault;
use super::apply::Counts;
use super::codec::{Reader, Record, Writer, key};
use super::store::{Batch, Store, Table};
use super::tables::Stage;
use postrider_model::{NotificationId, Timestamp};

/// Rows looked at in one transaction.
const STEP: usize = 1000;

/// From format 1: gives each notification and request its row in `ages`, and counts what is held.
pub(super) fn from_first(store: &dyn Store) -> Result<(), StoreFault> {
    let mut counts = Counts::default();
    let mut known = 0u64;
    in_steps(store, Table::Notifications, |id, value, batch| {
        let id = std::str::from_utf8(id).ok();
        let id = id
            .and_then(|text| NotificationId::new(text).ok())
            .ok_or(StoreFault::Corrupt {
                table: "notifications",
                detail: "the key has no id",
            })?;
        let record = Record::decode(&id, value)?;
        counts.changed(None, Some(&record));
        known += 1;
        let row = key::age(Stage::Kept as u8, record.kept_from, id.as_str().as_bytes());
        batch.put(Table::Ages, row, Writer::new().done());
        Ok(())
    })?;
    in_steps(store, Table::Requests, |request, value, batch| {
        let mut r = Reader::new("requests", value)?;
        r.u128()?;
        let row = key::age(Stage::Request as u8, Timestamp(r.u64()?), request);
        batch.put(Table::Ages, row, Writer::new().done());
        Ok(())
    })?;
    let mut last = Batch::default();
    let (row, value) = counts.row();
    last.put(Table::Meta, row, value);
    store.commit(&last, true)?;
    tracing::info!(
        notifications = known,
        "the notifications of a data directory of format 1 grow old from now on"
    );
    Ok(())
}

fn in_steps(
    store: &dyn Store,
    table: Table,
    mut each: impl FnMut(&[u8], &[u8], &mut Batch) -> Result<(), StoreFault>,
) -> Result<(), StoreFault> {
    let mut from = Vec::new();
    loop {
        let rows = store.view()?.scan(table, &from, &[0xff; 300], STEP)?;
        let mut batch = Batch::default();
        for (row, value) in &rows {
            each(row, value, &mut batch)?;
        }
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        from = [last.as_slice(), &[0]].concat();
        store.commit(&batch, false)?;
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::Memory;
    use super::super::tests::Here;
    use super::*;
    use crate::contract::Make;
    use crate::{Embedded, Feeds};
    use std::sync::Arc;

    /// What the first format lacks is made from what it has.
    #[tokio::test]
    async fn ages_and_counts_come_out_as_if_they_had_always_been_kept() {
        let store = Arc::new(Memory::default());
        let now = Timestamp(1_000_000);
        let here = Here::open(false, now);
        let engine = Embedded::with_store(store.clone(), None, here.clock.options(None)).unwrap();
        let batch = (0..2500).map(|n| {
            let make = Make::new(format!("n-{n}")).users(["ada", "bob"]);
            make.request(&format!("r-{n}"), 1).publication(now)
        });
        assert!(engine.publish(batch.collect()).await.iter().all(Result::is_ok));
        engine.close();
        let held = |store: &Memory| {
            let view = store.view().unwrap();
            let ages = view.scan(Table::Ages, &[], &[0xff], usize::MAX).unwrap();
            let mut ids = Vec::new();
            for (row, value) in ages {
                match row[0] {
                    1 | 3 => {
                        let (at, what) = key::age_parts(&row).unwrap();
                        ids.push((row[0], at, String::from_utf8(what.to_vec()).unwrap()));
                    }
                    _ => {
                        let (_, at) = key::cohort_parts(&row).unwrap();
                        let mut r = Reader::new("ages", &value).unwrap();
                        let of = r.list(|r| Ok((1, at, r.text()?.to_owned())));
                        ids.extend(of.unwrap());
                    }
                }
            }
            ids.sort();
            (ids, Counts::read(&*view).unwrap())
        };
        let before = held(&store);
        assert_eq!(before.0.len(), 5000);
        let counts = Counts {
            cohorts: 0,
            ..before.1
        };
        let ages = store.view().unwrap().scan(Table::Ages, &[], &[0xff], usize::MAX);
        let mut batch = Batch::default();
        for (row, _) in ages.unwrap() {
            batch.remove(Table::Ages, row);
        }
        batch.remove(Table::Meta, before.1.row().0);
        store.commit(&batch, true).unwrap();
        for _ in 0..2 {
            from_first(&*store).unwrap();
            assert_eq!(held(&store), (before.0.clone(), counts));
        }
    }
}
