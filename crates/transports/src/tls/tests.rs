//! Against the client half of the same library, over buffers.

use super::*;
use rustls::client::ClientConnection;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use std::io::{Read as _, Write as _};

static BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// What goes either way, in pieces of any size.
struct Pair {
    client: ClientConnection,
    layer: Layer,
    /// What the server side has heard, and the client's.
    heard: Vec<u8>,
    told: Vec<u8>,
    piece: usize,
}

impl Pair {
    fn new(version: &'static SupportedProtocolVersion, piece: usize) -> Pair {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = Arc::new(ring::default_provider());
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        server.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        let mut client =
            ClientConnection::new(Arc::new(client), "localhost".to_owned().try_into().unwrap()).unwrap();
        client.set_buffer_limit(None);
        Pair {
            client,
            layer: Layer::new(Arc::new(server)).unwrap(),
            heard: Vec::new(),
            told: Vec::new(),
            piece,
        }
    }

    fn established(version: &'static SupportedProtocolVersion) -> Pair {
        let mut pair = Pair::new(version, usize::MAX);
        pair.settle().unwrap();
        assert!(!pair.layer.is_handshaking() && !pair.client.is_handshaking());
        pair
    }

    /// Carries what the client has to say. False where it has nothing.
    fn carry_up(&mut self) -> Result<bool, TlsFault> {
        let mut wire = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut wire).unwrap();
        }
        for piece in wire.chunks_mut(self.piece) {
            self.layer.receive(piece, &mut self.heard)?;
        }
        Ok(!wire.is_empty())
    }

    /// Carries what the server has to say. False where it has nothing.
    fn carry_down(&mut self) -> bool {
        let n = self.layer.unsent().len().min(self.piece);
        let mut wire = &self.layer.unsent()[..n];
        while !wire.is_empty() {
            self.client.read_tls(&mut wire).unwrap();
            self.client.process_new_packets().unwrap();
            match self.client.reader().read_to_end(&mut self.told) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => panic!("{error}"),
                _ => {}
            }
        }
        self.layer.sent(n);
        n > 0
    }

    fn settle(&mut self) -> Result<(), TlsFault> {
        while self.carry_up()? | self.carry_down() {}
        Ok(())
    }

    fn client_hears(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.told)
    }
}

/// Encrypts all of `bytes` as the socket takes it; returns what the client heard.
fn say(pair: &mut Pair, bytes: &[u8]) -> Vec<u8> {
    let (mut at, mut heard) = (0, Vec::new());
    while at < bytes.len() || !pair.layer.unsent().is_empty() {
        at += pair.layer.encrypt(&[IoSlice::new(&bytes[at..])]).unwrap();
        pair.carry_down();
        heard.extend(pair.client_hears());
    }
    heard
}

#[test]
fn what_is_said_does_not_depend_on_how_the_bytes_are_cut() {
    let long: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    for version in BOTH {
        for piece in [1, 2, 3, 5, 100, 1000, 16_389, usize::MAX] {
            let mut pair = Pair::new(version, piece);
            assert!(pair.layer.is_handshaking());
            pair.settle().unwrap();
            assert!(pair.layer.speaks_http2() && !pair.layer.is_handshaking());
            pair.client.writer().write_all(b"hello").unwrap();
            pair.client.writer().write_all(&long).unwrap();
            pair.settle().unwrap();
            assert_eq!(pair.heard, [b"hello", &long[..]].concat(), "in pieces of {piece}");
            assert_eq!(say(&mut pair, &long), long, "in pieces of {piece}");
        }
    }
}

#[test]
fn at_rest_it_holds_no_buffer() {
    for version in BOTH {
        let mut pair = Pair::established(version);
        pair.client.writer().write_all(&[7; 50_000]).unwrap();
        pair.settle().unwrap();
        say(&mut pair, &[8; 50_000]);
        assert_eq!(
            (pair.layer.incoming.capacity(), pair.layer.outgoing.capacity()),
            (0, 0)
        );
    }
}

#[test]
fn small_slices_share_a_record_and_what_waits_is_bounded() {
    let mut pair = Pair::established(&TLS13);
    let slices: Vec<_> = (0..10).map(|_| IoSlice::new(b"0123456789")).collect();
    assert_eq!(pair.layer.encrypt(&slices).unwrap(), 100);
    // A header of five bytes, a type and a tag of sixteen.
    assert_eq!(pair.layer.unsent().len(), 122);
    assert_eq!(
        pair.layer.encrypt(&slices).unwrap(),
        0,
        "nothing before that is gone"
    );
    pair.carry_down();
    assert_eq!(pair.client_hears(), b"0123456789".repeat(10));
    let much = vec![1; MAX_UNSENT];
    let taken = pair
        .layer
        .encrypt(&[IoSlice::new(b"x"), IoSlice::new(&much), IoSlice::new(&much)]);
    assert_eq!(taken.unwrap(), MAX_UNSENT);
    assert!(pair.layer.unsent().len() < MAX_UNSENT + 5 * RECORD_OVERHEAD);
    pair.carry_down();
    assert_eq!(pair.client_hears(), [b"x", &much[1..]].concat());
}

#[test]
fn a_goodbye_is_heard_on_both_sides() {
    for version in BOTH {
        let mut pair = Pair::established(version);
        pair.client.writer().write_all(b"last").unwrap();
        pair.client.send_close_notify();
        pair.carry_up().unwrap();
        assert_eq!(pair.heard, b"last");
        assert!(pair.layer.peer_has_ended() && pair.layer.has_ended());
        // The client has ended its half: it can be told still.
        assert_eq!(pair.layer.encrypt(&[IoSlice::new(b"bye")]).unwrap(), 3);
        pair.carry_down();
        pair.layer.goodbye();
        pair.layer.goodbye();
        pair.carry_down();
        assert_eq!(pair.client_hears(), b"bye");
        assert_eq!(pair.client.reader().read(&mut [0; 8]).unwrap(), 0, "a clean end");
    }
}

#[test]
fn a_changed_byte_ends_it_with_an_alert() {
    for version in BOTH {
        let mut pair = Pair::established(version);
        pair.client.writer().write_all(b"hello").unwrap();
        let mut wire = Vec::new();
        pair.client.write_tls(&mut wire).unwrap();
        *wire.last_mut().unwrap() ^= 1;
        let fault = pair.layer.receive(&mut wire, &mut pair.heard).unwrap_err();
        assert!(
            matches!(fault, TlsFault::Protocol(rustls::Error::DecryptError)),
            "{fault}"
        );
        assert!(pair.heard.is_empty() && pair.layer.has_ended() && !pair.layer.peer_has_ended());
        let mut alert = pair.layer.unsent();
        assert!(!alert.is_empty());
        pair.client.read_tls(&mut alert).unwrap();
        let told = pair.client.process_new_packets().unwrap_err();
        assert!(matches!(told, rustls::Error::AlertReceived(_)), "{told}");
        // It is deaf and dumb from here on.
        pair.layer.receive(&mut [0; 100], &mut pair.heard).unwrap();
        assert!(pair.layer.encrypt(&[IoSlice::new(b"x")]).is_err() || !pair.layer.unsent().is_empty());
    }
}

#[test]
fn a_request_in_the_clear_is_told_apart_from_nonsense() {
    let mut heard = Vec::new();
    let fault = |first: &[u8], heard: &mut Vec<u8>| {
        let mut pair = Pair::new(&TLS13, usize::MAX);
        pair.layer.receive(&mut first.to_vec(), heard).unwrap_err()
    };
    assert!(matches!(
        fault(b"GET / HTTP/1.1\r\n\r\n", &mut heard),
        TlsFault::NotTls
    ));
    assert!(matches!(fault(b"PRI * HTTP/2.0", &mut heard), TlsFault::NotTls));
    assert!(matches!(fault(&[0; 16], &mut heard), TlsFault::Protocol(_)));
    assert!(heard.is_empty());
    let mut pair = Pair::new(&TLS13, usize::MAX);
    pair.layer.receive(&mut b"GET".to_vec(), &mut heard).unwrap_err();
    pair.layer.last_words(b"in the clear");
    assert_eq!(pair.layer.unsent(), b"in the clear");
}

#[test]
fn a_handshake_message_without_end_is_refused() {
    let mut pair = Pair::new(&TLS13, usize::MAX);
    let mut heard = Vec::new();
    let mut record = vec![22, 3, 1, 0x40, 0];
    // A ClientHello that announces 60,000 bytes.
    record.extend([1, 0, 0xea, 0x60]);
    record.resize(5 + 0x4000, 0);
    let mut more = vec![22, 3, 1, 0x40, 0];
    more.resize(5 + 0x4000, 0);
    let mut outcome = pair.layer.receive(&mut record, &mut heard);
    for _ in 0..4 {
        assert!(pair.layer.incoming.len() <= MAX_PARTIAL);
        outcome = outcome.and_then(|()| pair.layer.receive(&mut more.clone(), &mut heard));
    }
    assert!(outcome.is_err() && pair.layer.incoming.is_empty());
}

#[test]
fn answers_that_a_client_makes_the_protocol_give_stay_few() {
    let mut pair = Pair::established(&TLS13);
    for _ in 0..200 {
        pair.client.refresh_traffic_keys().unwrap();
        let mut wire = Vec::new();
        pair.client.write_tls(&mut wire).unwrap();
        if pair.layer.receive(&mut wire, &mut Vec::new()).is_err() {
            break;
        }
    }
    assert!(pair.layer.unsent().len() < 1024, "{}", pair.layer.unsent().len());
}

#[test]
fn keys_that_change_in_the_middle_change_nothing_else() {
    let mut pair = Pair::established(&TLS13);
    for round in 0..3u8 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client.writer().write_all(&[round; 10]).unwrap();
        pair.carry_up().unwrap();
        assert_eq!(say(&mut pair, &[round; 20]), [round; 20]);
    }
    assert_eq!(pair.heard.len(), 30);
}

/// A socket of the server's with a finished handshake, and the client's end of it.
fn connected() -> (TlsSocket, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    near.set_nonblocking(true).unwrap();
    let far = listener.accept().unwrap().0;
    far.set_nonblocking(true).unwrap();
    let layer = Pair::established(&TLS13).layer;
    (TlsSocket::new(mio::net::TcpStream::from_std(near), layer), far)
}

fn unacknowledged(socket: &TlsSocket) -> u32 {
    postrider_outq::unacknowledged_bytes(std::os::fd::AsFd::as_fd(&socket.tcp)).unwrap()
}

/// Waits for the kernel, and meanwhile takes what arrives.
#[allow(clippy::disallowed_methods, reason = "a deadline against a real kernel")]
fn read_until(far: &mut std::net::TcpStream, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    let mut buffer = vec![0; 1 << 20];
    while !holds() {
        assert!(
            start.elapsed() < std::time::Duration::from_secs(20),
            "it did not come"
        );
        if far.read(&mut buffer).is_err() {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_place_is_reached_when_its_ciphertext_is_and_not_before() {
    let (mut socket, mut far) = connected();
    let mut taken = socket.write(b"0123456789").unwrap() as u64;
    socket.watch(taken);
    read_until(&mut far, || unacknowledged(&socket) == 0);
    assert!(socket.has_reached(taken, 0));
    // Fewer bytes of plaintext than of ciphertext: what is on its way does not count.
    assert!(!socket.has_reached(taken, 1));
    let much = vec![7; MAX_UNSENT];
    loop {
        match socket.write(&much) {
            Ok(n) => taken += n as u64,
            Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
    assert!(
        socket.has_reached(10, unacknowledged(&socket)),
        "what came later is no matter"
    );
    assert!(!socket.layer.unsent().is_empty());
    socket.watch(taken);
    assert!(
        !socket.has_reached(taken, 0),
        "its last bytes are not even with the kernel"
    );
    let mut reached = || match socket.flush() {
        Ok(()) => socket.has_reached(taken, unacknowledged(&socket)),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert!(!socket.has_reached(taken, 0));
            false
        }
    };
    read_until(&mut far, &mut reached);
}
