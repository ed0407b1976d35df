//! The data directory: who may open it. A `VERSION` file says which format it has; a `LOCK` file is held
//! locked by the process that uses it.

use super::StoreFault;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;

/// The format that this version writes.
const FORMAT: u32 = 1;

/// Makes the directory if it is not there, checks its version, and locks it.
pub(super) fn claim(dir: &Path) -> Result<File, StoreFault> {
    let io = |what: &str, error: std::io::Error| StoreFault::Io(format!("{what} {}: {error}", dir.display()));
    std::fs::create_dir_all(dir).map_err(|error| io("cannot make the data directory", error))?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("LOCK"))
        .map_err(|error| io("cannot open the lock of", error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let text = format!(
                "the data directory {} is in use by another process",
                dir.display()
            );
            return Err(StoreFault::Refused(text));
        }
        Err(TryLockError::Error(error)) => return Err(io("cannot lock", error)),
    }
    let version = dir.join("VERSION");
    match std::fs::read_to_string(&version) {
        Ok(text) => check_version(&text, dir)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write_version(dir, &version).map_err(|error| io("cannot write the version of", error))?;
        }
        Err(error) => return Err(io("cannot read the version of", error)),
    }
    Ok(lock)
}

fn check_version(text: &str, dir: &Path) -> Result<(), StoreFault> {
    let found = text
        .trim()
        .strip_prefix("postrider ")
        .and_then(|n| n.parse::<u32>().ok());
    match found {
        Some(FORMAT) => Ok(()),
        Some(n) if n > FORMAT => Err(StoreFault::Newer {
            what: "the data directory",
        }),
        _ => Err(StoreFault::Refused(format!(
            "{} is no data directory of postrider: its VERSION file reads `{}`",
            dir.display(),
            text.trim()
        ))),
    }
}

/// By a rename, so that a crash leaves the whole file or none.
fn write_version(dir: &Path, path: &Path) -> std::io::Result<()> {
    let new = dir.join("VERSION.new");
    let mut file = File::create(&new)?;
    writeln!(file, "postrider {FORMAT}")?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_and_no_newer_format() {
        let dir = tempfile::tempdir().unwrap();
        let held = claim(dir.path()).unwrap();
        assert!(matches!(claim(dir.path()), Err(StoreFault::Refused(_))));
        drop(held);
        std::fs::write(dir.path().join("VERSION"), "postrider 99\n").unwrap();
        assert!(matches!(claim(dir.path()), Err(StoreFault::Newer { .. })));
        std::fs::write(dir.path().join("VERSION"), "something else\n").unwrap();
        assert!(matches!(claim(dir.path()), Err(StoreFault::Refused(_))));
    }
}
