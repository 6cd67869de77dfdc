//! The OpenAPI document of the API, made of its table of operations.
//!
//! Tests: tests/dashboard.rs.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::errors::ErrorView;
use super::operation::{Answer, Operation, SchemaOf};

/// Where schemas are.
const SCHEMAS: &str = "/components/schemas";

/// The document of some operations: OpenAPI 3.1. `cookie` is the name of a session's.
pub(super) fn document(operations: &[Operation], cookie: &str) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
    });
    let mut generator = SchemaGenerator::new(settings);
    let error = generator.subschema_for::<ErrorView>();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let described = describe(operation, &mut generator, &error);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(operation.method.to_owned(), described);
        }
    }
    let tags = ["broker", "cluster", "topics", "groups", "clients"];
    let tags = tags.map(|name| json!({"name": name}));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "metaq",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What the dashboard shows, as JSON, and what can be done there. Times are ms since 1970, sizes bytes. \
                Errors are {error, message}. What changes something needs the token that metaq start printed or \
                dashboard.token sets, or, where clients have to say who they are, a user with the rights that Kafka's \
                APIs would ask for, by password, delegation token (its id and HMAC) or a token of the identity provider; then \
                reading does too.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "user": {"type": "http", "scheme": "basic"},
                "session": {"type": "apiKey", "in": "cookie", "name": cookie},
            },
        },
    })
}

fn describe(operation: &Operation, generator: &mut SchemaGenerator, error: &Schema) -> Value {
    let mut parameters = path_parameters(operation.path);
    if let Some(query) = operation.query {
        parameters.extend(query_parameters(query, generator));
    }
    let answer = match &operation.answer {
        Answer::Json(schema) => json!({"application/json": {"schema": schema(generator)}}),
        Answer::Events(schema) => {
            // What each event's data is; tools cannot check a stream.
            let _ = schema(generator);
            json!({"text/event-stream": {"schema": {"type": "string"}}})
        }
        Answer::Any => json!({
            "application/json": {"schema": {}},
            "text/event-stream": {"schema": {"type": "string"}},
        }),
    };
    let mut responses = Map::new();
    let done = json!({"description": "As asked", "content": answer});
    responses.insert("200".to_owned(), done);
    let failure = json!({
        "description": "Why not",
        "content": {"application/json": {"schema": error}},
    });
    for status in statuses(operation) {
        responses.insert((*status).to_owned(), failure.clone());
    }
    let mut described = json!({
        "operationId": name(operation),
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
        "security": match operation.acts {
            true => json!([{"token": []}, {"user": []}, {"session": []}]),
            false => json!([{}, {"token": []}, {"user": []}, {"session": []}]),
        },
    });
    if let (Some(body), Some(fields)) = (operation.body, described.as_object_mut()) {
        let schema = body(generator);
        let body = json!({"required": true, "content": {"application/json": {"schema": schema}}});
        fields.insert("requestBody".to_owned(), body);
    }
    described
}

/// Statuses beside 200 that it may answer with.
fn statuses(operation: &Operation) -> &'static [&'static str] {
    match (operation.acts, operation.body.is_some()) {
        (true, true) => &[
            "400", "401", "403", "404", "409", "413", "415", "421", "429", "503",
        ],
        (true, false) => &["400", "401", "403", "404", "409", "421", "429", "503"],
        (false, _) => &["400", "401", "403", "404", "421", "429", "503"],
    }
}

/// As in `get_topics_topic_partitions`.
pub(super) fn name(operation: &Operation) -> String {
    let path = operation.path.trim_start_matches("/api");
    let path = path.replace(['{', '}'], "").replace('/', "_");
    format!("{}{path}", operation.method)
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/');
    let names = names.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let schema = match name {
            "partition" => json!({"type": "integer", "format": "int32", "minimum": 0}),
            "number" => json!({"type": "integer", "format": "uint64", "minimum": 0}),
            "what" => json!({"type": "string", "enum": ["get", "ls", "tree", "watch"]}),
            _ => json!({"type": "string", "minLength": 1}),
        };
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    };
    names.map(parameter).collect()
}

fn query_parameters(query: SchemaOf, generator: &mut SchemaGenerator) -> Vec<Value> {
    let found = query(generator);
    // The struct itself, after the reference to it.
    let name = found.get("$ref").and_then(Value::as_str);
    let name = name.and_then(|name| name.rsplit('/').next());
    let Some(fields) = name.and_then(|name| generator.definitions().get(name)) else {
        return Vec::new();
    };
    let fields = fields.get("properties").and_then(Value::as_object);
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let description = schema
            .as_object_mut()
            .and_then(|schema| schema.remove("description"));
        if let Some(schema) = schema.as_object_mut() {
            without_null(schema);
        }
        json!({
            "name": name,
            "in": "query",
            "required": false,
            "description": description.unwrap_or_default(),
            "schema": schema,
        })
    };
    fields.into_iter().flatten().map(parameter).collect()
}

/// A parameter is there or not; `null` is no value of it.
fn without_null(schema: &mut Map<String, Value>) {
    schema.remove("default");
    if let Some(Value::Array(kinds)) = schema.get("type") {
        let mut kinds = kinds.iter().filter(|kind| *kind != "null");
        if let Some(kind) = kinds.next().cloned() {
            schema.insert("type".to_owned(), kind);
        }
    }
}
