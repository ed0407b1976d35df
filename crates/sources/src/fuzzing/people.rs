//! What back-ends write of users and of state maps.

use super::assert_plain_text;
use crate::InputFault;
use crate::state::{MAX_CHANGED, decode_increment, decode_merge};
use crate::users::{
    LINE_BYTES, MAX_ATTRIBUTES, MAX_TOPICS, UserDraft, UserFault, UserLine, UserReader, decode_line,
};
use bytes::Bytes;
use postrider_model::StateChange;

/// Users as NDJSON and as CSV, and the changes of a state map.
///
/// How the input is cut changes nothing; what is decoded is within its bounds; every fault is short. A line of NDJSON is
/// judged as it is alone, lines have rising numbers, and a refusal of the whole comes before any user.
pub fn users(data: &[u8]) {
    for reader in [UserReader::ndjson, UserReader::csv] {
        let whole = read(reader(), &[data]);
        let pieces: Vec<&[u8]> = data.chunks(1 + data.len() % 23).collect();
        assert_eq!(read(reader(), &pieces), whole, "in pieces");
        let octets: Vec<&[u8]> = data.chunks(1).collect();
        assert_eq!(read(reader(), &octets), whole, "octet by octet");
        match &whole {
            Ok(lines) => assert_users(lines),
            Err(fault) => assert_fault(fault),
        }
    }
    if !data.contains(&b'\n') && !data.starts_with(b"\xef\xbb\xbf") {
        let alone = decode_line(data).map_err(UserFault::from);
        let lines = read(UserReader::ndjson(), &[data]);
        let in_stream = lines.ok().and_then(|lines| lines.into_iter().next());
        assert!(in_stream.is_none_or(|line| line.user == alone), "a line alone");
    }
    for change in [decode_merge(data), decode_increment(data)] {
        match change {
            Ok(StateChange::Merge(members)) => assert!(members.len() <= MAX_CHANGED),
            Ok(StateChange::Increment(members)) => assert!(members.len() <= MAX_CHANGED),
            Ok(StateChange::Clear) => panic!("nobody asked for that"),
            Err(fault) => assert_input_fault(&fault),
        }
    }
}

fn read(mut reader: UserReader, pieces: &[&[u8]]) -> Result<Vec<UserLine>, UserFault> {
    let mut lines = Vec::new();
    for piece in pieces {
        reader.push(Bytes::copy_from_slice(piece));
        while let Some(line) = reader.take().inspect_err(|_| assert!(lines.is_empty()))? {
            lines.push(line);
        }
        assert!(
            reader.held() <= 2 * LINE_BYTES,
            "{} bytes are held",
            reader.held()
        );
    }
    reader.finish();
    while let Some(line) = reader.take()? {
        lines.push(line);
    }
    assert_eq!(reader.take()?, None, "the end is the end");
    Ok(lines)
}

fn assert_users(lines: &[UserLine]) {
    assert!(lines.windows(2).all(|two| two[0].number < two[1].number));
    for line in lines {
        assert!(line.number > 0);
        match &line.user {
            Ok(draft) => assert_draft(draft),
            Err(fault) => assert_fault(fault),
        }
    }
}

fn assert_draft(draft: &UserDraft) {
    assert!(draft.profile.attributes.len() <= MAX_ATTRIBUTES);
    assert!(draft.profile.attributes.values().all(|value| value.len() <= 1024));
    let topics = draft.topics.as_deref().unwrap_or_default();
    assert!(
        topics.len() <= MAX_TOPICS && topics.is_sorted_by(|a, b| a < b),
        "each once"
    );
    for text in [
        &draft.profile.email,
        &draft.profile.mobile,
        &draft.profile.locale,
        &draft.profile.time_zone,
    ] {
        let is_good = |text: &String| !text.is_empty() && !text.chars().any(char::is_control);
        assert!(text.as_ref().is_none_or(is_good), "{text:?}");
    }
}

fn assert_fault(UserFault { fault, column }: &UserFault) {
    assert_input_fault(fault);
    assert!(column.as_ref().is_none_or(|column| column.len() < 1000));
}

fn assert_input_fault(fault: &InputFault) {
    assert_plain_text(&fault.detail, fault.pointer.as_deref());
}
