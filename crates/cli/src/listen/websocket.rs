//! A WebSocket.

use super::event::Event;
use super::wires::{Coming, Ended, Taken, Wanted, Wire, again};
use crate::client::{UrlArg, refusal};
use crate::exit::Failure;
use crate::term::plain;
use anyhow::{Context as _, anyhow};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;
use tungstenite::handshake::HandshakeError;
use tungstenite::handshake::client::generate_key;
use tungstenite::http::Request;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, Message, WebSocket};

const CONNECT: Duration = Duration::from_secs(10);
/// A socket that is silent for so long is gone: the node pings more often.
const SILENCE: Duration = Duration::from_secs(60);
/// Close codes from here on say: do not come back as you are.
const FINAL: std::ops::Range<u16> = 4500..5000;

/// The wire.
#[derive(Default)]
pub struct Ws;

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl Wire for Ws {
    fn follow(
        &mut self,
        wanted: &Wanted,
        cursor: Option<&str>,
        hand: &mut dyn FnMut(Coming) -> Taken,
    ) -> Result<Ended, Failure> {
        let place = Place::of(&wanted.url)?;
        let refused = |why: String| Ended::Refused { why, retry_ms: None };
        let stream = match place.connect(&wanted.url)? {
            Ok(stream) => stream,
            Err(why) => return Ok(refused(why)),
        };
        let request = request(&place, wanted, cursor)?;
        let mut socket = match tungstenite::client::client(request, stream) {
            Ok((socket, _)) => socket,
            Err(HandshakeError::Failure(Error::Http(answer))) => return no_upgrade(&answer),
            Err(error) => return Ok(refused(format!("no WebSocket: {error}"))),
        };
        if hand(Coming::Connected) == Taken::Enough {
            return Ok(Ended::Enough);
        }
        loop {
            match socket.read() {
                Ok(Message::Text(frame)) => {
                    let Some(coming) = understood(frame.as_str()) else {
                        continue;
                    };
                    if hand(coming) == Taken::Enough {
                        return Ok(Ended::Enough);
                    }
                }
                Ok(Message::Close(frame)) => return closed(&mut socket, frame),
                Ok(_) => {}
                Err(error) => {
                    let why = format!("the connection broke: {error}");
                    return Ok(Ended::Broke { why, retry_ms: None });
                }
            }
        }
    }
}

/// What a frame says that anybody wants to know.
fn understood(frame: &str) -> Option<Coming> {
    let event = Event::from_frame(frame)?;
    match event.name.as_str() {
        "hello" => None,
        "cursor" => {
            let data: Value = serde_json::from_str(&event.data).ok()?;
            Some(Coming::Cursor(data["cursor"].as_str()?.to_owned()))
        }
        _ => Some(Coming::Event(event)),
    }
}

/// The answer's problem, where the node did not upgrade.
fn no_upgrade(answer: &tungstenite::http::Response<Option<Vec<u8>>>) -> Result<Ended, Failure> {
    let body = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
    let retry_after = answer.headers().get("retry-after");
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    let refused = refusal(answer.status().as_u16(), &body, retry_after);
    again(&refused).ok_or_else(|| refused.into())
}

/// What the node said as it closed.
fn closed(socket: &mut WebSocket<Box<dyn Stream>>, frame: Option<CloseFrame>) -> Result<Ended, Failure> {
    // The answering close frame is a courtesy: the node ends the connection in any case.
    drop(socket.flush());
    match frame {
        Some(frame) => judged(frame.code.into(), &frame.reason),
        None => judged(1005, "without a word"),
    }
}

/// Whether to come back, by the range of the code.
fn judged(code: u16, reason: &str) -> Result<Ended, Failure> {
    let said: Value = serde_json::from_str(reason).unwrap_or_default();
    let word = said["code"].as_str().unwrap_or(reason);
    let why = format!("the node closed with {code} {}", plain(word));
    if FINAL.contains(&code) {
        return Err(anyhow!("{why}: it will not have this client back as it is").into());
    }
    Ok(Ended::Broke {
        why,
        retry_ms: said["retry_ms"].as_u64(),
    })
}

fn request(place: &Place, wanted: &Wanted, cursor: Option<&str>) -> Result<Request<()>, Failure> {
    let query = wanted.query(cursor);
    let query: Vec<_> = query
        .iter()
        .map(|(name, value)| format!("{name}={}", crate::client::segment(value)))
        .collect();
    let scheme = if place.is_tls { "wss" } else { "ws" };
    let uri = format!(
        "{scheme}://{}{}/v1/inbox/ws?{}",
        place.authority,
        place.prefix,
        query.join("&")
    );
    Ok(Request::builder()
        .uri(uri)
        .header("Host", &place.authority)
        .header("Authorization", &wanted.bearer)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .header("Sec-WebSocket-Protocol", "postrider.v1")
        .body(())
        .context("the request for a WebSocket")?)
}

/// Where the node is, in parts.
struct Place {
    is_tls: bool,
    authority: String,
    host: String,
    port: u16,
    prefix: String,
}

impl Place {
    fn of(url: &UrlArg) -> Result<Place, Failure> {
        let uri: ureq::http::Uri = url.join("")?.parse().context("--url")?;
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let prefix = uri.path().trim_end_matches('/').to_owned();
        let with_port = uri.port_u16().map_or(String::new(), |port| format!(":{port}"));
        Ok(Place {
            is_tls,
            authority: format!("{host}{with_port}"),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            prefix,
        })
    }

    /// A connection; or why there is none now.
    fn connect(&self, url: &UrlArg) -> Result<Result<Box<dyn Stream>, String>, Failure> {
        let stream = match self.dial() {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(format!("{}: {error}", self.authority))),
        };
        if !self.is_tls {
            return Ok(Ok(Box::new(stream)));
        }
        let name = ServerName::try_from(self.host.clone()).context("--url: no name for TLS")?;
        let connection = ClientConnection::new(tls(url)?, name).context("TLS")?;
        Ok(Ok(Box::new(StreamOwned::new(connection, stream))))
    }

    fn dial(&self) -> std::io::Result<TcpStream> {
        let mut last = std::io::Error::other("the name has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(SILENCE))?;
                    stream.set_write_timeout(Some(CONNECT))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn tls(url: &UrlArg) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    match url.roots()? {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(own) => {
            for certificate in own {
                let certificate = CertificateDer::from(certificate.der().to_vec());
                roots
                    .add(certificate)
                    .map_err(|error| Failure::usage(format!("--ca: {error}")))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_say_whether_to_come_back() {
        for (code, reason, wanted) in [
            (4000, r#"{"code":"drain","retry_ms":1234}"#, Some(1234)),
            (4001, r#"{"code":"token_expired"}"#, None),
            (1011, "oops", None),
            (1005, "without a word", None),
        ] {
            let Ok(Ended::Broke { why, retry_ms }) = judged(code, reason) else {
                panic!("{code} ended it");
            };
            assert_eq!(retry_ms, wanted);
            assert!(why.contains(&code.to_string()), "{why}");
        }
        for code in [4500, 4501, 4999] {
            let failure = judged(code, r#"{"code":"protocol"}"#).unwrap_err();
            assert!(
                failure.to_string().contains(&format!("{code} protocol")),
                "{failure}"
            );
        }
    }

    #[test]
    fn frames_are_understood() {
        assert!(understood(r#"{"type":"hello","session":"s"}"#).is_none());
        let cursor = understood(r#"{"type":"cursor","cursor":"AQ"}"#);
        assert!(matches!(cursor, Some(Coming::Cursor(cursor)) if cursor == "AQ"));
        assert!(matches!(
            understood(r#"{"type":"read","ids":[]}"#),
            Some(Coming::Event(_))
        ));
        assert!(understood("no JSON").is_none());
    }
}
