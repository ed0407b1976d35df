//! One ticket as text: all that it says, signed, so that it need not be remembered.
//!
//! The bytes, before base64url without padding: version (1) · maker (8) · nonce (16) · issued (u64) · starts
//! until (u64) · token ends (u64, all ones for never) · user (u16 length, UTF-8) · number of topic patterns
//! (u8), each (u16 length, UTF-8) · HMAC-SHA256 of everything before it (32). Numbers are big-endian, times
//! in milliseconds since 1970.
//!
//! Invariant: nothing of a ticket is looked at before its signature has been checked.

use super::ticket_key::{MAC_BYTES, TicketKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postrider_model::{Timestamp, UserId};
use postrider_transports::Identity;

/// A ticket is no longer than this, as text: it has to fit in a URL.
pub(super) const TICKET_BYTES: usize = 2048;
/// The first byte.
const VERSION: u8 = 1;
/// Stands for a token without an end.
const NEVER: u64 = u64::MAX;

/// The process that made a ticket.
pub(super) type Maker = [u8; 8];
/// What tells one ticket from another.
pub(super) type Nonce = [u8; 16];

/// What a ticket says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    pub maker: Maker,
    pub nonce: Nonce,
    pub issued: Timestamp,
    /// Until when it can start a session.
    pub starts_until: Timestamp,
    pub identity: Identity,
}

impl Ticket {
    /// Signed, as text; `None` where that would be too long.
    pub(super) fn seal(&self, key: &TicketKey) -> Option<String> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.maker);
        bytes.extend(self.nonce);
        let ends = self.identity.expires_at.map_or(NEVER, |at| at.0);
        for number in [self.issued.0, self.starts_until.0, ends] {
            bytes.extend(number.to_be_bytes());
        }
        push_text(&mut bytes, self.identity.user.as_str())?;
        bytes.push(u8::try_from(self.identity.topics.len()).ok()?);
        for pattern in &self.identity.topics {
            push_text(&mut bytes, pattern)?;
        }
        let mac = URL_SAFE_NO_PAD.decode(key.sign(&bytes).ok()?).ok()?;
        bytes.extend(mac);
        let text = URL_SAFE_NO_PAD.encode(bytes);
        (text.len() <= TICKET_BYTES).then_some(text)
    }

    /// What a text says, if it is a ticket that was signed with this key.
    pub(super) fn open(text: &str, key: &TicketKey) -> Option<Ticket> {
        if text.len() > TICKET_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (signed, mac) = bytes.split_last_chunk::<MAC_BYTES>()?;
        if !key.is_of(&URL_SAFE_NO_PAD.encode(mac), signed) {
            return None;
        }
        Fields(signed).ticket()
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Ticket {
    /// Any bytes, with the right signature.
    pub(super) fn sealed(fields: &[u8], key: &TicketKey) -> Option<String> {
        let mac = URL_SAFE_NO_PAD.decode(key.sign(fields).ok()?).ok()?;
        Some(URL_SAFE_NO_PAD.encode([fields, &mac].concat()))
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) -> Option<()> {
    bytes.extend(u16::try_from(text.len()).ok()?.to_be_bytes());
    bytes.extend(text.as_bytes());
    Some(())
}

/// What is left to read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn ticket(mut self) -> Option<Ticket> {
        if self.array()? != [VERSION] {
            return None;
        }
        let (maker, nonce) = (self.array()?, self.array()?);
        let (issued, starts_until) = (self.time()?, self.time()?);
        let expires_at = Some(self.time()?).filter(|at| at.0 != NEVER);
        let user = UserId::new(&self.text()?).ok()?;
        let [patterns] = self.array()?;
        let topics = (0..patterns).map(|_| self.text()).collect::<Option<_>>()?;
        let identity = Identity {
            user,
            expires_at,
            topics,
        };
        self.0.is_empty().then_some(Ticket {
            maker,
            nonce,
            issued,
            starts_until,
            identity,
        })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn time(&mut self) -> Option<Timestamp> {
        Some(Timestamp(u64::from_be_bytes(self.array()?)))
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TicketKey {
        TicketKey::new(&[7; 32])
    }

    fn ticket(user: &str, expires_at: Option<Timestamp>, topics: Vec<String>) -> Ticket {
        Ticket {
            maker: [1; 8],
            nonce: [2; 16],
            issued: Timestamp(5),
            starts_until: Timestamp(10),
            identity: Identity {
                user: UserId::new(user).unwrap(),
                expires_at,
                topics,
            },
        }
    }

    #[test]
    fn says_what_it_was_given() {
        for ticket in [
            ticket("ada", None, Vec::new()),
            ticket("\u{e9}\u{1f600} b", Some(Timestamp(0)), vec!["*".into()]),
            ticket(&"u".repeat(256), Some(Timestamp::MAX), vec!["news/*".into(); 100]),
        ] {
            let text = ticket.seal(&key()).unwrap();
            assert!(text.len() <= TICKET_BYTES);
            assert_eq!(Ticket::open(&text, &key()), Some(ticket));
        }
    }

    #[test]
    fn what_would_be_too_long_is_not_made() {
        for topics in [
            vec!["p".repeat(256); 6],
            vec!["x".into(); 256],
            vec!["y".repeat(70_000)],
        ] {
            assert_eq!(ticket("ada", None, topics).seal(&key()), None);
        }
    }

    #[test]
    fn no_byte_of_it_can_be_changed_taken_away_or_added() {
        let text = ticket("ada", Some(Timestamp(99)), vec!["news/*".into()])
            .seal(&key())
            .unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(
                    Ticket::open(&URL_SAFE_NO_PAD.encode(changed), &key()),
                    None,
                    "byte {at} bit {bit}"
                );
            }
            assert_eq!(
                Ticket::open(&URL_SAFE_NO_PAD.encode(&bytes[..at]), &key()),
                None,
                "{at} bytes"
            );
        }
        for at in 0..text.len() {
            for other in "Aa0-_%=.".chars().filter(|c| !text[at..].starts_with(*c)) {
                let mut changed = text.clone();
                changed.replace_range(at..=at, &other.to_string());
                assert_eq!(Ticket::open(&changed, &key()), None, "letter {at} as {other}");
            }
        }
        for longer in [format!("{text}A"), format!("{text}="), format!("A{text}")] {
            assert_eq!(Ticket::open(&longer, &key()), None);
        }
    }

    #[test]
    fn what_is_no_ticket_is_refused() {
        let text = ticket("ada", None, Vec::new()).seal(&key()).unwrap();
        assert_eq!(Ticket::open(&text, &TicketKey::new(&[8; 32])), None);
        for text in ["", "A", "made up", "a.b.c", &"A".repeat(43), &"A".repeat(4096)] {
            assert_eq!(Ticket::open(text, &key()), None, "{text}");
        }
        // Well signed, but not of a shape that this version makes.
        for signed in [&[][..], &[2], &[1], &[1; 30], &[1; 200]] {
            let mac = URL_SAFE_NO_PAD.decode(key().sign(signed).unwrap()).unwrap();
            let text = URL_SAFE_NO_PAD.encode([signed, &mac].concat());
            assert_eq!(Ticket::open(&text, &key()), None, "{signed:?}");
        }
    }
}
