//! Starts what is measured: `postrider serve`, or the floor, each as a process of its own on its core.
//!
//! Invariant: the process does not outlive its [`Server`], and neither does its data directory.

use crate::machine::{self, SERVER_CORE};
use crate::options::How;
use crate::requests::{API_KEY, SECRET};
use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running server.
pub struct Server {
    child: Child,
    /// Where its clients connect.
    pub addr: SocketAddr,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts `postrider serve` with a data directory of its own.
    pub fn postrider(how: &How) -> Result<Server> {
        let dir = data_dir(&how.dir)?;
        let keys = format!(
            r#"[{{"name":"bench","key":"{API_KEY}","scopes":["publish","broadcast","manage","read"]}}]"#
        );
        let mut command = vec![how.bin.clone().into_os_string()];
        command.extend(["serve", "--log-format", "json"].map(OsString::from));
        for (key, value) in [
            ("http.listen", "127.0.0.1:0"),
            ("ops.listen", "127.0.0.1:0"),
            ("data_dir", &dir.path().join("data").display().to_string()),
            ("auth.jwt.hmac_secret", SECRET),
            ("auth.api_keys", &keys),
            ("log.level", "warn"),
        ] {
            command.extend(["--set".into(), format!("{key}={value}").into()]);
        }
        for setting in &how.set {
            command.extend(["--set".into(), setting.into()]);
        }
        Server::start(&command, dir).with_context(|| format!("start {}", how.bin.display()))
    }

    /// Starts the bare loop that deliveries are compared with.
    pub fn floor(how: &How) -> Result<Server> {
        let command = [std::env::current_exe()?.into_os_string(), "floor".into()];
        Server::start(&command, data_dir(&how.dir)?).context("start the floor")
    }

    fn start(command: &[OsString], dir: tempfile::TempDir) -> Result<Server> {
        let mut launch = Command::new(std::env::current_exe()?);
        launch.args(["launch", "--"]).args(command);
        // A variable of somebody's shell must not change what is measured.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("POSTRIDER_")) {
            launch.env_remove(name);
        }
        let mut child = launch.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server {
            child,
            addr: unknown,
            dir,
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.is_empty() {
            bail!("it ended before it was up: {}", server.child.wait()?);
        }
        let ready: serde_json::Value = serde_json::from_str(&line).context("its ready line")?;
        let addr = ready["http"].as_str().context("no address in its ready line")?;
        server.addr = addr.parse()?;
        Ok(server)
    }

    /// CPU time so far, of all its threads.
    pub fn cpu(&self) -> Result<Duration> {
        machine::cpu(self.child.id())
    }

    /// Resident bytes.
    pub fn resident(&self) -> Result<u64> {
        machine::resident(self.child.id())
    }

    /// A directory on the file system that the data lies on.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Turns this process, which was started for it, into a server: on its core, and gone when the load is gone, even
/// if that is killed.
pub fn launch(command: &[OsString]) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    machine::pin(SERVER_CORE)?;
    let (program, arguments) = command.split_first().context("no program")?;
    let failed = Command::new(program).args(arguments).exec();
    Err(failed).with_context(|| program.display().to_string())
}

fn data_dir(parent: &Path) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("postrider-bench-")
        .tempdir_in(parent)
        .context("a directory for the data")
}

impl Drop for Server {
    fn drop(&mut self) {
        // Everything was verified while it ran, and its directory goes with it: no drain is needed.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("postrider-bench: a server did not end: {error}");
        }
    }
}
