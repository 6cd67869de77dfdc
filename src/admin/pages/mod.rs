//! The dashboard's pages, rendered here; style and script are part of the program and nothing comes from elsewhere.
//!
//! Tests: tests/dashboard.rs.

mod browse;
mod chart;
pub(super) mod format;
mod forms;
mod login;
mod read;

use askama::Template;
use axum::Router;
use axum::extract::FromRequestParts;
use axum::handler::Handler;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};

use super::Shared;
use super::errors::ApiError;
use super::listener::Peer;
use super::rights;
use super::sessions::Who;
use super::views::Page;
use super::visitor::Visitor;

pub(super) use login::ask_to_log_in;

const STYLE: &str = include_str!("../../../templates/assets/style.css");
const SCRIPT: &str = include_str!("../../../templates/assets/live.js");
const ICON: &str = include_str!("../../../templates/assets/icon.svg");

/// Path and name of each page in the navigation.
const PAGES: &[(&str, &str)] = &[
    ("/", "Home"),
    ("/topics", "Topics"),
    ("/groups", "Groups"),
    ("/transactions", "Transactions"),
    ("/clients", "Clients"),
    ("/cluster", "Cluster"),
    ("/events", "Events"),
    ("/configuration", "Configuration"),
    ("/log", "Log"),
    ("/process", "Process"),
];

/// What an action did, by the word that the page after it is given.
const DONE: &[(&str, &str)] = &[
    ("created", "The topic was created."),
    ("deleted", "It was deleted."),
    ("altered", "The settings were changed."),
    ("extended", "The partitions were added."),
    ("closed", "The partition takes no messages now."),
    ("opened", "The partition takes messages again."),
    ("committed", "The transaction is committed."),
    ("aborted", "The transaction is aborted."),
    ("forgotten", "The decision is forgotten."),
    ("logged-in", "You are logged in."),
    ("logged-out", "You are logged out."),
];

/// What surrounds every page.
struct Frame {
    version: &'static str,
    broker_id: i32,
    cluster_id: String,
    listener: String,
    pages: &'static [(&'static str, &'static str)],
    /// The page's place in the navigation.
    section: &'static str,
    /// Where the visitor is, escaped for a query.
    here: String,
    /// Who the visitor is, where that is known.
    name: Option<String>,
    done: Option<&'static str>,
}

/// A visitor who asks for a page.
struct Visit {
    shared: Shared,
    frame: Frame,
    visitor: Visitor,
}

impl FromRequestParts<Shared> for Visit {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        shared: &Shared,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self::of(shared, parts))
    }
}

impl Visit {
    fn of(shared: &Shared, parts: &Parts) -> Self {
        let nobody = || Visitor::new(Who::Nobody.into(), Peer::of(parts));
        let visitor = parts.extensions.get::<Visitor>().cloned();
        let visitor = visitor.unwrap_or_else(nobody);
        let path = parts.uri.path();
        let image = shared.cx.cluster.image();
        let own = image.brokers.get(&shared.cx.cluster.broker_id());
        let own = own.and_then(|own| own.first_endpoint());
        let query = parts.uri.query().unwrap_or_default();
        let done = query.split('&').find_map(|pair| pair.strip_prefix("done="));
        let done = DONE.iter().find(|(word, _)| Some(*word) == done);
        let is_in = |section: &str| match section {
            "/" => path == "/",
            section => path == section || path.starts_with(&format!("{section}/")),
        };
        let section = PAGES.iter().find(|(section, _)| is_in(section));
        Self {
            frame: Frame {
                version: env!("CARGO_PKG_VERSION"),
                broker_id: shared.cx.cluster.broker_id(),
                cluster_id: image.cluster_id.clone(),
                listener: own.map_or_else(String::new, |own| format!("{}:{}", own.host, own.port)),
                pages: PAGES,
                section: section.map_or("", |(section, _)| section),
                here: format::path(path),
                name: visitor.name().map(str::to_owned),
                done: done.map(|(_, sentence)| *sentence),
            },
            shared: shared.clone(),
            visitor,
        }
    }

    /// Says why there is no page.
    fn fail(self, error: ApiError, back: &str) -> Response {
        let title = match error.status {
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::UNAUTHORIZED => "The token is needed",
            StatusCode::FORBIDDEN => "Refused",
            StatusCode::TOO_MANY_REQUESTS => "Too many logins failed",
            StatusCode::MISDIRECTED_REQUEST => "On another broker",
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT => "This cannot be done",
            _ => "This did not work",
        };
        let page = ErrorPage {
            frame: self.frame,
            title,
            message: error.view.message,
            back: back.to_owned(),
        };
        (error.status, render(&page)).into_response()
    }
}

fn render(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render a page");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the page cannot be rendered\n",
            )
                .into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    frame: Frame,
    title: &'static str,
    message: String,
    back: String,
}

/// Links to the parts of a list before and after this one.
struct Parts2 {
    total: usize,
    from: usize,
    to: usize,
    before: Option<String>,
    behind: Option<String>,
}

impl Parts2 {
    /// `query` is what stays in the links.
    fn of<T>(page: &Page<T>, path: &str, query: &[(&str, &str)], limit: usize) -> Self {
        let link = |offset: usize| {
            let kept = query.iter().filter(|(_, value)| !value.is_empty());
            let kept: String = kept
                .map(|(name, value)| format!("&{name}={}", format::path(value)))
                .collect();
            format!("{path}?offset={offset}{kept}")
        };
        let end = page.offset + page.items.len();
        Self {
            total: page.total,
            from: (page.offset + 1).min(end),
            to: end,
            before: (page.offset > 0).then(|| link(page.offset.saturating_sub(limit))),
            behind: (end < page.total).then(|| link(end)),
        }
    }
}

fn asset(kind: &'static str, content: &'static str) -> Response {
    let head = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "max-age=3600"),
    ];
    (head, content).into_response()
}

async fn unknown(visit: Visit) -> Response {
    visit.fail(ApiError::not_found("such page"), "/")
}

/// An error as a page.
pub(super) fn explain(shared: &Shared, parts: &Parts, error: ApiError) -> Response {
    Visit::of(shared, parts).fail(error, "/")
}

/// A page, or what is done there.
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    handler: MethodRouter<Shared>,
}

fn shown<T: 'static, H: Handler<T, Shared>>(path: &'static str, handler: H) -> Route {
    Route {
        method: "get",
        path,
        handler: get(handler),
    }
}

fn done<T: 'static, H: Handler<T, Shared>>(path: &'static str, handler: H) -> Route {
    Route {
        method: "post",
        path,
        handler: post(handler),
    }
}

/// Whether a path is open to everybody: where visitors log in, and what that page loads.
pub(super) fn is_open(path: &str) -> bool {
    matches!(path, "/login" | "/logout") || path.starts_with("/assets/")
}

/// All pages.
#[rustfmt::skip]
pub(super) fn routes() -> Vec<Route> {
    vec![
        shown("/", read::home),
        shown("/topics", read::topics),
        done("/topics", forms::create_topic),
        shown("/topics/{topic}", read::topic),
        done("/topics/{topic}/alter", forms::alter_topic),
        done("/topics/{topic}/extend", forms::extend_topic),
        done("/topics/{topic}/delete", forms::delete_topic),
        shown("/topics/{topic}/partitions/{partition}", read::partition),
        shown("/topics/{topic}/partitions/{partition}/messages", browse::messages),
        done("/topics/{topic}/partitions/{partition}/close", forms::close_partition),
        done("/topics/{topic}/partitions/{partition}/open", forms::open_partition),
        shown("/groups", read::groups),
        shown("/groups/{group}", read::group),
        done("/groups/{group}/reset", forms::reset_group),
        done("/groups/{group}/delete", forms::delete_group),
        shown("/transactions", read::transactions),
        shown("/transactions/{id}", read::transaction),
        done("/transactions/{id}/commit", forms::commit_transaction),
        done("/transactions/{id}/abort", forms::abort_transaction),
        done("/transactions/{id}/forget", forms::forget_decision),
        shown("/clients", read::clients),
        shown("/clients/{number}", read::client),
        shown("/cluster", read::cluster),
        shown("/events", read::events),
        shown("/configuration", read::configuration),
        done("/configuration/reload", forms::reload),
        shown("/log", read::log),
        shown("/process", read::process),
        shown("/login", login::page),
        done("/login", login::login),
        done("/logout", login::logout),
        shown("/assets/style.css", || async { asset("text/css; charset=utf-8", STYLE) }),
        shown("/assets/live.js", || async { asset("text/javascript; charset=utf-8", SCRIPT) }),
        shown("/assets/icon.svg", || async { asset("image/svg+xml", ICON) }),
    ]
}

/// The pages' routes.
pub(super) fn router() -> Router<Shared> {
    let add = |router: Router<Shared>, route: Route| {
        let row = rights::row_of(route.method, route.path);
        debug_assert!(row.is_some() || is_open(route.path), "{}", route.path);
        router.route(route.path, route.handler)
    };
    let router = routes().into_iter().fold(Router::new(), add);
    router
        .fallback(unknown)
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
}

/// What a browser may do with an answer of this port: show it, and load what is from here.
pub(super) fn guard(headers: &mut HeaderMap) {
    const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
        form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Without a referrer browsers would not say either that a form is from here.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(header::HeaderValue::from_static("no-store"));
}
