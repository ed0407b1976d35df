//! How long to wait before another attempt: at least what the server asked for; twice as long after each failure;
//! spread by half, so that not all come at once.

use crate::exit::Failure;
use anyhow::anyhow;
use std::time::Duration;

/// The first and the longest pause before another attempt, where nobody asked for one.
const PAUSE_MS: u64 = 500;
const PAUSE_MOST_MS: u64 = 30_000;
/// What a server asks for is believed up to here.
const ASKED_MOST_MS: u64 = 600_000;

/// The pause after so many failures in a row, with the system's randomness.
pub fn pause(asked_ms: Option<u64>, failures: u32) -> Result<Duration, Failure> {
    let mut random = [0u8; 2];
    getrandom::fill(&mut random).map_err(|e| anyhow!("no randomness: {e}"))?;
    Ok(spread(asked_ms, failures, u16::from_le_bytes(random)))
}

fn spread(asked_ms: Option<u64>, failures: u32, random: u16) -> Duration {
    let base = asked_ms.unwrap_or(PAUSE_MS).clamp(1, ASKED_MOST_MS);
    let grown = base
        .saturating_mul(1 << failures.min(16))
        .min(PAUSE_MOST_MS.max(base));
    let more = u64::from(random) * (grown / 2) / u64::from(u16::MAX);
    let least = match asked_ms {
        Some(_) => grown,
        None => grown - grown / 2,
    };
    Duration::from_millis(least + more)
}

/// Waits.
#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own has nothing else to do"
)]
pub fn wait(pause: Duration) {
    std::thread::sleep(pause);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        for (asked, failures, least, most) in [
            (None, 0, 250, 500),
            (None, 3, 2000, 4000),
            (Some(2000), 0, 2000, 3000),
            (Some(2000), 60, 30_000, 45_000),
            (Some(u64::MAX), 0, 600_000, 900_000),
        ] {
            for random in [0, 1, u16::MAX / 2, u16::MAX] {
                let ms = spread(asked, failures, random).as_millis();
                assert!((least..=most).contains(&ms), "{asked:?} {failures}: {ms}");
            }
        }
    }
}
