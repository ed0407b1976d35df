//! Nodes behind a load balancer: HAProxy itself, with the file that the compose example gives it.
//!
//! Invariant checked: every node in turn is drained and started again while clients of all transports and publishers
//! come through the front, and nobody is refused, loses anything, or gets anything twice but by the rules.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::account::{Account, Audience};
use postrider_harness::http::{Request, once};
use postrider_harness::inbox::{AckMode, TRANSPORTS};
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
                // As the example has it: the front acknowledges what no client has seen.
                ("session.tcp_evidence", "false"),
                ("drain.spread", "1s"),
                ("ops.listen", &ops),
            ];
            nodes.push(Node::start_with(NodeOptions::sets(&sets))?);
        }
        let front = Front::start(&nodes)?;
        rolling_restart(&mut nodes, &front.endpoint)
    })
}

fn rolling_restart(nodes: &mut [Node], front: &Endpoint) -> Result<()> {
    let account = Arc::new(Account::default());
    let mut readers = Vec::new();
    for user in 0..USERS {
        for (nth, transport) in TRANSPORTS.into_iter().enumerate() {
            let spec = ReaderSpec {
                name: format!("user-{user} by {transport}"),
                user: format!("user-{user}"),
                topics: Vec::new(),
                member_of: Vec::new(),
                transports: vec![transport],
                ack: AckMode::Auto,
                leaves_after: None,
                seed: (user * TRANSPORTS.len() + nth) as u64,
            };
            readers.push(Reader::start(front, &account, spec)?);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let publishing = scope.spawn(|| publish_until(&stop, front, &account));
        let rolled = nodes.iter_mut().try_for_each(roll);
        stop.store(true, Ordering::Relaxed);
        publishing.join().ok().context("the publisher panicked")??;
        rolled
    })?;
    account.wait_complete(within(20));
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
    ensure!(
        report.reconnects >= (USERS * TRANSPORTS.len()) as u64,
        "hardly anyone had to come back"
    );
    Ok(())
}

/// Drains a node and starts it again; returns when it is ready.
fn roll(node: &mut Node) -> Result<()> {
    let status = node.terminate(Duration::from_secs(25))?;
    ensure!(status.success(), "exit after SIGTERM: {status}");
    node.restart_same_port()?;
    until_true("the node to be ready", within(10), || Ok(node.ready()?.0 == 200))?;
    // Before the next one goes, the front has to know that this one is back: it asks once a second.
    std::thread::park_timeout(Duration::from_millis(1500));
    Ok(())
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
    child: Child,
    _dir: tempfile::TempDir,
}

impl Front {
    fn start(nodes: &[Node]) -> Result<Front> {
        let dir = tempfile::Builder::new().prefix("postrider-front-").tempdir()?;
        let addr = loopback(free(1)?[0]);
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, configuration(&addr.to_string(), nodes)?)?;
        let child = haproxy(&file, &dir.path().join("log"))?;
        let front = Front {
            endpoint: Endpoint::fixed(addr),
            child,
            _dir: dir,
        };
        until_true(
            "the front to see nodes",
            Instant::now() + Duration::from_secs(15),
            || {
                // Without a token: a node says 401, the front itself 503.
                let asked = once(addr, &Request::new("GET", "/v1/inbox"));
                Ok(asked.is_ok_and(|answer| answer.status() == 401))
            },
        )?;
        Ok(front)
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

/// The example's file with this machine's addresses.
fn configuration(public: &str, nodes: &[Node]) -> Result<String> {
    let mut text = std::fs::read_to_string(CONFIGURATION)?;
    let mut replace = |from: String, to: String| -> Result<()> {
        ensure!(text.contains(&from), "haproxy.cfg has no `{from}`");
        text = text.replace(&from, &to);
        Ok(())
    };
    replace("bind :8080".into(), format!("bind {public}"))?;
    // Two files each, and a test may have fewer.
    replace("maxconn 50000".into(), "maxconn 2000".into())?;
    // No names here.
    replace(" resolvers docker init-addr last,libc,none".into(), String::new())?;
    for (nth, node) in nodes.iter().enumerate() {
        let name = format!("node-{}", nth + 1);
        replace(
            format!("{name}:8080 check port 9090"),
            format!("{} check port {}", node.endpoint.addr()?, node.ops.port()),
        )?;
    }
    Ok(text)
}
