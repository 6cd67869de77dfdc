//! Whose quotas and credentials are kept: users, client ids, users' client ids and addresses, each by name or as the default of
//! its kind (KIP-13, KIP-55, KIP-612). The tree has them where Kafka had them in ZooKeeper.

use super::configs::{Configs, Configured};
use crate::config::Overrides;
use crate::meta::paths;

/// The longest name of a user, client id or address that has quotas or credentials, bytes.
pub const ENTITY_NAME_BYTES_MAX: usize = 1024;
/// The most keys that are kept for one of them.
pub const ENTITY_KEYS_MAX: usize = 20;
/// The element between a user and one of its client ids.
const CLIENTS: &str = "clients";

/// One of a kind, or its default.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntityName {
    /// Those of the kind that have none of their own.
    Default,
    /// The one of this name.
    Named(String),
}

impl EntityName {
    /// As requests have it: none stands for the default.
    pub fn new(name: Option<&str>) -> Self {
        name.map_or(Self::Default, |name| Self::Named(name.to_owned()))
    }

    /// The same the other way round.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Default => None,
            Self::Named(name) => Some(name),
        }
    }

    fn element(&self) -> String {
        paths::entity(self.name())
    }

    fn parse(element: &str) -> Option<Self> {
        match paths::unescape(element)? {
            _ if element == paths::CONFIG_DEFAULT => Some(Self::Default),
            name => Some(Self::Named(name)),
        }
    }
}

/// Whose quotas or credentials they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entity {
    /// A user with all its client ids. Its credentials are kept here too.
    User(EntityName),
    /// A client id, whoever the user is.
    Client(EntityName),
    /// A user with one client id.
    UserClient(EntityName, EntityName),
    /// An address.
    Ip(EntityName),
}

impl Entity {
    /// The user of a name.
    pub fn user(name: &str) -> Self {
        Self::User(EntityName::Named(name.to_owned()))
    }

    /// Below which kind it is kept.
    pub fn what(&self) -> Configured {
        match self {
            Self::User(_) | Self::UserClient(..) => Configured::User,
            Self::Client(_) => Configured::Client,
            Self::Ip(_) => Configured::Ip,
        }
    }

    /// Its name in [`Configs`]: as its path goes on below its kind.
    pub fn key(&self) -> String {
        match self {
            Self::User(name) | Self::Client(name) | Self::Ip(name) => name.element(),
            Self::UserClient(user, client) => {
                format!("{}/{CLIENTS}/{}", user.element(), client.element())
            }
        }
    }

    /// The one that has a path below its kind; `None` for a node that is there for those below it only.
    pub(super) fn parse(what: Configured, below: &str) -> Option<Self> {
        let elements: Vec<&str> = below.split('/').collect();
        match (what, &elements[..]) {
            (Configured::User, [user]) => Some(Self::User(EntityName::parse(user)?)),
            (Configured::User, [user, CLIENTS, client]) => Some(Self::UserClient(
                EntityName::parse(user)?,
                EntityName::parse(client)?,
            )),
            (Configured::Client, [client]) => Some(Self::Client(EntityName::parse(client)?)),
            (Configured::Ip, [ip]) => Some(Self::Ip(EntityName::parse(ip)?)),
            _ => None,
        }
    }

    /// Its node.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.what().root(), self.key())
    }

    /// Its names, those that are not of the default.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let (one, other) = match self {
            Self::User(name) | Self::Client(name) | Self::Ip(name) => (name, None),
            Self::UserClient(user, client) => (user, Some(client)),
        };
        [Some(one), other]
            .into_iter()
            .flatten()
            .filter_map(EntityName::name)
    }
}

impl Configs {
    /// What is set for an entity: quotas, and of a user its credentials too.
    pub fn of_entity(&self, entity: &Entity) -> Option<&Overrides> {
        self.get(entity.what(), &entity.key())
    }

    /// All entities that have something set, those of one kind together.
    pub fn entities(&self) -> impl Iterator<Item = (Entity, &Overrides)> {
        let kinds = Configured::ENTITIES.into_iter();
        kinds.flat_map(|what| {
            let all = self.all(what);
            all.filter_map(move |(key, set)| Some((Entity::parse(what, key)?, set)))
        })
    }

    /// Which node has to go where an entity has nothing set any more; `None` where its own has to stay for those below it.
    pub(super) fn emptied(&self, entity: &Entity) -> Option<String> {
        let has_clients = |user: &str| self.has_below(Configured::User, &format!("{user}/"));
        match entity {
            Entity::User(user) if has_clients(&user.element()) => None,
            Entity::UserClient(user, _) if !has_clients(&user.element()) => {
                let user = Entity::User(user.clone());
                let path = user.path();
                match self.of_entity(&user) {
                    Some(_) => Some(format!("{path}/{CLIENTS}")),
                    None => Some(path),
                }
            }
            _ => Some(entity.path()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> EntityName {
        EntityName::Named(name.to_owned())
    }

    #[test]
    fn an_entity_has_the_path_that_kafka_gave_it_and_is_found_by_it() {
        let user_client = |user, client| Entity::UserClient(user, client);
        let cases = [
            (Entity::user("alice"), "/config/users/alice"),
            (Entity::User(EntityName::Default), "/config/users/<default>"),
            (Entity::user("<default>"), "/config/users/%3cdefault>"),
            (Entity::user("a/b"), "/config/users/a%2fb"),
            (Entity::user("clients"), "/config/users/clients"),
            (
                user_client(named("clients"), named("clients")),
                "/config/users/clients/clients/clients",
            ),
            (
                user_client(named("a"), EntityName::Default),
                "/config/users/a/clients/<default>",
            ),
            (
                user_client(EntityName::Default, named("c")),
                "/config/users/<default>/clients/c",
            ),
            (Entity::Client(named("c 1")), "/config/clients/c 1"),
            (Entity::Ip(named("::1")), "/config/ips/::1"),
            (Entity::Ip(EntityName::Default), "/config/ips/<default>"),
        ];
        for (entity, path) in cases {
            assert_eq!(entity.path(), path);
            let found = Entity::parse(entity.what(), &entity.key());
            assert_eq!(found, Some(entity));
        }
        for other in ["a/clients", "a/other/b", "a/clients/b/c", "%zz"] {
            assert_eq!(Entity::parse(Configured::User, other), None, "{other}");
        }
        assert_eq!(Entity::parse(Configured::Group, "g"), None);
    }

    #[test]
    fn a_users_node_goes_when_neither_it_nor_one_of_its_client_ids_has_anything() {
        let set = Overrides::from([("producer_byte_rate".to_owned(), "1.0".to_owned())]);
        let (user, client) = (
            Entity::user("a"),
            Entity::UserClient(named("a"), named("c")),
        );
        let with = |entities: &[&Entity]| {
            let mut configs = Configs::default();
            // Its name begins alike, and it is another user.
            configs.put(Configured::User, "a0", set.clone());
            for entity in entities {
                configs.put(entity.what(), &entity.key(), set.clone());
            }
            configs
        };
        let path = |path: &str| Some(path.to_owned());
        assert_eq!(with(&[]).emptied(&user), path("/config/users/a"));
        assert_eq!(with(&[]).emptied(&client), path("/config/users/a"));
        assert_eq!(with(&[&client]).emptied(&user), None);
        assert_eq!(
            with(&[&user]).emptied(&client),
            path("/config/users/a/clients")
        );
        let other = Entity::UserClient(named("a"), EntityName::Default);
        let kept = with(&[&other]);
        assert_eq!(kept.emptied(&client), path("/config/users/a/clients/c"));
    }
}
