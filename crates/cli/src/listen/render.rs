//! An event for people.

use super::event::{Event, Parts};
use crate::pretty::pretty;
use crate::term::{Look, columns, plain};
use postrider_model::Timestamp;
use serde_json::Value;
use std::borrow::Cow;

/// How far in stands what belongs to the line above, where no terminal reads it.
const INDENT: usize = 4;

/// Lines without the last one's end.
pub fn render(event: &Event, look: Look, now: Timestamp) -> String {
    let parts = event.parts();
    if event.name == "notification" {
        return notification(&parts, look, now);
    }
    let told = told(event, &parts, look);
    match look.width {
        Some(_) => format!("{}  {told}", " ".repeat("00:00:00".len())),
        None => told,
    }
}

fn notification(parts: &Parts, look: Look, now: Timestamp) -> String {
    let text = |part: &Option<Cow<str>>| plain(part.as_deref().unwrap_or_default()).into_owned();
    let time = match look.width {
        Some(_) => short(parts.time.as_deref().unwrap_or_default(), now),
        None => text(&parts.time),
    };
    let mut head = vec![look.dim(&time)];
    head.push(match &parts.subject {
        Some(_) => look.bold(text(&parts.subject)),
        None => look.dim("(no subject)"),
    });
    head.push(look.dim(format!("[{}]", text(&parts.id))));
    if parts.topic.is_some() {
        head.push(look.name(format!("topic {}", text(&parts.topic))));
    }
    if let Some(attempt) = parts.attempt {
        head.push(look.warn(format!("attempt {attempt}")));
    }
    let indent = look.width.map_or(INDENT, |_| columns(&time) + 2);
    let data = parts.data.map_or("", |data| data.get());
    format!("{}\n{}", head.join("  "), payload(data, indent, look))
}

/// The payload on one line; over several where a terminal is too narrow for it.
fn payload(data: &str, indent: usize, look: Look) -> String {
    let margin = " ".repeat(indent);
    let line = plain(data);
    let room = look
        .width
        .map_or(usize::MAX, |width| width.saturating_sub(indent));
    let lines = pretty(&line, room);
    lines
        .lines()
        .map(|line| format!("{margin}{line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn told(event: &Event, parts: &Parts, look: Look) -> String {
    let text = |part: &Option<Cow<str>>| plain(part.as_deref().unwrap_or_default()).into_owned();
    let ids = || plain(&parts.ids.join(", ")).into_owned();
    match event.name.as_str() {
        "read" => look.good(format!("read on another device: {}", ids())),
        "withdrawn" => look.warn(format!(
            "withdrawn: {} ({})",
            text(&parts.id),
            text(&parts.reason)
        )),
        "gap" => look.bad(format!(
            "something may be missing: what was kept begins at {}",
            text(&parts.oldest)
        )),
        "state" => state(&event.data, look),
        "transient_dropped" => {
            look.warn("transient notifications were left out: this end was too slow for them")
        }
        "delivery_stalled" => look.warn(format!(
            "not sent again to this session, it was sent so often: {}",
            ids()
        )),
        name => format!("{}: {}", plain(name), plain(&event.data)),
    }
}

fn state(data: &str, look: Look) -> String {
    let map: Value = serde_json::from_str(data).unwrap_or_default();
    let pairs = map.as_object().into_iter().flatten().map(|(key, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{} = {}", look.name(plain(key)), plain(&value))
    });
    let pairs: Vec<_> = pairs.collect();
    match pairs.is_empty() {
        true => "state: empty".into(),
        false => format!("state: {}", pairs.join(", ")),
    }
}

/// The time of day, with the date where it is not today's. UTC, as everywhere.
fn short(time: &str, now: Timestamp) -> String {
    let Some((date, clock)) = time.split_once('T') else {
        return plain(time).into_owned();
    };
    let clock = clock.get(..8).unwrap_or(clock);
    match now.to_string().starts_with(date) {
        true => plain(clock).into_owned(),
        false => plain(&format!("{date} {clock}")).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> Event {
        let (name, data) = (name.into(), data.into());
        Event { name, data }
    }

    const NOW: Timestamp = Timestamp(1_795_276_800_000);

    #[test]
    fn without_a_terminal_nothing_is_left_out() {
        let render = |name: &str, data: &str| render(&event(name, data), Look::default(), NOW);
        let text = render(
            "notification",
            r#"{"id":"n","time":"T","subject":"S","topic":"t","data":{"a":1.0}}"#,
        );
        assert_eq!(text, "T  S  [n]  topic t\n    {\"a\":1.0}");
        assert_eq!(
            render("read", r#"{"ids":["a","b"]}"#),
            "read on another device: a, b"
        );
        assert_eq!(
            render("withdrawn", r#"{"id":"a","reason":"cancelled"}"#),
            "withdrawn: a (cancelled)"
        );
        assert_eq!(render("state", r#"{"unread":"3"}"#), "state: unread = 3");
        assert_eq!(render("new_kind", "{}"), "new_kind: {}");
    }

    #[test]
    fn on_a_terminal_wide_payloads_stand_over_several_lines() {
        let look = Look::plain(Some(40));
        let today = NOW.to_string();
        let data = format!(
            r#"{{"id":"n","time":"{today}","data":{{"a":"{}","b":2}}}}"#,
            "x".repeat(30)
        );
        let text = render(&event("notification", &data), look, NOW);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with(&today[11..19]), "{text}");
        assert_eq!(
            (lines[1], lines[3], lines[4]),
            ("          {", "            \"b\": 2", "          }")
        );
        let short = r#"{"id":"n","time":"2020-01-02T03:04:05.678Z","data":1}"#;
        let text = render(&event("notification", short), look, NOW);
        assert!(
            text.starts_with("2020-01-02 03:04:05  (no subject)  [n]\n"),
            "{text}"
        );
    }

    #[test]
    fn a_payload_does_not_drive_the_terminal() {
        let text = render(
            &event(
                "notification",
                "{\"id\":\"n\",\"subject\":\"\\u001b[2J\",\"data\":\"\u{9b}2J\"}",
            ),
            Look::default(),
            NOW,
        );
        assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text:?}");
    }
}
