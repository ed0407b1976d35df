//! `postrider config`: what an operator sees, from the real binary.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result};
use postrider_harness::node::binary;
use postrider_harness::tls::Authority;
use serde_json::Value;

/// Runs `postrider config ARGS` with nothing of this process's environment but what is given.
fn config(args: &[&str], env: &[(&str, &str)]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command
        .arg("config")
        .args(args)
        .env_clear()
        .envs(env.iter().copied());
    command
        .stdin(Stdio::null())
        .output()
        .context("postrider does not start")
}

fn stdout(output: &Output) -> Result<&str> {
    Ok(std::str::from_utf8(&output.stdout)?)
}

fn stderr_lines(output: &Output) -> Result<Vec<&str>> {
    Ok(std::str::from_utf8(&output.stderr)?.lines().collect())
}

struct Files(tempfile::TempDir);

impl Files {
    fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.0.path().join(name);
        std::fs::File::create(&path)?.write_all(text.as_bytes())?;
        Ok(path.display().to_string())
    }
}

#[test]
fn check_reports_every_fault_of_every_layer_in_one_run() -> Result<()> {
    let files = Files(tempfile::tempdir()?);
    let yaml = files.write("a.yaml", "http:\n  lisen: 127.0.0.1:1\nlimits.array: 0\n")?;
    let properties = files.write("b.properties", "# one\ndrain.timeout = 5 minutes\n")?;
    let args = [
        "check",
        "--config",
        &yaml,
        "--config",
        &properties,
        "--set",
        "log.level=INFO",
    ];
    let output = config(
        &args,
        &[("POSTRIDER_ACK__PROBE", "1w"), ("POSTRIDER_HTTP_LISTEN", "x")],
    )?;
    assert_eq!(output.status.code(), Some(2));
    let lines = stderr_lines(&output)?;
    let begins = [
        format!("{yaml}: http.lisen: unknown key (nearest known key: http.listen)"),
        format!("{yaml}: limits.array: must be at least 1, not 0"),
        format!("{properties}:2: drain.timeout: must be a duration such as 20s"),
        "environment POSTRIDER_ACK__PROBE: ack.probe: must be a duration such as 1s".into(),
        "--set: log.level: must be one of `error`, `warn`, `info`, `debug`, `trace`, not \"INFO\"; the nearest is `info`".into(),
    ];
    assert_eq!(lines.len(), begins.len(), "{lines:#?}");
    for (line, begin) in lines.iter().zip(&begins) {
        assert!(line.starts_with(begin.as_str()), "{line}\n{begin}");
    }
    Ok(())
}

#[test]
fn a_good_configuration_is_told_and_warned_about() -> Result<()> {
    let output = config(&["check"], &[("POSTRIDER_HTTP_LISTEN", "127.0.0.1:1")])?;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output)?, "the configuration is good\n");
    let slip = "warning: environment: POSTRIDER_HTTP_LISTEN is no configuration key; it is ignored; the nearest is POSTRIDER_HTTP__LISTEN";
    assert!(stderr_lines(&output)?.contains(&slip), "{output:?}");
    Ok(())
}

#[test]
fn show_names_the_origins_and_no_secret() -> Result<()> {
    let files = Files(tempfile::tempdir()?);
    let secret = format!(
        "file:{}",
        files.write("secret", "hush-hush-hush-hush-hush-hush-hush\n")?
    );
    let keys = r#"[{"name":"shop","key":"env:SHOP_KEY","scopes":["publish"]}]"#;
    let env = [
        ("POSTRIDER_AUTH__API_KEYS", keys),
        ("SHOP_KEY", "hush-of-the-shop"),
    ];
    let output = config(
        &["show", "--set", &format!("auth.jwt.hmac_secret={secret}")],
        &env,
    )?;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr_lines(&output)?, Vec::<&str>::new());
    let shown = stdout(&output)?;
    assert!(!shown.contains("hush"), "{shown}");
    let line = |key: &str| {
        shown
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default()
    };
    assert!(
        line("auth.jwt.hmac_secret: \"***\"").ends_with(&format!("# --set, from {secret}")),
        "{shown}"
    );
    assert!(
        line("auth.api_keys: ").ends_with("# environment POSTRIDER_AUTH__API_KEYS, from env:SHOP_KEY"),
        "{shown}"
    );
    assert!(
        line("http.listen: \"127.0.0.1:8080\"").ends_with("# default"),
        "{shown}"
    );
    // What is shown is a configuration, except that a hidden secret is refused.
    let again = files.write("again.yaml", shown)?;
    let output = config(&["check", "--config", &again], &[])?;
    assert_eq!(stderr_lines(&output)?.len(), 2, "{output:?}");
    Ok(())
}

/// What a node would not start with is told before it is restarted.
#[test]
fn check_reads_the_certificate_and_its_key() -> Result<()> {
    let (ours, theirs) = (Authority::new()?, Authority::new()?);
    let files = Files(tempfile::tempdir()?);
    let nothing = files.write("nothing.pem", "nothing\n")?;
    let (cert, key) = (
        ours.cert().display().to_string(),
        ours.key().display().to_string(),
    );
    let others = theirs.key().display().to_string();
    let check = |cert: &str, key: &str| {
        let (cert, key) = (format!("http.tls.cert={cert}"), format!("http.tls.key={key}"));
        config(&["check", "--set", &cert, "--set", &key], &[])
    };
    assert_eq!(check(&cert, &key)?.status.code(), Some(0));
    for (cert, key, begins) in [
        (
            &nothing,
            &key,
            format!("http.tls.cert: {nothing}: holds no certificate"),
        ),
        (
            &cert,
            &nothing,
            format!("http.tls.key: {nothing}: holds no private key"),
        ),
        (
            &cert,
            &"gone.pem".to_owned(),
            "http.tls.key: gone.pem: ".to_owned(),
        ),
        (
            &cert,
            &others,
            format!("http.tls.key: {others}: is not the key of the certificate"),
        ),
    ] {
        let output = check(cert, key)?;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let lines = stderr_lines(&output)?;
        let told = lines.iter().filter(|line| line.starts_with(&begins)).count();
        assert_eq!((told, stdout(&output)?), (1, ""), "{lines:#?}");
    }
    Ok(())
}

#[test]
fn doc_and_schema_are_what_they_say() -> Result<()> {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let output = config(&["doc"], &[])?;
    assert!(
        stdout(&output)? == std::fs::read_to_string(page)?,
        "docs/configuration.md is not what `config doc` writes"
    );
    let files = Files(tempfile::tempdir()?);
    let defaults = files.write("all.yaml", stdout(&config(&["doc", "--format", "yaml"], &[])?)?)?;
    assert_eq!(
        config(&["check", "--config", &defaults], &[])?.status.code(),
        Some(0)
    );
    let schema: Value = serde_json::from_slice(&config(&["schema"], &[])?.stdout)?;
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    for command in ["check", "show", "doc", "schema"] {
        let help = config(&[command, "--help"], &[])?;
        assert!(stdout(&help)?.contains("Example"), "{command}");
    }
    Ok(())
}
