//! Guessing keys and tokens: an address that fails too often is not listened to.

use crate::*;
use postrider_harness::node::KEY;
use postrider_harness::token::user;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Status and head of one request from another address of this machine.
fn from(source: [u8; 4], node: &Node, target: &str, credential: &str) -> Result<String> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&node.endpoint.addr()?.into())?;
    let mut socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        socket,
        "GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {credential}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn who_guesses_is_shut_out_for_a_while_and_nobody_else() {
    check(&[("auth.failures_per_address", "20")], |node| {
        let (bad, good) = ([127, 0, 0, 2], [127, 0, 0, 3]);
        let token = user("ada")?;
        for (target, right) in [("/v1/inbox?wait=0", token.as_str()), ("/v1/notifications/n", KEY)] {
            let mut refused = 0;
            for n in 0..200 {
                let answer = from(bad, node, target, &format!("a.guess.{n}"))?;
                if answer.starts_with("HTTP/1.1 429") {
                    ensure!(answer.to_lowercase().contains("\r\nretry-after: "), "{answer}");
                    ensure!(answer.contains("rate_limited"), "{answer}");
                    refused += 1;
                } else {
                    ensure!(answer.starts_with("HTTP/1.1 401"), "{answer}");
                }
            }
            ensure!(refused > 0, "{target}: two hundred guesses, and none was refused");
            ensure!(
                !from(good, node, target, right)?.starts_with("HTTP/1.1 429"),
                "{target}: another address"
            );
            ensure!(
                !from([127, 0, 0, 1], node, target, right)?.starts_with("HTTP/1.1 429"),
                "{target}: a local proxy"
            );
        }
        Ok(())
    });
}
