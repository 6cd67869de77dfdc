//! The cluster as this broker sees it: brokers, topics, who leads what; and the changes to it.

mod acl_changes;
mod adopt;
mod assignment;
mod assignment_nodes;
mod change_events;
mod changes;
#[allow(clippy::module_inception)]
mod cluster;
mod config_changes;
mod configs;
mod controller;
mod deletions;
mod elections;
mod entities;
mod entity_changes;
mod follow;
mod hand_over;
mod image;
mod leader_elections;
mod membership;
mod names;
mod partition_changes;
mod placement;
mod producer_ids;
mod publish;
mod reassignments;
mod reconcile;
mod reconciler;
mod registered;
mod settlement;
mod standstill;
#[cfg(test)]
mod testing;
mod token_changes;
mod tokens;
mod topic_nodes;
mod topics;
mod view;

pub use acl_changes::{
    ACL_BINDINGS_MAX, ACL_CHANGES_A_REQUEST_MAX, ACL_PATTERN_BYTES_MAX, AclRefusal,
};
pub use assignment::PARTITIONS_PER_TOPIC_MAX;
pub use change_events::record_changes;
pub use changes::{ClusterError, ConfigChange, MorePartitions, NewTopic};
pub use cluster::{Cluster, OpenedTopics, cluster_id_of, unknown_users_secret};
pub use configs::{CONFIG_VALUE_BYTES_MAX, CONFIGURED_RESOURCES_MAX, Configs, Configured, DRAINED};
pub use controller::Controller;
pub use entities::{ENTITY_KEYS_MAX, ENTITY_NAME_BYTES_MAX, Entity, EntityName};
pub use entity_changes::EntityChange;
pub use image::{
    Broker, BrokerEndpoint, INTERNAL_TOPIC_ID, Image, PartitionInfo, SlotInfo, Topic,
    parse_identity,
};
pub use leader_elections::{Election, ElectionRefusal};
pub use membership::Directories;
pub use names::{
    NameError, TOPIC_NAME_BYTES_MAX, check_topic_name, is_internal_name, is_reserved_name,
};
pub use partition_changes::{IsrProposal, IsrRefusal};
pub use producer_ids::ProducerIds;
pub use reassignments::{Reassignment, ReassignmentRefusal};
pub use token_changes::{TOKEN_BYTES_MAX, TOKENS_MAX, TokenRefusal};
pub use tokens::{Token, Tokens};
pub use view::ClusterEvent;
