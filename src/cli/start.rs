//! `metaq start`: a broker in the foreground until SIGTERM or Ctrl-C.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use super::{ConfigArguments, Failure};
use crate::broker::Broker;
use crate::config::Config;
use crate::observe::log_tail;

/// Descriptors that thousands of partitions and connections need.
const DESCRIPTORS_WANTED: u64 = 1 << 20;

/// How long reads that nobody waits for any more may take after everything is closed.
const RUNTIME_CLOSE_MAX: Duration = Duration::from_secs(1);

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
        let runtime = runtime.enable_all().thread_name("network").build()?;
        let result = runtime.block_on(serve(config));
        runtime.shutdown_timeout(RUNTIME_CLOSE_MAX);
        result
    }

    /// Logs to standard error; RUST_LOG chooses what, `info` by default. Where that cannot be written, because the disk
    /// is full or nobody reads it any more, the broker goes on without.
    fn start_logging(&self) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let lines = fmt::layer()
            .with_writer(|| Forgiving(io::stderr()))
            .log_internal_errors(false);
        let lines = match self.log_json {
            true => lines.json().boxed(),
            false => lines
                .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
                .with_target(false)
                .boxed(),
        };
        // The filter is above both: the dashboard shows what the log has.
        let layers = lines.and_then(log_tail());
        tracing_subscriber::registry()
            .with(layers.with_filter(filter))
            .init();
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
    // Who started the broker may be gone.
    let _ = writeln!(io::stdout(), "{}", broker.ready_line());
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("interrupted: draining"),
    }
    broker.shutdown().await;
    tracing::info!("closed cleanly");
    Ok(())
}

/// Takes everything, and drops what cannot be written.
struct Forgiving<W>(W);

impl<W: Write> Write for Forgiving<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
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
