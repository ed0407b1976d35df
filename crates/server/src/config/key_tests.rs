//! Every key, one after the other: what holds for all of them.

use super::*;
use crate::config::{Given, load};
use serde_json::json;

/// A value other than the default that the key takes, as text.
fn good(key: &Key) -> String {
    let least = |key: &Key| key.range().unwrap().0;
    match &key.kind {
        Kind::Duration | Kind::Size | Kind::Integer => least(key),
        Kind::Boolean => (key.default == json!(false)).to_string(),
        Kind::Text if key.name == "auth.jwt.jwks_url" => "https://id.example/keys".into(),
        Kind::Text if key.name == "notify.path" => "/notify/ws".into(),
        Kind::Text if key.name.starts_with("raw.") => format!("/{}", key.name),
        Kind::Text if key.name == "registry.table" => "app.notifiers".into(),
        Kind::Secret if matches!(key.name.as_str(), "engine.redis.url" | "registry.url") => {
            "redis://host:6379".into()
        }
        Kind::Text | Kind::Path | Kind::Secret => "something".into(),
        Kind::Address => "127.0.0.1:7".into(),
        Kind::Pem => PEM.into(),
        Kind::Choice(choices) => choices.last().unwrap().word.clone(),
        Kind::Texts if matches!(key.name.as_str(), "http.allowed_origins" | "notify.origins") => {
            r#"["https://a.example"]"#.into()
        }
        Kind::OneOrMany => r#"["one","two"]"#.into(),
        Kind::Texts => r#"["news"]"#.into(),
        Kind::ApiKeys(_) => r#"[{"name":"a","key":"b","scopes":["read"]}]"#.into(),
        Kind::RedisDurability => "wait:2".into(),
        Kind::Later => "null".into(),
    }
}

const PEM: &str = "-----BEGIN PUBLIC KEY-----\\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\\n-----END PUBLIC KEY-----";

fn load_variables(env: &[(String, String)]) -> Result<Config, Vec<String>> {
    let env = env
        .iter()
        .map(|(name, text)| (name.into(), text.into()))
        .collect();
    let loaded = load(&Given {
        env,
        ..Given::default()
    });
    loaded
        .map(|loaded| loaded.config)
        .map_err(|faults| faults.into_iter().map(|fault| fault.key).collect())
}

#[test]
fn every_key_has_a_meaning_and_every_number_a_range_with_its_default_in_it() {
    for key in keys() {
        assert!(
            key.meaning.ends_with(['.', '`']),
            "{}: {:?}",
            key.name,
            key.meaning
        );
        assert!(
            key.kind == Kind::Later || key.check(&key.default).is_ok(),
            "{}",
            key.name
        );
        let is_number = matches!(key.kind, Kind::Duration | Kind::Size | Kind::Integer);
        assert_eq!(
            key.range().is_some(),
            is_number,
            "{} has a range: {:?}",
            key.name,
            key.range()
        );
        for bound in [&key.minimum, &key.maximum].into_iter().flatten() {
            assert!(key.check(bound).is_ok(), "{}: {bound}", key.name);
        }
    }
    assert!(
        sections().iter().all(|section| section.meaning.ends_with('.')),
        "{:?}",
        sections()
    );
}

#[test]
fn the_keys_are_the_leaves_of_the_structs() {
    fn leaves(path: String, node: &Value, out: &mut Vec<String>) {
        match node.as_object() {
            Some(map) => {
                for (name, node) in map {
                    let path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    leaves(path, node, out);
                }
            }
            None => out.push(path),
        }
    }
    let mut out = Vec::new();
    leaves(String::new(), &tree::of(&Config::default()), &mut out);
    let names: Vec<_> = keys().iter().map(|key| key.name.clone()).collect();
    assert_eq!(names, out);
}

#[test]
fn every_key_takes_its_default_and_a_good_value_by_its_variable() {
    for key in keys() {
        let mut env = vec![(key.variable(), good(key))];
        // Keys that only go together.
        match key.name.as_str() {
            "http.tls.cert" => env.push(("POSTRIDER_HTTP__TLS__KEY".into(), "k".into())),
            "http.tls.key" => env.push(("POSTRIDER_HTTP__TLS__CERT".into(), "c".into())),
            "engine.redis.tls.cert" => env.push(("POSTRIDER_ENGINE__REDIS__TLS__KEY".into(), "k".into())),
            "engine.redis.tls.key" => env.push(("POSTRIDER_ENGINE__REDIS__TLS__CERT".into(), "c".into())),
            "engine.type" => env.push(("POSTRIDER_ENGINE__REDIS__URL".into(), "redis://host".into())),
            "engine.redis.patience" => env.push(("POSTRIDER_ENGINE__REDIS__TIMEOUT".into(), "50ms".into())),
            "session.silence" => env.push(("POSTRIDER_SESSION__KEEP_ALIVE".into(), "1s".into())),
            "auth.jwt.jwks_max_stale" => continue, // its least is less than the default of jwks_refresh
            _ => {}
        }
        let config = load_variables(&env).unwrap_or_else(|faults| panic!("{}: {faults:?}", key.name));
        let is_other = !crate::config::changed(&Config::default(), &config).is_empty();
        let is_least_the_default = key
            .minimum
            .as_ref()
            .is_some_and(|least| key.measure(least) == key.measure(&key.default));
        assert_eq!(
            is_other,
            key.kind != Kind::Later && !is_least_the_default,
            "{}",
            key.name
        );
        if !key.default.is_null() {
            let text = key
                .default
                .as_str()
                .map_or_else(|| key.default.to_string(), str::to_owned);
            assert!(load_variables(&[(key.variable(), text)]).is_ok(), "{}", key.name);
        }
    }
}

#[test]
fn every_key_refuses_what_it_does_not_take_and_the_fault_names_it() {
    for key in keys() {
        let mut bad = vec![json!({"a": 1}), json!([{"a": 1}])];
        match &key.kind {
            Kind::Duration => bad.extend([json!("soon"), json!(-1), json!("5 parsecs")]),
            Kind::Size => bad.extend([json!("big"), json!(-1), json!("1KB")]),
            Kind::Integer => bad.extend([json!("many"), json!(-1), json!(1.5)]),
            Kind::Boolean => bad.extend([json!("yes"), json!(1)]),
            Kind::Text | Kind::Path | Kind::Secret | Kind::Pem => bad.extend([json!(""), json!(5)]),
            Kind::Address => bad.extend([json!("8080"), json!(8080)]),
            Kind::Choice(_) => bad.extend([json!("other"), json!(1)]),
            Kind::OneOrMany => bad.extend([json!(""), json!(5), json!([5])]),
            Kind::Texts | Kind::ApiKeys(_) => bad.extend([json!("one"), json!(1), json!([1])]),
            Kind::RedisDurability => bad.extend([json!("wait"), json!(2), json!("")]),
            Kind::Later => bad.extend([json!("x")]),
        }
        for value in &bad {
            let what = key.check(value);
            assert!(what.is_err(), "{} takes {value}", key.name);
            let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
            std::fs::write(file.path(), json!({ &key.name: value }).to_string()).unwrap();
            let faults = load(&Given {
                files: vec![file.path().into()],
                ..Given::default()
            })
            .unwrap_err();
            assert_eq!(faults.len(), 1, "{}: {value}: {faults:?}", key.name);
            assert_eq!(
                (&faults[0].key, Err(faults[0].what.clone())),
                (&key.name, what),
                "{value}"
            );
        }
    }
}

#[test]
fn a_slip_in_a_key_finds_it() {
    for key in keys() {
        let slip = format!("{}q", &key.name[..key.name.len() - 1]);
        let faults = load(&Given {
            sets: vec![format!("{slip}=1")],
            ..Given::default()
        })
        .unwrap_err();
        assert_eq!(faults[0].nearest.as_deref(), Some(key.name.as_str()), "{slip}");
    }
}
