//! What is published, and its number found again in what is delivered.
//!
//! Invariant: `data` has exactly the size asked for, and holds the publication's number in ten digits, so that the
//! number is found without parsing JSON.

use memchr::memmem;

const OPENING: &[u8] = b"\"data\":{\"n\":\"";
const DIGITS: usize = 10;

/// Makes notifications whose `data` has one size.
pub struct Payload {
    filler: String,
}

impl Payload {
    /// `size` is the length of `data` in bytes.
    pub fn new(size: usize) -> Payload {
        let fixed = r#"{"n":"","p":""}"#.len() + DIGITS;
        Payload {
            filler: "x".repeat(size.saturating_sub(fixed)),
        }
    }

    /// A notification with this number, for a user or, without one, for everyone.
    pub fn push(&self, out: &mut Vec<u8>, user: Option<&str>, number: u64) {
        out.push(b'{');
        if let Some(user) = user {
            out.extend_from_slice(b"\"users\":[\"");
            out.extend_from_slice(user.as_bytes());
            out.extend_from_slice(b"\"],");
        }
        out.extend_from_slice(OPENING);
        out.extend_from_slice(&digits(number));
        out.extend_from_slice(b"\",\"p\":\"");
        out.extend_from_slice(self.filler.as_bytes());
        out.extend_from_slice(b"\"}}");
    }
}

fn digits(mut number: u64) -> [u8; DIGITS] {
    let mut out = [b'0'; DIGITS];
    for digit in out.iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    out
}

/// Finds numbers. Remembers where the last one stood, as most messages are built alike.
#[derive(Default)]
pub struct Numbers {
    last_at: usize,
}

impl Numbers {
    /// The number of the one notification in `message`; `None` if it is none of ours.
    pub fn only(&mut self, message: &[u8]) -> Option<u64> {
        let same = message
            .get(self.last_at..)
            .is_some_and(|rest| rest.starts_with(OPENING));
        if !same {
            self.last_at = memmem::find(message, OPENING)?;
        }
        number_at(message, self.last_at)
    }
}

/// The numbers of all notifications in `message`, in their order.
pub fn all_numbers(message: &[u8]) -> impl Iterator<Item = u64> + '_ {
    memmem::find_iter(message, OPENING).filter_map(|at| number_at(message, at))
}

fn number_at(message: &[u8], at: usize) -> Option<u64> {
    let digits = message.get(at + OPENING.len()..)?.get(..DIGITS)?;
    digits.iter().try_fold(0u64, |sum, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_again_and_the_size_is_exact() {
        let mut out = Vec::new();
        Payload::new(200).push(&mut out, Some("u1"), 1_234_567_890);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["data"].to_string().len(), 200);
        assert_eq!(value["users"][0], "u1");
        assert_eq!(Numbers::default().only(&out), Some(1_234_567_890));
        Payload::new(40).push(&mut out, None, 7);
        assert_eq!(all_numbers(&out).collect::<Vec<_>>(), [1_234_567_890, 7]);
    }

    #[test]
    fn other_messages_have_none() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.only(br#"{"type":"cursor","cursor":"AQA"}"#), None);
        assert_eq!(numbers.only(b"\"data\":{\"n\":\"12\"}"), None);
    }
}
