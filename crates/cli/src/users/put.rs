//! `postrider users put`: adds a user, or changes one.

use crate::client::NodeArgs;
use crate::exit::Failure;
use crate::output;
use crate::term::{Look, plain};
use clap::Args;
use serde_json::{Map, Value, json};

/// Fields of a profile that the node takes.
const FIELDS: [&str; 5] = ["email", "mobile", "locale", "time_zone", "attributes"];

/// Arguments of `put`.
#[derive(Args)]
#[command(after_help = PUT_HELP)]
#[command(
    about = "Add a user, or change one",
    long_about = "Add a user, or change one.\n\n\
    The profile becomes exactly what is given: what is left out is forgotten. With --merge what is left out stays \
    (the profile is read, changed and written, so that two at once may undo each other). Topics stay as they are \
    unless --topic or --no-topics is given."
)]
pub struct PutArgs {
    /// The user
    user: String,
    /// The e-mail address
    #[arg(long)]
    email: Option<String>,
    /// The number of the mobile phone
    #[arg(long)]
    mobile: Option<String>,
    /// The language, e.g. de-CH
    #[arg(long)]
    locale: Option<String>,
    /// The time zone, e.g. Europe/Zurich
    #[arg(long, value_name = "NAME")]
    time_zone: Option<String>,
    /// Anything else that is known; may be given several times
    #[arg(long, short = 'a', value_name = "NAME=VALUE")]
    attribute: Vec<String>,
    /// The topics that the user is a member of, all of them; may be given several times
    #[arg(long, short = 't')]
    topic: Vec<String>,
    /// The user leaves all topics
    #[arg(long, conflicts_with = "topic")]
    no_topics: bool,
    /// Keep what is known and not given here
    #[arg(long)]
    merge: bool,
    #[command(flatten)]
    node: NodeArgs,
}

const PUT_HELP: &str = "\
Examples:
  postrider users put ada --email ada@example.org --topic news --topic sport
  postrider users put ada --merge --attribute plan=gold
  postrider users put bob --no-topics";

/// Puts.
pub fn run(args: &PutArgs) -> Result<(), Failure> {
    let path = super::path(&args.user)?;
    let given = given(args)?;
    let call = args.node.call()?;
    let profile = match args.merge {
        true => merged(known(call.get(&path, &[]))?, given),
        false => given,
    };
    let user = call.send("PUT", &path, &Value::Object(profile))?;
    match args.node.json {
        true => output::json(&user),
        false => output::line(&super::card(&user, Look::stdout())),
    }
}

fn given(args: &PutArgs) -> Result<Map<String, Value>, Failure> {
    let mut fields = Map::new();
    for (name, value) in [
        ("email", &args.email),
        ("mobile", &args.mobile),
        ("locale", &args.locale),
        ("time_zone", &args.time_zone),
    ] {
        if let Some(value) = value {
            fields.insert(name.into(), value.as_str().into());
        }
    }
    if !args.attribute.is_empty() {
        let pairs = args.attribute.iter().map(|text| pair("--attribute", text));
        let pairs: Map<String, Value> = pairs
            .map(|pair| pair.map(|(name, value)| (name.to_owned(), value.into())))
            .collect::<Result<_, _>>()?;
        fields.insert("attributes".into(), pairs.into());
    }
    if !args.topic.is_empty() || args.no_topics {
        fields.insert("topics".into(), json!(args.topic));
    }
    Ok(fields)
}

/// `NAME=VALUE` in two.
pub fn pair<'a>(option: &str, text: &'a str) -> Result<(&'a str, &'a str), Failure> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| Failure::usage(format!("{option}: `{}` is no NAME=VALUE", plain(text))))
}

/// A user's profile; an empty one where the node does not know the user.
fn known(answer: Result<Value, Failure>) -> Result<Value, Failure> {
    match answer {
        Err(failure) if failure.refused().is_some_and(|refused| refused.status == 404) => Ok(json!({})),
        answer => answer,
    }
}

fn merged(known: Value, given: Map<String, Value>) -> Map<String, Value> {
    let mut fields = Map::new();
    for name in FIELDS {
        if !known[name].is_null() {
            fields.insert(name.into(), known[name].clone());
        }
    }
    for (name, value) in given {
        match (fields.get_mut(&name), value) {
            (Some(Value::Object(attributes)), Value::Object(more)) => attributes.extend(more),
            (_, value) => {
                fields.insert(name, value);
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_what_is_not_given() {
        let known = json!({"id":"ada","email":"a@x","attributes":{"a":"1","b":"2"},"topics":[{"topic":"t"}],"created_at":"T"});
        let given = json!({"mobile":"1","attributes":{"b":"3"}});
        let Value::Object(given) = given else {
            unreachable!()
        };
        let fields = Value::Object(merged(known, given));
        assert_eq!(
            fields,
            json!({"email":"a@x","mobile":"1","attributes":{"a":"1","b":"3"}})
        );
    }
}
