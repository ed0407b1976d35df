//! What is to be written to one socket: shared slices in order, and a turn's last words behind them. Nothing is held
//! at rest, and what the socket takes at once is never queued.

use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

/// Slices given to the kernel in one send.
const MAX_SLICES: usize = 64;
/// Bytes that are appended one after the other make up pieces of about this size.
const PIECE: usize = 32 << 10;
/// So many bytes are copied together and sent as one piece, which costs less than a list of slices.
const MAX_COPIED: usize = 16 << 10;

/// A socket as it is written to. Its `flush` gives the kernel what it holds, or would block.
pub(crate) trait Outlet: Write {
    /// Bytes that it took and the kernel did not.
    fn held(&self) -> usize;
}

/// Bytes on their way to a socket.
#[derive(Default)]
pub(crate) struct Outgoing {
    waiting: Option<Box<Waiting>>,
    /// Bytes that the socket took.
    taken: u64,
}

/// What the socket has not taken.
#[derive(Default)]
struct Waiting {
    queue: VecDeque<Bytes>,
    /// What was appended, behind the queue.
    piece: Vec<u8>,
    /// Bytes of both.
    queued: usize,
    /// Bytes that the socket holds, with what TLS adds to them.
    held: usize,
}

impl Outgoing {
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            let waiting = self.waiting.get_or_insert_default();
            waiting.end_piece();
            waiting.queued += bytes.len();
            waiting.queue.push_back(bytes);
        }
    }

    /// Lets `write` append to what waits: for bytes that nobody else gets, which then need no memory each.
    pub fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let waiting = self.waiting.get_or_insert_default();
        let before = waiting.piece.len();
        write(&mut waiting.piece);
        waiting.queued += waiting.piece.len() - before;
        if waiting.piece.len() >= PIECE {
            waiting.end_piece();
        }
    }

    /// Bytes that wait for the kernel.
    pub fn waiting(&self) -> usize {
        self.waiting
            .as_ref()
            .map_or(0, |waiting| waiting.queued + waiting.held)
    }

    /// Bytes that the kernel has taken so far; with TLS about so many.
    pub fn written(&self) -> u64 {
        let held = self.waiting.as_ref().map_or(0, |waiting| waiting.held);
        self.taken.saturating_sub(held as u64)
    }

    /// Where the stream will stand once all that waits is written.
    pub fn end(&self) -> u64 {
        self.taken + self.waiting.as_ref().map_or(0, |waiting| waiting.queued as u64)
    }

    /// Writes until everything, and `tail` behind it, is out or the socket would block. True when everything is out.
    /// `tail` is empty then; it lends its memory where the pieces are to be sent as one.
    pub fn flush(&mut self, tail: &mut Vec<u8>, socket: &mut impl Outlet) -> io::Result<bool> {
        let small = self
            .waiting
            .as_ref()
            .is_none_or(|waiting| waiting.queued + tail.len() <= MAX_COPIED && waiting.held == 0);
        let done = if small {
            self.join(tail);
            self.send(tail, socket, |rest, queue| {
                queue.push_back(Bytes::copy_from_slice(rest))
            })
        } else {
            self.push(Bytes::copy_from_slice(tail));
            self.write(socket)
        };
        tail.clear();
        done
    }

    /// Writes `bytes` with nothing before them in the queue. Where the socket takes less, `keep` queues the rest.
    /// True when everything is out.
    pub fn send(
        &mut self,
        bytes: &[u8],
        socket: &mut impl Outlet,
        keep: impl FnOnce(&[u8], &mut VecDeque<Bytes>),
    ) -> io::Result<bool> {
        debug_assert!(self.waiting() == 0, "what waits goes first");
        let mut sent = 0;
        while sent < bytes.len() {
            match socket.write(&bytes[sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.taken += sent as u64;
        if sent < bytes.len() {
            let waiting = self.waiting.get_or_insert_default();
            keep(&bytes[sent..], &mut waiting.queue);
            waiting.queued = waiting.queue.iter().map(Bytes::len).sum();
        }
        self.settle(socket)
    }

    /// Joins all that is queued before `tail`.
    fn join(&mut self, tail: &mut Vec<u8>) {
        if let Some(waiting) = self.waiting.take() {
            let own = tail.len();
            waiting
                .queue
                .iter()
                .for_each(|bytes| tail.extend_from_slice(bytes));
            tail.extend_from_slice(&waiting.piece);
            tail.rotate_left(own);
        }
    }

    fn write(&mut self, socket: &mut impl Outlet) -> io::Result<bool> {
        while let Some(waiting) = self.waiting.as_mut().filter(|waiting| waiting.queued > 0) {
            waiting.end_piece();
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = waiting.queue.len().min(MAX_SLICES);
            for (slice, bytes) in slices.iter_mut().zip(&waiting.queue) {
                *slice = IoSlice::new(bytes);
            }
            match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    waiting.took(n);
                    self.taken += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.settle(socket)
    }

    /// After a write: gives the kernel what the socket holds, and keeps no memory where nothing waits.
    fn settle(&mut self, socket: &mut impl Outlet) -> io::Result<bool> {
        let queued = self.waiting.as_ref().map_or(0, |waiting| waiting.queued);
        let flushed = match socket.flush() {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => return Err(error),
        };
        let held = socket.held();
        if queued == 0 && held == 0 {
            self.waiting = None;
        } else {
            self.waiting.get_or_insert_default().held = held;
        }
        Ok(flushed && queued == 0)
    }
}

impl Waiting {
    /// What was appended goes to the end of the queue.
    fn end_piece(&mut self) {
        if !self.piece.is_empty() {
            let mut piece = std::mem::take(&mut self.piece);
            // It may wait for long.
            piece.shrink_to_fit();
            self.queue.push_back(piece.into());
        }
    }

    fn took(&mut self, mut n: usize) {
        self.queued -= n;
        while n > 0 {
            let Some(front) = self.queue.front_mut() else {
                return;
            };
            if front.len() > n {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time, then would block.
    struct Slow(Vec<u8>, usize);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.1 == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let n = bytes.len().min(3).min(self.1);
            self.1 -= n;
            self.0.extend_from_slice(&bytes[..n]);
            Ok(n)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Outlet for Slow {
        fn held(&self) -> usize {
            0
        }
    }

    #[test]
    fn every_byte_once_in_order_whatever_the_socket_takes() {
        for size in [1, 400] {
            let mut out = Outgoing::default();
            let mut slow = Slow(Vec::new(), 0);
            let mut all = Vec::new();
            for i in 0..100u8 {
                let bytes = vec![i; usize::from(i % 7) * size];
                all.extend_from_slice(&bytes);
                match i % 3 {
                    0 => out.push(bytes.into()),
                    _ => out.append(|piece| piece.extend_from_slice(&bytes)),
                }
            }
            assert_eq!(out.end(), all.len() as u64);
            let mut tail = b"last".to_vec();
            all.extend_from_slice(&tail);
            while !out.flush(&mut tail, &mut slow).unwrap() {
                assert!(tail.is_empty());
                slow.1 += 5 * size;
            }
            assert_eq!(slow.0, all);
            assert_eq!((out.waiting(), out.written()), (0, all.len() as u64));
        }
    }

    #[test]
    fn what_is_sent_at_once_is_never_queued() {
        let mut out = Outgoing::default();
        let mut slow = Slow(Vec::new(), 10);
        let keep = |rest: &[u8], queue: &mut VecDeque<Bytes>| queue.push_back(Bytes::copy_from_slice(rest));
        assert!(out.send(b"12345", &mut slow, keep).unwrap());
        assert!(out.waiting.is_none());
        assert!(!out.send(b"67890abc", &mut slow, keep).unwrap());
        assert_eq!((out.waiting(), out.written(), out.end()), (3, 10, 13));
        slow.1 = 3;
        assert!(out.flush(&mut Vec::new(), &mut slow).unwrap());
        assert_eq!(slow.0, b"1234567890abc");
        assert!(out.waiting.is_none());
    }
}
