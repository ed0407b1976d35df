//! Reads Debian changelogs (deb-changelog(5)) into entries.
//!
//! Invariant: an entry has a source, a version, an author's address and a moment; what lacks one of them is counted
//! and left out. The same source and version, found in several binary packages, is one entry.
//!
//! It does not interpret the changes themselves.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;
use jiff::fmt::rfc2822::DateTimeParser;

/// Bound on the text of one entry in bytes; the rest is cut off at a line.
const CHANGES_MAX_BYTES: usize = 100_000;
/// Bound on one changelog in bytes, unpacked.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// One release of a source package.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Source package.
    pub source: String,
    /// Its version.
    pub version: String,
    /// Distributions, as written.
    pub distribution: String,
    /// The author's name.
    pub author: String,
    /// The author's address.
    pub email: String,
    /// Seconds since 1970.
    pub time: i64,
    /// The changes, as written.
    pub changes: String,
}

/// All that was found under a directory.
#[derive(Debug, Default)]
pub struct Found {
    /// Entries, oldest first.
    pub entries: Vec<Entry>,
    /// Changelogs read.
    pub files: usize,
    /// Entries that another package had already.
    pub duplicates: usize,
    /// Entries without an author, an address or a date that can be read.
    pub unreadable: usize,
}

/// Reads `changelog.Debian.gz` and `changelog.gz` of every package under a directory such as `/usr/share/doc`.
pub fn find(dir: &Path) -> Result<Found> {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    for path in changelogs(dir)? {
        let text = unpack(&path).with_context(|| path.display().to_string())?;
        let mut own = Vec::new();
        found.unreadable += parse(&text, &mut own);
        // An upstream changelog in another format has no entries, and is not counted as a file.
        found.files += usize::from(!own.is_empty());
        for entry in own {
            if seen.insert((entry.source.clone(), entry.version.clone())) {
                found.entries.push(entry);
            } else {
                found.duplicates += 1;
            }
        }
    }
    found
        .entries
        .sort_by(|a, b| (a.time, &a.source, &a.version).cmp(&(b.time, &b.source, &b.version)));
    Ok(found)
}

fn changelogs(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for package in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let package = package?.path();
        for name in ["changelog.Debian.gz", "changelog.gz"] {
            let path = package.join(name);
            if path.is_file() {
                paths.push(path);
            }
        }
    }
    paths.sort();
    Ok(paths)
}

fn unpack(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    MultiGzDecoder::new(File::open(path)?)
        .take(FILE_MAX_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Appends the entries of one changelog; returns how many could not be read.
pub fn parse(text: &str, entries: &mut Vec<Entry>) -> usize {
    let mut unreadable = 0;
    let mut open: Option<(Heading<'_>, String)> = None;
    for line in text.lines() {
        if let Some(heading) = heading(line) {
            unreadable += usize::from(open.replace((heading, String::new())).is_some());
        } else if let Some(trailer) = line.strip_prefix(" -- ") {
            match open
                .take()
                .map(|(heading, changes)| close(heading, changes, trailer))
            {
                Some(Some(entry)) => entries.push(entry),
                Some(None) => unreadable += 1,
                None => {}
            }
        } else if let Some((_, changes)) = &mut open
            && changes.len() + line.len() < CHANGES_MAX_BYTES
            && !(changes.is_empty() && line.trim().is_empty())
        {
            changes.push_str(line);
            changes.push('\n');
        }
    }
    unreadable + usize::from(open.is_some())
}

struct Heading<'a> {
    source: &'a str,
    version: &'a str,
    distribution: &'a str,
}

/// `source (version) distributions; key=value`
fn heading(line: &str) -> Option<Heading<'_>> {
    let (source, rest) = line.split_once(" (")?;
    let (version, rest) = rest.split_once(") ")?;
    let (distribution, metadata) = rest.split_once(';')?;
    let name = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let fine = !source.is_empty()
        && source.chars().all(name)
        && !version.is_empty()
        && !version.contains(char::is_whitespace)
        && metadata.contains('=');
    fine.then(|| Heading {
        source,
        version,
        distribution: distribution.trim(),
    })
}

/// `name <address>  date`
fn close(heading: Heading<'_>, changes: String, trailer: &str) -> Option<Entry> {
    let (author, rest) = trailer.split_once(" <")?;
    let (email, date) = rest.split_once('>')?;
    let email = email.trim();
    let time = DateTimeParser::new()
        .relaxed_weekday(true)
        .parse_timestamp(date.trim())
        .ok()?;
    let fine = !email.is_empty() && email.len() <= 256 && !email.contains(char::is_control);
    fine.then(|| Entry {
        source: heading.source.to_owned(),
        version: heading.version.to_owned(),
        distribution: heading.distribution.to_owned(),
        author: author.trim().to_owned(),
        email: email.to_owned(),
        time: time.as_second(),
        changes: changes.trim_end().to_owned(),
    })
}

/// A name made of what a topic or a notification's id may hold; everything else becomes `-`.
pub fn sanitize(name: &str) -> String {
    let kept = |c: char| {
        if c.is_ascii_alphanumeric() || "._:+~-".contains(c) {
            c
        } else {
            '-'
        }
    };
    name.chars().map(kept).take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
bash (5.2.15-2) unstable; urgency=medium

  * Fix (a) thing; urgently=not.
    More of it.

 -- Ada Lovelace <ada@example.org>  Tue, 20 Sep 2022 12:17:15 -0400

bash (5.2.15-1) unstable; urgency=medium

  * No date that can be read.

 -- Ada Lovelace <ada@example.org>  some day

bash (5.2-3) unstable; urgency=medium

  * No trailer at all.

bash (5.2-2) experimental; urgency=low

  * The weekday is wrong, as in many old entries.

 -- Bob <bob@example.org>  Mon, 20 Sep 2022 12:17:15 +0000
";

    #[test]
    fn reads_entries_and_counts_what_it_cannot() {
        let mut entries = Vec::new();
        assert_eq!(parse(TEXT, &mut entries), 2);
        let [first, last] = entries.as_slice() else {
            panic!("{entries:?}")
        };
        assert_eq!(
            (first.version.as_str(), first.email.as_str()),
            ("5.2.15-2", "ada@example.org")
        );
        assert_eq!(first.changes, "  * Fix (a) thing; urgently=not.\n    More of it.");
        assert_eq!(first.time - last.time, 4 * 3600);
    }

    #[test]
    fn other_formats_have_no_entries() {
        let mut entries = Vec::new();
        let gnu = "2022-09-20  Ada <ada@example.org>\n\n\t* bash.c (main): Fix.\n";
        assert_eq!((parse(gnu, &mut entries), entries.len()), (0, 0));
    }

    #[test]
    fn sanitized_names_keep_to_the_alphabet() {
        assert_eq!(sanitize("g++ (4:1.0~é/x)"), "g++--4:1.0~--x-");
    }
}
