//! What is to be written to one socket: shared slices in order. Nothing is held at rest.

use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

/// Slices given to the kernel in one send.
const MAX_SLICES: usize = 64;

/// A socket as it is written to. Its `flush` gives the kernel what it holds, or would block.
pub(crate) trait Outlet: Write {
    /// Bytes that it took and the kernel did not.
    fn held(&self) -> usize;
}

/// Bytes on their way to a socket.
#[derive(Default)]
pub(crate) struct Outgoing {
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Bytes that the socket took.
    taken: u64,
    /// Bytes that the socket holds, with what TLS adds to them.
    held: usize,
}

impl Outgoing {
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queued += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    /// Bytes that wait for the kernel.
    pub fn waiting(&self) -> usize {
        self.queued + self.held
    }

    /// Bytes that the kernel has taken so far; with TLS about so many.
    pub fn written(&self) -> u64 {
        self.taken.saturating_sub(self.held as u64)
    }

    /// Where the stream will stand once all that waits is written.
    pub fn end(&self) -> u64 {
        self.taken + self.queued as u64
    }

    /// Writes until everything is out or the socket would block. True when everything is out.
    pub fn flush(&mut self, socket: &mut impl Outlet) -> io::Result<bool> {
        let done = self.write(socket);
        self.held = socket.held();
        done
    }

    fn write(&mut self, socket: &mut impl Outlet) -> io::Result<bool> {
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.queue.len().min(MAX_SLICES);
            for (slice, bytes) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(bytes);
            }
            match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.took(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // A socket at rest keeps no memory.
        self.queue = VecDeque::new();
        match socket.flush() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn took(&mut self, mut n: usize) {
        self.taken += n as u64;
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
        let mut out = Outgoing::default();
        let mut slow = Slow(Vec::new(), 0);
        let mut all = Vec::new();
        for i in 0..100u8 {
            let bytes = vec![i; usize::from(i % 7)];
            all.extend_from_slice(&bytes);
            out.push(bytes.into());
        }
        assert_eq!(out.end(), all.len() as u64);
        while !out.flush(&mut slow).unwrap() {
            slow.1 += 5;
        }
        assert_eq!(slow.0, all);
        assert_eq!((out.waiting(), out.written()), (0, all.len() as u64));
    }
}
