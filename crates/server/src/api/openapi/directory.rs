//! Users and topics: who is known by name, and who is a member of what.

use super::operation::{Credential, Operation, Task};
use super::shapes;
use crate::api::{import, query, topics, users};
use crate::auth::Scope;
use postrider_transports::Problem;
use serde_json::{Value, json};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";
/// Where users are imported, and where the user of this name is.
const IMPORT: &str = "/v1/users/import";

fn user_example() -> Value {
    json!({
        "id": "ada", "email": "ada@example.org", "locale": "de-AT", "time_zone": "Europe/Vienna",
        "attributes": { "plan": "gold" }, "topics": [{ "topic": "orders" }],
        "created_at": "2026-11-21T06:00:00.000Z", "changed_at": "2026-11-21T06:00:00.000Z",
    })
}

fn wrong_user() -> Problem {
    Problem::invalid_request("The user: a user id is longer than 256 bytes.")
}

fn wrong_limit() -> Problem {
    Problem::invalid_request("The parameter limit must be 1 to 1000.")
}

pub(super) fn of_user(operation: Operation) -> Operation {
    operation
        .for_whom(Credential::Key(Scope::Manage))
        .path_parameter::<shapes::UserText>("id", "The user.", "ada")
        .refuses([wrong_user()])
}

/// `GET /v1/users`
pub fn users() -> Operation {
    Operation::get("/v1/users", "listUsers")
        .says(
            Task::Users,
            "List users",
            "All that the directory knows, by rising id. A page of large profiles ends at about 1 MiB, however many were asked for; `after` says whether others follow.",
        )
        .for_whom(Credential::Key(Scope::Manage))
        .query::<query::Page>()
        .answers(200, "A page of them.")
        .holding::<users::UsersShown>(
            JSON,
            vec![("page", json!({ "users": [user_example()], "after": null }))],
        )
        .linking("One of them", "showUser", "id", "$response.body#/users/0/id")
        .refuses([wrong_limit()])
}

/// `POST /v1/users/import`
pub fn import() -> Operation {
    let all = json!({ "lines": 2, "imported": 2, "created": 2, "changed": 0, "unchanged": 0, "rejected": 0, "bad_lines": [] });
    Operation::post(IMPORT, "importUsers")
        .says(
            Task::Users,
            "Import many users",
            "Lines of JSON, or CSV with a header. Each one replaces what was known of its user. They are written in their order, batch by batch; what was imported before a break stays, and importing the same again is safe. With `Accept: application/x-ndjson` the answer tells bad lines and progress while it goes on, and ends with a line that has `done`. The problem `bad_lines` has the members `lines`, `rejected` and `bad_lines` as well.",
        )
        .for_whom(Credential::Key(Scope::Manage))
        .query::<import::Wanted>()
        .takes::<shapes::UserLines>(
            NDJSON,
            vec![("lines", json!("{\"id\":\"ada\",\"email\":\"ada@example.org\",\"topics\":[\"orders\"]}\n{\"id\":\"bob\"}\n"))],
        )
        .takes::<shapes::UserTable>(
            CSV,
            vec![("table", json!("id,email,topics,attributes.plan\nada,ada@example.org,orders,gold\nbob,,,\n"))],
        )
        .body_may_be_missing()
        .answers(200, "It is done.")
        .holding::<import::Imported>(JSON, vec![("all", all)])
        .holding::<shapes::ImportLines>(
            NDJSON,
            vec![("lines", json!("{\"lines\":2,\"imported\":2,\"rejected\":0}\n{\"done\":true,\"lines\":2,\"imported\":2,\"created\":2,\"changed\":0,\"unchanged\":0,\"rejected\":0}\n"))],
        )
        .refuses([
            Problem::bad_lines("1 of 2 users cannot be imported, so none was. Mend them, or send bad_lines=skip."),
            Problem::invalid_request("The header has no column `id`."),
            Problem::too_large("The body is larger than 16777216 bytes. Send less, or bad_lines=skip, with which no body is too large.", None),
            Problem::unsupported_media_type("application/x-ndjson, text/csv"),
        ])
}

/// `GET /v1/users/import`
pub fn user_import() -> Operation {
    user().of_one(IMPORT, "showUserImport").says(
        Task::Users,
        "Show the user `import`",
        "As any user: the path is the import's too, which has another method.",
    )
}

/// `PUT /v1/users/import`
pub fn put_user_import() -> Operation {
    put_user().of_one(IMPORT, "putUserImport").says(
        Task::Users,
        "Write the user `import`",
        "As any user: the path is the import's too, which has another method.",
    )
}

/// `DELETE /v1/users/import`
pub fn delete_user_import() -> Operation {
    delete_user().of_one(IMPORT, "deleteUserImport").says(
        Task::Users,
        "Take the user `import` out of the directory, or erase all of the user",
        "As any user: the path is the import's too, which has another method.",
    )
}

/// `GET /v1/users/{id}`
pub fn user() -> Operation {
    of_user(Operation::get("/v1/users/{id}", "showUser"))
        .says(
            Task::Users,
            "Show a user",
            "What the directory knows, and the topics that the user is a member of.",
        )
        .answers(200, "The user.")
        .holding::<users::UserShown>(JSON, vec![("ada", user_example())])
        .refuses([Problem::not_found()])
}

/// `PUT /v1/users/{id}`
pub fn put_user() -> Operation {
    let written = json!({ "email": "ada@example.org", "locale": "de-AT", "topics": ["orders"] });
    of_user(Operation::put("/v1/users/{id}", "putUser"))
        .says(
            Task::Users,
            "Write a user",
            "What was known is replaced. Topics that are left out stay as they are.",
        )
        .takes::<users::UserBody>(JSON, vec![("ada", written), ("nothing known", json!({}))])
        .answers(200, "The user, who was known.")
        .holding::<users::UserShown>(JSON, vec![("ada", user_example())])
        .answers(201, "The user, who is new.")
        .holding::<users::UserShown>(JSON, vec![("ada", user_example())])
        .linking("Show the user", "showUser", "id", "$response.body#/id")
        .refuses([
            Problem::invalid_user("The field is not known.", Some("/e-mail".into())),
            Problem::not_found(),
            Problem::too_large("A user is a member of at most 98 topics.", Some("/topics".into())),
            Problem::unsupported_media_type(JSON),
        ])
}

/// `DELETE /v1/users/{id}`
pub fn delete_user() -> Operation {
    of_user(Operation::delete("/v1/users/{id}", "deleteUser"))
        .says(
            Task::Users,
            "Take a user out of the directory, or erase all of the user",
            "The user leaves all topics, and the inbox stays. With `?erase=true` all that is known is removed: feed, state, dead letters, and notifications that were for nobody else. That cannot be undone.",
        )
        .query::<users::Wanted>()
        .answers(200, "The user is gone.")
        .holding::<users::Gone>(
            JSON,
            vec![("removed", json!({ "removed": true })), ("erased", json!({ "erased": true }))],
        )
}

fn of_topic(operation: Operation) -> Operation {
    operation
        .for_whom(Credential::Key(Scope::Manage))
        .path_parameter::<shapes::TopicText>("topic", "The topic; `/` in it as `%2F`.", "orders")
        .refuses([Problem::invalid_request(
            "The topic: a topic may hold only A-Z a-z 0-9 . _ : / @ + ~ -.",
        )])
}

/// `GET /v1/topics/{topic}`
pub fn topic() -> Operation {
    of_topic(Operation::get("/v1/topics/{topic}", "showTopic"))
        .says(Task::Topics, "Show a topic, in numbers", "One that nobody uses is as good as any.")
        .answers(200, "The topic.")
        .holding::<topics::TopicShown>(
            JSON,
            vec![("orders", json!({ "topic": "orders", "members": 1_000_000, "presence": { "sessions": 12, "users": 10 } }))],
        )
}

/// `GET /v1/topics/{topic}/members`
pub fn members() -> Operation {
    of_topic(Operation::get("/v1/topics/{topic}/members", "listMembers"))
        .says(Task::Topics, "List members", "By rising id.")
        .query::<query::Page>()
        .answers(200, "A page of them.")
        .holding::<topics::MembersShown>(
            JSON,
            vec![(
                "page",
                json!({ "members": ["ada", "bob"], "count": 2, "after": null }),
            )],
        )
        .refuses([wrong_limit()])
}

/// `PUT /v1/topics/{topic}/members/{id}`
pub fn join() -> Operation {
    membership(Operation::put("/v1/topics/{topic}/members/{id}", "join"))
        .says(
            Task::Topics,
            "Make a user a member",
            "The user hears what is published from now on. One that the directory does not know is added.",
        )
        .refuses([Problem::too_large(
            "A user is a member of at most 98 topics.",
            None,
        )])
}

/// `DELETE /v1/topics/{topic}/members/{id}`
pub fn leave() -> Operation {
    membership(Operation::delete("/v1/topics/{topic}/members/{id}", "leave")).says(
        Task::Topics,
        "End a membership",
        "What was published while it lasted stays in the user's inbox.",
    )
}

fn membership(operation: Operation) -> Operation {
    of_topic(operation)
        .path_parameter::<shapes::UserText>("id", "The user.", "ada")
        .refuses([wrong_user(), Problem::not_found()])
        .answers(200, "It is so.")
        .holding::<topics::Changed>(JSON, vec![("changed", json!({ "changed": true }))])
}
