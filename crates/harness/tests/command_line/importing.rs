//! `users import`.

use crate::Shell;
use anyhow::Result;
use postrider_harness::node::Node;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// How many users are imported: all of them with `POSTRIDER_IMPORT=full`.
fn count() -> u64 {
    match std::env::var_os("POSTRIDER_IMPORT").is_some_and(|size| size == "full") {
        true => 100_000,
        false => 10_000,
    }
}

/// Lines of users, with these as they are instead.
fn ndjson(count: u64, bad: &[(u64, &str)]) -> String {
    let mut text = String::new();
    for line in 1..=count {
        match bad.iter().find(|(at, _)| *at == line) {
            Some((_, bad)) => text += bad,
            None => write!(
                text,
                "{{\"id\":\"user-{line:06}\",\"email\":\"u{line}@example.org\",\"topics\":[\"news\"]}}"
            )
            .expect("a String takes everything"),
        }
        text.push('\n');
    }
    text
}

#[test]
fn many_users_with_bad_lines_among_them() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let count = count();
    let bad = [
        (3, "{\"id\":\"\"}"),
        (1001, "no JSON"),
        (4500, ""),
        (count, "{\"id\":\"x\",\"email\":1}"),
    ];
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("users.ndjson");
    std::fs::write(&file, ndjson(count, &bad))?;
    let path = file.display().to_string();

    let done = shell.run(&["users", "import", &path])?;
    assert_eq!(done.code, 1, "{done:?}");
    let lines: Vec<_> = done.out.lines().collect();
    let numbers: Vec<_> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("line ")?.split("  ").next())
        .collect();
    assert_eq!(numbers, ["3", "1001", &count.to_string()], "{}", done.out);
    assert!(lines[3].contains(" users imported: "), "{}", done.out);
    assert!(done.err.starts_with("postrider: 3 of "), "{}", done.err);
    assert!(
        !done.out.contains('\x1b') && !done.err.contains(['\x1b', '\r']),
        "{done:?}"
    );
    assert_eq!(shell.json(&["topics", "show", "news"])?["members"], count - 4);

    // The same again changes nothing.
    let done = shell.run(&["users", "import", &path, "--json"])?;
    let told: Vec<Value> = done
        .out
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!((done.code, told.len()), (1, 4), "{}", done.out);
    assert_eq!((&told[0]["line"], &told[2]["line"]), (&json!(3), &json!(count)));
    assert_eq!(
        told[3],
        json!({"done": true, "lines": count - 1, "imported": count - 4, "created": 0, "changed": 0,
            "unchanged": count - 4, "rejected": 3})
    );
    Ok(())
}

#[test]
fn a_bad_line_may_refuse_the_whole() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let input = ndjson(3000, &[(2999, "{\"id\":\"\"}")]);
    let args = ["users", "import", "-", "--bad-lines", "refuse"];
    let done = shell.feed(&args, input.as_bytes())?;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.out.starts_with("line 2999  "), "{done:?}");
    assert!(done.err.contains("nothing was imported"), "{done:?}");
    assert_eq!(shell.run(&["users", "list"])?.out, "");
    let done = shell.feed(&[&args[..], &["--json"]].concat(), input.as_bytes())?;
    assert_eq!(
        done.out.lines().last(),
        Some(r#"{"done":false,"imported":0,"lines":3000,"rejected":1}"#)
    );
    let done = shell.feed(&args, ndjson(3000, &[]).as_bytes())?;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.out.starts_with("3,000 users imported: 3,000 new"),
        "{done:?}"
    );
    Ok(())
}

#[test]
fn csv_keeps_its_line_numbers() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let mut text = String::from("\u{feff}id,email,topics,attributes.note\r\n");
    for n in 0..2500 {
        // Every second record stands on two lines: user n begins on line 2 + 3 * (n / 2) + 2 * (n % 2).
        let note = if n % 2 == 0 {
            "\"one\r\ntwo, \"\"three\"\"\""
        } else {
            ""
        };
        let email = if n == 2001 { "nobody" } else { "u@example.org" };
        write!(text, "csv-{n},{email},news;sport,{note}\r\n")?;
    }
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("users.csv");
    std::fs::write(&file, &text)?;
    let path = file.display().to_string();
    let done = shell.run(&["users", "import", &path])?;
    assert_eq!(done.code, 1, "{done:?}");
    let line = 2 + 3 * (2001 / 2) + 2;
    assert!(done.out.starts_with(&format!("line {line}  ")), "{}", done.out);
    assert!(
        done.out.contains("(column email)\n2,499 users imported"),
        "{}",
        done.out
    );
    let user = shell.json(&["users", "show", "csv-2000"])?;
    assert_eq!(user["attributes"]["note"], "one\r\ntwo, \"three\"");
    assert_eq!(user["topics"], json!([{"topic": "news"}, {"topic": "sport"}]));
    // By another way, and in one request, the line is the same.
    let args = ["users", "import", "-", "--format", "csv", "--bad-lines", "refuse"];
    let done = shell.feed(&args, text.as_bytes())?;
    assert!(done.out.starts_with(&format!("line {line}  ")), "{}", done.out);
    Ok(())
}

#[test]
fn what_cannot_be_imported_at_all_is_told_before_anything_is_read() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let missing = shell.run(&["users", "import", "/nowhere/users.csv"])?;
    assert!(
        missing.code == 1 && missing.err.contains("/nowhere/users.csv cannot be read"),
        "{missing:?}"
    );
    let reader = shell.with("POSTRIDER_KEY", postrider_harness::node::KEY_READ);
    let refused = reader.run(&["users", "import", "-"])?;
    assert!(
        refused.code == 1 && refused.err.contains("403 scope"),
        "{refused:?}"
    );
    Ok(())
}

/// A header and users whose records are `id,` and this.
fn csv(records: impl Iterator<Item = String>) -> String {
    records.fold("id,attributes.n\n".into(), |text, record| text + &record + "\n")
}

#[test]
fn a_quote_inside_a_cell_cuts_no_record() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    // The node takes the quote of the first record as text: the last one of the first thousand goes on over lines.
    let mut records: Vec<String> = (0..1500).map(|n| format!("s{n},x")).collect();
    records[0] = "s0,5\" pipe".into();
    records[998] = "s998,\"one\ninner,two\ninner,three\nfour\"".into();
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("cut.csv").display().to_string();
    std::fs::write(&file, csv(records.into_iter()))?;
    let done = shell.ok(&["users", "import", &file])?;
    assert!(done.starts_with("1,500 users imported: 1,500 new"), "{done}");
    assert_eq!(
        shell.json(&["users", "show", "s0"])?["attributes"]["n"],
        "5\" pipe"
    );
    let user = shell.json(&["users", "show", "s998"])?;
    assert_eq!(user["attributes"]["n"], "one\ninner,two\ninner,three\nfour");
    assert_eq!(shell.run(&["users", "show", "inner"])?.code, 1);
    Ok(())
}

#[test]
fn the_node_judges_a_header_that_nothing_follows() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let args = ["users", "import", "-", "--format", "csv"];
    for (text, part) in [
        ("", "no header"),
        ("\n\n", "no header"),
        ("name,phone\n", "column `name` is not known"),
        ("name,phone\nada,1\n", "column `name` is not known"),
        ("id,\"attributes.n\nada,x\n", "quote"),
    ] {
        let done = shell.feed(&args, text.as_bytes())?;
        assert_eq!((done.code, done.out.as_str()), (1, ""), "{text:?}: {done:?}");
        assert!(done.err.contains(part), "{text:?}: {}", done.err);
        assert!(
            done.err.starts_with("postrider: nothing was imported: "),
            "{text:?}: {}",
            done.err
        );
    }
    let done = shell.feed(&args, b"id\n")?;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.starts_with("0 users imported"), "{done:?}");
    let done = shell.feed(&args, b"id\rz1\rz2\r")?;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.starts_with("2 users imported: 2 new"), "{done:?}");
    Ok(())
}

#[test]
fn blank_lines_before_the_header_are_no_header() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let users = (0..2500).map(|n| match n {
        2001 => format!("b{n},x,more"),
        n => format!("b{n},x"),
    });
    let text = format!("\u{feff}\n\r\n{}", csv(users));
    let done = shell.feed(&["users", "import", "-", "--format", "csv"], text.as_bytes())?;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.out.starts_with("line 2005  "), "{}", done.out);
    assert!(
        done.out.contains("\n2,499 users imported: 2,499 new"),
        "{}",
        done.out
    );
    assert!(done.err.contains("the others were imported"), "{}", done.err);
    Ok(())
}

#[test]
fn what_was_refused_is_told_in_the_words_of_the_node() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    let args = ["users", "import", "-", "--format", "csv"];
    let done = shell.feed(&args, b"id,email\nada,nobody\n")?;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.err
            .contains("1 of 1 user could not be taken; nothing was imported"),
        "{done:?}"
    );
    // Not the file is too large: its header is.
    let refuse = [&args[..], &["--bad-lines", "refuse"]].concat();
    let columns: Vec<_> = (0..100).map(|n| format!("attributes.a{n}")).collect();
    let done = shell.feed(&refuse, columns.join(",").as_bytes())?;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("too_large: The header of the CSV"), "{done:?}");
    assert!(!done.err.contains("the file is too large"), "{done:?}");
    let done = shell.feed(&refuse, b"name\n")?;
    assert!(
        done.err.starts_with("postrider: nothing was imported: "),
        "{done:?}"
    );
    Ok(())
}
