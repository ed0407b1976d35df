//! How many of the bytes written to a TCP socket its peer has not acknowledged yet (`SIOCOUTQ`), and for how
//! long it has answered nothing (`TCP_INFO`).
//!
//! The only crate with `unsafe`: neither request is among the safe ones that rustix offers.
//! What holds: bytes written − unacknowledged bytes = bytes that have reached the peer's kernel, and the
//! number falls for no other reason; when a connection breaks, what was unacknowledged stays so.
//! Does not say that the peer's program has read anything, and is no evidence across a buffering proxy.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// The bytes in `socket`'s send queue: not yet sent, or sent and not yet acknowledged by the peer's TCP.
/// A sent end of stream counts as one more byte until it is acknowledged. Never blocks.
///
/// # Errors
/// What the system says of a descriptor that is no connected TCP socket (`ENOTTY`, `EINVAL`, …), and
/// [`io::ErrorKind::Unsupported`] everywhere but on Linux.
pub fn unacknowledged_bytes(socket: BorrowedFd<'_>) -> io::Result<u32> {
    imp::unacknowledged_bytes(socket)
}

/// How far apart the probes of a closed window are at most: Linux' `TCP_RTO_MAX`.
const PROBES_APART: Duration = Duration::from_secs(120);

/// How long `socket`'s peer has left unanswered what was sent to it; zero where nothing is. A peer whose window is
/// closed answers the probes of it, so it is not silent; but those come seldom, and count only beyond the time that may
/// lie between two. Never blocks.
///
/// # Errors
/// What the system says of a descriptor that is no TCP socket, and [`io::ErrorKind::Unsupported`] everywhere but on
/// Linux.
pub fn silent_for(socket: BorrowedFd<'_>) -> io::Result<Duration> {
    info::silent_for(socket)
}

#[cfg(target_os = "linux")]
mod info {
    use super::{BorrowedFd, Duration, PROBES_APART, io};
    use std::os::fd::AsRawFd as _;

    pub fn silent_for(socket: BorrowedFd<'_>) -> io::Result<Duration> {
        let info = read(socket)?;
        let ago = Duration::from_millis(u64::from(info.tcpi_last_ack_recv));
        Ok(match (info.tcpi_retransmits, info.tcpi_probes) {
            (0, 0) => Duration::ZERO,
            (0, _) => ago.saturating_sub(PROBES_APART),
            (_, _) => ago,
        })
    }

    #[allow(unsafe_code, reason = "rustix has no form of this request")]
    fn read(socket: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
        // SAFETY: all of its members are integers, for which zero is a value.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to `info`, and how many those are to `length`. Both live
        // until the call returns, and the descriptor is open as long as it is borrowed.
        let outcome = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        match outcome {
            0 => Ok(info),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod info {
    use super::{BorrowedFd, Duration, io};

    pub fn silent_for(_: BorrowedFd<'_>) -> io::Result<Duration> {
        Err(io::ErrorKind::Unsupported.into())
    }
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
