//! Who may come in: passwords, ACL users, databases, TLS.

use super::*;
use crate::redis::testing::{Server, has_redis};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Where waiting does not help it is told at once, and else after this.
const WAIT: Duration = Duration::from_secs(8);

async fn fault(url: &str) -> LinkFault {
    let options = LinkOptions {
        timeout: WAIT,
        ..LinkOptions::new(url.parse().expect("well-formed"), "test")
    };
    Links::open(options, "").await.expect_err("it must not open")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_is_told_so_at_once() {
    if !has_redis("links: login") {
        return;
    }
    let server = Server::start_with(&["--requirepass", "open sesame"]);
    let at = format!("127.0.0.1:{}", server.port());
    let started = OwnTime::now();
    for (url, code) in [
        (format!("redis://{at}"), "NOAUTH"),
        (format!("redis://:wrong@{at}"), "WRONGPASS"),
        (format!("redis://nobody:open%20sesame@{at}"), "WRONGPASS"),
    ] {
        let fault = fault(&url).await;
        assert!(
            matches!(&fault, LinkFault::Refused { code: told, .. } if told == code),
            "{url}: {fault:?}"
        );
    }
    assert!(started.elapsed() < WAIT, "waiting does not help");
    let known: RedisUrl = format!("redis://:open%20sesame@{at}/5")
        .parse()
        .expect("well-formed");
    let links = open(&known, PATIENCE).await;
    one(&links, add(Cell(0), 7)).await.expect("added");
    let list = links
        .command(Cell(0), redis::cmd("CLIENT").arg("INFO").clone())
        .await
        .expect("told");
    let Value::BulkString(list) = list else {
        panic!("{list:?}")
    };
    let list = String::from_utf8_lossy(&list).into_owned();
    assert!(list.contains(" db=5 ") && list.contains("user=default"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_kind_is_told_apart() {
    if !has_redis("links: kinds") {
        return;
    }
    let server = Server::start();
    let replica = Server::start_with(&["--replicaof", &format!("127.0.0.1 {}", server.port())]);
    let (port, of_replica) = (server.port(), replica.port());
    let table = [
        (format!("redis+cluster://127.0.0.1:{port}"), "not a cluster node"),
        (
            format!("redis+sentinel://127.0.0.1:{port}/main"),
            "not a sentinel node",
        ),
        (format!("redis://127.0.0.1:{of_replica}"), "is a replica"),
        ("redis://127.0.0.1:1".to_owned(), "127.0.0.1:1"),
    ];
    // Most of them wait for their whole time.
    let told = futures_util::future::join_all(table.iter().map(|(url, _)| fault(url))).await;
    for ((url, wanted), told) in table.iter().zip(told) {
        let told = told.to_string();
        assert!(told.contains(wanted), "{url}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_checks_who_the_server_is_and_shows_who_we_are() {
    if !has_redis("links: TLS") {
        return;
    }
    let files = tempfile::tempdir().expect("a private directory");
    let authority = Authority::new();
    let (certificate, key) = authority.issue();
    let path = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).expect("a private file can be written");
        path.to_str().expect("a temporary path is UTF-8").to_owned()
    };
    let (authority_file, certificate_file, key_file) = (
        path("ca.pem", &authority.pem),
        path("cert.pem", &certificate),
        path("key.pem", &key),
    );
    let tls_port = crate::redis::testing::free_port();
    let server = Server::start_with(&[
        "--tls-port",
        &tls_port.to_string(),
        "--tls-cert-file",
        &certificate_file,
        "--tls-key-file",
        &key_file,
        "--tls-ca-cert-file",
        &authority_file,
    ]);
    let url: RedisUrl = format!("rediss://127.0.0.1:{tls_port}")
        .parse()
        .expect("well-formed");
    let (our_certificate, our_key) = authority.issue();
    let identity = TlsIdentity {
        certificates: our_certificate.into_bytes(),
        key: our_key.into_bytes(),
    };
    let options = |timeout, authority: &Authority, identity: Option<TlsIdentity>| LinkOptions {
        timeout,
        tls: TlsOptions {
            authorities: Some(authority.pem.clone().into_bytes()),
            identity,
        },
        ..LinkOptions::new(url.clone(), "test")
    };
    let trusted = options(PATIENCE, &authority, Some(identity.clone()));
    let links = Links::open(trusted, LIBRARY).await.expect("trusted");
    assert_eq!(one(&links, add(Cell(0), 1)).await, Ok(Value::Int(1)));
    // Both wait for their whole time.
    let (unknown, fault) = tokio::join!(
        Links::open(options(WAIT / 2, &authority, None), ""),
        Links::open(options(WAIT / 2, &Authority::new(), Some(identity)), ""),
    );
    assert!(unknown.is_err(), "we must show who we are");
    let fault = fault.expect_err("not trusted");
    assert!(fault.to_string().contains("certificate"), "{fault}");
    assert_eq!(server.ask_line("GET {pr:default:00}:n"), value("1"));
}

/// An authority of the test's own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        // Two of one name would be taken for one another.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        params.distinguished_name.push(DnType::CommonName, "127.0.0.1");
        (
            params.signed_by(&key, &self.issuer).expect("a certificate").pem(),
            key.serialize_pem(),
        )
    }
}
