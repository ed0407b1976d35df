use super::*;
use crate::config::{Given, Loaded, load};

fn loaded(
    presets: &[&str],
    env: &[(&str, &str)],
    options: &[(&str, &str)],
    sets: &[&str],
) -> Result<Loaded, Vec<String>> {
    let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    load(&Given {
        presets: presets.iter().map(|&name| name.to_owned()).collect(),
        options: options.iter().map(owned).collect(),
        env: env
            .iter()
            .map(|(name, text)| (name.into(), text.into()))
            .collect(),
        sets: sets.iter().map(|&set| set.to_owned()).collect(),
        ..Given::default()
    })
    .map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

#[test]
fn every_preset_is_a_good_configuration_by_itself() {
    for preset in PRESETS {
        let loaded = loaded(&[preset.name], &[], &[], &[]).unwrap();
        for (key, _) in preset.keys {
            let origin = loaded.origins.get(*key);
            assert_eq!(origin, Some(&format!("preset {}", preset.name)), "{key}");
        }
    }
}

#[test]
fn what_later_layers_say_goes_before_a_preset() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, "http.listen: 127.0.0.1:1\nsession.silence: 200s\n").unwrap();
    let given = |env: &[(&str, &str)], sets: &[&str]| {
        let loaded = load(&Given {
            presets: vec!["redis-notify".into()],
            files: vec![file.clone()],
            env: env
                .iter()
                .map(|(name, text)| (name.into(), text.into()))
                .collect(),
            sets: sets.iter().map(|&set| set.to_owned()).collect(),
            ..Given::default()
        });
        loaded.unwrap()
    };
    let of_file = given(&[], &[]);
    assert_eq!(of_file.config.http.listen.port(), 1);
    assert_eq!(of_file.config.session.silence.0, 200_000);
    assert_eq!(of_file.config.session.keep_alive.0, 108_000);
    assert_eq!(of_file.config.auth.jwt.user_claim, "user_id");
    let port = ("PORT", ":2");
    assert_eq!(given(&[port], &[]).config.http.listen.to_string(), "0.0.0.0:2");
    let own = ("POSTRIDER_HTTP__LISTEN", "127.0.0.1:3");
    assert_eq!(given(&[own, port], &[]).config.http.listen.port(), 3);
    assert_eq!(
        given(&[own, port], &["http.listen=127.0.0.1:4"])
            .config
            .http
            .listen
            .port(),
        4
    );
    assert_eq!(given(&[("PORT", "")], &[]).config.http.listen.port(), 1);
}

#[test]
fn the_other_systems_options_lead_to_keys() {
    let options = [
        ("notify-jwt-secret", "0123456789"),
        ("notify-session-cookie", "sid"),
    ];
    let given = loaded(&["redis-notify"], &[], &options, &[]).unwrap();
    let secret = given.config.auth.jwt.hmac_secret.unwrap();
    assert_eq!(
        (secret.expose(), given.config.auth.cookie.as_deref()),
        ("0123456789", Some("sid"))
    );
    assert_eq!(given.origins["auth.cookie"], "--notify-session-cookie");
    let empty = loaded(&["redis-notify"], &[], &[("notify-session-cookie", "")], &[]).unwrap();
    assert_eq!(empty.config.auth.cookie, None);
    let without = loaded(&[], &[], &options[1..], &[]).unwrap_err();
    assert_eq!(
        without,
        ["--notify-session-cookie: is an option of --preset redis-notify"]
    );
}

#[test]
fn faults_of_presets() {
    let unknown = loaded(&["redis-notfy"], &[], &[], &[]).unwrap_err();
    assert_eq!(unknown.len(), 1);
    assert!(
        unknown[0].starts_with("--preset: redis-notfy: unknown preset (nearest: redis-notify); there are: "),
        "{unknown:?}"
    );
    let twice = loaded(&["redis-notify", "redis-notify"], &[], &[], &[]);
    assert!(twice.is_ok(), "it contradicts nothing");
    let port = loaded(&["redis-notify"], &[("PORT", "http")], &[], &[]).unwrap_err();
    assert_eq!(
        port,
        ["environment PORT: http.listen: must be :PORT, PORT or ADDRESS:PORT, not \"http\""]
    );
    let ignored = loaded(&[], &[("PORT", "http")], &[], &[]);
    assert!(ignored.is_ok(), "it is no variable of ours");
}

#[test]
fn two_presets_may_agree_and_not_contradict_each_other() {
    const fn preset(name: &'static str, keys: &'static [(&'static str, &'static str)]) -> Preset {
        Preset {
            name,
            meaning: "",
            keys,
            variables: &[],
            options: &[],
            joint: None,
        }
    }
    const ONE: Preset = preset("one", &[("a", "1"), ("b", "1")]);
    const AGREES: Preset = preset("agrees", &[("a", "1"), ("c", "2")]);
    const DIFFERS: Preset = preset("differs", &[("a", "2")]);
    assert!(contradictions(&[&ONE], &AGREES).is_empty());
    let faults = contradictions(&[&ONE, &AGREES], &DIFFERS);
    assert_eq!(faults.len(), 2);
    assert_eq!(
        faults[0].to_string(),
        "--preset: a: is 1 in the preset one and 2 in differs: they cannot be used together"
    );
}

#[test]
fn no_key_of_a_preset_stands_twice() {
    for preset in PRESETS {
        let mut keys: Vec<_> = preset.keys.iter().map(|(key, _)| key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), preset.keys.len(), "{}", preset.name);
    }
}
