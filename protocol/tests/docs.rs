//! docs/protocol.md is generated from the version table: stale is a failure, UPDATE_DOCS=1 renews it.

use std::fmt::Write;

use metaq_protocol::versions::TABLE;

fn generated() -> String {
    let mut out = String::from(
        "# The APIs served\n\nGenerated from `protocol/src/versions.rs`. The advertised minimum is lower than the served one where \
         clients decide on features by it, as in Apache Kafka. A request whose arrays have more entries together than may be \
         closes its connection; Kafka knows no such limit. What is served between brokers ends the connection of anybody else, and \
         ApiVersions does not name it.\n\n| key | API | advertised | served | part | entries at most |\n|---:|---|---|---|---|---:|\n",
    );
    for row in TABLE {
        let advertised = match row.is_offered {
            true => format!("{}–{}", row.advertised_min, row.max),
            false => "between brokers".to_owned(),
        };
        let _ = writeln!(
            out,
            "| {} | {} | {advertised} | {}–{} | {} | {} |",
            row.key,
            row.name,
            row.min,
            row.max,
            row.group.name(),
            row.entries_max
        );
    }
    out
}

#[test]
fn docs_protocol_is_as_the_table_says() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, generated()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == generated(),
        "docs/protocol.md is stale: UPDATE_DOCS=1 cargo test docs"
    );
}
