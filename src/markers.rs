//! Writes the markers that end transactions, and gets producer ids: what the machines of transactional ids ask for
//! (Kafka's TransactionMarkerChannelManager).
//!
//! A transaction's markers go to the leaders of its partitions, together: to this broker's own partitions and groups at once, to
//! another broker with those of other transactions in one WriteTxnMarkers, while none is on its way there. What was written is
//! reported each time; the rest is tried again, until the coordinator is another one. A deleted topic needs no marker.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use metaq_protocol::ResponseError;
use metaq_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use metaq_protocol::messages::{
    ProducerId, TopicName, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use metaq_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::api::{Context, TRANSACTIONS};
use crate::cluster::Image;
use crate::coordinator::{InternalTopic, Slot, SlotPartition};
use crate::group::{GroupError, TransactionEnd};
use crate::log::{LogError, Outcome, ProducerError, TransactionMarker};
use crate::peer::Lane;
use crate::transaction::{Errand, Errands, Markers};

/// Pause before markers are tried again that could not be written, doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a broker may take to write markers.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Markers in one request.
const MARKERS_AT_ONCE: usize = 1000;
/// Markers that wait for the request on its way to a broker.
const QUEUE: usize = 10_000;
/// WriteTxnMarkers in this version is understood by every broker of a cluster.
const WRITE_VERSION: i16 = 2;

/// A partition of a transaction.
type At = (Arc<str>, i32);

/// What became of a partition's marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marked {
    /// It is written, or not needed.
    Done,
    /// It may be written later, perhaps by another leader.
    Later,
    /// A later coordinator or producer was there.
    Fenced,
}

/// Runs what the machines ask for, until they are gone.
pub async fn run_errands(cx: Arc<Context>, mut errands: Errands) {
    let writer = Arc::new(MarkerWriter {
        cx: cx.clone(),
        writing: Mutex::default(),
        brokers: Mutex::default(),
    });
    let mut tasks = JoinSet::new();
    loop {
        let errand = tokio::select! {
            Some(_) = tasks.join_next() => continue,
            errand = errands.recv() => errand,
        };
        match errand {
            None => return,
            Some(Errand::ProducerId(slot)) => drop(tasks.spawn(give_producer_id(cx.clone(), slot))),
            Some(Errand::Markers(markers)) => {
                if writer.writing.lock().insert(markers.number) {
                    tasks.spawn(writer.clone().write(markers));
                }
            }
        }
    }
}

async fn give_producer_id(cx: Arc<Context>, slot: Slot) {
    let id = cx.producer_ids.next().await;
    if let Err(error) = &id {
        tracing::warn!(%error, "no producer id can be had");
    }
    cx.transactions.producer_id(slot, id.ok()).await;
}

struct MarkerWriter {
    cx: Arc<Context>,
    /// Numbers of the markers that are being written: they may be asked for again meanwhile.
    writing: Mutex<HashSet<u64>>,
    /// The ways to other brokers.
    brokers: Mutex<HashMap<i32, mpsc::Sender<ToBroker>>>,
}

/// Markers on their way to a broker.
struct ToBroker {
    marker: WritableTxnMarker,
    answer: oneshot::Sender<Vec<(At, Marked)>>,
}

impl MarkerWriter {
    /// Writes the markers of a transaction.
    async fn write(self: Arc<Self>, markers: Markers) {
        let mut left: BTreeMap<At, Uuid> = BTreeMap::new();
        for (topic, found) in markers.partitions.topics() {
            let indices = found.partitions.iter();
            left.extend(indices.map(|index| ((topic.clone(), *index), found.topic_id)));
        }
        let mut pause = PAUSE_MIN;
        while self.is_coordinator(&markers) {
            let outcomes = self.write_once(&markers, &left).await;
            let (mut written, mut is_fenced) = (Vec::new(), false);
            for (at, marked) in outcomes {
                match marked {
                    Marked::Done if left.remove(&at).is_some() => written.push(at),
                    Marked::Fenced => {
                        let (id, (topic, index)) = (&*markers.transactional_id, &at);
                        tracing::info!(id, topic = &**topic, index, "a marker is fenced");
                        is_fenced = true;
                    }
                    _ => {}
                }
            }
            let is_done = left.is_empty() || is_fenced;
            if is_done {
                // Before the machine knows: it may ask for others.
                self.writing.lock().remove(&markers.number);
            }
            if !written.is_empty() {
                let (id, number) = (&*markers.transactional_id, markers.number);
                self.cx.transactions.marked(id, number, written).await;
            }
            if is_done {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.writing.lock().remove(&markers.number);
    }

    /// Whether the coordinator that decided still coordinates.
    fn is_coordinator(&self, markers: &Markers) -> bool {
        let image = self.cx.cluster.image();
        let slot = image.slot(markers.slot);
        slot.is_some_and(|slot| {
            slot.owner == self.cx.cluster.broker_id() && slot.epoch == markers.coordinator_epoch
        })
    }

    /// Writes the markers that are left, each at its leader.
    async fn write_once(&self, markers: &Markers, left: &BTreeMap<At, Uuid>) -> Vec<(At, Marked)> {
        let image = self.cx.cluster.image();
        let own = self.cx.cluster.broker_id();
        let mut outcomes = Vec::new();
        let mut by_leader: BTreeMap<i32, Vec<(At, Uuid)>> = BTreeMap::new();
        for (at, topic_id) in left {
            match leader_of(&image, at, *topic_id) {
                None => outcomes.push((at.clone(), Marked::Done)),
                Some(leader) => by_leader
                    .entry(leader)
                    .or_default()
                    .push((at.clone(), *topic_id)),
            }
        }
        let here = by_leader.remove(&own).unwrap_or_default();
        let here = here.into_iter().map(|(at, topic_id)| async move {
            let marked = self.write_here(markers, &at, topic_id).await;
            (at, marked)
        });
        // A partition without a leader waits for one.
        by_leader.remove(&-1);
        let there = by_leader.into_iter().map(|(broker, partitions)| {
            let partitions = partitions.into_iter().map(|(at, _)| at).collect();
            self.write_there(markers, broker, partitions)
        });
        let (here, there) = tokio::join!(join_all(here), join_all(there));
        outcomes.extend(here);
        outcomes.extend(there.into_iter().flatten());
        outcomes
    }

    /// Writes a marker that belongs to this broker.
    async fn write_here(&self, markers: &Markers, at: &At, topic_id: Uuid) -> Marked {
        let (topic, index) = at;
        if topic_id.is_nil() {
            let Some(slot) = SlotPartition::find(topic, *index) else {
                return Marked::Done;
            };
            return self.end_in_groups(markers, slot.slot).await;
        }
        let of_id = self.cx.partitions.topic_by_id(topic_id);
        let partition = match of_id {
            Some(topic) => topic.get(*index).cloned().ok(),
            None => self.cx.partitions.get(topic, *index).ok(),
        };
        let Some(partition) = partition.filter(|_| self.cx.cluster.may_act()) else {
            return Marked::Later;
        };
        match partition.append_marker(&marker_of(markers)).await {
            Ok(Ok(_)) => Marked::Done,
            Ok(Err(LogError::Producer(
                ProducerError::FencedEpoch { .. } | ProducerError::FencedCoordinator { .. },
            ))) => Marked::Fenced,
            Ok(Err(_)) | Err(_) => Marked::Later,
        }
    }

    /// Ends the transaction in the groups of a slot.
    async fn end_in_groups(&self, markers: &Markers, slot: Slot) -> Marked {
        let end = TransactionEnd::from(&marker_of(markers));
        match self.cx.coordinator.end_transaction(slot, end).await {
            Ok(()) => Marked::Done,
            Err(GroupError::InvalidProducerEpoch | GroupError::TransactionCoordinatorFenced) => {
                Marked::Fenced
            }
            Err(_) => Marked::Later,
        }
    }

    /// Has another broker write markers.
    async fn write_there(
        &self,
        markers: &Markers,
        broker: i32,
        partitions: Vec<At>,
    ) -> Vec<(At, Marked)> {
        let (answer, answered) = oneshot::channel();
        let request = ToBroker {
            marker: writable(markers, &partitions),
            answer,
        };
        let queue = self.queue_to(broker);
        if queue.send(request).await.is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
    }

    fn queue_to(&self, broker: i32) -> mpsc::Sender<ToBroker> {
        let mut brokers = self.brokers.lock();
        let known = brokers.get(&broker).filter(|queue| !queue.is_closed());
        known.cloned().unwrap_or_else(|| {
            let (queue, requests) = mpsc::channel(QUEUE);
            tokio::spawn(send_to(self.cx.clone(), broker, requests));
            brokers.insert(broker, queue.clone());
            queue
        })
    }
}

fn marker_of(markers: &Markers) -> TransactionMarker {
    TransactionMarker {
        producer_id: markers.producer.id,
        producer_epoch: markers.producer.epoch,
        coordinator_epoch: markers.coordinator_epoch,
        outcome: markers.outcome,
        version: markers.version,
    }
}

/// Who leads a partition, -1 for nobody now; `None` where its topic is gone.
fn leader_of(image: &Image, (topic, index): &At, topic_id: Uuid) -> Option<i32> {
    if topic_id.is_nil() {
        let slot = SlotPartition::find(topic, *index);
        let slot = slot.filter(|slot| slot.topic == InternalTopic::ConsumerOffsets)?;
        return Some(image.slot(slot.slot).map_or(-1, |slot| slot.owner));
    }
    let of_id = image.topic_by_id(topic_id);
    // Made again: its leader may have known the new one before the coordinator did. As Kafka, which knows names alone.
    let found = of_id.or_else(|| image.topic(topic))?;
    Some(found.partition(*index)?.leader)
}

fn writable(markers: &Markers, partitions: &[At]) -> WritableTxnMarker {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in partitions {
        topics.entry(topic).or_default().push(*index);
    }
    let topic = |(name, indices): (&str, Vec<i32>)| {
        WritableTxnMarkerTopic::default()
            .with_name(TopicName(StrBytes::from_string(name.to_owned())))
            .with_partition_indexes(indices)
    };
    WritableTxnMarker::default()
        .with_producer_id(ProducerId(markers.producer.id))
        .with_producer_epoch(markers.producer.epoch)
        .with_transaction_result(markers.outcome == Outcome::Commit)
        .with_coordinator_epoch(markers.coordinator_epoch)
        .with_transaction_version(markers.version as i8)
        .with_topics(topics.into_iter().map(topic).collect())
}

/// Sends markers to a broker, all that wait in one request, one request after the other.
async fn send_to(cx: Arc<Context>, broker: i32, mut requests: mpsc::Receiver<ToBroker>) {
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(request) => request,
            None => match requests.recv().await {
                Some(request) => request,
                None => return,
            },
        };
        // The answer is by producer id.
        let mut producers = HashSet::from([first.marker.producer_id]);
        let mut batch = vec![first];
        while batch.len() < MARKERS_AT_ONCE
            && let Ok(request) = requests.try_recv()
        {
            if !producers.insert(request.marker.producer_id) {
                next = Some(request);
                break;
            }
            batch.push(request);
        }
        let markers = batch.iter().map(|request| request.marker.clone());
        let mut answers = ask(&cx, broker, markers.collect()).await;
        for request in batch {
            let found = answers.remove(&request.marker.producer_id);
            let _ = request.answer.send(found.unwrap_or_default());
        }
    }
}

/// What a broker answers, by producer id; nothing where it does not.
async fn ask(
    cx: &Context,
    id: i32,
    markers: Vec<WritableTxnMarker>,
) -> HashMap<ProducerId, Vec<(At, Marked)>> {
    let asked = async {
        let image = cx.cluster.image();
        let broker = image.brokers.get(&id).ok_or("it is not there")?;
        let request = WriteTxnMarkersRequest::default().with_markers(markers);
        let (to, by) = ((Lane::Markers, broker), (TRANSACTIONS, WRITE_VERSION));
        let answer = cx.call(to, by, &request, ANSWER_MAX).await;
        answer.map_err(|error| error.to_string())
    };
    match asked.await {
        Ok(response) => answers_in(&response),
        Err::<_, String>(error) => {
            tracing::warn!(broker = id, error, "cannot write markers");
            HashMap::new()
        }
    }
}

fn answers_in(response: &WriteTxnMarkersResponse) -> HashMap<ProducerId, Vec<(At, Marked)>> {
    let mut answers: HashMap<ProducerId, Vec<(At, Marked)>> = HashMap::new();
    for marker in &response.markers {
        let answers = answers.entry(marker.producer_id).or_default();
        for topic in &marker.topics {
            let name: Arc<str> = topic.name.as_str().into();
            answers.extend(topic.partitions.iter().map(|partition| {
                let at = (name.clone(), partition.partition_index);
                (at, marked_by(partition.error_code))
            }));
        }
    }
    answers
}

/// As TransactionMarkerRequestCompletionHandler; whether a topic is gone shows in the image.
fn marked_by(code: i16) -> Marked {
    use ResponseError as E;
    match ResponseError::try_from_code(code) {
        None if code == 0 => Marked::Done,
        Some(E::UnsupportedForMessageFormat | E::UnsupportedVersion) => Marked::Done,
        Some(E::InvalidProducerEpoch | E::TransactionCoordinatorFenced) => Marked::Fenced,
        _ => Marked::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_answers_decides_whether_a_marker_is_tried_again() {
        let marked = |error: ResponseError| marked_by(error.code());
        use ResponseError as E;
        assert_eq!(marked_by(0), Marked::Done);
        assert_eq!(marked(E::UnsupportedForMessageFormat), Marked::Done);
        for error in [
            E::UnknownTopicOrPartition,
            E::NotLeaderOrFollower,
            E::NotEnoughReplicas,
            E::NotEnoughReplicasAfterAppend,
            E::RequestTimedOut,
            E::KafkaStorageError,
        ] {
            assert_eq!(marked(error), Marked::Later, "{error:?}");
        }
        for error in [E::InvalidProducerEpoch, E::TransactionCoordinatorFenced] {
            assert_eq!(marked(error), Marked::Fenced, "{error:?}");
        }
        assert_eq!(marked_by(9999), Marked::Later);
    }
}
