//! State maps and presence.

use super::directory::of_user;
use super::operation::{Credential, Operation, Task};
use super::shapes;
use crate::api::{presence, registry, state};
use crate::auth::Scope;
use postrider_transports::Problem;
use serde_json::{Value, json};

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

fn map() -> Value {
    json!({ "state": { "theme": "dark", "unread": "3" }, "version": 1_795_240_800_000_u64 })
}

fn changing(operation: Operation) -> Operation {
    of_user(operation)
        .answers(200, "The map as this change left it, on disk.")
        .holding::<state::StateShown>(JSON, vec![("map", map())])
        .refuses([
            Problem::invalid_request("A change is a JSON object."),
            Problem::too_large("A state has at most 256 keys.", None),
            Problem::unsupported_media_type(JSON),
        ])
}

/// `GET /v1/users/{id}/state`
pub fn state() -> Operation {
    of_user(Operation::get("/v1/users/{id}/state", "showState"))
        .says(
            Task::State,
            "Show a user's state map",
            "Of a user who has none it is empty, at version 0.",
        )
        .answers(200, "The map.")
        .holding::<state::StateShown>(JSON, vec![("map", map())])
}

/// `GET /v1/inbox/state`
pub fn own_state() -> Operation {
    Operation::get("/v1/inbox/state", "ownState")
        .says(
            Task::Receive,
            "Show one's own state map",
            "With `state=1` a session gets it first, and whenever it changes.",
        )
        .for_whom(Credential::User)
        .answers(200, "The map.")
        .holding::<state::StateShown>(JSON, vec![("map", map())])
}

/// `PATCH /v1/users/{id}/state`
pub fn merge() -> Operation {
    let change = json!({ "theme": "dark", "draft": null });
    changing(Operation::patch("/v1/users/{id}/state", "mergeState"))
        .says(
            Task::State,
            "Set and remove values",
            "All of it or nothing; null removes. The user's sessions are told, in order.",
        )
        .takes::<shapes::StateMerge>(JSON, vec![("change", change.clone())])
        .takes::<shapes::StateMerge>(MERGE, vec![("change", change)])
}

/// `POST /v1/users/{id}/state/increment`
pub fn increment() -> Operation {
    changing(Operation::post(
        "/v1/users/{id}/state/increment",
        "incrementState",
    ))
    .says(
        Task::State,
        "Add to values",
        "To decimal integers; a key that is not there counts as 0. All of it or nothing.",
    )
    .takes::<shapes::StateIncrement>(JSON, vec![("one more", json!({ "unread": 1 }))])
    .refuses([Problem::state_conflict(
        "`theme` holds no integer. Nothing was changed.",
        Some("/theme".into()),
    )])
}

/// `DELETE /v1/users/{id}/state`
pub fn clear() -> Operation {
    of_user(Operation::delete("/v1/users/{id}/state", "clearState"))
        .says(
            Task::State,
            "Remove all values",
            "The map is empty then; its version rises.",
        )
        .answers(200, "The empty map, on disk.")
        .holding::<state::StateShown>(
            JSON,
            vec![("empty", json!({ "state": {}, "version": 1_795_240_800_001_u64 }))],
        )
}

/// `GET /v1/users/{id}/presence`
pub fn user_presence() -> Operation {
    of_user(Operation::get("/v1/users/{id}/presence", "userPresence"))
        .says(Task::State, "Is a user there?", "A user who left a moment ago (`presence.linger`) counts as being there.")
        .for_whom(Credential::EitherKey([Scope::Read, Scope::Manage]))
        .answers(200, "Whether, and by which sessions.")
        .holding::<presence::UserPresenceShown>(
            JSON,
            vec![("there", json!({ "user": "ada", "online": true, "sessions": [{ "session": "s1", "transport": "websocket" }] }))],
        )
}

/// `GET /v1/registry/{id}`
pub fn user_instance() -> Operation {
    of_user(Operation::get("/v1/registry/{id}", "userInstance"))
        .says(
            Task::State,
            "Which instance has a user?",
            "For producers that write to the queue of one instance, as the registry says (`registry.type`). A hint, never a promise: \
             the user may go as it is told. 404 where no registry is configured.",
        )
        .for_whom(Credential::Key(Scope::Publish))
        .answers(200, "The `instance` of a node that has a session of the user; null while none has.")
        .holding::<registry::UserInstanceShown>(
            JSON,
            vec![
                ("there", json!({ "user": "ada", "instance": "f0c7b6c1-3a67-4d9b-9e36-6f4e5a3a1b11" })),
                ("nowhere", json!({ "user": "ada", "instance": null })),
            ],
        )
        .refuses([Problem::not_found(), Problem::unavailable(1)])
}

/// `GET /v1/topics/{topic}/presence`
pub fn topic_presence() -> Operation {
    Operation::get("/v1/topics/{topic}/presence", "topicPresence")
        .says(Task::State, "Who hears a topic now?", "Members and session topics alike; names only where they are asked for.")
        .for_whom(Credential::EitherKey([Scope::Read, Scope::Manage]))
        .path_parameter::<shapes::TopicText>("topic", "The topic; `/` in it as `%2F`.", "orders")
        .query::<presence::TopicWanted>()
        .answers(200, "How many, and who.")
        .holding::<presence::TopicPresenceShown>(
            JSON,
            vec![
                ("counts", json!({ "topic": "orders", "sessions": 3, "users": 2 })),
                ("names", json!({ "topic": "orders", "sessions": 3, "users": 2, "present": ["ada", "bob"], "after": null })),
            ],
        )
        .refuses([Problem::invalid_request("The parameter limit must be 1 to 1000.")])
}

/// `GET /v1/presence/stream`
pub fn presence_stream() -> Operation {
    Operation::get("/v1/presence/stream", "presenceStream")
        .says(
            Task::State,
            "Watch who comes and goes",
            "Server-sent events about the users of a topic, about some users, or, without a parameter, about all. First comes who is there, in parts.",
        )
        .for_whom(Credential::EitherKey([Scope::Read, Scope::Manage]))
        .query::<shapes::Watching>()
        .answers(200, "Events, until either side ends it.")
        .holding::<shapes::PresenceEvent>(
            "text/event-stream",
            vec![
                ("who is there", json!({ "event": "snapshot", "data": "{\"users\":[\"ada\"],\"last\":true}" })),
                ("somebody leaves", json!({ "event": "leave", "data": "{\"user\":\"ada\",\"time\":\"2026-11-21T06:00:00.000Z\"}" })),
            ],
        )
        .refuses([
            Problem::invalid_request("Watch a topic or users, not both."),
            Problem::too_large("At most 1000 users can be watched by name.", None),
        ])
}
