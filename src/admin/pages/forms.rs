//! Forms: what they bring is checked, done, and answered with a page that tells of it.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Form, FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Frame, Visit, format, render};
use crate::admin::Shared;
use crate::admin::access::Refusal;
use crate::admin::actions::{self, AddPartitions, AlterTopic, ChangedView, CreateTopic};
use crate::admin::errors::ApiError;
use crate::admin::extract::Named;
use crate::admin::guard::note_refusal;
use crate::admin::listener::Peer;
use crate::admin::offsets::{self, ResetOffsets, ResetPlan};
use crate::admin::visitor::Visitor;
use crate::log::Outcome;

/// What an action's form brings, from a visitor who may act.
pub(super) struct Acted<T> {
    visit: Visit,
    form: T,
    actor: Visitor,
}

#[derive(Debug, Default, Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
}

impl<T: DeserializeOwned> FromRequest<Shared> for Acted<T> {
    type Rejection = Response;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visit = Visit::of(shared, &parts);
        let (headers, path) = (parts.headers.clone(), parts.uri.path().to_owned());
        let whole = Request::from_parts(parts.clone(), body);
        let bytes = match axum::body::Bytes::from_request(whole, shared).await {
            Ok(bytes) => bytes,
            Err(error) => return Err(visit.fail(ApiError::bad(error.body_text()), "/")),
        };
        let token = read_form::<Token>(&headers, bytes.clone(), shared).await;
        let token = token.map_or_else(|_| String::new(), |form| form.token);
        let actor = match actor(shared, &parts, &visit, &token) {
            Ok(actor) => actor,
            Err(refusal) => {
                note_refusal(shared, &parts, None, &refusal).await;
                return Err(visit.fail(refusal.into(), &back_of(&path)));
            }
        };
        actor.audit_action(&shared.cx, &mut parts).await;
        match read_form::<T>(&headers, bytes, shared).await {
            Ok(form) => Ok(Self { visit, form, actor }),
            Err(why) => Err(visit.fail(ApiError::bad(why), &back_of(&path))),
        }
    }
}

/// Who acts: the visitor that was let in, or who brings the token in the form.
fn actor(shared: &Shared, parts: &Parts, visit: &Visit, token: &str) -> Result<Visitor, Refusal> {
    match token.trim() {
        _ if visit.visitor.is_known() => Ok(visit.visitor.clone()),
        "" => Err(Refusal::NoToken),
        token => {
            let peer = Peer::of(parts);
            let who = shared.access.check_token(token, peer.ip())?;
            Ok(Visitor::new(who.into(), peer))
        }
    }
}

async fn read_form<T: DeserializeOwned>(
    headers: &HeaderMap,
    bytes: axum::body::Bytes,
    shared: &Shared,
) -> Result<T, String> {
    let mut request = Request::new(axum::body::Body::from(bytes));
    *request.method_mut() = axum::http::Method::POST;
    *request.headers_mut() = headers.clone();
    let form = Form::<T>::from_request(request, shared).await;
    form.map(|Form(form)| form)
        .map_err(|error| error.body_text())
}

/// The page that has the form.
fn back_of(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["", section, name, "partitions", index, _] => {
            format!("/{section}/{name}/partitions/{index}")
        }
        ["", "configuration", _] => "/configuration".to_owned(),
        ["", section, name, _] => format!("/{section}/{name}"),
        ["", section] => format!("/{section}"),
        _ => "/".to_owned(),
    }
}

impl<T> Acted<T> {
    /// To a page that tells what was done, or why not.
    fn end<D>(self, done: Result<D, ApiError>, word: &str, to: &str, back: &str) -> Response {
        match done {
            Ok(_) => Redirect::to(&format!("{to}?done={word}")).into_response(),
            Err(error) => self.visit.fail(error, back),
        }
    }
}

/// `name=value` lines; `name=` alone takes a setting back.
fn settings(text: &str) -> Result<AlterTopic, ApiError> {
    let mut changes = AlterTopic::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once('=') else {
            return Err(ApiError::bad(format!("{line} is not name=value.")));
        };
        match value.trim() {
            "" => changes.unset.push(name.trim().to_owned()),
            value => {
                changes.set.insert(name.trim().to_owned(), value.to_owned());
            }
        }
    }
    Ok(changes)
}

fn number<N: std::str::FromStr>(text: &str, what: &str) -> Result<Option<N>, ApiError> {
    match text.trim() {
        "" => Ok(None),
        text => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(ApiError::bad(format!("{what} is not a number: {text}"))),
        },
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct CreateForm {
    name: String,
    #[serde(default)]
    partitions: String,
    #[serde(default)]
    settings: String,
}

impl CreateForm {
    fn wanted(&self) -> Result<CreateTopic, ApiError> {
        let partitions = number(&self.partitions, "The number of partitions")?;
        let set: BTreeMap<String, String> = settings(&self.settings)?.set;
        Ok(CreateTopic::new(self.name.trim(), partitions, set))
    }
}

pub(super) async fn create_topic(acted: Acted<CreateForm>) -> Response {
    let cx = acted.visit.shared.cx.clone();
    let done = match acted.form.wanted() {
        Ok(wanted) => actions::create_topic(&cx, &acted.actor, &wanted).await,
        Err(error) => Err(error),
    };
    let to = format!("/topics/{}", format::path(acted.form.name.trim()));
    acted.end(done, "created", &to, "/topics#create")
}

#[derive(Debug, Deserialize)]
pub(super) struct AlterForm {
    settings: String,
}

pub(super) async fn alter_topic(Named(name): Named<String>, acted: Acted<AlterForm>) -> Response {
    let cx = acted.visit.shared.cx.clone();
    let done = match settings(&acted.form.settings) {
        Ok(changes) => actions::alter_topic(&cx, &acted.actor, &name, &changes).await,
        Err(error) => Err(error),
    };
    let page = format!("/topics/{}", format::path(&name));
    acted.end(done, "altered", &page, &page)
}

#[derive(Debug, Deserialize)]
pub(super) struct ExtendForm {
    count: String,
}

pub(super) async fn extend_topic(Named(name): Named<String>, acted: Acted<ExtendForm>) -> Response {
    let cx = acted.visit.shared.cx.clone();
    let done = match number(&acted.form.count, "The number of partitions") {
        Ok(Some(count)) => {
            actions::add_partitions(&cx, &acted.actor, &name, &AddPartitions { count }).await
        }
        Ok(None) => Err(ApiError::bad("How many partitions?")),
        Err(error) => Err(error),
    };
    let page = format!("/topics/{}", format::path(&name));
    acted.end(done, "extended", &page, &page)
}

/// A form that is a button.
#[derive(Debug, Deserialize)]
pub(super) struct NoFields {}

pub(super) async fn close_partition(
    named: Named<(String, i32)>,
    acted: Acted<NoFields>,
) -> Response {
    set_closed(named, acted, true).await
}

pub(super) async fn open_partition(
    named: Named<(String, i32)>,
    acted: Acted<NoFields>,
) -> Response {
    set_closed(named, acted, false).await
}

async fn set_closed(
    Named((topic, partition)): Named<(String, i32)>,
    acted: Acted<NoFields>,
    closed: bool,
) -> Response {
    let cx = acted.visit.shared.cx.clone();
    let done = actions::set_closed(&cx, &acted.actor, &topic, partition, closed).await;
    let page = format!("/topics/{}/partitions/{partition}", format::path(&topic));
    let word = if closed { "closed" } else { "opened" };
    acted.end(done, word, &page, &page)
}

#[derive(Template)]
#[template(path = "reload.html")]
struct ReloadPage {
    frame: Frame,
    /// What they have in common, and settings.
    sections: Vec<(&'static str, Vec<ChangedView>)>,
}

pub(super) async fn reload(acted: Acted<NoFields>) -> Response {
    let cx = acted.visit.shared.cx.clone();
    match actions::reload(&cx, &acted.actor).await {
        Ok(report) => {
            let overruled = "Overruled by what was set at run time or on the command line";
            let mut sections = vec![
                ("In force now", report.applied),
                ("In force after a restart", report.needs_restart),
                (overruled, report.overruled),
            ];
            sections.retain(|(_, changes)| !changes.is_empty());
            render(&ReloadPage {
                frame: acted.visit.frame,
                sections,
            })
        }
        Err(error) => acted.visit.fail(error, "/configuration"),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct DeleteForm {
    confirm: String,
}

impl DeleteForm {
    fn confirms(&self, name: &str) -> Result<(), ApiError> {
        match self.confirm == name {
            true => Ok(()),
            false => Err(ApiError::bad(
                "The name that was typed is another one; nothing was done.",
            )),
        }
    }
}

pub(super) async fn delete_topic(Named(name): Named<String>, acted: Acted<DeleteForm>) -> Response {
    let cx = acted.visit.shared.cx.clone();
    let done = match acted.form.confirms(&name) {
        Ok(()) => actions::delete_topic(&cx, &acted.actor, &name).await,
        Err(error) => Err(error),
    };
    let page = format!("/topics/{}", format::path(&name));
    acted.end(done, "deleted", "/topics", &page)
}

pub(super) async fn delete_group(Named(name): Named<String>, acted: Acted<DeleteForm>) -> Response {
    let cx = acted.visit.shared.cx.clone();
    let done = match acted.form.confirms(&name) {
        Ok(()) => actions::delete_group(&cx, &acted.actor, &name).await,
        Err(error) => Err(error),
    };
    let page = format!("/groups/{}", format::path(&name));
    acted.end(done, "deleted", "/groups", &page)
}

pub(super) async fn commit_transaction(
    Named(id): Named<String>,
    acted: Acted<DeleteForm>,
) -> Response {
    end_transaction(&id, acted, Outcome::Commit, "committed").await
}

pub(super) async fn abort_transaction(
    Named(id): Named<String>,
    acted: Acted<DeleteForm>,
) -> Response {
    end_transaction(&id, acted, Outcome::Abort, "aborted").await
}

async fn end_transaction(
    id: &str,
    acted: Acted<DeleteForm>,
    outcome: Outcome,
    word: &'static str,
) -> Response {
    let cx = acted.visit.shared.cx.clone();
    let done = match acted.form.confirms(id) {
        Ok(()) => actions::end_transaction(&cx, &acted.actor, id, outcome).await,
        Err(error) => Err(error),
    };
    let page = format!("/transactions/{}", format::path(id));
    acted.end(done, word, &page, &page)
}

pub(super) async fn forget_decision(
    Named(id): Named<String>,
    acted: Acted<DeleteForm>,
) -> Response {
    let cx = acted.visit.shared.cx.clone();
    let done = match acted.form.confirms(&id) {
        Ok(()) => actions::forget_decision(&cx, &acted.actor, &id).await,
        Err(error) => Err(error),
    };
    let page = format!("/transactions/{}", format::path(&id));
    acted.end(done, "forgotten", &page, &page)
}

#[derive(Debug, Deserialize)]
pub(super) struct ResetForm {
    topic: String,
    #[serde(default)]
    partitions: String,
    to: String,
    #[serde(default)]
    value: String,
    #[serde(default, rename = "do")]
    what: String,
}

impl ResetForm {
    fn wanted(&self) -> Result<ResetOffsets, ApiError> {
        let mut partitions = Vec::new();
        for text in self
            .partitions
            .split([',', ' '])
            .filter(|text| !text.is_empty())
        {
            partitions.extend(number::<i32>(text, "A partition")?);
        }
        Ok(ResetOffsets {
            topic: self.topic.trim().to_owned(),
            partitions: Some(partitions).filter(|some| !some.is_empty()),
            to: self.to.clone(),
            value: number(&self.value, "The value")?,
            execute: self.what == "execute",
        })
    }
}

#[derive(Template)]
#[template(path = "plan.html")]
struct PlanPage {
    frame: Frame,
    group: String,
    plan: ResetPlan,
}

pub(super) async fn reset_group(Named(group): Named<String>, acted: Acted<ResetForm>) -> Response {
    let cx = acted.visit.shared.cx.clone();
    let done = match acted.form.wanted() {
        Ok(wanted) => offsets::reset(&cx, &acted.actor, &group, &wanted).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(plan) => render(&PlanPage {
            frame: acted.visit.frame,
            group,
            plan,
        }),
        Err(error) => acted
            .visit
            .fail(error, &format!("/groups/{}", format::path(&group))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_set_and_taken_back() {
        let changes = settings("retention.ms = 5\n\n flush.ms=\ncleanup.policy=a=b").unwrap();
        assert_eq!(changes.set["retention.ms"], "5");
        assert_eq!(changes.set["cleanup.policy"], "a=b");
        assert_eq!(changes.unset, ["flush.ms"]);
        assert!(settings("retention.ms").is_err());
    }
}
