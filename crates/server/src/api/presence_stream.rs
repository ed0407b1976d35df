//! `GET /v1/presence/stream`: who comes and goes, as server-sent events.
//!
//! Invariant: the first event is `snapshot`, and so is the one after `lagged`. A snapshot comes in parts; whoever
//! applies all events in order knows who is there once the part with `last` has come. The stream ends with the drain,
//! and when its client has taken nothing of it for a while.

use super::presence::allow;
use super::refusal::Refusal;
use super::{Api, query};
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use postrider_engine::{PresenceFilter, PresenceNews, PresenceWatch};
use postrider_model::{Timestamp, UserId};
use postrider_transports::Problem;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Most users of one watch.
const USERS: usize = 1000;
/// Events that wait for the client to read.
const EVENTS_WAITING: usize = 4;
/// A client that takes nothing for so long is not waited for.
const UNTAKEN: Duration = Duration::from_secs(60);
/// A comment tells that the wire is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After how many milliseconds a client is to come back.
const RETRY: &str = "retry: 2000\n\n";

/// `event: snapshot`: a part of those who are there.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Snapshot {
    /// Some of them, each named once.
    #[schemars(with = "Vec<String>")]
    users: Vec<UserId>,
    /// No more parts follow.
    last: bool,
}

/// `event: join` and `event: leave`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Coming {
    /// Who.
    #[schemars(with = "String")]
    user: UserId,
    /// When the first session began, or the last one ended.
    #[schemars(with = "String")]
    time: Timestamp,
}

/// Starts the stream.
pub async fn stream(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    wanted: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Refusal> {
    allow(&api, &headers)?;
    let filter = filter(&query::query(wanted)?)?;
    let watch = api.presence.watch_presence(filter)?;
    let (events, channel) = Channel::<Bytes, axum::Error>::new(EVENTS_WAITING);
    let telling = tell(watch, events, api.drain.clone());
    api.tasks.spawn("presence stream", telling);
    let mut response = Response::new(Body::new(channel));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    // A proxy that gathers answers would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// One topic, or users by repeating the parameter; neither is everyone.
fn filter(wanted: &[(String, String)]) -> Result<PresenceFilter, Problem> {
    let (mut topic, mut users) = (None, Vec::new());
    for (name, value) in wanted {
        match name.as_str() {
            "topic" if topic.is_none() => topic = Some(query::topic_of(value)?),
            "topic" => {
                return Err(Problem::invalid_request(
                    "The parameter topic stands there twice.",
                ));
            }
            "user" if users.len() == USERS => {
                return Err(Problem::too_large(
                    format!("At most {USERS} users can be watched by name."),
                    None,
                ));
            }
            "user" => users.push(query::user_of(value)?),
            _ => {
                let detail = "The query cannot be read: there may be `topic`, or `user` once or more.";
                return Err(Problem::invalid_request(detail));
            }
        }
    }
    match (topic, users.is_empty()) {
        (Some(topic), true) => Ok(PresenceFilter::Topic(topic)),
        (None, true) => Ok(PresenceFilter::All),
        (None, false) => Ok(PresenceFilter::Users(users)),
        (Some(_), false) => Err(Problem::invalid_request("Watch a topic or users, not both.")),
    }
}

async fn tell(
    mut watch: Box<dyn PresenceWatch>,
    mut events: Sender<Bytes, axum::Error>,
    drain: crate::drain::Drain,
) {
    let mut event = Some(Bytes::from_static(RETRY.as_bytes()));
    while let Some(bytes) = event {
        let sent = tokio::time::timeout(UNTAKEN, events.send_data(bytes));
        if !matches!(sent.await, Ok(Ok(()))) {
            return;
        }
        event = tokio::select! {
            news = watch.next() => news.map(|news| written(&news)),
            () = tokio::time::sleep(KEEP_ALIVE) => Some(Bytes::from_static(b": keep-alive\n\n")),
            () = drain.begun() => None,
        };
    }
    // So that a client waits a moment rather than asking at once a node that goes.
    let retry = Bytes::from_static(RETRY.as_bytes());
    if tokio::time::timeout(UNTAKEN, events.send_data(retry))
        .await
        .is_err()
    {
        tracing::debug!("a watcher of presence took nothing at its end");
    }
}

fn written(news: &PresenceNews) -> Bytes {
    let (event, data) = match news {
        PresenceNews::Present { users, last } => {
            let users = users.clone();
            (
                "snapshot",
                serde_json::to_string(&Snapshot { users, last: *last }),
            )
        }
        PresenceNews::Change { user, online, at } => {
            let (user, time) = (user.clone(), *at);
            let event = if *online { "join" } else { "leave" };
            (event, serde_json::to_string(&Coming { user, time }))
        }
        PresenceNews::Lagged => ("lagged", Ok("{}".into())),
    };
    // Texts and times only: this cannot fail.
    let data = data.unwrap_or_default();
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &[(&str, &str)]) -> Result<PresenceFilter, &'static str> {
        let query: Vec<_> = query
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        filter(&query).map_err(|problem| problem.code)
    }

    #[test]
    fn a_topic_or_users_or_everyone() {
        assert_eq!(of(&[]), Ok(PresenceFilter::All));
        let topic = postrider_model::Topic::new("news/eu").unwrap();
        assert_eq!(of(&[("topic", "news/eu")]), Ok(PresenceFilter::Topic(topic)));
        let users = ["ada", "b,b"].map(|user| UserId::new(user).unwrap());
        assert_eq!(
            of(&[("user", "ada"), ("user", "b,b")]),
            Ok(PresenceFilter::Users(users.into()))
        );
        for query in [
            vec![("topic", "a"), ("topic", "b")],
            vec![("topic", "a"), ("user", "b")],
            vec![("topic", "no way")],
            vec![("user", "")],
            vec![("users", "ada")],
        ] {
            assert_eq!(of(&query), Err("invalid_request"), "{query:?}");
        }
        assert_eq!(of(&vec![("user", "ada"); USERS + 1]), Err("too_large"));
    }

    #[test]
    fn events_are_one_line_each() {
        let ada = UserId::new("a\"da").unwrap();
        let part = PresenceNews::Present {
            users: vec![ada.clone()],
            last: true,
        };
        assert_eq!(
            written(&part),
            "event: snapshot\ndata: {\"users\":[\"a\\\"da\"],\"last\":true}\n\n"
        );
        let change = PresenceNews::Change {
            user: ada,
            online: false,
            at: Timestamp(0),
        };
        let text = written(&change);
        assert_eq!(
            text,
            "event: leave\ndata: {\"user\":\"a\\\"da\",\"time\":\"1970-01-01T00:00:00.000Z\"}\n\n"
        );
        assert_eq!(written(&PresenceNews::Lagged), "event: lagged\ndata: {}\n\n");
    }
}
