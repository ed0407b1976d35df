//! Where the records of CSV end, as a node sees it.
//!
//! Invariant: the texts, one after another, are the input. Each holds one record and what is blank before it; the last
//! may be blank altogether. The parser is the one that nodes use, for its reading of stray quotes is nobody else's.

use super::LINE_BYTES;
use anyhow::anyhow;
use csv_core::{ReadRecordResult, Reader};
use std::io::{BufRead, Chain, Cursor, ErrorKind, Read as _, Result};

/// What editors put at the begin of a file (a byte order mark) is no part of its first cell.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The records of an input.
pub struct CsvRecords<R> {
    /// The mark, until it is given out.
    mark: Vec<u8>,
    input: Chain<Cursor<Vec<u8>>, R>,
    parser: Reader,
}

impl<R: BufRead> CsvRecords<R> {
    /// Looks at the begin of the input.
    pub fn begin(mut input: R) -> Result<CsvRecords<R>> {
        let mut mark = Vec::new();
        input.by_ref().take(MARK.len() as u64).read_to_end(&mut mark)?;
        let begun = match mark == MARK {
            true => Vec::new(),
            false => std::mem::take(&mut mark),
        };
        let mut parser = Reader::new();
        // The parser passes over a mark in its first input: a second one is text.
        is_ended(&mut parser, b"\n");
        Ok(CsvRecords {
            mark,
            input: Cursor::new(begun).chain(input),
            parser,
        })
    }

    /// The next one's text; empty at the end of the input.
    pub fn next(&mut self) -> Result<Vec<u8>> {
        let mut text = std::mem::take(&mut self.mark);
        let mut is_begun = false;
        loop {
            let came = match self.input.fill_buf() {
                Ok(came) => came,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if came.is_empty() {
                return Ok(text);
            }
            let (used, ended) = match is_begun {
                true => read(&mut self.parser, came),
                false => (blank(came), false),
            };
            text.extend_from_slice(&came[..used]);
            is_begun |= used < came.len();
            self.input.consume(used);
            if text.len() > LINE_BYTES {
                let detail = "the record is longer than 16 MiB; perhaps a quote was not closed";
                return Err(std::io::Error::other(anyhow!(detail)));
            }
            if ended {
                return Ok(text);
            }
        }
    }
}

/// How much of the input belongs to the record, and whether it ends there.
fn read(parser: &mut Reader, input: &[u8]) -> (usize, bool) {
    let (mut used, mut ended) = (0, false);
    while used < input.len() && !ended {
        let (read, end) = is_ended(parser, &input[used..]);
        (used, ended) = (used + read, end);
    }
    // A line feed after a carriage return is of the same line, if it is there already.
    let is_line_feed = ended && input[used - 1] == b'\r' && input.get(used) == Some(&b'\n');
    (used + usize::from(is_line_feed), ended)
}

/// Some of the input, which is not empty: how much was read, and whether the record ends there. Its cells are dropped.
fn is_ended(parser: &mut Reader, input: &[u8]) -> (usize, bool) {
    let (mut text, mut ends) = ([0; 4096], [0; 64]);
    let (result, read, ..) = parser.read_record(input, &mut text, &mut ends);
    (read, matches!(result, ReadRecordResult::Record))
}

/// How many line ends come first.
fn blank(input: &[u8]) -> usize {
    input.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn records(text: &str, at_once: usize) -> Vec<String> {
        let mut records = CsvRecords::begin(BufReader::with_capacity(at_once, text.as_bytes())).unwrap();
        let mut found = Vec::new();
        loop {
            let record = records.next().unwrap();
            if record.is_empty() {
                return found;
            }
            found.push(String::from_utf8(record).unwrap());
        }
    }

    #[test]
    fn records_end_where_a_node_ends_them() {
        for (text, wanted) in [
            ("id,n\na,5\" pipe\nb,x\n", vec!["id,n\n", "a,5\" pipe\n", "b,x\n"]),
            (
                "id,n\n5\" a,\"x\ny \"\"z\"\"\"\nb,\n",
                vec!["id,n\n", "5\" a,\"x\ny \"\"z\"\"\"\n", "b,\n"],
            ),
            ("id\rz1\rz2\r", vec!["id\r", "z1\r", "z2\r"]),
            ("\n\r\nid\r\na\r\n", vec!["\n\r\nid\r\n", "a\r\n"]),
            ("\u{feff}\nid\nw\n\n\n", vec!["\u{feff}\nid\n", "w\n", "\n\n"]),
            ("\u{feff}\"i\nd\",n\na,", vec!["\u{feff}\"i\nd\",n\n", "a,"]),
            ("id,\"n\nh0,x\n", vec!["id,\"n\nh0,x\n"]),
            ("\u{feff}", vec!["\u{feff}"]),
            ("x", vec!["x"]),
            ("", vec![]),
        ] {
            assert_eq!(records(text, 1000), wanted, "{text:?}");
            // In other pieces a line feed may come only with the next record.
            for at_once in 1..8 {
                let found = records(text, at_once);
                assert_eq!(found.concat(), text, "{text:?}");
                let trimmed = |texts: &[String]| -> Vec<String> {
                    let texts = texts
                        .iter()
                        .map(|text| text.trim_matches(['\r', '\n']).to_owned());
                    texts.filter(|text| !text.is_empty()).collect()
                };
                let wanted: Vec<String> = wanted.iter().map(|text| text.to_string()).collect();
                assert_eq!(trimmed(&found), trimmed(&wanted), "{text:?} {at_once}");
            }
        }
    }

    #[test]
    fn a_long_record_is_one() {
        let text = format!("id,n\na,\"{}\"{}\nb,\n", "x\n".repeat(10_000), ",".repeat(500));
        let found = records(&text, 1000);
        assert_eq!((found.len(), found.concat()), (3, text));
        let open = format!("id\n\"{}", "x".repeat(LINE_BYTES));
        let mut endless = CsvRecords::begin(open.as_bytes()).unwrap();
        endless.next().unwrap();
        assert!(endless.next().unwrap_err().to_string().contains("quote"));
    }
}
