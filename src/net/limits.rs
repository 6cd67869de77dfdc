//! How many connections there may be: of all listeners together, from one address, and of those from one address that have
//! not said yet who they are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// The most that there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionsMax {
    /// `max.connections`.
    pub(super) total: usize,
    /// `max.connections.per.ip`.
    pub(super) per_ip: usize,
    /// `max.unauthenticated.connections.per.ip`.
    pub(super) unknown_per_ip: usize,
}

/// Open connections; one for a server, so that all its listeners count together.
#[derive(Default)]
pub(super) struct ConnectionLimits {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_ip: HashMap<IpAddr, FromAddress>,
}

/// Connections of one address.
#[derive(Clone, Copy, Default)]
struct FromAddress {
    open: usize,
    /// Of these, in handshakes of TLS or SASL.
    unknown: usize,
}

/// Leave for one connection to be open; given back when dropped.
pub(super) struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    ip: IpAddr,
    is_unknown: bool,
}

impl ConnectionLimits {
    /// A permit, or the name of the limit that allows no more.
    pub(super) fn take(
        self: &Arc<Self>,
        max: ConnectionsMax,
        ip: IpAddr,
        is_unknown: bool,
    ) -> Result<ConnectionPermit, &'static str> {
        let mut open = self.open.lock();
        let mut from_ip = open.by_ip.get(&ip).copied().unwrap_or_default();
        if open.total >= max.total {
            return Err("max.connections");
        }
        if from_ip.open >= max.per_ip {
            return Err("max.connections.per.ip");
        }
        if is_unknown && from_ip.unknown >= max.unknown_per_ip {
            return Err("max.unauthenticated.connections.per.ip");
        }
        from_ip.open += 1;
        from_ip.unknown += usize::from(is_unknown);
        open.total += 1;
        open.by_ip.insert(ip, from_ip);
        Ok(ConnectionPermit {
            limits: self.clone(),
            ip,
            is_unknown,
        })
    }
}

impl ConnectionPermit {
    /// It is known whose connection it is.
    pub(super) fn set_known(&mut self) {
        if !std::mem::take(&mut self.is_unknown) {
            return;
        }
        let mut open = self.limits.open.lock();
        if let Some(from_ip) = open.by_ip.get_mut(&self.ip) {
            from_ip.unknown -= 1;
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.set_known();
        let mut open = self.limits.open.lock();
        open.total -= 1;
        if let Some(from_ip) = open.by_ip.get_mut(&self.ip) {
            from_ip.open -= 1;
            if from_ip.open == 0 {
                open.by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_has_its_connections_leaves_the_rest_to_others() {
        let limits = Arc::new(ConnectionLimits::default());
        let max = ConnectionsMax {
            total: 3,
            per_ip: 2,
            unknown_per_ip: 2,
        };
        let [a, b] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let refusal = |ip| limits.take(max, ip, false).err();
        let first = limits.take(max, a, false).unwrap();
        let _second = limits.take(max, a, false).unwrap();
        assert_eq!(refusal(a), Some("max.connections.per.ip"));
        let _third = limits.take(max, b, false).unwrap();
        assert_eq!(refusal(b), Some("max.connections"));
        drop(first);
        assert_eq!(refusal(a), None);
        assert_eq!(limits.open.lock().by_ip.len(), 2);
    }

    #[test]
    fn connections_count_as_unknown_until_they_are_known_or_closed() {
        let limits = Arc::new(ConnectionLimits::default());
        let max = ConnectionsMax {
            total: 100,
            per_ip: 100,
            unknown_per_ip: 1,
        };
        let [a, b] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let take = |ip| limits.take(max, ip, true);
        let mut first = take(a).unwrap();
        let full = Some("max.unauthenticated.connections.per.ip");
        assert_eq!(take(a).err(), full);
        assert_eq!(take(b).err(), None, "of another address");
        assert_eq!(
            limits.take(max, a, false).err(),
            None,
            "nothing to be known"
        );
        first.set_known();
        first.set_known();
        let second = take(a).unwrap();
        assert_eq!(take(a).err(), full);
        drop(first);
        assert_eq!(take(a).err(), full);
        drop(second);
        assert_eq!(take(a).err(), None);
        assert!(limits.open.lock().by_ip.is_empty());
    }
}
