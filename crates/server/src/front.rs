//! Takes the connections that hold no inbox request, and serves the API on them.

use crate::config::HttpConfig;
use crate::connection::{Prefixed, serve_http1};
use crate::drain::Drain;
use crate::http2::serve_http2;
use crate::places::{Place, Places};
use crate::tasks::Tasks;
use crate::tls_stream::TlsStream;
use axum::Router;
use postrider_transports::tls::Layer;
use postrider_transports::{Link, Problem, Refer, head, response};
use std::io::{self, IoSlice, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// The kernel takes no more for a client while so many bytes have not been sent to it. An inbox that is carried over such a
/// connection counts as delivered what was taken here: without the bound that would be megabytes for one who reads nothing.
const UNSENT_BYTES: u32 = 64 * 1024;

/// Serves referred connections.
pub struct Front {
    /// Set once the hub, which the API needs, is there.
    router: OnceLock<Router>,
    /// One connection more than `http.api_connections` gets a 503, unless one rests.
    places: Arc<Places>,
    /// Of HTTP/2, which a browser keeps for its streams of events too: one more is closed, unless one rests.
    http2_places: Arc<Places>,
    idle_timeout: Duration,
    tasks: Tasks,
    drain: Drain,
}

impl Front {
    /// A front that has no API yet.
    pub fn new(tasks: Tasks, drain: Drain, http: &HttpConfig) -> Front {
        Front {
            router: OnceLock::new(),
            places: Places::new(http.api_connections),
            http2_places: Places::new(http.http2_connections),
            idle_timeout: http.idle_timeout.as_duration(),
            tasks,
            drain,
        }
    }

    /// Gives it the API. The first one stays.
    pub fn open(&self, router: Router) {
        self.router.get_or_init(|| router);
    }

    fn serve(&self, link: Link, already_read: Vec<u8>) -> io::Result<()> {
        let is_http2 = head::is_http2_preface(&already_read)
            || matches!(&link, Link::Tls(_, layer) if layer.speaks_http2());
        let places = if is_http2 {
            &self.http2_places
        } else {
            &self.places
        };
        let (Some(router), Some(place)) = (self.router.get(), places.take()) else {
            return if is_http2 { Ok(()) } else { refuse(link) };
        };
        match link {
            Link::Plain(socket) => {
                let (socket, peer) = self.adopt(socket)?;
                let io = Prefixed::new(already_read, socket);
                self.start(router.clone(), io, peer, is_http2, place);
            }
            Link::Tls(socket, layer) => {
                let (socket, peer) = self.adopt(socket)?;
                let io = TlsStream::new(socket, layer, already_read);
                self.start(router.clone(), io, peer, is_http2, place);
            }
        }
        Ok(())
    }

    fn adopt(&self, socket: TcpStream) -> io::Result<(tokio::net::TcpStream, std::net::SocketAddr)> {
        let peer = socket.peer_addr()?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        if let Err(error) = socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES) {
            tracing::debug!(%error, "the kernel cannot bound what it has not sent");
        }
        let _entered = self.tasks.runtime().enter();
        Ok((tokio::net::TcpStream::from_std(socket)?, peer))
    }

    fn start(
        &self,
        router: Router,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: std::net::SocketAddr,
        is_http2: bool,
        place: Place,
    ) {
        let (drain, tasks) = (self.drain.clone(), self.tasks.clone());
        let idle_timeout = self.idle_timeout;
        self.tasks.spawn("api connection", async move {
            if is_http2 {
                serve_http2(router, io, peer, drain, tasks, idle_timeout, place).await;
            } else {
                serve_http1(router, io, peer, drain, idle_timeout, place).await;
            }
        });
    }
}

/// Says that there is no room, as far as the socket takes it at once.
fn refuse(link: Link) -> io::Result<()> {
    let answer = response::problem(&Problem::unavailable(1), false, &[]);
    match link {
        Link::Plain(mut socket) => socket.write_all(&answer),
        Link::Tls(mut socket, mut layer) => {
            send(&mut socket, &mut layer)?;
            layer.encrypt(&[IoSlice::new(&answer)])?;
            layer.goodbye();
            send(&mut socket, &mut layer)
        }
    }
}

fn send(socket: &mut TcpStream, layer: &mut Layer) -> io::Result<()> {
    let n = layer.unsent().len();
    socket.write_all(layer.unsent())?;
    layer.sent(n);
    Ok(())
}

impl Refer for Front {
    fn refer(&self, link: Link, already_read: Vec<u8>) {
        if let Err(error) = self.serve(link, already_read) {
            tracing::debug!(%error, "a connection could not be served");
        }
    }
}
