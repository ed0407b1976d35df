//! `postrider dead-letters`: what nothing could deliver: list, show, redrive, delete.

use crate::client::{self, KeyArg, UrlArg};
use crate::exit::Failure;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// Dead letters asked for at once.
const PAGE: usize = 200;

/// What can be done.
#[derive(Subcommand)]
pub enum DeadLettersCommand {
    /// List them, oldest first
    #[command(after_help = "Example:\n  postrider dead-letters list --user ada --reason max_attempts")]
    List(ListArgs),
    /// Show one, with its body
    #[command(after_help = "Example:\n  postrider dead-letters show dl-0019a4f1c2d00001")]
    Show(ShowArgs),
    /// Put some into their users' inboxes anew
    #[command(
        after_help = "Examples:\n  postrider dead-letters redrive dl-0019a4f1c2d00001\n  postrider dead-letters redrive --reason overflow --rate 50\n  postrider dead-letters redrive --all"
    )]
    Redrive(RedriveArgs),
    /// Throw some away; their notifications stay dead
    #[command(after_help = "Example:\n  postrider dead-letters delete dl-0019a4f1c2d00001")]
    Delete(DeleteArgs),
}

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

#[derive(Args)]
struct Node {
    #[command(flatten)]
    url: UrlArg,
    #[command(flatten)]
    key: KeyArg,
    /// Write the node's answers as they are, one a line
    #[arg(long)]
    json: bool,
}

/// Arguments of `list`.
#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    node: Node,
}

/// Arguments of `show`.
#[derive(Args)]
pub struct ShowArgs {
    /// The dead letter
    id: String,
    #[command(flatten)]
    node: Node,
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
    node: Node,
}

/// Arguments of `delete`.
#[derive(Args)]
pub struct DeleteArgs {
    /// These dead letters
    #[arg(required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    node: Node,
}

/// Does it.
pub fn run(command: &DeadLettersCommand) -> Result<(), Failure> {
    match command {
        DeadLettersCommand::List(args) => list(args),
        DeadLettersCommand::Show(args) => {
            let letter = Call::to(&args.node)?.get(&format!("/{}", segment(&args.id)?), &[])?;
            let whole = serde_json::to_string_pretty(&letter).unwrap_or_default();
            println!("{}", if args.node.json { letter.to_string() } else { whole });
            Ok(())
        }
        DeadLettersCommand::Redrive(args) => redrive(args),
        DeadLettersCommand::Delete(args) => each(&args.ids, &args.node, "deleted", |call, id| {
            call.delete(&format!("/{id}"))
        }),
    }
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let call = Call::to(&args.node)?;
    let (mut left, mut after) = (args.limit, None::<String>);
    while left > 0 {
        let limit = left.min(PAGE).to_string();
        let mut query = vec![("limit", limit.as_str())];
        for (name, value) in [
            ("user", &args.which.user),
            ("reason", &args.which.reason),
            ("source", &args.which.source),
            ("after", &after),
        ] {
            query.extend(value.as_deref().map(|value| (name, value)));
        }
        let page = call.get("", &query)?;
        for letter in page["dead_letters"].as_array().into_iter().flatten() {
            println!(
                "{}",
                if args.node.json {
                    letter.to_string()
                } else {
                    line(letter)
                }
            );
            left = left.saturating_sub(1);
        }
        after = page["after"].as_str().map(str::to_owned);
        if after.is_none() {
            if left == args.limit {
                eprintln!("there are none");
            }
            return Ok(());
        }
    }
    eprintln!("there may be more: see --limit");
    Ok(())
}

/// One dead letter in a line.
fn line(letter: &Value) -> String {
    let text = |name: &str| letter[name].as_str().unwrap_or("-");
    let subject = letter["subject"]
        .as_str()
        .map(|s| format!("  {s}"))
        .unwrap_or_default();
    format!(
        "{}  {}  {:<12}  {}  {}  from {}, {} attempts{subject}",
        text("id"),
        text("time"),
        text("reason"),
        text("user"),
        text("notification"),
        text("source"),
        letter["attempts"],
    )
}

fn redrive(args: &RedriveArgs) -> Result<(), Failure> {
    if !args.ids.is_empty() {
        return each(&args.ids, &args.node, "redriven", |call, id| {
            call.post(&format!("/{id}/redrive"), None)
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
    let answer = Call::to(&args.node)?.post("/redrive", Some(&wanted))?;
    match args.node.json {
        true => println!("{answer}"),
        false => println!("{} redriven", answer["redriven"]),
    }
    Ok(())
}

fn each(
    ids: &[String],
    node: &Node,
    done: &str,
    act: impl Fn(&Call, &str) -> Result<Value, Failure>,
) -> Result<(), Failure> {
    let call = Call::to(node)?;
    for id in ids {
        let answer = act(&call, segment(id)?)?;
        match node.json {
            true => println!("{answer}"),
            false => println!("{id} {done}"),
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

/// Requests to `/v1/dead-letters`.
struct Call {
    agent: ureq::Agent,
    base: String,
    bearer: String,
}

impl Call {
    fn to(node: &Node) -> Result<Call, Failure> {
        Ok(Call {
            agent: node.url.agent()?,
            base: node.url.join("/v1/dead-letters")?,
            bearer: node.key.bearer()?,
        })
    }

    fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let request = request.header("Authorization", &self.bearer);
        client::json(request.query_pairs(query.iter().copied()).call())
    }

    fn delete(&self, path: &str) -> Result<Value, Failure> {
        let request = self.agent.delete(format!("{}{path}", self.base));
        client::json(request.header("Authorization", &self.bearer).call())
    }

    fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let request = request.header("Authorization", &self.bearer);
        client::json(match body {
            Some(body) => request.send_json(body),
            None => request.send_empty(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_people() {
        let letter = json!({"id":"dl-1","time":"T","reason":"overflow","user":"ada","notification":"n",
            "source":"shop","attempts":0,"subject":"Hi"});
        assert_eq!(
            line(&letter),
            "dl-1  T  overflow      ada  n  from shop, 0 attempts  Hi"
        );
    }

    #[test]
    fn what_is_no_id_is_not_sent() {
        assert!(segment("dl-0019a4f1c2d00001").is_ok());
        for bad in ["", "../x", "a b", "a?b"] {
            assert!(segment(bad).is_err(), "{bad:?}");
        }
    }
}
