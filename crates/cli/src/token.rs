//! `postrider token`: mints a user token, as an application's back-end would.

use crate::exit::Failure;
use crate::serve::ConfigArgs;
use anyhow::Context as _;
use clap::Args;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use postrider_model::{Millis, UserId};
use postrider_server::auth::is_topic_pattern;
use postrider_server::config::Config;
use serde_json::{Map, Value};

/// Arguments of `token`.
#[derive(Args)]
#[command(after_help = "Example:\n  TOKEN=$(postrider token --user ada --config postrider.yaml --ttl 1h)")]
pub struct TokenArgs {
    /// The user the token is for
    #[arg(long)]
    user: String,
    /// The shared secret; otherwise auth.jwt.hmac_secret of the configuration
    #[arg(long)]
    secret: Option<String>,
    /// How long it is good
    #[arg(long, default_value = "24h")]
    ttl: String,
    /// A pattern of session topics that it allows, e.g. 'news/*'; may be given several times
    #[arg(long, value_name = "PATTERN")]
    topic: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

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
    let Some(secret) = args.secret.as_deref().or(configured) else {
        let what = if config.auth.jwt.public_key_pem.is_some() {
            "no secret: this configuration has only a public key, so tokens come from whoever holds the private one; for tests give both --secret here and auth.jwt.hmac_secret to the node"
        } else {
            "no secret: give --secret, or --config with auth.jwt.hmac_secret"
        };
        return Err(Failure::usage(what));
    };
    println!("{}", mint(&config, secret, &user, ttl, &args.topic)?);
    Ok(())
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
