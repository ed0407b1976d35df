//! A network of the kernel's own between nodes and one server: a namespace for the server, and to it a link of two
//! virtual cards for each node, whose packets `iptables` and `tc` lose, refuse or hold up.
//!
//! What [`crate::proxy`] cannot show is shown here: nobody acknowledges a packet that was lost, connections live on with
//! a growing pause between attempts, and what the kernel held comes after the link is mended.
//!
//! Invariant: what is done to a link concerns that link alone, and is gone after [`Network::clear`]. The namespace, its
//! cards and its rules go with the [`Network`], however the test ends.
//!
//! It needs the superuser, `ip` and `iptables` ([`crate::machine::Need::Network`]), and starts nothing in the namespace.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, ensure};

use crate::machine::command;

/// For how many networks an address is looked for.
const TRIES: usize = 3;
/// Rate, burst and longest queue of a link with [`Fault::Narrow`].
const NARROW: [&str; 7] = ["tbf", "rate", "200kbit", "burst", "4kb", "latency", "400ms"];
/// The share of its packets that a link with [`Fault::Lossy`] loses, in each direction.
const LOSS: &str = "0.1";

/// What is done to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every packet is lost, and nobody is told.
    Dropped,
    /// Every packet of the node is answered by a reset.
    Reset,
    /// Some packets are lost.
    Lossy,
    /// Little goes through in a second; the rest waits, and what waits too long is lost.
    Narrow,
}

/// A namespace with links into it.
#[derive(Debug)]
pub struct Network {
    name: String,
    /// The second number of its addresses: `10.x.…`.
    second: u8,
    links: usize,
}

impl Network {
    /// With so many links.
    pub fn new(links: usize) -> Result<Network> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let mut last = None;
        for _ in 0..TRIES {
            let nth = NEXT.fetch_add(1, Ordering::Relaxed);
            let own = (std::process::id() % 251) as u8;
            let network = Network {
                name: format!("pr{}-{nth}", std::process::id()),
                second: own.wrapping_add(nth),
                links,
            };
            // Where it fails half-way it is taken away by being dropped.
            match network.make() {
                Ok(()) => return Ok(network),
                Err(e) => last = Some(e),
            }
        }
        let last = last.context("no network was tried")?;
        Err(last.context("make a network"))
    }

    /// The name of the namespace, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        &self.name
    }

    /// Where a link ends inside the namespace: the server's address for who goes over this link.
    pub fn far_end(&self, link: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, self.second, link as u8, 2)
    }

    /// Does this to a link, until [`Network::clear`].
    pub fn harm(&self, link: usize, fault: Fault) -> Result<()> {
        match fault {
            Fault::Dropped => self.rules(link, &["-j", "DROP"], true),
            Fault::Reset => {
                let reset = ["-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"];
                self.rules(link, &reset, false)
            }
            Fault::Lossy => {
                let some = ["-m", "statistic", "--mode", "random", "--probability", LOSS];
                self.rules(link, &[&some[..], &["-j", "DROP"]].concat(), true)
            }
            Fault::Narrow => {
                let (near, far) = (self.near_card(link), self.far_card(link));
                command(
                    "tc",
                    &[&["qdisc", "add", "dev", &near, "root"], &NARROW[..]].concat(),
                )?;
                let back = ["tc", "qdisc", "add", "dev", &far, "root"];
                self.inside(&[&back[..], &NARROW].concat())
            }
        }
    }

    /// Every link is as it was made.
    pub fn clear(&self) -> Result<()> {
        self.inside(&["iptables", "-F"])?;
        for link in 0..self.links {
            let card = self.near_card(link);
            // `replace` with what a card has by itself, since `del` fails where there is nothing.
            command("tc", &["qdisc", "replace", "dev", &card, "root", "pfifo"])?;
            command("tc", &["qdisc", "del", "dev", &card, "root"])?;
            let far = self.far_card(link);
            self.inside(&["tc", "qdisc", "replace", "dev", &far, "root", "pfifo"])?;
            self.inside(&["tc", "qdisc", "del", "dev", &far, "root"])?;
        }
        Ok(())
    }

    /// How many packets the rules of the namespace have met since [`Network::clear`].
    pub fn met(&self) -> Result<u64> {
        let told = std::process::Command::new("ip")
            .args(["netns", "exec", &self.name, "iptables", "-L", "-v", "-x", "-n"])
            .output()?;
        ensure!(told.status.success(), "iptables -L: {}", told.status);
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        let rules = text
            .lines()
            .filter(|line| line.contains("DROP") || line.contains("REJECT"));
        let counts = rules.filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(counts.sum())
    }

    fn make(&self) -> Result<()> {
        command("ip", &["netns", "add", &self.name])?;
        self.inside(&["ip", "link", "set", "lo", "up"])?;
        for link in 0..self.links {
            let (near, far) = (self.near_card(link), self.far_card(link));
            let pair = ["link", "add", &near, "type", "veth", "peer", "name", &far];
            command("ip", &[&pair[..], &["netns", &self.name]].concat())?;
            let [a, b, c, _] = self.far_end(link).octets();
            let net = format!("{a}.{b}.{c}");
            command("ip", &["addr", "add", &format!("{net}.1/30"), "dev", &near])?;
            command("ip", &["link", "set", &near, "up"])?;
            self.inside(&["ip", "addr", "add", &format!("{net}.2/30"), "dev", &far])?;
            self.inside(&["ip", "link", "set", &far, "up"])?;
        }
        Ok(())
    }

    /// A rule for what comes over a link, and for what goes out where `both`.
    fn rules(&self, link: usize, rule: &[&str], both: bool) -> Result<()> {
        let card = self.far_card(link);
        self.inside(&[&["iptables", "-A", "INPUT", "-i", &card], rule].concat())?;
        if both {
            self.inside(&[&["iptables", "-A", "OUTPUT", "-o", &card], rule].concat())?;
        }
        Ok(())
    }

    fn inside(&self, words: &[&str]) -> Result<()> {
        command("ip", &[&["netns", "exec", &self.name], words].concat())
    }

    fn near_card(&self, link: usize) -> String {
        format!("{}n{link}", self.name)
    }

    fn far_card(&self, link: usize) -> String {
        format!("{}f{link}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What is not there cannot be deleted; the cards go with their other ends.
        if let Err(e) = command("ip", &["netns", "del", &self.name]) {
            eprintln!("harness: the network {}: {e:#}", self.name);
        }
        for link in 0..self.links {
            // A namespace is taken apart a little later than it is deleted: its links are to be gone now.
            if let Err(e) = command("ip", &["link", "del", &self.near_card(link)])
                && !format!("{e:#}").contains("Cannot find device")
            {
                eprintln!("harness: a card of the network {}: {e:#}", self.name);
            }
        }
    }
}
