//! docs/configuration.md is generated from the tables: stale is a failure, UPDATE_DOCS=1 renews it.

use std::fmt::Write;

use metaq::config::{Kind, TOPIC_KEYS, broker_keys};

fn kind(kind: Kind) -> String {
    let range = |low: i64, high: i64| match (low, high) {
        (i64::MIN, i64::MAX) => "integer".to_owned(),
        (low, i64::MAX) => format!("integer, from {low}"),
        (low, high) => format!("integer, {low} to {high}"),
    };
    match kind {
        Kind::Int(low, high) | Kind::Long(low, high) => range(low, high),
        Kind::Double(low, high) => format!("number, {low} to {high}"),
        Kind::Bool => "true or false".to_owned(),
        Kind::Choice(words) => words.join(", "),
        Kind::List(words) => format!("some of {}", words.join(", ")),
        Kind::Text => "text".to_owned(),
    }
}

fn generated() -> String {
    let mut out = String::from(
        "# Configuration\n\nGenerated from `src/config`. A key may be given by any of its names in `[system]` of server.ini or by \
         `--set`; two names for one thing that disagree are an error. Integers may be products (`1024*1024`).\n\n\
         Also understood: `node.id` (broker.id), `log.dir`, `log.retention.hours`, `log.retention.minutes`, `log.roll.hours`; \
         `deletePolicy=delete,168` gives hours, or `s`, `m`, `h` as suffix.\n\n## Broker\n\n\
         | key | MetaQ's name | values | default | |\n|---|---|---|---|---|\n",
    );
    for key in broker_keys() {
        let metaq = key
            .metaq_name
            .map_or(String::new(), |name| format!("`{name}`"));
        let default = if key.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", key.default)
        };
        let _ = writeln!(
            out,
            "| `{}` | {metaq} | {} | {default} | {} |",
            key.name,
            kind(key.kind),
            key.doc
        );
    }
    out.push_str(
        "\n## Topics\n\nIn `[topic=NAME]` of server.ini (with `numPartitions`), or at run time by any Kafka admin tool or \
         `metaq topic alter`.\n\n| key | values | default | |\n|---|---|---|---|\n",
    );
    for key in TOPIC_KEYS {
        let default = if key.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", key.default)
        };
        let _ = writeln!(
            out,
            "| `{}` | {} | {default} | {} |",
            key.name,
            kind(key.kind),
            key.doc
        );
    }
    out
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
