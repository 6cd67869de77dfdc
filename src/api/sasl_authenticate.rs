//! SaslAuthenticate (key 36, v0–v2; KIP-152, KIP-368): one message of a mechanism. A client that fails is told so after
//! `connection.failed.authentication.delay.ms`, and its connection ends, as by Kafka's SaslServerAuthenticator. Who comes with a
//! delegation token (KIP-48) has to authenticate again before the token expires.
//!
//! Tests: tests/authentication.rs, tests/bearer_tokens.rs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::{ApiKey, SaslAuthenticateRequest, SaslAuthenticateResponse};

use tokio::sync::Semaphore;

use super::reply::Reply;
use super::shared::message;
use super::{Api, Body, Caller, Context, Order, serve};
use crate::per_second::PerSecond;
use crate::security::{Authenticated, Failure, Mechanism, Progress, Proof, Users};
use crate::session::Session;

pub(super) const API: Api = Api {
    key: ApiKey::SaslAuthenticate,
    order: Order::Alone,
    needs: &[],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// As Kafka's KafkaApis says it.
const TOO_LATE: &str = "SaslAuthenticate request received after successful authentication";

/// Failures of all connections that are told in the log.
const FAILURES_LOGGED_A_SECOND_MAX: u64 = 10;

/// So many passwords are looked at at a time: threads that read files for consumers are left.
static PASSWORDS: Semaphore = Semaphore::const_new(2);

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: SaslAuthenticateRequest,
) -> Reply<SaslAuthenticateResponse> {
    let answer = SaslAuthenticateResponse::default();
    let refused = |error: ResponseError, why: &str| {
        let answer = SaslAuthenticateResponse::default();
        let answer = answer.with_error_code(error.code());
        answer.with_error_message(message(&why))
    };
    match progress(&cx, &caller, request.auth_bytes.clone()).await {
        // No mechanism is chosen.
        None => {
            let answer = refused(ResponseError::IllegalSaslState, TOO_LATE);
            match caller.session.is_authenticated() {
                true => answer.into(),
                false => Reply::last(answer),
            }
        }
        Some(Ok(Step::Goes(bytes))) => answer.with_auth_bytes(bytes.into()).into(),
        Some(Ok(Step::Done { message, lifetime })) => {
            let lifetime_ms = lifetime.map_or(0, |lifetime| {
                i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX)
            });
            let answer = answer.with_auth_bytes(message.into());
            answer.with_session_lifetime_ms(lifetime_ms).into()
        }
        Some(Err(failure)) => {
            let error = ResponseError::SaslAuthenticationFailed;
            Reply::last(refused(error, &failure.to_string()))
        }
    }
}

/// What a message has led to.
enum Step {
    /// The client has to answer this.
    Goes(Vec<u8>),
    /// It is known now.
    Done {
        message: Vec<u8>,
        /// For how long.
        lifetime: Option<Duration>,
    },
}

/// Takes a message, and notes what came of it; who has failed has waited when this returns. `None` where no mechanism was chosen.
async fn progress(cx: &Context, caller: &Caller, message: Bytes) -> Option<Result<Step, Failure>> {
    let session = &caller.session;
    let error = ResponseError::SaslAuthenticationFailed.code();
    let failure = match take(cx, session, message).await? {
        Ok(Progress::Continue(bytes)) => return Some(Ok(Step::Goes(bytes))),
        Ok(Progress::Refused { answer, why }) => {
            cx.note(caller, "bearer token", error, &why);
            tell_refusal(session, "bearer token", &why);
            return Some(Ok(Step::Goes(answer.into_bytes())));
        }
        Ok(Progress::Done { who, message }) => match authenticated(cx, session, &who) {
            Ok(lifetime) => {
                tracing::debug!(peer = %session.peer(), user = who.user, "authenticated");
                return Some(Ok(Step::Done { message, lifetime }));
            }
            Err(failure) => failure,
        },
        Err(failure) => failure,
    };
    // Of a token that was said before.
    if !matches!(failure, Failure::Token(_)) {
        let tried = session.exchange().lock().tried().to_owned();
        cx.note(caller, &tried, error, &failure.to_string());
        tell_refusal(session, &tried, &failure.to_string());
    }
    delay(cx).await;
    Some(Err(failure))
}

/// Says in the log who could not log in, as Kafka does; of very many some.
fn tell_refusal(session: &Session, user: &str, why: &str) {
    static TOLD: PerSecond = PerSecond::new(FAILURES_LOGGED_A_SECOND_MAX);
    if let Some(untold) = TOLD.take() {
        let (peer, listener) = (session.peer(), &session.listener().name);
        tracing::info!(%peer, listener, ?user, ?why, untold, "authentication failed");
    }
}

/// What a message that came without a request is answered with (SaslHandshake v0).
pub(super) async fn raw(cx: &Context, session: &Arc<Session>, token: Bytes) -> Body {
    let caller = Caller {
        session: session.clone(),
        client_id: None,
        key: ApiKey::SaslAuthenticate as i16,
        version: 0,
        correlation_id: 0,
        is_forwarded: false,
        thread_time: None,
    };
    let answer = match progress(cx, &caller, token).await {
        Some(Ok(Step::Goes(message) | Step::Done { message, .. })) => message,
        Some(Err(failure)) => return Body::Close(failure.to_string()),
        None => return Body::Close("no mechanism of SASL is chosen".to_owned()),
    };
    let mut framed = BytesMut::with_capacity(4 + answer.len());
    framed.put_u32(answer.len() as u32);
    framed.put_slice(&answer);
    framed.freeze().into()
}

/// Takes a message of the mechanism that was chosen; `None` where none was.
async fn take(
    cx: &Context,
    session: &Session,
    message: Bytes,
) -> Option<Result<Progress, Failure>> {
    let users: Arc<dyn Users> = cx.users.clone();
    let mechanism = session.exchange().lock().mechanism()?;
    let is_slow = match mechanism {
        Mechanism::Plain => true,
        Mechanism::Scram(_) => names_token(&message),
        Mechanism::OAuthBearer => false,
    };
    if !is_slow {
        let tokens = session.listener().authentication.tokens.as_deref();
        return session
            .exchange()
            .lock()
            .on(&message, users.as_ref(), tokens);
    }
    // To look at a password, or at a token for the first time, takes milliseconds, and no other connection waits for that.
    let _turn = PASSWORDS.acquire().await.ok()?;
    let mut exchange = session.exchange().lock().take();
    let work = tokio::task::spawn_blocking(move || {
        let progress = exchange.on(&message, users.as_ref(), None);
        (exchange, progress)
    });
    let (exchange, progress) = work.await.ok()?;
    *session.exchange().lock() = exchange;
    progress
}

/// Whether a message may be the first one of a client with a delegation token.
fn names_token(message: &[u8]) -> bool {
    let name = b"tokenauth=";
    message.windows(name.len()).any(|part| part == name)
}

/// Notes who a client is; for how long: as long as what it showed is good, and no longer than its listener lets it.
fn authenticated(
    cx: &Context,
    session: &Session,
    who: &Authenticated,
) -> Result<Option<Duration>, Failure> {
    let of_listener = session.listener().authentication.reauthentication_max;
    let of_proof = match &who.proof {
        Proof::Password => None,
        // One that is gone meanwhile is found to be so at the next request.
        Proof::DelegationToken(id) => Some(cx.tokens.left(id).unwrap_or_default()),
        Proof::BearerToken(expires) => {
            let tokens = session.listener().authentication.tokens.as_ref();
            let skew = tokens.map_or(Duration::ZERO, |tokens| tokens.clock_skew());
            let now = SystemTime::now();
            // One that is over, and is taken within the clock skew, for the rest of that: its client's clock may be right.
            let left = expires.duration_since(now);
            let left = left.or_else(|_| (*expires + skew).duration_since(now));
            Some(left.unwrap_or_default())
        }
    };
    cx.metrics.authentications.fetch_add(1, Ordering::Relaxed);
    let lifetime = of_listener.into_iter().chain(of_proof).min();
    match session.authenticated(who, lifetime) {
        true => Ok(lifetime),
        // It was somebody else's until now.
        false => {
            session.end_for_good();
            Err(Failure::AnotherUser {
                from: session.principal().name().to_owned(),
                to: who.user.clone(),
            })
        }
    }
}

/// Who tries passwords has to wait.
pub(super) async fn delay(cx: &Context) {
    let failed = &cx.metrics.authentications_failed;
    failed.fetch_add(1, Ordering::Relaxed);
    let delay_ms = cx
        .config
        .number("connection.failed.authentication.delay.ms");
    tokio::time::sleep(Duration::from_millis(delay_ms.unsigned_abs())).await;
}
