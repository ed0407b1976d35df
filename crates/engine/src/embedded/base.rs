//! One redb file as tables of rows: what stands under both stores on disk. Every table maps bytes to
//! bytes; each value ends in a check over its table, key and bytes. A table of its own, `store`, holds the
//! [`Head`]: how far the journal is applied, and how many bytes the rows amount to.
//!
//! Invariant: a transaction is on the disk, whole, when [`Base::write`] returns. redb writes it beside what
//! it replaces and then switches over, so that a torn or half-written tail is never looked at. After any
//! failure of the file the handle is closed and not trusted again: the next use opens the file anew. A row
//! that is not what was written is an error for whoever reads it, never an answer, and harms no other row.

use super::StoreFault;
use super::store::{Row, Table};
use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, TableDefinition, TableError, WriteTransaction,
};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

/// Memory for pages, both clean and not yet written.
pub(super) const CACHE_BYTES: usize = 32 << 20;
/// Length of the check that ends a value.
const CHECK: usize = 4;
/// A row of so many bytes, with the length of its key, is hashed in one piece.
const SMALL_ROW: usize = 512;
/// Rows of one table that the look over a file walks at most: a start waits for it.
const MAX_WALKED: u64 = 200_000;
/// Bytes of rows in a file that is looked over.
const MAX_LOOKED_OVER: u64 = 1 << 30;
/// Where the head stands, in a table that is none of [`Table`].
const HEAD_TABLE: &str = "store";
const HEAD_KEY: &[u8] = b"head";
const HEAD_VERSION: u8 = 1;

type Bytes = &'static [u8];
type Rows = ReadOnlyTable<Bytes, Bytes>;
/// How a file is opened, each time anew.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, redb::DatabaseError> + Send + Sync>;

/// What the file says of itself; it changes in the same transaction as the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The journal's records up to and including this one are in the rows.
    pub applied: u64,
    /// Later records stand in this segment of the journal or after it; 0 for none yet.
    pub segment: u64,
    /// Bytes of all keys and values.
    pub live: u64,
}

/// The file, for the one who writes it.
pub(super) struct Base {
    /// What faults call it.
    name: String,
    open: Opener,
    /// Shared with the readings, so that a file that was replaced stays open until nobody reads it.
    database: Arc<Held>,
    head: Head,
}

/// An open file, until it is not trusted any more.
#[derive(Default)]
struct Held(Mutex<Option<Database>>);

impl Held {
    fn close(&self) {
        let held = lock(&self.0).take();
        // Closing a file that is damaged may fail in its own ways.
        if catch_unwind(AssertUnwindSafe(|| drop(held))).is_err() {
            tracing::error!("a file of the store could not be closed");
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.close();
    }
}

impl Base {
    /// Opens by `open`, now and after each failure. Makes the tables that are missing.
    pub fn open(name: String, open: Opener) -> Result<Base, StoreFault> {
        let mut base = Base {
            name,
            open,
            database: Arc::default(),
            head: Head::default(),
        };
        base.reopen()?;
        base.look_over()?;
        Ok(base)
    }

    /// Walks the rows once. Damage may take rows away, or lead searches astray, so that nothing beside them shows
    /// it: such a file is refused. A row that is damaged where it stands is left to whoever reads it. Tables that are
    /// too long for it, and files that are too large, are left out.
    fn look_over(&mut self) -> Result<(), StoreFault> {
        if self.head.live > MAX_LOOKED_OVER {
            return Ok(());
        }
        self.using("cannot take the store", |database| {
            let txn = database.begin_read()?;
            for &table in Table::ALL {
                walk(table, &txn.open_table(definition(table))?)?;
            }
            Ok(())
        })
    }

    pub fn head(&self) -> Head {
        self.head
    }

    /// The file has another name now, and is opened in another way if it must be.
    pub fn renamed(&mut self, name: String, open: Opener) {
        (self.name, self.open) = (name, open);
    }

    /// Closes the file. Whoever still reads from it gets an error, never what others write meanwhile.
    pub fn distrust(&mut self) {
        self.database.close();
    }

    fn reopen(&mut self) -> Result<(), StoreFault> {
        if lock(&self.database.0).is_some() {
            return Ok(());
        }
        let (database, head) = caught(&self.name, "cannot open the store", || {
            let database = (self.open)()?;
            let head = prepare(&database)?;
            Ok((database, head))
        })?;
        if head.applied < self.head.applied {
            return Err(StoreFault::Io(format!(
                "the store {} went back: record {} of the journal was applied, and the file says {}",
                self.name, self.head.applied, head.applied
            )));
        }
        self.head = head;
        self.database = Arc::new(Held(Mutex::new(Some(database))));
        Ok(())
    }

    /// What the rows are now.
    pub fn reading(&mut self) -> Result<Reading, StoreFault> {
        self.reopen()?;
        let begun = self.using("cannot read the store", |database| Ok(database.begin_read()?));
        Ok(Reading {
            name: self.name.clone(),
            tables: Default::default(),
            last: Default::default(),
            txn: begun?,
            suspect: AtomicBool::new(false),
            _database: self.database.clone(),
        })
    }

    /// One transaction, synced.
    pub fn write(
        &mut self,
        applied: u64,
        segment: u64,
        fill: impl FnOnce(&mut Filling<'_>) -> Result<(), redb::Error>,
    ) -> Result<(), StoreFault> {
        self.reopen()?;
        let mut head = Head {
            applied,
            segment,
            ..self.head
        };
        self.using("cannot write the store", |database| {
            let txn = begin(database)?;
            let mut filling = Filling { txn: &txn, delta: 0 };
            fill(&mut filling)?;
            head.live = head.live.saturating_add_signed(filling.delta);
            put_head(&txn, head)?;
            Ok(txn.commit()?)
        })?;
        self.head = head;
        Ok(())
    }

    fn using<T>(
        &mut self,
        what: &str,
        run: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreFault> {
        let held = lock(&self.database.0);
        let Some(database) = &*held else {
            return Err(StoreFault::Io(format!("{what} {}: it is closed", self.name)));
        };
        let outcome = caught(&self.name, what, || run(database));
        drop(held);
        outcome.inspect_err(|_| self.distrust())
    }
}

/// A transaction that is being filled.
pub(super) struct Filling<'t> {
    txn: &'t WriteTransaction,
    /// By how much the rows' bytes change.
    delta: i64,
}

impl Filling<'_> {
    /// Puts and removes, best in key order.
    pub fn change<'c>(
        &mut self,
        table: Table,
        changes: impl IntoIterator<Item = (&'c [u8], Option<&'c [u8]>)>,
    ) -> Result<(), redb::Error> {
        let mut changes = changes.into_iter().peekable();
        if changes.peek().is_none() {
            return Ok(());
        }
        let mut rows = self.txn.open_table(definition(table))?;
        let mut checked = Vec::new();
        for (key, value) in changes {
            let before = match value {
                Some(value) => {
                    checked.clear();
                    checked.extend_from_slice(value);
                    checked.extend_from_slice(&check(table.name(), key, value));
                    self.delta += (key.len() + value.len()) as i64;
                    rows.insert(key, checked.as_slice())?
                }
                None => rows.remove(key)?,
            };
            self.delta -= before.map_or(0, |before| row_bytes(key, before.value()));
        }
        Ok(())
    }

    /// Puts rows as another file holds them, with their checks, right or wrong.
    pub fn copy(&mut self, table: Table, raw: &[Row]) -> Result<(), redb::Error> {
        let mut rows = self.txn.open_table(definition(table))?;
        for (key, value) in raw {
            self.delta += row_bytes(key, value);
            let before = rows.insert(key.as_slice(), value.as_slice())?;
            self.delta -= before.map_or(0, |before| row_bytes(key, before.value()));
        }
        Ok(())
    }
}

/// The rows as one moment left them.
pub(super) struct Reading {
    name: String,
    tables: [OnceLock<Rows>; Table::ALL.len()],
    /// The last key of each table, where it can be read.
    last: [OnceLock<Option<Vec<u8>>>; Table::ALL.len()],
    txn: ReadTransaction,
    /// The file failed under it.
    suspect: AtomicBool,
    _database: Arc<Held>,
}

impl Reading {
    /// Whether the file should be opened anew.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    pub fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    fn table(&self, table: Table) -> Result<&Rows, redb::Error> {
        let cell = &self.tables[table as usize];
        if let Some(rows) = cell.get() {
            return Ok(rows);
        }
        let rows = self.txn.open_table(definition(table))?;
        Ok(cell.get_or_init(|| rows))
    }

    fn read<T>(
        &self,
        table: Table,
        read: impl FnOnce(&Rows) -> Result<T, redb::Error>,
    ) -> Result<T, StoreFault> {
        caught(&self.name, "cannot read the store", || read(self.table(table)?))
            .inspect_err(|_| self.suspect())
    }

    /// Whether a key is above all of its table. Most of what is asked for and not there is an id that was just
    /// made, and such ids rise.
    fn is_beyond(&self, table: Table, key: &[u8]) -> bool {
        let last = self.last[table as usize].get_or_init(|| {
            let last = caught(&self.name, "cannot read the store", || {
                let last = self.table(table)?.last()?;
                Ok(last.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())))
            });
            // Where the end is damaged the rest may not be.
            match last.ok()? {
                None => Some(Vec::new()),
                Some((key, value)) => self.checked(table, &key, &value).is_ok().then_some(key),
            }
        });
        last.as_deref().is_some_and(|last| key > last)
    }

    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        if self.is_beyond(table, key) {
            return Ok(None);
        }
        let value = self.read(table, |rows| {
            let value = rows.get(key)?;
            Ok(value.map(|value| self.checked(table, key, value.value()).map(<[u8]>::to_vec)))
        })?;
        value.transpose()
    }

    /// Fails if the rows beside the gap in which a key would stand are not what was written, or stand out of
    /// order. A key that changed on the disk misleads only
    /// searches that end beside it.
    pub fn vouch_absent(&self, table: Table, key: &[u8]) -> Result<(), StoreFault> {
        let before = self.rows(table, (Bound::Unbounded, Bound::Excluded(key)), 1, true)?;
        let after = self.rows(table, (Bound::Excluded(key), Bound::Unbounded), 1, false)?;
        let in_order = before.iter().all(|(row, _)| row.as_slice() < key)
            && after.iter().all(|(row, _)| row.as_slice() > key);
        match in_order {
            true => Ok(()),
            false => Err(StoreFault::Corrupt {
                table: table.name(),
                detail: "rows are out of order",
            }),
        }
    }

    /// Up to `limit` rows, by rising key or by falling.
    pub fn rows(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
        falling: bool,
    ) -> Result<Vec<Row>, StoreFault> {
        let rows = self.read(table, |rows| {
            let range = rows.range::<&[u8]>(range)?;
            let row = |row: Result<(Guard<'_>, Guard<'_>), redb::StorageError>| {
                let (key, value) = row?;
                let (key, value) = (key.value(), value.value());
                let row = self.checked(table, key, value);
                Ok(row.map(|value| (key.to_vec(), value.to_vec())))
            };
            let rows: Result<Vec<Result<Row, StoreFault>>, redb::StorageError> = match falling {
                false => range.take(limit).map(row).collect(),
                true => range.rev().take(limit).map(row).collect(),
            };
            Ok(rows?)
        })?;
        rows.into_iter().collect()
    }

    /// Rows after a key with their checks, which are not looked at: up to `limit`, or the first that make up
    /// `bytes`.
    pub fn raw_after(
        &self,
        table: Table,
        after: Option<&[u8]>,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Row>, StoreFault> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.read(table, |rows| {
            let (mut raw, mut taken) = (Vec::new(), 0);
            for row in rows.range::<&[u8]>((from, Bound::Unbounded))? {
                let row = owned(row)?;
                taken += row.0.len() + row.1.len();
                raw.push(row);
                if raw.len() >= limit || taken >= bytes {
                    break;
                }
            }
            Ok(raw)
        })
    }

    /// The value, of what the file holds under a key, if that is what was written.
    fn checked<'v>(&self, table: Table, key: &[u8], raw: &'v [u8]) -> Result<&'v [u8], StoreFault> {
        unchecked(table, key, raw).ok_or(StoreFault::Corrupt {
            table: table.name(),
            detail: "a row is not what was written",
        })
    }
}

/// The value without its check, if that is right.
fn unchecked<'v>(table: Table, key: &[u8], raw: &'v [u8]) -> Option<&'v [u8]> {
    let (value, found) = raw.split_last_chunk::<CHECK>()?;
    (check(table.name(), key, value) == *found).then_some(value)
}

type Guard<'g> = redb::AccessGuard<'g, Bytes>;

fn owned<'g>(row: Result<(Guard<'g>, Guard<'g>), redb::StorageError>) -> Result<Row, redb::StorageError> {
    row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec()))
}

/// Makes what is missing in a file: the tables, since readers must find every one, and the head.
fn prepare(database: &Database) -> Result<Head, redb::Error> {
    let txn = database.begin_read()?;
    let mut missing = false;
    for &table in Table::ALL {
        match txn.open_table(definition(table)) {
            Ok(_) => {}
            Err(TableError::TableDoesNotExist(_)) => missing = true,
            Err(error) => return Err(error.into()),
        }
    }
    let held = held_head(&txn)?;
    let head = match held {
        Some(head) => head,
        None => Head {
            live: count(&txn)?,
            ..Head::default()
        },
    };
    drop(txn);
    if missing || held.is_none() {
        let txn = begin(database)?;
        for &table in Table::ALL {
            txn.open_table(definition(table))?;
        }
        put_head(&txn, head)?;
        txn.commit()?;
    }
    Ok(head)
}

/// The head, if the file has one: files of the first format have none.
fn held_head(txn: &ReadTransaction) -> Result<Option<Head>, redb::Error> {
    let rows = match txn.open_table(TableDefinition::<Bytes, Bytes>::new(HEAD_TABLE)) {
        Ok(rows) => rows,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(value) = rows.get(HEAD_KEY)? else {
        return Ok(None);
    };
    let head = decode_head(value.value());
    head.map(Some)
        .ok_or_else(|| redb::Error::Corrupted("its head is not what was written".to_owned()))
}

fn decode_head(value: &[u8]) -> Option<Head> {
    let (value, found) = value.split_last_chunk::<CHECK>()?;
    let (version, mut rest) = value.split_first()?;
    if *version != HEAD_VERSION || check(HEAD_TABLE, HEAD_KEY, value) != *found {
        return None;
    }
    let mut number = || {
        let (number, after) = rest.split_first_chunk::<8>()?;
        rest = after;
        Some(u64::from_le_bytes(*number))
    };
    Some(Head {
        applied: number()?,
        segment: number()?,
        live: number()?,
    })
}

fn put_head(txn: &WriteTransaction, head: Head) -> Result<(), redb::Error> {
    let mut value = vec![HEAD_VERSION];
    for number in [head.applied, head.segment, head.live] {
        value.extend_from_slice(&number.to_le_bytes());
    }
    value.extend_from_slice(&check(HEAD_TABLE, HEAD_KEY, &value));
    let mut rows = txn.open_table(TableDefinition::<Bytes, Bytes>::new(HEAD_TABLE))?;
    drop(rows.insert(HEAD_KEY, value.as_slice())?);
    Ok(())
}

/// Fails if a table has not as many rows as it says it has, if they stand out of order, if a search does not find
/// them, or if the key of an entry changed: what stands before it would seem to be the end of its feed.
fn walk(table: Table, rows: &Rows) -> Result<(), redb::Error> {
    let held = rows.len()?;
    if held > MAX_WALKED {
        return Ok(());
    }
    let mut found = 0;
    let mut last = None::<Guard<'_>>;
    for row in rows.iter()? {
        let (key, value) = row?;
        found += 1;
        let in_order = last.as_ref().is_none_or(|last| last.value() < key.value());
        let whole = unchecked(table, key.value(), value.value()).is_some();
        let strays = match whole {
            true => !in_order || rows.get(key.value())?.is_none(),
            false => {
                tracing::error!(table = table.name(), "a row of the store is damaged");
                table == Table::Entries && (!in_order || is_renamed(table, key.value(), value.value()))
            }
        };
        if strays {
            return Err(astray(table, "is out of order"));
        }
        // Of other tables only those count that are what was written.
        if whole || table == Table::Entries {
            last = Some(key);
        }
    }
    match found == held {
        true => Ok(()),
        false => Err(astray(table, "lacks rows")),
    }
}

/// Whether a row is what was written under a key that differs in one byte.
fn is_renamed(table: Table, key: &[u8], raw: &[u8]) -> bool {
    let mut other = key.to_vec();
    (0..key.len()).any(|at| {
        let was = other[at];
        let found = (0..=u8::MAX).any(|byte| {
            other[at] = byte;
            byte != was && unchecked(table, &other, raw).is_some()
        });
        other[at] = was;
        found
    })
}

fn astray(table: Table, how: &str) -> redb::Error {
    redb::Error::Corrupted(format!(
        "it is damaged: the table `{}` {how}; restore a copy",
        table.name()
    ))
}

/// The bytes of all rows, by looking at each.
fn count(txn: &ReadTransaction) -> Result<u64, redb::Error> {
    let mut bytes = 0;
    for &table in Table::ALL {
        let rows = match txn.open_table(definition(table)) {
            Ok(rows) => rows,
            Err(TableError::TableDoesNotExist(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        for row in rows.iter()? {
            let (key, value) = row?;
            bytes += row_bytes(key.value(), value.value()) as u64;
        }
    }
    Ok(bytes)
}

fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut txn = database.begin_write()?;
    txn.set_durability(Durability::Immediate)?;
    // Opens in milliseconds after a crash, whatever the size.
    txn.set_quick_repair(true);
    Ok(txn)
}

/// The bytes of a row as the file holds it, less its check.
fn row_bytes(key: &[u8], raw: &[u8]) -> i64 {
    (key.len() + raw.len().saturating_sub(CHECK)) as i64
}

/// Tells a row that was written from one that damage made up, or moved.
fn check(table: &str, key: &[u8], value: &[u8]) -> [u8; CHECK] {
    let seed = xxh3_64(table.as_bytes());
    let length = (key.len() as u64).to_le_bytes();
    let (mut room, parts) = ([0; SMALL_ROW], [&length[..], key, value]);
    let Some(row) = room.get_mut(..length.len() + key.len() + value.len()) else {
        let mut hash = Xxh3::with_seed(seed);
        parts.iter().for_each(|part| hash.update(part));
        return (hash.digest() as u32).to_le_bytes();
    };
    // The same, and several times as fast.
    let mut rest = &mut row[..];
    for part in parts {
        let (head, tail) = rest.split_at_mut(part.len());
        head.copy_from_slice(part);
        rest = tail;
    }
    (xxh3_64_with_seed(row, seed) as u32).to_le_bytes()
}

/// Runs something that touches the file. A damaged file can bring the store crate to a panic: that is one
/// more way to fail.
fn caught<T>(name: &str, what: &str, run: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreFault> {
    let detail = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it is damaged".to_owned(),
    };
    Err(StoreFault::Io(format!("{what} {name}: {detail}")))
}

fn definition(table: Table) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(table.name())
}

pub(super) fn builder(cache_bytes: usize) -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    builder
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const TABLE: Table = Table::Notifications;

    fn try_open(path: &Path) -> Result<Base, StoreFault> {
        let at = path.to_owned();
        let opener = move || builder(1 << 20).create(&at);
        Base::open(path.display().to_string(), Box::new(opener))
    }

    fn open(path: &Path) -> Base {
        try_open(path).unwrap()
    }

    /// A file of rows `row-000`, `row-002` and so on.
    fn filled(path: &Path) {
        let rows: Vec<_> = (0..200).map(|n| format!("row-{:03}", n * 2)).collect();
        let rows = rows.iter().map(|key| (key.as_bytes(), Some(&b"value"[..])));
        open(path)
            .write(0, 0, |filling| filling.change(TABLE, rows))
            .unwrap();
    }

    /// Where the newest copy of a row's key stands in the file.
    fn place_of(file: &[u8], key: &[u8]) -> usize {
        file.windows(key.len()).rposition(|bytes| bytes == key).unwrap()
    }

    fn is_vouched(path: &Path, key: &[u8]) -> bool {
        let reading = open(path).reading().unwrap();
        assert_eq!(reading.get(TABLE, key).unwrap(), None);
        reading.vouch_absent(TABLE, key).is_ok()
    }

    #[test]
    fn a_key_that_damage_hides_is_not_called_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows");
        filled(&path);
        assert!(is_vouched(&path, b"row-101") && is_vouched(&path, b"row") && is_vouched(&path, b"zzz"));
        let mut file = std::fs::read(&path).unwrap();
        let at = place_of(&file, b"row-100");
        // It stays between its neighbours.
        file[at + 6] ^= 1;
        std::fs::write(&path, file).unwrap();
        assert!(!is_vouched(&path, b"row-100"));
        assert!(is_vouched(&path, b"row-301"), "far from the damage");
    }

    /// A page begins with its kind (1: rows, 2: keys that lead to pages) and, after two bytes, their number.
    #[test]
    fn rows_that_damage_takes_away_are_missed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows");
        filled(&path);
        let mut file = std::fs::read(&path).unwrap();
        let page = place_of(&file, b"row-100") / 4096 * 4096;
        assert_eq!(file[page], 1);
        let count = u16::from_le_bytes([file[page + 2], file[page + 3]]);
        file[page + 2..page + 4].copy_from_slice(&(count - 3).to_le_bytes());
        std::fs::write(&path, file).unwrap();
        let refused = try_open(&path).err().unwrap().to_string();
        assert!(refused.contains("`notifications` lacks rows"), "{refused}");
    }

    #[test]
    fn a_damaged_row_is_left_to_its_reader_and_a_renamed_entry_is_refused() {
        for (place, refused) in [(b"value", false), (b"row-1", true)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("rows");
            let rows = [b"row-1", b"row-3", b"row-5"];
            let rows = rows.iter().map(|key| (&key[..], Some(&b"value"[..])));
            let filled = open(&path).write(0, 0, |filling| filling.change(Table::Entries, rows));
            filled.unwrap();
            let mut file = std::fs::read(&path).unwrap();
            let at = place_of(&file, place);
            // As a key it stays before its neighbour.
            file[at + 4] ^= 3;
            std::fs::write(&path, file).unwrap();
            assert_eq!(try_open(&path).is_err(), refused, "{refused}");
        }
    }
}
