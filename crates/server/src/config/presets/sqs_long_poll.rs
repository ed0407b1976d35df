//! `sqs-long-poll`: a stream of bare bodies for phones and devices, which are taken from SQS while their users are there.

use super::{Derived, Joint, JointFault, Preset, Variable, Variables};
use crate::config::value::quoted;

const MODE: &str = "NOTIFICATION_SERVICE_MODE";
const CLIENT_ID: &str = "NOTIFICATION_SERVICE_CLIENT_ID";
const PREFIX: &str = "SQS_QUEUE_NAME_PREFIX";
const QUEUE_URL: &str = "SQS_QUEUE_URL";
const USER_BASE: &str = "SQS_USER_QUEUE_BASE_URL";
const DB_TLS: &str = "DB_TLS";
const DB_HOST: &str = "DB_HOST";
const DB_USER: &str = "DB_USER";
const DB_PASSWORD: &str = "DB_PASSWORD";
const DB_PW: &str = "DB_PW";
const DB_NAME: &str = "DB_NAME";

pub(super) const PRESET: Preset = Preset {
    name: "sqs-long-poll",
    meaning: "In the place of a service that streams to users over plain HTTP what it takes from SQS for them: \
              [from-sqs-long-poll.md](migrate/from-sqs-long-poll.md).",
    keys: &[
        ("http.listen", "0.0.0.0:8080"),
        ("auth.jwt.user_claim", "sub"),
        ("auth.jwt.leeway", "0s"),
        ("auth.jwt.jwks_min_interval", "1s"),
        ("auth.jwt.jwks_doubt", "true"),
        // A body of 256 KiB as a JSON string, if all of it has to be escaped.
        ("limits.data", "1537KiB"),
        ("raw.path", "/notifications"),
        ("raw.health", "/health"),
        ("raw.max_time", "600s"),
        ("raw.ends_with_token", "false"),
        ("presence.linger", "2s"),
        ("ack.probe", "100ms"),
        ("ack.flush", "100ms"),
    ],
    variables: &[
        Variable {
            name: "SERVER_PORT",
            key: "http.listen",
            form: "a port, on all of this machine's addresses",
            read: port,
        },
        Variable {
            name: "PORT",
            key: "http.listen",
            form: "as `SERVER_PORT`, and goes before it",
            read: port,
        },
        Variable {
            name: "COGNITO_JWK_URL",
            key: "auth.jwt.jwks_url",
            form: "where the issuer's `jwks.json` is",
            read: as_it_is,
        },
        Variable {
            name: "MAX_TIMEOUT_SECONDS",
            key: "raw.max_time",
            form: "a number of seconds",
            read: seconds,
        },
        Variable {
            name: "LOGGING_MODE",
            key: "log.level",
            form: "`DEVELOPMENT` (debug) or `PRODUCTION` (info)",
            read: level,
        },
    ],
    options: &[],
    joint: Some(Joint {
        variables: &[
            (
                MODE,
                "`0` a queue for this instance, `2` one for each user; `1`, or none: as the others say",
            ),
            (
                CLIENT_ID,
                "this instance's id, a UUID: then `SQS_QUEUE_URL` is its queue",
            ),
            (PREFIX, "the queue `<prefix>-<instance>` is made at the start"),
            (QUEUE_URL, "the instance's queue, as it is"),
            (
                USER_BASE,
                "the queue `<base>-<user>` is taken while the user is there",
            ),
            (
                DB_HOST,
                "with a queue for this instance, where the table `notifier_instances` is: `localhost` where it is not set",
            ),
            (DB_USER, "its user: `my_user`"),
            (DB_PASSWORD, "its password: `my_password`"),
            (DB_PW, "as `DB_PASSWORD`, which goes before it"),
            (DB_NAME, "its database: `message_service`"),
            (DB_TLS, "`true` or `false`: whether it is reached by TLS"),
        ],
        keys: "`instance`, `sources.instance.*`, `sources.users.*`, `registry.*`",
        needs: "SQS_QUEUE_NAME_PREFIX, SQS_QUEUE_URL or SQS_USER_QUEUE_BASE_URL",
        read: sources,
    }),
};

/// What every source of the preset has: the queue stays the store.
const OF_BOTH: [(&str, &str); 5] = [
    ("decoder", "addressee"),
    ("settle_on", "delivered"),
    ("offline", "leave"),
    ("visibility", "15s"),
    // As long as SQS keeps anything: what expired here first would not be delivered any more.
    ("ttl", "14d"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Instance,
    User,
}

/// The mode, by the number and by what else is set; `None` where there is no queue at all.
///
/// The service's documents number them 1 and 2, its code 0 and 1.
fn mode(given: &Variables<'_>) -> Result<Option<Mode>, JointFault> {
    let of_user = given.get(USER_BASE).is_some();
    let of_instance = given.get(QUEUE_URL).is_some() || given.get(PREFIX).is_some();
    // Who is given an id is to be given its queue too.
    let is_named = given.get(CLIENT_ID).is_some();
    let number = given.get(MODE);
    match (number, of_instance, of_user) {
        (Some("0"), ..) => Ok(Some(Mode::Instance)),
        (Some("2"), ..) => Ok(Some(Mode::User)),
        (Some("1") | None, true, false) => Ok(Some(Mode::Instance)),
        (Some("1") | None, false, true) => Ok(Some(Mode::User)),
        (None, false, false) if is_named => Ok(Some(Mode::Instance)),
        (None, false, false) => Ok(None),
        (Some("1") | None, ..) => Err(JointFault {
            variable: MODE,
            what: format!(
                "may be read in two ways: as a queue for this instance (documents: 1; write 0 for it, and set {PREFIX} or {QUEUE_URL}), \
                 or as one for each user (code: 1; write 2 for it, and set {USER_BASE})"
            ),
        }),
        (Some(other), ..) => Err(JointFault {
            variable: MODE,
            what: format!("must be 0, 1 or 2, not {}", quoted(other)),
        }),
    }
}

fn sources(given: &Variables<'_>) -> Result<Vec<Derived>, JointFault> {
    match mode(given)? {
        None => Ok(Vec::new()),
        Some(Mode::User) => of_users(given),
        Some(Mode::Instance) => of_instance(given),
    }
}

fn of_users(given: &Variables<'_>) -> Result<Vec<Derived>, JointFault> {
    let base = given.need(USER_BASE, "is needed for a queue for each user")?;
    let mut keys = vec![
        Derived::new(USER_BASE, "sources.users.type", "sqs_users"),
        Derived::new(USER_BASE, "sources.users.queue_url", format!("{base}-{{user}}")),
    ];
    keys.extend(both(USER_BASE, "users"));
    Ok(keys)
}

fn of_instance(given: &Variables<'_>) -> Result<Vec<Derived>, JointFault> {
    let named = [PREFIX, QUEUE_URL, CLIENT_ID];
    let by = named
        .into_iter()
        .find(|name| given.get(name).is_some())
        .unwrap_or(MODE);
    let mut keys = vec![Derived::new(by, "sources.instance.type", "sqs")];
    match (given.get(CLIENT_ID), given.get(PREFIX), given.get(QUEUE_URL)) {
        (Some(id), ..) => {
            let url = given.need(
                QUEUE_URL,
                "is needed where NOTIFICATION_SERVICE_CLIENT_ID is given",
            )?;
            if uuid::Uuid::try_parse(id).is_err() {
                return Err(JointFault {
                    variable: CLIENT_ID,
                    what: format!("must be a UUID, not {}", quoted(id)),
                });
            }
            keys.push(Derived::new(CLIENT_ID, "instance", id));
            keys.push(Derived::new(QUEUE_URL, "sources.instance.queue_url", url));
        }
        (None, Some(prefix), _) => {
            let name = format!("{prefix}-{{instance}}");
            keys.push(Derived::new(PREFIX, "sources.instance.queue_name", name));
            keys.push(Derived::new(PREFIX, "sources.instance.create", "true"));
            keys.push(Derived::new(PREFIX, "sources.instance.remove", "true"));
        }
        (None, None, Some(url)) => keys.push(Derived::new(QUEUE_URL, "sources.instance.queue_url", url)),
        (None, None, None) => {
            return Err(JointFault {
                variable: PREFIX,
                what: format!("is needed for a queue for this instance, or {CLIENT_ID} with {QUEUE_URL}"),
            });
        }
    }
    keys.extend(both(by, "instance"));
    keys.extend(registry(by, given)?);
    Ok(keys)
}

/// Where producers read which instance a user is connected to. What no variable names is as the service had it.
fn registry(by: &'static str, given: &Variables<'_>) -> Result<Vec<Derived>, JointFault> {
    let mut keys = vec![Derived::new(by, "registry.type", "postgres")];
    for (names, key, default) in [
        (&[DB_HOST][..], "registry.host", "localhost"),
        (&[DB_USER], "registry.user", "my_user"),
        (&[DB_PASSWORD, DB_PW], "registry.password", "my_password"),
        (&[DB_NAME], "registry.database", "message_service"),
    ] {
        let named = names.iter().find_map(|name| Some((*name, given.get(name)?)));
        let (variable, text) = named.unwrap_or((by, default));
        keys.push(Derived::new(variable, key, text));
    }
    if let Some(text) = given.get(DB_TLS) {
        let is_tls = match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "require" | "required" | "on" => "true",
            "false" | "0" | "disable" | "disabled" | "off" => "false",
            _ => {
                return Err(JointFault {
                    variable: DB_TLS,
                    what: format!("must be true or false, not {}", quoted(text)),
                });
            }
        };
        keys.push(Derived::new(DB_TLS, "registry.tls", is_tls));
    }
    Ok(keys)
}

fn both(variable: &'static str, source: &'static str) -> impl Iterator<Item = Derived> {
    OF_BOTH
        .iter()
        .map(move |(key, value)| Derived::new(variable, format!("sources.{source}.{key}"), *value))
}

fn as_it_is(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn port(text: &str) -> Result<String, String> {
    let port = text.trim_start_matches(':');
    match port.parse::<u16>() {
        Ok(port) => Ok(format!("0.0.0.0:{port}")),
        Err(_) => Err(format!("must be a port, such as 8080, not {}", quoted(text))),
    }
}

fn seconds(text: &str) -> Result<String, String> {
    match text.parse::<u64>() {
        Ok(seconds) => Ok(format!("{seconds}s")),
        Err(_) => Err(format!(
            "must be a number of seconds, such as 600, not {}",
            quoted(text)
        )),
    }
}

fn level(text: &str) -> Result<String, String> {
    match text.to_ascii_uppercase().as_str() {
        "DEVELOPMENT" => Ok("debug".into()),
        "PRODUCTION" => Ok("info".into()),
        _ => Err(format!("must be DEVELOPMENT or PRODUCTION, not {}", quoted(text))),
    }
}

#[cfg(test)]
#[path = "sqs_long_poll_tests.rs"]
mod tests;
