//! The form of a time in text, as RFC 3339, section 5.6, demands it: `2026-12-01T09:00:00Z`, or with a fraction of a
//! second, or an offset from UTC instead of the `Z`. `T` and `Z` may be small.
//!
//! Invariant: what comes out is what went in, but for the digits of a fraction beyond a nanosecond.
//!
//! It knows no calendar: whether there is such a day is for others to say. What ISO 8601 allows besides is refused: a
//! space for the `T`, a comma, no seconds, no zone, a basic form, an offset of hours alone.

use std::borrow::Cow;

/// Of each character: a digit, or this one.
const TO_THE_SECOND: &[u8] = b"0000-00-00T00:00:00";
const OFFSET: &[u8] = b"00:00";
/// Digits of a fraction that are read.
const FRACTION: usize = 9;

/// The text, if it has that form.
pub(crate) fn in_form(text: &str) -> Option<Cow<'_, str>> {
    let (time, rest) = text.as_bytes().split_at_checked(TO_THE_SECOND.len())?;
    if !fits(TO_THE_SECOND, time) {
        return None;
    }
    let mut digits = 0;
    let zone = match rest {
        [b'.', fraction @ ..] => {
            digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            &fraction[digits..]
        }
        zone => zone,
    };
    let is_zone = match zone {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', offset @ ..] => fits(OFFSET, offset) && offset <= &b"23:59"[..] && offset[3] <= b'5',
        _ => false,
    };
    if !is_zone {
        return None;
    }
    if digits <= FRACTION {
        return Some(text.into());
    }
    let until = TO_THE_SECOND.len() + 1 + FRACTION;
    Some([&text[..until], &text[text.len() - zone.len()..]].concat().into())
}

fn fits(form: &[u8], text: &[u8]) -> bool {
    let fits = |(form, byte): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        form => form.eq_ignore_ascii_case(byte),
    };
    form.len() == text.len() && form.iter().zip(text).all(fits)
}

#[cfg(test)]
mod tests {
    use crate::Timestamp;

    #[test]
    fn what_rfc_3339_allows_is_read() {
        let at = |text: &str| {
            Timestamp::parse_rfc3339(text)
                .unwrap_or_else(|| panic!("{text}"))
                .0
        };
        let nine = at("2026-12-01T09:00:00Z");
        for text in [
            "2026-12-01t09:00:00z",
            "2026-12-01T10:00:00+01:00",
            "2026-12-01T09:00:00-00:00",
            "2026-12-02T08:59:00+23:59",
            "2026-12-01T09:00:00.0Z",
        ] {
            assert_eq!(at(text), nine, "{text}");
        }
        assert_eq!(at("2026-12-01T09:00:00.0019999999999999999999Z"), nine + 1);
        assert_eq!(at("2026-12-01T09:00:00.25-00:30"), nine + 1_800_250);
        // A leap second, which the clock of computers does not have.
        assert_eq!(at("2016-12-31T23:59:60Z"), at("2016-12-31T23:59:59Z"));
    }

    #[test]
    fn what_it_does_not_is_refused() {
        for text in [
            "",
            "2026-12-01",
            "2026-12-01T09:00:00",
            "2026-12-01 09:00:00Z",
            "2026-12-01T09:00Z",
            "2026-12-01T09Z",
            "20261201T090000Z",
            "2026-335T09:00:00Z",
            "2026-W49-2T09:00:00Z",
            "2026-12-01T09:00:00,5Z",
            "2026-12-01T09:00:00.Z",
            "2026-12-01T09:00:00+01",
            "2026-12-01T09:00:00+0100",
            "2026-12-01T09:00:00+01:00:00",
            "2026-12-01T09:00:00+24:00",
            "2026-12-01T09:00:00+01:60",
            "2026-12-01T09:00:00Z[UTC]",
            "2026-12-01T09:00:00+01:00[Europe/Paris]",
            "2026-12-01T09:00:00 Z",
            " 2026-12-01T09:00:00Z",
            "2026-12-01T09:00:00Z ",
            "+002026-12-01T09:00:00Z",
            "-2026-12-01T09:00:00Z",
            "2026-13-01T09:00:00Z",
            "2026-02-29T09:00:00Z",
            "2026-12-01T24:00:00Z",
            "2026-12-01T09:60:00Z",
            "2026-12-01T09:00:61Z",
            "1969-12-31T23:59:59Z",
            "2026-12-01T09:00:0٣Z",
        ] {
            assert_eq!(Timestamp::parse_rfc3339(text), None, "{text}");
        }
    }
}
