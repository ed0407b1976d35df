//! `postrider users import`: users from a file, in pieces that are durable when they are answered.
//!
//! Invariant: importing the same again changes nothing more, so that whatever broke off is simply done again. With
//! `--bad-lines refuse` the file goes in one request, and all of it or nothing is taken.

mod sum;
mod whole;

use crate::backoff;
use crate::client::{self, Call, NodeArgs};
use crate::exit::Failure;
use crate::input::{Input, Piece, Records};
use crate::output::{self, counted, grouped};
use crate::progress::{At, Progress};
use crate::term::{Look, plain, plain_json};
use anyhow::anyhow;
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;
use sum::{Sum, left_out, more, summary};

/// The first word on a file of which the node took nothing.
const NOTHING: &str = "nothing was imported";
/// How often a piece is sent again that the node could not take.
const ATTEMPTS: u32 = 5;
/// The longest pause before that.
const PAUSE_MOST: Duration = Duration::from_secs(30);

/// Arguments of `import`.
#[derive(Args)]
#[command(after_help = IMPORT_HELP)]
#[command(
    about = "Add or change users from a file, one a line",
    long_about = "Add or change users from a file, one a line.\n\n\
    NDJSON: each line is an object with `id` and, where they are known, `email`, `mobile`, `locale`, `time_zone`, \
    `attributes` (texts by name) and `topics` (a list; a user leaves the topics that are not in it, and keeps them all \
    where it is left out).\n\
    CSV: the first line names the columns: the same names; topics are separated by blanks or semicolons in \
    their field; a column `attributes.NAME` is an attribute; an empty field is one that is not known.\n\n\
    Importing the same file again changes nothing, so that after a break the whole is simply imported again."
)]
pub struct ImportArgs {
    /// The file, or - for standard input
    file: String,
    /// How it is written [default: by its name: .csv is CSV, all else NDJSON]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// What becomes of the file where a line cannot be taken
    #[arg(long, value_enum, default_value = "skip", value_name = "WHAT")]
    bad_lines: BadLines,
    #[command(flatten)]
    node: NodeArgs,
}

const IMPORT_HELP: &str = "\
Bad lines are reported with their number and the reason. Exit status 1 where there was one; with --bad-lines skip all \
others are imported then. With --json each bad line is one object, and the last line is the summary.

Examples:
  postrider users import users.ndjson
  postrider users import users.csv --bad-lines refuse
  zcat users.csv.gz | postrider users import - --format csv
  postrider users import users.csv --json | jq 'select(.line)'    only what was left out";

/// How a file of users is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An object a line
    Ndjson,
    /// Comma-separated values with a line of names
    Csv,
}

/// What becomes of the others where a line is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BadLines {
    /// Bad lines are left out, all others imported
    Skip,
    /// Nothing is imported if there is a bad line; the file then has at most http.max_body, 16 MiB
    Refuse,
}

impl Format {
    fn of(args: &ImportArgs) -> Format {
        let extension = Path::new(&args.file).extension();
        let is_csv = extension.is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        args.format
            .unwrap_or(if is_csv { Format::Csv } else { Format::Ndjson })
    }

    fn content_type(self) -> &'static str {
        match self {
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv",
        }
    }
}

/// Imports.
pub fn run(args: &ImportArgs) -> Result<(), Failure> {
    // What is wrong with the key or the address is said before the input is read.
    args.node.call()?.get("/v1/users", &[("limit", "1")])?;
    let mut progress = Progress::begin("users");
    let done = match args.bad_lines {
        BadLines::Skip => in_pieces(args, &mut progress),
        BadLines::Refuse => whole::import(args, &mut progress),
    };
    let elapsed = progress.elapsed();
    progress.clear()?;
    let sum = done?;
    match args.node.json {
        true => output::json(&sum.json())?,
        false => output::line(&summary(&sum, elapsed, Look::stdout()))?,
    }
    match sum.rejected {
        0 => Ok(()),
        _ => Err(anyhow!(left_out(&sum)).into()),
    }
}

fn in_pieces(args: &ImportArgs, progress: &mut Progress) -> Result<Sum, Failure> {
    let format = Format::of(args);
    let call = args.node.call()?;
    let records = match format {
        Format::Ndjson => Records::Lines,
        Format::Csv => Records::Csv,
    };
    let mut input = Input::begin(&args.file, records)?;
    let header = match format {
        Format::Ndjson => Piece::default(),
        Format::Csv => input.header()?.unwrap_or_default(),
    };
    let mut sum = Sum::default();
    let mut coming = input.piece()?;
    if format == Format::Csv && coming.is_none() {
        // The node judges the header even where no user follows it.
        let (first, lines) = (header.lines + 1, 0);
        let text = Vec::new();
        coming = Some(Piece { text, first, lines });
    }
    while let Some(piece) = coming {
        // A line of the answer counts the header, which goes before every piece.
        let before = piece.first - 1 - header.lines;
        let body = [header.text.as_slice(), &piece.text].concat();
        let answer = send(&call, format, &body).map_err(|failure| stopped(failure, &piece, &sum))?;
        sum.add(&answer);
        if !bad_lines(&answer).is_empty() {
            progress.clear()?;
            tell(bad_lines(&answer), before, args.node.json)?;
        }
        progress.show(At {
            done: sum.lines,
            rejected: sum.rejected,
            bytes: input.given,
            of: input.size,
        })?;
        coming = input.piece()?;
    }
    Ok(sum)
}

/// Sends a piece, again where the node could not take it just now: what it took already, it takes as unchanged.
fn send(call: &Call, format: Format, body: &[u8]) -> Result<Value, Failure> {
    let mut attempt = 1;
    loop {
        let request = call
            .agent
            .post(format!("{}/v1/users/import?bad_lines=skip", call.base));
        let request = request
            .header("Authorization", &call.bearer)
            .header("Accept", "application/json")
            .content_type(format.content_type());
        let failure = match client::json(request.send(body)) {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let refused = failure.refused();
        if attempt == ATTEMPTS || refused.is_some_and(|refused| !refused.is_transient()) {
            return Err(failure);
        }
        let asked = refused.and_then(|refused| refused.retry_after);
        backoff::wait(asked.unwrap_or(Duration::from_secs(1 << attempt)).min(PAUSE_MOST));
        attempt += 1;
    }
}

fn stopped(failure: Failure, piece: &Piece, sum: &Sum) -> Failure {
    if sum.lines == 0 && failure.refused().is_some_and(|refused| !refused.is_transient()) {
        return failure.context(NOTHING);
    }
    failure.context(format!(
        "stopped before line {}: {} imported until then. Import the whole again: what is there already stays as it is",
        grouped(piece.first),
        counted(sum.imported(), "user")
    ))
}

fn bad_lines(answer: &Value) -> &[Value] {
    answer["bad_lines"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// Writes what is wrong with which line.
fn tell(bad: &[Value], before: u64, as_json: bool) -> Result<(), Failure> {
    let look = Look::stdout();
    let mut out = std::io::stdout().lock();
    for fault in bad {
        let number = fault["line"].as_u64().unwrap_or(0) + before;
        if as_json {
            let mut fault = fault.clone();
            fault["line"] = number.into();
            writeln!(out, "{}", plain_json(&fault.to_string()))?;
            continue;
        }
        let text = |name: &str| fault[name].as_str().unwrap_or_default();
        let place = match (text("pointer"), text("column")) {
            ("", "") => String::new(),
            ("", column) => format!(" (column {})", plain(column)),
            (pointer, _) => format!(" (at {})", plain(pointer)),
        };
        writeln!(
            out,
            "{}  {}{place}",
            look.bad(format!("line {number}")),
            plain(text("detail"))
        )?;
    }
    Ok(out.flush()?)
}
