//! An inbox request that comes on a connection of the API, after other requests, is carried to the hub over
//! a pair of local sockets, and the hub's answer back. The hub sees a connection like any other.
//!
//! Invariant: what waits between the two is bounded by the sockets' and hyper's own buffers, and the answers of polls,
//! which wait in the hub, by [`UNTAKEN_BYTES`] together; when either end goes, the other is closed. An answer that has
//! room of those goes when its client has taken nothing of it for [`UNTAKEN_TIMEOUT`].

use crate::api::Api;
use crate::api::Refusal;
use crate::bodies::{Bodies, FREE_BYTES, Room};
use crate::patience::Patient;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Body as _;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use postrider_transports::{Address, BRIDGED_POLL_BYTES, Problem};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

/// Requests carried at a time, each by two open files; one more gets a 503. A client of HTTP/2 that takes no
/// answers holds as many as it has streams.
const MAX_CARRIED: usize = 8192;
static PLACES: Semaphore = Semaphore::const_new(MAX_CARRIED);
/// Bytes that hyper may hold of an answer.
const ANSWER_BYTES: usize = 64 * 1024;

/// Bytes of polls' answers that their clients have not taken yet, of all together and of one connection of HTTP/2,
/// less the first 64 KiB of each: only one with a large entry has more. A poll whose answer needs more than is left is
/// answered 503. Nothing of it is settled, so the next poll gets what is stored; but the hub has counted it as sent, and
/// an attempt of each entry that its client would have to acknowledge.
const UNTAKEN_BYTES: usize = 256 << 20;
const UNTAKEN_OF_CONNECTION: usize = 8 << 20;
/// A client that takes nothing of such an answer for so long gets no more of it.
const UNTAKEN_TIMEOUT: Duration = Duration::from_secs(60);
static UNTAKEN: LazyLock<Arc<Bodies>> = LazyLock::new(|| Bodies::new(UNTAKEN_BYTES));
// Before its last entry an answer takes half of what is free.
const _: () = assert!(BRIDGED_POLL_BYTES * 2 <= FREE_BYTES);

/// What one connection of HTTP/2 has not taken; an extension of its requests.
#[derive(Clone)]
pub(crate) struct Untaken(Arc<Bodies>);

impl Untaken {
    /// Of a new connection.
    pub fn new() -> Untaken {
        Untaken(Bodies::new(UNTAKEN_OF_CONNECTION))
    }
}

/// Room for an answer of so many bytes, of the connection's and of all; `None` where there is not enough.
fn room(bytes: usize, connection: Option<&Untaken>, all: &Arc<Bodies>) -> Option<[Option<Room>; 2]> {
    let of = |bodies: &Arc<Bodies>| {
        let mut room = bodies.room();
        room.hold(bytes).then_some(room)
    };
    let own = match connection {
        Some(Untaken(bodies)) => Some(of(bodies)?),
        None => None,
    };
    Some([own, Some(of(all)?)])
}

/// The headers that a session's request needs.
const CARRIED: [HeaderName; 13] = [
    header::HOST,
    header::AUTHORIZATION,
    header::COOKIE,
    header::ORIGIN,
    header::ACCEPT,
    HeaderName::from_static("sec-fetch-site"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("trace-id"),
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
];
/// Headers of one connection, which say nothing about the next (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 2] = [header::CONNECTION, header::TRANSFER_ENCODING];

/// Where connections for the hub go.
pub trait Bridge: Send + Sync {
    /// Takes a connection, as if it had been accepted.
    fn adopt(&self, socket: UnixStream, client: Option<Address>, already_read: Vec<u8>);
}

/// Carries one request over, without a body.
pub(crate) async fn carry(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Refusal> {
    carry_with(api, request, Bytes::new()).await
}

/// Carries one request over, with the body that was read of it.
pub(crate) async fn carry_with(
    api: Arc<Api>,
    mut request: Request,
    body: Bytes,
) -> Result<Response, Refusal> {
    if request.method() != Method::GET {
        return Err(Problem::method_not_allowed("GET").into());
    }
    let (mut sender, theirs) = connect(&api).await.map_err(|error| {
        tracing::debug!(%error, "no way to the hub");
        Problem::unavailable(1)
    })?;
    let client = request.extensions().get::<Address>().copied();
    api.bridge.adopt(theirs, client, Vec::new());
    let carried = carried(&request, body)
        .map_err(|_| Problem::invalid_request("The request's target cannot be read."))?;
    let wants_upgrade = carried.headers().contains_key(header::UPGRADE);
    let mut answer = sender.send_request(carried).await.map_err(|error| {
        tracing::debug!(%error, "the hub gave no answer");
        Problem::unavailable(1)
    })?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS && wants_upgrade {
        let (here, there) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
        api.tasks.spawn("bridge websocket", async move {
            if let (Ok(here), Ok(there)) = tokio::join!(here, there) {
                copy_both(TokioIo::new(here), TokioIo::new(there)).await;
            }
        });
    } else {
        for name in HOP_BY_HOP {
            answer.headers_mut().remove(name);
        }
        if request.version() == Version::HTTP_2 {
            // It has no upgrades: the problem document says what to do.
            answer.headers_mut().remove(header::UPGRADE);
        }
    }
    // Whole answers only: a stream of events is bounded by its session's outbox.
    let bytes = usize::try_from(answer.body().size_hint().exact().unwrap_or(0)).unwrap_or(usize::MAX);
    let room = room(bytes, request.extensions().get(), &UNTAKEN).ok_or_else(|| Problem::unavailable(1))?;
    if bytes <= FREE_BYTES {
        return Ok(answer.map(Body::new));
    }
    Ok(answer.map(|body| {
        let (body, watch) = Patient::new(body, room, UNTAKEN_TIMEOUT);
        api.tasks.spawn("bridged answer", watch);
        Body::new(body)
    }))
}

/// Copies both ways until one of them ends; a WebSocket has no use for half a connection.
async fn copy_both(here: TokioIo<Upgraded>, there: TokioIo<Upgraded>) {
    let (mut from_here, mut to_here) = tokio::io::split(here);
    let (mut from_there, mut to_there) = tokio::io::split(there);
    let copied = tokio::select! {
        copied = tokio::io::copy(&mut from_here, &mut to_there) => copied,
        copied = tokio::io::copy(&mut from_there, &mut to_here) => copied,
    };
    if let Err(error) = copied.and(to_here.shutdown().await) {
        tracing::debug!(%error, "a carried WebSocket ended");
    }
}

/// A connection for one request, and the end that the hub gets.
async fn connect(
    api: &Api,
) -> Result<(http1::SendRequest<Body>, UnixStream), Box<dyn std::error::Error + Send + Sync>> {
    let place = PLACES.try_acquire()?;
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let ours = tokio::net::UnixStream::from_std(ours)?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(ANSWER_BYTES);
    let (sender, connection) = builder.handshake(TokioIo::new(ours)).await?;
    api.tasks.spawn("bridge", async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a carried request ended");
        }
        drop(place);
    });
    Ok((sender, theirs))
}

fn carried(request: &Request, body: Bytes) -> Result<hyper::Request<Body>, axum::http::Error> {
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str());
    // What a body is, is said with a body alone; its length is that of the bytes.
    let of_body = (!body.is_empty()).then_some(header::CONTENT_TYPE);
    let mut carried = hyper::Request::get(target).body(Body::from(body))?;
    let given: &HeaderMap = request.headers();
    for name in CARRIED.into_iter().chain(of_body) {
        for value in given.get_all(&name) {
            carried.headers_mut().append(name.clone(), value.clone());
        }
    }
    let connection = if given.contains_key(header::UPGRADE) {
        "Upgrade"
    } else {
        "close"
    };
    carried
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static(connection));
    Ok(carried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_is_bounded_for_a_connection_and_for_all() {
        let all = Bodies::new(UNTAKEN_OF_CONNECTION + 100);
        let (one, other) = (Untaken::new(), Untaken::new());
        let most = FREE_BYTES + UNTAKEN_OF_CONNECTION;
        let held = room(most, Some(&one), &all).unwrap();
        assert!(
            room(FREE_BYTES + 1, Some(&one), &all).is_none(),
            "of the connection"
        );
        assert!(room(FREE_BYTES, Some(&one), &all).is_some());
        assert!(room(FREE_BYTES + 101, Some(&other), &all).is_none(), "of all");
        let last = room(FREE_BYTES + 100, Some(&other), &all).unwrap();
        assert!(room(FREE_BYTES + 1, None, &all).is_none());
        drop((held, last));
        assert!(
            room(most, Some(&one), &all).is_some(),
            "what was refused took nothing"
        );
        assert!(room(most + 100, None, &all).is_some());
    }
}
