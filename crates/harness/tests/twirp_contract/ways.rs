//! The same call by three ways: the HTTP API, Twirp with JSON, Twirp with protobuf.
//!
//! Calls are written as Twirp's JSON. For the HTTP API they are put into its form here; for protobuf they go through an
//! implementation of protobuf, and of its JSON, that shares no code with the server's.

use anyhow::{Context as _, Result, bail, ensure};
use postrider_harness::http::{Answer, Request, escape, once};
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;

const SERVICE: &str = "postrider.v1.NotificationService";

/// How a call goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    Rest,
    Json,
    Protobuf,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::Rest, Way::Json, Way::Protobuf];

    pub fn name(self) -> &'static str {
        match self {
            Way::Rest => "rest",
            Way::Json => "json",
            Way::Protobuf => "proto",
        }
    }
}

/// What a caller is told, in the same words whichever way it went.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Done(Value),
    Refused { code: String, pointer: Option<String> },
}

/// A node's service, by all ways.
pub struct Service {
    addr: SocketAddr,
    pool: DescriptorPool,
}

impl Service {
    pub fn new(addr: SocketAddr) -> Result<Service> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
        let files = protox::compile(["postrider/v1/notifications.proto"], [folder])?;
        let pool = DescriptorPool::from_file_descriptor_set(files)?;
        Ok(Service { addr, pool })
    }

    /// The methods that the `.proto` has.
    pub fn methods(&self) -> Vec<String> {
        let service = self.pool.get_service_by_name(SERVICE).into_iter();
        service
            .flat_map(|service| {
                service
                    .methods()
                    .map(|method| method.name().to_owned())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    pub fn call(&self, way: Way, headers: &[(&str, &str)], method: &str, request: &Value) -> Result<Told> {
        let told = match way {
            Way::Rest => self.rest(headers, method, request),
            Way::Json => self.json(headers, method, request),
            Way::Protobuf => self.protobuf(headers, method, request),
        };
        told.with_context(|| format!("{method} by {way:?}: {request}"))
    }

    /// A body as it is, with this type.
    pub fn raw(
        &self,
        method: &str,
        headers: &[(&str, &str)],
        media_type: &str,
        body: Vec<u8>,
    ) -> Result<Answer> {
        let path = format!("/twirp/{SERVICE}/{method}");
        let request = Request::new("POST", &path).body(media_type, body);
        once(self.addr, &with(request, headers))
    }

    fn json(&self, headers: &[(&str, &str)], method: &str, request: &Value) -> Result<Told> {
        let answer = self.raw(method, headers, "application/json", request.to_string().into())?;
        if answer.status() != 200 {
            return refused(&answer);
        }
        let told = answer.json()?;
        // What the server writes is what another implementation reads, and it holds all that that would write.
        let (_, output) = self.types(method)?;
        let read = DynamicMessage::deserialize_with_options(output, &told, &DeserializeOptions::new())?;
        ensure!(
            read_back(&read)? == without_nulls(&told),
            "{told} is read as {read:?}"
        );
        Ok(Told::Done(without_nulls(&told)))
    }

    fn protobuf(&self, headers: &[(&str, &str)], method: &str, request: &Value) -> Result<Told> {
        let (input, output) = self.types(method)?;
        let request = DynamicMessage::deserialize(input, as_text(request.clone()))?;
        let answer = self.raw(method, headers, "application/protobuf", request.encode_to_vec())?;
        if answer.status() != 200 {
            return refused(&answer);
        }
        ensure!(
            answer.head.header("content-type") == Some("application/protobuf"),
            "of another type"
        );
        Ok(Told::Done(read_back(&DynamicMessage::decode(
            output,
            &answer.body[..],
        )?)?))
    }

    fn types(&self, method: &str) -> Result<(MessageDescriptor, MessageDescriptor)> {
        let service = self.pool.get_service_by_name(SERVICE).context("no service")?;
        let method = service
            .methods()
            .find(|one| one.name() == method)
            .context("no method")?;
        Ok((method.input(), method.output()))
    }

    fn rest(&self, headers: &[(&str, &str)], method: &str, request: &Value) -> Result<Told> {
        let text = |name: &str| escape(request[name].as_str().unwrap_or_default());
        let post =
            |path: &str, body: Value| Request::new("POST", path).body("application/json", body.to_string());
        let said = match request.get("ids") {
            Some(ids) => json!({ "ids": ids["ids"] }),
            None => request.clone(),
        };
        let of_user = format!("/v1/users/{}", text("user"));
        let call = match method {
            "Publish" => post("/v1/notifications", notification(request)),
            "PublishBatch" => {
                let items = request["notifications"].as_array().context("no list")?;
                post("/v1/notifications", items.iter().map(notification).collect())
            }
            "Get" => Request::new("GET", &format!("/v1/notifications/{}", text("id"))),
            "Cancel" => Request::new("DELETE", &format!("/v1/notifications/{}", text("id"))),
            "Ack" => post("/v1/inbox/ack", said),
            "Read" => post("/v1/inbox/read", said),
            "GetState" => Request::new("GET", &format!("{of_user}/state")),
            "PatchState" => {
                let mut change = request["set"].as_object().cloned().unwrap_or_default();
                let removed = request["remove"].as_array().into_iter().flatten();
                change.extend(removed.filter_map(|key| Some((key.as_str()?.to_owned(), Value::Null))));
                Request::new("PATCH", &format!("{of_user}/state"))
                    .body("application/json", Value::Object(change).to_string())
            }
            "Presence" => Request::new("GET", &format!("{of_user}/presence")),
            other => bail!("no way to {other} under /v1"),
        };
        let answer = once(self.addr, &with(call, headers))?;
        let told = answer.json()?;
        if answer.status() >= 300 {
            let code = told["code"].as_str().context("no code")?.to_owned();
            let pointer = told["pointer"]
                .as_str()
                .map(|pointer| moved(method, request, pointer));
            // There it stands in the path, to which no pointer points.
            let of_path = told["detail"]
                .as_str()
                .is_some_and(|detail| detail.starts_with("The user:"));
            let pointer = pointer.or_else(|| of_path.then(|| "/user".to_owned()));
            return Ok(Told::Refused { code, pointer });
        }
        Ok(Told::Done(in_twirps_words(method, told)))
    }
}

fn with(request: Request, headers: &[(&str, &str)]) -> Request {
    (headers.iter()).fold(request, |request, (name, value)| request.header(name, value))
}

/// What Twirp tells of a refusal. The status has to be the code's, as the specification has it.
fn refused(answer: &Answer) -> Result<Told> {
    let told = answer.json()?;
    ensure!(
        answer.head.header("content-type") == Some("application/json"),
        "of another type"
    );
    let status = match told["code"].as_str().unwrap_or_default() {
        "canceled" | "deadline_exceeded" => 408,
        "invalid_argument" | "malformed" | "out_of_range" => 400,
        "not_found" | "bad_route" => 404,
        "already_exists" | "aborted" => 409,
        "permission_denied" => 403,
        "unauthenticated" => 401,
        "resource_exhausted" => 429,
        "failed_precondition" => 412,
        "unimplemented" => 501,
        "unknown" | "internal" => 500,
        "unavailable" | "dataloss" => 503,
        other => bail!("Twirp has no code {other:?}: {told}"),
    };
    ensure!(
        answer.status() == status,
        "{} is not the status of {told}",
        answer.status()
    );
    ensure!(
        told["msg"].as_str().is_some_and(|text| text.ends_with('.')),
        "no sentence: {told}"
    );
    ensure!(
        told["meta"]["retry_after"].as_str() == answer.head.header("retry-after"),
        "{told}"
    );
    Ok(Told::Refused {
        code: told["meta"]["code"].as_str().context("no meta.code")?.to_owned(),
        pointer: told["meta"]["pointer"].as_str().map(str::to_owned),
    })
}

/// A message as JSON, by the other implementation.
fn read_back(message: &DynamicMessage) -> Result<Value> {
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false);
    let json = message.serialize_with_options(serde_json::value::Serializer, &options)?;
    Ok(without_nulls(&json))
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let there = members.iter().filter(|(_, value)| !value.is_null());
            there
                .map(|(name, value)| (name.clone(), without_nulls(value)))
                .collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        // Both ways to write a time.
        Value::String(text) if text.ends_with('Z') && text.starts_with("20") => "a time".into(),
        other => other.clone(),
    }
}

/// What a client of protobuf sends: the payload as text.
fn as_text(mut request: Value) -> Value {
    if let Some(items) = request.get_mut("notifications").and_then(Value::as_array_mut) {
        for item in items {
            *item = as_text(item.take());
        }
    }
    if let Some(data) = request.as_object_mut().and_then(|members| members.remove("data")) {
        request["data_json"] = data.to_string().into();
    }
    request
}

/// As the HTTP API has it.
fn notification(item: &Value) -> Value {
    let mut item = item.as_object().cloned().unwrap_or_default();
    item.remove("everyone");
    for (name, list) in [("users", "ids"), ("topics", "names")] {
        if let Some(given) = item.remove(name) {
            item.insert(name.into(), given.get(list).cloned().unwrap_or_else(|| json!([])));
        }
    }
    for name in ["durability", "devices"] {
        if let Some(Value::String(word)) = item.get_mut(name) {
            *word = word.rsplit('_').next().unwrap_or_default().to_lowercase();
        }
    }
    Value::Object(item)
}

/// A place of a request of the HTTP API, in the request of Twirp.
fn moved(method: &str, request: &Value, pointer: &str) -> String {
    let within = |from: &str, to: &str| {
        let rest = pointer.strip_prefix(from)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{to}{rest}"))
    };
    match method {
        "Publish" | "PublishBatch" => (within("/users", "/users/ids"))
            .or_else(|| within("/topics", "/topics/names"))
            .unwrap_or_else(|| pointer.to_owned()),
        "Ack" | "Read" => within("/ids", "/ids/ids").unwrap_or_else(|| pointer.to_owned()),
        "PatchState" => {
            let removed = request["remove"].as_array().into_iter().flatten();
            let mut removed = removed.map(|key| format!("/{}", key.as_str().unwrap_or_default()));
            match removed.position(|key| key == pointer) {
                Some(at) => format!("/remove/{at}"),
                None => format!("/set{pointer}"),
            }
        }
        _ => pointer.to_owned(),
    }
}

fn in_twirps_words(method: &str, told: Value) -> Value {
    let mut told = without_nulls(&told);
    match method {
        "Publish" => drop(told.as_object_mut().map(|members| members.remove("accepted"))),
        "PublishBatch" => {
            for item in told["rejected"].as_array_mut().into_iter().flatten() {
                if let Some(pointer) = item["pointer"]
                    .as_str()
                    .map(|pointer| moved(method, &Value::Null, pointer))
                {
                    item["pointer"] = pointer.into();
                }
            }
        }
        "Get" => {
            let kind = told["audience"]["kind"]
                .as_str()
                .unwrap_or_default()
                .to_uppercase();
            told["audience"]["kind"] = format!("KIND_{kind}").into();
        }
        "GetState" | "PatchState" => told["version"] = told["version"].to_string().into(),
        _ => {}
    }
    told
}

/// Nothing.
pub fn empty() -> Value {
    Value::Object(Map::new())
}
