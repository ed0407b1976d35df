//! `redis-notify`: a WebSocket for users whose back-ends PUBLISH and HSET in Redis.

use super::{Preset, PresetOption, Variable};
use crate::config::value::quoted;

/// The port of Redis where an address names none.
const REDIS_PORT: &str = "6379";

pub(super) const PRESET: Preset = Preset {
    name: "redis-notify",
    meaning: "In the place of a service that gives users over a WebSocket what back-ends publish in Redis: \
              [from-redis-notify.md](migrate/from-redis-notify.md).",
    keys: &[
        ("http.listen", "0.0.0.0:3000"),
        ("http.static", "public_html"),
        ("ops.listen", "127.0.0.1:6060"),
        ("auth.jwt.user_claim", "user_id"),
        ("auth.jwt.require_exp", "false"),
        ("auth.jwt.leeway", "0s"),
        ("limits.sessions_per_user", "100000"),
        ("session.keep_alive", "108s"),
        ("session.silence", "120s"),
        ("session.stall_timeout", "15s"),
        ("session.outbox", "8MiB"),
        ("topics.open", r#"["*"]"#),
        ("notify.path", "/notify/ws"),
        ("notify.origins", r#"["*"]"#),
        ("notify.ends_with_token", "false"),
        ("log.process", "15s"),
        ("sources.notify.type", "redis_pubsub"),
        ("sources.notify.url", "redis://redis:6379"),
        ("sources.notify.channel", "notify:{user}"),
        ("sources.notify.topic_channel", "notify_topic:{topic}"),
        ("sources.notify.state", "notify:{user}:state"),
        ("sources.notify.decoder", "raw"),
        ("sources.notify.max_payload", "16MiB"),
    ],
    variables: &[
        Variable {
            name: "PUBSUB_REDIS_ADDR",
            key: "sources.notify.url",
            form: "`host`, `host:port`, or a whole `redis://` URL",
            read: redis_url,
        },
        Variable {
            name: "PORT",
            key: "http.listen",
            form: "`:3000`, `3000` or `address:3000`; without an address, all of this machine's",
            read: address,
        },
        Variable {
            name: "PPROF_PORT",
            key: "ops.listen",
            form: "as `PORT`; where it is not set, loopback only",
            read: address,
        },
    ],
    options: &[
        PresetOption {
            name: "notify-jwt-secret",
            key: "auth.jwt.hmac_secret",
        },
        PresetOption {
            name: "notify-session-cookie",
            key: "auth.cookie",
        },
    ],
    joint: None,
};

/// `host[:port]`, where an IPv6 address with a port stands in brackets.
fn redis_url(text: &str) -> Result<String, String> {
    if text.contains("://") {
        return Ok(text.to_owned());
    }
    if text.contains(['/', '@', '?', '#']) || text.contains(char::is_whitespace) {
        return Err("must be host or host:port".into());
    }
    let is_bare_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    let has_port = !is_bare_v6
        && text
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    Ok(match (has_port, is_bare_v6) {
        (true, _) => format!("redis://{text}"),
        (false, true) => format!("redis://[{text}]:{REDIS_PORT}"),
        (false, false) if text.contains(':') && !text.ends_with(']') => {
            return Err("must be host or host:port".into());
        }
        (false, false) => format!("redis://{text}:{REDIS_PORT}"),
    })
}

/// `:port`, `port` or `address:port`, as Go's listeners take it.
fn address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    if port.parse::<u16>().is_err() {
        return Err(format!(
            "must be :PORT, PORT or ADDRESS:PORT, not {}",
            quoted(text)
        ));
    }
    Ok(match host {
        "" => format!("0.0.0.0:{port}"),
        "localhost" => format!("127.0.0.1:{port}"),
        host => format!("{host}:{port}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_redis() {
        for (text, url) in [
            ("redis", "redis://redis:6379"),
            ("redis:7000", "redis://redis:7000"),
            ("10.0.0.1", "redis://10.0.0.1:6379"),
            ("::1", "redis://[::1]:6379"),
            ("[::1]:7000", "redis://[::1]:7000"),
            ("[::1]", "redis://[::1]:6379"),
            (
                "rediss://user:pass@redis:6380/0",
                "rediss://user:pass@redis:6380/0",
            ),
        ] {
            assert_eq!(redis_url(text), Ok(url.into()), "{text}");
        }
        for wrong in ["redis:", "redis:port", "a b", "redis/0", ":6379"] {
            assert!(redis_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_to_listen_on() {
        for (text, listen) in [
            (":3000", "0.0.0.0:3000"),
            ("3000", "0.0.0.0:3000"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("localhost:80", "127.0.0.1:80"),
            ("[::]:80", "[::]:80"),
        ] {
            assert_eq!(address(text), Ok(listen.into()), "{text}");
        }
        for wrong in ["", ":", "http", ":http", ":70000"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
