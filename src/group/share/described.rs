//! A share group for people.

use super::{ShareGroup, ShareMember};
use crate::coordinator::Topics;
use crate::group::consumer::MemberPartitions;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareGroupDescription {
    /// Kafka's name of the state.
    pub state: &'static str,
    /// The group epoch.
    pub epoch: i32,
    /// Of the targets of the members.
    pub assignment_epoch: i32,
    /// By id.
    pub members: Vec<ShareMemberDescription>,
}

/// One of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareMemberDescription {
    /// Made by the client.
    pub member_id: String,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// Where it is, if it says so.
    pub rack: Option<String>,
    /// Of the target that it has.
    pub epoch: i32,
    /// Topics that it reads.
    pub topics: Vec<String>,
    /// What it was told to read.
    pub assigned: MemberPartitions,
}

impl ShareGroup {
    pub(in crate::group) fn describe(&self, topics: &dyn Topics) -> ShareGroupDescription {
        let member = |(id, member): (&String, &ShareMember)| {
            let assigned = member.assigned.iter();
            let assigned = assigned.filter_map(|(id, partitions)| {
                let name = topics.name_of(*id)?;
                Some((*id, name, partitions.iter().copied().collect()))
            });
            ShareMemberDescription {
                member_id: id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rack: member.rack.clone(),
                epoch: member.epoch,
                topics: member.topics.iter().cloned().collect(),
                assigned: assigned.collect(),
            }
        };
        ShareGroupDescription {
            state: self.state(),
            epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            members: self.members.iter().map(member).collect(),
        }
    }
}
