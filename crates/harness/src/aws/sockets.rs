//! Where a process listens, by what the kernel says of it.
//!
//! Invariant: a socket is a process's own only if it has it open now, so that another server on the same port is told
//! apart from the one that was started.
//!
//! It does not look at the process's children.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

/// `st` of a socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// The addresses at which this process takes TCP connections.
pub fn listening(pid: u32) -> Result<Vec<SocketAddr>> {
    let own = inodes(pid)?;
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        // One without IPv6 has no such table.
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        let rows = text.lines().skip(1).filter_map(row);
        found.extend(
            rows.filter(|(inode, _)| own.contains(inode))
                .map(|(_, addr)| addr),
        );
    }
    Ok(found)
}

/// The sockets that it has open.
fn inodes(pid: u32) -> Result<HashSet<String>> {
    let mut found = HashSet::new();
    for file in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that is gone by now was closed.
        let Ok(target) = std::fs::read_link(file?.path()) else {
            continue;
        };
        let target = target.to_string_lossy();
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|t| t.strip_suffix(']')) {
            found.insert(inode.to_owned());
        }
    }
    Ok(found)
}

/// The inode and address of a row, if it is of a socket that listens.
fn row(line: &str) -> Option<(String, SocketAddr)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != LISTENS {
        return None;
    }
    let (host, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(((*inode).to_owned(), SocketAddr::new(host_of(host)?, port)))
}

/// The kernel writes addresses as words of four bytes in the machine's own order.
fn host_of(hex: &str) -> Option<IpAddr> {
    let words = (0..hex.len() / 8)
        .map(|nth| u32::from_str_radix(hex.get(nth * 8..nth * 8 + 8)?, 16).ok())
        .collect::<Option<Vec<u32>>>()?;
    let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_listener_is_found_where_it_is_and_a_connection_is_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let everywhere = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let _connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let found = listening(std::process::id()).unwrap();
        assert!(found.contains(&listener.local_addr().unwrap()));
        assert!(found.contains(&everywhere.local_addr().unwrap()));
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let left = listening(std::process::id()).unwrap();
        assert!(left.iter().all(|addr| addr.port() != port));
    }
}
