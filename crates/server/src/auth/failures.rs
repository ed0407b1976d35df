//! Bounds how often one client may show a wrong credential, so that keys, tickets and secrets cannot be guessed
//! at the speed of the network.
//!
//! Each address has a bucket of [`AuthConfig::failures_per_address`](super::AuthConfig) failures that fills again
//! within [`WINDOW`]; while it is empty the client is answered 429 before anything is checked. What counts is a
//! key that is not known and a token or ticket that is not signed by a known key. A missing, expired or otherwise
//! refused one gives nothing away and does not count.
//!
//! Clients at this machine's own 127.0.0.1 and ::1 are not counted: that is where a proxy on the same machine
//! comes from, which stands for everyone.
//!
//! Invariant: at most [`MAX_CLIENTS`] addresses are known; those that failed longest ago make room.

use crate::rates::Bucket;
use postrider_model::{Millis, Timestamp};
use postrider_transports::Address;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

/// In this time an empty bucket is full again.
const WINDOW: Millis = Millis::from_secs(10);
/// Addresses that are known at a time.
const MAX_CLIENTS: usize = 16_384;

/// Who failed lately.
#[derive(Debug, Default)]
pub(super) struct Failures {
    clients: Mutex<Clients>,
}

/// Two generations: the young ones become the old ones when there are many, and the old ones are forgotten.
#[derive(Debug, Default)]
struct Clients {
    young: HashMap<Address, Bucket>,
    old: HashMap<Address, Bucket>,
}

impl Failures {
    /// For how many seconds this client is not listened to; `None` where it is. `most` 0: no bound.
    pub fn blocked(&self, client: Option<Address>, most: u32, now: Timestamp) -> Option<u32> {
        let client = client.filter(|client| most > 0 && !is_own(*client))?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let Clients { young, old } = &mut *clients;
        let bucket = young.get_mut(&client).or_else(|| old.get_mut(&client))?;
        let wait = bucket.wait_for(1, now);
        (wait.0 > 0).then(|| wait.0.div_ceil(1000) as u32)
    }

    /// It showed a wrong credential.
    pub fn count(&self, client: Option<Address>, most: u32, now: Timestamp) {
        let Some(client) = client.filter(|client| most > 0 && !is_own(*client)) else {
            return;
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.bucket(client, most, now).take_up_to(1, now);
    }
}

impl Clients {
    fn bucket(&mut self, client: Address, most: u32, now: Timestamp) -> &mut Bucket {
        if !self.young.contains_key(&client) && self.young.len() >= MAX_CLIENTS / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        let known = self.old.remove(&client);
        let entry = self.young.entry(client);
        entry.or_insert_with(|| known.unwrap_or_else(|| Bucket::new(most, WINDOW, now)))
    }
}

fn is_own(client: Address) -> bool {
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        .map(Address::from)
        .contains(&client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Option<Address> {
        Some(Address::from(text.parse::<IpAddr>().unwrap()))
    }

    #[test]
    fn a_client_that_fails_too_often_is_not_listened_to_for_a_while() {
        let failures = Failures::default();
        let (bad, good) = (client("192.0.2.1"), client("192.0.2.2"));
        let at = |seconds: u64| Timestamp(seconds * 1000);
        for _ in 0..100 {
            assert_eq!(failures.blocked(bad, 100, at(1)), None);
            failures.count(bad, 100, at(1));
        }
        assert_eq!(failures.blocked(bad, 100, at(1)), Some(1));
        assert_eq!(failures.blocked(good, 100, at(1)), None);
        assert_eq!(failures.blocked(bad, 0, at(1)), None, "off");
        // A tenth of the window gives a tenth of the failures back.
        for _ in 0..10 {
            assert_eq!(failures.blocked(bad, 100, at(2)), None);
            failures.count(bad, 100, at(2));
        }
        assert_eq!(failures.blocked(bad, 100, at(2)), Some(1));
        assert_eq!(failures.blocked(bad, 100, at(12)), None);
    }

    #[test]
    fn this_machine_and_the_unknown_are_not_counted() {
        let failures = Failures::default();
        for own in [
            client("127.0.0.1"),
            client("::1"),
            client("::ffff:127.0.0.1"),
            None,
        ] {
            failures.count(own, 1, Timestamp(0));
            assert_eq!(failures.blocked(own, 1, Timestamp(0)), None);
        }
        failures.count(client("127.0.0.2"), 1, Timestamp(0));
        assert!(failures.blocked(client("127.0.0.2"), 1, Timestamp(0)).is_some());
    }

    #[test]
    fn the_table_is_bounded_and_who_failed_lately_stays() {
        let failures = Failures::default();
        let bad = client("198.51.100.1");
        (0..5).for_each(|_| failures.count(bad, 5, Timestamp(0)));
        for n in 0..3 * MAX_CLIENTS as u32 {
            let other = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n));
            failures.count(Some(other.into()), 5, Timestamp(0));
            if n % 1000 == 0 {
                failures.count(bad, 5, Timestamp(0));
            }
        }
        assert!(failures.blocked(bad, 5, Timestamp(0)).is_some());
        let clients = failures.clients.lock().unwrap();
        assert!(clients.young.len() + clients.old.len() <= MAX_CLIENTS);
    }
}
