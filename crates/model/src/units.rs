//! Points in time, lengths of time and sizes, with the text forms that configuration and JSON use.

use std::fmt;

/// Why a text is not a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a number with a known unit.
    #[error("`{0}` is not a duration: write a number and ms, s, m, h or d, such as 30s or 24h")]
    Duration(String),
    /// Not a number with a known unit.
    #[error("`{0}` is not a size: write a number and B, KiB, MiB or GiB, such as 256KiB")]
    Size(String),
}

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The last instant that RFC 3339 can write (the end of the year 9999).
    pub const MAX: Timestamp = Timestamp(253_402_207_199_999);

    /// Adds, stopping at [`Timestamp::MAX`].
    pub fn plus(self, span: Millis) -> Timestamp {
        Timestamp(self.0.saturating_add(span.0).min(Self::MAX.0))
    }

    /// How long after `earlier` this is; zero where it is not after.
    pub fn since(self, earlier: Timestamp) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    /// Reads a time as RFC 3339 writes it, e.g. `2026-12-01T09:00:00Z`, and nothing else that ISO 8601 allows.
    pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
        let at: jiff::Timestamp = crate::date_time::in_form(text)?.parse().ok()?;
        let at = u64::try_from(at.as_millisecond()).ok().map(Timestamp);
        at.filter(|at| *at <= Timestamp::MAX)
    }

    /// RFC 3339 in UTC with milliseconds, as every entry that is sent has it: a calendar library takes ten times as
    /// long.
    pub fn rfc3339(self) -> [u8; 24] {
        let ms = self.0.min(Self::MAX.0);
        let (day, time) = (ms / MS_OF_DAY, ms % MS_OF_DAY);
        let (year, month, day) = date(day);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |at: usize, digits: usize, mut number: u64| {
            for digit in text[at..at + digits].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, time / 3_600_000);
        put(14, 2, time / 60_000 % 60);
        put(17, 2, time / 1000 % 60);
        put(20, 3, time % 1000);
        text
    }
}

const MS_OF_DAY: u64 = 86_400_000;

/// The year, month and day of the Gregorian calendar, so many days after 1970-01-01. Years are counted from March, so
/// that the day that comes and goes is the last (Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, day)
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.rfc3339()).map_err(|_| fmt::Error)?)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A length of time in milliseconds. Text form: `250ms`, `30s`, `5m`, `24h`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Millis(seconds.saturating_mul(1000))
    }

    /// The same as a standard duration.
    pub const fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }

    /// Reads `30s`, `1.5h`, `250ms`; a unit is required.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let units = [("ms", 1.0), ("s", 1e3), ("m", 6e4), ("h", 3.6e6), ("d", 8.64e7)];
        let fail = || UnitError::Duration(text.into());
        let (number, factor) = split_unit(text, &units).ok_or_else(fail)?;
        let ms = number * factor;
        if ms > 9e15 {
            Err(fail())
        } else {
            Ok(Millis(ms.round() as u64))
        }
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
        match steps
            .iter()
            .find(|(n, _)| self.0 != 0 && self.0.is_multiple_of(*n))
        {
            Some((n, unit)) => write!(f, "{}{unit}", self.0 / n),
            None if self.0 == 0 => f.write_str("0s"),
            None => write!(f, "{}ms", self.0),
        }
    }
}

/// A number of bytes. Text form: `0`, `512B`, `256KiB`, `16MiB`, `10GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// So many kibibytes.
    pub const fn kib(n: u64) -> Self {
        ByteSize(n << 10)
    }

    /// So many mebibytes.
    pub const fn mib(n: u64) -> Self {
        ByteSize(n << 20)
    }

    /// So many gibibytes.
    pub const fn gib(n: u64) -> Self {
        ByteSize(n << 30)
    }

    /// As a length in memory.
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }

    /// Reads `256KiB` and the like; a bare number is bytes.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let kibi = 1024.0;
        let units = [
            ("KiB", kibi),
            ("MiB", kibi * kibi),
            ("GiB", kibi * kibi * kibi),
            ("TiB", kibi * kibi * kibi * kibi),
            ("B", 1.0),
            ("", 1.0),
        ];
        let fail = || UnitError::Size(text.into());
        let (number, factor) = split_unit(text, &units).ok_or_else(fail)?;
        let bytes = number * factor;
        if bytes > 9e15 {
            Err(fail())
        } else {
            Ok(ByteSize(bytes.round() as u64))
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match steps
            .iter()
            .find(|(n, _)| self.0 != 0 && self.0.is_multiple_of(*n))
        {
            Some((n, unit)) => write!(f, "{}{unit}", self.0 / n),
            None => write!(f, "{}B", self.0),
        }
    }
}

fn split_unit(text: &str, units: &[(&str, f64)]) -> Option<(f64, f64)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = units.iter().find(|(name, _)| *name == unit.trim())?.1;
    let number: f64 = number.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some((number, factor))
}

macro_rules! text_form {
    ($name:ident, $number_means:expr) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            /// Accepts the text form, or a bare number.
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Visit;
                impl serde::de::Visitor<'_> for Visit {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a number with a unit, or a bare number")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::parse(text).map_err(E::custom)
                    }
                    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<$name, E> {
                        $number_means(n).ok_or_else(|| E::custom("the number is too large"))
                    }
                    fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<$name, E> {
                        let n = u64::try_from(n).map_err(|_| E::custom("a negative number"))?;
                        self.visit_u64(n)
                    }
                }
                d.deserialize_any(Visit)
            }
        }
    };
}

/// The schema of a number with one of these units, or without.
macro_rules! unit_schema {
    ($name:ident, $kind:literal, $pattern:literal) => {
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": ["string", "integer"],
                    "pattern": $pattern,
                    "minimum": 0,
                    "x-type": $kind,
                })
            }
        }
    };
}

unit_schema!(Millis, "duration", r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)$");
unit_schema!(ByteSize, "size", r"^[0-9]+(\.[0-9]+)? ?(B|KiB|MiB|GiB|TiB)?$");
text_form!(Millis, |n: u64| n
    .checked_mul(1000)
    .filter(|ms| *ms < 9_000_000_000_000_000)
    .map(Millis));
text_form!(ByteSize, |n: u64| Some(ByteSize(n)));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("30s", 30_000),
            ("24h", 86_400_000),
            ("250ms", 250),
            ("1.5h", 5_400_000),
            ("30d", 2_592_000_000),
        ] {
            assert_eq!(Millis::parse(text), Ok(Millis(ms)), "{text}");
        }
        for bad in [
            "",
            "s",
            "30",
            "-1s",
            "1w",
            "1e3s",
            "nan",
            "inf s",
            "99999999999999d",
        ] {
            assert!(Millis::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Millis(90_000).to_string(), "90s");
        assert_eq!(Millis(0).to_string(), "0s");
        assert_eq!(serde_json::from_str::<Millis>("3").unwrap(), Millis(3000));
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("256KiB", 262_144),
            ("16MiB", 16 << 20),
            ("10GiB", 10 << 30),
            ("0", 0),
            ("7B", 7),
        ] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
            assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Ok(ByteSize(bytes)));
        }
        assert!(ByteSize::parse("5 parsecs").is_err());
    }

    #[test]
    fn rfc3339_both_ways() {
        let at = Timestamp::parse_rfc3339("2026-12-01T09:00:00Z").unwrap();
        assert_eq!(at.to_string(), "2026-12-01T09:00:00.000Z");
        assert_eq!(Timestamp::parse_rfc3339("2026-12-01T10:00:00+01:00"), Some(at));
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
        let last = Timestamp::MAX.to_string();
        assert_eq!(Timestamp::parse_rfc3339(&last), Some(Timestamp::MAX));
        assert_eq!(Timestamp::parse_rfc3339("9999-12-30T22:00:00Z"), None);
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-30T21:59:59.999Z");
    }

    #[test]
    fn times_are_written_as_a_calendar_says() {
        let says = |at: Timestamp| {
            let at = jiff::Timestamp::from_millisecond(at.0 as i64).unwrap();
            format!("{at:.3}")
        };
        // Every day of four centuries, and the last.
        for day in (0..146_097 + 365).chain([MAX_DAY]) {
            let at = Timestamp(day * MS_OF_DAY + day * 7919 % MS_OF_DAY).min(Timestamp::MAX);
            assert_eq!(at.to_string(), says(at));
            assert_eq!(Timestamp::parse_rfc3339(&at.to_string()), Some(at));
        }
        assert_eq!(Timestamp(u64::MAX).to_string(), says(Timestamp::MAX));
    }

    const MAX_DAY: u64 = Timestamp::MAX.0 / MS_OF_DAY;
}
