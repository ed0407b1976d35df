//! What a person at a terminal gets, and a pipe does not: colours, heads of tables, progress, lines that fit.

use crate::Shell;
use anyhow::{Context as _, Result};
use postrider_harness::node::Node;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::process::Stdio;

const COLUMNS: u16 = 60;

/// Runs a command to its end with a terminal as standard output and standard error, and returns what it wrote there.
fn on_a_terminal(shell: &Shell, args: &[&str]) -> Result<String> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let size = Winsize {
        ws_row: 24,
        ws_col: COLUMNS,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&ours, size)?;
    let name = ptsname(&ours, Vec::new())?.into_string()?;
    let theirs = OpenOptions::new().read(true).write(true).open(name)?;
    let mut command = shell.command(args)?;
    command
        .stdout(Stdio::from(theirs.try_clone()?))
        .stderr(Stdio::from(theirs));
    let mut child = command.spawn().context("postrider does not start")?;
    // The command holds the other end, and so did this.
    drop(command);
    let mut bytes = Vec::new();
    // The end of a terminal is an error of reading it.
    if let Err(error) = File::from(ours).read_to_end(&mut bytes) {
        assert_eq!(
            error.raw_os_error(),
            Some(rustix::io::Errno::IO.raw_os_error()),
            "{error}"
        );
    }
    child.wait()?;
    Ok(String::from_utf8(bytes)?)
}

#[test]
fn progress_is_shown_and_taken_away() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?.with("TERM", "xterm");
    let file = tempfile::Builder::new().suffix(".ndjson").tempfile()?;
    let users = (0..5000).map(|n| format!("{{\"id\":\"user-{n}\"}}\n"));
    std::fs::write(file.path(), users.collect::<String>())?;
    let path = file.path().display().to_string();
    let shown = on_a_terminal(&shell, &["users", "import", &path])?;
    assert!(shown.contains("\r\x1b[K") && shown.contains("% "), "{shown:?}");
    let last = shown.rsplit("\x1b[K").next().unwrap_or_default();
    assert!(
        last.contains("5,000 users") && last.contains(" imported: 5,000 new"),
        "{shown:?}"
    );
    Ok(())
}

#[test]
fn tables_have_a_head_and_fit() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?;
    shell.ok(&[
        "users",
        "put",
        "ada",
        "--email",
        &format!("{}@example.org", "a".repeat(60)),
    ])?;
    let plain = shell.with("TERM", "xterm").with("NO_COLOR", "1");
    let shown = on_a_terminal(&plain, &["users", "list"])?;
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[0].starts_with("user  e-mail"), "{shown:?}");
    assert!(
        lines[1].starts_with("ada   aaaa") && lines[1].ends_with('…'),
        "{shown:?}"
    );
    assert!(
        lines
            .iter()
            .all(|line| line.chars().count() <= usize::from(COLUMNS)),
        "{shown:?}"
    );
    assert!(!shown.contains('\x1b'), "{shown:?}");
    let coloured = on_a_terminal(&plain.with("NO_COLOR", ""), &["users", "list"])?;
    assert!(coloured.contains("\x1b[1mada\x1b[0m"), "{coloured:?}");
    Ok(())
}

#[test]
fn payloads_are_laid_out_to_the_width() -> Result<()> {
    let node = Node::start(&[])?;
    let shell = Shell::at(&node)?.with("TERM", "xterm").with("NO_COLOR", "1");
    let data = r#"{"order":7,"address":{"street":"Main street 12","town":"Bern"},"paid":1.50}"#;
    shell.ok(&[
        "publish",
        "--to",
        "ada",
        "--id",
        "n",
        "--subject",
        "Hi",
        "--data",
        data,
    ])?;
    let shown = on_a_terminal(&shell, &["listen", "--count", "1", "--quiet"])?;
    let lines: Vec<_> = shown.lines().map(str::trim_end).collect();
    assert_eq!(&lines[0][8..], "  Hi  [n]");
    assert_eq!(
        lines[1..],
        [
            "          {",
            "            \"order\": 7,",
            "            \"address\": {",
            "              \"street\": \"Main street 12\",",
            "              \"town\": \"Bern\"",
            "            },",
            "            \"paid\": 1.50",
            "          }",
        ],
        "{shown}"
    );
    Ok(())
}
