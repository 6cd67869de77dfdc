//! Consumer groups under any sequence of what members, topics and the coordinator's store do: no partition has two owners
//! among the members themselves, epochs never go back, and all settles.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::tests::{joining, plain};
use super::*;
use crate::coordinator::StoredId;
use crate::group::reserved::GroupMemory;
use crate::group::testing::{SomeTopics, settings};
use crate::meta::{Node, Op, paths};

#[derive(Debug, Clone)]
enum Event {
    /// A member joins, or joins again without what it had.
    Join {
        member: u8,
        topics: u8,
    },
    /// A heartbeat of a member that is in the group, whose answer gets lost or not.
    Beat {
        member: u8,
        is_lost: bool,
    },
    /// A member gives up what it was told to.
    Revoke {
        member: u8,
    },
    Leave {
        member: u8,
    },
    /// Time passes.
    Pass {
        seconds: u8,
    },
    Grow {
        topic: u8,
    },
    /// The coordinator stores what changed.
    Store,
    /// Another coordinator takes over with what is stored; answers that waited for it are lost.
    Takeover,
}

fn event() -> impl Strategy<Value = Event> {
    let member = 0..4u8;
    prop_oneof![
        3 => (member.clone(), 1..4u8).prop_map(|(member, topics)| Event::Join { member, topics }),
        8 => (member.clone(), any::<bool>()).prop_map(|(member, is_lost)| Event::Beat { member, is_lost }),
        5 => member.clone().prop_map(|member| Event::Revoke { member }),
        1 => member.prop_map(|member| Event::Leave { member }),
        2 => (1..30u8).prop_map(|seconds| Event::Pass { seconds }),
        1 => (0..2u8).prop_map(|topic| Event::Grow { topic }),
        4 => Just(Event::Store),
        1 => Just(Event::Takeover),
    ]
}

/// A member, as it sees itself.
#[derive(Debug, Default, Clone)]
struct Client {
    epoch: i32,
    is_in: bool,
    has: BTreeSet<(Uuid, i32)>,
    /// What it was told to have.
    told: BTreeSet<(Uuid, i32)>,
    /// When it sent the last heartbeat that was answered.
    heard_ms: i64,
    /// Which topics it reads.
    topics: u8,
    /// An answer was lost: it says everything, and is told everything.
    says_all: bool,
    /// Since when it is asked to give something up.
    revokes_ms: Option<i64>,
}

struct Model {
    group: ConsumerGroup,
    nodes: StoredConsumerGroup,
    tree: BTreeMap<String, bytes::Bytes>,
    topics: SomeTopics,
    settings: ConsumerSettings,
    clients: Vec<Client>,
    /// Answers that hold once all is stored: to whom, of when.
    held: Vec<(usize, i64, ConsumerReply)>,
    now_ms: i64,
    grown: i32,
}

const TOPICS: [&str; 2] = ["t", "u"];

fn named(assignment: &[(Uuid, Vec<i32>)]) -> BTreeSet<(Uuid, i32)> {
    let each = assignment
        .iter()
        .flat_map(|(id, all)| all.iter().map(move |partition| (*id, *partition)));
    each.collect()
}

impl Model {
    fn new() -> Self {
        Self {
            group: ConsumerGroup::new(0),
            nodes: StoredConsumerGroup::default(),
            tree: BTreeMap::new(),
            topics: SomeTopics::new(&[("t", 3), ("u", 2)]),
            settings: ConsumerSettings {
                assignment_interval_ms: 1000,
                ..settings()
            },
            clients: vec![Client::default(); 4],
            held: Vec::new(),
            now_ms: 1000,
            grown: 3,
        }
    }

    fn id(n: usize) -> String {
        format!("m{n}")
    }

    fn names(topics: u8) -> Vec<&'static str> {
        let bits = (0..2).filter(|bit| topics & (1 << bit) != 0);
        bits.map(|bit| TOPICS[bit]).collect()
    }

    fn owned(of: &BTreeSet<(Uuid, i32)>) -> Vec<(Uuid, Vec<i32>)> {
        let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in of {
            topics.entry(*topic).or_default().push(*partition);
        }
        topics.into_iter().collect()
    }

    fn ask(&mut self, n: usize, beat: ConsumerHeartbeat, is_lost: bool) {
        let answered = self
            .group
            .heartbeat(self.now_ms, beat, &self.settings, &self.topics);
        match answered {
            Ok(reply) => {
                let client = &mut self.clients[n];
                if let Some(assignment) = &reply.assignment
                    && client
                        .has
                        .iter()
                        .any(|key| !named(assignment).contains(key))
                {
                    client.revokes_ms.get_or_insert(self.now_ms);
                }
                match is_lost {
                    true => client.says_all = true,
                    false => self.held.push((n, self.now_ms, reply)),
                }
            }
            Err(refusal) => {
                let fences = matches!(
                    refusal.error,
                    GroupError::FencedMemberEpoch
                        | GroupError::UnknownMemberId
                        | GroupError::GroupIdNotFound
                );
                assert!(fences, "{refusal}");
                self.clients[n] = Client::default();
            }
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Join { member, topics } => {
                let n = usize::from(member);
                // As clients do, it drops what it has before it joins again.
                self.held.retain(|(of, ..)| *of != n);
                self.clients[n] = Client {
                    is_in: true,
                    heard_ms: self.now_ms,
                    topics,
                    ..Client::default()
                };
                let read = Self::names(topics);
                self.ask(n, joining(&Self::id(n), &read), false);
            }
            Event::Beat { member, is_lost } => self.beat(usize::from(member), is_lost),
            Event::Revoke { member } => {
                let client = &mut self.clients[usize::from(member)];
                client.has = client.has.intersection(&client.told).copied().collect();
                client.revokes_ms = None;
                self.beat(usize::from(member), false);
            }
            Event::Leave { member } => {
                let n = usize::from(member);
                if std::mem::take(&mut self.clients[n]).is_in {
                    self.held.retain(|(of, ..)| *of != n);
                    let leave = plain(&Self::id(n), -1);
                    let _ = self
                        .group
                        .heartbeat(self.now_ms, leave, &self.settings, &self.topics);
                }
            }
            Event::Pass { seconds } => {
                self.now_ms += i64::from(seconds) * 1000;
                // Whoever had no answer for its session timeout drops what it has, and whoever gave nothing up in time.
                let limit = i64::from(self.settings.session_timeout_ms);
                for (n, client) in self.clients.iter_mut().enumerate() {
                    let late = client
                        .revokes_ms
                        .is_some_and(|at| self.now_ms - at >= 60_000);
                    if self.now_ms - client.heard_ms >= limit || late {
                        self.held.retain(|(of, ..)| *of != n);
                        *client = Client::default();
                    }
                }
                self.group.tick(self.now_ms, &self.settings, &self.topics);
            }
            Event::Grow { topic } => {
                self.grown += 1;
                self.topics.put(TOPICS[usize::from(topic)], self.grown);
            }
            Event::Store => self.store(),
            Event::Takeover => self.take_over(),
        }
    }

    fn beat(&mut self, n: usize, is_lost: bool) {
        let client = self.clients[n].clone();
        // A client asks again when it was answered.
        let waits = self.held.iter().any(|(of, ..)| *of == n);
        if !client.is_in || client.epoch == 0 || waits {
            return;
        }
        self.clients[n].says_all = false;
        let beat = match client.says_all {
            true => joining(&Self::id(n), &Self::names(client.topics)),
            false => plain(&Self::id(n), client.epoch),
        };
        let beat = ConsumerHeartbeat {
            member_epoch: client.epoch,
            owned: Some(Self::owned(&client.has)),
            ..beat
        };
        self.ask(n, beat, is_lost);
    }

    fn apply(&mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Put { path, data, .. } => drop(self.tree.insert(path, data)),
                Op::DeleteTree { path } => {
                    self.tree
                        .retain(|there, _| !paths::is_at_or_below(there, &path));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// All is stored, and what waited for it is answered.
    fn store(&mut self) {
        let unstored = self.group.take_unstored();
        let (steps, written) = self.nodes.write("g", &self.group, &unstored, &self.topics);
        for ops in steps {
            self.apply(ops);
        }
        self.nodes.stored(written);
        for (n, sent_ms, reply) in std::mem::take(&mut self.held) {
            let client = &mut self.clients[n];
            assert!(reply.member_epoch >= client.epoch, "m{n} went back");
            client.epoch = reply.member_epoch;
            client.heard_ms = sent_ms;
            let Some(assignment) = reply.assignment else {
                continue;
            };
            client.told = named(&assignment);
            // What is new it takes at once; what is gone it gives up later.
            client.has.extend(client.told.iter().copied());
        }
    }

    fn take_over(&mut self) {
        for (n, ..) in std::mem::take(&mut self.held) {
            self.clients[n].says_all = true;
        }
        let nodes = self.tree.iter().map(|(path, data)| {
            let node = Node {
                data: data.clone(),
                version: 0,
                ephemeral: false,
            };
            (path.clone(), node)
        });
        let stored = StoredId {
            id: "g".to_owned(),
            nodes: nodes.collect(),
        };
        let with = (&self.settings, &self.topics as &dyn Topics);
        (self.group, self.nodes) =
            load(&stored, with, &GroupMemory::new(usize::MAX), self.now_ms).unwrap();
        for client in &mut self.clients {
            client.heard_ms = self.now_ms;
        }
    }

    fn check(&self) {
        let mut owners = BTreeMap::new();
        for (n, client) in self.clients.iter().enumerate() {
            for key in &client.has {
                assert_eq!(owners.insert(*key, n), None, "{key:?} has two owners");
            }
        }
    }

    /// Members live on until nothing changes any more: each has its part.
    fn settle(&mut self) {
        for _ in 0..40 {
            self.happens(Event::Pass { seconds: 2 });
            for member in 0..4 {
                self.happens(Event::Revoke { member });
                self.happens(Event::Store);
            }
            self.check();
        }
        let live: Vec<usize> = (0..4).filter(|n| self.clients[*n].is_in).collect();
        if live.is_empty() {
            return;
        }
        assert_eq!(self.group.state(), "Stable", "{:?}", self.group);
        for n in live {
            let member = &self.group.members[&Self::id(n)];
            let target: BTreeSet<(Uuid, i32)> = member
                .target
                .iter()
                .flat_map(|(id, all)| all.iter().map(move |partition| (*id, *partition)))
                .collect();
            assert_eq!(self.clients[n].has, target, "m{n}");
            assert_eq!(self.clients[n].epoch, self.group.epoch);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_partition_has_two_owners_and_all_settles(events in proptest::collection::vec(event(), 1..80)) {
        let mut model = Model::new();
        for event in events {
            let epoch = model.group.epoch;
            let is_takeover = matches!(event, Event::Takeover);
            model.happens(event);
            model.check();
            prop_assert!(is_takeover || model.group.epoch >= epoch);
        }
        model.settle();
    }
}
