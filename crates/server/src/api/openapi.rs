//! The interface as an OpenAPI 3.1 document, and as a page: made from what stands at the routes and from the types that
//! are read and written.
//!
//! Invariant: the same build gives the same bytes, so that a copy can be kept and compared.

mod answers;
mod directory;
mod node;
mod operation;
mod page;
mod publish;
mod receive;
pub mod shapes;
mod state;

pub use directory::{
    delete_user, delete_user_import, import, join, leave, members, put_user, put_user_import, topic, user,
    user_import, users,
};
pub use node::{counted, document as describe, health, page as docs, ready};
pub use operation::Operation;
pub use publish::{
    cancel, delete_letter, letter, letters, publish, redrive_letter, redrive_letters, show, story,
};
pub use receive::{ack, past, poll, read, stream, ticket, websocket};

pub use state::{
    clear, increment, merge, own_state, presence_stream, state, topic_presence, user_instance, user_presence,
};

use answers::Shared;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use operation::{Content, Credential, Parameters, Task};
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

const ABOUT: &str = "Postrider delivers notifications to people over long polling, server-sent events and WebSockets, and accounts for every one. Back-ends publish with an API key; people receive with a user token. Every refusal is a problem document (RFC 9457) with a stable `code`; every answer says `Cache-Control: no-store` where it says nothing else. Clients ignore members that they do not know.";
/// How long a copy of the document may be kept: it changes with the server's version only.
const MAX_AGE: HeaderValue = HeaderValue::from_static("max-age=300");

static DOCUMENT: LazyLock<Value> = LazyLock::new(make);
static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", *DOCUMENT));
static PAGE: LazyLock<page::Page> = LazyLock::new(|| page::Page::of(&DOCUMENT));

/// The document, as text that ends with a line's end.
pub fn text() -> &'static str {
    &TEXT
}

/// Serves the document.
pub async fn serve_document() -> Response {
    (headers("application/json"), text()).into_response()
}

/// Serves the page.
pub async fn serve_page() -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, PAGE.policy.clone())];
    (headers("text/html; charset=utf-8"), policy, PAGE.html.as_str()).into_response()
}

/// Of both.
fn headers(media_type: &'static str) -> [(HeaderName, HeaderValue); 4] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CACHE_CONTROL, MAX_AGE),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ]
}

fn make() -> Value {
    let public = super::routes();
    let ops = crate::ops::routes();
    let mut writer = Writer::new();
    let mut paths = Map::new();
    for operation in public.operations() {
        writer.operation(operation, &mut paths);
    }
    for operation in ops.operations() {
        writer.operation(operation, &mut paths);
        // Not on the public listener.
        paths[operation.path()]["servers"] = json!([{ "url": "http://127.0.0.1:9090", "description": "The operations listener (`ops.listen`)" }]);
    }
    let tags: Vec<Value> = Task::ALL
        .into_iter()
        .map(|task| json!({ "name": task.name(), "description": task.about() }))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Postrider",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "The public listener (`http.listen`)" }],
        "tags": tags,
        "paths": paths,
        "components": writer.components(),
    })
}

/// Writes operations, and gathers what they share.
struct Writer {
    /// Of what is read.
    reading: SchemaGenerator,
    /// Of what is written: there a member is required where it is always there.
    writing: SchemaGenerator,
    shared: Shared,
}

impl Writer {
    fn new() -> Writer {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
            // Rust's names of integers, which no other language knows.
            settings
                .transforms
                .push(Box::new(RecursiveTransform(|schema: &mut Schema| {
                    let is_rusts =
                        |format: &Value| format.as_str().is_some_and(|name| name.starts_with("uint"));
                    if schema.get("format").is_some_and(is_rusts) {
                        schema.remove("format");
                    }
                })));
        });
        let mut writing = settings.clone().for_serialize().into_generator();
        // Named by every refusal.
        writing.subschema_for::<shapes::ProblemBody>();
        Writer {
            reading: settings.into_generator(),
            writing,
            shared: Shared::new(),
        }
    }

    fn operation(&mut self, operation: &Operation, paths: &mut Map<String, Value>) {
        let mut problems = operation.problems.clone();
        problems.extend(answers::of_credential(operation.credential));
        if operation.task != Task::Operate {
            problems.extend(answers::of_every_request());
        }
        let mut answers = answers::answers(&problems, &mut self.shared);
        if operation.task != Task::Operate {
            // By the library that reads HTTP, without a body.
            answers.insert(
                "414".into(),
                json!({ "description": "The target has more than 64 KiB." }),
            );
        }
        for answer in &operation.answers {
            answers.insert(answer.status.to_string(), self.answer(answer));
        }
        let mut written = json!({
            "operationId": operation.id,
            "tags": [operation.task.name()],
            "summary": operation.summary,
            "description": operation.about,
            "security": security(operation.credential),
            "responses": answers,
        });
        let parameters: Vec<Value> = operation
            .parameters
            .iter()
            .flat_map(|parameter| self.parameters(parameter))
            .collect();
        if !parameters.is_empty() {
            written["parameters"] = Value::Array(parameters);
        }
        if !operation.body.is_empty() {
            let content = content(&operation.body, &mut self.reading);
            written["requestBody"] = json!({ "required": !operation.body_is_optional, "content": content });
        }
        let path = paths.entry(operation.path()).or_insert_with(|| json!({}));
        path[operation.method()] = written;
    }

    fn answer(&mut self, answer: &operation::Answer) -> Value {
        let mut written = json!({ "description": answer.says });
        if !answer.content.is_empty() {
            written["content"] = content(&answer.content, &mut self.writing);
        }
        let links: Map<String, Value> = answer
            .links
            .iter()
            .map(|(name, operation, parameter, place)| {
                let link = json!({ "operationId": operation, "parameters": { *parameter: place }, "description": name });
                (format!("{operation}.{parameter}"), link)
            })
            .collect();
        if !links.is_empty() {
            written["links"] = Value::Object(links);
        }
        written
    }

    fn parameters(&mut self, parameter: &Parameters) -> Vec<Value> {
        match parameter {
            Parameters::Path(name, about, schema, example) => vec![json!({
                "name": name, "in": "path", "required": true, "description": about,
                "schema": schema(&mut self.reading), "example": example,
            })],
            Parameters::Header(name, about, schema) => vec![json!({
                "name": name, "in": "header", "required": false, "description": about,
                "schema": schema(&mut self.reading),
            })],
            Parameters::Query(schema) => {
                let schema = schema(&mut self.reading);
                self.query(schema)
            }
        }
    }

    /// One parameter for each field of the type.
    fn query(&mut self, schema: Schema) -> Vec<Value> {
        let mut fields = schema.to_value();
        if let Some(name) = fields["$ref"]
            .as_str()
            .and_then(|path| path.rsplit('/').next())
            .map(str::to_owned)
        {
            // A list of parameters is no component.
            fields = self
                .reading
                .definitions_mut()
                .remove(&name)
                .unwrap_or(Value::Null);
        }
        let required: Vec<Value> = fields["required"].as_array().cloned().unwrap_or_default();
        let Some(Value::Object(properties)) = fields.get_mut("properties").map(Value::take) else {
            return Vec::new();
        };
        let parameters = properties.into_iter().map(|(name, mut schema)| {
            let about = schema
                .as_object_mut()
                .and_then(|schema| schema.remove("description"));
            // Nor is one that is not there null.
            shapes::not_null(&mut schema);
            let needed = required.iter().any(|required| *required == json!(name));
            let mut parameter = json!({ "name": name, "in": "query", "required": needed, "schema": schema });
            if let Some(about) = about {
                parameter["description"] = about;
            }
            parameter
        });
        parameters.collect()
    }

    fn components(mut self) -> Value {
        let mut schemas = self.reading.take_definitions(true);
        for (name, mut schema) in self.writing.take_definitions(true) {
            if let Ok(schema) = <&mut Schema>::try_from(&mut schema) {
                shapes::never_null(schema);
            }
            let other = schemas.insert(name.clone(), schema.clone());
            // What is read and written under one name has one shape.
            debug_assert!(other.is_none_or(|other| other == schema), "{name} has two shapes");
        }
        json!({
            "schemas": schemas,
            "responses": self.shared,
            "securitySchemes": {
                "api_key": {
                    "type": "http", "scheme": "bearer",
                    "description": "A key of `auth.api_keys`. Each operation names the scope that the key needs.",
                },
                "user_token": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "A JSON Web Token whose `sub` (`auth.jwt.user_claim`) is the user.",
                },
                "cookie": {
                    "type": "apiKey", "in": "cookie", "name": "token",
                    "description": "The same token in the cookie that `auth.cookie` names, from this site or an allowed origin.",
                },
                "ticket": {
                    "type": "apiKey", "in": "query", "name": "ticket",
                    "description": "From `POST /v1/tickets`, for places where no header can be sent.",
                },
            },
        })
    }
}

fn content(contents: &[Content], generator: &mut SchemaGenerator) -> Value {
    let written = contents.iter().map(|content| {
        let mut body = json!({ "schema": (content.schema)(generator) });
        if !content.examples.is_empty() {
            let examples = content.examples.iter();
            let examples: Map<String, Value> = examples
                .map(|(name, value)| ((*name).to_owned(), json!({ "value": value })))
                .collect();
            body["examples"] = Value::Object(examples);
        }
        (content.media_type.to_owned(), body)
    });
    Value::Object(written.collect())
}

fn security(credential: Credential) -> Value {
    match credential {
        Credential::Nothing => json!([]),
        Credential::Key(scope) => json!([{ "api_key": [scope.as_str()] }]),
        Credential::EitherKey(scopes) => scopes.map(|scope| json!({ "api_key": [scope.as_str()] })).into(),
        Credential::AnyKey => json!([{ "api_key": [] }]),
        Credential::User => json!([{ "user_token": [] }, { "cookie": [] }]),
        Credential::Session => json!([{ "user_token": [] }, { "cookie": [] }, { "ticket": [] }]),
    }
}

#[cfg(test)]
mod tests;
