//! One `redis-server` process.
//!
//! Invariant: whoever answers at its address once it is started is this process: another one that took the port
//! between the choice and the start is noticed, and another port is tried.
//!
//! It does not know what else it belongs to: [`super::Replicated`] and [`super::Cluster`] do.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::{Client, PATIENCE, TRIES};
use crate::ports::{free, loopback};
use crate::wait::until_true;

/// How often a server that is starting is asked.
const ASK_PATIENCE: Duration = Duration::from_millis(500);

/// When Redis brings its append-only file to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Before it answers: it loses nothing that it answered.
    #[default]
    Always,
    /// Once a second. A killed process loses nothing even so; a machine without power does.
    EverySecond,
    /// No file at all: it is empty after a restart.
    Never,
}

/// How a server is started, beside its place and its port.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Whether and when it keeps what it is told.
    pub fsync: Fsync,
    /// Further lines of its settings, such as `maxmemory 100mb`.
    pub more: Vec<String>,
    /// Whether it is a Sentinel, which has a file of its own for what `more` cannot say.
    pub sentinel: Option<String>,
    /// Whether it is a member of a Cluster.
    pub is_clustered: bool,
    /// The namespace of a [`crate::network::Network`] that it runs in, with its address there; loopback else.
    pub within: Option<(String, Ipv4Addr)>,
}

impl ServerOptions {
    /// One that keeps what it is told in this way.
    pub fn fsync(fsync: Fsync) -> ServerOptions {
        ServerOptions {
            fsync,
            ..ServerOptions::default()
        }
    }

    /// With one more setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> ServerOptions {
        self.more.push(format!("{name} {value}"));
        self
    }

    /// The file of its settings.
    fn file(&self) -> String {
        if let Some(text) = &self.sentinel {
            return text.clone();
        }
        let append = match self.fsync {
            Fsync::Always => "appendonly yes\nappendfsync always\n",
            Fsync::EverySecond => "appendonly yes\nappendfsync everysec\n",
            Fsync::Never => "appendonly no\n",
        };
        let more: String = self.more.iter().map(|line| format!("{line}\n")).collect();
        format!("{append}save \"\"\nrepl-diskless-sync-delay 0\n{more}")
    }
}

/// A running server, or one between two runs.
pub struct Server {
    port: u16,
    bus: u16,
    options: ServerOptions,
    child: Option<Child>,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts one alone, on a free port.
    pub fn start(options: ServerOptions) -> Result<Server> {
        let mut last = None;
        for _ in 0..TRIES {
            let ports = free(2)?;
            let mut server = Server {
                port: ports[0],
                bus: ports[1],
                options: options.clone(),
                child: None,
                dir: tempfile::Builder::new().prefix("postrider-redis-").tempdir()?,
            };
            match server.launch() {
                Ok(()) => return Ok(server),
                Err(e) => last = Some(e),
            }
        }
        let last = last.context("no port was tried")?;
        Err(last.context("start redis-server"))
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        match &self.options.within {
            Some((_, address)) => SocketAddr::from((*address, self.port)),
            None => loopback(self.port),
        }
    }

    /// The port on which members of a Cluster speak to each other.
    pub fn bus_port(&self) -> u16 {
        self.bus
    }

    /// `redis://…`, as `engine.redis.url` takes it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// The process of the present run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("redis-server is not running")?.id())
    }

    /// Whether it runs, be it stopped by [`Server::pause`].
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Its data, and its log, `log`.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// A connection of the test's own.
    pub fn client(&self) -> Result<Client> {
        Client::connect(self.addr())
    }

    /// Ends it as a crash would: `SIGKILL`.
    pub fn kill9(&mut self) -> Result<()> {
        let mut child = self.child.take().context("redis-server is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Ends it in order: `SIGTERM`, and waits.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let mut child = self.child.take().context("redis-server is not running")?;
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("redis-server did not end within {PATIENCE:?} of SIGTERM");
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Starts it again, at the same address, on the same data; waits until it has loaded them.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()
    }

    /// `SIGSTOP`: it keeps its connections and says nothing.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// `SIGCONT`.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.pid()?.try_into()?).context("pid")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    fn command(&self) -> Result<Command> {
        let (mut command, bind) = match &self.options.within {
            Some((namespace, _)) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, "redis-server"]);
                // Each link to it ends at an address of its own.
                (command, "0.0.0.0")
            }
            None => (Command::new("redis-server"), "127.0.0.1"),
        };
        let file = self.dir.path().join("redis.conf");
        // A server that changes its role writes that into its file, and a Sentinel all that it learns: only the first
        // run finds ours.
        if !file.exists() {
            std::fs::write(&file, self.options.file())?;
        }
        command.arg(file);
        command.args(["--port", &self.port.to_string(), "--bind", bind]);
        if self.options.within.is_some() {
            command.args(["--protected-mode", "no"]);
        }
        if self.options.is_clustered {
            command.args([
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &self.bus.to_string(),
            ]);
        }
        command.args(["--daemonize", "no", "--dir"]).arg(self.dir.path());
        if self.options.sentinel.is_some() {
            command.arg("--sentinel");
        }
        Ok(command)
    }

    fn launch(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("redis-server is running already");
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))?;
        let mut command = self.command()?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("run redis-server")?);
        let answers = until_true("redis-server to answer", Instant::now() + PATIENCE, || {
            self.is_mine()
        });
        if answers.is_err()
            && let Some(mut child) = self.child.take()
        {
            child.kill()?;
            child.wait()?;
        }
        answers.with_context(|| self.log())
    }

    /// Whether this process answers at the address; an error where it has ended.
    fn is_mine(&mut self) -> Result<bool> {
        let pid = self.pid()?;
        if let Some(status) = self.child.as_mut().context("no process")?.try_wait()? {
            bail!("redis-server ended with {status}");
        }
        let told = || -> Result<bool> {
            let mut client = Client::connect_within(self.addr(), ASK_PATIENCE)?;
            let own = client.info_value("server", "process_id")? == pid.to_string();
            // While it loads its data it answers INFO alone.
            Ok(own && client.must(&["PING"])?.text() == "PONG")
        };
        // One that is not up yet, or is loading, is asked again.
        Ok(told().unwrap_or(false))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(e) = self.kill9()
        {
            eprintln!("harness: redis-server was not ended: {e:#}");
        }
    }
}
