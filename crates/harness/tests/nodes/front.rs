//! Nodes behind a load balancer: HAProxy itself, with the file that the compose example gives it.
//!
//! Invariant checked: every node in turn is drained and started again while clients of all transports and publishers
//! come through the front, and nobody is refused, loses anything, or gets anything twice but by the rules.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postrider_harness::account::{Account, Audience};
use postrider_harness::http::{Request, once};
use postrider_harness::inbox::{AckMode, TRANSPORTS, Transport};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{Endpoint, KEY, Node, NodeOptions};
use postrider_harness::ports::{free, loopback};
use postrider_harness::publish::Publisher;
use postrider_harness::reader::{Reader, ReaderSpec};
use postrider_harness::settle::{Shape as Publishing, publish};
use postrider_harness::wait::{until_true, within};
use serde_json::json;

use crate::alone;
use crate::site::{Shape, Site};

const NODES: usize = 3;
const USERS: usize = 8;
/// So many are accepted at least while a node is away or after it.
const ACCEPTED_EACH: u64 = 10;
/// The file, from this crate.
const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/compose/haproxy.cfg");

#[test]
fn a_rolling_restart_behind_a_load_balancer() -> Result<()> {
    let needs = [Need::Redis, Need::HaProxy];
    run("a_rolling_restart_behind_a_load_balancer", &needs, || {
        let _alone = alone();
        let site = Site::start(Shape::Single)?;
        let Site::Single(redis) = &site else {
            anyhow::bail!("not a single server")
        };
        let mut nodes = Vec::new();
        for port in free(NODES)? {
            let ops = loopback(port).to_string();
            let sets = [
                ("engine.type", "redis"),
                ("engine.redis.url", &redis.url()),
                ("engine.redis.durability", "aof"),
                // A machine that stands still for some seconds is no Redis that is away.
                ("engine.redis.timeout", "10s"),
                // As the example has it: the front acknowledges what no client has seen.
                ("session.tcp_evidence", "false"),
                ("drain.spread", "1s"),
                ("ops.listen", &ops),
            ];
            nodes.push(Node::start_to_come_back(NodeOptions::sets(&sets))?);
        }
        let front = Front::start(&nodes)?;
        rolling_restart(&mut nodes, &front)
    })
}

fn rolling_restart(nodes: &mut [Node], front: &Front) -> Result<()> {
    let account = Arc::new(Account::default());
    let mut readers = Vec::new();
    for user in 0..USERS {
        for (nth, transport) in TRANSPORTS.into_iter().enumerate() {
            let spec = ReaderSpec {
                name: name(user, transport),
                user: format!("user-{user}"),
                topics: Vec::new(),
                member_of: Vec::new(),
                transports: vec![transport],
                ack: AckMode::Auto,
                leaves_after: None,
                seed: (user * TRANSPORTS.len() + nth) as u64,
            };
            readers.push(Reader::start(&front.endpoint, &account, spec)?);
        }
    }
    let mut publisher = Publisher::new(&front.endpoint, KEY);
    broadcast(&mut publisher, &account, "first")?;
    // Whoever has it has a session, which the drain of its node has to end.
    ensure!(
        account.wait_complete(within(60)),
        "not everybody has a session: {}",
        account.report().text()
    );
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let publishing = scope.spawn(|| publish_until(&stop, &front.endpoint, &account));
        let rolled = nodes
            .iter_mut()
            .enumerate()
            .try_for_each(|(nth, node)| roll(node, &server(nth), front, &account));
        stop.store(true, Ordering::Relaxed);
        publishing.join().ok().context("the publisher panicked")??;
        rolled
    })?;
    // No session of before can bring this one: whoever was cut off has come back by then.
    broadcast(&mut publisher, &account, "last")?;
    account.wait_complete(within(60));
    readers.into_iter().for_each(Reader::stop);
    let report = account.report();
    println!(
        "front: {NODES} nodes drained and started again behind HAProxy: {}",
        report.text()
    );
    ensure!(
        report.is_clean(),
        "the account does not balance: {}",
        report.text()
    );
    // A stream ends with its node. A poll is answered, and the next one is another node's: it need not notice.
    let stayed: Vec<String> = account
        .reconnects()
        .into_iter()
        .filter(|(reader, times)| *times == 0 && !reader.ends_with(&by(Transport::LongPoll)))
        .map(|(reader, _)| reader)
        .collect();
    ensure!(
        stayed.is_empty(),
        "their nodes were drained and they never came back: {stayed:?}"
    );
    Ok(())
}

fn name(user: usize, transport: Transport) -> String {
    format!("user-{user}{}", by(transport))
}

fn by(transport: Transport) -> String {
    format!(" by {transport}")
}

/// To everyone; returns when it is accepted.
fn broadcast(publisher: &mut Publisher, account: &Account, id: &str) -> Result<()> {
    account.sent(0, id, "0", &Audience::Everyone, &[]);
    let batch = [json!({"id": id, "data": 0})];
    publish(publisher, Publishing::Single, &batch, within(30), |id| {
        account.accepted(id);
    })?;
    Ok(())
}

/// Drains a node and starts it again, under publishing. Returns when the front sends clients there again: the next one may
/// go only then.
fn roll(node: &mut Node, server: &str, front: &Front, account: &Account) -> Result<()> {
    let enough = account.accepted_count() + ACCEPTED_EACH;
    let status = node.terminate(Duration::from_secs(25))?;
    ensure!(status.success(), "exit after SIGTERM: {status}");
    node.restart_same_port()?;
    until_true("the node to be ready", within(30), || Ok(node.ready()?.0 == 200))?;
    until_true("the front to see the node again", within(30), || {
        front.sees(server)
    })?;
    until_true("publishing to go on", within(60), || {
        Ok(account.accepted_count() >= enough)
    })
}

fn publish_until(stop: &AtomicBool, front: &Endpoint, account: &Account) -> Result<()> {
    let mut publisher = Publisher::new(front, KEY);
    for nth in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("n-{nth}");
        let user = format!("user-{}", nth % USERS);
        let audience = if nth.is_multiple_of(10) {
            Audience::Everyone
        } else {
            Audience::Users(vec![user.clone()])
        };
        let mut body = json!({"id": id, "data": nth});
        if let Audience::Users(users) = &audience {
            body["users"] = json!(users);
        }
        account.sent(0, &id, &nth.to_string(), &audience, &[]);
        let batch = [body];
        publish(&mut publisher, Publishing::Single, &batch, within(30), |id| {
            account.accepted(id);
        })?;
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

/// HAProxy before nodes.
struct Front {
    endpoint: Endpoint,
    stats: PathBuf,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Front {
    fn start(nodes: &[Node]) -> Result<Front> {
        let dir = tempfile::Builder::new().prefix("postrider-front-").tempdir()?;
        let addr = loopback(free(1)?[0]);
        let file = dir.path().join("haproxy.cfg");
        let stats = dir.path().join("stats");
        std::fs::write(&file, configuration(&addr.to_string(), &stats, nodes)?)?;
        let child = haproxy(&file, &dir.path().join("log"))?;
        let front = Front {
            endpoint: Endpoint::fixed(addr),
            stats,
            child,
            _dir: dir,
        };
        until_true("the front to see nodes", within(30), || {
            // Without a token: a node says 401, the front itself 503.
            let asked = once(addr, &Request::new("GET", "/v1/inbox"));
            Ok(asked.is_ok_and(|answer| answer.status() == 401))
        })?;
        Ok(front)
    }

    /// Whether it sends clients to a server of the file.
    fn sees(&self, server: &str) -> Result<bool> {
        let mut socket = UnixStream::connect(&self.stats).context("HAProxy's socket")?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        socket.write_all(b"show stat\n")?;
        let mut table = String::new();
        socket.read_to_string(&mut table)?;
        let mut rows = table.lines().map(|line| line.trim_start_matches("# ").split(','));
        let mut names = rows.next().context("HAProxy says nothing")?;
        let status = names
            .position(|name| name == "status")
            .context("HAProxy tells no status")?;
        let mut row = rows
            .find(|row| row.clone().nth(1) == Some(server))
            .with_context(|| format!("HAProxy has no {server}"))?;
        Ok(row.nth(status) == Some("UP"))
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(e) = ended {
            eprintln!("harness: HAProxy was not ended: {e}");
        }
    }
}

fn haproxy(file: &Path, log: &Path) -> Result<Child> {
    let log = File::create(log)?;
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(file);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("run haproxy")
}

/// The example's file with this machine's addresses, and a socket by which HAProxy tells what it sees.
fn configuration(public: &str, stats: &Path, nodes: &[Node]) -> Result<String> {
    let mut text = std::fs::read_to_string(CONFIGURATION)?;
    let mut replace = |from: String, to: String| -> Result<()> {
        ensure!(text.contains(&from), "haproxy.cfg has no `{from}`");
        text = text.replace(&from, &to);
        Ok(())
    };
    replace("bind :8080".into(), format!("bind {public}"))?;
    // Two files each, and a test may have fewer.
    let socket = format!("stats socket {} mode 600 level user", stats.display());
    replace("maxconn 50000".into(), format!("maxconn 2000\n    {socket}"))?;
    // No names here.
    replace(" resolvers docker init-addr last,libc,none".into(), String::new())?;
    for (nth, node) in nodes.iter().enumerate() {
        let name = server(nth);
        replace(
            format!("{name}:8080 check port 9090"),
            format!("{} check port {}", node.endpoint.addr()?, node.ops.port()),
        )?;
    }
    Ok(text)
}

/// What the file calls a node.
fn server(nth: usize) -> String {
    format!("node-{}", nth + 1)
}
