//! `postrider token`: mints a user token, as an application's back-end would.

use crate::exit::Failure;
use crate::output;
use crate::serve::ConfigArgs;
use anyhow::Context as _;
use clap::Args;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use postrider_model::{Millis, Timestamp, UserId};
use postrider_server::auth::is_topic_pattern;
use postrider_server::config::Config;
use serde_json::{Map, Value, json};

/// Arguments of `token`.
#[derive(Args)]
#[command(after_help = TOKEN_HELP)]
#[command(
    about = "Mint a user token",
    long_about = "Mint a user token, as an application's back-end would: a JWT for one user, signed with the \
    node's shared secret, with the claims that the configuration asks for. No node is asked."
)]
pub struct TokenArgs {
    /// The user the token is for
    #[arg(long)]
    user: String,
    /// The shared secret [default: auth.jwt.hmac_secret of the configuration, or $POSTRIDER_SECRET]
    #[arg(long)]
    secret: Option<String>,
    /// How long it is good
    #[arg(long, default_value = "24h")]
    ttl: String,
    /// A pattern of session topics that it allows, e.g. 'news/*'; may be given several times
    #[arg(long, value_name = "PATTERN")]
    topic: Vec<String>,
    /// Write {"user":…,"token":…,"expires_at":…}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

const TOKEN_HELP: &str = "\
Examples:
  export POSTRIDER_TOKEN=\"$(postrider token --user ada --config postrider.yaml --ttl 1h)\"
  postrider token --user ada --secret \"$SECRET\" --topic 'news/*'
  postrider token --user ada --config postrider.yaml --json | jq -r .expires_at";

/// Prints a token.
pub fn run(args: &TokenArgs) -> Result<(), Failure> {
    let user = UserId::new(&args.user).map_err(|e| Failure::usage(format!("--user: {e}")))?;
    let ttl = Millis::parse(&args.ttl).map_err(|e| Failure::usage(format!("--ttl: {e}")))?;
    if args.secret.as_deref() == Some("") {
        return Err(Failure::usage("--secret: is empty"));
    }
    if let Some(pattern) = args.topic.iter().find(|pattern| !is_topic_pattern(pattern)) {
        return Err(Failure::usage(format!(
            "--topic: `{pattern}` is no pattern: a topic's characters (A-Z a-z 0-9 . _ : / @ + ~ -) and * are allowed"
        )));
    }
    let config = args.config.load()?.config;
    let configured = config.auth.jwt.hmac_secret.as_ref().map(|secret| secret.expose());
    let environment = std::env::var("POSTRIDER_SECRET")
        .ok()
        .filter(|secret| !secret.is_empty());
    let Some(secret) = args.secret.as_deref().or(configured).or(environment.as_deref()) else {
        let what = if config.auth.jwt.public_key_pem.is_some() {
            "no secret: this configuration has only a public key, so tokens come from whoever holds the private one; for tests give both --secret here and auth.jwt.hmac_secret to the node"
        } else {
            "no secret: give --config with auth.jwt.hmac_secret, or --secret, or set POSTRIDER_SECRET"
        };
        return Err(Failure::usage(what));
    };
    let token = mint(&config, secret, &user, ttl, &args.topic)?;
    if !args.json {
        return output::line(&token);
    }
    // The claim is in whole seconds.
    let expires_at = Timestamp(postrider_server::now().plus(ttl).0 / 1000 * 1000);
    output::json(&json!({"user": user, "token": token, "expires_at": expires_at}))
}

/// Signs a token with the claims that this configuration asks for.
pub fn mint(
    config: &Config,
    secret: &str,
    user: &UserId,
    ttl: Millis,
    topics: &[String],
) -> anyhow::Result<String> {
    let jwt = &config.auth.jwt;
    let now = postrider_server::now();
    let mut claims = Map::new();
    claims.insert(jwt.user_claim.clone(), user.as_str().into());
    claims.insert("iat".into(), (now.0 / 1000).into());
    claims.insert("exp".into(), (now.plus(ttl).0 / 1000).into());
    for (name, value) in [("iss", &jwt.issuer), ("aud", &jwt.audience)] {
        if let Some(value) = value.as_ref().and_then(|any| any.as_slice().first()) {
            claims.insert(name.into(), value.as_str().into());
        }
    }
    if !topics.is_empty() {
        claims.insert("topics".into(), topics.into());
    }
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &Value::Object(claims), &key)
        .context("the token could not be signed")
}
