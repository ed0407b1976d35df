//! `users`, `topics`, `state`, `presence`.

use crate::Shell;
use anyhow::Result;
use postrider_harness::node::Node;
use postrider_harness::token;
use serde_json::json;

#[test]
fn users_come_change_and_go() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let ada = shell.json(&[
        "users",
        "put",
        "ada",
        "--email",
        "ada@example.org",
        "-a",
        "plan=gold",
        "-t",
        "news",
        "-t",
        "sport",
    ])?;
    assert_eq!(ada["email"], "ada@example.org");
    assert_eq!(ada["topics"], json!([{"topic": "news"}, {"topic": "sport"}]));
    let merged = shell.json(&[
        "users", "put", "ada", "--merge", "--locale", "de-CH", "-a", "a=b=c",
    ])?;
    assert_eq!(
        (&merged["email"], &merged["attributes"], &merged["locale"]),
        (
            &json!("ada@example.org"),
            &json!({"a": "b=c", "plan": "gold"}),
            &json!("de-CH")
        )
    );
    let replaced = shell.json(&["users", "put", "ada", "--no-topics"])?;
    assert_eq!(
        (&replaced["email"], &replaced["topics"]),
        (&json!(null), &json!([]))
    );
    for name in ["a/b?c#d", "..", "grüße ✓"] {
        shell.ok(&["users", "put", name, "--locale", "de"])?;
        assert_eq!(shell.json(&["users", "show", name])?["id"], name);
    }
    let all: Vec<_> = shell.ndjson(&["users", "list", "--all"])?;
    let ids: Vec<_> = all.iter().filter_map(|user| user["id"].as_str()).collect();
    assert_eq!(ids, ["..", "a/b?c#d", "ada", "grüße ✓"]);
    // What is exported can be imported, and changes nothing then.
    let export = shell.ok(&["users", "export"])?;
    let again = shell.feed(&["users", "import", "-"], export.as_bytes())?;
    assert!(
        again
            .out
            .starts_with("4 users imported: 0 new, 0 changed, 4 as they were"),
        "{again:?}"
    );
    let some = shell.run(&["users", "list", "--limit", "1", "--after", ".."])?;
    assert!(
        some.out.starts_with("a/b?c#d") && some.out.lines().count() == 1,
        "{some:?}"
    );
    assert!(some.err.contains("--all") && some.code == 0, "{some:?}");
    assert_eq!(
        shell.ok(&["users", "delete", "ada", "zed"])?,
        "ada removed\nzed was not known\n"
    );
    let gone = shell.run(&["users", "show", "ada"])?;
    assert!(gone.code == 1 && gone.err.contains("users put"), "{gone:?}");
    shell.ok(&["publish", "--to", "eve", "--text", "x", "--id", "x"])?;
    assert_eq!(
        shell.json(&["users", "erase", "eve", "--yes"])?,
        json!({"user": "eve", "erased": true})
    );
    Ok(())
}

#[test]
fn members_join_and_leave() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    assert_eq!(
        shell.ok(&["topics", "join", "sport/eu", "ada", "bob"])?,
        "ada joined\nbob joined\n"
    );
    assert_eq!(
        shell.ok(&["topics", "join", "sport/eu", "ada"])?,
        "ada was a member already\n"
    );
    assert_eq!(shell.ok(&["topics", "members", "sport/eu"])?, "ada\nbob\n");
    assert_eq!(
        shell.ndjson(&["topics", "members", "sport/eu"])?,
        [json!("ada"), json!("bob")]
    );
    assert_eq!(shell.json(&["topics", "show", "sport/eu"])?["members"], 2);
    assert_eq!(
        shell.json(&["topics", "leave", "sport/eu", "bob"])?,
        json!({"topic": "sport/eu", "user": "bob", "changed": true})
    );
    assert!(
        shell
            .ok(&["topics", "show", "sport/eu"])?
            .starts_with("sport/eu  1 member, 0 sessions")
    );
    Ok(())
}

#[test]
fn state_is_set_counted_and_removed() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let first = shell.json(&["state", "set", "ada", "theme=dark", "note=a=b"])?;
    assert_eq!(first["state"], json!({"note": "a=b", "theme": "dark"}));
    assert_eq!(
        shell.ok(&["state", "increment", "ada", "unread", "total=10"])?,
        "total   10\nunread  1\n"
    );
    let then = shell.json(&["state", "increment", "ada", "unread=-3"])?;
    assert_eq!(then["state"]["unread"], "-2");
    assert!(then["version"].as_u64() > first["version"].as_u64());
    let wrong = shell.run(&["state", "increment", "ada", "theme"])?;
    assert!(
        wrong.code == 1 && wrong.err.contains("409 state_conflict"),
        "{wrong:?}"
    );
    assert_eq!(shell.ok(&["state", "get", "ada", "unread"])?, "-2\n");
    assert_eq!(shell.run(&["state", "get", "ada", "nothing"])?.code, 1);
    let left = shell.json(&["state", "remove", "ada", "note", "total"])?;
    assert_eq!(left["state"], json!({"theme": "dark", "unread": "-2"}));
    assert_eq!(
        shell.json(&["state", "remove", "ada", "--all"])?["state"],
        json!({})
    );
    Ok(())
}

#[test]
fn who_is_there_is_told() -> Result<()> {
    let node = Node::start(&[("topics.open", r#"["*"]"#)])?;
    let shell = Shell::at(&node)?;
    let watch = shell.start(&["presence", "watch", "--topic", "news", "--json"])?;
    assert_eq!(
        watch.json()?,
        json!({"event": "snapshot", "data": {"users": [], "last": true}})
    );
    let bob = Shell::at(&node)?.with("POSTRIDER_TOKEN", &token::user("bob")?);
    let listen = bob.start(&["listen", "--topics", "news"])?;
    listen.told("connected")?;
    let join = watch.json()?;
    assert_eq!(
        (&join["event"], &join["data"]["user"]),
        (&json!("join"), &json!("bob"))
    );
    let user = shell.json(&["presence", "user", "bob"])?;
    assert_eq!(
        (&user["online"], &user["sessions"][0]["transport"]),
        (&json!(true), &json!("sse"))
    );
    assert!(
        shell
            .ok(&["presence", "user", "bob"])?
            .starts_with("bob  connected, 1 session\n")
    );
    let topic = shell.json(&["presence", "topic", "news", "--users"])?;
    assert_eq!((&topic["users"], &topic["present"]), (&json!(1), &json!(["bob"])));
    assert_eq!(
        shell.ok(&["presence", "topic", "news", "--users"])?,
        "news  1 user by 1 session\n  bob\n"
    );
    drop(listen);
    let leave = watch.json()?;
    assert_eq!(
        (&leave["event"], &leave["data"]["user"]),
        (&json!("leave"), &json!("bob"))
    );
    Ok(())
}
