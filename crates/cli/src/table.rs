//! Rows for people: aligned, and on a terminal cut to its width, under a head.

use crate::term::{Look, columns, fit, plain};
use std::io::Write;

/// Columns between two cells.
const APART: usize = 2;

/// How a cell is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Usual,
    /// Read first.
    Bold,
    /// Read second.
    Dim,
    /// A name.
    Name,
}

/// A column: its head, and how its cells are written.
pub type Column = (&'static str, Tone);

/// Rows that are written together.
pub struct Table<'a> {
    columns: &'a [Column],
    rows: Vec<Vec<String>>,
}

impl<'a> Table<'a> {
    /// A table without rows.
    pub fn new(columns: &'a [Column]) -> Table<'a> {
        let rows = Vec::new();
        Table { columns, rows }
    }

    /// Takes one cell for each column.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows
            .push(cells.iter().map(|cell| plain(cell).into_owned()).collect());
    }

    /// Writes the rows; the head too where a terminal reads it and it is asked for.
    pub fn write(&self, out: &mut dyn Write, look: Look, with_head: bool) -> std::io::Result<()> {
        let with_head = with_head && look.width.is_some() && !self.rows.is_empty();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| {
                let cells = self.rows.iter().filter_map(|row| row.get(at));
                let widest = cells.map(|cell| columns(cell)).max().unwrap_or(0);
                let head = columns(self.columns[at].0);
                if with_head && widest > 0 {
                    widest.max(head)
                } else {
                    widest
                }
            })
            .collect();
        if with_head {
            let heads: Vec<_> = self.columns.iter().map(|(head, _)| (*head).to_owned()).collect();
            writeln!(out, "{}", line(&heads, &widths, look, |_| Tone::Dim))?;
        }
        for row in &self.rows {
            writeln!(out, "{}", line(row, &widths, look, |at| self.columns[at].1))?;
        }
        Ok(())
    }
}

/// One row. A column that is empty everywhere takes no room.
fn line(cells: &[String], widths: &[usize], look: Look, tone: impl Fn(usize) -> Tone) -> String {
    let mut out = String::new();
    let mut at = 0;
    let last = cells.iter().rposition(|cell| !cell.is_empty()).unwrap_or(0);
    for (nth, cell) in cells.iter().enumerate().take(last + 1) {
        if widths[nth] == 0 {
            continue;
        }
        let text = match look.width {
            Some(width) if at >= width => break,
            Some(width) => fit(cell, width - at),
            None => cell.as_str().into(),
        };
        let room = if nth == last {
            0
        } else {
            widths[nth] + APART - columns(&text).min(widths[nth])
        };
        at += columns(&text) + room;
        out += &match tone(nth) {
            Tone::Usual => text.into_owned(),
            Tone::Bold => look.bold(text),
            Tone::Dim => look.dim(text),
            Tone::Name => look.name(text),
        };
        out += &" ".repeat(room);
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [("id", Tone::Bold), ("note", Tone::Usual), ("text", Tone::Dim)];

    fn written(look: Look) -> String {
        let mut table = Table::new(&COLUMNS);
        table.row(vec!["a".into(), String::new(), "one".into()]);
        table.row(vec!["漢字".into(), String::new(), "two\x1b".into()]);
        let mut out = Vec::new();
        table.write(&mut out, look, true).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_are_aligned_by_columns_and_cut_on_a_terminal() {
        assert_eq!(written(Look::default()), "a     one\n漢字  two\\u{1b}\n");
        assert_eq!(written(Look::plain(Some(9))), "id    te…\na     one\n漢字  tw…\n");
    }
}
