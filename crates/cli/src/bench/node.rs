//! The node that is measured: one that runs somewhere, or one that is started for the purpose.

use super::BenchArgs;
use super::users::{self, PREFIX};
use crate::client;
use crate::exit::Failure;
use anyhow::{Context as _, anyhow};
use postrider_bench_load::machine::{self, Meter};
use postrider_bench_load::target::{Kind, Target, Users};
use serde_json::{Map, Value, json};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long one answer may take before anything is measured.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A node, and who connects to it.
pub struct Site {
    /// Where it is.
    pub url: String,
    /// The same for the load.
    pub target: Target,
    /// Who connects.
    pub users: Users,
    /// Its process, if it is on this machine and may be looked at.
    pub meter: Meter,
    /// The topic that broadcasts go to; to everyone without one.
    pub topic: Option<String>,
    /// What tells this run from others.
    pub tag: String,
    _own: Option<OwnNode>,
}

impl Site {
    /// The node that the arguments name, or a new one; and the users.
    pub fn find(args: &BenchArgs) -> Result<Site, Failure> {
        let tag = tag()?;
        let Some(url) = args.url.clone().or_else(|| std::env::var("POSTRIDER_URL").ok()) else {
            return Site::start(args, tag);
        };
        let (host, addr) = address(&url)?;
        let topic = (!args.everyone).then(|| format!("{PREFIX}{tag}"));
        if !addr.ip().is_loopback() && !args.yes {
            let wide = topic
                .as_ref()
                .map_or("everyone, the node's own users among them".into(), |topic| {
                    format!("the topic {topic}, which only they hear")
                });
            return Err(Failure::usage(format!(
                "{url} is not this machine. There {} users {PREFIX}{tag}-… would connect; notifications to them, and to {wide}, \
                 are stored for five minutes. Give --yes if that may be",
                args.count
            )));
        }
        let key = args.key.bearer()?.trim_start_matches("Bearer ").to_owned();
        let prefix = format!("{PREFIX}{tag}-");
        let users = args.users.make(&prefix, args.count as usize, topic.as_deref())?;
        let local = addr
            .ip()
            .is_loopback()
            .then(|| machine::listener(addr.port()))
            .flatten();
        Ok(Site {
            url,
            target: target(addr, host, key),
            users,
            meter: Meter(args.pid.or(local).into_iter().collect()),
            topic,
            tag,
            _own: None,
        })
    }

    fn start(args: &BenchArgs, tag: String) -> Result<Site, Failure> {
        let own = OwnNode::start().context("starting a node of its own")?;
        let prefix = format!("{PREFIX}{tag}-");
        let users = users::sign(&own.secret, &prefix, args.count as usize, Map::new(), None)?;
        if !args.json {
            println!(
                "node      {} (its own, with a temporary data directory)",
                own.addr
            );
        }
        Ok(Site {
            url: format!("http://{}", own.addr),
            target: target(own.addr, own.addr.to_string(), own.key.clone()),
            users,
            meter: Meter(vec![own.child.id()]),
            topic: None,
            tag,
            _own: Some(own),
        })
    }

    /// Asks for one user's inbox and publishes one notification, so that what is refused is said before anybody connects.
    pub fn check(&self) -> Result<(), Failure> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_LIMIT));
        let agent = config.build().new_agent();
        let topics = self
            .topic
            .as_deref()
            .map_or(String::new(), |topic| format!("&topics={topic}"));
        let (user, token) = (&self.users.names[0], &self.users.tokens[0]);
        let inbox = agent
            .get(format!("{}/v1/inbox?wait=0{topics}", self.url))
            .header("authorization", format!("Bearer {token}"))
            .call();
        told(client::body(inbox), "the token of a bench user")?;
        let notification = json!({"users": [user], "data": {"bench": "check"}, "ttl": "1m"});
        let published = agent
            .post(format!("{}/v1/notifications", self.url))
            .header("authorization", format!("Bearer {}", self.target.key))
            .header("content-type", "application/json")
            .send(notification.to_string());
        told(client::body(published), "publishing to a bench user")
    }
}

fn told(answer: Result<String, Failure>, what: &'static str) -> Result<(), Failure> {
    match answer {
        Ok(_) => Ok(()),
        Err(Failure::Other(error)) => Err(Failure::Other(error.context(what))),
        Err(other) => Err(other),
    }
}

fn target(addr: SocketAddr, host: String, key: String) -> Target {
    Target {
        kind: Kind::Postrider,
        addr,
        intake: addr,
        host,
        key,
    }
}

/// The `Host` and the address of a node's URL.
fn address(url: &str) -> Result<(String, SocketAddr), Failure> {
    let wrong = |why: &str| Failure::usage(format!("--url: `{url}` {why}"));
    if url.starts_with("https://") {
        return Err(wrong(
            "is https, which bench does not speak: measure the node's plain listener",
        ));
    }
    let host = url
        .strip_prefix("http://")
        .ok_or_else(|| wrong("is no http://host:port"))?;
    let host = host.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
        return Err(wrong("is no http://host:port"));
    }
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let full = if has_port {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let found = full
        .to_socket_addrs()
        .map_err(|error| wrong(&format!("is nowhere: {error}")))?;
    let mut found: Vec<_> = found.collect();
    // The same order for everybody: a name may stand for several.
    found.sort_by_key(SocketAddr::is_ipv6);
    let first = found.first().ok_or_else(|| wrong("has no address"))?;
    Ok((host.to_owned(), *first))
}

/// Letters and digits that no other run has.
fn tag() -> Result<String, Failure> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A node on loopback that lives as long as this.
struct OwnNode {
    child: Child,
    addr: SocketAddr,
    secret: String,
    key: String,
    _data: tempfile::TempDir,
}

impl OwnNode {
    fn start() -> anyhow::Result<OwnNode> {
        let data = tempfile::Builder::new().prefix("postrider-bench-").tempdir()?;
        let random = || tag().map_err(|_| anyhow!("no randomness"));
        let secret = [random()?, random()?, random()?, random()?, random()?].concat();
        let key = [random()?, random()?, random()?, random()?, random()?].concat();
        let keys = json!([{"name": "bench", "key": key, "scopes": ["publish", "broadcast"]}]);
        let settings = [
            ("http.listen", "127.0.0.1:0".to_owned()),
            ("ops.listen", "127.0.0.1:0".to_owned()),
            ("data_dir", data.path().join("data").display().to_string()),
            ("auth.jwt.hmac_secret", secret.clone()),
            ("auth.api_keys", keys.to_string()),
            ("log.level", "warn".to_owned()),
        ];
        let mut command = Command::new(std::env::current_exe()?);
        // It ends with this process, however that ends.
        command.args(["serve", "--log-format", "json", "--until-input-ends"]);
        for (name, value) in settings {
            command.args(["--set", &format!("{name}={value}")]);
        }
        // What somebody's shell sets is for their node.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("POSTRIDER_")) {
            command.env_remove(name);
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut own = OwnNode {
            child,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            secret,
            key,
            _data: data,
        };
        let stdout = own.child.stdout.take().context("it has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line).context("it did not come up")?;
        own.addr = ready["http"].as_str().context("it did not come up")?.parse()?;
        Ok(own)
    }
}

impl Drop for OwnNode {
    fn drop(&mut self) {
        // Its data goes with it: there is nothing to drain for.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("postrider: the bench's node did not end: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_and_a_port() {
        let (host, addr) = address("http://127.0.0.1:8080/").unwrap();
        assert_eq!((host.as_str(), addr.port()), ("127.0.0.1:8080", 8080));
        assert_eq!(address("http://127.0.0.1").unwrap().1.port(), 80);
        for wrong in [
            "127.0.0.1:8080",
            "https://127.0.0.1",
            "http://",
            "http://127.0.0.1:1/path",
            "http://a b",
        ] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
