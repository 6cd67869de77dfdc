//! One operation of the API, as the router and the OpenAPI document need it.

use axum::routing::MethodRouter;
use schemars::{JsonSchema, SchemaGenerator};

use super::Shared;
use super::actions::Done;

/// Makes a schema.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> schemars::Schema;

/// What an answer is.
pub(super) enum Answer {
    /// JSON of this shape.
    Json(SchemaOf),
    /// Server-sent events, their data JSON of this shape.
    Events(SchemaOf),
    /// JSON that has no fixed shape.
    Any,
}

/// One operation.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    /// What follows the `?`: a struct whose fields are the parameters.
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<SchemaOf>,
    pub(super) answer: Answer,
    /// Whether it changes something, and so needs the token.
    pub(super) acts: bool,
    pub(super) handler: fn() -> MethodRouter<Shared>,
}

/// The schema of a type.
pub(super) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> schemars::Schema {
    generator.subschema_for::<T>()
}

/// An operation that changes nothing.
pub(super) fn read(
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
    answer: SchemaOf,
    handler: fn() -> MethodRouter<Shared>,
) -> Operation {
    Operation {
        method: "get",
        path,
        tag,
        summary,
        query: None,
        body: None,
        answer: Answer::Json(answer),
        acts: false,
        handler,
    }
}

/// An operation that changes something.
pub(super) fn act(
    method: &'static str,
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
    body: Option<SchemaOf>,
    handler: fn() -> MethodRouter<Shared>,
) -> Operation {
    Operation {
        method,
        path,
        tag,
        summary,
        query: None,
        body,
        answer: Answer::Json(schema::<Done>),
        acts: true,
        handler,
    }
}

impl Operation {
    pub(super) fn asking<T: JsonSchema>(mut self) -> Self {
        self.query = Some(schema::<T>);
        self
    }

    pub(super) fn answering(mut self, answer: Answer) -> Self {
        self.answer = answer;
        self
    }
}
