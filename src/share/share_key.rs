//! A partition as one share group sees it (Kafka's SharePartitionKey).

use std::fmt;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use uuid::Uuid;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareKey {
    /// The group.
    pub group_id: Arc<str>,
    /// The topic.
    pub topic_id: Uuid,
    /// The partition's index.
    pub partition: i32,
}

impl ShareKey {
    /// Of its text, as clients ask for the coordinator of a share partition.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.rsplitn(3, ':');
        let partition = parts.next()?.parse().ok()?;
        let topic_id = BASE64URL_NOPAD.decode(parts.next()?.as_bytes()).ok()?;
        let group_id = parts.next().filter(|group_id| !group_id.is_empty())?;
        let topic_id = Uuid::from_slice(&topic_id).ok()?;
        (partition >= 0 && !topic_id.is_nil()).then(|| Self {
            group_id: group_id.into(),
            topic_id,
            partition,
        })
    }
}

impl fmt::Display for ShareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic_id = BASE64URL_NOPAD.encode(self.topic_id.as_bytes());
        write!(f, "{}:{topic_id}:{}", self.group_id, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written_whatever_the_group_is_called() {
        for group_id in ["g", "a:b", "a:AAAAAAAAAAAAAAAAAAAAAQ:0", "ü/x"] {
            let key = ShareKey {
                group_id: group_id.into(),
                topic_id: Uuid::from_u128(0x1234_5678),
                partition: 17,
            };
            assert_eq!(ShareKey::parse(&key.to_string()), Some(key));
        }
        let id = "AAAAAAAAAAAAAAAAAAAAAQ";
        assert!(ShareKey::parse(&format!("g:{id}:0")).is_some());
        for none in [
            "",
            "g",
            "g:0",
            &format!(":{id}:0"),
            &format!("g:{id}:-1"),
            &format!("g:{id}:x"),
            "g:short:0",
            "g:AAAAAAAAAAAAAAAAAAAAAA:0",
        ] {
            assert_eq!(ShareKey::parse(none), None, "{none}");
        }
    }
}
