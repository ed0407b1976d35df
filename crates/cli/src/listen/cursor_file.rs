//! The cursor between two runs of the command.
//!
//! Invariant: the file holds a whole cursor, and only one whose notifications have been written out. It is not synced:
//! after a power loss an older one makes a few come again.

use crate::exit::Failure;
use anyhow::Context as _;
use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A cursor that is longer is none.
const CURSOR_BYTES: usize = 16 << 10;

/// So many links on the way to the file are followed.
const LINKS_MOST: usize = 40;

/// The file, where links lead to it.
pub struct CursorFile(PathBuf);

impl CursorFile {
    /// The file there, and the cursor in it if it is there already. Where it could not be kept is told at once.
    pub fn open(path: &Path) -> Result<(CursorFile, Option<String>), Failure> {
        let unusable =
            |why: &dyn Display| Failure::usage(format!("--cursor-file: {}: {why}", path.display()));
        // To take the place of a device would take it from everybody.
        if path.metadata().is_ok_and(|meta| !meta.is_file()) {
            return Err(unusable(&"it is no regular file"));
        }
        let cursor = match std::fs::read_to_string(path) {
            Ok(text) => Some(text.trim().to_owned()).filter(|cursor| !cursor.is_empty()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(unusable(&error)),
        };
        let plain = |cursor: &String| {
            cursor.len() <= CURSOR_BYTES
                && cursor
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if cursor.as_ref().is_some_and(|cursor| !plain(cursor)) {
            return Err(Failure::usage(format!(
                "--cursor-file: {} holds no cursor: is it another file? Remove it to begin anew",
                path.display()
            )));
        }
        let file = CursorFile(target(path));
        file.beside().map_err(|error| unusable(&error))?;
        Ok((file, cursor))
    }

    /// Takes the place of what was there.
    pub fn keep(&self, cursor: &str) -> anyhow::Result<()> {
        let write = || -> anyhow::Result<()> {
            let mut file = self.beside()?;
            writeln!(file, "{cursor}")?;
            file.persist(&self.0)?;
            Ok(())
        };
        write().with_context(|| format!("--cursor-file: {} cannot be written", self.0.display()))
    }

    /// A new file in the same directory; it goes again unless it takes the other's place.
    fn beside(&self) -> std::io::Result<NamedTempFile> {
        let dir = self.0.parent().filter(|dir| !dir.as_os_str().is_empty());
        NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))
    }
}

/// What the path stands for, whether or not it is there.
fn target(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MOST {
        let Ok(link) = path.read_link() else { break };
        path.pop();
        path.push(link);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursor");
        let (file, none) = CursorFile::open(&path).unwrap();
        assert_eq!(none, None);
        file.keep("AQ-_b").unwrap();
        file.keep("AQ-_c").unwrap();
        assert_eq!(CursorFile::open(&path).unwrap().1.as_deref(), Some("AQ-_c"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::write(&path, "no cursor: at all").unwrap();
        assert!(CursorFile::open(&path).is_err());
    }

    #[test]
    fn a_link_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("kept")).unwrap();
        let (link, kept) = (dir.path().join("link"), dir.path().join("kept/cursor"));
        std::os::unix::fs::symlink("second", &link).unwrap();
        std::os::unix::fs::symlink("kept/cursor", dir.path().join("second")).unwrap();
        for cursor in ["AQ-_b", "AQ-_c"] {
            CursorFile::open(&link).unwrap().0.keep(cursor).unwrap();
            assert_eq!(std::fs::read_to_string(&kept).unwrap().trim(), cursor);
            assert!(link.is_symlink());
        }
    }

    #[test]
    fn where_nothing_can_be_kept_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["missing/cursor", "/dev/null", "."] {
            let opened = CursorFile::open(&dir.path().join(path)).map(|_| ());
            assert!(
                matches!(opened, Err(Failure::Configuration(_))),
                "{path}: {opened:?}"
            );
        }
    }
}
