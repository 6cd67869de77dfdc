//! The coordination tree over HTTP, for `metaq meta` against a running broker.

use std::convert::Infallible;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use super::Shared;
use super::errors::ApiError;
use super::extract::{Asked as AskedFor, Named};
use super::visitor::Visitor;
use crate::meta::{Change, ShownNode, paths};

/// What follows the `?`.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub(super) struct Asked {
    /// The node; the top without.
    #[serde(default = "top")]
    path: String,
}

fn top() -> String {
    "/".to_owned()
}

/// `get` a node, `ls` its children, its whole `tree`, or `watch` what changes below it as server-sent events: paths,
/// one a line, or `*` where anything may have changed.
pub(super) async fn serve(
    State(shared): State<Shared>,
    visitor: Visitor,
    Named(what): Named<String>,
    AskedFor(Asked { path }): AskedFor<Asked>,
) -> Response {
    let meta = shared.cx.cluster.meta();
    if meta.kind() != "embedded" {
        return ApiError::not_found("tree here: it is in ZooKeeper").into_response();
    }
    let answer = match what.as_str() {
        "get" => meta.get(&path).await.map(|node| {
            let shown = node.map(|node| ShownNode::new(path.clone(), &node));
            axum::Json(shown).into_response()
        }),
        "ls" => {
            let names = meta.children(&path).await;
            names.map(|names| axum::Json(names).into_response())
        }
        "tree" => meta.subtree(&path).await.map(|nodes| {
            let shown = nodes
                .into_iter()
                .map(|(path, node)| ShownNode::new(path, &node));
            axum::Json(shown.collect::<Vec<_>>()).into_response()
        }),
        "watch" => return watch(&shared, visitor, path),
        _ => {
            return ApiError::not_found("such question; ask get, ls, tree or watch")
                .into_response();
        }
    };
    answer.unwrap_or_else(|error| ApiError::failed(error).into_response())
}

fn watch(shared: &Shared, visitor: Visitor, below: String) -> Response {
    let changes = shared.cx.cluster.meta().watch();
    // Until the visitor may not look any more, or is not who it was.
    let access = (shared.clone(), visitor);
    let may = |(shared, visitor): &(Shared, Visitor)| {
        shared.access.is_still(visitor.known()) && visitor.may_all(&shared.cx)
    };
    let watched = (changes, below, access);
    let events = stream::unfold(watched, move |(mut changes, below, access)| async move {
        loop {
            let line = match changes.recv().await {
                Ok(Change::Paths(paths)) => {
                    let own = paths
                        .iter()
                        .filter(|path| paths::is_at_or_below(path, &below));
                    own.cloned().collect::<Vec<_>>().join("\n")
                }
                Ok(Change::Everything) | Err(RecvError::Lagged(_)) => "*".to_owned(),
                Err(RecvError::Closed) => return None,
            };
            if !line.is_empty() {
                may(&access).then_some(())?;
                let event = Ok::<_, Infallible>(Event::default().data(line));
                return Some((event, (changes, below, access)));
            }
        }
    });
    Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response()
}
