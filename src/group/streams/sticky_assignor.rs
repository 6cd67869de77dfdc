//! Which member runs which task, and which stand by for it (Kafka's StickyTaskAssignor): tasks stay where they are, move to
//! where a copy of their state is, and are spread over processes and their threads evenly. No two threads of a process have to
//! do with the same task. Kafka walks through members in the order of a hash table; here they come in the order of their ids.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::readiness::Part;
use super::tasks::{AssignedTasks, TargetTasks, Task, TaskSet};

/// A member as the assignor sees it.
pub(super) struct Candidate<'a> {
    pub(super) process_id: &'a str,
    pub(super) assigned: &'a AssignedTasks,
    /// How far its copies of state are.
    pub(super) offsets: &'a BTreeMap<Task, i64>,
}

/// A process and its threads, each the place of a member.
#[derive(Default)]
struct Process {
    members: Vec<usize>,
    tasks: HashSet<Task>,
    count: usize,
}

impl Process {
    /// Tasks a thread.
    fn load(&self) -> f64 {
        self.count as f64 / self.members.len() as f64
    }
}

/// Tasks that each member should have at most while others have fewer; grows smaller as members are full.
struct Quota {
    tasks: usize,
    members: usize,
    each: usize,
}

impl Quota {
    fn new(tasks: usize, members: usize) -> Self {
        let mut quota = Self {
            tasks,
            members,
            each: 0,
        };
        quota.divide();
        quota
    }

    fn divide(&mut self) {
        self.each = match self.members {
            0 => 0,
            members => self.tasks.div_ceil(members),
        };
    }

    /// A member has so many now.
    fn has(&mut self, count: usize) {
        if count == self.each {
            self.members = self.members.saturating_sub(1);
            self.tasks = self.tasks.saturating_sub(count);
            self.divide();
        }
    }
}

struct Assigning<'a> {
    candidates: &'a [Candidate<'a>],
    processes: Vec<Process>,
    /// The process of each member.
    process_of: Vec<usize>,
    /// Tasks of each member.
    counts: Vec<usize>,
    targets: Vec<TargetTasks>,
    /// Who runs a task until now.
    active_before: HashMap<Task, usize>,
    /// Who has a copy of its state, the best first.
    copies: HashMap<Task, Vec<usize>>,
    active_quota: Quota,
    quota: Quota,
}

/// A target for each candidate.
pub(super) fn assign(
    candidates: &[Candidate<'_>],
    parts: &BTreeMap<String, Part>,
    standbys: usize,
) -> Vec<TargetTasks> {
    if candidates.is_empty() {
        return Vec::new();
    }
    let tasks_of = |(name, part): (&String, &Part)| -> Vec<Task> {
        (0..part.tasks).map(|n| (name.clone(), n)).collect()
    };
    let all: Vec<Task> = parts.iter().flat_map(tasks_of).collect();
    let stateful = parts.iter().filter(|(_, part)| part.is_stateful);
    let stateful: Vec<Task> = stateful.flat_map(tasks_of).collect();
    let of_standbys = stateful.len().saturating_mul(standbys);
    let mut assigning = Assigning::new(candidates, all.len(), all.len() + of_standbys);
    assigning.active(all);
    if standbys > 0 {
        assigning.standby(stateful, standbys);
    }
    assigning.targets
}

/// By partition, then by subtopology.
fn by_partition(task: &Task) -> (i32, &str) {
    (task.1, &task.0)
}

impl<'a> Assigning<'a> {
    fn new(candidates: &'a [Candidate<'a>], active: usize, all: usize) -> Self {
        let members = candidates.len();
        let mut own = Self {
            candidates,
            processes: Vec::new(),
            process_of: Vec::with_capacity(members),
            counts: vec![0; members],
            targets: vec![TargetTasks::default(); members],
            active_before: HashMap::new(),
            copies: HashMap::new(),
            active_quota: Quota::new(active, members),
            quota: Quota::new(all, members),
        };
        let mut processes: HashMap<&str, usize> = HashMap::new();
        for (member, candidate) in candidates.iter().enumerate() {
            let next = own.processes.len();
            let process = *processes.entry(candidate.process_id).or_insert(next);
            if process == next {
                own.processes.push(Process::default());
            }
            own.processes[process].members.push(member);
            own.process_of.push(process);
            for (name, n, _) in candidate.assigned.active.iter() {
                own.active_before.insert((name.to_owned(), n), member);
            }
        }
        own.rank_copies();
        own
    }

    /// Who stands by comes before who kept state from earlier; the further the copy is, the better.
    fn rank_copies(&mut self) {
        let mut copies: HashMap<Task, Vec<(bool, i64, usize)>> = HashMap::new();
        for (member, candidate) in self.candidates.iter().enumerate() {
            let standby = &candidate.assigned.standby;
            for (name, n) in standby.iter() {
                let task = (name.to_owned(), n);
                let offset = candidate.offsets.get(&task).copied().unwrap_or(0);
                copies.entry(task).or_default().push((true, offset, member));
            }
            for (task, offset) in candidate.offsets {
                if !standby.has(&task.0, task.1) {
                    let found = (false, *offset, member);
                    copies.entry(task.clone()).or_default().push(found);
                }
            }
        }
        self.copies = copies
            .into_iter()
            .map(|(task, mut found)| {
                found.sort_by_key(|(stands_by, offset, _)| (!stands_by, Reverse(*offset)));
                (task, found.into_iter().map(|(_, _, who)| who).collect())
            })
            .collect();
    }

    fn give(&mut self, member: usize, task: Task, is_active: bool) {
        let process = &mut self.processes[self.process_of[member]];
        process.tasks.insert(task.clone());
        process.count += 1;
        self.counts[member] += 1;
        let count = self.counts[member];
        let target = &mut self.targets[member];
        let set: &mut TaskSet = match is_active {
            true => &mut target.active,
            false => &mut target.standby,
        };
        set.insert(task);
        if is_active {
            self.active_quota.has(count);
        }
        self.quota.has(count);
    }

    fn active(&mut self, mut tasks: Vec<Task>) {
        tasks.sort_by(|a, b| by_partition(a).cmp(&by_partition(b)));
        let mut left = Vec::new();
        for task in tasks {
            match self.active_before.get(&task).copied() {
                Some(member) if self.counts[member] < self.active_quota.each => {
                    self.give(member, task, true);
                }
                _ => left.push(task),
            }
        }
        let mut rest = Vec::new();
        for task in left {
            let copies = self.copies.get(&task);
            match copies.and_then(|copies| self.least_loaded_of(copies, None)) {
                Some(member) if self.counts[member] < self.active_quota.each => {
                    self.give(member, task, true);
                }
                _ => rest.push(task),
            }
        }
        rest.sort();
        for task in rest {
            let process = self.least_loaded_process(|_| true);
            if let Some(member) = process.and_then(|process| self.least_loaded_member(process)) {
                self.give(member, task, true);
            }
        }
    }

    fn standby(&mut self, mut tasks: Vec<Task>, standbys: usize) {
        tasks.sort_by(|a, b| by_partition(b).cmp(&by_partition(a)));
        let mut rest: Vec<(Task, usize)> = Vec::new();
        for task in tasks {
            let mut left = standbys;
            while left > 0 {
                let Some(member) = self.standby_as_before(&task) else {
                    break;
                };
                self.give(member, task.clone(), false);
                left -= 1;
            }
            if left > 0 {
                rest.push((task, left));
            }
        }
        rest.sort_by(|a, b| b.0.cmp(&a.0));
        for (task, left) in rest {
            for _ in 0..left {
                let process = self.least_loaded_process(|process| !process.tasks.contains(&task));
                let Some(member) = process.and_then(|process| self.least_loaded_member(process))
                else {
                    tracing::debug!(task = ?task, "fewer processes than a standby needs");
                    break;
                };
                self.give(member, task.clone(), false);
            }
        }
    }

    /// Who ran the task, or stood by for it, and has room.
    fn standby_as_before(&self, task: &Task) -> Option<usize> {
        let has_room = |member: usize| self.counts[member] < self.quota.each;
        if let Some(member) = self.active_before.get(task).copied()
            && !self.processes[self.process_of[member]].tasks.contains(task)
            && has_room(member)
        {
            return Some(member);
        }
        let copies = self.copies.get(task)?;
        let member = self.least_loaded_of(copies, Some(task))?;
        has_room(member).then_some(member)
    }

    /// The first, but for one whose process and thread have both less to do. A process that has to do with the task `unless`
    /// is left out.
    fn least_loaded_of(&self, members: &[usize], unless: Option<&Task>) -> Option<usize> {
        let mut best: Option<(f64, usize, usize)> = None;
        for member in members {
            let process = &self.processes[self.process_of[*member]];
            if unless.is_some_and(|task| process.tasks.contains(task)) {
                continue;
            }
            let (load, count) = (process.load(), self.counts[*member]);
            if best.is_none_or(|(of, least, _)| load < of && count < least) {
                best = Some((load, count, *member));
            }
        }
        best.map(|(_, _, member)| member)
    }

    fn least_loaded_process(&self, may: impl Fn(&Process) -> bool) -> Option<usize> {
        let processes = self.processes.iter().enumerate();
        let processes = processes.filter(|(_, process)| may(process));
        let least = processes.min_by(|(_, a), (_, b)| a.load().total_cmp(&b.load()));
        least.map(|(place, _)| place)
    }

    fn least_loaded_member(&self, process: usize) -> Option<usize> {
        let members = self.processes[process].members.iter().copied();
        members.min_by_key(|member| self.counts[*member])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn parts(tasks: &[(i32, bool)]) -> BTreeMap<String, Part> {
        let parts = tasks.iter().enumerate();
        parts
            .map(|(n, (tasks, is_stateful))| {
                let part = Part {
                    tasks: *tasks,
                    is_stateful: *is_stateful,
                };
                (n.to_string(), part)
            })
            .collect()
    }

    /// What targets would look like once members have them.
    fn as_assigned(target: &TargetTasks) -> AssignedTasks {
        let mut assigned = AssignedTasks::default();
        for (name, n) in target.active.iter() {
            assigned.active.insert((name.to_owned(), n), 1);
        }
        assigned.standby = target.standby.clone();
        assigned
    }

    fn run(
        processes: &[String],
        before: &[AssignedTasks],
        parts: &BTreeMap<String, Part>,
        standbys: usize,
    ) -> Vec<TargetTasks> {
        let offsets = BTreeMap::new();
        let nothing = AssignedTasks::default();
        let candidates: Vec<Candidate<'_>> = processes
            .iter()
            .enumerate()
            .map(|(n, process)| Candidate {
                process_id: process,
                assigned: before.get(n).unwrap_or(&nothing),
                offsets: &offsets,
            })
            .collect();
        assign(&candidates, parts, standbys)
    }

    fn check(processes: &[String], targets: &[TargetTasks], parts: &BTreeMap<String, Part>) {
        let mut active = BTreeSet::new();
        let mut at: BTreeSet<(String, Task)> = BTreeSet::new();
        for (process, target) in processes.iter().zip(targets) {
            for (name, n) in target.active.iter() {
                let task = (name.to_owned(), n);
                assert!(active.insert(task.clone()), "two run {task:?}");
                assert!(at.insert((process.clone(), task)), "twice in a process");
            }
            for (name, n) in target.standby.iter() {
                let task = (name.to_owned(), n);
                assert!(at.insert((process.clone(), task)), "twice in a process");
            }
        }
        let wanted: usize = parts.values().map(|part| part.tasks as usize).sum();
        assert_eq!(active.len(), wanted, "every task is run");
        let counts = targets.iter().map(|target| target.active.iter().count());
        let (least, most) = (counts.clone().min().unwrap(), counts.max().unwrap());
        let threads = processes.iter().collect::<BTreeSet<_>>().len();
        if threads == processes.len() {
            assert!(most - least <= 1, "{least} to {most}");
        }
    }

    proptest! {
        #[test]
        fn every_task_is_run_once_and_none_twice_in_a_process(
            tasks in proptest::collection::vec((1i32..12, any::<bool>()), 1..4),
            processes in proptest::collection::vec(0u8..6, 1..8),
            leaves in proptest::collection::vec(any::<bool>(), 8),
            standbys in 0usize..3,
        ) {
            let parts = parts(&tasks);
            let names: Vec<String> = processes.iter().map(u8::to_string).collect();
            let targets = run(&names, &[], &parts, standbys);
            check(&names, &targets, &parts);
            let before: Vec<AssignedTasks> = targets.iter().map(as_assigned).collect();
            // Nothing changed: nothing moves.
            let again = run(&names, &before, &parts, standbys);
            for (before, now) in targets.iter().zip(&again) {
                prop_assert_eq!(&before.active, &now.active);
            }
            // Some leave: the others keep what they run.
            let stays: Vec<usize> = (0..names.len()).filter(|n| !leaves[*n]).collect();
            if !stays.is_empty() {
                let names: Vec<String> = stays.iter().map(|n| names[*n].clone()).collect();
                let before: Vec<AssignedTasks> =
                    stays.iter().map(|n| before[*n].clone()).collect();
                let targets = run(&names, &before, &parts, standbys);
                check(&names, &targets, &parts);
            }
        }
    }

    #[test]
    fn a_task_goes_where_a_copy_of_its_state_is() {
        let parts = parts(&[(1, true)]);
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let mut before = vec![AssignedTasks::default(); 3];
        before[1].standby.insert(("0".to_owned(), 0));
        let targets = run(&names, &before, &parts, 1);
        assert!(targets[1].active.has("0", 0), "{targets:?}");
        let standby = targets.iter().filter(|of| of.standby.has("0", 0)).count();
        assert_eq!(standby, 1);
        // State on disk from an earlier life counts too, the more the better.
        let nothing = AssignedTasks::default();
        let offsets = [5, 9].map(|n| BTreeMap::from([(("0".to_owned(), 0), n)]));
        let none = BTreeMap::new();
        let candidates = [&none, &offsets[0], &offsets[1]].map(|offsets| Candidate {
            process_id: "p",
            assigned: &nothing,
            offsets,
        });
        let targets = assign(&candidates, &parts, 0);
        assert!(targets[2].active.has("0", 0), "{targets:?}");
    }
}
