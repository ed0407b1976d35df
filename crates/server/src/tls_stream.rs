//! A connection with TLS as hyper reads and writes it, taken over from a shard at any point.
//!
//! Invariant: a write is taken only once the ciphertext of the one before is with the kernel, so what waits here
//! is bounded by [`MAX_UNSENT`](postrider_transports::tls::MAX_UNSENT). An end without a goodbye counts as an end: what HTTP sends tells by itself
//! whether it is whole.

use postrider_transports::tls::Layer;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Ciphertext read at once: a record and its frame.
const READ_BYTES: usize = 17 << 10;

/// A socket, its TLS, and what was read and not yet asked for.
pub struct TlsStream {
    socket: TcpStream,
    layer: Box<Layer>,
    plain: Vec<u8>,
    given: usize,
}

impl TlsStream {
    /// Goes on where someone else stopped; `plain` was read already.
    pub fn new(socket: TcpStream, layer: Box<Layer>, plain: Vec<u8>) -> TlsStream {
        TlsStream {
            socket,
            layer,
            plain,
            given: 0,
        }
    }

    /// Gives the kernel what waits.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.layer.unsent().is_empty() {
            let n = ready!(Pin::new(&mut self.socket).poll_write(cx, self.layer.unsent()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.layer.sent(n);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once from the socket. False at its end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.layer.has_ended() {
            return Poll::Ready(Ok(false));
        }
        let mut space = [0; READ_BYTES];
        let mut read = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Ok(false));
        }
        let heard = self.layer.receive(read.filled_mut(), &mut self.plain);
        // The protocol's own answers, an alert among them. What does not fit goes with the next write.
        if let Poll::Ready(Err(error)) = self.poll_unsent(cx) {
            return Poll::Ready(Err(error));
        }
        heard?;
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.given == self.plain.len() {
            self.plain = Vec::new();
            self.given = 0;
            if !ready!(self.poll_more(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
        let left = &self.plain[self.given..];
        let n = left.len().min(buf.remaining());
        buf.put_slice(&left[..n]);
        self.given += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        let taken = self.layer.encrypt(slices)?;
        match self.poll_unsent(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.layer.goodbye();
        ready!(self.poll_unsent(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
