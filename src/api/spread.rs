//! Answering a change to topics when every live broker has made it: a client that goes on at another broker then
//! finds what it was told, and nothing is appended to a partition of the topic that was before.

use std::time::Duration;

use futures_util::future::join_all;
use metaq_protocol::frame;
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::{MetadataRequest, MetadataResponse};
use tokio::time::Instant;
use uuid::Uuid;

use super::context::Context;
use super::forward::FORWARDED;
use super::shared::topic_name;
use crate::cluster::{Broker, ask_peer};

/// Metadata in this version tells topic ids, and is understood by every broker of a cluster.
const METADATA_VERSION: i16 = 10;
/// The longest that an answer is held back; a broker that needs longer follows later.
const WAIT_MAX: Duration = Duration::from_secs(5);
const ASK_PAUSE: Duration = Duration::from_millis(5);

/// What a topic shall be on every broker.
pub(super) enum Expected {
    /// There, under this id, with so many partitions.
    There(String, Uuid, usize),
    /// No topic of this name with this id.
    Gone(String, Uuid),
}

impl Expected {
    fn name(&self) -> &str {
        match self {
            Self::There(name, ..) | Self::Gone(name, _) => name,
        }
    }

    fn is_met(&self, metadata: &MetadataResponse) -> bool {
        let topic = metadata.topics.iter().find(|topic| {
            topic
                .name
                .as_deref()
                .is_some_and(|name| &**name == self.name())
        });
        match (self, topic) {
            // Changed once more meanwhile, where it has another id.
            (Self::There(_, id, partitions), Some(topic)) => {
                !topic.topic_id.is_nil()
                    && (topic.topic_id != *id || topic.partitions.len() >= *partitions)
            }
            (Self::Gone(_, id), Some(topic)) => topic.topic_id != *id,
            (Self::There(..), None) => false,
            (Self::Gone(..), None) => true,
        }
    }
}

/// Waits until all live brokers have it so, at most as long as the client waits.
pub(super) async fn wait(cx: &Context, expected: &[Expected], timeout_ms: i32) {
    let image = cx.cluster.image();
    let own = cx.cluster.broker_id();
    let peers = image.brokers.values().filter(|broker| broker.id != own);
    if expected.is_empty() {
        return;
    }
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0)).min(WAIT_MAX);
    let deadline = Instant::now() + timeout;
    let all = peers.map(|peer| async move {
        if tokio::time::timeout_at(deadline, follows(peer, expected))
            .await
            .is_err()
        {
            tracing::warn!(
                broker = peer.id,
                "did not follow a change to topics in time"
            );
        }
    });
    join_all(all).await;
}

async fn follows(peer: &Broker, expected: &[Expected]) {
    let asked = |expected: &Expected| {
        MetadataRequestTopic::default().with_name(Some(topic_name(expected.name())))
    };
    let request = MetadataRequest::default()
        .with_topics(Some(expected.iter().map(asked).collect()))
        .with_allow_auto_topic_creation(false);
    let Ok(frame) = frame::encode_request(METADATA_VERSION, 0, FORWARDED, &request) else {
        return;
    };
    loop {
        if let Ok(answer) = ask_peer(peer, frame.clone()).await {
            let decoded =
                frame::decode_response::<MetadataRequest>(METADATA_VERSION, answer.slice(4..));
            if decoded.is_ok_and(|(_, metadata)| {
                expected.iter().all(|expected| expected.is_met(&metadata))
            }) {
                return;
            }
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
}
