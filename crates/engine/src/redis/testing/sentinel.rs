//! A master with one replica, watched by three Sentinels that fail it over after half a second.

use super::server::{Server, ask, command_line};
use super::wait_until;
use crate::redis::links::RedisUrl;
use redis::Value;

const SENTINELS: usize = 3;

#[derive(Debug)]
pub(crate) struct Watched {
    /// The master at the start.
    pub(crate) master: Server,
    /// Its replica, which a failover promotes.
    pub(crate) replica: Server,
    /// Those who decide.
    pub(crate) sentinels: Vec<Server>,
    /// Where the Sentinels keep what they know.
    _files: tempfile::TempDir,
}

impl Watched {
    pub(crate) fn start() -> Watched {
        let options = ["--appendonly", "yes", "--repl-diskless-sync-delay", "0"];
        let master = Server::start_with(&options);
        let follows = format!("127.0.0.1 {}", master.port());
        let replica = Server::start_with(&[&options[..], &["--replicaof", &follows]].concat());
        wait_until("the replica follows", || {
            info(&replica, "INFO replication").contains("master_link_status:up")
        });
        let files = tempfile::tempdir().expect("a private directory");
        let sentinels = (0..SENTINELS)
            .map(|at| sentinel(&master, files.path(), at))
            .collect();
        let watched = Watched {
            master,
            replica,
            sentinels,
            _files: files,
        };
        wait_until("the Sentinels know one another and the replica", || {
            watched.sentinels.iter().all(|sentinel| {
                let state = fields(&sentinel.ask_line("SENTINEL MASTER main"));
                state.contains("num-slaves=1 ") && state.contains("num-other-sentinels=2 ")
            })
        });
        watched
    }

    pub(crate) fn url(&self) -> RedisUrl {
        let hosts: Vec<String> = self
            .sentinels
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        format!("redis+sentinel://{}/main", hosts.join(","))
            .parse()
            .expect("a well-formed address")
    }

    /// Waits until the replica says that it is the master.
    pub(crate) fn wait_for_promotion(&self) {
        let replication = command_line("INFO replication");
        wait_until("the replica is promoted", || {
            // While it becomes a master it ends its connections.
            let said = ask(self.replica.port(), &replication);
            said.is_ok_and(|said| text(&said).contains("role:master"))
        });
    }
}

fn sentinel(master: &Server, files: &std::path::Path, at: usize) -> Server {
    let file = files.join(format!("sentinel-{at}.conf"));
    let rules = format!(
        "sentinel monitor main 127.0.0.1 {} 2\nsentinel down-after-milliseconds main 500\n\
         sentinel failover-timeout main 3000\n",
        master.port()
    );
    std::fs::write(&file, rules).expect("a private file can be written");
    Server::start_with(&[file.to_str().expect("a temporary path is UTF-8"), "--sentinel"])
}

fn info(server: &Server, line: &str) -> String {
    text(&server.ask(&command_line(line)))
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("not a text: {other:?}"),
    }
}

/// A flat array of names and values as `name=value `.
fn fields(value: &Value) -> String {
    let Value::Array(items) = value else {
        return String::new();
    };
    let text = |item: &Value| match item {
        Value::BulkString(_) => text(item),
        other => format!("{other:?}"),
    };
    items
        .chunks(2)
        .map(|pair| format!("{}={} ", text(&pair[0]), pair.get(1).map_or(String::new(), text)))
        .collect()
}
