//! The journal's writer: puts records into segments, one after the other, and knows which of them are on
//! the disk.
//!
//! Invariant: seqs rise by one, and once anything was taken after a record that was refused, that record
//! never comes back. After a failed write or
//! sync nobody knows what the segment's tail holds, and pages of a failed sync are not trusted: the segment
//! is given up, and nothing is taken until another one is on the disk whose opening voids the tail, with
//! copies of the records that were not synced.

use super::Bounds;
use super::files::{Files, Handle, fault, segment_name};
use super::format::{HEAD, MAX_BODY, OPENING_AT, RECORDS_AT, SegmentId, aligned};
use crate::embedded::StoreFault;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;

/// Retired segments that are kept to be used anew: the next one is asked for while one is being filled.
const KEPT_SEGMENTS: usize = 2;

/// A segment that is written to, or will be.
pub(super) struct Segment {
    id: SegmentId,
    file: Handle,
    /// Where the next record goes.
    at: u64,
    /// Something was written since the last sync.
    dirty: bool,
}

impl Segment {
    pub fn number(&self) -> u64 {
        self.id.number
    }
}

/// The writer. Whoever has it is the only one.
pub(super) struct Log {
    files: Arc<dyn Files>,
    bounds: Bounds,
    /// `None` after a failure, until another segment is begun.
    current: Option<Segment>,
    /// Made ahead, so that going over to it costs nothing.
    spare: Option<Segment>,
    /// A spare was asked for since the current one began.
    asked: bool,
    /// The number of the segment that was begun last.
    begun: u64,
    next_number: u64,
    /// The last record that was taken.
    last: u64,
    /// All records up to this one are on the disk.
    synced: u64,
    /// Those after it, each with its head.
    unsynced: VecDeque<(u64, Bytes)>,
    unsynced_bytes: usize,
    /// The files there are, by number, and their lengths.
    lengths: BTreeMap<u64, u64>,
    /// Those of them that nobody needs, and that wait to be used anew: their blocks are a room that a disk
    /// cannot refuse.
    kept: BTreeSet<u64>,
}

/// Where the log was found to end.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// The last record.
    pub last: u64,
    /// All records up to this one are known to be on the disk.
    pub synced: u64,
    /// Those after it.
    pub unsynced: VecDeque<(u64, Bytes)>,
    /// The segments' files, and their lengths.
    pub lengths: BTreeMap<u64, u64>,
}

impl Log {
    /// Goes on after what was found, in a segment to be begun: see [`Log::heal`].
    pub fn resume(files: Arc<dyn Files>, bounds: Bounds, begun: u64, ending: Ending) -> Log {
        let highest = ending.lengths.keys().next_back().copied().unwrap_or(0);
        Log {
            files,
            bounds,
            current: None,
            spare: None,
            asked: false,
            begun,
            next_number: highest.max(begun) + 1,
            last: ending.last,
            synced: ending.synced,
            unsynced_bytes: ending.unsynced.iter().map(|(_, record)| record.len()).sum(),
            unsynced: ending.unsynced,
            lengths: ending.lengths,
            kept: BTreeSet::new(),
        }
    }

    pub fn last(&self) -> u64 {
        self.last
    }

    /// The segment at or after which the next record will stand.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Bytes of all segments.
    pub fn file_bytes(&self) -> u64 {
        self.lengths.values().sum()
    }

    /// Appends a record (room for a head, and a body), and with `sync` brings all to the disk. Returns its
    /// seq, and the record.
    pub fn append(&mut self, mut record: Vec<u8>, sync: bool) -> Result<(u64, Bytes), StoreFault> {
        if record.len() - HEAD > MAX_BODY {
            return Err(StoreFault::Refused(format!(
                "a commit of {} bytes is too large for the journal",
                record.len()
            )));
        }
        self.heal()?;
        let seq = self.last + 1;
        let crowded = self.unsynced_bytes + record.len() > self.bounds.unsynced;
        self.failing(|log| {
            log.rotate(record.len() as u64)?;
            log.put(seq, &mut record)?;
            if sync || crowded {
                log.sync_current()
            } else {
                Ok(())
            }
        })?;
        let record = Bytes::from(record);
        self.last = seq;
        if sync || crowded {
            self.note_synced(seq);
        } else {
            self.unsynced_bytes += record.len();
            self.unsynced.push_back((seq, record.clone()));
        }
        Ok((seq, record))
    }

    /// Brings all that was appended to the disk.
    pub fn sync(&mut self) -> Result<(), StoreFault> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        self.heal()?;
        self.failing(Log::sync_current)?;
        self.note_synced(self.last);
        Ok(())
    }

    /// All up to `seq` is on the disk, here or in the base.
    pub fn note_synced(&mut self, seq: u64) {
        self.synced = self.synced.max(seq);
        while let Some((_, record)) = self.unsynced.pop_front_if(|(next, _)| *next <= seq) {
            self.unsynced_bytes -= record.len();
        }
    }

    /// Begins a segment where there is none. First copies of what was not synced are brought to the disk,
    /// then the opening that voids everything else from there on; only then is anything taken again.
    pub fn heal(&mut self) -> Result<(), StoreFault> {
        if self.current.is_some() {
            return Ok(());
        }
        let segment = self.next_segment()?;
        let number = segment.number();
        let healed = self.failing(|log| {
            log.current = Some(segment);
            for at in 0..log.unsynced.len() {
                let (seq, record) = &log.unsynced[at];
                let (seq, mut copy) = (*seq, record.to_vec());
                log.put(seq, &mut copy)?;
            }
            log.sync_current()?;
            log.write_opening(log.synced + 1)?;
            log.sync_current()
        });
        if healed.is_err() {
            self.forget(number);
            return healed;
        }
        self.begun = number;
        self.note_synced(self.last);
        Ok(())
    }

    /// Runs something that writes. The segment it failed in is not written to again.
    fn failing<T>(&mut self, run: impl FnOnce(&mut Log) -> Result<T, StoreFault>) -> Result<T, StoreFault> {
        run(self).inspect_err(|_| self.current = None)
    }

    /// Goes over to the next segment where this one has no room for so many bytes.
    fn rotate(&mut self, room: u64) -> Result<(), StoreFault> {
        let full = |segment: &Segment| segment.at > RECORDS_AT && segment.at + room > self.bounds.segment;
        if !self.current.as_ref().is_some_and(full) {
            return Ok(());
        }
        // Nothing of the next may be on the disk without all of this one.
        self.sync_current()?;
        self.note_synced(self.last);
        self.current = Some(self.next_segment()?);
        self.write_opening(self.last + 1)?;
        self.begun = self.current.as_ref().map_or(self.begun, Segment::number);
        Ok(())
    }

    fn write_opening(&mut self, first: u64) -> Result<(), StoreFault> {
        let Some(segment) = &mut self.current else {
            return Err(no_segment());
        };
        segment.dirty = true;
        let written = segment.file.0.write(OPENING_AT, &segment.id.opening(first));
        written.map_err(|error| fault(&*self.files, "write", &segment_name(segment.id.number), &error))
    }

    fn put(&mut self, seq: u64, record: &mut [u8]) -> Result<(), StoreFault> {
        let Some(segment) = &mut self.current else {
            return Err(no_segment());
        };
        segment.id.seal(record, seq, self.synced);
        segment.dirty = true;
        let number = segment.number();
        segment
            .file
            .0
            .write(segment.at, record)
            .map_err(|error| fault(&*self.files, "write", &segment_name(number), &error))?;
        segment.at = aligned(segment.at + record.len() as u64);
        let length = self.lengths.entry(number).or_default();
        *length = segment.at.max(*length);
        Ok(())
    }

    fn sync_current(&mut self) -> Result<(), StoreFault> {
        let Some(segment) = self.current.as_mut().filter(|segment| segment.dirty) else {
            return Ok(());
        };
        let synced = segment.file.0.sync_data();
        synced.map_err(|error| fault(&*self.files, "sync", &segment_name(segment.id.number), &error))?;
        segment.dirty = false;
        Ok(())
    }

    fn next_segment(&mut self) -> Result<Segment, StoreFault> {
        self.asked = false;
        if let Some(spare) = self.spare.take() {
            return Ok(spare);
        }
        let (number, old) = (self.take_number(), self.take_kept());
        let old = old.map(segment_name);
        let segment = make_segment(&*self.files, self.bounds.segment, number, old.as_deref())?;
        self.lengths.insert(number, self.bounds.segment);
        Ok(segment)
    }

    /// Takes away a segment that could not be begun. Where even that fails a checkpoint will do it.
    fn forget(&mut self, number: u64) {
        if self.files.remove(&segment_name(number)).is_ok() {
            self.lengths.remove(&number);
        }
    }

    /// Whether a spare segment should be made now. Says so once per segment.
    pub fn wants_spare(&mut self) -> bool {
        let half = |segment: &Segment| segment.at > self.bounds.segment / 2;
        let wanted = !self.asked && self.spare.is_none() && self.current.as_ref().is_some_and(half);
        self.asked |= wanted;
        wanted
    }

    /// A number that no segment had.
    pub fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// Takes a spare. One that came too late stays among the retired.
    pub fn add_spare(&mut self, spare: Segment) {
        let number = spare.number();
        self.lengths.insert(number, self.bounds.segment);
        if number > self.begun {
            self.spare = Some(spare);
        }
    }

    /// No record in the segments before this one is needed, and the base that has them all is on the disk:
    /// a few are kept to be used anew, the others are taken away.
    pub fn retire(&mut self, before: u64) {
        let retired: Vec<u64> = self.lengths.range(..before).map(|(number, _)| *number).collect();
        for number in retired {
            if self.kept.contains(&number) {
                continue;
            }
            // Only one whose blocks are all there: writing it anew must not have to allocate any.
            let whole = self
                .lengths
                .get(&number)
                .is_some_and(|length| *length >= self.bounds.segment);
            if whole && self.kept.len() < KEPT_SEGMENTS {
                self.kept.insert(number);
                continue;
            }
            let name = segment_name(number);
            match self.files.remove(&name) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(%error, name, "a segment that is not needed could not be removed");
                }
                _ => drop(self.lengths.remove(&number)),
            }
        }
    }

    /// A segment to be made into another one; whatever becomes of that, it is this one no more.
    pub fn take_kept(&mut self) -> Option<u64> {
        let number = self.kept.pop_first()?;
        self.lengths.remove(&number);
        Some(number)
    }
}

fn no_segment() -> StoreFault {
    StoreFault::Io("the journal has no segment".to_owned())
}

/// Writes zeros, so that no later sync has to allocate blocks, or to tell the file system that they were
/// written: a record's bytes are all that such a sync brings to the disk.
fn fill(file: &Handle, length: u64) -> std::io::Result<()> {
    file.0.set_len(length)?;
    // In one piece: such a write is synced once.
    file.0.write(0, &vec![0; length as usize])
}

/// Makes a segment under its name, with nothing in it but a header that is on the disk; from the file
/// `old` if there is one, whose blocks need no allocating.
pub(super) fn make_segment(
    files: &dyn Files,
    length: u64,
    number: u64,
    old: Option<&str>,
) -> Result<Segment, StoreFault> {
    let name = segment_name(number);
    // Under another name first: a segment's name always stands for a whole header.
    let new = format!("{name}.new");
    let make = || {
        let file = match old {
            None => files.open(&new, true)?,
            Some(old) => {
                files.rename(old, &new)?;
                files.sync_names()?;
                files.open(&new, false)?
            }
        };
        let salt = files.random()?;
        let id = SegmentId { number, salt };
        match old {
            Some(_) => file.0.set_len(length)?,
            None => fill(&file, length)?,
        }
        file.0.write(0, &id.header())?;
        file.0.sync_data()?;
        files.rename(&new, &name)?;
        files.sync_names()?;
        Ok(Segment {
            id,
            file,
            at: RECORDS_AT,
            dirty: false,
        })
    };
    make().map_err(|error| {
        let fault = fault(files, "make", &name, &error);
        for left in [&new, &name] {
            if let Err(error) = files.remove(left)
                && error.kind() != ErrorKind::NotFound
            {
                tracing::warn!(%error, left, "a file of the journal could not be removed");
            }
        }
        fault
    })
}
