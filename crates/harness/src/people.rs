//! A back-end that knows its users: the directory, topics' members, state maps, imports, presence.
//!
//! Invariant: what the server answered is returned as it is where a test may want a refusal; a method that says what
//! changed fails where the server refuses.
//!
//! It does not publish: that is [`crate::publish`].

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::http::{Answer, Conn, Piece, Request, escape};
use crate::node::Endpoint;
use crate::publish::Publisher;

/// How long an import may take.
const IMPORT_DEADLINE: Duration = Duration::from_secs(120);

/// A back-end with one API key.
pub struct People {
    back_end: Publisher,
    endpoint: Endpoint,
    key: String,
}

impl People {
    /// With an API key.
    pub fn new(endpoint: &Endpoint, key: &str) -> People {
        People {
            back_end: Publisher::new(endpoint, key),
            endpoint: endpoint.clone(),
            key: key.into(),
        }
    }

    /// Any request.
    pub fn call(&mut self, request: Request) -> Result<Answer> {
        self.back_end.call(request)
    }

    /// A request with a JSON body.
    pub fn send(&mut self, method: &str, target: &str, body: &Value) -> Result<Answer> {
        self.call(Request::new(method, target).body("application/json", body.to_string()))
    }

    /// A request without a body that must be answered 200; returns the answer.
    pub fn ask(&mut self, method: &str, target: &str) -> Result<Value> {
        let answer = self.call(Request::new(method, target))?;
        ensure!(
            answer.status() == 200,
            "{method} {target}: {} {}",
            answer.status(),
            answer.text()
        );
        answer.json()
    }

    /// `PUT /v1/users/{id}` that must be taken; returns the user.
    pub fn put(&mut self, user: &str, body: &Value) -> Result<Value> {
        let answer = self.send("PUT", &format!("/v1/users/{}", escape(user)), body)?;
        ensure!(
            [200, 201].contains(&answer.status()),
            "{} {}",
            answer.status(),
            answer.text()
        );
        answer.json()
    }

    /// `GET /v1/users/{id}`; `None` where there is no such user.
    pub fn user(&mut self, user: &str) -> Result<Option<Value>> {
        let answer = self.call(Request::new("GET", &format!("/v1/users/{}", escape(user))))?;
        match answer.status() {
            404 => Ok(None),
            200 => answer.json().map(Some),
            other => anyhow::bail!("{other} {}", answer.text()),
        }
    }

    /// The ids of all users, page by page.
    pub fn ids(&mut self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.ask("GET", &format!("/v1/users?limit=1000{after}"))?;
            for user in page["users"].as_array().context("no users")? {
                ids.push(user["id"].as_str().context("no id")?.to_owned());
            }
            let Some(last) = page["after"].as_str() else {
                return Ok(ids);
            };
            after = format!("&after={}", escape(last));
        }
    }

    /// Makes a user a member; whether that changed anything.
    pub fn join(&mut self, topic: &str, user: &str) -> Result<bool> {
        self.change("PUT", topic, user)
    }

    /// Ends a membership; whether that changed anything.
    pub fn leave(&mut self, topic: &str, user: &str) -> Result<bool> {
        self.change("DELETE", topic, user)
    }

    fn change(&mut self, method: &str, topic: &str, user: &str) -> Result<bool> {
        let answer = self.ask(
            method,
            &format!("/v1/topics/{}/members/{}", escape(topic), escape(user)),
        )?;
        answer["changed"].as_bool().context("no `changed`")
    }

    /// `PATCH /v1/users/{id}/state`.
    pub fn merge(&mut self, user: &str, change: &Value) -> Result<Answer> {
        self.send("PATCH", &format!("/v1/users/{}/state", escape(user)), change)
    }

    /// `POST /v1/users/{id}/state/increment`.
    pub fn increment(&mut self, user: &str, change: &Value) -> Result<Answer> {
        self.send(
            "POST",
            &format!("/v1/users/{}/state/increment", escape(user)),
            change,
        )
    }

    /// `GET /v1/users/{id}/state`: the map, and its version.
    pub fn state(&mut self, user: &str) -> Result<(Value, u64)> {
        let answer = self.ask("GET", &format!("/v1/users/{}/state", escape(user)))?;
        Ok((
            answer["state"].clone(),
            answer["version"].as_u64().context("no version")?,
        ))
    }

    /// `POST /v1/users/import` with a whole body; returns the answer.
    pub fn import(&mut self, query: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Result<Answer> {
        let request = Request::new("POST", &format!("/v1/users/import{query}"));
        self.call(request.body(content_type, body))
    }

    /// Starts an import of NDJSON whose progress is told while it is being sent.
    pub fn import_stream(&self) -> Result<ImportStream> {
        let mut conn = self.endpoint.connect(None)?;
        let request = Request::new("POST", "/v1/users/import")
            .bearer(&self.key)
            .header("Content-Type", "application/x-ndjson")
            .header("Accept", "application/x-ndjson")
            .header("Transfer-Encoding", "chunked");
        conn.write(&request.bytes())?;
        Ok(ImportStream {
            conn,
            has_head: false,
            text: Vec::new(),
        })
    }

    /// `GET /v1/presence/stream`, to be read event by event.
    pub fn presence(&self, query: &str) -> Result<PresenceStream> {
        let mut conn = self.endpoint.connect(None)?;
        let request = Request::new("GET", &format!("/v1/presence/stream{query}")).bearer(&self.key);
        conn.write(&request.bytes())?;
        let head = conn.head(Instant::now() + IMPORT_DEADLINE)?.context("no head")?;
        ensure!(head.status == 200, "the stream was answered {}", head.status);
        let is_stream = head.header("content-type") == Some("text/event-stream");
        ensure!(is_stream, "the content type is {:?}", head.header("content-type"));
        Ok(PresenceStream {
            conn,
            text: Vec::new(),
        })
    }
}

/// An import whose answer comes line by line.
pub struct ImportStream {
    conn: Conn,
    has_head: bool,
    text: Vec<u8>,
}

impl ImportStream {
    /// Sends lines.
    pub fn send(&mut self, lines: &str) -> Result<()> {
        self.conn.write_chunk(lines.as_bytes())
    }

    /// Ends the request.
    pub fn finish(&mut self) -> Result<()> {
        self.conn.write_chunk(b"")
    }

    /// The next line of the answer; `None` once it has ended.
    pub fn line(&mut self) -> Result<Option<Value>> {
        let deadline = Instant::now() + IMPORT_DEADLINE;
        if !self.has_head {
            let head = self.conn.head(deadline)?.context("no head")?;
            ensure!(head.status == 200, "the import was answered {}", head.status);
            self.has_head = true;
        }
        loop {
            if let Some(end) = self.text.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            match self.conn.piece(deadline)? {
                Piece::Bytes(bytes) => self.text.extend(bytes),
                Piece::End => return Ok(None),
                Piece::Timeout => anyhow::bail!("no line in time"),
            }
        }
    }
}

/// Who comes and goes.
pub struct PresenceStream {
    conn: Conn,
    text: Vec<u8>,
}

impl PresenceStream {
    /// The next event, with its data; comments and fields without an event are passed over. `None` at the end.
    pub fn event(&mut self, deadline: Instant) -> Result<Option<(String, Value)>> {
        loop {
            if let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                let block = String::from_utf8(block)?;
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                };
                if let (Some(event), Some(data)) = (field("event"), field("data")) {
                    return Ok(Some((event.to_owned(), serde_json::from_str(data)?)));
                }
                continue;
            }
            match self.conn.piece(deadline)? {
                Piece::Bytes(bytes) => self.text.extend(bytes),
                Piece::End => return Ok(None),
                Piece::Timeout => anyhow::bail!("no event in time"),
            }
        }
    }

    /// The event that comes next must be this one, of this user.
    pub fn expect(&mut self, event: &str, user: &str, deadline: Instant) -> Result<()> {
        let got = self.event(deadline)?.context("the stream ended")?;
        ensure!(
            got.0 == event && got.1["user"] == user,
            "{event} of {user} was to come, not {got:?}"
        );
        ensure!(got.1["time"].is_string(), "{got:?}");
        Ok(())
    }

    /// Reads a whole snapshot, which must come next; returns who is there.
    pub fn snapshot(&mut self, deadline: Instant) -> Result<Vec<String>> {
        let mut users = Vec::new();
        loop {
            let (event, data) = self.event(deadline)?.context("the stream ended")?;
            ensure!(event == "snapshot", "a snapshot was to come, not {event} {data}");
            let part = data["users"].as_array().context("no users")?;
            users.extend(part.iter().filter_map(|user| user.as_str().map(str::to_owned)));
            if data["last"] == true {
                users.sort();
                return Ok(users);
            }
        }
    }
}
