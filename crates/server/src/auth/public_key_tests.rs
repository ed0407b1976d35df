use super::*;
use jsonwebtoken::EncodingKey;

// Made for these tests with `openssl genpkey`; they guard nothing.
const RSA_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQDDKg2ilmtXkI+Y
QgoTK1UI492E0m9wOt5aSRWc/UDIzKnaZh3eiWmgJ4cjWmZR7FwUR3D8PRT0T3OM
sKgCBtk+l9ey+dzDNqk4BQY+bKUClDcq9mTdKUbyQMhYkTcY89j1uSGEpNugJ3pz
TSWfTtlG4aTqwOHDBkS8vgLckB1ayGEqcomQOylhG1FzxVWYplolDvbmvQDEkcJt
8szu4rQ4gZ5padHwe4/ziKu3mIC17s++ZkKcaGaNFbZy5xg1omv98Fwko9LF1oe2
jvBdu7GHy73xI8/N50QtYjfa80v3E0wNGOqjZ84HAkemJeSHdX0gL3PUw3BNcU+g
dNKTMzgbAgMBAAECggEACOP+CgWTL0KBIB0GC3iCX6zNtxLFC9ZKsc85glTRIjSc
mjvjqXMWEjsqv1QLbDj5utzES2FW9og2Cdc0WB9Kvzy4kUkrouL3E3u7HJXjcHoj
BzyBPMf4GOoVll9LJMJbBFqiKcI+1Q1nWSBPEfJMGJwH4L/XqQQ8lmKLi9Ou2qdI
0tffq0nNO5JZcPvAPIi4AmwsoZjK1WBHbQ1G+Y3DjXgjWftbxljlgq+lYyslMCOb
q3b2LYQEeWUlx/CKL9sQY9mCQFseo/TCPr+vMWM0LboaIWrFafwu3GhR2/8TrZiK
bCnCTeFkkiXUHTK5T4E9QgQSzDSdDuvuRATrIi04sQKBgQDlDOmQ/GEwNzS7CcME
PLM1WVu3L5FHzWf6jxUDhYaOU2Qvmu+LBX+O/oGi/qpBXhCzPbMA2FG6901Zoczv
D/EVO6ceG4Tp+xxPFkzyNU/jFQHQY+hFazHbUDeLSV9DRx/GXeYdKdM4qtlCH4dy
Cag74psPltXnI08R19D+AofWqwKBgQDaIHn2zkqD9RK0I9nTdP3xuIURsEZPcDq7
n4YxcCgMEJ2ZJ9oJCIKC5pvB3iRzy+bfvoNaw22/fG8KiMoPu2MHtPYD8/62G8SJ
W12Q0sSXtFGi0iOsnq5ORjwvx04BgzcMCJ4pYnRYsKFjlsDfzNthdbdOkRFmDEBo
k4DgARjkUQKBgGiTpqg9spny+q5S3Kk4lZHMBKX0n94qmEi7vxpmgnLE/D8H/Ep6
7ix5YvLqVw2VRwavKuU93sMAWl6MEycrHiVVoQ2L/vldXyV0xxjm4lyJoNRmaQwY
zyCU1WdQzp/G/2jwQjoaeIes6ZjZEFwusJL2+Vj6wxrO8jDxWkg/G4oVAoGAfEI/
+H8wJ9f2nbRGpJVjDM6Gz7rRcvOGIdgQhB1WUvksLlFrffXhE1z3ogtATM79aLyI
662k2Y6zWxbttOSU15EZDMt0cJ2E6pKnzJak857/WnfHZtDGj0SniLhLEcWEGFDY
eM7jZJrKdYctvNBgsTZ0BEfT14RnNKvCoNk/KuECgYAD6r1ElQ57MWcNBSKvfEhM
J+hghj4t1Sf/ZGjwnOeoUPUF/Jc6+l9rBBGz0xZ1U0Ynls1pDsyD5YijNEJSG4NG
K9/drwFk90PgE5EwD6LwYm1uUlJ0f4DEZmir4WGKiFOBFsawNOHW/wcLsL0H3sNn
HJHg4bDwgbyEdINpUMS6ag==
-----END PRIVATE KEY-----
";
const RSA_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAwyoNopZrV5CPmEIKEytV
COPdhNJvcDreWkkVnP1AyMyp2mYd3olpoCeHI1pmUexcFEdw/D0U9E9zjLCoAgbZ
PpfXsvncwzapOAUGPmylApQ3KvZk3SlG8kDIWJE3GPPY9bkhhKTboCd6c00ln07Z
RuGk6sDhwwZEvL4C3JAdWshhKnKJkDspYRtRc8VVmKZaJQ725r0AxJHCbfLM7uK0
OIGeaWnR8HuP84irt5iAte7PvmZCnGhmjRW2cucYNaJr/fBcJKPSxdaHto7wXbux
h8u98SPPzedELWI32vNL9xNMDRjqo2fOBwJHpiXkh3V9IC9z1MNwTXFPoHTSkzM4
GwIDAQAB
-----END PUBLIC KEY-----
";
const P256_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg+pIQr2kpUA1luB/E
KxZq5ZrvZUIY4YJvoO7Ehq/MW9ShRANCAASiaK4HMUwb1rQtb0kNTJ5H6gVPS0x8
ol7dBGn+sBR3iUCcc2YGw5c2DOi3/Gf+wbP24sPBP/hgjwQ2L+KOyxum
-----END PRIVATE KEY-----
";
const P256_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEomiuBzFMG9a0LW9JDUyeR+oFT0tM
fKJe3QRp/rAUd4lAnHNmBsOXNgzot/xn/sGz9uLDwT/4YI8ENi/ijssbpg==
-----END PUBLIC KEY-----
";
const P384_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDCBh8q8H/UmqErgXESK
YvLNzGNv20mk5P0iE2vuCN2H9ImNwXWaVmNgwPlptqfjZF2hZANiAAQt4ZJtHjoI
4pEt8QfqwcAbe5PCXa7WSeJoRjX0ut4iSVTV/rhV2JDLd3wT86tTK+StmFRiiapl
QzPO4sm18uNLG3ygHOj5dSv2ZCZTeuhUmPVIdxjKaZLkl4XclyeOR8Y=
-----END PRIVATE KEY-----
";
const P384_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAELeGSbR46COKRLfEH6sHAG3uTwl2u1kni
aEY19LreIklU1f64VdiQy3d8E/OrUyvkrZhUYomqZUMzzuLJtfLjSxt8oBzo+XUr
9mQmU3roVJj1SHcYymmS5JeF3JcnjkfG
-----END PUBLIC KEY-----
";
const ED25519_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIKgRBk4XBpMZnNDDgWkZ6fzMl/EtcAiiWs9i9wferSAF
-----END PRIVATE KEY-----
";
const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAMqoOO4pxFv/kL2IlfHRnDJHdx3DLhh/0DqXktjDarwQ=
-----END PUBLIC KEY-----
";
const RSA_PKCS1_PUBLIC: &str = "-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAwyoNopZrV5CPmEIKEytVCOPdhNJvcDreWkkVnP1AyMyp2mYd3olp
oCeHI1pmUexcFEdw/D0U9E9zjLCoAgbZPpfXsvncwzapOAUGPmylApQ3KvZk3SlG
8kDIWJE3GPPY9bkhhKTboCd6c00ln07ZRuGk6sDhwwZEvL4C3JAdWshhKnKJkDsp
YRtRc8VVmKZaJQ725r0AxJHCbfLM7uK0OIGeaWnR8HuP84irt5iAte7PvmZCnGhm
jRW2cucYNaJr/fBcJKPSxdaHto7wXbuxh8u98SPPzedELWI32vNL9xNMDRjqo2fO
BwJHpiXkh3V9IC9z1MNwTXFPoHTSkzM4GwIDAQAB
-----END RSA PUBLIC KEY-----
";
const RSA_1024_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCb3SieaxzFiSZrjP+JfSoXdy6f
PNM2fo9qoIdPE4gX/0dGlsH/pj6A6Kc5arlGWYA9c9lbdty3z0sxYONQPP/ihPTy
MruRBbf43EtM+1GJwbgojVTGPTe7qvtKxeuE8jnQDM6ABMEQS57kVbgE5PDJmm79
x5PNOURDJqLDULyhhQIDAQAB
-----END PUBLIC KEY-----
";
const P521_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBjpERiTFmwZp2Tdiqr9uSxAb7V+dg
B/Kd2nvw5v1+6gZB4SM2kTuleHhAdU8CWdGDJri7TXXVp/pzce7u4X20KrEAtmoP
8rh0kDbxZMbPBXLAOqeplU6gwVNdm9rOXn/RGU7VC5W84r6Bv0rVjoRaVh5Pqc1X
343NylMA2fZjIZoIaew=
-----END PUBLIC KEY-----
";
const SECP256K1_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEVRy/iYKPRmoZnAVcnUuWkTLm+mIv9xOP
jDmkFB0PSnl5WJqj3V2jdfyM07msFRFwvnmXQQx6IbmEHxuxWiEWeg==
-----END PUBLIC KEY-----
";
const ED448_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MEMwBQYDK2VxAzoAeXn7d4Mf8rJKn4gH5iLhI5Xs5m91WUzP4ciqwa0w3MmtmnuY
fs0fWZTygjmBf79X9ZLmv9JTUj2A
-----END PUBLIC KEY-----
";

fn keys() -> [(&'static str, EncodingKey, &'static [Algorithm]); 5] {
    let rsa = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
    let ec = |pem: &str| EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
    let ed = EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()).unwrap();
    [
        (RSA_PUBLIC, rsa.clone(), RSA),
        (RSA_PKCS1_PUBLIC, rsa, RSA),
        (P256_PUBLIC, ec(P256_PRIVATE), P256),
        (P384_PUBLIC, ec(P384_PRIVATE), P384),
        (ED25519_PUBLIC, ed, ED25519),
    ]
}

#[test]
fn a_key_checks_the_algorithms_of_its_type_and_no_other() {
    let all = [
        &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512][..],
        RSA,
        P256,
        P384,
        ED25519,
    ];
    for (pem, private, own) in keys() {
        let key = PublicKey::read(pem).unwrap();
        for algorithm in all.concat() {
            let checks = key.for_algorithm(algorithm);
            assert_eq!(checks.is_some(), own.contains(&algorithm), "{algorithm:?}");
            if let Some(checks) = checks {
                let signature = crypto::sign(b"message", &private, algorithm).unwrap();
                let says = |message| crypto::verify(&signature, message, checks, algorithm).unwrap();
                assert!(says(b"message") && !says(b"massage"), "{algorithm:?}");
            }
        }
    }
}

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
        RSA_PUBLIC.trim_end().to_owned(),
    ] {
        assert!(PublicKey::read(&text).is_ok(), "{text}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(PublicKey::read(&file), Err(KeyFault::File(_))));
}

#[test]
fn what_cannot_be_used_is_a_fault_that_does_not_repeat_it() {
    type Expected = fn(&KeyFault) -> bool;
    let table: &[(&str, Expected)] = &[
        ("", |f| matches!(f, KeyFault::NotPem)),
        ("hush-hush.pem", |f| matches!(f, KeyFault::NotPem)),
        ("-----BEGIN PUBLIC KEY-----", |f| matches!(f, KeyFault::NotPem)),
        ("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----", |f| {
            matches!(f, KeyFault::NotPem)
        }),
        (
            "-----BEGIN RSA PUBLIC KEY-----\nMAA=\n-----END RSA PUBLIC KEY-----",
            |f| matches!(f, KeyFault::NotPem),
        ),
        (
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----",
            |f| matches!(f, KeyFault::NotPem),
        ),
        (RSA_PRIVATE, |f| matches!(f, KeyFault::Private)),
        (ED25519_PRIVATE, |f| matches!(f, KeyFault::Private)),
        (RSA_1024_PUBLIC, |f| matches!(f, KeyFault::Unsupported)),
        (P521_PUBLIC, |f| matches!(f, KeyFault::Unsupported)),
        (SECP256K1_PUBLIC, |f| matches!(f, KeyFault::Unsupported)),
        (ED448_PUBLIC, |f| matches!(f, KeyFault::Unsupported)),
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
    let two = format!("{RSA_PUBLIC}{P256_PUBLIC}");
    assert!(matches!(PublicKey::read(&two), Err(KeyFault::Several)));
    // Cut short anywhere, it is refused and nothing panics.
    for pem in [RSA_PUBLIC, P256_PUBLIC, ED25519_PUBLIC] {
        let der = der(pem).unwrap();
        for length in 0..der.len() {
            let body = STANDARD.encode(&der[..length]);
            let text = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
            assert!(PublicKey::read(&text).is_err(), "{length} bytes");
        }
    }
}
