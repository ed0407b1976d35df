//! Reads the journal after a start: which records are there, where the log ends, and whether something is
//! missing that once was on the disk.
//!
//! Invariant: the records that are handed on have the seqs after the base's, without a hole, and are as they
//! were written. A hole ends the log only if nothing proves that it was ever synced: every record says up to
//! where all were on the disk when it was written. If one says so of a record that is not there, opening is
//! refused, and nothing is changed.

use super::files::{Files, fault, segment_name, segment_number};
use super::format::{
    ALIGN, HEAD, HEADER, HeaderFault, Kind, OPENING_AT, RECORDS_AT, RecordHead, SegmentId, aligned,
    looks_like_head,
};
use super::log::Ending;
use crate::embedded::StoreFault;
use crate::embedded::base::Head;
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;

/// A page that nothing was written to.
const UNWRITTEN: [u8; 4096] = [0; 4096];

/// A file of this name and the last record's seq is the operator's word that the log ends there.
const ENDS_AFTER: &str = "journal/ends-after-";

/// A segment whose header is right.
struct Found {
    id: SegmentId,
    name: String,
    /// Bytes of the file.
    length: u64,
    /// The first record that it may hold, if it was begun.
    first: Option<u64>,
}

/// Where something is not as it was written.
#[derive(Debug, Clone)]
struct Place {
    name: String,
    offset: u64,
}

/// What is known of the log while it is read.
struct Reading<'r> {
    /// The record that comes next.
    next: u64,
    /// The highest seq that something said was on the disk, and the same for all that was read so far.
    proven: u64,
    /// Where the next record should stand.
    expected: Option<Place>,
    /// Something else stood there.
    hole: bool,
    unproven: VecDeque<(u64, Bytes)>,
    take: &'r mut dyn FnMut(u64, &Bytes) -> Result<(), StoreFault>,
}

/// Reads the log from where the base ends, handing each record to `take`. Removes what the making of
/// segments left, and changes nothing else.
///
/// A segment is made with `whole` bytes: where the log ends in a shorter one, something was cut off.
pub(super) fn recover(
    files: &dyn Files,
    head: Head,
    whole: u64,
    take: &mut dyn FnMut(u64, &Bytes) -> Result<(), StoreFault>,
) -> Result<Ending, StoreFault> {
    let (found, mut ending) = survey(files, head)?;
    let mut reading = Reading {
        next: head.applied + 1,
        proven: head.applied,
        expected: None,
        hole: false,
        unproven: VecDeque::new(),
        take,
    };
    for (at, segment) in found.iter().enumerate() {
        let voided_from = found[at + 1..].iter().filter_map(|later| later.first).min();
        read_segment(files, segment, voided_from.unwrap_or(u64::MAX), &mut reading)?;
    }
    if is_given_up(files, reading.next - 1)? {
        tracing::warn!(
            last = reading.next - 1,
            "the journal ends here by the operator's word; what came later is lost"
        );
        reading.proven = reading.proven.min(reading.next - 1);
    } else if reading.proven >= reading.next {
        return Err(damaged(files, &reading));
    } else if let Some(place) = &reading.expected
        && let Some(cut) = found
            .iter()
            .find(|one| one.name == place.name && one.length < whole)
    {
        return Err(was_cut(files, cut, reading.next - 1));
    }
    reading.forget_proven();
    ending.last = reading.next - 1;
    ending.synced = reading.proven;
    ending.unsynced = reading.unproven;
    Ok(ending)
}

/// Looks at all names and headers.
fn survey(files: &dyn Files, head: Head) -> Result<(Vec<Found>, Ending), StoreFault> {
    let io = |what: &str, name: &str, error: std::io::Error| fault(files, what, name, &error);
    let mut ending = Ending::default();
    let mut found = Vec::new();
    let mut names = files.names().map_err(|error| io("list", "journal", error))?;
    names.sort();
    for name in names {
        if name.starts_with("journal/") && name.ends_with(".log.new") {
            files.remove(&name).map_err(|error| io("remove", &name, error))?;
        }
        let Some(number) = segment_number(&name) else {
            continue;
        };
        let file = files
            .open(&name, false)
            .map_err(|error| io("open", &name, error))?;
        let length = file.0.len().map_err(|error| io("read", &name, error))?;
        ending.lengths.insert(number, length);
        if number < head.segment {
            // All it held is in the base.
            continue;
        }
        let mut top = vec![0; length.min(RECORDS_AT) as usize];
        file.0
            .read(0, &mut top)
            .map_err(|error| io("read", &name, error))?;
        match SegmentId::of_header(&top) {
            // No segment is ever left without a header: somebody gave it up.
            _ if length == 0 => {}
            Ok(id) if id.number == number => {
                let opening = top
                    .get(OPENING_AT as usize..)
                    .and_then(|opening| id.head(opening));
                let opening = opening.filter(|opening| opening.kind == Kind::Opening);
                let first = opening.map(|opening| opening.seq);
                found.push(Found {
                    id,
                    name,
                    length,
                    first,
                });
            }
            Err(HeaderFault::Newer) => return Err(StoreFault::Newer { what: "the journal" }),
            Ok(_) | Err(HeaderFault::Damaged) => {
                let shown = files.shown(&name);
                let way =
                    format!("run `truncate -s 0 {shown}` and take the segments with higher numbers away");
                return Err(StoreFault::Io(format!(
                    "the journal is damaged: {shown} at byte 0, its header of {HEADER} bytes. {}",
                    advice(&way, head.applied)
                )));
            }
        }
    }
    found.sort_by_key(|segment| segment.id.number);
    if head.segment > 0 && !ending.lengths.contains_key(&head.segment) {
        let shown = files.shown(&segment_name(head.segment));
        let way = "make an empty file of that name and take the segments with higher numbers away";
        return Err(StoreFault::Io(format!(
            "the journal is damaged: {shown} is missing. {}",
            advice(way, head.applied)
        )));
    }
    Ok((found, ending))
}

fn read_segment(
    files: &dyn Files,
    segment: &Found,
    voided_from: u64,
    reading: &mut Reading<'_>,
) -> Result<(), StoreFault> {
    let io = |error| fault(files, "read", &segment.name, &error);
    if let Some(first) = segment.first {
        reading.proven = reading.proven.max(first.saturating_sub(1));
        if first <= reading.next && !reading.hole {
            reading.expect(&segment.name, RECORDS_AT);
        }
    }
    let file = files.open(&segment.name, false).map_err(io)?;
    let mut bytes = vec![0; file.0.len().map_err(io)? as usize];
    file.0.read(0, &mut bytes).map_err(io)?;
    // In what was made ahead and never written to no record begins, though one may end there in zeros.
    let mut written = bytes.as_slice();
    while let Some(before) = written.strip_suffix(&UNWRITTEN) {
        written = before;
    }
    let until = written.len();
    let mut at = RECORDS_AT as usize;
    while let Some((offset, head)) = next_head(&segment.id, &bytes, at..until) {
        let body = bytes.get(offset + HEAD..(offset + HEAD).saturating_add(head.length));
        let whole = body.filter(|body| head.kind == Kind::Batch && segment.id.is_body(&head, body));
        if head.seq < voided_from {
            let record = whole.map(|_| &bytes[offset..offset + HEAD + head.length]);
            reading.record(&head, record, &segment.name, offset as u64)?;
        }
        at = match whole {
            Some(body) => aligned((offset + HEAD + body.len()) as u64) as usize,
            None => offset + ALIGN,
        };
    }
    Ok(())
}

/// The first head that begins in a range, sought at every place where one may.
fn next_head(id: &SegmentId, bytes: &[u8], mut range: Range<usize>) -> Option<(usize, RecordHead)> {
    range.end = range.end.min(bytes.len().saturating_sub(HEAD - 1));
    range
        .step_by(ALIGN)
        .filter(|at| looks_like_head(&bytes[*at..]))
        .find_map(|at| Some((at, id.head(&bytes[at..])?)))
}

impl Reading<'_> {
    fn record(
        &mut self,
        head: &RecordHead,
        record: Option<&[u8]>,
        name: &str,
        offset: u64,
    ) -> Result<(), StoreFault> {
        self.proven = self.proven.max(head.synced);
        self.forget_proven();
        if head.seq < self.next || self.hole {
            return Ok(());
        }
        match record {
            Some(record) if head.seq == self.next => {
                let record = Bytes::copy_from_slice(record);
                (self.take)(head.seq, &record)?;
                self.expect(name, aligned(offset + record.len() as u64));
                self.next += 1;
                if head.seq > self.proven {
                    self.unproven.push_back((head.seq, record));
                }
            }
            _ => self.hole = true,
        }
        Ok(())
    }

    fn expect(&mut self, name: &str, offset: u64) {
        let name = name.to_owned();
        self.expected = Some(Place { name, offset });
    }

    fn forget_proven(&mut self) {
        while self
            .unproven
            .pop_front_if(|(seq, _)| *seq <= self.proven)
            .is_some()
        {}
    }
}

/// A record that was on the disk is not there.
fn damaged(files: &dyn Files, reading: &Reading<'_>) -> StoreFault {
    let missing = reading.next;
    let at = match &reading.expected {
        Some(Place { name, offset }) => format!("{} at byte {offset}", files.shown(name)),
        None => "its segment is missing".to_owned(),
    };
    StoreFault::Io(format!(
        "the journal is damaged: record {missing} ({at}), though it was on the disk when later ones were \
         written, up to {}. {}",
        reading.proven,
        advice(&end_here(files, missing - 1), missing - 1)
    ))
}

/// The file is shorter than it was made, and nothing says that what was cut off was never written.
fn was_cut(files: &dyn Files, segment: &Found, last: u64) -> StoreFault {
    StoreFault::Io(format!(
        "the journal is damaged: {} was cut at byte {}; records after {last} may have stood there. {}",
        files.shown(&segment.name),
        segment.length,
        advice(&end_here(files, last), last)
    ))
}

fn end_here(files: &dyn Files, last: u64) -> String {
    format!("run `touch {}`", files.shown(&format!("{ENDS_AFTER}{last}")))
}

fn is_given_up(files: &dyn Files, last: u64) -> Result<bool, StoreFault> {
    let names = files.names();
    let names = names.map_err(|error| fault(files, "list", "journal", &error))?;
    Ok(names.contains(&format!("{ENDS_AFTER}{last}")))
}

/// Takes the operator's word away, once a segment is begun that makes it so.
pub(super) fn forget_endings(files: &dyn Files) -> std::io::Result<()> {
    let names = files.names()?;
    let mut endings = names.iter().filter(|name| name.starts_with(ENDS_AFTER));
    endings.try_for_each(|name| files.remove(name))
}

fn advice(way: &str, kept: u64) -> String {
    format!(
        "Nothing was changed. Restore the whole data directory from a backup; or, to go on with the records \
         up to {kept} and lose all later ones, {way}"
    )
}
