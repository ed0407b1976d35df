//! The requests a load sends, as bytes: to Postrider, and to those it is compared with.

use crate::payload::Payload;
use crate::target::{Kind, Target};

/// The channel of peers that everyone hears.
pub const EVERYONE: &str = "all";
/// What a publisher of the floor sends first; lines follow, each of them a message.
pub const FLOOR_PUBLISHER: &[u8] = b"PUBLISH\r\n\r\n";
/// The answer to the one nonce that the load uses: `websocket` always sends the same, so that nothing is computed.
pub const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// One publication as one HTTP request, to be sent over a connection that is kept.
pub fn publish(out: &mut Vec<u8>, target: &Target, body: &[u8], user: Option<&str>) {
    let (host, length) = (&target.host, body.len());
    let head = match target.kind {
        Kind::Nchan => format!(
            "POST /pub/{} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
            user.unwrap_or(EVERYONE)
        ),
        _ => format!(
            "POST /v1/notifications HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
            target.key
        ),
    };
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body);
}

/// The head of a stream of notifications; lines follow as chunks.
pub fn stream_head(target: &Target) -> Vec<u8> {
    format!(
        "POST /v1/notifications HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n",
        target.host, target.key
    )
    .into_bytes()
}

/// Some lines as one chunk.
pub fn push_chunk(out: &mut Vec<u8>, lines: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", lines.len()).as_bytes());
    out.extend_from_slice(lines);
    out.extend_from_slice(b"\r\n");
}

/// Ends a stream.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// `GET /v1/inbox`.
pub fn poll(target: &Target, token: &str, query: &str) -> Vec<u8> {
    get(target, "/v1/inbox", token, query, "")
}

/// `GET /v1/inbox/stream`.
pub fn events(target: &Target, token: &str, query: &str) -> Vec<u8> {
    get(target, "/v1/inbox/stream", token, query, "")
}

/// `GET /v1/inbox/ws`.
pub fn websocket(target: &Target, token: &str, query: &str) -> Vec<u8> {
    get(target, "/v1/inbox/ws", token, query, UPGRADE)
}

/// A WebSocket of a server that has no tokens.
pub fn plain_websocket(target: &Target, path: &str) -> Vec<u8> {
    plain_get(target, path, UPGRADE)
}

/// A request to a server that has no tokens.
pub fn plain_get(target: &Target, path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", target.host).into_bytes()
}

fn get(target: &Target, path: &str, token: &str, query: &str, headers: &str) -> Vec<u8> {
    let mark = if query.is_empty() { "" } else { "?" };
    format!(
        "GET {path}{mark}{query} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n{headers}\r\n",
        target.host
    )
    .into_bytes()
}

/// A message for the floor, as a line: of the size that the product would send for the same publication, and before
/// it, for one user alone, who that is.
pub fn push_floor_line(out: &mut Vec<u8>, payload: &Payload, user: Option<usize>, number: u64) {
    if let Some(user) = user {
        out.extend_from_slice(format!("@{user} ").as_bytes());
    }
    out.extend_from_slice(br#"{"type":"notification","id":"01234567-89ab-7def-8123-456789abcdef","time":"2026-01-01T00:00:00.000Z","#);
    payload.push_data(out, number);
    out.extend_from_slice(b"}\n");
}

/// A message for the channel of a user, or everyone, in nats-server's protocol.
pub fn push_nats(out: &mut Vec<u8>, body: &[u8], user: Option<&str>) {
    let subject = user.unwrap_or(EVERYONE);
    out.extend_from_slice(format!("PUB {subject} {}\r\n", body.len()).as_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(b"\r\n");
}

/// A text of a client's WebSocket, or a binary message. Masked by zeros, which is a mask.
pub fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => frame.push(0x80 | short as u8),
        // Nothing that a load says is longer than that.
        other => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&other.unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}
