//! The places that a configuration names: its listeners and its data directory.

use super::Finding;
use postrider_server::config::{Config, EngineKind};
use rustix::fs::{statfs, statvfs};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Writes of the measurement, at most; it also ends after [`MEASURING`].
const SYNCS: usize = 64;
const MEASURING: Duration = Duration::from_secs(3);
const BLOCK: usize = 4096;
/// A disk that takes longer makes publishers wait: every 202 comes after one.
const SLOW: Duration = Duration::from_millis(20);
/// No disk keeps a promise in less.
const INCREDIBLE: Duration = Duration::from_micros(15);
/// How long a node may take to say that it is one.
const ANSWER: Duration = Duration::from_secs(2);

/// File systems, by the number that `statfs` gives.
const TMPFS: u64 = 0x0102_1994;
const REMOTE: [(u64, &str); 4] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x6573_5546, "FUSE"),
];

/// Whether both can be listened on.
pub fn listeners(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (check, address) in [
        ("http.listen", config.http.listen),
        ("ops.listen", config.ops.listen),
    ] {
        findings.push(listener(check, address, config.ops.listen));
    }
    if !config.ops.listen.ip().is_loopback() {
        findings.push(Finding::advice(
            "ops.listen",
            format!(
                "{} can be reached from elsewhere, and asks for no key",
                config.ops.listen
            ),
            "keep it off the public network: bind a private address, or filter the port",
        ));
    }
    findings
}

fn listener(check: &'static str, address: SocketAddr, ops: SocketAddr) -> Finding {
    let error = match TcpListener::bind(address) {
        Ok(_) => return Finding::good(check, format!("{address} is free")),
        Err(error) => error,
    };
    let port = address.port();
    match error.kind() {
        ErrorKind::AddrInUse if is_node(ops) => {
            Finding::good(check, format!("{address} is in use; a node answers on {ops}"))
        }
        ErrorKind::AddrInUse => Finding::fault(
            check,
            format!("{address} is in use by another program"),
            format!("`ss --tcp --listening --processes 'sport = :{port}'` names it; or choose another port"),
        ),
        ErrorKind::PermissionDenied => Finding::fault(
            check,
            format!("{address}: this user may not listen on port {port}"),
            "choose a port from 1024 on, or give the process CAP_NET_BIND_SERVICE",
        ),
        ErrorKind::AddrNotAvailable => Finding::fault(
            check,
            format!("{address}: this machine has no such address"),
            "`ip address` lists those it has; 0.0.0.0 and [::] are all of them",
        ),
        _ => Finding::fault(check, format!("{address}: {error}"), "choose another address"),
    }
}

/// Whether what listens there says what a node says.
fn is_node(ops: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&ops, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(
            stream,
            "GET /health HTTP/1.1\r\nhost: {ops}\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.take(BLOCK as u64).read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(r#""status":"ok""#) && answer.contains(r#""version""#))
}

/// Whether notifications can be kept there, for how long a commit waits, and whether there is room.
pub fn data_dir(config: &Config) -> Vec<Finding> {
    if config.engine.kind == EngineKind::Memory {
        return vec![Finding::advice(
            "engine.type",
            "memory: everything is gone when the node ends",
            "set engine.type: embedded to keep it",
        )];
    }
    let dir = &config.data_dir;
    let Some(there) = existing(dir) else {
        return vec![unusable(dir, "no part of its path exists")];
    };
    let mut findings = vec![directory(dir)];
    findings.push(match syncs(&there) {
        Ok(times) => sync_time(&there, &times),
        Err(error) => unusable(dir, &error.to_string()),
    });
    findings.extend(file_system(&there));
    findings.extend(room(&there, config.retention.total_bytes.0));
    findings
}

fn unusable(dir: &Path, why: &str) -> Finding {
    Finding::fault(
        "data_dir",
        format!("{}: {why}", dir.display()),
        "make it, and give it to the user that runs the node, with mode 0700",
    )
}

/// The directory, or the nearest above it that exists.
fn existing(dir: &Path) -> Option<PathBuf> {
    let whole = std::path::absolute(dir).ok()?;
    whole.ancestors().find(|path| path.is_dir()).map(Path::to_owned)
}

fn directory(dir: &Path) -> Finding {
    let name = dir.display();
    let Ok(meta) = dir.metadata() else {
        return Finding::good("data_dir", format!("{name} will be made by the first start"));
    };
    if meta.mode() & 0o077 != 0 {
        return Finding::advice(
            "data_dir",
            format!(
                "{name} is open to others, mode {:04o}, and holds payloads in clear",
                meta.mode() & 0o7777
            ),
            format!("chmod 0700 {name}"),
        );
    }
    let lock = OpenOptions::new().write(true).open(dir.join("LOCK"));
    let in_use = lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    match in_use {
        true => Finding::good("data_dir", format!("{name} is in use by a node")),
        false => Finding::good("data_dir", format!("{name} is there, and no node uses it")),
    }
}

/// How long each of some small writes took to reach the disk, ascending.
fn syncs(dir: &Path) -> std::io::Result<Vec<Duration>> {
    let path = dir.join(format!(".postrider-doctor-{}", std::process::id()));
    let measured = measure(&path);
    let removed = std::fs::remove_file(&path);
    let mut times = measured?;
    removed?;
    times.sort_unstable();
    Ok(times)
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn measure(path: &Path) -> std::io::Result<Vec<Duration>> {
    let file = File::create_new(path)?;
    let block = [0x5a; BLOCK];
    file.write_all_at(&vec![0; BLOCK * SYNCS], 0)?;
    file.sync_all()?;
    let (mut times, begun) = (Vec::new(), Instant::now());
    for at in 0..SYNCS {
        let before = Instant::now();
        file.write_all_at(&block, (at * BLOCK) as u64)?;
        file.sync_data()?;
        times.push(before.elapsed());
        if begun.elapsed() > MEASURING {
            break;
        }
    }
    Ok(times)
}

fn sync_time(dir: &Path, times: &[Duration]) -> Finding {
    let (check, dir) = ("disk sync", dir.display());
    let (half, most) = (times[times.len() / 2], times[times.len() - 1]);
    let detail = format!(
        "{half:.1?} (median of {}), {most:.1?} at most, in {dir}",
        times.len()
    );
    if half > SLOW {
        let mend =
            "every 202 waits for one: use a faster disk, or fewer and larger requests (arrays, NDJSON)";
        return Finding::advice(check, detail, mend);
    }
    if half < INCREDIBLE {
        let mend = "no disk is as fast: make sure that what is synced survives a power loss (no memory file system, \
                    no write cache without a battery)";
        return Finding::advice(check, detail, mend);
    }
    Finding::good(check, detail)
}

fn file_system(dir: &Path) -> Option<Finding> {
    let kind = statfs(dir).ok()?.f_type as u64 & 0xffff_ffff;
    if kind == TMPFS {
        let mend = "put data_dir on a disk";
        return Some(Finding::advice(
            "data_dir",
            "it is in memory, and gone after a restart of the machine",
            mend,
        ));
    }
    let (_, name) = REMOTE.iter().find(|(number, _)| *number == kind)?;
    Some(Finding::advice(
        "data_dir",
        format!("it is on {name}"),
        "use a local file system: locks and syncs elsewhere may not hold what they promise",
    ))
}

fn room(dir: &Path, wanted: u64) -> Option<Finding> {
    let disk = statvfs(dir).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    Some(match free < wanted {
        true => Finding::advice(
            "free disk",
            format!("{}, and retention.total_bytes allows {}", gib(free), gib(wanted)),
            "lower retention.total_bytes, or use a larger disk: a full one refuses publishing",
        ),
        false => Finding::good("free disk", gib(free)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_port_in_use_by_a_stranger_is_a_fault() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        // Nobody listens on the operations port.
        let ops = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(listener("http.listen", address, ops).verdict, Verdict::Fault);
        drop(taken);
        assert_eq!(listener("http.listen", address, ops).verdict, Verdict::Good);
    }

    #[test]
    fn an_address_that_is_elsewhere_is_a_fault() {
        let elsewhere = "192.0.2.1:8080".parse().unwrap();
        let found = listener("http.listen", elsewhere, elsewhere);
        assert_eq!(found.verdict, Verdict::Fault);
        assert!(found.detail.contains("no such address"), "{found:?}");
    }

    #[test]
    fn the_measurement_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!syncs(dir.path()).unwrap().is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_disk_is_judged_by_its_median() {
        let dir = Path::new("/d");
        let judged = |half: Duration| sync_time(dir, &[half, half, SLOW * 10]).verdict;
        assert_eq!(judged(Duration::from_millis(1)), Verdict::Good);
        assert_eq!(judged(SLOW * 2), Verdict::Advice);
        assert_eq!(judged(INCREDIBLE / 2), Verdict::Advice);
    }
}
