//! What no single value shows: rules within texts and between keys.

use super::secret::HIDDEN;
use super::value::{quoted, quoted_url};
use super::{Config, EngineKind, INBOX, Part, SourceConfig};
use crate::auth::{Origins, PublicKey, is_open_to_all, is_topic_pattern, jwks_url_fault};

/// A secret or key shorter than this can be guessed or forged.
const SHORT_SECRET_BYTES: usize = 32;
/// An API key shorter than this deserves a word.
const SHORT_KEY_BYTES: usize = 16;

/// Where the API begins to have something.
const OWN_PATHS: [&str; 5] = ["/v1/", "/twirp/", "/openapi.json", "/docs", "/demo"];

/// A rule that is broken.
pub(super) struct Broken {
    /// The keys that it is about; the fault stands at the first that somebody set.
    pub keys: &'static [&'static str],
    pub what: String,
}

/// Every rule that is broken.
pub(super) fn faults(config: &Config) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut rule = |holds: bool, keys: &'static [&'static str], what: &str| {
        if !holds {
            broken.push(Broken {
                keys,
                what: what.into(),
            });
        }
    };
    rule(
        config
            .auth
            .jwt
            .hmac_secret
            .as_ref()
            .is_none_or(|s| !s.expose().contains("-----BEGIN ")),
        &["auth.jwt.hmac_secret"],
        "is a PEM key, not a secret; set a public key as auth.jwt.public_key_pem",
    );
    if let Some(Err(fault)) = config.auth.jwt.public_key_pem.as_deref().map(PublicKey::read) {
        rule(false, &["auth.jwt.public_key_pem"], &fault.to_string());
    }
    if let Some(url) = &config.auth.jwt.jwks_url
        && let Some(fault) = jwks_url_fault(url)
    {
        let what = format!("{fault}: {}", quoted_url(url));
        rule(false, &["auth.jwt.jwks_url"], &what);
    }
    rule(
        config.auth.cookie.as_deref().is_none_or(is_token),
        &["auth.cookie"],
        "is no name of a cookie: letters, digits and !#$%&'*+-.^_`|~ are allowed",
    );
    rule(
        config.http.tls.cert.is_some() || config.http.tls.key.is_none(),
        &["http.tls.key"],
        "is set without http.tls.cert; TLS needs both",
    );
    rule(
        config.http.tls.key.is_some() || config.http.tls.cert.is_none(),
        &["http.tls.cert"],
        "is set without http.tls.key; TLS needs both",
    );
    rule(
        config.session.silence > config.session.keep_alive,
        &["session.silence", "session.keep_alive"],
        "session.silence must be more than session.keep_alive, or every client is taken for gone",
    );
    rule(
        config.auth.jwt.jwks_max_stale >= config.auth.jwt.jwks_refresh,
        &["auth.jwt.jwks_max_stale", "auth.jwt.jwks_refresh"],
        "auth.jwt.jwks_max_stale must not be less than auth.jwt.jwks_refresh",
    );
    redis_faults(config, &mut broken);
    let instance = config.instance.as_deref();
    broken.extend(instance.and_then(super::registry::instance_fault));
    broken.extend(config.registry.faults(config.engine.kind));
    api_key_faults(config, &mut broken);
    list_faults(config, &mut broken);
    notify_faults(config, &mut broken);
    broken
}

fn redis_faults(config: &Config, broken: &mut Vec<Broken>) {
    let mut fault = |key: &'static [&'static str], what: String| {
        broken.push(Broken { keys: key, what });
    };
    let redis = &config.engine.redis;
    if config.engine.kind == EngineKind::Redis
        && let Some(lack) = Part::Redis.lack()
    {
        return fault(&["engine.type"], format!("`redis` {lack}"));
    }
    match &redis.url {
        None if config.engine.kind == EngineKind::Redis => fault(
            &["engine.type"],
            "`redis` needs engine.redis.url, such as redis://127.0.0.1:6379".into(),
        ),
        Some(url) => {
            if let Err(what) = url.read() {
                fault(&["engine.redis.url"], what.to_string());
            } else if url.expose().contains(&format!(":{HIDDEN}@")) {
                let what = format!("has {HIDDEN} for a password, which stands for one that was not shown");
                fault(&["engine.redis.url"], what);
            }
        }
        None => {}
    }
    if redis.tls.cert.is_some() != redis.tls.key.is_some() {
        fault(
            &["engine.redis.tls.cert", "engine.redis.tls.key"],
            "engine.redis.tls.cert and engine.redis.tls.key are set together or not at all".into(),
        );
    }
    if redis.patience < redis.timeout {
        fault(
            &["engine.redis.patience", "engine.redis.timeout"],
            "engine.redis.patience must not be less than engine.redis.timeout".into(),
        );
    }
}

/// What is wrong with a key of a source, beside what is wrong with the source by itself.
pub(super) struct OfSource {
    /// The source's name.
    pub name: String,
    pub key: &'static str,
    pub what: String,
}

/// Rules between sources and what else is configured; a channel that was found unfit is no reason to speak of its sources.
pub(super) fn source_faults(config: &Config, is_unfit: impl Fn(&str) -> bool) -> Vec<OfSource> {
    let mut broken = Vec::new();
    for (name, source) in &config.sources {
        let mut fault = |key, what| {
            broken.push(OfSource {
                name: name.clone(),
                key,
                what,
            });
        };
        let words = source.deliver_to();
        if words.is_empty() {
            fault("deliver_to", "is empty: name `inbox`, a channel, or both".into());
        }
        if source.leaves() && words.iter().any(|word| word != INBOX) {
            let what = "`leave` asks for sessions, and recipients of a channel have none";
            fault("offline", what.into());
        }
        for word in words {
            if word != INBOX && !config.channels.contains_key(word) && !is_unfit(word) {
                let there: Vec<_> = config.channels.keys().map(String::as_str).collect();
                let there = match there.is_empty() {
                    true => "there is no channel".to_owned(),
                    false => format!("there are {}", there.join(", ")),
                };
                fault(
                    "deliver_to",
                    format!("names the channel {}; {there}", quoted(word)),
                );
            }
        }
        if let SourceConfig::Sqs(queue) = source
            && let Some(what) = queue.instance_fault(config.instance.as_deref())
        {
            fault("queue_name", what);
        }
    }
    broken
}

fn api_key_faults(config: &Config, broken: &mut Vec<Broken>) {
    let keys = &config.auth.api_keys;
    for (i, key) in keys.iter().enumerate() {
        let earlier = &keys[..i];
        if config.sources.contains_key(&key.name) {
            // What comes from a source is its own, as what a key publishes is the key's.
            let what = format!(
                "entry {i} has the name of the source `{0}`, so that it could cancel what comes from there; rename one of them",
                key.name
            );
            broken.push(Broken {
                keys: &["auth.api_keys"],
                what,
            });
        }
        for (is_twice, what) in [
            (earlier.iter().any(|other| other.name == key.name), "name"),
            (earlier.iter().any(|other| other.key == key.key), "key"),
        ] {
            if is_twice {
                let what = format!("entry {i} has the {what} of an earlier one");
                broken.push(Broken {
                    keys: &["auth.api_keys"],
                    what,
                });
            }
        }
    }
}

fn notify_faults(config: &Config, broken: &mut Vec<Broken>) {
    let mut fault = |keys: &'static [&'static str], what: String| broken.push(Broken { keys, what });
    let is_path = |path: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
        path.starts_with('/') && path.bytes().all(plain)
    };
    let mut taken: Vec<&str> = Vec::new();
    let paths: [(&'static [&'static str], _); 3] = [
        (&["notify.path"], &config.notify.path),
        (&["raw.path"], &config.raw.path),
        (&["raw.health"], &config.raw.health),
    ];
    for (keys, path) in paths {
        let Some(path) = path else { continue };
        if !is_path(path) || OWN_PATHS.iter().any(|own| path.starts_with(own)) {
            let what = "must begin with / and hold letters, digits and -._~/ only, and no path of the API";
            fault(keys, format!("{what}, not {}", quoted(path)));
        } else if taken.contains(&path.as_str()) {
            fault(
                keys,
                format!("{path} is the path of something else; take another"),
            );
        }
        taken.push(path);
    }
    for origin in config
        .notify
        .origins
        .iter()
        .filter(|origin| !Origins::is_origin(origin))
    {
        let what = format!("`{origin}` is no origin: write scheme://host[:port] without a path, or *");
        fault(&["notify.origins"], what);
    }
}

fn list_faults(config: &Config, broken: &mut Vec<Broken>) {
    for origin in config
        .http
        .allowed_origins
        .iter()
        .filter(|origin| !Origins::is_origin(origin))
    {
        let what = format!("`{origin}` is no origin: write scheme://host[:port] without a path, or *");
        broken.push(Broken {
            keys: &["http.allowed_origins"],
            what,
        });
    }
    for pattern in config
        .topics
        .open
        .iter()
        .filter(|pattern| !is_topic_pattern(pattern))
    {
        let what = format!("`{pattern}` is no pattern: a topic's characters and * are allowed");
        broken.push(Broken {
            keys: &["topics.open"],
            what,
        });
    }
}

/// RFC 9110, 5.6.2.
fn is_token(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// What deserves a word.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let jwt = &config.auth.jwt;
    if jwt.hmac_secret.is_none()
        && jwt.public_key_pem.is_none()
        && jwt.jwks_url.is_none()
        && !config.is_for_channels_alone()
    {
        let keys = "auth.jwt.hmac_secret, auth.jwt.public_key_pem or auth.jwt.jwks_url";
        out.push(format!("none of {keys} is set: no user can connect"));
    }
    if jwt
        .hmac_secret
        .as_ref()
        .is_some_and(|secret| secret.expose().len() < SHORT_SECRET_BYTES)
    {
        out.push(format!(
            "auth.jwt.hmac_secret has fewer than {SHORT_SECRET_BYTES} bytes: tokens could be forged"
        ));
    }
    if let Some(url) = &jwt.jwks_url {
        if jwt.audience.is_none() {
            let what = "auth.jwt.jwks_url is set without auth.jwt.audience";
            out.push(format!(
                "{what}: tokens that the issuer made for others are taken too"
            ));
        }
        if is_open_to_all(url) {
            out.push("auth.jwt.jwks_url is not https: whoever is on the way can forge tokens".into());
        }
    }
    if config.auth.api_keys.is_empty() && config.sources.is_empty() {
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
    if !jwt.require_exp {
        out.push("auth.jwt.require_exp is off: a token without `exp` is good for ever".into());
    }
    out
}
