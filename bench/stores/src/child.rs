//! Child processes: this program again, with its lines read as they come.

use crate::bench::Bench;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines of a child that may wait to be looked at; then the child waits.
const MAX_LINES: usize = 1 << 20;
/// The longest that a child may be silent.
const SILENCE: Duration = Duration::from_secs(1800);

/// A running child.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts `stores <candidate> <experiment> --dir <dir> <options>`.
    pub fn start(bench: &Bench, experiment: &str, dir: &Path, options: &[(&str, String)]) -> Result<Running> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args([bench.candidate.name(), experiment, "--dir"])
            .arg(dir);
        for (name, value) in options {
            command.arg(format!("--{name}")).arg(value);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let (send, lines) = sync_channel(MAX_LINES);
        let reader = std::thread::Builder::new()
            .name("child-lines".into())
            .spawn(move || {
                // What a kill cut in the middle of a line was not said.
                for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                    if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Running {
            stdin: child.stdin.take(),
            child,
            lines,
            reader: Some(reader),
        })
    }

    /// The next line; `None` when there will be no more.
    pub fn line(&self) -> Result<Option<String>> {
        match self.lines.recv_timeout(SILENCE) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => anyhow::bail!("a child has been silent for {SILENCE:?}"),
        }
    }

    /// Reads until this line, and returns those before it.
    pub fn until(&self, last: &str) -> Result<Vec<String>> {
        let mut before = Vec::new();
        loop {
            let line = self
                .line()?
                .with_context(|| format!("the child ended before it said `{last}`"))?;
            if line == last {
                return Ok(before);
            }
            before.push(line);
        }
    }

    /// Lets it go on.
    pub fn go(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("no stdin")?;
        Ok(stdin.write_all(b"go\n")?)
    }

    /// `kill -9`, then all it had said.
    pub fn kill(mut self) -> Result<Vec<String>> {
        self.child.kill()?;
        self.child.wait()?;
        self.rest()
    }

    fn rest(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        while let Some(line) = self.line()? {
            lines.push(line);
        }
        let reader = self.reader.take().context("no reader")?;
        ensure!(reader.join().is_ok(), "the reader of a child's lines panicked");
        Ok(lines)
    }

    /// Waits for its end, at most `limit`; returns all it said and whether it ended well and in time.
    pub fn finish(mut self, limit: Duration) -> Result<(Vec<String>, bool)> {
        drop(self.stdin.take());
        let begin = Instant::now();
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => return Ok((lines, self.child.wait()?.success())),
                Err(RecvTimeoutError::Timeout) if begin.elapsed() < limit => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.child.kill()?;
                    self.child.wait()?;
                    return Ok((lines, false));
                }
            }
        }
    }
}

impl Drop for Running {
    /// Whoever gives up on a child ends it; one that has ended already cannot be killed, and need not be.
    fn drop(&mut self) {
        if self.child.kill().is_ok() && self.child.wait().is_err() {
            eprintln!("a child could not be waited for");
        }
    }
}

/// The numbers of the lines `answered <n>`.
pub fn answered(lines: &[String]) -> impl Iterator<Item = u64> + '_ {
    lines
        .iter()
        .filter_map(|line| line.strip_prefix("answered ")?.parse().ok())
}
