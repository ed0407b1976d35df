use super::*;
use crate::config::key::Kind;
use crate::config::{Config, Given, Loaded, changed, load, show};

fn loaded(sets: &[&str]) -> Result<Loaded, Vec<String>> {
    let given = Given {
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
        ..Given::default()
    };
    load(&given).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

const STREAM: [&str; 3] = [
    "sources.orders.type=redis_streams",
    "sources.orders.url=redis://:hush@localhost",
    "sources.orders.stream=orders",
];

fn stream_with(more: &[&str]) -> Result<Loaded, Vec<String>> {
    loaded(&[&STREAM, more].concat())
}

#[test]
fn a_source_in_a_file_by_set_and_by_variable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    let text = "sources:\n  orders:\n    type: redis_streams\n    url: redis://a\n    stream: s\n    claim_after: 5s\n  empty: {type: redis_pubsub, url: 'redis://b', channel: 'n:{user}'}\n";
    std::fs::write(&path, text).unwrap();
    let given = Given {
        files: vec![path],
        env: vec![("POSTRIDER_SOURCES__ORDERS__WORKERS".into(), "3".into())],
        sets: vec!["sources.orders.stream=other".into()],
        ..Given::default()
    };
    let loaded = load(&given).unwrap();
    assert!(
        loaded.warnings.iter().all(|warning| !warning.contains("SOURCES")),
        "{:?}",
        loaded.warnings
    );
    let SourceConfig::RedisStreams(orders) = &loaded.config.sources["orders"] else {
        panic!()
    };
    assert_eq!((orders.workers, orders.claim_after), (3, Millis::from_secs(5)));
    assert_eq!(orders.stream.as_deref(), Some("other"));
    assert_eq!(loaded.config.sources.len(), 2);
    let shown = show(&loaded);
    assert!(
        shown
            .lines()
            .any(|line| line.starts_with("sources.orders.stream: \"other\"") && line.ends_with("# --set")),
        "{shown}"
    );
}

#[test]
fn a_password_is_not_shown_and_a_changed_one_is_a_change() {
    let old = stream_with(&[]).unwrap();
    assert!(!show(&old).contains("hush"));
    let new = stream_with(&["sources.orders.url=redis://:other@localhost"]).unwrap();
    assert_eq!(changed(&old.config, &new.config), ["sources.orders"]);
    assert_eq!(changed(&old.config, &Config::default()), ["sources.orders"]);
}

#[test]
fn no_api_key_has_the_name_of_a_source() {
    let key = |name: &str| {
        stream_with(&[&format!(
            r#"auth.api_keys=[{{"name":"{name}","key":"k","scopes":["publish"]}}]"#
        )])
    };
    assert!(key("shop").is_ok());
    let faults = key("orders").map(drop).unwrap_err();
    assert!(
        faults[0].contains("entry 0 has the name of the source `orders`"),
        "{faults:?}"
    );
}

#[test]
fn faults_name_the_key_and_the_nearest() {
    for (more, fault) in [
        (
            &["sources.orders.workes=2"][..],
            "--set: sources.orders.workes: unknown key (nearest known key: sources.orders.workers)",
        ),
        (
            &["sources.orders.workers=0"],
            "sources.orders.workers: must be at least 1, not 0",
        ),
        (
            &["sources.orders.linger=1s"],
            "sources.orders.linger: is no key of a source of the type redis_streams",
        ),
        (
            &["sources.orders.type=redis_stream"],
            "the nearest is `redis_streams`",
        ),
        (&["sources.orders.type=nats"], "`nats` is not in this release"),
        (
            &["sources.q.type=sqs"],
            "sources.q.queue_url: is needed: the address of the queue, or its name",
        ),
        (
            &["sources.orders.decoder=raw"],
            "sources.orders.decoder: `raw` does not say for whom",
        ),
        (&["sources.orders.topic=a b"], "sources.orders.topic: "),
        (
            &["sources.orders.topic=a", "sources.orders.user_field=b"],
            "only one of topic, user_field and topic_field",
        ),
        (
            &["sources.orders.topic=a", "sources.orders.settle_on=delivered"],
            "`delivered` needs users",
        ),
        (
            &["sources.orders.url=localhost"],
            "sources.orders.url: must begin with redis://",
        ),
        (
            &["sources.Or.type=redis_streams"],
            "sources.Or: is no name of a source",
        ),
        (
            &["sources.http.type=redis_streams"],
            "sources.http: is a name that Postrider itself uses",
        ),
        (&["sources.new.stream=x"], "sources.new.type: is needed"),
        (
            &["sources.new.type=redis_streams"],
            "sources.new.stream: is needed",
        ),
        (
            &["sources.p.type=redis_pubsub", "sources.p.url=redis://a"],
            "it listens to nothing",
        ),
        (
            &[
                "sources.p.type=redis_pubsub",
                "sources.p.url=redis://a",
                "sources.p.channel=n",
            ],
            "must hold {user} once",
        ),
    ] {
        let faults = stream_with(more).unwrap_err();
        assert!(
            faults.iter().any(|found| found.contains(fault)),
            "{more:?}: {faults:#?}"
        );
    }
}

#[test]
fn every_key_of_every_type_has_a_meaning_and_a_number_its_range() {
    for key in TYPES.iter().flat_map(|one| &one.keys) {
        assert!(!key.meaning.is_empty(), "{}", key.name);
        let is_number = matches!(key.kind, Kind::Integer | Kind::Duration | Kind::Size);
        assert_eq!(key.range().is_some(), is_number, "{}", key.name);
    }
    // A name that two types have means the same kind of value.
    for one in TYPES.iter().flat_map(|one| &one.keys) {
        let others = TYPES.iter().flat_map(|other| &other.keys);
        let others = others.filter(|other| other.name == one.name);
        others.for_each(|other| assert_eq!(one.kind, other.kind, "{}", one.name));
    }
}

#[test]
#[cfg(feature = "redis")]
fn what_follows_from_a_fault_is_not_told_beside_it() {
    for (sets, told) in [
        (
            &[
                "sources.q.type=redis_streams",
                "sources.q.url=redis://a",
                "sources.q.strem=s",
            ][..],
            &["--set: sources.q.strem: unknown key (nearest known key: sources.q.stream)"][..],
        ),
        (
            &[
                "sources.q.type=redis_pubsub",
                "sources.q.url=redis://a",
                "sources.q.channels=notes",
                "sources.q.state=s",
            ],
            &[
                "--set: sources.q.channels: must be a list",
                "--set: sources.q.state: must hold {user} once, such as notify:{user}, not \"s\"",
                "--set: sources.q.state: needs channel",
            ],
        ),
        (
            &["sources.q=redis_streams"],
            &["--set: sources.q: is a source: set the keys in it, such as sources.q.type"],
        ),
        (
            &["sources=[]"],
            &["--set: sources: holds sources by name: write sources.NAME.KEY"],
        ),
        (&["sources.q.a.b=1"], &["--set: sources.q.a.b: unknown key"]),
    ] {
        let faults = loaded(sets).map(drop).unwrap_err();
        let is_alike = |(fault, told): (&String, &&str)| fault.starts_with(told);
        assert!(
            faults.len() == told.len() && faults.iter().zip(told).all(is_alike),
            "{sets:?}: {faults:#?}"
        );
    }
}

#[test]
#[cfg(feature = "redis")]
fn a_misspelt_variable_of_a_source_is_told_with_the_nearest() {
    let given = Given {
        sets: STREAM.iter().map(|set| (*set).to_owned()).collect(),
        env: vec![("POSTRIDER_SOURCES__ORDERS__WORKES".into(), "3".into())],
        ..Given::default()
    };
    let warnings = load(&given).unwrap().warnings;
    let near = "POSTRIDER_SOURCES__ORDERS__WORKES is no configuration key; it is ignored; the nearest is \
                POSTRIDER_SOURCES__ORDERS__WORKERS";
    assert!(
        warnings.iter().any(|warning| warning.contains(near)),
        "{warnings:#?}"
    );
}
