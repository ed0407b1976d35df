//! What has been imported, and the words for it.

use super::{NOTHING, bad_lines};
use crate::output::{counted, grouped};
use crate::term::Look;
use serde_json::{Value, json};
use std::time::Duration;

/// What has been imported so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Users that were read.
    pub lines: u64,
    created: u64,
    changed: u64,
    unchanged: u64,
    /// Bad lines.
    pub rejected: u64,
    /// Of the rejected, those that an answer listed.
    told: u64,
}

impl Sum {
    /// With what a node answered to a piece.
    pub fn add(&mut self, answer: &Value) {
        let count = |name: &str| answer[name].as_u64().unwrap_or(0);
        self.lines += count("lines");
        self.created += count("created");
        self.changed += count("changed");
        self.unchanged += count("unchanged");
        self.rejected += count("rejected");
        self.told += bad_lines(answer).len() as u64;
    }

    /// Those that the node has now as they were written.
    pub fn imported(&self) -> u64 {
        self.created + self.changed + self.unchanged
    }

    /// The last line with `--json`.
    pub fn json(&self) -> Value {
        json!({"done": true, "lines": self.lines, "imported": self.imported(), "created": self.created,
            "changed": self.changed, "unchanged": self.unchanged, "rejected": self.rejected})
    }
}

/// What to do about those that could not be taken.
pub fn left_out(sum: &Sum) -> String {
    let others = match sum.imported() {
        0 => NOTHING,
        _ => "the others were imported",
    };
    format!(
        "{} of {} could not be taken{}; {others}. Put those right and import the file again",
        grouped(sum.rejected),
        counted(sum.lines, "user"),
        more(sum.rejected, sum.told)
    )
}

/// How many bad lines there are beside those that were listed.
pub fn more(rejected: u64, told: u64) -> String {
    match rejected.saturating_sub(told) {
        0 => String::new(),
        n => format!(", {} more than were listed", grouped(n)),
    }
}

/// The last line for people.
pub fn summary(sum: &Sum, elapsed: Duration, look: Look) -> String {
    let seconds = elapsed.as_secs_f64();
    let rate = (sum.lines as f64 / seconds.max(0.001)) as u64;
    format!(
        "{} imported: {} new, {} changed, {} as they were  {}",
        look.bold(counted(sum.imported(), "user")),
        grouped(sum.created),
        grouped(sum.changed),
        grouped(sum.unchanged),
        look.dim(format!("{seconds:.1} s, {}/s", grouped(rate)))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_for_people() {
        let mut sum = Sum::default();
        let answer = json!({"lines":1000,"created":990,"changed":5,"unchanged":4,"rejected":1});
        sum.add(&answer);
        sum.add(&answer);
        assert_eq!(
            summary(&sum, Duration::from_secs(2), Look::default()),
            "1,998 users imported: 1,980 new, 10 changed, 8 as they were  2.0 s, 1,000/s"
        );
        assert_eq!(sum.json()["rejected"], 2);
    }

    #[test]
    fn what_was_left_out_is_told_as_it_was() {
        let mut sum = Sum::default();
        sum.add(&json!({"lines":2000,"created":1,"rejected":1999,"bad_lines":[{"line":2}]}));
        let told = left_out(&sum);
        assert!(
            told.starts_with(
                "1,999 of 2,000 users could not be taken, 1,998 more than were listed; the others"
            ),
            "{told}"
        );
        let mut sum = Sum::default();
        sum.add(&json!({"lines":1,"rejected":1,"bad_lines":[{"line":2}]}));
        let told = left_out(&sum);
        assert!(
            told.starts_with("1 of 1 user could not be taken; nothing was imported. "),
            "{told}"
        );
    }
}
