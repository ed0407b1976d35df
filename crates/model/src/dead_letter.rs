//! What nothing could deliver: kept with its reason, to be read, redriven or thrown away.

use crate::{NotificationId, Timestamp, UserId};
use bytes::Bytes;

/// Most bytes of a dead letter's detail: enough to say what is wrong, too few to be a second body.
const MAX_DETAIL: usize = 500;
/// Ends a detail that was cut.
const CUT: &str = "…";

/// Names one dead letter. Their order as text is the order in which they were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeadLetterId(pub u64);

impl DeadLetterId {
    /// Before all others.
    pub const START: DeadLetterId = DeadLetterId(0);

    /// Reads what [`fmt::Display`](std::fmt::Display) wrote.
    pub fn parse(text: &str) -> Option<DeadLetterId> {
        let digits = text.strip_prefix("dl-")?;
        let plain = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        plain
            .then(|| u64::from_str_radix(digits, 16).ok().map(DeadLetterId))
            .flatten()
    }
}

impl std::fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "dl-{:016x}", self.0)
    }
}

/// Why something was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DeadReason {
    /// It was attempted as often as is allowed, and nobody acknowledged it.
    MaxAttempts = 1,
    /// A source's message that no notification could be made of.
    Undecodable = 2,
    /// The user's feed was full, and this was its oldest.
    Overflow = 3,
    /// Its body cannot be read any more.
    Lost = 4,
    /// A policy ended here.
    Policy = 5,
}

impl DeadReason {
    /// All of them.
    pub const ALL: [DeadReason; 5] = [
        DeadReason::MaxAttempts,
        DeadReason::Undecodable,
        DeadReason::Overflow,
        DeadReason::Lost,
        DeadReason::Policy,
    ];

    /// The word for it in the interface.
    pub fn as_str(self) -> &'static str {
        match self {
            DeadReason::MaxAttempts => "max_attempts",
            DeadReason::Undecodable => "undecodable",
            DeadReason::Overflow => "overflow",
            DeadReason::Lost => "lost",
            DeadReason::Policy => "policy",
        }
    }

    /// Reads that word.
    pub fn parse(text: &str) -> Option<DeadReason> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// Reads the byte that is kept in stores.
    pub fn from_byte(byte: u8) -> Option<DeadReason> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == byte)
    }
}

/// One recipient's notification, or one source's message, that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its own id.
    pub id: DeadLetterId,
    /// The notification; `None` where none could be made.
    pub notification: Option<NotificationId>,
    /// For whom; `None` where that is not known.
    pub user: Option<UserId>,
    /// Why.
    pub reason: DeadReason,
    /// What was wrong, in words for an operator, where more is known than the reason: see [`DeadLetter::detail_of`].
    pub detail: Option<String>,
    /// The API key or source that it came from.
    pub source: String,
    /// How often it was attempted.
    pub attempts: u32,
    /// When it was given up.
    pub time: Timestamp,
    /// The notification's line for people.
    pub subject: Option<String>,
    /// What was to be delivered.
    pub body: DeadBody,
}

impl DeadLetter {
    /// A detail that can be kept: at most 500 bytes of it, where it was longer with an ellipsis at the end; `None` where
    /// there is no text. Engines keep no other.
    pub fn detail_of(text: &str) -> Option<String> {
        let text = text.trim();
        match text.len() {
            0 => None,
            1..=MAX_DETAIL => Some(text.to_owned()),
            _ => {
                let end = text.floor_char_boundary(MAX_DETAIL - CUT.len());
                Some(format!("{}{CUT}", &text[..end]))
            }
        }
    }
}

/// The body of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadBody {
    /// The notification's data: JSON.
    Data(Bytes),
    /// A message as it came.
    Raw(Bytes),
    /// It cannot be read any more.
    Missing,
}

impl DeadBody {
    /// Bytes of it.
    pub fn len(&self) -> usize {
        match self {
            DeadBody::Data(bytes) | DeadBody::Raw(bytes) => bytes.len(),
            DeadBody::Missing => 0,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which dead letters are asked for; every part narrows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Only this user's.
    pub user: Option<UserId>,
    /// Only for this reason.
    pub reason: Option<DeadReason>,
    /// Only from this API key or source.
    pub source: Option<String>,
    /// Leave subjects and bodies out of what is found.
    pub bare: bool,
}

/// A stretch of the dead letters, oldest first.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterPage {
    /// Those that fit the filter.
    pub letters: Vec<DeadLetter>,
    /// Where to go on; `None` at the end. A page may be empty and yet not the last, when the filter passed
    /// over many.
    pub after: Option<DeadLetterId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_keep_their_order() {
        let ids = [0, 1, 0x1234, u64::MAX].map(DeadLetterId);
        for pair in ids.windows(2) {
            assert!(pair[0].to_string() < pair[1].to_string());
        }
        for id in ids {
            assert_eq!(DeadLetterId::parse(&id.to_string()), Some(id));
        }
        for bad in [
            "",
            "dl-",
            "dl-12",
            "dl-+000000000000001",
            "dl-000000000000000G",
            "0000000000000001",
        ] {
            assert_eq!(DeadLetterId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_detail_is_bounded_and_whole_characters() {
        assert_eq!(DeadLetter::detail_of(""), None);
        assert_eq!(DeadLetter::detail_of(" \n"), None);
        assert_eq!(DeadLetter::detail_of(" no JSON\n").as_deref(), Some("no JSON"));
        let most = "x".repeat(MAX_DETAIL);
        assert_eq!(DeadLetter::detail_of(&most).as_deref(), Some(&*most));
        for text in [
            "x".repeat(MAX_DETAIL + 1),
            "é".repeat(MAX_DETAIL),
            "€".repeat(10_000),
        ] {
            let detail = DeadLetter::detail_of(&text).unwrap();
            let kept = detail.strip_suffix(CUT).unwrap();
            assert!(detail.len() <= MAX_DETAIL && text.starts_with(kept));
            assert!(kept.len() > MAX_DETAIL - CUT.len() - 4, "{}", kept.len());
            assert_eq!(DeadLetter::detail_of(&detail), Some(detail), "again");
        }
    }

    #[test]
    fn reasons_read_back() {
        for reason in DeadReason::ALL {
            assert_eq!(DeadReason::parse(reason.as_str()), Some(reason));
            assert_eq!(DeadReason::from_byte(reason as u8), Some(reason));
        }
    }
}
