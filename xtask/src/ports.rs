//! Free ports below the range that the kernel gives to clients, so that a server can come back on its own;
//! and which of them stand for the ports that documents name.

use std::collections::BTreeMap;
use std::net::TcpListener;

use anyhow::{Context, Result};

const FIRST: u16 = 4000;
const LAST: u16 = 9900;

/// `count` different ports on which nothing listens now.
pub fn free(count: usize) -> Result<Vec<u16>> {
    let span = LAST - FIRST;
    // Runs side by side start at different places.
    let start =
        u16::try_from(std::process::id().wrapping_mul(37) % u32::from(span)).context("a port's number")?;
    let candidates = (0..span).map(|step| FIRST + (start + step) % span);
    let found: Vec<u16> = candidates
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .take(count)
        .collect();
    anyhow::ensure!(
        found.len() == count,
        "no {count} free ports between {FIRST} and {LAST}"
    );
    Ok(found)
}

/// Which free port stands for which written one, the same throughout a file.
pub struct PortMap {
    free: Vec<u16>,
    given: BTreeMap<String, u16>,
}

impl PortMap {
    /// More addresses than any one document names.
    const MOST: usize = 16;

    pub fn new() -> Result<Self> {
        Ok(PortMap {
            free: free(Self::MOST)?,
            given: BTreeMap::new(),
        })
    }

    /// `127.0.0.1:` and the port that stands for the written one.
    pub fn of(&mut self, written: &str) -> String {
        format!("127.0.0.1:{}", self.port(written))
    }

    fn port(&mut self, written: &str) -> String {
        if let Some(port) = self.given.get(written) {
            return port.to_string();
        }
        // Past the bound the port stays as it was written.
        let Some(port) = self.free.pop() else {
            return written.to_owned();
        };
        self.given.insert(written.to_owned(), port);
        port.to_string()
    }

    /// The text with the ports of this machine's addresses replaced.
    pub fn rewrite(&mut self, text: &str) -> String {
        let text = self.rewrite_after(text, "127.0.0.1:");
        self.rewrite_after(&text, "localhost:")
    }

    fn rewrite_after(&mut self, text: &str, host: &str) -> String {
        let mut parts = text.split(host);
        let mut rewritten = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            rewritten.push_str(host);
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            let (port, rest) = part.split_at(digits);
            let known = self.given.values().any(|given| given.to_string() == port);
            rewritten.push_str(&if digits == 4 && !known {
                self.port(port)
            } else {
                port.to_owned()
            });
            rewritten.push_str(rest);
        }
        rewritten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_means_the_same_throughout() {
        let mut ports = PortMap {
            free: vec![4002, 4001],
            given: BTreeMap::new(),
        };
        assert_eq!(ports.of("8080"), "127.0.0.1:4001");
        let text =
            "curl http://127.0.0.1:8080/x http://localhost:9090 127.0.0.1:0 127.0.0.1:41234 localhost:8080";
        let expected =
            "curl http://127.0.0.1:4001/x http://localhost:4002 127.0.0.1:0 127.0.0.1:41234 localhost:4001";
        assert_eq!(ports.rewrite(text), expected);
        assert_eq!(ports.rewrite(expected), expected);
    }
}
