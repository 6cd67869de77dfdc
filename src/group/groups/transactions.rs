//! Offsets of transactions: pending when they are stored, and the group's, or gone, when their marker is.
//!
//! Of one producer one write is in flight at a time; what comes meanwhile waits.
//!
//! Tests: group/groups/tests/transactions.rs, group/groups/tests/producers.rs.

use super::commits::{check_each, keys_of};
use super::{Groups, Then};
use crate::coordinator::{Answer, Machine};
use crate::group::asks::{Ask, Outcomes};
use crate::group::consumer::CommitKind;
use crate::group::group::Members;
use crate::group::messages::{GroupError, TransactionEnd, TransactionalCommit};
use crate::group::offsets::{Committed, Key, WriteNumber};
use crate::group::producers::{LastMarker, WaitingForProducer};
use crate::group::stored_transactions;
use crate::meta::{Op, paths};

/// What a commit marker makes of a group's pending offsets.
pub(super) type EndedGroup = (String, Vec<(Key, Committed)>);

impl Groups {
    pub(super) fn commit_transactional(
        &mut self,
        now_ms: i64,
        group_id: String,
        commit: TransactionalCommit,
        answer: Answer<Outcomes>,
    ) {
        let of = (commit.producer_id, commit.producer_epoch);
        if let Some(busy) = self.producers.busy(of.0) {
            let ask = Ask::CommitTransactional(commit, answer);
            return busy
                .waiting
                .push_back(WaitingForProducer::Ask(group_id, ask));
        }
        let number = self.number();
        let checked = self.producers.check_commit(of, commit.guard);
        let checked =
            checked.and_then(|()| self.check_transactional(now_ms, number, &group_id, &commit));
        let checks = match checked {
            Ok(checks) => checks,
            Err(error) => return answer.send(vec![Err(error); commit.offsets.len()]),
        };
        let asked = commit.offsets.into_iter().zip(checks).collect();
        let (outcomes, offsets, identities) = self.to_store(now_ms, &group_id, None, asked);
        let ops = match self.groups.get_mut(&group_id) {
            Some(group) => {
                group.offsets.begin();
                let keys = offsets.iter().map(|(key, _)| key.clone());
                group.pending.begin(of.0, keys);
                group.has_transactions = true;
                let offsets = offsets.iter().zip(&identities);
                let records = offsets.map(|((key, committed), identity)| {
                    stored_transactions::pending_record(key, number, committed, identity)
                });
                stored_transactions::pending_ops(&group_id, &mut group.pending, of, records)
            }
            None => Vec::new(),
        };
        self.producers.begin(of.0, of.1, now_ms);
        let id = group_id.clone();
        let then = Then::Pending {
            group_id,
            producer_id: of.0,
            number,
            offsets,
            outcomes,
            answer,
        };
        self.store(now_ms, id, ops, then);
    }

    /// What of the commit is allowed.
    fn check_transactional(
        &mut self,
        now_ms: i64,
        number: WriteNumber,
        group_id: &str,
        commit: &TransactionalCommit,
    ) -> Result<Outcomes, GroupError> {
        let topics = self.topics.clone();
        let group = self.group_to_commit(now_ms, number, group_id, commit.generation)?;
        let instance = commit.instance_id.as_deref();
        let member = (&*commit.member_id, instance, commit.generation);
        match &group.members {
            Members::Classic(classic) => {
                let (id, instance, generation) = member;
                classic.check_transactional_commit(id, instance, generation)?;
                Ok(vec![Ok(()); commit.offsets.len()])
            }
            Members::Share(_) => Err(GroupError::GroupIdNotFound),
            Members::Streams(hosted) => {
                let keys = keys_of(&commit.offsets);
                hosted.group.check_commit(member, None, keys)
            }
            Members::Consumer(hosted) => {
                let allowed = hosted
                    .group
                    .check_commit(member, CommitKind::Transactional)?;
                Ok(check_each(&allowed, &commit.offsets, &*topics))
            }
        }
    }

    /// Offsets of a transaction are stored, or none of them is.
    pub(super) fn pending_stored(
        &mut self,
        group_id: &str,
        (producer_id, number): (i64, WriteNumber),
        offsets: Vec<(Key, Committed)>,
        outcomes: &mut Outcomes,
        stored: Result<(), GroupError>,
    ) {
        if stored.is_err() {
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
                *outcome = stored;
            }
            self.producers.failed(producer_id, group_id);
        } else if !offsets.is_empty() {
            // Also where the group is gone meanwhile: then the marker removes what is stored.
            self.producers.opened(producer_id, group_id);
            if let Some(group) = self.groups.get_mut(group_id) {
                group.pending.put(producer_id, number, offsets);
            }
        }
        if let Some(group) = self.groups.get_mut(group_id) {
            group.offsets.finish_commit(number, Vec::new());
            group.pending.finish(producer_id);
        }
        self.drop_if_nothing(group_id);
    }

    /// A marker for all groups of the slot.
    pub(super) fn end_transaction(
        &mut self,
        now_ms: i64,
        end: TransactionEnd,
        answer: Answer<Result<(), GroupError>>,
    ) {
        let mut groups = Vec::new();
        if let Some(producer) = self.producers.get_mut(end.producer_id) {
            if producer.is_busy() {
                let waiting = WaitingForProducer::End(end, answer);
                return producer.waiting.push_back(waiting);
            }
            groups.extend(producer.groups_to_end());
        }
        if let Err(error) = self.producers.check_end(&end) {
            return answer.send(Err(error));
        }
        let removed = groups.iter().find(|group_id| {
            let group = self.groups.get(*group_id);
            group.is_some_and(|group| group.removal.is_some())
        });
        if let Some(group_id) = removed {
            return self.handle(now_ms, group_id.clone(), Ask::EndTransaction(end, answer));
        }
        let number = self.number();
        let (mut ops, mut ended) = (Vec::new(), Vec::new());
        for group_id in groups {
            let Some(group) = self.groups.get_mut(&group_id) else {
                ops.push(Op::delete_tree(paths::group_pending(
                    &group_id,
                    end.producer_id,
                )));
                continue;
            };
            group.offsets.begin();
            let offsets = match end.is_commit {
                true => group.decided_offsets(end.producer_id),
                false => Vec::new(),
            };
            let topics = &*self.topics;
            let of = (end.producer_id, group.number_to_store(number));
            let (more, kept) = stored_transactions::decided_ops(&group_id, of, offsets, topics);
            ops.extend(more);
            ended.push((group_id, kept));
        }
        let change = self.producers.change_for(&end, now_ms);
        ops.extend(stored_transactions::producer_ops(self.slot, &change));
        self.producers.begin_change(end.producer_id, now_ms);
        let id = ended.first().map_or(String::new(), |(id, _)| id.clone());
        let then = Then::TransactionEnded {
            end,
            number,
            ended,
            marker: change.marker,
            answer,
        };
        self.store(now_ms, id, ops, then);
    }

    /// A marker is stored, or refused.
    pub(super) fn transaction_ended(
        &mut self,
        now_ms: i64,
        (end, marker): (TransactionEnd, Option<LastMarker>),
        number: WriteNumber,
        ended: Vec<EndedGroup>,
        stored: Result<(), GroupError>,
    ) {
        for (group_id, mut offsets) in ended {
            if stored.is_err() {
                offsets.clear();
            }
            let keys = self.mirror.keys(offsets.iter().map(|(key, _)| key));
            if let Some(group) = self.groups.get_mut(&group_id) {
                group.offsets.finish_commit(number, offsets);
                if stored.is_ok() {
                    group.pending.0.remove(&end.producer_id);
                }
            }
            self.mirror
                .offsets(&group_id, self.groups.get(&group_id), &keys);
            self.drop_if_nothing(&group_id);
        }
        if stored.is_ok() {
            self.producers.ended(&end, marker, now_ms);
        }
    }

    /// A producer's write is over: what waited for it goes on.
    pub(super) fn producer_is_free(&mut self, now_ms: i64, producer_id: i64) {
        for waiting in self.producers.finish(producer_id) {
            match waiting {
                WaitingForProducer::Ask(group_id, ask) => self.handle(now_ms, group_id, ask),
                WaitingForProducer::End(end, answer) => self.end_transaction(now_ms, end, answer),
            }
        }
    }

    /// Forgets producers that were silent for long, with what is stored of them.
    pub(super) fn expire_producers(&mut self, now_ms: i64) {
        let expired = self.producers.expire(now_ms);
        let path = |id: &i64| paths::slot_producer(self.slot.number(), *id);
        let ops: Vec<Op> = expired.iter().map(path).map(Op::delete_tree).collect();
        // What is refused is found again, and expires again, when the slot is loaded.
        self.store(now_ms, String::new(), ops, Then::Nothing);
    }
}
