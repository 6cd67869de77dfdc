//! See [`Assignor`](super::Assignor): Kafka's RangeAssignor.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::super::partitions::Partitions;
use super::{Candidate, Counts, readers};

/// How a topic is dealt out.
struct Topic {
    count: i32,
    share: i32,
    /// Members that still get one more than the share.
    extra: i32,
    next: i32,
}

pub(super) fn assign(candidates: &[Candidate<'_>], counts: &Counts) -> Vec<Partitions> {
    let deal = |(topic, readers): (Uuid, usize)| {
        let (count, readers) = (counts.get(&topic).copied()?, readers as i32);
        let dealt = Topic {
            count,
            share: count / readers,
            extra: count % readers,
            next: 0,
        };
        Some((topic, dealt))
    };
    let mut topics: BTreeMap<Uuid, Topic> =
        readers(candidates).into_iter().filter_map(deal).collect();
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    // Static members first, by their instance: they keep their ranges under new member ids.
    order.sort_by_key(|n| {
        let Candidate {
            member_id,
            instance_id,
            ..
        } = candidates[*n];
        (instance_id.is_none(), instance_id, member_id)
    });
    let mut assigned = vec![Partitions::new(); candidates.len()];
    for n in order {
        for id in &candidates[n].topics {
            let Some(topic) = topics.get_mut(id) else {
                continue;
            };
            let more = i32::from(topic.extra > 0);
            topic.extra -= more;
            let range = topic.next..(topic.next + topic.share + more).min(topic.count);
            topic.next = range.end;
            if !range.is_empty() {
                assigned[n].insert(*id, range.collect());
            }
        }
    }
    assigned
}
