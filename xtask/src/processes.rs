//! Ends what a command started, by process id, also what has long lost its parent.
//!
//! A command gets a mark in its environment, which its children inherit; `/proc` tells who carries it.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a process may take to end after SIGTERM before it gets SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(50);

pub struct Mark(String);

impl Mark {
    pub const VARIABLE: &'static str = "POSTRIDER_XTASK_MARK";

    /// Unique among everything alive on this machine: this process's id and a count of its own.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Mark(format!(
            "{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ))
    }

    pub fn value(&self) -> &str {
        &self.0
    }

    /// Ends all that carry the mark, asking first; the number of them.
    pub fn end_all(&self) -> usize {
        let found = self.carriers();
        if found.is_empty() {
            return 0;
        }
        signal("TERM", &found);
        let deadline = Instant::now() + GRACE;
        loop {
            let alive = self.carriers();
            if alive.is_empty() {
                return found.len();
            }
            if Instant::now() >= deadline {
                signal("KILL", &alive);
                return found.len();
            }
            std::thread::sleep(TICK);
        }
    }

    fn carriers(&self) -> Vec<u32> {
        let wanted = format!("{}={}", Self::VARIABLE, self.0);
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        let ids = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id| carries(*id, wanted.as_bytes())).collect()
    }
}

/// A zombie's environment reads as empty: it is not alive.
fn carries(id: u32, wanted: &[u8]) -> bool {
    let Ok(environment) = std::fs::read(format!("/proc/{id}/environ")) else {
        return false;
    };
    environment.split(|byte| *byte == 0).any(|pair| pair == wanted)
}

/// Through the shell's own `kill`: without unsafe code, and without a package that may be missing.
fn signal(name: &str, ids: &[u32]) {
    let mut command = Command::new("bash");
    command
        .args(["-c", "kill -s \"$0\" \"$@\"", name])
        .args(ids.iter().map(u32::to_string));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // One of them may have ended by itself meanwhile, which is what is wanted.
    if let Err(error) = command.status() {
        eprintln!("xtask: cannot signal {ids:?}: {error}");
    }
}
