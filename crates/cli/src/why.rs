//! `postrider why`: what became of a notification, for all or for one user.

use crate::client::{self, KeyArg, UrlArg};
use crate::exit::Failure;
use clap::Args;
use postrider_model::NotificationId;
use serde_json::Value;

/// Arguments of `why`.
#[derive(Args)]
#[command(after_help = "Example:\n  postrider why order-7-shipped ada")]
pub struct WhyArgs {
    /// The notification
    id: String,
    /// Tell only this user's part
    user: Option<String>,
    #[command(flatten)]
    url: UrlArg,
    #[command(flatten)]
    key: KeyArg,
    /// Write the node's answers as they are
    #[arg(long)]
    json: bool,
}

/// Tells the story.
pub fn run(args: &WhyArgs) -> Result<(), Failure> {
    let id = NotificationId::new(&args.id).map_err(|e| Failure::usage(format!("ID: {e}")))?;
    let (agent, bearer) = (args.url.agent()?, args.key.bearer()?);
    let path = format!("/v1/notifications/{id}");
    let url = args.url.join("")?;
    let get = |path: &str| agent.get(format!("{url}{path}")).header("Authorization", &bearer);
    let notification = client::json(get(&path).call())?;
    let mut request = get(&format!("{path}/timeline"));
    if let Some(user) = &args.user {
        request = request.query("user", user);
    }
    let timeline = client::json(request.call())?;
    if args.json {
        println!(
            "{}",
            serde_json::json!({"notification": notification, "timeline": timeline})
        );
    } else {
        print!("{}", render(&notification, &timeline, args.user.as_deref()));
    }
    Ok(())
}

fn render(notification: &Value, timeline: &Value, user: Option<&str>) -> String {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let subject = notification["subject"]
        .as_str()
        .map(|subject| format!("  {subject}"))
        .unwrap_or_default();
    let mut out = format!("{}{subject}\n", text(notification, "id"));
    let audience = &notification["audience"];
    let count = audience["count"]
        .as_u64()
        .map(|n| format!(" ({n})"))
        .unwrap_or_default();
    out += &format!("for {}{count}: ", text(audience, "kind"));
    let counts = notification["counts"].as_object().into_iter().flatten();
    let told: Vec<_> = counts
        .filter_map(|(state, n)| Some((state, n.as_u64()?)))
        .filter(|(_, n)| *n > 0)
        .collect();
    let told: Vec<_> = told.iter().map(|(state, n)| format!("{n} {state}")).collect();
    out += &if told.is_empty() {
        "nobody has a state yet".into()
    } else {
        told.join(", ")
    };
    out.push('\n');
    if let Some(user) = user {
        let state = timeline["state"].as_str().unwrap_or("not a recipient");
        out += &format!("{user}: {state}\n");
    }
    for event in timeline["events"].as_array().into_iter().flatten() {
        let mut line = format!("  {}  {:<10}", text(event, "time"), text(event, "event"));
        for (before, name) in [
            ("", "user"),
            ("over ", "transport"),
            ("session ", "session"),
            ("by ", "evidence"),
            ("because ", "reason"),
        ] {
            if let Some(value) = event[name].as_str() {
                line += &format!(" {before}{value}");
            }
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_story_for_people() {
        let notification = json!({"id":"n","time":"T0","subject":"S","audience":{"kind":"users","count":2},
            "counts":{"pending":1,"delivered":1,"read":0,"expired":0,"cancelled":0,"dead":0}});
        let timeline = json!({"id":"n","state":"delivered","events":[{"time":"T0","event":"accepted"},
            {"time":"T1","event":"delivered","user":"ada","transport":"sse","evidence":"tcp"}]});
        let text = render(&notification, &timeline, Some("ada"));
        assert!(
            text.starts_with("n  S\nfor users (2): 1 delivered, 1 pending\nada: delivered\n  T0  accepted\n"),
            "{text}"
        );
        assert!(text.ends_with("  T1  delivered  ada over sse by tcp\n"), "{text}");
    }
}
