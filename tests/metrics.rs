//! `/metrics`: exactly what docs/metrics.md says, with a bounded number of series.

mod common;
#[path = "common/process.rs"]
mod process;

use std::collections::BTreeSet;

use common::{batch, wait_for};
use metaq::admin::{METRICS, MetricKind};
use process::{Process, metaq};

/// Names of the families that a page describes.
fn described(page: &str) -> BTreeSet<String> {
    let kinds = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let name = |line: &str| Some(line.split_once(' ')?.0.to_owned());
    kinds.filter_map(name).collect()
}

/// Samples by name, with how many series each has.
fn series(page: &str, name: &str) -> usize {
    let is_of = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    };
    page.lines().filter(is_of).count()
}

#[test]
fn everything_that_is_documented_is_given_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &[]);
    let mut client = process.client();
    client.create("t");
    assert_eq!(client.produce("t", batch(3)).0, 0);
    // Whoever does something has quotas.
    let at = process.address().to_string();
    let quotas = ["producer_byte_rate=1e9", "controller_mutation_rate=1e6"];
    let set = [
        "quota",
        "set",
        "--default-user",
        quotas[0],
        quotas[1],
        "-b",
        &at,
    ];
    assert_eq!(metaq(&set).0, Some(0));
    let (code, listed, _) = metaq(&["quota", "list", "-b", &at]);
    assert_eq!(code, Some(0));
    assert!(listed.contains("(default)") && listed.contains("producer_byte_rate=1000000000"));
    let mut made = 0;
    wait_for("the quotas to be in force", || {
        let name = format!("made-{made}");
        made += 1;
        assert_eq!(metaq(&["topic", "create", &name, "-b", &at]).0, Some(0));
        client.produce(&name, batch(3));
        let page = process.page("/metrics");
        series(&page, "metaq_quota_tokens") > 0 && series(&page, "metaq_quota_rate") > 1
    });
    // Refused, and counted.
    assert_ne!(client.produce("none", batch(1)).0, 0);
    client.fetch("t", 0);
    let page = process.page("/metrics");
    let documented: BTreeSet<String> = METRICS.iter().map(|metric| metric.exposed()).collect();
    // They are there with ZooKeeper, and with TLS, only.
    let of_others = [
        "metaq_coordination_lease_ms",
        "metaq_certificate_expiry_timestamp_seconds",
        "metaq_certificate_unusable",
    ];
    let here: BTreeSet<String> = documented
        .iter()
        .filter(|name| !of_others.contains(&name.as_str()))
        .cloned()
        .collect();
    let told = described(&page);
    assert!(told.is_superset(&here) && told.is_subset(&documented));
    for metric in METRICS
        .iter()
        .filter(|metric| here.contains(&metric.exposed()))
    {
        let name = match metric.kind {
            MetricKind::Histogram => metric.exposed() + "_count",
            _ => metric.exposed(),
        };
        // Groups have none here.
        let wanted = usize::from(name != "metaq_group_lag");
        assert!(series(&page, &name) >= wanted, "{name} in {page}");
    }
    for line in [
        "metaq_topic_messages_total{topic=\"t\"} 3",
        "metaq_partition_log_end_offset{topic=\"t\",partition=\"0-0\"} 3",
        "metaq_request_errors_total{api=\"Produce\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"} 1",
        "# TYPE metaq_topic_messages_total counter",
    ] {
        assert!(
            page.lines().any(|found| found.trim() == line),
            "{line} in {page}"
        );
    }
    let removed = metaq(&["quota", "remove", "--default-user", "-b", &at]);
    assert_eq!(removed.0, Some(0));
    let (_, listed, _) = metaq(&["quota", "list", "--json", "-b", &at]);
    assert_eq!(listed.trim(), "[]");
}

#[test]
fn series_of_topics_and_partitions_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        "numPartitions=4",
        "metrics.topics.max=2",
        "metrics.partitions.max=5",
    ];
    let process = Process::start(dir.path(), &settings);
    let mut client = process.client();
    ["a", "b", "c"]
        .iter()
        .for_each(|topic| client.create(topic));
    let page = process.page("/metrics");
    assert_eq!(series(&page, "metaq_topic_bytes"), 2);
    assert_eq!(series(&page, "metaq_partition_bytes"), 5);
    assert_eq!(process.metric("metaq_partitions"), 12);
    assert_eq!(process.metric("metaq_metrics_partitions_left_out"), 7);
}

#[test]
fn a_groups_lag_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &[]);
    let mut client = process.client();
    client.create("t");
    client.produce("t", batch(7));
    let address = process.address().to_string();
    let reset = [
        "group",
        "reset-offsets",
        "g",
        "-t",
        "t",
        "--to-earliest",
        "--execute",
        "-b",
        &address,
    ];
    let (code, _, err) = process::metaq(&reset);
    assert_eq!(code, Some(0), "{err}");
    wait_for("the lag", || {
        process
            .page("/metrics")
            .contains("metaq_group_lag{group=\"g\"} 7")
    });
}
