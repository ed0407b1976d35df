use super::*;
use crate::config::show;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

fn texts(faults: Vec<ConfigFault>) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

fn with(sets: &[&str]) -> Result<Loaded, Vec<String>> {
    let sets = sets.iter().map(|set| (*set).to_owned()).collect();
    load(&Given {
        sets,
        ..Given::default()
    })
    .map_err(texts)
}

fn with_env(env: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    let env = env
        .iter()
        .map(|(name, text)| (name.into(), text.into()))
        .collect();
    load(&Given {
        env,
        ..Given::default()
    })
    .map_err(texts)
}

/// Files in a directory of their own, so that messages can be compared without its name.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn load(&self, files: &[&Path]) -> Result<Loaded, Vec<String>> {
        let files = files.iter().map(|file| file.to_path_buf()).collect();
        let faults = load(&Given {
            files,
            ..Given::default()
        })
        .map_err(texts);
        let dir = format!("{}/", self.0.path().display());
        faults.map_err(|faults| faults.into_iter().map(|fault| fault.replace(&dir, "")).collect())
    }

    fn faults(&self, name: &str, bytes: impl AsRef<[u8]>) -> Vec<String> {
        let path = self.write(name, bytes);
        self.load(&[&path]).unwrap_err()
    }
}

#[test]
fn the_later_layer_wins() {
    let files = Files::new();
    let yaml =
        "http:\n  listen: 127.0.0.1:1\n  max_body: 1MiB\n  tls.cert: a\ntopics.open: [news]\nlimits:\n";
    let toml = "[http]\nlisten = \"127.0.0.1:2\"\n[drain]\ntimeout = 3\n";
    let properties = "limits.array = 7\ntopics.open=[\"a\", \\\n  \"b\"]\n";
    let given = Given {
        files: vec![
            files.write("a.yaml", yaml),
            files.write("b.toml", toml),
            files.write("c.properties", properties),
        ],
        env: [
            ("POSTRIDER_HTTP__LISTEN", "127.0.0.1:3"),
            ("POSTRIDER_TOPICS__OPEN", "[\"*\"]"),
            ("POSTRIDER_HTTP__TLS__CERT", "null"),
        ]
        .map(|(name, text)| (name.into(), text.into()))
        .into(),
        sets: vec![
            "http.listen=127.0.0.1:4".into(),
            "auth.jwt.hmac_secret=12345".into(),
        ],
        ..Given::default()
    };
    let loaded = load(&given).unwrap();
    let config = &loaded.config;
    assert_eq!(config.http.listen.port(), 4);
    assert_eq!(config.http.max_body.0, 1 << 20);
    assert_eq!(config.http.tls.cert, None);
    assert_eq!(config.topics.open, ["*"]);
    assert_eq!(config.limits.array, 7);
    assert_eq!(config.drain.timeout.0, 3000);
    assert_eq!(config.auth.jwt.hmac_secret.as_ref().unwrap().expose(), "12345");
    assert_eq!(loaded.origins["http.listen"], "--set");
    assert_eq!(
        loaded.origins["topics.open"],
        "environment POSTRIDER_TOPICS__OPEN"
    );
    assert!(loaded.origins["limits.array"].ends_with("c.properties:1"));
    let shown = show(&loaded);
    assert!(
        !shown.contains("12345") && shown.contains("auth.jwt.hmac_secret: \"***\""),
        "{shown}"
    );
}

#[test]
fn each_fault_is_one_line_with_place_and_key() {
    let table = [
        (
            "http.lisen=x",
            "http.lisen: unknown key (nearest known key: http.listen)",
        ),
        (
            "HTTP.listen=x",
            "HTTP.listen: unknown key (nearest known key: http.listen)",
        ),
        ("listen=x", "listen: unknown key (nearest known key: ops.listen)"),
        ("http=x", "http: is a section; set the keys in it"),
        (
            "http.listen=8080",
            "http.listen: must be an IP address and a port such as 127.0.0.1:8080, not \"8080\"",
        ),
        (
            "http.listen=:8080",
            "http.listen: must be an IP address and a port such as 127.0.0.1:8080, not \":8080\"; write 0.0.0.0:8080 for all addresses, 127.0.0.1:8080 for this machine only",
        ),
        (
            "http.listen=localhost:8080",
            "http.listen: must be an IP address and a port such as 127.0.0.1:8080, not \"localhost:8080\"; names are not looked up: write 127.0.0.1:8080",
        ),
        (
            "http.listen=127.0.0.1:80800",
            "http.listen: must be an IP address and a port such as 127.0.0.1:8080, not \"127.0.0.1:80800\"; ports end at 65535",
        ),
        (
            "engine.type=nats",
            "engine.type: `nats` is not in this release; there are `embedded`, `memory`, `redis`",
        ),
        (
            "engine.type=Memory",
            "engine.type: must be one of `embedded`, `memory`, `redis`, not \"Memory\"; the nearest is `memory`",
        ),
        (
            "engine.type=redis",
            "engine.type: `redis` needs engine.redis.url, such as redis://127.0.0.1:6379",
        ),
        (
            "engine.redis.durability=wait",
            "engine.redis.durability: must be `none`, `wait:N` with 1 to 16 replicas, such as `wait:1`, or `aof`, not \"wait\"",
        ),
        (
            "limits.array=many",
            "limits.array: must be a whole number, not \"many\"",
        ),
        ("limits.array=-5", "limits.array: must be a whole number, not -5"),
        (
            "limits.array=5.5",
            "limits.array: must be a whole number, not 5.5",
        ),
        ("limits.array=0", "limits.array: must be at least 1, not 0"),
        (
            "limits.json_depth=121",
            "limits.json_depth: must be at most 120, not 121",
        ),
        (
            "drain.timeout=5 minutes",
            "drain.timeout: must be a duration such as 20s (units ms, s, m, h, d; a bare number is seconds), not \"5 minutes\"; write 5m",
        ),
        (
            "drain.timeout=",
            "drain.timeout: must be a duration such as 20s (units ms, s, m, h, d; a bare number is seconds), not \"\"",
        ),
        ("drain.timeout=2h", "drain.timeout: must be at most 1h, not 2h"),
        ("ack.flush=1ms", "ack.flush: must be at least 10ms, not 1ms"),
        (
            "http.max_body=16MB",
            "http.max_body: must be a size such as 16MiB (units B, KiB, MiB, GiB, TiB; a bare number is bytes), not \"16MB\"; write 16MiB",
        ),
        ("http.max_body=12", "http.max_body: must be at least 1KiB, not 12"),
        (
            "session.tcp_evidence=yes",
            "session.tcp_evidence: must be true or false, not \"yes\"",
        ),
        (
            "topics.open=news",
            "topics.open: must be a list of texts such as [\"first\", \"second\"], not \"news\"",
        ),
        (
            "topics.open=[1]",
            "topics.open: must be a list of texts such as [\"first\", \"second\"]; entry 0 is a number",
        ),
        (
            "topics.open=[\"a b\"]",
            "topics.open: `a b` is no pattern: a topic's characters and * are allowed",
        ),
        (
            "data_dir=~/data",
            "data_dir: begins with ~, which only a shell knows; write the whole path",
        ),
        (
            "data_dir=",
            "data_dir: is empty; give a value, or leave the key out",
        ),
        (
            "http.tls.cert=a.pem",
            "http.tls.cert: is set without http.tls.key; TLS needs both",
        ),
        (
            "session.keep_alive=1m",
            "session.keep_alive: session.silence must be more than session.keep_alive, or every client is taken for gone",
        ),
        (
            "auth.jwt.jwks_url=ftp://id.example/keys",
            "auth.jwt.jwks_url: must begin with https:// or http://: \"ftp://id.example/keys\"",
        ),
        (
            "auth.jwt.public_key_pem=file:/no/such/key.pem",
            "auth.jwt.public_key_pem: names a file that cannot be read: No such file or directory (os error 2)",
        ),
        (
            "auth.jwt.hmac_secret=-----BEGIN PUBLIC KEY-----",
            "auth.jwt.hmac_secret: is a PEM key, not a secret; set a public key as auth.jwt.public_key_pem",
        ),
        (
            "auth.jwt.hmac_secret=***",
            "auth.jwt.hmac_secret: is ***, which stands for a secret that was not shown",
        ),
        ("=x", "must be written KEY=VALUE"),
        (
            "limits.b=1",
            "limits.b: unknown key (nearest known key: limits.data)",
        ),
        (
            "auth.api_keys=shop",
            "auth.api_keys: must be a list such as [{\"name\": \"shop\", \"key\": \"…\", \"scopes\": [\"publish\"]}], not a text",
        ),
        ("nonsense", "must be written KEY=VALUE"),
        (
            "http.listen",
            "http.listen: has no value: write --set http.listen=VALUE",
        ),
    ];
    for (set, fault) in table {
        assert_eq!(with(&[set]).unwrap_err(), [format!("--set: {fault}")], "{set}");
    }
}

#[test]
fn all_faults_come_at_once() {
    let sets = [
        "a=1",
        "limits.array=x",
        "ack.probe=0s",
        "http.tls.key=k",
        "topics.open=[\" \"]",
        "auth.cookie= ",
    ];
    let faults = with(&sets).unwrap_err();
    let keys: Vec<_> = faults
        .iter()
        .map(|fault| fault.split(": ").nth(1).unwrap())
        .collect();
    assert_eq!(
        keys,
        [
            "a",
            "limits.array",
            "ack.probe",
            "auth.cookie",
            "http.tls.key",
            "topics.open"
        ]
    );
    // A rule between two keys says nothing while one of them is wrong by itself.
    assert_eq!(
        with(&["session.keep_alive=1m", "session.silence=x"])
            .unwrap_err()
            .len(),
        1
    );
}

#[test]
fn a_value_that_is_overridden_is_looked_at_too() {
    let faults = with(&["limits.array=0", "limits.array=5"]).unwrap_err();
    assert_eq!(faults, ["--set: limits.array: must be at least 1, not 0"]);
}

#[test]
fn variables_that_nobody_knows_are_warned_about() {
    let loaded = with_env(&[
        ("POSTRIDER_PORT", "tcp://10.0.0.1:80"),
        ("POSTRIDER_HTTP_LISTEN", "127.0.0.1:1"),
        ("POSTRIDER_URL", "http://x"),
        ("POSTRIDER_MY_KEY", "hush"),
        ("POSTRIDER_AUTH__JWT__HMAC_SECRET", "env:POSTRIDER_MY_KEY"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    let about: Vec<_> = loaded
        .warnings
        .iter()
        .filter(|warning| warning.starts_with("environment: "))
        .collect();
    assert_eq!(
        about,
        [
            "environment: POSTRIDER_PORT is no configuration key; it is ignored",
            "environment: POSTRIDER_HTTP_LISTEN is no configuration key; it is ignored; the nearest is POSTRIDER_HTTP__LISTEN",
        ]
    );
}

#[test]
fn a_variable_that_is_no_text_is_a_fault() {
    let name = OsString::from("POSTRIDER_DATA_DIR");
    let env = vec![(name, OsString::from_vec(vec![0xff]))];
    let faults = load(&Given {
        env,
        ..Given::default()
    })
    .map_err(texts)
    .unwrap_err();
    assert_eq!(faults, ["environment POSTRIDER_DATA_DIR: data_dir: is not UTF-8"]);
    assert_eq!(
        with_env(&[("POSTRIDER_LIMITS__ARRAY", "")]).unwrap_err(),
        ["environment POSTRIDER_LIMITS__ARRAY: limits.array: must be a whole number, not \"\""]
    );
}

#[test]
fn a_fault_of_a_secret_does_not_repeat_it() {
    for set in [
        "auth.jwt.hmac_secret=",
        "auth.jwt.hmac_secret=vault:hush",
        r#"auth.api_keys=[{"name":"a","key":"hush-hush"}]"#,
        r#"auth.api_keys=[{"name":"a","key":"hush-hush","scopes":["publsh"]}]"#,
        r#"auth.api_keys=[{"name":"a","key":"hush-hush","scope":["publish"]}]"#,
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
fn a_secret_may_stand_elsewhere() {
    let files = Files::new();
    let secret = files.write("secret", "hush-hush-hush\n");
    let named = format!("file:{}", secret.display());
    let yaml = format!(
        "auth:\n  jwt:\n    hmac_secret: {named}\n  api_keys:\n  - {{name: a, key: 'env:KEY', scopes: [publish]}}\n  - {{name: b, key: plain, scopes: []}}\n"
    );
    let given = Given {
        files: vec![files.write("a.yaml", yaml)],
        env: vec![("KEY".into(), "the-other".into())],
        ..Given::default()
    };
    let loaded = load(&given).unwrap();
    assert_eq!(
        loaded.config.auth.jwt.hmac_secret.as_ref().unwrap().expose(),
        "hush-hush-hush"
    );
    let keys: Vec<_> = loaded
        .config
        .auth
        .api_keys
        .iter()
        .map(|key| key.key.expose())
        .collect();
    assert_eq!(keys, ["the-other", "plain"]);
    assert_eq!(loaded.references["auth.api_keys"], "env:KEY");
    let shown = show(&loaded);
    assert!(shown.contains(&format!("a.yaml, from {named}\n")), "{shown}");
    assert!(
        !shown.contains("hush-hush") && !shown.contains("the-other"),
        "{shown}"
    );
    // A second look sees what stands there now.
    std::fs::write(&secret, "changed").unwrap();
    let again = load(&given).unwrap();
    assert_eq!(
        crate::config::changed(&loaded.config, &again.config),
        ["auth.jwt.hmac_secret"]
    );
    std::fs::remove_file(&secret).unwrap();
    assert_eq!(load(&given).unwrap_err().len(), 1);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let files = Files::new();
    std::fs::create_dir(files.0.path().join("dir.yaml")).unwrap();
    let missing = files.0.path().join("missing.yaml");
    for (path, fault) in [
        (
            missing,
            "missing.yaml: cannot be read: No such file or directory (os error 2)",
        ),
        (
            files.0.path().join("dir.yaml"),
            "dir.yaml: is a directory; give the file itself",
        ),
        (
            files.write("a.ini", "x"),
            "a.ini: the name must end in .yaml, .yml, .json, .toml or .properties",
        ),
        (
            files.write("latin1.yaml", b"a: 1\nb: \xe9\n"),
            "latin1.yaml: is not UTF-8 (line 2)",
        ),
    ] {
        assert_eq!(files.load(&[&path]).unwrap_err(), [fault]);
    }
    let empty = files.write("empty.yaml", "# nothing yet\n");
    assert!(files.load(&[&empty]).is_ok());
}

#[test]
fn a_broken_file_is_named_with_the_line_and_without_its_text() {
    let files = Files::new();
    for (name, text, fault) in [
        (
            "a.yaml",
            "http:\n\tlisten: hush\n",
            "not valid YAML at line 2, column 2: a tab stands before the first word; indent with spaces",
        ),
        (
            "x.yaml",
            "http:\n    max_body: hush\n  listen: hush\n",
            "not valid YAML at line 3, column 3: it is indented like no line above it",
        ),
        (
            "y.yaml",
            "data_dir: hush\n---\ndata_dir: hush\n",
            "line 3: stands in a second document; one is read",
        ),
        (
            "z.yaml",
            "drain.timeout: '20'\n",
            "drain.timeout: must be a duration such as 20s (units ms, s, m, h, d; a bare number is seconds), not \"20\"; write 20 without quotes, or with its unit",
        ),
        ("b.yaml", "a: [hush", "not valid YAML at line 1, column 4"),
        (
            "c.yaml",
            "http:\n  listen: hush\n  listen: hush\n",
            "line 3: `listen` is given twice",
        ),
        ("d.yaml", "- hush", "must hold a map of keys, not a list"),
        (
            "e.yaml",
            "http.listen: 127.0.0.1:1\nhttp: {listen: 127.0.0.1:2}\n",
            "http.listen: is given twice",
        ),
        ("f.yaml", "hush\n", "must hold a map of keys, not a text"),
        ("g.yaml", "http: 5\n", "http: is a section; set the keys in it"),
        (
            "h.yaml",
            "htpp: {listen: hush}\n",
            "htpp: unknown key (nearest known key: http)",
        ),
        (
            "i.yaml",
            "http: {listen: {port: hush}}\n",
            "http.listen: must be an IP address and a port such as 127.0.0.1:8080, not a map",
        ),
        (
            "j.yaml",
            "http:\n  max_body:\n",
            "http.max_body: has no value; give one, or leave the key out",
        ),
        (
            "k.yaml",
            "limits: {array: '5'}\n",
            "limits.array: must be a whole number, not \"5\"; write it without quotes",
        ),
        (
            "l.yaml",
            "auth: {jwt: {hmac_secret: 1234}}\n",
            "auth.jwt.hmac_secret: must be a text, not a number; write it in quotes",
        ),
        (
            "m.yaml",
            "auth: {api_keys: [{name: a, key: 1234, scopes: []}]}\n",
            "auth.api_keys: `key` of entry 0 must be a text, not a number; write it in quotes",
        ),
        ("a.toml", "a = hush", "not valid TOML at line 1: "),
        (
            "b.toml",
            "[http]\nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:1\"\n",
            "not valid TOML at line 3: duplicate key",
        ),
        (
            "a.json",
            "{\"http\":\n {\"listen\": hush}}",
            "not valid JSON at line 2, column 13",
        ),
        (
            "b.json",
            "{\"data_dir\": \"hush\",\n \"data_dir\": \"hush\"}",
            "line 2: `data_dir` is given twice",
        ),
        (
            "a.properties",
            "a=1\na=hush\n",
            "line 2: this key was given before",
        ),
        (
            "b.properties",
            "\nlimits.array=hush\n",
            "limits.array: must be a whole number, not \"hush\"",
        ),
    ] {
        let faults = files.faults(name, text);
        let place = if name == "b.properties" {
            "b.properties:2"
        } else {
            name
        };
        assert_eq!(faults.len(), 1, "{faults:?}");
        let fault = format!("{place}: {fault}");
        assert!(
            faults[0] == fault || (fault.ends_with("line 1: ") && faults[0].starts_with(&fault)),
            "{faults:?}\n{fault}"
        );
        assert!(
            !faults[0].contains("hush") || name == "b.properties",
            "{faults:?}"
        );
    }
}
