//! Quotas and credentials of users, client ids and addresses, changed as the controller: several entities in one write, each key
//! by itself, so that a user's quotas and its credentials do not touch each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::changes::ClusterError;
use super::configs::{CONFIG_VALUE_BYTES_MAX, CONFIGURED_RESOURCES_MAX, Configs};
use super::controller::Controller;
use super::entities::{ENTITY_KEYS_MAX, ENTITY_NAME_BYTES_MAX, Entity};
use crate::config::Overrides;
use crate::meta::Op;
use crate::meta::records::{ConfigRecord, RECORD_VERSION, encode};

/// What is to be another for an entity.
#[derive(Clone)]
pub struct EntityChange {
    /// Whose.
    pub entity: Entity,
    /// By key, its value or `None` for none. What is not named stays.
    pub values: BTreeMap<String, Option<String>>,
}

/// Without the values, which may be credentials.
impl fmt::Debug for EntityChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.values.keys().collect();
        f.debug_struct("EntityChange")
            .field("entity", &self.entity)
            .field("keys", &keys)
            .finish()
    }
}

impl Controller {
    /// Makes those of the changes that are within the limits, in one write; what became of each.
    pub async fn change_entities(
        &self,
        changes: &[EntityChange],
        validate_only: bool,
    ) -> Result<Vec<Result<(), ClusterError>>, ClusterError> {
        let _change = self.view.lock_changes().await;
        if !self.is_controller() {
            return Err(ClusterError::NotController);
        }
        let mut configs = Configs::clone(&self.view.image().configs);
        let mut touched = BTreeSet::new();
        let results = changes.iter().map(|change| {
            let is_another = apply(&mut configs, change)?;
            touched.extend(is_another.then_some(&change.entity));
            Ok(())
        });
        let results = results.collect();
        if validate_only || touched.is_empty() {
            return Ok(results);
        }
        self.change_as_controller(ops(&configs, &touched)).await?;
        for entity in touched {
            tracing::info!(?entity, "quotas or credentials changed");
        }
        self.view.put_in_force(configs);
        Ok(results)
    }
}

/// Makes a change; whether it is one.
fn apply(configs: &mut Configs, change: &EntityChange) -> Result<bool, ClusterError> {
    let entity = &change.entity;
    let known = configs.of_entity(entity).cloned().unwrap_or_default();
    let mut set = known.clone();
    for (key, value) in &change.values {
        match value {
            Some(value) => set.insert(key.clone(), value.clone()),
            None => set.remove(key),
        };
    }
    if set == known {
        return Ok(false);
    }
    check(configs, entity, &set)?;
    configs.put(entity.what(), &entity.key(), set);
    Ok(true)
}

fn check(configs: &Configs, entity: &Entity, set: &Overrides) -> Result<(), ClusterError> {
    let refuse = |why: String| Err(ClusterError::Request(why));
    if entity
        .names()
        .any(|name| name.len() > ENTITY_NAME_BYTES_MAX)
    {
        return refuse(format!(
            "The name of a quota's entity is longer than {ENTITY_NAME_BYTES_MAX} bytes."
        ));
    }
    if set.len() > ENTITY_KEYS_MAX {
        return refuse(format!(
            "An entity may have at most {ENTITY_KEYS_MAX} keys."
        ));
    }
    let is_long = |(key, value): &(&String, &String)| {
        key.len() > CONFIG_VALUE_BYTES_MAX || value.len() > CONFIG_VALUE_BYTES_MAX
    };
    if set.iter().any(|entry| is_long(&entry)) {
        return refuse(format!(
            "A key or value is longer than {CONFIG_VALUE_BYTES_MAX} bytes."
        ));
    }
    match configs.has_room_for(entity.what(), &entity.key()) {
        true => Ok(()),
        false => refuse(format!(
            "{CONFIGURED_RESOURCES_MAX} have quotas or credentials, which is the most."
        )),
    }
}

/// What brings the nodes of entities to what is set for them.
fn ops(configs: &Configs, touched: &BTreeSet<&Entity>) -> Vec<Op> {
    let nodes = touched.iter().map(|entity| {
        let set = configs.of_entity(entity).cloned().unwrap_or_default();
        let emptied = set.is_empty().then(|| configs.emptied(entity)).flatten();
        match emptied {
            Some(path) => (path.clone(), Op::delete_tree(path)),
            None => {
                let (version, config) = (RECORD_VERSION, set);
                let data = encode(&ConfigRecord { version, config });
                (entity.path(), Op::put(entity.path(), data))
            }
        }
    });
    // Several entities may be the last of one node.
    let nodes: BTreeMap<String, Op> = nodes.collect();
    nodes.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::super::cluster::Cluster;
    use super::super::entities::EntityName;
    use super::super::testing::alone;
    use super::*;

    fn change(entity: &Entity, values: &[(&str, Option<&str>)]) -> EntityChange {
        let text = |value: Option<&str>| value.map(str::to_owned);
        let values = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), text(*value)));
        EntityChange {
            entity: entity.clone(),
            values: values.collect(),
        }
    }

    async fn make(cluster: &Cluster, changes: &[EntityChange]) {
        let made = cluster.controller().change_entities(changes, false).await;
        assert!(made.unwrap().iter().all(Result::is_ok));
        // The tree says the same.
        let known: Vec<(Entity, Overrides)> = entities(cluster);
        cluster.view.reload_configs().await.unwrap();
        assert_eq!(entities(cluster), known);
    }

    fn entities(cluster: &Cluster) -> Vec<(Entity, Overrides)> {
        let image = cluster.image();
        let all = image.configs.entities();
        all.map(|(entity, set)| (entity, set.clone())).collect()
    }

    async fn nodes(cluster: &Cluster) -> Vec<String> {
        let below = cluster.meta().subtree("/config").await.unwrap();
        let paths = below.into_iter().map(|(path, _)| path);
        paths.filter(|path| path != "/config").collect()
    }

    #[tokio::test]
    async fn each_key_is_changed_by_itself_and_no_empty_node_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let before = nodes(&cluster).await;
        let alice = Entity::user("alice");
        let hers = Entity::UserClient(EntityName::new(Some("alice")), EntityName::Default);
        make(
            &cluster,
            &[change(&alice, &[("SCRAM-SHA-256", Some("secret"))])],
        )
        .await;
        let rate = ("producer_byte_rate", Some("10.0"));
        make(&cluster, &[change(&alice, &[rate]), change(&hers, &[rate])]).await;
        let image = cluster.image();
        let keys: Vec<&String> = image.configs.of_entity(&alice).unwrap().keys().collect();
        assert_eq!(keys, ["SCRAM-SHA-256", "producer_byte_rate"]);
        assert!(!format!("{:?}", image.configs).contains("secret"));
        let gone = [("SCRAM-SHA-256", None), ("producer_byte_rate", None)];
        make(&cluster, &[change(&alice, &gone)]).await;
        assert_eq!(entities(&cluster).len(), 1);
        assert_eq!(entities(&cluster)[0].0, hers);
        make(&cluster, &[change(&hers, &gone)]).await;
        assert!(entities(&cluster).is_empty());
        let after = nodes(&cluster).await;
        let of_a_name = |path: &&String| path.contains("alice");
        assert_eq!(after.iter().find(of_a_name), None, "{before:?}");
    }

    #[tokio::test]
    async fn what_is_beyond_a_limit_is_refused_and_the_rest_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let long = "x".repeat(ENTITY_NAME_BYTES_MAX + 1);
        let keys: Vec<String> = (0..=ENTITY_KEYS_MAX).map(|n| n.to_string()).collect();
        let many: Vec<(&str, Option<&str>)> =
            keys.iter().map(|key| (key.as_str(), Some("1"))).collect();
        let value = "x".repeat(CONFIG_VALUE_BYTES_MAX + 1);
        let changes = [
            change(&Entity::user(&long), &[("a", Some("1"))]),
            change(&Entity::user("many"), &many),
            change(&Entity::user("value"), &[("a", Some(&value))]),
            change(&Entity::user("fine"), &many[1..]),
            change(&Entity::user(&long[1..]), &[("a", Some("1"))]),
        ];
        let controller = cluster.controller();
        let checked = controller.change_entities(&changes, true).await.unwrap();
        let is_fine: Vec<bool> = checked.iter().map(Result::is_ok).collect();
        assert_eq!(is_fine, [false, false, false, true, true]);
        assert!(entities(&cluster).is_empty());
        let made = controller.change_entities(&changes, false).await.unwrap();
        assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 2);
        assert_eq!(entities(&cluster).len(), 2);
    }
}
