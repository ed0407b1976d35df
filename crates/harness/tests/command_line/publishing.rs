//! `publish`.

use crate::{Shell, piped};
use anyhow::Result;
use postrider_harness::node::Node;
use serde_json::{Value, json};
use std::io::BufRead as _;

#[test]
fn one_from_arguments() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), "{\"digits\": 12345678901234567890.10}")?;
    let data = format!("@{}", file.path().display());
    let args = [
        "publish",
        "--to",
        "ada",
        "--to",
        "bob",
        "--except",
        "bob",
        "--id",
        "n-1",
        "--subject",
        "S",
        "--ttl",
        "1h",
    ];
    let out = shell.ok(&[&args[..], &["--data", &data]].concat())?;
    assert_eq!(out, "accepted n-1\n");
    // The same again is the same; other content is not.
    assert_eq!(
        shell.json(&[&args[..], &["--data", &data]].concat())?,
        json!({"id": "n-1", "accepted": true})
    );
    let other = shell.run(&[&args[..], &["--data", "1"]].concat())?;
    assert_eq!(other.code, 1);
    assert!(other.err.contains("409 id_conflict"), "{other:?}");
    let shown = shell.ok(&["listen", "--count", "1", "--json", "--quiet"])?;
    assert!(
        shown.contains(r#""data":{"digits":12345678901234567890.10}"#),
        "{shown}"
    );
    Ok(())
}

#[test]
fn later_transient_and_to_all() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    shell.ok(&[
        "publish",
        "--to",
        "ada",
        "--text",
        "later",
        "--id",
        "later",
        "--deliver-at",
        "+1h",
    ])?;
    let story = shell.json(&["why", "later"])?;
    let events = story["timeline"]["events"].to_string();
    assert!(events.contains("scheduled"), "{story}");
    shell.ok(&[
        "publish",
        "--everyone",
        "--except",
        "bob",
        "--text",
        "all",
        "--id",
        "all",
        "--collapse-key",
        "k",
    ])?;
    assert_eq!(
        shell.json(&["why", "all"])?["notification"]["audience"]["kind"],
        "everyone"
    );
    shell.ok(&["publish", "--to", "ada", "--transient", "--text", "now"])?;
    let done = shell.feed(&["publish", "--to", "ada", "--data", "-", "--id", "in"], b" [1] ")?;
    assert_eq!((done.code, done.out.as_str()), (0, "accepted in\n"), "{done:?}");
    Ok(())
}

#[test]
fn lines_are_published_as_they_come_and_bad_ones_are_told() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let mut input = String::new();
    for n in 1..=2500 {
        input += &match n {
            7 => "\n".to_owned(),
            1500 => "{\"users\":[\"ada\"]}\n".to_owned(),
            n => format!("{{\"users\":[\"ada\"],\"data\":{n},\"id\":\"n-{n}\"}}\n"),
        };
    }
    let done = shell.feed(&["publish", "--ndjson", "-"], input.as_bytes())?;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.out
            .starts_with("line 1500  rejected: invalid_notification: "),
        "{}",
        done.out
    );
    assert!(
        done.out.contains("\n2,498 notifications accepted  "),
        "{}",
        done.out
    );
    assert!(
        done.err.contains("1 of 2,499 notifications rejected"),
        "{}",
        done.err
    );
    assert!(
        !done.err.contains('\r'),
        "no progress without a terminal: {:?}",
        done.err
    );
    // Again: nothing is doubled, and each line has its answer.
    let done = shell.feed(&["publish", "--ndjson", "-", "--json"], input.as_bytes())?;
    let answers: Vec<Value> = done
        .out
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!((done.code, answers.len()), (1, 2499));
    assert_eq!(answers[0], json!({"id": "n-1", "accepted": true}));
    Ok(())
}

#[test]
fn a_line_does_not_wait_for_the_next() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let mut child = shell
        .command(&["publish", "--ndjson", "-", "--json"])?
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().expect("a pipe");
    let mut out = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    for n in 0..3 {
        std::io::Write::write_all(
            &mut input,
            format!("{{\"users\":[\"ada\"],\"data\":{n},\"id\":\"n-{n}\"}}\n").as_bytes(),
        )?;
        let mut answer = String::new();
        out.read_line(&mut answer)?;
        assert!(answer.contains(&format!("n-{n}")), "{answer}");
    }
    drop(input);
    assert!(child.wait()?.success());
    Ok(())
}

#[test]
fn answers_that_nobody_reads_end_a_stream_with_a_failure() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let file = tempfile::NamedTempFile::new()?;
    let line = |n: u32| format!("{{\"users\":[\"ada\"],\"data\":{n}}}\n");
    std::fs::write(file.path(), (0..20_000).map(line).collect::<String>())?;
    let path = file.path().display().to_string();
    let (mut child, mut out) = piped(&shell, &["publish", "--json", "--ndjson", &path])?;
    out.read_line(&mut String::new())?;
    drop(out);
    assert_eq!(child.wait()?.code(), Some(1));
    Ok(())
}
