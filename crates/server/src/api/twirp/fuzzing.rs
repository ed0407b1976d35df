//! What has to hold of messages for any bytes.

use super::draft::draft;
use super::form::{self, Form, Unknown};
use super::generated::postrider_v1 as v1;
use super::weight::{self, Budget, Unreadable};
use crate::bodies::Bodies;
use postrider_model::json;

/// Bounds that short inputs reach.
const MOST: usize = 64 * 1024;
const DEPTH: usize = 8;

/// A message of some method, as protobuf or as JSON.
///
/// What is read is written so that it reads the same; nothing takes more memory than it was weighed at; what weighing
/// finds malformed no decoder reads; a fault does not repeat the text.
pub fn twirp(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else {
        return;
    };
    let is_json = choice & 8 != 0;
    match choice % 8 {
        0 | 1 => publish(body, is_json),
        2 => batch(body, is_json),
        3 => drop(message::<v1::AckRequest>(body, is_json)),
        4 => drop(message::<v1::PatchStateRequest>(body, is_json)),
        5 => drop(message::<v1::GetStateResponse>(body, is_json)),
        6 => drop(message::<v1::PresenceResponse>(body, is_json)),
        _ => drop(message::<v1::PublishBatchResponse>(body, is_json)),
    }
}

fn publish(body: &[u8], is_json: bool) {
    let Some(request) = message::<v1::PublishRequest>(body, is_json) else {
        return;
    };
    match draft(request, DEPTH) {
        Err(fault) => assert!(fault.detail.len() < 1000),
        Ok(draft) => {
            assert!(json::depth(&draft.data) < DEPTH);
            let text = std::str::from_utf8(&draft.data).expect("data is UTF-8");
            let _: &serde_json::value::RawValue = serde_json::from_str(text).expect("data is JSON");
            assert_eq!(json::compact(text), draft.data, "compact is not compact");
            assert!(!text.contains(['\n', '\r']), "not on one line");
        }
    }
}

fn batch(body: &[u8], is_json: bool) {
    let Some(batch) = message::<v1::PublishBatchRequest>(body, is_json) else {
        return;
    };
    let taken = batch.notifications.len() * size_of::<v1::PublishRequest>();
    assert!(taken <= MOST, "{taken} bytes");
}

fn message<M: Form>(body: &[u8], is_json: bool) -> Option<M> {
    let read = match is_json {
        true => as_json(body),
        false => as_protobuf(body),
    };
    match read {
        Ok(message) => Some(message),
        Err(Unreadable::Malformed { detail, pointer }) => {
            assert!(
                !detail.is_empty() && detail.len() < 1000,
                "{} bytes",
                detail.len()
            );
            assert!(pointer.is_none_or(|pointer| pointer.len() < 1000));
            None
        }
        Err(Unreadable::TooLarge | Unreadable::NoRoom) => None,
    }
}

fn budget() -> Budget {
    Budget::new(Bodies::new(MOST).room(), MOST)
}

fn as_json<M: Form>(body: &[u8]) -> Result<M, Unreadable> {
    let message: M = form::read(body, Unknown::Refused, &mut budget())?;
    let text = form::write(&message);
    // Names may be longer than those that were read, and nothing weighs more than its bytes then.
    let again: M = form::read(&text, Unknown::Refused, &mut budget()).expect("what was written is read");
    assert_eq!(
        again.encode_to_vec(),
        message.encode_to_vec(),
        "JSON reads otherwise"
    );
    Ok(message)
}

fn as_protobuf<M: Form>(body: &[u8]) -> Result<M, Unreadable> {
    let read = weight::decode::<M>(body, &mut budget());
    if let Err(Unreadable::Malformed { detail, .. }) = &read {
        // prost does not look at the wire types of maps.
        let is_lax = detail.contains(weight::WRONG_TYPE);
        assert!(is_lax || M::decode(body).is_err(), "refused, and yet a message");
    }
    let message = read?;
    let bytes = message.encode_to_vec();
    let again = M::decode(&bytes[..]).expect("what was written is read");
    assert_eq!(again.encode_to_vec(), bytes, "protobuf reads otherwise");
    Ok(message)
}
