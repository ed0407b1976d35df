//! Starts what is measured: `postrider serve`, the floor, or a peer, each as processes of its own on its core.
//!
//! Invariant: the processes do not outlive their [`Server`], and neither does its directory.

use crate::options::How;
use crate::peers;
use anyhow::{Context as _, Result, bail};
use postrider_bench_load::clock;
use postrider_bench_load::machine::{self, Meter, SERVER_CORE};
use postrider_bench_load::target::{Kind, Target, Users};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The secret of user tokens.
const SECRET: &str = "bench-secret-of-more-than-thirty-two-bytes";
/// The key that publishes.
const API_KEY: &str = "bench-key-0123456789abcdef0123456789abcdef";
/// How long tokens are good for. Seconds.
const TOKEN_LIFE: u64 = 3600;
/// How long a peer may take to end when it is asked to.
const END_LIMIT: Duration = Duration::from_secs(5);
const END_LOOK: Duration = Duration::from_millis(20);

/// A running server.
pub struct Server {
    child: Child,
    /// Where its clients connect, and how.
    pub target: Target,
    /// Its processes.
    pub meter: Meter,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts one of any kind.
    pub fn start(how: &How, kind: Kind) -> Result<Server> {
        match kind {
            Kind::Postrider => Server::postrider(how),
            Kind::Floor => Server::floor(how),
            Kind::Nchan => peers::nchan(how),
            Kind::Nats => peers::nats(how),
        }
    }

    /// Starts `postrider serve` with a data directory of its own.
    fn postrider(how: &How) -> Result<Server> {
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
        Server::announced(Kind::Postrider, &command, dir)
            .with_context(|| format!("start {}", how.bin.display()))
    }

    /// Starts the bare loop that deliveries are compared with.
    fn floor(how: &How) -> Result<Server> {
        let command = [std::env::current_exe()?.into_os_string(), "floor".into()];
        Server::announced(Kind::Floor, &command, data_dir(&how.dir)?).context("start the floor")
    }

    /// Starts a program that says in its first line where it is.
    fn announced(kind: Kind, command: &[OsString], dir: tempfile::TempDir) -> Result<Server> {
        let mut child = launcher(command, &[])?.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut server = Server::new(kind, child, SocketAddr::from(([127, 0, 0, 1], 0)), dir);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.is_empty() {
            bail!("it ended before it was up: {}", server.child.wait()?);
        }
        let ready: serde_json::Value = serde_json::from_str(&line).context("its ready line")?;
        let addr = ready["http"].as_str().context("no address in its ready line")?;
        server.target.addr = addr.parse()?;
        server.target.intake = server.target.addr;
        Ok(server)
    }

    /// Starts a program that will listen at addresses which are known already.
    pub fn listening(
        kind: Kind,
        command: &[OsString],
        dir: tempfile::TempDir,
        addr: SocketAddr,
        intake: SocketAddr,
    ) -> Result<Server> {
        let log = std::fs::File::create(dir.path().join("output"))?;
        let child = launcher(command, &["--signal", "term"])?
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut server = Server::new(kind, child, addr, dir);
        server.target.intake = intake;
        server.wait_until_up()?;
        Ok(server)
    }

    fn new(kind: Kind, child: Child, addr: SocketAddr, dir: tempfile::TempDir) -> Server {
        Server {
            target: Target {
                kind,
                addr,
                intake: addr,
                host: "bench".into(),
                key: API_KEY.into(),
            },
            meter: Meter(vec![child.id()]),
            child,
            dir,
        }
    }

    fn wait_until_up(&mut self) -> Result<()> {
        // nginx listens before it has its worker.
        let processes = if self.target.kind == Kind::Nchan { 2 } else { 1 };
        let start = clock::now();
        for addr in [self.target.addr, self.target.intake] {
            while std::net::TcpStream::connect(addr).is_err() {
                if let Some(status) = self.child.try_wait()? {
                    bail!("it ended before it was up: {status}: {}", self.output());
                }
                if start.elapsed() > END_LIMIT {
                    bail!("it does not listen: {}", self.output());
                }
                clock::pause(END_LOOK);
            }
        }
        let start = clock::now();
        while self.meter.0.len() < processes {
            if start.elapsed() > END_LIMIT {
                bail!("it has no worker: {}", self.output());
            }
            self.meter = Meter(machine::family(self.child.id())?);
            clock::pause(END_LOOK);
        }
        Ok(())
    }

    fn output(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("output")).unwrap_or_default();
        text.lines().last().unwrap_or_default().to_owned()
    }

    /// A directory on the file system that the data lies on.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// The first `count` users, each with a token.
pub fn users(count: usize) -> Result<Users> {
    let exp = clock::unix_seconds() + TOKEN_LIFE;
    Users::sign("user-", count, SECRET, exp, &serde_json::Map::new())
}

/// This program, told to become another on the server's core.
fn launcher(command: &[OsString], arguments: &[&str]) -> Result<Command> {
    let mut launch = Command::new(std::env::current_exe()?);
    launch.arg("launch").args(arguments).arg("--").args(command);
    // A variable of somebody's shell must not change what is measured.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("POSTRIDER_")) {
        launch.env_remove(name);
    }
    launch.stdin(Stdio::null());
    Ok(launch)
}

/// Turns this process, which was started for it, into a server: on its core, and gone when the load is gone, even
/// if that is killed.
pub fn launch(command: &[OsString], signal: Ending) -> Result<()> {
    let signal = match signal {
        Ending::Kill => Signal::KILL,
        Ending::Term => Signal::TERM,
    };
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    machine::pin(SERVER_CORE)?;
    let (program, arguments) = command.split_first().context("no program")?;
    let failed = Command::new(program).args(arguments).exec();
    Err(failed).with_context(|| program.display().to_string())
}

/// How a server ends with its load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Ending {
    /// At once.
    Kill,
    /// So that it ends its own processes.
    Term,
}

/// A directory for what a server writes.
pub fn data_dir(parent: &Path) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("postrider-bench-")
        .tempdir_in(parent)
        .context("a directory for the data")
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("postrider-bench: a server did not end: {error:#}");
        }
    }
}

impl Server {
    /// Everything was verified while it ran, and its directory goes with it: no drain is needed. Only a server of
    /// several processes has to end them itself.
    fn end(&mut self) -> Result<()> {
        if self.meter.0.len() > 1 {
            kill_process(Pid::from_child(&self.child), Signal::TERM)?;
            let start = clock::now();
            while start.elapsed() < END_LIMIT {
                if self.child.try_wait()?.is_some() {
                    return Ok(());
                }
                clock::pause(END_LOOK);
            }
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}
