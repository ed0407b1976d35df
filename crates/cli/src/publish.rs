//! `postrider publish`: one notification from arguments, or a stream of them.

use crate::client::{self, KeyArg, UrlArg};
use crate::exit::Failure;
use anyhow::{Context as _, anyhow};
use clap::{ArgGroup, Args};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::io::{BufRead, BufReader, Read as _, Write as _};

/// Lines that are sent in one request.
const LINES_AT_ONCE: u64 = 500;
/// Bytes of them, about.
const BYTES_AT_ONCE: usize = 4 << 20;

/// Arguments of `publish`.
#[derive(Args)]
#[command(after_help = PUBLISH_HELP)]
#[command(group(ArgGroup::new("audience").args(["to", "topic", "everyone", "ndjson"]).required(true)))]
pub struct PublishArgs {
    #[command(flatten)]
    url: UrlArg,
    #[command(flatten)]
    key: KeyArg,
    /// A user it is for; may be given several times
    #[arg(long, value_name = "USER")]
    to: Vec<String>,
    /// A topic it is for; may be given several times
    #[arg(long)]
    topic: Vec<String>,
    /// It is for everyone
    #[arg(long)]
    everyone: bool,
    /// A user who does not get it; may be given several times
    #[arg(long, value_name = "USER")]
    except: Vec<String>,
    /// A line for people
    #[arg(long)]
    subject: Option<String>,
    /// The payload as JSON: the text itself, @FILE, or - for standard input
    #[arg(long, required_unless_present = "ndjson")]
    data: Option<String>,
    /// Its id; publishing the same again then has no further effect
    #[arg(long)]
    id: Option<String>,
    /// How long it is worth delivering, e.g. 24h
    #[arg(long)]
    ttl: Option<String>,
    /// Which devices it is for: all of the user's, or the first that acknowledges it by id
    #[arg(long, value_parser = ["all", "first"])]
    devices: Option<String>,
    /// Publish one notification per line of FILE, or of standard input with -
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "id", "ttl", "devices", "subject", "except"])]
    ndjson: Option<String>,
    /// Write the node's answer as it is
    #[arg(long)]
    json: bool,
}

const PUBLISH_HELP: &str = "\
Examples:
  postrider publish --to ada --to bob --subject 'Order shipped' --data '{\"order\":7}'
  postrider publish --everyone --data @news.json --ttl 24h
  postrider publish --ndjson - < notifications.ndjson";

/// Publishes.
pub fn run(args: &PublishArgs) -> Result<(), Failure> {
    match &args.ndjson {
        Some(source) => stream(args, source),
        None => one(args),
    }
}

fn one(args: &PublishArgs) -> Result<(), Failure> {
    let data = data(args.data.as_deref().unwrap_or_default())?;
    let mut fields = Map::new();
    for (name, list) in [
        ("users", &args.to),
        ("topics", &args.topic),
        ("exclude_users", &args.except),
    ] {
        if !list.is_empty() {
            fields.insert(name.into(), list.as_slice().into());
        }
    }
    for (name, text) in [
        ("subject", &args.subject),
        ("id", &args.id),
        ("ttl", &args.ttl),
        ("devices", &args.devices),
    ] {
        if let Some(text) = text {
            fields.insert(name.into(), text.as_str().into());
        }
    }
    // The payload goes as it was written: numbers keep their digits.
    let mut body = serde_json::to_string(&fields)?;
    body.pop();
    let comma = if fields.is_empty() { "" } else { "," };
    let body = format!("{body}{comma}\"data\":{}}}", data.get());
    let answer = args
        .url
        .agent()?
        .post(args.url.join("/v1/notifications")?)
        .header("Authorization", args.key.bearer()?)
        .content_type("application/json")
        .send(body);
    let answer = client::body(answer)?;
    let id = serde_json::from_str::<Value>(&answer)
        .ok()
        .and_then(|value| value["id"].as_str().map(str::to_owned));
    match id {
        Some(id) if !args.json => println!("accepted {id}"),
        _ => println!("{}", answer.trim_end()),
    }
    Ok(())
}

fn data(argument: &str) -> Result<Box<RawValue>, Failure> {
    let text = match argument.strip_prefix('@') {
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("--data: {file} cannot be read"))?
        }
        None if argument == "-" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("--data: standard input cannot be read")?;
            text
        }
        None => argument.to_owned(),
    };
    RawValue::from_string(text.trim().to_owned()).map_err(|e| {
        Failure::usage(format!(
            "--data is not valid JSON ({e}); a text needs quotes of its own: --data '\"hello\"'"
        ))
    })
}

fn stream(args: &PublishArgs, source: &str) -> Result<(), Failure> {
    let reader: Box<dyn BufRead> = match source {
        "-" => Box::new(BufReader::new(std::io::stdin())),
        file => Box::new(BufReader::new(
            std::fs::File::open(file).with_context(|| format!("{file} cannot be read"))?,
        )),
    };
    let (url, bearer, agent) = (
        args.url.join("/v1/notifications")?,
        args.key.bearer()?,
        args.url.agent()?,
    );
    let (mut sent, mut rejected) = (0u64, 0u64);
    let mut lines = reader.lines();
    loop {
        let mut body = String::new();
        let mut count = 0u64;
        while count < LINES_AT_ONCE && body.len() < BYTES_AT_ONCE {
            let Some(line) = lines.next() else { break };
            let line = line.context("the input cannot be read")?;
            if !line.trim().is_empty() {
                body.push_str(&line);
                body.push('\n');
                count += 1;
            }
        }
        if count == 0 {
            break;
        }
        let request = agent
            .post(&url)
            .header("Authorization", &bearer)
            .content_type("application/x-ndjson");
        let answer =
            client::body(request.send(body)).map_err(|failure| stopped(failure, sent, sent + count))?;
        rejected += print_answers(&answer, sent, args.json)?;
        sent += count;
    }
    if rejected > 0 {
        return Err(anyhow!("{rejected} of {sent} notifications were rejected; the others were accepted: put those right and publish only them").into());
    }
    if !args.json {
        println!("{sent} accepted");
    }
    Ok(())
}

/// A stream that broke off: what is settled, and what is not.
fn stopped(failure: Failure, answered: u64, sent: u64) -> Failure {
    const AGAIN: &str = "those with an `id` are not doubled";
    let told = match answered {
        0 => format!("stopped before any answer: publish all of it again ({AGAIN})"),
        _ => {
            let next = answered + 1;
            format!(
                "stopped: items 1 to {answered} were answered, {next} to {sent} were not and may or may not be accepted: publish again from item {next} ({AGAIN})"
            )
        }
    };
    match failure {
        Failure::Other(error) => Failure::Other(error.context(told)),
        other => other,
    }
}

/// Prints what was rejected, or everything as JSON. Returns how many were rejected.
fn print_answers(answer: &str, before: u64, json: bool) -> Result<u64, Failure> {
    let mut rejected = 0;
    let mut out = std::io::stdout().lock();
    for (line, place) in answer.lines().zip(before + 1..) {
        let item: Value = serde_json::from_str(line).context("the answer is no NDJSON")?;
        let is_accepted = item["accepted"] == true;
        rejected += u64::from(!is_accepted);
        let text = |name: &str| item[name].as_str().unwrap_or_default();
        if json {
            writeln!(out, "{line}")?;
        } else if !is_accepted {
            writeln!(
                out,
                "rejected item {place}: {}: {} {}",
                text("code"),
                text("detail"),
                text("pointer")
            )?;
        }
    }
    Ok(rejected)
}
