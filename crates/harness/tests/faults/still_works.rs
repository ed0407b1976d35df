//! What needs no disk, and so must go on while the store refuses.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Request, once};
use postrider_harness::inbox::{AckMode, Connect, Refused, TRANSPORTS, next_notification};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::token;
use postrider_harness::user::User;
use postrider_harness::wait::{until, within};
use serde_json::json;

/// A user with this many entries, stored while all was well.
pub struct Witness {
    user: User,
    ids: Vec<String>,
}

/// How long anything here may take.
const PROMPT: Duration = Duration::from_secs(30);
/// How long a probe may take on a busy machine: less than the slowest sync that is made here.
const AT_ONCE: Duration = Duration::from_secs(20);

impl Witness {
    /// Publishes what is to be read later.
    pub fn prepare(node: &Node) -> Result<Witness> {
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        let ids = (0..20)
            .map(|n| {
                publisher.accepted(&json!({"users": ["witness"], "data": {"n": n, "pad": "y".repeat(2000)}}))
            })
            .collect::<Result<_>>()?;
        Ok(Witness {
            user: User::new(&node.endpoint, "witness")?,
            ids,
        })
    }

    /// What was stored before can be read.
    pub fn reads(&self) -> Result<()> {
        let began = Instant::now();
        // One whom a busy node puts off comes again, as it is told to.
        let mut pending = until("reading", within(30), || match self.user.pending() {
            Err(e) if Refused::is_for_now(&e) => Ok(None),
            told => told.map(Some),
        })?;
        // What went to everyone meanwhile is not looked at here.
        pending.retain(|id| self.ids.contains(id));
        ensure!(pending == self.ids, "wanted {:?}, read {pending:?}", self.ids);
        let history = self.user.history(5).context("history")?;
        ensure!(history.len() == 5, "history holds {}", history.len());
        ensure!(began.elapsed() < PROMPT, "reading took {:?}", began.elapsed());
        Ok(())
    }
}

/// Sessions begin, and what is not stored is delivered, on every transport.
pub fn connects_and_listens(node: &Node) -> Result<()> {
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    for transport in TRANSPORTS {
        let began = Instant::now();
        let user = format!("listener-{transport}");
        let token = token::user(&user)?;
        let mut inbox = Connect::new(&node.endpoint, &token)
            .ack(AckMode::None)
            .open(transport)
            .with_context(|| format!("connecting by {transport}"))?;
        // A poll listens only while one is under way, and asking for the next puts it there.
        ensure!(
            inbox.next(Instant::now() + Duration::from_millis(300)).is_ok(),
            "{transport} broke"
        );
        let sent = json!({"users": [user], "data": "now", "durability": "transient"});
        let deadline = within(30);
        let got = until("a transient delivery", deadline, || {
            publisher.accepted(&sent)?;
            Ok(next_notification(&mut *inbox, Instant::now() + Duration::from_millis(500)).ok())
        });
        got.with_context(|| format!("listening by {transport}"))?;
        ensure!(
            began.elapsed() < PROMPT,
            "{transport} took {:?} to deliver",
            began.elapsed()
        );
    }
    Ok(())
}

/// The probes answer at once.
pub fn is_alive(node: &Node) -> Result<()> {
    let began = Instant::now();
    let health = once(node.ops, &Request::new("GET", "/health"))?;
    ensure!(health.status() == 200, "/health answered {}", health.status());
    ensure!(began.elapsed() < AT_ONCE, "/health took {:?}", began.elapsed());
    Ok(())
}

/// `/ready` says that the node refuses, and why.
pub fn is_not_ready(node: &Node) -> Result<String> {
    until("/ready to answer 503", within(60), || {
        let (status, told) = node.ready()?;
        if status != 503 {
            return Ok(None);
        }
        let why = told["reason"]
            .as_str()
            .with_context(|| format!("503 without a reason: {told}"))?;
        Ok(Some(why.to_owned()))
    })
}

/// `/ready` comes back by itself.
pub fn is_ready_again(node: &Node) -> Result<()> {
    until("/ready to answer 200", within(60), || {
        Ok((node.ready()?.0 == 200).then_some(()))
    })
}
