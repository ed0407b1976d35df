//! The check that ends a value in the stores that have none of their own over what they hold: it tells a
//! row that was written from one that damage made up, or moved.

use postrider_engine::StoreFault;
use postrider_engine::stores::{Row, Table};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Its length.
const CHECK: usize = 4;

fn check(table: Table, key: &[u8], value: &[u8]) -> [u8; CHECK] {
    let mut hash = Xxh3::with_seed(xxh3_64(table.name().as_bytes()));
    hash.update(&(key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(value);
    (hash.digest() as u32).to_le_bytes()
}

/// A value as it is stored.
pub fn checked(table: Table, key: &[u8], value: &[u8]) -> Vec<u8> {
    [value, &check(table, key, value)].concat()
}

/// A row as it was given.
pub fn unchecked(table: Table, (key, mut value): Row) -> Result<Row, StoreFault> {
    let length = value.len().saturating_sub(CHECK);
    if value.len() < CHECK || check(table, &key, &value[..length]) != value[length..] {
        return Err(StoreFault::Io(format!(
            "a row of table `{}` is damaged",
            table.name()
        )));
    }
    value.truncate(length);
    Ok((key, value))
}
