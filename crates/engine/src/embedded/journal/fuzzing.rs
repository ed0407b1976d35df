//! A segment as a damaged disk may give it back: records of any bodies, then bytes of it changed.

use super::files::{Files, Handle, segment_name};
use super::format::{self, HEAD, OPENING_AT, RECORDS_AT, SegmentId, aligned};
use super::recover::recover;
use crate::embedded::base::Head;
use crate::embedded::store::{Batch, Table};
use bytes::Bytes;
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

const ID: SegmentId = SegmentId {
    number: 1,
    salt: 0x5eed_5eed_5eed_5eed,
};
/// Where the records of an input end and its changes begin.
const CHANGES: u8 = 0xFF;
/// A segment is made so long; what the records take beyond it makes it longer.
const WHOLE: u64 = 16 * 1024;

/// The first part of the input are records, each a length and a body; after a byte `ff` come changes, each a place
/// and what to flip there. What is recovered are the first records, as they were written; none is missing that a
/// whole record proves to have been on the disk; and a body that is no batch is known as none.
pub fn journal(data: &[u8]) {
    let (bodies, changes) = parts(data);
    let (mut image, places) = image(&bodies);
    let mut touched = vec![false; bodies.len()];
    let mut is_changed = false;
    for change in changes {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % image.len();
        image[at] ^= change[2];
        is_changed |= change[2] != 0;
        for (touched, place) in touched.iter_mut().zip(&places) {
            *touched |= place.contains(&at);
        }
    }
    let mut found = 0;
    let files = OneSegment(Arc::new(Image(Mutex::new(image))));
    let head = Head {
        segment: ID.number,
        ..Head::default()
    };
    let ending = recover(&files, head, WHOLE, &mut |seq, record| {
        assert_eq!(seq, found as u64 + 1, "a hole, or another order");
        assert_eq!(
            record[HEAD..],
            *bodies[found],
            "record {seq} is not as it was written"
        );
        assert_batch(record);
        found += 1;
        Ok(())
    });
    match ending {
        Err(_) => assert!(is_changed, "an unchanged journal is refused"),
        Ok(ending) => {
            assert_eq!(ending.last, found as u64);
            assert!(
                is_changed || found == bodies.len(),
                "an unchanged record is not found"
            );
            // Each record says that those before it are on the disk.
            let proven = touched.iter().rposition(|touched| !touched).unwrap_or(0);
            assert!(
                found >= proven,
                "{found} of {proven} that were on the disk, and no word of it"
            );
        }
    }
}

/// A body that is read as a batch is, written anew, the same batch.
fn assert_batch(record: &Bytes) {
    let Some(changes) = format::decode(record) else {
        return;
    };
    let rows = |changes: Vec<format::Change>| {
        let rows = changes
            .into_iter()
            .map(|(table, key, value)| ((table as usize, key), value));
        rows.collect::<BTreeMap<_, _>>()
    };
    let rows_read = rows(changes);
    let mut batch = Batch::default();
    for ((table, key), value) in &rows_read {
        let (table, key) = (Table::ALL[*table], key.to_vec());
        match value {
            Some(value) => batch.put(table, key, value.to_vec()),
            None => batch.remove(table, key),
        }
    }
    let again = format::decode(&Bytes::from(format::encode(&batch)));
    assert_eq!(again.map(rows), Some(rows_read));
}

fn parts(data: &[u8]) -> (Vec<&[u8]>, impl Iterator<Item = &[u8]>) {
    let mut bodies = Vec::new();
    let mut rest = data;
    while let [length, after @ ..] = rest {
        rest = after;
        if *length == CHANGES {
            break;
        }
        let (body, after) = rest.split_at(rest.len().min(usize::from(*length)));
        bodies.push(body);
        rest = after;
    }
    (bodies, rest.chunks_exact(3))
}

/// The segment, and where each record stands in it.
fn image(bodies: &[&[u8]]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut image = ID.header();
    image.resize(OPENING_AT as usize, 0);
    image.extend(ID.opening(1));
    image.resize(RECORDS_AT as usize, 0);
    let mut places = Vec::new();
    for (i, body) in bodies.iter().enumerate() {
        let mut record = vec![0; HEAD];
        record.extend_from_slice(body);
        ID.seal(&mut record, i as u64 + 1, i as u64);
        places.push(image.len()..image.len() + record.len());
        image.extend(record);
        image.resize(aligned(image.len() as u64) as usize, 0);
    }
    image.resize(image.len().max(WHOLE as usize), 0);
    (image, places)
}

/// A directory with one segment in it, in memory.
struct OneSegment(Arc<Image>);

#[derive(Debug)]
struct Image(Mutex<Vec<u8>>);

impl Files for OneSegment {
    fn shown(&self, name: &str) -> String {
        name.to_owned()
    }
    fn open(&self, _: &str, _: bool) -> io::Result<Handle> {
        Ok(Handle(self.0.clone()))
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn taken(&self, _: &str) -> io::Result<u64> {
        self.0.len()
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(vec![segment_name(ID.number)])
    }
    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
    fn random(&self) -> io::Result<u64> {
        Ok(0)
    }
}

impl StorageBackend for Image {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let image = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = image
            .get(offset as usize..)
            .and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
