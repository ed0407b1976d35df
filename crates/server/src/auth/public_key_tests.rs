use super::super::pem::KeyFault;
use super::*;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::EncodingKey;

// Made for these tests with `openssl genpkey`; they guard nothing.
pub(crate) const RSA_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
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
pub(crate) const RSA_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAwyoNopZrV5CPmEIKEytV
COPdhNJvcDreWkkVnP1AyMyp2mYd3olpoCeHI1pmUexcFEdw/D0U9E9zjLCoAgbZ
PpfXsvncwzapOAUGPmylApQ3KvZk3SlG8kDIWJE3GPPY9bkhhKTboCd6c00ln07Z
RuGk6sDhwwZEvL4C3JAdWshhKnKJkDspYRtRc8VVmKZaJQ725r0AxJHCbfLM7uK0
OIGeaWnR8HuP84irt5iAte7PvmZCnGhmjRW2cucYNaJr/fBcJKPSxdaHto7wXbux
h8u98SPPzedELWI32vNL9xNMDRjqo2fOBwJHpiXkh3V9IC9z1MNwTXFPoHTSkzM4
GwIDAQAB
-----END PUBLIC KEY-----
";
pub(crate) const P256_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg+pIQr2kpUA1luB/E
KxZq5ZrvZUIY4YJvoO7Ehq/MW9ShRANCAASiaK4HMUwb1rQtb0kNTJ5H6gVPS0x8
ol7dBGn+sBR3iUCcc2YGw5c2DOi3/Gf+wbP24sPBP/hgjwQ2L+KOyxum
-----END PRIVATE KEY-----
";
pub(crate) const P256_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEomiuBzFMG9a0LW9JDUyeR+oFT0tM
fKJe3QRp/rAUd4lAnHNmBsOXNgzot/xn/sGz9uLDwT/4YI8ENi/ijssbpg==
-----END PUBLIC KEY-----
";
pub(crate) const P384_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDCBh8q8H/UmqErgXESK
YvLNzGNv20mk5P0iE2vuCN2H9ImNwXWaVmNgwPlptqfjZF2hZANiAAQt4ZJtHjoI
4pEt8QfqwcAbe5PCXa7WSeJoRjX0ut4iSVTV/rhV2JDLd3wT86tTK+StmFRiiapl
QzPO4sm18uNLG3ygHOj5dSv2ZCZTeuhUmPVIdxjKaZLkl4XclyeOR8Y=
-----END PRIVATE KEY-----
";
pub(crate) const P384_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAELeGSbR46COKRLfEH6sHAG3uTwl2u1kni
aEY19LreIklU1f64VdiQy3d8E/OrUyvkrZhUYomqZUMzzuLJtfLjSxt8oBzo+XUr
9mQmU3roVJj1SHcYymmS5JeF3JcnjkfG
-----END PUBLIC KEY-----
";
pub(crate) const ED25519_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIKgRBk4XBpMZnNDDgWkZ6fzMl/EtcAiiWs9i9wferSAF
-----END PRIVATE KEY-----
";
pub(crate) const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAMqoOO4pxFv/kL2IlfHRnDJHdx3DLhh/0DqXktjDarwQ=
-----END PUBLIC KEY-----
";
pub(crate) const RSA_PKCS1_PUBLIC: &str = "-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAwyoNopZrV5CPmEIKEytVCOPdhNJvcDreWkkVnP1AyMyp2mYd3olp
oCeHI1pmUexcFEdw/D0U9E9zjLCoAgbZPpfXsvncwzapOAUGPmylApQ3KvZk3SlG
8kDIWJE3GPPY9bkhhKTboCd6c00ln07ZRuGk6sDhwwZEvL4C3JAdWshhKnKJkDsp
YRtRc8VVmKZaJQ725r0AxJHCbfLM7uK0OIGeaWnR8HuP84irt5iAte7PvmZCnGhm
jRW2cucYNaJr/fBcJKPSxdaHto7wXbuxh8u98SPPzedELWI32vNL9xNMDRjqo2fO
BwJHpiXkh3V9IC9z1MNwTXFPoHTSkzM4GwIDAQAB
-----END RSA PUBLIC KEY-----
";
pub(crate) const RSA_1024_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCb3SieaxzFiSZrjP+JfSoXdy6f
PNM2fo9qoIdPE4gX/0dGlsH/pj6A6Kc5arlGWYA9c9lbdty3z0sxYONQPP/ihPTy
MruRBbf43EtM+1GJwbgojVTGPTe7qvtKxeuE8jnQDM6ABMEQS57kVbgE5PDJmm79
x5PNOURDJqLDULyhhQIDAQAB
-----END PUBLIC KEY-----
";
pub(crate) const P521_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBjpERiTFmwZp2Tdiqr9uSxAb7V+dg
B/Kd2nvw5v1+6gZB4SM2kTuleHhAdU8CWdGDJri7TXXVp/pzce7u4X20KrEAtmoP
8rh0kDbxZMbPBXLAOqeplU6gwVNdm9rOXn/RGU7VC5W84r6Bv0rVjoRaVh5Pqc1X
343NylMA2fZjIZoIaew=
-----END PUBLIC KEY-----
";
pub(crate) const SECP256K1_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEVRy/iYKPRmoZnAVcnUuWkTLm+mIv9xOP
jDmkFB0PSnl5WJqj3V2jdfyM07msFRFwvnmXQQx6IbmEHxuxWiEWeg==
-----END PUBLIC KEY-----
";
pub(crate) const ED448_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MEMwBQYDK2VxAzoAeXn7d4Mf8rJKn4gH5iLhI5Xs5m91WUzP4ciqwa0w3MmtmnuY
fs0fWZTygjmBf79X9ZLmv9JTUj2A
-----END PUBLIC KEY-----
";

/// The bytes of a PEM text.
pub(crate) fn spki(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).unwrap()
}

fn read_one(pem: &str) -> PublicKey {
    let mut keys = PublicKey::read(pem).unwrap();
    assert_eq!(keys.len(), 1);
    keys.pop().unwrap()
}

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
        let key = read_one(pem);
        for algorithm in all.concat() {
            assert_eq!(key.checks(algorithm), own.contains(&algorithm), "{algorithm:?}");
            if !own.contains(&algorithm) {
                assert!(!key.signed(b"message", "AA", algorithm));
                continue;
            }
            let signature = crypto::sign(b"message", &private, algorithm).unwrap();
            assert!(key.signed(b"message", &signature, algorithm), "{algorithm:?}");
            assert!(!key.signed(b"massage", &signature, algorithm), "{algorithm:?}");
        }
    }
}

#[test]
fn numbers_that_make_no_sound_rsa_key() {
    let good = [&[0x80][..], &[0; 254], &[1]].concat();
    let e = [1, 0, 1];
    assert!(PublicKey::rsa(&good, &e).is_some());
    assert!(
        PublicKey::rsa(&[&[0, 0][..], &good].concat(), &e).is_some(),
        "zeros before it"
    );
    let just_short = [&[0x7f][..], &[0xff; 255]].concat();
    let even = [&[0x80][..], &[0; 255]].concat();
    let too_long = [&[1][..], &[0; 511], &[1]].concat();
    for modulus in [&just_short[..], &even, &too_long, &[], &[0]] {
        assert!(PublicKey::rsa(modulus, &e).is_none(), "{} bytes", modulus.len());
    }
    for exponent in [&[1][..], &[2], &[0], &[], &[1, 0, 0]] {
        assert!(PublicKey::rsa(&good, exponent).is_none(), "{exponent:?}");
    }
}

#[test]
fn a_key_that_is_cut_short_or_goes_on_is_refused() {
    for pem in [RSA_PUBLIC, P256_PUBLIC, P384_PUBLIC, ED25519_PUBLIC] {
        let der = spki(pem);
        assert!(PublicKey::from_spki(&der).is_some());
        for length in 0..der.len() {
            assert!(PublicKey::from_spki(&der[..length]).is_none(), "{length} bytes");
        }
        assert!(PublicKey::from_spki(&[&der[..], &[0]].concat()).is_none());
    }
    for pem in [RSA_1024_PUBLIC, P521_PUBLIC, SECP256K1_PUBLIC, ED448_PUBLIC] {
        assert!(PublicKey::from_spki(&spki(pem)).is_none(), "{pem}");
        assert!(matches!(PublicKey::read(pem), Err(KeyFault::Unsupported(1))));
    }
}
