//! The places that a configuration names: its listeners and its data directory.

use super::Finding;
use postrider_server::config::{Config, EngineKind};
use rustix::fs::{statfs, statvfs};
use serde_json::Value;
use std::cell::LazyCell;
use std::fs::{File, TryLockError};
use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::tls::TlsConfig;

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

/// Whether both can be listened on, at the same time.
pub fn listeners(config: &Config) -> Vec<Finding> {
    let (http, ops) = (config.http.listen, config.ops.listen);
    // The first is held while the second is tried, as in a node: one address does not serve both.
    let first = TcpListener::bind(http);
    let second = TcpListener::bind(ops).map(drop);
    let first = first.map(drop);
    // Both are given back here, so that nobody is asked at an address that is held.
    let each_is_free = first.is_ok() && TcpListener::bind(ops).is_ok();
    let is_running = LazyCell::new(|| is_node(ops) && (http.port() == 0 || is_inbox(config)));
    let mut findings = vec![listener("http.listen", http, first, || *is_running)];
    findings.push(match second {
        Err(error) if error.kind() == ErrorKind::AddrInUse && each_is_free => Finding::fault(
            "ops.listen",
            format!("{ops} is what http.listen takes: {http}"),
            "give each a port of its own",
        ),
        second => listener("ops.listen", ops, second, || *is_running),
    });
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

fn listener(
    check: &'static str,
    address: SocketAddr,
    bound: Result<(), Error>,
    is_running: impl Fn() -> bool,
) -> Finding {
    let error = match bound {
        Ok(()) => return Finding::good(check, format!("{address} is free")),
        Err(error) => error,
    };
    let port = address.port();
    match error.kind() {
        ErrorKind::AddrInUse if is_running() => Finding::good(
            check,
            format!("{address} is in use; a node with these addresses answers"),
        ),
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

/// Whether what listens there says what a node says of itself.
fn is_node(ops: SocketAddr) -> bool {
    let said = ask(&format!("http://{ops}/health"));
    said.is_some_and(|(_, _, said)| said["status"] == "ok" && said["version"].is_string())
}

/// Whether what listens there refuses who has no token, as a node does.
fn is_inbox(config: &Config) -> bool {
    let scheme = match config.http.tls.cert {
        Some(_) => "https",
        None => "http",
    };
    let said = ask(&format!("{scheme}://{}/v1/inbox", config.http.listen));
    said.is_some_and(|(status, kind, _)| status == 401 && kind.starts_with("application/problem+json"))
}

/// The status, the content type and the JSON that are answered there, if so.
fn ask(url: &str) -> Option<(u16, String, Value)> {
    let agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(ANSWER))
        .max_redirects(0)
        .proxy(None)
        // Nothing secret is said to it, and a certificate is not for an address.
        .tls_config(TlsConfig::builder().disable_verification(true).build())
        .build()
        .new_agent();
    let mut answer = agent.get(url).call().ok()?;
    let kind = answer.headers().get("content-type")?.to_str().ok()?.to_owned();
    let body = answer.body_mut().with_config().limit(BLOCK as u64);
    let said = body.read_to_string().ok()?;
    Some((answer.status().as_u16(), kind, serde_json::from_str(&said).ok()?))
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
    if !there.is_dir() {
        return vec![unusable(dir, &format!("{} is no directory", there.display()))];
    }
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

/// It, or the nearest above it that exists, whatever it is.
fn existing(dir: &Path) -> Option<PathBuf> {
    let whole = std::path::absolute(dir).ok()?;
    // A link that leads nowhere exists too: no directory can be made in its place.
    let found = whole.ancestors().find(|path| path.symlink_metadata().is_ok());
    found.map(Path::to_owned)
}

fn directory(dir: &Path) -> Finding {
    let name = dir.display();
    let meta = match dir.metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Finding::good("data_dir", format!("{name} will be made by the first start"));
        }
        Err(error) => return unusable(dir, &error.to_string()),
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
    match in_use(dir) {
        Ok(true) => Finding::good("data_dir", format!("{name} is in use by a node")),
        Ok(false) => Finding::good("data_dir", format!("{name} is there, and no node uses it")),
        Err(error) => Finding::advice(
            "data_dir",
            format!("{name}: cannot tell who uses it: LOCK: {error}"),
            "run this as the user that runs the node",
        ),
    }
}

/// Whether a node holds the directory's lock. The lock that is taken to see that is shared, so that two who look do
/// not take each other for a node, and given back at once: a node takes its own alone and does not wait for it, so one
/// that starts within these few microseconds is refused, and has to be started again.
fn in_use(dir: &Path) -> Result<bool, Error> {
    let lock = match File::open(dir.join("LOCK")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match lock.try_lock_shared() {
        Ok(()) => lock.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
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
    use postrider_server::config::Secret;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    fn verdicts(config: &Config) -> [Verdict; 2] {
        let findings = listeners(config);
        [findings[0].verdict, findings[1].verdict]
    }

    fn with_addresses(http: SocketAddr, ops: SocketAddr) -> Config {
        let mut config = Config::default();
        config.http.listen = http;
        config.ops.listen = ops;
        config
    }

    /// A listener, and where it is.
    fn taken() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn a_port_in_use_by_a_stranger_is_a_fault() {
        let _turn = crate::turn();
        // An address of its own, so that no other test is given the port once it is free.
        let held = TcpListener::bind("127.83.1.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let config = with_addresses(address, "127.0.0.1:0".parse().unwrap());
        assert_eq!(verdicts(&config), [Verdict::Fault, Verdict::Good]);
        drop(held);
        assert_eq!(verdicts(&config), [Verdict::Good, Verdict::Good]);
    }

    #[test]
    fn one_address_for_both_is_a_fault() {
        let _turn = crate::turn();
        let (_, address) = taken();
        let everywhere = SocketAddr::new([0, 0, 0, 0].into(), address.port());
        for http in [address, everywhere] {
            let findings = listeners(&with_addresses(http, address));
            assert_eq!(findings[0].verdict, Verdict::Good, "{findings:?}");
            assert_eq!(findings[1].verdict, Verdict::Fault, "{findings:?}");
            assert!(findings[1].detail.contains("http.listen"), "{findings:?}");
        }
        let any = "127.0.0.1:0".parse().unwrap();
        assert_eq!(
            verdicts(&with_addresses(any, any)),
            [Verdict::Good, Verdict::Good]
        );
    }

    #[test]
    fn addresses_in_use_are_good_where_both_are_the_nodes() {
        let _turn = crate::turn();
        let runtime = crate::serve::runtime().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let mut config = with_addresses(any, any);
        config.engine.kind = EngineKind::Memory;
        config.auth.jwt.hmac_secret = Some(Secret::new("a secret of 32 bytes or more, here"));
        let node = postrider_server::Node::start(config, None, runtime.handle().clone()).unwrap();
        let (http, ops) = (node.http(), node.ops());
        assert_eq!(verdicts(&with_addresses(http, ops)), [Verdict::Good; 2]);
        let (_held, other) = taken();
        assert_eq!(verdicts(&with_addresses(other, ops)), [Verdict::Fault; 2]);
        let (_, free) = taken();
        assert_eq!(
            verdicts(&with_addresses(free, ops)),
            [Verdict::Good, Verdict::Fault]
        );
        runtime.block_on(node.drain());
    }

    #[test]
    fn an_address_that_is_elsewhere_is_a_fault() {
        let elsewhere = "192.0.2.1:8080".parse().unwrap();
        let found = &listeners(&with_addresses(elsewhere, "127.0.0.1:0".parse().unwrap()))[0];
        assert_eq!(found.verdict, Verdict::Fault);
        assert!(found.detail.contains("no such address"), "{found:?}");
    }

    #[test]
    fn what_is_no_directory_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        for data_dir in [file.join("in/it"), file, link] {
            let config = Config {
                data_dir,
                ..Config::default()
            };
            let findings = super::data_dir(&config);
            assert_eq!(findings[0].verdict, Verdict::Fault, "{findings:?}");
        }
    }

    #[test]
    fn who_uses_a_directory_is_told_by_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        let path = dir.path().join("LOCK");
        assert!(!in_use(dir.path()).unwrap());
        let lock = File::create(&path).unwrap();
        assert!(!in_use(dir.path()).unwrap());
        // Another who looks.
        lock.lock_shared().unwrap();
        assert!(!in_use(dir.path()).unwrap());
        lock.unlock().unwrap();
        lock.lock().unwrap();
        assert!(in_use(dir.path()).unwrap());
        // A link to itself cannot be opened by anybody, not even by root.
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("LOCK", &path).unwrap();
        let found = directory(dir.path());
        assert_eq!(found.verdict, Verdict::Advice, "{found:?}");
        assert!(found.detail.contains("cannot tell"), "{found:?}");
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
