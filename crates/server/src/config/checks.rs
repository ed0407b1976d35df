//! What types cannot say: rules between and within values.

use super::Config;
use super::keys::nearest;
use super::layers::kind;
use crate::auth::{Origins, PublicKey, Scope, is_topic_pattern};
use serde_json::Value;

/// A secret or key shorter than this can be guessed or forged.
const SHORT_SECRET_BYTES: usize = 32;
/// An API key shorter than this deserves a word.
const SHORT_KEY_BYTES: usize = 16;

/// Every rule that is broken: the key, and what is wrong.
pub(super) fn faults(config: &Config) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    let mut rule = |holds: bool, key: &'static str, what: String| {
        if !holds {
            faults.push((key, what));
        }
    };
    let secret = config.auth.jwt.hmac_secret.as_ref();
    rule(
        secret.is_none_or(|s| !s.expose().is_empty()),
        "auth.jwt.hmac_secret",
        "is empty".into(),
    );
    rule(
        secret.is_none_or(|s| !s.expose().contains("-----BEGIN ")),
        "auth.jwt.hmac_secret",
        "is a PEM key, not a secret; set a public key as auth.jwt.public_key_pem".into(),
    );
    let public_key = config.auth.jwt.public_key_pem.as_deref().map(PublicKey::read);
    if let Some(Err(fault)) = public_key {
        rule(false, "auth.jwt.public_key_pem", fault.to_string());
    }
    rule(
        !config.auth.jwt.user_claim.is_empty(),
        "auth.jwt.user_claim",
        "is empty".into(),
    );
    rule(
        config.auth.ticket_ttl.0 > 0,
        "auth.ticket_ttl",
        "must be more than zero".into(),
    );
    if let Some(cookie) = &config.auth.cookie {
        let token = cookie
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        rule(
            token && !cookie.is_empty(),
            "auth.cookie",
            "is no name of a cookie".into(),
        );
    }
    for (i, key) in config.auth.api_keys.iter().enumerate() {
        let earlier = &config.auth.api_keys[..i];
        rule(
            !key.name.is_empty(),
            "auth.api_keys",
            format!("entry {i} has an empty name"),
        );
        rule(
            !key.key.expose().is_empty(),
            "auth.api_keys",
            format!("entry {i} has an empty key"),
        );
        rule(
            !earlier.iter().any(|other| other.name == key.name),
            "auth.api_keys",
            format!("entry {i} has the name of an earlier one"),
        );
        rule(
            !earlier.iter().any(|other| other.key == key.key),
            "auth.api_keys",
            format!("entry {i} has the key of an earlier one"),
        );
    }
    for origin in &config.http.allowed_origins {
        let what = format!("`{origin}` is no origin: write scheme://host[:port] without a path, or *");
        rule(Origins::is_origin(origin), "http.allowed_origins", what);
    }
    for pattern in &config.topics.open {
        let what = format!("`{pattern}` is no pattern: a topic's characters and * are allowed");
        rule(is_topic_pattern(pattern), "topics.open", what);
    }
    let positive = [
        ("http.max_body", config.http.max_body.0),
        ("limits.data", config.limits.data.0),
        ("limits.array", config.limits.array as u64),
        ("limits.json_depth", config.limits.json_depth as u64),
        (
            "limits.users_per_notification",
            config.limits.users_per_notification as u64,
        ),
        ("limits.sessions_per_user", config.limits.sessions_per_user as u64),
    ];
    for (key, value) in positive {
        rule(value > 0, key, "must be more than zero".into());
    }
    faults
}

/// What deserves a word.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut out = Vec::new();
    match &config.auth.jwt.hmac_secret {
        None if config.auth.jwt.public_key_pem.is_none() => out.push(
            "neither auth.jwt.hmac_secret nor auth.jwt.public_key_pem is set: no user can connect".into(),
        ),
        None => {}
        Some(secret) if secret.expose().len() < SHORT_SECRET_BYTES => out.push(format!(
            "auth.jwt.hmac_secret has fewer than {SHORT_SECRET_BYTES} bytes: tokens could be forged"
        )),
        Some(_) => {}
    }
    if config.auth.api_keys.is_empty() {
        out.push("auth.api_keys is empty: nobody can publish".into());
    }
    for key in config
        .auth
        .api_keys
        .iter()
        .filter(|key| key.key.expose().len() < SHORT_KEY_BYTES)
    {
        out.push(format!(
            "the API key named `{}` has fewer than {SHORT_KEY_BYTES} bytes",
            key.name
        ));
    }
    if !config.auth.jwt.require_exp {
        out.push("auth.jwt.require_exp is off: a token without `exp` is good for ever".into());
    }
    out
}

/// Says what is wrong with a list of keys without repeating any of it.
pub(super) fn api_keys_shape(value: &Value) -> String {
    const SHAPE: &str = "a list of {name, key, scopes} is needed";
    let Some(entries) = value.as_array() else {
        return format!("{SHAPE}, not {}", kind(value));
    };
    for (i, entry) in entries.iter().enumerate() {
        let Some(entry) = entry.as_object() else {
            return format!("{SHAPE}; entry {i} is {}", kind(entry));
        };
        for name in ["name", "key", "scopes"] {
            if !entry.contains_key(name) {
                return format!("{SHAPE}; entry {i} has no `{name}`");
            }
        }
        if entry.len() > 3 {
            return format!("{SHAPE}; entry {i} has more fields than these");
        }
        for name in ["name", "key"] {
            if !entry[name].is_string() {
                return format!(
                    "`{name}` of entry {i} must be a string, not {}",
                    kind(&entry[name])
                );
            }
        }
        let Some(scopes) = entry["scopes"].as_array() else {
            return format!(
                "`scopes` of entry {i} must be a list, not {}",
                kind(&entry["scopes"])
            );
        };
        let known = || Scope::ALL.iter().map(|scope| scope.as_str());
        if let Some(scope) = scopes
            .iter()
            .find(|s| !known().any(|name| s.as_str() == Some(name)))
        {
            let near = scope.as_str().and_then(|text| nearest(text, known()));
            let near = near
                .map(|near| format!("; the nearest is `{near}`"))
                .unwrap_or_default();
            return format!(
                "entry {i} has an unknown scope; there are publish, broadcast, manage, read{near}"
            );
        }
    }
    SHAPE.into()
}
