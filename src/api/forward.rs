//! Sending requests on to the controller, as Kafka's brokers do (KIP-590), so that clients need not know it.

use std::time::Duration;

use bytes::Bytes;
use metaq_protocol::frame::{self, RequestFrame};
use metaq_protocol::messages::CreateTopicsRequest;
use metaq_protocol::messages::create_topics_request::CreatableTopic;

use super::context::{Caller, Context};
use super::envelope;
use super::shared::topic_name;
use crate::cluster::Broker;
use crate::peer::Lane;

/// An answer's length, before it.
pub(super) const LENGTH_BYTES: usize = 4;
/// Client id of what brokers send on, and of what they ask each other; it is not sent on again.
pub const FORWARDED: &str = "metaq-forwarded";
/// CreateTopics in this version is understood by every broker of a cluster.
const CREATE_TOPICS_VERSION: i16 = 5;
const ENVELOPE_VERSION: i16 = 0;
const CREATE_TIMEOUT_MS: i32 = 10_000;
/// How long a client that asked for a missing topic waits for the controller.
const CREATE_WAIT: Duration = Duration::from_secs(3);

/// How long the controller may take for a request that is sent on to it (as Kafka's BrokerToControllerChannelManager).
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Whether another broker asks: as it says itself, where only brokers come in. What it may do its right to cluster actions
/// decides.
pub(super) fn is_of_broker(caller: &Caller) -> bool {
    let says_so = caller.client_id.as_deref() == Some(FORWARDED);
    caller.is_forwarded || says_so && caller.session.may_be_broker()
}

/// The controller's answer, where this broker is not the controller and can reach it.
pub(super) async fn to_controller(
    cx: &Context,
    caller: &Caller,
    frame: &RequestFrame,
) -> Option<Bytes> {
    if is_of_broker(caller) || cx.cluster.is_controller() {
        return None;
    }
    let controller = controller(cx)?;
    let lane = (Lane::Forwards, &controller);
    let request = envelope::around(caller, frame)?;
    let answer = cx
        .call(lane, (FORWARDED, ENVELOPE_VERSION), &request, ANSWER_MAX)
        .await;
    let failed = match answer.map(envelope::content) {
        Ok(Ok(answer)) => return Some(answer),
        Ok(Err(code)) => format!("error {code}"),
        Err(error) => error.to_string(),
    };
    tracing::warn!(
        controller = controller.id,
        failed,
        "the controller did not answer"
    );
    None
}

pub(super) fn controller(cx: &Context) -> Option<Broker> {
    let image = cx.cluster.image();
    let controller = image.brokers.get(&image.controller_id)?;
    (controller.id != cx.cluster.broker_id()).then(|| controller.clone())
}

/// Asks the controller to create topics with the defaults; whether it did shows in the cluster's image.
pub(super) async fn create_at_controller(cx: &Context, names: &[String]) {
    let Some(controller) = controller(cx) else {
        return;
    };
    let topic = |name: &String| {
        CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
    };
    let request = CreateTopicsRequest::default()
        .with_topics(names.iter().map(topic).collect())
        .with_timeout_ms(CREATE_TIMEOUT_MS);
    let Ok(frame) = frame::encode_request(CREATE_TOPICS_VERSION, 0, FORWARDED, &request) else {
        return;
    };
    // A client that hears nothing asks again, and by then perhaps another controller.
    if let Err(error) = cx.ask_broker(&controller, frame, CREATE_WAIT).await {
        tracing::warn!(controller = controller.id, %error, "the controller did not create topics");
    }
}
