//! What is wrong, and what to do about it.
//!
//! Tests: tests/certificates.rs.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::data_dirs::data_dirs;
use crate::admin::blocking::blocking;
use crate::admin::{Shared, lookout};
use crate::certificates::{CertificateLeft, CertificateState, EXPIRES_SOON_DAYS};
use crate::cluster::{PartitionInfo, Topic};
use crate::meta::SessionState;
use crate::observe::{Event, EventKind};
use crate::partition::Uncleanable;

/// A file system with less than this part free is nearly full.
const FREE_PERCENT_MIN: f64 = 10.0;
/// And with less than this it is about to stop the broker.
const FREE_PERCENT_CRITICAL: f64 = 3.0;
/// Events that are older than this are no problem any more.
const RECENT_MS: i64 = 10 * 60 * 1000;
/// A client that was refused so often in a while misbehaves.
const REFUSALS_MANY: u64 = 20;
/// Partitions that are named one by one.
const NAMED_MAX: usize = 5;

/// Something that is wrong.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct Problem {
    /// `critical` where something is not served, or `warning`.
    pub(in crate::admin) severity: &'static str,
    /// A word for programs: `partitions_offline`, `session_suspended`, `fenced`, `task_ended`, `disk_nearly_full`,
    /// `sync_slow`, `client_misbehaving`, `transactions_hanging`, `partitions_uncleanable`, `partitions_without_leader`,
    /// `partitions_under_replicated`, `files_nearly_exhausted`, `certificate_expires`, `certificate_unusable`.
    pub(in crate::admin) kind: &'static str,
    /// What is wrong.
    pub(in crate::admin) what: String,
    /// What to do.
    pub(in crate::admin) remedy: String,
    /// The page that tells more.
    pub(in crate::admin) page: String,
}

fn problem(kind: &'static str, what: String, remedy: &str, page: &str) -> Problem {
    Problem {
        severity: "warning",
        kind,
        what,
        remedy: remedy.to_owned(),
        page: page.to_owned(),
    }
}

impl Problem {
    fn critical(self) -> Self {
        Self {
            severity: "critical",
            ..self
        }
    }
}

/// Everything that is wrong, the worst first.
pub(in crate::admin) async fn find(shared: &Shared) -> Vec<Problem> {
    let looked = blocking(shared, |shared| {
        let mut all = offline(&lookout::offline_partitions(&shared.cx));
        disks(shared, &mut all);
        files(&mut all);
        all
    });
    let mut all = looked.await.unwrap_or_default();
    coordination(shared, &mut all);
    transactions(shared.cx.transactions.count().await.hanging, &mut all);
    uncleanable(&shared.cx.cleaner.uncleanable(), &mut all);
    let now = jiff::Timestamp::now();
    for certificate in shared.cx.certificates.states() {
        certificates(&certificate, now, &mut all);
    }
    recent(shared, &mut all);
    all.sort_by_key(|found| found.severity != "critical");
    all
}

fn offline(partitions: &BTreeSet<(String, String)>) -> Vec<Problem> {
    let Some((_, reason)) = partitions.first() else {
        return Vec::new();
    };
    let named: Vec<&str> = partitions.iter().map(|(name, _)| name.as_str()).collect();
    let more = match named.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names = named[..named.len().min(NAMED_MAX)].join(", ");
    let what = format!(
        "{} of this broker cannot be used: {names}{more}. {reason}",
        count(named.len(), "partition")
    );
    let remedy = "Look at the disk and at the log; free space or repair the file system, then restart the broker: it \
        checks and repairs its logs when it starts.";
    vec![
        problem(
            "partitions_offline",
            what,
            remedy,
            "/events?kind=partition_offline",
        )
        .critical(),
    ]
}

fn count(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

fn transactions(hanging: usize, all: &mut Vec<Problem>) {
    if hanging == 0 {
        return;
    }
    let what = format!(
        "{} decided, and {} markers cannot be written: readers of committed messages do not go on.",
        match hanging {
            1 => "1 transaction is".to_owned(),
            hanging => format!("{hanging} transactions are"),
        },
        if hanging == 1 { "its" } else { "their" }
    );
    let remedy = "Look which partitions are left of each: their leader is away, or its disk cannot be written. A deleted \
        topic does not hold a transaction up.";
    all.push(problem(
        "transactions_hanging",
        what,
        remedy,
        "/transactions",
    ));
}

fn uncleanable(logs: &[Uncleanable], all: &mut Vec<Problem>) {
    let Some(first) = logs.first() else {
        return;
    };
    let named = logs.iter().take(NAMED_MAX);
    let names: Vec<String> = named
        .map(|log| format!("{}-{}", log.topic, log.partition))
        .collect();
    let more = match logs.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = format!(
        "{} cannot be compacted, and grow: {}{more}. {}",
        count(logs.len(), "partition"),
        names.join(", "),
        first.reason
    );
    let page = "/events?kind=compaction";
    all.push(problem("partitions_uncleanable", what, first.remedy, page));
}

fn coordination(shared: &Shared, all: &mut Vec<Problem>) {
    let cx = &shared.cx;
    if cx.cluster.is_fenced() {
        let what = "Another process has this broker's number; this one serves no more.".to_owned();
        let remedy = "Stop one of the two, or give it another brokerId.";
        all.push(problem("fenced", what, remedy, "/cluster").critical());
    }
    let ended = cx.partitions.supervisor().ended();
    if !ended.is_empty() {
        let what = format!("Ended by a bug: {}.", ended.join(", "));
        let remedy = "Restart the broker, and report the panic that is in the log.";
        all.push(problem("task_ended", what, remedy, "/log").critical());
    }
    let meta = cx.cluster.meta();
    let state = meta.session().borrow().state;
    if state != SessionState::Connected {
        let left = meta.lease().left().filter(|_| cx.cluster.may_act());
        let what = match left {
            Some(left) => format!(
                "The session with {} is {}; produce and fetch go on for {} s more.",
                meta.kind(),
                state.name(),
                left.as_secs()
            ),
            None => format!(
                "The session with {} is {}: this broker neither leads nor coordinates.",
                meta.kind(),
                state.name()
            ),
        };
        let remedy = "Look whether ZooKeeper answers and whether the network to it is whole (zk.zkConnect). The broker \
            goes on by itself when it is back.";
        let found = problem("session_suspended", what, remedy, "/cluster");
        all.push(match left {
            Some(_) => found,
            None => found.critical(),
        });
    }
    let image = cx.cluster.image();
    let is_led = |info: &PartitionInfo| image.brokers.contains_key(&info.leader);
    let topics = image.topics();
    let waits = topics.filter(|topic| !topic.partitions.iter().all(is_led));
    let waiting: Vec<_> = waits.collect();
    if !waiting.is_empty() {
        let partitions = waiting.iter().flat_map(|topic| &topic.partitions);
        let away = partitions.filter(|info| !is_led(info)).count();
        let what = format!(
            "{} of the cluster wait for a broker that is away.",
            count(away, "partition")
        );
        let is_strict = |topic: &&&Arc<Topic>| cx.cluster.is_strictly_ordered(topic);
        let remedy = match waiting.iter().find(is_strict) {
            Some(topic) => format!(
                "Start the brokers that the cluster page shows as away. {} has ordering=strict: where its home broker does \
                    not come back, metaq partition fail-over has another replica lead.",
                topic.name
            ),
            None => "Start the brokers that the cluster page shows as away.".to_owned(),
        };
        all.push(problem("partitions_without_leader", what, &remedy, "/cluster").critical());
    }
    let partitions = image.topics().flat_map(|topic| &topic.partitions);
    // Those that a reassignment adds are not missed.
    let wanted = |info: &PartitionInfo| info.replicas.len() - info.adding.len();
    let lacking = partitions.filter(|info| info.leader >= 0 && info.isr.len() < wanted(info));
    let lacking = lacking.count();
    if lacking > 0 {
        let what = format!(
            "{} of the cluster have replicas that are not in sync.",
            count(lacking, "partition")
        );
        let remedy = "Start the brokers that are away; where they run, their logs say why a replica is not copied.";
        all.push(problem(
            "partitions_under_replicated",
            what,
            remedy,
            "/cluster",
        ));
    }
}

fn disks(shared: &Shared, all: &mut Vec<Problem>) {
    for dir in data_dirs(shared) {
        let free_percent = 100.0 - dir.used_percent();
        if dir.disk_bytes == 0 || free_percent >= FREE_PERCENT_MIN {
            continue;
        }
        let free = crate::admin::pages::format::bytes(dir.free_bytes as f64);
        let what = format!("{} has {free} left ({free_percent:.1} %).", dir.path);
        let remedy = "Shorten retention of the largest topics, delete topics, or give the broker more room; partitions go \
            offline when it is full.";
        let found = problem("disk_nearly_full", what, remedy, "/topics?sort=bytes");
        all.push(match free_percent < FREE_PERCENT_CRITICAL {
            true => found.critical(),
            false => found,
        });
    }
}

fn certificates(certificate: &CertificateState, now: jiff::Timestamp, all: &mut Vec<Problem>) {
    let listener = &certificate.listener;
    if let Some(why) = &certificate.failure {
        let what = format!("The certificate of {listener} cannot be read again: {why}.");
        let remedy = "The one that was read before is shown on. Put right what is in its files; they are read within seconds.";
        all.push(problem(
            "certificate_unusable",
            what,
            remedy,
            "/configuration",
        ));
    }
    let remedy = "Replace its files (docs/security.md, Certificates); they are read within seconds, and no connection ends.";
    let found = |what| problem("certificate_expires", what, remedy, "/configuration");
    match certificate.left(now) {
        CertificateLeft::Expired => {
            let what = format!(
                "The certificate of {listener} has expired: clients do not connect any more."
            );
            all.push(found(what).critical());
        }
        CertificateLeft::Days(days) if days < EXPIRES_SOON_DAYS => {
            let left = count(days as usize, "day");
            all.push(found(format!(
                "The certificate of {listener} is good for {left} only."
            )));
        }
        CertificateLeft::Days(_) => {}
    }
}

fn files(all: &mut Vec<Problem>) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |found| found.count() as u64);
    if let Some(limit) = limit
        && open * 10 > limit * 9
    {
        let what = format!("{open} of {limit} files that this process may open are open.");
        let remedy = "Raise the limit (LimitNOFILE, ulimit -n), or look on the clients page who holds so many connections.";
        all.push(problem("files_nearly_exhausted", what, remedy, "/process").critical());
    }
}

fn recent(shared: &Shared, all: &mut Vec<Problem>) {
    let now_ms = shared.cx.partitions.clock().now_ms();
    let is_recent = |event: &Event| event.last_ms > now_ms - RECENT_MS;
    let events = &shared.cx.observe.events;
    let slow = events.latest_where(&[EventKind::SlowSync], usize::MAX, is_recent);
    if let Some(worst) = slow.iter().max_by_key(|event| event.took_ms) {
        let times: u64 = slow.iter().map(|event| event.count).sum();
        let what = format!(
            "{} took more than half a second in the last ten minutes; the longest, of {}, {} ms.",
            count(times as usize, "sync"),
            worst.subject,
            worst.took_ms.unwrap_or(0)
        );
        let remedy = "The disk is slow or busy: look what else writes to it. Producers of topics that sync each message \
            wait for it.";
        all.push(problem("sync_slow", what, remedy, "/events?kind=slow_sync"));
    }
    let kinds = [EventKind::RequestRejected, EventKind::ConnectionRejected];
    let refused = events.latest_where(&kinds, usize::MAX, |event| {
        is_recent(event) && event.count >= REFUSALS_MANY
    });
    if let Some(worst) = refused.iter().max_by_key(|event| event.count) {
        let what = format!(
            "{} was refused {} times: {} {}",
            worst.who, worst.count, worst.subject, worst.why
        );
        let remedy = "Look at the reason and tell the client's owner.";
        all.push(problem(
            "client_misbehaving",
            what,
            remedy,
            "/clients#rejected",
        ));
    }
}
