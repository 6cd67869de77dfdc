//! Names of directories that begin with a topic's name.

/// The longest name that a file system takes, bytes.
const NAME_BYTES_MAX: usize = 255;

/// A topic's name, as much of it as fits, and what follows it (Kafka's
/// LocalLog.logDirNameWithSuffixCappedLength): the longest topic name leaves room for its partition alone.
pub(crate) fn capped_name(topic: &str, rest: &str) -> String {
    let fits = NAME_BYTES_MAX.saturating_sub(rest.len()).min(topic.len());
    // Names of topics are ASCII.
    format!("{}{rest}", topic.get(..fits).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_as_much_of_the_topics_as_file_systems_take() {
        let rest = "-99999.0123456789abcdef0123456789abcdef-delete";
        for bytes in [1, 209, 210, 249] {
            let topic = "n".repeat(bytes);
            let name = capped_name(&topic, rest);
            assert!(name.len() <= NAME_BYTES_MAX && name.ends_with(rest));
            assert_eq!(name.starts_with(&topic), bytes <= 209);
        }
    }
}
