//! How many of the bytes written to a TCP socket its peer has not acknowledged yet: `SIOCOUTQ`.
//!
//! The only crate with `unsafe`: the request is not among the safe ones that rustix offers.
//! What holds: bytes written − unacknowledged bytes = bytes that have reached the peer's kernel, and the
//! number falls for no other reason; when a connection breaks, what was unacknowledged stays so.
//! Does not say that the peer's program has read anything, and is no evidence across a buffering proxy.

use std::io;
use std::os::fd::BorrowedFd;

/// The bytes in `socket`'s send queue: not yet sent, or sent and not yet acknowledged by the peer's TCP.
/// A sent end of stream counts as one more byte until it is acknowledged. Never blocks.
///
/// # Errors
/// What the system says of a descriptor that is no connected TCP socket (`ENOTTY`, `EINVAL`, …), and
/// [`io::ErrorKind::Unsupported`] everywhere but on Linux.
pub fn unacknowledged_bytes(socket: BorrowedFd<'_>) -> io::Result<u32> {
    imp::unacknowledged_bytes(socket)
}

// The architectures that use the kernel's generic numbering of terminal requests, from which SIOCOUTQ comes.
#[cfg(all(
    target_os = "linux",
    any(
        target_arch = "x86",
        target_arch = "x86_64",
        target_arch = "arm",
        target_arch = "aarch64",
        target_arch = "riscv32",
        target_arch = "riscv64",
        target_arch = "loongarch64",
        target_arch = "s390x",
    )
))]
mod imp {
    use super::{BorrowedFd, io};
    use rustix::ioctl::{Getter, Opcode, ioctl};

    /// `linux/sockios.h`: SIOCOUTQ is TIOCOUTQ, which `asm-generic/ioctls.h` gives as this.
    const SIOCOUTQ: Opcode = 0x5411;

    #[allow(unsafe_code, reason = "rustix has no safe form of this request")]
    pub fn unacknowledged_bytes(socket: BorrowedFd<'_>) -> io::Result<u32> {
        // SAFETY: SIOCOUTQ (TIOCOUTQ on what is no socket) takes a pointer to a C int, writes that and
        // nothing else, and changes nothing; `Getter` passes a pointer to an i32, and reads it only where
        // the call succeeded.
        let count: i32 = unsafe { ioctl(socket, Getter::<SIOCOUTQ, i32>::new())? };
        u32::try_from(count).map_err(|_| io::Error::other("the kernel counted a negative number of bytes"))
    }
}

#[cfg(not(all(
    target_os = "linux",
    any(
        target_arch = "x86",
        target_arch = "x86_64",
        target_arch = "arm",
        target_arch = "aarch64",
        target_arch = "riscv32",
        target_arch = "riscv64",
        target_arch = "loongarch64",
        target_arch = "s390x",
    )
)))]
mod imp {
    use super::{BorrowedFd, io};

    pub fn unacknowledged_bytes(_: BorrowedFd<'_>) -> io::Result<u32> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests;
