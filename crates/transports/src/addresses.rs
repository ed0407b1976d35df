//! How many sessions each client address has, over all shards (`limits.sessions_per_address`).
//!
//! Invariant: a [`Place`] counts exactly as long as it lives, and at most as many addresses are known as there
//! are sessions. The address is the socket's peer: behind a proxy that is the proxy's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};

/// A client as limits count it: an IPv4 address, or the /64 network of an IPv6 one, since a host has all of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(NonZeroU64);

/// Tells IPv4 addresses from IPv6 networks: documentation networks (RFC 3849) are nobody's.
const IPV4_MARK: u64 = 0x2001_0db8_0000_0000;

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Address {
        let number = match ip.to_canonical() {
            IpAddr::V4(ip) => IPV4_MARK | u64::from(ip.to_bits()),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        // The network of ::1 is zero, and one is nobody's.
        Address(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }
}

/// The counts.
pub(crate) struct AddressCounts {
    /// 0: any number.
    most: usize,
    counts: Mutex<HashMap<Address, usize>>,
}

impl AddressCounts {
    pub fn new(most: usize) -> Arc<AddressCounts> {
        let counts = Mutex::default();
        Arc::new(AddressCounts { most, counts })
    }

    /// A place for one more session of this client; `None` where it has as many as it may. A connection whose
    /// client has no address always gets one.
    pub fn take(self: &Arc<Self>, address: Option<Address>) -> Option<Place> {
        let address = address.filter(|_| self.most > 0);
        if let Some(address) = address {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_insert(0);
            if *count >= self.most {
                return None;
            }
            *count += 1;
        }
        Some(Place {
            of: address.map(|address| Box::new((self.clone(), address))),
        })
    }
}

/// One session's share of its address, or nobody's.
#[derive(Default)]
pub(crate) struct Place {
    of: Option<Box<(Arc<AddressCounts>, Address)>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((counted, address)) = self.of.as_deref() else {
            return;
        };
        let mut counts = counted.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<Address> {
        Some(Address::from(text.parse::<IpAddr>().unwrap()))
    }

    #[test]
    fn an_ipv6_client_is_its_network_and_a_mapped_address_is_ipv4() {
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db9::1", "2001:db9::ffff:2", true),
            ("2001:db9::1", "2001:db9:0:1::1", false),
            ("0.0.0.1", "::1", false),
        ] {
            assert_eq!(address(one) == address(other), same, "{one} {other}");
        }
    }

    #[test]
    fn a_place_counts_as_long_as_it_lives() {
        let counts = AddressCounts::new(2);
        let (a, b) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = counts.take(a).unwrap();
        let _second = counts.take(a).unwrap();
        assert!(counts.take(a).is_none() && counts.take(b).is_some());
        drop(first);
        assert!(counts.take(a).is_some());
        assert_eq!(counts.counts.lock().unwrap().len(), 1, "who left is forgotten");
    }

    #[test]
    fn zero_is_no_limit_and_no_address_is_not_counted() {
        let off = AddressCounts::new(0);
        let _places: Vec<_> = (0..9).map(|_| off.take(address("192.0.2.1")).unwrap()).collect();
        assert!(off.counts.lock().unwrap().is_empty());
        let one = AddressCounts::new(1);
        assert!(one.take(None).is_some() && one.take(None).is_some());
    }
}
