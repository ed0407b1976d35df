//! Which known word an unknown one was most likely meant to be.

/// Longer words than this are not compared: it would cost the square of their length.
const WORD_BYTES: usize = 128;

/// The known word nearest to `word`, if it is near enough to be worth a hint. Case does not count; a key's last
/// part alone finds its key.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_BYTES {
        return None;
    }
    let word = word.to_lowercase();
    let rank = |candidate: &'a str| {
        let lower = candidate.to_lowercase();
        let distance = distance(&word, &lower);
        let is_last_part = lower.strip_suffix(&word).is_some_and(|rest| rest.ends_with('.'));
        let most = lower.len().max(word.len()) / 2;
        (is_last_part || distance <= most).then_some((!is_last_part, distance, candidate))
    };
    known.filter_map(rank).min().map(|(_, _, candidate)| candidate)
}

/// Edit distance (Levenshtein) in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key::keys;

    #[test]
    fn the_nearest_key() {
        let near = |key: &str| nearest(key, keys().iter().map(|key| key.name.as_str()));
        assert_eq!(near("http.lisen"), Some("http.listen"));
        assert_eq!(near("HTTP.Listen"), Some("http.listen"));
        assert_eq!(near("http.maxBody"), Some("http.max_body"));
        assert_eq!(near("auth.jwt.secret"), Some("auth.jwt.hmac_secret"));
        assert_eq!(near("drain.time_out"), Some("drain.timeout"));
        assert_eq!(near("hmac_secret"), Some("auth.jwt.hmac_secret"));
        assert_eq!(near("q"), None);
        assert_eq!(near(&"http.listen".repeat(99)), None);
    }
}
