//! Publishing, following up, dead letters: what a back-end does.

use super::operation::{Credential, Operation, Task};
use super::shapes;
use crate::api::{dead_letters, notification, redrive, timeline};
use crate::auth::Scope;
use postrider_transports::Problem;
use serde_json::json;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// `POST /v1/notifications`
pub fn publish() -> Operation {
    let order = json!({ "users": ["ada", "bob"], "subject": "Order shipped", "data": { "order": 7 }, "id": "order-7-shipped", "ttl": "24h" });
    let all = json!({ "data": { "text": "We are back." } });
    let topic = json!({ "topics": ["orders"], "exclude_users": ["bob"], "data": { "order": 8 } });
    let rejected = json!({ "index": 1, "code": "invalid_notification", "detail": "`data` is required.", "pointer": "/data" });
    Operation::post("/v1/notifications", "publish")
        .says(
            Task::Publish,
            "Publish one notification, an array of them, or a stream of lines",
            "A 202 comes when what was accepted is durable. In an array each one is judged by itself, and the request is refused as a whole only where its body cannot be read. Of lines each is published, and answered, while the next ones come; `http.max_body` does not bound them. To everyone (neither `users` nor `topics`) needs the scope `broadcast` as well.",
        )
        .for_whom(Credential::Key(Scope::Publish))
        .header::<IdempotencyKey>(
            "Idempotency-Key",
            "Makes the whole request idempotent: repeated unchanged, it has the same answer and is delivered once.",
        )
        .takes::<shapes::Publication>(
            JSON,
            vec![
                ("users", order.clone()),
                ("topics", topic.clone()),
                ("everyone", all),
                ("several", json!([order, topic])),
            ],
        )
        .takes::<shapes::NotificationLines>(
            NDJSON,
            vec![("lines", json!("{\"users\":[\"ada\"],\"data\":1}\n{\"users\":[\"bob\"],\"data\":2}\n"))],
        )
        .answers(202, "Accepted, and durable.")
        .holding::<shapes::Published>(
            JSON,
            vec![
                ("one", json!({ "id": "order-7-shipped", "accepted": true })),
                ("several", json!({ "accepted": [{ "index": 0, "id": "order-7-shipped" }], "rejected": [rejected] })),
            ],
        )
        .holding::<shapes::OutcomeLines>(
            NDJSON,
            vec![("lines", json!("{\"id\":\"0199\",\"accepted\":true}\n{\"id\":\"019a\",\"accepted\":true}\n"))],
        )
        .linking("What became of it", "showNotification", "id", "$response.body#/id")
        .linking("Its story", "timeline", "id", "$response.body#/id")
        .linking("Take it back", "cancel", "id", "$response.body#/id")
        .refuses([
            Problem::invalid_notification("`data` is required.", Some("/data".into())),
            Problem::empty_audience(),
            Problem::invalid_request("The header Idempotency-Key must have 1 to 256 visible ASCII characters."),
            Problem::scope("broadcast"),
            Problem::id_conflict(),
            Problem::too_large("The body is larger than 16777216 bytes. Send less, or NDJSON.", None),
            Problem::unsupported_media_type("application/json, application/x-ndjson"),
        ])
}

/// `GET /v1/notifications/{id}`
pub fn show() -> Operation {
    of_notification(Operation::get("/v1/notifications/{id}", "showNotification"))
        .says(Task::Follow, "See what became of a notification, in numbers", "Counts of a wide audience cover those of whom something is recorded.")
        .for_whom(Credential::Key(Scope::Read))
        .answers(200, "The notification.")
        .holding::<notification::Shown>(
            JSON,
            vec![("shown", json!({
                "id": "order-7-shipped", "time": "2026-11-21T06:00:00.000Z", "subject": "Order shipped",
                "audience": { "kind": "users", "count": 2 },
                "counts": { "pending": 1, "delivered": 1, "read": 0, "expired": 0, "cancelled": 0, "dead": 0 },
            }))],
        )
        .refuses([Problem::not_found()])
}

/// `GET /v1/notifications/{id}/timeline`
pub fn story() -> Operation {
    of_notification(Operation::get("/v1/notifications/{id}/timeline", "timeline"))
        .says(Task::Follow, "Read the story of a notification", "All that is recorded, in the order of time, at most 10,000 events.")
        .for_whom(Credential::Key(Scope::Read))
        .query::<timeline::Wanted>()
        .answers(200, "The story.")
        .holding::<timeline::Story<'_>>(
            JSON,
            vec![("story", json!({
                "id": "order-7-shipped", "state": "delivered",
                "events": [
                    { "time": "2026-11-21T06:00:00.000Z", "event": "accepted" },
                    { "time": "2026-11-21T06:00:00.120Z", "event": "delivered", "user": "ada", "session": "s1", "transport": "websocket", "evidence": "pong" },
                ],
            }))],
        )
        .refuses([Problem::invalid_request("The user: a user id is longer than 256 bytes."), Problem::not_found()])
}

/// `DELETE /v1/notifications/{id}`
pub fn cancel() -> Operation {
    of_notification(Operation::delete("/v1/notifications/{id}", "cancel"))
        .says(Task::Follow, "Take a notification back", "Whoever had it is told that it is withdrawn; nobody gets it any more. For the key that published it, or one with the scope `manage`.")
        .for_whom(Credential::AnyKey)
        .answers(200, "It is taken back.")
        .holding::<shapes::Cancelled>(JSON, vec![("two", json!({ "cancelled": 2 }))])
        .refuses([Problem::scope("manage"), Problem::not_found()])
}

fn of_notification(operation: Operation) -> Operation {
    operation.path_parameter::<shapes::NotificationText>("id", "The notification.", "order-7-shipped")
}

/// `GET /v1/dead-letters`
pub fn letters() -> Operation {
    Operation::get("/v1/dead-letters", "listDeadLetters")
        .says(
            Task::DeadLetters,
            "List dead letters",
            "Oldest first, those that fit the filter.",
        )
        .for_whom(Credential::Key(Scope::Manage))
        .query::<dead_letters::Wanted>()
        .answers(200, "A page of them.")
        .holding::<shapes::DeadLetters>(
            JSON,
            vec![(
                "page",
                json!({ "dead_letters": [letter_example()], "after": null }),
            )],
        )
        .linking(
            "One of them",
            "showDeadLetter",
            "id",
            "$response.body#/dead_letters/0/id",
        )
        .refuses([Problem::invalid_request("The parameter limit must be 1 to 1000.")])
}

/// `GET /v1/dead-letters/{id}`
pub fn letter() -> Operation {
    of_letter(Operation::get("/v1/dead-letters/{id}", "showDeadLetter"))
        .says(
            Task::DeadLetters,
            "Read a dead letter",
            "With what was to be delivered, or the raw bytes where they could not be read.",
        )
        .answers(200, "The dead letter.")
        .holding::<shapes::DeadLetter>(JSON, vec![("letter", letter_example())])
        .refuses([Problem::not_found()])
}

/// `DELETE /v1/dead-letters/{id}`
pub fn delete_letter() -> Operation {
    of_letter(Operation::delete("/v1/dead-letters/{id}", "deleteDeadLetter"))
        .says(
            Task::DeadLetters,
            "Throw a dead letter away",
            "That cannot be undone.",
        )
        .answers(200, "It is gone.")
        .holding::<shapes::Deleted>(JSON, vec![("one", json!({ "deleted": 1 }))])
        .refuses([Problem::not_found()])
}

/// `POST /v1/dead-letters/{id}/redrive`
pub fn redrive_letter() -> Operation {
    of_letter(Operation::post(
        "/v1/dead-letters/{id}/redrive",
        "redriveDeadLetter",
    ))
    .says(
        Task::DeadLetters,
        "Redrive a dead letter",
        "Puts it into its user's inbox anew, under the same notification id.",
    )
    .answers(202, "It is pending again.")
    .holding::<shapes::Redriven>(JSON, vec![("one", json!({ "redriven": 1 }))])
    .refuses([
        Problem::not_found(),
        Problem {
            detail: "Its time to live has run out. Publish it anew.".into(),
            ..Problem::gone()
        },
    ])
}

/// `POST /v1/dead-letters/redrive`
pub fn redrive_letters() -> Operation {
    Operation::post("/v1/dead-letters/redrive", "redriveDeadLetters")
        .says(
            Task::DeadLetters,
            "Redrive all that fit a filter",
            "At most 100,000. Without a `rate` the answer comes when it is done. With one it comes at once and the node goes on by itself; what it has not come to when it stops stays a dead letter.",
        )
        .for_whom(Credential::Key(Scope::Manage))
        .takes::<redrive::Wanted>(JSON, vec![("some", json!({ "reason": "max_attempts", "rate": 100 })), ("all", json!({}))])
        .answers(202, "They are pending again, or will be.")
        .holding::<shapes::Redriven>(JSON, vec![("many", json!({ "redriven": 250 }))])
        .refuses([
            Problem::invalid_request("The rate must be 1 or more per second."),
            Problem::too_large("The body is larger than 16384 bytes. Send less.", None),
            Problem::unsupported_media_type(JSON),
        ])
}

fn of_letter(operation: Operation) -> Operation {
    operation
        .for_whom(Credential::Key(Scope::Manage))
        .path_parameter::<shapes::LetterText>("id", "The dead letter's own id.", "dl-0000000000000001")
}

fn letter_example() -> serde_json::Value {
    json!({
        "id": "dl-0000000000000001", "notification": "order-7-shipped", "user": "ada", "reason": "max_attempts",
        "source": "http", "attempts": 20, "time": "2026-11-21T06:10:00.000Z", "subject": "Order shipped",
        "data": { "order": 7 },
    })
}

/// A key that the publisher makes up.
#[derive(schemars::JsonSchema)]
#[schemars(inline, transparent)]
#[allow(dead_code, reason = "only its schema is of use")]
struct IdempotencyKey(#[schemars(regex(pattern = "^[ -~]*[!-~][ -~]*$"), length(min = 1, max = 256))] String);
