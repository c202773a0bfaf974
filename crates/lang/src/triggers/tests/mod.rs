//! Whole triggers: documents, events of our own shape for a push, a pull request, a tag, a merge request and a slash
//! command, and what they start.

mod passing;

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::diagnostic::Diagnostic;
use crate::tekton::{self, ReadOptions, Source};

struct Known(BTreeMap<(&'static str, &'static str), &'static str>);

impl Secrets for Known {
    fn get(&self, name: &str, key: &str) -> Option<&[u8]> {
        self.0.get(&(name, key)).map(|secret| secret.as_bytes())
    }
}

fn secrets() -> Known {
    Known(BTreeMap::from([(("hook", "token"), "s3cret"), (("slack", "signing"), "sl4ck")]))
}

fn read(text: &str) -> Result<Set, Vec<String>> {
    let options = ReadOptions { namespace: "ci".into() };
    let told = |found: Vec<Diagnostic>| -> Vec<String> {
        found.into_iter().map(|d| format!("{}:{}: {}", d.line, d.column, d.message)).collect()
    };
    let docs = tekton::read(&[Source { file: "t.yaml", text }], &options).map_err(told)?;
    Set::read(&docs.triggers).map_err(told)
}

fn event(headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Event {
    Event {
        id: "5d0a3c1e".into(),
        url: "/hooks/ci/forge?x=1".into(),
        headers: Headers::new(headers.iter().copied()),
        body: Body::new(body),
        received: "2026-03-01T12:00:00Z".parse().unwrap(),
    }
}

fn signed(headers: &[(&str, &str)], body: &serde_json::Value) -> Event {
    let text = body.to_string();
    let signature = signature::sign(text.as_bytes(), b"s3cret");
    let mut all = vec![("X-Hub-Signature-256", signature.as_str()), ("Content-Type", "application/json")];
    all.extend(headers);
    event(&all, text)
}

fn push(branch: &str) -> serde_json::Value {
    json!({
        "ref": format!("refs/heads/{branch}"), "before": "0".repeat(40), "after": "a1".repeat(20),
        "repository": {"full_name": "acme/app", "clone_url": "https://example.com/acme/app.git"},
        "pusher": {"name": "kim"},
        "head_commit": {"message": "Say \"hello\" to $(params.token)\nand more", "timestamp": "2026-03-01T11:59:00Z"},
        "commits": [
            {"added": ["a.py"], "modified": ["b.py"], "removed": []},
            {"added": [], "modified": ["b.py"], "removed": ["docs/c.md"]}],
    })
}

fn pull_request() -> serde_json::Value {
    json!({
        "action": "synchronize", "number": 17,
        "pull_request": {"head": {"sha": "b2".repeat(20), "ref": "fix"}, "labels": [{"name": "gpu"}, {"name": "size/S"}]},
        "repository": {"full_name": "acme/app"}, "sender": {"login": "kim"},
    })
}

const FORGE: &str = r#"
apiVersion: triggers.tekton.dev/v1beta1
kind: EventListener
metadata: {name: forge}
spec:
  serviceAccountName: triggers
  triggers:
    - name: push
      interceptors:
        - ref: {name: github}
          params:
            - {name: secretRef, value: {secretName: hook, secretKey: token}}
            - {name: eventTypes, value: [push]}
            - {name: addChangedFiles, value: {enabled: true}}
        - name: only main
          ref: {name: cel, kind: ClusterInterceptor}
          params:
            - {name: filter, value: "body.ref == 'refs/heads/main' && extensions.changed_files.contains('.py')"}
            - name: overlays
              value:
                - {key: short, expression: "body.after.truncate(7)"}
                - {key: branch.name, expression: "body.ref.split('/')[2]"}
                - {key: count, expression: "size(body.commits)"}
      bindings:
        - ref: push
        - {name: short, value: $(extensions.short)}
      template: {ref: build}
    - triggerRef: review
---
apiVersion: triggers.tekton.dev/v1beta1
kind: TriggerBinding
metadata: {name: push}
spec:
  params:
    - {name: sha, value: $(body.after)}
    - {name: message, value: $(body.head_commit.message)}
    - {name: branch, value: "$(extensions.branch.name)"}
    - {name: image, value: $(body.image)}
    - {name: files, value: "$(extensions.changed_files) of $(extensions.count) by $(header.x-github-event)"}
---
apiVersion: triggers.tekton.dev/v1beta1
kind: TriggerTemplate
metadata: {name: build}
spec:
  params:
    - {name: sha}
    - {name: short}
    - {name: message}
    - {name: branch, default: main}
    - {name: image, default: "python:3.11"}
    - {name: files, default: ""}
  resourcetemplates:
    - apiVersion: tekton.dev/v1
      kind: PipelineRun
      metadata: {generateName: "build-$(tt.params.short)-", labels: {branch: $(tt.params.branch)}}
      spec:
        pipelineRef: {name: build}
        params:
          - {name: sha, value: $(tt.params.sha)}
          - {name: message, value: "$(tt.params.message)"}
          - {name: image, value: $(tt.params.image)}
          - {name: files, value: $(tt.params.files)}
    - apiVersion: v1
      kind: ConfigMap
      metadata: {name: "note-$(uid)"}
      data: {sha: $(tt.params.sha)}
---
apiVersion: triggers.tekton.dev/v1beta1
kind: Trigger
metadata: {name: review, labels: {team: gpu}}
spec:
  interceptors:
    - ref: {name: github}
      params:
        - {name: secretRef, value: {secretName: hook, secretKey: token}}
        - {name: eventTypes, value: [pull_request]}
    - ref: {name: cel}
      params:
        - name: filter
          value: >-
            body.action in ['opened', 'synchronize', 'reopened'] &&
            body.pull_request.labels.exists(l, l.name == 'gpu')
  bindings:
    - {name: number, value: $(body.number)}
    - {name: labels, value: "$(body.pull_request.labels[*].name)"}
  template:
    spec:
      params: [{name: number}, {name: labels}]
      resourcetemplates:
        - apiVersion: tekton.dev/v1
          kind: TaskRun
          metadata: {name: "pr-$(tt.params.number)"}
          spec: {taskRef: {name: check}}
"#;

/// By the name of the trigger: what it makes, or why not.
fn all(set: &Set, listener: &str, event: &Event) -> BTreeMap<String, Result<Vec<Resource>, Stop>> {
    let selected = set.select("ci", listener).unwrap();
    let one = |(name, trigger): (String, Result<Trigger, Stop>)| {
        (name, trigger.and_then(|trigger| resolve(&trigger, event, listener, &secrets(), "u-1")))
    };
    selected.triggers.into_iter().map(one).collect()
}

fn stopped(result: &Result<Vec<Resource>, Stop>) -> (StopKind, String) {
    let stop = result.as_ref().unwrap_err();
    (stop.kind, stop.to_string())
}

#[test]
fn a_push_makes_what_the_template_says() {
    let set = read(FORGE).unwrap();
    let results = all(&set, "forge", &signed(&[("X-GitHub-Event", "push")], &push("main")));
    let made = results["push"].as_ref().unwrap();
    let run = &made[0];
    assert_eq!((run.kind.as_str(), run.namespace.as_str(), run.name.as_str()), ("PipelineRun", "ci", ""));
    let meta = json!({"generateName": "build-a1a1a1a-", "namespace": "ci", "labels": {
        "branch": "main",
        "triggers.tekton.dev/eventlistener": "forge",
        "triggers.tekton.dev/trigger": "push",
        "triggers.tekton.dev/triggers-eventid": "5d0a3c1e",
    }});
    assert_eq!(run.object["metadata"], meta);
    let params = json!([
        {"name": "sha", "value": "a1".repeat(20)},
        {"name": "message", "value": "Say \"hello\" to $$(params.token)\nand more"},
        {"name": "image", "value": "python:3.11"},
        {"name": "files", "value": "a.py,b.py,b.py,docs/c.md of 2 by push"},
    ]);
    assert_eq!(run.object["spec"]["params"], params);
    assert_eq!(made[1].name, "note-u-1");
    let told = "github: the event type `push` is not among those that it lets pass";
    assert_eq!(stopped(&results["review"]), (StopKind::Filtered, told.into()));
}

#[test]
fn what_is_not_for_a_trigger_is_filtered_and_what_is_not_proved_is_refused() {
    let set = read(FORGE).unwrap();
    let push_of = |event: &Event| stopped(&all(&set, "forge", event)["push"]);
    let (kind, told) = push_of(&signed(&[("X-GitHub-Event", "push")], &push("topic")));
    assert_eq!(kind, StopKind::Filtered);
    assert!(told.starts_with("only main: the filter `body.ref == 'refs/heads/main'"), "{told}");
    // A tag is a push as well.
    let mut tag = push("main");
    tag["ref"] = "refs/tags/v1.0".into();
    assert_eq!(push_of(&signed(&[("X-GitHub-Event", "push")], &tag)).0, StopKind::Filtered);

    let body = push("main").to_string();
    let unsigned = event(&[("X-GitHub-Event", "push")], body.clone());
    assert_eq!(push_of(&unsigned), (StopKind::Refused, "github: the header X-Hub-Signature-256 is missing".into()));
    let other = signature::sign(body.as_bytes(), b"guess");
    let (kind, told) = push_of(&event(&[("X-GitHub-Event", "push"), ("X-Hub-Signature-256", &other)], body));
    assert_eq!(kind, StopKind::Refused);
    assert!(told.contains("does not fit") && !told.contains("s3cret"), "{told}");

    // An event without what the filter reads is a fault of the filter, told with its place.
    let bare = json!({"commits": push("main")["commits"]});
    let (kind, told) = push_of(&signed(&[("X-GitHub-Event", "push")], &bare));
    assert_eq!(kind, StopKind::Failed);
    assert!(told.contains("no such key: ref (at character 6)"), "{told}");
}

#[test]
fn a_pull_request_goes_to_the_trigger_that_is_named() {
    let set = read(FORGE).unwrap();
    let results = all(&set, "forge", &signed(&[("X-GitHub-Event", "pull_request")], &pull_request()));
    let made = results["review"].as_ref().unwrap();
    assert_eq!((made[0].kind.as_str(), made[0].name.as_str()), ("TaskRun", "pr-17"));
    let mut plain = pull_request();
    plain["pull_request"]["labels"] = json!([]);
    let results = all(&set, "forge", &signed(&[("X-GitHub-Event", "pull_request")], &plain));
    assert_eq!(stopped(&results["review"]).0, StopKind::Filtered);
    let trigger = set.link(set.trigger("ci", "review").unwrap()).unwrap();
    assert_eq!(trigger.secrets(), [("hook".to_owned(), "token".to_owned())].into());
    let proof = |event: &Event| prove(&trigger.interceptors, event, &secrets());
    let good = signed(&[], &push("main"));
    assert_eq!(proof(&good), Ok(replay::Proof::Signature));
    let forged = Event { body: Body::new("{}"), ..good };
    assert_eq!(proof(&forged).unwrap_err().kind, StopKind::Refused);
}

fn with_interceptor(interceptor: &str) -> Result<Trigger, String> {
    let text = format!(
        "apiVersion: triggers.tekton.dev/v1beta1\nkind: Trigger\nmetadata: {{name: t}}\nspec:\n  interceptors:\n    - {interceptor}\n  \
         bindings: [{{name: all, value: $(extensions)}}]\n  template:\n    spec:\n      params: [{{name: all}}]\n      resourcetemplates:\n        \
         - {{apiVersion: v1, kind: ConfigMap, metadata: {{name: note}}}}\n"
    );
    let set = read(&text).map_err(|problems| problems.join("; "))?;
    set.link(set.trigger("ci", "t").unwrap()).map_err(|stop| stop.to_string())
}

fn extensions(trigger: &Trigger, event: &Event) -> Result<serde_json::Value, Stop> {
    let mut chain = Chain::new(&trigger.interceptors, event, trigger.id(), Map::new())?;
    assert_eq!(chain.advance(&secrets())?, Next::Passed);
    Ok(chain.finish().2.into())
}

#[test]
fn groups_and_labels_find_triggers() {
    let listener = "apiVersion: triggers.tekton.dev/v1beta1\nkind: EventListener\nmetadata: {name: l}\nspec:\n";
    let groups = "  triggerGroups:\n    - name: g\n      interceptors: [{ref: {name: cel}, params: [{name: overlays, value: []}]}]\n      \
                  triggerSelector: {labelSelector: {matchExpressions: [{key: team, operator: In, values: [gpu, cpu]}]}}\n";
    let found = |spec: &str| {
        let set = read(&format!("{listener}{spec}\n---\n{}", FORGE.trim_start())).unwrap();
        let selected = set.select("ci", "l").unwrap();
        let names =
            |list: &[(String, Result<Trigger, Stop>)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        (names(&selected.triggers), selected.groups.iter().map(|(_, list)| names(list)).collect::<Vec<_>>())
    };
    let review = || vec!["review".to_owned()];
    assert_eq!(found("  labelSelector: {matchLabels: {team: gpu}}"), (review(), vec![]));
    assert_eq!(found("  labelSelector: {matchLabels: {team: cpu}}"), (vec![], vec![]));
    assert_eq!(found("  namespaceSelector: {matchNames: ['*']}"), (review(), vec![]));
    assert_eq!(found("  namespaceSelector: {matchNames: [other]}"), (vec![], vec![]));
    assert_eq!(found(groups), (vec![], vec![review()]));
    let set = read(&format!("{listener}  triggers: [{{triggerRef: nobody}}]")).unwrap();
    let selected = set.select("ci", "l").unwrap();
    assert_eq!(selected.triggers[0].1.as_ref().unwrap_err().message, "there is no Trigger `nobody` in `ci`");
    assert!(set.select("ci", "other").is_none());
}

#[test]
fn what_is_wrong_is_told_when_it_is_read() {
    let kind = |kind: &str, spec: &str| {
        let text =
            format!("apiVersion: triggers.tekton.dev/v1beta1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}");
        read(&text).map(drop).unwrap_err().join("; ")
    };
    for (found, told) in [
        (kind("EventListener", "{}"), "it has no triggers"),
        (kind("EventListener", "{triggers: [{name: a}]}"), "`template` or `triggerRef`"),
        (kind("EventListener", "{triggers: [{name: a/b, triggerRef: t}]}"), "becomes a label"),
        (kind("EventListener", "{triggers: [{triggerRef: t}], port: 1}"), "has no field `port`"),
        (kind("EventListener", "{triggerGroups: [{name: g}]}"), "`interceptors` is missing"),
        (kind("TriggerBinding", "{params: [{name: a, value: '$(bodi.x)'}]}"), "begins with `body`"),
        (kind("TriggerBinding", "{params: [{name: a, value: one}, {name: a, value: two}]}"), "no name of its own"),
        (kind("TriggerTemplate", "{}"), "`resourcetemplates` is missing"),
        (kind("TriggerTemplate", "{resourcetemplates: [{kind: X}]}"), "`apiVersion` is missing"),
        (
            kind("TriggerTemplate", "{resourcetemplates: [{apiVersion: v1, kind: X, a: $(tt.params.b)}]}"),
            "is not declared",
        ),
        (kind("Interceptor", "{clientConfig: {}}"), "needs `url` or `service`"),
        (
            with_interceptor("{ref: {name: cel}, params: [{name: filter, value: 'body.'}]}").unwrap_err(),
            "`filter`: expected the name",
        ),
        (
            with_interceptor("{ref: {name: cel}, params: [{name: fliter, value: 'x'}]}").unwrap_err(),
            "unknown field `fliter`",
        ),
        (
            with_interceptor("{ref: {name: github}, params: [{name: eventTypes, value: push}]}").unwrap_err(),
            "invalid type",
        ),
        (
            with_interceptor("{ref: {name: github}, params: [{name: secretRef, value: {secretName: a}}]}").unwrap_err(),
            "`secretKey`",
        ),
        (
            with_interceptor("{ref: {kind: ClusterInterceptor}}").unwrap_err(),
            "`name` is missing: a reference to an interceptor needs it",
        ),
        (with_interceptor("{ref: {name: a, kind: Service}}").unwrap_err(), "is not known here"),
        (with_interceptor("{ref: {name: slack}}").unwrap_err(), "`requestedFields` is missing"),
    ] {
        assert!(found.contains(told), "expected {told}, found {found}");
    }
}

#[test]
fn what_is_wrong_is_told_at_its_place() {
    let text = "apiVersion: triggers.tekton.dev/v1beta1\nkind: Trigger\nmetadata: {name: t}\nspec:\n  interceptors:\n    \
                - ref: {name: cel}\n      params:\n        - {name: filter, value: 'body.a ='}\n  template: {ref: x}\n";
    let told = "7:7: `filter`: `=` is no operator; equality is written `==` (at character 8)";
    assert_eq!(read(text).map(drop), Err(vec![told.to_owned()]));
    let old = text.replace("ref: {name: cel}", "cel: {filter: 'true'}");
    assert_eq!(read(&old).map(drop), Err(vec!["6:7: `cel` is not taken in an interceptor of a trigger".to_owned()]));
}
