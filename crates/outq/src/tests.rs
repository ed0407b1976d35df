//! Against a real connection on loopback.

use super::{silent_for, unacknowledged_bytes};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// A connection whose far end receives little at once, so that it is soon full.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn unacknowledged(socket: &TcpStream) -> usize {
    unacknowledged_bytes(socket.as_fd()).unwrap() as usize
}

/// Waits until the kernel has exchanged its acknowledgements.
#[allow(clippy::disallowed_methods, reason = "a deadline against a real kernel")]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come");
        std::thread::yield_now();
    }
}

/// Writes until nothing more fits; returns how much went in.
fn fill(near: &mut TcpStream) -> usize {
    near.set_nonblocking(true).unwrap();
    let mut written = 0;
    loop {
        match near.write(&[7; 16 * 1024]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return written,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_the_peer_has_received_is_acknowledged_though_it_was_not_read() {
    let (mut near, mut far) = pair();
    assert_eq!(unacknowledged(&near), 0);
    near.write_all(b"hello").unwrap();
    wait_until("the acknowledgement", || unacknowledged(&near) == 0);
    let mut buffer = [0; 8];
    assert_eq!(far.read(&mut buffer).unwrap(), 5);
}

#[test]
fn what_does_not_fit_into_the_peers_window_stays_until_the_peer_reads() {
    let (mut near, mut far) = pair();
    let written = fill(&mut near);
    let left = unacknowledged(&near);
    assert!(left > 0 && left <= written, "{left} of {written}");
    let mut buffer = vec![0; 64 * 1024];
    let mut received = 0;
    while received < written {
        received += far.read(&mut buffer).unwrap();
    }
    assert_eq!(received, written);
    wait_until("the last acknowledgement", || unacknowledged(&near) == 0);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a pause against a real kernel")]
fn a_peer_that_takes_nothing_is_not_silent() {
    let (mut near, far) = pair();
    assert_eq!(silent_for(near.as_fd()).unwrap(), Duration::ZERO);
    fill(&mut near);
    // Its window is probed a fifth of a second after it closed, and again.
    let begun = Instant::now();
    wait_until("a pause", || begun.elapsed() > Duration::from_millis(700));
    assert_eq!(silent_for(near.as_fd()).unwrap(), Duration::ZERO);
    drop(far);
    assert!(
        silent_for(std::io::stderr().as_fd()).is_err(),
        "that is no socket"
    );
}

#[test]
fn a_broken_connection_acknowledges_nothing_more() {
    let (mut near, far) = pair();
    fill(&mut near);
    // Closed with unread bytes, a socket resets the connection.
    drop(far);
    wait_until("the reset", || near.take_error().unwrap().is_some());
    assert!(unacknowledged(&near) > 0);
}

#[test]
fn what_is_no_connection_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(unacknowledged_bytes(listener.as_fd()).is_err());
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(unacknowledged_bytes(file.as_fd()).is_err());
}
