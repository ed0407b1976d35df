//! `postrider presence`: who is connected now.

use crate::backoff;
use crate::client::{self, NodeArgs};
use crate::exit::Failure;
use crate::interrupt;
use crate::listen::wires::{Ended, again};
use crate::output::{self, counted};
use crate::pages::{Range, pages};
use crate::sse::{Block, Event, Reader};
use crate::table::{Column, Table, Tone};
use crate::term::{Look, plain, plain_json, plain_lines};
use crate::{topics, users};
use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::Value;
use std::cell::RefCell;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// A stream that is silent for so long is gone: the node says something every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// What can be asked.
#[derive(Subcommand)]
pub enum PresenceCommand {
    /// Tell whether a user is connected, and by which sessions
    #[command(
        after_help = "Examples:\n  postrider presence user ada\n  postrider presence user ada --json | jq .online"
    )]
    User(UserArgs),
    /// Tell how many listen to a topic now
    #[command(
        after_help = "Examples:\n  postrider presence topic news\n  postrider presence topic news --users"
    )]
    Topic(TopicArgs),
    /// Show who comes and goes, as it happens
    #[command(after_help = WATCH_HELP)]
    Watch(WatchArgs),
}

const WATCH_HELP: &str = "\
Begins with who is there. Connects again by itself, and then says anew who is there. Ctrl-C ends it.

Examples:
  postrider presence watch                           everyone
  postrider presence watch --topic news
  postrider presence watch --user ada --user bob --json";

/// Arguments of `user`.
#[derive(Args)]
pub struct UserArgs {
    /// The user
    user: String,
    #[command(flatten)]
    node: NodeArgs,
}

/// Arguments of `topic`.
#[derive(Args)]
pub struct TopicArgs {
    /// The topic
    topic: String,
    /// Name them
    #[arg(long)]
    users: bool,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    node: NodeArgs,
}

/// Arguments of `watch`.
#[derive(Args)]
pub struct WatchArgs {
    /// Only this user; may be given several times
    #[arg(long)]
    user: Vec<String>,
    /// Only who listens to this topic
    #[arg(long, conflicts_with = "user")]
    topic: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Does it.
pub fn run(command: &PresenceCommand) -> Result<(), Failure> {
    match command {
        PresenceCommand::User(args) => user(args),
        PresenceCommand::Topic(args) => topic(args),
        PresenceCommand::Watch(args) => watch(args),
    }
}

const COLUMNS: [Column; 2] = [("session", Tone::Usual), ("transport", Tone::Dim)];

fn user(args: &UserArgs) -> Result<(), Failure> {
    let path = format!("{}/presence", users::path(&args.user)?);
    let answer = args.node.call()?.get(&path, &[])?;
    if args.node.json {
        return output::json(&answer);
    }
    let look = Look::stdout();
    let sessions = answer["sessions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let told = match answer["online"] == true {
        // Whoever left counts as online for a while.
        true if sessions.is_empty() => look.good("online, the last session has just ended".to_owned()),
        true => look.good(format!(
            "connected, {}",
            counted(sessions.len() as u64, "session")
        )),
        false => look.dim("not connected"),
    };
    output::line(&format!("{}  {told}", look.bold(plain(&args.user))))?;
    let mut table = Table::new(&COLUMNS);
    for session in sessions {
        let text = |name: &str| session[name].as_str().unwrap_or_default().to_owned();
        table.row(vec![format!("  {}", text("session")), text("transport")]);
    }
    Ok(table.write(&mut std::io::stdout().lock(), look, false)?)
}

fn topic(args: &TopicArgs) -> Result<(), Failure> {
    let path = format!("{}/presence", topics::path(&args.topic)?);
    let call = args.node.call()?;
    let mut answer = match args.users {
        true => Value::Null,
        false => call.get(&path, &[])?,
    };
    let mut present: Vec<Value> = Vec::new();
    if args.users {
        let whole = RefCell::new(Value::Null);
        let page = |query: &[(&str, &str)]| {
            let page = call.text(&path, &[query, &[("users", "true")]].concat())?;
            *whole.borrow_mut() = client::read(&page)?;
            Ok(page)
        };
        pages(&args.range, "present", page, |users| {
            for user in users {
                present.push(client::read(user.get())?);
            }
            Ok(())
        })?;
        answer = whole.into_inner();
        answer["present"] = Value::Array(present.clone());
    }
    if args.node.json {
        return output::json(&answer);
    }
    let count = |name: &str, noun: &str| counted(answer[name].as_u64().unwrap_or(0), noun);
    let topic = Look::stdout().name(plain(&args.topic));
    output::line(&format!(
        "{topic}  {} by {}",
        count("users", "user"),
        count("sessions", "session")
    ))?;
    for user in present {
        output::line(&format!("  {}", plain(user.as_str().unwrap_or_default())))?;
    }
    Ok(())
}

fn watch(args: &WatchArgs) -> Result<(), Failure> {
    let mut whom = Vec::new();
    for user in &args.user {
        users::path(user)?;
        whom.push(("user", user.clone()));
    }
    if let Some(topic) = &args.topic {
        topics::path(topic)?;
        whom.push(("topic", topic.clone()));
    }
    let call = args.node.follow(SILENCE)?;
    let as_json = args.node.json;
    let (done, ended) = sync_channel(1);
    let stopped = done.clone();
    interrupt::watch(move || drop(stopped.send(Ok(()))))?;
    // Whoever is told first decides; the process then ends with what the other does.
    let follow = move || drop(done.send(follow(&call, &whom, as_json)));
    std::thread::Builder::new()
        .name("presence".into())
        .spawn(follow)?;
    ended.recv().unwrap_or(Ok(()))
}

fn follow(call: &client::Call, whom: &[(&str, String)], as_json: bool) -> Result<(), Failure> {
    let mut failures = 0;
    loop {
        let request = call.agent.get(format!("{}/v1/presence/stream", call.base));
        let request = request
            .header("Authorization", &call.bearer)
            .header("Accept", "text/event-stream")
            .query_pairs(whom.iter().map(|(name, value)| (*name, value.as_str())));
        let mut reader = Reader::default();
        let (told, asked_ms) = match request.call() {
            Ok(answer) if answer.status() == 200 => {
                failures = 0;
                let mut written = Ok(());
                let ended = reader.follow(answer.into_body().into_reader(), &mut |block| {
                    if let Block::Event(event) = block {
                        written = output::line(&line(&event, as_json, Look::stdout()));
                    }
                    written.is_ok()
                });
                written?;
                (ended.unwrap_or_default(), reader.retry_ms)
            }
            answer => {
                failures += 1;
                lost(answer)?
            }
        };
        let pause = backoff::pause(asked_ms, failures)?;
        let told = format!("{told}; trying again in {:.1} s", pause.as_secs_f64());
        eprintln!("{}", Look::stderr().dim(plain_lines(&told)));
        backoff::wait(pause);
    }
}

/// Why there is no stream, where there may be one later.
fn lost(
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<(String, Option<u64>), Failure> {
    let failure = match client::body(answer) {
        Ok(_) => return Err(anyhow!("the node answered something else where a stream should be").into()),
        Err(failure) => failure,
    };
    match failure.refused().map(again) {
        None => Ok((failure.to_string(), None)),
        Some(Some(Ended::Refused { why, retry_ms })) => Ok((why, retry_ms)),
        Some(_) => Err(failure),
    }
}

/// One event in one line.
fn line(event: &Event, as_json: bool, look: Look) -> String {
    if as_json {
        let name = Value::from(event.name.as_str());
        let line = format!("{{\"event\":{name},\"data\":{}}}", event.data);
        return plain_json(&line).into_owned();
    }
    let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
    let text = |name: &str| plain(data[name].as_str().unwrap_or_default()).into_owned();
    match event.name.as_str() {
        "join" => format!(
            "{}  {}  {}",
            look.dim(text("time")),
            look.good("join "),
            look.bold(text("user"))
        ),
        "leave" => format!(
            "{}  {}  {}",
            look.dim(text("time")),
            look.dim("leave"),
            look.bold(text("user"))
        ),
        "snapshot" => {
            let users = data["users"].as_array().into_iter().flatten();
            let users: Vec<_> = users
                .filter_map(Value::as_str)
                .map(|user| look.bold(plain(user)))
                .collect();
            match (users.is_empty(), data["last"] == true) {
                (true, _) => look.dim("nobody (else) is there now"),
                (false, true) => format!("there now: {}", users.join(", ")),
                (false, false) => format!("there now: {}, …", users.join(", ")),
            }
        }
        "lagged" => look.warn("this end was too slow: some who came and went were left out"),
        name => format!("{}: {}", look.dim(plain(name)), plain(&event.data)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_and_goes() {
        let event = Event {
            name: "join".into(),
            data: r#"{"user":"ada","time":"T"}"#.into(),
        };
        assert_eq!(line(&event, false, Look::default()), "T  join   ada");
        assert_eq!(
            line(&event, true, Look::default()),
            r#"{"event":"join","data":{"user":"ada","time":"T"}}"#
        );
    }
}
