//! Many memberships that change at once, and changes that a shard never heard of, over real sockets.

use crate::node::{Node, get, node};
use postrider_engine::{Directory as _, MemberChange, States as _};
use postrider_model::{Audience, StateChange, Topic, UserId};
use std::io::{BufRead, BufReader, Lines};
use std::net::TcpStream;

fn news() -> Topic {
    Topic::new("news").unwrap()
}

fn user(n: usize) -> UserId {
    UserId::new(&format!("u{n}")).unwrap()
}

/// An event stream that has begun.
fn stream(node: &Node, n: usize, query: &str) -> Lines<BufReader<TcpStream>> {
    let mut socket = node.connect();
    get(
        &mut socket,
        &format!("/v1/inbox/stream{query}"),
        user(n).as_str(),
        "",
    );
    let mut lines = BufReader::new(socket).lines();
    // The first cursor says that its feeds are known.
    assert!(lines.any(|line| line.unwrap().starts_with("id: ")));
    lines
}

/// The data of the events up to the one that holds this.
fn until(lines: &mut Lines<BufReader<TcpStream>>, last: &str) -> Vec<String> {
    let mut data = Vec::new();
    for line in lines {
        if let Some(event) = line.unwrap().strip_prefix("data: ") {
            data.push(event.to_owned());
            if event.contains(last) {
                break;
            }
        }
    }
    data
}

fn change(node: &Node, users: impl Iterator<Item = usize>, joins: bool) {
    let changes = users.map(|n| MemberChange {
        topic: news(),
        user: user(n),
        joins,
    });
    let changed = node
        .runtime
        .block_on(node.engine.change_members(changes.collect()));
    assert!(changed.unwrap().into_iter().all(|changed| changed.unwrap()));
}

#[test]
fn many_join_and_leave_at_once_and_each_hears_what_is_theirs() {
    const HERE: usize = 100;
    const ALL: usize = 20_000;
    let node = node();
    let mut streams: Vec<_> = (0..HERE).map(|n| stream(&node, n, "")).collect();
    change(&node, (0..ALL).rev(), true);
    node.publish_to("n1", Audience::Topics(vec![news()]));
    change(&node, 0..ALL, false);
    node.publish_to("n2", Audience::Topics(vec![news()]));
    for (n, lines) in streams.iter_mut().enumerate() {
        let got = until(lines, "\"n1\"");
        assert_eq!(got.len(), 1, "{got:?}");
        node.publish(&format!("last-{n}"), user(n).as_str());
        let got = until(lines, "last-");
        assert_eq!(got.len(), 1, "{got:?}");
    }
}

#[test]
fn changes_that_were_lost_are_looked_up() {
    let node = node();
    change(&node, 0..4, true);
    let mut streams: Vec<_> = (0..8).map(|n| stream(&node, n, "?state=1")).collect();
    let deaf = |deaf| {
        let mailboxes = node.hub.mailboxes().iter();
        mailboxes.for_each(|mailbox| mailbox.set_deaf(deaf));
    };
    deaf(true);
    change(&node, 0..4, false);
    change(&node, 4..8, true);
    node.publish_to("n1", Audience::Topics(vec![news()]));
    for n in 0..8 {
        let merge = StateChange::Merge(vec![("unread".into(), Some(n.to_string()))]);
        let changed = node.runtime.block_on(node.engine.change_state(&user(n), merge));
        changed.unwrap().unwrap();
    }
    deaf(false);
    for (n, lines) in streams.iter_mut().enumerate() {
        node.publish(&format!("last-{n}"), user(n).as_str());
        let mut wanted = vec![format!("last-{n}"), format!("{{\"unread\":\"{n}\"}}")];
        wanted.extend((n >= 4).then(|| "\"n1\"".to_owned()));
        // No order is promised between feeds.
        while !wanted.is_empty() {
            let got = until(lines, "").pop().unwrap();
            let found = wanted.iter().position(|wanted| got.contains(wanted.as_str()));
            wanted.remove(found.unwrap_or_else(|| panic!("u{n} got {got}")));
        }
    }
    // And from then on they hear what is appended, or do not, as it comes.
    node.publish_to("n2", Audience::Topics(vec![news()]));
    for (n, lines) in streams.iter_mut().enumerate() {
        node.publish(&format!("end-{n}"), user(n).as_str());
        if n >= 4 {
            let got = until(lines, "\"n2\"");
            assert!(got.len() <= 2, "{got:?}");
        } else {
            assert_eq!(until(lines, "end-").len(), 1);
        }
    }
}
