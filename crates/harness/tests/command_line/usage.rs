//! Help, bad usage, colours, secrets, completions, manual pages.

use crate::Shell;
use anyhow::{Result, ensure};

fn nowhere() -> Result<Shell> {
    Shell::to("http://127.0.0.1:9")
}

/// Every command with its words: `["users", "import"]`.
fn commands(shell: &Shell, words: &[String], found: &mut Vec<Vec<String>>) -> Result<()> {
    let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
    args.push("--help");
    let help = shell.ok(&args)?;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.map_while(|line| line.strip_prefix("  "));
    // A description may go on over several lines, further in.
    let names = listed
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| *name != "help") {
        let words = [words, &[name.to_owned()]].concat();
        found.push(words.clone());
        commands(shell, &words, found)?;
    }
    Ok(())
}

#[test]
fn every_command_has_help_with_examples() -> Result<()> {
    let shell = nowhere()?;
    let mut all = Vec::new();
    commands(&shell, &[], &mut all)?;
    assert!(all.len() >= 30, "{all:?}");
    for words in &all {
        let args: Vec<_> = words.iter().map(String::as_str).collect();
        let help = shell.ok(&[args.as_slice(), &["--help"]].concat())?;
        let holds_others = help.contains("\nCommands:\n");
        assert!(
            holds_others || help.contains("\nExamples:\n  "),
            "{words:?}\n{help}"
        );
        // What an example shows exists.
        for line in help.lines().filter(|line| line.starts_with("  postrider ")) {
            let named: Vec<_> = line.split_whitespace().skip(1).take(args.len()).collect();
            assert!(
                holds_others || line.contains('|') || named == args,
                "{words:?}: {line}"
            );
        }
        let wide = help.lines().find(|line| line.chars().count() > 140);
        assert_eq!(wide, None, "{words:?}");
    }
    Ok(())
}

#[test]
fn bad_usage_is_one_helpful_line() -> Result<()> {
    let shell = nowhere()?;
    for (args, part) in [
        (vec!["publish", "--tpic", "news"], "'--topic'"),
        (vec!["publish", "--to", "ada"], "--data"),
        (vec!["publish", "--to", "ada", "--data", "hello"], "--text"),
        (
            vec!["publish", "--to", "ada", "--data", "1", "--deliver-at", "soon"],
            "+10m",
        ),
        (vec!["token"], "--user"),
        (vec!["lisen"], "listen"),
        (vec!["users", "show", ""], "no user"),
        (vec!["users", "erase", "ada"], "--yes"),
        (vec!["topics", "members", "a b"], "no topic"),
        (vec!["state", "set", "ada", "unread"], "NAME=VALUE"),
        (vec!["state", "increment", "ada", "unread=x"], "whole number"),
        (vec!["listen", "--for", "soon"], "--for"),
        (vec!["listen", "--transport", "pigeon"], "long-poll"),
        (vec!["why", "order-7", "--url", "node:8080"], "http://host:port"),
        (vec!["why", "no id"], "ID"),
        (vec!["dead-letters", "redrive"], "--all"),
        (vec!["--color", "sometimes", "doctor"], "never"),
    ] {
        let done = shell.run(&args)?;
        assert_eq!((done.code, done.out.as_str()), (2, ""), "{args:?}: {done:?}");
        assert_eq!(done.err.lines().count(), 1, "{args:?}: {}", done.err);
        assert!(done.err.contains(part), "{args:?}: {}", done.err);
    }
    Ok(())
}

#[test]
fn a_missing_node_is_told_with_what_to_do() -> Result<()> {
    let shell = nowhere()?;
    for args in [
        &["users", "list"][..],
        &["publish", "--to", "ada", "--text", "x"],
        &["why", "order-7"],
        &["state", "get", "ada"],
        &["presence", "topic", "news"],
    ] {
        let done = shell.run(args)?;
        assert_eq!((done.code, done.out.as_str()), (1, ""), "{args:?}");
        assert!(
            done.err.contains("is it running, and is --url right?"),
            "{args:?}: {}",
            done.err
        );
    }
    Ok(())
}

#[test]
fn credentials_are_asked_for_and_never_repeated() -> Result<()> {
    let without = nowhere()?.with("POSTRIDER_KEY", "").with("POSTRIDER_TOKEN", "");
    for (args, variable) in [
        (&["users", "list"][..], "POSTRIDER_KEY"),
        (&["listen"], "POSTRIDER_TOKEN"),
    ] {
        let done = without.run(args)?;
        assert_eq!(done.code, 2, "{done:?}");
        assert!(done.err.contains(variable), "{done:?}");
    }
    for secret in ["s3cr3t with blanks", "s3cr3t\u{1}"] {
        let done = nowhere()?.with("POSTRIDER_KEY", secret).run(&["users", "list"])?;
        assert_eq!(done.code, 2, "{done:?}");
        assert!(!done.err.contains("s3cr3t"), "{done:?}");
    }
    Ok(())
}

#[test]
fn colours_are_for_terminals_or_for_those_who_ask() -> Result<()> {
    let shell = nowhere()?.with("TERM", "xterm-256color");
    let doctor = [
        "doctor",
        "--set",
        "http.listen=127.0.0.1:0",
        "--set",
        "ops.listen=127.0.0.1:0",
    ];
    let plain = shell.run(&doctor)?;
    assert!(
        !plain.out.contains('\x1b') && !plain.err.contains('\x1b'),
        "{plain:?}"
    );
    let forced = shell.run(&[&doctor[..], &["--color", "always"]].concat())?;
    assert!(forced.out.contains("\x1b[3"), "{forced:?}");
    let json = shell.run(&[&doctor[..], &["--color", "always", "--json"]].concat())?;
    serde_json::from_str::<serde_json::Value>(&json.out)?;
    let help = shell.run(&["--color=always", "publish", "--help"])?;
    assert!(help.out.contains("\x1b["), "{}", help.out);
    Ok(())
}

#[test]
fn completions_and_manual_pages_know_every_command() -> Result<()> {
    let shell = nowhere()?;
    let mut all = Vec::new();
    commands(&shell, &[], &mut all)?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().display().to_string();
    shell.ok(&["man", "--dir", &path])?;
    for words in &all {
        let page = dir.path().join(format!("postrider-{}.1", words.join("-")));
        let text = std::fs::read_to_string(&page)?;
        let holds_others = text.contains("SUBCOMMANDS");
        assert!(
            holds_others || text.contains("\n.SH EXAMPLES\n.nf\n  "),
            "{words:?}\n{text}"
        );
    }
    for name in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = shell.ok(&["completions", name])?;
        for words in &all {
            let last = words.last().map(String::as_str).unwrap_or_default();
            assert!(script.contains(last), "{name}: {words:?}");
        }
        assert!(script.contains("cursor-file"), "{name}");
    }
    Ok(())
}

#[test]
fn variables_of_the_commands_do_not_disturb_a_node() -> Result<()> {
    let shell = nowhere()?
        .with("POSTRIDER_CA", "/nowhere")
        .with("POSTRIDER_SECRET", "s");
    let done = shell.run(&["config", "check"])?;
    ensure!(done.code == 0 && !done.err.contains("POSTRIDER_"), "{done:?}");
    let mistaken = shell.with("POSTRIDER_URLS", "x").run(&["config", "check"])?;
    assert!(mistaken.err.contains("POSTRIDER_URLS"), "{mistaken:?}");
    Ok(())
}
