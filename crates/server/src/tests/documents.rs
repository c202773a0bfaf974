//! The OpenAPI documents: complete, and true of every answer that any test here gets.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::Method;
use insta::assert_snapshot;
use jsonschema::Validator;
use serde_json::{Value, json};

use super::{Answer, Rig};
use crate::routes::Surface;
use crate::table;

const DOCUMENTS: [&str; 3] = ["/api/v2/openapi.json", "/api/v1/openapi.json", "/api/pitcrew/v1/openapi.json"];

/// What a document says of one operation.
struct Operation {
    method: String,
    path: Vec<String>,
    /// By status; of media types other than JSON nothing is checked.
    answers: BTreeMap<String, Option<Validator>>,
    error: Validator,
}

static OPERATIONS: LazyLock<Vec<Operation>> =
    LazyLock::new(|| crate::openapi::all().into_iter().flat_map(operations).collect());

fn operations(document: &Value) -> Vec<Operation> {
    let validator = |schema: &Value| {
        let mut root = schema.clone();
        root["components"] = document["components"].clone();
        jsonschema::validator_for(&root).unwrap()
    };
    let (_, error) =
        document["components"]["responses"]["Error"]["content"].as_object().unwrap().iter().next().unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap().iter().filter(|(status, _)| *status != "default");
            let answers = answers.map(|(status, answer)| {
                let schema = &answer["content"]["application/json"]["schema"];
                (status.clone(), (!schema.is_null()).then(|| validator(schema)))
            });
            found.push(Operation {
                method: method.to_uppercase(),
                path: path.split('/').map(str::to_owned).collect(),
                answers: answers.collect(),
                error: validator(&error["schema"]),
            });
        }
    }
    found
}

/// The operation that answers a path: the one with the most literal parts.
fn operation(method: &Method, path: &str) -> Option<&'static Operation> {
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |operation: &&Operation| {
        let last = operation.path.last().is_some_and(|part| part == "{path}" || part.ends_with("_key}"));
        let long = parts.len() == operation.path.len() || (last && parts.len() > operation.path.len());
        long && operation.method == method.as_str()
            && operation.path.iter().zip(&parts).all(|(wanted, part)| wanted.starts_with('{') || wanted == part)
    };
    OPERATIONS.iter().filter(fits).max_by_key(|o| o.path.iter().filter(|part| !part.starts_with('{')).count())
}

/// Panics when an answer is not as its document says.
pub fn check(method: &Method, path: &str, answer: &Answer) {
    let Some(operation) = operation(method, path) else { return };
    let status = answer.status.as_u16();
    // Programs never see it: a browser that opens a link goes to the login first.
    if status == 303 && answer.header("location").starts_with("/login?next=") {
        return;
    }
    let is_json = answer.header("content-type").contains("json") && !answer.header("content-type").contains("ndjson");
    if let Some(validator) = operation.answers.get(&status.to_string()) {
        if let (Some(validator), true) = (validator, is_json) {
            conforms(validator, method, path, answer);
        }
        return;
    }
    assert!(status >= 400, "{method} {path}: the status {status} is not documented");
    conforms(&operation.error, method, path, answer);
}

fn conforms(validator: &Validator, method: &Method, path: &str, answer: &Answer) {
    let document = answer.json();
    let problems: Vec<String> =
        validator.iter_errors(&document).map(|e| format!("{} at {}", e, e.instance_path())).collect();
    assert!(problems.is_empty(), "{method} {path}: {problems:#?}\n{document:#}");
}

#[tokio::test]
async fn every_route_of_the_apis_is_in_a_document() {
    let rig = Rig::new().await;
    let mut documented = 0;
    for path in DOCUMENTS {
        let document = rig.get(path).await.json();
        assert_eq!(document["openapi"], "3.1.0");
        documented +=
            document["paths"].as_object().unwrap().values().map(|m| m.as_object().unwrap().len()).sum::<usize>();
        for (route, methods) in document["paths"].as_object().unwrap() {
            for operation in methods.as_object().unwrap().values() {
                let summary = operation["summary"].as_str().unwrap();
                assert!(!summary.is_empty() && !summary.ends_with('.'), "{route} says nothing: {summary}");
            }
        }
    }
    let table = table(false);
    let ours = table.infos().filter(|info| info.surface == Surface::Api && info.path != "/metrics");
    assert_eq!(ours.count(), documented);
}

#[test]
fn every_shape_is_defined_and_used() {
    for document in crate::openapi::all() {
        let mut used = Vec::new();
        references(&document["paths"], &mut used);
        references(&document["components"], &mut used);
        let defined = document["components"]["schemas"].as_object().unwrap();
        for name in &used {
            assert!(defined.contains_key(name) || name == "Error", "`{name}` is used and not defined");
        }
        for name in defined.keys() {
            assert!(used.contains(name), "`{name}` is defined and not used");
        }
    }
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                found.push(reference.rsplit('/').next().unwrap().to_owned());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// One line for each operation; what a client sees of a change shows here.
#[test]
fn the_operations_of_the_documents() {
    let mut lines = String::new();
    for document in crate::openapi::all() {
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let answers =
                    operation["responses"].as_object().unwrap().iter().filter(|(status, _)| *status != "default");
                let answers: Vec<String> =
                    answers.map(|(status, answer)| format!("{status} {}", kind(&answer["content"]))).collect();
                let query = operation["parameters"].as_array().unwrap().iter().filter(|p| p["in"] == "query");
                let query: Vec<&str> = query
                    .map(|p| p["name"].as_str().unwrap())
                    .filter(|n| !n.contains("_g") && !n.contains("_l"))
                    .collect();
                let body = kind(&operation["requestBody"]["content"]);
                lines.push_str(&format!("{method} {path} ({}) {body} -> {}\n", query.join(" "), answers.join(", ")));
            }
        }
    }
    assert_snapshot!(lines);
}

fn kind(content: &Value) -> String {
    let Some((media, inner)) = content.as_object().and_then(|map| map.iter().next()) else { return "-".to_owned() };
    let schema = &inner["schema"];
    let name = match schema["$ref"].as_str() {
        Some(reference) => reference.rsplit('/').next().unwrap().to_owned(),
        None if schema == &json!({}) => "any".to_owned(),
        None => schema["type"].as_str().unwrap_or("several").to_owned(),
    };
    if media == "application/json" { name } else { format!("{name} as {media}") }
}

#[test]
fn the_shapes_of_the_documents() {
    for (name, document) in ["v2", "v1", "own"].into_iter().zip(crate::openapi::all()) {
        insta::assert_json_snapshot!(format!("shapes_{name}"), document["components"]["schemas"]);
    }
}
