//! Users as CSV (RFC 4180): a header that names the columns, then a record for every user.
//!
//! An empty cell stands for a field that is not there. In the column `topics` it stands for none: the column says
//! which topics a user is a member of, so without it they are left as they are.
//!
//! Invariant: a record is held only up to its bound. One that is longer, or has more cells than the header, is
//! reported once, and the next begins where it ends.

mod columns;
mod record;

use super::{UserFault, UserLine};
use crate::InputFault;
use bytes::{Buf as _, Bytes};
use columns::{COLUMNS, Column, header, user_of};
use csv_core::Reader;
use record::Record;

/// What editors put at the begin of a file (a byte order mark) is no part of it.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads users record by record.
pub struct CsvUsers {
    reader: Reader,
    /// So many bytes of the mark have come; `None`: it is over, or there is none.
    marked: Option<usize>,
    /// What of the last piece has not been looked at.
    piece: Bytes,
    columns: Option<Vec<Column>>,
    record: Record,
    /// Line breaks that were passed.
    breaks: u64,
    end: End,
}

/// How far the end of the input is told to the parser.
#[derive(Debug, PartialEq)]
enum End {
    /// It has not come.
    Open,
    /// It has come.
    Finished,
    /// The parser was given a line break of ours, to see whether a quote is open.
    Probed,
    /// There is nothing more.
    Over,
}

impl Default for CsvUsers {
    fn default() -> CsvUsers {
        let mut reader = Reader::new();
        // The parser looks for a mark in its first input only, which may hold a part of it: it gets a blank line there.
        let (mut text, mut ends) = ([0; 8], [0; 8]);
        reader.read_record(b"\n", &mut text, &mut ends);
        CsvUsers {
            reader,
            marked: Some(0),
            piece: Bytes::new(),
            columns: None,
            record: Record::default(),
            breaks: 0,
            end: End::Open,
        }
    }
}

impl std::fmt::Debug for CsvUsers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CsvUsers")
            .field("columns", &self.columns)
            .finish()
    }
}

impl CsvUsers {
    /// See [`UserReader`](super::UserReader).
    pub fn push(&mut self, bytes: Bytes) {
        self.piece = bytes;
    }

    /// See [`UserReader`](super::UserReader).
    pub fn finish(&mut self) {
        if self.end == End::Open {
            self.end = End::Finished;
        }
    }

    /// Whether the header was read, and is good.
    pub fn has_header(&self) -> bool {
        self.columns.is_some()
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.piece.len() + self.record.held()
    }

    /// The next user of what has come; an error is one of the header.
    pub fn take(&mut self) -> Result<Option<UserLine>, UserFault> {
        while let Some(whole) = self.next_record() {
            let Record { begins, bytes, .. } = self.record;
            let cells = self.record.cells();
            let Some(columns) = &self.columns else {
                self.columns = Some(header(whole.and(cells))?);
                self.record.clear();
                continue;
            };
            let user = whole.and(cells).map_err(UserFault::from);
            let user = user.and_then(|cells| user_of(columns, &cells));
            self.record.clear();
            return Ok(Some(UserLine {
                number: begins,
                bytes,
                user,
            }));
        }
        match (&self.columns, &self.end) {
            (None, End::Over) => {
                let detail = format!("there is no header. The first line names the columns: {COLUMNS}");
                Err(InputFault::invalid(detail).into())
            }
            _ => Ok(None),
        }
    }

    /// Reads to the end of a record, and says whether it is whole. `None`: more input is needed, or there is none.
    fn next_record(&mut self) -> Option<Result<(), InputFault>> {
        self.skip_mark();
        loop {
            if self.record.begins == 0 {
                self.skip_breaks();
            }
            if !self.piece.is_empty() {
                if self.record.begins == 0 {
                    self.record.begins = self.breaks + 1;
                }
                let (ended, used) = self.record.read(&mut self.reader, &self.piece);
                self.breaks += count_breaks(&self.piece[..used]);
                self.piece.advance(used);
                if ended {
                    return Some(self.record.within_bounds());
                }
                continue;
            }
            match self.end {
                End::Finished if self.record.begins > 0 => {
                    self.end = End::Probed;
                    if self.record.read(&mut self.reader, b"\n").0 {
                        self.end = End::Over;
                        return Some(self.record.within_bounds());
                    }
                }
                End::Probed => {
                    self.end = End::Over;
                    let detail =
                        "a quote is opened in this record and not closed before the end of the input";
                    return Some(Err(InputFault::invalid(detail)));
                }
                End::Finished => self.end = End::Over,
                End::Open | End::Over => return None,
            }
        }
    }

    /// Passes over the mark. What only began like one is put back.
    fn skip_mark(&mut self) {
        let Some(marked) = &mut self.marked else {
            return;
        };
        let came = self.piece.iter().zip(&MARK[*marked..]);
        let more = came.take_while(|(byte, of_mark)| byte == of_mark).count();
        *marked += more;
        self.piece.advance(more);
        if *marked == MARK.len() {
            self.marked = None;
        } else if !self.piece.is_empty() || self.end != End::Open {
            self.piece = [&MARK[..*marked], &self.piece].concat().into();
            self.marked = None;
        }
    }

    /// Blank lines are no records.
    fn skip_breaks(&mut self) {
        let is_break = |b: &u8| matches!(b, b'\r' | b'\n');
        let blank = self.piece.iter().take_while(|b| is_break(b)).count();
        self.breaks += count_breaks(&self.piece[..blank]);
        self.piece.advance(blank);
    }
}

fn count_breaks(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
