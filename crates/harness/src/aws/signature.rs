//! Checks a request's signature by AWS's Signature Version 4, from its specification alone.
//!
//! Invariant: what is compared was computed here from the request as it came over the wire. Pure: the time comes in.
//!
//! It knows no signatures in the query and none in pieces.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use sha2::{Digest, Sha256};

use super::serving::Asked;

/// How far a request's date may be from the time here, in seconds.
const SKEW_SECONDS: u64 = 5 * 60;
/// Block of SHA-256, in bytes.
const BLOCK: usize = 64;

/// Who may sign, and for what.
pub struct Scope<'a> {
    pub access_key: &'a str,
    pub secret_key: &'a str,
    pub region: &'a str,
    pub service: &'a str,
}

/// Why a request is refused: the service's error and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden {
    pub error: &'static str,
    pub says: &'static str,
}

const MISSING: Forbidden = Forbidden {
    error: "MissingAuthenticationTokenException",
    says: "Missing Authentication Token",
};
const INCOMPLETE: Forbidden = Forbidden {
    error: "IncompleteSignatureException",
    says: "The request signature does not conform to AWS standards.",
};
const UNKNOWN: Forbidden = Forbidden {
    error: "UnrecognizedClientException",
    says: "The security token included in the request is invalid.",
};
const EXPIRED: Forbidden = Forbidden {
    error: "InvalidSignatureException",
    says: "Signature expired, or not yet current.",
};
const SCOPE: Forbidden = Forbidden {
    error: "InvalidSignatureException",
    says: "Credential should be scoped to the correct date, region and service.",
};
const HASH: Forbidden = Forbidden {
    error: "InvalidSignatureException",
    says: "The provided x-amz-content-sha256 header does not match what was computed.",
};
const MISMATCH: Forbidden = Forbidden {
    error: "InvalidSignatureException",
    says: "The request signature we calculated does not match the signature you provided.",
};

/// Whether the request was signed by who may; `now` in seconds of Unix time.
pub fn check(asked: &Asked, scope: &Scope<'_>, now: u64) -> Result<(), Forbidden> {
    let given = asked.header("authorization").ok_or(MISSING)?;
    let given = Given::read(given).ok_or(INCOMPLETE)?;
    let date = asked.header("x-amz-date").ok_or(INCOMPLETE)?;
    let at = seconds_of(date).ok_or(INCOMPLETE)?;
    if given.access_key != scope.access_key {
        return Err(UNKNOWN);
    }
    if at.abs_diff(now) > SKEW_SECONDS {
        return Err(EXPIRED);
    }
    let day = &date[..8];
    let wanted = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    if given.scope != wanted {
        return Err(SCOPE);
    }
    let is_signed = |name: &str| given.headers.split(';').any(|signed| signed == name);
    let token = asked.header("x-amz-security-token");
    if !is_signed("host")
        || !is_signed("x-amz-date")
        || (token.is_some() && !is_signed("x-amz-security-token"))
    {
        return Err(INCOMPLETE);
    }
    let payload = hex(&Sha256::digest(&asked.body));
    if asked
        .header("x-amz-content-sha256")
        .is_some_and(|said| said != payload)
    {
        return Err(HASH);
    }
    let request = canonical(asked, given.headers, &payload).ok_or(INCOMPLETE)?;
    let hash = hex(&Sha256::digest(request));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{wanted}\n{hash}");
    let mut key = hmac(format!("AWS4{}", scope.secret_key).as_bytes(), day);
    for part in [scope.region, scope.service, "aws4_request"] {
        key = hmac(&key, part);
    }
    match hex(&hmac(&key, &text)) == given.signature {
        true => Ok(()),
        false => Err(MISMATCH),
    }
}

/// The parts of `AWS4-HMAC-SHA256 Credential=…/…, SignedHeaders=…, Signature=…`.
struct Given<'a> {
    access_key: &'a str,
    scope: &'a str,
    headers: &'a str,
    signature: &'a str,
}

impl Given<'_> {
    fn read(text: &str) -> Option<Given<'_>> {
        let parts = text.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let part = |name: &str| {
            let mut parts = parts.split(',').map(str::trim);
            parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        };
        let (access_key, scope) = part("Credential")?.split_once('/')?;
        Some(Given {
            access_key,
            scope,
            headers: part("SignedHeaders")?,
            signature: part("Signature")?,
        })
    }
}

/// What is hashed of a request.
fn canonical(asked: &Asked, signed: &str, payload: &str) -> Option<String> {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    // The path came escaped, and is escaped once more.
    let path: Vec<String> = path.split('/').map(escape).collect();
    let mut pairs: Vec<String> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            if pair.contains('=') {
                pair.to_owned()
            } else {
                format!("{pair}=")
            }
        })
        .collect();
    pairs.sort_unstable();
    let mut headers = String::new();
    for name in signed.split(';') {
        let values: Vec<String> = asked
            .headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        if values.is_empty() {
            return None;
        }
        headers.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    let (method, path, query) = (&asked.method, path.join("/"), pairs.join("&"));
    Some(format!(
        "{method}\n{path}\n{query}\n{headers}\n{signed}\n{payload}"
    ))
}

/// Everything but the unreserved characters of RFC 3986.
fn escape(text: &str) -> String {
    crate::http::escape(text)
}

/// HMAC with SHA-256, RFC 2104.
fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut block = [0; BLOCK];
    match key.len() > BLOCK {
        true => block[..32].copy_from_slice(&Sha256::digest(key)),
        false => block[..key.len()].copy_from_slice(key),
    }
    let inner = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x36))
        .chain_update(text)
        .finalize();
    let outer = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x5c))
        .chain_update(inner)
        .finalize();
    outer.to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `20150830T123600Z` in seconds of Unix time.
fn seconds_of(date: &str) -> Option<u64> {
    let is_whole = date.len() == 16 && date.is_ascii() && &date[8..9] == "T" && date.ends_with('Z');
    let part = |from: usize, to: usize| -> Option<u64> { date[from..to].parse().ok() };
    if !is_whole {
        return None;
    }
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970 by the Gregorian rule, with years that begin in March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + part(9, 11)? * 3_600 + part(11, 13)? * 60 + part(13, 15)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `get-vanilla` of the test suite that AWS gave out for this version.
    fn vanilla() -> Asked {
        let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
            SignedHeaders=host;x-amz-date, \
            Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        let headers = [
            ("host", "example.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
            ("authorization", authorization),
        ];
        Asked {
            method: "GET".into(),
            target: "/".into(),
            headers: headers.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
            body: Vec::new(),
        }
    }

    const SCOPE_OF_SUITE: Scope<'_> = Scope {
        access_key: "AKIDEXAMPLE",
        secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        region: "us-east-1",
        service: "service",
    };
    const THEN: u64 = 1_440_938_160;

    #[test]
    fn the_suite_of_aws_is_taken() {
        assert_eq!(seconds_of("20150830T123600Z"), Some(THEN));
        assert_eq!(check(&vanilla(), &SCOPE_OF_SUITE, THEN), Ok(()));
        assert_eq!(check(&vanilla(), &SCOPE_OF_SUITE, THEN + 300), Ok(()));
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let refused = |change: &dyn Fn(&mut Asked)| {
            let mut asked = vanilla();
            change(&mut asked);
            check(&asked, &SCOPE_OF_SUITE, THEN).unwrap_err()
        };
        assert_eq!(refused(&|asked| asked.body = b"x".to_vec()), MISMATCH);
        assert_eq!(refused(&|asked| asked.target = "/x".into()), MISMATCH);
        assert_eq!(refused(&|asked| asked.method = "POST".into()), MISMATCH);
        assert_eq!(refused(&|asked| asked.headers[0].1 = "else".into()), MISMATCH);
        assert_eq!(refused(&|asked| asked.headers.truncate(2)), MISSING);
        assert_eq!(
            refused(&|asked| asked.headers[1].1 = "20150830T123700Z".into()),
            MISMATCH
        );
        assert_eq!(
            refused(&|asked| asked.headers[1].1 = "20150830T124200Z".into()),
            EXPIRED
        );
        assert_eq!(
            refused(&|asked| asked.headers[1].1 = "yesterday".into()),
            INCOMPLETE
        );
    }

    #[test]
    fn another_scope_is_another_signature() {
        let with = |scope: Scope<'_>| check(&vanilla(), &scope, THEN).unwrap_err();
        let of = SCOPE_OF_SUITE;
        assert_eq!(
            with(Scope {
                region: "eu-central-1",
                ..of
            }),
            SCOPE
        );
        let of = SCOPE_OF_SUITE;
        assert_eq!(with(Scope { service: "sqs", ..of }), SCOPE);
        let of = SCOPE_OF_SUITE;
        assert_eq!(
            with(Scope {
                secret_key: "else",
                ..of
            }),
            MISMATCH
        );
        let of = SCOPE_OF_SUITE;
        assert_eq!(
            with(Scope {
                access_key: "else",
                ..of
            }),
            UNKNOWN
        );
        assert_eq!(check(&vanilla(), &SCOPE_OF_SUITE, THEN + 301), Err(EXPIRED));
    }
}
