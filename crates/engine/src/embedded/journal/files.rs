//! What the store asks of a file system, so that tests can put a model in its place. A file is redb's own
//! idea of one ([`StorageBackend`]): the base and the journal stand on the same ground.
//!
//! Names are paths inside the data directory. A name that was made, renamed or removed is so after a loss
//! of power only once `sync_names` has returned; what a file holds, once its `sync_data` has.

use crate::embedded::StoreFault;
use crate::embedded::directory::make_private;
use redb::StorageBackend;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the journal's segments are.
pub(super) const JOURNAL: &str = "journal";

/// What `stat` counts blocks in, whatever the file system.
const BLOCK: u64 = 512;
/// Bytes after which a file is synced without being asked: a checkpoint's pages go to the disk little by
/// little, so that a commit's sync never stands behind all of them.
const FLUSH_BYTES: usize = 2 << 20;

/// An open file; clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Handle(pub Arc<dyn StorageBackend>);

/// A directory of files, and one more directory, `journal`, in it.
pub(super) trait Files: Send + Sync + 'static {
    /// What the operator calls a file.
    fn shown(&self, name: &str) -> String;
    /// Opens a file; with `make`, one that is not there yet.
    fn open(&self, name: &str, make: bool) -> io::Result<Handle>;
    /// Gives a file another name, in place of what has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Bytes that a file takes on the disk.
    fn taken(&self, name: &str) -> io::Result<u64>;
    /// Takes a name away.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names in the data directory, and those in the journal's.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Brings all that happened to names to the disk.
    fn sync_names(&self) -> io::Result<()>;
    /// A number that nobody can foresee.
    fn random(&self) -> io::Result<u64>;
}

/// The file system.
pub(super) struct Directory(pub PathBuf);

impl Directory {
    /// Makes the journal's directory where there is none.
    pub fn of(dir: PathBuf) -> io::Result<Directory> {
        make_private(&dir.join(JOURNAL))?;
        let directory = Directory(dir);
        directory.sync_names()?;
        Ok(directory)
    }
}

impl Files for Directory {
    fn shown(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
    fn open(&self, name: &str, make: bool) -> io::Result<Handle> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(make)
            .open(self.0.join(name))?;
        Ok(Handle(Arc::new(OnDisk {
            file,
            waiting: AtomicUsize::new(0),
        })))
    }
    fn taken(&self, name: &str) -> io::Result<u64> {
        // Not its length: files are made longer ahead of what is written to them.
        Ok(std::fs::metadata(self.0.join(name))?.blocks() * BLOCK)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.0.join(from), self.0.join(to))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.0.join(name))
    }
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for (prefix, dir) in [("", self.0.clone()), ("journal/", self.0.join(JOURNAL))] {
            for entry in std::fs::read_dir(dir)? {
                // No name of ours is other than UTF-8.
                names.extend(entry?.file_name().to_str().map(|name| format!("{prefix}{name}")));
            }
        }
        Ok(names)
    }
    fn sync_names(&self) -> io::Result<()> {
        File::open(self.0.join(JOURNAL))?.sync_all()?;
        File::open(&self.0)?.sync_all()
    }
    fn random(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(u64::from_le_bytes(bytes))
    }
}

#[derive(Debug)]
struct OnDisk {
    file: File,
    /// Bytes that were written and wait for a sync.
    waiting: AtomicUsize,
}

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.waiting.store(0, Ordering::Relaxed);
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)?;
        let waiting = self.waiting.fetch_add(data.len(), Ordering::Relaxed) + data.len();
        match waiting < FLUSH_BYTES {
            true => Ok(()),
            false => self.sync_data(),
        }
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

/// Where the segment of this number is.
pub(super) fn segment_name(number: u64) -> String {
    format!("{JOURNAL}/{number:08}.log")
}

/// The number of a segment's file.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("journal/")?.strip_suffix(".log")?;
    let number = digits.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// An error of a file, with the file's name.
pub(super) fn fault(files: &dyn Files, what: &str, name: &str, error: &io::Error) -> StoreFault {
    StoreFault::Io(format!("cannot {what} {}: {error}", files.shown(name)))
}
