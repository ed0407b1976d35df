//! JSON as bytes: makes `data` compact without touching what is inside strings or how numbers are
//! written, and measures how deep a document nests before anything parses it.

use bytes::Bytes;

/// Removes white space outside strings. `text` must be valid JSON; the bytes of strings and numbers stay
/// as they were written, so the result is on one line.
pub fn compact(text: &str) -> Bytes {
    let mut out = Vec::with_capacity(text.len());
    let mut in_string = false;
    let mut escaped = false;
    for &b in text.as_bytes() {
        if in_string {
            out.push(b);
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
        } else if !matches!(b, b' ' | b'\t' | b'\n' | b'\r') {
            in_string = b == b'"';
            out.push(b);
        }
    }
    Bytes::from(out)
}

/// The deepest nesting of arrays and objects in `text`, without parsing it: 0 for a scalar. Counts
/// correctly for valid JSON, and never runs away on anything else.
pub fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let mut in_string = false;
    let mut escaped = false;
    for &b in text {
        match b {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for ch in text.chars() {
        match ch {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if (c as u32) < 0x20 => out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes()),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_keeps_strings_and_numbers() {
        let text = "{ \"a b\" : [ 1.0 , 1e5,\n\t\"x \\\" y\\\\\" ] }";
        assert_eq!(
            compact(text),
            Bytes::from_static(br#"{"a b":[1.0,1e5,"x \" y\\"]}"#)
        );
        assert_eq!(compact(" \"\" "), Bytes::from_static(b"\"\""));
    }

    #[test]
    fn depth_ignores_brackets_in_strings() {
        assert_eq!(depth(b"1"), 0);
        assert_eq!(depth(br#"{"a":[{"b":"[[[\"[["}]}"#), 3);
        assert_eq!(depth(b"]]]["), 1);
    }

    #[test]
    fn strings_are_escaped_as_serde_reads_them() {
        let text = "a\"b\\c\n\u{1}ü\u{7f}";
        let mut out = Vec::new();
        push_string(&mut out, text);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}
