//! How many connections there may be: of all listeners together, and from one address.

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
}

/// Open connections; one for a server, so that all its listeners count together.
#[derive(Default)]
pub(super) struct ConnectionLimits {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// Leave for one connection to be open; given back when dropped.
pub(super) struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    ip: IpAddr,
}

impl ConnectionLimits {
    /// A permit, or the name of the limit that allows no more.
    pub(super) fn take(
        self: &Arc<Self>,
        max: ConnectionsMax,
        ip: IpAddr,
    ) -> Result<ConnectionPermit, &'static str> {
        let mut open = self.open.lock();
        let from_ip = open.by_ip.get(&ip).copied().unwrap_or(0);
        if open.total >= max.total {
            return Err("max.connections");
        }
        if from_ip >= max.per_ip {
            return Err("max.connections.per.ip");
        }
        open.total += 1;
        open.by_ip.insert(ip, from_ip + 1);
        Ok(ConnectionPermit {
            limits: self.clone(),
            ip,
        })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock();
        open.total -= 1;
        if let Some(from_ip) = open.by_ip.get_mut(&self.ip) {
            *from_ip -= 1;
            if *from_ip == 0 {
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
        };
        let [a, b] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let refusal = |ip| limits.take(max, ip).err();
        let first = limits.take(max, a).unwrap();
        let _second = limits.take(max, a).unwrap();
        assert_eq!(refusal(a), Some("max.connections.per.ip"));
        let _third = limits.take(max, b).unwrap();
        assert_eq!(refusal(b), Some("max.connections"));
        drop(first);
        assert_eq!(refusal(a), None);
        assert_eq!(limits.open.lock().by_ip.len(), 2);
    }
}
