//! Reads a body that has to be whole, within its bounds.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use postrider_transports::Problem;
use std::time::Duration;

/// A client that sends nothing for so long is not waited for.
const GAP: Duration = Duration::from_secs(30);
/// What of a body that is too large is read and thrown away, so that a client that writes first and reads
/// then gets the answer rather than a reset.
const DISCARDED_BYTES: u64 = 64 << 20;
/// For how long.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// The body, if it has at most `most` bytes. A declared length is judged before anything is read.
pub async fn read_whole(headers: &HeaderMap, mut body: Body, most: usize) -> Result<Bytes, Problem> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if let Some(declared) = declared.filter(|n| *n > most as u64) {
        // A client that waits for `100 Continue` has sent nothing yet, and need not.
        if !headers.contains_key(header::EXPECT) && declared <= DISCARDED_BYTES {
            discard(&mut body).await;
        }
        return Err(too_large(most));
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = tokio::time::timeout(GAP, body.frame())
        .await
        .map_err(|_| stopped())?
    {
        let Ok(data) = frame.map_err(|_| cut())?.into_data() else {
            continue;
        };
        if whole.len() + data.len() > most {
            discard(&mut body).await;
            return Err(too_large(most));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Which of these types the body has. `None` where none is named: then it is taken as the first.
pub fn media_type(headers: &HeaderMap, types: &[&'static str]) -> Result<Option<&'static str>, Problem> {
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    let (first, second) = (given.next(), given.next());
    let Some(first) = first else {
        return Ok(None);
    };
    let essence = first
        .to_str()
        .ok()
        .and_then(|value| value.split(';').next())
        .unwrap_or("")
        .trim();
    let known = types.iter().find(|name| essence.eq_ignore_ascii_case(name));
    match known {
        Some(name) if second.is_none() => Ok(Some(name)),
        _ => Err(Problem::unsupported_media_type(&types.join(", "))),
    }
}

async fn discard(body: &mut Body) {
    let mut left = DISCARDED_BYTES;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
            if left == 0 {
                break;
            }
        }
    };
    if tokio::time::timeout(DISCARD_TIME, reading).await.is_err() {
        tracing::debug!("a body that is too large did not end in time");
    }
}

fn too_large(most: usize) -> Problem {
    Problem::too_large(
        format!("The body is larger than {most} bytes. Send less, or NDJSON."),
        None,
    )
}

fn stopped() -> Problem {
    Problem {
        detail: "The body did not arrive in time. Send it again, without pauses.".into(),
        ..Problem::head_timeout()
    }
}

fn cut() -> Problem {
    Problem::invalid_request("The body ended early, or its transfer coding is wrong. Send it again.")
}
