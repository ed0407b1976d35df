//! Runs one command to its end, line by line, and never longer than it may.
//!
//! Invariant: when a call returns, nothing that the command started is left running.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::processes::Mark;

/// Lines read but not yet shown: the command waits when it is full.
const LINES: usize = 1024;
/// How long a line may be awaited before the child's end and the deadline are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long the output of an ended command may still be held open by what it left behind.
const AFTER_END: Duration = Duration::from_secs(2);

pub struct Ended {
    pub status: Option<ExitStatus>,
    pub timed_out: bool,
    pub seconds: f64,
    /// Processes that outlived the command and had to be ended.
    pub left_behind: usize,
}

impl Ended {
    pub fn succeeded(&self) -> bool {
        !self.timed_out && self.status.is_some_and(|status| status.success())
    }

    pub fn describe(&self) -> String {
        match self.status {
            _ if self.timed_out => format!("did not end within {:.0} s", self.seconds),
            Some(status) => format!("ended with {status}"),
            None => "ended without a status".to_owned(),
        }
    }
}

/// Standard output and error come as one stream, in the order in which they were written.
pub fn stream(command: &mut Command, limit: Duration, mut on_line: impl FnMut(&str)) -> Result<Ended> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let mark = Mark::new();
    let (reader, writer) = std::io::pipe().context("a pipe for the output")?;
    command.env(Mark::VARIABLE, mark.value()).stdin(Stdio::null());
    command
        .stdout(writer.try_clone().context("a pipe for the output")?)
        .stderr(writer);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    // The command keeps the pipe's writing end: without this the reader would never see its end.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let lines = lines_of(reader);
    let (status, timed_out) = follow(&mut child, &lines, start + limit, &mut on_line)?;
    if timed_out {
        mark.end_all();
    }
    drain(&lines, &mut on_line);
    let left_behind = mark.end_all();
    let status = match status {
        Some(status) => Some(status),
        None => child
            .try_wait()
            .with_context(|| format!("waiting for {program}"))?,
    };
    Ok(Ended {
        status,
        timed_out,
        seconds: start.elapsed().as_secs_f64(),
        left_behind,
    })
}

/// The whole output of a command, for commands that say little.
pub fn capture(command: &mut Command, limit: Duration) -> Result<(Ended, String)> {
    let mut output = String::new();
    let ended = stream(command, limit, |line| {
        output.push_str(line);
        output.push('\n');
    })?;
    Ok((ended, output))
}

fn lines_of(reader: std::io::PipeReader) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        // Not `lines()`: a test may print what is not UTF-8.
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line)
                .trim_end_matches(['\n', '\r'])
                .to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    receiver
}

fn follow(
    child: &mut Child,
    lines: &Receiver<String>,
    deadline: Instant,
    on_line: &mut impl FnMut(&str),
) -> Result<(Option<ExitStatus>, bool)> {
    loop {
        match lines.recv_timeout(TICK) {
            Ok(line) => on_line(&line),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = child.try_wait().context("waiting for a command")? {
                    return Ok((Some(status), false));
                }
            }
            // The output was closed: only the end can come.
            Err(RecvTimeoutError::Disconnected) => {
                if let Some(status) = child.try_wait().context("waiting for a command")? {
                    return Ok((Some(status), false));
                }
                std::thread::sleep(TICK);
            }
        }
        if Instant::now() >= deadline {
            return Ok((None, true));
        }
    }
}

fn drain(lines: &Receiver<String>, on_line: &mut impl FnMut(&str)) {
    let until = Instant::now() + AFTER_END;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        match lines.recv_timeout(left) {
            Ok(line) => on_line(&line),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_outputs_come_in_order() {
        let mut seen = Vec::new();
        let script = "echo one; echo two >&2; echo three; exit 3";
        let ended = stream(&mut shell(script), Duration::from_secs(20), |line| {
            seen.push(line.to_owned())
        })
        .unwrap();
        assert_eq!(seen, ["one", "two", "three"]);
        assert_eq!(ended.status.and_then(|status| status.code()), Some(3));
        assert!(!ended.succeeded());
    }

    #[test]
    fn what_takes_too_long_is_ended_with_its_children() {
        let script = "sleep 300 & echo started; wait";
        let ended = stream(&mut shell(script), Duration::from_millis(300), |_| ()).unwrap();
        assert!(ended.timed_out);
        assert!(ended.seconds < 30.0, "{}", ended.describe());
    }

    #[test]
    fn what_a_command_leaves_behind_is_ended_and_counted() {
        let ended = stream(
            &mut shell("sleep 300 & disown; exit 0"),
            Duration::from_secs(20),
            |_| (),
        )
        .unwrap();
        assert!(ended.succeeded());
        assert_eq!(ended.left_behind, 1);
    }
}
