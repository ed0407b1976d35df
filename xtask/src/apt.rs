//! Debian packages, by apt-get, on machines where another apt may be at work.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::install::{answer, finish};

const APT_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Reads the lists of packages once, and only when something has to be installed.
#[derive(Default)]
pub struct Apt {
    updated: bool,
}

impl Apt {
    /// Another apt may be at work, at start-up above all: it is waited for, within bounds.
    const WAIT: &str = "DPkg::Lock::Timeout=300";
    const UPDATES: u32 = 10;
    const BETWEEN: Duration = Duration::from_secs(6);

    pub fn install(&mut self, packages: &[&str]) -> Result<()> {
        println!("install   Debian packages: {}", packages.join(" "));
        self.update()?;
        let flags = ["-o", Self::WAIT, "install", "--yes", "--no-install-recommends"];
        finish(Self::command().args(flags).args(packages), APT_LIMIT)
    }

    /// Packages and what they need that is not here, as files in a folder; nothing is installed.
    pub fn fetch(&mut self, packages: &[&str], folder: &Path) -> Result<()> {
        self.update()?;
        let mut command = Self::command();
        command.args(["-o", "Debug::NoLocking=1", "-o"]);
        command.arg(format!("Dir::Cache::archives={}/", folder.display()));
        command.args([
            "install",
            "--download-only",
            "--reinstall",
            "--yes",
            "--no-install-recommends",
        ]);
        finish(command.args(packages), APT_LIMIT)
    }

    /// `apt-get update` does not wait for the lock on its lists, so this does.
    fn update(&mut self) -> Result<()> {
        if self.updated {
            return Ok(());
        }
        let mut tries = 0;
        while let Err(error) = finish(
            Self::command().args(["-o", Self::WAIT, "update", "--quiet"]),
            APT_LIMIT,
        ) {
            tries += 1;
            ensure!(
                format!("{error:#}").contains("lock") && tries < Self::UPDATES,
                error
            );
            std::thread::sleep(Self::BETWEEN);
        }
        self.updated = true;
        Ok(())
    }

    fn command() -> Command {
        let root = answer("id", &["-u"]).is_ok_and(|id| id.as_deref() == Some("0"));
        let mut command = if root {
            Command::new("apt-get")
        } else {
            Command::new("sudo")
        };
        if !root {
            command.args(["--non-interactive", "apt-get"]);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}
