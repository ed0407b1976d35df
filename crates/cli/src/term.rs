//! What a terminal can do: colours and width; and what may be written to it.
//!
//! Invariant: what a node, a publisher or a file said goes through [`plain`] before it reaches a terminal, so that no
//! text of somebody else's can drive it.

use clap::ValueEnum;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetwinsize;
use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io::{IsTerminal, stderr, stdout};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// A terminal that says it is narrower is written to as if it had so many columns.
const NARROWEST: usize = 40;

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

static COLOURS: OnceLock<ColorWhen> = OnceLock::new();

/// Decides for the whole process; the first call counts.
pub fn choose(when: ColorWhen) {
    COLOURS.get_or_init(|| when);
}

/// How to write for one reader.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    colours: bool,
    /// Columns; `None` where lines may be as long as they are.
    pub width: Option<usize>,
}

impl Look {
    /// For whoever reads standard output.
    pub fn stdout() -> Look {
        Look::of(&stdout())
    }

    /// For whoever reads standard error.
    pub fn stderr() -> Look {
        Look::of(&stderr())
    }

    /// Without colours.
    #[cfg(test)]
    pub fn plain(width: Option<usize>) -> Look {
        let colours = false;
        Look { colours, width }
    }

    fn of(stream: &(impl IsTerminal + AsFd)) -> Look {
        let is_terminal = stream.is_terminal();
        let size = tcgetwinsize(stream).ok().filter(|_| is_terminal);
        Look {
            colours: colours(COLOURS.get().copied(), is_terminal, |name| std::env::var_os(name)),
            width: size
                .map(|size| usize::from(size.ws_col))
                .filter(|columns| *columns > 0)
                .map(|columns| columns.max(NARROWEST)),
        }
    }

    fn paint(self, sgr: &str, text: impl Display) -> String {
        match self.colours {
            true => format!("\x1b[{sgr}m{text}\x1b[0m"),
            false => text.to_string(),
        }
    }

    /// What is read second.
    pub fn dim(self, text: impl Display) -> String {
        self.paint("2", text)
    }

    /// What is read first.
    pub fn bold(self, text: impl Display) -> String {
        self.paint("1", text)
    }

    /// A name: of a topic, a key, a user.
    pub fn name(self, text: impl Display) -> String {
        self.paint("36", text)
    }

    /// It is well.
    pub fn good(self, text: impl Display) -> String {
        self.paint("32", text)
    }

    /// It deserves a look.
    pub fn warn(self, text: impl Display) -> String {
        self.paint("33", text)
    }

    /// It is not well.
    pub fn bad(self, text: impl Display) -> String {
        self.paint("31", text)
    }

    /// As a notification's state deserves.
    pub fn state(self, state: &str) -> String {
        match state {
            "delivered" | "read" => self.good(state),
            "pending" => self.warn(state),
            "dead" => self.bad(state),
            _ => self.dim(state),
        }
    }
}

fn colours(
    when: Option<ColorWhen>,
    is_terminal: bool,
    env: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> bool {
    match when.unwrap_or(ColorWhen::Auto) {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        // https://no-color.org: set, and not empty.
        ColorWhen::Auto => {
            is_terminal
                && env("NO_COLOR").is_none_or(|value| value.is_empty())
                && env("TERM").is_none_or(|term| term != "dumb")
        }
    }
}

/// The text with everything spelt out that a terminal would act on or hide: control characters, and those that
/// change the direction of what stands beside them.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(drives) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match drives(c) {
            // A String takes everything.
            true => write!(out, "\\u{{{:x}}}", u32::from(c)).unwrap_or_default(),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The same for JSON, whose values stay as they are: what may stand in its strings as it is, and in nothing else, is
/// written as an escape there.
pub fn plain_json(json: &str) -> Cow<'_, str> {
    let is_raw = |c: char| !c.is_ascii_whitespace() && drives(c);
    if !json.contains(is_raw) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match is_raw(c) {
            // All of them are of the first plane: four digits are enough. A String takes everything.
            true => write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// [`plain`] of every line: text over several lines of our own keeps them.
pub fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

fn drives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// How many columns a text takes.
pub fn columns(text: &str) -> usize {
    text.width()
}

/// At most so many columns of the text; where some is left out, `…` stands for it.
pub fn fit(text: &str, most: usize) -> Cow<'_, str> {
    if columns(text) <= most {
        return Cow::Borrowed(text);
    }
    let (mut taken, mut out) = (0, String::new());
    for c in text.chars() {
        taken += c.width().unwrap_or(0);
        if taken > most.saturating_sub(1) {
            break;
        }
        out.push(c);
    }
    out.push('…');
    Cow::Owned(out)
}

/// The text in lines of at most so many columns, cut between words; a longer word stands alone.
pub fn wrapped(text: &str, most: Option<usize>) -> Vec<String> {
    let Some(most) = most else {
        return vec![text.to_owned()];
    };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last().map_or(0, |line| columns(line));
        match lines.last_mut() {
            Some(last) if line == 0 => last.push_str(word),
            Some(last) if line + 1 + columns(word) <= most => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Whether nobody reads standard output any more.
pub fn output_is_closed() -> bool {
    let out = stdout();
    let mut files = [PollFd::new(&out, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let polled = poll(&mut files, Some(&now));
    polled.is_ok() && files[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_there_are_colours() {
        let env = |name: &'static str, value: &'static str| {
            move |asked: &str| (asked == name).then(|| value.into())
        };
        for (when, is_terminal, (name, value), wanted) in [
            (None, true, ("", ""), true),
            (None, false, ("", ""), false),
            (None, true, ("NO_COLOR", "1"), false),
            (None, true, ("NO_COLOR", ""), true),
            (None, true, ("TERM", "dumb"), false),
            (Some(ColorWhen::Always), false, ("NO_COLOR", "1"), true),
            (Some(ColorWhen::Never), true, ("", ""), false),
        ] {
            assert_eq!(
                colours(when, is_terminal, env(name, value)),
                wanted,
                "{when:?} {is_terminal} {name}={value}"
            );
        }
    }

    #[test]
    fn nothing_drives_the_terminal() {
        assert_eq!(plain("Grüße ✓ 漢字"), "Grüße ✓ 漢字");
        assert_eq!(plain("a\x1b[2Jb\nc\u{9b}d"), "a\\u{1b}[2Jb\\u{a}c\\u{9b}d");
        assert_eq!(plain("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(
            plain_lines("refused: a\x1b[2J\n  hint\u{9b}"),
            "refused: a\\u{1b}[2J\n  hint\\u{9b}"
        );
    }

    #[test]
    fn json_says_the_same_without_driving_the_terminal() {
        let text = "a\u{9b}\u{7f}\u{202e}\u{feff}\u{61c}\u{2028}\x1b\"\\Grüße 漢\u{1f600}\n";
        let json = serde_json::json!({ text: [text] }).to_string();
        let written = plain_json(&json);
        assert!(!written.contains(drives), "{written}");
        assert!(written.contains("\\u009b\\u007f\\u202e"), "{written}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&written).unwrap()[text][0],
            text
        );
        assert_eq!(plain_json("[ 1,\t2 ]\n"), "[ 1,\t2 ]\n");
    }

    #[test]
    fn texts_are_wrapped_between_words() {
        assert_eq!(wrapped("one two three", None), ["one two three"]);
        assert_eq!(wrapped("one two three", Some(7)), ["one two", "three"]);
        assert_eq!(wrapped("a longerword b", Some(4)), ["a", "longerword", "b"]);
    }

    #[test]
    fn texts_are_cut_by_columns() {
        assert_eq!(fit("abc", 3), "abc");
        assert_eq!(fit("abcd", 3), "ab…");
        assert_eq!(fit("漢字漢字", 5), "漢字…");
        assert!(columns(&fit("漢字漢字", 4)) <= 4);
    }
}
