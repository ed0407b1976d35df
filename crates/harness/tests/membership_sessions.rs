//! Sessions whose users join topics and leave them, and whose users' state maps change, over every transport; and who
//! is told to be there.
//!
//! Invariant checked: a session gets what came during its user's stays, once, and nothing else; it knows the state
//! first, and then as it changes, never an older after a newer; nobody is told to be there who is not.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Cut, Request};
use postrider_harness::inbox::{AckMode, Connect, Inbox, Received, Transport, next_notification, wait_for};
use postrider_harness::node::{KEY, Node};
use postrider_harness::people::People;
use postrider_harness::publish::Publisher;
use postrider_harness::token;
use postrider_harness::user::User;
use postrider_harness::wait::{until_true, within};
use serde_json::{Value, json};

struct Bench {
    node: Node,
    transport: Transport,
    people: People,
}

impl Bench {
    fn connect(&self, user: &str) -> Result<Connect> {
        Ok(Connect::new(&self.node.endpoint, &token::user(user)?))
    }

    fn open(&self, user: &str, mode: AckMode) -> Result<Box<dyn Inbox>> {
        self.connect(user)?.ack(mode).open(self.transport)
    }

    fn user(&self, id: &str) -> Result<User> {
        User::new(&self.node.endpoint, id)
    }

    fn publish(&self, audience: &Value, data: &Value) -> Result<String> {
        let mut notification = audience.clone();
        notification["data"] = data.clone();
        Publisher::new(&self.node.endpoint, KEY).accepted(&notification)
    }

    fn news(&self) -> Result<String> {
        self.publish(&json!({"topics": ["news"]}), &json!("news"))
    }

    /// What comes before a marker in the user's own feed, and in the topic that its user is a member of.
    fn before_markers(
        &self,
        inbox: &mut dyn Inbox,
        user: &str,
        topic: Option<&str>,
    ) -> Result<Vec<Received>> {
        let mut markers = vec![self.publish(&json!({"users": [user]}), &json!("marker"))?];
        if let Some(topic) = topic {
            markers.push(self.publish(&json!({"topics": [topic]}), &json!("marker"))?);
        }
        let deadline = within(60);
        let mut before = Vec::new();
        while !markers.is_empty() {
            let received = inbox.next(deadline)?.context("the marker did not come")?;
            match received {
                Received::Notification(n) if markers.contains(&n.id) => markers.retain(|id| *id != n.id),
                Received::End(end) => anyhow::bail!("ended before the marker: {end:?}"),
                other => before.push(other),
            }
        }
        Ok(before)
    }

    fn poll(&self, user: &str, query: &str) -> Result<Value> {
        let answer = self
            .user(user)?
            .call(Request::new("GET", &format!("/v1/inbox?{query}")))?;
        ensure!(answer.status() == 200, "{} {}", answer.status(), answer.text());
        answer.json()
    }

    /// Waits until so many sessions are open on this transport.
    fn wait_for_sessions(&self, transport: Transport, count: f64) -> Result<()> {
        let sample = format!("postrider_sessions{{transport=\"{transport}\"}}");
        until_true("the sessions", within(60), || {
            Ok(self.node.metric(&sample)? == count)
        })
    }

    fn online(&mut self, user: &str) -> Result<(bool, usize)> {
        let told = self.people.ask("GET", &format!("/v1/users/{user}/presence"))?;
        let sessions = told["sessions"].as_array().context("no sessions")?.len();
        Ok((told["online"].as_bool().context("no `online`")?, sessions))
    }
}

fn ids(received: &[Received]) -> Vec<&str> {
    let mut ids = Vec::new();
    for one in received {
        if let Received::Notification(n) = one {
            ids.push(n.id.as_str());
        }
    }
    ids
}

fn states(received: &[Received]) -> Vec<Value> {
    let state = |one: &Received| match one {
        Received::State(state) => Some(state.clone()),
        _ => None,
    };
    received.iter().filter_map(state).collect()
}

fn run(test: fn(&mut Bench) -> Result<()>, transport: Transport) {
    let sets = [
        ("topics.open", r#"["*"]"#),
        ("presence.linger", "1s"),
        ("delivery.ack_timeout", "1s"),
        ("ack.flush", "50ms"),
    ];
    let node = Node::start(&sets).unwrap();
    let people = People::new(&node.endpoint, KEY);
    let mut bench = Bench {
        node,
        transport,
        people,
    };
    if let Err(e) = test(&mut bench) {
        panic!("{transport}: {e:?}");
    }
}

macro_rules! on_every_transport {
    ($($name:ident),* $(,)?) => {
        on_every_transport!(@one long_poll LongPoll; $($name)*);
        on_every_transport!(@one sse Sse; $($name)*);
        on_every_transport!(@one websocket WebSocket; $($name)*);
    };
    (@one $module:ident $transport:ident; $($name:ident)*) => {
        mod $module {
            $(#[test]
            fn $name() {
                super::run(super::$name, super::Transport::$transport);
            })*
        }
    };
}

on_every_transport!(
    joins_leaves_and_comes_back_while_connected,
    a_cursor_goes_on_over_leaving_and_coming_back,
    what_came_during_a_stay_waits_after_leaving,
    a_members_topic_is_settled_by_evidence,
    a_members_topic_is_sent_again_until_it_is_acknowledged,
    a_topic_asked_for_is_heard_as_a_member,
    several_topics_bring_it_once,
    the_state_comes_first_and_then_every_change_in_order,
    who_did_not_ask_for_the_state_is_not_told,
);

fn joins_leaves_and_comes_back_while_connected(bench: &mut Bench) -> Result<()> {
    bench.news()?;
    let mut inbox = bench.open("ada", AckMode::Auto)?;
    ensure!(ids(&bench.before_markers(&mut *inbox, "ada", None)?).is_empty());
    let mut wanted = Vec::new();
    for _ in 0..3 {
        bench.people.join("news", "ada")?;
        wanted.push(bench.news()?);
        wanted.push(bench.news()?);
        bench.people.leave("news", "ada")?;
        bench.news()?;
    }
    bench.people.join("news", "ada")?;
    let got = bench.before_markers(&mut *inbox, "ada", Some("news"))?;
    ensure!(ids(&got) == wanted, "{:?} and not {wanted:?}", ids(&got));
    bench.people.leave("news", "ada")?;
    bench.news()?;
    ensure!(ids(&bench.before_markers(&mut *inbox, "ada", None)?).is_empty());
    Ok(())
}

fn a_cursor_goes_on_over_leaving_and_coming_back(bench: &mut Bench) -> Result<()> {
    bench.people.join("news", "ada")?;
    let first = bench.news()?;
    let mut inbox = bench.open("ada", AckMode::Auto)?;
    ensure!(next_notification(&mut *inbox, within(60))?.id == first);
    let cursor = wait_for(&mut *inbox, within(60), "a cursor", |received| match received {
        Received::Cursor(cursor) => Some(cursor.clone()),
        _ => None,
    })?;
    inbox.cut(Cut::Reset);
    let mut wanted = vec![bench.news()?];
    bench.people.leave("news", "ada")?;
    bench.news()?;
    bench.people.join("news", "ada")?;
    wanted.push(bench.news()?);
    bench.people.leave("news", "ada")?;
    bench.news()?;
    let mut inbox = bench.connect("ada")?.cursor(&cursor).open(bench.transport)?;
    let mut got = Vec::new();
    while ids(&got).len() < wanted.len() {
        got.push(inbox.next(within(60))?.context("something is missing")?);
    }
    got.extend(bench.before_markers(&mut *inbox, "ada", None)?);
    ensure!(ids(&got) == wanted, "{got:?} and not {wanted:?}");
    let gap = got.iter().any(|received| matches!(received, Received::Gap(_)));
    ensure!(!gap, "what is not the user's is no gap");
    Ok(())
}

fn what_came_during_a_stay_waits_after_leaving(bench: &mut Bench) -> Result<()> {
    bench.people.join("news", "ada")?;
    let id = bench.news()?;
    bench.people.leave("news", "ada")?;
    bench.news()?;
    let mut inbox = bench.open("ada", AckMode::Explicit)?;
    ensure!(next_notification(&mut *inbox, within(60))?.id == id);
    ensure!(ids(&bench.before_markers(&mut *inbox, "ada", None)?).is_empty());
    ensure!(bench.user("ada")?.ack(&[&id])? == 1);
    ensure!(!bench.user("ada")?.pending()?.contains(&id));
    Ok(())
}

fn a_members_topic_is_settled_by_evidence(bench: &mut Bench) -> Result<()> {
    let mut inbox = bench.open("ada", AckMode::Auto)?;
    ensure!(ids(&bench.before_markers(&mut *inbox, "ada", None)?).is_empty());
    bench.people.join("news", "ada")?;
    bench.people.join("news", "bob")?;
    let id = bench.news()?;
    ensure!(next_notification(&mut *inbox, within(60))?.id == id);
    let (user, deadline) = (bench.user("ada")?, within(60));
    until_true("the settlement", deadline, || {
        // The client answers pings, and polls on, only while it is asked.
        inbox.next(std::time::Instant::now() + std::time::Duration::from_millis(50))?;
        Ok(!user.pending()?.contains(&id))
    })?;
    ensure!(bench.user("bob")?.pending()? == [id], "each member settles alone");
    Ok(())
}

fn a_members_topic_is_sent_again_until_it_is_acknowledged(bench: &mut Bench) -> Result<()> {
    bench.people.join("news", "ada")?;
    let mut connect = bench.connect("ada")?.ack(AckMode::Explicit);
    connect.repeats = true;
    let mut inbox = connect.open(bench.transport)?;
    let id = bench.news()?;
    ensure!(next_notification(&mut *inbox, within(60))?.attempt.is_none());
    let again = next_notification(&mut *inbox, within(60))?;
    ensure!(
        again.id == id && again.attempt.is_some_and(|attempt| attempt >= 2),
        "{again:?}"
    );
    // After leaving it is still there to be acknowledged.
    bench.people.leave("news", "ada")?;
    ensure!(bench.user("ada")?.ack(&[&id])? == 1);
    ensure!(bench.user("ada")?.pending()?.is_empty());
    Ok(())
}

fn a_topic_asked_for_is_heard_as_a_member(bench: &mut Bench) -> Result<()> {
    let connect = bench.connect("ada")?.topics(&["news"]);
    let mut inbox = connect.open(bench.transport)?;
    bench.before_markers(&mut *inbox, "ada", None)?;
    let before = bench.news()?;
    ensure!(next_notification(&mut *inbox, within(60))?.id == before);
    bench.people.join("news", "ada")?;
    let id = bench.news()?;
    ensure!(next_notification(&mut *inbox, within(60))?.id == id);
    drop(inbox);
    // The first was for a session topic and has no state; the other waits unless it was settled.
    ensure!(!bench.user("ada")?.pending()?.contains(&before));
    bench.people.leave("news", "ada")?;
    let mut inbox = connect.open(bench.transport)?;
    bench.before_markers(&mut *inbox, "ada", None)?;
    let after = bench.news()?;
    ensure!(
        next_notification(&mut *inbox, within(60))?.id == after,
        "asked for, it is heard again"
    );
    Ok(())
}

fn several_topics_bring_it_once(bench: &mut Bench) -> Result<()> {
    for topic in ["news", "sport"] {
        bench.people.join(topic, "ada")?;
    }
    let mut inbox = bench.open("ada", AckMode::Auto)?;
    let both = json!({"topics": ["sport", "weather", "news"]});
    // Once it is there, it does not come again in the other topic; and in the one that is left it goes on to come.
    for leaves in [Some("sport"), None] {
        let id = bench.publish(&both, &json!("both"))?;
        ensure!(next_notification(&mut *inbox, within(60))?.id == id);
        let more = bench.before_markers(&mut *inbox, "ada", Some("news"))?;
        ensure!(ids(&more).is_empty(), "{more:?}");
        if let Some(topic) = leaves {
            bench.people.leave(topic, "ada")?;
        }
    }
    Ok(())
}

fn the_state_comes_first_and_then_every_change_in_order(bench: &mut Bench) -> Result<()> {
    bench.people.merge("ada", &json!({"theme": "dark"}))?;
    bench.publish(&json!({"users": ["ada"]}), &json!("waits"))?;
    let mut inbox = bench.connect("ada")?.query("state", "1").open(bench.transport)?;
    let first = loop {
        match inbox.next(within(60))?.context("nothing came")? {
            Received::Hello(_) | Received::Retry(_) | Received::KeepAlive => {}
            other => break other,
        }
    };
    // Of a poll's answer the client of this harness yields the notifications first; they come together.
    let is_poll = bench.transport == Transport::LongPoll;
    ensure!(
        is_poll || first == Received::State(json!({"theme": "dark"})),
        "{first:?}"
    );
    let mut got = bench.before_markers(&mut *inbox, "ada", None)?;
    got.insert(0, first);
    ensure!(states(&got) == [json!({"theme": "dark"})], "{:?}", states(&got));
    for _ in 0..20 {
        bench.people.increment("ada", &json!({"unread": 1}))?;
        if is_poll {
            // Between two polls only the newest is there to be told.
            let told = wait_for(&mut *inbox, within(60), "the state", |received| match received {
                Received::State(state) => Some(state.clone()),
                _ => None,
            })?;
            got.push(Received::State(told));
        }
    }
    got.extend(bench.before_markers(&mut *inbox, "ada", None)?);
    let wanted = (1..=20).map(|n| json!({"theme": "dark", "unread": n.to_string()}));
    let wanted: Vec<_> = [json!({"theme": "dark"})].into_iter().chain(wanted).collect();
    ensure!(states(&got) == wanted, "{:?}", states(&got));
    Ok(())
}

fn who_did_not_ask_for_the_state_is_not_told(bench: &mut Bench) -> Result<()> {
    let mut inbox = bench.open("ada", AckMode::Auto)?;
    bench.people.merge("ada", &json!({"theme": "dark"}))?;
    ensure!(states(&bench.before_markers(&mut *inbox, "ada", None)?).is_empty());
    Ok(())
}

#[test]
fn a_poll_is_answered_when_the_state_is_another_than_it_had() {
    run(
        |bench| {
            bench.people.merge("ada", &json!({"a": "1"}))?;
            let answer = bench.poll("ada", "state=1&wait=30")?;
            ensure!(
                answer["events"] == json!([{"type": "state", "state": {"a": "1"}}]),
                "{answer}"
            );
            let cursor = answer["cursor"].as_str().context("no cursor")?;
            let answer = bench.poll("ada", &format!("state=1&wait=0&cursor={cursor}"))?;
            ensure!(answer["events"] == json!([]), "it has that: {answer}");
            let told = std::thread::scope(|scope| {
                let poll = scope.spawn(|| bench.poll("ada", &format!("state=1&wait=60&cursor={cursor}")));
                bench.wait_for_sessions(Transport::LongPoll, 1.0)?;
                People::new(&bench.node.endpoint, KEY).merge("ada", &json!({"a": null, "b": "2"}))?;
                poll.join().expect("the poll panicked")
            })?;
            ensure!(
                told["events"] == json!([{"type": "state", "state": {"b": "2"}}]),
                "{told}"
            );
            // Whoever polls without it has a cursor as ever, which says nothing of the state.
            let plain = bench.poll("ada", "wait=0")?;
            let cursor = plain["cursor"].as_str().context("no cursor")?;
            let answer = bench.poll("ada", &format!("state=1&wait=30&cursor={cursor}"))?;
            ensure!(answer["events"][0]["state"] == json!({"b": "2"}), "{answer}");
            Ok(())
        },
        Transport::LongPoll,
    );
}

#[test]
fn a_waiting_poll_hears_a_topic_that_its_user_joins() {
    run(
        |bench| {
            let told = std::thread::scope(|scope| {
                let poll = scope.spawn(|| bench.poll("ada", "wait=60"));
                bench.wait_for_sessions(Transport::LongPoll, 1.0)?;
                People::new(&bench.node.endpoint, KEY).join("news", "ada")?;
                bench.news()?;
                poll.join().expect("the poll panicked")
            })?;
            ensure!(told["notifications"][0]["topic"] == "news", "{told}");
            Ok(())
        },
        Transport::LongPoll,
    );
}

#[test]
fn a_slow_client_gets_the_newest_state_and_never_an_older_after_it() {
    const CHANGES: u64 = 700;
    for transport in [Transport::Sse, Transport::WebSocket] {
        run(
            |bench| {
                let mut connect = bench.connect("ada")?.query("state", "1");
                connect.recv_buffer = Some(4096);
                let mut slow = connect.open(bench.transport)?;
                let mut quick = bench.connect("ada")?.query("state", "1").open(bench.transport)?;
                // One that reads is told of every one.
                let mut quick_got = Vec::new();
                let large = "x".repeat(15 << 10);
                for n in 1..=CHANGES {
                    let change = json!({"n": n.to_string(), "large": large});
                    let answer = bench.people.merge("ada", &change)?;
                    ensure!(answer.status() == 200, "{}", answer.text());
                    let told = wait_for(&mut *quick, within(60), "the state", |received| match received {
                        Received::State(state) if state["n"].is_string() => Some(state["n"].clone()),
                        _ => None,
                    })?;
                    quick_got.push(told);
                }
                let wanted: Vec<_> = (1..=CHANGES).map(|n| json!(n.to_string())).collect();
                ensure!(quick_got == wanted, "{quick_got:?}");
                let mut got: Vec<u64> = Vec::new();
                while got.last() != Some(&CHANGES) {
                    let n = wait_for(
                        &mut *slow,
                        within(30),
                        "the newest state",
                        |received| match received {
                            Received::State(state) => Some(state["n"].as_str().map_or(Ok(0), str::parse)),
                            _ => None,
                        },
                    )??;
                    ensure!(got.last().is_none_or(|last| *last < n), "{n} after {got:?}");
                    got.push(n);
                }
                ensure!(
                    got.len() < CHANGES as usize,
                    "nothing was skipped: the client was not slow"
                );
                Ok(())
            },
            transport,
        );
    }
}

#[test]
fn who_is_there_is_told_by_user_and_by_topic() {
    run(
        |bench| {
            ensure!(bench.online("ada")? == (false, 0));
            bench.people.join("news", "ada")?;
            let one = bench.open("ada", AckMode::Auto)?;
            let two = bench.connect("ada")?.open(Transport::Sse)?;
            let bob = bench.connect("bob")?.topics(&["news"]).open(Transport::Sse)?;
            let eve = bench.connect("eve")?.open(Transport::WebSocket)?;
            bench.wait_for_sessions(Transport::Sse, 2.0)?;
            bench.wait_for_sessions(Transport::WebSocket, 2.0)?;
            until_true("ada to be there twice", within(60), || {
                Ok(bench.online("ada")? == (true, 2))
            })?;
            let mut topic = || bench.people.ask("GET", "/v1/topics/news/presence?users=true");
            let told = topic()?;
            ensure!(told["sessions"] == 3 && told["users"] == 2, "{told}");
            ensure!(told["present"] == json!(["ada", "bob"]), "{told}");
            drop((two, bob));
            until_true("bob to be gone from the topic", within(60), || {
                let told = topic()?;
                Ok(told["sessions"] == 1 && told["present"] == json!(["ada"]))
            })?;
            drop((one, eve));
            for user in ["ada", "bob", "eve"] {
                until_true("nobody to be there", within(60), || {
                    Ok(bench.online(user)? == (false, 0))
                })?;
            }
            // A node that crashed knows of nobody.
            let _held = bench.open("ada", AckMode::Auto)?;
            until_true("ada to be there", within(60), || {
                Ok(bench.online("ada")? == (true, 1))
            })?;
            bench.node.kill9()?;
            bench.node.restart()?;
            bench.people = People::new(&bench.node.endpoint, KEY);
            ensure!(bench.online("ada")? == (false, 0));
            Ok(())
        },
        Transport::WebSocket,
    );
}

#[test]
fn a_client_that_polls_or_reconnects_does_not_come_and_go() {
    run(
        |bench| {
            let mut everyone = bench.people.presence("")?;
            let mut of_topic = bench.people.presence("?topic=news")?;
            ensure!(everyone.snapshot(within(60))?.is_empty() && of_topic.snapshot(within(60))?.is_empty());
            bench.people.join("news", "ada")?;
            for _ in 0..20 {
                bench.poll("ada", "wait=0")?;
                drop(bench.connect("ada")?.open(Transport::Sse)?);
            }
            for stream in [&mut everyone, &mut of_topic] {
                stream.expect("join", "ada", within(60))?;
                stream.expect("leave", "ada", within(60))?;
            }
            // Who leaves a topic is gone from it, though still there.
            let _held = bench.connect("ada")?.open(Transport::Sse)?;
            for stream in [&mut everyone, &mut of_topic] {
                stream.expect("join", "ada", within(60))?;
            }
            bench.people.leave("news", "ada")?;
            of_topic.expect("leave", "ada", within(60))?;
            ensure!(bench.online("ada")? == (true, 1));
            Ok(())
        },
        Transport::LongPoll,
    );
}
