use super::*;

fn with(sets: &[&str]) -> Result<Loaded, Vec<String>> {
    let sets = sets.iter().map(|set| (*set).to_owned()).collect();
    load(&Given {
        sets,
        ..Given::default()
    })
    .map_err(texts)
}

fn texts(faults: Vec<ConfigFault>) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("postrider-config-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_later_layer_wins() {
    let yaml = file(
        "a.yaml",
        "http:\n  listen: 127.0.0.1:1\n  max_body: 1MiB\ntopics.open: [news]\nlimits:\n",
    );
    let toml = file(
        "b.toml",
        "[http]\nlisten = \"127.0.0.1:2\"\n[drain]\ntimeout = 3\n",
    );
    let given = Given {
        files: vec![yaml.clone(), toml.clone()],
        env: [
            ("POSTRIDER_HTTP__LISTEN", "127.0.0.1:3"),
            ("POSTRIDER_TOPICS__OPEN", "[\"*\"]"),
            ("POSTRIDER_PORT", "tcp://x"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        sets: vec![
            "http.listen=127.0.0.1:4".into(),
            "auth.jwt.hmac_secret=12345".into(),
        ],
    };
    let loaded = load(&given).unwrap();
    for path in [yaml, toml] {
        std::fs::remove_file(path).unwrap();
    }
    let config = &loaded.config;
    assert_eq!(config.http.listen.port(), 4);
    assert_eq!(config.http.max_body.0, 1 << 20);
    assert_eq!(config.topics.open, ["*"]);
    assert_eq!(config.drain.timeout.0, 3000);
    assert_eq!(config.auth.jwt.hmac_secret.as_ref().unwrap().expose(), "12345");
    assert_eq!(loaded.origins["http.listen"], "--set");
    assert_eq!(
        loaded.origins["topics.open"],
        "environment POSTRIDER_TOPICS__OPEN"
    );
    assert!(loaded.warnings.iter().any(|w| w.contains("POSTRIDER_PORT")));
    let shown = crate::config::show(&loaded);
    assert!(!shown.contains("12345"), "{shown}");
}

#[test]
fn each_fault_is_one_line_with_place_and_key() {
    let table = [
        (
            "http.lisen=x",
            "--set: http.lisen: unknown key (nearest known key: http.listen)",
        ),
        ("http=x", "--set: http: is a section; set the keys in it"),
        (
            "engine.type=redis",
            "--set: engine.type: the engine `redis` is not in this release; there are `embedded` and `memory`",
        ),
        (
            "engine.redis.url=redis://x",
            "--set: engine.redis.url: not in this release; leave it at its default (unset)",
        ),
        (
            "retention.age=1d",
            "--set: retention.age: not in this release; leave it at its default (\"30d\")",
        ),
        (
            "limits.array=many",
            "--set: limits.array: invalid type: string \"many\", expected usize",
        ),
        (
            "auth.jwt.public_key_pem=file:/no/such/key.pem",
            "--set: auth.jwt.public_key_pem: names a file that cannot be read: No such file or directory (os error 2)",
        ),
        (
            "auth.jwt.hmac_secret=-----BEGIN PUBLIC KEY-----",
            "--set: auth.jwt.hmac_secret: is a PEM key, not a secret; set a public key as auth.jwt.public_key_pem",
        ),
        ("nonsense", "--set: nonsense: must be written key=value"),
    ];
    for (set, fault) in table {
        assert_eq!(with(&[set]).unwrap_err(), [fault], "{set}");
    }
    assert_eq!(with(&["a=1", "b=2"]).unwrap_err().len(), 2);
    assert!(
        with(&[
            "retention.age=720h",
            "limits.publish_rate=0",
            "engine.type=embedded"
        ])
        .is_ok()
    );
}

#[test]
fn a_fault_of_a_secret_does_not_repeat_it() {
    for set in [
        "auth.jwt.hmac_secret=",
        r#"auth.api_keys=[{"name":"a","key":"hush-hush"}]"#,
        r#"auth.api_keys=[{"name":"a","key":"hush-hush","scopes":["publsh"]}]"#,
        r#"auth.api_keys=[{"name":"a","key":["hush-hush"],"scopes":[]}]"#,
        r#"auth.api_keys=hush-hush"#,
        r#"auth.api_keys=[{"name":"a","key":"hush-hush","scopes":[]},{"name":"a","key":"b","scopes":[]}]"#,
    ] {
        let faults = with(&[set]).unwrap_err().join("\n");
        assert!(faults.starts_with("--set: auth."), "{faults}");
        assert!(!faults.contains("hush"), "{faults}");
    }
}

#[test]
fn a_broken_file_is_named_without_its_text() {
    for (name, text) in [
        ("c.yaml", "a: [hush"),
        ("c.toml", "a = hush"),
        ("c.ini", "hush"),
        ("d.yaml", "- hush"),
    ] {
        let path = file(name, text);
        let faults = texts(
            load(&Given {
                files: vec![path.clone()],
                ..Given::default()
            })
            .unwrap_err(),
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(faults.len(), 1);
        assert!(
            faults[0].starts_with(&path.display().to_string()) && !faults[0].contains("hush"),
            "{faults:?}"
        );
    }
}
