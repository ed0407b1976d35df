//! `postrider state`: a user's map of texts, which clients are given first and as it changes.

use crate::client::NodeArgs;
use crate::exit::Failure;
use crate::output;
use crate::table::{Column, Table, Tone};
use crate::term::{Look, plain};
use crate::users;
use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::{Map, Value};

/// What can be done.
#[derive(Subcommand)]
pub enum StateCommand {
    /// Show a user's state, or the value of one key
    #[command(after_help = GET_HELP)]
    Get(GetArgs),
    /// Set keys; the others stay
    #[command(after_help = "Examples:\n  postrider state set ada theme=dark unread=0")]
    Set(SetArgs),
    /// Remove keys, or all of them
    #[command(
        after_help = "Examples:\n  postrider state remove ada theme\n  postrider state remove ada --all"
    )]
    Remove(RemoveArgs),
    /// Add to numbers, each in one step that no other change can come between
    #[command(after_help = INCREMENT_HELP)]
    Increment(IncrementArgs),
}

const GET_HELP: &str = "\
Examples:
  postrider state get ada
  postrider state get ada unread          only the value; exit status 1 where there is none
  postrider state get ada --json | jq .state";

const INCREMENT_HELP: &str = "\
A key that is not there counts as 0. Text that is no whole number, or a sum that does not fit, refuses the whole.

Examples:
  postrider state increment ada unread
  postrider state increment ada unread=-3 total=10";

/// Arguments of `get`.
#[derive(Args)]
pub struct GetArgs {
    /// The user
    user: String,
    /// Only this key
    key_name: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Arguments of `set`.
#[derive(Args)]
pub struct SetArgs {
    /// The user
    user: String,
    /// The keys and their values
    #[arg(required = true, value_name = "KEY=VALUE")]
    pairs: Vec<String>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Arguments of `remove`.
#[derive(Args)]
pub struct RemoveArgs {
    /// The user
    user: String,
    /// The keys
    #[arg(required_unless_present = "all", value_name = "KEY")]
    keys: Vec<String>,
    /// All keys
    #[arg(long, conflicts_with = "keys")]
    all: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Arguments of `increment`.
#[derive(Args)]
pub struct IncrementArgs {
    /// The user
    user: String,
    /// The keys, and by how much; 1 where it is not said
    #[arg(required = true, value_name = "KEY[=N]")]
    keys: Vec<String>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Does it.
pub fn run(command: &StateCommand) -> Result<(), Failure> {
    match command {
        StateCommand::Get(args) => get(args),
        StateCommand::Set(args) => {
            let pairs = args.pairs.iter().map(|text| {
                let (key, value) = users::pair("KEY=VALUE", text)?;
                Ok((key.to_owned(), Value::from(value)))
            });
            change(
                &args.node,
                "PATCH",
                &args.user,
                "",
                pairs.collect::<Result<_, Failure>>()?,
            )
        }
        StateCommand::Remove(args) if args.all => {
            let path = format!("{}/state", users::path(&args.user)?);
            let answer = args.node.call()?.act("DELETE", &path)?;
            show(&answer, &args.node, |_| true)
        }
        StateCommand::Remove(args) => {
            let keys = args.keys.iter().map(|key| (key.clone(), Value::Null));
            change(&args.node, "PATCH", &args.user, "", keys.collect())
        }
        StateCommand::Increment(args) => {
            let steps = args.keys.iter().map(|text| step(text));
            let steps = steps.collect::<Result<_, Failure>>()?;
            change(&args.node, "POST", &args.user, "/increment", steps)
        }
    }
}

/// `KEY`, or `KEY=N`.
fn step(text: &str) -> Result<(String, Value), Failure> {
    let (key, by) = match text.split_once('=') {
        None => (text, Ok(1)),
        Some((key, by)) => (key, by.parse::<i64>()),
    };
    let by = by.map_err(|_| Failure::usage(format!("`{}`: what is added is a whole number", plain(text))))?;
    Ok((key.to_owned(), by.into()))
}

fn get(args: &GetArgs) -> Result<(), Failure> {
    let path = format!("{}/state", users::path(&args.user)?);
    let answer = args.node.call()?.get(&path, &[])?;
    let Some(key) = &args.key_name else {
        return show(&answer, &args.node, |_| true);
    };
    match (&answer["state"][key], args.node.json) {
        (Value::Null, _) => Err(anyhow!("{} has no {}", plain(&args.user), plain(key)).into()),
        (value, true) => output::json(value),
        (value, false) => output::line(&plain(value.as_str().unwrap_or_default())),
    }
}

fn change(
    node: &NodeArgs,
    method: &str,
    user: &str,
    under: &str,
    changes: Map<String, Value>,
) -> Result<(), Failure> {
    let path = format!("{}/state{under}", users::path(user)?);
    let keys: Vec<_> = changes.keys().cloned().collect();
    let answer = node.call()?.send(method, &path, &Value::Object(changes))?;
    show(&answer, node, |key| keys.iter().any(|changed| changed == key))
}

const COLUMNS: [Column; 2] = [("key", Tone::Name), ("value", Tone::Usual)];

/// Writes the state; for people, only the keys that are asked for.
fn show(answer: &Value, node: &NodeArgs, asked: impl Fn(&str) -> bool) -> Result<(), Failure> {
    if node.json {
        return output::json(answer);
    }
    let mut table = Table::new(&COLUMNS);
    let map = answer["state"].as_object();
    for (key, value) in map.into_iter().flatten().filter(|(key, _)| asked(key)) {
        table.row(vec![key.clone(), value.as_str().unwrap_or_default().to_owned()]);
    }
    if map.is_none_or(Map::is_empty) {
        eprintln!("the state is empty");
    }
    Ok(table.write(&mut std::io::stdout().lock(), Look::stdout(), false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_whole_numbers() {
        assert_eq!(step("unread").unwrap(), ("unread".into(), 1.into()));
        assert_eq!(step("unread=-3").unwrap(), ("unread".into(), (-3).into()));
        assert!(matches!(step("unread=x"), Err(Failure::Configuration(_))));
    }
}
