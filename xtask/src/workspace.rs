//! Where things are. Everything a task makes lies under `target/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

pub struct Workspace {
    pub root: PathBuf,
}

impl Workspace {
    pub fn find() -> Result<Self> {
        // `cargo run` says where it runs, which is not where a shared target folder was built.
        let here =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&here)
            .parent()
            .context("xtask lies in the workspace's root")?;
        let root = root
            .canonicalize()
            .with_context(|| format!("{} is gone: build xtask anew", root.display()))?;
        Ok(Workspace { root })
    }

    pub fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| self.root.join("target"), |dir| self.root.join(dir))
    }

    /// What suites leave for people to look at: screenshots, logs of failed runs.
    pub fn artifacts(&self) -> PathBuf {
        self.target().join("e2e")
    }

    /// The Python environment and the Node.js packages of the tests.
    pub fn tools(&self) -> PathBuf {
        self.target().join("e2e-tools")
    }

    pub fn e2e(&self) -> PathBuf {
        self.root.join("tests/e2e")
    }

    /// A program of the workspace, run from its root.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.root.join(program));
        command.current_dir(&self.root);
        command
    }

    /// The cargo that runs this very task.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        command
    }
}
