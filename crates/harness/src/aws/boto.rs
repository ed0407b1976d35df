//! boto3 as the producer, and as who looks: a client that nobody here wrote, in a process of its own.
//!
//! Invariant: an answer belongs to the request before it; what the service refuses is a [`Refusal`] inside the error.
//!
//! It does not go by way of [`super::Trouble`]: what it sends has been taken, what it reads is so.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{environment, tools};

/// What a service said instead of doing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error's code, such as `QueueDoesNotExist`.
    pub code: String,
    /// What it says about it.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

/// A boto3 that speaks to one endpoint.
pub struct Boto {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Boto {
    /// One for an endpoint, such as [`super::Emulator::endpoint`].
    pub fn start(endpoint: &str) -> Result<Boto> {
        Boto::with_secret(endpoint, super::SECRET_KEY)
    }

    /// One that signs with another key.
    pub fn with_secret(endpoint: &str, secret: &str) -> Result<Boto> {
        Boto::of(endpoint, super::ACCESS_KEY, secret)
    }

    /// One that is somebody else.
    pub fn of(endpoint: &str, access_key: &str, secret: &str) -> Result<Boto> {
        let python = tools::program("moto", "python").context("no boto3")?;
        let mut command = Command::new(python);
        command.arg("-u").arg(tools::script("producer.py"));
        command
            .envs(environment(endpoint))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("AWS_ACCESS_KEY_ID", access_key);
        command.env("AWS_SECRET_ACCESS_KEY", secret);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("run boto3")?;
        Ok(Boto {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().context("no stdout")?),
            child,
        })
    }

    /// Any call of any service: its name and arguments as boto3's documentation has them.
    pub fn call(&mut self, service: &str, call: &str, arguments: Value) -> Result<Value> {
        self.ask(json!({"do": "call", "service": service, "call": call, "arguments": arguments}))
    }

    /// Makes a queue; its URL. `attributes` are SQS's own.
    pub fn queue(&mut self, name: &str, attributes: Value) -> Result<String> {
        let made = self.ask(json!({"do": "queue", "name": name, "attributes": attributes}))?;
        text(&made)
    }

    /// Makes a queue and its dead-letter queue, to which SQS moves what was received so often; both URLs.
    pub fn queue_with_dlq(
        &mut self,
        name: &str,
        receives_max: u32,
        attributes: Value,
    ) -> Result<(String, String)> {
        let made = self.ask(json!({
            "do": "queue_with_dlq", "name": name, "receives_max": receives_max, "attributes": attributes,
        }))?;
        Ok((text(&made[0])?, text(&made[1])?))
    }

    /// Sends one message with these attributes, all of type String; its id in SQS.
    pub fn send(&mut self, queue: &str, body: &str, attributes: &[(&str, &str)]) -> Result<String> {
        let attributes: Value = attributes
            .iter()
            .map(|&(k, v)| (k.to_owned(), json!(v)))
            .collect();
        text(&self.ask(json!({"do": "send", "queue": queue, "body": body, "attributes": attributes}))?)
    }

    /// Sends one message to a FIFO queue, in a group.
    pub fn send_fifo(
        &mut self,
        queue: &str,
        group: &str,
        id: &str,
        body: &str,
        user: &str,
    ) -> Result<String> {
        text(&self.ask(json!({
            "do": "send_fifo", "queue": queue, "group": group, "id": id, "body": body,
            "attributes": {"addressee": user, "subject": "s"},
        }))?)
    }

    /// Sends many, ten at a time: each `{"body": …, "attributes": {…}}`, and for a FIFO queue `group` and `id`. Every one
    /// of them was taken.
    pub fn send_many(&mut self, queue: &str, messages: &[Value]) -> Result<()> {
        self.ask(json!({"do": "send_many", "queue": queue, "messages": messages}))?;
        Ok(())
    }

    /// Makes a topic; its ARN.
    pub fn topic(&mut self, name: &str) -> Result<String> {
        text(&self.ask(json!({"do": "topic", "name": name}))?)
    }

    /// Subscribes a queue to a topic, with or without raw delivery; the subscription's ARN.
    pub fn subscribe(&mut self, topic: &str, queue: &str, is_raw: bool) -> Result<String> {
        text(&self.ask(json!({"do": "subscribe", "topic": topic, "queue": queue, "raw": is_raw}))?)
    }

    /// Publishes to a topic; the message's id in SNS.
    pub fn publish(&mut self, topic: &str, message: &str) -> Result<String> {
        text(&self.ask(json!({"do": "publish", "topic": topic, "message": message}))?)
    }

    /// Makes a table of connections: hash key `user_id`, range key `connection_id`.
    pub fn connections_table(&mut self, name: &str) -> Result<()> {
        self.ask(json!({"do": "connections_table", "name": name}))?;
        Ok(())
    }

    /// Puts rows of connections: user and connection.
    pub fn put_connections(&mut self, table: &str, rows: &[(String, String)]) -> Result<()> {
        self.ask(json!({"do": "put_connections", "table": table, "rows": rows}))?;
        Ok(())
    }

    /// All rows of a table of connections, in no order.
    pub fn connections(&mut self, table: &str) -> Result<Vec<(String, String)>> {
        Ok(serde_json::from_value(
            self.ask(json!({"do": "connections", "table": table}))?,
        )?)
    }

    /// How many messages a queue has: those to be received, and those that somebody holds.
    pub fn counts(&mut self, queue: &str) -> Result<(u64, u64)> {
        Ok(serde_json::from_value(
            self.ask(json!({"do": "counts", "queue": queue}))?,
        )?)
    }

    /// Receives and deletes all that is visible, such as what lies in a dead-letter queue.
    pub fn drain(&mut self, queue: &str) -> Result<Vec<Value>> {
        Ok(serde_json::from_value(
            self.ask(json!({"do": "drain", "queue": queue}))?,
        )?)
    }

    fn ask(&mut self, request: Value) -> Result<Value> {
        let stdin = self.stdin.as_mut().context("boto3 has ended")?;
        writeln!(stdin, "{request}").context("tell boto3")?;
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            bail!("boto3 ended; it says above why");
        }
        let mut answer: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        if let Some(refused) = answer.get("refused") {
            let part = |name: &str| refused[name].as_str().unwrap_or_default().to_owned();
            let refusal = Refusal {
                code: part("code"),
                message: part("message"),
            };
            let said = format!("boto3: {}", request["do"]);
            return Err(anyhow::Error::new(refusal).context(said));
        }
        Ok(answer["ok"].take())
    }
}

impl Drop for Boto {
    fn drop(&mut self) {
        // It ends when there is nothing more to read.
        self.stdin = None;
        if let Err(e) = self.child.wait() {
            eprintln!("harness: boto3 was not ended: {e}");
        }
    }
}

fn text(value: &Value) -> Result<String> {
    Ok(value
        .as_str()
        .with_context(|| format!("no text: {value}"))?
        .to_owned())
}
