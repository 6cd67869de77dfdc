//! Brokers over disks that forget, a network that delays and cuts, and a coordination store that fails, with producers and
//! a group of consumers around them. Everything follows from a seed.
//!
//! First there are faults: a broker is killed, loses power, or is stopped; ways are cut or held; calls of a disk fail;
//! sessions are lost; clocks jump. Then everything is healed, and must come to its end: every producer has its answers,
//! the group has committed all there is, and what is in the logs is held against what was told.
//!
//! There is one broker with a store of its own ([`What::Broker`]), or there are one or three over one that they share
//! ([`What::Cluster`]). Then a client creates the topics through any broker, and the others find leaders and the
//! coordinator as real clients do; at the end all brokers must have the same view of the cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use metaq::cluster::PartitionInfo;
use metaq::partition::InlineWrites;
use metaq_protocol::messages::FetchRequest;
use metaq_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use parking_lot::Mutex;
use turmoil::Sim;

use super::admin::{Admin, Topics};
use super::chance::seeded;
use super::client::name;
use super::consumer::{Consumer, GROUP, records_of};
use super::disk::{Disk, directory};
use super::ensemble::{Ensemble, SESSION_TIMEOUT, Way};
use super::history::{
    CACHED, End, Ends, History, Number, PAID, PAID_PLACES, PLACES, Place, WORK, WORK_PLACES,
};
use super::house::{Coordination, House};
use super::member::Member;
use super::operator::Operator;
use super::owner::{self, Kind, Owner};
use super::producer::Producer;
use super::random::Random;
use super::receiver::{self, Receiver};
use super::router::{Brokers, Router};
use super::sharer::{self, Sharer};
use super::store::{Kept, Mood};
use super::transactor::{Ledger, Transactor, read_along};
use super::work::{Work, feed};

pub use super::house::EPOCH_MS;

const TICK: Duration = Duration::from_millis(10);
/// How long there are faults.
const FAULTS: Duration = Duration::from_millis(4000);
/// How long it may take to come to the end when there are none any more.
const HEALING_MAX: Duration = Duration::from_secs(40);
/// How long the reader at the end waits.
const READER_WAIT: Duration = Duration::from_secs(2);
const PRODUCERS: usize = 3;
const CONSUMERS: usize = 3;
const TRANSACTORS: usize = 2;
/// Of a group of each kind.
const MEMBERS: usize = 3;
/// Members of the broadcast group.
const RECEIVERS: [&str; 2] = ["r0", "r1"];
/// Ticks between two faults, for one broker and for more.
const TICKS_A_FAULT: u64 = 35;
const TICKS_A_FAULT_AMONG_MORE: u64 = 22;

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Broker,
    Cluster,
    /// Transactions on one broker, or on three.
    Transactions,
    /// Three brokers, which all have a replica of each partition.
    Replicas,
    /// Transactions on three such brokers.
    ReplicatedTransactions,
    /// A consumer group, a share group, a streams group and a broadcast group, on one broker, or on three.
    Groups,
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Cluster => "cluster",
            Self::Transactions => "transactions",
            Self::Replicas => "replicas",
            Self::ReplicatedTransactions => "replicated-transactions",
            Self::Groups => "groups",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Broker,
            Self::Cluster,
            Self::Transactions,
            Self::Replicas,
            Self::ReplicatedTransactions,
            Self::Groups,
        ];
        all.into_iter().find(|what| what.name() == name)
    }

    /// Whether there is one broker with a store of its own.
    fn is_alone(self, seed: u64) -> bool {
        match self {
            Self::Broker => true,
            Self::Cluster | Self::Replicas | Self::ReplicatedTransactions => false,
            Self::Transactions | Self::Groups => seed.is_multiple_of(2),
        }
    }

    /// Whether all brokers have a replica of each partition.
    fn is_replicated(self) -> bool {
        matches!(self, Self::Replicas | Self::ReplicatedTransactions)
    }

    fn watched(self) -> &'static [Place] {
        match self {
            Self::Broker | Self::Cluster | Self::Replicas => &PLACES,
            Self::Transactions | Self::ReplicatedTransactions => &PAID_PLACES,
            Self::Groups => &WORK_PLACES,
        }
    }

    /// The only topic that is created, where it is not the usual ones, and its partitions.
    fn only_topic(self) -> Option<(&'static str, i32)> {
        match self {
            Self::Broker | Self::Cluster | Self::Replicas => None,
            Self::Transactions | Self::ReplicatedTransactions => Some((PAID, 2)),
            Self::Groups => Some((WORK, 4)),
        }
    }

    /// The clients that ways are cut to.
    fn clients(self) -> Vec<String> {
        match self {
            Self::Broker | Self::Cluster | Self::Replicas => {
                let producers = (0..PRODUCERS).map(|n| format!("p{n}"));
                producers
                    .chain((0..CONSUMERS).map(|n| format!("c{n}")))
                    .collect()
            }
            Self::Transactions | Self::ReplicatedTransactions => {
                (0..TRANSACTORS).map(|n| format!("x{n}")).collect()
            }
            Self::Groups => {
                let members =
                    (0..MEMBERS).flat_map(|n| ["w", "s", "a"].map(|kind| format!("{kind}{n}")));
                members.chain(RECEIVERS.map(str::to_owned)).collect()
            }
        }
    }

    /// How many clients write.
    fn writers(self) -> usize {
        match self {
            Self::Broker | Self::Cluster | Self::Replicas => PRODUCERS,
            Self::Transactions | Self::ReplicatedTransactions => TRANSACTORS,
            Self::Groups => 1,
        }
    }
}

/// How far a run is; clones share it.
#[derive(Clone, Default)]
pub struct Phase {
    healing: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    producers_ended: Arc<AtomicUsize>,
    reader_ended: Arc<AtomicBool>,
    moving: Arc<AtomicBool>,
}

impl Phase {
    pub fn is_healing(&self) -> bool {
        self.healing.load(Ordering::Relaxed)
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Whether all transactors have ended.
    pub fn producers_are_done(&self) -> bool {
        self.producers_ended.load(Ordering::Relaxed) == TRANSACTORS
    }

    /// An operator moves replicas.
    fn moves_begin(&self) {
        self.moving.store(true, Ordering::Relaxed);
    }

    /// All are to be where they were, and nobody moves them any more.
    pub fn moves_ended(&self) {
        self.moving.store(false, Ordering::Relaxed);
    }

    pub fn reader_ended(&self) {
        self.reader_ended.store(true, Ordering::Relaxed);
    }

    pub fn producer_ended(&self) {
        self.producers_ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// What happens next to a broker.
#[derive(Clone, Copy)]
enum Power {
    On,
    /// It was asked to stop.
    Stopping,
    /// Started again at this time.
    Off(Duration),
}

struct World<'a> {
    what: What,
    sim: Sim<'a>,
    houses: Vec<House>,
    history: History,
    phase: Phase,
    random: Random,
    /// How often which fault comes.
    weights: Vec<u64>,
    power: Vec<Power>,
    /// When ways are repaired, sessions and moods return.
    repairs: Vec<(Duration, Repair)>,
    brokers: Brokers,
    /// What became of the topics that come and go.
    topics: Topics,
    /// What became of the records that groups work on.
    work: Work,
}

/// By its number, of which broker.
#[derive(Clone)]
enum Repair {
    Way(String, String),
    Session,
    Server(usize),
    Mood(usize),
    Disk(usize),
}

/// What is wrong, if anything, and the trace of a seed.
pub fn told(what: What, seed: u64) -> (Option<String>, Vec<String>) {
    let history = History::default();
    let ended = seeded(seed, || simulate(what, seed, &history));
    let failure = match ended {
        Some(Ok(())) => history.failure(),
        Some(Err(what)) => Some(history.failure().unwrap_or(what)),
        None => Some("the simulation panicked".to_owned()),
    };
    (failure, history.take_trace())
}

/// In every fourth seed a connection writes.
fn inline_writes_of(seed: u64) -> InlineWrites {
    let mut inline_writes = InlineWrites::new(usize::from(seed.is_multiple_of(4)));
    // By the simulation's clock no write takes any time.
    inline_writes.time_max = Duration::MAX;
    inline_writes
}

/// In every third seed with replicas an operator moves them.
fn moves_replicas(seed: u64) -> bool {
    seed % 3 == 2
}

/// Names of the brokers of a seed: every eighth cluster has one.
fn hosts(what: What, seed: u64) -> Vec<String> {
    match (what, seed % 8) {
        _ if what.is_alone(seed) => vec!["broker".to_owned()],
        (What::Cluster | What::Transactions | What::Groups, 5) => vec!["b0".to_owned()],
        _ => (0..3).map(|n| format!("b{n}")).collect(),
    }
}

/// The brokers of a seed, none of which runs yet.
fn build(
    (what, seed): (What, u64),
    dir: &Path,
    history: &History,
    random: &mut Random,
) -> std::io::Result<(Vec<House>, Brokers)> {
    let slowness = [(1, 5), (5, 60), (10, 400)][random.below(3) as usize];
    let hosts = hosts(what, seed);
    let own = Random::new(random.next());
    let (store, ensemble) = match what.is_alone(seed) {
        true => (Coordination::Alone(Kept::new(own)), None),
        false => {
            let ensemble = Ensemble::new(hosts.len(), own);
            (Coordination::Shared(ensemble.clone()), Some(ensemble))
        }
    };
    let mut houses = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        let house = House {
            index,
            watched: what.watched(),
            is_replicated: what.is_replicated(),
            host: host.clone(),
            dir: dir.join(host),
            disk: Disk::default(),
            store: store.clone(),
            history: history.clone(),
            random: Arc::new(Mutex::new(Random::new(random.next()))),
            slowness,
            syncs_last: matches!(seed % 8, 0 | 7),
            inline_writes: inline_writes_of(seed),
            jump_ms: Arc::default(),
            running: Arc::default(),
            stop: Arc::default(),
            places: Arc::default(),
        };
        std::fs::create_dir(&house.dir)?;
        let config = house.config(&mut Random::new(random.next()));
        std::fs::write(house.config_file(), config)?;
        houses.push(house);
    }
    Ok((houses, Brokers { hosts, ensemble }))
}

fn simulate(what: What, seed: u64, history: &History) -> Result<(), String> {
    let dir = directory().map_err(|error| error.to_string())?;
    let mut random = Random::new(seed);
    let built = build((what, seed), dir.path(), history, &mut random);
    let (houses, brokers) = built.map_err(|error| error.to_string())?;
    let mut part = || Random::new(random.next());
    let mut own = part();
    let mut sim = turmoil::Builder::new()
        .rng_seed(own.next())
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(3600))
        .max_message_latency(Duration::from_millis([1, 10, 40][own.below(3) as usize]))
        .enable_random_order()
        .build();
    let phase = Phase::default();
    for house in &houses {
        let served = house.clone();
        sim.host(&*house.host, move || served.clone().serve());
    }
    let usual = what.only_topic().is_none();
    let work = Work::new(history.clone());
    for n in (0..PRODUCERS).filter(|_| usual) {
        let idempotent = n > 0;
        let (brokers, phase) = (brokers.clone(), phase.clone());
        let producer = Producer::new(n, idempotent, brokers, history.clone(), phase, part());
        sim.client(format!("p{n}"), async move {
            producer.run().await;
            Ok(())
        });
    }
    for n in (0..CONSUMERS).filter(|_| usual) {
        let (name, brokers) = (format!("c{n}"), brokers.clone());
        let consumer = Consumer::new(&name, brokers, history.clone(), phase.clone(), part());
        sim.client(format!("c{n}"), async move {
            consumer.run().await;
            Ok(())
        });
    }
    match what {
        What::Broker | What::Cluster | What::Replicas => {}
        What::Transactions | What::ReplicatedTransactions => {
            transact(&mut sim, &brokers, history, &phase, &mut part)
        }
        What::Groups => gather(&mut sim, &brokers, (history, &work), &phase, &mut part),
    }
    let topics = Topics::default();
    if brokers.ensemble.is_some() {
        let (brokers, topics) = ((brokers.clone(), what.only_topic()), topics.clone());
        let mut admin = Admin::new(brokers, topics, history.clone(), phase.clone(), part());
        if what.is_replicated() {
            admin.replicas = 3;
            history.is_replicated();
        }
        sim.client("admin", async move {
            admin.run().await;
            Ok(())
        });
    }
    if what.is_replicated() && moves_replicas(seed) {
        phase.moves_begin();
        let (brokers, phase) = ((brokers.clone(), what.watched()), phase.clone());
        let operator = Operator::new(brokers, history.clone(), phase, part());
        sim.client("operator", async move {
            operator.run().await;
            Ok(())
        });
    }
    let faults = match brokers.ensemble {
        None => 8,
        Some(_) => 11,
    };
    let mut world = World {
        what,
        sim,
        power: vec![Power::On; houses.len()],
        houses,
        history: history.clone(),
        phase,
        weights: (0..faults).map(|_| own.below(3)).collect(),
        random: own,
        repairs: Vec::new(),
        brokers,
        topics,
        work,
    };
    let lived = world.live();
    let houses = world.houses.iter();
    let written: u64 = houses.map(|house| house.inline_writes.written()).sum();
    history.note(|| format!("connections wrote {written} rounds"));
    if let Some(ensemble) = &world.brokers.ensemble {
        history.note(|| ensemble.summary(GROUP));
    }
    if what == What::Groups {
        history.note(|| world.work.summary());
    }
    lived
}

/// Adds what transacts, and who reads along.
fn transact(
    sim: &mut Sim<'_>,
    brokers: &Brokers,
    history: &History,
    phase: &Phase,
    part: &mut impl FnMut() -> Random,
) {
    let ledger = Ledger::default();
    for n in 0..TRANSACTORS {
        let told = (history.clone(), ledger.clone());
        let transactor = Transactor::new(n, brokers.clone(), told, phase.clone(), part());
        sim.client(format!("x{n}"), async move {
            transactor.run().await;
            Ok(())
        });
    }
    let (brokers, history, phase) = (brokers.clone(), history.clone(), phase.clone());
    sim.client("bank-reader", async move {
        read_along(brokers, history, ledger, phase).await;
        Ok(())
    });
}

/// Adds members of groups of all kinds, and who writes what they work on.
fn gather(
    sim: &mut Sim<'_>,
    brokers: &Brokers,
    (history, work): (&History, &Work),
    phase: &Phase,
    part: &mut impl FnMut() -> Random,
) {
    let mut member = |name: &str, group| {
        let told = (history.clone(), work.clone());
        Member::new(name, group, brokers.clone(), told, (phase.clone(), part()))
    };
    for n in 0..MEMBERS {
        let owners = [
            ("w", owner::CONSUMERS, Kind::Consumer),
            ("a", owner::STREAMS, Kind::Streams),
        ];
        for (letter, group, kind) in owners {
            let name = format!("{letter}{n}");
            let owner = Owner::new(kind, member(&name, group));
            sim.client(name, async move {
                owner.run().await;
                Ok(())
            });
        }
        let name = format!("s{n}");
        let sharer = Sharer::new(member(&name, sharer::GROUP));
        sim.client(name, async move {
            sharer.run().await;
            Ok(())
        });
    }
    for instance in RECEIVERS {
        let receiver = Receiver::new(instance, member(instance, receiver::GROUP));
        sim.client(instance, async move {
            receiver.run().await;
            Ok(())
        });
    }
    let (brokers, history, phase) = (brokers.clone(), history.clone(), phase.clone());
    let random = part();
    sim.client("feeder", async move {
        feed(brokers, history, phase, random).await;
        Ok(())
    });
}

impl World<'_> {
    fn live(&mut self) -> Result<(), String> {
        let ticks_a_fault = match self.houses.len() {
            1 => TICKS_A_FAULT,
            _ => TICKS_A_FAULT_AMONG_MORE,
        };
        while self.sim.elapsed() < FAULTS {
            self.step()?;
            if self.random.one_in(ticks_a_fault) {
                self.disturb();
            }
        }
        self.heal();
        let deadline = self.sim.elapsed() + HEALING_MAX;
        while !self.is_at_end() {
            if self.sim.elapsed() > deadline {
                return Err(self.late());
            }
            self.step()?;
        }
        self.phase.over.store(true, Ordering::Relaxed);
        let logs = Arc::new(Mutex::new(BTreeMap::new()));
        let (read, history) = (logs.clone(), self.history.clone());
        let brokers = self.brokers.clone();
        let places: &[Place] = match self.what {
            What::Broker | What::Cluster | What::Replicas => &PLACES,
            // They were read along.
            What::Transactions | What::ReplicatedTransactions | What::Groups => &[],
        };
        self.sim.client("reader", async move {
            for place in places.iter().copied() {
                read.lock().insert(place, Vec::new());
                let all = read_all(place, brokers.clone()).await?;
                read.lock().insert(place, all);
            }
            history.finish(&read.lock());
            Ok(())
        });
        let deadline = self.sim.elapsed() + HEALING_MAX;
        while !self.sim.step().map_err(|error| error.to_string())? {
            self.pass();
            if self.sim.elapsed() > deadline {
                return Err("clients do not end".to_owned());
            }
        }
        self.houses.iter().for_each(House::look_inside);
        match self.what.is_replicated() {
            true => self.compare_replicas(),
            false => Ok(()),
        }
    }

    /// All replicas have the same bytes.
    fn compare_replicas(&self) -> Result<(), String> {
        for (topic, index) in self.what.watched().iter().copied() {
            let logs: Vec<Vec<u8>> = self
                .houses
                .iter()
                .map(|house| house.log_bytes((topic, index)))
                .collect();
            if logs.iter().any(|log| *log != logs[0]) {
                let bytes: Vec<usize> = logs.iter().map(Vec::len).collect();
                return Err(format!("{topic}-{index}: the replicas differ, {bytes:?}"));
            }
        }
        Ok(())
    }

    /// Whether all replicas of a cluster of them are as far as the leaders, and in sync.
    fn replicas_differ(&self) -> Option<String> {
        let all: Vec<_> = self.houses.iter().map(House::ends).collect();
        let ends = |ends: &BTreeMap<Place, Ends>| -> Vec<(i64, i64)> {
            let one = |ends: &Ends| (ends.log_start, ends.log_end);
            ends.values().map(one).collect()
        };
        if all.iter().any(|one| ends(one) != ends(&all[0])) {
            return Some(format!("replicas are at {all:?}"));
        }
        // A new leader hears of its followers when they fetch.
        for house in &self.houses {
            let context = house.context()?;
            let uncommitted = self.what.watched().iter().find_map(|(topic, index)| {
                let partition = context.partitions.get(topic, *index).ok()?;
                let end = partition.log().ends().log_end.offset;
                let is_lower = partition.is_leader() && partition.high_watermark() < end;
                is_lower.then(|| format!("{topic}-{index} is not committed up to {end}"))
            });
            if uncommitted.is_some() {
                return uncommitted;
            }
        }
        let image = self.houses[0].context()?.cluster.image();
        self.what.watched().iter().find_map(|(topic, index)| {
            let known = image.topic(topic).and_then(|topic| topic.partition(*index));
            let is_everywhere =
                |info: &PartitionInfo| info.isr.len() == self.houses.len() && !info.is_moving();
            match known.is_some_and(is_everywhere) {
                true => None,
                false => Some(format!("{topic}-{index} is {known:?}")),
            }
        })
    }

    /// Time goes on for the store.
    fn pass(&self) {
        if let Some(ensemble) = &self.brokers.ensemble {
            ensemble.pass(self.sim.elapsed());
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| error.to_string())?;
        self.pass();
        if let Some(what) = self.history.failure() {
            return Err(what);
        }
        let now = self.sim.elapsed();
        let (due, later) = std::mem::take(&mut self.repairs)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.repairs = later;
        for (_, repair) in due {
            self.repair(repair);
        }
        for n in 0..self.houses.len() {
            let host = self.houses[n].host.clone();
            let is_running = self.sim.is_host_running(&*host);
            match self.power[n] {
                Power::Off(until) if until <= now => {
                    self.note(format!("{} starts", self.houses[n].name()));
                    self.sim.bounce(&*host);
                    self.power[n] = Power::On;
                }
                Power::On | Power::Stopping if !is_running => self.off_for_a_while(n),
                _ => {}
            }
        }
        Ok(())
    }

    fn note(&self, what: String) {
        let at = self.sim.elapsed().as_millis();
        self.history.note_at(at, what);
    }

    /// One of the brokers.
    fn pick(&mut self) -> usize {
        match self.houses.len() {
            1 => 0,
            more => self.random.below(more as u64) as usize,
        }
    }

    fn off_for_a_while(&mut self, n: usize) {
        self.houses[n].forget();
        let ms_max = match &self.houses[n].store {
            Coordination::Alone(_) => 400,
            // Others take over from it, or it is quicker.
            Coordination::Shared(_) => 2 * SESSION_TIMEOUT.as_millis() as u64,
        };
        let pause = Duration::from_millis(self.random.below(ms_max));
        self.power[n] = Power::Off(self.sim.elapsed() + pause);
    }

    fn disturb(&mut self) {
        let total: u64 = self.weights.iter().sum();
        let mut left = self.random.below(total);
        for (fault, weight) in self.weights.clone().into_iter().enumerate() {
            if left < weight {
                return self.fault(fault);
            }
            left -= weight;
        }
    }

    fn fault(&mut self, fault: usize) {
        let n = self.pick();
        match fault {
            0 => self.end(n, End::Killed),
            1 => self.end(n, End::PowerLost),
            2 => self.end(n, End::Stopped),
            3 | 4 => self.cut(n, fault == 3),
            5 => self.fail_disk(n),
            6 => self.trouble_store(n),
            7 => self.jump(n),
            8 => self.cut_between(n),
            // A session's end takes two of these: it is the fault that there would not be with one broker.
            _ => self.cut_store(n),
        }
    }

    fn end(&mut self, n: usize, how: End) {
        if !matches!(self.power[n], Power::On) && how == End::Stopped
            || matches!(self.power[n], Power::Off(_))
        {
            return;
        }
        let house = &mut self.houses[n];
        house.look_inside();
        if how == End::Stopped {
            house.stop.lock().notify_one();
            let what = format!("{} is to stop", house.name());
            self.note(what);
            self.power[n] = Power::Stopping;
            return;
        }
        let ends = house.ends();
        *house.running.lock() = Weak::new();
        self.sim.crash(&*house.host);
        house.forget_stop();
        house.disk.stop_failing();
        house.has_ended(how, &ends);
        if how == End::PowerLost {
            self.houses[n].lose_power(&mut self.random);
        }
        self.off_for_a_while(n);
    }

    /// One way between two hosts, or both, is cut or held.
    fn break_way(&mut self, a: String, b: String, hold: bool) {
        match hold {
            true => self.sim.hold(&*a, &*b),
            false => match self.random.below(3) {
                0 => self.sim.partition_oneway(&*a, &*b),
                1 => self.sim.partition_oneway(&*b, &*a),
                _ => self.sim.partition(&*a, &*b),
            },
        }
        self.later(1200, Repair::Way(a, b));
    }

    fn cut(&mut self, n: usize, hold: bool) {
        let clients = self.what.clients();
        let client = clients[self.random.below(clients.len() as u64) as usize].clone();
        let host = self.houses[n].host.clone();
        match self.houses.len() {
            1 => self.note(format!("the way to {client} is cut, hold {hold}")),
            _ => self.note(format!(
                "the way from {host} to {client} is cut, hold {hold}"
            )),
        }
        self.break_way(client, host, hold);
    }

    fn cut_between(&mut self, n: usize) {
        let other = self.pick();
        if other == n {
            return;
        }
        let hold = self.random.one_in(2);
        let host = |n: usize| self.houses[n].host.clone();
        let (a, b) = (host(n), host(other));
        self.note(format!("the way from {a} to {b} is cut, hold {hold}"));
        self.break_way(a, b, hold);
    }

    /// For long enough, sometimes, that the session ends.
    fn cut_store(&mut self, n: usize) {
        let Some(ensemble) = self.brokers.ensemble.clone() else {
            return;
        };
        let way = [Way::Cut, Way::Lagging][self.random.below(2) as usize];
        self.note(format!(
            "{}'s way to the store: {way:?}",
            self.houses[n].host
        ));
        ensemble.lead(n, way);
        self.later(2 * SESSION_TIMEOUT.as_millis() as u64, Repair::Server(n));
    }

    fn fail_disk(&mut self, n: usize) {
        let calls = self.random.below(8);
        let house = &self.houses[n];
        match self.houses.len() {
            1 => self.note(format!("the disk fails in {calls} calls")),
            _ => self.note(format!("{}'s disk fails in {calls} calls", house.host)),
        }
        match house.syncs_last && calls % 2 == 1 {
            true => house.disk.fail_writeback_in(calls / 2),
            false => house.disk.fail_in(calls),
        }
        self.history.disk_fails();
        self.later(600, Repair::Disk(n));
    }

    fn trouble_store(&mut self, n: usize) {
        if let Coordination::Alone(store) = &self.houses[n].store
            && self.random.one_in(2)
        {
            store.lose_session();
            self.note("the session is lost".to_owned());
            self.later(500, Repair::Session);
            return;
        }
        let mut often = || [0, 3, 10][self.random.below(3) as usize];
        let mood = Mood {
            delay_ms_max: often() * 20,
            refuses_one_in: often(),
            silent_one_in: often(),
        };
        match self.houses.len() {
            1 => self.note("the coordination store is in a mood".to_owned()),
            _ => self.note(format!("{}'s server is in a mood", self.houses[n].host)),
        }
        self.behave(n, mood);
        self.later(1000, Repair::Mood(n));
    }

    fn behave(&self, n: usize, mood: Mood) {
        match &self.houses[n].store {
            Coordination::Alone(store) => store.behave(mood),
            Coordination::Shared(ensemble) => ensemble.behave(n, mood),
        }
    }

    fn jump(&mut self, n: usize) {
        let jump_ms = self.random.between(-600_000, 600_000);
        match self.houses.len() {
            1 => self.note(format!("the clock is off by {jump_ms} ms")),
            _ => self.note(format!(
                "{}'s clock is off by {jump_ms} ms",
                self.houses[n].host
            )),
        }
        self.houses[n].jump_ms.store(jump_ms, Ordering::Relaxed);
    }

    fn later(&mut self, ms_max: u64, repair: Repair) {
        let pause = Duration::from_millis(self.random.below(ms_max));
        self.repairs.push((self.sim.elapsed() + pause, repair));
    }

    fn repair(&mut self, repair: Repair) {
        match repair {
            Repair::Way(a, b) => {
                match self.houses.len() {
                    1 => self.note(format!("the way to {a} is there")),
                    _ => self.note(format!("the way from {a} to {b} is there")),
                }
                self.sim.release(&*a, &*b);
                self.sim.repair(&*a, &*b);
            }
            Repair::Session => {
                self.note("a new session".to_owned());
                for house in &self.houses {
                    if let Coordination::Alone(store) = &house.store {
                        store.connect();
                    }
                }
            }
            Repair::Server(n) => {
                self.note(format!(
                    "{}'s way to the store is there",
                    self.houses[n].host
                ));
                if let Some(ensemble) = &self.brokers.ensemble {
                    ensemble.lead(n, Way::Open);
                }
            }
            Repair::Mood(n) => self.behave(n, Mood::default()),
            Repair::Disk(n) => {
                let house = &self.houses[n];
                house.disk.stop_failing();
                // Whoever looks after it starts it again.
                if house.context().is_some() && !house.is_whole() {
                    self.end(n, End::Killed);
                }
            }
        }
    }

    fn heal(&mut self) {
        self.note("everything is healed".to_owned());
        for (_, repair) in std::mem::take(&mut self.repairs) {
            self.repair(repair);
        }
        self.phase.healing.store(true, Ordering::Relaxed);
    }

    fn ends(&self) -> BTreeMap<Place, Ends> {
        self.houses.iter().flat_map(House::ends).collect()
    }

    fn is_at_end(&mut self) -> bool {
        let ends = self.ends();
        let history = &self.history;
        let all = |place: &Place| {
            let end = ends.get(place).map(|ends| ends.log_end);
            let committed = history.committed_end(*place);
            // What was committed may be lost with the power.
            end.is_some_and(|end| committed == end || place.0 == CACHED && committed > end)
        };
        let is_read = match self.what {
            What::Broker | What::Cluster | What::Replicas => PLACES.iter().all(all),
            What::Transactions | What::ReplicatedTransactions => {
                self.phase.reader_ended.load(Ordering::Relaxed)
            }
            What::Groups => self.work_left().is_none(),
        };
        self.phase.producers_ended.load(Ordering::Relaxed) == self.what.writers()
            && is_read
            && self.disagreement().is_none()
    }

    /// What the brokers of a cluster do not agree on, with each other or with what a client was told.
    fn disagreement(&self) -> Option<String> {
        self.brokers.ensemble.as_ref()?;
        if !self.topics.are_done() {
            return Some("topics still come and go".to_owned());
        }
        if self.phase.moving.load(Ordering::Relaxed) {
            return Some("replicas still move".to_owned());
        }
        let mut views = Vec::new();
        for house in &self.houses {
            let Some(context) = house.context() else {
                return Some(format!("{} does not run", house.host));
            };
            let image = context.cluster.image();
            let topics: BTreeMap<String, String> = image
                .topics()
                .map(|topic| (topic.name.to_string(), topic.id.to_string()))
                .collect();
            let brokers: Vec<i32> = image.brokers.keys().copied().collect();
            let slots: Vec<(i32, i32)> = image
                .slots
                .iter()
                .map(|slot| (slot.owner, slot.epoch))
                .collect();
            if !context.cluster.may_act() {
                return Some(format!("{} may not act", house.host));
            }
            views.push((topics, brokers, slots, image.controller_id));
        }
        let (topics, brokers, slots, controller) = &views[0];
        if views.iter().any(|view| *view != views[0]) {
            return Some(format!("brokers see {views:?}"));
        }
        if brokers.len() != self.houses.len() || !brokers.contains(controller) {
            return Some(format!(
                "{brokers:?} are there, {controller} is the controller"
            ));
        }
        if slots.iter().any(|(owner, _)| !brokers.contains(owner)) {
            return Some(format!("slots are with {slots:?}"));
        }
        if self.what.is_replicated()
            && let Some(what) = self.replicas_differ()
        {
            return Some(what);
        }
        self.topics.contradiction(topics)
    }

    /// What groups have not come to.
    fn work_left(&self) -> Option<String> {
        let [first, second] = RECEIVERS;
        let committed = [owner::CONSUMERS, first, second];
        let owned = [owner::CONSUMERS, owner::STREAMS];
        self.work.lacks(&self.ends(), (&owned, &committed))
    }

    /// What it did not come to.
    fn late(&self) -> String {
        if let Some(left) = self.work_left().filter(|_| self.what == What::Groups) {
            return format!("it does not come to its end: {left}");
        }
        let committed: Vec<i64> = PLACES
            .iter()
            .map(|place| self.history.committed_end(*place))
            .collect();
        let disagreement = self.disagreement().unwrap_or_default();
        format!(
            "it does not come to its end: {} producers are done, {committed:?} is committed of {:?}; {disagreement}",
            self.phase.producers_ended.load(Ordering::Relaxed),
            self.ends()
        )
    }
}

/// Reads a partition from its beginning to its end, through the wire.
async fn read_all((topic, index): Place, brokers: Brokers) -> Result<Vec<(i64, Number)>, String> {
    let mut router = Router::new("reader", brokers);
    let leader = router.leader((topic, index)).await;
    let leader = leader.map_err(|_| "the reader finds no leader".to_owned())?;
    let client = router.client(leader);
    let mut all: Vec<(i64, Number)> = Vec::new();
    let start = client.earliest((topic, index), READER_WAIT).await;
    let start = start.map_err(|_| "the reader is not told where to begin".to_owned())?;
    loop {
        let partition = FetchPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(start + all.len() as i64)
            .with_partition_max_bytes(1 << 20);
        let asked = FetchTopic::default()
            .with_topic(name(topic))
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(0)
            .with_min_bytes(0)
            .with_max_bytes(1 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![asked]);
        let answered = client.ask(11, &request, READER_WAIT).await;
        let response = answered.map_err(|_| "the reader gets no answer".to_owned())?;
        let partition = &response.responses[0].partitions[0];
        if partition.error_code != 0 {
            return Err(format!("the reader is told {}", partition.error_code));
        }
        let records = partition.records.clone().unwrap_or_default();
        let records = records_of(&records)?;
        all.extend(records);
        if start + all.len() as i64 >= partition.high_watermark {
            return Ok(all);
        }
    }
}
