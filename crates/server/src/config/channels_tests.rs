use super::*;
use crate::config::{Given, Loaded, changed, load, show};

fn loaded(sets: &[&str]) -> Result<Loaded, Vec<String>> {
    let given = Given {
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
        ..Given::default()
    };
    load(&given).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

const PUSH: [&str; 3] = [
    "channels.push.type=api_gateway",
    "channels.push.endpoint=wss://abc.execute-api.eu-central-1.amazonaws.com/prod",
    "channels.push.table=connections",
];

fn push_with(more: &[&str]) -> Result<Loaded, Vec<String>> {
    loaded(&[&PUSH, more].concat())
}

#[test]
fn a_channel_by_set_and_by_variable() {
    let given = Given {
        sets: PUSH.iter().map(|set| (*set).to_owned()).collect(),
        env: vec![("POSTRIDER_CHANNELS__PUSH__CONCURRENCY".into(), "7".into())],
        ..Given::default()
    };
    let loaded = load(&given).unwrap();
    let ChannelConfig::ApiGateway(push) = &loaded.config.channels["push"];
    assert_eq!(push.concurrency, 7);
    assert_eq!(push.max_payload, ByteSize::kib(128));
    assert!(show(&loaded).contains("channels.push.table: \"connections\""));
    let other = push_with(&["channels.push.table=other"]).unwrap();
    assert_eq!(changed(&loaded.config, &other.config), ["channels.push"]);
}

#[test]
#[cfg(feature = "aws")]
fn who_may_publish_publishes_to_sessions_though_all_sources_are_for_channels() {
    let source = [
        "sources.q.type=sqs",
        "sources.q.queue_name=q",
        r#"sources.q.deliver_to=["push"]"#,
    ];
    let key = |scope: &str| {
        format!(
            r#"auth.api_keys=[{{"name": "a", "key": "a-key-of-thirty-two-characters--", "scopes": ["{scope}"]}}]"#
        )
    };
    for (scope, is_alone) in [(None, true), (Some("manage"), true), (Some("publish"), false)] {
        let key = scope.map(key);
        let sets: Vec<&str> = source.into_iter().chain(key.as_deref()).collect();
        let loaded = push_with(&sets).unwrap();
        assert_eq!(loaded.config.is_for_channels_alone(), is_alone, "{scope:?}");
        let is_told = loaded
            .warnings
            .iter()
            .any(|one| one.contains("no user can connect"));
        assert_eq!(is_told, !is_alone, "{scope:?}: {:?}", loaded.warnings);
    }
}

#[test]
fn what_is_refused() {
    for (sets, what) in [
        (
            &["channels.push.endpoint=abc/prod"][..],
            "channels.push.endpoint: must be the stage's address, https://… or wss://…, not \"abc/prod\"",
        ),
        (&["channels.push.table=null"], "channels.push.table: is needed"),
        (
            &["channels.push.table=my table"],
            "channels.push.table: must be 3 to 255 of",
        ),
        (
            &["channels.push.connection_key=user_id"],
            "channels.push.connection_key: is \"user_id\", as user_key",
        ),
        (
            &["channels.push.backoff=20s"],
            "channels.push.backoff: is 20s, and must not be longer than backoff_max, which is 10s",
        ),
        (
            &["channels.push.max_payload=129KiB"],
            "channels.push.max_payload: must be at most",
        ),
        (
            &["channels.push.table_endpoint=localhost:8000"],
            "channels.push.table_endpoint: must be http://… or https://…",
        ),
        (&["channels.push.tabel=x"], "channels.push.tabel: unknown key"),
        (
            &["channels.inbox.type=api_gateway"],
            "channels.inbox: is a name that Postrider itself uses",
        ),
        (
            &["channels.other.table=x"],
            "channels.other.type: is needed: `api_gateway`",
        ),
    ] {
        let faults = push_with(sets).unwrap_err();
        assert!(faults.iter().any(|fault| fault.contains(what)), "{faults:?}");
    }
}

#[test]
#[cfg(feature = "aws")]
fn a_way_that_leads_nowhere_is_told_once_and_at_its_source() {
    let queue = ["sources.q.type=sqs", "sources.q.queue_name=q"];
    let to_push = r#"sources.q.deliver_to=["inbox","push"]"#;
    let leaves = ["sources.q.settle_on=delivered", "sources.q.offline=leave"];
    let unfit = [&PUSH[..], &["channels.push.table=a b", to_push]].concat();
    let leaving = [&PUSH[..], &leaves, &[to_push]].concat();
    let long = format!("sources.q.queue_name={}-{{instance}}", "n".repeat(60));
    for (more, told) in [
        (
            &[to_push][..],
            "--set: sources.q.deliver_to: names the channel \"push\"; there is no channel",
        ),
        (
            &["sources.q.deliver_to=[]"],
            "--set: sources.q.deliver_to: is empty: name `inbox`",
        ),
        (&unfit, "--set: channels.push.table: must be 3 to 255"),
        (&leaving, "--set: sources.q.offline: `leave` asks for sessions"),
        (&[&long], "--set: sources.q.queue_name: is \"nnn"),
    ] {
        let faults = loaded(&[&queue[..], more].concat()).map(drop).unwrap_err();
        assert!(faults.len() == 1 && faults[0].starts_with(told), "{faults:#?}");
    }
    let named = [&queue[..], &[&long, "instance=node-1"]].concat();
    loaded(&named).unwrap_or_else(|faults| panic!("{faults:?}"));
}
