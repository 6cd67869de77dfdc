//! What machines may know of topics.

use std::pin::Pin;

use uuid::Uuid;

/// A partition, as stored nodes name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPartition {
    /// The topic's id; a topic that is created again under the same name has another one.
    pub topic_id: Uuid,
    /// `brokerId-n`.
    pub identity: String,
}

/// A view of the cluster's topics, as new as the broker's image of them.
pub trait Topics: Send + Sync {
    /// A partition by its index.
    fn partition(&self, topic: &str, index: i32) -> Option<TopicPartition>;
    /// The index of a partition `brokerId-n`.
    fn index_of(&self, topic: &str, identity: &str) -> Option<i32>;
    /// The id of a topic.
    fn id_of(&self, topic: &str) -> Option<Uuid>;
    /// The name of a topic.
    fn name_of(&self, id: Uuid) -> Option<String>;
    /// The id of a topic, and how many partitions it has.
    fn shape_of(&self, topic: &str) -> Option<(Uuid, i32)>;
    /// Tells the names of all topics.
    fn for_each_name(&self, tell: &mut dyn FnMut(&str));
    /// Another one whenever any topic may be another.
    fn version(&self) -> u64;
    /// Makes the view as new as the tree: it may not know yet what stored nodes name. Whether it is.
    fn refresh(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}
