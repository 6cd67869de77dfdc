//! Results as tables for people or JSON for programs.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// Prints `rows` as JSON, or as a table with these headings.
pub(super) fn print<T: Serialize>(
    json: bool,
    headings: &[&str],
    rows: &[T],
    cells: impl Fn(&T) -> Vec<String>,
) -> Result<(), super::Failure> {
    if json {
        println!("{}", serde_json::to_string_pretty(rows)?);
        return Ok(());
    }
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.to_vec());
    for row in rows {
        table.add_row(cells(row));
    }
    for line in table.lines() {
        println!("{}", line.trim_end());
    }
    Ok(())
}

/// `-` for what is not there.
pub(super) fn or_dash<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map_or("-".to_owned(), T::to_string)
}
