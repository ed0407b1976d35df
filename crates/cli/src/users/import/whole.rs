//! The whole file in one request: all of it is taken, or nothing.

use super::{Format, ImportArgs, NOTHING, Sum, bad_lines, more, tell};
use crate::client::{self, Refused};
use crate::exit::Failure;
use crate::input;
use crate::output::{self, counted, grouped};
use crate::progress::{At, Progress};
use anyhow::anyhow;
use serde_json::json;
use std::io::Read;
use std::time::Duration;
use ureq::SendBody;

/// How long the node may look at it.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Imports it if every line can be taken.
pub fn import(args: &ImportArgs, progress: &mut Progress) -> Result<Sum, Failure> {
    let call = args.node.follow(WHOLE_TIMEOUT)?;
    let (reader, size) = input::open(&args.file)?;
    let at = At {
        of: size,
        ..At::default()
    };
    let request = call
        .agent
        .post(format!("{}/v1/users/import?bad_lines=refuse", call.base))
        .header("Authorization", &call.bearer)
        .header("Accept", "application/json")
        .content_type(Format::of(args).content_type());
    let mut body = Counted { reader, progress, at };
    let answer = client::json(request.send(SendBody::from_reader(&mut body)));
    progress.clear()?;
    let failure = match answer {
        Ok(answer) => {
            let mut sum = Sum::default();
            sum.add(&answer);
            return Ok(sum);
        }
        Err(failure) => failure,
    };
    let refused = failure.refused().filter(|refused| !refused.is_transient());
    match refused.map(|refused| (refused.code.as_deref(), refused)) {
        Some((Some("bad_lines"), refused)) => refusal(refused, args.node.json),
        // The file, or its header: the node says which.
        Some((Some("too_large"), _)) => Err(failure.context(format!(
            "{NOTHING}; a file that is larger than http.max_body is taken with --bad-lines skip only"
        ))),
        Some(_) => Err(failure.context(NOTHING)),
        None => Err(failure.context("nothing is known to be imported; importing again is safe")),
    }
}

/// Says which lines were bad.
fn refusal(refused: &Refused, as_json: bool) -> Result<Sum, Failure> {
    let bad = bad_lines(&refused.problem);
    let count = |name: &str| refused.problem[name].as_u64().unwrap_or(0);
    let (lines, rejected) = (count("lines"), count("rejected"));
    tell(bad, 0, as_json)?;
    if as_json {
        output::json(&json!({"done": false, "lines": lines, "imported": 0, "rejected": rejected}))?;
    }
    let more = more(rejected, bad.len() as u64);
    Err(anyhow!(
        "{} of {} could not be taken{more}, so nothing was imported. Put those right, or leave them out with --bad-lines skip",
        grouped(rejected),
        counted(lines, "user")
    )
    .into())
}

/// Reads, and shows how far it is.
struct Counted<'a> {
    reader: Box<dyn std::io::BufRead + Send>,
    progress: &'a mut Progress,
    at: At,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.at.bytes += read as u64;
        self.at.done += buffer[..read].iter().filter(|b| **b == b'\n').count() as u64;
        self.progress.show(self.at)?;
        Ok(read)
    }
}
