//! What a token claims, once its signature is known to be good: is it of this time, this issuer, for this
//! audience, and of which user. Pure: the time comes in.
//!
//! Invariant: a name that stands twice in an object is refused (RFC 7519, 4): two readers could take either.

use super::jwt::JwtConfig;
use postrider_model::{Timestamp, UserId};
use postrider_transports::{Identity, Problem};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::num::NonZeroU64;

/// More patterns than this in the claim `topics` are not looked at.
const TOPIC_PATTERNS: usize = 100;

/// When a token is good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    exp: Option<Date>,
    nbf: Option<Date>,
}

/// A moment that a claim names, in eight bytes with there being none: a millisecond more than a [`Timestamp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Date(NonZeroU64);

impl From<Timestamp> for Date {
    fn from(at: Timestamp) -> Date {
        Date(NonZeroU64::MIN.saturating_add(at.0))
    }
}

impl From<Date> for Timestamp {
    fn from(Date(at): Date) -> Timestamp {
        Timestamp(at.get() - 1)
    }
}

/// The user whom the claims speak of, if all of them hold at `now`; and when they do.
pub(super) fn identity(
    claims: &Map<String, Value>,
    config: &JwtConfig,
    now: Timestamp,
) -> Result<(Identity, Times), Problem> {
    let times = Times::read(claims, config, now)?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if let Some(issuers) = &config.issuer
        && !text("iss").is_some_and(|issuer| issuers.contains(issuer))
    {
        return Err(Problem::token_claims());
    }
    if let Some(audiences) = &config.audience {
        let listed = claims.get("aud").and_then(Value::as_array);
        let mut given = listed
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .chain(text("aud"));
        if !given.any(|audience| audiences.contains(audience)) {
            return Err(Problem::token_claims());
        }
    }
    let identity = Identity {
        user: user(claims, &config.user_claim)?,
        expires_at: times.ends(config, now),
        topics: topic_patterns(claims)?,
    };
    Ok((identity, times))
}

impl Times {
    fn read(claims: &Map<String, Value>, config: &JwtConfig, now: Timestamp) -> Result<Times, Problem> {
        let exp = numeric_date(claims, "exp")?.map(Date::from);
        let mut times = Times { exp, nbf: None };
        times.check(config, now)?;
        times.nbf = numeric_date(claims, "nbf")?.map(Date::from);
        times.check(config, now)?;
        Ok(times)
    }

    /// Whether the token is good at `now`.
    pub fn check(&self, config: &JwtConfig, now: Timestamp) -> Result<(), Problem> {
        match self.exp.map(Timestamp::from) {
            None if config.require_exp => return Err(Problem::token_claims()),
            Some(exp) if exp.plus(config.leeway) <= now => return Err(Problem::token_expired()),
            _ => {}
        }
        match self.nbf.map(Timestamp::from) {
            Some(nbf) if nbf > now.plus(config.leeway) => Err(Problem::token_expired()),
            _ => Ok(()),
        }
    }

    /// `exp`; for a token that is good only by the leeway, the end of the leeway.
    pub fn ends(&self, config: &JwtConfig, now: Timestamp) -> Option<Timestamp> {
        let exp = Timestamp::from(self.exp?);
        Some(if exp > now { exp } else { exp.plus(config.leeway) })
    }
}

/// The claim of that name, or, where there is none, the one that the name leads to as a path: `app.user` is
/// `user` in `app`. A name with dots of its own, such as a URL, goes first.
fn user(claims: &Map<String, Value>, name: &str) -> Result<UserId, Problem> {
    let text = match claims.get(name).or_else(|| at_path(claims, name)) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => number.to_string(),
        _ => return Err(Problem::token_claims()),
    };
    UserId::new(&text).map_err(|_| Problem::token_claims())
}

fn at_path<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.')?;
    rest.split('.')
        .try_fold(claims.get(first)?, |value, name| value.get(name))
}

/// The patterns of session topics that the token allows.
fn topic_patterns(claims: &Map<String, Value>) -> Result<Vec<String>, Problem> {
    let Some(claim) = claims.get("topics") else {
        return Ok(Vec::new());
    };
    let items = claim.as_array().ok_or_else(Problem::token_claims)?;
    let texts = items.iter().take(TOPIC_PATTERNS);
    texts
        .map(|item| item.as_str().map(str::to_owned).ok_or_else(Problem::token_claims))
        .collect()
}

/// Seconds since 1970, possibly with a fraction (RFC 7519, 2).
fn numeric_date(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, Problem> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value
        .as_f64()
        .filter(|s| s.is_finite())
        .ok_or_else(Problem::token_claims)?;
    Ok(Some(Timestamp(
        ((seconds.max(0.0) * 1000.0) as u64).min(Timestamp::MAX.0),
    )))
}

/// A JSON object whose names are all different.
pub(super) struct Unique(pub Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Unique, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Unique;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut given: M) -> Result<Unique, M::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = given.next_entry()? {
                    if map.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a name stands twice"));
                    }
                }
                Ok(Unique(map))
            }
        }
        d.deserialize_map(Names)
    }
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
