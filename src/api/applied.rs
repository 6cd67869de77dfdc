//! Answering a change to topics when every live broker has made it: a client that goes on at another broker then
//! finds what it was answered, and nothing is appended to a partition of the topic that was before.
//!
//! The controller sends each broker one Metadata request that says what it expects in a tagged field (KIP-482); the broker
//! answers it when its image has it so.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use metaq_protocol::frame;
use metaq_protocol::messages::{MetadataRequest, MetadataResponse};
use tokio::time::Instant;
use uuid::Uuid;

use super::context::{Caller, Context};
use super::forward::{FORWARDED, is_of_broker};
use crate::cluster::{Broker, Image};

/// Metadata has tagged fields in this version, and every broker of a cluster understands it.
const METADATA_VERSION: i16 = 12;
/// What is expected, in the request; one byte that says whether it is so, in the answer.
const EXPECTED_TAG: i32 = 10_001;
/// The longest that an answer is held back; a broker that needs longer follows later.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How much longer than it should a broker may take to say that it did not follow in time.
const LATE_MAX: Duration = Duration::from_millis(500);
/// After this a broker that answers nothing at all is connected to anew.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Pause before a broker that could not be asked is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// What a topic shall be on every broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// There, under this id, with so many partitions.
    There(String, Uuid, usize),
    /// No topic of this name with this id.
    Gone(String, Uuid),
}

impl Expected {
    fn is_met(&self, image: &Image) -> bool {
        match self {
            // Changed once more meanwhile, where it has another id.
            Self::There(name, id, partitions) => image
                .topic(name)
                .is_some_and(|topic| topic.id != *id || topic.partitions.len() >= *partitions),
            Self::Gone(name, id) => image.topic(name).is_none_or(|topic| topic.id != *id),
        }
    }
}

/// The content of the tagged field: how long to wait, ms (u32), then for each topic the length of its name (u16), the name,
/// the id (16 bytes), and the number of partitions (i32, -1 where the topic is to be gone).
fn encode(wait: Duration, expected: &[Expected]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX));
    for one in expected {
        let (name, id, partitions) = match one {
            Expected::There(name, id, partitions) => (name, id, *partitions as i32),
            Expected::Gone(name, id) => (name, id, -1),
        };
        out.put_u16(name.len() as u16);
        out.put_slice(name.as_bytes());
        out.put_u128(id.as_u128());
        out.put_i32(partitions);
    }
    out.freeze()
}

/// `None` for what [`encode`] did not write.
fn decode(mut bytes: Bytes) -> Option<(Duration, Vec<Expected>)> {
    let wait = Duration::from_millis(bytes.try_get_u32().ok()?.into());
    let mut expected = Vec::new();
    while bytes.has_remaining() {
        let length = usize::from(bytes.try_get_u16().ok()?);
        if bytes.remaining() < length {
            return None;
        }
        let name = String::from_utf8(bytes.split_to(length).to_vec()).ok()?;
        let id = Uuid::from_u128(bytes.try_get_u128().ok()?);
        expected.push(match bytes.try_get_i32().ok()? {
            -1 => Expected::Gone(name, id),
            partitions => Expected::There(name, id, usize::try_from(partitions).ok()?),
        });
    }
    Some((wait, expected))
}

/// Waits until all live brokers have it so, at most as long as the client waits.
pub(super) async fn wait_until_applied(cx: &Context, expected: &[Expected], timeout_ms: i32) {
    let image = cx.cluster.image();
    let own = cx.cluster.broker_id();
    let peers = image.brokers.values().filter(|broker| broker.id != own);
    if expected.is_empty() {
        return;
    }
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0)).min(WAIT_MAX);
    let deadline = Instant::now() + timeout;
    let all = peers.map(|peer| async move {
        let applied = tokio::time::timeout_at(deadline + LATE_MAX, async {
            while !applies(cx, peer, expected, deadline).await {
                tokio::time::sleep(ASK_PAUSE).await;
            }
        });
        if applied.await.is_err() {
            tracing::warn!(
                broker = peer.id,
                "did not follow a change to topics in time"
            );
        }
    });
    join_all(all).await;
}

/// Whether a broker says that it has it so.
async fn applies(cx: &Context, peer: &Broker, expected: &[Expected], deadline: Instant) -> bool {
    let wait = deadline.saturating_duration_since(Instant::now());
    let mut request = MetadataRequest::default()
        .with_topics(Some(Vec::new()))
        .with_allow_auto_topic_creation(false);
    let expected = encode(wait, expected);
    request.unknown_tagged_fields.insert(EXPECTED_TAG, expected);
    let Ok(frame) = frame::encode_request(METADATA_VERSION, 0, FORWARDED, &request) else {
        return false;
    };
    let Ok(answer) = cx.ask_broker(peer, frame, wait + SILENCE_MAX).await else {
        return false;
    };
    let answer = frame::decode_response::<MetadataRequest>(METADATA_VERSION, answer.slice(4..));
    answer.is_ok_and(|(_, answer)| {
        let said = answer.unknown_tagged_fields.get(&EXPECTED_TAG);
        said.is_some_and(|said| said[..] == [1])
    })
}

/// The answer to a broker that wants to know when a change is made here, once it is; `None` for any other request.
pub(super) async fn answer_when_applied(
    cx: &Context,
    caller: &Caller,
    request: &MetadataRequest,
) -> Option<MetadataResponse> {
    if !is_of_broker(caller) {
        return None;
    }
    let asked = request.unknown_tagged_fields.get(&EXPECTED_TAG)?;
    let (wait, mut expected) = decode(asked.clone())?;
    let mut images = cx.cluster.image_changes();
    let mut draining = cx.draining.clone();
    let applied = async {
        loop {
            images.borrow_and_update();
            let image = cx.cluster.image();
            expected.retain(|one| !one.is_met(&image));
            if expected.is_empty() {
                return true;
            }
            if images.changed().await.is_err() {
                return false;
            }
        }
    };
    let applied = tokio::select! {
        applied = tokio::time::timeout(wait.min(WAIT_MAX), applied) => applied.unwrap_or(false),
        _ = draining.wait_for(|draining| *draining) => false,
    };
    let mut answer = MetadataResponse::default();
    let said = Bytes::copy_from_slice(&[u8::from(applied)]);
    answer.unknown_tagged_fields.insert(EXPECTED_TAG, said);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_comes_over_whole_and_what_is_cut_off_is_refused() {
        let expected = vec![
            Expected::There("a".to_owned(), Uuid::from_u128(7), 3),
            Expected::Gone("b.c".to_owned(), Uuid::from_u128(8)),
        ];
        let wait = Duration::from_millis(1234);
        let bytes = encode(wait, &expected);
        assert_eq!(decode(bytes.clone()), Some((wait, expected)));
        for cut in 5..bytes.len() {
            // One whole topic is as good as two.
            let is_whole = cut == 4 + 2 + 1 + 16 + 4;
            assert_eq!(decode(bytes.slice(..cut)).is_some(), is_whole, "{cut}");
        }
    }
}
