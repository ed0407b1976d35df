use super::super::public_key::tests::{
    ED25519_PRIVATE, ED25519_PUBLIC, P256_PUBLIC, P521_PUBLIC, RSA_1024_PUBLIC, RSA_PKCS1_PUBLIC,
    RSA_PRIVATE, RSA_PUBLIC,
};
use super::*;
use jsonwebtoken::Algorithm;

/// Made with `openssl req -x509` for these tests; its key is [`CERTIFICATE_KEY`].
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBgDCCASagAwIBAgITHRO00ZDPxxJp2zOllJlLn7mDjDAKBggqhkjOPQQDAjAW
MRQwEgYDVQQDDAtpc3N1ZXIudGVzdDAeFw0yNjExMjEwODI1NDVaFw0zNjExMTgw
ODI1NDVaMBYxFDASBgNVBAMMC2lzc3Vlci50ZXN0MFkwEwYHKoZIzj0CAQYIKoZI
zj0DAQcDQgAEAl0A/WI280ZBxAfpfGBO5tLf8fyeZcuQB1UJtozfuYPqotLFIiZr
wrA/orXw62Ms3QN6JB7uKd72Xt2O3nhM3KNTMFEwHQYDVR0OBBYEFKfWMDSzRpq7
diyOwZEFIgKUDta/MB8GA1UdIwQYMBaAFKfWMDSzRpq7diyOwZEFIgKUDta/MA8G
A1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAPiZBt2dV7hmrTisFgp3
XBNdMy01YdPBl2vQLIN6iJr2AiAGQ14n07oHjozDZWlpRgilxFAr9+OCoQRKNPxD
8BLpzw==
-----END CERTIFICATE-----
";
const CERTIFICATE_KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAl0A/WI280ZBxAfpfGBO5tLf8fye
ZcuQB1UJtozfuYPqotLFIiZrwrA/orXw62Ms3QN6JB7uKd72Xt2O3nhM3A==
-----END PUBLIC KEY-----
";

#[test]
fn spellings_of_a_key() {
    let path = std::env::temp_dir().join(format!("postrider-public-{}.pem", std::process::id()));
    std::fs::write(&path, RSA_PUBLIC).unwrap();
    let file = format!("file:{}", path.display());
    for text in [
        file.clone(),
        RSA_PUBLIC.replace('\n', "\r\n"),
        RSA_PUBLIC.replace('\n', "\\n"),
        format!("\n  {RSA_PUBLIC}\n\n"),
        format!("subject: someone\n{RSA_PUBLIC}and so on"),
        RSA_PUBLIC.trim_end().to_owned(),
        RSA_PKCS1_PUBLIC.to_owned(),
        CERTIFICATE.to_owned(),
    ] {
        assert_eq!(PublicKey::read(&text).unwrap().len(), 1, "{text}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(PublicKey::read(&file), Err(KeyFault::File(_))));
}

#[test]
fn several_keys_in_their_order() {
    let text = [RSA_PUBLIC, ED25519_PUBLIC, CERTIFICATE].concat();
    let keys = PublicKey::read(&text).unwrap();
    let own = [Algorithm::PS256, Algorithm::EdDSA, Algorithm::ES256];
    assert!(keys.len() == 3 && keys.iter().zip(own).all(|(key, algorithm)| key.checks(algorithm)));
    assert_eq!(
        PublicKey::read(&ED25519_PUBLIC.repeat(MAX_PEM_KEYS))
            .unwrap()
            .len(),
        MAX_PEM_KEYS
    );
    assert!(matches!(
        PublicKey::read(&ED25519_PUBLIC.repeat(MAX_PEM_KEYS + 1)),
        Err(KeyFault::TooMany)
    ));
}

#[test]
fn a_certificate_is_its_key_and_a_cut_one_is_none() {
    let pem = |label: &str, der: &[u8]| {
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            STANDARD.encode(der)
        )
    };
    let der = super::super::public_key::tests::spki(CERTIFICATE);
    let key = super::super::public_key::tests::spki(CERTIFICATE_KEY);
    assert_eq!(spki_of_certificate(&der), Some(&key[..]));
    for length in 0..der.len() {
        let text = pem("CERTIFICATE", &der[..length]);
        assert!(PublicKey::read(&text).is_err(), "{length} bytes");
    }
    assert!(
        PublicKey::read(&pem("PUBLIC KEY", &der)).is_err(),
        "a certificate that says key"
    );
    assert!(
        PublicKey::read(&pem("CERTIFICATE", &key)).is_err(),
        "a key that says certificate"
    );
}

#[test]
fn what_cannot_be_used_is_a_fault_that_does_not_repeat_it() {
    type Expected = fn(&KeyFault) -> bool;
    let not_pem: Expected = |fault| matches!(fault, KeyFault::NotPem);
    let private: Expected = |fault| matches!(fault, KeyFault::Private);
    let first: Expected = |fault| matches!(fault, KeyFault::Unsupported(1));
    let second: Expected = |fault| matches!(fault, KeyFault::Unsupported(2));
    let table: &[(&str, Expected)] = &[
        ("", not_pem),
        ("hush-hush.pem", not_pem),
        ("-----BEGIN PUBLIC KEY-----", not_pem),
        ("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----", not_pem),
        (
            "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END OTHER KEY-----",
            not_pem,
        ),
        (
            "-----BEGIN EC PARAMETERS-----\nMAA=\n-----END EC PARAMETERS-----",
            not_pem,
        ),
        (
            "-----BEGIN RSA PUBLIC KEY-----\nMAA=\n-----END RSA PUBLIC KEY-----",
            first,
        ),
        (
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----",
            first,
        ),
        (RSA_PRIVATE, private),
        (ED25519_PRIVATE, private),
        (RSA_1024_PUBLIC, first),
        (P521_PUBLIC, first),
        (&[P256_PUBLIC, RSA_1024_PUBLIC].concat(), second),
        (&[P256_PUBLIC, RSA_PRIVATE].concat(), private),
    ];
    for (text, expected) in table {
        let fault = PublicKey::read(text).unwrap_err();
        assert!(expected(&fault), "{fault:?} for {text}");
        let told = fault.to_string();
        let mut body = text
            .lines()
            .filter(|line| line.len() > 4 && !line.starts_with("-----"));
        assert!(body.all(|line| !told.contains(line)), "{told}");
    }
}
