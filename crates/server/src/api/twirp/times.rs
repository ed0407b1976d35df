//! Protobuf's times and durations, as the model has them: in milliseconds, from 1970 on, never negative.

use postrider_model::{Millis, Timestamp};

/// The longest span, as everywhere: 9 × 10¹⁵ ms.
const SPAN_SECONDS: u64 = 9_000_000_000_000;
const NANOS_PER_MS: u32 = 1_000_000;
const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// A time; what is finer than a millisecond is cut off. None where it lies before 1970 or cannot be one.
pub fn instant(time: &prost_types::Timestamp) -> Option<Timestamp> {
    let (seconds, nanos) = parts(time.seconds, time.nanos)?;
    let ms = seconds.checked_mul(1000)?;
    Some(Timestamp(ms.checked_add(u64::from(nanos / NANOS_PER_MS))?))
}

/// The same for protobuf.
pub fn from_instant(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = from_ms(time.0);
    prost_types::Timestamp { seconds, nanos }
}

/// A length of time, rounded to a millisecond. None where it is negative, longer than any may be, or cannot be one.
pub fn span(span: &prost_types::Duration) -> Option<Millis> {
    let (seconds, nanos) = parts(span.seconds, span.nanos)?;
    let rounded = (nanos + NANOS_PER_MS / 2) / NANOS_PER_MS;
    (seconds <= SPAN_SECONDS).then(|| Millis(seconds * 1000 + u64::from(rounded)))
}

/// A time as RFC 3339 has it.
pub fn read_instant(text: &str) -> Option<prost_types::Timestamp> {
    Timestamp::parse_rfc3339(text).map(from_instant)
}

/// A duration as protobuf's JSON has it (`1.500s`), or with another unit.
pub fn read_span(text: &str) -> Option<prost_types::Duration> {
    let (seconds, nanos) = from_ms(Millis::parse(text).ok()?.0);
    Some(prost_types::Duration { seconds, nanos })
}

fn parts(seconds: i64, nanos: i32) -> Option<(u64, u32)> {
    let nanos = u32::try_from(nanos)
        .ok()
        .filter(|nanos| *nanos < NANOS_PER_SECOND)?;
    Some((u64::try_from(seconds).ok()?, nanos))
}

fn from_ms(ms: u64) -> (i64, i32) {
    // Fewer than 2⁶³ seconds, and fewer than 10⁹ nanoseconds.
    ((ms / 1000) as i64, (ms % 1000) as i32 * NANOS_PER_MS as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_model() {
        let at = |seconds, nanos| instant(&prost_types::Timestamp { seconds, nanos });
        assert_eq!(at(1, 999_999), Some(Timestamp(1000)));
        assert_eq!(at(1, 1_000_000), Some(Timestamp(1001)));
        assert_eq!(at(0, 0), Some(Timestamp(0)));
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            assert_eq!(at(seconds, nanos), None, "{seconds} {nanos}");
        }
        let time = Timestamp(1_764_579_600_123);
        assert_eq!(instant(&from_instant(time)), Some(time));
        assert_eq!(
            read_instant("2025-12-01T09:00:00.123Z").map(|t| instant(&t)),
            Some(Some(time))
        );
    }

    #[test]
    fn spans_are_rounded_and_never_negative() {
        let of = |seconds, nanos| span(&prost_types::Duration { seconds, nanos });
        assert_eq!(of(1, 499_999), Some(Millis(1000)));
        assert_eq!(of(1, 500_000), Some(Millis(1001)));
        assert_eq!(of(0, 999_999_999), Some(Millis(1000)));
        for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MAX, 0), (0, i32::MAX)] {
            assert_eq!(of(seconds, nanos), None, "{seconds} {nanos}");
        }
        for (text, ms) in [("1.500s", 1500), ("90s", 90_000), ("24h", 86_400_000)] {
            assert_eq!(read_span(text).as_ref().and_then(span), Some(Millis(ms)));
        }
        assert_eq!(read_span("-1s"), None);
        assert_eq!(read_span("1"), None);
    }
}
