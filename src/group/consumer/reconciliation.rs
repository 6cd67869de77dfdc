//! One step of a member towards its target (Kafka's CurrentAssignmentBuilder): what it has and should not have it is asked
//! to give up; what it should have and nobody else has it gets.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::member::{ConsumerMember, MemberState};
use super::partitions::Assigned;

/// Who has a partition: the member's id.
pub(super) type Owners = HashMap<(Uuid, i32), String>;

/// What a step depends on besides the member.
pub(super) struct Reconciliation<'a> {
    pub(super) target_epoch: i32,
    /// Topics that the member reads, of those that exist.
    pub(super) subscribed: &'a BTreeSet<Uuid>,
    pub(super) owners: &'a Owners,
    /// What the member says that it has; `None` where it says nothing of it.
    pub(super) owned: Option<&'a [(Uuid, Vec<i32>)]>,
    /// It reads other topics than before.
    pub(super) has_subscription_changed: bool,
}

impl Reconciliation<'_> {
    /// Takes the step; whether the member is changed.
    pub(super) fn step(&self, member: &mut ConsumerMember) -> bool {
        match member.state {
            MemberState::Stable if member.epoch != self.target_epoch => self.next(member),
            MemberState::Stable if self.has_subscription_changed => self.shrink(member),
            MemberState::Stable => false,
            // It has given partitions up when it does not name them any more.
            MemberState::UnrevokedPartitions if self.may_have(&member.revoking) => {
                self.has_subscription_changed && self.shrink(member)
            }
            MemberState::UnrevokedPartitions | MemberState::UnreleasedPartitions => {
                self.next(member)
            }
        }
    }

    /// Whether the member may still read any of these.
    fn may_have(&self, revoking: &Assigned) -> bool {
        self.owned.is_none_or(|owned| revoking.has_any(owned))
    }

    /// Takes away what is of topics that it reads no more; the rest stays as it is.
    fn shrink(&self, member: &mut ConsumerMember) -> bool {
        let gone: Vec<_> = member
            .assigned
            .iter()
            .filter(|(topic, ..)| !self.subscribed.contains(topic))
            .collect();
        if gone.is_empty() {
            return false;
        }
        let mut revoking = member.revoking.clone();
        for (topic, partition, epoch) in gone {
            member.assigned.remove(topic, partition);
            revoking.insert(topic, partition, epoch);
        }
        if self.may_have(&revoking) {
            member.state = MemberState::UnrevokedPartitions;
            member.revoking = revoking;
        }
        true
    }

    fn next(&self, member: &mut ConsumerMember) -> bool {
        let (assigned, revoking) = self.kept_and_revoked(member);
        if !revoking.is_empty() && self.may_have(&revoking) {
            // It stays in its epoch until it has given them up.
            let is_same = member.state == MemberState::UnrevokedPartitions
                && member.assigned == assigned
                && member.revoking == revoking;
            member.state = MemberState::UnrevokedPartitions;
            (member.assigned, member.revoking) = (assigned, revoking);
            return !is_same;
        }
        let (free, waits) = self.free_of_target(member, &assigned);
        let state = match waits {
            true => MemberState::UnreleasedPartitions,
            false => MemberState::Stable,
        };
        let is_same = free.is_empty()
            && member.state == state
            && member.epoch == self.target_epoch
            && member.revoking.is_empty()
            && member.assigned == assigned;
        member.assigned = assigned;
        for (topic, partition) in free {
            member.assigned.insert(topic, partition, self.target_epoch);
        }
        member.advance(self.target_epoch);
        member.state = state;
        member.revoking = Assigned::default();
        !is_same
    }

    /// Whether a partition is to be the member's.
    fn is_target(&self, member: &ConsumerMember, topic: Uuid, partition: i32) -> bool {
        let target = member.target.get(&topic);
        self.subscribed.contains(&topic)
            && target.is_some_and(|partitions| partitions.contains(&partition))
    }

    fn kept_and_revoked(&self, member: &ConsumerMember) -> (Assigned, Assigned) {
        let (mut kept, mut revoked) = (Assigned::default(), Assigned::default());
        for (topic, partition, epoch) in member.assigned.iter() {
            match self.is_target(member, topic, partition) {
                true => kept.insert(topic, partition, epoch),
                false => revoked.insert(topic, partition, epoch),
            }
        }
        (kept, revoked)
    }

    /// What of the target is still to come and nobody else has, and whether there is some that others have.
    fn free_of_target(
        &self,
        member: &ConsumerMember,
        assigned: &Assigned,
    ) -> (Vec<(Uuid, i32)>, bool) {
        let (mut free, mut waits) = (Vec::new(), false);
        for (topic, partitions) in &member.target {
            if !self.subscribed.contains(topic) {
                continue;
            }
            for partition in partitions {
                let is_others = || {
                    let owner = self.owners.get(&(*topic, *partition));
                    owner.is_some_and(|owner| *owner != member.id)
                };
                if assigned.has(*topic, *partition) {
                } else if is_others() {
                    waits = true;
                } else {
                    free.push((*topic, *partition));
                }
            }
        }
        (free, waits)
    }
}
