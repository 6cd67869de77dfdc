//! The page where visitors log in, as a user or with a token.

use askama::Template;
use axum::extract::Form;
use axum::extract::rejection::FormRejection;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::{Frame, Visit, render};
use crate::admin::Shared;
use crate::admin::access::{Refusal, comes_from_elsewhere};
use crate::admin::errors::ApiError;
use crate::admin::extract::Asked;
use crate::admin::guard::note_refusal;
use crate::admin::listener::Peer;
use crate::admin::sessions::Who;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    frame: Frame,
    /// Whether users may log in.
    users: bool,
    /// Whether an identity provider's tokens are taken.
    bearer_tokens: bool,
    then: String,
    wrong: Option<String>,
}

impl LoginPage {
    fn of(visit: Visit, then: String, wrong: Option<String>) -> Self {
        Self {
            users: visit.shared.access.takes_users(),
            bearer_tokens: visit.shared.access.takes_bearer_tokens(),
            frame: visit.frame,
            then,
            wrong,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Then {
    then: String,
}

/// What a visitor sees who is not known.
pub(in crate::admin) fn ask_to_log_in(shared: &Shared, parts: &Parts) -> Response {
    let visit = Visit::of(shared, parts);
    let then = match parts.method == axum::http::Method::GET {
        true => parts.uri.path_and_query().map_or("/", |path| path.as_str()),
        false => "/",
    };
    let page = LoginPage::of(visit, then.to_owned(), None);
    (StatusCode::UNAUTHORIZED, render(&page)).into_response()
}

pub(super) async fn page(visit: Visit, Asked(asked): Asked<Then>) -> Response {
    render(&LoginPage::of(visit, local(&asked.then), None))
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct LoginForm {
    user: String,
    password: String,
    token: String,
    then: String,
}

/// A path of this port: no visitor is sent elsewhere.
fn local(path: &str) -> String {
    let is_local = path.starts_with('/')
        && !path.starts_with("//")
        && !path.contains('\\')
        && path.bytes().all(|byte| byte.is_ascii_graphic());
    match is_local {
        true => path.to_owned(),
        false => "/".to_owned(),
    }
}

/// Who a form says to be, and proves.
async fn check(shared: &Shared, parts: &Parts, form: &LoginForm) -> Result<Who, Refusal> {
    let from = Peer::of(parts).ip();
    match (form.user.as_str(), form.token.trim()) {
        _ if comes_from_elsewhere(&parts.headers) => Err(Refusal::OtherSite),
        ("", "") if shared.access.takes_users() => Err(Refusal::NotKnown),
        ("", "") => Err(Refusal::NoToken),
        ("", token) => shared.access.check_token(token, from),
        (user, _) => {
            let password = form.password.clone();
            shared.access.check_password(user, password, from).await
        }
    }
}

pub(super) async fn login(
    visit: Visit,
    parts: Parts,
    form: Result<Form<LoginForm>, FormRejection>,
) -> Response {
    let Form(form) = match form {
        Ok(form) => form,
        Err(error) => return visit.fail(ApiError::bad(error.body_text()), "/login"),
    };
    let then = local(&form.then);
    let shared = visit.shared.clone();
    match check(&shared, &parts, &form).await {
        Ok(who) => {
            let cookie = [(header::SET_COOKIE, shared.access.open_session(who))];
            (cookie, Redirect::to(&then)).into_response()
        }
        Err(refusal) => {
            let named = Some(form.user.as_str()).filter(|user| !user.is_empty());
            note_refusal(&shared, &parts, named, &refusal).await;
            let wrong = Some(refusal.to_string());
            let status = ApiError::from(refusal).status;
            let page = LoginPage::of(visit, then, wrong);
            (status, render(&page)).into_response()
        }
    }
}

pub(super) async fn logout(visit: Visit, parts: Parts) -> Response {
    if comes_from_elsewhere(&parts.headers) {
        return visit.fail(Refusal::OtherSite.into(), "/");
    }
    let access = &visit.shared.access;
    let cookie = [(header::SET_COOKIE, access.close_session(&parts.headers))];
    (cookie, Redirect::to("/?done=logged-out")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_site_after_the_login() {
        assert_eq!(local("/topics?sort=bytes"), "/topics?sort=bytes");
        for elsewhere in [
            "/\t/evil.example",
            "//evil.example",
            "http://evil.example",
            "/\\evil.example",
            "",
        ] {
            assert_eq!(local(elsewhere), "/");
        }
    }
}
