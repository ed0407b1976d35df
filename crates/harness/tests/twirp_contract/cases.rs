//! What is asked, in order, by each way with names of its own: `~` stands for the way.

use serde_json::Value;

pub struct Case {
    pub name: &'static str,
    /// `key`, `publish` or `read` for the key of this scope (`key` has all), nothing, or a user.
    pub who: &'static str,
    pub method: &'static str,
    pub request: &'static str,
    pub idempotency: Option<&'static str>,
    pub expected: Expected,
}

#[derive(Debug, Clone, Copy)]
pub enum Expected {
    Done,
    Refused(&'static str),
}

use Expected::{Done, Refused};

const fn case(
    name: &'static str,
    who: &'static str,
    method: &'static str,
    request: &'static str,
    expected: Expected,
) -> Case {
    Case {
        name,
        who,
        method,
        request,
        idempotency: None,
        expected,
    }
}

const fn under(key: &'static str, case: Case) -> Case {
    Case {
        idempotency: Some(key),
        ..case
    }
}

const ONE: &str = r#"{"id":"n~","users":{"ids":["ada~","bob~"]},"exclude_users":["bob~"],"subject":"s","data":{"a":[1]},"ttl":"86400s"}"#;
const TWO: &str =
    r#"{"notifications":[{"users":{"ids":["ada~"]},"data":1},{"users":{"ids":["ada~"]},"data":2}]}"#;

pub const CASES: &[Case] = &[
    case("one", "key", "Publish", ONE, Done),
    case("the same again", "key", "Publish", ONE, Done),
    case(
        "other content",
        "key",
        "Publish",
        r#"{"id":"n~","users":{"ids":["ada~"]},"data":2}"#,
        Refused("id_conflict"),
    ),
    case(
        "nobody",
        "key",
        "Publish",
        r#"{"users":{"ids":[]},"data":1}"#,
        Refused("empty_audience"),
    ),
    case(
        "no topic",
        "key",
        "Publish",
        r#"{"topics":{"names":[]},"data":1}"#,
        Refused("empty_audience"),
    ),
    case(
        "no data",
        "key",
        "Publish",
        r#"{"users":{"ids":["ada~"]}}"#,
        Refused("invalid_notification"),
    ),
    case(
        "null",
        "key",
        "Publish",
        r#"{"id":"null~","users":{"ids":["ada~"]},"data":null}"#,
        Done,
    ),
    case(
        "a wrong user",
        "key",
        "Publish",
        r#"{"users":{"ids":["ada~",""]},"data":1}"#,
        Refused("invalid_notification"),
    ),
    case(
        "a wrong topic",
        "key",
        "Publish",
        r#"{"topics":{"names":["a b"]},"data":1}"#,
        Refused("invalid_notification"),
    ),
    case(
        "a wrong exclusion",
        "key",
        "Publish",
        r#"{"users":{"ids":["ada~"]},"exclude_users":[""],"data":1}"#,
        Refused("invalid_notification"),
    ),
    case(
        "too many users",
        "key",
        "Publish",
        r#"{"users":{"ids":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17","18","19","20","21"]},"data":1}"#,
        Refused("too_large"),
    ),
    case(
        "too deep",
        "key",
        "Publish",
        r#"{"users":{"ids":["ada~"]},"data":[[[[[[[[]]]]]]]]}"#,
        Refused("invalid_notification"),
    ),
    case(
        "deep enough",
        "key",
        "Publish",
        r#"{"id":"deep~","users":{"ids":["ada~"]},"data":[[[[[[[]]]]]]]}"#,
        Done,
    ),
    case(
        "a wrong id",
        "key",
        "Publish",
        r#"{"id":"a b","users":{"ids":["ada~"]},"data":1}"#,
        Refused("invalid_notification"),
    ),
    case(
        "no time to live",
        "key",
        "Publish",
        r#"{"users":{"ids":["ada~"]},"data":1,"ttl":"0s"}"#,
        Refused("invalid_notification"),
    ),
    case(
        "no such policy",
        "key",
        "Publish",
        r#"{"users":{"ids":["ada~"]},"data":1,"policy":"loud"}"#,
        Refused("invalid_notification"),
    ),
    case(
        "an empty collapse key",
        "key",
        "Publish",
        r#"{"users":{"ids":["ada~"]},"data":1,"collapse_key":""}"#,
        Refused("invalid_notification"),
    ),
    case(
        "later and transient",
        "key",
        "Publish",
        r#"{"users":{"ids":["ada~"]},"data":1,"durability":"DURABILITY_TRANSIENT","deliver_at":"2099-01-01T00:00:00Z"}"#,
        Refused("invalid_notification"),
    ),
    case(
        "the first device of a topic",
        "key",
        "Publish",
        r#"{"topics":{"names":["t"]},"data":1,"devices":"DEVICES_FIRST"}"#,
        Refused("invalid_notification"),
    ),
    case(
        "later",
        "key",
        "Publish",
        r#"{"id":"later~","users":{"ids":["ada~"]},"data":1,"deliver_at":"2099-01-01T00:00:00Z"}"#,
        Done,
    ),
    case(
        "transient",
        "key",
        "Publish",
        r#"{"id":"gone~","users":{"ids":["ada~"]},"data":1,"durability":"DURABILITY_TRANSIENT"}"#,
        Done,
    ),
    case(
        "to everyone",
        "key",
        "Publish",
        r#"{"id":"all~","everyone":{},"data":1}"#,
        Done,
    ),
    case(
        "everyone without the scope",
        "publish",
        "Publish",
        r#"{"everyone":{},"data":1}"#,
        Refused("scope"),
    ),
    case("without the scope", "read", "Publish", ONE, Refused("scope")),
    case("without a key", "", "Publish", ONE, Refused("key_missing")),
    case(
        "with a user's token",
        "ada~",
        "Publish",
        ONE,
        Refused("key_invalid"),
    ),
    case(
        "good and bad ones",
        "key",
        "PublishBatch",
        r#"{"notifications":[{"id":"b1~","users":{"ids":["ada~"]},"data":1},{"users":{"ids":["ada~"]}},{"users":{"ids":["",""]},"data":1},{"id":"n~","users":{"ids":["ada~"]},"data":9},{"id":"b2~","topics":{"names":["t~"]},"data":1}]}"#,
        Done,
    ),
    case("none", "key", "PublishBatch", r#"{"notifications":[]}"#, Done),
    case(
        "too many",
        "key",
        "PublishBatch",
        r#"{"notifications":[{},{},{},{},{},{}]}"#,
        Refused("too_large"),
    ),
    case("without the scope", "read", "PublishBatch", TWO, Refused("scope")),
    under("k~", case("a key", "key", "PublishBatch", TWO, Done)),
    under("k~", case("the same key", "key", "PublishBatch", TWO, Done)),
    under(
        "k~",
        case(
            "the key of another",
            "key",
            "PublishBatch",
            r#"{"notifications":[{"users":{"ids":["ada~"]},"data":1}]}"#,
            Refused("id_conflict"),
        ),
    ),
    under(
        "",
        case("no key", "key", "PublishBatch", TWO, Refused("invalid_request")),
    ),
    case("what became of it", "read", "Get", r#"{"id":"n~"}"#, Done),
    case("of that to everyone", "key", "Get", r#"{"id":"all~"}"#, Done),
    case("of none", "key", "Get", r#"{"id":"none~"}"#, Refused("not_found")),
    case(
        "of what cannot be",
        "key",
        "Get",
        r#"{"id":"a b"}"#,
        Refused("not_found"),
    ),
    case(
        "without the scope",
        "publish",
        "Get",
        r#"{"id":"n~"}"#,
        Refused("scope"),
    ),
    case("got it", "ada~", "Ack", r#"{"ids":{"ids":["n~","none~"]}}"#, Done),
    case("got it again", "ada~", "Ack", r#"{"ids":{"ids":["n~"]}}"#, Done),
    case("acknowledged", "key", "Get", r#"{"id":"n~"}"#, Done),
    case(
        "a wrong id",
        "ada~",
        "Ack",
        r#"{"ids":{"ids":["n~","a b"]}}"#,
        Refused("invalid_request"),
    ),
    case(
        "a wrong cursor",
        "ada~",
        "Ack",
        r#"{"cursor":"x"}"#,
        Refused("invalid_cursor"),
    ),
    case("neither", "ada~", "Ack", "{}", Refused("invalid_request")),
    case(
        "with a key",
        "key",
        "Ack",
        r#"{"ids":{"ids":["n~"]}}"#,
        Refused("token_malformed"),
    ),
    case(
        "with nothing",
        "",
        "Ack",
        r#"{"ids":{"ids":["n~"]}}"#,
        Refused("token_missing"),
    ),
    case("read it", "ada~", "Read", r#"{"ids":{"ids":["n~"]}}"#, Done),
    case(
        "a wrong cursor",
        "ada~",
        "Read",
        r#"{"cursor":"x"}"#,
        Refused("invalid_cursor"),
    ),
    case("was read", "key", "Get", r#"{"id":"n~"}"#, Done),
    case(
        "of another key",
        "publish",
        "Cancel",
        r#"{"id":"later~"}"#,
        Refused("scope"),
    ),
    case("taken back", "key", "Cancel", r#"{"id":"later~"}"#, Done),
    case("taken back again", "key", "Cancel", r#"{"id":"later~"}"#, Done),
    case("from everyone", "key", "Cancel", r#"{"id":"all~"}"#, Done),
    case("none", "key", "Cancel", r#"{"id":"none~"}"#, Refused("not_found")),
    case("no state", "key", "GetState", r#"{"user":"ada~"}"#, Done),
    case(
        "set",
        "key",
        "PatchState",
        r#"{"user":"ada~","set":{"a":"1","b":"ü"}}"#,
        Done,
    ),
    case(
        "set and removed",
        "key",
        "PatchState",
        r#"{"user":"ada~","set":{"b":"2"},"remove":["a","none"]}"#,
        Done,
    ),
    case("nothing", "key", "PatchState", r#"{"user":"ada~"}"#, Done),
    case("the state", "key", "GetState", r#"{"user":"ada~"}"#, Done),
    case(
        "an empty key",
        "key",
        "PatchState",
        r#"{"user":"ada~","set":{"":"1"}}"#,
        Refused("invalid_request"),
    ),
    case(
        "removed an empty key",
        "key",
        "PatchState",
        r#"{"user":"ada~","remove":["b",""]}"#,
        Done,
    ),
    case(
        "a wrong user",
        "key",
        "PatchState",
        r#"{"user":"a\u0001","set":{"a":"1"}}"#,
        Refused("invalid_request"),
    ),
    case(
        "without the scope",
        "read",
        "PatchState",
        r#"{"user":"ada~","set":{"a":"1"}}"#,
        Refused("scope"),
    ),
    case(
        "without the scope",
        "read",
        "GetState",
        r#"{"user":"ada~"}"#,
        Refused("scope"),
    ),
    case("away", "read", "Presence", r#"{"user":"ada~"}"#, Done),
    case(
        "without the scope",
        "publish",
        "Presence",
        r#"{"user":"ada~"}"#,
        Refused("scope"),
    ),
];

/// Without what is another each time: the ids of those who give none, versions but the first.
pub fn plain(value: &Value) -> Value {
    let mut value = value.clone();
    for item in value
        .get_mut("accepted")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if item["id"].as_str().is_some_and(|id| !id.contains('~')) {
            item["id"] = Value::Null;
        }
    }
    if value
        .get("version")
        .and_then(Value::as_str)
        .is_some_and(|version| version != "0")
    {
        value["version"] = "some".into();
    }
    value
}
