//! `why`, `dead-letters`, `token`, `config`, `doctor`.

use crate::Shell;
use anyhow::Result;
use postrider_harness::node::Node;
use postrider_harness::token::SECRET;
use serde_json::{Value, json};

#[test]
fn a_story_is_told() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    shell.ok(&[
        "publish",
        "--to",
        "ada",
        "--to",
        "bob",
        "--id",
        "order-7",
        "--subject",
        "Shipped",
        "--text",
        "x",
    ])?;
    shell.ok(&["listen", "--count", "1", "--quiet", "--ack", "explicit"])?;
    let story = shell.ok(&["why", "order-7", "ada"])?;
    let lines: Vec<_> = story.lines().collect();
    assert_eq!(lines[0], "order-7  Shipped");
    assert!(
        lines.contains(&"for      2 users") && lines.contains(&"ada: delivered"),
        "{story}"
    );
    assert!(lines.contains(&"state    1 delivered, 1 pending"), "{story}");
    assert!(
        lines
            .last()
            .is_some_and(|line| line.contains("  delivered  ") && line.ends_with("by client")),
        "{story}"
    );
    let json = shell.json(&["why", "order-7", "carol"])?;
    assert_eq!(json["timeline"]["state"], Value::Null);
    let unknown = shell.run(&["why", "order-8"])?;
    assert!(
        unknown.code == 1 && unknown.err.contains("knows no notification order-8"),
        "{unknown:?}"
    );
    Ok(())
}

#[test]
fn dead_letters_are_listed_shown_redriven_and_deleted() -> Result<()> {
    let node = Node::start(&[("retention.entries_per_feed", "2")])?;
    let shell = Shell::at(&node)?;
    for n in 1..=4 {
        shell.ok(&[
            "publish",
            "--to",
            "ada",
            "--id",
            &format!("n-{n}"),
            "--subject",
            "S",
            "--data",
            "1",
        ])?;
    }
    let deadline = postrider_harness::wait::within(30);
    postrider_harness::wait::until_true("two dead letters", deadline, || {
        Ok(shell.run(&["dead-letters", "list"])?.out.lines().count() == 2)
    })?;
    let list = shell.ndjson(&["dead-letters", "list", "--user", "ada", "--reason", "overflow"])?;
    let id = list[0]["id"].as_str().unwrap_or_default();
    assert_eq!(shell.json(&["dead-letters", "show", id])?["notification"], "n-1");
    let shown = shell.ok(&["dead-letters", "show", id])?;
    assert!(shown.contains("\nreason        overflow\n"), "{shown}");
    assert_eq!(
        shell.ok(&["dead-letters", "redrive", id])?,
        format!("{id} redriven\n")
    );
    let list = shell.ndjson(&["dead-letters", "list"])?;
    let other = list
        .iter()
        .filter_map(|letter| letter["id"].as_str())
        .find(|other| *other != id);
    let other = other.unwrap_or_default();
    assert_eq!(shell.json(&["dead-letters", "delete", other])?["id"], other);
    let none = shell.run(&["dead-letters", "list", "--user", "nobody"])?;
    assert_eq!(
        (none.code, none.out.as_str(), none.err.as_str()),
        (0, "", "there are none\n")
    );
    Ok(())
}

#[test]
fn a_token_is_good_and_says_until_when() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?.with("POSTRIDER_SECRET", SECRET);
    let minted = shell.json(&["token", "--user", "ada", "--ttl", "1h"])?;
    assert_eq!(minted["user"], "ada");
    assert!(
        minted["expires_at"]
            .as_str()
            .is_some_and(|at| at.ends_with(".000Z")),
        "{minted}"
    );
    shell.ok(&["publish", "--to", "ada", "--text", "x", "--id", "x"])?;
    let shell = shell.with("POSTRIDER_TOKEN", minted["token"].as_str().unwrap_or_default());
    assert!(shell.ok(&["listen", "-n", "1", "-q"])?.contains("[x]"));
    Ok(())
}

#[test]
fn a_configuration_is_judged_and_shown() -> Result<()> {
    let shell = Shell::to("http://127.0.0.1:9")?;
    let good = shell.json(&["config", "check", "--set", "http.listen=127.0.0.1:0"])?;
    assert_eq!((&good["good"], &good["faults"]), (&json!(true), &json!([])));
    let bad = shell.run(&["config", "check", "--json", "--set", "http.lisen=x"])?;
    let told: Value = serde_json::from_str(&bad.out)?;
    assert_eq!(
        (bad.code, bad.err.as_str(), &told["good"]),
        (2, "", &json!(false)),
        "{bad:?}"
    );
    assert!(
        told["faults"][0]
            .as_str()
            .is_some_and(|fault| fault.contains("http.listen")),
        "{told}"
    );
    let secret = "auth.jwt.hmac_secret=a secret of 32 bytes or more, here";
    let shown = shell.run(&["config", "show", "--json", "--set", secret])?;
    assert!(!shown.out.contains("a secret of"), "{shown:?}");
    let shown: Value = serde_json::from_str(&shown.out)?;
    assert_eq!(shown["http.listen"]["from"], "default");
    assert_eq!(
        shown["auth.jwt.hmac_secret"],
        json!({"value": "***", "from": "--set"})
    );
    Ok(())
}

#[test]
fn a_doctor_says_how_to_mend() -> Result<()> {
    let shell = Shell::to("http://127.0.0.1:9")?;
    let dir = tempfile::tempdir()?;
    let data = format!("data_dir={}", dir.path().join("data").display());
    let args = [
        "doctor",
        "--set",
        &data,
        "--set",
        "http.listen=127.0.0.1:0",
        "--set",
        "ops.listen=127.0.0.1:0",
    ];
    let done = shell.run(&[&args[..], &["--json"]].concat())?;
    let told: Value = serde_json::from_str(&done.out)?;
    assert_eq!((done.code, &told["healthy"]), (1, &json!(false)), "{done:?}");
    let faults: Vec<_> = told["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|f| f["verdict"] == "fault")
        .collect();
    assert!(
        !faults.is_empty() && faults.iter().all(|fault| fault["mend"].is_string()),
        "{told}"
    );
    let text = shell.run(&args)?;
    assert!(
        text.out.contains("\nfault   auth.api_keys") && text.out.contains("→ add one"),
        "{text:?}"
    );
    Ok(())
}
