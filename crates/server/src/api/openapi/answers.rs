//! Problems as answers of the document: those of one status are one answer, and equal ones are written once.

use super::operation::Credential;
use postrider_transports::{Problem, problem};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Answers that several operations have, by name.
pub type Shared = BTreeMap<String, Value>;

/// What any request may be answered, whatever it asks for.
pub fn of_every_request() -> [Problem; 5] {
    [
        Problem::head_timeout(),
        Problem::rate_limited(3),
        Problem::head_too_large(),
        Problem::internal(),
        Problem::unavailable(1),
    ]
}

/// What a wrong credential is answered.
pub fn of_credential(credential: Credential) -> Vec<Problem> {
    let key = [Problem::key_missing(), Problem::key_invalid()];
    let token = [
        Problem::token_missing(),
        Problem::token_malformed(),
        Problem::token_signature(),
        Problem::token_expired(),
        Problem::token_claims(),
        Problem::origin(),
    ];
    match credential {
        Credential::Nothing => Vec::new(),
        Credential::AnyKey => key.to_vec(),
        Credential::EitherKey([scope, _]) | Credential::Key(scope) => {
            [&key[..], &[Problem::scope(scope.as_str())]].concat()
        }
        Credential::User | Credential::Session => token.to_vec(),
    }
}

/// One answer for each status, as references to the shared ones.
pub fn answers(problems: &[Problem], shared: &mut Shared) -> Map<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<&Problem>> = BTreeMap::new();
    for problem in problems {
        let of_status = by_status.entry(problem.status).or_default();
        // What an operation says itself comes before what is said of all.
        if !of_status.contains(&problem) {
            of_status.push(problem);
        }
    }
    by_status
        .into_iter()
        .map(|(status, problems)| {
            let answer = answer(&problems);
            let name = shared_name(status, &answer, shared);
            let reference = json!({ "$ref": format!("#/components/responses/{name}") });
            shared.insert(name, answer);
            (status.to_string(), reference)
        })
        .collect()
}

/// The codes, and a number where the same codes have other words elsewhere.
fn shared_name(status: u16, answer: &Value, shared: &Shared) -> String {
    let codes = answer["content"][problem::CONTENT_TYPE]["schema"]["allOf"][1]["properties"]["code"]["enum"]
        .as_array()
        .map(|codes| {
            codes
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(".")
        });
    let codes = format!("{status}.{}", codes.unwrap_or_default());
    let free = |name: &String| shared.get(name).is_none_or(|other| other == answer);
    let numbered = (2u32..).map(|n| format!("{codes}-{n}"));
    std::iter::once(codes.clone())
        .chain(numbered)
        .find(free)
        .unwrap_or(codes)
}

fn answer(problems: &[&Problem]) -> Value {
    let mut codes: Vec<&str> = Vec::new();
    let mut says: Vec<String> = Vec::new();
    let mut examples = Map::new();
    for problem in problems {
        if !codes.contains(&problem.code) {
            codes.push(problem.code);
        }
        says.push(format!("`{}`: {}", problem.code, problem.detail));
        let same = examples
            .keys()
            .filter(|name| name.starts_with(problem.code))
            .count();
        let name = match same {
            0 => problem.code.to_owned(),
            n => format!("{}_{}", problem.code, n + 1),
        };
        let body = serde_json::from_slice(&problem.json()).unwrap_or(Value::Null);
        examples.insert(name, json!({ "value": body }));
    }
    let mut answer = json!({
        "description": says.join("\n\n"),
        "content": { problem::CONTENT_TYPE: {
            "schema": { "allOf": [
                { "$ref": "#/components/schemas/Problem" },
                { "properties": { "code": { "enum": codes } } },
            ] },
            "examples": examples,
        } },
    });
    let mut headers = Map::new();
    for (name, value) in problems.iter().flat_map(|problem| problem.headers()) {
        headers.insert(name.to_owned(), header(name, &value));
    }
    if !headers.is_empty() {
        answer["headers"] = Value::Object(headers);
    }
    answer
}

fn header(name: &str, example: &str) -> Value {
    let (says, schema) = match name {
        "Retry-After" => (
            "After how many seconds it is worth trying again.",
            json!({ "type": "integer", "minimum": 0 }),
        ),
        "WWW-Authenticate" => ("How to authenticate.", json!({ "type": "string" })),
        _ => ("What the resource speaks.", json!({ "type": "string" })),
    };
    let example = example
        .parse::<u32>()
        .map_or(json!(example), |number| json!(number));
    json!({ "description": says, "schema": schema, "example": example })
}
