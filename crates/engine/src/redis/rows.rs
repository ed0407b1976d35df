//! How a row stands in Redis: as one member of its cell's sorted set, all of whose scores are 0, so that members stand
//! in the order of their bytes.
//!
//! ```text
//! member = table, key (each 00 written 00 FF), 00 00, value, stamp's bucket (2 bytes, big-endian)
//! ```
//!
//! Invariant: members order as (table, key) do, and no member is the beginning of what another key's begins with: the
//! rows of a range of keys are a range of members. The bucket stands in the row so that the server can tell the stamps
//! of rows that it finds by a scan.

use super::links::Cell;
use super::owners::{self, Owner};
use crate::embedded::store::{Row, StoreFault, Table};

/// What the first table is written as; the others follow, all of them printable.
const FIRST_TABLE: u8 = b'A';
/// What ends a key; within one a zero is never followed by another.
const END: [u8; 2] = [0, 0];
/// What a zero within a key is followed by.
const ESCAPED: u8 = 0xff;

/// The member that holds a row.
pub(super) fn member(table: Table, key: &[u8], value: &[u8], owner: Owner) -> Vec<u8> {
    let mut member = beginning(table, key, value.len() + 2);
    member.extend_from_slice(value);
    member.extend_from_slice(&owner.bucket.to_be_bytes());
    member
}

/// What the member of this key, whatever its value, begins with; and no other does.
pub(super) fn prefix(table: Table, key: &[u8]) -> Vec<u8> {
    beginning(table, key, 0)
}

fn beginning(table: Table, key: &[u8], room: usize) -> Vec<u8> {
    // Most keys end in an offset, whose first bytes are zeros.
    let mut bytes = Vec::with_capacity(key.len() + 12 + room);
    bytes.push(FIRST_TABLE + table as u8);
    for byte in key {
        bytes.push(*byte);
        if *byte == 0 {
            bytes.push(ESCAPED);
        }
    }
    bytes.extend_from_slice(&END);
    bytes
}

/// A range of keys as `ZRANGEBYLEX` wants it: its least member, and the first after it.
pub(super) fn bounds(table: Table, from: &[u8], to: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let bound = |sign: u8, key: &[u8]| {
        let mut bytes = vec![sign];
        bytes.append(&mut prefix(table, key));
        bytes
    };
    if owners::is_one_key(from, to) {
        // One key: up to what its terminator would be if it were one more.
        let mut end = bound(b'(', from);
        end.pop();
        end.push(1);
        return (bound(b'[', from), end);
    }
    (bound(b'[', from), bound(b'(', to))
}

/// The row that a member of this table holds.
pub(super) fn row(table: Table, member: &[u8]) -> Result<Row, StoreFault> {
    let damaged = |detail| StoreFault::Corrupt {
        table: table.name(),
        detail,
    };
    let rest = match member.split_first() {
        Some((first, rest)) if *first == FIRST_TABLE + table as u8 => rest,
        _ => return Err(damaged("a row of another table")),
    };
    let mut key = Vec::with_capacity(rest.len().min(64));
    let mut bytes = rest.iter().enumerate();
    while let Some((_, byte)) = bytes.next() {
        if *byte != 0 {
            key.push(*byte);
            continue;
        }
        match bytes.next() {
            Some((_, &ESCAPED)) => key.push(0),
            Some((at, 0)) => {
                let tail = &rest[at + 1..];
                let (value, _bucket) = tail
                    .split_last_chunk::<2>()
                    .ok_or(damaged("a row without its bucket"))?;
                return Ok((key, value.to_vec()));
            }
            _ => break,
        }
    }
    Err(damaged("a row whose key has no end"))
}

/// Whose a row is, as its member says.
pub(super) fn owner(cell: Cell, member: &[u8]) -> Result<Owner, StoreFault> {
    let bucket = member.last_chunk::<2>().ok_or(StoreFault::Corrupt {
        table: "rows",
        detail: "a row without its bucket",
    })?;
    let bucket = u16::from_be_bytes(*bucket);
    Ok(Owner { cell, bucket })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWNER: Owner = Owner {
        cell: Cell(0),
        bucket: 0x00ff,
    };

    #[test]
    fn the_form_is_what_it_was() {
        let member = member(Table::Entries, b"a\0b", b"\x01\0", OWNER);
        assert_eq!(member, b"Ca\0\xffb\0\0\x01\0\0\xff");
        let (from, to) = bounds(Table::Entries, b"a\0b", b"a\0b\0");
        assert_eq!(
            (&from[..], &to[..]),
            (&b"[Ca\0\xffb\0\0"[..], &b"(Ca\0\xffb\0\x01"[..])
        );
    }

    /// Keys in which zeros, and what they are written with, stand everywhere.
    fn keys() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0), Just(1), Just(0xff), Just(b'a'), any::<u8>()];
        proptest::collection::vec(byte, 0..8)
    }

    proptest! {
        #[test]
        fn a_row_reads_back(key in keys(), value in keys()) {
            let member = member(Table::Due, &key, &value, OWNER);
            prop_assert_eq!(row(Table::Due, &member).unwrap(), (key, value));
            prop_assert!(row(Table::Ages, &member).is_err());
        }

        #[test]
        fn members_stand_in_a_range_as_their_keys_do(
            key in keys(), value in keys(), from in keys(), to in keys(), one in any::<bool>(),
        ) {
            let to = if one { [&from[..], &[0]].concat() } else { to };
            let (least, end) = bounds(Table::Due, &from, &to);
            let member = member(Table::Due, &key, &value, OWNER);
            let stands = member[..] >= least[1..] && member[..] < end[1..];
            prop_assert_eq!(stands, key >= from && key < to);
        }

        #[test]
        fn any_bytes_are_a_row_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            drop(row(Table::Meta, &bytes));
            let mut bytes = bytes;
            bytes.insert(0, FIRST_TABLE);
            drop(row(Table::Meta, &bytes));
        }
    }
}
