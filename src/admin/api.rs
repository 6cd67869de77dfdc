//! `/api`: one table of what can be asked. The router and the OpenAPI document are both made of it, so neither has what the
//! other lacks.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{delete, get, patch, post};

use super::actions::{self, AddPartitions, AlterTopic, CreateTopic, Done, ReloadView};
use super::blocking::blocking;
use super::errors::ApiError;
use super::extract::{Acting, Asked, Named, body};
use super::offsets::{self, ResetOffsets, ResetPlan};
use super::openapi;
use super::operation::{Answer, Operation, act, read, schema};
use super::process::ProcessView;
use super::status::ClusterStatus;
use super::views::broker::BrokerView;
use super::views::clients::{ClientDetail, ClientsView};
use super::views::configuration::ConfigurationView;
use super::views::events::{EventsAsked, EventsView};
use super::views::group::{self, GroupDetail, GroupView};
use super::views::history::{HistoryAsked, HistoryView};
use super::views::log_lines::{LogAsked, LogView};
use super::views::messages::{self, MessagesAsked, MessagesView};
use super::views::partition::PartitionDetail;
use super::views::topics::{self, TopicDetail, TopicView, TopicsAsked};
use super::views::transactions::{self, TransactionDetail, TransactionView};
use super::views::{Page, Part};
use super::visitor::Visitor;
use super::{Shared, live, tree};
use crate::log::Outcome;

/// Everything that can be asked.
#[rustfmt::skip]
pub(super) fn operations() -> Vec<Operation> {
    vec![
        read("/api/broker", "broker", "This broker at a glance, and what is wrong", schema::<BrokerView>, || get(broker)),
        read("/api/cluster", "cluster", "The cluster as this broker sees it", schema::<ClusterStatus>, || get(cluster)),
        read("/api/topics", "topics", "Topics", schema::<Page<TopicView>>, || get(list_topics)).asking::<TopicsAsked>(),
        read("/api/topics/{topic}", "topics", "A topic, its partitions and configurations", schema::<TopicDetail>, || get(topic)).asking::<Part>(),
        read("/api/topics/{topic}/partitions/{partition}", "topics", "A partition: segments, producers, epochs", schema::<PartitionDetail>, || get(partition)),
        read("/api/topics/{topic}/partitions/{partition}/messages", "topics", "Messages of a partition, by offset, time or key", schema::<MessagesView>, || get(read_messages)).asking::<MessagesAsked>(),
        read("/api/groups", "groups", "Groups that this broker coordinates", schema::<Page<GroupView>>, || get(list_groups)).asking::<Part>(),
        read("/api/groups/{group}", "groups", "A group: members, owners, lag, rebalances with their reasons", schema::<GroupDetail>, || get(one_group)),
        read("/api/transactions", "transactions", "Transactional ids that this broker coordinates: hanging ones, open ones by age, the others", schema::<Page<TransactionView>>, || get(list_transactions)).asking::<Part>(),
        read("/api/transactions/{id}", "transactions", "A transactional id, and the partitions of its transaction", schema::<TransactionDetail>, || get(one_transaction)),
        read("/api/clients", "clients", "Who is connected, who was sent away, what was refused and why", schema::<ClientsView>, || get(clients)).asking::<Part>(),
        read("/api/clients/{number}", "clients", "One connection", schema::<ClientDetail>, || get(client)),
        read("/api/events", "broker", "What happened, who did it, why, and how long it took", schema::<EventsView>, || get(events)).asking::<EventsAsked>(),
        read("/api/history", "broker", "The last hours", schema::<HistoryView>, || get(history)).asking::<HistoryAsked>(),
        read("/api/configuration", "broker", "The broker's configuration and where it comes from", schema::<ConfigurationView>, || get(configuration)),
        read("/api/log", "broker", "The log's latest lines", schema::<LogView>, || get(log)).asking::<LogAsked>(),
        read("/api/process", "broker", "The process, its threads, the machine", schema::<ProcessView>, || get(process)),
        read("/api/live", "broker", "Live values, one a second, as server-sent events", schema::<live::LiveView>, || get(live::serve)).answering(Answer::Events(schema::<live::LiveView>)),
        read("/api/meta/{what}", "cluster", "The coordination tree of an embedded store: get a node, ls its children, its tree, or watch it", schema::<Done>, || get(tree::serve)).asking::<tree::Asked>().answering(Answer::Any),
        act("post", "/api/topics", "topics", "Create a topic", Some(schema::<CreateTopic>), || post(create_topic)),
        act("delete", "/api/topics/{topic}", "topics", "Delete a topic", None, || delete(delete_topic)),
        act("patch", "/api/topics/{topic}", "topics", "Change a topic's configurations", Some(schema::<AlterTopic>), || patch(alter_topic)),
        act("post", "/api/topics/{topic}/partitions", "topics", "Give a topic more partitions", Some(schema::<AddPartitions>), || post(add_partitions)),
        act("post", "/api/topics/{topic}/partitions/{partition}/close", "topics", "Let a partition take no messages; it can be read", None, || post(close_partition)),
        act("post", "/api/topics/{topic}/partitions/{partition}/open", "topics", "Let a closed partition take messages again", None, || post(open_partition)),
        act("post", "/api/configuration/reload", "broker", "Read the configuration file again", None, || post(reload)).answering(Answer::Json(schema::<ReloadView>)),
        act("post", "/api/groups/{group}/offsets", "groups", "Set where a group without members goes on, or tell where it would", Some(schema::<ResetOffsets>), || post(reset_offsets)).answering(Answer::Json(schema::<ResetPlan>)),
        act("post", "/api/transactions/{id}/commit", "transactions", "Commit an open transaction of two phases without its client", None, || post(commit_transaction)),
        act("post", "/api/transactions/{id}/abort", "transactions", "Abort an open transaction without its client", None, || post(abort_transaction)),
        act("post", "/api/transactions/{id}/forget", "transactions", "Forget what an operator decided of a transaction", None, || post(forget_decision)),
        act("delete", "/api/groups/{group}", "groups", "Delete a group without members", None, || delete(delete_group)),
    ]
}

type Answered<T> = Result<Json<T>, ApiError>;

async fn broker(State(shared): State<Shared>) -> Json<BrokerView> {
    Json(BrokerView::of(&shared).await)
}

async fn cluster(State(shared): State<Shared>) -> Json<ClusterStatus> {
    Json(ClusterStatus::of(&shared.cx))
}

async fn list_topics(
    State(shared): State<Shared>,
    visitor: Visitor,
    Asked(asked): Asked<TopicsAsked>,
) -> Answered<Page<TopicView>> {
    Ok(Json(
        blocking(&shared, move |shared| {
            topics::list(shared, &visitor, &asked)
        })
        .await?,
    ))
}

/// A topic, with the groups that read it.
pub(super) async fn topic_detail(
    shared: &Shared,
    visitor: &Visitor,
    name: String,
    part: Part,
) -> Result<TopicDetail, ApiError> {
    let (wanted, looking) = (name.clone(), visitor.clone());
    let found = blocking(shared, move |shared| {
        TopicDetail::of(shared, &looking, &wanted, &part)
    })
    .await?;
    let mut found = found.ok_or_else(|| ApiError::not_found(format!("topic {name}")))?;
    for group in shared.cx.coordinator.survey().await {
        let reads = group.offsets.iter().any(|(topic, ..)| *topic == name);
        if reads && visitor.sees_group(&shared.cx, &group.group_id) {
            found.groups.push(group.group_id);
        }
    }
    Ok(found)
}

async fn topic(
    State(shared): State<Shared>,
    visitor: Visitor,
    Named(name): Named<String>,
    Asked(part): Asked<Part>,
) -> Answered<TopicDetail> {
    Ok(Json(topic_detail(&shared, &visitor, name, part).await?))
}

/// A partition with what is in it.
pub(super) async fn partition_detail(
    shared: &Shared,
    visitor: Visitor,
    topic: String,
    index: i32,
) -> Result<PartitionDetail, ApiError> {
    let name = topic.clone();
    let found = blocking(shared, move |shared| {
        PartitionDetail::of(&shared.cx, &visitor, &name, index)
    })
    .await?;
    found.ok_or_else(|| ApiError::not_found(format!("partition {index} of {topic}")))
}

async fn partition(
    State(shared): State<Shared>,
    visitor: Visitor,
    Named((topic, index)): Named<(String, i32)>,
) -> Answered<PartitionDetail> {
    Ok(Json(
        partition_detail(&shared, visitor, topic, index).await?,
    ))
}

/// Messages; few are read at a time, so that visitors cannot keep the disk and the memory busy.
pub(super) async fn messages_of(
    shared: &Shared,
    topic: &str,
    index: i32,
    asked: MessagesAsked,
) -> Result<MessagesView, ApiError> {
    let partition = match shared.cx.partitions.get(topic, index) {
        Ok(partition) => partition,
        Err(error) => {
            let image = shared.cx.cluster.image();
            let info = image.topic(topic).and_then(|topic| topic.partition(index));
            return Err(match info {
                Some(info) if info.leader != shared.cx.cluster.broker_id() => {
                    let message = format!(
                        "Broker {} leads this partition; ask its dashboard.",
                        info.leader
                    );
                    ApiError::new(StatusCode::MISDIRECTED_REQUEST, "other_broker", message)
                }
                _ => error.into(),
            });
        }
    };
    let Ok(_turn) = shared.browsing.acquire().await else {
        return Err(ApiError::busy("the dashboard is closing"));
    };
    Ok(blocking(shared, move |_| messages::read(&partition, &asked)).await??)
}

async fn read_messages(
    State(shared): State<Shared>,
    Named((topic, index)): Named<(String, i32)>,
    Asked(asked): Asked<MessagesAsked>,
) -> Answered<MessagesView> {
    Ok(Json(messages_of(&shared, &topic, index, asked).await?))
}

async fn list_groups(
    State(shared): State<Shared>,
    visitor: Visitor,
    Asked(part): Asked<Part>,
) -> Json<Page<GroupView>> {
    Json(group::list(&shared.cx, &visitor, &part, false).await)
}

async fn one_group(
    State(shared): State<Shared>,
    visitor: Visitor,
    Named(name): Named<String>,
) -> Answered<GroupDetail> {
    Ok(Json(GroupDetail::of(&shared.cx, &visitor, &name).await?))
}

async fn list_transactions(
    State(shared): State<Shared>,
    visitor: Visitor,
    Asked(part): Asked<Part>,
) -> Answered<Page<TransactionView>> {
    Ok(Json(transactions::list(&shared.cx, &visitor, &part).await?))
}

async fn one_transaction(
    State(shared): State<Shared>,
    visitor: Visitor,
    Named(id): Named<String>,
) -> Answered<TransactionDetail> {
    Ok(Json(
        TransactionDetail::of(&shared.cx, &visitor, &id).await?,
    ))
}

async fn commit_transaction(
    State(shared): State<Shared>,
    Acting(actor): Acting,
    Named(id): Named<String>,
) -> Answered<Done> {
    let done = actions::end_transaction(&shared.cx, &actor, &id, Outcome::Commit);
    Ok(Json(done.await?))
}

async fn abort_transaction(
    State(shared): State<Shared>,
    Acting(actor): Acting,
    Named(id): Named<String>,
) -> Answered<Done> {
    let done = actions::end_transaction(&shared.cx, &actor, &id, Outcome::Abort);
    Ok(Json(done.await?))
}

async fn forget_decision(
    State(shared): State<Shared>,
    Acting(actor): Acting,
    Named(id): Named<String>,
) -> Answered<Done> {
    Ok(Json(
        actions::forget_decision(&shared.cx, &actor, &id).await?,
    ))
}

async fn clients(
    State(shared): State<Shared>,
    visitor: Visitor,
    Asked(part): Asked<Part>,
) -> Json<ClientsView> {
    Json(ClientsView::of(&shared.cx, &visitor, &part))
}

async fn client(State(shared): State<Shared>, Named(number): Named<u64>) -> Answered<ClientDetail> {
    let found = ClientDetail::of(&shared.cx, number);
    Ok(Json(found.ok_or_else(|| {
        ApiError::not_found(format!("connection {number}"))
    })?))
}

async fn events(
    State(shared): State<Shared>,
    Asked(asked): Asked<EventsAsked>,
) -> Answered<EventsView> {
    let found = EventsView::of(&shared.cx, &asked);
    Ok(Json(found.ok_or_else(|| {
        ApiError::bad("There is no such kind of event.")
    })?))
}

async fn history(
    State(shared): State<Shared>,
    visitor: Visitor,
    Asked(asked): Asked<HistoryAsked>,
) -> Json<HistoryView> {
    Json(HistoryView::of(&shared.cx, &visitor, &asked))
}

async fn configuration(State(shared): State<Shared>) -> Json<ConfigurationView> {
    Json(ConfigurationView::of(&shared.cx))
}

async fn log(Asked(asked): Asked<LogAsked>) -> Json<LogView> {
    Json(LogView::of(&asked))
}

async fn process(State(shared): State<Shared>) -> Answered<ProcessView> {
    let ended = shared.cx.partitions.supervisor().ended();
    Ok(Json(
        blocking(&shared, move |_| ProcessView::take(ended)).await?,
    ))
}

async fn create_topic(
    State(shared): State<Shared>,
    Acting(actor): Acting,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answered<Done> {
    let wanted = body(&headers, &bytes)?;
    Ok(Json(
        actions::create_topic(&shared.cx, &actor, &wanted).await?,
    ))
}

async fn delete_topic(
    State(shared): State<Shared>,
    Acting(actor): Acting,
    Named(name): Named<String>,
) -> Answered<Done> {
    Ok(Json(
        actions::delete_topic(&shared.cx, &actor, &name).await?,
    ))
}

async fn alter_topic(
    State(shared): State<Shared>,
    Acting(actor): Acting,
    Named(name): Named<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answered<Done> {
    let changes = body(&headers, &bytes)?;
    Ok(Json(
        actions::alter_topic(&shared.cx, &actor, &name, &changes).await?,
    ))
}

async fn add_partitions(
    State(shared): State<Shared>,
    Acting(actor): Acting,
    Named(name): Named<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answered<Done> {
    let wanted = body(&headers, &bytes)?;
    Ok(Json(
        actions::add_partitions(&shared.cx, &actor, &name, &wanted).await?,
    ))
}

async fn close_partition(
    State(shared): State<Shared>,
    Acting(actor): Acting,
    Named((topic, partition)): Named<(String, i32)>,
) -> Answered<Done> {
    let done = actions::set_closed(&shared.cx, &actor, &topic, partition, true);
    Ok(Json(done.await?))
}

async fn open_partition(
    State(shared): State<Shared>,
    Acting(actor): Acting,
    Named((topic, partition)): Named<(String, i32)>,
) -> Answered<Done> {
    let done = actions::set_closed(&shared.cx, &actor, &topic, partition, false);
    Ok(Json(done.await?))
}

async fn reload(State(shared): State<Shared>, Acting(actor): Acting) -> Answered<ReloadView> {
    Ok(Json(actions::reload(&shared.cx, &actor).await?))
}

async fn reset_offsets(
    State(shared): State<Shared>,
    Acting(actor): Acting,
    Named(name): Named<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answered<ResetPlan> {
    let wanted = body(&headers, &bytes)?;
    Ok(Json(
        offsets::reset(&shared.cx, &actor, &name, &wanted).await?,
    ))
}

async fn delete_group(
    State(shared): State<Shared>,
    Acting(actor): Acting,
    Named(name): Named<String>,
) -> Answered<Done> {
    Ok(Json(
        actions::delete_group(&shared.cx, &actor, &name).await?,
    ))
}

/// The API's routes. `cookie` is the name of a session's.
pub(super) fn router(cookie: &str) -> axum::Router<Shared> {
    let mut router = axum::Router::new();
    for operation in operations() {
        router = router.route(operation.path, (operation.handler)());
    }
    let cookie = cookie.to_owned();
    // Made for those who ask: few do.
    let serve = move || {
        let document = openapi::document(&operations(), &cookie).to_string();
        let kind = [(axum::http::header::CONTENT_TYPE, "application/json")];
        std::future::ready((kind, document).into_response())
    };
    let unknown = || async { ApiError::not_found("such path in /api; /api/openapi.json has all") };
    router
        .route("/api/openapi.json", get(serve))
        .route("/api/{*rest}", get(unknown))
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_in_the_document_and_its_references_lead_somewhere() {
        let document = openapi::document(&operations(), "c");
        for operation in operations() {
            let found = &document["paths"][operation.path][operation.method];
            assert!(found.is_object(), "{} {}", operation.method, operation.path);
        }
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let path = reference.split('"').next().unwrap();
            assert!(document.pointer(path).is_some(), "{path}");
        }
    }

    #[test]
    fn names_of_operations_are_unique() {
        let mut names: Vec<String> = operations().iter().map(openapi::name).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
