//! How the journal's bytes are written. Pure: bytes in, values out.
//!
//! A segment is a file `journal/NNNNNNNN.log`. Numbers are little-endian.
//!
//! | offset | what |
//! | --- | --- |
//! | 0 | header: magic (8), format (4), 0 (4), segment number (8), salt (8), check (8) |
//! | 4096 | opening: a record head of its own kind, no body; `seq` is the first that this segment may hold |
//! | 8192 | records, each at a multiple of 8 |
//!
//! A record is a head of 40 bytes and a body:
//!
//! | offset | what |
//! | --- | --- |
//! | 0 | magic of the kind (4): holds bytes that no UTF-8 text has |
//! | 4 | head check (4): xxh3 over the magic, the segment number and the head from offset 8 on |
//! | 8 | seq (8): 1, 2, 3 … over the life of the store |
//! | 16 | synced (8): when this was written, all records up to this seq were on the disk |
//! | 24 | length of the body (8) |
//! | 32 | body check (8): xxh3-64 over the segment number, the seq and the body |
//!
//! All checks are seeded with the segment's salt, which is random: what another segment's use left in a
//! recycled file, or what a publisher wrote to look like a record, passes none of them.
//!
//! A body is a batch: per table its name's length (1), the name, the number of changes (4), and per change
//! the key's length (4), the value's length (4, `ffffffff` removes), key, value.
//!
//! Invariant: what is decoded was encoded here, for this segment, at this seq.

use crate::embedded::row_key::RowKey;
use crate::embedded::store::{Batch, Table};
use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

/// The format of segments that this code writes and reads.
const FORMAT: u32 = 1;
const SEGMENT_MAGIC: [u8; 8] = *b"\xf7PRLOG\r\n";
const BATCH_MAGIC: [u8; 4] = *b"\xf7PRb";
const OPENING_MAGIC: [u8; 4] = *b"\xf7PRo";

/// Bytes of a segment's header, and of a record's head.
pub(super) const HEADER: usize = 40;
pub(super) const HEAD: usize = 40;
/// Where a segment's opening stands. A page of its own: writing it never touches the header.
pub(super) const OPENING_AT: u64 = 4096;
/// Where records begin.
pub(super) const RECORDS_AT: u64 = 8192;
/// Records begin at multiples of this.
pub(super) const ALIGN: usize = 8;
/// The largest body. The writer's queue holds far less.
pub(super) const MAX_BODY: usize = 1 << 30;
/// In place of a value's length: the key is removed.
const REMOVED: u32 = u32::MAX;

/// Which use of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentId {
    pub number: u64,
    pub salt: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Damaged,
    Newer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Batch,
    Opening,
}

/// What stands before a body. One whose check is right is trusted, whatever became of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHead {
    pub kind: Kind,
    pub seq: u64,
    pub synced: u64,
    pub length: usize,
    check: u64,
}

/// A change of one row; the value shares the record's memory.
pub(super) type Change = (Table, RowKey, Option<Bytes>);

impl SegmentId {
    pub fn header(&self) -> Vec<u8> {
        let mut out = SEGMENT_MAGIC.to_vec();
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        let check = hash(0, &[&out]);
        out.extend_from_slice(&check.to_le_bytes());
        out
    }

    pub fn of_header(bytes: &[u8]) -> Result<SegmentId, HeaderFault> {
        let (header, check) = bytes
            .get(..HEADER)
            .and_then(|header| header.split_last_chunk::<8>())
            .ok_or(HeaderFault::Damaged)?;
        if header[..8] != SEGMENT_MAGIC || u64::from_le_bytes(*check) != hash(0, &[header]) {
            return Err(HeaderFault::Damaged);
        }
        match u32_at(header, 8) {
            FORMAT => {}
            _ => return Err(HeaderFault::Newer),
        }
        Ok(SegmentId {
            number: u64_at(header, 16),
            salt: u64_at(header, 24),
        })
    }

    /// The opening of a segment: all records before `first` are on the disk elsewhere, and those from
    /// `first` on in earlier segments are void.
    pub fn opening(&self, first: u64) -> Vec<u8> {
        let mut out = vec![0; HEAD];
        self.seal_as(OPENING_MAGIC, &mut out, first, first.saturating_sub(1));
        out
    }

    /// Fills in the head of a record that [`encode`] left room for.
    pub fn seal(&self, record: &mut [u8], seq: u64, synced: u64) {
        self.seal_as(BATCH_MAGIC, record, seq, synced);
    }

    fn seal_as(&self, magic: [u8; 4], record: &mut [u8], seq: u64, synced: u64) {
        let (head, body) = record.split_at_mut(HEAD);
        let check = self.body_check(seq, body);
        head[8..16].copy_from_slice(&seq.to_le_bytes());
        head[16..24].copy_from_slice(&synced.to_le_bytes());
        head[24..32].copy_from_slice(&(body.len() as u64).to_le_bytes());
        head[32..40].copy_from_slice(&check.to_le_bytes());
        let check = self.head_check(&magic, &head[8..]);
        head[..4].copy_from_slice(&magic);
        head[4..8].copy_from_slice(&check.to_le_bytes());
    }

    /// The head that stands here, if one does.
    pub fn head(&self, bytes: &[u8]) -> Option<RecordHead> {
        let head = bytes.get(..HEAD)?;
        let kind = match head[..4] {
            [0xf7, b'P', b'R', b'b'] => Kind::Batch,
            [0xf7, b'P', b'R', b'o'] => Kind::Opening,
            _ => return None,
        };
        if u32_at(head, 4) != self.head_check(&head[..4], &head[8..]) {
            return None;
        }
        Some(RecordHead {
            kind,
            seq: u64_at(head, 8),
            synced: u64_at(head, 16),
            length: u64_at(head, 24) as usize,
            check: u64_at(head, 32),
        })
    }

    /// Whether this is the body that the head was written for.
    pub fn is_body(&self, head: &RecordHead, body: &[u8]) -> bool {
        body.len() == head.length && head.check == self.body_check(head.seq, body)
    }

    fn head_check(&self, magic: &[u8], rest: &[u8]) -> u32 {
        hash(self.salt, &[magic, &self.number.to_le_bytes(), rest]) as u32
    }

    fn body_check(&self, seq: u64, body: &[u8]) -> u64 {
        hash(self.salt, &[&self.number.to_le_bytes(), &seq.to_le_bytes(), body])
    }
}

/// Where the next record begins.
pub(super) fn aligned(at: u64) -> u64 {
    at.next_multiple_of(ALIGN as u64)
}

/// Whether a head of any segment may begin here; cheap, for searching.
pub(super) fn looks_like_head(bytes: &[u8]) -> bool {
    bytes.starts_with(&BATCH_MAGIC[..3])
}

/// A batch as a record whose head is still to be filled in.
pub(super) fn encode(batch: &Batch) -> Vec<u8> {
    let rows: usize = Table::ALL.iter().map(|table| batch.table(*table).len()).sum();
    let mut out = Vec::with_capacity(HEAD + Table::ALL.len() * 32 + rows * 8 + batch.bytes());
    out.resize(HEAD, 0);
    for &table in Table::ALL {
        let changes = batch.table(table);
        if changes.is_empty() {
            continue;
        }
        out.push(table.name().len() as u8);
        out.extend_from_slice(table.name().as_bytes());
        out.extend_from_slice(&(changes.len() as u32).to_le_bytes());
        for (key, value) in changes.iter() {
            let length = value.map_or(REMOVED, |value| value.len() as u32);
            out.extend_from_slice(&(key.len() as u32).to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(key);
            out.extend_from_slice(value.unwrap_or_default());
        }
    }
    out
}

/// The changes of a record (head and body). `None` where it holds what this version does not know.
pub(super) fn decode(record: &Bytes) -> Option<Vec<Change>> {
    let mut rest = record.get(HEAD..)?;
    let mut changes = Vec::new();
    while let [length, after @ ..] = rest {
        rest = after;
        let name = take(&mut rest, usize::from(*length))?;
        let table = *Table::ALL.iter().find(|table| table.name().as_bytes() == name)?;
        let count = u32_at(take(&mut rest, 4)?, 0);
        changes.reserve((count as usize).min(record.len() / 8));
        for _ in 0..count {
            let lengths = take(&mut rest, 8)?;
            let key = take(&mut rest, u32_at(lengths, 0) as usize)?;
            let value = match u32_at(lengths, 4) {
                REMOVED => None,
                length => Some(record.slice_ref(take(&mut rest, length as usize)?)),
            };
            changes.push((table, RowKey::from(key), value));
        }
    }
    Some(changes)
}

fn take<'r>(rest: &mut &'r [u8], length: usize) -> Option<&'r [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

fn hash(seed: u64, parts: &[&[u8]]) -> u64 {
    let mut hash = Xxh3::with_seed(seed);
    for part in parts {
        hash.update(part);
    }
    hash.digest()
}

/// Turns a header into one of a later format.
#[cfg(test)]
pub(super) fn make_newer(header: &mut Vec<u8>) {
    header.truncate(HEADER - 8);
    header[8..12].copy_from_slice(&(FORMAT + 1).to_le_bytes());
    let check = hash(0, &[header]);
    header.extend_from_slice(&check.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SegmentId = SegmentId { number: 7, salt: 99 };

    fn sample() -> Batch {
        let mut batch = Batch::default();
        batch.put(Table::Entries, b"k1".to_vec(), b"v".to_vec());
        batch.put(Table::Entries, b"k2".to_vec(), Vec::new());
        batch.remove(Table::Due, b"k3".to_vec());
        batch
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut record = encode(&sample());
        ID.seal(&mut record, 3, 2);
        let head = ID.head(&record).unwrap();
        assert_eq!((head.kind, head.seq, head.synced), (Kind::Batch, 3, 2));
        assert!(ID.is_body(&head, &record[HEAD..]));
        let changes = decode(&Bytes::from(record)).unwrap();
        let changes: Vec<_> = changes
            .iter()
            .map(|(t, k, v)| (*t, &k[..], v.as_deref()))
            .collect();
        assert_eq!(
            changes,
            [
                (Table::Entries, &b"k1"[..], Some(&b"v"[..])),
                (Table::Entries, b"k2", Some(b"")),
                (Table::Due, b"k3", None)
            ]
        );
        assert_eq!(SegmentId::of_header(&ID.header()), Ok(ID));
        assert_eq!(ID.header().len(), HEADER);
    }

    #[test]
    fn one_bit_or_another_segment_and_it_is_no_record() {
        let mut record = encode(&sample());
        ID.seal(&mut record, 3, 2);
        for bit in 0..record.len() * 8 {
            let mut bad = record.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = ID.head(&bad).filter(|head| ID.is_body(head, &bad[HEAD..]));
            assert_eq!(found, None, "bit {bit}");
        }
        for other in [SegmentId { number: 8, ..ID }, SegmentId { salt: 98, ..ID }] {
            assert_eq!(other.head(&record), None);
        }
        for bit in 0..HEADER * 8 {
            let mut bad = ID.header();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentId::of_header(&bad), Err(HeaderFault::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_segment_is_newer() {
        let mut header = ID.header();
        make_newer(&mut header);
        assert_eq!(SegmentId::of_header(&header), Err(HeaderFault::Newer));
    }

    #[test]
    fn a_cut_body_is_none() {
        let record = encode(&sample());
        for cut in HEAD + 1..record.len() {
            // Cut between two tables, what is left is a batch: the length in the head tells.
            let whole = decode(&Bytes::copy_from_slice(&record[..cut]));
            assert!(whole.is_none_or(|changes| changes.len() < 3), "cut at {cut}");
        }
    }
}
