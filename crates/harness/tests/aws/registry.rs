//! The table of users and instances, as a producer reads it while nodes come, go and die: in PostgreSQL, in DynamoDB by
//! boto3, in Redis by `redis-cli`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postrider_harness::aws::{Boto, Emulator, Postgres, environment};
use postrider_harness::http::{Conn, Request, once};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{KEY, KEY_READ, Node, NodeOptions};
use postrider_harness::redis::{Fsync, Server, ServerOptions};
use postrider_harness::token;
use postrider_harness::wait::{until_true, within};
use serde_json::{Value, json};

/// A row may take so long: a lease, and a look by another node.
const PATIENCE: u64 = 90;
/// Whose rows are looked at.
const USERS: [&str; 3] = ["ada", "bob", "eve"];

/// What keeps the table, and a producer that reads it.
trait Table {
    /// The keys of a node that writes it.
    fn keys(&self) -> Vec<(&'static str, String)>;
    /// The variables of its environment.
    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// The instance of a user; nothing where it names nobody.
    fn instance_of(&mut self, user: &str) -> Result<String>;
    fn stop(&mut self) -> Result<()>;
    fn restart(&mut self) -> Result<()>;
}

impl Table for Postgres {
    fn keys(&self) -> Vec<(&'static str, String)> {
        vec![
            ("registry.type", "postgres".into()),
            ("registry.host", "127.0.0.1".into()),
            ("registry.port", self.addr().port().to_string()),
            ("registry.user", self.user().into()),
            ("registry.database", "message_service".into()),
            ("registry.create", "true".into()),
        ]
    }
    fn instance_of(&mut self, user: &str) -> Result<String> {
        let read = format!("SELECT notifier_instance_id FROM notifier_instances WHERE user_id = '{user}'");
        Ok(self.sql(&read)?.pop().unwrap_or_default())
    }
    fn stop(&mut self) -> Result<()> {
        Postgres::stop(self)
    }
    fn restart(&mut self) -> Result<()> {
        Postgres::restart(self)
    }
}

struct DynamoDb {
    moto: Emulator,
    boto: Boto,
}

impl Table for DynamoDb {
    fn keys(&self) -> Vec<(&'static str, String)> {
        vec![
            ("registry.type", "dynamodb".into()),
            ("registry.create", "true".into()),
        ]
    }
    fn environment(&self) -> Vec<(String, String)> {
        environment(&self.moto.endpoint())
    }
    fn instance_of(&mut self, user: &str) -> Result<String> {
        let key = json!({"TableName": "notifier_instances", "Key": {"user_id": {"S": user}}});
        let found = self.boto.call("dynamodb", "get_item", key)?;
        let instance = found["Item"]["notifier_instance_id"]["S"].as_str();
        Ok(instance.unwrap_or_default().to_owned())
    }
    fn stop(&mut self) -> Result<()> {
        self.moto.pause()
    }
    fn restart(&mut self) -> Result<()> {
        self.moto.resume()
    }
}

impl Table for Server {
    fn keys(&self) -> Vec<(&'static str, String)> {
        vec![("registry.type", "redis".into()), ("registry.url", self.url())]
    }
    fn instance_of(&mut self, user: &str) -> Result<String> {
        let port = self.addr().port().to_string();
        let told = Command::new("redis-cli")
            .args(["-p", &port, "HGET", "notifier_instances", user])
            .output()
            .context("run redis-cli")?;
        ensure!(told.status.success(), "{told:?}");
        Ok(String::from_utf8(told.stdout)?.trim().to_owned())
    }
    fn stop(&mut self) -> Result<()> {
        Server::stop(self)
    }
    fn restart(&mut self) -> Result<()> {
        Server::restart(self)
    }
}

fn node(table: &dyn Table, instance: &str) -> Result<Node> {
    let mut sets = vec![
        ("instance", instance.to_owned()),
        ("raw.path", "/notifications".into()),
        ("presence.linger", "0s".into()),
        ("registry.lease", "8s".into()),
    ];
    sets.extend(table.keys());
    let sets: Vec<(&str, &str)> = sets.iter().map(|(key, text)| (*key, text.as_str())).collect();
    Node::start_with(NodeOptions {
        env: table.environment(),
        ..NodeOptions::sets(&sets)
    })
}

fn stream(node: &Node, user: &str) -> Result<Conn> {
    let mut conn = node.endpoint.connect(None)?;
    let request = Request::new("GET", "/notifications").bearer(&token::user(user)?);
    conn.write(&request.bytes())?;
    let head = conn.head(within(30))?.context("no head")?;
    ensure!(head.status == 200, "{head:?}");
    Ok(conn)
}

/// Waits until the rows of [`USERS`] name these.
fn rows_are(table: &mut dyn Table, rows: [&str; 3]) -> Result<()> {
    until_true(&format!("{rows:?}"), within(PATIENCE), || {
        for (user, instance) in USERS.iter().zip(rows) {
            if table.instance_of(user)? != instance {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// Waits until the nodes have made the table: from then on each fault of a read is one.
fn is_made(table: &mut dyn Table) -> Result<()> {
    until_true("the table is made", within(PATIENCE), || {
        Ok(table.instance_of(USERS[0]).is_ok())
    })
}

/// What a node says of who has a user.
fn told(node: &Node, user: &str) -> Result<Value> {
    let asked = Request::new("GET", &format!("/v1/registry/{user}")).bearer(KEY);
    let answer = once(node.endpoint.addr()?, &asked)?;
    ensure!(answer.status() == 200, "{answer:?}");
    let mut told = answer.json()?;
    ensure!(told["user"] == user, "{told}");
    Ok(told["instance"].take())
}

fn a_row_names_a_living_node_that_has_the_user(mut table: impl Table) -> Result<()> {
    let (one, mut two) = (node(&table, "one")?, node(&table, "two")?);
    is_made(&mut table)?;
    let ada = stream(&one, "ada")?;
    rows_are(&mut table, ["one", "", ""])?;
    // Any node tells a producer that has no way to the table.
    ensure!(told(&two, "ada")? == json!("one") && told(&two, "bob")? == json!(null));
    let also = stream(&two, "ada")?;
    let _bob = stream(&two, "bob")?;
    rows_are(&mut table, ["two", "two", ""])?;
    // Who has a session elsewhere is there again.
    drop(also);
    rows_are(&mut table, ["one", "two", ""])?;
    // Who is back so soon that nobody was told of the going is there again too, without waiting for a round.
    drop(ada);
    let also = stream(&two, "ada")?;
    rows_are(&mut table, ["two", "two", ""])?;
    let ada = stream(&one, "ada")?;
    rows_are(&mut table, ["one", "two", ""])?;
    drop(also);
    two.kill9()?;
    rows_are(&mut table, ["one", "", ""])?;
    drop(ada);
    rows_are(&mut table, ["", "", ""])?;
    // A store that is away keeps nobody out, and learns it all when it is back.
    table.stop()?;
    let _eve = stream(&one, "eve")?;
    until_true("it shows", within(PATIENCE), || {
        let (status, told) = one.ready()?;
        Ok(status == 200 && told["awaiting"].to_string().contains("registry"))
    })?;
    table.restart()?;
    rows_are(&mut table, ["", "", "one"])?;
    let mut one = one;
    one.terminate(Duration::from_secs(PATIENCE))?;
    rows_are(&mut table, ["", "", ""])
}

#[test]
fn in_postgresql_a_row_names_a_living_node() -> Result<()> {
    run(
        "in_postgresql_a_row_names_a_living_node",
        &[Need::Postgres],
        || a_row_names_a_living_node_that_has_the_user(Postgres::start()?),
    )
}

#[test]
fn in_dynamodb_a_row_names_a_living_node() -> Result<()> {
    run("in_dynamodb_a_row_names_a_living_node", &[Need::Moto], || {
        let moto = Emulator::moto()?;
        let boto = Boto::start(&moto.endpoint())?;
        a_row_names_a_living_node_that_has_the_user(DynamoDb { moto, boto })
    })
}

#[test]
fn in_redis_a_row_names_a_living_node() -> Result<()> {
    run("in_redis_a_row_names_a_living_node", &[Need::Redis], || {
        a_row_names_a_living_node_that_has_the_user(Server::start(ServerOptions::fsync(Fsync::Always))?)
    })
}

#[test]
fn a_node_that_is_alone_tells_who_is_here() -> Result<()> {
    let node = Node::start_with(NodeOptions::sets(&[
        ("instance", "only"),
        ("raw.path", "/notifications"),
        ("presence.linger", "60s"),
        ("registry.type", "engine"),
    ]))?;
    ensure!(told(&node, "ada")? == json!(null));
    let ada = stream(&node, "ada")?;
    until_true("she is here", within(PATIENCE), || {
        Ok(told(&node, "ada")? == json!("only"))
    })?;
    // Not for as long as `presence.linger`: a row does not wait either.
    drop(ada);
    until_true("it is nobody's", within(PATIENCE), || {
        Ok(told(&node, "ada")? == json!(null))
    })?;
    let without_a_key = once(node.endpoint.addr()?, &Request::new("GET", "/v1/registry/ada"))?;
    ensure!(without_a_key.status() == 401, "{without_a_key:?}");
    let may_not = once(
        node.endpoint.addr()?,
        &Request::new("GET", "/v1/registry/ada").bearer(KEY_READ),
    )?;
    ensure!(
        may_not.status() == 403 && may_not.code().as_deref() == Some("scope"),
        "{may_not:?}"
    );
    let other = Node::start_with(NodeOptions::sets(&[]))?;
    let no_registry = once(
        other.endpoint.addr()?,
        &Request::new("GET", "/v1/registry/ada").bearer(KEY),
    )?;
    ensure!(no_registry.status() == 404, "{no_registry:?}");
    Ok(())
}
