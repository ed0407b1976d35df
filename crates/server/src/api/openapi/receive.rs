//! Receiving, settling, tickets: what a client of an inbox does.

use super::operation::{Credential, Operation, Task};
use super::shapes;
use crate::api::history;
use postrider_transports::Problem;
use serde_json::{Value, json};

const JSON: &str = "application/json";

fn entry() -> Value {
    json!({ "id": "order-7-shipped", "time": "2026-11-21T06:00:00.000Z", "subject": "Order shipped", "data": { "order": 7 } })
}

/// What a request for a session may be refused for.
fn of_sessions() -> [Problem; 5] {
    [
        Problem::invalid_request("`ack` is one of auto, explicit and none."),
        Problem::invalid_cursor(
            "It cannot be used: the cursor is damaged. Connect without one to start with what is pending.",
        ),
        Problem {
            detail: "The token does not allow the topic `orders`. Ask for one that does.".into(),
            ..Problem::scope("")
        },
        Problem::session_limit(),
        Problem {
            detail: "Too many sessions of this address. Close some, or wait as long as Retry-After says."
                .into(),
            ..Problem::rate_limited(30)
        },
    ]
}

/// `GET /v1/inbox`
pub fn poll() -> Operation {
    Operation::get("/v1/inbox", "poll")
        .says(
            Task::Receive,
            "Receive by long polling",
            "Answers at once when there is something, else after `wait` seconds with empty lists. Bring the last answer's cursor: under `auto` it acknowledges everything up to itself. An answer has at most about 1 MiB.",
        )
        .for_whom(Credential::Session)
        .query::<shapes::Polling>()
        .answers(200, "What is new.")
        .holding::<shapes::Batch>(JSON, vec![
            ("new", json!({ "notifications": [entry()], "events": [{ "type": "read", "ids": ["order-6-shipped"] }], "cursor": "AQAB", "gap": false })),
            ("nothing", json!({ "notifications": [], "events": [], "cursor": "AQAB", "gap": false })),
        ])
        .linking("Go on", "poll", "cursor", "$response.body#/cursor")
        .refuses(of_sessions())
}

/// `GET /v1/inbox/stream`
pub fn stream() -> Operation {
    Operation::get("/v1/inbox/stream", "stream")
        .says(
            Task::Receive,
            "Receive by server-sent events",
            "For `EventSource`. Coming back, `Last-Event-ID` goes before `cursor`. It ends when the token does.",
        )
        .for_whom(Credential::Session)
        .header::<shapes::CursorOrNone>("Last-Event-ID", "Where to go on. `EventSource` sends it by itself.")
        .query::<shapes::Receiving>()
        .answers(200, "Events, until either side ends it.")
        .holding::<shapes::StreamEvent>(
            "text/event-stream",
            vec![
                ("notification", json!({ "event": "notification", "data": entry().to_string() })),
                ("cursor", json!({ "id": "AQAB" })),
            ],
        )
        .refuses(of_sessions())
}

/// `GET /v1/inbox/ws`
pub fn websocket() -> Operation {
    Operation::get("/v1/inbox/ws", "websocket")
        .says(
            Task::Receive,
            "Receive by WebSocket",
            "Version 13 over HTTP/1.1; the subprotocol `postrider.v1` is chosen where it is offered. The server sends text frames of JSON: `hello`, `notification` (an `Entry` with a `type`), `cursor` after each batch, `read`, `withdrawn`, `state`, `gap`, `settled`, `error`. The client sends `{\"type\":\"ack\",\"ids\":[…]}` or `{\"type\":\"ack\",\"cursor\":\"…\"}`, the same with `read`, and `{\"type\":\"token\",\"token\":\"…\"}`. Close codes 4000 to 4499 say: come back after `retry_ms`; 4500 to 4999: do not.",
        )
        .for_whom(Credential::Session)
        .query::<shapes::Receiving>()
        .answers(101, "A WebSocket from here on.")
        .refuses(of_sessions())
        .refuses([Problem::upgrade_required()])
}

/// `POST /v1/inbox/ack`
pub fn ack() -> Operation {
    settling(Operation::post("/v1/inbox/ack", "ack")).says(
        Task::Settle,
        "Acknowledge as delivered",
        "By ids, or everything up to and including a cursor. Later sessions without a cursor do not get it.",
    )
}

/// `POST /v1/inbox/read`
pub fn read() -> Operation {
    settling(Operation::post("/v1/inbox/read", "read")).says(
        Task::Settle,
        "Mark as read",
        "The same, and the user's other devices are told, so that they dismiss it.",
    )
}

fn settling(operation: Operation) -> Operation {
    operation
        .for_whom(Credential::User)
        .takes::<shapes::Settling>(
            JSON,
            vec![
                ("ids", json!({ "ids": ["order-7-shipped"] })),
                ("cursor", json!({ "cursor": "AQAB" })),
            ],
        )
        .answers(200, "Settled, and on disk.")
        .holding::<shapes::Settled>(JSON, vec![("one", json!({ "settled": 1 }))])
        .refuses([
            Problem::invalid_request("Send {\"ids\":[…]} or {\"cursor\":\"…\"}, exactly one of them."),
            Problem {
                pointer: Some("/cursor".into()),
                ..Problem::invalid_cursor("The cursor is damaged.")
            },
            Problem::too_large("At most 5000 ids fit in one request.", Some("/ids".into())),
            Problem::unsupported_media_type(JSON),
        ])
}

/// `GET /v1/inbox/history`
pub fn past() -> Operation {
    let mut past = entry();
    past["state"] = json!("read");
    past["delivered_at"] = json!("2026-11-21T06:00:00.120Z");
    past["read_at"] = json!("2026-11-21T06:01:00.000Z");
    Operation::get("/v1/inbox/history", "history")
        .says(
            Task::Receive,
            "Page back through an inbox",
            "What is still held of the user's own feed and of what went to everyone, newest first, with states. A page may be shorter than `limit` and still have a cursor.",
        )
        .for_whom(Credential::User)
        .query::<history::Wanted>()
        .answers(200, "A page.")
        .holding::<shapes::Past>(JSON, vec![("page", json!({ "notifications": [past], "cursor": null }))])
        .linking("Further back", "history", "before", "$response.body#/cursor")
        .refuses([
            Problem::invalid_request("The parameter limit must be 1 to 1000."),
            Problem::invalid_cursor("The cursor is damaged."),
        ])
}

/// `POST /v1/tickets`
pub fn ticket() -> Operation {
    Operation::post("/v1/tickets", "issueTicket")
        .says(
            Task::Receive,
            "Get a ticket for a place where no header can be sent",
            "For `EventSource` and `WebSocket` in browsers. It is never logged.",
        )
        .for_whom(Credential::User)
        .answers(201, "A ticket.")
        .holding::<shapes::Ticket>(
            JSON,
            vec![("ticket", json!({ "ticket": "AbC…", "expires_in": 30 }))],
        )
        .refuses([Problem::too_large(
            "The token says too much to fit into a ticket.",
            None,
        )])
}
