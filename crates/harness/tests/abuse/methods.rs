//! Every method on every route: what `Allow` says is so, `HEAD` is `GET` without a body, and nothing falls over.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use postrider_harness::http::Conn;
use postrider_harness::node::{KEY, Node};
use postrider_harness::token;
use postrider_harness::wait::within;

use postrider_harness::raw::unharmed;

/// Each with a credential that fits.
const ROUTES: [(&str, bool); 11] = [
    ("/v1/inbox", true),
    ("/v1/inbox/stream", true),
    ("/v1/inbox/ws", true),
    ("/v1/inbox/ack", true),
    ("/v1/inbox/read", true),
    ("/v1/inbox/history", true),
    ("/v1/tickets", true),
    ("/v1/notifications", false),
    ("/v1/notifications/known", false),
    ("/v1/notifications/known/timeline", false),
    ("/v1/nowhere", false),
];
const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get",
];

/// What a method was answered: the status, the methods that `Allow` names, and how many bytes of body came.
struct Told {
    status: u16,
    allow: Option<BTreeSet<String>>,
    body: usize,
}

fn ask(node: &Node, method: &str, path: &str, by_user: bool) -> Result<Told> {
    let credential = if by_user {
        token::user("ada")?
    } else {
        KEY.to_owned()
    };
    // A poll must not wait; a connection that ends with the answer shows whether a body came.
    let query = if path == "/v1/inbox" { "?wait=0" } else { "" };
    let mut conn = Conn::open(node.endpoint.addr()?, None)?;
    conn.write(
        format!(
            "{method} {path}{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {credential}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .as_bytes(),
    )?;
    let head = conn.head(within(30))?.context("no answer")?;
    let allow = head.header("allow").map(|list| {
        let methods = list.split(',').map(|method| method.trim().to_owned());
        methods.filter(|method| !method.is_empty()).collect()
    });
    // An event stream does not end.
    let endless = head
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("text/event-stream"));
    let body = if endless && method != "HEAD" {
        0
    } else {
        let (mut stream, held) = conn.into_parts();
        let mut rest = Vec::new();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
        std::io::Read::read_to_end(&mut stream, &mut rest).context("the connection was not ended")?;
        held.len() + rest.len()
    };
    Ok(Told {
        status: head.status,
        allow,
        body,
    })
}

#[test]
fn every_method_on_every_route() -> Result<()> {
    let node = Node::start(&[])?;
    let mut faults = Vec::new();
    for (path, by_user) in ROUTES {
        let mut refused = BTreeSet::new();
        let mut allowed: Option<BTreeSet<String>> = None;
        for method in METHODS {
            let told = match ask(&node, method, path, by_user) {
                Ok(told) => told,
                Err(e) => {
                    faults.push(format!("{method} {path}: {e:#}"));
                    continue;
                }
            };
            if told.status >= 500 && told.status != 501 {
                faults.push(format!("{method} {path}: {}", told.status));
            }
            if method == "HEAD" && told.body > 0 {
                faults.push(format!("HEAD {path}: a body of {} bytes", told.body));
            }
            if told.status != 405 {
                continue;
            }
            refused.insert(method.to_owned());
            match (&told.allow, &allowed) {
                (None, _) => faults.push(format!("{method} {path}: 405 without Allow")),
                (Some(allow), Some(before)) if allow != before => {
                    faults.push(format!(
                        "{method} {path}: allows {allow:?}, where another 405 allowed {before:?}"
                    ));
                }
                (Some(allow), _) => allowed = Some(allow.clone()),
            }
        }
        let contradicted: Vec<&String> = allowed
            .iter()
            .flatten()
            .filter(|m| refused.contains(*m))
            .collect();
        if !contradicted.is_empty() {
            faults.push(format!("{path}: Allow names {contradicted:?}, which are 405"));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    unharmed(&node, "ada")
}
