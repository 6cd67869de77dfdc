//! The cluster as this broker sees it: brokers, topics, who leads what; and the changes to it.

mod changes;
mod image;
mod names;
mod placement;
mod producer_ids;
mod topics;

pub use changes::{ClusterError, ConfigChange, NewTopic};
pub use image::{Broker, Image, PartitionInfo, Topic};
pub use names::{NameError, TOPIC_NAME_BYTES_MAX, check_topic_name};
pub use producer_ids::ProducerIds;
pub use topics::{Cluster, Opened};
