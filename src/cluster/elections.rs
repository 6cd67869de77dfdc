//! What becomes of a partition's leader and of its in-sync replicas: pure functions of its state and of who is there (Kafka's
//! PartitionChangeBuilder, KIP-966).
//!
//! Who may lead, in this order: a replica that is in sync; one that is eligible (`elr`), because nothing is committed while
//! fewer are in sync than `min.insync.replicas`, so that it has all that is; where the topic lets it, any replica. The in-sync
//! replicas of a partition that none leads are those that may come back and lead: unlike Kafka's they are never empty.
//!
//! Where the topic's order is strict (`ordering`), its home broker leads and no other one: the first replica, or as long as
//! that one lacks what is committed, the one that led last. While neither is there nobody leads, and all that were in sync
//! stay so, because nothing is added. See [`Change::elect_strictly`].

use std::collections::{BTreeMap, BTreeSet};

use super::image::{Broker, PartitionInfo};

/// What a change goes by, beside the partition's state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// Live brokers.
    pub(super) brokers: &'a BTreeMap<i32, Broker>,
    /// Those that lead only where no other one can.
    pub(super) drained: &'a BTreeSet<i32>,
    /// In-sync replicas that acks=all needs (`min.insync.replicas`).
    pub(super) min_isr: usize,
    /// Whether any replica may lead where none is eligible (`unclean.leader.election.enable`).
    pub(super) unclean: bool,
    /// Whether the home broker alone leads (`ordering=strict`), also where the topic lets any replica lead.
    pub(super) strict: bool,
}

impl Rules<'_> {
    /// Whether a broker may be in sync and lead.
    pub(super) fn is_active(&self, id: i32) -> bool {
        let broker = self.brokers.get(&id);
        broker.is_some_and(|broker| !broker.shutting_down)
    }

    /// Whether a broker never leads; one that is away may.
    fn follows_only(&self, id: i32) -> bool {
        let broker = self.brokers.get(&id);
        broker.is_some_and(|broker| broker.follows_only)
    }

    fn leads_willingly(&self, id: i32) -> bool {
        let broker = self.brokers.get(&id);
        broker.is_some_and(|broker| broker.accept_publish) && !self.drained.contains(&id)
    }
}

/// Brokers whose registration is another one than the state of the partitions was made for.
#[derive(Debug, Clone, Default)]
pub(super) struct Returned {
    /// They were gone for a moment: what they led and were in sync with, they are not any more.
    pub(super) renewed: BTreeSet<i32>,
    /// They have less of the partition than they had.
    pub(super) lost: BTreeSet<i32>,
}

/// Whom an election prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preference {
    /// The leader that is.
    Leader,
    /// The first replica.
    FirstReplica,
    /// Any that has all, also where the order is strict: an operator's fail-over.
    AnyInSync,
}

/// A change to a partition: its parts are set, and [`Change::made`] tells the state that follows.
#[derive(Debug, Clone)]
pub(super) struct Change<'a> {
    before: &'a PartitionInfo,
    rules: Rules<'a>,
    /// Those in sync.
    pub(super) isr: Vec<i32>,
    /// Brokers that keep it.
    pub(super) replicas: Vec<i32>,
    /// Those that a reassignment adds.
    pub(super) adding: Vec<i32>,
    /// Those that it takes away.
    pub(super) removing: Vec<i32>,
    /// See there.
    pub(super) preference: Preference,
    /// Those that have less than they had, and are counted on last.
    pub(super) lost: &'a BTreeSet<i32>,
    /// The leader leads no more, or in a new epoch.
    is_deposed: bool,
}

/// None has lost anything.
static NONE_LOST: BTreeSet<i32> = BTreeSet::new();

impl<'a> Change<'a> {
    /// One that changes nothing yet.
    pub(super) fn of(before: &'a PartitionInfo, rules: Rules<'a>) -> Self {
        Self {
            before,
            rules,
            isr: before.isr.clone(),
            replicas: before.replicas.clone(),
            adding: before.adding.clone(),
            removing: before.removing.clone(),
            preference: Preference::Leader,
            lost: &NONE_LOST,
            is_deposed: false,
        }
    }

    /// The partition's state with the change, where it is another one. The partition epoch grows by one, and the leader
    /// epoch where another broker leads, where the leader's registration is another one, and where a replica goes.
    pub(super) fn made(mut self) -> Option<PartitionInfo> {
        self.complete_reassignment();
        let replicas = &self.replicas;
        self.isr = in_order(replicas, |id| self.isr.contains(&id));
        let may_lead = |id: &i32| !self.rules.follows_only(*id);
        let pool = match self.isr.iter().any(may_lead) {
            true => self.isr.clone(),
            false => self.held(),
        };
        let (leader, isr, is_clean) = self.elect(&pool);
        let elr = match !is_clean || isr.len() >= self.rules.min_isr {
            true => Vec::new(),
            false => in_order(replicas, |id| {
                let had_all = self.before.isr.contains(&id) || self.before.elr.contains(&id);
                had_all && !isr.contains(&id) && !self.lost.contains(&id)
            }),
        };
        let gone = self.before.replicas.iter();
        let gone: Vec<i32> = gone.copied().filter(|id| !replicas.contains(id)).collect();
        let begins = leader != self.before.leader || !gone.is_empty() || self.is_deposed;
        let is_away = |id: &&i32| !self.rules.brokers.contains_key(id);
        let left = self
            .before
            .left_on
            .iter()
            .chain(gone.iter().filter(is_away));
        let left: BTreeSet<i32> = left.copied().filter(|id| !replicas.contains(id)).collect();
        let last_known_leader = match (leader, self.before.leader) {
            (NO_LEADER, NO_LEADER) => self.before.last_known_leader,
            (NO_LEADER, led) => led,
            _ => NO_LEADER,
        };
        let after = PartitionInfo {
            leader,
            isr,
            elr,
            last_known_leader,
            leader_epoch: self.before.leader_epoch + i32::from(begins),
            replicas: self.replicas,
            adding: self.adding,
            removing: self.removing,
            left_on: left.into_iter().collect(),
            ..self.before.clone()
        };
        (after != *self.before).then(|| PartitionInfo {
            partition_epoch: self.before.partition_epoch + 1,
            ..after
        })
    }

    /// Takes away what a reassignment removes, once all that it adds is in sync (Kafka's PartitionReassignmentReplicas).
    fn complete_reassignment(&mut self) {
        if self.adding.is_empty() && self.removing.is_empty() {
            return;
        }
        let stays = |id: &i32| !self.removing.contains(id);
        let isr: Vec<i32> = self.isr.iter().copied().filter(stays).collect();
        let replicas: Vec<i32> = self.replicas.iter().copied().filter(stays).collect();
        let has = |wanted: &[i32]| wanted.iter().all(|id| isr.contains(id));
        // Of fewer replicas all are to be in sync: else there would be less in sync than before. So are those where the order is
        // strict, of which the first alone may lead.
        let is_smaller = self.adding.len() < self.removing.len();
        let are_all_wanted = is_smaller || self.rules.strict;
        if isr.is_empty() || !has(&self.adding) || are_all_wanted && !has(&replicas) {
            return;
        }
        (self.isr, self.replicas) = (isr, replicas);
        (self.adding, self.removing) = (Vec::new(), Vec::new());
    }

    /// Who stays in sync where none of those that were and may lead is left: the one whose return is waited for. One that has less than it
    /// had only where no other one has all: the last known leader then, alone, as by Kafka.
    fn held(&self) -> Vec<i32> {
        let has_all = |had: &[i32]| {
            in_order(&self.replicas, |id| {
                had.contains(&id) && !self.lost.contains(&id) && !self.rules.follows_only(id)
            })
        };
        let mut choices = [has_all(&self.before.isr), has_all(&self.before.elr)].into_iter();
        if let Some(found) = choices.find(|choice| !choice.is_empty()) {
            return found;
        }
        let last = [self.before.leader, self.before.last_known_leader];
        let mut last = last
            .into_iter()
            .chain(self.before.isr.iter().copied())
            .chain(self.replicas.iter().copied());
        let may_lead = |id: &i32| self.replicas.contains(id) && !self.rules.follows_only(*id);
        match last.find(may_lead) {
            Some(last) => vec![last],
            // Nobody ever leads it.
            None => in_order(&self.replicas, |id| self.before.isr.contains(&id)),
        }
    }

    /// The leader, those in sync with it, and whether it has all that is committed. `pool` are those that were in sync.
    fn elect(&self, pool: &[i32]) -> (i32, Vec<i32>, bool) {
        if self.rules.strict {
            return self.elect_strictly(pool);
        }
        let active = |id: &i32| self.rules.is_active(*id);
        let in_sync: Vec<i32> = pool.iter().copied().filter(active).collect();
        if let Some(leader) = self.choose(&in_sync) {
            return (leader, in_sync, true);
        }
        // One that is about to stop leads on until it is gone, where no other one is in sync.
        if let Some(leader) = pool.iter().copied().find(|id| self.lasts_as_leader(*id)) {
            return (leader, vec![leader], true);
        }
        let eligible = self.eligible();
        if let Some(leader) = self.choose(&eligible) {
            return (leader, vec![leader], true);
        }
        let any: Vec<i32> = self.replicas.iter().copied().filter(active).collect();
        match self.choose(&any).filter(|_| self.rules.unclean) {
            Some(leader) => (leader, vec![leader], false),
            None => (NO_LEADER, pool.to_vec(), true),
        }
    }

    /// Those that are there, and have all that is committed though they are not in sync.
    fn eligible(&self) -> Vec<i32> {
        // Where enough are in sync, by a setting that was changed, more is committed than these have.
        let is_short = self.before.isr.len() < self.rules.min_isr;
        in_order(&self.replicas, |id| {
            let has_all = self.before.elr.contains(&id) && !self.lost.contains(&id);
            is_short && has_all && self.rules.is_active(id)
        })
    }

    /// As [`Self::elect`], where the order is strict. A home broker that is drained leads, and one that is about to stop leads until
    /// it is gone. While it is waited for, those that were in sync stay so.
    fn elect_strictly(&self, pool: &[i32]) -> (i32, Vec<i32>, bool) {
        let is_there = |id: &i32| self.is_there(*id);
        let in_sync: Vec<i32> = pool.iter().copied().filter(is_there).collect();
        let eligible = self.eligible();
        let mut candidates = self.home();
        if self.preference == Preference::AnyInSync {
            candidates.extend(in_sync.iter().chain(&eligible));
        }
        candidates.retain(|id| !self.rules.follows_only(*id));
        let first_of = |those: &[i32]| candidates.iter().copied().find(|id| those.contains(id));
        if let Some(leader) = first_of(&in_sync) {
            return (leader, in_sync, true);
        }
        if let Some(leader) = first_of(&eligible) {
            return (leader, vec![leader], true);
        }
        // Who is found in sync by this change has all, too.
        let waiting = in_order(&self.replicas, |id| {
            let is_in_sync = self.before.isr.contains(&id) || self.isr.contains(&id);
            is_in_sync && !self.lost.contains(&id)
        });
        match waiting.iter().any(|id| !self.rules.follows_only(*id)) {
            true => (NO_LEADER, waiting, true),
            false => (NO_LEADER, self.held(), true),
        }
    }

    /// Who may lead where the order is strict, where it has all that is committed: the first replica, then the one that led
    /// last. While replicas move only that one: the first of them is the home broker from when the move is over.
    fn home(&self) -> Vec<i32> {
        let last = match self.before.leader {
            NO_LEADER => self.before.last_known_leader,
            leader => leader,
        };
        let moves = !self.adding.is_empty() || !self.removing.is_empty();
        let mut may_lead = self.replicas.iter().copied();
        let first = may_lead.find(|id| !self.rules.follows_only(*id));
        let first = first.filter(|_| !moves || last == NO_LEADER);
        first.into_iter().chain([last]).collect()
    }

    /// Whether it leads and is registered, though perhaps about to stop.
    fn lasts_as_leader(&self, id: i32) -> bool {
        id == self.before.leader && self.rules.brokers.contains_key(&id)
    }

    /// Whether it is active, or leads and is about to stop.
    fn is_there(&self, id: i32) -> bool {
        self.rules.is_active(id) || self.lasts_as_leader(id)
    }

    /// Whether a broker that would leave the in-sync replicas of ordinary order stays in those of strict order: who leads it
    /// again after a restart, and until it is gone, with all that it had.
    fn stays_at_home(&self, id: i32) -> bool {
        let has_all = self.is_there(id) && !self.lost.contains(&id);
        self.rules.strict && has_all && self.home().contains(&id)
    }

    /// The one that leads of those that may, in the order of the replicas; none that only follows. A broker that is drained, or takes no messages,
    /// leads only where no other one can.
    fn choose(&self, candidates: &[i32]) -> Option<i32> {
        let may_lead = |id: &i32| !self.rules.follows_only(*id);
        let candidates: Vec<i32> = candidates.iter().copied().filter(may_lead).collect();
        let is_willing = |id: &i32| self.rules.leads_willingly(*id);
        let willing: Vec<i32> = candidates.iter().copied().filter(is_willing).collect();
        let candidates = match willing.is_empty() {
            true => candidates,
            false => willing,
        };
        let preferred = match self.preference {
            Preference::Leader | Preference::AnyInSync => None,
            Preference::FirstReplica => self.replicas.first().copied(),
        };
        let preferred = [preferred, Some(self.before.leader)].into_iter().flatten();
        let mut preferred = preferred.filter(|id| candidates.contains(id));
        preferred.next().or(candidates.first().copied())
    }
}

/// Of a partition that none leads.
pub(super) const NO_LEADER: i32 = -1;

fn in_order(replicas: &[i32], is_meant: impl Fn(i32) -> bool) -> Vec<i32> {
    replicas
        .iter()
        .copied()
        .filter(|id| is_meant(*id))
        .collect()
}

/// What becomes of a partition as brokers go and come: who is gone leaves the in-sync replicas, who led is followed by
/// another one, and what none leads is led by one that came back.
///
/// Only its own broker can lead a partition of one replica, in the epoch that it led in. Where that one came back with less than it
/// had, a new epoch begins: consumers that read what is gone find that out by it (KIP-320).
pub(super) fn settled(
    before: &PartitionInfo,
    rules: Rules<'_>,
    returned: &Returned,
) -> Option<PartitionInfo> {
    if before.is_alone() {
        let has_lost = returned.lost.contains(&before.leader);
        return has_lost.then(|| PartitionInfo {
            leader_epoch: before.leader_epoch + 1,
            partition_epoch: before.partition_epoch + 1,
            ..before.clone()
        });
    }
    let mut change = Change::of(before, rules);
    change.lost = &returned.lost;
    change.is_deposed = returned.renewed.contains(&before.leader);
    let left = |id: &i32| returned.renewed.contains(id) || returned.lost.contains(id);
    let is_in_sync = |id: &i32| rules.is_active(*id) && !left(id) || change.stays_at_home(*id);
    let in_sync = before.isr.iter().copied().filter(is_in_sync);
    change.isr = in_sync.collect();
    change.made()
}

#[cfg(test)]
mod tests;
