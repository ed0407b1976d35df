use super::*;
use crate::config::{Config, Given, changed, load, schema};
use boon::{Compiler, SchemaIndex, Schemas};
use std::path::{Path, PathBuf};

const MEND: &str = "cargo run -p postrider-cli -- config doc > docs/configuration.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_page_in_docs_is_what_the_program_writes() {
    let page = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap_or_default();
    assert!(
        page == reference_page(),
        "docs/configuration.md is not up to date; this mends it: {MEND}"
    );
}

#[test]
fn the_page_names_every_key_once() {
    let page = reference_page();
    for key in keys() {
        assert_eq!(
            page.matches(&format!("\n### `{}`\n", key.name)).count(),
            1,
            "{}",
            key.name
        );
        assert_eq!(
            page.matches(&format!("variable `{}`", key.variable())).count(),
            1,
            "{}",
            key.name
        );
    }
}

/// What a file of this name and text makes of the defaults.
fn loaded(name: &str, text: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let given = Given {
        files: vec![path],
        ..Given::default()
    };
    load(&given)
        .unwrap_or_else(|faults| panic!("{faults:?}\n{text}"))
        .config
}

#[test]
fn the_commented_file_changes_nothing_and_uncommented_sets_every_key_to_its_default() {
    let commented = commented_defaults();
    assert!(changed(&Config::default(), &loaded("a.yaml", &commented)).is_empty());
    let uncommented: String = commented
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix('#').unwrap_or(line)))
        .collect();
    // What is not in this release is there too, as null.
    let settings = uncommented
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .count();
    assert_eq!(settings, keys().len());
    assert!(changed(&Config::default(), &loaded("b.yaml", &uncommented)).is_empty());
}

struct Validator(Schemas, SchemaIndex);

impl Validator {
    fn new() -> Validator {
        let mut compiler = Compiler::new();
        compiler.enable_format_assertions();
        compiler.add_resource("config.json", schema()).unwrap();
        let mut schemas = Schemas::new();
        let index = compiler.compile("config.json", &mut schemas).unwrap();
        Validator(schemas, index)
    }

    fn accepts(&self, value: &Value) -> bool {
        self.0.validate(value, self.1).is_ok()
    }

    fn accepts_yaml(&self, text: &str) -> bool {
        self.accepts(&serde_saphyr::from_str(text).unwrap())
    }
}

#[test]
fn the_schema_takes_the_defaults_and_the_examples() {
    let schema = Validator::new();
    assert!(schema.accepts(&crate::config::tree::of(&Config::default())));
    let commented = commented_defaults();
    let uncommented: String = commented
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix('#').unwrap_or(line)))
        .collect();
    assert!(schema.accepts_yaml(&uncommented));
    let examples = yaml_examples();
    assert!(!examples.is_empty());
    for (page, text) in examples {
        assert!(schema.accepts_yaml(&text), "{page}:\n{text}");
        let seen = serde_saphyr::from_str::<Value>(&text).unwrap();
        assert!(seen.is_object(), "{page}:\n{text}");
    }
}

/// The YAML blocks of the documents that are configuration of this program.
fn yaml_examples() -> Vec<(String, String)> {
    let mut pages: Vec<PathBuf> = std::fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pages.push(root().join("README.md"));
    let mut out = Vec::new();
    for page in pages
        .iter()
        .filter(|page| page.extension().is_some_and(|ending| ending == "md"))
    {
        let text = std::fs::read_to_string(page).unwrap();
        let blocks = text
            .split("\n```yaml\n")
            .skip(1)
            .filter_map(|rest| rest.split_once("\n```"));
        let ours = blocks.filter(|(block, _)| block.contains("postrider.yaml") || block.contains("auth:"));
        out.extend(ours.map(|(block, _)| (page.display().to_string(), block.to_owned())));
    }
    out
}

#[test]
fn the_schema_and_the_parser_agree_on_single_values() {
    let schema = Validator::new();
    for (text, is_good) in [
        ("http: {listen: '127.0.0.1:1'}", true),
        ("http.max_body: 1MiB", true),
        ("http.max_body: 4096", true),
        ("drain:", true),
        ("drain: {timeout: 3}", true),
        ("drain: {timeout: 1.5s}", true),
        ("auth.jwt: {}", false),
        ("http.max_body: 1MB", false),
        ("http.max_body: 12", false),
        ("drain: {timeout: 5 minutes}", false),
        ("drain: {timeout: 3601}", false),
        ("limits: {array: many}", false),
        ("limits: {array: 0}", false),
        ("limits: {arrays: 5}", false),
        ("engine: {type: nats}", false),
        ("engine: {type: redis, redis: {url: 'redis://x'}}", true),
        ("engine: {redis: {durability: 'wait:2'}}", true),
        ("engine: {redis: {durability: wait:2}}", true),
        ("engine: {redis: {durability: wait}}", false),
        ("session: {tcp_evidence: 'true'}", false),
        ("topics: {open: news}", false),
        ("auth: {api_keys: [{name: a, key: b, scopes: [publish]}]}", true),
        ("auth: {api_keys: [{name: a, key: b, scopes: [publsh]}]}", false),
        ("auth: {api_keys: [{name: a, scopes: [publish]}]}", false),
        ("auth: {jwt: {hmac_secret: 5}}", false),
        ("auth: {jwt: {hmac_secret: ''}}", false),
        ("htpp: {listen: '127.0.0.1:1'}", false),
    ] {
        assert_eq!(schema.accepts_yaml(text), is_good, "schema: {text}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        std::fs::write(&path, text).unwrap();
        // Half of a dotted key is the one thing that a file may hold and the schema does not know.
        let is_good = is_good || text == "auth.jwt: {}";
        assert_eq!(
            load(&Given {
                files: vec![path],
                ..Given::default()
            })
            .is_ok(),
            is_good,
            "parser: {text}"
        );
    }
}
