//! Streams groups under any sequence of what members, topics and the coordinator's store do: no task is run by two threads among
//! the members themselves, epochs never go back, and all settles.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::tests::{counting, joining, plain, read_back};
use super::*;
use crate::group::testing::{SomeTopics, streams_settings};

const MEMBERS: usize = 4;

#[derive(Debug, Clone)]
enum Event {
    Join {
        member: u8,
    },
    /// A heartbeat, whose answer gets lost or not.
    Beat {
        member: u8,
        is_lost: bool,
    },
    /// A member gives up what it was told to, and says what it has.
    Revoke {
        member: u8,
    },
    Leave {
        member: u8,
    },
    Pass {
        seconds: u8,
    },
    /// `in` has another number of partitions; internal topics follow.
    Grow,
    Standbys {
        replicas: u8,
    },
    Store,
    /// Another coordinator takes over with what is stored; answers that waited for it are lost.
    Takeover,
}

fn event() -> impl Strategy<Value = Event> {
    let member = 0..MEMBERS as u8;
    prop_oneof![
        3 => member.clone().prop_map(|member| Event::Join { member }),
        8 => (member.clone(), any::<bool>()).prop_map(|(member, is_lost)| Event::Beat { member, is_lost }),
        5 => member.clone().prop_map(|member| Event::Revoke { member }),
        1 => member.prop_map(|member| Event::Leave { member }),
        2 => (1..30u8).prop_map(|seconds| Event::Pass { seconds }),
        1 => Just(Event::Grow),
        1 => (0..3u8).prop_map(|replicas| Event::Standbys { replicas }),
        4 => Just(Event::Store),
        1 => Just(Event::Takeover),
    ]
}

type Tasks = BTreeSet<(String, i32)>;

/// A member, as it sees itself.
#[derive(Debug, Default, Clone)]
struct Client {
    epoch: i32,
    is_in: bool,
    runs: Tasks,
    stands_by: Tasks,
    told: (Tasks, Tasks),
    heard_ms: i64,
    revokes_ms: Option<i64>,
}

struct Model {
    group: StreamsGroup,
    stored: StreamsGroup,
    topics: SomeTopics,
    settings: StreamsSettings,
    clients: Vec<Client>,
    held: Vec<(usize, i64, StreamsReply)>,
    now_ms: i64,
    partitions: i32,
}

fn tasks(lists: &[(String, Vec<i32>)]) -> Tasks {
    let each = lists
        .iter()
        .flat_map(|(name, all)| all.iter().map(move |n| (name.clone(), *n)));
    each.collect()
}

fn lists(tasks: &Tasks) -> Vec<(String, Vec<i32>)> {
    let mut lists: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (name, n) in tasks {
        lists.entry(name.clone()).or_default().push(*n);
    }
    lists.into_iter().collect()
}

impl Model {
    fn new() -> Self {
        Self {
            group: StreamsGroup::new(),
            stored: StreamsGroup::new(),
            topics: SomeTopics::new(&[("in", 3), ("words", 3), ("counts", 3)]),
            settings: StreamsSettings {
                assignment_interval_ms: 1000,
                initial_rebalance_delay_ms: 3000,
                ..streams_settings()
            },
            clients: vec![Client::default(); MEMBERS],
            held: Vec::new(),
            now_ms: 1000,
            partitions: 3,
        }
    }

    fn id(n: usize) -> String {
        format!("m{n}")
    }

    fn ask(&mut self, n: usize, beat: StreamsHeartbeat, is_lost: bool) {
        let answered = self
            .group
            .heartbeat(self.now_ms, ("g", beat), &self.settings, &self.topics);
        match answered {
            Ok(reply) => {
                if !is_lost {
                    self.held.push((n, self.now_ms, reply));
                }
            }
            Err(refusal) => {
                let fences = matches!(
                    refusal.error,
                    // A task that the topology has no more.
                    GroupError::FencedMemberEpoch | GroupError::UnknownMemberId
                );
                assert!(fences, "{refusal}");
                self.clients[n] = Client::default();
            }
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Join { member } => {
                let n = usize::from(member);
                self.held.retain(|(of, ..)| *of != n);
                // As Kafka Streams does, it leaves before it joins anew.
                if std::mem::take(&mut self.clients[n]).is_in {
                    self.leave(n);
                }
                self.clients[n] = Client {
                    is_in: true,
                    heard_ms: self.now_ms,
                    ..Client::default()
                };
                // Two threads of one process, and two processes of one.
                let process = ["p", "p", "q", "r"][n];
                self.ask(n, joining(&Self::id(n), process, counting()), false);
            }
            Event::Beat { member, is_lost } => self.beat(usize::from(member), is_lost),
            Event::Revoke { member } => {
                let client = &mut self.clients[usize::from(member)];
                let (runs, stands_by) = &client.told;
                client.runs.retain(|task| runs.contains(task));
                client.stands_by.retain(|task| stands_by.contains(task));
                client.revokes_ms = None;
                self.beat(usize::from(member), false);
            }
            Event::Leave { member } => {
                let n = usize::from(member);
                if std::mem::take(&mut self.clients[n]).is_in {
                    self.held.retain(|(of, ..)| *of != n);
                    self.leave(n);
                }
            }
            Event::Pass { seconds } => {
                self.now_ms += i64::from(seconds) * 1000;
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
                self.group.tick(self.now_ms, &self.settings);
            }
            Event::Grow => {
                self.partitions += 1;
                for name in ["in", "words", "counts"] {
                    self.topics.put(name, self.partitions);
                }
            }
            Event::Standbys { replicas } => {
                self.settings.standby_replicas = usize::from(replicas);
            }
            Event::Store => self.store(),
            Event::Takeover => {
                self.held.clear();
                self.group = read_back(&self.stored, &self.settings, self.now_ms);
                for client in &mut self.clients {
                    client.heard_ms = self.now_ms;
                }
            }
        }
    }

    fn leave(&mut self, n: usize) {
        let leave = plain(&Self::id(n), -1);
        let _ = self
            .group
            .heartbeat(self.now_ms, ("g", leave), &self.settings, &self.topics);
    }

    /// Members say what they have with each heartbeat, which costs nothing here.
    fn beat(&mut self, n: usize, is_lost: bool) {
        let client = self.clients[n].clone();
        let waits = self.held.iter().any(|(of, ..)| *of == n);
        if !client.is_in || client.epoch == 0 || waits {
            return;
        }
        let beat = StreamsHeartbeat {
            owned: Some(OwnedLists {
                active: lists(&client.runs),
                standby: lists(&client.stands_by),
                warmup: Vec::new(),
            }),
            ..plain(&Self::id(n), client.epoch)
        };
        self.ask(n, beat, is_lost);
    }

    fn store(&mut self) {
        self.stored = self.group.clone();
        for (n, sent_ms, reply) in std::mem::take(&mut self.held) {
            let client = &mut self.clients[n];
            assert!(reply.member_epoch >= client.epoch, "m{n} went back");
            client.epoch = reply.member_epoch;
            client.heard_ms = sent_ms;
            let Some(told) = reply.tasks else {
                continue;
            };
            client.told = (tasks(&told.active), tasks(&told.standby));
            let gives_up = client.runs.iter().any(|task| !client.told.0.contains(task))
                || client
                    .stands_by
                    .iter()
                    .any(|task| !client.told.1.contains(task));
            if gives_up {
                client.revokes_ms.get_or_insert(self.now_ms);
            }
            // What is new it takes at once; what is gone it gives up later.
            client.runs.extend(client.told.0.iter().cloned());
            client.stands_by.extend(client.told.1.iter().cloned());
        }
    }

    fn check(&self) {
        let mut owners = BTreeMap::new();
        for (n, client) in self.clients.iter().enumerate() {
            for task in &client.runs {
                assert_eq!(owners.insert(task.clone(), n), None, "two run {task:?}");
            }
        }
    }

    /// Members live on until nothing changes any more: each has its part.
    fn settle(&mut self) {
        for _ in 0..40 {
            self.happens(Event::Pass { seconds: 2 });
            for member in 0..MEMBERS as u8 {
                self.happens(Event::Revoke { member });
                self.happens(Event::Store);
                self.happens(Event::Revoke { member });
                self.happens(Event::Store);
            }
            self.check();
        }
        let live: Vec<usize> = (0..MEMBERS).filter(|n| self.clients[*n].is_in).collect();
        if live.is_empty() {
            return;
        }
        assert_eq!(self.group.state(), "Stable", "{:?}", self.group);
        let mut all = Tasks::new();
        for n in live {
            let member = &self.group.members[&Self::id(n)];
            let target = |set: &tasks::TaskSet| -> Tasks {
                set.iter().map(|(name, n)| (name.to_owned(), n)).collect()
            };
            assert_eq!(self.clients[n].runs, target(&member.target.active), "m{n}");
            assert_eq!(self.clients[n].stands_by, target(&member.target.standby));
            assert_eq!(self.clients[n].epoch, self.group.epoch);
            all.extend(self.clients[n].runs.iter().cloned());
        }
        assert_eq!(all.len(), 2 * self.partitions as usize, "all tasks are run");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_task_is_run_twice_and_all_settles(events in proptest::collection::vec(event(), 1..80)) {
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
