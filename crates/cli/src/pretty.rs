//! JSON for people, without a change to what it says: numbers keep their digits, members their order.

/// What is nested deeper stays on one line.
const DEPTH_MOST: usize = 100;

/// The text over several lines of at most `width` columns where that can be: what fits on a line stays on it.
pub fn pretty(json: &str, width: usize) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    value(&mut out, json.trim(), 0, 0, width);
    out
}

/// One value. `at` is how much of its line is taken before it.
fn value(out: &mut String, json: &str, depth: usize, at: usize, width: usize) {
    let is_open = json.starts_with(['{', '[']) && json.ends_with(['}', ']']);
    let fits = crate::term::columns(json) + at < width;
    if fits || !is_open || json.len() < 3 || depth == DEPTH_MOST {
        out.push_str(json);
        return;
    }
    let (open, rest) = json.split_at(1);
    let (inner, close) = rest.split_at(rest.len() - 1);
    out.push_str(open);
    let items = split(inner, ',');
    for (nth, item) in items.iter().enumerate() {
        out.push('\n');
        out.push_str(&"  ".repeat(depth + 1));
        let mut taken = 2 * (depth + 1);
        let mut item = item.trim();
        if open == "{"
            && let [name, rest @ ..] = split(item, ':').as_slice()
            && !rest.is_empty()
        {
            out.push_str(name.trim());
            out.push_str(": ");
            taken += crate::term::columns(name.trim()) + 2;
            item = item[name.len() + 1..].trim();
        }
        // A comma follows all but the last.
        value(out, item, depth + 1, taken + 1, width);
        if nth + 1 < items.len() {
            out.push(',');
        }
    }
    out.push('\n');
    out.push_str(&"  ".repeat(depth));
    out.push_str(close);
}

/// The parts between separators that stand in no text and in nothing that is nested.
fn split(json: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut begun) = (Vec::new(), 0);
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for (at, c) in json.char_indices() {
        if in_text {
            in_text = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => in_text = true,
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            c if c == separator && depth == 0 => {
                parts.push(&json[begun..at]);
                begun = at + 1;
            }
            _ => {}
        }
    }
    if !json[begun..].trim().is_empty() {
        parts.push(&json[begun..]);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_on_its_line() {
        let json = r#"{"order":8,"address":{"street":"Main street 12","town":"Bern"},"lines":[1,2]}"#;
        assert_eq!(pretty(json, 200), json);
        assert_eq!(
            pretty(json, 40),
            "{\n  \"order\": 8,\n  \"address\": {\n    \"street\": \"Main street 12\",\n    \"town\": \"Bern\"\n  },\n  \"lines\": [1,2]\n}"
        );
    }

    #[test]
    fn lines_for_people_say_the_same() {
        let json = r#"{"b":[1.50,{"x":"a,{\"b\":1}\\"}],"a":{},"n":123456789012345678901234567890, "l": [ ], "e":"漢:,字"}"#;
        for width in [1, 10, 20, 40, 80] {
            let text = pretty(json, width);
            assert!(text.contains("123456789012345678901234567890"), "{text}");
            let parsed = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
            assert_eq!(parsed(&text), parsed(json), "{text}");
            assert!(text.find("\"b\"").unwrap() < text.find("\"a\"").unwrap());
        }
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        assert!(pretty(&deep, 10).starts_with("[\n  [\n"));
        assert_eq!(pretty("no JSON {", 3), "no JSON {");
    }
}
