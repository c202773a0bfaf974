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

#[test]
fn webhooks_start_runs() {
    let compiled = accept(
        r#"
workflow: w
params: {commit: {type: string}}
on:
  github:
    secret: store:hook
    events: [push, pull_request]
    branches: main
    paths: ["src/**"]
    filter: body.ref == 'x'
    params: {commit: "{{ event.after }}"}
    sample: 10%
    report: {token: env:T, url: "https://ghe.example.com/api/v3/", context: ci, checks: true}
  generic: [{secret: env:A}, {secret: env:B}]
tasks: {a: {run: x}}
"#,
    );
    let [github, first, second] = &compiled.workflow.hooks[..] else { panic!("three: {:?}", compiled.workflow.hooks) };
    assert_eq!(
        (github.secret.as_str(), &github.events[..]),
        ("store:hook", &["push".to_owned(), "pull_request".to_owned()][..])
    );
    assert_eq!((&github.branches[..], github.sample.as_deref()), (&["main".to_owned()][..], Some("10%")));
    let report = github.report.as_ref().unwrap();
    assert_eq!((report.url.as_deref(), report.checks), (Some("https://ghe.example.com/api/v3"), true));
    assert_eq!((first.secret.as_str(), second.secret.as_str()), ("env:A", "env:B"));
}

#[test]
fn mistakes_of_webhooks_are_told_and_secrets_are_not_repeated() {
    let found = refuse(
        r#"
workflow: w
params: {commit: {type: string}}
on:
  github:
    secret: hunter2
    filter: "body.ref =="
    sample: ten
    evnts: [push]
    params: {comit: x}
  gitlab:
    secret: env:X
    paths: [a]
    report:
      token: hunter2
  generic: {branches: [main], events: []}
  githb: {}
tasks: {a: {run: x}}
"#,
    )
    .to_string();
    for said in [
        "`secret` is the name of a secret",
        "`filter`",
        "`ten` is no share",
        "unknown key `evnts`",
        "unknown param `comit`",
        "of GitLab's events only a push names files",
        "`token` is the name of a secret",
        "`generic` has no `secret`, so anybody could start runs",
        "only events of a forge are about a branch",
        "lists nothing",
        "unknown key `githb`",
    ] {
        assert!(found.contains(said), "{said}\n{found}");
    }
    assert!(!found.contains("hunter2"), "{found}");
}
