//! Whom a draft is for: the audience rules of the publish interface.

use crate::{Draft, Fault, FaultCode, Limits, Publisher};
use postrider_model::{Audience, IdError, Topic, UserId};
use std::collections::HashSet;
use std::hash::Hash;

/// Works out the audience. Users and topics come once each, in the order given.
pub(crate) fn audience(draft: &Draft, publisher: &Publisher<'_>, limits: &Limits) -> Result<Audience, Fault> {
    match (&draft.users, &draft.topics) {
        (Some(_), Some(_)) => Err(Fault::invalid(
            "/topics",
            "`users` and `topics` cannot stand together; publish two notifications",
        )),
        (Some(users), None) => {
            check_count("users", users.len(), limits.users_per_notification)?;
            each_once("users", users, UserId::new).map(Audience::Users)
        }
        (None, Some(topics)) => {
            check_count("topics", topics.len(), limits.topics_per_notification)?;
            each_once("topics", topics, Topic::new).map(Audience::Topics)
        }
        (None, None) if publisher.may_broadcast => Ok(Audience::Everyone),
        (None, None) => Err(Fault::new(
            FaultCode::Scope,
            "without `users` or `topics` it goes to everyone, for which this key lacks the scope `broadcast`",
        )),
    }
}

/// The excluded, sorted, each once.
pub(crate) fn excluded(draft: &Draft, limits: &Limits) -> Result<Vec<UserId>, Fault> {
    let given = &draft.exclude_users;
    if given.len() > limits.exclude_users {
        return Err(over("exclude_users", limits.exclude_users));
    }
    let mut users = given
        .iter()
        .enumerate()
        .map(|(i, text)| UserId::new(text).map_err(|e| misnamed("exclude_users", i, e)))
        .collect::<Result<Vec<_>, _>>()?;
    users.sort_unstable();
    users.dedup();
    Ok(users)
}

fn check_count(field: &str, count: usize, most: usize) -> Result<(), Fault> {
    match count {
        0 => Err(Fault::at(
            FaultCode::EmptyAudience,
            format!("/{field}"),
            format!("`{field}` is empty; to reach everyone, leave it out"),
        )),
        n if n > most => Err(over(field, most)),
        _ => Ok(()),
    }
}

/// A source reads no further than it takes to see this.
fn over(field: &str, most: usize) -> Fault {
    let detail = format!("`{field}` has more than {most} entries");
    Fault::at(FaultCode::TooLarge, format!("/{field}"), detail)
}

fn misnamed(field: &str, index: usize, error: IdError) -> Fault {
    Fault::invalid(format!("/{field}/{index}"), error.to_string())
}

fn each_once<T: Clone + Eq + Hash>(
    field: &str,
    texts: &[String],
    make: impl Fn(&str) -> Result<T, IdError>,
) -> Result<Vec<T>, Fault> {
    let mut seen = HashSet::with_capacity(if texts.len() > 1 { texts.len() } else { 0 });
    let mut out = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        let name = make(text).map_err(|e| misnamed(field, i, e))?;
        if texts.len() == 1 || seen.insert(name.clone()) {
            out.push(name);
        }
    }
    Ok(out)
}
