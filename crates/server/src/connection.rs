//! Serves HTTP/1.1 on one connection, beginning with bytes that someone else has read already. Each request carries
//! the client's [`Address`] as an extension.

use crate::drain::Drain;
use crate::places::{Held, Place};
use axum::Router;
use bytes::{Buf as _, Bytes};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use postrider_transports::Address;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that one connection may buffer, each way; also the longest head.
const BUFFER_BYTES: usize = 64 * 1024;

/// How long a client that was told to leave may take to read the rest of its last answer: so many looks, so far apart.
/// One that has it all is closed at once.
const GOODBYE_LOOKS: u32 = 3;
const GOODBYE_LOOK: Duration = Duration::from_secs(10);

/// Serves requests until the client leaves, or the node drains and the one under way is answered, or somebody else
/// needs its place while it rests. A request's head must come within `idle_timeout`; a kept connection may rest as long.
pub async fn serve_http1(
    router: Router,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    drain: Drain,
    idle_timeout: Duration,
    place: Place,
) {
    let (routes, requests) = (TowerToHyperService::new(router), place.counter());
    let client = Address::from(peer.ip());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(client);
        let under_way = requests.begin();
        let answer = routes.call(request);
        async move {
            let answer = answer.await;
            answer.map(|answer| answer.map(|body| Held::new(body, under_way)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle_timeout)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = drain.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = place.unwanted() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                served = connection => served,
                () = resting(&place) => Ok(()),
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "a connection ended");
    }
}

/// Returns when the connection has rested for a while. A request may have come when it was told to leave: from its end
/// on, two looks at least.
async fn resting(place: &Place) {
    let mut looks = GOODBYE_LOOKS;
    while looks > 0 {
        tokio::time::sleep(GOODBYE_LOOK).await;
        looks = if place.is_busy() { GOODBYE_LOOKS } else { looks - 1 };
    }
}

/// A socket, before which stand the bytes that were read from it before.
pub struct Prefixed {
    prefix: Bytes,
    socket: TcpStream,
}

impl Prefixed {
    /// `prefix` first, then what the socket gives.
    pub fn new(prefix: Vec<u8>, socket: TcpStream) -> Prefixed {
        Prefixed {
            prefix: prefix.into(),
            socket,
        }
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        let n = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..n]);
        self.prefix.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
