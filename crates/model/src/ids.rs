//! Names: who receives, what is delivered, what is subscribed to. Each type checks its alphabet once,
//! when it is made, so that no later code has to ask again. Cheap to clone (shared text).

use std::fmt;
use std::sync::Arc;

/// Why a text is not a valid id. The wording is shown to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {fault}")]
pub struct IdError {
    /// Which kind of id was asked for, e.g. `a user id`.
    pub what: &'static str,
    /// What is wrong with it, e.g. `is empty`.
    pub fault: &'static str,
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and takes a copy of it.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> Result<(), &'static str> = $check;
                check(text).map_err(|fault| IdError { what: $what, fault })?;
                Ok(Self(text.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        /// Found in a map by its text.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id_type!(
    /// A recipient: 1–256 bytes of UTF-8 without control characters.
    UserId,
    "a user id",
    |text| {
        check_length(text, 256, "is longer than 256 bytes")?;
        // Where all is ASCII, which is usual, there is no need to decode it.
        let holds_control = match text.is_ascii() {
            true => text.bytes().fold(false, |found, b| found | b.is_ascii_control()),
            false => text.chars().any(char::is_control),
        };
        if holds_control {
            return Err("holds a control character");
        }
        Ok(())
    }
);

id_type!(
    /// A topic: 1–128 of `A-Za-z0-9._:/@+~-`.
    Topic,
    "a topic",
    |text| {
        static ALPHABET: Alphabet = Alphabet::with(b"._:/@+~-");
        check_length(text, 128, "is longer than 128 characters")?;
        ALPHABET.check(text, "may hold only A-Z a-z 0-9 . _ : / @ + ~ -")
    }
);

id_type!(
    /// A notification's id: 1–128 of `A-Za-z0-9._:~+@-`. The same behind every transport.
    NotificationId,
    "a notification id",
    |text| {
        static ALPHABET: Alphabet = Alphabet::with(b"._:~+@-");
        check_length(text, 128, "is longer than 128 characters")?;
        ALPHABET.check(text, "may hold only A-Z a-z 0-9 . _ : ~ + @ -")
    }
);

id_type!(
    /// One live presence of a user on a node; told to the client in `hello`.
    SessionId,
    "a session id",
    |text| {
        static ALPHABET: Alphabet = Alphabet::with(b"-_");
        check_length(text, 64, "is longer than 64 characters")?;
        ALPHABET.check(text, "may hold only A-Z a-z 0-9 - _")
    }
);

fn check_length(text: &str, most: usize, too_long: &'static str) -> Result<(), &'static str> {
    match text.len() {
        0 => Err("is empty"),
        n if n > most => Err(too_long),
        _ => Ok(()),
    }
}

/// Which bytes an id may hold: a table, as ids are checked for every row that is read.
struct Alphabet([bool; 256]);

impl Alphabet {
    /// Letters and digits of ASCII, and these.
    const fn with(extra: &[u8]) -> Alphabet {
        let mut holds = [false; 256];
        let mut at = 0;
        while at < 256 {
            holds[at] = (at as u8).is_ascii_alphanumeric();
            at += 1;
        }
        at = 0;
        while at < extra.len() {
            holds[extra[at] as usize] = true;
            at += 1;
        }
        Alphabet(holds)
    }

    fn check(&self, text: &str, fault: &'static str) -> Result<(), &'static str> {
        // Without an early end, which would cost more than the bytes behind it.
        let good = text.bytes().fold(true, |good, b| good & self.0[usize::from(b)]);
        if good { Ok(()) } else { Err(fault) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabets_and_lengths() {
        for good in ["a", "Ada Lovelace", "ада", "a/b\"c", &"x".repeat(256)] {
            assert!(UserId::new(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "a\0b",
            "a\nb",
            "a\u{7f}b",
            "a\u{85}b",
            "а\nb",
            &"x".repeat(257),
        ] {
            assert!(UserId::new(bad).is_err(), "{bad:?}");
        }
        assert!(Topic::new("news/eu@1+x~y").is_ok());
        assert!(Topic::new("two words").is_err());
        assert!(NotificationId::new("a/b").is_err());
        assert!(NotificationId::new("order-7.shipped:1~x+y@z").is_ok());
        assert_eq!(
            Topic::new("ü").unwrap_err().to_string(),
            "a topic may hold only A-Z a-z 0-9 . _ : / @ + ~ -"
        );
    }

    #[test]
    fn every_byte_is_judged_by_itself() {
        for byte in 0..=127u8 {
            let text = format!("a{}b", char::from(byte));
            let good = byte.is_ascii_alphanumeric() || b"._:~+@-".contains(&byte);
            assert_eq!(NotificationId::new(&text).is_ok(), good, "{text:?}");
        }
    }
}
