//! TLS on the public listener, as its clients and its attackers meet it.
//!
//! Invariant: a client with TLS gets what one without gets (the transports' contracts show that); here is what TLS
//! adds: handshakes that do not end, bytes that are none, certificates that change, goodbyes.
//!
//! HTTP/2 is tested with curl, which speaks it.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Conn, Piece, Request};
use postrider_harness::inbox::{Connect, End, Received, TRANSPORTS, Transport, next_notification, wait_for};
use postrider_harness::node::{KEY, Node, NodeOptions, binary};
use postrider_harness::publish::Publisher;
use postrider_harness::tls::{Authority, NAME, Stream};
use postrider_harness::token;
use postrider_harness::wait::{until_true, within};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection};
use serde_json::json;

fn check(test: fn() -> Result<()>) {
    if let Err(e) = test() {
        panic!("{e:?}");
    }
}

/// The certificate that a new connection is shown, and the protocol that it agrees on.
fn shown(
    node: &Node,
    authority: &Authority,
    alpn: &[&str],
) -> Result<(CertificateDer<'static>, Option<String>)> {
    let socket = TcpStream::connect(node.endpoint.addr()?)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let Stream::Tls(mut stream) = Stream::new(socket, Some(authority.client(alpn)?))? else {
        anyhow::bail!("no TLS");
    };
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    let chain = stream.conn.peer_certificates().context("no certificate")?;
    let protocol = stream
        .conn
        .alpn_protocol()
        .map(|name| String::from_utf8_lossy(name).into_owned());
    Ok((chain[0].clone().into_owned(), protocol))
}

fn publish(node: &Node, data: usize) -> Result<String> {
    Publisher::new(&node.endpoint, KEY).accepted(&json!({"users": ["ada"], "data": data}))
}

fn hang_up(node: &Node) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(node.pid()?.try_into()?).context("pid")?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::HUP)?)
}

#[test]
fn the_client_chooses_the_protocol() {
    check(|| {
        let authority = Authority::new()?;
        let node = authority.start(&[])?;
        for (offers, agreed) in [
            (&["h2", "http/1.1"][..], Some("h2")),
            (&["http/1.1", "h2"], Some("h2")),
            (&["http/1.1"], Some("http/1.1")),
            (&[], None),
        ] {
            let protocol = shown(&node, &authority, offers)?.1;
            ensure!(protocol.as_deref() == agreed, "{offers:?} → {protocol:?}");
        }
        ensure!(
            shown(&node, &authority, &["gopher"]).is_err(),
            "a protocol that nobody speaks"
        );
        let node = authority.start(&[("http.http2_connections", "0")])?;
        let protocol = shown(&node, &authority, &["h2", "http/1.1"])?.1;
        ensure!(
            protocol.as_deref() == Some("http/1.1"),
            "turned off: {protocol:?}"
        );
        Ok(())
    });
}

#[test]
fn a_client_without_tls_is_told_so() {
    check(|| {
        let authority = Authority::new()?;
        let node = authority.start(&[])?;
        let mut conn = Conn::open(node.endpoint.addr()?, None)?;
        let answer = conn.call(&Request::new("GET", "/v1/inbox"), within(30))?;
        ensure!(
            answer.status() == 400 && answer.text().contains("https://"),
            "{}",
            answer.text()
        );
        ensure!(conn.closed_by(within(30)), "the connection stays open");
        Ok(())
    });
}

#[test]
fn what_is_no_handshake_ends_at_once_and_what_does_not_end_in_time() {
    check(|| {
        let authority = Authority::new()?;
        // Noise must not wait for a time to be over.
        let patient = authority.start(&[("http.head_timeout", "5m")])?;
        let mut noise = TcpStream::connect(patient.endpoint.addr()?)?;
        noise.set_read_timeout(Some(Duration::from_secs(60)))?;
        noise.write_all(&[0xff; 4096])?;
        let mut alert = Vec::new();
        noise.read_to_end(&mut alert).context("noise was listened to")?;
        ensure!(alert.first() == Some(&21), "no alert: {alert:?}");
        let node = authority.start(&[("http.head_timeout", "5s")])?;
        let mut silent = Conn::open(node.endpoint.addr()?, None)?;
        let mut half = TcpStream::connect(node.endpoint.addr()?)?;
        half.write_all(&[22, 3, 1, 2, 0, 1])?;
        // One byte at a time, for longer than a handshake may take.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) && half.write_all(&[0]).is_ok() {
            std::thread::park_timeout(Duration::from_millis(100));
        }
        ensure!(
            began.elapsed() < Duration::from_secs(40),
            "a handshake went on for {:?}",
            began.elapsed()
        );
        ensure!(silent.closed_by(within(60)), "a silent client was kept");
        for (node, faults) in [(&patient, 1.0), (&node, 2.0)] {
            until_true("the faults are counted", within(20), || {
                Ok(node.metric("postrider_tls_faults_total")? >= faults)
            })?;
        }
        let log = node.log() + &patient.log();
        ensure!(
            !log.contains("TLS connection failed"),
            "a client can fill the log: {log}"
        );
        Ok(())
    });
}

#[test]
fn a_crowd_that_says_nothing_costs_little_and_keeps_nobody_out() {
    check(|| {
        let authority = Authority::new()?;
        // Longer than the others may be kept waiting.
        let node = authority.start(&[("http.head_timeout", "5m")])?;
        publish(&node, 0)?;
        let before = node.rss_bytes()?;
        let addr = node.endpoint.addr()?;
        let crowd: Result<Vec<_>, _> = (0..1000).map(|_| TcpStream::connect(addr)).collect();
        let crowd = crowd?;
        let began = Instant::now();
        for transport in TRANSPORTS {
            let mut inbox = Connect::new(&node.endpoint, &token::user("ada")?).open(transport)?;
            let id = publish(&node, 1)?;
            while next_notification(&mut *inbox, within(30))?.id != id {}
        }
        let grown = node.rss_bytes()?.saturating_sub(before);
        println!("tls: a thousand silent connections cost {} KiB", grown >> 10);
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "the others waited {:?}",
            began.elapsed()
        );
        ensure!(grown < 32 << 20, "{grown} bytes");
        drop(crowd);
        Ok(())
    });
}

#[test]
fn a_new_certificate_is_taken_without_a_cut_and_a_bad_one_is_not() {
    check(|| {
        let authority = Authority::new()?;
        let node = authority.start(&[])?;
        let first = shown(&node, &authority, &[])?.0;
        let mut inboxes = Vec::new();
        for transport in TRANSPORTS {
            inboxes.push(Connect::new(&node.endpoint, &token::user("ada")?).open(transport)?);
        }
        let second = authority.issue()?;
        ensure!(
            shown(&node, &authority, &[])?.0 == first,
            "taken before it was told"
        );
        hang_up(&node)?;
        until_true("the second certificate", within(30), || {
            Ok(shown(&node, &authority, &[])?.0 == second)
        })?;
        // A certificate without its key.
        let key = std::fs::read(authority.key())?;
        authority.issue()?;
        std::fs::write(authority.key(), key)?;
        hang_up(&node)?;
        until_true("the fault is logged", within(30), || {
            Ok(node.log().contains("is not the key of"))
        })?;
        ensure!(shown(&node, &authority, &[])?.0 == second, "a bad pair was taken");
        let id = publish(&node, 1)?;
        for inbox in &mut inboxes {
            ensure!(
                next_notification(&mut **inbox, within(30))?.id == id,
                "a session was cut"
            );
        }
        Ok(())
    });
}

#[test]
fn a_key_of_another_certificate_is_refused_at_the_start() {
    check(|| {
        let (one, other) = (Authority::new()?, Authority::new()?);
        let (cert, key) = (
            one.cert().display().to_string(),
            other.key().display().to_string(),
        );
        let refused = Node::refusal(NodeOptions::sets(&[
            ("http.tls.cert", &cert),
            ("http.tls.key", &key),
        ]))?;
        ensure!(
            refused.status.and_then(|s| s.code()) == Some(2),
            "{:?}",
            refused.status
        );
        let said = format!("http.tls.key: {key}: is not the key of the certificate in {cert}");
        ensure!(refused.log.contains(&said), "{}", refused.log);
        Ok(())
    });
}

#[test]
fn a_drain_ends_with_a_goodbye() {
    check(|| {
        let authority = Authority::new()?;
        let mut node = authority.start(&[])?;
        let connect = Connect::new(&node.endpoint, &token::user("ada")?);
        let mut stream = connect.open(Transport::Sse)?;
        let retry = |r: &Received| matches!(r, Received::Retry(_)).then_some(());
        wait_for(&mut *stream, within(30), "retry: at the start", retry)?;
        // One that rests between two requests, in the API's hands.
        let mut resting = node.endpoint.connect(None)?;
        let answer = resting.call(&Request::new("GET", "/nothing"), within(30))?;
        ensure!(answer.status() == 404, "{}", answer.status());
        node.signal_term()?;
        let end = |r: &Received| {
            if let Received::End(end) = r {
                Some(end.clone())
            } else {
                None
            }
        };
        // The end of a body up to the close is orderly only after a goodbye: without one, reading fails.
        let ended = wait_for(&mut *stream, within(20), "the end of the stream", end)?;
        ensure!(ended == End::Orderly, "the stream ended by {ended:?}");
        let rested = resting.into_stream().0.read(&mut [0; 1]);
        ensure!(
            matches!(rested, Ok(0)),
            "the resting connection ended by {rested:?}"
        );
        let status = node.wait_exit(Duration::from_secs(25))?;
        ensure!(status.code() == Some(0), "exit status {status}");
        Ok(())
    });
}

#[test]
fn a_large_body_and_a_large_answer_go_through() {
    check(|| {
        let authority = Authority::new()?;
        let node = authority.start(&[])?;
        let data = "x".repeat(200_000);
        let batch: Vec<_> = (0..40).map(|_| json!({"users": ["ada"], "data": data})).collect();
        let items = Publisher::new(&node.endpoint, KEY).array(&batch)?;
        ensure!(items.len() == 40, "{}", items.len());
        let mut conn = node.endpoint.connect(Some(16 * 1024))?;
        let request = Request::new("GET", "/v1/inbox?limit=1000").bearer(&token::user("ada")?);
        conn.write(&request.header("Connection", "close").bytes())?;
        let head = conn.head(within(20))?.context("no head")?;
        let wanted: usize = head.header("content-length").context("no length")?.parse()?;
        let mut got = 0;
        while let Piece::Bytes(bytes) = conn.piece(within(20))? {
            got += bytes.len();
        }
        ensure!(got == wanted && got > 1_000_000, "{got} of {wanted}");
        Ok(())
    });
}

#[test]
fn the_command_line_trusts_the_authority_that_it_is_given() {
    check(|| {
        let authority = Authority::new()?;
        let node = authority.start(&[])?;
        let url = format!("https://{NAME}:{}", node.endpoint.addr()?.port());
        let publish = |more: &[&str]| -> Result<std::process::Output> {
            let mut command = Command::new(binary()?);
            command.env_remove("POSTRIDER_CA");
            command.args([
                "publish", "--url", &url, "--key", KEY, "--to", "ada", "--data", "1",
            ]);
            Ok(command.args(more).output()?)
        };
        let root = authority.root_file()?.display().to_string();
        let trusted = publish(&["--ca", &root])?;
        ensure!(
            trusted.status.success(),
            "{}",
            String::from_utf8_lossy(&trusted.stderr)
        );
        let unknown = publish(&[])?;
        ensure!(!unknown.status.success(), "an unknown authority was trusted");
        let wrong = publish(&["--ca", "/nowhere"])?;
        ensure!(wrong.status.code() == Some(2), "{:?}", wrong.status);
        let mut listen = Command::new(binary()?);
        listen.args(["listen", "--url", &url, "--ca", &root, "--count", "1", "--json"]);
        listen.args(["--token", &token::user("ada")?]);
        let heard = listen.output()?;
        ensure!(
            heard.status.success(),
            "{}",
            String::from_utf8_lossy(&heard.stderr)
        );
        ensure!(
            String::from_utf8_lossy(&heard.stdout).contains("\"data\":1"),
            "{heard:?}"
        );
        Ok(())
    });
}

/// Ends a handshake well, and sends in the same breath a request and a record that no key fits.
fn fault_behind_a_request(node: &Node, config: &Arc<ClientConfig>) -> Result<()> {
    let mut socket = TcpStream::connect(node.endpoint.addr()?)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut client = ClientConnection::new(config.clone(), ServerName::try_from(NAME)?)?;
    while client.is_handshaking() {
        while client.wants_write() && client.is_handshaking() {
            client.write_tls(&mut socket)?;
        }
        client.read_tls(&mut socket)?;
        client.process_new_packets()?;
    }
    client
        .writer()
        .write_all(&Request::new("GET", "/nothing").bytes())?;
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire)?;
    }
    wire.extend([0x17, 3, 3, 0, 32]);
    wire.extend([7; 32]);
    Ok(socket.write_all(&wire)?)
}

#[test]
fn handshakes_that_end_in_a_fault_leave_their_room_to_others() {
    check(|| {
        let authority = Authority::new()?;
        // Nobody's room comes back by a time that is over.
        let node = authority.start(&[("http.head_timeout", "5m")])?;
        let config = authority.client(&["http/1.1"])?;
        // More than all loops of a small machine may have under way.
        for _ in 0..2_300 {
            fault_behind_a_request(&node, &config)?;
        }
        let answer = node
            .endpoint
            .connect(None)?
            .call(&Request::new("GET", "/nothing"), within(60))?;
        ensure!(answer.status() == 404, "{}", answer.status());
        Ok(())
    });
}
