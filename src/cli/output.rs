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
        table.add_row(
            cells(row)
                .iter()
                .map(|cell| plain(cell))
                .collect::<Vec<_>>(),
        );
    }
    for line in table.lines() {
        println!("{}", line.trim_end());
    }
    Ok(())
}

/// A text that others chose, without what a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// A bar on standard error for what takes long; nothing where that is no terminal. Gone when dropped.
pub(super) struct Progress(indicatif::ProgressBar);

impl Progress {
    /// Of so many `what`, once it is known how many.
    pub(super) fn new(what: &'static str) -> Self {
        let bar = indicatif::ProgressBar::new(0);
        let style =
            indicatif::ProgressStyle::with_template("{bar:40} {pos} of {len} {msg}, {eta} left");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self(bar)
    }

    /// So many are done.
    pub(super) fn at(&self, done: usize, of: usize) {
        self.0.set_length(of as u64);
        self.0.set_position(done as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Bytes with a unit, three digits.
pub(super) fn bytes(value: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (value, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{value:.0} B"),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 100.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// A count with spaces between thousands.
pub(super) fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.char_indices() {
        let left = digits.len() - n;
        if n > 0 && left % 3 == 0 && !out.ends_with('-') {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A number of things.
pub(super) fn counted(n: u64, one: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    }
}

/// How long something took or has been going on, in two units.
pub(super) fn duration(ms: u64) -> String {
    let (seconds, minutes, hours, days) = (ms / 1000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match (days, hours, minutes, seconds) {
        (0, 0, 0, 0) => format!("{ms} ms"),
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {} s", s % 60),
        (0, h, m, _) => format!("{h} h {} min", m % 60),
        (d, h, _, _) => format!("{d} d {} h", h % 24),
    }
}

/// What was done, as JSON or as a sentence.
pub(super) fn say(json: bool, done: &serde_json::Value, sentence: &str) {
    match json {
        true => println!("{done}"),
        false => println!("{sentence}"),
    }
}

/// `-` for what is not there.
pub(super) fn or_dash<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map_or("-".to_owned(), T::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_have_units() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(1536.0), "1.50 KiB");
        assert_eq!(bytes(500.0 * 1024.0 * 1024.0), "500 MiB");
        assert_eq!(count(1234567.0), "1 234 567");
        assert_eq!(count(-123456.0), "-123 456");
        assert_eq!(duration(12), "12 ms");
        assert_eq!(duration(61_000), "1 min 1 s");
        assert_eq!(duration(90_000_000), "1 d 1 h");
    }
}
