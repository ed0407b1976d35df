use super::*;
use rcgen::{CertificateParams, KeyPair};
use std::path::Path;

/// A day in the life of a certificate, in milliseconds.
const DAY: u64 = 24 * 3600 * 1000;
/// 2026-01-01
const BEGINS: u64 = 1_767_225_600_000;

/// A pair that is valid through January 2026.
fn pair() -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2026, 2, 1);
    (params.self_signed(&key).unwrap().pem(), key)
}

fn write(dir: &Path, cert: &str, key: &str) -> TlsConfig {
    let files = [("cert.pem", cert), ("key.pem", key)].map(|(name, text)| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    });
    let [cert, key] = files;
    TlsConfig { cert, key }
}

fn at(day: u64) -> Timestamp {
    Timestamp(BEGINS + day * DAY)
}

fn fault(config: &TlsConfig) -> String {
    Certificates::open(config, at(1)).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_is_one_line_that_names_key_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = pair();
    let (_, other) = pair();
    let here = |name: &str| dir.path().join(name).display().to_string();
    let (cert_file, key_file) = (here("cert.pem"), here("key.pem"));
    let mismatch = write(dir.path(), &cert, &other.serialize_pem());
    assert_eq!(
        fault(&mismatch),
        format!("http.tls.key: {key_file}: is not the key of the certificate in {cert_file}")
    );
    let swapped = TlsConfig {
        cert: mismatch.key.clone(),
        key: mismatch.cert.clone(),
    };
    assert!(fault(&swapped).starts_with(&format!("http.tls.cert: {key_file}: holds no certificate")));
    let empty = write(dir.path(), &cert, "");
    assert!(fault(&empty).starts_with(&format!("http.tls.key: {key_file}: holds no private key")));
    let locked = write(dir.path(), &cert, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
    assert!(fault(&locked).starts_with(&format!("http.tls.key: {key_file}: is encrypted")));
    let cut = write(dir.path(), &cert[..cert.len() / 2], &key.serialize_pem());
    assert!(fault(&cut).starts_with(&format!("http.tls.cert: {cert_file}: ")));
    let absent = TlsConfig {
        cert: Some("/nowhere/cert.pem".into()),
        key: locked.key.clone(),
    };
    assert!(fault(&absent).starts_with("http.tls.cert: /nowhere/cert.pem: No such file"));
    let half = TlsConfig {
        cert: locked.cert.clone(),
        key: None,
    };
    assert_eq!(fault(&half), "http.tls.key: must be set too, or neither");
    assert!(
        Certificates::open(&TlsConfig::default(), at(1))
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_certificate_is_told_from_one_that_is_out_of_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = pair();
    let files = Files::from(&write(dir.path(), &cert, &key.serialize_pem()))
        .unwrap()
        .unwrap();
    let provider = ring::default_provider();
    let pair = files.load(&provider).unwrap();
    let now = |day| validity(&pair, &provider, at(day));
    assert_eq!(
        validity(&pair, &provider, Timestamp(BEGINS - DAY)),
        Validity::NotYet
    );
    assert_eq!((now(1), now(23)), (Validity::Good, Validity::Good));
    assert_eq!((now(25), now(30)), (Validity::EndsSoon, Validity::EndsSoon));
    assert_eq!(now(32), Validity::Expired);
}

#[test]
fn a_pair_that_changed_is_taken_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = pair();
    let config = write(dir.path(), &cert, &key.serialize_pem());
    let certificates = Certificates::open(&config, at(1)).unwrap().unwrap();
    let served = |certificates: &Certificates| certificates.current().cert.clone();
    let first = served(&certificates);
    certificates.look(at(1));
    assert_eq!(served(&certificates), first);
    // First the certificate, as one who copies the two after each other; then the key.
    let (cert, key) = pair();
    std::fs::write(config.cert.as_ref().unwrap(), &cert).unwrap();
    certificates.look(at(1));
    assert_eq!(served(&certificates), first, "half of a pair is none");
    // Longer, since two writes can fall into one instant of the file system's clock.
    std::fs::write(config.key.as_ref().unwrap(), key.serialize_pem() + "\n\n").unwrap();
    certificates.look(at(1));
    assert_ne!(served(&certificates), first);
}

#[test]
fn a_reload_takes_what_the_configuration_names_or_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let (cert, key) = pair();
    let mut config = Config::default();
    config.http.tls = write(dir.path(), &cert, &key.serialize_pem());
    let certificates = Certificates::open(&config.http.tls, at(1)).unwrap().unwrap();
    let reload = Reload::new(config.clone());
    certificates.register(&reload);
    let first = certificates.current().cert.clone();
    let (cert, key) = pair();
    config.http.tls = write(other.path(), &cert, "nothing");
    let refused = reload.reload(config.clone()).unwrap_err();
    assert!(refused[0].starts_with("http.tls.key: "), "{refused:?}");
    assert_eq!(certificates.current().cert, first);
    config.http.tls = write(other.path(), &cert, &key.serialize_pem());
    let reloaded = reload.reload(config.clone()).unwrap();
    assert_eq!(reloaded.changed, ["http.tls.cert", "http.tls.key"]);
    assert_ne!(certificates.current().cert, first);
    config.http.tls = TlsConfig::default();
    let refused = reload.reload(config).unwrap_err();
    assert!(refused[0].contains("restart"), "{refused:?}");
}

#[test]
fn every_kind_of_key_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let kinds = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ];
    for kind in kinds {
        let key = KeyPair::generate_for(kind).unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        let config = write(dir.path(), &cert, &key.serialize_pem());
        assert!(Certificates::open(&config, at(1)).unwrap().is_some(), "{kind:?}");
    }
}
