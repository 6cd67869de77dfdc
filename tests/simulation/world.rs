//! A whole broker over a disk that forgets, a network that delays and cuts, and a coordination store that fails, with
//! producers and a group of consumers around it. Everything follows from a seed.
//!
//! First there are faults: the broker is killed, loses power, or is stopped; ways are cut or held; calls of the disk
//! fail; the session is lost; the clock jumps. Then everything is healed, and must come to its end: every producer has
//! its answers, the group has committed all there is, and what is in the logs is held against what was told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use metaq::api::Context;
use metaq::broker::{Broker, Ground};
use metaq::clock::WallClock;
use metaq::config::Config;
use metaq::meta::MetaStore;
use metaq::net::{Bound, Endpoint};
use metaq::observe::Observe;
use metaq::partition::{InlineWrites, Partitions, PartitionsOptions, Step, Workers};
use metaq::peer::Peers;
use metaq::session::ListenerInfo;
use metaq_protocol::messages::FetchRequest;
use metaq_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use parking_lot::Mutex;
use tokio::sync::Notify;
use turmoil::Sim;

use super::chance::seeded;
use super::client::{BROKER, Client, PORT, name};
use super::consumer::{Consumer, records_of};
use super::disk::{Disk, damage_indexes, directory};
use super::history::{CACHED, End, Ends, History, Number, PLACES, Place, SYNCED};
use super::network::Listener;
use super::producer::Producer;
use super::random::Random;
use super::store::{Kept, Mood};

/// The time of day when everything begins.
pub const EPOCH_MS: i64 = 1_700_000_000_000;
const TICK: Duration = Duration::from_millis(10);
/// How long there are faults.
const FAULTS: Duration = Duration::from_millis(4000);
/// How long it may take to come to the end when there are none any more.
const HEALING_MAX: Duration = Duration::from_secs(40);
/// How long the reader at the end waits.
const READER_WAIT: Duration = Duration::from_secs(2);
const PRODUCERS: usize = 3;
const CONSUMERS: usize = 3;

/// How far a run is; clones share it.
#[derive(Clone, Default)]
pub struct Phase {
    healing: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    producers_ended: Arc<AtomicUsize>,
}

impl Phase {
    pub fn is_healing(&self) -> bool {
        self.healing.load(Ordering::Relaxed)
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub fn producer_ended(&self) {
        self.producers_ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the broker's host needs whenever it starts; clones share it.
#[derive(Clone)]
struct House {
    dir: PathBuf,
    disk: Disk,
    store: Kept,
    history: History,
    random: Arc<Mutex<Random>>,
    /// What a round of the writer and a sync take at the most, ms.
    slowness: (u64, u64),
    /// Syncs take time, in which the rest goes on, and a disk that fails may refuse what it had taken.
    syncs_last: bool,
    inline_writes: InlineWrites,
    jump_ms: Arc<AtomicI64>,
    running: Arc<Mutex<Weak<Context>>>,
    stop: Arc<Notify>,
}

/// What happens next to the broker.
enum Power {
    On,
    /// It was asked to stop.
    Stopping,
    /// Started again at this time.
    Off(Duration),
}

struct World<'a> {
    sim: Sim<'a>,
    house: House,
    phase: Phase,
    random: Random,
    /// How often which fault comes.
    weights: [u64; 8],
    power: Power,
    /// When ways are repaired, sessions and moods return.
    repairs: Vec<(Duration, Repair)>,
}

#[derive(Clone)]
enum Repair {
    Way(String),
    Session,
    Mood,
    Disk,
}

/// What is wrong, if anything, and the trace of a seed.
pub fn told(seed: u64) -> (Option<String>, Vec<String>) {
    let history = History::default();
    let ended = seeded(seed, || simulate(seed, &history));
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

fn simulate(seed: u64, history: &History) -> Result<(), String> {
    let dir = directory().map_err(|error| error.to_string())?;
    let mut random = Random::new(seed);
    let slowness = [(1, 5), (5, 60), (10, 400)][random.below(3) as usize];
    let mut part = || Random::new(random.next());
    let house = House {
        dir: dir.path().to_path_buf(),
        disk: Disk::default(),
        store: Kept::new(part()),
        history: history.clone(),
        random: Arc::new(Mutex::new(part())),
        slowness,
        syncs_last: matches!(seed % 8, 0 | 7),
        inline_writes: inline_writes_of(seed),
        jump_ms: Arc::default(),
        running: Arc::default(),
        stop: Arc::default(),
    };
    std::fs::write(house.config_file(), house.config(&mut part()))
        .map_err(|error| error.to_string())?;
    let mut own = part();
    let mut sim = turmoil::Builder::new()
        .rng_seed(own.next())
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(3600))
        .max_message_latency(Duration::from_millis([1, 10, 40][own.below(3) as usize]))
        .enable_random_order()
        .build();
    let phase = Phase::default();
    let served = house.clone();
    sim.host(BROKER, move || served.clone().serve());
    for n in 0..PRODUCERS {
        let idempotent = n > 0;
        let producer = Producer::new(n, idempotent, history.clone(), phase.clone(), part());
        sim.client(format!("p{n}"), async move {
            producer.run().await;
            Ok(())
        });
    }
    for n in 0..CONSUMERS {
        let consumer = Consumer::new(&format!("c{n}"), history.clone(), phase.clone(), part());
        sim.client(format!("c{n}"), async move {
            consumer.run().await;
            Ok(())
        });
    }
    let inline_writes = house.inline_writes.clone();
    let mut world = World {
        sim,
        house,
        phase,
        weights: std::array::from_fn(|_| own.below(3)),
        random: own,
        power: Power::On,
        repairs: Vec::new(),
    };
    let lived = world.live();
    history.note(|| format!("connections wrote {} rounds", inline_writes.written()));
    lived
}

impl House {
    fn config_file(&self) -> PathBuf {
        self.dir.join("server.ini")
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Small segments, and short times.
    fn config(&self, random: &mut Random) -> String {
        // Connections write where the index has its room.
        let index_bytes =
            random.between(3, 30) * 8 + 4096 * self.inline_writes.at_a_time_max as i64;
        let interval = random.between(50, 600);
        let flushed = ["", "", "flush.messages=4\n", "flush.ms=150\n"][random.below(4) as usize];
        format!(
            "[system]\ndataPath={}\nnum.partitions=2\ngroup.min.session.timeout.ms=100\n\
             group.initial.rebalance.delay.ms=100\nlog.flush.offset.checkpoint.interval.ms=700\n\
             controlled.shutdown.drain.ms=300\nlog.segment.delete.delay.ms=100\n\
             log.index.size.max.bytes={index_bytes}\nlog.index.interval.bytes={interval}\n\
             [topic={SYNCED}]\nflush.messages=1\n[topic={CACHED}]\n{flushed}",
            self.data_dir().display()
        )
    }

    /// The broker's host, from its start to its end.
    async fn serve(self) -> turmoil::Result {
        let broker = match self.start().await {
            Ok(broker) => broker,
            Err(why) => {
                self.history
                    .note(|| format!("the broker does not start: {why}"));
                return Ok(());
            }
        };
        *self.running.lock() = Arc::downgrade(broker.context());
        self.history.opened(&self.ends());
        self.stop.notified().await;
        let context = broker.context().clone();
        broker.shutdown().await;
        self.history.ended(End::Stopped, &ends_of(&context));
        *self.running.lock() = Weak::new();
        Ok(())
    }

    async fn start(&self) -> Result<Broker, String> {
        let config = Config::load(Some(&self.config_file()), &[]);
        let config = config.map_err(|error| error.to_string())?;
        let listener = turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await;
        let listener = listener.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let info = Arc::new(ListenerInfo::plaintext());
        let observe = Arc::new(Observe::new(&self.clock()));
        let options = PartitionsOptions {
            sync_threads: 2,
            // Both files are used up now and then.
            journal_file_bytes: 32 << 10,
            clock: self.clock(),
            workers: self.workers(),
            inline_writes: self.inline_writes.clone(),
            syncs: observe.syncs.clone(),
            ..PartitionsOptions::new(config.data_paths())
        };
        let partitions = Partitions::open(Arc::new(self.disk.clone()), &options);
        let partitions = partitions.map_err(|error| error.to_string())?;
        let ground = Ground {
            partitions: Arc::new(partitions),
            meta: MetaStore::over(self.store.open()),
            listeners: vec![Bound {
                info: info.clone(),
                address,
                socket: Listener(listener),
            }],
            advertised: vec![Endpoint {
                listener: info,
                host: BROKER.to_owned(),
                port: PORT,
            }],
            peers: Peers::default(),
            observe,
        };
        let started = Broker::start_on(ground, config).await;
        started.map_err(|error| error.to_string())
    }

    fn clock(&self) -> WallClock {
        let jump_ms = self.jump_ms.clone();
        WallClock::told_by(move || {
            let elapsed = turmoil::sim_elapsed().unwrap_or_default();
            EPOCH_MS + elapsed.as_millis() as i64 + jump_ms.load(Ordering::Relaxed)
        })
    }

    fn workers(&self) -> Workers {
        let random = self.random.clone();
        let ((write_ms_max, sync_ms_max), syncs_last) = (self.slowness, self.syncs_last);
        Workers::Steps(Arc::new(move |step| {
            let ms_max = match step {
                Step::Write => write_ms_max,
                Step::Sync => sync_ms_max,
                Step::DuringSync if syncs_last => sync_ms_max,
                Step::DuringSync => return Duration::ZERO,
            };
            Duration::from_millis(random.lock().below(ms_max))
        }))
    }

    fn ends(&self) -> BTreeMap<Place, Ends> {
        let running = self.running.lock().upgrade();
        running.map_or_else(BTreeMap::new, |context| ends_of(&context))
    }

    /// Looks for what must never happen inside.
    fn look_inside(&self) {
        let Some(context) = self.running.lock().upgrade() else {
            return;
        };
        let ended = context.partitions.supervisor().ended();
        let panics = context.metrics.handler_panics.load(Ordering::Relaxed);
        if panics > 0 || !ended.is_empty() {
            self.history
                .fail(format!("{panics} handlers panicked, and {ended:?} ended"));
        }
    }

    /// Whether a partition needs a restart.
    fn is_whole(&self) -> bool {
        let Some(context) = self.running.lock().upgrade() else {
            return false;
        };
        PLACES.iter().all(|(topic, index)| {
            let partition = context.partitions.get(topic, *index);
            partition.is_ok_and(|partition| partition.log().offline_reason().is_none())
        })
    }
}

fn ends_of(context: &Context) -> BTreeMap<Place, Ends> {
    let online = PLACES.iter().filter_map(|place| {
        let partition = context.partitions.get(place.0, place.1).ok()?;
        let ends = partition.log().ends();
        let ends = Ends {
            log_start: ends.log_start,
            log_end: ends.log_end.offset,
            synced_end: ends.synced_end,
        };
        Some((*place, ends))
    });
    online.collect()
}

impl World<'_> {
    fn live(&mut self) -> Result<(), String> {
        while self.sim.elapsed() < FAULTS {
            self.step()?;
            if self.random.one_in(35) {
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
        let (read, history) = (logs.clone(), self.house.history.clone());
        self.sim.client("reader", async move {
            for place in PLACES {
                read.lock().insert(place, Vec::new());
                let all = read_all(place).await?;
                read.lock().insert(place, all);
            }
            history.finish(&read.lock());
            Ok(())
        });
        let deadline = self.sim.elapsed() + HEALING_MAX;
        while !self.sim.step().map_err(|error| error.to_string())? {
            if self.sim.elapsed() > deadline {
                return Err("clients do not end".to_owned());
            }
        }
        self.house.look_inside();
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| error.to_string())?;
        if let Some(what) = self.house.history.failure() {
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
        let is_running = self.sim.is_host_running(BROKER);
        match self.power {
            Power::Off(until) if until <= now => {
                self.note("the broker starts".to_owned());
                self.sim.bounce(BROKER);
                self.power = Power::On;
            }
            Power::On | Power::Stopping if !is_running => self.off_for_a_while(),
            _ => {}
        }
        Ok(())
    }

    fn note(&self, what: String) {
        let at = self.sim.elapsed().as_millis();
        self.house.history.note_at(at, what);
    }

    fn off_for_a_while(&mut self) {
        self.house.store.forget();
        let pause = Duration::from_millis(self.random.below(400));
        self.power = Power::Off(self.sim.elapsed() + pause);
    }

    fn disturb(&mut self) {
        let total: u64 = self.weights.iter().sum();
        let mut left = self.random.below(total);
        for (fault, weight) in self.weights.into_iter().enumerate() {
            if left < weight {
                return self.fault(fault);
            }
            left -= weight;
        }
    }

    fn fault(&mut self, fault: usize) {
        match fault {
            0 => self.end(End::Killed),
            1 => self.end(End::PowerLost),
            2 => self.end(End::Stopped),
            3 | 4 => self.cut(fault == 3),
            5 => self.fail_disk(),
            6 => self.trouble_store(),
            _ => self.jump(),
        }
    }

    fn end(&mut self, how: End) {
        if !matches!(self.power, Power::On) && how == End::Stopped
            || matches!(self.power, Power::Off(_))
        {
            return;
        }
        self.house.look_inside();
        if how == End::Stopped {
            self.note("the broker is to stop".to_owned());
            self.house.stop.notify_one();
            self.power = Power::Stopping;
            return;
        }
        let ends = self.house.ends();
        *self.house.running.lock() = Weak::new();
        self.sim.crash(BROKER);
        // A wish to stop does not outlive the process.
        self.house.stop = Arc::default();
        self.house.disk.stop_failing();
        self.house.history.ended(how, &ends);
        if how == End::PowerLost {
            self.lose_power();
        }
        self.off_for_a_while();
    }

    fn lose_power(&mut self) {
        let house = &self.house;
        house.disk.lose_power(&mut self.random);
        // The system does not run on.
        let _ = std::fs::remove_file(house.data_dir().join("metaq-running"));
        for (topic, index) in PLACES {
            let dir = house.data_dir().join(format!("{topic}-{index}"));
            if dir.exists() {
                let trusted = trusted_before(&house.data_dir(), &dir, (topic, index));
                damage_indexes(&dir, trusted, &mut self.random);
            }
        }
    }

    fn cut(&mut self, hold: bool) {
        let clients = PRODUCERS + CONSUMERS;
        let client = match self.random.below(clients as u64) as usize {
            n if n < PRODUCERS => format!("p{n}"),
            n => format!("c{}", n - PRODUCERS),
        };
        self.note(format!("the way to {client} is cut, hold {hold}"));
        match hold {
            true => self.sim.hold(&*client, BROKER),
            false => match self.random.below(3) {
                0 => self.sim.partition_oneway(&*client, BROKER),
                1 => self.sim.partition_oneway(BROKER, &*client),
                _ => self.sim.partition(&*client, BROKER),
            },
        }
        self.later(1200, Repair::Way(client));
    }

    fn fail_disk(&mut self) {
        let calls = self.random.below(8);
        self.note(format!("the disk fails in {calls} calls"));
        match self.house.syncs_last && calls % 2 == 1 {
            true => self.house.disk.fail_writeback_in(calls / 2),
            false => self.house.disk.fail_in(calls),
        }
        self.house.history.disk_fails();
        self.later(600, Repair::Disk);
    }

    fn trouble_store(&mut self) {
        if self.random.one_in(2) {
            self.note("the session is lost".to_owned());
            self.house.store.lose_session();
            self.later(500, Repair::Session);
            return;
        }
        let mut often = || [0, 3, 10][self.random.below(3) as usize];
        let mood = Mood {
            delay_ms_max: often() * 20,
            refuses_one_in: often(),
            silent_one_in: often(),
        };
        self.note("the coordination store is in a mood".to_owned());
        self.house.store.behave(mood);
        self.later(1000, Repair::Mood);
    }

    fn jump(&mut self) {
        let jump_ms = self.random.between(-600_000, 600_000);
        self.note(format!("the clock is off by {jump_ms} ms"));
        self.house.jump_ms.store(jump_ms, Ordering::Relaxed);
    }

    fn later(&mut self, ms_max: u64, repair: Repair) {
        let pause = Duration::from_millis(self.random.below(ms_max));
        self.repairs.push((self.sim.elapsed() + pause, repair));
    }

    fn repair(&mut self, repair: Repair) {
        match repair {
            Repair::Way(client) => {
                self.note(format!("the way to {client} is there"));
                self.sim.release(&*client, BROKER);
                self.sim.repair(&*client, BROKER);
            }
            Repair::Session => {
                self.note("a new session".to_owned());
                self.house.store.connect();
            }
            Repair::Mood => self.house.store.behave(Mood::default()),
            Repair::Disk => {
                self.house.disk.stop_failing();
                // Whoever looks after it starts it again.
                if self.house.running.lock().upgrade().is_some() && !self.house.is_whole() {
                    self.end(End::Killed);
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

    fn is_at_end(&mut self) -> bool {
        let ends = self.house.ends();
        let history = &self.house.history;
        let all = |place: &Place| {
            let end = ends.get(place).map(|ends| ends.log_end);
            let committed = history.committed_end(*place);
            // What was committed may be lost with the power.
            end.is_some_and(|end| committed == end || place.0 == CACHED && committed > end)
        };
        self.phase.producers_ended.load(Ordering::Relaxed) == PRODUCERS && PLACES.iter().all(all)
    }

    /// What it did not come to.
    fn late(&self) -> String {
        let committed: Vec<i64> = PLACES
            .iter()
            .map(|place| self.house.history.committed_end(*place))
            .collect();
        format!(
            "it does not come to its end: {} producers are done, {committed:?} is committed of {:?}",
            self.phase.producers_ended.load(Ordering::Relaxed),
            self.house.ends()
        )
    }
}

/// Base offset of the segment that the recovery point is in: those before were synced with their indexes.
fn trusted_before(data: &Path, dir: &Path, (topic, index): Place) -> i64 {
    let checkpoint = std::fs::read_to_string(data.join("recovery-point-offset-checkpoint"));
    let row = format!("{topic} {index} ");
    let recovery_point = checkpoint.ok().and_then(|rows| {
        let of = |line: &str| line.strip_prefix(&row)?.parse::<i64>().ok();
        rows.lines().find_map(of)
    });
    let bases = std::fs::read_dir(dir).into_iter().flatten();
    let bases = bases.filter_map(|entry| {
        let path = entry.ok()?.path();
        let is_segment = path.extension()? == "log";
        is_segment.then(|| path.file_stem()?.to_str()?.parse::<i64>().ok())?
    });
    let before = bases.filter(|base| *base <= recovery_point.unwrap_or(0));
    before.max().unwrap_or(0)
}

/// Reads a partition from its beginning to its end, through the wire.
async fn read_all((topic, index): Place) -> Result<Vec<(i64, Number)>, String> {
    let mut client = Client::new("reader");
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
