//! The requests a load sends, as bytes, and the tokens in them.

use crate::clock;
use anyhow::Result;
use jsonwebtoken::{Algorithm, EncodingKey, Header};

/// The secret of user tokens.
pub const SECRET: &str = "bench-secret-of-more-than-thirty-two-bytes";
/// The key that publishes.
pub const API_KEY: &str = "bench-key-0123456789abcdef0123456789abcdef";
/// How long tokens are good for. Seconds.
const TOKEN_LIFE: u64 = 3600;

/// A user's id. All have the same length.
pub fn user(index: usize) -> String {
    format!("user-{index:06}")
}

/// Tokens for the first `count` users, each signed by HS256.
pub fn tokens(count: usize) -> Result<Vec<String>> {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let exp = clock::unix_seconds() + TOKEN_LIFE;
    (0..count)
        .map(|index| {
            let claims = serde_json::json!({"sub": user(index), "exp": exp});
            Ok(jsonwebtoken::encode(
                &Header::new(Algorithm::HS256),
                &claims,
                &key,
            )?)
        })
        .collect()
}

/// `POST /v1/notifications` with a JSON body, to be sent over a connection that is kept.
pub fn publish(out: &mut Vec<u8>, body: &[u8]) {
    out.extend_from_slice(
        format!(
            "POST /v1/notifications HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {API_KEY}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .as_bytes(),
    );
    out.extend_from_slice(body);
}

/// The head of a stream of notifications; lines follow as chunks.
pub fn stream_head() -> Vec<u8> {
    format!(
        "POST /v1/notifications HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {API_KEY}\r\n\
         Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
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
pub fn poll(token: &str, query: &str) -> Vec<u8> {
    get("/v1/inbox", token, query, "")
}

/// `GET /v1/inbox/stream`.
pub fn events(token: &str) -> Vec<u8> {
    get("/v1/inbox/stream", token, "", "")
}

/// `GET /v1/inbox/ws`. The nonce is always the same, so that nothing has to be computed.
pub fn websocket(token: &str) -> Vec<u8> {
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    get("/v1/inbox/ws", token, "", upgrade)
}

fn get(path: &str, token: &str, query: &str, headers: &str) -> Vec<u8> {
    let mark = if query.is_empty() { "" } else { "?" };
    format!(
        "GET {path}{mark}{query} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n{headers}\r\n"
    )
    .into_bytes()
}
