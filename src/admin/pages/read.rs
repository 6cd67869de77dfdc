//! Pages that show something.
//!
//! Tests: tests/dashboard.rs.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::chart::{Chart, of_broker};
use super::{Frame, Parts2, Visit, format, render};
use crate::admin::Shared;
use crate::admin::api;
use crate::admin::blocking::blocking;
use crate::admin::errors::ApiError;
use crate::admin::extract::{Asked, Named};
use crate::admin::process::{self, ProcessView};
use crate::admin::status::ClusterStatus;
use crate::admin::views::broker::BrokerView;
use crate::admin::views::clients::{ClientDetail, ClientsView};
use crate::admin::views::configuration::ConfigurationView;
use crate::admin::views::events::{EventView, EventsAsked, EventsView, latest};
use crate::admin::views::group::{self, GroupDetail, GroupView};
use crate::admin::views::history::{self, HistoryAsked, HistoryView};
use crate::admin::views::log_lines::{LogAsked, LogView};
use crate::admin::views::partition::PartitionDetail;
use crate::admin::views::topics::{self, TopicDetail, TopicView, TopicsAsked};
use crate::admin::views::transactions::{self, TransactionDetail, TransactionView};
use crate::admin::views::{Page, Part};
use crate::admin::visitor::Visitor;
use crate::api::Context;
use crate::observe::{EventKind, SeriesKind, SyncSnapshot};

/// Rows of the lists on the home page.
const HOME_ROWS: usize = 5;
/// Spans of time that charts can show: minutes and their name.
const SPANS: &[(u32, &str)] = &[
    (15, "15 minutes"),
    (60, "hour"),
    (180, "3 hours"),
    (360, "6 hours"),
];

/// A partition that takes space.
struct Large {
    topic: String,
    index: i32,
    identity: String,
    bytes: u64,
    percent: f64,
}

#[derive(Template)]
#[template(path = "home.html")]
struct Home {
    frame: Frame,
    view: BrokerView,
    resident: u64,
    charts: Vec<String>,
    span: &'static str,
    spans: &'static [(u32, &'static str)],
    groups: Vec<GroupView>,
    partitions: Vec<Large>,
    rebalances: Vec<EventView>,
    rejections: Vec<EventView>,
}

fn rendered(charts: Vec<Chart>) -> Vec<String> {
    let all = charts
        .iter()
        .map(|chart| chart.render().unwrap_or_default());
    all.collect()
}

/// The partitions of this broker that take most space, of topics that the visitor may see.
fn largest(shared: &Shared, visitor: &Visitor) -> Vec<Large> {
    let mut all = Vec::new();
    let mut total = 0;
    for topic in shared.cx.partitions.topics() {
        let sees = visitor.sees_topic(&shared.cx, &topic.topic);
        for partition in topic.online() {
            let bytes = partition.log().bytes();
            total += bytes;
            if sees {
                all.push((bytes, partition.clone()));
            }
        }
    }
    all.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let large = |(bytes, partition): (u64, std::sync::Arc<crate::partition::Partition>)| Large {
        topic: partition.topic().to_string(),
        index: partition.index(),
        identity: partition.identity().to_string(),
        bytes,
        percent: bytes as f64 / (total as f64).max(1.0) * 100.0,
    };
    all.into_iter().take(HOME_ROWS).map(large).collect()
}

/// The latest ones of groups that the visitor may see.
fn rebalances(cx: &Context, visitor: &Visitor) -> Vec<EventView> {
    let all = latest(cx, &[EventKind::Rebalance], usize::MAX).into_iter();
    let seen = all.filter(|event| visitor.sees_group(cx, &event.subject));
    seen.take(HOME_ROWS).collect()
}

pub(super) async fn home(visit: Visit, Asked(asked): Asked<HistoryAsked>) -> Response {
    let shared = visit.shared.clone();
    let cx = &shared.cx;
    let visitor = visit.visitor.clone();
    let history = HistoryView::of(cx, &visitor, &asked);
    let first = Part {
        limit: Some(HOME_ROWS as u16),
        ..Part::default()
    };
    let minutes = asked.minutes();
    let span = SPANS.iter().find(|(span, _)| *span >= minutes);
    let rejected = [EventKind::RequestRejected, EventKind::ConnectionRejected];
    render(&Home {
        view: BrokerView::of(&shared).await,
        resident: process::resident_bytes(),
        charts: rendered(of_broker(&history)),
        span: span.map_or("6 hours", |(_, name)| name),
        spans: SPANS,
        groups: group::list(cx, &visitor, &first, true).await.items,
        rebalances: rebalances(cx, &visitor),
        partitions: blocking(&shared, move |shared| largest(shared, &visitor))
            .await
            .unwrap_or_default(),
        rejections: latest(cx, &rejected, HOME_ROWS),
        frame: visit.frame,
    })
}

#[derive(Template)]
#[template(path = "topics.html")]
struct Topics {
    frame: Frame,
    filter: String,
    sort: String,
    sorts: &'static [(&'static str, &'static str)],
    page: Page<TopicView>,
    parts: Parts2,
}

const SORTS: &[(&str, &str)] = &[
    ("name", "name"),
    ("bytes", "size"),
    ("messages", "messages"),
    ("in", "put"),
];

pub(super) async fn topics(visit: Visit, Asked(asked): Asked<TopicsAsked>) -> Response {
    let (filter, sort) = (asked.filter.clone().unwrap_or_default(), asked.sort.clone());
    let sort = sort.unwrap_or_else(|| "name".to_owned());
    let limit = asked.part().limit();
    let visitor = visit.visitor.clone();
    let listed = blocking(&visit.shared, move |shared| {
        topics::list(shared, &visitor, &asked)
    });
    let page = match listed.await {
        Ok(page) => page,
        Err(error) => return visit.fail(error, "/"),
    };
    let kept = [("filter", filter.as_str()), ("sort", sort.as_str())];
    let parts = Parts2::of(&page, "/topics", &kept, limit);
    let frame = visit.frame;
    render(&Topics {
        frame,
        filter,
        sort,
        sorts: SORTS,
        page,
        parts,
    })
}

#[derive(Template)]
#[template(path = "topic.html")]
struct Topic {
    frame: Frame,
    detail: TopicDetail,
    chart: String,
    parts: Parts2,
}

pub(super) async fn topic(
    visit: Visit,
    Named(name): Named<String>,
    Asked(part): Asked<Part>,
) -> Response {
    let limit = part.limit();
    let detail = match api::topic_detail(&visit.shared, &visit.visitor, name, part).await {
        Ok(detail) => detail,
        Err(error) => return visit.fail(error, "/topics"),
    };
    let cx = &visit.shared.cx;
    let hour = HistoryAsked::default();
    let name = &detail.topic.name;
    let mut put = history::one(cx, SeriesKind::TopicIn, name, &hour);
    let mut get = history::one(cx, SeriesKind::TopicOut, name, &hour);
    (put.name, get.name) = ("put".to_owned(), "get".to_owned());
    let chart = Chart::of(
        "Throughput of the last hour",
        format::byte_rate,
        &[put, get],
    );
    let path = format!("/topics/{}", format::path(name));
    render(&Topic {
        parts: Parts2::of(&detail.partitions, &path, &[], limit),
        chart: chart.render().unwrap_or_default(),
        frame: visit.frame,
        detail,
    })
}

#[derive(Template)]
#[template(path = "partition.html")]
struct Partition {
    frame: Frame,
    detail: PartitionDetail,
}

pub(super) async fn partition(
    visit: Visit,
    Named((topic, index)): Named<(String, i32)>,
) -> Response {
    let back = format!("/topics/{}", format::path(&topic));
    match api::partition_detail(&visit.shared, visit.visitor.clone(), topic, index).await {
        Ok(detail) => render(&Partition {
            frame: visit.frame,
            detail,
        }),
        Err(error) => visit.fail(error, &back),
    }
}

#[derive(Template)]
#[template(path = "groups.html")]
struct Groups {
    frame: Frame,
    /// Whether other brokers coordinate groups too.
    several: bool,
    filter: String,
    page: Page<GroupView>,
    parts: Parts2,
}

pub(super) async fn groups(visit: Visit, Asked(part): Asked<Part>) -> Response {
    let page = group::list(&visit.shared.cx, &visit.visitor, &part, true).await;
    let filter = part.filter.clone().unwrap_or_default();
    let parts = Parts2::of(&page, "/groups", &[("filter", &filter)], part.limit());
    render(&Groups {
        several: visit.shared.cx.cluster.image().brokers.len() > 1,
        frame: visit.frame,
        filter,
        page,
        parts,
    })
}

#[derive(Template)]
#[template(path = "group.html")]
struct Group {
    frame: Frame,
    detail: GroupDetail,
    chart: String,
    topics: Vec<String>,
}

pub(super) async fn group(visit: Visit, Named(name): Named<String>) -> Response {
    let detail = match GroupDetail::of(&visit.shared.cx, &visit.visitor, &name).await {
        Ok(detail) => detail,
        Err(error) => return visit.fail(error.into(), "/groups"),
    };
    let mut lag = history::one(
        &visit.shared.cx,
        SeriesKind::GroupLag,
        &name,
        &HistoryAsked::default(),
    );
    lag.name = "messages".to_owned();
    let chart = Chart::of("Lag of the last hour", format::count, &[lag]);
    let mut topics: Vec<String> = detail
        .partitions
        .iter()
        .map(|row| row.topic.clone())
        .collect();
    topics.sort();
    topics.dedup();
    render(&Group {
        chart: chart.render().unwrap_or_default(),
        frame: visit.frame,
        detail,
        topics,
    })
}

#[derive(Template)]
#[template(path = "transactions.html")]
struct Transactions {
    frame: Frame,
    /// Whether other brokers coordinate some too.
    several: bool,
    filter: String,
    page: Page<TransactionView>,
    parts: Parts2,
}

pub(super) async fn transactions(visit: Visit, Asked(part): Asked<Part>) -> Response {
    let page = match transactions::list(&visit.shared.cx, &visit.visitor, &part).await {
        Ok(page) => page,
        Err(error) => return visit.fail(error.into(), "/"),
    };
    let filter = part.filter.clone().unwrap_or_default();
    let parts = Parts2::of(&page, "/transactions", &[("filter", &filter)], part.limit());
    render(&Transactions {
        several: visit.shared.cx.cluster.image().brokers.len() > 1,
        frame: visit.frame,
        filter,
        page,
        parts,
    })
}

#[derive(Template)]
#[template(path = "transaction.html")]
struct Transaction {
    frame: Frame,
    detail: TransactionDetail,
}

pub(super) async fn transaction(visit: Visit, Named(id): Named<String>) -> Response {
    match TransactionDetail::of(&visit.shared.cx, &visit.visitor, &id).await {
        Ok(detail) => render(&Transaction {
            frame: visit.frame,
            detail,
        }),
        Err(error) => visit.fail(error.into(), "/transactions"),
    }
}

#[derive(Template)]
#[template(path = "clients.html")]
struct Clients {
    frame: Frame,
    filter: String,
    view: ClientsView,
    parts: Parts2,
    events: Vec<EventView>,
}

pub(super) async fn clients(visit: Visit, Asked(part): Asked<Part>) -> Response {
    let mut view = ClientsView::of(&visit.shared.cx, &visit.visitor, &part);
    let filter = part.filter.clone().unwrap_or_default();
    render(&Clients {
        parts: Parts2::of(
            &view.connected,
            "/clients",
            &[("filter", &filter)],
            part.limit(),
        ),
        events: std::mem::take(&mut view.rejections),
        frame: visit.frame,
        filter,
        view,
    })
}

#[derive(Template)]
#[template(path = "client.html")]
struct Client {
    frame: Frame,
    detail: ClientDetail,
    events: Vec<EventView>,
}

pub(super) async fn client(visit: Visit, Named(number): Named<u64>) -> Response {
    match ClientDetail::of(&visit.shared.cx, number) {
        None => visit.fail(
            ApiError::not_found(format!("connection {number}")),
            "/clients",
        ),
        Some(mut detail) => render(&Client {
            events: std::mem::take(&mut detail.rejections),
            frame: visit.frame,
            detail,
        }),
    }
}

#[derive(Template)]
#[template(path = "cluster.html")]
struct Cluster {
    frame: Frame,
    view: ClusterStatus,
    events: Vec<EventView>,
}

pub(super) async fn cluster(visit: Visit) -> Response {
    let kinds = [EventKind::Session, EventKind::Controller, EventKind::InSync];
    render(&Cluster {
        view: ClusterStatus::of(&visit.shared.cx),
        events: latest(&visit.shared.cx, &kinds, 50),
        frame: visit.frame,
    })
}

#[derive(Template)]
#[template(path = "events.html")]
struct Events {
    frame: Frame,
    kind: String,
    kinds: Vec<&'static str>,
    events: Vec<EventView>,
}

pub(super) async fn events(visit: Visit, Asked(asked): Asked<EventsAsked>) -> Response {
    let Some(found) = EventsView::of(&visit.shared.cx, &asked) else {
        return visit.fail(ApiError::bad("There is no such kind of event."), "/events");
    };
    render(&Events {
        frame: visit.frame,
        kind: asked.kind.unwrap_or_default(),
        kinds: EventKind::ALL.iter().map(|kind| kind.name()).collect(),
        events: found.events,
    })
}

#[derive(Template)]
#[template(path = "configuration.html")]
struct Configuration {
    frame: Frame,
    view: ConfigurationView,
}

pub(super) async fn configuration(visit: Visit) -> Response {
    let view = ConfigurationView::of(&visit.shared.cx);
    render(&Configuration {
        frame: visit.frame,
        view,
    })
}

#[derive(Template)]
#[template(path = "log.html")]
struct Log {
    frame: Frame,
    level: String,
    levels: &'static [&'static str],
    filter: String,
    view: LogView,
}

pub(super) async fn log(visit: Visit, Asked(asked): Asked<LogAsked>) -> Response {
    render(&Log {
        frame: visit.frame,
        view: LogView::of(&asked),
        level: asked.level.unwrap_or_else(|| "all".to_owned()),
        levels: &["all", "info", "warn", "error"],
        filter: asked.filter.unwrap_or_default(),
    })
}

#[derive(Template)]
#[template(path = "process.html")]
struct Process {
    frame: Frame,
    view: ProcessView,
    cpu: f64,
    cpu_ms: f64,
    syncs: SyncSnapshot,
    sync_mean_ms: Option<f64>,
}

pub(super) async fn process(State(shared): State<Shared>, visit: Visit) -> Response {
    let ended = shared.cx.partitions.supervisor().ended();
    let view = match blocking(&shared, move |_| ProcessView::take(ended)).await {
        Ok(view) => view,
        Err(error) => return visit.fail(error, "/"),
    };
    let syncs = shared.cx.observe.syncs.snapshot();
    render(&Process {
        cpu: shared.rates.load().cpu,
        cpu_ms: view.cpu_seconds * 1e3,
        sync_mean_ms: (syncs.count > 0).then(|| syncs.time_us as f64 / syncs.count as f64 / 1e3),
        syncs,
        frame: visit.frame,
        view,
    })
}
