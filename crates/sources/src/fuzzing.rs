//! What has to hold of this crate's parsers for any bytes: one function per fuzz target, which panics where it
//! does not. The targets under `fuzz/` feed them for hours, the tests with the inputs that are kept.
//!
//! No part of the interface: it is there for tests and under the feature `fuzzing`.

mod people;

pub use people::users;

use crate::http::{Body, Most, decode_body, decode_line};
use crate::{Line, Lines};
use bytes::Bytes;
use postrider_model::json;
use postrider_router::{Draft, Fault};
use serde_json::{Value, value::RawValue};

/// Bounds that short inputs reach.
const DEPTH: usize = 8;
const ARRAY: usize = 6;
const NAMES: usize = 4;
const MOST: Most = Most {
    depth: DEPTH,
    array: ARRAY,
    users: NAMES,
    exclude_users: NAMES,
    topics: NAMES,
};
const LINE: usize = 512;

/// What a publisher sends, as one object, as an array and as NDJSON.
///
/// What is decoded is within its bounds and its `data` means what was written; an item of an array is judged as
/// it is alone; how a stream of lines is cut changes nothing.
pub fn notification(data: &[u8]) {
    let whole = decode_body(data, &MOST);
    match whole {
        Ok(Body::One(draft)) => {
            assert_eq!(*draft, decode_line(data, &MOST), "a line of its own");
            assert_draft(data, &draft);
        }
        Ok(Body::Array(items)) => assert_items(data, &items.collect::<Vec<_>>()),
        Err(fault) => assert_plain(&fault),
    }
    assert_lines(data);
}

fn assert_items(data: &[u8], items: &[Result<Draft, Fault>]) {
    assert!(items.len() <= ARRAY);
    let written: Vec<&RawValue> = serde_json::from_slice(data).expect("an array is JSON");
    assert_eq!(written.len(), items.len());
    for (raw, item) in written.iter().zip(items) {
        assert_eq!(*item, decode_line(raw.get().as_bytes(), &MOST), "an item alone");
        assert_draft(raw.get().as_bytes(), item);
    }
}

fn assert_draft(text: &[u8], draft: &Result<Draft, Fault>) {
    match draft {
        Err(fault) => assert_plain(fault),
        Ok(draft) => {
            let depth = json::depth(text);
            assert!(depth <= DEPTH);
            assert!((0..=DEPTH).all(|most| json::nests_within(text, most) == (depth <= most)));
            let lists = [&draft.users, &draft.topics, &Some(draft.exclude_users.clone())];
            for list in lists.into_iter().flatten() {
                assert!(list.len() <= NAMES + 1, "one too many shows that they are");
            }
            assert!(
                !draft.data.contains(&b'\n') && !draft.data.contains(&b'\r'),
                "not on one line"
            );
            let compact = str::from_utf8(&draft.data).expect("data is UTF-8");
            assert_eq!(json::compact(compact), draft.data, "compact is not compact");
            // Half a surrogate pair is no text for serde_json, yet reaches the client as it was written.
            let given: Result<Value, _> = serde_json::from_slice(text);
            if let (Ok(given), Ok(kept)) = (given, serde_json::from_str::<Value>(compact)) {
                assert_eq!(given["data"], kept);
            }
            let mut subject = Vec::new();
            json::push_string(&mut subject, draft.subject.as_deref().unwrap_or_default());
            let read: String = serde_json::from_slice(&subject).expect("a string is JSON");
            assert_eq!(read, draft.subject.as_deref().unwrap_or_default());
        }
    }
}

/// A fault is a word to people, not a copy of what they sent.
fn assert_plain(fault: &Fault) {
    assert_plain_text(&fault.detail, fault.pointer.as_deref());
}

fn assert_plain_text(detail: &str, pointer: Option<&str>) {
    assert!(
        !detail.is_empty() && detail.len() < 1000,
        "{} bytes",
        detail.len()
    );
    assert!(pointer.is_none_or(|pointer| pointer.len() < 1000));
}

fn assert_lines(data: &[u8]) {
    let whole = split(&[data]);
    for line in &whole {
        if let Line::Whole(line) = line {
            assert!(line.len() <= LINE && !line.contains(&b'\n'));
            let fault = decode_line(line, &MOST).err();
            fault.iter().for_each(assert_plain);
        }
    }
    let pieces: Vec<&[u8]> = data.chunks(1 + data.len() % 23).collect();
    assert_eq!(split(&pieces), whole, "in pieces");
    let (one, other) = data.split_at(data.len() / 3);
    assert_eq!(split(&[one, other]), whole, "in two");
}

fn split(pieces: &[&[u8]]) -> Vec<Line> {
    let (mut lines, mut out) = (Lines::new(LINE), Vec::new());
    for piece in pieces {
        lines.push(Bytes::copy_from_slice(piece), &mut out);
    }
    lines.finish(&mut out);
    out
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::corpus;

    #[test]
    fn the_kept_inputs_hold() {
        corpus("notification", super::notification);
        corpus("users", super::users);
    }
}
