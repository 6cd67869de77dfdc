//! Failed logins, by address: with too many in a while nothing more is tried for it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// So many logins of an address may fail within [`WHILE`]; then it waits for the end of that.
pub(super) const FAILED_MAX: u32 = 20;
/// See [`FAILED_MAX`].
pub(super) const WHILE: Duration = Duration::from_secs(60);
/// Addresses that are remembered; with one more the one that failed first is forgotten.
const ADDRESSES_MAX: usize = 10_000;
/// Who has an IPv6 address has all of its network.
const NETWORK_BITS: u32 = 64;

struct Failures {
    since: Instant,
    count: u32,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Attempts(Mutex<HashMap<IpAddr, Failures>>);

/// What counts together with an address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mask = u128::MAX << (128 - NETWORK_BITS);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
        address => address,
    }
}

impl Attempts {
    /// How long an address has to wait, where it has to.
    pub(super) fn wait_of(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.0.lock();
        let failures = failures.get(&network(address))?;
        let left = WHILE.checked_sub(now - failures.since)?;
        (failures.count >= FAILED_MAX && !left.is_zero()).then_some(left)
    }

    /// Notes that a login failed.
    pub(super) fn failed(&self, address: IpAddr, now: Instant) {
        let address = network(address);
        let mut all = self.0.lock();
        if all.len() >= ADDRESSES_MAX && !all.contains_key(&address) {
            let oldest = all.iter().min_by_key(|(_, failures)| failures.since);
            let oldest = oldest.map(|(address, _)| *address);
            oldest.map(|oldest| all.remove(&oldest));
        }
        let none = || Failures {
            since: now,
            count: 0,
        };
        let failures = all.entry(address).or_insert_with(none);
        if now - failures.since >= WHILE {
            *failures = none();
        }
        failures.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_too_often_waits_and_others_do_not() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        for _ in 0..FAILED_MAX {
            assert_eq!(attempts.wait_of(a, now), None);
            attempts.failed(a, now);
        }
        let later = now + Duration::from_secs(20);
        assert_eq!(attempts.wait_of(a, later), Some(WHILE - (later - now)));
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        assert!(attempts.wait_of(mapped, now).is_some());
        assert_eq!(attempts.wait_of(b, now), None);
        assert_eq!(attempts.wait_of(a, now + WHILE), None);
        attempts.failed(a, now + WHILE);
        assert_eq!(attempts.wait_of(a, now + WHILE), None);
    }

    #[test]
    fn a_network_counts_as_one_and_not_too_many_are_remembered() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for n in 0..FAILED_MAX {
            attempts.failed(format!("2001:db8::{n:x}").parse().unwrap(), now);
        }
        let [own, other] = ["2001:db8::ffff", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        assert!(attempts.wait_of(own, now).is_some());
        assert!(attempts.wait_of(other, now).is_none());
        for n in 0..ADDRESSES_MAX as u32 {
            attempts.failed(IpAddr::from(n.to_be_bytes()), now + WHILE / 2);
        }
        assert_eq!(attempts.0.lock().len(), ADDRESSES_MAX);
    }
}
