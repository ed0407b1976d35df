//! Many notifications, a line each, in pieces of one request.

use crate::client::{self, Call};
use crate::exit::Failure;
use crate::input::{Input, Piece, Records};
use crate::output::{self, counted, grouped};
use crate::progress::{At, Progress};
use crate::term::{Look, plain, plain_json};
use anyhow::{Context as _, anyhow};
use serde_json::Value;
use std::io::{ErrorKind, Write as _};
use std::time::Duration;

/// How long the node may say nothing: a key's publish rate may let few lines pass.
pub const SILENCE: Duration = Duration::from_secs(300);

/// What came of the lines so far.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    lines: u64,
    items: u64,
    rejected: u64,
}

/// Publishes the lines of a file.
pub fn run(call: &Call, source: &str, json: bool) -> Result<(), Failure> {
    let mut input = Input::begin(source, Records::Lines)?;
    let mut progress = Progress::begin("notifications");
    let mut sum = Sum::default();
    while let Some(piece) = input.piece()? {
        let (body, numbers) = items(&piece);
        if numbers.is_empty() {
            sum.lines += piece.lines;
            continue;
        }
        let request = call
            .agent
            .post(format!("{}/v1/notifications", call.base))
            .header("Authorization", &call.bearer)
            .content_type("application/x-ndjson");
        let answer = client::body(request.send(body.as_slice()));
        if answer.is_err() {
            progress.clear()?;
        }
        let answer = answer.map_err(|failure| stopped(failure, &piece, &numbers))?;
        let rejected =
            tell(&answer, &numbers, json, &mut progress).map_err(|failure| cut(failure, &piece))?;
        sum.lines += piece.lines;
        sum.items += numbers.len() as u64;
        sum.rejected += rejected;
        progress.show(At {
            done: sum.items,
            rejected: sum.rejected,
            bytes: input.given,
            of: input.size,
        })?;
    }
    finish(sum, json, &mut progress)
}

fn finish(sum: Sum, json: bool, progress: &mut Progress) -> Result<(), Failure> {
    let seconds = progress.elapsed().as_secs_f64();
    progress.clear()?;
    if !json {
        let rate = (sum.items as f64 / seconds.max(0.001)) as u64;
        let look = Look::stdout();
        output::line(&format!(
            "{} accepted  {}",
            look.bold(counted(sum.items - sum.rejected, "notification")),
            look.dim(format!("{seconds:.1} s, {}/s", grouped(rate)))
        ))?;
    }
    match sum.rejected {
        0 => Ok(()),
        n => Err(anyhow!(
            "{} of {} rejected; the others were accepted: put those right and publish only them",
            grouped(n),
            counted(sum.items, "notification")
        )
        .into()),
    }
}

/// The lines that hold something, and their numbers.
fn items(piece: &Piece) -> (Vec<u8>, Vec<u64>) {
    let (mut body, mut numbers) = (Vec::with_capacity(piece.text.len()), Vec::new());
    for (line, number) in piece.text.split_inclusive(|b| *b == b'\n').zip(piece.first..) {
        if !line.trim_ascii().is_empty() {
            body.extend_from_slice(line);
            numbers.push(number);
        }
    }
    (body, numbers)
}

/// A stream that broke off: what is settled, and what is not.
fn stopped(failure: Failure, piece: &Piece, numbers: &[u64]) -> Failure {
    const AGAIN: &str = "those with an `id` are not doubled";
    let last = numbers.last().copied().unwrap_or(piece.first);
    let first = numbers.first().copied().unwrap_or(piece.first);
    failure.context(match piece.first {
        1 => format!("stopped before any answer: publish all of it again ({AGAIN})"),
        _ => format!(
            "stopped: the lines before {first} were answered, {first} to {last} were not and may or may not be accepted: publish again from line {first} ({AGAIN})"
        ),
    })
}

/// Nobody reads the answers any more: that must not look as if all had been published.
fn cut(failure: Failure, piece: &Piece) -> Failure {
    match failure {
        Failure::Other(error)
            if error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) =>
        {
            let last = piece.first + piece.lines - 1;
            anyhow!("stopped after line {last}: nobody reads the answers any more").into()
        }
        failure => failure,
    }
}

/// Writes what was rejected, or everything as JSON. Returns how many were rejected.
fn tell(answer: &str, numbers: &[u64], json: bool, progress: &mut Progress) -> Result<u64, Failure> {
    let mut rejected = 0;
    let look = Look::stdout();
    let mut out = std::io::stdout().lock();
    for (line, number) in answer.lines().zip(numbers) {
        let item: Value = serde_json::from_str(line).context("the answer is no NDJSON")?;
        let is_accepted = item["accepted"] == true;
        rejected += u64::from(!is_accepted);
        let text = |name: &str| plain(item[name].as_str().unwrap_or_default()).into_owned();
        if json {
            writeln!(out, "{}", plain_json(line))?;
        } else if !is_accepted {
            progress.clear()?;
            let place = match text("pointer") {
                pointer if pointer.is_empty() => pointer,
                pointer => format!(" (at {pointer})"),
            };
            let number = look.bad(format!("line {number}"));
            writeln!(
                out,
                "{number}  rejected: {}: {}{place}",
                text("code"),
                text("detail")
            )?;
        }
    }
    out.flush()?;
    Ok(rejected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_are_counted_and_not_sent() {
        let piece = Piece {
            text: b"{\"a\":1}\n\n  \n{\"b\":2}".to_vec(),
            first: 11,
            lines: 4,
        };
        let (body, numbers) = items(&piece);
        assert_eq!(body, b"{\"a\":1}\n{\"b\":2}");
        assert_eq!(numbers, [11, 14]);
    }
}
