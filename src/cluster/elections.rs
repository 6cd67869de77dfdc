//! What becomes of a partition's leader and of its in-sync replicas: pure functions of its state and of who is there (Kafka's
//! PartitionChangeBuilder, KIP-966).
//!
//! Who may lead, in this order: a replica that is in sync; one that is eligible (`elr`), because nothing is committed while
//! fewer are in sync than `min.insync.replicas`, so that it has all that is; where the topic lets it, any replica. The in-sync
//! replicas of a partition that none leads are those that may come back and lead: unlike Kafka's they are never empty.

use std::collections::{BTreeMap, BTreeSet};

use super::image::{Broker, PartitionInfo};

/// What a change goes by, beside the partition's state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// Live brokers.
    pub(super) brokers: &'a BTreeMap<i32, Broker>,
    /// In-sync replicas that acks=all needs (`min.insync.replicas`).
    pub(super) min_isr: usize,
    /// Whether any replica may lead where none is eligible (`unclean.leader.election.enable`).
    pub(super) unclean: bool,
}

impl Rules<'_> {
    /// Whether a broker may be in sync and lead.
    pub(super) fn is_active(&self, id: i32) -> bool {
        let broker = self.brokers.get(&id);
        broker.is_some_and(|broker| !broker.shutting_down)
    }

    fn takes_messages(&self, id: i32) -> bool {
        let broker = self.brokers.get(&id);
        broker.is_some_and(|broker| broker.accept_publish)
    }
}

/// Brokers whose registration is another one than the state of the partitions was made for.
#[derive(Debug, Clone, Default)]
pub(super) struct Returned {
    /// They were gone for a moment: what they led and were in sync with, they are not any more.
    pub(super) renewed: BTreeSet<i32>,
    /// They have less than they had.
    pub(super) lost: BTreeSet<i32>,
}

/// Whom an election prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preference {
    /// The leader that is.
    Leader,
    /// The first replica.
    FirstReplica,
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
    lost: &'a BTreeSet<i32>,
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
        let pool = match self.isr.is_empty() {
            true => self.held(),
            false => self.isr.clone(),
        };
        let (leader, isr, is_clean) = self.elect(&pool);
        let elr = match !is_clean || isr.len() >= self.rules.min_isr {
            true => Vec::new(),
            false => in_order(replicas, |id| {
                let had_all = self.before.isr.contains(&id) || self.before.elr.contains(&id);
                had_all && !isr.contains(&id) && !self.lost.contains(&id)
            }),
        };
        let gives_up = self.before.replicas.iter();
        let gives_up = gives_up.filter(|id| !replicas.contains(id)).count() > 0;
        let begins = leader != self.before.leader || gives_up || self.is_deposed;
        let after = PartitionInfo {
            leader,
            isr,
            elr,
            leader_epoch: self.before.leader_epoch + i32::from(begins),
            replicas: self.replicas,
            adding: self.adding,
            removing: self.removing,
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
        // Of fewer replicas all are to be in sync: else there would be less in sync than before.
        let is_smaller = self.adding.len() < self.removing.len();
        if isr.is_empty() || !has(&self.adding) || is_smaller && !has(&replicas) {
            return;
        }
        (self.isr, self.replicas) = (isr, replicas);
        (self.adding, self.removing) = (Vec::new(), Vec::new());
    }

    /// Who stays in sync where none of those that were is left: the one whose return is waited for. That of a broker that
    /// has less than it had only where no other one has all (Kafka's last known leader).
    fn held(&self) -> Vec<i32> {
        let has_all = |id: i32| !self.lost.contains(&id);
        let among = |had: &[i32], is_meant: &dyn Fn(i32) -> bool| {
            in_order(&self.replicas, |id| had.contains(&id) && is_meant(id))
        };
        let any = |_: i32| true;
        let mut choices = [
            among(&self.before.isr, &has_all),
            among(&self.before.elr, &has_all),
            among(&self.before.isr, &any),
        ]
        .into_iter();
        let found = choices.find(|choice| !choice.is_empty());
        found.unwrap_or_else(|| self.replicas.first().copied().into_iter().collect())
    }

    /// The leader, those in sync with it, and whether it has all that is committed. `pool` are those that were in sync.
    fn elect(&self, pool: &[i32]) -> (i32, Vec<i32>, bool) {
        let active = |id: &i32| self.rules.is_active(*id);
        let in_sync: Vec<i32> = pool.iter().copied().filter(active).collect();
        if let Some(leader) = self.choose(&in_sync) {
            return (leader, in_sync, true);
        }
        // One that is about to stop leads on until it is gone, where no other one is in sync.
        let lasts = self.rules.brokers.contains_key(&self.before.leader);
        if lasts && pool.contains(&self.before.leader) {
            return (self.before.leader, vec![self.before.leader], true);
        }
        // Where enough are in sync, by a setting that was changed, more is committed than the eligible ones have.
        let is_short = self.before.isr.len() < self.rules.min_isr;
        let eligible = in_order(&self.replicas, |id| {
            is_short && self.before.elr.contains(&id) && !self.lost.contains(&id) && active(&id)
        });
        if let Some(leader) = self.choose(&eligible) {
            return (leader, vec![leader], true);
        }
        let any: Vec<i32> = self.replicas.iter().copied().filter(active).collect();
        match self.choose(&any).filter(|_| self.rules.unclean) {
            Some(leader) => (leader, vec![leader], false),
            None => (NO_LEADER, pool.to_vec(), true),
        }
    }

    /// The one that leads of those that may, in the order of the replicas. A broker that takes no messages leads only where
    /// no other one can.
    fn choose(&self, candidates: &[i32]) -> Option<i32> {
        let takes = |id: &i32| self.rules.takes_messages(*id);
        let willing: Vec<i32> = candidates.iter().copied().filter(takes).collect();
        let candidates = match willing.is_empty() {
            true => candidates,
            false => &willing,
        };
        let preferred = match self.preference {
            Preference::Leader => None,
            Preference::FirstReplica => self.replicas.first().copied(),
        };
        let preferred = [preferred, Some(self.before.leader)].into_iter().flatten();
        let mut preferred = preferred.filter(|id| candidates.contains(id));
        preferred.next().or(candidates.first().copied())
    }
}

/// Of a partition that none leads.
const NO_LEADER: i32 = -1;

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
/// A partition of one replica stays as it is: only that one can lead it, in the epoch that it led in.
pub(super) fn settled(
    before: &PartitionInfo,
    rules: Rules<'_>,
    returned: &Returned,
) -> Option<PartitionInfo> {
    if before.is_alone() {
        return None;
    }
    let mut change = Change::of(before, rules);
    change.lost = &returned.lost;
    change.is_deposed = returned.renewed.contains(&before.leader);
    let left = |id: &i32| returned.renewed.contains(id) || returned.lost.contains(id);
    change.isr.retain(|id| rules.is_active(*id) && !left(id));
    change.made()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::partition::Identity;

    fn brokers(ids: &[i32]) -> BTreeMap<i32, Broker> {
        let broker = |id: &i32| {
            let broker = Broker {
                id: *id,
                endpoints: Vec::new(),
                rack: None,
                accept_publish: true,
                shutting_down: false,
                epoch: 1,
            };
            (*id, broker)
        };
        ids.iter().map(broker).collect()
    }

    fn partition(replicas: &[i32]) -> PartitionInfo {
        let identity = Identity {
            broker_id: replicas[0],
            number: 0,
        };
        PartitionInfo::new(identity, replicas.to_vec(), 0)
    }

    fn rules(brokers: &BTreeMap<i32, Broker>, min_isr: usize) -> Rules<'_> {
        Rules {
            brokers,
            min_isr,
            unclean: false,
        }
    }

    /// What becomes of it while these brokers are there; it as it is, where that is nothing.
    fn with(before: &PartitionInfo, live: &[i32], min_isr: usize) -> PartitionInfo {
        let brokers = brokers(live);
        let after = settled(before, rules(&brokers, min_isr), &Returned::default());
        after.unwrap_or_else(|| before.clone())
    }

    fn returned(renewed: &[i32], lost: &[i32]) -> Returned {
        Returned {
            renewed: renewed.iter().copied().collect(),
            lost: lost.iter().copied().collect(),
        }
    }

    /// Leader, in sync, eligible.
    fn state(info: &PartitionInfo) -> (i32, Vec<i32>, Vec<i32>) {
        (info.leader, info.isr.clone(), info.elr.clone())
    }

    fn epochs(info: &PartitionInfo) -> (i32, i32) {
        (info.leader_epoch, info.partition_epoch)
    }

    #[test]
    fn the_first_live_one_in_sync_leads_and_who_is_gone_leaves() {
        let led = partition(&[1, 2, 3]);
        let second = with(&led, &[2, 3], 1);
        assert_eq!(
            (state(&second), epochs(&second)),
            ((2, vec![2, 3], vec![]), (1, 1))
        );
        let followed = with(&led, &[1, 3], 1);
        assert_eq!(
            (state(&followed), epochs(&followed)),
            ((1, vec![1, 3], vec![]), (0, 1))
        );
        assert_eq!(with(&led, &[1, 2, 3], 1), led);
        // Who comes back follows first.
        assert_eq!(with(&second, &[1, 2, 3], 1), second);
    }

    #[test]
    fn the_last_in_sync_is_waited_for_and_leads_when_it_is_back() {
        let led = partition(&[1, 2, 3]);
        let last = with(&with(&led, &[2, 3], 1), &[3], 1);
        assert_eq!(
            (state(&last), epochs(&last)),
            ((3, vec![3], vec![]), (2, 2))
        );
        let none = with(&last, &[], 1);
        assert_eq!(
            (state(&none), epochs(&none)),
            ((-1, vec![3], vec![]), (3, 3))
        );
        // The others have less.
        assert_eq!(with(&none, &[1, 2], 1), none);
        let back = with(&none, &[1, 3], 1);
        assert_eq!(
            (state(&back), epochs(&back)),
            ((3, vec![3], vec![]), (4, 4))
        );
        // All at once: each of them has all, and the first to come back leads.
        let none = with(&led, &[], 1);
        assert_eq!(state(&none), (-1, vec![1, 2, 3], vec![]));
        assert_eq!(state(&with(&none, &[2], 1)), (2, vec![2], vec![]));
    }

    #[test]
    fn who_left_while_nothing_was_committed_is_eligible() {
        let led = partition(&[1, 2, 3]);
        let one = with(&with(&led, &[2, 3], 2), &[3], 2);
        assert_eq!(state(&one), (3, vec![3], vec![2]));
        // The last one dies and an eligible one is back: it has all that was committed.
        let eligible = with(&one, &[2], 2);
        assert_eq!(state(&eligible), (2, vec![2], vec![3]));
        // Broker 1 left while two were in sync, and more was committed.
        assert_eq!(state(&with(&one, &[1], 2)), (-1, vec![3], vec![2]));
    }

    #[test]
    fn where_the_topic_lets_it_any_replica_leads_rather_than_none() {
        let led = partition(&[1, 2, 3]);
        let none = with(&with(&led, &[3], 1), &[], 1);
        let brokers = brokers(&[2]);
        let unclean = Rules {
            unclean: true,
            ..rules(&brokers, 2)
        };
        let after = settled(&none, unclean, &Returned::default()).unwrap();
        assert_eq!(state(&after), (2, vec![2], vec![]));
    }

    #[test]
    fn a_registration_that_is_replaced_is_a_death() {
        let led = partition(&[1, 2]);
        let live = brokers(&[1, 2]);
        let after = |info: &PartitionInfo, returned: &Returned| {
            let after = settled(info, rules(&live, 1), returned);
            after.unwrap_or_else(|| info.clone())
        };
        let moved = after(&led, &returned(&[1], &[]));
        assert_eq!(
            (state(&moved), epochs(&moved)),
            ((2, vec![2], vec![]), (1, 1))
        );
        // Alone in sync, it leads on, in a new epoch.
        let alone = after(&moved, &returned(&[2], &[]));
        assert_eq!(
            (state(&alone), epochs(&alone)),
            ((2, vec![2], vec![]), (2, 2))
        );
        let both = after(&led, &returned(&[1, 2], &[]));
        assert_eq!(
            (state(&both), epochs(&both)),
            ((1, vec![1, 2], vec![]), (1, 1))
        );
    }

    #[test]
    fn who_came_back_with_less_is_counted_on_last() {
        let one = with(&with(&partition(&[1, 2, 3]), &[2, 3], 2), &[3], 2);
        assert_eq!(state(&one), (3, vec![3], vec![2]));
        let none = with(&one, &[], 2);
        let after = |live: &[i32], lost: &[i32]| {
            let live = brokers(live);
            let after = settled(&none, rules(&live, 2), &returned(&[], lost));
            state(&after.unwrap_or_else(|| none.clone()))
        };
        assert_eq!(after(&[3], &[]), (3, vec![3], vec![2]));
        // Not the empty one, but the one that has all, when it is back.
        assert_eq!(after(&[3], &[3]), (-1, vec![2], vec![]));
        assert_eq!(after(&[2, 3], &[3]), (2, vec![2], vec![]));
        // Where no other one has all, it is better than none.
        let alone = with(&with(&partition(&[1, 2]), &[1], 1), &[], 1);
        let live = brokers(&[1, 2]);
        let back = settled(&alone, rules(&live, 1), &returned(&[1], &[1]));
        assert_eq!(state(&back.unwrap()), (1, vec![1], vec![]));
    }

    #[test]
    fn a_broker_that_takes_no_messages_leads_only_where_no_other_can() {
        let mut live = brokers(&[1, 2]);
        live.get_mut(&1).unwrap().accept_publish = false;
        let led = partition(&[1, 2]);
        let after = settled(&led, rules(&live, 1), &Returned::default()).unwrap();
        assert_eq!(state(&after), (2, vec![1, 2], vec![]));
        live.remove(&2);
        let after = settled(&after, rules(&live, 1), &Returned::default()).unwrap();
        assert_eq!(state(&after), (1, vec![1], vec![]));
    }

    #[test]
    fn a_partition_of_one_replica_is_led_by_that_one_for_ever() {
        let only = partition(&[1]);
        for (live, returned) in [(&[][..], returned(&[], &[])), (&[1], returned(&[1], &[1]))] {
            let live = brokers(live);
            assert_eq!(settled(&only, rules(&live, 1), &returned), None);
        }
    }

    #[test]
    fn a_reassignment_ends_when_all_that_it_adds_is_in_sync() {
        let live = brokers(&[1, 2, 3, 4]);
        let mut moving = partition(&[3, 4, 1, 2]);
        (moving.isr, moving.leader) = (vec![1, 2], 1);
        (moving.adding, moving.removing) = (vec![3, 4], vec![1, 2]);
        let propose = |isr: &[i32]| {
            let mut change = Change::of(&moving, rules(&live, 1));
            change.isr = isr.to_vec();
            change.made().unwrap()
        };
        let on_the_way = propose(&[1, 2, 3]);
        assert_eq!(state(&on_the_way), (1, vec![3, 1, 2], vec![]));
        assert_eq!((on_the_way.adding.len(), epochs(&on_the_way)), (2, (0, 1)));
        let done = propose(&[1, 2, 3, 4]);
        assert_eq!(
            (state(&done), epochs(&done)),
            ((3, vec![3, 4], vec![]), (1, 1))
        );
        assert_eq!(done.replicas, [3, 4]);
        assert!(done.adding.is_empty() && done.removing.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Happens {
        Live(Vec<i32>),
        Back(Vec<i32>, Vec<i32>),
        Proposed(Vec<i32>),
        Preferred,
        Moved(Vec<i32>),
    }

    fn some() -> impl Strategy<Value = Vec<i32>> {
        proptest::sample::subsequence(vec![1, 2, 3, 4], 0..=4).prop_shuffle()
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            4 => some().prop_map(Happens::Live),
            1 => (some(), some()).prop_map(|(renewed, lost)| Happens::Back(renewed, lost)),
            3 => some().prop_map(Happens::Proposed),
            1 => Just(Happens::Preferred),
            1 => some().prop_filter("none", |all| !all.is_empty()).prop_map(Happens::Moved),
        ]
    }

    fn after(
        before: &PartitionInfo,
        what: &Happens,
        live: &mut BTreeMap<i32, Broker>,
        (min_isr, unclean): (usize, bool),
    ) -> Option<PartitionInfo> {
        if let Happens::Live(ids) = what {
            *live = brokers(ids);
        }
        let rules = Rules {
            unclean,
            ..rules(live, min_isr)
        };
        let mut change = Change::of(before, rules);
        match what {
            Happens::Live(_) => return settled(before, rules, &Returned::default()),
            Happens::Back(renewed, lost) => {
                return settled(before, rules, &returned(renewed, lost));
            }
            // As what a leader may propose.
            Happens::Proposed(isr) => {
                change.isr = isr.clone();
                change
                    .isr
                    .retain(|id| rules.is_active(*id) && before.replicas.contains(id));
                if !rules.is_active(before.leader) || !change.isr.contains(&before.leader) {
                    return None;
                }
            }
            Happens::Preferred => change.preference = Preference::FirstReplica,
            Happens::Moved(target) => {
                let removing = in_order(&before.replicas, |id| !target.contains(&id));
                change.adding = in_order(target, |id| !before.replicas.contains(&id));
                change.replicas = target.iter().chain(&removing).copied().collect();
                change.removing = removing;
            }
        }
        change.made()
    }

    /// What is true of every change, whatever happens.
    fn check(
        before: &PartitionInfo,
        after: &PartitionInfo,
        has_all: &BTreeSet<i32>,
        unclean: bool,
    ) {
        assert_eq!(after.partition_epoch, before.partition_epoch + 1);
        let begun = after.leader_epoch - before.leader_epoch;
        assert!(begun == 0 || begun == 1);
        assert!(after.leader == before.leader || begun == 1);
        assert!(!after.isr.is_empty());
        let is_replica = |id: &i32| after.replicas.contains(id);
        assert!(after.isr.iter().all(is_replica) && after.elr.iter().all(is_replica));
        assert!(after.elr.iter().all(|id| !after.isr.contains(id)));
        assert!(after.leader == NO_LEADER || after.isr.contains(&after.leader));
        let had = |id: &i32| before.isr.contains(id) || before.elr.contains(id);
        if after.leader != before.leader && after.leader != NO_LEADER && !unclean {
            assert!(had(&after.leader) || has_all.contains(&after.leader));
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_no_leader_lacks_what_is_committed_and_no_epoch_goes_back(
            all in proptest::collection::vec(happens(), 1..30),
            min_isr in 1..=3_usize,
            unclean in proptest::bool::weighted(0.2),
        ) {
            let mut live = brokers(&[1, 2, 3, 4]);
            let mut info = partition(&[1, 2, 3]);
            for what in &all {
                let proposed = match what {
                    Happens::Proposed(isr) => isr.iter().copied().collect(),
                    _ => BTreeSet::new(),
                };
                if let Some(next) = after(&info, what, &mut live, (min_isr, unclean)) {
                    check(&info, &next, &proposed, unclean);
                    info = next;
                }
                // What was done is done.
                let rules = Rules { unclean, ..rules(&live, min_isr) };
                if let Some(next) = settled(&info, rules, &Returned::default()) {
                    check(&info, &next, &BTreeSet::new(), unclean);
                    prop_assert_eq!(settled(&next, rules, &Returned::default()), None);
                    info = next;
                }
            }
        }
    }
}
