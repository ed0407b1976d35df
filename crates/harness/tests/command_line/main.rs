//! The command line, as people and scripts meet it: the real binary against a running node.
//!
//! Invariant of every command that is tried here: with `--json` standard output is JSON and nothing else; without a
//! terminal there is no escape code in it; the exit status is 0 where it did what was asked, 1 where it did not, 2
//! where it was asked in a way that it does not understand.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is a driver: it spawns and waits"
)]

mod directory;
mod importing;
mod listening;
mod operating;
mod publishing;
mod terminal;
mod usage;

use anyhow::{Context as _, Result, ensure};
use postrider_harness::node::{KEY, Node, binary};
use postrider_harness::token;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// How long a line may take that has to come.
const LINE_DEADLINE: Duration = Duration::from_secs(60);
/// Lines of a command that wait for the test.
const LINES_WAITING: usize = 10_000;

/// A command line with the environment of somebody who uses one node.
pub struct Shell {
    env: Vec<(String, String)>,
}

/// What a command that has ended said.
#[derive(Debug)]
pub struct Done {
    /// Its exit status.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Shell {
    /// For that node, with a key that may do everything and the token of `ada`.
    pub fn at(node: &Node) -> Result<Shell> {
        Shell::to(&format!("http://{}", node.endpoint.addr()?))
    }

    /// The same for an address.
    pub fn to(url: &str) -> Result<Shell> {
        let env = [("POSTRIDER_URL", url), ("POSTRIDER_KEY", KEY)];
        let mut env: Vec<_> = env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        env.push(("POSTRIDER_TOKEN".into(), token::user("ada")?));
        Ok(Shell { env })
    }

    /// With one variable more, or another value of it.
    pub fn with(mut self, name: &str, value: &str) -> Shell {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.into(), value.into()));
        self
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command
            .args(args)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }

    /// Runs it to its end with this input.
    pub fn feed(&self, args: &[&str], input: &[u8]) -> Result<Done> {
        let mut child = self.command(args)?.stdin(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        let input = input.to_vec();
        // It may end without reading all of it.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output()?;
        drop(writer.join());
        Ok(Done {
            code: output.status.code().context("it was killed")?,
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Result<Done> {
        self.feed(args, b"")
    }

    /// Runs what has to succeed, and say nothing on standard error; its output.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let done = self.run(args)?;
        ensure!(done.code == 0 && done.err.is_empty(), "{args:?}: {done:?}");
        ensure!(!done.out.contains('\x1b'), "{args:?}: escape codes: {done:?}");
        Ok(done.out)
    }

    /// The one document that it writes with `--json`.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let out = self.ok(&[args, &["--json"]].concat())?;
        ensure!(
            out.ends_with('\n') && out.lines().count() == 1,
            "{args:?}: {out:?}"
        );
        Ok(serde_json::from_str(&out)?)
    }

    /// The documents that it writes with `--json`, one a line.
    pub fn ndjson(&self, args: &[&str]) -> Result<Vec<Value>> {
        let out = self.ok(&[args, &["--json"]].concat())?;
        Ok(out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    /// Starts what goes on until it is told to end.
    pub fn start(&self, args: &[&str]) -> Result<Going> {
        let mut child = self.command(args)?.spawn()?;
        let out = child.stdout.take().context("no stdout")?;
        let err = child.stderr.take().context("no stderr")?;
        Ok(Going {
            out: lines(out),
            err: lines(err),
            child,
        })
    }
}

/// A command that goes on; it ends with the test.
pub struct Going {
    /// The process.
    pub child: Child,
    /// The lines of its standard output.
    pub out: Receiver<String>,
    /// The lines of its standard error.
    pub err: Receiver<String>,
}

fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = sync_channel(LINES_WAITING);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

impl Going {
    /// The next line of standard output.
    pub fn line(&self) -> Result<String> {
        self.out.recv_timeout(LINE_DEADLINE).context("no line came")
    }

    /// The next line of standard output, which is JSON.
    pub fn json(&self) -> Result<Value> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| line.clone())
    }

    /// Waits for a line on standard error with this in it.
    pub fn told(&self, part: &str) -> Result<String> {
        loop {
            let line = self.err.recv_timeout(LINE_DEADLINE);
            let line = line.with_context(|| format!("nothing was said of `{part}`"))?;
            if line.contains(part) {
                return Ok(line);
            }
        }
    }

    /// The rest of standard output, once it has ended.
    pub fn rest(&self) -> Vec<String> {
        self.out.iter().collect()
    }

    /// Ctrl-C.
    pub fn interrupt(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.child.id().try_into()?).context("pid")?;
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::INT)?)
    }

    /// How it ended.
    pub fn code(&mut self) -> Result<i32> {
        let deadline = postrider_harness::wait::within(LINE_DEADLINE.as_secs());
        let status = postrider_harness::wait::until("the end of a command", deadline, || {
            Ok(self.child.try_wait()?)
        })?;
        status.code().context("it was killed")
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill().and_then(|()| self.child.wait()));
        }
    }
}

/// Its standard output by itself, to be closed by the test.
pub fn piped(shell: &Shell, args: &[&str]) -> Result<(Child, BufReader<ChildStdout>)> {
    let mut child = shell.command(args)?.stderr(Stdio::null()).spawn()?;
    let out = BufReader::new(child.stdout.take().context("no stdout")?);
    Ok((child, out))
}
