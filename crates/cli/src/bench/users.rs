//! The users of a bench and their tokens: signed here by a shared secret, or made by whoever makes them elsewhere.

use crate::exit::Failure;
use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use postrider_bench_load::target::Users;
use serde_json::{Map, Value};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// How long tokens are good that are signed here. Seconds.
const TOKEN_LIFE: u64 = 3600;
/// What every user's id begins with, so that nobody else is ever taken for one.
pub const PREFIX: &str = "bench-";

/// Where tokens come from.
#[derive(Args)]
pub struct UsersArgs {
    /// Sign the users' tokens with this secret: the node's auth.jwt.hmac_secret [default: $POSTRIDER_SECRET]
    #[arg(long, conflicts_with_all = ["tokens", "token_command"])]
    secret: Option<String>,
    /// A claim of the tokens that --secret signs, e.g. aud=app; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    claim: Vec<String>,
    /// A shell command that reads user ids, one a line, and writes a token for each
    #[arg(long, value_name = "COMMAND", conflicts_with = "tokens")]
    token_command: Option<String>,
    /// A file with a token a line, for users named bench-…
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
}

impl UsersArgs {
    /// So many users with tokens, the names beginning with `prefix` where they are chosen here.
    pub fn make(&self, prefix: &str, count: usize, topic: Option<&str>) -> Result<Users, Failure> {
        if let Some(file) = &self.tokens {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::usage(format!("--tokens: {}: {error}", file.display())))?;
            return Ok(from_lines(&text, count)?);
        }
        if let Some(command) = &self.token_command {
            return Ok(by_command(command, Users::names(prefix, count))?);
        }
        let environment = std::env::var("POSTRIDER_SECRET").ok();
        let Some(secret) = self
            .secret
            .clone()
            .or(environment)
            .filter(|secret| !secret.is_empty())
        else {
            return Err(Failure::usage(
                "no tokens: give --secret (the node's auth.jwt.hmac_secret), --token-command or --tokens",
            ));
        };
        Ok(sign(&secret, prefix, count, self.claims()?, topic)?)
    }

    fn claims(&self) -> Result<Map<String, Value>, Failure> {
        let pair = |text: &String| {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("--claim: `{text}` is no NAME=VALUE")))?;
            Ok((name.to_owned(), Value::from(value)))
        };
        self.claim.iter().map(pair).collect()
    }
}

/// Signs tokens that allow the bench's own topic.
pub fn sign(
    secret: &str,
    prefix: &str,
    count: usize,
    mut claims: Map<String, Value>,
    topic: Option<&str>,
) -> anyhow::Result<Users> {
    if let Some(topic) = topic {
        claims.insert("topics".into(), Value::from(vec![topic]));
    }
    let exp = postrider_bench_load::clock::unix_seconds() + TOKEN_LIFE;
    Users::sign(prefix, count, secret, exp, &claims)
}

fn from_lines(text: &str, count: usize) -> anyhow::Result<Users> {
    let tokens: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .take(count)
        .collect();
    if tokens.len() < count {
        return Err(anyhow!("--tokens: {} tokens for --users {count}", tokens.len()));
    }
    let names = tokens
        .iter()
        .map(|token| subject(token))
        .collect::<anyhow::Result<_>>()?;
    Ok(Users { names, tokens })
}

/// Whose token it is; nobody's but a bench's.
fn subject(token: &str) -> anyhow::Result<String> {
    let payload = token.split('.').nth(1).context("a token is no JWT")?;
    let claims = URL_SAFE_NO_PAD.decode(payload).context("a token is no JWT")?;
    let claims: Value = serde_json::from_slice(&claims).context("a token's claims")?;
    match claims["sub"].as_str() {
        Some(user) if user.starts_with(PREFIX) => Ok(user.to_owned()),
        Some(user) => Err(anyhow!(
            "a token is for `{user}`: the users of a bench are named {PREFIX}…"
        )),
        None => Err(anyhow!("a token has no claim `sub`")),
    }
}

fn by_command(command: &str, names: Vec<String>) -> anyhow::Result<Users> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("--token-command")?;
    let mut input = child.stdin.take().context("--token-command has no input")?;
    let lines = names.join("\n") + "\n";
    // Written beside the reading: the command may answer each line before it takes the next.
    let writer = std::thread::Builder::new()
        .name("token-command".into())
        .spawn(move || input.write_all(lines.as_bytes()))?;
    let output = child.wait_with_output().context("--token-command")?;
    let written = writer
        .join()
        .map_err(|_| anyhow!("--token-command: its input broke off"))?;
    if !output.status.success() {
        return Err(anyhow!("--token-command ended with {}", output.status));
    }
    written.context("--token-command does not read its input")?;
    let text = String::from_utf8(output.stdout).context("--token-command wrote no text")?;
    let tokens: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if tokens.len() != names.len() {
        return Err(anyhow!(
            "--token-command wrote {} lines for {} users",
            tokens.len(),
            names.len()
        ));
    }
    Ok(Users { names, tokens })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_file_say_whose_they_are() {
        let users = sign("a secret", "bench-x-", 3, Map::new(), Some("bench-x")).unwrap();
        let text = users.tokens.join("\n") + "\n\n";
        let read = from_lines(&text, 3).unwrap();
        assert_eq!(read.names, ["bench-x-000000", "bench-x-000001", "bench-x-000002"]);
        assert!(from_lines(&text, 4).unwrap_err().to_string().contains("3 tokens"));
    }

    #[test]
    fn nobody_elses_token_is_used() {
        let users = sign("a secret", "ada-", 1, Map::new(), None).unwrap();
        let error = from_lines(&users.tokens[0], 1).unwrap_err().to_string();
        assert!(error.contains("ada-000000"), "{error}");
        assert!(from_lines("nonsense", 1).is_err());
    }

    #[test]
    fn a_command_makes_a_token_for_each() {
        let _turn = crate::turn();
        let names = Users::names("bench-", 3);
        let users = by_command("sed 's/^/token-of-/'", names.clone()).unwrap();
        assert_eq!(users.tokens[2], "token-of-bench-000002");
        assert!(
            by_command("head -n 1", names.clone())
                .unwrap_err()
                .to_string()
                .contains("1 lines")
        );
        assert!(by_command("cat; exit 3", names).is_err());
    }
}
