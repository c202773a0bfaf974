//! `on`: what it compiles to, and how its mistakes are told.

use serde_json::json;

use crate::support::{accept, refuse};

#[test]
fn a_queue_starts_runs() {
    let compiled = accept(
        r#"
workflow: w
params: {server: {type: string}}
on:
  sqs:
    queue: deliveries
    region: eu-west-1
    filter: {source: [my.app], detail: {stage: [{prefix: prod}]}}
    conf: {server: "{{ event.detail.server }}"}
tasks: {a: {run: x}}
"#,
    );
    let [source] = &compiled.workflow.on[..] else { panic!("one source") };
    assert_eq!((source.queue.as_str(), source.region.as_deref()), ("deliveries", Some("eu-west-1")));
    assert_eq!(source.filter, Some(json!({"source": ["my.app"], "detail": {"stage": [{"prefix": "prod"}]}})));
    assert_eq!(source.conf.as_ref().unwrap()["server"], "{{ event.detail.server }}");
    let two = accept("workflow: w\non: {sqs: [{queue: a}, {queue: b}]}\ntasks: {a: {run: x}}");
    assert_eq!(two.workflow.on.len(), 2);
}

#[test]
fn mistakes_are_told_with_their_places() {
    insta::assert_snapshot!(refuse(
        r#"
workflow: w
params: {server: {type: string}}
on:
  sqs:
    - {queue: a, filter: {source: my.app}, conf: {sever: x}}
    - {queue: "{{ params.server }}", filtr: {}}
    - {region: eu-west-1, conf: {server: "{{ params.server }}"}}
    - 7
  sns: {}
tasks: {a: {run: x}}
"#
    ));
}
