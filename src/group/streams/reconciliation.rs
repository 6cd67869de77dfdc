//! One step of a member towards its target (Kafka's streams CurrentAssignmentBuilder). Warm-up tasks are not made: Kafka's
//! AssignmentRefiner makes none either.
//!
//! Of a process, one thread at most has to do with a task: so what another thread of it has is waited for too. Two changes need
//! nobody else and happen at once: a task that the member runs becomes one that it stands by for, which it is told together with
//! the revocation; and one that it stands by for becomes its own as soon as that is free, until when it keeps it.
//!
//! Tests: group/streams/tests.rs, group/streams/model.rs.

use std::collections::BTreeMap;

use super::member::{MemberState, StreamsMember};
use super::tasks::{AssignedTasks, Holders, OwnedTasks, Task, TaskSet};

/// What a step depends on. The member is not among the others.
pub(super) struct Reconciliation<'a> {
    pub(super) target_epoch: i32,
    pub(super) others: &'a BTreeMap<String, StreamsMember>,
    pub(super) holders: &'a Holders,
    /// What the member says that it has, if it says so.
    pub(super) owned: Option<&'a OwnedTasks>,
}

/// What there is to do.
#[derive(Default)]
struct Difference {
    kept: AssignedTasks,
    revoked: AssignedTasks,
    /// Free, and to be the member's.
    active: Vec<Task>,
    standby: TaskSet,
    /// Whether others have something that is to be the member's.
    waits: bool,
}

impl Reconciliation<'_> {
    /// Whether anything changed.
    pub(super) fn step(&self, member: &mut StreamsMember) -> bool {
        let epoch = match member.state {
            MemberState::Stable if member.epoch == self.target_epoch => return false,
            MemberState::UnrevokedTasks if self.has_any_of(&member.revoking) => return false,
            MemberState::UnrevokedTasks => member.epoch + 1,
            MemberState::Stable | MemberState::UnreleasedTasks => member.epoch,
        };
        let before = (
            member.state,
            member.epoch,
            member.previous_epoch,
            member.assigned.clone(),
            member.revoking.clone(),
        );
        let mut change = self.difference(member);
        demote(member, &mut change);
        let must_revoke = self.promote(member, &mut change);
        self.apply(member, epoch, change, must_revoke);
        before
            != (
                member.state,
                member.epoch,
                member.previous_epoch,
                member.assigned.clone(),
                member.revoking.clone(),
            )
    }

    fn apply(&self, member: &mut StreamsMember, epoch: i32, change: Difference, must_revoke: bool) {
        member.assigned = change.kept;
        if must_revoke {
            member.state = MemberState::UnrevokedTasks;
            member.advance(epoch);
            member.revoking = change.revoked;
            return;
        }
        for task in change.active {
            member.assigned.active.insert(task, self.target_epoch);
        }
        for (name, n) in change.standby.iter() {
            member.assigned.standby.insert((name.to_owned(), n));
        }
        member.state = match change.waits {
            true => MemberState::UnreleasedTasks,
            false => MemberState::Stable,
        };
        member.advance(self.target_epoch);
        member.revoking = AssignedTasks::default();
    }

    /// Whether the member may still have some of these: it says so, or does not say what it has.
    fn has_any_of(&self, tasks: &AssignedTasks) -> bool {
        self.owned.is_none_or(|owned| owned.has_any(tasks))
    }

    fn difference(&self, member: &StreamsMember) -> Difference {
        let mut change = Difference::default();
        let (has, target) = (&member.assigned, &member.target);
        for (name, n, epoch) in has.active.iter() {
            match target.active.has(name, n) {
                true => change.kept.active.insert((name.to_owned(), n), epoch),
                false => change.revoked.active.insert((name.to_owned(), n), epoch),
            }
        }
        for (name, n) in has.standby.iter() {
            match target.standby.has(name, n) {
                true => change.kept.standby.insert((name.to_owned(), n)),
                false => change.revoked.standby.insert((name.to_owned(), n)),
            }
        }
        for (name, n) in target.active.iter() {
            let task = (name.to_owned(), n);
            if has.active.has(name, n) {
            } else if self.is_active_taken(member, &task) {
                change.waits = true;
            } else {
                change.active.push(task);
            }
        }
        for (name, n) in target.standby.iter() {
            let task = (name.to_owned(), n);
            if has.standby.has(name, n) {
            } else if self.is_standby_taken(member, &task) {
                change.waits = true;
            } else {
                change.standby.insert(task);
            }
        }
        change
    }

    fn is_of_process(&self, member: &StreamsMember, id: &str) -> bool {
        let process = &member.metadata.process_id;
        let other = self.others.get(id);
        id == member.id || other.is_some_and(|other| other.metadata.process_id == *process)
    }

    /// Whether somebody still runs a task, or another thread of the member's process stands by for it.
    fn is_active_taken(&self, member: &StreamsMember, task: &Task) -> bool {
        let stands_by = member.assigned.standby.has(&task.0, task.1);
        let mut holders = self.holders.standby(task);
        self.holders.active(task).is_some()
            || !stands_by && holders.any(|id| self.is_of_process(member, id))
    }

    /// Whether another thread of the member's process runs a task, or any stands by for it.
    fn is_standby_taken(&self, member: &StreamsMember, task: &Task) -> bool {
        let runs = member.assigned.active.has(&task.0, task.1);
        let runner = self.holders.active(task);
        let mut holders = self.holders.standby(task);
        !runs && runner.is_some_and(|id| self.is_of_process(member, id))
            || holders.any(|id| self.is_of_process(member, id))
    }

    /// What the member stands by for and is to run is not given up: it is kept until the task itself is granted. Whether
    /// something else must be given up before anything is granted.
    fn promote(&self, member: &StreamsMember, change: &mut Difference) -> bool {
        let promoted: Vec<Task> = member
            .assigned
            .standby
            .iter()
            .filter(|(name, n)| member.target.active.has(name, *n))
            .map(|(name, n)| (name.to_owned(), n))
            .collect();
        for (name, n) in &promoted {
            change.revoked.standby.remove(name, *n);
        }
        let must_revoke = !change.revoked.is_empty() && self.has_any_of(&change.revoked);
        for task in promoted {
            if must_revoke || !change.active.contains(&task) {
                change.kept.standby.insert(task);
            }
        }
        must_revoke
    }
}

/// What the member runs and is to stand by for is both at once: given up, and granted.
fn demote(member: &StreamsMember, change: &mut Difference) {
    for (name, n, _) in member.assigned.active.iter() {
        if change.standby.has(name, n) {
            change.standby.remove(name, n);
            change.kept.standby.insert((name.to_owned(), n));
        }
    }
}
