//! Tasks, and sets of them. A task is a subtopology and a partition: one thread of the application runs it, others may stand by
//! with a copy of its state.
//!
//! Tests: group/streams/sticky_assignor.rs, group/streams/model.rs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A task's subtopology and partition.
pub(in crate::group) type Task = (String, i32);

/// Tasks by subtopology.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::group) struct TaskSet(pub(super) BTreeMap<String, BTreeSet<i32>>);

impl TaskSet {
    /// Of lists of partitions.
    pub(in crate::group) fn of(lists: impl IntoIterator<Item = (String, Vec<i32>)>) -> Self {
        let mut set = Self::default();
        for (subtopology, partitions) in lists {
            if !partitions.is_empty() {
                set.0.entry(subtopology).or_default().extend(partitions);
            }
        }
        set
    }

    pub(super) fn has(&self, subtopology: &str, partition: i32) -> bool {
        let partitions = self.0.get(subtopology);
        partitions.is_some_and(|partitions| partitions.contains(&partition))
    }

    pub(super) fn insert(&mut self, (subtopology, partition): Task) {
        self.0.entry(subtopology).or_default().insert(partition);
    }

    pub(super) fn remove(&mut self, subtopology: &str, partition: i32) {
        if let Some(partitions) = self.0.get_mut(subtopology) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.0.remove(subtopology);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, i32)> {
        let all = self.0.iter();
        all.flat_map(|(name, partitions)| partitions.iter().map(|n| (&**name, *n)))
    }

    /// Partitions in lists.
    pub(in crate::group) fn lists(&self) -> BTreeMap<String, Vec<i32>> {
        let all = self.0.iter();
        all.map(|(name, partitions)| (name.clone(), partitions.iter().copied().collect()))
            .collect()
    }
}

/// Active tasks by subtopology, each with the member epoch since when it is the member's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::group) struct ActiveTasks(pub(super) BTreeMap<String, BTreeMap<i32, i32>>);

impl ActiveTasks {
    pub(super) fn has(&self, subtopology: &str, partition: i32) -> bool {
        self.since(subtopology, partition).is_some()
    }

    /// Since which epoch a task is the member's.
    pub(super) fn since(&self, subtopology: &str, partition: i32) -> Option<i32> {
        self.0.get(subtopology)?.get(&partition).copied()
    }

    pub(super) fn insert(&mut self, (subtopology, partition): Task, epoch: i32) {
        self.0
            .entry(subtopology)
            .or_default()
            .insert(partition, epoch);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, i32, i32)> {
        let all = self.0.iter();
        all.flat_map(|(name, tasks)| tasks.iter().map(|(n, epoch)| (&**name, *n, *epoch)))
    }

    /// From now on they are the member's since epoch 0.
    pub(super) fn forget_epochs(&mut self) {
        for epoch in self.0.values_mut().flat_map(BTreeMap::values_mut) {
            *epoch = 0;
        }
    }

    /// The tasks alone.
    pub(in crate::group) fn tasks(&self) -> TaskSet {
        let all = self.0.iter();
        let sets = all.map(|(name, tasks)| (name.clone(), tasks.keys().copied().collect()));
        TaskSet(sets.collect())
    }
}

/// What a member has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::group) struct AssignedTasks {
    pub(in crate::group) active: ActiveTasks,
    pub(in crate::group) standby: TaskSet,
}

impl AssignedTasks {
    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty() && self.standby.is_empty()
    }
}

/// What a member is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::group) struct TargetTasks {
    pub(in crate::group) active: TaskSet,
    pub(in crate::group) standby: TaskSet,
}

/// What a member says that it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::group) struct OwnedTasks {
    pub(in crate::group) active: TaskSet,
    pub(in crate::group) standby: TaskSet,
    /// Standby tasks on their way to be active ones; the group gives none.
    pub(in crate::group) warmup: TaskSet,
}

impl OwnedTasks {
    /// Whether any of these is among them.
    pub(super) fn has_any(&self, tasks: &AssignedTasks) -> bool {
        let mut active = tasks.active.iter();
        let mut standby = tasks.standby.iter();
        active.any(|(name, n, _)| self.active.has(name, n))
            || standby.any(|(name, n)| self.standby.has(name, n))
    }

    /// Whether all of them are the member's.
    pub(super) fn are_all(&self, assigned: &AssignedTasks) -> bool {
        let mut active = self.active.iter();
        let mut standby = self.standby.iter();
        active.all(|(name, n)| assigned.active.has(name, n))
            && standby.all(|(name, n)| assigned.standby.has(name, n))
            && self.warmup.is_empty()
    }

    /// Whether they are the member's, and no others are.
    pub(super) fn is_all_of(&self, assigned: &AssignedTasks) -> bool {
        self.active == assigned.active.tasks() && self.standby == assigned.standby
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, i32)> {
        let active = self.active.iter();
        active.chain(self.standby.iter()).chain(self.warmup.iter())
    }
}

/// Which members have which tasks, those that they are to give up included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holders {
    active: HashMap<Task, String>,
    standby: HashMap<Task, BTreeSet<String>>,
}

impl Holders {
    /// Who runs a task.
    pub(super) fn active(&self, task: &Task) -> Option<&String> {
        self.active.get(task)
    }

    /// Who stands by for it.
    pub(super) fn standby(&self, task: &Task) -> impl Iterator<Item = &String> {
        self.standby.get(task).into_iter().flatten()
    }

    /// A member has these, and no others any more.
    pub(super) fn change(
        &mut self,
        member_id: &str,
        before: [&AssignedTasks; 2],
        now: [&AssignedTasks; 2],
    ) {
        for tasks in before {
            for (name, n, _) in tasks.active.iter() {
                let task = (name.to_owned(), n);
                if self.active.get(&task).is_some_and(|id| id == member_id) {
                    self.active.remove(&task);
                }
            }
            for (name, n) in tasks.standby.iter() {
                let task = (name.to_owned(), n);
                if let Some(holders) = self.standby.get_mut(&task) {
                    holders.remove(member_id);
                    if holders.is_empty() {
                        self.standby.remove(&task);
                    }
                }
            }
        }
        for tasks in now {
            for (name, n, _) in tasks.active.iter() {
                self.active
                    .insert((name.to_owned(), n), member_id.to_owned());
            }
            for (name, n) in tasks.standby.iter() {
                let holders = self.standby.entry((name.to_owned(), n)).or_default();
                holders.insert(member_id.to_owned());
            }
        }
    }
}
