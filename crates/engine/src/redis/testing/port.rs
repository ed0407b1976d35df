//! Ports that nobody uses, outside the range that connections get theirs from: a server can be ended and started
//! again on the same one.

use std::net::TcpListener;
use std::sync::Mutex;

/// Below the usual client ports, above the privileged ones.
const LOWEST: u16 = 2_000;
const HIGHEST: u16 = 9_999;

/// Given to a server of this process, whether it listens at this moment or not.
static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());

pub(crate) fn free() -> u16 {
    let mut given = GIVEN.lock().expect("no test panics while it holds this");
    for _ in 0..1_000 {
        let random = getrandom::u32().expect("the system has randomness");
        let port = LOWEST + (random % u32::from(HIGHEST - LOWEST)) as u16;
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.push(port);
            return port;
        }
    }
    panic!("no free port from {LOWEST} to {HIGHEST}");
}
