//! Types of configuration values: parsing, ranges, and how they are described to clients.

use std::collections::BTreeSet;

use tracing_subscriber::filter::Targets;

use crate::schedule::{Schedule, ScheduleError};

/// Numbers in a list of partitions are below this, as many as a topic may have.
const PARTITIONS_LISTED_MAX: i32 = 100_000;

/// Type and range of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A 32-bit integer in a range.
    Int(i64, i64),
    /// A 64-bit integer in a range.
    Long(i64, i64),
    /// A number in a range.
    Double(f64, f64),
    /// 1 to 9, or -1 for what the library chooses.
    GzipLevel,
    /// true or false.
    Bool,
    /// One of several words.
    Choice(&'static [&'static str]),
    /// A comma-separated list of some of several words.
    List(&'static [&'static str]),
    /// Any text.
    Text,
    /// Times of day as MetaQ's deleteWhen has them (see [`Schedule`]); nothing for none.
    Schedule,
    /// A comma-separated list of partition numbers and ranges of them, such as `0,4-7`.
    Partitions,
    /// A comma-separated list of any words.
    Words,
    /// A list of replicas as `partition:broker`, or `*` for all.
    Replicas,
    /// Levels of loggers, as `info,metaq::net=debug`.
    Levels,
}

/// Why a value does not fit.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ValueError {
    /// Not a number.
    #[error("not an integer")]
    NotAnInteger,
    /// Not a number.
    #[error("not a number")]
    NotANumber,
    /// Outside the range.
    #[error("must be between {0} and {1}")]
    Range(String, String),
    /// Not true or false.
    #[error("must be true or false")]
    NotABool,
    /// Not one of the words.
    #[error("must be one of {0}")]
    NotAChoice(String),
    /// Not a schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Not a list of partitions.
    #[error("{0:?} is no partition number and no range such as 4-7")]
    NotPartitions(String),
    /// Not a list of replicas.
    #[error(
        "must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
    )]
    NotReplicas,
    /// Not levels of loggers.
    #[error("not a level or module=level: {0}")]
    NotLevels(String),
}

/// Parsing of values.
pub struct Value;

impl Value {
    /// An integer, or an expression such as `1024*1024`.
    pub fn integer(text: &str) -> Result<i64, ValueError> {
        let mut product = 1i64;
        for factor in text.split('*') {
            let factor: i64 = factor
                .trim()
                .parse()
                .map_err(|_| ValueError::NotAnInteger)?;
            product = product
                .checked_mul(factor)
                .ok_or(ValueError::NotAnInteger)?;
        }
        Ok(product)
    }

    /// true or false.
    pub fn boolean(text: &str) -> Result<bool, ValueError> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(ValueError::NotABool),
        }
    }

    /// Partition numbers, in order.
    pub fn partitions(text: &str) -> Result<Vec<i32>, ValueError> {
        let mut all = BTreeSet::new();
        let words = text.split(',').map(str::trim);
        for word in words.filter(|word| !word.is_empty()) {
            let wrong = || ValueError::NotPartitions(word.to_owned());
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            let number = |text: &str| text.trim().parse::<i32>().map_err(|_| wrong());
            let (first, last) = (number(first)?, number(last)?);
            if first < 0 || last < first || last >= PARTITIONS_LISTED_MAX {
                return Err(wrong());
            }
            all.extend(first..=last);
        }
        Ok(all.into_iter().collect())
    }

    /// Partition numbers as the shortest list of ranges.
    pub fn ranges(numbers: &BTreeSet<i32>) -> String {
        let mut runs: Vec<(i32, i32)> = Vec::new();
        for number in numbers {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *number => *last = *number,
                _ => runs.push((*number, *number)),
            }
        }
        let word = |(first, last): &(i32, i32)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        runs.iter().map(word).collect::<Vec<_>>().join(",")
    }
}

impl Kind {
    /// Whether a text is a valid value.
    pub fn check(&self, text: &str) -> Result<(), ValueError> {
        match *self {
            Kind::Int(low, high) | Kind::Long(low, high) => {
                let value = Value::integer(text)?;
                match (low..=high).contains(&value) {
                    true => Ok(()),
                    false => Err(ValueError::Range(low.to_string(), high.to_string())),
                }
            }
            Kind::GzipLevel => match Value::integer(text)? {
                -1 | 1..=9 => Ok(()),
                _ => Err(ValueError::Range("1".into(), "9 or equal to -1".into())),
            },
            Kind::Double(low, high) => {
                let value: f64 = text.trim().parse().map_err(|_| ValueError::NotANumber)?;
                match (low..=high).contains(&value) {
                    true => Ok(()),
                    false => Err(ValueError::Range(low.to_string(), high.to_string())),
                }
            }
            Kind::Bool => Value::boolean(text).map(drop),
            Kind::Choice(words) => match words.contains(&text) {
                true => Ok(()),
                false => Err(ValueError::NotAChoice(words.join(", "))),
            },
            // None of them is a list too (KIP-1161).
            Kind::List(_) if text.trim().is_empty() => Ok(()),
            Kind::List(words) => {
                let mut given = text.split(',').map(str::trim);
                match given.all(|word| words.contains(&word)) {
                    true => Ok(()),
                    false => Err(ValueError::NotAChoice(words.join(", "))),
                }
            }
            Kind::Replicas => {
                let is_replica = |word: &str| {
                    let both = word.split_once(':');
                    both.is_some_and(|(a, b)| a.parse::<u32>().is_ok() && b.parse::<u32>().is_ok())
                };
                let text = text.trim();
                let is_list = text.split(',').map(str::trim).all(is_replica);
                match text.is_empty() || text == "*" || is_list {
                    true => Ok(()),
                    false => Err(ValueError::NotReplicas),
                }
            }
            Kind::Text | Kind::Words => Ok(()),
            Kind::Schedule if text.trim().is_empty() => Ok(()),
            Kind::Schedule => Ok(Schedule::parse(text).map(drop)?),
            Kind::Partitions => Value::partitions(text).map(drop),
            Kind::Levels => match text.parse::<Targets>() {
                Ok(_) => Ok(()),
                Err(error) => Err(ValueError::NotLevels(error.to_string())),
            },
        }
    }

    /// Why a configuration's value is refused, as Kafka's ConfigDef words it.
    pub fn refusal(&self, name: &str, text: &str, error: &ValueError) -> String {
        let mut named = text;
        let why = match (self, error) {
            (Kind::Int(..) | Kind::GzipLevel, ValueError::NotAnInteger) => {
                "Not a number of type INT".to_owned()
            }
            (Kind::GzipLevel, ValueError::Range(low, high)) => {
                format!("Value must be between {low} and {high}")
            }
            (Kind::Long(..), ValueError::NotAnInteger) => "Not a number of type LONG".to_owned(),
            (Kind::Double(..), ValueError::NotANumber) => "Not a number of type DOUBLE".to_owned(),
            (Kind::Bool, _) => "Expected value to be either true or false".to_owned(),
            (Kind::Int(low, high) | Kind::Long(low, high), ValueError::Range(..)) => {
                match Value::integer(text) {
                    Ok(value) if value < *low => format!("Value must be at least {low}"),
                    Ok(value) if matches!(self, Kind::Int(..)) && i32::try_from(value).is_err() => {
                        "Not a number of type INT".to_owned()
                    }
                    _ => format!("Value must be no more than {high}"),
                }
            }
            (Kind::Double(low, high), ValueError::Range(..)) => {
                match text.trim().parse::<f64>().is_ok_and(|value| value < *low) {
                    true => format!("Value must be at least {low}"),
                    false => format!("Value must be no more than {high}"),
                }
            }
            (Kind::List(words), ValueError::NotAChoice(all)) => {
                let mut given = text.split(',').map(str::trim);
                named = given.find(|word| !words.contains(word)).unwrap_or(text);
                format!("String must be one of: {all}")
            }
            (_, ValueError::NotAChoice(all)) => format!("String must be one of: {all}"),
            (_, ValueError::NotReplicas) => {
                let words: Vec<&str> = text.split(',').map(str::trim).collect();
                let words = words.join(", ");
                return format!("Invalid value [{words}] for configuration {name}: {name} {error}");
            }
            (_, error) => error.to_string(),
        };
        format!("Invalid value {named} for configuration {name}: {why}")
    }

    /// A valid value as clients expect it: products are numbers, and a list has no word twice (ConfigDef.parseValue).
    pub fn plain(&self, text: String) -> String {
        match self {
            Kind::Int(..) | Kind::Long(..) | Kind::GzipLevel => match Value::integer(&text) {
                Ok(number) => number.to_string(),
                Err(_) => text,
            },
            // As Java writes it.
            Kind::Double(..) => match text.trim().parse::<f64>() {
                Ok(number) if number.fract() == 0.0 => format!("{number:.1}"),
                Ok(number) => number.to_string(),
                Err(_) => text,
            },
            Kind::List(_) => {
                let mut seen = BTreeSet::new();
                let words = text.split(',').map(str::trim);
                let words: Vec<&str> = words.filter(|word| seen.insert(*word)).collect();
                words.join(",")
            }
            _ => text,
        }
    }

    /// Kafka's number of the type in DescribeConfigs (ConfigDef.Type).
    pub fn wire_type(&self) -> i8 {
        match self {
            Kind::Bool => 1,
            Kind::Text | Kind::Schedule | Kind::Levels | Kind::Choice(_) => 2,
            Kind::Int(..) | Kind::GzipLevel => 3,
            Kind::Long(..) => 5,
            Kind::Double(..) => 6,
            Kind::List(_) | Kind::Partitions | Kind::Words | Kind::Replicas => 7,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_listed_by_number_and_range() {
        assert_eq!(Value::partitions("7, 0-2,1"), Ok(vec![0, 1, 2, 7]));
        assert_eq!(Value::partitions(""), Ok(vec![]));
        for wrong in ["2-0", "-1", "a", "0-100000"] {
            assert!(Value::partitions(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Value::ranges(&BTreeSet::from([7, 0, 1, 2, 9])), "0-2,7,9");
    }

    #[test]
    fn a_refusal_is_worded_as_by_kafka() {
        let refusal = |kind: Kind, text: &str| {
            let error = kind.check(text).unwrap_err();
            kind.refusal("k", text, &error)
        };
        let why = |kind, text| {
            let refusal = refusal(kind, text);
            let begin = format!("Invalid value {text} for configuration k: ");
            refusal.strip_prefix(&begin).unwrap().to_owned()
        };
        assert_eq!(why(Kind::Int(1, 9), "x"), "Not a number of type INT");
        assert_eq!(why(Kind::Int(1, 9), "0"), "Value must be at least 1");
        assert_eq!(why(Kind::Int(1, 9), "10"), "Value must be no more than 9");
        let level = "Value must be between 1 and 9 or equal to -1";
        assert_eq!(why(Kind::GzipLevel, "0"), level);
        assert_eq!(Kind::GzipLevel.check("-1"), Ok(()));
        assert_eq!(
            why(Kind::Int(1, 9), "2147483648"),
            "Not a number of type INT"
        );
        assert_eq!(why(Kind::Long(1, 9), "1.5"), "Not a number of type LONG");
        assert_eq!(
            why(Kind::Double(0.0, 1.0), "a"),
            "Not a number of type DOUBLE"
        );
        assert_eq!(
            why(Kind::Double(0.0, 1.0), "2"),
            "Value must be no more than 1"
        );
        assert_eq!(
            why(Kind::Double(0.0, 1.0), "-1"),
            "Value must be at least 0"
        );
        assert_eq!(
            why(Kind::Bool, "yes"),
            "Expected value to be either true or false"
        );
        assert_eq!(
            why(Kind::Choice(&["a", "b"]), "c"),
            "String must be one of: a, b"
        );
        let list = Kind::List(&["a", "b"]);
        let wrong = "Invalid value c for configuration k: String must be one of: a, b";
        assert_eq!(refusal(list, "a,c"), wrong);
        assert_eq!(list.check("a, b,a"), Ok(()));
        assert_eq!(list.plain("a, b,a".to_owned()), "a,b");
        let ratio = |text: &str| Kind::Double(0.0, 1.0).plain(text.to_owned());
        assert_eq!((&*ratio("0"), &*ratio("0.50")), ("0.0", "0.5"));
        let wrong = "Invalid value [1, 2] for configuration k: k must be the literal '*' or a list";
        assert!(refusal(Kind::Replicas, "1,2").starts_with(wrong));
        for fits in ["", "*", "0:1,2:3"] {
            assert_eq!(Kind::Replicas.check(fits), Ok(()));
        }
        assert_eq!(list.check(""), Ok(()));
    }

    #[test]
    fn integers_may_be_products() {
        assert_eq!(Value::integer("1024 * 1024*2"), Ok(2 << 20));
        assert_eq!(Value::integer("-1"), Ok(-1));
        assert!(Value::integer("9223372036854775807*2").is_err());
        assert!(Value::integer("1k").is_err());
    }
}
