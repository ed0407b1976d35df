//! What several commands write alike.
//!
//! With `--json`, a command that tells of one thing writes one document on one line; one that lists or follows writes
//! one object a line. Nothing else goes to standard output then.

use crate::exit::Failure;
use crate::term::plain_json;
use serde_json::Value;
use std::io::Write as _;

/// One line on standard output, at once.
pub fn line(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// A JSON document on a line of its own.
pub fn json(value: &Value) -> Result<(), Failure> {
    line(&plain_json(&value.to_string()))
}

/// A count with its noun: `1 line`, `1,000 lines`.
pub fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

/// A number with commas between thousands.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_for_people() {
        assert_eq!(counted(1, "line"), "1 line");
        assert_eq!(counted(0, "line"), "0 lines");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(999), "999");
    }
}
