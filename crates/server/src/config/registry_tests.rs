use crate::config::{Given, Loaded, load};

fn with(sets: &[&str]) -> Result<Loaded, Vec<String>> {
    let given = Given {
        sets: sets.iter().map(ToString::to_string).collect(),
        ..Given::default()
    };
    load(&given).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

#[test]
#[cfg(all(feature = "postgres", feature = "redis", feature = "aws"))]
fn each_type_takes_its_own_keys_and_no_others() {
    let (postgres, redis, dynamodb) = (
        "registry.type=postgres",
        "registry.type=redis",
        "registry.type=dynamodb",
    );
    let url = "registry.url=redis+cluster://me:pw@a:1,b:2";
    for good in [
        &[postgres, "registry.host=db", "registry.create=true"][..],
        &[postgres, "registry.ca=/etc/db.pem", "registry.tls=true"],
        &[redis, url, "registry.table=app:notifiers", "registry.lease=3s"],
        &[
            dynamodb,
            "registry.user_key=uid",
            "registry.region=eu-west-1",
            "registry.create=true",
        ],
        &["registry.host=db", url],
        &["registry.type=engine"],
    ] {
        with(good).unwrap_or_else(|faults| panic!("{good:?}: {faults:?}"));
    }
    for (bad, told) in [
        (
            &[postgres, url][..],
            "registry.url: belongs to the type `redis`, and registry.type is `postgres`",
        ),
        (
            &[redis, url, "registry.create=true"],
            "registry.create: belongs to the type `postgres` or `dynamodb`",
        ),
        (
            &[redis, url, "registry.host=localhost"],
            "registry.host: belongs to the type `postgres`",
        ),
        (
            &[dynamodb, "registry.password=hush"],
            "registry.password: belongs to the type `postgres`",
        ),
        (
            &[postgres, "registry.user_key=a"],
            "registry.user_key: belongs to the type `dynamodb`",
        ),
        (
            &["registry.type=engine", "registry.lease=5s"],
            "registry.lease: belongs to the type `postgres` or `redis` or `dynamodb`",
        ),
        (
            &[
                "registry.type=engine",
                "engine.type=redis",
                "engine.redis.url=redis://a",
            ],
            "`engine` is for one node",
        ),
        (&[redis], "needs registry.url"),
        (&[redis, "registry.url=http://host"], "registry.url: "),
        (&[redis, url, "registry.table={a}"], "name of a key in Redis"),
        (&[dynamodb, "registry.table=a/b"], "name of a table in DynamoDB"),
        (
            &[dynamodb, "registry.user_key=a", "registry.instance_key=a"],
            "must be two attributes",
        ),
        (
            &[dynamodb, "registry.instance_key=beat"],
            "registry.instance_key: must be the name of an attribute in DynamoDB",
        ),
        (
            &[dynamodb, "registry.user_key=lapsed"],
            "registry.user_key: must be the name of an attribute in DynamoDB",
        ),
        (&[postgres, "registry.table=a-b"], "name of a table"),
        (
            &[dynamodb, "registry.endpoint=localhost:8000"],
            "registry.endpoint: must be http://… or https://…, without a user, `?` and `#`, not \"localhost:8000\"",
        ),
        (
            &[postgres, "registry.ca=/etc/db.pem"],
            "registry.ca: is set, and registry.tls is off",
        ),
    ] {
        let faults = with(bad).unwrap_err();
        assert!(
            faults.len() == 1 && faults[0].contains(told),
            "{bad:?}: {faults:?}"
        );
        assert!(!faults[0].contains("hush"));
    }
}

#[test]
fn an_instance_is_a_short_word() {
    let long = format!("instance={}", "x".repeat(129));
    for bad in ["instance=a b", "instance=ä", "instance=a\tb", &long] {
        let faults = with(&[bad]).unwrap_err();
        assert!(
            faults.len() == 1 && faults[0].contains("instance: must be 1 to 128"),
            "{bad:?}: {faults:?}"
        );
    }
    for good in ["instance=i-0abc/1", &long[..long.len() - 1]] {
        with(&[good]).unwrap_or_else(|faults| panic!("{good}: {faults:?}"));
    }
}

/// What the variables of another system say is for its own database, whatever keeps the table now.
#[test]
#[cfg(feature = "aws")]
fn the_type_may_be_another_than_a_presets() {
    let given = Given {
        presets: vec!["sqs-long-poll".into()],
        env: [
            ("SQS_QUEUE_NAME_PREFIX", "notes"),
            ("COGNITO_JWK_URL", "https://id.example/jwks.json"),
            ("DB_HOST", "db"),
        ]
        .map(|(name, text)| (name.into(), text.into()))
        .to_vec(),
        sets: vec!["registry.type=dynamodb".into()],
        ..Given::default()
    };
    let loaded = load(&given).unwrap();
    assert_eq!(loaded.config.registry.kind, super::RegistryKind::Dynamodb);
}
