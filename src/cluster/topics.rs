//! The changes to topics: creating, extending and configuring them. The controller makes them.
//!
//! A change is validated against the image, written to the coordination tree, applied to the image, and carried
//! out on this broker's partitions, one change at a time. Other brokers follow by the tree.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::assignment::{check_partitions, check_reachable};
use super::changes::{ClusterError, ConfigChange, MorePartitions, NewTopic, apply_change};
use super::controller::Controller;
use super::image::Topic;
use super::names::{check_topic_name, is_reserved_name};
use super::placement::{Identities, Load};
use super::topic_nodes;
use crate::config::{TopicConfig, TopicOverrides, topic_key};
use crate::log::uuid_to_base64;
use crate::meta::{MULTI_BYTES_MAX, MetaError, Op, gather};

/// A topic as it is and as it shall be.
struct Extension {
    before: Arc<Topic>,
    after: Arc<Topic>,
}

impl Controller {
    /// Creates topics; the answers stand in the order of the requests. All that can be created is created in
    /// one write.
    pub async fn create_topics(
        &self,
        wanted: &[NewTopic],
        validate_only: bool,
    ) -> Vec<Result<Arc<Topic>, ClusterError>> {
        let _change = self.view.lock_changes().await;
        if !self.is_controller() {
            return wanted
                .iter()
                .map(|_| Err(ClusterError::NotController))
                .collect();
        }
        let mut load = self.load();
        let mut planned_names: BTreeSet<&str> = BTreeSet::new();
        let mut results: Vec<Result<Topic, ClusterError>> = Vec::with_capacity(wanted.len());
        for new in wanted {
            let planned = match planned_names.contains(new.name.as_str()) {
                true => Err(ClusterError::TopicExists(new.name.clone())),
                false => self.plan(new, &mut load),
            };
            planned_names.insert(&new.name);
            results.push(planned);
        }
        let planned: Vec<&Topic> = results.iter().flatten().collect();
        if validate_only || planned.is_empty() {
            return results
                .into_iter()
                .map(|result| result.map(Arc::new))
                .collect();
        }
        let stored = self.store_new(&planned).await;
        let mut stored = stored.into_iter();
        for result in &mut results {
            if result.is_ok()
                && let Some(Err(error)) = stored.next()
            {
                *result = Err(error);
            }
        }
        let created: Vec<Topic> = results.iter().flatten().cloned().collect();
        self.view.apply(|image| image.put(created)).await;
        for result in &mut results {
            let here = result
                .as_ref()
                .ok()
                .and_then(|topic| self.view.partitions.topic_by_id(topic.id));
            let offline = here.map_or(0, |here| here.offline().count());
            if offline > 0 {
                *result = Err(ClusterError::Storage(offline));
            }
        }
        results
            .into_iter()
            .map(|result| result.map(Arc::new))
            .collect()
    }

    /// Writes new topics, as many together as one write holds.
    async fn store_new(&self, topics: &[&Topic]) -> Vec<Result<(), ClusterError>> {
        let mut results = Vec::with_capacity(topics.len());
        let creates = topics.iter().map(|topic| topic_nodes::create(topic));
        for (count, part) in gather(creates) {
            let (_, left) = topics.split_at(results.len());
            match self.change_as_controller(part).await {
                Ok(()) => results.extend((0..count).map(|_| Ok(()))),
                // One of them is there already; that is not the others' fault.
                Err(ClusterError::Meta(MetaError::NodeExists(_))) => {
                    let begun = results.len();
                    for topic in &left[..count] {
                        let stored = self.change_as_controller(topic_nodes::create(topic));
                        results.push(match stored.await {
                            Err(ClusterError::Meta(MetaError::NodeExists(_))) => {
                                Err(ClusterError::TopicExists(topic.name.to_string()))
                            }
                            stored => stored,
                        });
                    }
                    // They may be there, or are another's.
                    let tried = left.iter().zip(&results[begun..]);
                    let failed = tried.filter(|(_, stored)| stored.is_err());
                    self.read_again(failed.map(|(topic, _)| &topic.name)).await;
                }
                Err(error) => {
                    // They may be there.
                    self.read_again(left[..count].iter().map(|topic| &topic.name))
                        .await;
                    results.extend((0..count).map(|_| Err(error.repeated())));
                }
            }
        }
        results
    }

    /// Creates the topics that the configuration names.
    pub(super) async fn create_named_topics(&self) {
        let config = self.view.config.load_full();
        let missing: Vec<NewTopic> = config
            .named_topics()
            .filter(|name| self.view.image().topic(name).is_none())
            .map(NewTopic::with_defaults)
            .collect();
        for (topic, result) in missing
            .iter()
            .zip(self.create_topics(&missing, false).await)
        {
            if let Err(error) = result {
                tracing::error!(topic = topic.name, %error, "cannot create a topic of the configuration");
            }
        }
    }

    fn plan(&self, new: &NewTopic, load: &mut Load) -> Result<Topic, ClusterError> {
        check_topic_name(&new.name)?;
        let image = self.view.image();
        if image.topic_or_internal(&new.name).is_some() {
            return Err(ClusterError::TopicExists(new.name.clone()));
        }
        if is_reserved_name(&new.name) {
            let why = format!("Creation of internal topic {} is prohibited.", new.name);
            return Err(ClusterError::Request(why));
        }
        if let Some(other) = image.colliding(&new.name) {
            return Err(ClusterError::Collision(new.name.clone(), other.to_string()));
        }
        let mut overrides = TopicOverrides::default();
        for (name, value) in &new.config {
            let value = value.clone().ok_or_else(|| {
                ClusterError::ConfigChange(format!(
                    "Null value not supported for topic configs: {name}"
                ))
            })?;
            overrides.0.insert(name.clone(), value);
        }
        overrides.validate(&self.view.reconciler().defaults_for(&new.name))?;
        let replicas = self.plan_replicas(new, load)?;
        let partitions = Identities::default().deal(&replicas, self.lasting());
        Ok(Topic {
            name: new.name.as_str().into(),
            id: new_topic_id(),
            overrides,
            partitions,
        })
    }

    /// Extends topics; the answers stand in the order of the requests, each of which is for another topic.
    pub async fn create_partitions(
        &self,
        wanted: &[MorePartitions],
        validate_only: bool,
    ) -> Vec<Result<Arc<Topic>, ClusterError>> {
        let _change = self.view.lock_changes().await;
        if !self.is_controller() {
            return wanted
                .iter()
                .map(|_| Err(ClusterError::NotController))
                .collect();
        }
        let mut load = self.load();
        let mut results: Vec<Result<Extension, ClusterError>> = wanted
            .iter()
            .map(|more| self.plan_more(more, &mut load))
            .collect();
        if validate_only {
            return results
                .into_iter()
                .map(|result| result.map(|extension| extension.after))
                .collect();
        }
        let planned = results.iter().flatten();
        let changes =
            planned.map(|planned| topic_nodes::change(&planned.before, &planned.after).concat());
        let mut stored = Vec::new();
        for (count, ops) in gather(changes) {
            let written = self.change_as_controller(ops).await;
            if written.is_err() {
                // They may be larger.
                let tried = results.iter().flatten().skip(stored.len()).take(count);
                let names = tried.map(|planned| &planned.after.name);
                self.read_again(names).await;
            }
            stored.extend((0..count).map(|_| match &written {
                Ok(()) => Ok(()),
                Err(error) => Err(error.repeated()),
            }));
        }
        let mut stored = stored.into_iter();
        for result in &mut results {
            if result.is_ok()
                && let Some(Err(error)) = stored.next()
            {
                *result = Err(error);
            }
        }
        let extended = results.iter().flatten();
        let extended: Vec<Topic> = extended
            .map(|extension| Topic::clone(&extension.after))
            .collect();
        self.view.apply(|image| image.put(extended)).await;
        let opened = results.into_iter().map(|result| {
            let Extension { before, after } = result?;
            let here = self.view.partitions.topic_by_id(after.id);
            let have = before.partitions.len() as i32;
            let is_new = |(index, _): &(i32, &str)| *index >= have;
            match here.map_or(0, |here| here.offline().filter(is_new).count()) {
                0 => Ok(after),
                offline => Err(ClusterError::Storage(offline)),
            }
        });
        opened.collect()
    }

    fn plan_more(
        &self,
        asked: &MorePartitions,
        load: &mut Load,
    ) -> Result<Extension, ClusterError> {
        let image = self.view.image();
        let topic = image.topic(&asked.name).ok_or(ClusterError::UnknownTopic)?;
        let (name, count) = (&asked.name, asked.count);
        let have = topic.partitions.len() as i32;
        if count == have {
            return Err(ClusterError::Partitions(format!(
                "Topic already has {have} partition(s)."
            )));
        }
        if count < have {
            return Err(ClusterError::Partitions(format!(
                "The topic {name} currently has {have} partition(s); {count} would not be an increase."
            )));
        }
        check_partitions(count)?;
        let more = (count - have) as usize;
        let factor = topic.partitions.first().map(|info| info.replicas.len());
        let replicas = match &asked.assignments {
            Some(assignments) if assignments.len() != more => {
                return Err(ClusterError::Assignment(format!(
                    "Attempted to add {more} additional partition(s), but only {} assignment(s) were specified.",
                    assignments.len()
                )));
            }
            Some(assignments) => {
                let by_index = (have..).zip(assignments.iter().cloned());
                self.check_assignments(have, &by_index.collect(), factor)?
            }
            None => {
                let factor = factor.unwrap_or(1);
                check_reachable(factor, load).map_err(ClusterError::ReplicationFactor)?;
                load.deal(more, factor)
            }
        };
        let mut extended = Topic::clone(topic);
        let dealt = Identities::of(topic).deal(&replicas, self.lasting());
        extended.partitions.extend(dealt);
        Ok(Extension {
            before: topic.clone(),
            after: Arc::new(extended),
        })
    }

    /// Changes a topic's configuration.
    pub async fn change_config(
        &self,
        name: &str,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<(), ClusterError> {
        let _change = self.view.lock_changes().await;
        if !self.is_controller() {
            return Err(ClusterError::NotController);
        }
        let known = self.view.image().topic(name).cloned();
        let mut overrides = match &known {
            Some(topic) => topic.overrides.clone(),
            None => TopicOverrides::default(),
        };
        let defaults = self.view.reconciler().defaults_for(name);
        let kind_of = |key: &str| topic_key(key).map(|key| key.kind);
        let default_of = |key: &str| {
            let overrides = &TopicOverrides::default();
            let broker = &defaults;
            TopicConfig { overrides, broker }.get(key).to_owned()
        };
        for change in changes {
            apply_change(&mut overrides.0, kind_of, default_of, change)?;
        }
        // In Kafka's order: the topic is looked for last (ConfigurationControlManager.validateAlterConfig).
        if name.is_empty() {
            let why = "Default topic resources are not allowed.";
            return Err(ClusterError::Request(why.to_owned()));
        }
        check_topic_name(name)?;
        overrides.validate(&defaults)?;
        let topic = known.ok_or_else(|| ClusterError::NoSuchTopic(name.to_owned()))?;
        if validate_only {
            return Ok(());
        }
        let changed = Topic {
            overrides,
            ..Topic::clone(&topic)
        };
        // Who may lead hangs on min.insync.replicas and unclean.leader.election.enable.
        let changed = self.settled_by(changed);
        self.store(&topic, &changed).await?;
        self.view.apply(|image| image.put([changed])).await;
        Ok(())
    }

    async fn store(&self, before: &Topic, after: &Topic) -> Result<(), ClusterError> {
        let changes = topic_nodes::change(before, after);
        let bytes: usize = changes.iter().flatten().map(Op::bytes).sum();
        let changes = match bytes <= MULTI_BYTES_MAX {
            true => vec![changes.concat()],
            // Of a large topic each node is a change by itself, in their order.
            false => changes,
        };
        let changes = changes.into_iter().filter(|ops| !ops.is_empty());
        for (_, ops) in gather(changes) {
            if let Err(error) = self.change_as_controller(ops).await {
                self.read_again([&after.name].into_iter()).await;
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Random, but none that would read as a command-line option in base64.
fn new_topic_id() -> Uuid {
    loop {
        let id = Uuid::new_v4();
        if !uuid_to_base64(id).starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{alone, create, new_topic};
    use super::*;

    #[tokio::test]
    async fn of_the_topics_of_one_request_each_has_its_own_answer() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        create(&cluster, "x.y", 1).await;
        let wanted = [
            new_topic("x_y", 1),
            new_topic("x.y", 1),
            new_topic("new", 3),
            new_topic("b d", 1),
            new_topic("none", 0),
        ];
        for validate_only in [true, false] {
            let made = cluster.controller().create_topics(&wanted, validate_only);
            let made = made.await;
            assert!(matches!(&made[0], Err(ClusterError::Collision(_, known)) if known == "x.y"));
            assert!(matches!(made[1], Err(ClusterError::TopicExists(_))));
            assert_eq!(made[2].as_ref().unwrap().partitions.len(), 3);
            assert!(matches!(made[3], Err(ClusterError::Name(_))));
            assert!(matches!(made[4], Err(ClusterError::Partitions(_))));
            assert_eq!(cluster.image().topic("new").is_none(), validate_only);
        }
        assert!(cluster.view.partitions.get("new", 2).is_ok());
    }

    #[tokio::test]
    async fn topics_are_extended_each_for_itself_and_keep_what_they_have() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        create(&cluster, "a", 1).await;
        create(&cluster, "b", 2).await;
        let before = cluster.image();
        let more = |name: &str, count| MorePartitions {
            name: name.to_owned(),
            count,
            assignments: None,
        };
        let wanted = [more("a", 3), more("b", 2), more("c", 2), more("b", 1)];
        let only = cluster.controller().create_partitions(&wanted, true).await;
        assert_eq!(only[0].as_ref().unwrap().partitions.len(), 3);
        assert_eq!(cluster.image().topic("a"), before.topic("a"));
        let made = cluster.controller().create_partitions(&wanted, false).await;
        assert!(made[0].is_ok());
        assert!(matches!(made[1], Err(ClusterError::Partitions(_))));
        assert!(matches!(made[2], Err(ClusterError::UnknownTopic)));
        assert!(matches!(made[3], Err(ClusterError::Partitions(_))));
        let image = cluster.image();
        let extended = image.topic("a").unwrap();
        assert_eq!(extended.id, before.topic("a").unwrap().id);
        let identities: Vec<String> = extended
            .partitions
            .iter()
            .map(|info| info.identity.to_string())
            .collect();
        assert_eq!(identities, ["0-0", "0-1", "0-2"]);
        assert!(cluster.view.partitions.get("a", 2).is_ok());
    }

    #[tokio::test]
    async fn a_setting_is_in_the_tree_and_in_force_or_neither() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        create(&cluster, "t", 1).await;
        let change = |name: &str| ConfigChange::Set(name.to_owned(), "4096".to_owned());
        let unknown = [change("segment.bytes.of.nobody")];
        let refused = cluster.controller().change_config("t", &unknown, false);
        assert!(refused.await.is_err());
        let known = [change("max.message.bytes")];
        let changed = cluster.controller().change_config("t", &known, false);
        changed.await.unwrap();
        let overrides = cluster.image().topic("t").unwrap().overrides.clone();
        assert_eq!(overrides.0["max.message.bytes"], "4096");
        let names = BTreeSet::from(["t".to_owned()]);
        let read = topic_nodes::read_named(cluster.meta(), &names).await;
        let read = read.unwrap().remove(0).unwrap().unwrap();
        assert_eq!(read.overrides, overrides);
        let nobody = cluster.controller().change_config("u", &known, false).await;
        assert!(matches!(nobody, Err(ClusterError::NoSuchTopic(_))));
    }
}
