//! `postrider listen`: a user's notifications as they come, over SSE; resumes by itself where it stopped.

use crate::client::{self, TokenArg, UrlArg};
use crate::exit::Failure;
use crate::sse::{Event, Reader};
use clap::Args;
use serde_json::Value;
use std::collections::{HashSet, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::time::Duration;
use ureq::Agent;

/// A stream that is silent for so long is gone: the node says something every 15 s.
const SILENCE: Duration = Duration::from_secs(45);
/// Notifications that are recognised when they come again; a batch is smaller.
const RECENT_IDS: usize = 10_000;
/// The first and the longest pause before another attempt.
const PAUSE_MS: u64 = 500;
const PAUSE_MOST_MS: u64 = 30_000;

/// Arguments of `listen`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  postrider listen --token \"$(postrider token --user ada --secret \"$SECRET\")\" --topics news"
)]
pub struct ListenArgs {
    #[command(flatten)]
    url: UrlArg,
    #[command(flatten)]
    token: TokenArg,
    /// Session topics, separated by commas
    #[arg(long)]
    topics: Option<String>,
    /// What acknowledges: the stream itself, only an explicit request, or nothing
    #[arg(long, value_parser = ["auto", "explicit", "none"], default_value = "auto")]
    ack: String,
    /// Where to go on, as an earlier stream or poll said
    #[arg(long)]
    cursor: Option<String>,
    /// Stop after so many notifications
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Write each event as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Shows what comes until it is stopped.
pub fn run(args: &ListenArgs) -> Result<(), Failure> {
    let bearer = args.token.bearer()?;
    let url = args.url.join("/v1/inbox/stream")?;
    let agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_per_read(Some(SILENCE))
        .tls_config(args.url.tls()?)
        .build()
        .new_agent();
    let mut followed = Followed {
        reader: Reader::default(),
        recent: Recent::default(),
        left: args.count,
    };
    followed.reader.last_id.clone_from(&args.cursor);
    let mut failures = 0u32;
    loop {
        match follow(args, &agent, &url, &bearer, &mut followed)? {
            Ended::Done => return Ok(()),
            Ended::AfterSome => {
                failures = 0;
                eprintln!("the stream ended");
            }
            Ended::BeforeAny(why) => {
                failures += 1;
                eprintln!("no stream: {why}");
                if failures == 1 {
                    eprintln!("is the node running, and is --url right? Ctrl-C gives up");
                }
            }
        }
        let pause = pause(followed.reader.retry_ms, failures)?;
        eprintln!("connecting again in {:.1} s", pause.as_secs_f64());
        wait(pause);
    }
}

/// What goes on from one connection to the next.
struct Followed {
    reader: Reader,
    recent: Recent,
    /// How many notifications are still wanted.
    left: Option<u64>,
}

/// The ids of notifications that were shown last: a connection that breaks before its cursor has come begins
/// again with some of them.
#[derive(Default)]
struct Recent {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Recent {
    /// Whether a notification was shown before and is not a new attempt; one that was not is noted.
    fn repeats(&mut self, event: &Event) -> bool {
        let value: Value = serde_json::from_str(&event.data).unwrap_or_default();
        let Some(id) = value["id"].as_str() else {
            return false;
        };
        if !self.ids.insert(id.to_owned()) {
            return value["attempt"].is_null();
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > RECENT_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        false
    }
}

enum Ended {
    /// As many as were asked for have come.
    Done,
    /// The stream ended after it had begun.
    AfterSome,
    /// There was no stream.
    BeforeAny(String),
}

fn follow(
    args: &ListenArgs,
    agent: &Agent,
    url: &str,
    bearer: &str,
    followed: &mut Followed,
) -> Result<Ended, Failure> {
    let Followed { reader, recent, left } = followed;
    let mut request = agent
        .get(url)
        .header("Authorization", bearer)
        .header("Accept", "text/event-stream")
        .query("ack", &args.ack);
    if let Some(topics) = &args.topics {
        request = request.query("topics", topics);
    }
    if let Some(id) = &reader.last_id {
        request = request.header("Last-Event-ID", id);
    }
    let answer = match request.call() {
        Ok(answer) => answer,
        Err(error) => return Ok(Ended::BeforeAny(error.to_string())),
    };
    let status = answer.status().as_u16();
    if status != 200 {
        let text = client::body(Ok(answer));
        // What the client did wrong stays wrong; what the node cannot do now it may do later.
        return match text {
            Err(Failure::Other(why)) if status == 429 || status >= 500 => {
                Ok(Ended::BeforeAny(why.to_string()))
            }
            Err(failure) => Err(failure),
            Ok(_) => Err(Failure::Other(anyhow::anyhow!(
                "the node answered {status} where a stream should be"
            ))),
        };
    }
    reader.restart();
    eprintln!("connected; Ctrl-C stops");
    let mut repeats_told = false;
    for line in BufReader::new(answer.into_body().into_reader()).lines() {
        let Ok(line) = line else { break };
        let Some(event) = reader.line(&line) else { continue };
        if event.name == "notification" && recent.repeats(&event) {
            if !std::mem::replace(&mut repeats_told, true) {
                eprintln!("what was shown before and comes again is left out");
            }
            continue;
        }
        show(&event, args.json)?;
        if event.name == "notification"
            && let Some(count) = left
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                return Ok(Ended::Done);
            }
        }
    }
    Ok(Ended::AfterSome)
}

fn show(event: &Event, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(
            out,
            "{{\"event\":{},\"data\":{}}}",
            Value::from(event.name.as_str()),
            event.data
        )?;
    } else {
        writeln!(out, "{}", render(event))?;
    }
    out.flush()?;
    Ok(())
}

/// An event for people.
fn render(event: &Event) -> String {
    let value: Value = serde_json::from_str(&event.data).unwrap_or_default();
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    match event.name.as_str() {
        "notification" => {
            let subject = if value["subject"].is_string() {
                text("subject")
            } else {
                "(no subject)"
            };
            let topic = value["topic"]
                .as_str()
                .map(|topic| format!("  topic {topic}"))
                .unwrap_or_default();
            let again = value["attempt"]
                .as_u64()
                .map(|n| format!("  attempt {n}"))
                .unwrap_or_default();
            format!(
                "{}  {subject}  [{}]{topic}{again}\n    {}",
                text("time"),
                text("id"),
                value["data"]
            )
        }
        "read" => {
            let ids = value["ids"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            format!("read on another device: {}", ids.collect::<Vec<_>>().join(", "))
        }
        "withdrawn" => format!("withdrawn: {} ({})", text("id"), text("reason")),
        "gap" => format!(
            "something may be missing: what was kept begins at {}",
            text("oldest")
        ),
        name => format!("{name}: {}", event.data),
    }
}

/// What the server asked for, or twice as long after each failure; spread by half, so that not all come at once.
fn pause(asked_ms: Option<u64>, failures: u32) -> Result<Duration, Failure> {
    let base = asked_ms.unwrap_or(PAUSE_MS).max(1);
    let grown = base
        .saturating_mul(1 << failures.min(16))
        .min(PAUSE_MOST_MS.max(base));
    let mut random = [0u8; 2];
    getrandom::fill(&mut random).map_err(|e| Failure::Other(anyhow::anyhow!("no randomness: {e}")))?;
    let spread = u64::from(u16::from_le_bytes(random)) * (grown / 2) / u64::from(u16::MAX);
    Ok(Duration::from_millis(grown - grown / 2 + spread))
}

#[allow(
    clippy::disallowed_methods,
    reason = "a command of one thread has nothing else to do"
)]
fn wait(pause: Duration) {
    std::thread::sleep(pause);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        for (asked, failures, least, most) in [
            (None, 0, 250, 500),
            (None, 3, 2000, 4000),
            (Some(2000), 0, 1000, 2000),
            (Some(2000), 60, 15_000, 30_000),
        ] {
            let ms = pause(asked, failures).unwrap().as_millis();
            assert!((least..=most).contains(&ms), "{asked:?} {failures}: {ms}");
        }
    }

    #[test]
    fn a_repeat_is_known_unless_it_is_a_new_attempt_or_long_ago() {
        let mut recent = Recent::default();
        let mut repeats = |data: String| {
            let name = "notification".into();
            recent.repeats(&Event { name, data })
        };
        assert!(!repeats(r#"{"id":"a"}"#.into()));
        assert!(repeats(r#"{"id":"a"}"#.into()));
        assert!(!repeats(r#"{"id":"a","attempt":2}"#.into()));
        for n in 0..RECENT_IDS {
            assert!(!repeats(format!(r#"{{"id":"n{n}"}}"#)));
        }
        assert!(!repeats(r#"{"id":"a"}"#.into()));
        assert!(recent.ids.len() <= RECENT_IDS && recent.order.len() <= RECENT_IDS);
    }

    #[test]
    fn events_for_people() {
        let event = |name: &str, data: &str| {
            render(&Event {
                name: name.into(),
                data: data.into(),
            })
        };
        let text = event(
            "notification",
            r#"{"id":"n","time":"T","subject":"S","topic":"t","data":{"a":1}}"#,
        );
        assert_eq!(text, "T  S  [n]  topic t\n    {\"a\":1}");
        assert_eq!(
            event("read", r#"{"ids":["a","b"]}"#),
            "read on another device: a, b"
        );
        assert_eq!(
            event("withdrawn", r#"{"id":"a","reason":"cancelled"}"#),
            "withdrawn: a (cancelled)"
        );
    }
}
