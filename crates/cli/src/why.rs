//! `postrider why`: what became of a notification, for all or for one user.

use crate::client::NodeArgs;
use crate::exit::Failure;
use crate::output;
use crate::term::{Look, columns, plain};
use clap::Args;
use postrider_model::{NotificationId, Timestamp, UserId};
use serde_json::{Value, json};

/// Arguments of `why`.
#[derive(Args)]
#[command(after_help = WHY_HELP)]
#[command(
    about = "Tell what became of a notification",
    long_about = "Tell what became of a notification: for whom it was, where it stands, and what happened to it \
    when, over which transport and on what evidence.\n\n\
    Evidence is what a delivery was recorded on: `client` is the client's own word, `cursor` its next poll or return, \
    `pong` and `tcp` what its connection answered."
)]
pub struct WhyArgs {
    /// The notification
    id: String,
    /// Tell only this user's part
    user: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
}

const WHY_HELP: &str = "\
The key needs the scope `read`. With --json: {\"notification\":{…},\"timeline\":{…}}, as the node answers them.

Examples:
  postrider why order-7-shipped
  postrider why order-7-shipped ada
  postrider why order-7-shipped ada --json | jq -r .timeline.state";

/// Tells the story.
pub fn run(args: &WhyArgs) -> Result<(), Failure> {
    let id = NotificationId::new(&args.id).map_err(|e| Failure::usage(format!("ID: {e}")))?;
    let mut query = Vec::new();
    if let Some(user) = &args.user {
        UserId::new(user).map_err(|e| Failure::usage(format!("USER: {e}")))?;
        query.push(("user", user.as_str()));
    }
    let call = args.node.call()?;
    let path = format!("/v1/notifications/{id}");
    let notification = call.get(&path, &[]).map_err(|failure| unknown(failure, &id))?;
    let timeline = call.get(&format!("{path}/timeline"), &query)?;
    if args.node.json {
        return output::json(&json!({"notification": notification, "timeline": timeline}));
    }
    let story = Story {
        notification: &notification,
        timeline: &timeline,
        user: args.user.as_deref(),
        now: postrider_server::now(),
        look: Look::stdout(),
    };
    output::line(&story.lines().join("\n"))
}

fn unknown(failure: Failure, id: &NotificationId) -> Failure {
    match failure.refused() {
        Some(refused) if refused.code.as_deref() == Some("not_found") => anyhow::anyhow!(
            "the node knows no notification {id}: it was never accepted here, was transient, or is older than retention.audit"
        )
        .into(),
        _ => failure,
    }
}

/// What is told, and to whom.
struct Story<'a> {
    notification: &'a Value,
    timeline: &'a Value,
    user: Option<&'a str>,
    now: Timestamp,
    look: Look,
}

fn text<'a>(value: &'a Value, name: &str) -> std::borrow::Cow<'a, str> {
    plain(value[name].as_str().unwrap_or_default())
}

impl Story<'_> {
    fn lines(&self) -> Vec<String> {
        let look = self.look;
        let mut lines = Vec::new();
        let subject = text(self.notification, "subject");
        lines.push(
            format!("{}  {subject}", look.bold(text(self.notification, "id")))
                .trim_end()
                .to_owned(),
        );
        let accepted = text(self.notification, "time");
        lines.push(format!(
            "{} {accepted}  {}",
            look.dim("accepted"),
            look.dim(self.ago(&accepted))
        ));
        lines.push(format!("{}      {}", look.dim("for"), self.audience()));
        lines.push(format!("{}    {}", look.dim("state"), self.counts()));
        if let Some(user) = self.user {
            let state = self.timeline["state"].as_str();
            let state = state.map_or_else(|| look.warn("not a recipient"), |state| look.state(state));
            lines.push(format!("{}: {state}", look.bold(plain(user))));
        }
        let events = self.timeline["events"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if !events.is_empty() {
            lines.push(String::new());
        }
        lines.extend(self.events(events, &accepted));
        lines
    }

    fn audience(&self) -> String {
        let audience = &self.notification["audience"];
        let kind = text(audience, "kind").into_owned();
        match (kind.as_str(), audience["count"].as_u64()) {
            ("users", Some(count)) => output::counted(count, "user"),
            (_, Some(count)) => format!("{kind} ({count})"),
            (_, None) => kind,
        }
    }

    fn counts(&self) -> String {
        let counts = self.notification["counts"].as_object().into_iter().flatten();
        let told: Vec<_> = counts
            .filter_map(|(state, n)| Some((state, n.as_u64().filter(|n| *n > 0)?)))
            .map(|(state, n)| format!("{} {}", output::grouped(n), self.look.state(state)))
            .collect();
        match told.is_empty() {
            true => "nobody has done anything with it yet".into(),
            false => told.join(", "),
        }
    }

    /// A line for each: when, how long after it was accepted, what, and the circumstances.
    fn events(&self, events: &[Value], accepted: &str) -> Vec<String> {
        let look = self.look;
        let begun = Timestamp::parse_rfc3339(accepted);
        let width = events
            .iter()
            .map(|event| columns(&text(event, "event")))
            .max()
            .unwrap_or(0);
        let line = |event: &Value| {
            let at = Timestamp::parse_rfc3339(&text(event, "time"));
            let after = begun.zip(at).map(|(begun, at)| {
                let sign = if at < begun { '-' } else { '+' };
                format!("{sign}{}", span(at.since(begun).0.max(begun.since(at).0)))
            });
            let what = text(event, "event");
            let room = " ".repeat(width - columns(&what));
            let line = format!(
                "  {}  {}  {}{room}  {}",
                look.dim(text(event, "time")),
                look.dim(format!("{:>8}", after.unwrap_or_default())),
                match what.as_ref() {
                    "accepted" | "scheduled" | "written" | "redriven" => what.to_string(),
                    "withdrawn" => look.warn(&what),
                    state => look.state(state),
                },
                self.circumstances(event)
            );
            line.trim_end().to_owned()
        };
        events.iter().map(line).collect()
    }

    fn circumstances(&self, event: &Value) -> String {
        let mut told = Vec::new();
        for (before, name) in [
            ("", "user"),
            ("over ", "transport"),
            ("session ", "session"),
            ("by ", "evidence"),
            ("because ", "reason"),
        ] {
            let value = text(event, name);
            // With one user asked for, all events are that user's.
            let is_said = name == "user" && self.user == Some(&*value);
            if !value.is_empty() && !is_said {
                told.push(format!("{before}{value}"));
            }
        }
        told.extend(event["attempt"].as_u64().map(|n| format!("attempt {n}")));
        told.join(" ")
    }

    fn ago(&self, time: &str) -> String {
        match Timestamp::parse_rfc3339(time) {
            Some(at) if at > self.now => format!("in {}", span(at.since(self.now).0)),
            Some(at) => format!("{} ago", span(self.now.since(at).0)),
            None => String::new(),
        }
    }
}

/// A span of milliseconds, to the two largest units.
fn span(ms: u64) -> String {
    let (s, m, h) = (ms / 1000, ms / 60_000, ms / 3_600_000);
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", s, ms % 1000 / 100),
        60_000..3_600_000 => format!("{m} min {} s", s % 60),
        3_600_000..86_400_000 => format!("{h} h {} min", m % 60),
        _ => format!("{} d {} h", h / 24, h % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_for_people() {
        let notification = json!({"id":"n","time":"2026-11-21T06:00:00.000Z","subject":"S","audience":{"kind":"users","count":2},
            "counts":{"pending":1,"delivered":1,"read":0,"expired":0,"cancelled":0,"dead":0}});
        let timeline = json!({"id":"n","state":"delivered","events":[{"time":"2026-11-21T06:00:00.000Z","event":"accepted"},
            {"time":"2026-11-21T06:00:01.250Z","event":"delivered","user":"ada","transport":"sse","session":"s1","evidence":"tcp"}]});
        let story = Story {
            notification: &notification,
            timeline: &timeline,
            user: Some("ada"),
            now: Timestamp::parse_rfc3339("2026-11-21T08:05:00.000Z").unwrap(),
            look: Look::default(),
        };
        assert_eq!(
            story.lines(),
            [
                "n  S",
                "accepted 2026-11-21T06:00:00.000Z  2 h 5 min ago",
                "for      2 users",
                "state    1 delivered, 1 pending",
                "ada: delivered",
                "",
                "  2026-11-21T06:00:00.000Z     +0 ms  accepted",
                "  2026-11-21T06:00:01.250Z    +1.2 s  delivered  over sse session s1 by tcp",
            ]
        );
    }

    #[test]
    fn spans_for_people() {
        for (ms, text) in [
            (0, "0 ms"),
            (1999, "1.9 s"),
            (61_000, "1 min 1 s"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(ms), text);
        }
    }
}
