//! Tokens, tickets, cookies and keys from any bytes.

use super::jwt::{Jwt, JwtConfig};
use super::ticket::Ticket;
use super::{PublicKey, TicketKey, bearer, gate, jwk, patterns};
use crate::config::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use postrider_model::Timestamp;
use postrider_transports::Identity;

const SECRET: &str = "a-secret-of-32-bytes-or-more-for-fuzzing";
/// When tokens are looked at: in 2026.
const NOW: Timestamp = Timestamp(1_790_000_000_000);

/// What a client shows to be let in. The first byte chooses: bytes as a token, bytes as a ticket, or claims that are
/// signed with the right key, since no fuzzer guesses a signature. Nothing unsigned gets in; who gets in has an id, and
/// a time that is not over.
pub fn token(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    let Ok(jwt) = jwt() else { return };
    let text = String::from_utf8_lossy(rest);
    match choice % 4 {
        0 => {
            assert!(jwt.verify(&text, NOW).is_err(), "an unsigned token");
            assert!(
                Ticket::open(&text, &TicketKey::new(&[7; 32])).is_none(),
                "an unsigned ticket"
            );
            if let Some(token) = bearer(&text) {
                assert!(!token.is_empty() && text.contains(token));
            }
            if let Some(value) = gate::cookie(&text, "session") {
                assert!(!value.is_empty() && text.contains(value));
            }
        }
        1 => signed(&jwt, br#"{"alg":"HS256"}"#, rest),
        2 => {
            let (header, claims) =
                rest.split_at(rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len()));
            signed(&jwt, header, claims.get(1..).unwrap_or_default());
        }
        _ => ticket(rest),
    }
}

fn jwt() -> Result<Jwt, super::KeyFault> {
    let config = JwtConfig {
        hmac_secret: Some(Secret::new(SECRET)),
        require_exp: false,
        ..JwtConfig::default()
    };
    Jwt::new(&config, None)
}

fn signed(jwt: &Jwt, header: &[u8], claims: &[u8]) {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let Ok(signature) = crypto::sign(message.as_bytes(), &key, Algorithm::HS256) else {
        return;
    };
    let token = format!("{message}.{signature}");
    let Ok(identity) = jwt.verify(&token, NOW) else {
        return;
    };
    assert_identity(&identity);
    assert!(identity.expires_at.is_none_or(|at| at > NOW), "its time is over");
    assert_eq!(jwt.verify(&token, NOW).ok(), Some(identity));
    let other = format!("{message}.{}", URL_SAFE_NO_PAD.encode([7; 32]));
    assert!(jwt.verify(&other, NOW).is_err(), "another signature");
}

fn assert_identity(identity: &Identity) {
    let user = identity.user.as_str();
    assert!(!user.is_empty() && user.len() <= 256 && !user.contains(char::is_control));
    assert!(identity.topics.len() <= 100);
}

/// A ticket that was signed says what it said; one byte changed, it says nothing.
fn ticket(fields: &[u8]) {
    let key = TicketKey::new(&[7; 32]);
    let Some(text) = Ticket::sealed(fields, &key) else {
        return;
    };
    let Some(ticket) = Ticket::open(&text, &key) else {
        return;
    };
    assert_identity(&Identity {
        topics: Vec::new(),
        ..ticket.identity.clone()
    });
    let again = ticket.seal(&key);
    assert_eq!(
        again.as_deref(),
        Some(text.as_str()),
        "it can be written in two ways"
    );
    assert!(Ticket::open(&text, &TicketKey::new(&[8; 32])).is_none());
}

/// Public keys, as a JWK set or as PEM, and patterns of topics. Each key of a set is one by itself.
pub fn key_set(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    match choice % 4 {
        0 => {
            if let Ok(set) = jwk::read(rest) {
                assert!(!set.keys.is_empty() && set.keys.len() + set.passed_over <= 100);
            }
        }
        1 if !text.contains("file:") => {
            if let Ok(keys) = PublicKey::read(&text) {
                assert!(!keys.is_empty() && keys.len() <= 16);
            }
        }
        // DER itself, without the wall of base64 before it.
        2 => drop(PublicKey::from_spki(rest)),
        _ => {
            let (pattern, topic) = text.split_once('\n').unwrap_or((&text, ""));
            let matches = |pattern: &str| patterns::matches_any(&[pattern.to_owned()], topic);
            assert!(
                !matches(pattern) || matches(&format!("{pattern}*")),
                "a star takes away"
            );
            assert_eq!(
                matches(&pattern.replace('*', "**")),
                matches(pattern),
                "two stars are one"
            );
            assert!(pattern.contains('*') || matches(pattern) == (pattern == topic));
        }
    }
}
