//! How fast the disk under the data directory syncs by itself: the bar a store is held against.

use anyhow::{Context as _, Result};
use postrider_bench_load::clock;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// Bytes appended before each sync.
const BLOCK: usize = 512;

/// Appends and syncs for `time` in a file of its own; syncs per second.
pub fn syncs_per_second(dir: &Path, time: Duration) -> Result<f64> {
    let mut file = tempfile::tempfile_in(dir).context("a file for the disk's own rate")?;
    let start = clock::now();
    let mut syncs = 0u32;
    while start.elapsed() < time {
        file.write_all(&[b'x'; BLOCK])?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(f64::from(syncs) / start.elapsed().as_secs_f64())
}
