//! What is published, and its number found again in what is delivered.
//!
//! Invariant: `data` has exactly the size asked for, and holds the run's tag and the publication's number in ten
//! digits, so that the number is found without parsing JSON, and what others publish is not taken for ours.

use memchr::memmem;

const DIGITS: usize = 10;
/// The largest number that has its digits.
pub const MAX_NUMBER: u64 = 9_999_999_999;

/// Makes notifications whose `data` has one size, and finds their numbers.
#[derive(Clone)]
pub struct Payload {
    /// What stands before the number.
    opening: Vec<u8>,
    filler: String,
    /// Fields of the notification beside `data` and `users`, each with a comma behind it.
    more: String,
}

impl Payload {
    /// `size` is the length of `data` in bytes; `tag` is this run's, of letters and digits.
    pub fn new(size: usize, tag: &str) -> Payload {
        let fixed = r#"{"r":"","n":"","p":""}"#.len() + DIGITS + tag.len();
        Payload {
            opening: format!(r#""data":{{"r":"{tag}","n":""#).into_bytes(),
            filler: "x".repeat(size.saturating_sub(fixed)),
            more: String::new(),
        }
    }

    /// The same with more fields, as they stand in JSON, each with a comma behind it.
    #[must_use]
    pub fn with(mut self, fields: &str) -> Payload {
        self.more.push_str(fields);
        self
    }

    /// A notification with this number, for a user or, without one, for whom `with` says or everyone.
    pub fn push(&self, out: &mut Vec<u8>, user: Option<&str>, number: u64) {
        out.push(b'{');
        if let Some(user) = user {
            out.extend_from_slice(b"\"users\":[\"");
            out.extend_from_slice(user.as_bytes());
            out.extend_from_slice(b"\"],");
        }
        out.extend_from_slice(self.more.as_bytes());
        self.push_data(out, number);
        out.push(b'}');
    }

    /// Its `data` alone, with its name: what a delivery must hold.
    pub fn push_data(&self, out: &mut Vec<u8>, number: u64) {
        out.extend_from_slice(&self.opening);
        out.extend_from_slice(&digits(number));
        out.extend_from_slice(b"\",\"p\":\"");
        out.extend_from_slice(self.filler.as_bytes());
        out.extend_from_slice(b"\"}");
    }

    /// Finds this run's numbers.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            opening: memmem::Finder::new(&self.opening).into_owned(),
            last_at: 0,
        }
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
pub struct Numbers {
    opening: memmem::Finder<'static>,
    last_at: usize,
}

impl Numbers {
    /// The number of the one notification in `message`; `None` if it is none of ours.
    pub fn only(&mut self, message: &[u8]) -> Option<u64> {
        let same = message
            .get(self.last_at..)
            .is_some_and(|rest| rest.starts_with(self.opening.needle()));
        if !same {
            self.last_at = self.opening.find(message)?;
        }
        self.number_at(message, self.last_at)
    }

    /// The numbers of all notifications in `message`, in their order.
    pub fn all<'a>(&'a self, message: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
        self.opening
            .find_iter(message)
            .filter_map(|at| self.number_at(message, at))
    }

    fn number_at(&self, message: &[u8], at: usize) -> Option<u64> {
        let digits = message.get(at + self.opening.needle().len()..)?.get(..DIGITS)?;
        digits.iter().try_fold(0u64, |sum, digit| {
            digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_again_and_the_size_is_exact() {
        let mut out = Vec::new();
        let payload = Payload::new(200, "t1").with("\"ttl\":\"5m\",");
        payload.push(&mut out, Some("u1"), 1_234_567_890);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["data"].to_string().len(), 200);
        assert_eq!((&value["users"][0], &value["ttl"]), (&"u1".into(), &"5m".into()));
        assert_eq!(payload.numbers().only(&out), Some(1_234_567_890));
        Payload::new(60, "t1").push(&mut out, None, 7);
        assert_eq!(
            payload.numbers().all(&out).collect::<Vec<_>>(),
            [1_234_567_890, 7]
        );
    }

    #[test]
    fn other_messages_have_none() {
        let mut numbers = Payload::new(64, "t1").numbers();
        assert_eq!(numbers.only(br#"{"type":"cursor","cursor":"AQA"}"#), None);
        assert_eq!(numbers.only(b"\"data\":{\"r\":\"t1\",\"n\":\"12\"}"), None);
        let mut of_another_run = Vec::new();
        Payload::new(64, "t2").push(&mut of_another_run, None, 3);
        assert_eq!(numbers.only(&of_another_run), None);
    }
}
