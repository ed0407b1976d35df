//! The servers that Postrider is compared with: nginx with Nchan, and nats-server, as Debian has them. Each runs in a
//! private directory on free ports of loopback, with one worker, nothing on disk, no access log, and bounds so wide
//! that it loses nothing.
//!
//! `cargo xtask bench` unpacks them under `target/`; what the machine has installed is used where that is not there.

use crate::options::How;
use crate::server::{Server, data_dir};
use anyhow::{Context as _, Result, bail};
use postrider_bench_load::target::Kind;
use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// The configuration of nginx; words in braces are filled in.
pub const NGINX: &str = include_str!("peers/nginx.conf");
/// The configuration of nats-server.
pub const NATS: &str = include_str!("peers/nats.conf");
/// Where Debian's nginx keeps its bodies, whatever its configuration says of it.
const NGINX_STATE: &str = "/var/lib/nginx";

/// Starts nginx with Nchan.
pub fn nchan(how: &How) -> Result<Server> {
    let program = find(how, "usr/sbin/nginx")?;
    let module = find(how, "usr/lib/nginx/modules/ngx_nchan_module.so")?;
    if !Path::new(NGINX_STATE).exists() {
        std::fs::create_dir(NGINX_STATE).context("nginx needs /var/lib/nginx")?;
    }
    let (dir, addr) = (data_dir(&how.dir)?, free()?);
    let config = NGINX
        .replace("{module}", &module.display().to_string())
        .replace("{dir}", &dir.path().display().to_string())
        .replace("{addr}", &addr.to_string());
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, config)?;
    let mut command: Vec<OsString> = vec![program.into()];
    command.extend(["-p".into(), dir.path().into(), "-c".into(), file.into()]);
    Server::listening(Kind::Nchan, &command, dir, addr, addr).context("start nginx")
}

/// Starts nats-server.
pub fn nats(how: &How) -> Result<Server> {
    let program = find(how, "usr/sbin/nats-server")?;
    let (dir, addr, intake) = (data_dir(&how.dir)?, free()?, free()?);
    let config = NATS
        .replace("{addr}", &addr.to_string())
        .replace("{intake}", &intake.to_string());
    let file = dir.path().join("nats.conf");
    std::fs::write(&file, config)?;
    let command: [OsString; 3] = [program.into(), "-c".into(), file.into()];
    Server::listening(Kind::Nats, &command, dir, addr, intake).context("start nats-server")
}

fn find(how: &How, path: &str) -> Result<PathBuf> {
    let places = [how.peers.join(path), Path::new("/").join(path)];
    match places.iter().find(|place| place.exists()) {
        Some(place) => Ok(place.canonicalize()?),
        None => bail!("there is no {}: `cargo xtask bench` gets it", places[0].display()),
    }
}

/// A port that nobody has now.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
