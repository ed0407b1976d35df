use super::*;
use std::ffi::OsString;

const ID: &str = "f0c7b6c1-3a67-4d9b-9e36-6f4e5a3a1b11";

fn derived(env: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
    let env: Vec<(OsString, OsString)> = env
        .iter()
        .map(|(name, text)| (name.into(), text.into()))
        .collect();
    match sources(&Variables(&env)) {
        Ok(derived) => Ok(derived
            .into_iter()
            .filter(|one| {
                !OF_BOTH
                    .iter()
                    .any(|(key, _)| one.key.ends_with(&format!(".{key}")))
                    && !one.key.starts_with("registry.")
            })
            .map(|one| (one.key, one.text))
            .collect()),
        Err(fault) => Err(format!("{}: {}", fault.variable, fault.what)),
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
        .collect()
}

#[test]
fn the_mode_is_told_by_its_number_and_by_what_is_set() {
    let (base, url, prefix) = ((USER_BASE, "u"), (QUEUE_URL, "q"), (PREFIX, "p"));
    let is = |mode: Result<Option<Mode>, JointFault>| mode.map_err(|fault| fault.what.contains("two ways"));
    for (number, rest, told) in [
        (Some("0"), &[base][..], Ok(Some(Mode::Instance))),
        (Some("0"), &[], Ok(Some(Mode::Instance))),
        (Some("2"), &[url, prefix], Ok(Some(Mode::User))),
        (Some("1"), &[base], Ok(Some(Mode::User))),
        (Some("1"), &[url], Ok(Some(Mode::Instance))),
        (Some("1"), &[prefix], Ok(Some(Mode::Instance))),
        (Some("1"), &[prefix, url], Ok(Some(Mode::Instance))),
        (Some("1"), &[prefix, base], Err(true)),
        (Some("1"), &[], Err(true)),
        (None, &[], Ok(None)),
        (None, &[base], Ok(Some(Mode::User))),
        (None, &[url, base], Err(true)),
        (Some("3"), &[url], Err(false)),
        (Some("user"), &[], Err(false)),
    ] {
        let env: Vec<(OsString, OsString)> = number
            .map(|number| (MODE, number))
            .into_iter()
            .chain(rest.iter().copied())
            .map(|(name, text)| (name.into(), text.into()))
            .collect();
        assert_eq!(is(mode(&Variables(&env))), told, "{number:?} {rest:?}");
    }
}

#[test]
fn what_the_variables_come_to() {
    let of_user = [(MODE, "2"), (USER_BASE, "https://sqs/1/user")];
    assert_eq!(
        derived(&of_user),
        Ok(pairs(&[
            ("sources.users.type", "sqs_users"),
            ("sources.users.queue_url", "https://sqs/1/user-{user}"),
        ]))
    );
    let made = [
        (MODE, "0"),
        (PREFIX, "notify"),
        (QUEUE_URL, "https://sqs/1/other"),
    ];
    assert_eq!(
        derived(&made),
        Ok(pairs(&[
            ("sources.instance.type", "sqs"),
            ("sources.instance.queue_name", "notify-{instance}"),
            ("sources.instance.create", "true"),
            ("sources.instance.remove", "true"),
        ]))
    );
    let given = [
        (CLIENT_ID, ID),
        (QUEUE_URL, "https://sqs/1/q"),
        (PREFIX, "notify"),
    ];
    assert_eq!(
        derived(&given),
        Ok(pairs(&[
            ("sources.instance.type", "sqs"),
            ("instance", ID),
            ("sources.instance.queue_url", "https://sqs/1/q"),
        ]))
    );
    for (env, fault) in [
        (&[(MODE, "2")][..], "SQS_USER_QUEUE_BASE_URL: is needed"),
        (&[(MODE, "0")], "SQS_QUEUE_NAME_PREFIX: is needed"),
        (&[(MODE, "0"), (CLIENT_ID, ID)], "SQS_QUEUE_URL: is needed where"),
        (&[(CLIENT_ID, ID)], "SQS_QUEUE_URL: is needed where"),
        (
            &[(CLIENT_ID, "seven"), (QUEUE_URL, "q")],
            "NOTIFICATION_SERVICE_CLIENT_ID: must be a UUID, not \"seven\"",
        ),
    ] {
        let told = derived(env).unwrap_err();
        assert!(told.starts_with(fault), "{told}");
    }
}

#[test]
fn single_variables() {
    assert_eq!(port("8080"), Ok("0.0.0.0:8080".into()));
    assert_eq!(port(":80"), Ok("0.0.0.0:80".into()));
    assert!(port("http").is_err() && port("70000").is_err());
    assert_eq!(seconds("600"), Ok("600s".into()));
    assert!(seconds("10m").is_err());
    assert_eq!(level("development"), Ok("debug".into()));
    assert_eq!(level("PRODUCTION"), Ok("info".into()));
    assert!(level("TEST").is_err());
}

#[test]
fn who_is_here_is_written_where_the_service_wrote_it() {
    let told = |env: &[(&str, &str)]| {
        let env: Vec<(OsString, OsString)> = env
            .iter()
            .map(|(name, text)| (name.into(), text.into()))
            .collect();
        let derived = sources(&Variables(&env)).map_err(|fault| fault.variable)?;
        let of_registry = derived.into_iter().filter(|one| one.key.starts_with("registry."));
        Ok::<_, &str>(of_registry.map(|one| (one.key, one.text)).collect::<Vec<_>>())
    };
    let defaults = pairs(&[
        ("registry.type", "postgres"),
        ("registry.host", "localhost"),
        ("registry.user", "my_user"),
        ("registry.password", "my_password"),
        ("registry.database", "message_service"),
    ]);
    assert_eq!(told(&[(PREFIX, "p")]), Ok(defaults));
    let given = [
        (PREFIX, "p"),
        ("DB_HOST", "db"),
        ("DB_USER", "me"),
        ("DB_PW", "old"),
        ("DB_PASSWORD", "new"),
        ("DB_NAME", "d"),
        ("DB_TLS", "require"),
    ];
    let all = pairs(&[
        ("registry.type", "postgres"),
        ("registry.host", "db"),
        ("registry.user", "me"),
        ("registry.password", "new"),
        ("registry.database", "d"),
        ("registry.tls", "true"),
    ]);
    assert_eq!(told(&given), Ok(all));
    assert_eq!(told(&[(PREFIX, "p"), ("DB_TLS", "perhaps")]), Err("DB_TLS"));
    assert_eq!(
        told(&[(USER_BASE, "u")]),
        Ok(Vec::new()),
        "a queue for each user needs no table"
    );
}
