//! `listen`: three wires, resuming, ending.

use crate::{Shell, piped};
use anyhow::{Result, anyhow};
use postrider_harness::node::{Node, NodeOptions};
use postrider_harness::tls::Authority;
use postrider_harness::token;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

const WIRES: [&str; 3] = ["sse", "websocket", "long-poll"];

fn publish(shell: &Shell, to: &str, id: &str) -> Result<()> {
    shell.ok(&[
        "publish",
        "--to",
        to,
        "--id",
        id,
        "--data",
        &format!("{{\"of\":\"{id}\",\"n\":1.50}}"),
    ])?;
    Ok(())
}

fn ids(lines: &[Value]) -> Vec<&str> {
    let shown = lines.iter().filter(|line| line["event"] == "notification");
    shown.filter_map(|line| line["data"]["id"].as_str()).collect()
}

#[test]
fn all_wires_show_the_same() -> Result<()> {
    let node = Node::start(&[("topics.open", r#"["*"]"#)])?;
    let mut seen = Vec::new();
    for wire in WIRES {
        let shell = Shell::at(&node)?.with("POSTRIDER_TOKEN", &token::user(wire)?);
        shell.ok(&["state", "set", wire, "unread=1"])?;
        let mut listen = shell.start(&[
            "listen",
            "--json",
            "--state",
            "--topics",
            "news",
            "--transport",
            wire,
        ])?;
        listen.told("connected")?;
        let mut lines = vec![listen.json()?];
        publish(&shell, wire, &format!("{wire}-1"))?;
        lines.push(listen.json()?);
        shell.ok(&[
            "publish",
            "--topic",
            "news",
            "--id",
            &format!("{wire}-2"),
            "--subject",
            "Hi",
            "--text",
            "x",
        ])?;
        lines.push(listen.json()?);
        shell.ok(&["state", "increment", wire, "unread"])?;
        lines.push(listen.json()?);
        listen.interrupt()?;
        assert_eq!(listen.code()?, 0, "{wire}");
        for line in &mut lines {
            if let Some(data) = line["data"].as_object_mut() {
                data.remove("time");
                let id = data
                    .get("id")
                    .and_then(Value::as_str)
                    .map(|id| id.replace(wire, "n"));
                id.and_then(|id| data.insert("id".into(), id.into()));
                if let Some(of) = data.get_mut("data").and_then(Value::as_object_mut) {
                    of.remove("of");
                }
            }
        }
        seen.push((wire, lines));
    }
    assert_eq!(
        seen[0].1,
        [
            json!({"event": "state", "data": {"unread": "1"}}),
            json!({"event": "notification", "data": {"id": "n-1", "data": {"n": 1.50}}}),
            json!({"event": "notification", "data": {"id": "n-2", "subject": "Hi", "topic": "news", "data": "x"}}),
            json!({"event": "state", "data": {"unread": "2"}}),
        ]
    );
    for (wire, lines) in &seen[1..] {
        assert_eq!(lines, &seen[0].1, "{wire}");
    }
    Ok(())
}

#[test]
fn all_wires_speak_tls_to_whom_they_trust() -> Result<()> {
    let authority = Authority::new()?;
    let node = authority.start(&[])?;
    let stranger = Shell::to(&format!("https://{}", node.endpoint.addr()?))?;
    let shell = Shell::to(&format!("https://{}", node.endpoint.addr()?))?;
    let shell = shell.with("POSTRIDER_CA", &authority.root_file()?.display().to_string());
    publish(&shell, "ada", "secret")?;
    for wire in WIRES {
        let args = [
            "listen",
            "--transport",
            wire,
            "--ack",
            "none",
            "--for",
            "2m",
            "--count",
            "1",
        ];
        let shown = shell.ndjson(&[&args[..], &["--quiet"]].concat())?;
        assert_eq!(ids(&shown), ["secret"], "{wire}");
        let mut refused = stranger.start(&["listen", "--transport", wire])?;
        refused.told("ertificate")?;
        // It may have ended by itself, or try again.
        refused.interrupt()?;
        refused.code()?;
        assert_eq!(refused.rest(), Vec::<String>::new(), "{wire}");
    }
    Ok(())
}

#[test]
fn what_was_written_out_is_acknowledged_and_the_rest_is_not() -> Result<()> {
    let node = Node::start(&[])?;
    for (wire, ack) in WIRES
        .map(|wire| (wire, "explicit"))
        .into_iter()
        .chain([("long-poll", "auto")])
    {
        let user = format!("{wire}-{ack}");
        let shell = Shell::at(&node)?.with("POSTRIDER_TOKEN", &token::user(&user)?);
        for n in 1..=5 {
            publish(&shell, &user, &format!("{user}-{n}"))?;
        }
        let args = [
            "listen",
            "--transport",
            wire,
            "--ack",
            ack,
            "--count",
            "2",
            "--json",
            "--quiet",
        ];
        let lines = shell.ok(&args)?;
        assert_eq!(lines.lines().count(), 2, "{user}");
        for (n, state) in [(1, "delivered"), (2, "delivered"), (3, "pending"), (5, "pending")] {
            let story = shell.json(&["why", &format!("{user}-{n}"), &user])?;
            assert_eq!(story["timeline"]["state"], state, "{user} {n}");
        }
    }
    Ok(())
}

#[test]
fn what_it_took_itself_is_not_taken_from_it() -> Result<()> {
    let node = Node::start(&[])?;
    for wire in ["sse", "websocket"] {
        let shell = Shell::at(&node)?.with("POSTRIDER_TOKEN", &token::user(wire)?);
        let listen = shell.start(&["listen", "--json", "--ack", "explicit", "--transport", wire])?;
        let watch = shell.start(&["listen", "--json", "--ack", "none", "--transport", wire])?;
        listen.told("connected")?;
        watch.told("connected")?;
        let id = format!("first-{wire}");
        shell.ok(&[
            "publish",
            "--to",
            wire,
            "--devices",
            "first",
            "--id",
            &id,
            "--text",
            "x",
        ])?;
        assert_eq!(listen.json()?["data"]["id"], id);
        assert_eq!(watch.json()?["data"]["id"], id);
        let taken = json!({"event": "withdrawn", "data": {"id": id, "reason": "taken"}});
        assert_eq!(watch.json()?, taken, "{wire}");
        // The next thing that the first one is told is the next notification.
        let next = format!("next-{wire}");
        publish(&shell, wire, &next)?;
        assert_eq!(listen.json()?["data"]["id"], next, "{wire}");
    }
    Ok(())
}

#[test]
fn it_ends_in_time_and_says_what_did_not_come() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let done = shell.run(&["listen", "--for", "300ms"])?;
    assert_eq!((done.code, done.out.as_str()), (0, ""), "{done:?}");
    let done = shell.run(&["listen", "--for", "300ms", "--count", "2", "--json"])?;
    assert_eq!(done.code, 1);
    assert!(
        done.err.ends_with("postrider: 0 of 2 came in 300ms\n"),
        "{done:?}"
    );
    Ok(())
}

#[test]
fn it_goes_on_after_the_node_was_gone() -> Result<()> {
    for wire in WIRES {
        let mut node = Node::start_to_come_back(NodeOptions::default())?;
        let shell = Shell::at(&node)?;
        let mut listen = shell.start(&["listen", "--json", "--transport", wire])?;
        listen.told("connected")?;
        let mut wanted = Vec::new();
        let mut lines = Vec::new();
        for round in 0..2 {
            let id = format!("before-{round}");
            publish(&shell, "ada", &id)?;
            lines.push(listen.json()?);
            wanted.push(id);
            match round {
                0 => node.kill9()?,
                _ => drop(node.terminate(Duration::from_secs(30))?),
            }
            listen.told("trying again")?;
            node.restart_same_port()?;
            let id = format!("after-{round}");
            publish(&shell, "ada", &id)?;
            lines.push(listen.json()?);
            wanted.push(id);
        }
        assert_eq!(ids(&lines), wanted, "{wire}");
        listen.interrupt()?;
        assert_eq!(listen.code()?, 0, "{wire}");
        assert_eq!(listen.rest(), Vec::<String>::new(), "{wire}");
    }
    Ok(())
}

#[test]
fn a_cursor_file_goes_on_where_the_last_run_stopped() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("cursor").display().to_string();
    let mut seen = Vec::new();
    for wire in WIRES {
        let expected: Vec<_> = (1..=3).map(|n| format!("{wire}-{n}")).collect();
        for id in &expected {
            publish(&shell, "ada", id)?;
        }
        let mut listen = shell.start(&[
            "listen",
            "--json",
            "--ack",
            "none",
            "--transport",
            wire,
            "--cursor-file",
            &file,
        ])?;
        // The interrupt may come between an event and its cursor: then the batch before comes again, and nothing of
        // before that.
        let (begin, mut repeats) = (seen.len(), 0);
        while seen.len() < begin + 3 {
            let id = listen.json()?["data"]["id"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            if seen.contains(&id) {
                repeats += 1;
            } else {
                seen.push(id);
            }
        }
        assert_eq!(seen[begin..], expected);
        assert!(repeats <= 3, "{repeats} repeats over {wire}");
        listen.interrupt()?;
        assert_eq!(listen.code()?, 0);
    }
    std::fs::write(&file, "this is no cursor")?;
    let done = shell.run(&["listen", "--cursor-file", &file])?;
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.err.contains("holds no cursor"), "{done:?}");
    // One that looks like a cursor and is none is the node's to refuse.
    std::fs::write(&file, "AAAA")?;
    let done = shell.run(&["listen", "--cursor-file", &file])?;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("invalid_cursor"), "{done:?}");
    Ok(())
}

#[test]
fn counted_runs_go_on_where_the_last_one_stopped() -> Result<()> {
    let node = Node::start(&[])?;
    for ack in ["auto", "explicit", "none"] {
        let shell = Shell::at(&node)?.with("POSTRIDER_TOKEN", &token::user(ack)?);
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("cursor").display().to_string();
        for n in 1..=5 {
            publish(&shell, ack, &format!("{ack}-{n}"))?;
        }
        let run = [
            "listen",
            "--count",
            "2",
            "--ack",
            ack,
            "--cursor-file",
            &file,
            "--quiet",
        ];
        for wanted in [[1, 2], [3, 4]] {
            let shown = shell.ndjson(&run)?;
            assert_eq!(ids(&shown), wanted.map(|n| format!("{ack}-{n}")), "{ack}");
        }
    }
    Ok(())
}

#[test]
fn a_refused_token_ends_it_at_once() -> Result<()> {
    let node = Node::start(&[])?;
    let expired = Shell::at(&node)?.with("POSTRIDER_TOKEN", &token::until("ada", 1)?);
    let wrong = Shell::at(&node)?.with("POSTRIDER_TOKEN", "no.token.atall");
    for wire in WIRES {
        let done = expired.run(&["listen", "--transport", wire])?;
        assert_eq!(done.code, 1, "{wire}");
        assert!(
            done.err.contains("token_expired") && done.err.contains("postrider token"),
            "{wire}: {done:?}"
        );
        let done = wrong.run(&["listen", "--transport", wire])?;
        assert_eq!(done.code, 1, "{wire}");
        assert!(
            done.err.contains("401 token_") && !done.err.contains("atall"),
            "{wire}: {done:?}"
        );
    }
    Ok(())
}

#[test]
fn nobody_reading_ends_it_quietly() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    publish(&shell, "ada", "one")?;
    let (mut child, mut out) = piped(&shell, &["listen", "--json"])?;
    let mut line = String::new();
    out.read_line(&mut line)?;
    assert!(line.contains("\"one\""), "{line}");
    // Nothing more comes: it ends though it has nothing to write.
    drop(out);
    let deadline = postrider_harness::wait::within(30);
    let status = postrider_harness::wait::until("the end of listen", deadline, || Ok(child.try_wait()?))?;
    assert_eq!(status.code(), Some(0));
    Ok(())
}

#[test]
fn a_terminal_is_asked_for_colours_and_not_driven_by_payloads() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    shell.ok(&[
        "publish",
        "--to",
        "ada",
        "--subject",
        "a\u{9b}2Jb",
        "--data",
        "\"\u{9b}2J\"",
    ])?;
    let plain = shell.ok(&["listen", "--count", "1", "--quiet", "--ack", "none"])?;
    assert!(
        plain.contains("a\\u{9b}2Jb") && !plain.contains('\u{9b}'),
        "{plain:?}"
    );
    let done = shell.run(&["listen", "--count", "1", "--color", "always"])?;
    assert!(done.out.contains("\x1b[1ma\\u{9b}2Jb\x1b[0m"), "{done:?}");
    assert!(done.err.contains("\x1b[2mconnected"), "{done:?}");
    Ok(())
}

#[test]
fn a_cursor_file_may_be_a_link_and_has_to_be_writable() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    publish(&shell, "ada", "linked")?;
    let dir = tempfile::tempdir()?;
    let (link, kept) = (dir.path().join("link"), dir.path().join("kept"));
    std::os::unix::fs::symlink("kept", &link)?;
    let link_name = link.display().to_string();
    shell.ok(&["listen", "--quiet", "-n", "1", "--cursor-file", &link_name])?;
    assert!(link.is_symlink(), "the link was replaced");
    assert!(!std::fs::read_to_string(&kept)?.trim().is_empty());
    // It is told before anything is connected to.
    let nowhere = Shell::to("http://127.0.0.1:9")?;
    let missing = dir.path().join("missing/cursor").display().to_string();
    let done = nowhere.run(&["listen", "-n", "1", "--for", "5s", "--cursor-file", &missing])?;
    assert_eq!((done.code, done.out.as_str()), (2, ""), "{done:?}");
    assert!(done.err.starts_with("--cursor-file: "), "{done:?}");
    assert!(!done.err.contains("connection"), "{done:?}");
    Ok(())
}

#[test]
fn json_keeps_what_it_says_and_drives_no_terminal() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let text = "a\u{9b}2J\u{7f}\u{202e}\u{feff} Gr\u{fc}\u{df}e";
    let data = json!({ "text": text }).to_string();
    let args = [
        "publish",
        "--id",
        "raw",
        "--subject",
        text,
        "--to",
        "ada",
        "--data",
        &data,
    ];
    shell.ok(&args)?;
    let shown = shell.ok(&["listen", "--json", "--quiet", "-n", "1", "--ack", "none"])?;
    let told = shell.ok(&["why", "raw", "--json"])?;
    for out in [&shown, &told] {
        let raw = |c: char| c != '\n' && c.is_control() || matches!(c, '\u{202e}' | '\u{feff}');
        assert!(!out.contains(raw), "{out:?}");
    }
    assert!(shown.contains("Gr\u{fc}\u{df}e"), "{shown}");
    let shown: Value = serde_json::from_str(shown.lines().next().unwrap_or_default())?;
    assert_eq!(shown["data"]["data"]["text"], text);
    assert_eq!(shown["data"]["subject"], text);
    Ok(())
}

/// Answers every poll with one notification, and takes no acknowledgement.
fn busy_node() -> Result<(std::net::SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let answer = |mut stream: TcpStream| -> Result<bool> {
        let mut head = String::new();
        let mut reader = BufReader::new(stream.try_clone()?);
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
        let is_poll = head.starts_with("GET ");
        let (status, body) = match is_poll {
            true => (
                200,
                r#"{"notifications":[{"id":"a","data":1}],"events":[],"cursor":"AA"}"#,
            ),
            false => (503, r#"{"code":"unavailable","detail":"no room","status":503}"#),
        };
        let size = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} X\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n{body}"
        )?;
        // What the client still sends is read: a reset could overtake the answer.
        stream.shutdown(Shutdown::Write)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        std::io::copy(&mut reader, &mut std::io::sink())?;
        Ok(is_poll)
    };
    let serve = move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if !matches!(answer(stream), Ok(true)) {
                return;
            }
        }
    };
    Ok((addr, std::thread::spawn(serve)))
}

#[test]
fn a_hint_stands_on_its_own_line() -> Result<()> {
    let (addr, serving) = busy_node()?;
    let shell = Shell::to(&format!("http://{addr}"))?;
    let listen = shell.start(&["listen", "--transport", "long-poll", "--ack", "explicit"])?;
    let told = listen.told("acknowledging failed")?;
    assert!(told.ends_with("no room"), "{told}");
    assert!(listen.told("mostly passes")?.starts_with("  "));
    serving.join().map_err(|_| anyhow!("the node panicked"))
}
