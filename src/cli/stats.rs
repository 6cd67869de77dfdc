//! `metaq stats` and `metaq query`, MetaQ's words for looking at figures and offsets.

use clap::Args;
use serde::Serialize;

use super::Failure;
use super::client::{Address, Client};
use super::group_offsets::committed;
use super::http;
use super::output::{or_dash, print};
use super::topic::{identity_of, metadata, offsets};

/// Show the broker's figures, those of one item, or those of one topic.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  metaq stats\n  metaq stats connections\n  metaq stats orders")]
pub(super) struct Stats {
    /// Part of a figure's name, or a topic (or another label's value).
    item: Option<String>,
    #[command(flatten)]
    dashboard: http::Dashboard,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
struct Figure {
    name: String,
    labels: String,
    value: String,
}

impl Stats {
    pub(super) fn run(self) -> Result<(), Failure> {
        let text = self.dashboard.target()?.text("/metrics")?;
        let figures = figures(&text, self.item.as_deref());
        if figures.is_empty() {
            let item = self.item.unwrap_or_default();
            return Err(format!("no figure and no topic is called {item}").into());
        }
        print(
            self.dashboard.json,
            &["FIGURE", "OF", "VALUE"],
            &figures,
            |row| vec![row.name.clone(), row.labels.clone(), row.value.clone()],
        )
    }
}

/// The samples of a page in Prometheus' format: without an item, those that are not about one topic and no bucket.
fn figures(page: &str, item: Option<&str>) -> Vec<Figure> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let mut all = Vec::new();
    for line in samples {
        let Some((left, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (name, labels) = left.split_once('{').unwrap_or((left, ""));
        let labels = labels.trim_end_matches('}');
        let wanted = match item {
            None => !labels.contains("topic=") && !name.ends_with("_bucket"),
            Some(item) => name.contains(item) || labels.contains(&format!("=\"{item}\"")),
        };
        if wanted {
            all.push(Figure {
                name: name.to_owned(),
                labels: labels.to_owned(),
                value: value.to_owned(),
            });
        }
    }
    all
}

/// Show the offsets of a topic's partitions, and those that a group has committed in them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  metaq query --topic orders\n  metaq query --topic orders --group billing --partition 0-3"
)]
pub(super) struct Query {
    /// Topic.
    #[arg(short, long)]
    topic: String,
    /// Group.
    #[arg(short, long)]
    group: Option<String>,
    /// Only this partition: its number, or its name brokerId-n.
    #[arg(short, long)]
    partition: Option<String>,
    #[command(flatten)]
    address: Address,
}

#[derive(Serialize)]
struct Queried {
    partition: i32,
    identity: Option<String>,
    log_start: Option<i64>,
    log_end: Option<i64>,
    committed: Option<i64>,
    lag: Option<i64>,
}

impl Query {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut client = Client::connect(&self.address)?;
        let topic = metadata(&mut client, &self.topic)?;
        let wanted: Vec<_> = topic
            .partitions
            .iter()
            .filter(|partition| {
                self.partition.as_ref().is_none_or(|asked| {
                    *asked == partition.partition_index.to_string()
                        || identity_of(partition).as_ref() == Some(asked)
                })
            })
            .collect();
        if wanted.is_empty() {
            let asked = self.partition.unwrap_or_default();
            return Err(format!("{} has no partition {asked}", self.topic).into());
        }
        let indexes: Vec<i32> = wanted.iter().map(|p| p.partition_index).collect();
        let starts = offsets(&mut client, &topic, &indexes, -2)?;
        let ends = offsets(&mut client, &topic, &indexes, -1)?;
        let committed = match &self.group {
            Some(group) => committed(&mut client, group)?,
            None => Default::default(),
        };
        let row = |partition: &&metaq_protocol::messages::metadata_response::MetadataResponsePartition| {
            let index = partition.partition_index;
            let committed = committed.get(&(self.topic.clone(), index)).copied();
            let log_end = ends.get(&index).copied();
            Queried {
                partition: index,
                identity: identity_of(partition),
                log_start: starts.get(&index).copied(),
                log_end,
                committed,
                lag: committed.zip(log_end).map(|(at, end)| (end - at).max(0)),
            }
        };
        let rows: Vec<Queried> = wanted.iter().map(row).collect();
        let headings = [
            "PARTITION",
            "IDENTITY",
            "LOG START",
            "LOG END",
            "COMMITTED",
            "LAG",
        ];
        print(self.address.json, &headings, &rows, |row| {
            vec![
                row.partition.to_string(),
                or_dash(&row.identity),
                or_dash(&row.log_start),
                or_dash(&row.log_end),
                or_dash(&row.committed),
                or_dash(&row.lag),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_their_name_or_by_a_label() {
        let page =
            "# HELP a_total x\na_total 3\nb{topic=\"orders\"} 4\nc_bucket{le=\"1\"} 5\n# EOF\n";
        let names = |item| {
            let found = figures(page, item);
            found
                .into_iter()
                .map(|figure| figure.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["a_total"]);
        assert_eq!(names(Some("orders")), ["b"]);
        assert_eq!(names(Some("bucket")), ["c_bucket"]);
        assert!(names(Some("nothing")).is_empty());
    }
}
