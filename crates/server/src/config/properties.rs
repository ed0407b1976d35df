//! The `.properties` format of Java: `key=value` lines, read as `java.util.Properties.load` describes them, in UTF-8.
//!
//! Two things are stricter: a key given twice is a fault, and so is a `\u` that is no code.

use std::iter::Peekable;
use std::str::Chars;

/// One `key=value`, and the line that it begins on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Property {
    pub key: String,
    pub value: String,
    pub line: usize,
}

/// All properties in order, or the line that cannot be read and why.
pub(super) fn parse(text: &str) -> Result<Vec<Property>, (usize, &'static str)> {
    let mut out: Vec<Property> = Vec::new();
    for (line, logical) in logical_lines(text) {
        let (key, value) = split(&logical).map_err(|what| (line, what))?;
        if key.is_empty() {
            return Err((line, "there is no key before the ="));
        }
        if out.iter().any(|earlier| earlier.key == key) {
            return Err((line, "this key was given before"));
        }
        out.push(Property { key, value, line });
    }
    Ok(out)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// Lines without comments and empty ones; one that ends in an odd number of backslashes goes on in the next.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((i, line)) = lines.next() {
        let start = line.trim_start_matches(is_blank);
        if start.is_empty() || start.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = start.to_owned();
        while logical.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1 {
            logical.pop();
            match lines.next() {
                Some((_, more)) => logical.push_str(more.trim_start_matches(is_blank)),
                None => break,
            }
        }
        out.push((i + 1, logical));
    }
    out
}

/// The key ends at the first `=`, `:` or blank that has no backslash before it.
fn split(line: &str) -> Result<(String, String), &'static str> {
    let mut rest = line.chars().peekable();
    let key = unescape(&mut rest, |c| c == '=' || c == ':' || is_blank(c))?;
    while rest.next_if(|c| is_blank(*c)).is_some() {}
    if rest.next_if(|c| matches!(c, '=' | ':')).is_some() {
        while rest.next_if(|c| is_blank(*c)).is_some() {}
    }
    let value = unescape(&mut rest, |_| false)?;
    Ok((key, value))
}

fn unescape(rest: &mut Peekable<Chars<'_>>, is_end: impl Fn(char) -> bool) -> Result<String, &'static str> {
    let mut out = String::new();
    while let Some(c) = rest.next_if(|c| !is_end(*c)) {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => out.push(character(rest)?),
            Some(other) => out.push(other),
            None => {}
        }
    }
    Ok(out)
}

/// After `\u`: four hexadecimal digits, or two such codes for a character beyond the first 65,536.
fn character(rest: &mut Peekable<Chars<'_>>) -> Result<char, &'static str> {
    const FAULT: &str = "\\u needs four hexadecimal digits that are a character";
    let mut units = vec![unit(rest).ok_or(FAULT)?];
    if matches!(units[0], 0xd800..=0xdbff) {
        let follows = rest.next() == Some('\\') && rest.next() == Some('u');
        units.push(unit(rest).filter(|_| follows).ok_or(FAULT)?);
    }
    char::decode_utf16(units).next().and_then(Result::ok).ok_or(FAULT)
}

fn unit(rest: &mut Peekable<Chars<'_>>) -> Option<u16> {
    (0..4).try_fold(0u16, |unit, _| {
        Some(unit << 4 | rest.next()?.to_digit(16)? as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_java_reads_them() {
        let text = concat!(
            "# a comment\n! another\n\n",
            "a=1\n",
            "  b : two words \n",
            "c 3\n",
            "d\n",
            "e\\=f\\ g = x=y\n",
            "long = one, \\\n    two\\\\\n",
            "u = \\u00e9\\ud83d\\ude00\\t|\\q\n",
            "crlf=1\r\n",
            "last=\\",
        );
        let read: Vec<_> = parse(text)
            .unwrap()
            .into_iter()
            .map(|p| (p.line, p.key, p.value))
            .collect();
        let want = [
            (4, "a", "1"),
            (5, "b", "two words "),
            (6, "c", "3"),
            (7, "d", ""),
            (8, "e=f g", "x=y"),
            (9, "long", "one, two\\"),
            (11, "u", "é😀\t|q"),
            (12, "crlf", "1"),
            (13, "last", ""),
        ];
        assert_eq!(
            read,
            want.map(|(line, key, value)| (line, key.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn what_cannot_be_read_is_a_fault_with_its_line() {
        for (text, line) in [
            ("a=1\n=2", 2),
            ("a=1\nb=2\na=3", 3),
            ("a=\\u12", 1),
            ("a=\\ud83d", 1),
            ("a=\\ud83d\\u0041", 1),
            ("\\u", 1),
        ] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
    }
}
