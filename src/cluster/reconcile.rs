//! What a broker has to do when the cluster becomes another one: a pure function of two images.

use std::sync::Arc;

use super::image::{Image, PartitionInfo, Topic};

/// One thing to do, of one topic; indices are of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The topic is gone, and its files with it.
    Delete(Arc<Topic>),
    /// This broker keeps these no more, and their files go.
    Remove(Arc<Topic>, Vec<i32>),
    /// Another broker leads these, or none does, and this one keeps a replica.
    BecomeFollower(Arc<Topic>, Vec<i32>),
    /// The topic's configuration is another one.
    Reconfigure(Arc<Topic>),
    /// This broker leads these, from the epoch on that the topic says.
    BecomeLeader(Arc<Topic>, Vec<i32>),
    /// Of these, who keeps them or is in sync is another set; this broker's role is as it was.
    UpdateState(Arc<Topic>, Vec<i32>),
}

/// What a broker is to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Nothing,
    Follower { leader: i32, epoch: i32 },
    Leader { epoch: i32 },
}

impl Role {
    fn of(info: Option<&PartitionInfo>, me: i32) -> Self {
        match info {
            Some(info) if info.leader == me => Self::Leader {
                epoch: info.leader_epoch,
            },
            Some(info) if info.replicas.contains(&me) => Self::Follower {
                leader: info.leader,
                epoch: info.leader_epoch,
            },
            _ => Self::Nothing,
        }
    }
}

/// The steps from one image to another one, for the broker of that number, in the order in which they are to be done: what
/// ends first, so that a name and its files are free for what begins.
pub(super) fn reconcile(before: &Image, after: &Image, me: i32) -> Vec<Step> {
    let mut steps = Vec::new();
    let survives = |old: &Topic| after.topic(&old.name).is_some_and(|new| new.id == old.id);
    let gone = before.topics().filter(|old| !survives(old));
    steps.extend(gone.cloned().map(Step::Delete));
    let (mut ends, mut configs, mut begins) = (Vec::new(), Vec::new(), Vec::new());
    for new in after.topics() {
        let old = before.topic(&new.name).filter(|old| old.id == new.id);
        if old.is_some_and(|old| Arc::ptr_eq(old, new)) {
            continue;
        }
        let (mut remove, mut follow, mut lead) = (Vec::new(), Vec::new(), Vec::new());
        let mut update = Vec::new();
        for (index, info) in new.partitions.iter().enumerate() {
            let before = old.and_then(|old| old.partitions.get(index));
            let was = Role::of(before, me);
            let role = Role::of(Some(info), me);
            match role {
                _ if role == was => {
                    let is_kept = role != Role::Nothing && before != Some(info);
                    update.extend(is_kept.then_some(index as i32));
                }
                Role::Nothing => remove.push(index as i32),
                Role::Follower { .. } => follow.push(index as i32),
                Role::Leader { .. } => lead.push(index as i32),
            }
        }
        if !remove.is_empty() {
            ends.push(Step::Remove(new.clone(), remove));
        }
        if !follow.is_empty() {
            ends.push(Step::BecomeFollower(new.clone(), follow));
        }
        if old.is_some_and(|old| old.overrides != new.overrides) {
            configs.push(Step::Reconfigure(new.clone()));
        }
        if !lead.is_empty() {
            begins.push(Step::BecomeLeader(new.clone(), lead));
        }
        if !update.is_empty() {
            begins.push(Step::UpdateState(new.clone(), update));
        }
    }
    steps.extend(ends);
    steps.extend(configs);
    steps.extend(begins);
    steps
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::config::TopicOverrides;
    use crate::partition::Identity;

    const ME: i32 = 1;

    /// Leader, epoch and replicas of each partition.
    fn topic(id: u128, partitions: &[(i32, i32, &[i32])]) -> Topic {
        let info = |(n, (leader, leader_epoch, replicas)): (usize, &(i32, i32, &[i32]))| {
            let identity = Identity {
                broker_id: replicas[0],
                number: n as i32,
            };
            PartitionInfo {
                leader: *leader,
                leader_epoch: *leader_epoch,
                ..PartitionInfo::new(identity, replicas.to_vec(), 0)
            }
        };
        Topic {
            name: "t".into(),
            id: Uuid::from_u128(id),
            overrides: TopicOverrides::default(),
            partitions: partitions.iter().enumerate().map(info).collect(),
        }
    }

    fn image(topic: impl IntoIterator<Item = Topic>) -> Image {
        let mut image = Image::default();
        image.put(topic);
        image
    }

    fn steps(before: Option<Topic>, after: Option<Topic>) -> Vec<Step> {
        reconcile(&image(before), &image(after), ME)
    }

    #[test]
    fn of_a_new_topic_what_is_led_here_is_opened_and_nothing_else() {
        let new = topic(7, &[(1, 0, &[1]), (2, 0, &[2]), (1, 0, &[1, 2])]);
        let begun = Step::BecomeLeader(Arc::new(new.clone()), vec![0, 2]);
        assert_eq!(steps(None, Some(new.clone())), [begun]);
        assert_eq!(steps(Some(new.clone()), Some(new)), []);
        let elsewhere = topic(7, &[(2, 0, &[2])]);
        assert_eq!(steps(None, Some(elsewhere)), []);
    }

    #[test]
    fn what_others_keep_by_now_is_removed_and_what_comes_back_is_opened() {
        let here = topic(7, &[(1, 3, &[1])]);
        let elsewhere = topic(7, &[(2, 4, &[2])]);
        let back = topic(7, &[(1, 5, &[1])]);
        let remove = Step::Remove(Arc::new(elsewhere.clone()), vec![0]);
        assert_eq!(steps(Some(here), Some(elsewhere.clone())), [remove]);
        let lead = Step::BecomeLeader(Arc::new(back.clone()), vec![0]);
        assert_eq!(steps(Some(elsewhere), Some(back)), [lead]);
    }

    #[test]
    fn a_replica_follows_whoever_leads_and_a_new_epoch_begins_anew() {
        let replicas: &[i32] = &[1, 2, 3];
        let led = topic(7, &[(1, 3, replicas)]);
        let followed = topic(7, &[(2, 4, replicas)]);
        let other = topic(7, &[(3, 5, replicas)]);
        let nobody = topic(7, &[(-1, 5, replicas)]);
        let follow = |topic: &Topic| vec![Step::BecomeFollower(Arc::new(topic.clone()), vec![0])];
        assert_eq!(
            steps(Some(led.clone()), Some(followed.clone())),
            follow(&followed)
        );
        assert_eq!(steps(Some(followed), Some(other.clone())), follow(&other));
        assert_eq!(
            steps(Some(led.clone()), Some(nobody.clone())),
            follow(&nobody)
        );
        let again = topic(7, &[(1, 4, replicas)]);
        let lead = Step::BecomeLeader(Arc::new(again.clone()), vec![0]);
        assert_eq!(steps(Some(led), Some(again)), [lead]);
    }

    #[test]
    fn partitions_that_are_added_are_opened_beside_the_others() {
        let two = topic(7, &[(1, 0, &[1]), (2, 0, &[2])]);
        let three = topic(7, &[(1, 0, &[1]), (2, 0, &[2]), (1, 0, &[1])]);
        let lead = Step::BecomeLeader(Arc::new(three.clone()), vec![2]);
        assert_eq!(steps(Some(two), Some(three)), [lead]);
    }

    #[test]
    fn a_topic_that_takes_the_place_of_another_is_opened_after_its_end() {
        let old = topic(7, &[(1, 0, &[1])]);
        let new = topic(8, &[(1, 0, &[1])]);
        let delete = Step::Delete(Arc::new(old.clone()));
        let lead = Step::BecomeLeader(Arc::new(new.clone()), vec![0]);
        assert_eq!(steps(Some(old.clone()), Some(new)), [delete.clone(), lead]);
        // Whoever led it: groups have offsets in it.
        assert_eq!(steps(Some(old), None), [delete]);
    }

    #[test]
    fn another_configuration_is_told_once_and_another_in_sync_set_to_who_keeps_the_partition() {
        let plain = topic(7, &[(1, 0, &[1])]);
        let mut configured = plain.clone();
        let overrides = &mut configured.overrides.0;
        overrides.insert("retention.ms".to_owned(), "1".to_owned());
        let reconfigure = Step::Reconfigure(Arc::new(configured.clone()));
        assert_eq!(steps(Some(plain.clone()), Some(configured)), [reconfigure]);
        let mut shrunk = plain.clone();
        shrunk.partitions[0].isr.clear();
        let update = Step::UpdateState(Arc::new(shrunk.clone()), vec![0]);
        assert_eq!(steps(Some(plain), Some(shrunk)), [update]);
        let elsewhere = topic(7, &[(2, 0, &[2])]);
        let mut shrunk = elsewhere.clone();
        shrunk.partitions[0].isr.clear();
        assert_eq!(steps(Some(elsewhere), Some(shrunk)), []);
    }
}
