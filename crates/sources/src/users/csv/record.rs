//! One record of CSV while it is being read.
//!
//! Invariant: it never holds more than its bounds; of what is longer nothing is kept.

use super::super::LINE_BYTES;
use super::columns::MAX_COLUMNS;
use crate::InputFault;
use csv_core::{ReadRecordResult, Reader};

/// The record that is being read.
#[derive(Debug, Default)]
pub struct Record {
    /// The cells' bytes, one after another, and where each ends.
    text: Vec<u8>,
    ends: Vec<usize>,
    text_used: usize,
    ends_used: usize,
    /// The line at which it begins; 0 between records.
    pub begins: u64,
    /// Bytes of the input that it took.
    pub bytes: usize,
    /// It is over a bound, and is read to its end only.
    too_large: bool,
}

impl Record {
    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.text.capacity()
    }

    /// Reads some of the input into it: whether it has ended, and how much was read.
    pub fn read(&mut self, reader: &mut Reader, input: &[u8]) -> (bool, usize) {
        let mut used = 0;
        loop {
            let (text, ends) = (&mut self.text[self.text_used..], &mut self.ends[self.ends_used..]);
            let (result, read, wrote, ended) = reader.read_record(&input[used..], text, ends);
            used += read;
            self.bytes += read;
            self.text_used += wrote;
            self.ends_used += ended;
            match result {
                ReadRecordResult::InputEmpty if used < input.len() => {}
                ReadRecordResult::InputEmpty => return (false, used),
                ReadRecordResult::OutputFull => self.more_text(),
                ReadRecordResult::OutputEndsFull => self.more_cells(),
                ReadRecordResult::Record | ReadRecordResult::End => return (true, used),
            }
        }
    }

    fn more_text(&mut self) {
        if self.text.len() < LINE_BYTES {
            self.text.resize((self.text.len() * 2).clamp(1024, LINE_BYTES), 0);
        } else {
            (self.too_large, self.text_used) = (true, 0);
        }
    }

    fn more_cells(&mut self) {
        if self.ends.len() <= MAX_COLUMNS {
            self.ends
                .resize((self.ends.len() * 2).clamp(16, MAX_COLUMNS + 1), 0);
        } else {
            (self.too_large, self.ends_used) = (true, 0);
        }
    }

    /// Refuses one that is over a bound.
    pub fn within_bounds(&self) -> Result<(), InputFault> {
        if self.too_large {
            let detail = format!(
                "the record has more than {LINE_BYTES} bytes, or more than {MAX_COLUMNS} cells; perhaps a quote was not closed"
            );
            return Err(InputFault::too_large(None, detail));
        }
        Ok(())
    }

    /// The cells, which have to be text.
    pub fn cells(&self) -> Result<Vec<&str>, InputFault> {
        if self.too_large {
            return Ok(Vec::new());
        }
        let mut from = 0;
        let ends = self.ends[..self.ends_used].iter();
        let cells = ends.map(|&end| {
            let cell = std::str::from_utf8(&self.text[from..end]);
            from = end;
            cell.map_err(|_| InputFault::invalid("a cell is not UTF-8"))
        });
        cells.collect()
    }

    /// Makes room for the next; what it took is kept, within the bounds.
    pub fn clear(&mut self) {
        (self.text_used, self.ends_used, self.begins, self.bytes) = (0, 0, 0, 0);
        self.too_large = false;
    }
}
