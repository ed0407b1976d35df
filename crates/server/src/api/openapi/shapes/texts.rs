//! Texts with an alphabet, and streams of them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

macro_rules! text {
    ($($(#[$doc:meta])* $name:ident as $shown:literal = $schema:tt;)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $shown.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

text! {
    /// Who receives.
    UserText as "UserId" = {
        "description": "1 to 256 bytes of UTF-8 without control characters.",
        "type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
        "examples": ["ada"],
    };
    /// Who comes next, or nobody.
    UserOrNone as "UserIdOrNull" = {
        "description": "A `UserId`; null at the end.",
        "type": ["string", "null"], "minLength": 1, "maxLength": 256,
    };
    /// What can be subscribed to.
    TopicText as "Topic" = {
        "type": "string", "pattern": "^[A-Za-z0-9._:/@+~-]{1,128}$", "examples": ["orders"],
    };
    /// A notification's name.
    NotificationText as "NotificationId" = {
        "type": "string", "pattern": "^[A-Za-z0-9._:~+@-]{1,128}$", "examples": ["order-7-shipped"],
    };
    /// A dead letter's own id.
    LetterText as "DeadLetterId" = {
        "type": "string", "pattern": "^dl-[0-9a-f]{16}$", "examples": ["dl-0000000000000001"],
    };
    /// A place in an inbox.
    CursorText as "Cursor" = {
        "description": "An opaque place in one user's inbox, the same on every transport. Keep the newest that came.",
        "type": "string", "pattern": "^[A-Za-z0-9_-]+$",
    };
    /// A place, or none.
    CursorOrNone as "CursorOrNone" = {
        "description": "A `Cursor`; empty means none.",
        "type": "string", "pattern": "^[A-Za-z0-9_-]*$",
    };
    /// Several topics in one parameter.
    TopicList as "TopicList" = {
        "description": "Topics, separated by commas.",
        "type": "string", "pattern": "^([A-Za-z0-9._:/@+~-]{1,128}(,[A-Za-z0-9._:/@+~-]{1,128}){0,97})?$",
        "examples": ["orders,weather/vienna"],
    };
    /// A moment.
    Time as "Time" = {
        "description": "RFC 3339. Answers have UTC and milliseconds.",
        "type": "string", "format": "date-time", "examples": ["2026-11-21T06:00:00.000Z"],
    };
    /// How long.
    Span as "Ttl" = {
        "description": "A number of seconds, or a duration such as `90s`, `24h`, `30d`.",
        "oneOf": [
            { "type": "number", "minimum": 0.001, "maximum": 8.9e12 },
            { "type": "string", "pattern": "^[1-9][0-9]{0,4}(ms|s|m|h|d)$" },
        ],
        "examples": ["24h"],
    };
    /// What the publisher wrote.
    Data as "Data" = {
        "description": "Any JSON, at most `limits.data` (256KiB). It reaches the client as it was written.",
        "examples": [{ "order": 7 }],
    };
    /// Why a request was refused.
    ProblemBody as "Problem" = {
        "description": "Why a request was refused (RFC 9457). Programs compare `code`.",
        "type": "object",
        "properties": {
            "type": { "type": "string", "pattern": "^urn:postrider:problem:[a-z_]+$" },
            "title": { "type": "string", "description": "The same for every problem of this code." },
            "status": { "type": "integer", "minimum": 400, "maximum": 599, "description": "The HTTP status." },
            "code": { "type": "string", "pattern": "^[a-z_]+$", "description": "The stable name." },
            "detail": { "type": "string", "description": "What is wrong and what to do, in a full sentence." },
            "pointer": { "type": "string", "description": "The offending place of the request's JSON (RFC 6901)." },
        },
        "required": ["type", "title", "status", "code", "detail"],
    };
    /// One event of a live stream.
    StreamEvent as "StreamEvent" = {
        "description": "One server-sent event of the stream. After each batch comes a block with only an `id`, the cursor; comments keep the connection open.",
        "type": "object",
        "properties": {
            "event": {
                "description": "`notification`: `data` is an `Entry`. `read` and `withdrawn`: as an `Event` of that type. `state`: the user's state. `gap`: `{\"oldest\":…}`, something is no longer kept. `delivery_stalled`: `{\"ids\":[…]}`, sent as often as may be. `transient_dropped`: transient notifications found no room.",
                "enum": ["notification", "read", "withdrawn", "state", "gap", "delivery_stalled", "transient_dropped"],
            },
            "data": { "type": "string", "contentMediaType": "application/json", "description": "JSON on one line." },
            "id": { "type": "string", "description": "The cursor." },
            "retry": { "type": "integer", "minimum": 0, "description": "After how many milliseconds to come back." },
        },
    };
    /// Lines of JSON, to be published.
    NotificationLines as "NotificationLines" = {
        "description": "One `Notification` on each line. A request may last for hours: lines are published while they come.",
        "type": "string",
    };
    /// Users, as lines of JSON.
    UserLines as "UserLines" = {
        "description": "On each line what `PUT /v1/users/{id}` takes, and the user's `id`.",
        "type": "string",
    };
    /// Users, as a table.
    UserTable as "UserTable" = {
        "description": "CSV (RFC 4180) with a header of `id`, `email`, `mobile`, `locale`, `time_zone`, `topics` and `attributes.NAME`, in any order. An empty cell is a field that is not there.",
        "type": "string",
    };
    /// How an import goes on.
    ImportLines as "ImportLines" = {
        "description": "A line for each bad line, a line of counts after each batch, and last one with `done`.",
        "type": "string",
    };
    /// A change of a state map.
    StateMerge as "StateMerge" = {
        "description": "A text sets, null removes (RFC 7396). Keys and values have at most 16 KiB together.",
        "type": "object", "maxProperties": 256,
        "propertyNames": { "minLength": 1, "maxLength": 128, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$" },
        "additionalProperties": { "type": ["string", "null"] },
    };
    /// What is added to a state map.
    StateIncrement as "StateIncrement" = {
        "description": "By key what is added: an integer of 64 bits.",
        "type": "object", "maxProperties": 256,
        "propertyNames": { "minLength": 1, "maxLength": 128, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$" },
        "additionalProperties": { "type": "integer", "minimum": -9_223_372_036_854_775_808_i64, "maximum": 9_223_372_036_854_775_807_i64 },
    };
    /// One event of a presence stream.
    PresenceEvent as "PresenceEvent" = {
        "description": "One server-sent event of the stream.",
        "type": "object",
        "properties": {
            "event": {
                "description": "`snapshot`: `{\"users\":[…],\"last\":…}`, a part of those who are there. `join` and `leave`: `{\"user\":…,\"time\":…}`. `lagged`: something was missed, and a snapshot follows.",
                "enum": ["snapshot", "join", "leave", "lagged"],
            },
            "data": { "type": "string", "contentMediaType": "application/json", "description": "JSON on one line." },
            "retry": { "type": "integer", "minimum": 0, "description": "After how many milliseconds to come back." },
        },
    };
    /// Lines of JSON, about what was published.
    OutcomeLines as "OutcomeLines" = {
        "description": "One line for each that came, in order, as it is durable: `{\"id\":\"…\",\"accepted\":true}` or `{\"accepted\":false,\"index\":3,\"code\":\"…\",\"detail\":\"…\",\"pointer\":\"…\"}`.",
        "type": "string",
    };
    /// Plain text.
    Text as "Text" = { "type": "string" };
    /// Any object.
    Object as "Object" = { "type": "object" };
}
