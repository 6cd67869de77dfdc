//! StreamsGroupDescribeResponse (key 89, v0–v1).
//!
//! Written by schemas/generate.py from StreamsGroupDescribeResponse.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::{GroupId, TopicName};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::protocol::buf::ByteBuf;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// StreamsGroupDescribeResponse (key 89, v0–v1).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StreamsGroupDescribeResponse {
    /// The duration in milliseconds for which the request was throttled due to a quota violation, or zero if the request did not violate any quota.
    pub throttle_time_ms: i32,
    /// Each described group.
    pub groups: Vec<DescribedGroup>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for StreamsGroupDescribeResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.throttle_time_ms.write(out, form)?;
        self.groups.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            throttle_time_ms: Wire::read(input, form)?,
            groups: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { StreamsGroupDescribeResponse {
    with_throttle_time_ms => throttle_time_ms: i32,
    with_groups => groups: Vec<DescribedGroup>,
} }

/// Each described group.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribedGroup {
    /// The describe error, or 0 if there was no error.
    pub error_code: i16,
    /// The top-level error message, or null if there was no error.
    pub error_message: Option<StrBytes>,
    /// The group ID string.
    pub group_id: GroupId,
    /// The group state string, or the empty string.
    pub group_state: StrBytes,
    /// The group epoch.
    pub group_epoch: i32,
    /// The assignment epoch.
    pub assignment_epoch: i32,
    /// The topology metadata currently initialized for the streams application. Can be null in case of a describe error.
    pub topology: Option<Topology>,
    /// The members.
    pub members: Vec<Member>,
    /// 32-bit bitfield to represent authorized operations for this group.
    pub authorized_operations: i32,
    /// The full topology description for this group. Non-null if and only if TopologyDescriptionStatus is AVAILABLE (3); null otherwise.
    pub topology_description: Option<TopologyDescription>,
    /// The status of the topology description for this group, paired with TopologyDescription: 0=NOT_REQUESTED (client did not set IncludeTopologyDescription; TopologyDescription is null); 1=NOT_STORED (no description recorded for this group; TopologyDescription is null); 2=ERROR (broker failed to fetch the description, see broker logs; TopologyDescription is null); 3=AVAILABLE (TopologyDescription is non-null and carries the description).
    pub topology_description_status: i8,
    /// The task assignor that the group coordinator will use for the next assignment computation. This may differ from the assignor that computed the current assignment, because changing the assignor configuration does not trigger a rebalance. Null in case of a describe error.
    pub assignor_name: Option<StrBytes>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for DescribedGroup {
    fn default() -> Self {
        Self {
            error_code: 0,
            error_message: None,
            group_id: Default::default(),
            group_state: Default::default(),
            group_epoch: 0,
            assignment_epoch: 0,
            topology: None,
            members: Default::default(),
            authorized_operations: -2147483648,
            topology_description: None,
            topology_description_status: 0,
            assignor_name: None,
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for DescribedGroup {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.error_code.write(out, form)?;
        self.error_message.write(out, form)?;
        self.group_id.write(out, form)?;
        self.group_state.write(out, form)?;
        self.group_epoch.write(out, form)?;
        self.assignment_epoch.write(out, form)?;
        self.topology.write(out, form)?;
        self.members.write(out, form)?;
        self.authorized_operations.write(out, form)?;
        if form.version >= 1 {
            self.topology_description.write(out, form)?;
        } else if self.topology_description.is_some() {
            return Err(form.lacks("topology_description"));
        }
        if form.version >= 1 {
            self.topology_description_status.write(out, form)?;
        } else if self.topology_description_status != 0 {
            return Err(form.lacks("topology_description_status"));
        }
        if form.version >= 1 {
            self.assignor_name.write(out, form)?;
        }
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            error_code: Wire::read(input, form)?,
            error_message: Wire::read(input, form)?,
            group_id: Wire::read(input, form)?,
            group_state: Wire::read(input, form)?,
            group_epoch: Wire::read(input, form)?,
            assignment_epoch: Wire::read(input, form)?,
            topology: Wire::read(input, form)?,
            members: Wire::read(input, form)?,
            authorized_operations: Wire::read(input, form)?,
            topology_description: if form.version >= 1 {
                Wire::read(input, form)?
            } else {
                None
            },
            topology_description_status: if form.version >= 1 {
                Wire::read(input, form)?
            } else {
                0
            },
            assignor_name: if form.version >= 1 {
                Wire::read(input, form)?
            } else {
                None
            },
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DescribedGroup {
    with_error_code => error_code: i16,
    with_error_message => error_message: Option<StrBytes>,
    with_group_id => group_id: GroupId,
    with_group_state => group_state: StrBytes,
    with_group_epoch => group_epoch: i32,
    with_assignment_epoch => assignment_epoch: i32,
    with_topology => topology: Option<Topology>,
    with_members => members: Vec<Member>,
    with_authorized_operations => authorized_operations: i32,
    with_topology_description => topology_description: Option<TopologyDescription>,
    with_topology_description_status => topology_description_status: i8,
    with_assignor_name => assignor_name: Option<StrBytes>,
} }

/// The topology metadata currently initialized for the streams application. Can be null in case of a describe error.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Topology {
    /// The epoch of the currently initialized topology for this group.
    pub epoch: i32,
    /// The subtopologies of the streams application. This contains the configured subtopologies, where the number of partitions are set and any regular expressions are resolved to actual topics. Null if the group is uninitialized, source topics are missing or incorrectly partitioned.
    pub subtopologies: Option<Vec<Subtopology>>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for Topology {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.epoch.write(out, form)?;
        self.subtopologies.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            epoch: Wire::read(input, form)?,
            subtopologies: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { Topology {
    with_epoch => epoch: i32,
    with_subtopologies => subtopologies: Option<Vec<Subtopology>>,
} }

/// The subtopologies of the streams application. This contains the configured subtopologies, where the number of partitions are set and any regular expressions are resolved to actual topics. Null if the group is uninitialized, source topics are missing or incorrectly partitioned.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Subtopology {
    /// String to uniquely identify the subtopology.
    pub subtopology_id: StrBytes,
    /// The topics the subtopology reads from.
    pub source_topics: Vec<TopicName>,
    /// The repartition topics the subtopology writes to.
    pub repartition_sink_topics: Vec<TopicName>,
    /// The set of state changelog topics associated with this subtopology. Created automatically.
    pub state_changelog_topics: Vec<TopicInfo>,
    /// The set of source topics that are internally created repartition topics. Created automatically.
    pub repartition_source_topics: Vec<TopicInfo>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for Subtopology {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.subtopology_id.write(out, form)?;
        self.source_topics.write(out, form)?;
        self.repartition_sink_topics.write(out, form)?;
        self.state_changelog_topics.write(out, form)?;
        self.repartition_source_topics.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            subtopology_id: Wire::read(input, form)?,
            source_topics: Wire::read(input, form)?,
            repartition_sink_topics: Wire::read(input, form)?,
            state_changelog_topics: Wire::read(input, form)?,
            repartition_source_topics: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { Subtopology {
    with_subtopology_id => subtopology_id: StrBytes,
    with_source_topics => source_topics: Vec<TopicName>,
    with_repartition_sink_topics => repartition_sink_topics: Vec<TopicName>,
    with_state_changelog_topics => state_changelog_topics: Vec<TopicInfo>,
    with_repartition_source_topics => repartition_source_topics: Vec<TopicInfo>,
} }

/// The members.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Member {
    /// The member ID.
    pub member_id: StrBytes,
    /// The member epoch.
    pub member_epoch: i32,
    /// The member instance ID for static membership.
    pub instance_id: Option<StrBytes>,
    /// The rack ID.
    pub rack_id: Option<StrBytes>,
    /// The client ID.
    pub client_id: StrBytes,
    /// The client host.
    pub client_host: StrBytes,
    /// The epoch of the topology on the client.
    pub topology_epoch: i32,
    /// Identity of the streams instance that may have multiple clients.
    pub process_id: StrBytes,
    /// User-defined endpoint for Interactive Queries. Null if not defined for this client.
    pub user_endpoint: Option<Endpoint>,
    /// Used for rack-aware assignment algorithm.
    pub client_tags: Vec<KeyValue>,
    /// Cumulative changelog offsets for tasks.
    pub task_offsets: Vec<TaskOffset>,
    /// Cumulative changelog end offsets for tasks.
    pub task_end_offsets: Vec<TaskOffset>,
    /// The current assignment.
    pub assignment: Assignment,
    /// The target assignment.
    pub target_assignment: Assignment,
    /// True for classic members that have not been upgraded yet.
    pub is_classic: bool,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for Member {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.member_id.write(out, form)?;
        self.member_epoch.write(out, form)?;
        self.instance_id.write(out, form)?;
        self.rack_id.write(out, form)?;
        self.client_id.write(out, form)?;
        self.client_host.write(out, form)?;
        self.topology_epoch.write(out, form)?;
        self.process_id.write(out, form)?;
        self.user_endpoint.write(out, form)?;
        self.client_tags.write(out, form)?;
        self.task_offsets.write(out, form)?;
        self.task_end_offsets.write(out, form)?;
        self.assignment.write(out, form)?;
        self.target_assignment.write(out, form)?;
        self.is_classic.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            member_id: Wire::read(input, form)?,
            member_epoch: Wire::read(input, form)?,
            instance_id: Wire::read(input, form)?,
            rack_id: Wire::read(input, form)?,
            client_id: Wire::read(input, form)?,
            client_host: Wire::read(input, form)?,
            topology_epoch: Wire::read(input, form)?,
            process_id: Wire::read(input, form)?,
            user_endpoint: Wire::read(input, form)?,
            client_tags: Wire::read(input, form)?,
            task_offsets: Wire::read(input, form)?,
            task_end_offsets: Wire::read(input, form)?,
            assignment: Wire::read(input, form)?,
            target_assignment: Wire::read(input, form)?,
            is_classic: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { Member {
    with_member_id => member_id: StrBytes,
    with_member_epoch => member_epoch: i32,
    with_instance_id => instance_id: Option<StrBytes>,
    with_rack_id => rack_id: Option<StrBytes>,
    with_client_id => client_id: StrBytes,
    with_client_host => client_host: StrBytes,
    with_topology_epoch => topology_epoch: i32,
    with_process_id => process_id: StrBytes,
    with_user_endpoint => user_endpoint: Option<Endpoint>,
    with_client_tags => client_tags: Vec<KeyValue>,
    with_task_offsets => task_offsets: Vec<TaskOffset>,
    with_task_end_offsets => task_end_offsets: Vec<TaskOffset>,
    with_assignment => assignment: Assignment,
    with_target_assignment => target_assignment: Assignment,
    with_is_classic => is_classic: bool,
} }

/// Endpoint
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Endpoint {
    /// host of the endpoint
    pub host: StrBytes,
    /// port of the endpoint
    pub port: u16,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for Endpoint {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.host.write(out, form)?;
        self.port.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            host: Wire::read(input, form)?,
            port: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { Endpoint {
    with_host => host: StrBytes,
    with_port => port: u16,
} }

/// TaskOffset
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskOffset {
    /// The subtopology identifier.
    pub subtopology_id: StrBytes,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for TaskOffset {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.subtopology_id.write(out, form)?;
        self.partition.write(out, form)?;
        self.offset.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            subtopology_id: Wire::read(input, form)?,
            partition: Wire::read(input, form)?,
            offset: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { TaskOffset {
    with_subtopology_id => subtopology_id: StrBytes,
    with_partition => partition: i32,
    with_offset => offset: i64,
} }

/// Assignment
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assignment {
    /// Active tasks for this client.
    pub active_tasks: Vec<TaskIds>,
    /// Standby tasks for this client.
    pub standby_tasks: Vec<TaskIds>,
    /// Warm-up tasks for this client.
    pub warmup_tasks: Vec<TaskIds>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for Assignment {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.active_tasks.write(out, form)?;
        self.standby_tasks.write(out, form)?;
        self.warmup_tasks.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            active_tasks: Wire::read(input, form)?,
            standby_tasks: Wire::read(input, form)?,
            warmup_tasks: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { Assignment {
    with_active_tasks => active_tasks: Vec<TaskIds>,
    with_standby_tasks => standby_tasks: Vec<TaskIds>,
    with_warmup_tasks => warmup_tasks: Vec<TaskIds>,
} }

/// TaskIds
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskIds {
    /// The subtopology identifier.
    pub subtopology_id: StrBytes,
    /// The partitions of the input topics processed by this member.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for TaskIds {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.subtopology_id.write(out, form)?;
        self.partitions.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            subtopology_id: Wire::read(input, form)?,
            partitions: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { TaskIds {
    with_subtopology_id => subtopology_id: StrBytes,
    with_partitions => partitions: Vec<i32>,
} }

/// KeyValue
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeyValue {
    /// key of the config
    pub key: StrBytes,
    /// value of the config
    pub value: StrBytes,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for KeyValue {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.key.write(out, form)?;
        self.value.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            key: Wire::read(input, form)?,
            value: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { KeyValue {
    with_key => key: StrBytes,
    with_value => value: StrBytes,
} }

/// TopicInfo
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopicInfo {
    /// The name of the topic.
    pub name: TopicName,
    /// The number of partitions in the topic. Can be 0 if no specific number of partitions is enforced. Always 0 for changelog topics.
    pub partitions: i32,
    /// The replication factor of the topic. Can be 0 if the default replication factor should be used.
    pub replication_factor: i16,
    /// Topic-level configurations as key-value pairs.
    pub topic_configs: Vec<KeyValue>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for TopicInfo {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.name.write(out, form)?;
        self.partitions.write(out, form)?;
        self.replication_factor.write(out, form)?;
        self.topic_configs.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            name: Wire::read(input, form)?,
            partitions: Wire::read(input, form)?,
            replication_factor: Wire::read(input, form)?,
            topic_configs: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { TopicInfo {
    with_name => name: TopicName,
    with_partitions => partitions: i32,
    with_replication_factor => replication_factor: i16,
    with_topic_configs => topic_configs: Vec<KeyValue>,
} }

/// TopologyDescription
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopologyDescription {
    /// The subtopologies that make up this topology.
    pub subtopologies: Vec<TopologyDescriptionSubtopology>,
    /// Global state stores used by this topology.
    pub global_stores: Vec<TopologyDescriptionGlobalStore>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for TopologyDescription {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.subtopologies.write(out, form)?;
        self.global_stores.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            subtopologies: Wire::read(input, form)?,
            global_stores: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { TopologyDescription {
    with_subtopologies => subtopologies: Vec<TopologyDescriptionSubtopology>,
    with_global_stores => global_stores: Vec<TopologyDescriptionGlobalStore>,
} }

/// TopologyDescriptionSubtopology
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopologyDescriptionSubtopology {
    /// The subtopology identifier, unique within the topology.
    pub subtopology_id: StrBytes,
    /// The processing nodes in this subtopology.
    pub nodes: Vec<TopologyDescriptionNode>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for TopologyDescriptionSubtopology {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.subtopology_id.write(out, form)?;
        self.nodes.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            subtopology_id: Wire::read(input, form)?,
            nodes: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { TopologyDescriptionSubtopology {
    with_subtopology_id => subtopology_id: StrBytes,
    with_nodes => nodes: Vec<TopologyDescriptionNode>,
} }

/// TopologyDescriptionNode
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopologyDescriptionNode {
    /// The name of this node (e.g., KSTREAM-SOURCE-0000000000).
    pub name: StrBytes,
    /// The type of this node: 1=SOURCE, 2=PROCESSOR, 3=SINK.
    pub node_type: i8,
    /// The source topics this node reads from. Defined only for source nodes, may be empty if source topics are dynamically determined.
    pub source_topics: Vec<TopicName>,
    /// The topic this node writes to. Defined only for sink nodes, may be null if sink topic is dynamically determined.
    pub sink_topic: Option<TopicName>,
    /// The state store names accessed by this node. Defined only for processor nodes.
    pub stores: Vec<StrBytes>,
    /// The names of successor nodes in the processing graph. Predecessor relationships are reconstructed from this field.
    pub successors: Vec<StrBytes>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for TopologyDescriptionNode {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.name.write(out, form)?;
        self.node_type.write(out, form)?;
        self.source_topics.write(out, form)?;
        self.sink_topic.write(out, form)?;
        self.stores.write(out, form)?;
        self.successors.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            name: Wire::read(input, form)?,
            node_type: Wire::read(input, form)?,
            source_topics: Wire::read(input, form)?,
            sink_topic: Wire::read(input, form)?,
            stores: Wire::read(input, form)?,
            successors: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { TopologyDescriptionNode {
    with_name => name: StrBytes,
    with_node_type => node_type: i8,
    with_source_topics => source_topics: Vec<TopicName>,
    with_sink_topic => sink_topic: Option<TopicName>,
    with_stores => stores: Vec<StrBytes>,
    with_successors => successors: Vec<StrBytes>,
} }

/// TopologyDescriptionGlobalStore
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopologyDescriptionGlobalStore {
    /// The source node providing data to the global store.
    pub source: TopologyDescriptionNode,
    /// The processor node that populates the global store.
    pub processor: TopologyDescriptionNode,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for TopologyDescriptionGlobalStore {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.source.write(out, form)?;
        self.processor.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            source: Wire::read(input, form)?,
            processor: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { TopologyDescriptionGlobalStore {
    with_source => source: TopologyDescriptionNode,
    with_processor => processor: TopologyDescriptionNode,
} }

message!(StreamsGroupDescribeResponse, versions 0 to 1, flexible from 0, headers 0 and 1);
