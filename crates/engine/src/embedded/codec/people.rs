//! How the rows of the directory are written, and those of users' state maps.
//!
//! Invariant: what is read keeps the rules of its type: stays rise and none is empty, topics and keys rise.

use super::{Reader, Writer};
use crate::embedded::StoreFault;
use postrider_model::{Membership, Profile, Stay, Timestamp, Topic, UserState};
use std::collections::BTreeMap;

/// What faults call the table.
pub(in crate::embedded) const MEMBERSHIPS: &str = "memberships";

/// What the directory holds of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::embedded) struct UserRecord {
    pub profile: Profile,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
}

impl UserRecord {
    pub fn encode(&self) -> Vec<u8> {
        let Profile {
            email,
            mobile,
            locale,
            time_zone,
            attributes,
        } = &self.profile;
        let mut out = Writer::new().u64(self.created_at.0).u64(self.changed_at.0);
        for text in [email, mobile, locale, time_zone] {
            out = out.option(text.as_deref(), Writer::text);
        }
        out.texts(attributes).done()
    }

    pub fn decode(value: &[u8]) -> Result<UserRecord, StoreFault> {
        let mut r = Reader::new("users", value)?;
        let created_at = Timestamp(r.u64()?);
        let changed_at = Timestamp(r.u64()?);
        let owned = |r: &mut Reader<'_>| r.text().map(str::to_owned);
        let profile = Profile {
            email: r.option(owned)?,
            mobile: r.option(owned)?,
            locale: r.option(owned)?,
            time_zone: r.option(owned)?,
            attributes: r.texts()?,
        };
        r.end(UserRecord {
            profile,
            created_at,
            changed_at,
        })
    }
}

pub(in crate::embedded) fn encode_memberships(memberships: &[Membership]) -> Vec<u8> {
    let stay = |out: Writer, stay: &Stay| out.u64(stay.after).option(stay.through, Writer::u64);
    Writer::new()
        .list(memberships, |out, one| {
            out.text(one.topic.as_str()).list(&one.stays, stay)
        })
        .done()
}

pub(in crate::embedded) fn decode_memberships(value: &[u8]) -> Result<Vec<Membership>, StoreFault> {
    let mut r = Reader::new(MEMBERSHIPS, value)?;
    let stay = |r: &mut Reader<'_>| {
        Ok(Stay {
            after: r.u64()?,
            through: r.option(Reader::u64)?,
        })
    };
    let memberships = r.list(|r| {
        Ok(Membership {
            topic: r.id(Topic::new)?,
            stays: r.list(stay)?,
        })
    })?;
    let rise = memberships.windows(2).all(|two| two[0].topic < two[1].topic);
    if !rise || !memberships.iter().all(is_sound) {
        return Err(r.corrupt("stays that cannot be"));
    }
    r.end(memberships)
}

/// Whether its stays can have come about.
fn is_sound(membership: &Membership) -> bool {
    let stays = &membership.stays;
    let whole = |stay: &Stay| stay.through.is_none_or(|through| through > stay.after);
    let rise = |two: &[Stay]| two[0].through.is_some_and(|through| through < two[1].after);
    !stays.is_empty() && stays.iter().all(whole) && stays.windows(2).all(rise)
}

pub(in crate::embedded) fn encode_state(state: &UserState) -> Vec<u8> {
    Writer::new().u64(state.version()).texts(state.map()).done()
}

pub(in crate::embedded) fn decode_state(value: &[u8]) -> Result<UserState, StoreFault> {
    let mut r = Reader::new("states", value)?;
    let (version, map) = (r.u64()?, r.texts()?);
    r.end(UserState::new(version, map))
}

impl Writer {
    /// Texts by name.
    fn texts(self, map: &BTreeMap<String, String>) -> Self {
        let out = self.u32(map.len() as u32);
        map.iter()
            .fold(out, |out, (key, value)| out.text(key).text(value))
    }
}

impl Reader<'_> {
    fn texts(&mut self) -> Result<BTreeMap<String, String>, StoreFault> {
        let pairs = self.list(|r| Ok((r.text()?.to_owned(), r.text()?.to_owned())))?;
        match pairs.windows(2).all(|two| two[0].0 < two[1].0) {
            true => Ok(pairs.into_iter().collect()),
            false => Err(self.corrupt("names that do not rise")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user() -> UserRecord {
        let attributes = [("plan", "pro"), ("team", "ü")];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
        UserRecord {
            profile: Profile {
                email: Some("ada@example.org".into()),
                mobile: None,
                locale: Some("de-AT".into()),
                time_zone: Some(String::new()),
                attributes: attributes.into(),
            },
            created_at: Timestamp(5),
            changed_at: Timestamp(9),
        }
    }

    fn memberships() -> Vec<Membership> {
        let mut one = Membership::new(Topic::new("a").unwrap());
        let mut other = Membership::new(Topic::new("b/c").unwrap());
        for (at, joins) in [(3, true), (7, false), (9, true)] {
            assert!(if joins { one.join(at) } else { one.leave(at) });
        }
        assert!(other.join(0));
        vec![one, other]
    }

    fn state() -> UserState {
        UserState::new(7, [("unread".to_owned(), "3".to_owned())].into())
    }

    #[test]
    fn rows_read_back_and_any_cut_or_addition_is_an_error() {
        let rows = [
            user().encode(),
            encode_memberships(&memberships()),
            encode_state(&state()),
        ];
        let is_error = |at: usize, value: &[u8]| match at {
            0 => UserRecord::decode(value).is_err(),
            1 => decode_memberships(value).is_err(),
            _ => decode_state(value).is_err(),
        };
        assert_eq!(UserRecord::decode(&rows[0]).unwrap(), user());
        assert_eq!(decode_memberships(&rows[1]).unwrap(), memberships());
        assert_eq!(decode_state(&rows[2]).unwrap(), state());
        for (at, row) in rows.iter().enumerate() {
            for cut in 0..row.len() {
                assert!(is_error(at, &row[..cut]), "{at} cut at {cut}");
            }
            assert!(is_error(at, &[row, &b"\0"[..]].concat()), "{at} and more");
        }
    }

    #[test]
    fn stays_that_cannot_be_are_damage() {
        let of = |stays: &[(u64, Option<u64>)]| {
            let mut one = Membership::new(Topic::new("a").unwrap());
            let stays = stays.iter().map(|(after, through)| Stay {
                after: *after,
                through: *through,
            });
            one.stays.extend(stays);
            one
        };
        let bad = [
            vec![of(&[])],
            vec![of(&[(3, Some(3))])],
            vec![of(&[(3, None), (5, None)])],
            vec![of(&[(3, Some(5)), (5, None)])],
            vec![of(&[(3, None)]), of(&[(3, None)])],
        ];
        for bad in bad {
            assert!(decode_memberships(&encode_memberships(&bad)).is_err(), "{bad:?}");
        }
    }

    proptest! {
        /// Whatever a disk makes of a row, reading it is an answer or an error.
        #[test]
        fn damage_never_panics(cut in 0usize..200, flips in proptest::collection::vec((0usize..200, 0u8..8), 0..6)) {
            for mut value in [user().encode(), encode_memberships(&memberships()), encode_state(&state())] {
                value.truncate(cut);
                for (at, bit) in &flips {
                    if let Some(byte) = value.get_mut(*at) {
                        *byte ^= 1 << bit;
                    }
                }
                drop(UserRecord::decode(&value));
                drop(decode_memberships(&value));
                drop(decode_state(&value));
            }
        }
    }
}
