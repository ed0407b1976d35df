//! One socket of a shard: its bytes in and out, and the stage it is in. What the bytes mean is decided in
//! [`crate::shard`] (requests) and [`crate::live`] (sessions).

use crate::addresses::{Address, Place};
use crate::connect::WireRequest;
use crate::head::MAX_HEAD;
use crate::live::{Effect, Live, Wire};
use crate::notify::Dialect;
use crate::outgoing::{Outgoing, Outlet};
use crate::shard::{Publishing, Seats};
use crate::tls::TlsSocket;
use mio::net::{TcpStream, UnixStream};
use postrider_engine::MemberWake;
use postrider_model::{Entry, Millis, Timestamp, UserState};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// A client that is told nothing for so long is asked by its TCP whether it is there; then so often, in these steps, until
/// it counts as gone.
const ASK_AFTER: Duration = Duration::from_secs(15);
const ASK_EVERY: Duration = Duration::from_secs(5);
const ASKS: u32 = 4;

/// A connection's name for those outside its loop: its slot, and which use of the slot it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub slot: usize,
    pub generation: u64,
}

/// A socket from a client, or from the API that received an inbox request on a connection of its own.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsSocket>),
    Bridged(UnixStream),
}

/// What a client sent, as it came: of a [`Socket::Tls`] ciphertext, for its layer to read.
impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.read(buffer),
            Socket::Tls(socket) => socket.tcp.read(buffer),
            Socket::Bridged(socket) => socket.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.write(bytes),
            Socket::Tls(socket) => socket.write(bytes),
            Socket::Bridged(socket) => socket.write(bytes),
        }
    }
    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.write_vectored(slices),
            Socket::Tls(socket) => socket.write_vectored(slices),
            Socket::Bridged(socket) => socket.write_vectored(slices),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Socket::Tls(socket) => socket.flush(),
            Socket::Tcp(_) | Socket::Bridged(_) => Ok(()),
        }
    }
}

impl Outlet for Socket {
    fn held(&self) -> usize {
        match self {
            Socket::Tls(socket) => socket.layer.unsent().len(),
            Socket::Tcp(_) | Socket::Bridged(_) => 0,
        }
    }
}

impl Socket {
    /// From now on [`Socket::has_reached`] can tell of this place in what is written.
    pub fn watch(&mut self, place: u64) {
        if let Socket::Tls(socket) = self {
            socket.watch(place);
        }
    }

    /// Whether the client's TCP has acknowledged everything up to a watched place, of `written` bytes. Of a bridged one
    /// only the API can be asked: whether it has taken all, which it does no faster than its client lets it.
    pub fn has_reached(&self, place: u64, written: u64) -> bool {
        let Ok(left) = postrider_outq::unacknowledged_bytes(self.as_fd()) else {
            return false;
        };
        match self {
            Socket::Tls(socket) => socket.has_reached(place, left),
            Socket::Tcp(_) => written.saturating_sub(u64::from(left)) >= place,
            // What is left is not told in bytes of the stream.
            Socket::Bridged(_) => left == 0 && written >= place,
        }
    }

    /// How long ago the client's TCP showed that it is there: now, where it has left nothing unanswered. `None` where
    /// this socket cannot know.
    pub fn last_sign(&self) -> Option<Millis> {
        if !self.is_direct() {
            return None;
        }
        let ago = postrider_outq::silent_for(self.as_fd()).ok()?;
        Some(Millis(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Has the system ask a silent client whether it is there: one who is not is found out by an error of the socket.
    pub fn keep_watch(&self) {
        if !self.is_direct() {
            return;
        }
        let asks = socket2::TcpKeepalive::new()
            .with_time(ASK_AFTER)
            .with_interval(ASK_EVERY)
            .with_retries(ASKS);
        if let Err(error) = socket2::SockRef::from(&self.as_fd()).set_tcp_keepalive(&asks) {
            tracing::debug!(%error, "a socket is not kept watch on");
        }
    }

    /// Whether its TCP is the client's own.
    pub fn is_direct(&self) -> bool {
        matches!(self, Socket::Tcp(_) | Socket::Tls(_))
    }

    /// Whether the TLS handshake is under way.
    pub fn is_handshaking(&self) -> bool {
        matches!(self, Socket::Tls(socket) if socket.layer.is_handshaking())
    }

    /// Whether the TLS handshake chose HTTP/2.
    pub fn speaks_http2(&self) -> bool {
        matches!(self, Socket::Tls(socket) if socket.layer.speaks_http2())
    }

    /// Tells the client that nothing more comes. False where that has to wait for the socket.
    pub fn shutdown_write(&mut self) -> io::Result<bool> {
        match self {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Write)?,
            Socket::Bridged(socket) => socket.shutdown(Shutdown::Write)?,
            Socket::Tls(socket) => {
                if !socket.goodbye()? {
                    return Ok(false);
                }
                socket.tcp.shutdown(Shutdown::Write)?;
            }
        }
        Ok(true)
    }

    pub fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Socket::Tcp(socket) => socket,
            Socket::Tls(socket) => &mut socket.tcp,
            Socket::Bridged(socket) => socket,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Tls(socket) => socket.tcp.as_fd(),
            Socket::Bridged(socket) => socket.as_fd(),
        }
    }
}

/// Where a connection is in its life.
pub(crate) enum Stage {
    /// Reading a request's head, complete before `deadline`.
    Head {
        buffer: Vec<u8>,
        deadline: Timestamp,
        /// The poll that was answered last: its seats and its memory are there for the next one.
        kept: Option<Box<Live>>,
    },
    /// The engine is asked where the session's feeds stand.
    Opening(Box<Opening>),
    /// A session.
    Live(Box<Live>),
    /// A publish request.
    Publishing(Box<Publishing>),
    /// Everything is said; the rest is written, then the other side closes, or `deadline` passes.
    Closing { deadline: Timestamp },
}

/// The headers that let a page read the answer.
pub(crate) type Cors = Vec<(&'static str, String)>;

/// A session about to open.
pub(crate) struct Opening {
    /// What the session machine needs of the request.
    pub asked: postrider_delivery::Opening,
    /// When its token ends, by the wall clock.
    pub expires_at: Option<Timestamp>,
    /// Whether the user's state was asked for.
    pub state: bool,
    pub wire: WireRequest,
    pub cors: Cors,
    /// What the client sent after the head.
    pub rest: Vec<u8>,
    /// What it is to hear once it is open.
    pub meanwhile: Meanwhile,
}

/// What happened while a session was opening.
#[derive(Default)]
pub(crate) struct Meanwhile {
    /// Entries that came, of any of its feeds.
    pub entries: Vec<Arc<Entry>>,
    /// Transient ones that came to a client that was told already that it is connected.
    pub transients: Vec<Arc<Entry>>,
    /// More of those came than are kept.
    pub transients_lost: u64,
    /// More came than are kept: every feed has to be looked at.
    pub more: bool,
    /// Memberships that changed.
    pub members: Vec<MemberWake>,
    /// More did than are kept, or some were lost.
    pub members_unsure: bool,
    /// The newest state map that came.
    pub state: Option<Arc<UserState>>,
    /// One may have been lost.
    pub state_unsure: bool,
}

/// Entries kept for a session that is opening, and changed memberships.
const MAX_MISSED: usize = 64;

impl Opening {
    /// What its WebSocket is to speak, if it is one.
    pub fn dialect(&self) -> Option<Dialect> {
        match self.wire {
            WireRequest::WebSocket(_, dialect) => Some(dialect),
            _ => None,
        }
    }

    /// Something happened before the session could hear it.
    pub fn missed(&mut self, effect: &Effect<'_>) {
        let is_greeted = self.dialect() == Some(Dialect::Notify);
        let meanwhile = &mut self.meanwhile;
        match effect {
            Effect::Appended(entries) if meanwhile.entries.len() + entries.len() <= MAX_MISSED => {
                meanwhile.entries.extend_from_slice(entries);
            }
            Effect::Appended(_) | Effect::Suspect | Effect::SuspectFeed(_) => meanwhile.more = true,
            Effect::Transient(entry) if is_greeted => {
                if meanwhile.transients.len() < MAX_MISSED {
                    meanwhile.transients.push(Arc::clone(entry));
                } else {
                    meanwhile.transients_lost += 1;
                }
            }
            // A transient notification is for those who are connected.
            _ => {}
        }
    }

    /// A membership of its user changed.
    pub fn member_changed(&mut self, change: &MemberWake) {
        let meanwhile = &mut self.meanwhile;
        if meanwhile.members.len() < MAX_MISSED {
            meanwhile.members.push(change.clone());
        } else {
            meanwhile.members_unsure = true;
        }
    }

    /// Its user's state map changed.
    pub fn state_changed(&mut self, state: &Arc<UserState>) {
        if self.state {
            self.meanwhile.state = Some(state.clone());
        }
    }
}

pub(crate) struct Connection {
    pub key: Key,
    pub socket: Socket,
    /// Whose it is, as limits count clients; `None` where that is not known.
    pub client: Option<Address>,
    /// While it has a session: that session's share of its client's address.
    pub place: Place,
    /// While it has a session: where it hears wide feeds.
    pub seats: Seats,
    pub out: Outgoing,
    pub stage: Stage,
    /// The socket refused bytes; it will say when it takes more.
    pub blocked: bool,
    /// The poll tells when the socket takes more: asked once it refused for the first time.
    pub watches_writes: bool,
    /// When the loop looks at it again by itself; [`Timestamp::MAX`] for never.
    pub timer: Timestamp,
    /// When the loop's wheel next says so, which is no later.
    pub armed: Timestamp,
    /// It is on the list of those to finish at the end of this turn.
    pub touched: bool,
    /// Something came while the connection was full: it is in the socket.
    pub left_unread: bool,
    /// The write side is closed.
    pub shut: bool,
    /// When the socket last took bytes.
    pub progress_at: Timestamp,
}

impl Connection {
    pub fn live(&mut self) -> Option<&mut Live> {
        match &mut self.stage {
            Stage::Live(live) => Some(live),
            _ => None,
        }
    }

    /// Writes what waits, and `tail` behind it. An error means that the connection is over.
    pub fn flush(&mut self, tail: &mut Vec<u8>, now: Timestamp) -> io::Result<()> {
        let before = self.out.written();
        self.blocked = !self.out.flush(tail, &mut self.socket)?;
        if self.out.written() != before || !self.blocked {
            self.progress_at = now;
        }
        Ok(())
    }

    /// Tells the client that this is all, once all is written; again where the socket took no more.
    pub fn end_writing(&mut self) -> io::Result<()> {
        if self.shut || self.blocked || self.out.waiting() > 0 {
            return Ok(());
        }
        self.shut = self.socket.shutdown_write()?;
        self.blocked = !self.shut;
        Ok(())
    }

    /// Whether what the client sends is left in its socket for now: an answer to it has no room.
    pub fn is_full(&self) -> bool {
        match &self.stage {
            Stage::Live(live) => live.paused || matches!(&live.wire, Wire::Poll(poll) if poll.is_ahead()),
            // Where more than a head is there, a request waits for its turn.
            Stage::Head { buffer, .. } => self.out.waiting() > 0 || buffer.len() > MAX_HEAD,
            Stage::Publishing(publishing) => publishing.is_full(),
            Stage::Opening(opening) => opening.rest.len() >= MAX_HEAD,
            Stage::Closing { .. } => false,
        }
    }
}
