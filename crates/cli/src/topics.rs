//! `postrider topics`: who belongs to a topic durably.

use crate::client::{self, NodeArgs, segment};
use crate::exit::Failure;
use crate::output::{self, counted};
use crate::pages::{Range, pages};
use crate::term::{Look, plain, plain_json};
use clap::{Args, Subcommand};
use postrider_model::{Topic, UserId};
use serde_json::{Value, json};
use std::io::Write as _;

/// What can be done.
#[derive(Subcommand)]
pub enum TopicsCommand {
    /// Tell how many members a topic has, and how many of its listeners are connected
    #[command(after_help = "Examples:\n  postrider topics show news")]
    Show(ShowArgs),
    /// List a topic's members by rising id
    #[command(after_help = MEMBERS_HELP)]
    Members(MembersArgs),
    /// Make users members of a topic
    #[command(after_help = JOIN_HELP)]
    Join(ChangeArgs),
    /// Take users out of a topic
    #[command(after_help = "Examples:\n  postrider topics leave news ada bob")]
    Leave(ChangeArgs),
}

const MEMBERS_HELP: &str = "\
With --json each member is one JSON string on one line.

Examples:
  postrider topics members news
  postrider topics members news --all | wc -l";

const JOIN_HELP: &str = "\
A member gets what is published to the topic from now on, connected or not. Many at once: `postrider users import`.

Examples:
  postrider topics join news ada bob";

/// Arguments of `show`.
#[derive(Args)]
pub struct ShowArgs {
    /// The topic
    topic: String,
    #[command(flatten)]
    node: NodeArgs,
}

/// Arguments of `members`.
#[derive(Args)]
pub struct MembersArgs {
    /// The topic
    topic: String,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    node: NodeArgs,
}

/// Arguments of `join` and `leave`.
#[derive(Args)]
pub struct ChangeArgs {
    /// The topic
    topic: String,
    /// The users
    #[arg(required = true, value_name = "USER")]
    users: Vec<String>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Does it.
pub fn run(command: &TopicsCommand) -> Result<(), Failure> {
    match command {
        TopicsCommand::Show(args) => show(args),
        TopicsCommand::Members(args) => members(args),
        TopicsCommand::Join(args) => change(args, "PUT", "joined", "was a member already"),
        TopicsCommand::Leave(args) => change(args, "DELETE", "left", "was no member"),
    }
}

/// The path of a topic; what is no topic is not sent.
pub fn path(topic: &str) -> Result<String, Failure> {
    Topic::new(topic).map_err(|e| Failure::usage(format!("`{}` is no topic: {e}", plain(topic))))?;
    Ok(format!("/v1/topics/{}", segment(topic)))
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let path = path(&args.topic)?;
    let topic = args.node.call()?.get(&path, &[])?;
    match args.node.json {
        true => output::json(&topic),
        false => output::line(&told(&topic, Look::stdout())),
    }
}

fn told(topic: &Value, look: Look) -> String {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    format!(
        "{}  {}, {} of {} connected",
        look.name(plain(topic["topic"].as_str().unwrap_or_default())),
        counted(count(&topic["members"]), "member"),
        counted(count(&topic["presence"]["sessions"]), "session"),
        counted(count(&topic["presence"]["users"]), "user"),
    )
}

fn members(args: &MembersArgs) -> Result<(), Failure> {
    let path = format!("{}/members", path(&args.topic)?);
    let call = args.node.call()?;
    let page = |query: &[(&str, &str)]| call.text(&path, query);
    pages(&args.range, "members", page, |members| {
        let mut out = std::io::stdout().lock();
        for member in members {
            match args.node.json {
                true => writeln!(out, "{}", plain_json(member.get()))?,
                false => writeln!(out, "{}", plain(&client::read::<String>(member.get())?))?,
            }
        }
        Ok(out.flush()?)
    })
}

fn change(args: &ChangeArgs, method: &str, done: &str, nothing: &str) -> Result<(), Failure> {
    let topic = path(&args.topic)?;
    for user in &args.users {
        UserId::new(user).map_err(|e| Failure::usage(format!("`{}` is no user: {e}", plain(user))))?;
    }
    let call = args.node.call()?;
    for user in &args.users {
        let answer = call.act(method, &format!("{topic}/members/{}", segment(user)))?;
        let changed = answer["changed"] == true;
        match args.node.json {
            true => output::json(&json!({"topic": args.topic, "user": user, "changed": changed}))?,
            false => output::line(&format!(
                "{} {}",
                plain(user),
                if changed { done } else { nothing }
            ))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_topic_is_not_sent() {
        assert!(matches!(path("a b"), Err(Failure::Configuration(_))));
        assert_eq!(path("sport/eu").unwrap(), "/v1/topics/sport%2Feu");
    }

    #[test]
    fn a_topic_for_people() {
        let topic = json!({"topic":"news","members":1200,"presence":{"sessions":3,"users":1}});
        assert_eq!(
            told(&topic, Look::default()),
            "news  1,200 members, 3 sessions of 1 user connected"
        );
    }
}
