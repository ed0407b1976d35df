//! A back-end that publishes: one notification, an array of them, or a stream of NDJSON over one kept connection.
//!
//! Invariant: what the server answered is returned as it is, refusals included; an `Err` means that no answer came,
//! so that nothing is known about what was sent.
//!
//! It does not retry: that is [`crate::settle`].

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::{Answer, Conn, Piece, Request};
use crate::node::Endpoint;

/// How long an answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// What became of one item of an array or a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// Accepted under this id.
    Accepted(String),
    /// Refused with this code; the whole line or object beside it.
    Rejected(String, Value),
}

/// A back-end with one API key and one connection at a time.
pub struct Publisher {
    endpoint: Endpoint,
    key: String,
    conn: Option<Conn>,
}

impl Publisher {
    /// A publisher with an API key; it connects when it first needs to.
    pub fn new(endpoint: &Endpoint, key: &str) -> Publisher {
        Publisher {
            endpoint: endpoint.clone(),
            key: key.into(),
            conn: None,
        }
    }

    /// Any request under this publisher's key, on the kept connection.
    pub fn call(&mut self, request: Request) -> Result<Answer> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.endpoint.connect(None)?,
        };
        let answer = conn.call(&request.bearer(&self.key), Instant::now() + ANSWER_DEADLINE)?;
        let closes = answer
            .head
            .header("connection")
            .is_some_and(|v| v.eq_ignore_ascii_case("close"));
        if !closes {
            self.conn = Some(conn);
        }
        Ok(answer)
    }

    /// `POST /v1/notifications` with a body as it is.
    pub fn raw(&mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Result<Answer> {
        self.call(Request::new("POST", "/v1/notifications").body(content_type, body))
    }

    /// Publishes one notification; returns the server's answer whatever it is.
    pub fn one(&mut self, notification: &Value) -> Result<Answer> {
        self.raw("application/json", notification.to_string())
    }

    /// Publishes one that must be accepted; returns its id.
    pub fn accepted(&mut self, notification: &Value) -> Result<String> {
        self.accepted_raw(&notification.to_string())
    }

    /// Like [`Publisher::accepted`] for JSON whose exact bytes matter.
    pub fn accepted_raw(&mut self, body: &str) -> Result<String> {
        let answer = self.raw("application/json", body)?;
        if answer.status() != 202 {
            bail!("publish answered {}: {}", answer.status(), answer.text());
        }
        let json = answer.json()?;
        if json["accepted"] != true {
            bail!("202 without accepted: {json}");
        }
        Ok(json["id"].as_str().context("202 without id")?.to_owned())
    }

    /// Publishes an array; one [`Item`] for each, in the order sent.
    pub fn array(&mut self, notifications: &[Value]) -> Result<Vec<Item>> {
        let answer = self.raw("application/json", serde_json::to_vec(notifications)?)?;
        if answer.status() != 202 {
            bail!("array answered {}: {}", answer.status(), answer.text());
        }
        items(&answer.json()?, notifications.len())
    }

    /// Opens a streaming NDJSON request on a connection of its own.
    pub fn stream(&self) -> Result<Stream> {
        let mut conn = self.endpoint.connect(None)?;
        let request = Request::new("POST", "/v1/notifications")
            .bearer(&self.key)
            .header("Content-Type", "application/x-ndjson")
            .header("Transfer-Encoding", "chunked");
        conn.write(&request.bytes())?;
        Ok(Stream {
            conn,
            status: None,
            text: Vec::new(),
            ended: false,
        })
    }

    /// `GET /v1/notifications/{id}`.
    pub fn look(&mut self, id: &str) -> Result<Answer> {
        self.call(Request::new(
            "GET",
            &format!("/v1/notifications/{}", crate::http::escape(id)),
        ))
    }

    /// One of the counts of a notification for a list of users, such as `delivered`.
    pub fn count(&mut self, id: &str, state: &str) -> Result<u64> {
        let answer = self.look(id)?;
        let json = answer.json()?;
        json["counts"][state]
            .as_u64()
            .with_context(|| format!("no count {state} in {}: {json}", answer.status()))
    }

    /// `DELETE /v1/notifications/{id}`.
    pub fn cancel(&mut self, id: &str) -> Result<Answer> {
        self.call(Request::new(
            "DELETE",
            &format!("/v1/notifications/{}", crate::http::escape(id)),
        ))
    }
}

/// A streaming NDJSON request whose answers come while it is still being sent.
pub struct Stream {
    conn: Conn,
    status: Option<u16>,
    text: Vec<u8>,
    ended: bool,
}

impl Stream {
    /// Sends one line.
    pub fn send(&mut self, line: &str) -> Result<()> {
        self.conn.write_chunk(format!("{line}\n").as_bytes())
    }

    /// Ends the request; answers can still be read.
    pub fn finish(&mut self) -> Result<()> {
        self.conn.write_chunk(b"")
    }

    /// The status of the answer, once its head was read.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// The answer to the next line. `Ok(None)` once the answer has ended.
    pub fn answer(&mut self, deadline: Instant) -> Result<Option<Item>> {
        if self.status.is_none() {
            let head = self
                .conn
                .head(deadline)?
                .context("no head of the answer before the deadline")?;
            if head.status / 100 != 2 {
                let body = self.conn.rest(deadline)?;
                bail!(
                    "stream answered {}: {}",
                    head.status,
                    String::from_utf8_lossy(&body)
                );
            }
            self.status = Some(head.status);
        }
        loop {
            if let Some(end) = self.text.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(item(&serde_json::from_slice(&line)?)?));
            }
            if self.ended {
                return Ok(None);
            }
            match self.conn.piece(deadline)? {
                Piece::Bytes(bytes) => self.text.extend(bytes),
                Piece::End => self.ended = true,
                Piece::Timeout => bail!("no line of the answer before the deadline"),
            }
        }
    }
}

fn item(line: &Value) -> Result<Item> {
    if line["accepted"] == true {
        return Ok(Item::Accepted(
            line["id"].as_str().context("accepted without id")?.to_owned(),
        ));
    }
    let code = line["code"]
        .as_str()
        .with_context(|| format!("neither accepted nor a code: {line}"))?;
    Ok(Item::Rejected(code.to_owned(), line.clone()))
}

/// Puts the two lists of an array's answer back into the order sent; each index must be there exactly once.
pub fn items(answer: &Value, sent: usize) -> Result<Vec<Item>> {
    let mut items: Vec<Option<Item>> = vec![None; sent];
    let lists = [("accepted", true), ("rejected", false)];
    for (name, accepted) in lists {
        for entry in answer[name]
            .as_array()
            .with_context(|| format!("no list {name} in {answer}"))?
        {
            let index = entry["index"].as_u64().context("no index")? as usize;
            let slot = items
                .get_mut(index)
                .with_context(|| format!("index {index} of {sent}"))?;
            if slot.is_some() {
                bail!("index {index} twice in {answer}");
            }
            let text = |field: &str| -> Result<String> {
                Ok(entry[field]
                    .as_str()
                    .with_context(|| format!("no {field} in {entry}"))?
                    .to_owned())
            };
            *slot = Some(if accepted {
                Item::Accepted(text("id")?)
            } else {
                Item::Rejected(text("code")?, entry.clone())
            });
        }
    }
    items
        .into_iter()
        .enumerate()
        .map(|(i, item)| item.with_context(|| format!("nothing said of index {i}")))
        .collect()
}
