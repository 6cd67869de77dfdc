//! The cluster as this broker sees it: brokers, topics, who leads what; and the changes to it.

mod image;
mod names;
mod producer_ids;
mod topics;

pub use image::{Broker, Image, PartitionInfo, Topic};
pub use names::{NameError, TOPIC_NAME_BYTES_MAX, check_topic_name};
pub use producer_ids::ProducerIds;
pub use topics::{Cluster, ClusterError, ConfigChange, NewTopic, Opened};
