//! Producer ids in blocks: one durable write for a thousand ids, and an id is never given twice.

use tokio::sync::Mutex;

use crate::meta::records::{ProducerIdsRecord, RECORD_VERSION, decode, encode};
use crate::meta::{MetaError, MetaStore, Op, paths};

/// Ids that one write reserves (as Kafka's PRODUCER_ID_BLOCK_SIZE).
const BLOCK: i64 = 1000;

/// Hands out producer ids.
pub struct ProducerIds {
    meta: MetaStore,
    /// Next id, and the end of the reserved block.
    block: Mutex<(i64, i64)>,
}

impl ProducerIds {
    /// Nothing is reserved until the first id is asked for.
    pub fn new(meta: MetaStore) -> Self {
        Self {
            meta,
            block: Mutex::new((0, 0)),
        }
    }

    /// An id that no producer had before.
    pub async fn next(&self) -> Result<i64, MetaError> {
        let mut block = self.block.lock().await;
        if block.0 == block.1 {
            *block = self.reserve().await?;
        }
        block.0 += 1;
        Ok(block.0 - 1)
    }

    async fn reserve(&self) -> Result<(i64, i64), MetaError> {
        loop {
            let node = self.meta.get(paths::PRODUCER_IDS).await?;
            let start = match &node {
                Some(node) => decode::<ProducerIdsRecord>(paths::PRODUCER_IDS, &node.data)?.next,
                None => 0,
            };
            let data = encode(&ProducerIdsRecord {
                version: RECORD_VERSION,
                next: start + BLOCK,
            });
            let path = paths::PRODUCER_IDS.to_owned();
            let op = match node {
                Some(node) => Op::Set {
                    path,
                    data,
                    version: Some(node.version),
                },
                None => Op::Create {
                    path,
                    data,
                    ephemeral: false,
                },
            };
            match self.meta.multi(vec![op]).await {
                Ok(()) => return Ok((start, start + BLOCK)),
                // Another broker was faster.
                Err(MetaError::BadVersion(_) | MetaError::NodeExists(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ids_go_on_after_the_reserved_block_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("meta");
        let store = MetaStore::open_embedded(&file).unwrap();
        let ids = ProducerIds::new(store.clone());
        assert_eq!(
            (ids.next().await.unwrap(), ids.next().await.unwrap()),
            (0, 1)
        );
        store.close().await;
        drop((ids, store));
        let ids = ProducerIds::new(MetaStore::open_embedded(&file).unwrap());
        assert_eq!(ids.next().await.unwrap(), 1000);
    }
}
