//! Members of one consumer group (KIP-848) that join at once: how long until each has its part, and what their heartbeats cost
//! the broker after that. They do what consumers do: they take what they are told at once, and say so when they gave something up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use metaq_protocol::frame;
use metaq_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use metaq_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, FindCoordinatorRequest, GroupId,
};
use metaq_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::{Failure, Options, ask, cpu_seconds, read_frame, topic_name};

const VERSION: i16 = 1;

/// What all connections share.
struct Group<'a> {
    options: &'a Options,
    started: Instant,
    /// Partitions that members have, and members that have their part.
    owned: AtomicI64,
    settled: AtomicUsize,
    heartbeats: AtomicUsize,
    /// When the last one had its part, us.
    settled_us: AtomicI64,
    ends: Instant,
}

#[derive(Default)]
struct Member {
    id: String,
    epoch: i32,
    has: BTreeSet<(Uuid, i32)>,
    /// What changed is to be told.
    tells: bool,
    is_settled: bool,
}

impl Member {
    fn request(&self, options: &Options) -> ConsumerGroupHeartbeatRequest {
        let text = |text: String| StrBytes::from_string(text);
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(group_of(options))))
            .with_member_id(text(self.id.clone()))
            .with_member_epoch(self.epoch)
            .with_rebalance_timeout_ms(-1);
        if self.epoch == 0 {
            return request
                .with_rebalance_timeout_ms(300_000)
                .with_subscribed_topic_names(Some(vec![topic_name(options)]))
                .with_topic_partitions(Some(Vec::new()));
        }
        if !self.tells {
            return request;
        }
        let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &self.has {
            topics.entry(*topic).or_default().push(*partition);
        }
        let topics = topics.into_iter().map(|(id, partitions)| {
            TopicPartitions::default()
                .with_topic_id(id)
                .with_partitions(partitions)
        });
        request.with_topic_partitions(Some(topics.collect()))
    }

    /// Takes an answer; when to say the next thing.
    fn take(
        &mut self,
        group: &Group<'_>,
        answer: ConsumerGroupHeartbeatResponse,
    ) -> Result<Duration, Failure> {
        // The coordinator is not available, is loading, or was just chosen.
        if matches!(answer.error_code, 14..=16) {
            return Ok(Duration::from_millis(100));
        }
        if answer.error_code != 0 {
            let why = answer.error_message.unwrap_or_default();
            return Err(format!("heartbeat failed with {}: {why}", answer.error_code).into());
        }
        self.epoch = answer.member_epoch;
        self.tells = false;
        if let Some(assignment) = answer.assignment {
            let topics = assignment.topic_partitions.into_iter();
            let has: BTreeSet<(Uuid, i32)> = topics
                .flat_map(|topic| {
                    let id = topic.topic_id;
                    topic.partitions.into_iter().map(move |n| (id, n))
                })
                .collect();
            self.tells = has != self.has;
            let more = has.len() as i64 - self.has.len() as i64;
            group.owned.fetch_add(more, Ordering::Relaxed);
            self.has = has;
        }
        let (members, partitions) = (group.options.members, group.options.partitions as usize);
        let least = partitions / members;
        let is_settled = (least..=least + 1).contains(&self.has.len());
        if is_settled != self.is_settled {
            self.is_settled = is_settled;
            match is_settled {
                true => group.settled.fetch_add(1, Ordering::Relaxed),
                false => group.settled.fetch_sub(1, Ordering::Relaxed),
            };
        }
        let are_settled = group.settled.load(Ordering::Relaxed) == members
            && group.owned.load(Ordering::Relaxed) == partitions as i64;
        if are_settled && group.settled_us.load(Ordering::Relaxed) == 0 {
            let us = group.started.elapsed().as_micros() as i64;
            group.settled_us.store(us, Ordering::Relaxed);
        }
        Ok(match self.tells {
            true => Duration::ZERO,
            false => Duration::from_millis(answer.heartbeat_interval_ms.max(1) as u64),
        })
    }
}

/// One connection with its members.
fn connection(group: &Group<'_>, n: usize) -> Result<(), Failure> {
    let options = group.options;
    let mut stream = TcpStream::connect(&options.address)?;
    stream.set_nodelay(true)?;
    let ids = (n..options.members).step_by(options.connections);
    let mut members: Vec<Member> = ids
        .map(|id| Member {
            id: format!("member-{id}"),
            ..Member::default()
        })
        .collect();
    let mut due: BinaryHeap<Reverse<(Instant, usize)>> = (0..members.len())
        .map(|n| Reverse((group.started, n)))
        .collect();
    while let Some(Reverse((at, n))) = due.pop() {
        if at >= group.ends {
            return Ok(());
        }
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let request = members[n].request(options);
        stream.write_all(&frame::encode_request(VERSION, 1, "load", &request)?)?;
        let answer = read_frame(&mut stream)?;
        let (_, answer) = frame::decode_response::<ConsumerGroupHeartbeatRequest>(VERSION, answer)?;
        group.heartbeats.fetch_add(1, Ordering::Relaxed);
        let wait = members[n].take(group, answer)?;
        due.push(Reverse((Instant::now() + wait, n)));
    }
    Ok(())
}

/// Kafka makes its internal topic when a coordinator is asked for.
fn find_coordinator(options: &Options) -> Result<(), Failure> {
    let request = FindCoordinatorRequest::default()
        .with_coordinator_keys(vec![StrBytes::from_string(group_of(options))]);
    for _ in 0..600 {
        let found = ask(options, 4, &request)?;
        if found.coordinators.iter().all(|found| found.error_code == 0) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("the group has no coordinator".into())
}

fn group_of(options: &Options) -> String {
    format!("members-of-{}", options.topic)
}

/// Prints when all had their part, and what the heartbeats of the second half of the run cost.
pub fn members(options: &Options) -> Result<(), Failure> {
    let pid = options.pid.ok_or("--pid")?;
    find_coordinator(options)?;
    let started = Instant::now();
    let group = Group {
        options,
        started,
        owned: AtomicI64::new(0),
        settled: AtomicUsize::new(0),
        heartbeats: AtomicUsize::new(0),
        settled_us: AtomicI64::new(0),
        ends: started + options.run,
    };
    let cpu_at_start = cpu_seconds(pid)?;
    let (mut cpu_half, mut beats_half) = (0.0, 0);
    std::thread::scope(|scope| -> Result<(), Failure> {
        let group = &group;
        let threads: Vec<_> = (0..options.connections)
            .map(|n| scope.spawn(move || connection(group, n)))
            .collect();
        std::thread::sleep(options.run / 2);
        (cpu_half, beats_half) = (cpu_seconds(pid)?, group.heartbeats.load(Ordering::Relaxed));
        for thread in threads {
            thread.join().map_err(|_| "a connection failed")??;
        }
        Ok(())
    })?;
    let cpu = cpu_seconds(pid)? - cpu_half;
    let beats = group.heartbeats.load(Ordering::Relaxed) - beats_half;
    let settled_us = group.settled_us.load(Ordering::Relaxed);
    if settled_us == 0 {
        return Err("not all members had their part in time".into());
    }
    println!(
        "{{\"members\": {}, \"partitions\": {}, \"settled_ms\": {:.0}, \"settling_cpu_s\": {:.2}, \"heartbeats_per_s\": {:.0}, \"cpu_percent\": {:.2}, \"cpu_us_per_heartbeat\": {:.1}}}",
        options.members,
        options.partitions,
        settled_us as f64 / 1e3,
        cpu_half - cpu_at_start,
        beats as f64 / (options.run / 2).as_secs_f64(),
        cpu * 100.0 / (options.run / 2).as_secs_f64(),
        cpu * 1e6 / beats.max(1) as f64,
    );
    Ok(())
}
