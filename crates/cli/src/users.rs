//! `postrider users`: the directory: import, show, put, list, delete, erase.

mod import;
mod put;

pub use put::pair;

use crate::client::{self, ConnectionArgs, NodeArgs, segment};
use crate::exit::Failure;
use crate::output;
use crate::pages::{Range, pages};
use crate::table::{Column, Table, Tone};
use crate::term::{Look, plain, plain_json};
use anyhow::anyhow;
use clap::{Args, Subcommand};
use postrider_model::UserId;
use serde_json::{Value, json};
use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// What can be done.
#[derive(Subcommand)]
pub enum UsersCommand {
    Import(import::ImportArgs),
    /// Show what the directory holds of a user
    Show(ShowArgs),
    Put(put::PutArgs),
    /// List users by rising id
    List(ListArgs),
    /// Write all users, one a line, as `users import` takes them
    Export(ExportArgs),
    /// Take users out of the directory and out of all topics; their inboxes stay
    Delete(DeleteArgs),
    /// Remove all that is known of users: inbox, state, timeline, dead letters
    Erase(EraseArgs),
}

const SHOW_HELP: &str = "\
Examples:
  postrider users show ada
  postrider users show ada --json | jq -r .email";

/// Arguments of `show`.
#[derive(Args)]
#[command(after_help = SHOW_HELP)]
pub struct ShowArgs {
    /// The user
    user: String,
    #[command(flatten)]
    node: NodeArgs,
}

const LIST_HELP: &str = "\
With --json each user is one object on one line.

Examples:
  postrider users list
  postrider users list --all --json > users.ndjson
  postrider users list --after ada --limit 10";

/// Arguments of `list`.
#[derive(Args)]
#[command(after_help = LIST_HELP)]
pub struct ListArgs {
    #[command(flatten)]
    pub range: Range,
    #[command(flatten)]
    node: NodeArgs,
}

const EXPORT_HELP: &str = "\
Examples:
  postrider users export > users.ndjson
  postrider users export | jq -c 'select(.locale == \"de\")' | postrider users import - --url https://other.example";

/// Arguments of `export`.
#[derive(Args)]
#[command(after_help = EXPORT_HELP)]
pub struct ExportArgs {
    #[command(flatten)]
    node: ConnectionArgs,
}

const DELETE_HELP: &str = "\
The inbox and what was delivered stay: `users erase` removes those too.

Examples:
  postrider users delete ada bob";

/// Arguments of `delete`.
#[derive(Args)]
#[command(after_help = DELETE_HELP)]
pub struct DeleteArgs {
    /// The users
    #[arg(required = true, value_name = "USER")]
    users: Vec<String>,
    #[command(flatten)]
    node: NodeArgs,
}

const ERASE_HELP: &str = "\
It cannot be taken back, so it asks first; --yes answers. In a script --yes is needed.

Examples:
  postrider users erase ada
  postrider users erase --yes ada bob";

/// Arguments of `erase`.
#[derive(Args)]
#[command(after_help = ERASE_HELP)]
pub struct EraseArgs {
    /// The users
    #[arg(required = true, value_name = "USER")]
    users: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Does it.
pub fn run(command: &UsersCommand) -> Result<(), Failure> {
    match command {
        UsersCommand::Import(args) => import::run(args),
        UsersCommand::Show(args) => show(args),
        UsersCommand::Put(args) => put::run(args),
        UsersCommand::List(args) => list(args),
        UsersCommand::Export(args) => export(args),
        UsersCommand::Delete(args) => each(&args.users, &args.node, "", "removed", "was not known"),
        UsersCommand::Erase(args) => erase(args),
    }
}

/// The path of a user; what is no user id is not sent.
pub fn path(user: &str) -> Result<String, Failure> {
    UserId::new(user).map_err(|e| Failure::usage(format!("`{}` is no user: {e}", plain(user))))?;
    Ok(format!("/v1/users/{}", segment(user)))
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let path = path(&args.user)?;
    let user = args
        .node
        .call()?
        .get(&path, &[])
        .map_err(|failure| unknown(failure, &args.user))?;
    match args.node.json {
        true => output::json(&user),
        false => output::line(&card(&user, Look::stdout())),
    }
}

/// Says what to do about a user that is not there.
fn unknown(failure: Failure, user: &str) -> Failure {
    match failure.refused() {
        Some(refused) if refused.code.as_deref() == Some("not_found") => anyhow!(
            "the directory does not know {}: `postrider users put` adds one (users can receive without being in it)",
            plain(user)
        )
        .into(),
        _ => failure,
    }
}

/// What is known of a user, a line for each thing.
fn card(user: &Value, look: Look) -> String {
    let mut lines = vec![look.bold(plain(user["id"].as_str().unwrap_or_default()))];
    let mut line = |name: &str, value: &str| {
        lines.push(format!("  {}  {}", look.dim(format!("{name:<10}")), plain(value)));
    };
    for (name, label) in [
        ("email", "e-mail"),
        ("mobile", "mobile"),
        ("locale", "locale"),
        ("time_zone", "time zone"),
    ] {
        if let Some(value) = user[name].as_str() {
            line(label, value);
        }
    }
    for (name, value) in user["attributes"].as_object().into_iter().flatten() {
        line(
            "attribute",
            &format!("{name} = {}", value.as_str().unwrap_or_default()),
        );
    }
    let topics = topics(user);
    line("topics", if topics.is_empty() { "none" } else { &topics });
    for (name, label) in [("created_at", "created"), ("changed_at", "changed")] {
        if let Some(time) = user[name].as_str() {
            line(label, time);
        }
    }
    lines.join("\n")
}

fn topics(user: &Value) -> String {
    let topics = user["topics"].as_array().into_iter().flatten();
    let names = topics.filter_map(|topic| topic["topic"].as_str().or(topic.as_str()));
    names.collect::<Vec<_>>().join(", ")
}

const COLUMNS: [Column; 5] = [
    ("user", Tone::Bold),
    ("e-mail", Tone::Usual),
    ("mobile", Tone::Usual),
    ("changed", Tone::Dim),
    ("topics", Tone::Name),
];

fn list(args: &ListArgs) -> Result<(), Failure> {
    let call = args.node.call()?;
    let look = Look::stdout();
    let mut is_first = true;
    let page = |query: &[(&str, &str)]| call.text("/v1/users", query);
    pages(&args.range, "users", page, |users| {
        let mut out = std::io::stdout().lock();
        let mut table = Table::new(&COLUMNS);
        for user in users {
            if args.node.json {
                writeln!(out, "{}", plain_json(user.get()))?;
                continue;
            }
            let user: Value = client::read(user.get())?;
            let text = |name: &str| user[name].as_str().unwrap_or_default().to_owned();
            table.row(vec![
                text("id"),
                text("email"),
                text("mobile"),
                text("changed_at"),
                topics(&user),
            ]);
        }
        table.write(&mut out, look, std::mem::take(&mut is_first))?;
        Ok(out.flush()?)
    })
}

fn export(args: &ExportArgs) -> Result<(), Failure> {
    let call = args.node.call()?;
    let all = Range {
        limit: u64::MAX,
        all: true,
        after: None,
    };
    let page = |query: &[(&str, &str)]| call.text("/v1/users", query);
    pages(&all, "users", page, |users| {
        let mut out = std::io::stdout().lock();
        for user in users {
            let user = importable(client::read(user.get())?).to_string();
            writeln!(out, "{}", plain_json(&user))?;
        }
        Ok(out.flush()?)
    })
}

/// The user as a line of an import: without times, topics by name.
fn importable(mut user: Value) -> Value {
    if let Some(members) = user.as_object_mut() {
        members.retain(|name, _| !name.ends_with("_at"));
        if let Some(topics) = members.get_mut("topics").and_then(Value::as_array_mut) {
            for topic in topics {
                *topic = topic["topic"].take();
            }
        }
    }
    user
}

/// Asks the node to remove each; `word` of its answer says whether there was something.
fn each(users: &[String], node: &NodeArgs, query: &str, done: &str, nothing: &str) -> Result<(), Failure> {
    let paths: Vec<_> = users.iter().map(|user| path(user)).collect::<Result<_, _>>()?;
    let call = node.call()?;
    for (user, path) in users.iter().zip(paths) {
        let answer = call.act("DELETE", &format!("{path}{query}"))?;
        let did = answer[done] == true;
        match node.json {
            true => output::json(&json!({"user": user, (done): did}))?,
            false => output::line(&format!("{} {}", plain(user), if did { done } else { nothing }))?,
        }
    }
    Ok(())
}

fn erase(args: &EraseArgs) -> Result<(), Failure> {
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::usage("erasing cannot be taken back: give --yes"));
        }
        let names = args.users.join(", ");
        eprint!(
            "Erase all that is known of {}? It cannot be taken back. [y/N] ",
            plain(&names)
        );
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(anyhow!("nothing was erased").into());
        }
    }
    each(&args.users, &args.node, "?erase=true", "erased", "was not known")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_for_people() {
        let user = json!({"id":"ada","email":"ada@example.org","attributes":{"plan":"gold"},
            "topics":[{"topic":"news"},{"topic":"sport"}],"created_at":"T0","changed_at":"T1"});
        let card = card(&user, Look::default());
        assert!(card.starts_with("ada\n  e-mail      ada@example.org\n"), "{card}");
        assert!(
            card.contains("attribute   plan = gold\n  topics      news, sport\n"),
            "{card}"
        );
    }

    #[test]
    fn an_export_can_be_imported() {
        let user = json!({"id":"ada","attributes":{},"topics":[{"topic":"news"}],"created_at":"T0","changed_at":"T1"});
        assert_eq!(
            importable(user),
            json!({"id":"ada","attributes":{},"topics":["news"]})
        );
    }

    #[test]
    fn what_is_no_user_is_not_sent() {
        assert!(matches!(path(""), Err(Failure::Configuration(_))));
        assert_eq!(path("a/b").unwrap(), "/v1/users/a%2Fb");
    }
}
