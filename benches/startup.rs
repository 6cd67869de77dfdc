//! How long a broker takes from its start to its first answer, or to the first records that it gives.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use metaq_protocol::messages::ApiVersionsRequest;

use super::{Failure, Options, ask, fetch_at, resident_mib};

const LOOK: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(600);

/// Starts the command in a shell and waits until it answers; with `first_fetch`, until a partition gives records. Ends
/// it with SIGKILL.
pub(super) fn start(options: &Options, command: &str, first_fetch: bool) -> Result<(), Failure> {
    let began = Instant::now();
    let mut child = Command::new("bash")
        .args(["-c", &format!("exec {command}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let answered = wait(options, &mut child, first_fetch, began);
    let elapsed = began.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    let resident = resident_mib(child.id());
    child.kill()?;
    child.wait()?;
    answered?;
    println!(
        "{{\"ms\": {:.1}, \"rss_mib\": {resident:.1}}}",
        elapsed.as_secs_f64() * 1e3
    );
    Ok(())
}

fn wait(
    options: &Options,
    child: &mut Child,
    first_fetch: bool,
    began: Instant,
) -> Result<(), Failure> {
    let answers = || match first_fetch {
        true => first_records(options).is_ok(),
        false => ask(options, 0, &ApiVersionsRequest::default()).is_ok(),
    };
    while !answers() {
        if let Some(status) = child.try_wait()? {
            return Err(format!("the broker ended: {status}").into());
        }
        if began.elapsed() > PATIENCE {
            return Err("no answer".into());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn first_records(options: &Options) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(&options.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    match fetch_at(options, &mut stream, options.partitions - 1, 0)?.is_empty() {
        true => Err("no records yet".into()),
        false => Ok(()),
    }
}
