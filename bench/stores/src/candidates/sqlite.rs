//! SQLite: one file, one table per table, `WITHOUT ROWID`, write-ahead log.
//!
//! Settings, and why:
//! * `journal_mode=WAL`, `synchronous=FULL` for what must be synced and `NORMAL` for what may wait: in WAL
//!   mode that is one `fdatasync` per commit, or none.
//! * `wal_autocheckpoint=4000` (16 MB; 1000 by default) and `journal_size_limit`: fewer and bounded
//!   checkpoints. Only the writer's connection checkpoints, so that a reader never pays for one.
//! * `auto_vacuum=INCREMENTAL`, and a little of `incremental_vacuum` after a commit while many pages are
//!   free: without it the file never shrinks; all at once it would be one long stall.
//! * Readers have connections of their own and short transactions: a long one keeps the log from being
//!   checkpointed, and it grows without bound (the best known fault in production).
//! * No memory map: a disk that fails to read would be a SIGBUS and not an error.
//! * Each value ends in a check, as redb's do here: SQLite has none over its pages.
//!
//! The WAL-reset corruption that was in all versions up to 3.51.2 is mended in the bundled one.

use super::CACHE_BYTES;
use super::check::{checked, unchecked};
use postrider_engine::StoreFault;
use postrider_engine::stores::{Batch, Row, Store, Table, View};
use rusqlite::{Connection, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Reading connections kept for the next view.
const IDLE_READERS: usize = 4;
/// Free pages left in the file for what is written next.
const FREE_PAGES_KEPT: i64 = 1024;
/// Free pages given back after one commit.
const PAGES_PER_VACUUM: i64 = 256;
/// Statements of a connection: five per table, and a few more.
const STATEMENTS: usize = 128;

pub struct Sqlite {
    path: PathBuf,
    writer: Mutex<Connection>,
    idle: Mutex<Vec<Connection>>,
    sql: Vec<Sql>,
}

struct Sql {
    get: String,
    scan: String,
    last: String,
    put: String,
    remove: String,
}

impl Sql {
    fn of(table: Table) -> Sql {
        let t = table.name();
        Sql {
            get: format!("SELECT v FROM {t} WHERE k = ?1"),
            scan: format!("SELECT k, v FROM {t} WHERE k >= ?1 AND k < ?2 ORDER BY k LIMIT ?3"),
            last: format!("SELECT k, v FROM {t} WHERE k >= ?1 AND k < ?2 ORDER BY k DESC LIMIT 1"),
            put: format!("INSERT INTO {t}(k, v) VALUES(?1, ?2) ON CONFLICT(k) DO UPDATE SET v = excluded.v"),
            remove: format!("DELETE FROM {t} WHERE k = ?1"),
        }
    }
}

impl Sqlite {
    pub fn open(path: &Path) -> Result<Sqlite, StoreFault> {
        let writer = Connection::open(path).map_err(fault)?;
        let cache = CACHE_BYTES / 2 / 1024;
        let mut setup = format!(
            "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
             PRAGMA wal_autocheckpoint=4000; PRAGMA journal_size_limit=67108864;
             PRAGMA cache_size=-{cache}; PRAGMA temp_store=MEMORY;"
        );
        for &table in Table::ALL {
            let name = table.name();
            setup += &format!(
                "CREATE TABLE IF NOT EXISTS {name}(k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID, STRICT;"
            );
        }
        // Something to write where a sync is asked for and nothing changed.
        setup += "CREATE TABLE IF NOT EXISTS syncs(n INTEGER PRIMARY KEY, at INTEGER) STRICT;";
        writer.execute_batch(&setup).map_err(fault)?;
        writer.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(Sqlite {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            idle: Mutex::default(),
            sql: Table::ALL.iter().map(|table| Sql::of(*table)).collect(),
        })
    }

    fn reader(&self) -> rusqlite::Result<Connection> {
        if let Some(idle) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(idle);
        }
        let reader = Connection::open(&self.path)?;
        let cache = CACHE_BYTES / 2 / 1024 / IDLE_READERS as u64;
        reader.execute_batch(&format!(
            "PRAGMA query_only=ON; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-{cache};"
        ))?;
        reader.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(reader)
    }

    fn write(&self, writer: &Connection, batch: &Batch, sync: bool) -> rusqlite::Result<()> {
        writer.execute_batch(if sync {
            "PRAGMA synchronous=FULL"
        } else {
            "PRAGMA synchronous=NORMAL"
        })?;
        let txn = writer.unchecked_transaction()?;
        for &table in Table::ALL {
            let rows = batch.table(table);
            if rows.is_empty() {
                continue;
            }
            let sql = &self.sql[table as usize];
            let (mut put, mut remove) = (txn.prepare_cached(&sql.put)?, txn.prepare_cached(&sql.remove)?);
            for (key, value) in rows.iter() {
                match value {
                    Some(value) => put.execute(params![key, checked(table, key, value)])?,
                    None => remove.execute(params![key])?,
                };
            }
        }
        if batch.is_empty() {
            txn.execute(
                "INSERT INTO syncs(n, at) VALUES(1, 1) ON CONFLICT(n) DO UPDATE SET at = at + 1",
                [],
            )?;
        }
        txn.commit()
    }

    fn vacuum(writer: &Connection) -> rusqlite::Result<()> {
        let free: i64 = writer
            .prepare_cached("PRAGMA freelist_count")?
            .query_row([], |row| row.get(0))?;
        if free > FREE_PAGES_KEPT {
            writer.execute_batch("PRAGMA synchronous=NORMAL")?;
            // Each step of the statement gives one page back; `execute_batch` would take only the first.
            let mut vacuum =
                writer.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES_PER_VACUUM})"))?;
            let mut pages = vacuum.query([])?;
            while pages.next()?.is_some() {}
        }
        Ok(())
    }
}

impl Store for Sqlite {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreFault> {
        let reader = self.reader().map_err(fault)?;
        reader
            .prepare_cached("BEGIN")
            .and_then(|mut begin| begin.execute([]))
            .map_err(fault)?;
        Ok(Box::new(SqliteView {
            store: self,
            reader: Some(reader),
        }))
    }

    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreFault> {
        if batch.is_empty() && !sync {
            return Ok(());
        }
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&writer, batch, sync)
            .and_then(|()| Sqlite::vacuum(&writer))
            .map_err(fault)
    }

    /// Not counted here; no experiment asks.
    fn live_bytes(&self) -> u64 {
        0
    }

    fn file_bytes(&self) -> u64 {
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        bytes(&self.path) + bytes(&self.path.with_extension("sqlite-wal"))
    }
}

/// A read transaction; its first read fixes what it sees.
struct SqliteView<'s> {
    store: &'s Sqlite,
    reader: Option<Connection>,
}

impl SqliteView<'_> {
    fn rows(&self, table: Table, sql: &str, values: impl rusqlite::Params) -> Result<Vec<Row>, StoreFault> {
        let closed = || StoreFault::Io("sqlite: the view is closed".into());
        let reader = self.reader.as_ref().ok_or_else(closed)?;
        let mut select = reader.prepare_cached(sql).map_err(fault)?;
        let rows = select
            .query_map(values, |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(fault)?;
        rows.map(|row| unchecked(table, row.map_err(fault)?)).collect()
    }
}

impl View for SqliteView<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        let closed = || StoreFault::Io("sqlite: the view is closed".into());
        let reader = self.reader.as_ref().ok_or_else(closed)?;
        let mut select = reader
            .prepare_cached(&self.store.sql[table as usize].get)
            .map_err(fault)?;
        let value: Option<Vec<u8>> = select
            .query_row([key], |row| row.get(0))
            .optional()
            .map_err(fault)?;
        let row = value
            .map(|value| unchecked(table, (key.to_vec(), value)))
            .transpose()?;
        Ok(row.map(|(_, value)| value))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.rows(
            table,
            &self.store.sql[table as usize].scan,
            params![from, to, limit],
        )
    }

    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreFault> {
        let rows = self.rows(table, &self.store.sql[table as usize].last, params![from, to])?;
        Ok(rows.into_iter().next())
    }
}

impl Drop for SqliteView<'_> {
    fn drop(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        let ended = reader
            .prepare_cached("COMMIT")
            .and_then(|mut end| end.execute([]))
            .is_ok();
        let mut idle = self.store.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if ended && idle.len() < IDLE_READERS {
            idle.push(reader);
        }
    }
}

fn fault(error: rusqlite::Error) -> StoreFault {
    StoreFault::Io(format!("sqlite: {error}"))
}
