//! A whole broker: opened, served, shut down.
//! Tests: tests/broker.rs, tests/cli.rs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::admin::{Admin, TokenSource};
use crate::api::{Context, FetchSessions, RequestLog, UNPACKING_BYTES_MAX};
use crate::audit::AuditLog;
use crate::broker_options::{cleaner_options, housekeeping_intervals, transaction_limits};
use crate::broker_security::{
    self, DashboardTlsError, PeerSecurityError, certificates, dashboard_provider,
    follow_certificates, open_dashboard_tls, token_providers,
};
use crate::clock::WallClock;
use crate::cluster::{
    Broker as Member, BrokerEndpoint, Cluster, ClusterError, Directories, OpenedTopics,
    ProducerIds, record_changes,
};
use crate::config::{Config, LiveConfig};
use crate::control::Control;
use crate::group::GroupCoordinator;
use crate::group_settings::{LiveGroupSettings, group_limits};
use crate::jwks::JwksError;
use crate::log::{DataDirError, Disk, RealDisk};
use crate::markers::run_errands;
use crate::memory::Memory;
use crate::meta::records::LossRecord;
use crate::meta::{MetaError, MetaStore};
use crate::metrics::Metrics;
use crate::mirror::{OFFSETS_MIRROR, OFFSETS_MIRROR_KEEP, OffsetsMirror};
use crate::net::{
    BindError, Bound, Endpoint, EndpointError, Listener, Server, bind, listen_endpoints,
};
use crate::observe::Observe;
use crate::partition::{
    Cleaner, Housekeeping, HousekeepingIntervals, InlineWrites, Partitions, PartitionsOptions,
    Workers,
};
use crate::peer::Peers;
use crate::quota::{self, Quotas};
use crate::replication;
use crate::share::Shares;
use crate::slots::{ImageTopics, coordinate, own_slots};
use crate::store::{StoreError, leave_embedded_store, open_store};
use crate::telemetry::Telemetry;
use crate::throttle::Throttles;
use crate::tokens::{self, LiveTokens};
use crate::transaction::TransactionCoordinator;
use crate::users::{LiveUsers, UserError};

/// How long the coordination store may take to be closed.
const META_CLOSE_MAX: Duration = Duration::from_secs(5);

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No data directory is configured.
    #[error("dataPath (log.dirs) names no directory")]
    NoDataPath,
    /// A data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The coordination store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be read or changed.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The topics cannot be read.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A listener's address is wrong.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A listener cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The dashboard's certificates.
    #[error(transparent)]
    DashboardTls(#[from] DashboardTlsError),
    /// It cannot authenticate to other brokers.
    #[error(transparent)]
    Peers(#[from] PeerSecurityError),
    /// It cannot tell whose bearer tokens to take.
    #[error(transparent)]
    Tokens(#[from] JwksError),
    /// A user of the configuration.
    #[error(transparent)]
    User(#[from] UserError),
    /// A thread cannot be had.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A running broker.
pub struct Broker {
    cx: Arc<Context>,
    server: Server,
    admin: Option<Admin>,
    housekeeping: Housekeeping,
    /// They keep this broker in step with the cluster.
    tasks: JoinSet<()>,
    addresses: Vec<SocketAddr>,
    opened: OpenedTopics,
    start_time: Duration,
}

/// What a broker stands on, opened and bound.
pub struct Ground<L> {
    /// The data directories.
    pub partitions: Arc<Partitions>,
    /// The coordination tree.
    pub meta: MetaStore,
    /// Where connections come from.
    pub listeners: Vec<Bound<L>>,
    /// What clients are given instead, of the listeners for which it is configured.
    pub advertised: Vec<Endpoint>,
    /// The way to other brokers.
    pub peers: Peers,
    /// What the broker remembers of itself.
    pub observe: Arc<Observe>,
}

/// Lets what was told its settings at the start follow the configuration.
async fn follow_config(
    config: Arc<LiveConfig>,
    intervals: Arc<Mutex<HousekeepingIntervals>>,
    cleaner: Arc<Cleaner>,
) {
    let mut changes = config.subscribe();
    while changes.changed().await.is_ok() {
        let now = config.load_full();
        *intervals.lock() = housekeeping_intervals(&now);
        if let Err(error) = cleaner.set_options(cleaner_options(&now)) {
            tracing::error!(%error, "cannot start a thread that compacts");
        }
        crate::logging::set_levels(now.text("log.level"));
    }
}

impl Broker {
    /// Opens everything and begins to serve. Returns when clients can be answered.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_over(config, Arc::new(RealDisk)).await
    }

    /// As [`Self::start`], over another disk.
    pub async fn start_over(config: Config, disk: Arc<dyn Disk>) -> Result<Self, StartError> {
        let started = Instant::now();
        for setting in config.without_effect() {
            tracing::warn!(name = setting.name, "without effect: {}", setting.instead);
        }
        let (endpoints, advertised) = listen_endpoints(&config)?;
        // Bound first, so that a taken port is found before anything is opened.
        let listeners = bind(&config, &endpoints).await?;
        let dashboard_tls = open_dashboard_tls(&config, &endpoints)?;
        let certificates = certificates(&listeners, dashboard_tls.as_ref());
        let token_providers = token_providers(&config, &endpoints)?;
        let tokens = dashboard_provider(&config, &endpoints);
        let admin = Admin::bind(&config, dashboard_tls, tokens).await?;
        let observe = Arc::new(Observe::new(&WallClock::default()));
        let partitions = open_partitions(&config, &observe, disk)?;
        for dir in partitions.data_dirs() {
            dir.check_owner(config.number("broker.id") as i32)?;
        }
        let meta = open_store(&config).await?;
        broker_security::warn_of_open_nodes(&config, &meta).await?;
        leave_embedded_store(&config, &partitions, &meta).await?;
        let ground = Ground {
            partitions: Arc::new(partitions),
            meta,
            listeners,
            advertised,
            peers: broker_security::peers(&config, &endpoints)?,
            observe,
        };
        let mut broker = Self::start_on(ground, config).await?;
        broker.admin = Some(admin.serve(broker.cx.clone())?);
        let follow = follow_certificates(broker.cx.clone(), certificates);
        broker.tasks.spawn(follow);
        for (keys, tokens) in token_providers {
            broker.tasks.spawn(keys.follow(tokens));
        }
        if let Some(control) = Control::bind(&broker.cx) {
            broker.tasks.spawn(control.serve(broker.cx.clone()));
        }
        broker.start_time = started.elapsed();
        Ok(broker)
    }

    /// Begins to serve on what was opened already, without a dashboard.
    pub async fn start_on<L: Listener>(
        ground: Ground<L>,
        config: Config,
    ) -> Result<Self, StartError> {
        let started = Instant::now();
        let live = Arc::new(LiveConfig::new(config));
        let Ground {
            partitions,
            meta,
            listeners,
            advertised,
            peers,
            observe,
        } = ground;
        let addresses = listeners.iter().map(|bound| bound.address).collect();
        partitions.hold_to(meta.lease());
        let property = |key| match partitions.data_dirs().next() {
            Some(dir) => Ok(dir.property(key)?),
            None => Err(StartError::NoDataPath),
        };
        let cluster_id = property("cluster.id")?;
        let (cluster, opened) =
            Cluster::open(live.clone(), meta.clone(), partitions.clone(), cluster_id).await?;
        let cluster = Arc::new(cluster);
        // With what was set at run time.
        let config = live.load_full();
        let directories = Directories::of(&partitions)?;
        let events = cluster.events();
        cluster
            .join(member(&config, &listeners, &advertised), directories)
            .await?;
        partitions.note_registered();
        let topics = Arc::new(ImageTopics(cluster.clone()));
        let limits = group_limits(&config);
        let group_settings = Arc::new(LiveGroupSettings::new(cluster.clone(), live.clone()));
        let events_of_groups = observe.events.clone();
        let wall = partitions.clock();
        let metrics = Metrics::default();
        let memory_bytes_max = config.request_memory_bytes();
        let memory = Memory::new(metrics.request_memory_bytes.clone(), memory_bytes_max);
        let coordinator = GroupCoordinator::new(
            meta.clone(),
            topics.clone(),
            (limits, group_settings),
            wall,
            (events_of_groups, memory.clone()),
            config.flag(OFFSETS_MIRROR).then(Arc::default),
        );
        let limits = transaction_limits(&config);
        let shares = Shares::new(&meta, topics.clone(), wall);
        let (transactions, errands) =
            TransactionCoordinator::new(meta.clone(), topics, limits, wall, observe.events.clone());
        let own = own_slots(&cluster);
        coordinator.assign(&own).await?;
        transactions.assign(&own).await?;
        shares.states.assign(&own).await?;
        let housekeeping =
            Housekeeping::start(partitions.clone(), housekeeping_intervals(&config))?;
        let told = observe.events.clone();
        let cleaner = Cleaner::start(partitions.clone(), cleaner_options(&config), told)?;
        let has_sasl = listeners.iter().any(|bound| bound.info.protocol.has_sasl());
        let secret = broker_security::salt_secret(&meta, has_sasl).await?;
        let tokens = Arc::new(LiveTokens::new(cluster.clone(), &config, wall.clone()));
        let users = LiveUsers::new(cluster.clone(), tokens.clone(), &config, secret)?;
        let sessions = config.number("max.incremental.fetch.session.cache.slots") as usize;
        let telemetry_bytes_max = config.number("telemetry.max.bytes") as usize;
        let mut server = Server::default();
        let cx = Arc::new(Context {
            config: live,
            cluster,
            partitions,
            cleaner: Arc::new(cleaner),
            coordinator,
            transactions,
            shares,
            peers,
            users: Arc::new(users),
            tokens,
            certificates: Default::default(),
            audit: AuditLog::open(&config)?,
            producer_ids: ProducerIds::new(meta),
            authorizer: config.authorizer(),
            throttles: Throttles::default(),
            quotas: Arc::new(Quotas::new(quota::Options::of(&config))),
            fetch_sessions: FetchSessions::new(sessions),
            memory,
            unpacking: Memory::new(Arc::default(), UNPACKING_BYTES_MAX as i64),
            metrics,
            telemetry: Telemetry::new(telemetry_bytes_max),
            request_log: RequestLog::default(),
            observe,
            draining: server.draining(),
        });
        let mut tasks = JoinSet::new();
        let supervisor = || cx.partitions.supervisor().clone();
        tasks.spawn(supervisor().watch("cluster", cx.cluster.clone().follow()));
        let gives_way = cx.cluster.clone().give_way_while_stalled();
        tasks.spawn(supervisor().watch("controller", gives_way));
        tasks.spawn(supervisor().watch("leaders", cx.cluster.clone().balance_leaders()));
        tasks.spawn(supervisor().watch("groups", coordinate(cx.clone(), events)));
        tasks.spawn(supervisor().watch("transactions", run_errands(cx.clone(), errands)));
        let interval = config.number("delegation.token.expiry.check.interval.ms");
        let interval = Duration::from_millis(interval.unsigned_abs());
        let of_tokens = tokens::remove_expired(cx.tokens.clone(), interval);
        tasks.spawn(supervisor().watch("tokens", of_tokens));
        let of_quotas = quota::follow(cx.cluster.clone(), cx.quotas.clone());
        tasks.spawn(supervisor().watch("quotas", of_quotas));
        tasks.spawn(supervisor().watch("replication", replication::run(cx.clone())));
        if let Some(feed) = cx.coordinator.mirror() {
            let (partitions, coordinator) = (cx.partitions.clone(), cx.coordinator.clone());
            let keep = Duration::from_millis(config.number(OFFSETS_MIRROR_KEEP).unsigned_abs());
            let cluster = cx.cluster.clone();
            let mirror = OffsetsMirror::new(cluster, partitions, coordinator, feed.clone(), keep);
            tasks.spawn(supervisor().watch("offsets mirror", mirror.run(cx.cluster.events())));
        }
        tasks.spawn(record_changes(
            cx.cluster.clone(),
            cx.observe.events.clone(),
        ));
        tasks.spawn(follow_config(
            cx.config.clone(),
            housekeeping.intervals(),
            cx.cleaner.clone(),
        ));
        server.serve(&cx, listeners);
        Ok(Self {
            cx,
            server,
            admin: None,
            housekeeping,
            tasks,
            addresses,
            opened,
            start_time: started.elapsed(),
        })
    }

    /// Where clients are served.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the dashboard is served.
    pub fn dashboard_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.address()
    }

    /// The token that actions on the dashboard need, and where it came from.
    pub fn dashboard_token(&self) -> Option<(&str, TokenSource)> {
        Some(self.admin.as_ref()?.token())
    }

    /// What it works with.
    pub fn context(&self) -> &Arc<Context> {
        &self.cx
    }

    /// One line for people: version, listener, cluster, data, what was opened, how long it took.
    pub fn ready_line(&self) -> String {
        let listeners: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let dashboard = self.admin.as_ref().and_then(Admin::url);
        let dashboard = dashboard.unwrap_or_else(|| "none".to_owned());
        let paths: Vec<String> = self
            .cx
            .config
            .load()
            .data_paths()
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let OpenedTopics { topics, report } = self.opened;
        let offline = if report.offline > 0 {
            format!(" ({} OFFLINE)", report.offline)
        } else {
            String::new()
        };
        format!(
            "metaq {} ready: listening on {}, dashboard {dashboard}, cluster {}, broker {}, data in {}, {topics} topics and {} partitions{offline} opened in {} ms",
            env!("CARGO_PKG_VERSION"),
            listeners.join(", "),
            self.cx.cluster.image().cluster_id,
            self.cx.cluster.broker_id(),
            paths.join(", "),
            report.online,
            self.start_time.as_millis()
        )
    }

    /// Lets others lead what they can, stops accepting, answers what is in flight, closes every log cleanly.
    pub async fn shutdown(self) {
        let Self {
            cx,
            server,
            admin,
            housekeeping,
            mut tasks,
            ..
        } = self;
        if let Some(admin) = &admin {
            admin.not_ready();
        }
        cx.cluster.hand_over().await;
        cx.coordinator.drain();
        cx.transactions.drain();
        server.stop().await;
        tasks.shutdown().await;
        cx.coordinator.stop();
        cx.transactions.stop();
        cx.shares.stop();
        let closing = cx.clone();
        let close = move || {
            closing.cleaner.stop();
            housekeeping.stop();
            closing.partitions.close();
        };
        if cx.partitions.workers().unblock(close).await.is_none() {
            tracing::error!("the shutdown was not clean");
        }
        if tokio::time::timeout(META_CLOSE_MAX, cx.cluster.meta().close())
            .await
            .is_err()
        {
            tracing::warn!("the session with the coordination store was left to expire");
        }
        if let Some(admin) = admin {
            admin.stop();
        }
    }
}

/// The threads of the runtime that this runs on.
fn network_threads() -> usize {
    let runtime = tokio::runtime::Handle::try_current();
    runtime.map_or(0, |runtime| runtime.metrics().num_workers())
}

fn open_partitions(
    config: &Config,
    observe: &Observe,
    disk: Arc<dyn Disk>,
) -> Result<Partitions, StartError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let open_threads = match config.number("num.recovery.threads.per.data.dir") {
        0 => cores * 2,
        threads => threads as usize,
    };
    let options = PartitionsOptions {
        data_paths: config.data_paths(),
        sync_threads: config.number("num.sync.threads") as usize,
        journal_file_bytes: config.number("sync.journal.file.bytes") as u64,
        open_threads,
        clock: WallClock::default(),
        workers: Workers::Threads,
        // A disk that stands still leaves one of the runtime's threads.
        inline_writes: InlineWrites::new(network_threads().saturating_sub(1)),
        syncs: observe.syncs.clone(),
        replica_lag_max: Duration::from_millis(config.number("replica.lag.time.max.ms") as u64),
    };
    if options.data_paths.is_empty() {
        return Err(StartError::NoDataPath);
    }
    Ok(Partitions::open(disk, &options)?)
}

fn member<L>(config: &Config, listeners: &[Bound<L>], advertised: &[Endpoint]) -> Member {
    let rack = Some(config.text("broker.rack").to_owned()).filter(|rack| !rack.is_empty());
    Member {
        id: config.number("broker.id") as i32,
        endpoints: endpoints(listeners, advertised),
        rack,
        accept_publish: config.flag("accept.publish"),
        follows_only: config.flag("broker.follows.only"),
        shutting_down: false,
        lost: LossRecord::default(),
        epoch: 0,
    }
}

/// Where clients of each listener find this broker: as advertised, or where the first socket of the listener is bound.
fn endpoints<L>(listeners: &[Bound<L>], advertised: &[Endpoint]) -> Vec<BrokerEndpoint> {
    let mut endpoints: Vec<BrokerEndpoint> = Vec::new();
    for bound in listeners {
        if endpoints
            .iter()
            .any(|known| known.listener == bound.info.name)
        {
            continue;
        }
        let advertised = advertised
            .iter()
            .find(|endpoint| endpoint.listener == bound.info);
        let port = advertised.map_or(0, |endpoint| endpoint.port);
        endpoints.push(BrokerEndpoint {
            listener: bound.info.name.clone(),
            security: bound.info.protocol.name().to_owned(),
            host: advertised.map_or_else(String::new, |endpoint| endpoint.host.clone()),
            port: match port {
                0 => bound.address.port(),
                port => port,
            },
        });
    }
    endpoints
}
