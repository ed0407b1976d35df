//! `postrider publish`: one notification from arguments, or a stream of them.

mod stream;

use crate::client::{self, Call, KeyArg, UrlArg};
use crate::exit::Failure;
use crate::output;
use anyhow::Context as _;
use clap::{ArgGroup, Args};
use postrider_model::{Millis, Timestamp};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::io::Read as _;

/// Arguments of `publish`.
#[derive(Args)]
#[command(after_help = PUBLISH_HELP)]
#[command(
    about = "Publish notifications",
    long_about = "Publish notifications: one from arguments, or one per line of a file.\n\n\
    The answer comes once the notification is durable. Publishing again with the same --id has no further effect, so \
    that a command which got no answer is simply repeated."
)]
#[command(group(ArgGroup::new("audience").args(["to", "topic", "everyone", "ndjson"]).required(true)))]
#[command(group(ArgGroup::new("payload").args(["data", "text", "ndjson"]).required(true).multiple(true)))]
pub struct PublishArgs {
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
    #[arg(long, value_name = "USER", conflicts_with = "ndjson")]
    except: Vec<String>,
    /// A line for people
    #[arg(long, short, conflicts_with = "ndjson")]
    subject: Option<String>,
    /// The payload as JSON: the text itself, @FILE, or - for standard input
    #[arg(long, short, value_name = "JSON", conflicts_with = "ndjson")]
    data: Option<String>,
    /// The payload is this text, as a JSON string
    #[arg(long, conflicts_with_all = ["data", "ndjson"])]
    text: Option<String>,
    /// Its id; publishing the same again then has no further effect
    #[arg(long, conflicts_with = "ndjson")]
    id: Option<String>,
    /// How long it is worth delivering, e.g. 24h
    #[arg(long, value_name = "TIME", conflicts_with = "ndjson")]
    ttl: Option<String>,
    /// Nobody gets it before: a time (2026-12-01T09:00:00Z), or from now (+10m)
    #[arg(long, value_name = "TIME", conflicts_with = "ndjson")]
    deliver_at: Option<String>,
    /// It takes the place of the last one with the same key
    #[arg(long, value_name = "KEY", conflicts_with = "ndjson")]
    collapse_key: Option<String>,
    /// Which devices it is for: all of the user's, or the first that acknowledges it by id
    #[arg(long, value_parser = ["all", "first"], conflicts_with = "ndjson")]
    devices: Option<String>,
    /// Only for those connected now, at most once, never stored
    #[arg(long, conflicts_with_all = ["ndjson", "deliver_at", "collapse_key"])]
    transient: bool,
    /// Publish one notification per line of FILE, or of standard input with -
    #[arg(long, value_name = "FILE")]
    ndjson: Option<String>,
    /// Write the node's answer: {"id":…,"accepted":true}; of a stream, one for each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    url: UrlArg,
    #[command(flatten)]
    key: KeyArg,
}

const PUBLISH_HELP: &str = "\
Lines of --ndjson are what POST /v1/notifications takes: {\"users\":[\"ada\"],\"data\":1}. Lines that are rejected are told with \
their number; the others are published, and the exit status is 1.

Examples:
  postrider publish --to ada --to bob --subject 'Order shipped' --data '{\"order\":7}' --id order-7-shipped
  postrider publish --topic news --text 'The river has reached the mark' --ttl 6h
  postrider publish --everyone --except ada --data @news.json --deliver-at +10m
  postrider publish --to ada --transient --data '{\"typing\":\"bob\"}'
  postrider publish --ndjson notifications.ndjson
  tail -f queue.ndjson | postrider publish --ndjson - --json";

/// Publishes.
pub fn run(args: &PublishArgs) -> Result<(), Failure> {
    let bearer = args.key.bearer()?;
    match &args.ndjson {
        Some(source) => {
            let call = Call::following(&args.url, bearer, stream::SILENCE)?;
            stream::run(&call, source, args.json)
        }
        None => one(&Call::with(&args.url, bearer)?, args),
    }
}

fn one(call: &Call, args: &PublishArgs) -> Result<(), Failure> {
    let data = match &args.text {
        Some(text) => RawValue::from_string(Value::from(text.as_str()).to_string())?,
        None => data(args.data.as_deref().unwrap_or_default())?,
    };
    let body = body(&fields(args)?, &data);
    let answer = call
        .agent
        .post(format!("{}/v1/notifications", call.base))
        .header("Authorization", &call.bearer)
        .content_type("application/json")
        .send(body);
    let answer = client::json(answer)?;
    match answer["id"].as_str() {
        Some(id) if !args.json => output::line(&format!("accepted {id}")),
        _ => output::json(&answer),
    }
}

/// The notification without its payload.
fn fields(args: &PublishArgs) -> Result<Map<String, Value>, Failure> {
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
    let deliver_at = args.deliver_at.as_deref();
    let deliver_at = deliver_at
        .map(|time| due(time, postrider_server::now()))
        .transpose()?;
    for (name, text) in [
        ("subject", &args.subject),
        ("id", &args.id),
        ("ttl", &args.ttl),
        ("deliver_at", &deliver_at),
        ("collapse_key", &args.collapse_key),
        ("devices", &args.devices),
    ] {
        if let Some(text) = text {
            fields.insert(name.into(), text.as_str().into());
        }
    }
    if args.transient {
        fields.insert("durability".into(), "transient".into());
    }
    Ok(fields)
}

/// The payload goes as it was written: numbers keep their digits.
fn body(fields: &Map<String, Value>, data: &RawValue) -> String {
    let fields = Value::Object(fields.clone()).to_string();
    let fields = fields.trim_end_matches('}');
    let comma = if fields == "{" { "" } else { "," };
    format!("{fields}{comma}\"data\":{}}}", data.get())
}

/// A time as the node takes it: `+10m` counts from now.
fn due(time: &str, now: Timestamp) -> Result<String, Failure> {
    let Some(span) = time.strip_prefix('+') else {
        return match Timestamp::parse_rfc3339(time) {
            Some(_) => Ok(time.to_owned()),
            None => Err(Failure::usage(format!(
                "--deliver-at: `{time}` is no time: write 2026-12-01T09:00:00Z, or +10m for in ten minutes"
            ))),
        };
    };
    let span = Millis::parse(span).map_err(|e| Failure::usage(format!("--deliver-at: {e}")))?;
    Ok(now.plus(span).to_string())
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
            "--data is not valid JSON ({e}); for a plain text give --text instead"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_go_as_they_were_written() {
        let data = RawValue::from_string("[1.50, 1e400]".into()).unwrap();
        assert_eq!(body(&Map::new(), &data), r#"{"data":[1.50, 1e400]}"#);
        let mut fields = Map::new();
        fields.insert("id".into(), "a}".into());
        assert_eq!(body(&fields, &data), r#"{"id":"a}","data":[1.50, 1e400]}"#);
    }

    #[test]
    fn times_are_absolute_or_from_now() {
        let now = Timestamp::parse_rfc3339("2026-11-21T06:00:00.000Z").unwrap();
        assert_eq!(due("+90m", now).unwrap(), "2026-11-21T07:30:00.000Z");
        assert_eq!(due("2027-01-01T00:00:00Z", now).unwrap(), "2027-01-01T00:00:00Z");
        for wrong in ["tomorrow", "+", "+x", ""] {
            assert!(
                matches!(due(wrong, now), Err(Failure::Configuration(_))),
                "{wrong}"
            );
        }
    }
}
