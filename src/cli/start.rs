//! `metaq start`: a broker in the foreground until SIGTERM or Ctrl-C.

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{ConfigArguments, Failure};
use crate::broker::Broker;
use crate::config::Config;

/// Descriptors that thousands of partitions and connections need.
const DESCRIPTORS_WANTED: u64 = 1 << 20;

/// Starts a broker.
#[derive(Debug, Args)]
pub(super) struct Start {
    #[command(flatten)]
    config: ConfigArguments,
    /// Log as JSON lines.
    #[arg(long)]
    log_json: bool,
}

impl Start {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.start_logging();
        let config = self.config.load()?;
        raise_descriptor_limit();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if let threads @ 1.. = config.number("num.network.threads") {
            runtime.worker_threads(threads as usize);
        }
        runtime
            .enable_all()
            .thread_name("network")
            .build()?
            .block_on(serve(config))
    }

    /// Logs to standard error; RUST_LOG chooses what, `info` by default.
    fn start_logging(&self) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let logging = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        if self.log_json {
            logging.json().init();
        } else {
            logging
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .with_target(false)
                .init();
        }
    }
}

async fn serve(config: Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let broker = tokio::select! {
        broker = Broker::start(config) => broker?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    println!("{}", broker.ready_line());
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("interrupted: draining"),
    }
    broker.shutdown().await;
    tracing::info!("closed cleanly");
    Ok(())
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
