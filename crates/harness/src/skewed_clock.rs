//! Clocks of a node that a test sets while it runs: the wall clock, as an administrator or NTP would, and the steady
//! one, to let minutes pass in a moment.
//!
//! A few lines of C, built by the compiler that also links Rust, stand before the C library's `clock_gettime`.
//!
//! Invariant: the machine's own clocks, and those of the test, stay as they are.
//!
//! It needs [`crate::machine::Need::CCompiler`].

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::machine::command;

/// By how much a node's clocks differ from the machine's.
pub struct SkewedClock {
    dir: tempfile::TempDir,
}

impl SkewedClock {
    /// Clocks that do not differ yet.
    pub fn make() -> Result<SkewedClock> {
        let clock = SkewedClock {
            dir: tempfile::Builder::new().prefix("postrider-clock-").tempdir()?,
        };
        clock.set(0, 0)?;
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/skewed_clock.c");
        let library = clock.library();
        let library = library
            .to_str()
            .context("a temporary directory that is not UTF-8")?;
        command("cc", &["-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"])?;
        Ok(clock)
    }

    /// The environment of a node that goes by these clocks.
    pub fn env(&self) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.display().to_string();
        vec![
            ("LD_PRELOAD".to_owned(), text(self.library())),
            ("SKEWED_CLOCK".to_owned(), text(self.offsets())),
        ]
    }

    /// Sets both clocks, in seconds against the machine's. A steady clock must not be set back.
    pub fn set(&self, wall_seconds: i64, steady_seconds: i64) -> Result<()> {
        // By a rename, so that no call reads half of it.
        let new = self.dir.path().join("new");
        std::fs::write(&new, format!("{wall_seconds} {steady_seconds}\n"))?;
        Ok(std::fs::rename(new, self.offsets())?)
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("skewed_clock.so")
    }

    fn offsets(&self) -> PathBuf {
        self.dir.path().join("offsets")
    }
}
