//! A broker's host: what it needs whenever it starts, its start and its end, and what is seen of it from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
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
use metaq::session::ListenerInfo;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::client::PORT;
use super::disk::{Disk, damage_indexes};
use super::ensemble::Ensemble;
use super::history::{
    CACHED, End, Ends, History, PAID, PAID_PLACES, Place, SYNCED, WORK, WORK_PLACES,
};
use super::network::{Listener, peers};
use super::random::Random;
use super::store::Kept;
use super::{receiver, work};

/// The time of day when everything begins.
pub const EPOCH_MS: i64 = 1_700_000_000_000;
/// How long a replica may lag and stay in sync.
const REPLICA_LAG_MAX: Duration = Duration::from_millis(700);
/// Before a look for a log to compact.
const COMPACT_STEP: Duration = Duration::from_millis(10);

/// Where the tree is.
#[derive(Clone)]
pub enum Coordination {
    /// One broker has it for itself.
    Alone(Kept),
    Shared(Ensemble),
}

/// See the module's documentation; clones share it.
#[derive(Clone)]
pub struct House {
    /// Its number.
    pub index: usize,
    /// The partitions that are looked after.
    pub watched: &'static [Place],
    /// Whether all brokers have a replica of each partition.
    pub is_replicated: bool,
    /// Its name in the network.
    pub host: String,
    pub dir: PathBuf,
    pub disk: Disk,
    pub store: Coordination,
    pub history: History,
    pub random: Arc<Mutex<Random>>,
    /// What a round of the writer and a sync take at the most, ms.
    pub slowness: (u64, u64),
    /// Syncs take time, in which the rest goes on, and a disk that fails may refuse what it had taken.
    pub syncs_last: bool,
    pub inline_writes: InlineWrites,
    pub jump_ms: Arc<AtomicI64>,
    pub running: Arc<Mutex<Weak<Context>>>,
    /// Where who wants it to stop says so.
    pub stop: Arc<Mutex<Arc<Notify>>>,
    /// The partitions that it was seen to have.
    pub places: Arc<Mutex<BTreeSet<Place>>>,
}

impl House {
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("server.ini")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Small segments, and short times.
    pub fn config(&self, random: &mut Random) -> String {
        // Connections write where the index has its room.
        let index_bytes =
            random.between(3, 30) * 8 + 4096 * self.inline_writes.at_a_time_max as i64;
        let interval = random.between(50, 600);
        let flushed = ["", "", "flush.messages=4\n", "flush.ms=150\n"][random.below(4) as usize];
        let topics = match &self.store {
            Coordination::Alone(_) => {
                let more = match () {
                    () if self.watched == PAID_PLACES => Some(PAID),
                    () if self.watched == WORK_PLACES => Some(WORK),
                    () => None,
                };
                let more = more.map(|topic| format!("[topic={topic}]\nflush.messages=1\n"));
                let more = more.unwrap_or_default();
                format!("[topic={SYNCED}]\nflush.messages=1\n[topic={CACHED}]\n{flushed}{more}")
            }
            // A client creates them.
            Coordination::Shared(_) => String::new(),
        };
        let replicas = match self.is_replicated {
            true => {
                let wait = random.between(50, 500);
                // Batches are cut off at the end of what is fetched.
                let bytes = random.between(200, 3000);
                format!(
                    "replica.fetch.wait.max.ms={wait}\nreplica.fetch.backoff.ms=200\n\
                     replica.fetch.max.bytes={bytes}\n"
                )
            }
            false => String::new(),
        };
        let groups = match self.watched == WORK_PLACES {
            true => settings_of_groups(),
            false => String::new(),
        };
        let partitions = if groups.is_empty() {
            2
        } else {
            WORK_PLACES.len()
        };
        format!(
            "[system]\nbrokerId={}\ndataPath={}\nnum.partitions={partitions}\ngroup.min.session.timeout.ms=100\n\
             group.initial.rebalance.delay.ms=100\nlog.flush.offset.checkpoint.interval.ms=700\n\
             controlled.shutdown.drain.ms=300\nlog.segment.delete.delay.ms=100\n\
             log.index.size.max.bytes={index_bytes}\nlog.index.interval.bytes={interval}\n{replicas}{groups}{topics}",
            self.index,
            self.data_dir().display()
        )
    }

    /// What the trace calls it.
    pub fn name(&self) -> String {
        match &self.store {
            Coordination::Alone(_) => "the broker".to_owned(),
            Coordination::Shared(_) => self.host.clone(),
        }
    }

    async fn meta(&self) -> Result<MetaStore, String> {
        match &self.store {
            Coordination::Alone(store) => Ok(MetaStore::over(store.open())),
            Coordination::Shared(ensemble) => {
                let opened = ensemble.open(self.index).await;
                opened.map_err(|error| error.to_string())
            }
        }
    }

    /// It is gone.
    pub fn forget(&self) {
        if let Coordination::Alone(store) = &self.store {
            store.forget();
        }
    }

    /// The broker's host, from its start to its end.
    pub async fn serve(self) -> turmoil::Result {
        let broker = match self.start().await {
            Ok(broker) => broker,
            Err(why) => {
                self.history
                    .note(|| format!("{} does not start: {why}", self.name()));
                return Ok(());
            }
        };
        *self.running.lock() = Arc::downgrade(broker.context());
        self.history.opened(&self.ends());
        let stop = self.stop.lock().clone();
        stop.notified().await;
        let context = broker.context().clone();
        broker.shutdown().await;
        self.has_ended(End::Stopped, &ends_of(&context, self.watched));
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
            replica_lag_max: REPLICA_LAG_MAX,
            ..PartitionsOptions::new(config.data_paths())
        };
        let partitions = Partitions::open(Arc::new(self.disk.clone()), &options);
        let partitions = partitions.map_err(|error| error.to_string())?;
        let ground = Ground {
            partitions: Arc::new(partitions),
            meta: self.meta().await?,
            listeners: vec![Bound {
                info: info.clone(),
                address,
                socket: Listener(listener),
            }],
            advertised: vec![Endpoint {
                listener: info,
                host: self.host.clone(),
                port: PORT,
            }],
            peers: peers(),
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
                // Nothing is drawn for it: seeds find what they found without compaction.
                Step::Compact => return COMPACT_STEP,
            };
            Duration::from_millis(random.lock().below(ms_max))
        }))
    }

    pub fn context(&self) -> Option<Arc<Context>> {
        self.running.lock().upgrade()
    }

    pub fn ends(&self) -> BTreeMap<Place, Ends> {
        let ends = self
            .context()
            .map_or_else(BTreeMap::new, |context| ends_of(&context, self.watched));
        self.places.lock().extend(ends.keys());
        ends
    }

    pub fn has_ended(&self, how: End, ends: &BTreeMap<Place, Ends>) {
        self.places.lock().extend(ends.keys());
        let places: Vec<Place> = match &self.store {
            Coordination::Alone(_) => self.watched.to_vec(),
            Coordination::Shared(_) => self.places.lock().iter().copied().collect(),
        };
        self.history.ended(how, &places, ends);
    }

    /// A wish to stop does not outlive the process.
    pub fn forget_stop(&mut self) {
        match &self.store {
            // The next process does not hear of any other one either: seeds found what they found with that.
            Coordination::Alone(_) => self.stop = Arc::default(),
            Coordination::Shared(_) => *self.stop.lock() = Arc::default(),
        }
    }

    /// The power is gone, and with it what was not synced.
    pub fn lose_power(&self, random: &mut Random) {
        self.disk.lose_power(random);
        // The system does not run on.
        let _ = std::fs::remove_file(self.data_dir().join("metaq-running"));
        for (topic, index) in self.watched.iter().copied() {
            let dir = self.data_dir().join(format!("{topic}-{index}"));
            if dir.exists() {
                let trusted = trusted_before(&self.data_dir(), &dir, (topic, index));
                damage_indexes(&dir, trusted, random);
            }
        }
    }

    /// All bytes of a partition's segments.
    pub fn log_bytes(&self, (topic, index): Place) -> Vec<u8> {
        let dir = self.data_dir().join(format!("{topic}-{index}"));
        let entries = std::fs::read_dir(dir).into_iter().flatten();
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut segments: Vec<PathBuf> = paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        segments.sort();
        let read = |path: &PathBuf| std::fs::read(path).unwrap_or_default();
        segments.iter().flat_map(read).collect()
    }

    /// Looks for what must never happen inside.
    pub fn look_inside(&self) {
        let Some(context) = self.context() else {
            return;
        };
        let ended = context.partitions.supervisor().ended();
        let panics = context.metrics.handler_panics.load(Ordering::Relaxed);
        if panics > 0 || !ended.is_empty() {
            self.history
                .fail(format!("{panics} handlers panicked, and {ended:?} ended"));
        }
    }

    /// Whether no partition needs a restart.
    pub fn is_whole(&self) -> bool {
        let Some(context) = self.context() else {
            return false;
        };
        let is_online = |(topic, index): &Place| {
            let partition = context.partitions.get(topic, *index);
            partition.is_ok_and(|partition| partition.log().offline_reason().is_none())
        };
        match &self.store {
            Coordination::Alone(_) => self.watched.iter().all(is_online),
            Coordination::Shared(_) => {
                let image = context.cluster.image();
                if self.is_replicated {
                    let is_there = |(topic, index): &&Place| {
                        let topic = image.topic(topic);
                        let info = topic.and_then(|topic| topic.partition(*index));
                        info.is_some_and(|info| info.replicas.contains(&(self.index as i32)))
                    };
                    return self.watched.iter().filter(is_there).all(is_online);
                }
                let leads = |(topic, index): &&Place| {
                    let info = image.topic(topic).and_then(|topic| topic.partition(*index));
                    info.is_some_and(|info| info.leader == self.index as i32)
                };
                self.watched.iter().filter(leads).all(is_online)
            }
        }
    }
}

/// Short times for groups of all kinds, and one group that is a broadcast.
fn settings_of_groups() -> String {
    let session = work::SESSION_MS;
    let kinds = ["consumer", "share", "streams"];
    let mut settings: String = kinds
        .map(|kind| {
            format!(
                "group.{kind}.min.session.timeout.ms={session}\ngroup.{kind}.session.timeout.ms={session}\n\
                 group.{kind}.min.heartbeat.interval.ms=50\ngroup.{kind}.heartbeat.interval.ms=100\n\
                 group.{kind}.assignment.interval.ms=50\n"
            )
        })
        .concat();
    let (deliveries, group) = (work::DELIVERIES_MAX, receiver::GROUP);
    settings.push_str(&format!(
        "group.streams.initial.rebalance.delay.ms=100\ngroup.share.record.lock.duration.ms=1000\n\
         group.share.delivery.count.limit={deliveries}\n\
         [group={group}]\nmetaq.consume.mode=broadcast\n[group={}]\nshare.auto.offset.reset=earliest\n",
        super::sharer::GROUP
    ));
    settings
}

fn ends_of(context: &Context, watched: &[Place]) -> BTreeMap<Place, Ends> {
    let online = watched.iter().filter_map(|place| {
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
