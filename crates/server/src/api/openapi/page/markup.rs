//! Text as markup: what comes from the document is escaped here, and nowhere is it not.

use serde_json::Value;

/// Members of an example stand on one line where they fit into so many characters.
const LINE: usize = 76;

/// An example: text as it is, JSON on as few lines as can be read.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim_end().to_owned(),
        json => laid_out(json, 0),
    }
}

fn laid_out(json: &Value, depth: usize) -> String {
    let members: Vec<String> = match json {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| format!("{}: {}", Value::from(name.as_str()), laid_out(value, depth + 1)))
            .collect(),
        Value::Array(items) => items.iter().map(|item| laid_out(item, depth + 1)).collect(),
        plain => return plain.to_string(),
    };
    let (open, close) = if json.is_array() { ("[", "]") } else { ("{", "}") };
    let length: usize = members.iter().map(|member| member.len() + 2).sum();
    if length <= LINE && !members.iter().any(|member| member.contains('\n')) {
        let (space, inner) = (if json.is_array() { "" } else { " " }, members.join(", "));
        return if inner.is_empty() {
            format!("{open}{close}")
        } else {
            format!("{open}{space}{inner}{space}{close}")
        };
    }
    let indent = "  ".repeat(depth + 1);
    let inner = members.join(&format!(",\n{indent}"));
    format!("{open}\n{indent}{inner}\n{}{close}", "  ".repeat(depth))
}

/// Paragraphs.
pub fn prose(text: &str) -> String {
    text.split("\n\n")
        .filter(|part| !part.is_empty())
        .map(|part| format!("<p>{}</p>\n", inline(part)))
        .collect()
}

/// What stands between backticks is code.
pub fn inline(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(i, part)| match i % 2 {
        0 => escaped(part),
        _ => format!("<code>{}</code>", escaped(part)),
    });
    parts.collect()
}

/// A path that may be broken before each part.
pub fn broken(path: &str) -> String {
    escaped(path).replace('/', "<wbr>/")
}

/// Text that is nothing but text.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Where a task begins; no operation has such a name.
pub fn anchor(name: &str) -> String {
    format!("task-{}", name.to_ascii_lowercase().replace(' ', "-"))
}
