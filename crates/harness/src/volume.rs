//! A small file system of a test's own, in a file: to be filled up, made read-only, or cut off as by a power loss.
//!
//! Invariant: it is unmounted when the [`Volume`] ends, whatever became of the test.
//!
//! It needs [`crate::machine::Need::LoopMounts`], and to be shut down also `XfsIo`.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::machine::command;

/// The name of the file that takes all room.
const FILLER: &str = "filler";
/// How much of the filler is written at once, at first; then less, so that nothing is left.
const FILL_BYTES: usize = 1 << 20;

/// A mounted ext4 file system.
pub struct Volume {
    dir: tempfile::TempDir,
    mounted: bool,
}

impl Volume {
    /// Makes and mounts one of so many MiB.
    pub fn make(mib: u64) -> Result<Volume> {
        let dir = tempfile::Builder::new().prefix("postrider-volume-").tempdir()?;
        File::create(dir.path().join("image"))?.set_len(mib << 20)?;
        std::fs::create_dir(dir.path().join("root"))?;
        let mut volume = Volume { dir, mounted: false };
        let image = volume.image();
        command("mkfs.ext4", &["-q", "-F", "-m", "0", text(&image)?])?;
        volume.mount()?;
        Ok(volume)
    }

    /// The root of the file system.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Takes all the room there is. Returns how many bytes that was.
    pub fn fill(&self) -> Result<u64> {
        let mut filler = File::create(self.root().join(FILLER))?;
        let mut piece = vec![0xa5; FILL_BYTES];
        let mut taken = 0;
        while !piece.is_empty() {
            match filler.write(&piece) {
                Ok(written) => taken += written as u64,
                Err(e) if e.kind() == ErrorKind::StorageFull => piece.truncate(piece.len() / 2),
                Err(e) => return Err(e).context("filling the volume"),
            }
        }
        Ok(taken)
    }

    /// Gives the room back.
    pub fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.root().join(FILLER))?)
    }

    /// From now on nothing reaches the disk, as if its power had gone: what was not synced is lost.
    pub fn shut_down(&self) -> Result<()> {
        command("xfs_io", &["-x", "-c", "shutdown", text(&self.root())?])
    }

    /// Makes it read-only under whoever uses it, as the kernel does when it has met an error.
    pub fn make_read_only(&self) -> Result<()> {
        command("mount", &["-o", "remount,abort", text(&self.root())?])
    }

    /// Mounts it anew, as after a start of the machine. Nobody may be using it.
    pub fn mount_anew(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    fn mount(&mut self) -> Result<()> {
        command(
            "mount",
            &["-o", "loop", text(&self.image())?, text(&self.root())?],
        )?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        if std::mem::take(&mut self.mounted) {
            command("umount", &[text(&self.root())?])?;
        }
        Ok(())
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let root = self.root();
        if let Err(e) = self.unmount() {
            eprintln!("harness: {e:#}");
            // Whoever still uses it keeps it until it ends; nobody else finds it.
            if let Err(e) = text(&root).and_then(|root| command("umount", &["--lazy", root])) {
                eprintln!("harness: {e:#}");
            }
        }
    }
}

fn text(path: &Path) -> Result<&str> {
    match path.to_str() {
        Some(text) => Ok(text),
        None => bail!("{} is not UTF-8", path.display()),
    }
}
