//! `postrider dead-letters`: what nothing could deliver: list, show, redrive, delete.

use crate::client::{self, Call, NodeArgs};
use crate::exit::Failure;
use crate::output::{self, grouped};
use crate::pages::{Range, pages};
use crate::pretty::pretty;
use crate::table::{Column, Table, Tone};
use crate::term::{Look, plain, plain_json};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;

/// What can be done.
#[derive(Subcommand)]
pub enum DeadLettersCommand {
    /// List them, oldest first
    #[command(after_help = LIST_HELP)]
    List(ListArgs),
    /// Show one, with its body
    #[command(after_help = "Examples:\n  postrider dead-letters show dl-0019a4f1c2d00001")]
    Show(ShowArgs),
    /// Put some into their users' inboxes anew
    #[command(
        after_help = "Examples:\n  postrider dead-letters redrive dl-0019a4f1c2d00001\n  postrider dead-letters redrive --reason overflow --rate 50\n  postrider dead-letters redrive --all"
    )]
    Redrive(RedriveArgs),
    /// Throw some away; their notifications stay dead
    #[command(after_help = "Examples:\n  postrider dead-letters delete dl-0019a4f1c2d00001")]
    Delete(DeleteArgs),
}

const LIST_HELP: &str = "\
With --json each is one object on one line.

Examples:
  postrider dead-letters list --user ada --reason max_attempts
  postrider dead-letters list --all --json | jq -r .notification";

#[derive(Args)]
struct Which {
    /// Only this user's
    #[arg(long)]
    user: Option<String>,
    /// Only for this reason: max_attempts, undecodable, overflow, lost or policy
    #[arg(long)]
    reason: Option<String>,
    /// Only from this API key or source
    #[arg(long)]
    source: Option<String>,
}

/// Arguments of `list`.
#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    node: NodeArgs,
}

/// Arguments of `show`.
#[derive(Args)]
pub struct ShowArgs {
    /// The dead letter
    id: String,
    #[command(flatten)]
    node: NodeArgs,
}

/// Arguments of `redrive`.
#[derive(Args)]
pub struct RedriveArgs {
    /// These dead letters
    #[arg(conflicts_with_all = ["user", "reason", "source", "all", "rate"])]
    ids: Vec<String>,
    #[command(flatten)]
    which: Which,
    /// All there are
    #[arg(long, conflicts_with_all = ["user", "reason", "source"])]
    all: bool,
    /// At most so many per second; the node goes on by itself
    #[arg(long)]
    rate: Option<u32>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Arguments of `delete`.
#[derive(Args)]
pub struct DeleteArgs {
    /// These dead letters
    #[arg(required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Does it.
pub fn run(command: &DeadLettersCommand) -> Result<(), Failure> {
    match command {
        DeadLettersCommand::List(args) => list(args),
        DeadLettersCommand::Show(args) => show(args),
        DeadLettersCommand::Redrive(args) => redrive(args),
        DeadLettersCommand::Delete(args) => each(&args.ids, &args.node, "deleted", |call, id| {
            call.act("DELETE", &format!("{PATH}/{id}"))
        }),
    }
}

const PATH: &str = "/v1/dead-letters";

const COLUMNS: [Column; 7] = [
    ("dead letter", Tone::Bold),
    ("time", Tone::Dim),
    ("reason", Tone::Usual),
    ("user", Tone::Name),
    ("notification", Tone::Usual),
    ("attempts", Tone::Dim),
    ("subject", Tone::Usual),
];

fn list(args: &ListArgs) -> Result<(), Failure> {
    let call = args.node.call()?;
    let which = &args.which;
    let filter = [
        ("user", &which.user),
        ("reason", &which.reason),
        ("source", &which.source),
    ];
    let filter: Vec<_> = filter
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
        .collect();
    let page = |query: &[(&str, &str)]| call.text(PATH, &[query, &filter].concat());
    let look = Look::stdout();
    let mut is_first = true;
    pages(&args.range, "dead_letters", page, |letters| {
        let mut out = std::io::stdout().lock();
        let mut table = Table::new(&COLUMNS);
        for letter in letters {
            match args.node.json {
                true => writeln!(out, "{}", plain_json(letter.get()))?,
                false => table.row(client::read::<Letter>(letter.get())?.cells()),
            }
        }
        table.write(&mut out, look, std::mem::take(&mut is_first))?;
        Ok(out.flush()?)
    })
}

/// What a line tells of a dead letter.
#[derive(Debug, Default, Deserialize)]
struct Letter {
    id: String,
    time: String,
    reason: String,
    user: Option<String>,
    notification: Option<String>,
    attempts: Option<u64>,
    subject: Option<String>,
}

impl Letter {
    fn cells(self) -> Vec<String> {
        let or_none = Option::unwrap_or_default;
        vec![
            self.id,
            self.time,
            self.reason,
            or_none(self.user),
            or_none(self.notification),
            self.attempts.unwrap_or(0).to_string(),
            or_none(self.subject),
        ]
    }
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let path = format!("{PATH}/{}", segment(&args.id)?);
    let text = args.node.call()?.text(&path, &[])?;
    if args.node.json {
        return output::line(&plain_json(text.trim_end()));
    }
    let look = Look::stdout();
    let mut members: BTreeMap<String, &RawValue> = client::read(&text)?;
    let data = members.remove("data");
    for (name, value) in members.iter().filter(|(_, value)| value.get() != "null") {
        let text = serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned());
        output::line(&format!("{}  {}", look.dim(format!("{name:<12}")), plain(&text)))?;
    }
    match data {
        None => Ok(()),
        Some(data) => output::line(&pretty(&plain(data.get()), look.width.unwrap_or(usize::MAX))),
    }
}

fn redrive(args: &RedriveArgs) -> Result<(), Failure> {
    if !args.ids.is_empty() {
        return each(&args.ids, &args.node, "redriven", |call, id| {
            call.act("POST", &format!("{PATH}/{id}/redrive"))
        });
    }
    let which = &args.which;
    if !args.all && which.user.is_none() && which.reason.is_none() && which.source.is_none() {
        return Err(Failure::usage(
            "which dead letters? Give ids, a filter (--user, --reason, --source), or --all",
        ));
    }
    let wanted =
        json!({"user": which.user, "reason": which.reason, "source": which.source, "rate": args.rate});
    let answer = args
        .node
        .call()?
        .send("POST", &format!("{PATH}/redrive"), &wanted)?;
    match args.node.json {
        true => output::json(&answer)?,
        false => output::line(&format!(
            "{} redriven",
            grouped(answer["redriven"].as_u64().unwrap_or(0))
        ))?,
    }
    Ok(())
}

fn each(
    ids: &[String],
    node: &NodeArgs,
    done: &str,
    act: impl Fn(&Call, &str) -> Result<Value, Failure>,
) -> Result<(), Failure> {
    let call = node.call()?;
    for id in ids {
        let answer = act(&call, segment(id)?)?;
        match node.json {
            true => output::json(&with_id(answer, id))?,
            false => output::line(&format!("{id} {done}"))?,
        }
    }
    Ok(())
}

/// An id as a part of a path: what is none is not sent.
fn segment(id: &str) -> Result<&str, Failure> {
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match plain && !id.is_empty() {
        true => Ok(id),
        false => Err(Failure::usage(format!(
            "`{id}` is no dead letter: they look like dl-0019a4f1c2d00001"
        ))),
    }
}

/// The answer, and whose it is.
fn with_id(mut answer: Value, id: &str) -> Value {
    if let Some(members) = answer.as_object_mut() {
        members.insert("id".into(), id.into());
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_for_people() {
        let letter: Letter = serde_json::from_value(
            json!({"id":"dl-1","time":"T","reason":"overflow","user":null,"notification":"n",
            "source":"shop","attempts":3,"subject":"Hi"}),
        )
        .unwrap();
        assert_eq!(letter.cells(), ["dl-1", "T", "overflow", "", "n", "3", "Hi"]);
    }

    #[test]
    fn what_is_no_id_is_not_sent() {
        assert!(segment("dl-0019a4f1c2d00001").is_ok());
        for bad in ["", "../x", "a b", "a?b"] {
            assert!(segment(bad).is_err(), "{bad:?}");
        }
    }
}
