//! The data directory: who may open it. A `VERSION` file says which format it has; a `LOCK` file is held
//! locked by the process that uses it.

use super::StoreFault;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// The format that this version writes. 1 had the base alone; 2 the journal in front of it; 3 has notifications
/// that stand whole in an entry, and cohorts; 4 has users, the topics they are members of, and their state maps.
pub(super) const FORMAT: u32 = 4;
/// The oldest that it can open.
const OLDEST: u32 = 1;

/// A directory that is ours for as long as this lives.
pub(super) struct Claim {
    _lock: File,
    /// The format it was found in. `None` where there is no `VERSION` yet: whoever began it did not get far
    /// enough to have accepted anything.
    pub found: Option<u32>,
}

/// Makes the directory if it is not there, locks it, and checks its version.
pub(super) fn claim(dir: &Path) -> Result<Claim, StoreFault> {
    let io = |what, error| io_fault(what, dir, &error);
    make_private(dir).map_err(|error| io("cannot make the data directory", error))?;
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
    let found = match std::fs::read_to_string(dir.join("VERSION")) {
        Ok(text) => Some(check_version(&text, dir)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(io("cannot read the version of", error)),
    };
    Ok(Claim { _lock: lock, found })
}

/// Makes a directory that only this user may enter: payloads are in it, in clear. One that is there stays as
/// its owner made it.
pub(super) fn make_private(dir: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn io_fault(what: &str, dir: &Path, error: &std::io::Error) -> StoreFault {
    StoreFault::Io(format!("{what} {}: {error}", dir.display()))
}

fn check_version(text: &str, dir: &Path) -> Result<u32, StoreFault> {
    let found = text
        .trim()
        .strip_prefix("postrider ")
        .and_then(|n| n.parse::<u32>().ok());
    match found {
        Some(n @ OLDEST..=FORMAT) => Ok(n),
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

/// Says that the directory holds all that it should, in this version's format. Called once that is on the
/// disk: until then a start finds the format before, and does again what that needs. By a rename, so that a crash leaves the whole file or
/// none.
pub(super) fn complete(dir: &Path) -> Result<(), StoreFault> {
    let write = || {
        let new = dir.join("VERSION.new");
        let mut file = File::create(&new)?;
        writeln!(file, "postrider {FORMAT}")?;
        file.sync_all()?;
        std::fs::rename(&new, dir.join("VERSION"))?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|error| io_fault("cannot write the version of", dir, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = claim(&dir.path().join("made/here")).unwrap();
        let second = claim(&dir.path().join("made/here")).map(|_| ());
        assert!(
            matches!(&second, Err(StoreFault::Refused(text)) if text.contains("made/here")),
            "{second:?}"
        );
        drop(held);
        assert!(claim(&dir.path().join("made/here")).is_ok());
    }

    #[test]
    fn a_directory_is_fresh_until_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(claim(dir.path()).unwrap().found, None);
        assert_eq!(claim(dir.path()).unwrap().found, None);
        complete(dir.path()).unwrap();
        assert_eq!(claim(dir.path()).unwrap().found, Some(FORMAT));
    }

    #[test]
    fn no_newer_format_and_nobody_elses_directory() {
        let dir = tempfile::tempdir().unwrap();
        let claim_with = |version: &str| {
            std::fs::write(dir.path().join("VERSION"), version).unwrap();
            claim(dir.path()).map(|claim| claim.found)
        };
        for known in OLDEST..=FORMAT {
            let found = claim_with(&format!("postrider {known}\n"));
            assert!(matches!(found, Ok(Some(n)) if n == known), "{known}: {found:?}");
        }
        for newer in [FORMAT + 1, 99] {
            let found = claim_with(&format!("postrider {newer}\n"));
            assert!(
                matches!(found, Err(StoreFault::Newer { .. })),
                "{newer}: {found:?}"
            );
        }
        for other in ["something else\n", "", "postrider", "postrider -1", "postrider 0"] {
            assert!(
                matches!(claim_with(other), Err(StoreFault::Refused(_))),
                "{other:?}"
            );
        }
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(claim(&file).map(|_| ()), Err(StoreFault::Io(text)) if text.contains("file")));
    }
}
