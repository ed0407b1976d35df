//! Makes system calls of a running node fail or tarry, by `strace`, for as long as a test wants.
//!
//! The calls named here work on files only, so that sockets stay as they are. A store that writes by other calls would
//! not feel it, and a test that waits for its refusals would say so.
//!
//! Invariant: when the [`Injection`] ends the node runs untraced.
//!
//! It needs [`crate::machine::Need::Strace`].

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long `strace` may take to attach.
const ATTACH_DEADLINE: Duration = Duration::from_secs(20);

/// Calls by which data is written and files grow; whichever of them a store uses.
pub const WRITES: &str = "pwrite64,pwritev,pwritev2,ftruncate,fallocate";
/// Calls by which it is brought to the disk.
pub const SYNCS: &str = "fsync,fdatasync,sync_file_range,msync,syncfs";

/// Calls being tampered with.
pub struct Injection {
    strace: Option<Child>,
}

impl Injection {
    /// Attaches to a process; `rules` are what `strace -e inject=` takes.
    pub fn attach(pid: u32, rules: &[String]) -> Result<Injection> {
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-p", &pid.to_string()]);
        for rule in rules {
            command.arg("-e").arg(format!("inject={rule}"));
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut strace = command.spawn().context("start strace")?;
        let stderr = strace.stderr.take().context("no stderr of strace")?;
        let injection = Injection { strace: Some(strace) };
        let (tell, told) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut tell = Some(tell);
            for line in BufReader::new(stderr).lines().map_while(|line| line.ok()) {
                if line.contains(" attached") && tell.take().is_some_and(|tell| tell.send(()).is_err()) {
                    eprintln!("harness: nobody waits for strace");
                }
                // Until it is attached, what it says is why it is not.
                if tell.is_some() {
                    eprintln!("harness: strace: {line}");
                }
            }
        });
        if told.recv_timeout(ATTACH_DEADLINE).is_err() {
            bail!("strace did not attach to {pid}");
        }
        Ok(injection)
    }

    /// Lets the process go on as it is.
    pub fn detach(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(mut strace) = self.strace.take() else {
            return Ok(());
        };
        if let Some(pid) = rustix::process::Pid::from_raw(strace.id().try_into()?) {
            // It detaches from every thread before it ends. It may have ended already, with the process.
            if let Err(gone) = rustix::process::kill_process(pid, rustix::process::Signal::INT) {
                eprintln!("harness: strace had ended: {gone}");
            }
        }
        strace.wait().context("wait for strace")?;
        Ok(())
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            eprintln!("harness: {e:#}");
        }
    }
}
