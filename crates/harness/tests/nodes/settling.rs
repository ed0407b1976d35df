//! What one node does and another one tells: every rule of one node, with its two ends on different nodes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::fleet::Fleet;
use postrider_harness::http::Request;
use postrider_harness::inbox::{
    AckMode, Connect, Inbox, Received, TRANSPORTS, Transport, next_notification, wait_for,
};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{KEY, Node};
use postrider_harness::people::People;
use postrider_harness::publish::Publisher;
use postrider_harness::token;
use postrider_harness::user::User;
use postrider_harness::wait::{until_true, within};
use serde_json::{Value, json};

use crate::alone;
use crate::site::{Shape, Site};

const NODES: usize = 3;
/// The data of every broadcast here.
const TO_ALL: &str = r#""to all""#;

#[test]
fn nodes_over_one_server() -> Result<()> {
    run("nodes_over_one_server", &[Need::Redis], || all(Shape::Single))
}

#[test]
fn nodes_over_sentinels() -> Result<()> {
    run("nodes_over_sentinels", &[Need::Redis], || all(Shape::Sentinel))
}

#[test]
fn nodes_over_a_cluster() -> Result<()> {
    run("nodes_over_a_cluster", &[Need::Redis], || all(Shape::Cluster))
}

type Case = (&'static str, fn(&mut Fleet) -> Result<()>);

const CASES: [Case; 8] = [
    ("what one publishes all deliver", all_deliver),
    ("an id counts once, wherever it is published", an_id_counts_once),
    ("an ack on one settles on all", an_ack_settles),
    ("the first device takes it from the others", first_device),
    ("read and cancelled are told on all", marks_are_told),
    ("members and session topics", topics),
    ("states", states),
    ("what is due comes though its node died", due_times),
];

fn all(shape: Shape) -> Result<()> {
    let _alone = alone();
    let site = Site::start(shape)?;
    let sets = [
        ("topics.open", r#"["*"]"#),
        ("engine.redis.durability", shape.durability()),
    ];
    let mut fleet = site.fleet(NODES, &sets)?;
    for (name, case) in CASES {
        let began = Instant::now();
        case(&mut fleet).with_context(|| format!("{shape}: {name}{}", fleet.log_ends()))?;
        println!("nodes: {shape}: {name}: {:.2} s", began.elapsed().as_secs_f64());
    }
    Ok(())
}

fn publish(node: &Node, body: &Value) -> Result<String> {
    Publisher::new(&node.endpoint, KEY).accepted(body)
}

fn open(node: &Node, user: &str, transport: Transport, ack: AckMode) -> Result<Box<dyn Inbox>> {
    Connect::new(&node.endpoint, &token::user(user)?)
        .ack(ack)
        .open(transport)
}

/// The next notification but broadcasts, which are retained for whoever comes new, must be this one.
fn gets(inbox: &mut dyn Inbox, id: &str) -> Result<()> {
    let deadline = within(30);
    loop {
        let got = next_notification(inbox, deadline)?;
        if got.id == id {
            return Ok(());
        }
        ensure!(got.data == TO_ALL, "{} came instead of {id}", got.id);
    }
}

/// Until the node says so of a notification.
fn counts(node: &Node, id: &str, state: &str, count: u64) -> Result<()> {
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    until_true(&format!("{id}: {count} {state}"), within(30), || {
        Ok(publisher.count(id, state)? == count)
    })
}

fn all_deliver(fleet: &mut Fleet) -> Result<()> {
    let mut inboxes = Vec::new();
    for node in &fleet.nodes {
        for transport in TRANSPORTS {
            inboxes.push(open(node, "ada", transport, AckMode::Auto)?);
        }
    }
    for (nth, node) in fleet.nodes.iter().enumerate() {
        for body in [
            json!({"users": ["ada", "bob"], "data": nth}),
            serde_json::from_str(&format!(r#"{{"data":{TO_ALL}}}"#))?,
            json!({"users": ["ada"], "data": "now or never", "durability": "transient"}),
        ] {
            let id = publish(node, &body)?;
            for (transport, inbox) in TRANSPORTS.into_iter().cycle().zip(&mut inboxes) {
                // Between two polls nobody is there for it.
                if body["durability"] == "transient" && transport == Transport::LongPoll {
                    continue;
                }
                gets(&mut **inbox, &id).with_context(|| format!("{body} by node {nth}"))?;
            }
        }
    }
    Ok(())
}

fn an_id_counts_once(fleet: &mut Fleet) -> Result<()> {
    let body = json!({"id": "once", "users": ["eve"], "data": 1});
    let answers: Vec<Result<String>> = std::thread::scope(|scope| {
        let body = &body;
        let nodes = fleet.nodes.iter().cycle().take(NODES * 3);
        let twins: Vec<_> = nodes
            .map(|node| scope.spawn(move || publish(node, body)))
            .collect();
        let joined = twins
            .into_iter()
            .map(|twin| twin.join().ok().context("panicked")?);
        joined.collect()
    });
    for answer in answers {
        ensure!(answer? == "once");
    }
    let other = json!({"id": "once", "users": ["eve"], "data": 2});
    for node in &fleet.nodes {
        let answer = Publisher::new(&node.endpoint, KEY).one(&other)?;
        ensure!(answer.status() == 409, "{} {}", answer.status(), answer.text());
        // Beside the broadcasts that are retained.
        let pending = User::new(&node.endpoint, "eve")?.pending()?;
        let times = pending.iter().filter(|id| *id == "once").count();
        ensure!(times == 1, "{pending:?}");
    }
    // The same for a whole request, whose id the node makes: any other gives the first one's answer.
    let mut ids = Vec::new();
    for node in &fleet.nodes {
        let request = Request::new("POST", "/v1/notifications")
            .header("Idempotency-Key", "the-same")
            .body(
                "application/json",
                json!({"users": ["eve"], "data": 3}).to_string(),
            );
        let answer = Publisher::new(&node.endpoint, KEY).call(request)?;
        ensure!(answer.status() == 202, "{} {}", answer.status(), answer.text());
        ids.push(answer.json()?["id"].clone());
    }
    ids.dedup();
    ensure!(ids.len() == 1, "{ids:?}");
    Ok(())
}

fn an_ack_settles(fleet: &mut Fleet) -> Result<()> {
    let id = publish(&fleet.nodes[0], &json!({"users": ["fay", "gus"], "data": 1}))?;
    let by_id = User::new(&fleet.nodes[1].endpoint, "fay")?;
    ensure!(by_id.pending()?.contains(&id));
    ensure!(by_id.ack(&[&id])? == 1);
    // A synced ack is seen by whoever asks next.
    for node in &fleet.nodes {
        ensure!(!User::new(&node.endpoint, "fay")?.pending()?.contains(&id));
        ensure!(
            User::new(&node.endpoint, "fay")?.ack(&[&id])? == 0,
            "settled twice"
        );
        counts(node, &id, "delivered", 1)?;
    }
    // By a cursor that another node gave.
    let cursor = User::new(&fleet.nodes[2].endpoint, "gus")?.cursor(&[])?;
    ensure!(User::new(&fleet.nodes[0].endpoint, "gus")?.ack_cursor(&cursor)? > 0);
    ensure!(User::new(&fleet.nodes[0].endpoint, "gus")?.pending()?.is_empty());
    counts(&fleet.nodes[1], &id, "delivered", 2)
}

fn first_device(fleet: &mut Fleet) -> Result<()> {
    let mut here = open(&fleet.nodes[0], "hal", Transport::WebSocket, AckMode::Explicit)?;
    let mut there = open(&fleet.nodes[1], "hal", Transport::Sse, AckMode::Explicit)?;
    let body = json!({"users": ["hal"], "data": 1, "devices": "first"});
    let id = publish(&fleet.nodes[2], &body)?;
    gets(&mut *here, &id)?;
    gets(&mut *there, &id)?;
    here.send(&json!({"type": "ack", "ids": [id]}))?;
    let taken = wait_for(&mut *there, within(30), "taken", |received| match received {
        Received::Withdrawn { id, reason } => Some((id.clone(), reason.clone())),
        _ => None,
    })?;
    ensure!(taken == (id, "taken".to_owned()), "{taken:?}");
    Ok(())
}

fn marks_are_told(fleet: &mut Fleet) -> Result<()> {
    let mut inboxes = Vec::new();
    for (node, transport) in fleet.nodes.iter().zip(TRANSPORTS) {
        inboxes.push(open(node, "ida", transport, AckMode::Auto)?);
    }
    let [read, cancelled] = [1, 2].map(|n| publish(&fleet.nodes[n], &json!({"users": ["ida"], "data": n})));
    let (read, cancelled) = (read?, cancelled?);
    for inbox in &mut inboxes {
        gets(&mut **inbox, &read)?;
        gets(&mut **inbox, &cancelled)?;
    }
    User::new(&fleet.nodes[0].endpoint, "ida")?.read(&[&read])?;
    let answer = Publisher::new(&fleet.nodes[1].endpoint, KEY).cancel(&cancelled)?;
    ensure!(answer.status() == 200, "{} {}", answer.status(), answer.text());
    for inbox in &mut inboxes {
        let (mut saw_read, mut saw_cancelled) = (false, false);
        while !(saw_read && saw_cancelled) {
            match inbox.next(within(30))?.context("a mark did not come")? {
                Received::Read(ids) => saw_read |= ids.contains(&read),
                Received::Withdrawn { id, reason } => {
                    saw_cancelled |= id == cancelled && reason == "cancelled";
                }
                Received::End(end) => anyhow::bail!("ended by {end:?}"),
                _ => {}
            }
        }
    }
    counts(&fleet.nodes[2], &read, "read", 1)?;
    counts(&fleet.nodes[2], &cancelled, "cancelled", 1)
}

fn topics(fleet: &mut Fleet) -> Result<()> {
    let mut of_member = open(&fleet.nodes[0], "jan", Transport::WebSocket, AckMode::Auto)?;
    let mut of_session = Connect::new(&fleet.nodes[1].endpoint, &token::user("kai")?)
        .topics(&["crew"])
        .open(Transport::Sse)?;
    People::new(&fleet.nodes[2].endpoint, KEY).join("crew", "jan")?;
    let id = publish(&fleet.nodes[1], &json!({"topics": ["crew"], "data": 1}))?;
    gets(&mut *of_member, &id)?;
    gets(&mut *of_session, &id)?;
    People::new(&fleet.nodes[1].endpoint, KEY).leave("crew", "jan")?;
    let missed = publish(&fleet.nodes[2], &json!({"topics": ["crew"], "data": 2}))?;
    gets(&mut *of_session, &missed)?;
    let after = publish(&fleet.nodes[2], &json!({"users": ["jan"], "data": 3}))?;
    gets(&mut *of_member, &after)
}

fn states(fleet: &mut Fleet) -> Result<()> {
    let mut inbox = Connect::new(&fleet.nodes[2].endpoint, &token::user("lea")?)
        .query("state", "1")
        .open(Transport::WebSocket)?;
    let changed = People::new(&fleet.nodes[0].endpoint, KEY).merge("lea", &json!({"colour": "red"}))?;
    ensure!(changed.status() == 200, "{} {}", changed.status(), changed.text());
    wait_for(&mut *inbox, within(30), "the state", |received| {
        matches!(received, Received::State(state) if state["colour"] == "red").then_some(())
    })?;
    // No increment is lost, whichever nodes make them at once.
    std::thread::scope(|scope| -> Result<()> {
        let adds: Vec<_> = (0..12)
            .map(|nth| {
                let node = &fleet.nodes[nth % NODES];
                scope.spawn(move || People::new(&node.endpoint, KEY).increment("lea", &json!({"visits": 1})))
            })
            .collect();
        for add in adds {
            let answer = add.join().ok().context("panicked")??;
            ensure!(answer.status() == 200, "{} {}", answer.status(), answer.text());
        }
        Ok(())
    })?;
    for node in &fleet.nodes {
        let (state, _) = People::new(&node.endpoint, KEY).state("lea")?;
        ensure!(state == json!({"colour": "red", "visits": "12"}), "{state}");
    }
    Ok(())
}

fn due_times(fleet: &mut Fleet) -> Result<()> {
    let mut inbox = open(&fleet.nodes[1], "mia", Transport::WebSocket, AckMode::Auto)?;
    let in_a_second = time_after(Duration::from_secs(2))?;
    let id = publish(
        &fleet.nodes[0],
        &json!({"users": ["mia"], "data": 1, "deliver_at": in_a_second}),
    )?;
    fleet.nodes[0].kill9()?;
    let began = Instant::now();
    gets(&mut *inbox, &id)?;
    let took = began.elapsed();
    fleet.nodes[0].restart()?;
    // Due after two seconds at most; taken over from a dead node within its lease of two. The rest is for a busy machine.
    ensure!(took < Duration::from_secs(20), "it came after {took:?}");
    Ok(())
}

/// RFC 3339, in UTC.
fn time_after(from_now: Duration) -> Result<String> {
    let since = (std::time::SystemTime::now() + from_now).duration_since(std::time::UNIX_EPOCH)?;
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (day, time) = (seconds / 86_400, seconds % 86_400);
    // Days to a date, by Howard Hinnant's `civil_from_days`.
    let z = day as i64 + 719_468;
    let era = z / 146_097;
    let of_era = z - era * 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    Ok(format!(
        "{year}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
    ))
}
