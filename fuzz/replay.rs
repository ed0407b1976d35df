//! Runs what a fuzz target checks over its committed inputs, so that `cargo test` keeps what was ever found.
//! A file of its own, taken in by path: each crate checks its own parsers.

use std::path::Path;

/// Feeds every input of `fuzz/corpus/<target>` to `check`, and each of them cut short; a panic is the failure.
pub fn corpus(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        // The test harness shows it only where a check below fails.
        println!("{}", path.display());
        check(&input);
        check(&input[..input.len() / 2]);
        inputs += 1;
    }
    assert!(inputs > 0, "{} holds no inputs", folder.display());
}
