//! `apigw-pusher`: requests from a queue, pushed to the WebSocket connections of an Amazon API Gateway.

use super::{Derived, Joint, JointFault, Preset, Variables};

const ENDPOINT: &str = "APIGW_ENDPOINT";
const TABLE: &str = "CONNECTIONS_TABLE_NAME";
const QUEUE_URL: &str = "SQS_QUEUE_URL";
const QUEUE_NAME: &str = "SQS_QUEUE_NAME";

pub(super) const PRESET: Preset = Preset {
    name: "apigw-pusher",
    meaning: "In the place of a function that pushes requests from SQS and SNS to the connections of an API Gateway: \
              [from-apigw-pusher.md](migrate/from-apigw-pusher.md).",
    keys: &[
        ("limits.users_per_notification", "100000"),
        ("limits.exclude_users", "100000"),
    ],
    variables: &[],
    options: &[],
    joint: Some(Joint {
        variables: &[
            (ENDPOINT, "the stage's address, `https://` or `wss://`"),
            (TABLE, "the table of connections"),
            (QUEUE_URL, "the queue of requests"),
            (QUEUE_NAME, "the same by its name"),
        ],
        keys: "`channels.push.*`, `sources.requests.*`",
        needs: "SQS_QUEUE_URL or SQS_QUEUE_NAME, with APIGW_ENDPOINT and CONNECTIONS_TABLE_NAME",
        read: ways,
    }),
};

/// What the source of requests has, wherever its queue is.
const OF_REQUESTS: [(&str, &str); 5] = [
    ("type", "sqs"),
    ("decoder", "pusher"),
    ("broadcast", "true"),
    ("deliver_to", r#"["push"]"#),
    ("in_flight", "100"),
];

fn ways(given: &Variables<'_>) -> Result<Vec<Derived>, JointFault> {
    let is_set = |name: &&&'static str| given.get(name).is_some();
    let queue = [QUEUE_URL, QUEUE_NAME];
    if [ENDPOINT, TABLE].iter().chain(&queue).find(is_set).is_none() {
        return Ok(Vec::new());
    }
    let endpoint = given.need(ENDPOINT, "is needed: where connections are pushed to")?;
    let table = given.need(TABLE, "is needed: where connections are listed")?;
    let mut keys = vec![
        Derived::new(ENDPOINT, "channels.push.type", "api_gateway"),
        Derived::new(ENDPOINT, "channels.push.endpoint", endpoint),
        Derived::new(TABLE, "channels.push.table", table),
    ];
    // Without either the requests come by a source of the operator's own.
    let Some(by) = queue.iter().find(is_set) else {
        return Ok(keys);
    };
    let place = match *by {
        QUEUE_URL => "sources.requests.queue_url",
        _ => "sources.requests.queue_name",
    };
    keys.push(Derived::new(by, place, given.get(by).unwrap_or_default()));
    let rest = OF_REQUESTS.iter();
    keys.extend(rest.map(|(key, value)| Derived::new(by, format!("sources.requests.{key}"), *value)));
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use crate::config::{ChannelConfig, Given, SourceConfig, load};

    fn loaded(env: &[(&str, &str)]) -> Result<crate::config::Config, Vec<String>> {
        Ok(with(env, &[])?.config)
    }

    fn with(env: &[(&str, &str)], sets: &[&str]) -> Result<crate::config::Loaded, Vec<String>> {
        let given = Given {
            presets: vec!["apigw-pusher".into()],
            env: env
                .iter()
                .map(|(name, text)| (name.into(), text.into()))
                .collect(),
            sets: sets.iter().map(|set| (*set).to_owned()).collect(),
            ..Given::default()
        };
        load(&given).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    const ENDPOINT: (&str, &str) = (
        "APIGW_ENDPOINT",
        "https://a.execute-api.eu-central-1.amazonaws.com/prod",
    );
    const TABLE: (&str, &str) = ("CONNECTIONS_TABLE_NAME", "connections");

    #[test]
    fn its_variables_make_the_whole_way() {
        let url = "https://sqs.eu-central-1.amazonaws.com/1/requests";
        let config = loaded(&[ENDPOINT, TABLE, ("SQS_QUEUE_URL", url)]).unwrap();
        let ChannelConfig::ApiGateway(push) = &config.channels["push"];
        assert_eq!(
            (push.endpoint.as_deref(), push.table.as_deref()),
            (Some(ENDPOINT.1), Some(TABLE.1))
        );
        let SourceConfig::Sqs(requests) = &config.sources["requests"] else {
            panic!()
        };
        assert_eq!(requests.queue_url.as_deref(), Some(url));
        assert_eq!(
            (&requests.deliver_to[..], requests.broadcast),
            (&["push".to_owned()][..], true)
        );
        assert_eq!((requests.parallel, requests.wait.0), (10, 20_000));
        let named = loaded(&[ENDPOINT, TABLE, ("SQS_QUEUE_NAME", "requests")]).unwrap();
        assert!(matches!(&named.sources["requests"], SourceConfig::Sqs(one) if one.queue_name.is_some()));
    }

    #[test]
    fn where_nothing_would_be_taken_it_is_told_what_to_set() {
        let told = |env: &[(&str, &str)], sets: &[&str]| {
            let warnings = with(env, sets).unwrap().warnings;
            warnings
                .into_iter()
                .find(|warning| warning.contains("preset apigw-pusher"))
        };
        for env in [&[][..], &[ENDPOINT, TABLE]] {
            let warning = told(env, &[]).unwrap();
            for name in [
                "SQS_QUEUE_URL",
                "APIGW_ENDPOINT",
                "CONNECTIONS_TABLE_NAME",
                "sources.*",
            ] {
                assert!(warning.contains(name), "{warning}");
            }
        }
        assert_eq!(told(&[ENDPOINT, TABLE, ("SQS_QUEUE_NAME", "q")], &[]), None);
        // The operator's own.
        let own = [
            "sources.mine.type=sqs",
            "sources.mine.queue_name=q",
            r#"sources.mine.deliver_to=["push"]"#,
        ];
        assert_eq!(told(&[ENDPOINT, TABLE], &own), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(loaded(&[]).unwrap().channels.is_empty());
        assert!(loaded(&[ENDPOINT, TABLE]).unwrap().sources.is_empty());
        for (env, name) in [
            (&[ENDPOINT][..], "CONNECTIONS_TABLE_NAME"),
            (&[TABLE], "APIGW_ENDPOINT"),
            (&[("SQS_QUEUE_NAME", "q")], "APIGW_ENDPOINT"),
        ] {
            let faults = loaded(env).unwrap_err();
            assert!(
                faults
                    .iter()
                    .any(|fault| fault.contains(name) && fault.contains("is needed")),
                "{faults:?}"
            );
        }
    }
}
