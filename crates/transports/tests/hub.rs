//! The hub alone, over real sockets and the engine in memory: each wire, the front's limits, a drain.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod node;

use node::*;
use postrider_engine::{Directory as _, MemberChange};
use postrider_model::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

#[test]
fn a_long_poll_gets_what_is_there_then_waits_and_settles_by_its_cursor() {
    let node = node();
    node.publish("a", "ada");
    node.publish("b", "ada");
    let mut socket = node.connect();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    get(&mut socket, "/v1/inbox?wait=30&limit=1", "ada", "");
    let (status, body) = response(&mut reader);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(
        body.contains(r#""id":"a""#) && !body.contains(r#""id":"b""#),
        "{body}"
    );
    get(
        &mut socket,
        &format!("/v1/inbox?wait=30&cursor={}", cursor_of(&body)),
        "ada",
        "",
    );
    let (_, body) = response(&mut reader);
    assert!(
        body.contains(r#""id":"b""#) && !body.contains(r#""id":"a""#),
        "{body}"
    );
    node.wait_for_floor("ada", 1);
    get(
        &mut socket,
        &format!("/v1/inbox?wait=30&cursor={}", cursor_of(&body)),
        "ada",
        "",
    );
    node.wait_for_floor("ada", 2);
    node.publish("c", "ada");
    let (_, body) = response(&mut reader);
    assert!(body.contains(r#""data":"c""#), "{body}");
    get(
        &mut socket,
        &format!("/v1/inbox?wait=0&cursor={}", cursor_of(&body)),
        "ada",
        "",
    );
    let (_, body) = response(&mut reader);
    assert!(
        body.starts_with(r#"{"notifications":[],"events":[],"cursor":""#),
        "{body}"
    );
}

#[test]
fn what_stays_of_a_poll_serves_the_next_as_if_it_were_the_first() {
    let node = node();
    let news = Audience::Topics(vec![Topic::new("news").unwrap()]);
    let socket = node.connect();
    let ask = |target: &str, user: &str, meanwhile: &dyn Fn()| {
        get(&mut &socket, target, user, "");
        meanwhile();
        let (status, body) = response(&mut BufReader::new(&socket));
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert_eq!(node.hub.stats().sessions(Transport::LongPoll), 0);
        body
    };
    let poll = |target: &str, user: &str, publish: &dyn Fn()| {
        ask(target, user, &|| {
            node.wait_for_poll();
            publish();
        })
    };
    let body = poll("/v1/inbox?wait=30", "ada", &|| node.publish("a1", "ada"));
    let cursor = cursor_of(&body);
    // Another user on the same connection hears its own feed and no other.
    let body = poll("/v1/inbox?wait=30", "bob", &|| {
        node.publish("a2", "ada");
        node.publish("b1", "bob");
    });
    assert!(
        body.contains(r#""data":"b1""#) && !body.contains(r#""id":"a2""#),
        "{body}"
    );
    // Other feeds of the same user: a topic is heard from the moment the node knows of it, which this answer says.
    let target = format!("/v1/inbox?wait=0&topics=news&cursor={}", cursor_of(&body));
    let body = ask(&target, "bob", &|| {});
    let target = format!("/v1/inbox?wait=30&topics=news&cursor={}", cursor_of(&body));
    let body = poll(&target, "bob", &|| {
        node.publish_to("t1", news.clone());
    });
    assert!(body.contains(r#""data":"t1""#), "{body}");
    let target = format!("/v1/inbox?wait=30&cursor={}", cursor_of(&body));
    let body = poll(&target, "bob", &|| {
        node.publish_to("t2", news.clone());
        node.publish("b2", "bob");
    });
    assert!(
        body.contains(r#""data":"b2""#) && !body.contains(r#""id":"t2""#),
        "{body}"
    );
    // Who comes back after all of that, elsewhere, missed nothing.
    let mut socket = node.connect();
    get(
        &mut socket,
        &format!("/v1/inbox?wait=30&cursor={cursor}"),
        "ada",
        "",
    );
    let (_, body) = response(&mut BufReader::new(socket));
    assert!(
        body.contains(r#""data":"a2""#) && !body.contains(r#""id":"a1""#),
        "{body}"
    );
}

#[test]
fn what_stays_of_a_poll_follows_the_memberships_of_its_user() {
    let node = node();
    let topic = Topic::new("news").unwrap();
    let news = Audience::Topics(vec![topic.clone()]);
    let change = |joins| {
        let (topic, user) = (topic.clone(), UserId::new("ada").unwrap());
        let change = MemberChange { topic, user, joins };
        let changed = node.runtime.block_on(node.engine.change_members(vec![change]));
        assert!(changed.unwrap().into_iter().all(|changed| changed.unwrap()));
    };
    let socket = node.connect();
    let poll = |cursor: &str, meanwhile: &dyn Fn()| {
        let target = format!("/v1/inbox?wait=30&cursor={cursor}");
        get(&mut &socket, &target, "ada", "");
        node.wait_for_poll();
        meanwhile();
        let (status, body) = response(&mut BufReader::new(&socket));
        assert_eq!(status, "HTTP/1.1 200 OK");
        body
    };
    let ids = |body: &str| -> Vec<String> {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let list = body["notifications"].as_array().unwrap();
        list.iter()
            .map(|n| n["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut body = poll("", &|| node.publish("a0", "ada"));
    for round in 0..4 {
        // Joined between two polls, or while one waits.
        if round % 2 == 0 {
            change(true);
        }
        let id = format!("n{round}");
        body = poll(&cursor_of(&body), &|| {
            if round % 2 == 1 {
                change(true);
            }
            node.publish_to(&id, news.clone());
        });
        assert_eq!(ids(&body), [id]);
        // Left between two polls, or while one waits: what comes after that is for nobody here.
        if round < 2 {
            change(false);
        }
        let (gone, own) = (format!("gone{round}"), format!("a{}", round + 1));
        body = poll(&cursor_of(&body), &|| {
            if round >= 2 {
                change(false);
            }
            node.publish_to(&gone, news.clone());
            node.publish(&own, "ada");
        });
        assert_eq!(ids(&body), [own]);
    }
}

#[test]
fn between_its_polls_a_client_has_no_session() {
    let node = node();
    let mut polling = node.connect();
    let mut polled = BufReader::new(polling.try_clone().unwrap());
    get(&mut polling, "/v1/inbox?wait=0", "ada", "");
    assert_eq!(response(&mut polled).0, "HTTP/1.1 200 OK");
    let held: Vec<_> = (0..4)
        .map(|_| {
            let mut socket = node.connect();
            get(&mut socket, "/v1/inbox/stream", "ada", "");
            let mut status = [0; 15];
            socket.read_exact(&mut status).unwrap();
            assert_eq!(&status, b"HTTP/1.1 200 OK");
            socket
        })
        .collect();
    get(&mut polling, "/v1/inbox?wait=0", "ada", "");
    assert!(response(&mut polled).0.starts_with("HTTP/1.1 429 "));
    drop(held);
}

#[test]
fn a_stream_replays_then_goes_live_and_settles_by_tcp() {
    let node = node();
    node.publish("a", "ada");
    let mut socket = node.connect();
    get(&mut socket, "/v1/inbox/stream", "ada", "");
    let mut lines = BufReader::new(socket).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "HTTP/1.1 200 OK");
    let mut seen = Vec::new();
    let mut keep_alives = 0;
    while seen.len() < 2 || keep_alives == 0 {
        let line = lines.next().unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            seen.push(data.to_owned());
            if seen.len() == 1 {
                node.publish("b", "ada");
            }
        }
        keep_alives += usize::from(line == ": keep-alive");
    }
    assert!(
        seen[0].contains(r#""id":"a""#) && seen[1].contains(r#""id":"b""#),
        "{seen:?}"
    );
    node.wait_for_floor("ada", 2);
}

#[test]
fn what_is_no_inbox_request_is_referred_with_its_bytes() {
    let node = node();
    let mut socket = node.connect();
    socket.write_all(b"POST /v1/notif").unwrap();
    socket
        .write_all(b"ications HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        .unwrap();
    let mut answer = [0; 16];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 204 No ");
    let referred = node.referred.0.lock().unwrap().clone();
    assert!(referred[0].starts_with(b"POST /v1/notifications HTTP/1.1\r\n"));
}

#[test]
fn an_adopted_connection_is_served_like_any_other() {
    let node = node();
    node.publish("a", "ada");
    let (ours, theirs) = UnixStream::pair().unwrap();
    node.hub.adopt(
        theirs,
        None,
        b"GET /v1/inbox HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\n\r\n".to_vec(),
    );
    let (status, body) = response(&mut BufReader::new(ours));
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.contains(r#""id":"a""#));
}

#[test]
fn bad_requests_get_a_problem() {
    let node = node();
    let cases = [
        ("/v1/inbox?wait=121", "ada", 400),
        ("/v1/inbox?limit=0", "ada", 400),
        ("/v1/inbox?ack=maybe", "ada", 400),
        ("/v1/inbox?cursor=nonsense", "ada", 400),
        ("/v1/inbox?topics=closed", "ada", 403),
        ("/v1/inbox?topics=a%20b", "ada", 400),
        ("/v1/inbox/ws", "ada", 426),
    ];
    let mut socket = node.connect();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    for (target, user, expected) in cases {
        get(&mut socket, target, user, "");
        let (status, body) = response(&mut reader);
        assert!(
            status.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{target}: {status}"
        );
        assert!(body.contains(r#""code":"#), "{body}");
    }
    write!(socket, "GET /v1/inbox HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(response(&mut reader).0.starts_with("HTTP/1.1 401 "));
}

#[test]
fn a_user_has_so_many_sessions_and_no_more() {
    let node = node();
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut socket = node.connect();
        get(&mut socket, "/v1/inbox/stream", "ada", "");
        socket.read_exact(&mut [0; 8]).unwrap();
        held.push(socket);
    }
    let mut socket = node.connect();
    get(&mut socket, "/v1/inbox/stream", "ada", "");
    assert!(
        response(&mut BufReader::new(socket))
            .0
            .starts_with("HTTP/1.1 429 ")
    );
    drop(held.pop());
    let begin = std::time::Instant::now();
    loop {
        let mut socket = node.connect();
        get(&mut socket, "/v1/inbox?wait=0", "ada", "");
        if response(&mut BufReader::new(socket))
            .0
            .starts_with("HTTP/1.1 200 ")
        {
            break;
        }
        assert!(begin.elapsed() < PATIENCE);
    }
}

#[test]
fn a_drain_answers_polls_and_ends_streams() {
    let node = node();
    let mut poll = node.connect();
    get(&mut poll, "/v1/inbox?wait=60", "ada", "");
    let mut stream = node.connect();
    get(&mut stream, "/v1/inbox/stream", "bob", "");
    // It is open once its head has come; one that is only opening is refused by a drain.
    stream.read_exact(&mut [0; 16]).unwrap();
    let begin = std::time::Instant::now();
    while node.hub.stats().sessions(Transport::LongPoll) + node.hub.stats().sessions(Transport::Sse) < 2 {
        assert!(begin.elapsed() < PATIENCE);
    }
    node.hub.drain();
    let (status, body) = response(&mut BufReader::new(poll));
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.starts_with(r#"{"notifications":[],"events":[]"#));
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(all.contains("retry: "), "{all}");
    node.hub.stop();
    node.engine.close();
}

#[test]
fn an_explicit_stream_is_sent_it_again_and_told_when_that_ends() {
    let node = node();
    node.publish("a", "ada");
    let mut socket = node.connect();
    get(&mut socket, "/v1/inbox/stream?ack=explicit", "ada", "");
    let lines = BufReader::new(socket).lines().map(Result::unwrap);
    let mut data = lines.filter(|line| line.starts_with("data: "));
    let first = data.next().unwrap();
    assert!(first.ends_with(r#""data":"a"}"#), "{first}");
    for attempt in [2, 3] {
        let again = data.next().unwrap();
        assert!(again.ends_with(&format!(r#","attempt":{attempt}}}"#)), "{again}");
    }
    assert_eq!(data.next().unwrap(), r#"data: {"ids":["a"]}"#);
    // A poll counts on from what the engine was told.
    let mut socket = node.connect();
    get(&mut socket, "/v1/inbox?ack=explicit&wait=0", "ada", "");
    let (_, body) = response(&mut BufReader::new(socket));
    assert!(body.contains(r#""data":"a","attempt":"#), "{body}");
}
