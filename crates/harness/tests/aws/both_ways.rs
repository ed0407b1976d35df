//! A source that leads to Postrider's own sessions and to the connections of an API Gateway: each way has what is its own,
//! and what fails on one harms nothing on the other.

use anyhow::{Context as _, Result, ensure};
use postrider_harness::aws::{ApiGateway, Boto, Emulator, Mood, environment};
use postrider_harness::http::{Request, once};
use postrider_harness::inbox::{Connect, Inbox, Transport, next_notification};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{KEY, Node, NodeOptions};
use postrider_harness::token;
use postrider_harness::wait::{until_true, within};
use serde_json::{Value, json};

const TABLE: &str = "connections";
/// Who has which connection.
const ROWS: [(&str, &str); 4] = [("ada", "a1="), ("ada", "a2="), ("bob", "b1="), ("eve", "gone=")];

struct Lab {
    _emulator: Emulator,
    boto: Boto,
    stage: ApiGateway,
    node: Node,
    queue: String,
}

impl Lab {
    fn start(settle_on: &str) -> Result<Lab> {
        let emulator = Emulator::moto()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let queue = boto.queue("requests", json!({}))?;
        boto.connections_table(TABLE)?;
        let rows = ROWS.map(|(user, connection)| (user.to_owned(), connection.to_owned()));
        boto.put_connections(TABLE, &rows)?;
        let stage = ApiGateway::start()?;
        stage.connect(["a1=", "a2=", "b1="]);
        let mut env = environment(&emulator.endpoint());
        for (name, value) in [
            ("APIGW_ENDPOINT", stage.endpoint()),
            ("CONNECTIONS_TABLE_NAME", TABLE.to_owned()),
            ("SQS_QUEUE_URL", queue.clone()),
        ] {
            env.push((name.to_owned(), value));
        }
        let node = Node::start_with(NodeOptions {
            env,
            args: vec!["--preset".into(), "apigw-pusher".into()],
            ..NodeOptions::sets(&[
                ("sources.requests.deliver_to", r#"["inbox","push"]"#),
                ("sources.requests.settle_on", settle_on),
                ("sources.requests.wait", "1s"),
                ("sources.requests.visibility", "8s"),
                ("channels.push.attempts", "3"),
                ("channels.push.backoff", "10ms"),
                ("channels.push.backoff_max", "200ms"),
            ])
        })?;
        Ok(Lab {
            _emulator: emulator,
            boto,
            stage,
            node,
            queue,
        })
    }

    fn session(&self, user: &str, transport: Transport) -> Result<Box<dyn Inbox>> {
        Connect::new(&self.node.endpoint, &token::user(user)?).open(transport)
    }

    fn send(&mut self, request: &Value) -> Result<()> {
        self.boto.send(&self.queue, &request.to_string(), &[])?;
        Ok(())
    }

    fn deleted(&mut self) -> Result<()> {
        until_true("the message is deleted", within(90), || {
            Ok(self.boto.counts(&self.queue)? == (0, 0))
        })
    }

    /// It may be visible for a moment where the machine stood still, until it is taken again.
    fn held(&mut self) -> Result<()> {
        until_true("the message is held", within(30), || {
            Ok(self.boto.counts(&self.queue)? == (0, 1))
        })
    }

    fn posted(&self, connection: &str) -> Vec<String> {
        let bodies = self.stage.received(connection).into_iter();
        bodies
            .map(|body| String::from_utf8_lossy(&body).into_owned())
            .collect()
    }

    fn dead_letters(&self) -> Result<Vec<Value>> {
        let asked = Request::new("GET", "/v1/dead-letters").bearer(KEY);
        let page = once(self.node.endpoint.addr()?, &asked)?.json()?;
        page["dead_letters"]
            .as_array()
            .cloned()
            .context("no dead letters")
    }
}

fn expect(session: &mut dyn Inbox, data: &str) -> Result<()> {
    let got = next_notification(session, within(90))?;
    ensure!(got.data == data, "{got:?} instead of {data}");
    Ok(())
}

#[test]
fn sessions_and_connections_get_it_and_one_that_fails_has_its_dead_letter() -> Result<()> {
    let name = "sessions_and_connections_get_it_and_one_that_fails_has_its_dead_letter";
    run(name, &[Need::Moto], || {
        let mut lab = Lab::start("stored")?;
        let mut ada = lab.session("ada", Transport::Sse)?;
        let mut carl = lab.session("carl", Transport::WebSocket)?;
        lab.stage.plan("a2=", [Mood::Fails(500); 3]);
        lab.send(&json!({"users": ["ada", "bob", "carl", "eve", "ada"], "data": {"n": 1}}))?;
        expect(&mut *ada, r#"{"n":1}"#)?;
        expect(&mut *carl, r#"{"n":1}"#)?;
        lab.deleted()?;
        for (connection, times) in [("a1=", 1), ("a2=", 0), ("b1=", 1)] {
            let posted = lab.posted(connection);
            ensure!(posted == vec![r#"{"n":1}"#; times], "{connection} {posted:?}");
        }
        let letters = lab.dead_letters()?;
        ensure!(
            letters.len() == 1 && letters[0]["user"] == "ada" && letters[0]["reason"] == "max_attempts",
            "{letters:?}"
        );
        let detail = letters[0]["detail"].as_str().unwrap_or_default();
        ensure!(detail.contains("connection a2=: HTTP 500"), "{detail}");
        // Who was away on both ways has it in the inbox.
        expect(&mut *lab.session("eve", Transport::LongPoll)?, r#"{"n":1}"#)?;
        until_true(
            "the row of the connection that is gone to be deleted",
            within(90),
            || Ok(lab.boto.connections(TABLE)?.len() == ROWS.len() - 1),
        )?;
        // Everyone, but one.
        lab.send(&json!({"exclude_users": ["bob"], "data": 2}))?;
        expect(&mut *ada, "2")?;
        expect(&mut *carl, "2")?;
        lab.deleted()?;
        ensure!(lab.posted("a2=") == ["2"] && lab.posted("b1=").len() == 1);
        Ok(())
    })
}

#[test]
fn an_endpoint_that_is_away_holds_the_message_and_no_session() -> Result<()> {
    let name = "an_endpoint_that_is_away_holds_the_message_and_no_session";
    run(name, &[Need::Moto], || {
        let mut lab = Lab::start("stored")?;
        let mut ada = lab.session("ada", Transport::Sse)?;
        lab.stage.every(1, Mood::Resets);
        lab.send(&json!({"users": ["ada"], "data": "now"}))?;
        expect(&mut *ada, "\"now\"")?;
        until_true("the channel is told to be away", within(90), || {
            Ok(lab.node.ready()?.1["awaiting"] == json!(["push"]))
        })?;
        lab.held()?;
        // What the node holds when it dies comes again: to the connections, and not again to the session.
        lab.node.kill9()?;
        lab.stage.every(0, Mood::Fair);
        lab.node.restart()?;
        let mut ada = Connect::new(&lab.node.endpoint, &token::user("ada")?)
            .ack(postrider_harness::inbox::AckMode::Explicit)
            .open(Transport::Sse)?;
        lab.deleted()?;
        ensure!(lab.posted("a1=") == ["\"now\""] && lab.posted("a2=") == ["\"now\""]);
        lab.send(&json!({"users": ["ada"], "data": "then"}))?;
        let mut seen = Vec::new();
        while seen.last().is_none_or(|data| data != "\"then\"") {
            seen.push(next_notification(&mut *ada, within(90))?.data);
        }
        // The first was not acknowledged for certain before the kill: it may come once more, never twice.
        ensure!(
            seen.iter().filter(|data| *data == "\"now\"").count() <= 1,
            "{seen:?}"
        );
        ensure!(lab.dead_letters()?.is_empty());
        Ok(())
    })
}

#[test]
fn with_settlement_on_delivery_both_ways_have_to_have_it() -> Result<()> {
    let name = "with_settlement_on_delivery_both_ways_have_to_have_it";
    run(name, &[Need::Moto], || {
        let mut lab = Lab::start("delivered")?;
        lab.send(&json!({"users": ["bob"], "data": "both"}))?;
        until_true("the connection has it", within(90), || {
            Ok(lab.posted("b1=") == ["\"both\""])
        })?;
        lab.held().context("deleted before bob's session had it")?;
        let mut bob = lab.session("bob", Transport::Sse)?;
        expect(&mut *bob, "\"both\"")?;
        lab.deleted()?;
        ensure!(lab.posted("b1=").len() == 1, "{:?}", lab.posted("b1="));
        Ok(())
    })
}
