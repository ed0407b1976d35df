//! Serves HTTP/2 on one connection: the API, and inboxes through the [bridge](crate::bridge).
//!
//! Invariant: what one client can make the node hold is bounded by the constants below. A request reaches the
//! routes as if it had come by HTTP/1.1: with a `Host`, one `Cookie`, and the client's [`Address`].
//!
//! It has no WebSockets (RFC 8441): a client opens them on a connection of HTTP/1.1.

use crate::bridge::Untaken;
use crate::drain::Drain;
use crate::places::{Held, Place};
use crate::tasks::Tasks;
use axum::Router;
use axum::http::{HeaderMap, HeaderValue, header};
use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use postrider_transports::Address;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// Requests of one connection at a time, streams of events among them; the client holds more back.
const STREAMS: u32 = 100;
/// Streams that a client may reset before they were looked at, and that may end by the client's own faults;
/// one more ends the connection (CVE-2023-44487, CVE-2025-8671).
const RESETS_PENDING: usize = 20;
const RESETS_BY_FAULT: usize = 100;
/// Names and values of one request's headers, as for HTTP/1.1.
const HEADER_BYTES: u32 = 16 * 1024;
/// Bytes of bodies that may be on their way unread: of one request, and of all of the connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one answer that wait for the client.
const SEND_BUFFER: usize = 64 * 1024;
/// A client that is silent this long is asked whether it is there, and has as long to answer as follows.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client that has nothing under way may take to end its connection after it was told to.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves requests until the client leaves, has none for a while or while somebody else needs its place, or the node
/// drains and those under way are answered.
pub async fn serve_http2(
    router: Router,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    drain: Drain,
    tasks: Tasks,
    idle_timeout: Duration,
    place: Place,
) {
    let requests = place.counter();
    place.rest();
    let (under_way, mut watched) = watch::channel(0usize);
    let routes = TowerToHyperService::new(router);
    let (client, untaken) = (Address::from(peer.ip()), Untaken::new());
    let service = service_fn(move |mut request: Request<Incoming>| {
        as_http1(&mut request);
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(untaken.clone());
        let counted = (Counted::new(&under_way), requests.begin());
        let answer = routes.call(request);
        async move {
            let answer = answer.await;
            answer.map(|answer| answer.map(|body| Held::new(body, counted)))
        }
    });
    let connection = http2::Builder::new(Streams(tasks))
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESETS_PENDING)
        .max_local_error_reset_streams(RESETS_BY_FAULT)
        .max_header_list_size(HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = async {
            tokio::select! {
                () = drain.begun() => {}
                () = idle(&mut watched, idle_timeout) => {}
                () = place.unwanted() => {}
            }
        } => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                served = connection => served,
                // Nothing is under way, and the client was told: it need not agree.
                () = idle(&mut watched, GOODBYE) => Ok(()),
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "a connection of HTTP/2 ended");
    }
}

/// Returns when nothing was under way, and nothing was asked, for so long.
async fn idle(under_way: &mut watch::Receiver<usize>, timeout: Duration) {
    loop {
        let none = under_way.wait_for(|count| *count == 0).await.map(|_| ());
        let ended = none.is_err();
        if ended || tokio::time::timeout(timeout, under_way.changed()).await.is_err() {
            return;
        }
    }
}

/// Where HTTP/2 says a thing in another way, as HTTP/1.1 says it (RFC 9113, 8.2.3 and 8.3.1).
fn as_http1(request: &mut Request<Incoming>) {
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str().to_owned());
    let headers = request.headers_mut();
    if let Some(host) = authority.and_then(|authority| HeaderValue::try_from(authority).ok()) {
        headers.insert(header::HOST, host);
    }
    join_cookies(headers);
}

fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() < 2 {
        return;
    }
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

/// Starts what hyper runs for each stream, where it is counted.
#[derive(Clone)]
struct Streams(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.spawn("http2 stream", stream);
    }
}

/// One request under way, until its answer has gone.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(under_way: &watch::Sender<usize>) -> Counted {
        under_way.send_modify(|count| *count += 1);
        Counted(under_way.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_become_one_cookie() {
        let mut headers = HeaderMap::new();
        join_cookies(&mut headers);
        assert!(headers.is_empty());
        for crumb in ["a=1", "b=2; c=3", "d=4"] {
            headers.append(header::COOKIE, HeaderValue::from_static(crumb));
        }
        join_cookies(&mut headers);
        let cookies: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3; d=4"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_once_nothing_was_asked_for_a_while() {
        let (under_way, mut watched) = watch::channel(0usize);
        let counted = Counted::new(&under_way);
        let timeout = Duration::from_secs(75);
        let long = timeout * 10;
        assert!(
            tokio::time::timeout(long, idle(&mut watched, timeout))
                .await
                .is_err()
        );
        drop(counted);
        let soon = timeout + Duration::from_secs(1);
        assert!(
            tokio::time::timeout(soon, idle(&mut watched, timeout))
                .await
                .is_ok()
        );
    }
}
