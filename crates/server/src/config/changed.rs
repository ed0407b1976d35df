//! Which keys differ between two configurations.

use super::Config;
use super::key::{Kind, keys};
use super::{channels, named, sources, tree};

/// The dotted keys whose values differ, by the alphabet. Secrets are compared, and never shown.
pub fn changed(old: &Config, new: &Config) -> Vec<String> {
    let trees = (tree::of(old), tree::of(new));
    let differs = |name: &str| tree::get(&trees.0, name) != tree::get(&trees.1, name);
    let changed = keys().iter().filter(|key| match key.kind {
        // In the trees they are all alike.
        Kind::Secret | Kind::ApiKeys(_) => {
            differs(&key.name) || secrets(old, &key.name) != secrets(new, &key.name)
        }
        _ => differs(&key.name),
    });
    let of_sources = named::changed(&sources::MAP, &old.sources, &new.sources);
    let of_channels = named::changed(&channels::MAP, &old.channels, &new.channels);
    let fixed = changed.map(|key| key.name.clone());
    fixed.chain(of_sources).chain(of_channels).collect()
}

/// The secrets under one key.
fn secrets<'a>(config: &'a Config, key: &str) -> Vec<&'a str> {
    match key {
        "auth.jwt.hmac_secret" => config
            .auth
            .jwt
            .hmac_secret
            .iter()
            .map(|secret| secret.expose())
            .collect(),
        "engine.redis.url" => config.engine.redis.url.iter().map(|url| url.expose()).collect(),
        "registry.url" => config.registry.url.iter().map(|url| url.expose()).collect(),
        "registry.password" => config
            .registry
            .password
            .iter()
            .map(|secret| secret.expose())
            .collect(),
        "auth.api_keys" => config.auth.api_keys.iter().map(|key| key.key.expose()).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Given, load};

    fn with(sets: &[String]) -> Config {
        let given = Given {
            sets: sets.to_vec(),
            ..Given::default()
        };
        load(&given).unwrap().config
    }

    #[test]
    fn the_password_of_an_address_is_compared_and_the_rest_of_it() {
        let at = |url: &str| with(&[format!("engine.redis.url={url}")]);
        let old = at("redis://:one@host");
        assert!(changed(&old, &old.clone()).is_empty());
        for other in ["redis://:two@host", "redis://:one@other"] {
            assert_eq!(changed(&old, &at(other)), ["engine.redis.url"]);
        }
    }

    #[test]
    fn a_secret_is_compared() {
        let api_key =
            |key: &str| format!(r#"auth.api_keys=[{{"name":"a","key":"{key}","scopes":["read"]}}]"#);
        let secrets = |a: &str, b: &str| with(&[format!("auth.jwt.hmac_secret={a}"), api_key(b)]);
        let old = secrets("one", "two");
        assert!(changed(&old, &old.clone()).is_empty());
        assert_eq!(changed(&old, &secrets("other", "two")), ["auth.jwt.hmac_secret"]);
        assert_eq!(changed(&old, &secrets("one", "other")), ["auth.api_keys"]);
    }

    #[test]
    fn a_key_with_secrets_is_one_that_is_compared() {
        let named = [
            "auth.api_keys",
            "auth.jwt.hmac_secret",
            "engine.redis.url",
            "registry.password",
            "registry.url",
        ];
        let secret = keys()
            .iter()
            .filter(|key| matches!(key.kind, Kind::Secret | Kind::ApiKeys(_)));
        assert_eq!(secret.map(|key| key.name.as_str()).collect::<Vec<_>>(), named);
    }

    #[test]
    fn other_keys_are_named_whole() {
        let new = with(&["http.listen=127.0.0.1:1".into(), "log.level=debug".into()]);
        assert_eq!(changed(&Config::default(), &new), ["http.listen", "log.level"]);
        assert_eq!(changed(&new, &Config::default()), ["http.listen", "log.level"]);
    }
}
