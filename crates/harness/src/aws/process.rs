//! One server process on a port of loopback, with a directory of its own.
//!
//! Invariant: once it is started, what answers at its address is this process, and it listens nowhere but on loopback:
//! the kernel says so. It comes back at the same address.
//!
//! It does not know what it runs: [`super::Emulator`] and [`super::Postgres`] do.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::sockets::listening;
use super::{PATIENCE, TRIES};
use crate::ports::{free, loopback};
use crate::wait::until_true;

/// What kind of server it is.
pub trait Program {
    /// For what is said of it.
    fn name(&self) -> &'static str;

    /// How it is started.
    fn command(&self, dir: &Path, port: u16) -> Result<Command>;

    /// Whether it answers as it should, beside taking connections.
    fn answers(&self, addr: SocketAddr) -> bool;

    /// By which signal it ends in order.
    fn goodbye(&self) -> Signal {
        Signal::TERM
    }
}

/// A running server, or one between two runs.
pub struct Process<P: Program> {
    program: P,
    port: u16,
    child: Option<Child>,
    dir: tempfile::TempDir,
}

impl<P: Program> Process<P> {
    /// Starts it on a free port, after its directory was prepared.
    pub fn start(program: P, prepare: impl Fn(&Path) -> Result<()>) -> Result<Process<P>> {
        let mut process = Process {
            port: 0,
            child: None,
            dir: tempfile::Builder::new()
                .prefix(&format!("postrider-{}-", program.name()))
                .tempdir()?,
            program,
        };
        prepare(process.dir.path())?;
        let mut last = None;
        for _ in 0..TRIES {
            process.port = free(1)?[0];
            match process.launch() {
                Ok(()) => return Ok(process),
                Err(e) => last = Some(e),
            }
        }
        let last = last.context("no port was tried")?;
        Err(last.context(format!("start {}", process.program.name())))
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// What it runs.
    pub fn program(&self) -> &P {
        &self.program
    }

    /// The process of the present run.
    pub fn pid(&self) -> Result<u32> {
        let child = self.child.as_ref();
        Ok(child
            .with_context(|| format!("{} is not running", self.program.name()))?
            .id())
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.pid()?.try_into()?).context("pid")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Ends it as a crash would: `SIGKILL`.
    pub fn kill9(&mut self) -> Result<()> {
        self.pid()?;
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Ends it in order, and waits.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(self.program.goodbye())?;
        let mut child = self.child.take().context("no process")?;
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("{} did not end within {PATIENCE:?}", self.program.name());
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Starts it at the same address, on the same directory.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} is running already", self.program.name());
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))?;
        let mut command = self.program.command(self.dir.path(), self.port)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let name = self.program.name();
        self.child = Some(command.spawn().with_context(|| format!("run {name}"))?);
        let ready = until_true(&format!("{name} to answer"), Instant::now() + PATIENCE, || {
            self.is_ready()
        });
        if ready.is_err() {
            self.kill9()?;
        }
        ready.with_context(|| self.log_end())
    }

    fn is_ready(&mut self) -> Result<bool> {
        let child = self.child.as_mut().context("no process")?;
        if let Some(status) = child.try_wait()? {
            bail!("{} ended with {status}", self.program.name());
        }
        // One that has just begun may not be looked into yet.
        let places = listening(self.pid()?).unwrap_or_default();
        if !places.contains(&self.addr()) {
            let open = places.iter().find(|place| place.port() == self.port);
            ensure!(open.is_none(), "{} listens on {places:?}", self.program.name());
            return Ok(false);
        }
        let abroad = places.iter().any(|place| !place.ip().is_loopback());
        ensure!(!abroad, "{} listens on {places:?}", self.program.name());
        Ok(self.program.answers(self.addr()))
    }

    /// The end of what it has logged.
    pub fn log_end(&self) -> String {
        const SHOWN: usize = 4096;
        let bytes = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SHOWN)..]).into_owned()
    }
}

impl<P: Program> Drop for Process<P> {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(e) = self.kill9()
        {
            eprintln!("harness: {} was not ended: {e:#}", self.program.name());
        }
    }
}
