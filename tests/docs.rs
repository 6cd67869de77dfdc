//! docs/configuration.md is generated from the tables: stale is a failure, UPDATE_DOCS=1 renews it. What the README says of
//! losses names the tests behind it: they are there.

use std::fmt::Write;

use metaq::admin::{METRICS, MetricKind};
use metaq::config::{
    BrokerKey, CLIENT_METRICS_KEYS, GROUP_KEYS, Kind, SUBJECTS, TOPIC_KEYS, topic_defaults,
};

fn kind(kind: Kind) -> String {
    let range = |low: i64, high: i64| match (low, high) {
        (i64::MIN, i64::MAX) => "integer".to_owned(),
        (low, i64::MAX) => format!("integer, from {low}"),
        (low, high) => format!("integer, {low} to {high}"),
    };
    match kind {
        Kind::Int(low, high) | Kind::Long(low, high) => range(low, high),
        Kind::Double(low, f64::MAX) => format!("number, from {low}"),
        Kind::Double(low, high) => format!("number, {low} to {high}"),
        Kind::GzipLevel => "integer, 1 to 9, or -1".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Choice(words) => words.join(", "),
        Kind::List(words) => format!("some of {}", words.join(", ")),
        Kind::Text => "text".to_owned(),
        Kind::Words => "words, separated by commas".to_owned(),
        Kind::Replicas => "replicas, such as 0:1,1:2, or *".to_owned(),
        Kind::Schedule => "a schedule".to_owned(),
        Kind::Partitions => "partitions, such as 0,4-7".to_owned(),
        Kind::Levels => "levels, such as info,metaq::net=debug".to_owned(),
    }
}

fn generated() -> String {
    let mut out = String::from(INTRODUCTION);
    for subject in SUBJECTS {
        broker_section(&mut out, subject.name, subject.keys.iter().copied());
    }
    broker_section(&mut out, "Defaults for topics", topic_defaults());
    let headings = "| key | values | default | |\n|---|---|---|---|\n";
    out.push_str(TOPICS);
    out.push_str(headings);
    for key in TOPIC_KEYS {
        row(&mut out, (key.name, key.kind, key.default, key.doc));
    }
    out.push_str(GROUPS);
    out.push_str(headings);
    for key in GROUP_KEYS {
        row(&mut out, (key.name, key.kind, key.default, key.doc));
    }
    out.push_str(CLIENT_METRICS);
    out.push_str(headings);
    for key in CLIENT_METRICS_KEYS {
        row(&mut out, (key.name, key.kind, key.default, key.doc));
    }
    out
}

fn broker_section(out: &mut String, name: &str, keys: impl Iterator<Item = BrokerKey>) {
    let _ = write!(out, "\n### {name}\n\n{BROKER_HEADINGS}");
    for key in keys {
        let metaq = key
            .metaq_name
            .map_or(String::new(), |name| format!("`{name}`"));
        let dynamic = if key.is_dynamic() { "yes" } else { "" };
        let _ = writeln!(
            out,
            "| `{}` | {metaq} | {} | {} | {dynamic} | {} |",
            key.name,
            kind(key.kind),
            default(key.default),
            key.doc
        );
    }
}

fn default(default: &str) -> String {
    match default {
        "" => String::new(),
        default => format!("`{default}`"),
    }
}

fn row(out: &mut String, (name, of, value, doc): (&str, Kind, &str, &str)) {
    let _ = writeln!(
        out,
        "| `{name}` | {} | {} | {doc} |",
        kind(of),
        default(value)
    );
}

const INTRODUCTION: &str = "# Configuration

Generated from `src/config`. A key may be given by any of its names in `[system]` of server.ini or by `--set`; two names \
for one thing that disagree are an error. Integers may be products (`1024*1024`).

Also understood: `node.id` (broker.id), `log.dir`, `maxTxTimeoutInSeconds` (transaction.max.timeout.ms), `log.retention.hours`, `log.retention.minutes`, `log.roll.hours`, \
`log.roll.jitter.hours`. `deletePolicy=delete,168` gives hours, or `s`, `m`, `h` as suffix; `archive,168` archives before it \
deletes, and `archive,168,DIRECTORY` says where to. Kafka's other names for brokers are accepted without effect, so that a \
server.properties can be taken over, and each says what the broker does instead; those of security are refused.

`metaq config check FILE` tells everything that is wrong in a file, and in the certificates, keys and users that it names. `metaq config show` tells what is in force, where it is \
from, and what changes at run time. The order, the later over the earlier: the default, server.ini, `--set`, what is set at \
run time for all brokers (`metaq config set broker default KEY=VALUE`), and for one (`metaq config set broker 0 KEY=VALUE`). \
What is set at run time is kept in the coordination tree and outlives restarts. `metaq config reload`, SIGHUP and \
`metaServer.sh reload` read the file again: what changes at run time is in force at once, the rest is told and waits for a \
restart; a file that is wrong changes nothing.

## Broker
";

const BROKER_HEADINGS: &str = "| key | MetaQ's name | values | default | at run time | |
|---|---|---|---|---|---|
";

const TOPICS: &str = "
## Topics

In `[topic=NAME]` of server.ini (with MetaQ's names, and `numPartitions`, `acceptPublish`, `acceptSubscribe`), or at run time \
by any Kafka admin tool or `metaq topic alter`. `*` in the name matches anything.

";

const GROUPS: &str = "
## Groups

In `[group=NAME]` of server.ini, or at run time by any Kafka admin tool or `metaq config set group NAME KEY=VALUE`. Where the
broker has keys for the least and the most, such as `group.consumer.min.session.timeout.ms`, these hold; the ranges here are
their defaults.

";

const CLIENT_METRICS: &str = "
## Client metrics

Subscriptions (KIP-714), at run time by any Kafka admin tool or `metaq config set client-metrics NAME KEY=VALUE`. \
`match` knows client_instance_id, client_id, client_software_name, client_software_version, client_source_address and \
client_source_port, each with a regular expression for the whole text.

";

fn generated_metrics() -> String {
    let mut out = String::from(
        "# Metrics\n\nGenerated from `src/admin/definitions.rs`: what `/metrics` on the dashboard's port gives, as \
         OpenMetrics text. Counters begin at 0 with the process. `conf/monitoring` has a Prometheus configuration, alert \
         rules ([what to do about each](operations.md#alerts)) and a Grafana dashboard over them.\n\n\
         | metric | kind | labels | series at most | |\n|---|---|---|---|---|\n",
    );
    for metric in METRICS {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let _ = writeln!(
            out,
            "| `{}` | {kind} | {} | {} | {} |",
            metric.exposed(),
            labels.join(", "),
            metric.bound,
            metric.help
        );
    }
    out
}

#[test]
fn docs_metrics_is_as_the_definitions_say() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, generated_metrics()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == generated_metrics(),
        "docs/metrics.md is stale: UPDATE_DOCS=1 cargo test docs"
    );
}

/// Whoever an alert wakes finds what to do, and the alerts ask for metrics that there are.
#[test]
fn every_alert_has_its_remedy_and_its_metrics() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = std::fs::read_to_string(root.join("conf/monitoring/alerts.yml")).unwrap();
    let operations = std::fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in &alerts {
        assert!(operations.contains(&format!("### {alert}\n")), "{alert}");
    }
    let headings = operations.matches("\n### Metaq").count();
    assert_eq!(headings, alerts.len(), "a remedy without an alert");
    let known: Vec<String> = METRICS.iter().map(|metric| metric.exposed()).collect();
    let grafana = std::fs::read_to_string(root.join("conf/monitoring/grafana.json")).unwrap();
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = rules
        .split(|c| !is_name(c))
        .chain(grafana.split(|c| !is_name(c)));
    let asked = words.filter(|word| word.starts_with("metaq_") || word.starts_with("process_"));
    for name in asked {
        let base = name.trim_end_matches("_bucket");
        assert!(known.iter().any(|known| known == base), "{name}");
    }
}

#[test]
fn docs_configuration_is_as_the_tables_say() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, generated()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == generated(),
        "docs/configuration.md is stale: UPDATE_DOCS=1 cargo test docs"
    );
}

/// The names in backquotes that look like a test's, each with the file that is named behind it.
fn tests_named_in(text: &str) -> Vec<(&str, &str)> {
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let is_test = |name: &str| name.matches('_').count() > 3 && !name.contains([' ', '.', '/']);
    let pairs = quoted.windows(2);
    let named = pairs.filter(|pair| is_test(pair[0]));
    named.map(|pair| (pair[0], pair[1])).collect()
}

#[test]
fn the_tests_that_the_readme_names_behind_what_may_be_lost_are_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let section = readme.split("## What may be lost").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let named = tests_named_in(section);
    for (name, file) in &named {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        assert!(
            text.contains(&format!("fn {name}(")),
            "{name} is not in {file}"
        );
    }
    // Every row of the table says which, and each of them names a test.
    let rows = section
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1);
    let mut of_rows = std::collections::BTreeSet::new();
    for row in rows {
        let numbers = row.trim_end_matches(" |").rsplit("| ").next().unwrap();
        let numbers = numbers.split(", ").map(|number| number.parse::<usize>());
        of_rows.extend(numbers.map(|number| number.unwrap_or_else(|_| panic!("{row}"))));
    }
    for number in &of_rows {
        let item = section.split(&format!("\n{number}. ")).nth(1);
        let item = item.and_then(|rest| rest.split(&format!("\n{}. ", number + 1)).next());
        assert!(!tests_named_in(item.unwrap()).is_empty(), "{number}");
    }
    assert_eq!(of_rows.len(), 7);
}
