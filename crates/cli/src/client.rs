//! How the client commands talk to a node.

use crate::exit::Failure;
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// How long a node may take to answer a command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// An answer that is read whole has at most so many bytes.
const ANSWER_BYTES: u64 = 64 << 20;
/// Where a node is, unless told otherwise.
const URL_DEFAULT: &str = "http://127.0.0.1:8080";

/// Where the node is.
#[derive(Args)]
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

    /// An agent for requests that are answered soon.
    pub fn agent(&self) -> Result<Agent, Failure> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_TIMEOUT))
            .tls_config(self.tls()?);
        Ok(config.build().new_agent())
    }

    /// Whom to trust where the node's address begins with https.
    pub fn tls(&self) -> Result<TlsConfig, Failure> {
        let Some(path) = self.ca.clone().or_else(|| env("POSTRIDER_CA").map(PathBuf::from)) else {
            return Ok(TlsConfig::default());
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
        Ok(TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .build())
    }
}

/// The API key.
#[derive(Args)]
pub struct KeyArg {
    /// The API key [default: $POSTRIDER_KEY]
    #[arg(long)]
    key: Option<String>,
}

impl KeyArg {
    /// The header's value.
    pub fn bearer(&self) -> Result<String, Failure> {
        let key = self.key.clone().or_else(|| env("POSTRIDER_KEY"));
        key.map(|key| format!("Bearer {key}"))
            .ok_or_else(|| Failure::usage("no API key: give --key, or set POSTRIDER_KEY"))
    }
}

/// The user token.
#[derive(Args)]
pub struct TokenArg {
    /// The user token [default: $POSTRIDER_TOKEN]
    #[arg(long)]
    token: Option<String>,
}

impl TokenArg {
    /// The header's value.
    pub fn bearer(&self) -> Result<String, Failure> {
        let token = self.token.clone().or_else(|| env("POSTRIDER_TOKEN"));
        token.map(|token| format!("Bearer {token}")).ok_or_else(|| {
            Failure::usage(
                "no user token: give --token, or set POSTRIDER_TOKEN (`postrider token` mints one)",
            )
        })
    }
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
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
        Ok(text)
    } else {
        Err(refusal(answer.status().as_u16(), &text).into())
    }
}

/// As [`body`], read as JSON.
pub fn json(answer: Result<Response<ureq::Body>, ureq::Error>) -> Result<Value, Failure> {
    Ok(serde_json::from_str(&body(answer)?).context("the answer is no JSON: is this a Postrider node?")?)
}

/// A request that got no answer.
pub fn unreachable_node(error: ureq::Error) -> Failure {
    let advice = "the node gave no answer: is it running, and is --url right?";
    Failure::Other(anyhow::Error::new(error).context(advice))
}

/// A problem document in one line.
pub fn refusal(status: u16, body: &str) -> anyhow::Error {
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |name: &str| problem[name].as_str();
    match (text("code"), text("detail")) {
        (Some(code), Some(detail)) => {
            let place = text("pointer")
                .filter(|p| !p.is_empty())
                .map(|p| format!(" (at {p})"))
                .unwrap_or_default();
            anyhow!("the node refused with {status} {code}: {detail}{place}")
        }
        _ => anyhow!("{status} was answered, and not by a node's API: is --url the address of http.listen?"),
    }
}
