//! `metaq start`: a broker in the foreground until SIGTERM or Ctrl-C. SIGHUP makes it read its configuration again.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::mode::Mode;
use super::{ConfigArguments, Failure};
use crate::admin::TokenSource;
use crate::broker::Broker;
use crate::config::Config;
use crate::logging::{self, LogTarget};
use crate::notify::Notify;

/// Descriptors that thousands of partitions and connections need.
const DESCRIPTORS_WANTED: u64 = 1 << 20;

/// How long reads whose clients are gone may take after everything is closed.
const RUNTIME_CLOSE_MAX: Duration = Duration::from_secs(1);

/// Starts a broker.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  metaq start
  metaq start -c conf/server.ini --set serverPort=9093
  metaq start samsa -c conf/server.ini")]
pub(super) struct Start {
    /// MetaQ's word for some settings (docs/replication.md): local, samsa and gregor, slave.
    mode: Option<Mode>,
    #[command(flatten)]
    config: ConfigArguments,
    /// Log as JSON lines.
    #[arg(long)]
    log_json: bool,
}

impl Start {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = Mode::over(self.mode, &self.config).load()?;
        let log = self.log_target(&config);
        let has_file = log.file.is_some();
        logging::start(&log)?;
        raise_descriptor_limit();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if let threads @ 1.. = config.number("num.network.threads") {
            runtime.worker_threads(threads as usize);
        }
        let runtime = runtime.enable_all().thread_name("network").build()?;
        let result = runtime.block_on(serve(config));
        runtime.shutdown_timeout(RUNTIME_CLOSE_MAX);
        // Standard error has it in any case.
        if let Err(error) = &result
            && has_file
        {
            tracing::error!(%error, "not started");
        }
        result
    }

    fn log_target(&self, config: &Config) -> LogTarget {
        let file = Some(PathBuf::from(config.text("log.file")));
        LogTarget {
            json: self.log_json || config.text("log.format") == "json",
            file: file.filter(|path| !path.as_os_str().is_empty()),
            file_bytes_max: config.number("log.file.max.bytes") as u64,
            files_max: config.number("log.file.max.count") as usize,
            levels: config.text("log.level").to_owned(),
        }
    }
}

async fn serve(config: Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // From the beginning, because it would end the process.
    let mut hangup = signal(SignalKind::hangup())?;
    let notify = Notify::from_env();
    let broker = tokio::select! {
        broker = Broker::start(config) => broker?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let ready = broker.ready_line();
    tracing::info!("{ready}");
    // Who started the broker may be gone.
    let _ = writeln!(io::stdout(), "{ready}");
    if let Some((token, TokenSource::File | TokenSource::New)) = broker.dashboard_token() {
        let _ = writeln!(io::stdout(), "dashboard token for actions: {token}");
    }
    notify.ready(&ready);
    let mut watchdog = notify.watchdog_interval().map(tokio::time::interval);
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                tracing::info!("SIGTERM: draining");
                break;
            }
            _ = interrupt.recv() => {
                tracing::info!("interrupted: draining");
                break;
            }
            _ = hangup.recv() => {
                tracing::info!("SIGHUP: reading the configuration again");
                notify.reloading();
                if let Err(error) = broker.context().cluster.reload_config().await {
                    tracing::error!(%error, "the configuration stays as it was");
                }
                notify.ready(&ready);
            }
            () = tick(&mut watchdog) => {
                if broker.context().partitions.supervisor().ended().is_empty() {
                    notify.alive();
                }
            }
        }
    }
    notify.stopping();
    broker.shutdown().await;
    tracing::info!("closed cleanly");
    Ok(())
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// As many descriptors as the system allows this process.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS_WANTED, |maximum| {
        maximum.min(DESCRIPTORS_WANTED)
    });
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, wanted, "cannot raise the limit of open files");
        }
    }
}
