//! What a user can ask for beside a session: ack, read, history, tickets.
//!
//! Invariant: every call is one request on a connection of its own, under the user's token.
//!
//! It does not hold a session: that is [`crate::inbox`].

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::http::{Answer, Request};
use crate::inbox::Refused;
use crate::node::Endpoint;
use crate::wait::within;

/// A user with a token.
#[derive(Clone)]
pub struct User {
    /// The user token.
    pub token: String,
    endpoint: Endpoint,
}

impl User {
    /// A user by id, with a valid token.
    pub fn new(endpoint: &Endpoint, id: &str) -> Result<User> {
        Ok(User {
            endpoint: endpoint.clone(),
            token: crate::token::user(id)?,
        })
    }

    /// `POST /v1/inbox/ack` by ids; returns `settled`.
    pub fn ack(&self, ids: &[&str]) -> Result<u64> {
        self.settle("/v1/inbox/ack", &json!({ "ids": ids }))
    }

    /// `POST /v1/inbox/ack` by cursor; returns `settled`.
    pub fn ack_cursor(&self, cursor: &str) -> Result<u64> {
        self.settle("/v1/inbox/ack", &json!({ "cursor": cursor }))
    }

    /// `POST /v1/inbox/read` by ids; returns `settled`.
    pub fn read(&self, ids: &[&str]) -> Result<u64> {
        self.settle("/v1/inbox/read", &json!({ "ids": ids }))
    }

    /// `GET /v1/inbox/history`, newest first, one page.
    pub fn history(&self, limit: u32) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut before = String::new();
        // An answer is bounded in bytes too, so it may hold fewer than were asked for.
        while all.len() < limit as usize {
            let left = limit as usize - all.len();
            let answer = self.call(Request::new(
                "GET",
                &format!("/v1/inbox/history?limit={left}{before}"),
            ))?;
            if answer.status() != 200 {
                bail!("history answered {}: {}", answer.status(), answer.text());
            }
            let page = answer.json()?;
            let list = page["notifications"]
                .as_array()
                .context("history without notifications")?;
            all.extend(list.iter().cloned());
            let Some(cursor) = page["cursor"].as_str().filter(|_| !list.is_empty()) else {
                break;
            };
            before = format!("&before={cursor}");
        }
        Ok(all)
    }

    /// The ids of a fresh look at what is pending, settling nothing: one poll without cursor and `ack=none`.
    pub fn pending(&self) -> Result<Vec<String>> {
        let answer = self.call(Request::new("GET", "/v1/inbox?wait=0&limit=1000&ack=none"))?;
        if answer.status() != 200 {
            return Err(Refused(answer).into());
        }
        let json = answer.json()?;
        let list = json["notifications"]
            .as_array()
            .context("poll without notifications")?;
        list.iter()
            .map(|n| Ok(n["id"].as_str().context("entry without id")?.to_owned()))
            .collect()
    }

    /// A cursor at the end of what is held now, without settling anything. `topics` as a session would ask.
    pub fn cursor(&self, topics: &[String]) -> Result<String> {
        let mut cursor: Option<String> = None;
        loop {
            let mut target = "/v1/inbox?wait=0&limit=1000&ack=none".to_owned();
            if !topics.is_empty() {
                target.push_str(&format!("&topics={}", crate::http::escape(&topics.join(","))));
            }
            if let Some(cursor) = &cursor {
                target.push_str(&format!("&cursor={}", crate::http::escape(cursor)));
            }
            let answer = self.call(Request::new("GET", &target))?;
            if answer.status() != 200 {
                return Err(Refused(answer).into());
            }
            let json = answer.json()?;
            let next = json["cursor"].as_str().context("poll without cursor")?.to_owned();
            let empty = |list: &str| json[list].as_array().is_some_and(Vec::is_empty);
            if empty("notifications") && empty("events") {
                return Ok(next);
            }
            cursor = Some(next);
        }
    }

    /// `POST /v1/tickets`; returns the ticket.
    pub fn ticket(&self) -> Result<String> {
        let answer = self.call(Request::new("POST", "/v1/tickets"))?;
        if answer.status() != 201 {
            bail!("ticket answered {}: {}", answer.status(), answer.text());
        }
        Ok(answer.json()?["ticket"].as_str().context("no ticket")?.to_owned())
    }

    /// Any request under the user's token.
    pub fn call(&self, request: Request) -> Result<Answer> {
        self.endpoint
            .connect(None)?
            .call(&request.bearer(&self.token), within(30))
    }

    fn settle(&self, path: &str, body: &Value) -> Result<u64> {
        let answer = self.call(Request::new("POST", path).body("application/json", body.to_string()))?;
        if answer.status() != 200 {
            bail!("{path} answered {}: {}", answer.status(), answer.text());
        }
        answer.json()?["settled"].as_u64().context("no settled")
    }
}
