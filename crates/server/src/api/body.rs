//! Reads a body that has to be whole, within its bounds: its own length, the room of all bodies, and a pace.

use super::Api;
use crate::bodies::Room;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use postrider_transports::Problem;
use std::pin::pin;
use std::time::Duration;

/// A client that sends nothing for so long is not waited for.
const GAP: Duration = Duration::from_secs(30);
/// What a byte that came adds to the time that the whole may take, beside one gap: 32 KiB a second. So whoever sends
/// byte by byte does not hold a connection, and the room of what it sent, for as long as it likes.
const TIME_PER_BYTE: Duration = Duration::from_nanos(30_517);
/// What of a body that is too large is read and thrown away, so that a client that writes first and reads
/// then gets the answer rather than a reset.
const DISCARDED_BYTES: u64 = 64 << 20;
/// For how long.
const DISCARD_TIME: Duration = Duration::from_secs(5);
/// When a client for whose body there is no room may try again.
const RETRY_AFTER_S: u32 = 1;

/// How large a body may be.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Bytes.
    pub bytes: usize,
    /// What to do where that is not enough, as a sentence.
    pub otherwise: &'static str,
}

impl Most {
    /// So many bytes; whoever has more can only send less.
    pub fn bytes(bytes: usize) -> Most {
        Most {
            bytes,
            otherwise: "Send less.",
        }
    }

    /// What a body is told that is larger.
    pub fn problem(self) -> Problem {
        let Most { bytes, otherwise } = self;
        Problem::too_large(
            format!("The body is larger than {bytes} bytes. {otherwise}"),
            None,
        )
    }
}

/// The body, if it has at most `most`. A declared length is judged before anything is read. The bytes keep
/// their room until the last of them is dropped.
pub async fn read_whole(
    api: &Api,
    headers: &HeaderMap,
    mut body: Body,
    most: Most,
) -> Result<Bytes, Problem> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if let Some(declared) = declared.filter(|n| *n > most.bytes as u64) {
        // A client that waits for `100 Continue` has sent nothing yet, and need not.
        if !headers.contains_key(header::EXPECT) && declared <= DISCARDED_BYTES {
            discard(&mut body).await;
        }
        return Err(most.problem());
    }
    let mut whole = Whole {
        bytes: BytesMut::new(),
        room: api.bodies.room(),
    };
    let mut patience = pin!(tokio::time::sleep(GAP));
    loop {
        let frame = tokio::select! {
            biased;
            frame = tokio::time::timeout(GAP, body.frame()) => frame.map_err(|_| stopped())?,
            () = patience.as_mut() => return Err(stopped()),
        };
        let Some(frame) = frame else {
            return Ok(whole.finish());
        };
        let Ok(data) = frame.map_err(|_| cut())?.into_data() else {
            continue;
        };
        let has = whole.bytes.len() + data.len();
        let refusal = match () {
            () if has > most.bytes => Some(most.problem()),
            () if !whole.take(&data, most.bytes) => Some(Problem::unavailable(RETRY_AFTER_S)),
            () => None,
        };
        if let Some(refusal) = refusal {
            drop(whole);
            discard(&mut body).await;
            return Err(refusal);
        }
        let longer = TIME_PER_BYTE.saturating_mul(u32::try_from(data.len()).unwrap_or(u32::MAX));
        let until = patience.deadline() + longer;
        patience.as_mut().reset(until);
    }
}

/// What has come of a body, and its room.
struct Whole {
    bytes: BytesMut,
    room: Room,
}

impl Whole {
    /// Takes a piece; false where there is no room for it.
    fn take(&mut self, piece: &[u8], most: usize) -> bool {
        let has = self.bytes.len() + piece.len();
        if has > self.bytes.capacity() {
            let next = has.max(self.bytes.capacity() * 2).min(most);
            if !self.room.hold(next) {
                return false;
            }
            self.bytes.reserve(next - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        true
    }

    fn finish(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Which of these types the body has. `None` where none is named: then it is taken as the first. A body that is
/// compressed, or coded in another way, has none of them.
pub fn media_type(headers: &HeaderMap, types: &[&'static str]) -> Result<Option<&'static str>, Problem> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(coded());
    }
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

/// Reads a body that is refused, for a while, and throws it away.
pub async fn discard(body: &mut Body) {
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

/// The body would have to be decoded.
fn coded() -> Problem {
    Problem {
        detail: "The body's Content-Encoding is not read here. Send the body without one.".into(),
        ..Problem::unsupported_media_type("")
    }
}

fn stopped() -> Problem {
    Problem {
        detail: "The body did not arrive in time. Send it again, without pauses.".into(),
        ..Problem::head_timeout()
    }
}

/// The body broke off.
pub fn cut() -> Problem {
    Problem::invalid_request("The body ended early, or its transfer coding is wrong. Send it again.")
}
