//! What a run is given.

use insta::assert_snapshot;
use pitcrew_lang::{from_cli, resolve_params};
use serde_json::{Map, Value, json};

use crate::support::accept;

fn workflow() -> pitcrew_core::ir::Workflow {
    accept(
        r#"
workflow: train
params:
  dataset: {type: string, enum: [small, full], description: what to train on}
  epochs: {type: integer, minimum: 1, default: 10}
  rate: {type: number, default: 0.1}
  dry: {type: boolean, default: false}
  hosts: {type: array, items: {type: string}, default: []}
  options: {type: object, properties: {depth: {type: integer}}, additionalProperties: false, default: {}}
  note: {type: [string, "null"], default: null}
  place: {type: string, not: {pattern: '(^|/)\.\.(/|$)'}, default: /srv}
  free: {}
tasks: {a: {run: x}}
"#
        .replace("  free: {}\n", "  free: {title: anything, default: 1}\n")
        .as_str(),
    )
    .workflow
}

fn conf(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn defaults_are_filled_in_the_order_of_the_source() {
    let params = resolve_params(&workflow(), &conf(json!({"epochs": 3, "dataset": "full"}))).unwrap();
    let text = serde_json::to_string(&params).unwrap();
    assert_eq!(
        text,
        r#"{"dataset":"full","epochs":3,"rate":0.1,"dry":false,"hosts":[],"options":{},"note":null,"place":"/srv","free":1}"#
    );
}

#[test]
fn each_error_names_the_param_the_value_and_what_is_allowed() {
    let given = json!({"epochs": 0, "rate": "fast", "datset": "x", "hosts": ["a", 1], "options": {"deep": 1},
        "place": "/srv/../etc"});
    let errors = resolve_params(&workflow(), &conf(given)).unwrap_err();
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_snapshot!(lines.join("\n"), @r"
    the workflow `train` has no param `datset`; did you mean `dataset`?
    the param `dataset` is missing; it is `small` or `full`
    the param `epochs` must be at least 1, found `0`
    the param `rate` must be a number, found the text `fast`
    the param `hosts[1]` must be a text, found `1`
    the param `options` has no `deep`; known here: `depth`
    the param `place` must not match the pattern `(^|/)\.\.(/|$)`, found the text `/srv/../etc`
    ");
    let paths: Vec<String> = errors.iter().map(|error| error.path.join("/")).collect();
    assert_eq!(paths, ["", "", "", "", "1", "deep", ""]);
}

#[test]
fn a_text_from_the_command_line_becomes_the_declared_type() {
    let workflow = workflow();
    let table = [
        ("epochs=5", json!(5)),
        ("epochs=+07", json!(7)),
        ("rate=1", json!(1)),
        ("rate=.5", json!(0.5)),
        ("dry=yes", json!(true)),
        ("dataset=1", json!("1")),
        ("hosts=a, b", json!(["a", "b"])),
        ("hosts=[\"a\"]", json!(["a"])),
        ("hosts=", json!([])),
        ("options={\"depth\": 2}", json!({"depth": 2})),
        ("note=null", json!(null)),
        ("note=", json!("")),
        ("note=a=b", json!("a=b")),
        ("free=[1]", json!([1])),
        ("free=text", json!("text")),
    ];
    for (argument, value) in table {
        assert_eq!(from_cli(&workflow, argument).map(|(_, value)| value), Ok(value), "{argument}");
    }
    let wrong: Vec<String> = ["epochs=many", "rate=nan", "dry=maybe", "hosts={", "epoch=1", "epochs", "options=x"]
        .iter()
        .map(|argument| from_cli(&workflow, argument).unwrap_err().to_string())
        .collect();
    assert_snapshot!(wrong.join("\n"), @r#"
    the param `epochs` must be a whole number, found `many`
    the param `rate` must be a number, found `nan`
    the param `dry` must be `true` or `false`, found `maybe`
    the param `hosts` must be a JSON list such as `["a", "b"]`, or texts parted by `,`, found `{`
    the workflow `train` has no param `epoch`; did you mean `epochs`?
    `epochs` is not `name=value`
    the param `options` must be a JSON object such as `{"key": "value"}`, found `x`
    "#);
}
