//! Which limit is in force for whom (Kafka's ClientQuotaManager): of the quotas that match a user and client id the most
//! specific one, and by whom what is done is counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{Configs, Entity, EntityName};

/// What a quota limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaKind {
    /// Bytes a second of produce requests.
    Produce,
    /// Bytes a second of answers to fetches.
    Fetch,
    /// Time that requests take of the broker's threads, percent of one thread.
    Request,
    /// Partitions a second that are created or deleted.
    ControllerMutation,
}

impl QuotaKind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Produce,
        Self::Fetch,
        Self::Request,
        Self::ControllerMutation,
    ];

    /// The key of its limit.
    pub fn key(self) -> &'static str {
        match self {
            Self::Produce => "producer_byte_rate",
            Self::Fetch => "consumer_byte_rate",
            Self::Request => "request_percentage",
            Self::ControllerMutation => "controller_mutation_rate",
        }
    }

    /// As metrics have it (Kafka's QuotaType).
    pub fn name(self) -> &'static str {
        match self {
            Self::Produce => "Produce",
            Self::Fetch => "Fetch",
            Self::Request => "Request",
            Self::ControllerMutation => "ControllerMutation",
        }
    }

    /// Its bit in a set of kinds.
    pub(super) fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The key of the connections that an address may make a second (KIP-612).
pub const CONNECTION_RATE: &str = "connection_creation_rate";

/// A quota that is in force for somebody.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Whose quota it is.
    pub entity: Arc<Entity>,
    /// How much.
    pub limit: f64,
    /// What is counted together.
    pub counted: CountedBy,
}

/// Of whom what is done is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedBy {
    /// Of a user's connections with one client id.
    Both,
    /// Of all connections of a user.
    User,
    /// Of all connections with a client id.
    Client,
}

/// All quotas. See the module's documentation.
#[derive(Debug, Default)]
pub struct Rules {
    limits: HashMap<QuotaKind, HashMap<Arc<Entity>, f64>>,
    ips: HashMap<IpAddr, f64>,
    ip_default: Option<f64>,
}

impl Rules {
    /// What the cluster's configurations say. Addresses that are written as names are resolved by the caller.
    pub fn of(configs: &Configs, resolve: impl Fn(&str) -> Vec<IpAddr>) -> Self {
        let mut rules = Self::default();
        for (entity, set) in configs.entities() {
            let limit = |key: &str| set.get(key)?.parse::<f64>().ok();
            if let Entity::Ip(name) = &entity {
                let Some(rate) = limit(CONNECTION_RATE) else {
                    continue;
                };
                match name {
                    EntityName::Default => rules.ip_default = Some(rate),
                    EntityName::Named(name) => {
                        let resolved = resolve(name).into_iter();
                        rules
                            .ips
                            .extend(resolved.map(|ip| (ip.to_canonical(), rate)));
                    }
                }
                continue;
            }
            let entity = Arc::new(entity);
            for kind in QuotaKind::ALL {
                if let Some(limit) = limit(kind.key()) {
                    let of_kind = rules.limits.entry(kind).or_default();
                    of_kind.insert(entity.clone(), limit);
                }
            }
        }
        rules
    }

    /// The kinds of which there is any quota, as a set of bits.
    pub(super) fn kinds(&self) -> u8 {
        self.limits.keys().fold(0, |bits, kind| bits | kind.bit())
    }

    /// Whether there is any for addresses.
    pub(super) fn has_ips(&self) -> bool {
        self.ip_default.is_some() || !self.ips.is_empty()
    }

    /// Connections that an address may make a second.
    pub fn connection_rate(&self, ip: IpAddr) -> Option<f64> {
        self.ips.get(&ip).copied().or(self.ip_default)
    }

    /// The quota of a kind that is in force for a user and client id. No quota of a client id is for those who say none.
    pub fn find(&self, kind: QuotaKind, user: &str, client: &str) -> Option<Rule> {
        let limits = self.limits.get(&kind)?;
        let matching = PRECEDENCE
            .iter()
            .filter(|(_, counted)| *counted == CountedBy::User || !client.is_empty());
        for (entity, counted) in matching {
            if let Some((entity, limit)) = limits.get_key_value(&entity(user, client)) {
                return Some(Rule {
                    entity: entity.clone(),
                    limit: *limit,
                    counted: *counted,
                });
            }
        }
        None
    }
}

/// Makes an entity of a user and a client id.
type ToEntity = fn(&str, &str) -> Entity;

/// The most specific first.
const PRECEDENCE: [(ToEntity, CountedBy); 8] = [
    (
        |user, client| Entity::UserClient(named(user), named(client)),
        CountedBy::Both,
    ),
    (
        |user, _| Entity::UserClient(named(user), EntityName::Default),
        CountedBy::Both,
    ),
    (|user, _| Entity::User(named(user)), CountedBy::User),
    (
        |_, client| Entity::UserClient(EntityName::Default, named(client)),
        CountedBy::Both,
    ),
    (
        |_, _| Entity::UserClient(EntityName::Default, EntityName::Default),
        CountedBy::Both,
    ),
    (|_, _| Entity::User(EntityName::Default), CountedBy::User),
    (|_, client| Entity::Client(named(client)), CountedBy::Client),
    (
        |_, _| Entity::Client(EntityName::Default),
        CountedBy::Client,
    ),
];

fn named(name: &str) -> EntityName {
    EntityName::Named(name.to_owned())
}

#[cfg(test)]
impl Rules {
    /// Those of one kind.
    pub(super) fn of_kind(kind: QuotaKind, limits: &[(Entity, f64)]) -> Self {
        let limits = limits.iter().cloned();
        let limits = limits.map(|(entity, limit)| (Arc::new(entity), limit));
        Self {
            limits: HashMap::from([(kind, limits.collect())]),
            ..Self::default()
        }
    }

    /// Those of addresses.
    pub(super) fn of_ips(ips: &[(IpAddr, f64)], ip_default: Option<f64>) -> Self {
        Self {
            ips: ips.iter().copied().collect(),
            ip_default,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(user: &str, client: &str) -> Vec<Entity> {
        PRECEDENCE.iter().map(|(of, _)| of(user, client)).collect()
    }

    proptest! {
        #[test]
        fn of_the_quotas_that_match_the_first_one_of_kafkas_order_is_in_force(set in 0u32..256, others in any::<bool>()) {
            let kind = QuotaKind::Fetch;
            let entities = all("u", "c");
            let chosen = entities.iter().enumerate().filter(|(n, _)| set & (1 << n) != 0);
            let mut limits: Vec<(Entity, f64)> =
                chosen.map(|(n, entity)| (entity.clone(), n as f64)).collect();
            if others {
                let of_others = all("other", "another").into_iter();
                let is_named = |entity: &Entity| !entities.contains(entity);
                limits.extend(of_others.filter(is_named).map(|entity| (entity, 99.0)));
            }
            let rules = Rules::of_kind(kind, &limits);
            let found = rules.find(kind, "u", "c").map(|rule| rule.limit);
            let expected = (set != 0).then(|| f64::from(set.trailing_zeros()));
            prop_assert_eq!(found, expected);
            prop_assert_eq!(rules.find(QuotaKind::Produce, "u", "c"), None);
            // Without a client id those of users alone are left.
            let of_users = set & 0b100100;
            let expected = (of_users != 0).then(|| f64::from(of_users.trailing_zeros()));
            prop_assert_eq!(rules.find(kind, "u", "").map(|rule| rule.limit), expected);
        }
    }

    #[test]
    fn an_address_has_its_own_rate_or_that_of_all() {
        let one = IpAddr::from([10, 0, 0, 1]);
        let other = IpAddr::from([10, 0, 0, 2]);
        let rules = Rules::of_ips(&[(one, 3.0)], Some(7.0));
        assert_eq!(rules.connection_rate(one), Some(3.0));
        assert_eq!(rules.connection_rate(other), Some(7.0));
        assert_eq!(Rules::default().connection_rate(one), None);
    }
}
