//! A file, or standard input, in pieces of whole records that go out in one request each.
//!
//! Invariant: every record is in exactly one piece, in order, and each piece knows the number of its first line. A piece
//! waits for nobody: what has been read goes out once no more is there, so that a slow writer's lines are not held back.

mod csv;

use crate::exit::Failure;
use anyhow::{Context as _, anyhow};
use csv::CsvRecords;
use std::io::{BufRead, BufReader, Read as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Records of one piece, at most.
const PIECE_RECORDS: usize = 1000;
/// Bytes of one piece, about.
const PIECE_BYTES: usize = 4 << 20;
/// A record that is longer ends the reading: no node takes it.
const LINE_BYTES: usize = 16 << 20;
/// Records that are read ahead.
const RECORDS_AHEAD: usize = 64;
/// For so long a piece that has begun waits for more.
const LINGER: Duration = Duration::from_millis(20);

/// How records stand in the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// One a line.
    Lines,
    /// CSV: a quoted cell may go on over the end of its line; the first record names the columns.
    Csv,
}

/// Records that go out together.
#[derive(Debug, Default)]
pub struct Piece {
    /// The records with their ends.
    pub text: Vec<u8>,
    /// The number of the first line, from 1.
    pub first: u64,
    /// How many lines there are; of CSV how many line feeds, which is what a node counts.
    pub lines: u64,
}

/// What is read.
pub struct Input {
    coming: Receiver<std::io::Result<Vec<u8>>>,
    records: Records,
    next: u64,
    /// Bytes that have been given out.
    pub given: u64,
    /// Bytes that there are; `None` where that is not known.
    pub size: Option<u64>,
}

/// Opens a file, or standard input for `-`.
pub fn open(name: &str) -> Result<(Box<dyn BufRead + Send>, Option<u64>), Failure> {
    if name == "-" {
        return Ok((Box::new(BufReader::new(std::io::stdin())), None));
    }
    let file = std::fs::File::open(name).with_context(|| format!("{name} cannot be read"))?;
    let meta = file
        .metadata()
        .with_context(|| format!("{name} cannot be read"))?;
    let size = meta.is_file().then_some(meta.len());
    Ok((Box::new(BufReader::with_capacity(1 << 18, file)), size))
}

impl Input {
    /// Begins to read.
    pub fn begin(name: &str, records: Records) -> Result<Input, Failure> {
        let (reader, size) = open(name)?;
        let (taken, coming) = sync_channel(RECORDS_AHEAD);
        let read = move || hand_over(reader, records, &taken);
        std::thread::Builder::new().name("input".into()).spawn(read)?;
        Ok(Input {
            coming,
            records,
            next: 1,
            given: 0,
            size,
        })
    }

    /// The first record of CSV, which names the columns.
    pub fn header(&mut self) -> Result<Option<Piece>, Failure> {
        self.piece_of(1)
    }

    /// What comes next; `None` at the end.
    pub fn piece(&mut self) -> Result<Option<Piece>, Failure> {
        self.piece_of(PIECE_RECORDS)
    }

    fn piece_of(&mut self, most: usize) -> Result<Option<Piece>, Failure> {
        let mut piece = Piece {
            first: self.next,
            ..Piece::default()
        };
        let mut count = 0;
        while count < most && piece.text.len() < PIECE_BYTES {
            let record = match count {
                0 => self.coming.recv().map_err(|_| RecvTimeoutError::Disconnected),
                _ => self.coming.recv_timeout(LINGER),
            };
            let Ok(record) = record else { break };
            let record = record.with_context(|| format!("line {} cannot be read", self.next))?;
            let lines = match self.records {
                Records::Lines => 1,
                Records::Csv => record.iter().filter(|b| **b == b'\n').count() as u64,
            };
            count += 1;
            self.next += lines;
            self.given += record.len() as u64;
            piece.lines += lines;
            piece.text.extend_from_slice(&record);
        }
        Ok((count > 0).then_some(piece))
    }
}

/// Reads to the end, to a fault, or until nobody wants more.
fn hand_over(
    mut reader: Box<dyn BufRead + Send>,
    records: Records,
    taken: &SyncSender<std::io::Result<Vec<u8>>>,
) {
    let mut next: Box<dyn FnMut() -> std::io::Result<Vec<u8>>> = match records {
        Records::Lines => Box::new(move || line(&mut reader)),
        Records::Csv => match CsvRecords::begin(reader) {
            Ok(mut records) => Box::new(move || records.next()),
            // Who no longer listens needs no fault.
            Err(error) => return taken.send(Err(error)).unwrap_or_default(),
        },
    };
    loop {
        let record = next();
        let is_last = record.is_err();
        // A blank line has its end with it: nothing at all is the end of the input.
        if record.as_ref().is_ok_and(Vec::is_empty) || taken.send(record).is_err() || is_last {
            return;
        }
    }
}

/// A line with its end; empty at the end of the input.
fn line(reader: &mut dyn BufRead) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut bounded = reader.take(LINE_BYTES as u64 + 1);
    bounded.read_until(b'\n', &mut line)?;
    match line.len() > LINE_BYTES {
        true => Err(std::io::Error::other(anyhow!("it is longer than 16 MiB"))),
        false => Ok(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn input(text: &str, records: Records) -> (tempfile::NamedTempFile, Input) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let input = Input::begin(file.path().to_str().unwrap(), records).unwrap();
        (file, input)
    }

    fn pieces(mut input: Input) -> Vec<(u64, u64, String)> {
        let mut found = Vec::new();
        while let Some(piece) = input.piece().unwrap() {
            found.push((piece.first, piece.lines, String::from_utf8(piece.text).unwrap()));
        }
        found
    }

    #[test]
    fn every_line_is_in_one_piece() {
        let text: String = (1..=2500).map(|n| format!("line {n}\n")).collect();
        let text = text + "\nlast, without an end";
        let (_file, read) = input(&text, Records::Lines);
        let found = pieces(read);
        let whole: String = found.iter().map(|(_, _, text)| text.as_str()).collect();
        assert_eq!(whole, text);
        let mut next = 1;
        for (first, lines, text) in &found {
            assert_eq!((*first, *lines as usize), (next, text.lines().count()));
            assert!(*lines as usize <= PIECE_RECORDS);
            next += lines;
        }
    }

    #[test]
    fn a_record_of_csv_is_not_cut() {
        let mut text = String::from("id,\"a\nb\"\n");
        let mut records = Vec::new();
        for n in 0..999 {
            records.push(format!("u{n},x\n"));
        }
        records.push("long,\"one\ntwo \"\"three\"\"\nfour\"\n".into());
        records.push("last,y\n".into());
        text += &records.concat();
        let (_file, mut read) = input(&text, Records::Csv);
        let header = read.header().unwrap().unwrap();
        assert_eq!((header.first, header.lines), (1, 2));
        let found = pieces(read);
        assert_eq!(found[0].0, 3);
        assert!(
            found
                .iter()
                .all(|(_, _, text)| text.matches('"').count() % 2 == 0),
            "{found:?}"
        );
        assert_eq!(found.iter().map(|(_, lines, _)| lines).sum::<u64>(), 999 + 3 + 1);
    }
}
