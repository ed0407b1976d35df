//! How the client commands talk to a node.

mod refused;

pub use refused::{Refused, refusal, unreachable_node};

use crate::exit::Failure;
use anyhow::Context as _;
use clap::Args;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use ureq::Agent;
use ureq::http::{Request, Response};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// How long a node may take to answer a command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// An answer that is read whole has at most so many bytes.
const ANSWER_BYTES: u64 = 64 << 20;
/// Where a node is, unless told otherwise.
const URL_DEFAULT: &str = "http://127.0.0.1:8080";

/// Where the node is.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub struct UrlArg {
    /// The node [default: $POSTRIDER_URL, or http://127.0.0.1:8080]
    #[arg(long)]
    url: Option<String>,
    /// Trust the certificates in this PEM file, and no others [default: $POSTRIDER_CA, or the roots that browsers trust]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl UrlArg {
    /// An address under the node's.
    pub fn join(&self, path: &str) -> Result<String, Failure> {
        let url = self
            .url
            .clone()
            .or_else(|| env("POSTRIDER_URL"))
            .unwrap_or_else(|| URL_DEFAULT.into());
        let wrong = || {
            Failure::usage(format!(
                "`{url}` is no address of a node: write http://host:port as --url or POSTRIDER_URL"
            ))
        };
        let parsed: ureq::http::Uri = url.parse().map_err(|_| wrong())?;
        if !matches!(parsed.scheme_str(), Some("http" | "https")) || parsed.host().is_none_or(str::is_empty) {
            return Err(wrong());
        }
        Ok(format!("{}{path}", url.trim_end_matches('/')))
    }

    /// An agent for requests that are answered within this time.
    fn agent(&self, within: Duration) -> Result<Agent, Failure> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(within))
            .tls_config(self.tls()?);
        Ok(config.build().new_agent())
    }

    /// An agent for answers without an end: silence for so long ends one.
    pub fn following_agent(&self, silence: Duration) -> Result<Agent, Failure> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(silence))
            .timeout_per_read(Some(silence))
            .tls_config(self.tls()?);
        Ok(config.build().new_agent())
    }

    /// The certificates to trust, as DER, where they are not those that browsers trust.
    pub fn roots(&self) -> Result<Option<Vec<ureq::tls::Certificate<'static>>>, Failure> {
        let Some(path) = self.ca.clone().or_else(|| env("POSTRIDER_CA").map(PathBuf::from)) else {
            return Ok(None);
        };
        let wrong = |why: &dyn std::fmt::Display| Failure::usage(format!("--ca: {}: {why}", path.display()));
        let pem = std::fs::read(&path).map_err(|error| wrong(&error))?;
        let mut roots = Vec::new();
        for item in parse_pem(&pem) {
            if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(&error))? {
                roots.push(certificate);
            }
        }
        if roots.is_empty() {
            return Err(wrong(&"holds no certificate"));
        }
        Ok(Some(roots))
    }

    /// Whom to trust where the node's address begins with https.
    pub fn tls(&self) -> Result<TlsConfig, Failure> {
        Ok(match self.roots()? {
            None => TlsConfig::default(),
            Some(roots) => TlsConfig::builder()
                .root_certs(RootCerts::new_with_certs(&roots))
                .build(),
        })
    }
}

/// The API key.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub struct KeyArg {
    /// The API key [default: $POSTRIDER_KEY]
    #[arg(long)]
    key: Option<String>,
}

impl KeyArg {
    /// The header's value.
    pub fn bearer(&self) -> Result<String, Failure> {
        let key = self.key.clone().or_else(|| env("POSTRIDER_KEY"));
        bearer(key, "API key", "give --key, or set POSTRIDER_KEY")
    }
}

/// The user token.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub struct TokenArg {
    /// The user token [default: $POSTRIDER_TOKEN]
    #[arg(long)]
    token: Option<String>,
}

impl TokenArg {
    /// The header's value.
    pub fn bearer(&self) -> Result<String, Failure> {
        let token = self.token.clone().or_else(|| env("POSTRIDER_TOKEN"));
        bearer(
            token,
            "user token",
            "give --token, or set POSTRIDER_TOKEN (`postrider token` mints one)",
        )
    }
}

/// The header's value; what cannot stand in one is refused without being repeated.
fn bearer(credential: Option<String>, what: &str, advice: &str) -> Result<String, Failure> {
    let Some(credential) = credential else {
        return Err(Failure::usage(format!("no {what}: {advice}")));
    };
    let credential = credential.trim();
    if credential.is_empty() {
        return Err(Failure::usage(format!("the {what} is empty: {advice}")));
    }
    if !credential.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Failure::usage(format!(
            "the {what} holds a blank, or another character that cannot stand in one: {advice}"
        )));
    }
    Ok(format!("Bearer {credential}"))
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A node that is asked with an API key.
#[derive(Args)]
pub struct ConnectionArgs {
    #[command(flatten)]
    url: UrlArg,
    #[command(flatten)]
    key: KeyArg,
}

impl ConnectionArgs {
    /// The node, ready to be asked.
    pub fn call(&self) -> Result<Call, Failure> {
        Call::with(&self.url, self.key.bearer()?)
    }
}

/// The same, where the answer can be had as JSON.
#[derive(Args)]
pub struct NodeArgs {
    /// Write JSON instead of text for people
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

impl NodeArgs {
    /// The node, ready to be asked.
    pub fn call(&self) -> Result<Call, Failure> {
        self.connection.call()
    }

    /// The same for an answer without an end.
    pub fn follow(&self, silence: Duration) -> Result<Call, Failure> {
        let ConnectionArgs { url, key } = &self.connection;
        Call::following(url, key.bearer()?, silence)
    }
}

/// Requests to one node with one credential.
pub struct Call {
    /// What sends them.
    pub agent: Agent,
    /// The node's address.
    pub base: String,
    /// `Authorization`.
    pub bearer: String,
}

impl Call {
    /// To the node there, with this `Authorization`.
    pub fn with(url: &UrlArg, bearer: String) -> Result<Call, Failure> {
        Call::within(url, bearer, ANSWER_TIMEOUT)
    }

    /// The same; an answer takes so long at most.
    pub fn within(url: &UrlArg, bearer: String, time: Duration) -> Result<Call, Failure> {
        let (agent, base) = (url.agent(time)?, url.join("")?);
        Ok(Call { agent, base, bearer })
    }

    /// The same; an answer takes as long as it does, but is never silent for longer than this.
    pub fn following(url: &UrlArg, bearer: String, silence: Duration) -> Result<Call, Failure> {
        let (agent, base) = (url.following_agent(silence)?, url.join("")?);
        Ok(Call { agent, base, bearer })
    }

    /// What stands there.
    pub fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        read(&self.text(path, query)?)
    }

    /// The same as the node wrote it: the numbers of a payload keep their digits.
    pub fn text(&self, path: &str, query: &[(&str, &str)]) -> Result<String, Failure> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let request = request.header("Authorization", &self.bearer);
        body(request.query_pairs(query.iter().copied()).call())
    }

    /// A request without a body.
    pub fn act(&self, method: &str, path: &str) -> Result<Value, Failure> {
        let request = self.request(method, path).body(())?;
        json(self.agent.run(request))
    }

    /// A request with a JSON body.
    pub fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.request(method, path);
        let request = request.header("Content-Type", "application/json");
        json(self.agent.run(request.body(body.to_string())?))
    }

    fn request(&self, method: &str, path: &str) -> ureq::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("Authorization", &self.bearer)
    }
}

/// A name as one part of a path.
pub fn segment(name: &str) -> String {
    // Parts of dots alone mean other places.
    let dots = name.bytes().all(|b| b == b'.');
    let mut out = String::with_capacity(name.len());
    for b in name.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => out.push(b.into()),
            b'.' if !dots => out.push('.'),
            _ => out += &format!("%{b:02X}"),
        }
    }
    out
}

/// The answer's body, if it is a success; else what the node said was wrong.
pub fn body(answer: Result<Response<ureq::Body>, ureq::Error>) -> Result<String, Failure> {
    let mut answer = answer.map_err(unreachable_node)?;
    let text = answer
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES)
        .read_to_string()
        .context("the answer broke off")?;
    if answer.status().is_success() {
        return Ok(text);
    }
    let retry_after = answer.headers().get("retry-after");
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    Err(refusal(answer.status().as_u16(), &text, retry_after).into())
}

/// As [`body`], read as JSON.
pub fn json(answer: Result<Response<ureq::Body>, ureq::Error>) -> Result<Value, Failure> {
    read(&body(answer)?)
}

/// Reads what a node answered.
pub fn read<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, Failure> {
    Ok(serde_json::from_str(text)
        .context("the answer is not what a Postrider node says: is --url its address?")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_paths() {
        for (name, path) in [
            ("ada", "ada"),
            ("a/b c", "a%2Fb%20c"),
            ("..", "%2E%2E"),
            ("v1.2", "v1.2"),
            ("ä@x", "%C3%A4%40x"),
        ] {
            assert_eq!(segment(name), path);
        }
    }

    #[test]
    fn what_is_no_credential_is_not_repeated() {
        for wrong in ["", "  ", "s3cr3t\nX-Other: 1", "s3cr3t value"] {
            let Err(Failure::Configuration(lines)) = bearer(Some(wrong.into()), "API key", "give --key")
            else {
                panic!("{wrong:?} was taken");
            };
            assert!(!lines[0].contains("s3cr3t"), "{lines:?}");
        }
        assert_eq!(bearer(Some("k\n".into()), "API key", "").unwrap(), "Bearer k");
    }
}
