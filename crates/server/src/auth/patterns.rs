//! Patterns of topics: a topic's characters, and `*` for any run of them.

/// Whether some pattern matches.
pub(super) fn matches_any(patterns: &[String], topic: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| matches(pattern.as_bytes(), topic.as_bytes()))
}

/// Whether a text can be a pattern at all.
pub fn is_topic_pattern(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._:/@+~-*".contains(&b);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(known)
}

/// Goes back only to the last star, so the time is bounded by the product of the lengths.
fn matches(pattern: &[u8], topic: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < topic.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&topic[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run() {
        for (pattern, topic, expected) in [
            ("*", "news", true),
            ("news", "news", true),
            ("news", "newsletter", false),
            ("news*", "news/eu", true),
            ("*/eu", "news/eu", true),
            ("n*s/*u", "news/eu", true),
            ("n*x*", "news/eu", false),
            ("a*b*c", "aXbXbc", true),
            ("", "news", false),
            ("**", "news", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), topic.as_bytes()),
                expected,
                "{pattern} {topic}"
            );
        }
    }
}
