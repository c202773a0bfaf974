//! What sources compile to: edges, groups, defaults, and the order of documents.

use insta::assert_snapshot;
use pitcrew_core::ir::{Kind, Work, Workflow};

use crate::support::{accept, compile};

/// `task: what it needs`, one line each.
fn edges(workflow: &Workflow) -> String {
    let line = |ix| {
        let task = workflow.task(ix);
        let needs: Vec<&str> = task.needs.iter().map(|need| workflow.task(*need).id.as_str()).collect();
        format!("{}: {}", task.id, needs.join(" ")).trim_end().to_owned()
    };
    workflow.indices().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn names_mean_the_nearest_task_and_groups_their_ends() {
    let compiled = accept(
        r#"
workflow: w
tasks:
  a: {run: x}
  g:
    needs: [a]
    tasks:
      a: {run: x}
      b: {run: x, needs: [a]}
      inner:
        needs: [b]
        tasks:
          c: {run: x}
          d: {run: x, needs: [a]}
          undo: {run: x, needs: [c], teardown: true}
      e: {run: x}
  last: {run: x, needs: [g]}
  one: {run: x, needs: [g.inner.c, a]}
"#,
    );
    assert_snapshot!(edges(&compiled.workflow), @r"
    a:
    g.a: a
    g.b: g.a
    g.inner.c: g.b
    g.inner.d: g.a g.b
    g.inner.undo: g.inner.c
    g.e: a
    last: g.inner.c g.inner.d g.e
    one: a g.inner.c
    ");
}

#[test]
fn a_template_makes_an_edge_only_where_none_follows() {
    let compiled = accept(
        r#"
workflow: w
tasks:
  a: {run: x, outputs: [v]}
  b: {run: x, needs: [a]}
  c: {run: "{{ tasks.a.outputs.v }}", needs: [b], trigger_rule: one_success}
  d: {run: x, when: "tasks.a.outputs.v == 'go'"}
  e: {run: x, foreach: "{{ tasks.b.outputs.list }}"}
  g:
    foreach: "{{ tasks.d.outputs.list }}"
    when: "{{ tasks.b.state == 'success' }}"
    tasks:
      f: {run: "{{ item }} {{ tasks.a.outputs.v }}"}
      h: {run: x, needs: [f]}
finally:
  report: {run: "{{ tasks.c.state }} {{ tasks.mail.state }}"}
  mail: {run: x}
"#,
    );
    let workflow = &compiled.workflow;
    assert_snapshot!(edges(workflow), @r"
    a:
    b: a
    c: b
    d: a
    e: b
    g.f: b d
    g.h: g.f
    report: mail
    mail:
    ");
    let refs = |foreach: &Option<pitcrew_core::ir::Foreach>| {
        foreach.as_ref().unwrap().refs.iter().map(|ix| workflow.task(*ix).id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(refs(&workflow.task(workflow.find("e").unwrap()).foreach), ["b"]);
    assert_eq!(refs(&workflow.groups[0].foreach), ["d"]);
}

#[test]
fn a_value_is_the_tasks_own_or_the_default() {
    let compiled = accept(
        r#"
workflow: w
defaults: {retries: 2, retry_delay: 1m, env: {A: "1", B: "2"}, shell: bash -eu, resources: {cpu: 2, memory: 1Gi}, pool: p}
tasks:
  a: {run: x}
  b:
    steps: [{run: y}, {name: z, run: z, shell: [python3, -u]}]
    retries: 0
    env: {B: "3"}
    resources: {gpu: 1, cpu: 500m}
    skip_exit_codes: 7
  up: {setup: true, run: x}
  down: {teardown: {of: [up], fails_run: true}, run: x}
  join:
"#,
    );
    let task = |name: &str| compiled.workflow.task(compiled.workflow.find(name).unwrap());
    let (a, b) = (task("a"), task("b"));
    assert_eq!((a.retry.retries, b.retry.retries), (2, 0));
    assert_eq!((a.env["B"].as_str(), b.env["A"].as_str(), b.env["B"].as_str()), ("2", "1", "3"));
    assert_eq!(b.resources.memory, Some("1Gi".into()));
    assert_eq!(b.resources.cpu, Some("500m".into()));
    assert_eq!(b.skip_exit_codes, [7]);
    let Work::Steps(steps) = &b.work else { panic!("{:?}", b.work) };
    assert_eq!(steps[0].name, "step-1");
    assert_eq!(steps[0].shell, ["bash", "-eu"]);
    assert_eq!(steps[1].shell, ["python3", "-u"]);
    let up = compiled.workflow.find("up").unwrap();
    assert_eq!(task("down").kind, Kind::Teardown { of: vec![up], fails_run: true });
    assert_eq!(task("join").work, Work::Noop);
}

#[test]
fn a_document_is_a_version_by_its_own_text() {
    let one = "workflow: a\ntasks: {t: {run: x}}\n";
    let two = "---\nworkflow: b\n# über\ntasks: {t: {run: \"1.10\", env: {V: 1.10, ON: yes}}}\n";
    let both = compile(&format!("{one}{two}")).unwrap();
    assert_eq!((both[0].source.as_str(), both[1].source.as_str()), (one, two));
    assert_eq!(compile(two).unwrap()[0].hash, both[1].hash);
    assert_ne!(both[0].hash, both[1].hash);
    // A version number keeps its zero, and `yes` stays a text.
    let env = &both[1].workflow.tasks[0].env;
    assert_eq!((env["V"].as_str(), env["ON"].as_str()), ("1.10", "yes"));
}

#[test]
fn anchors_and_merges_are_written_out() {
    let compiled = accept(
        r#"
workflow: w
x-common: &common {retries: 3, env: &env {A: "1"}}
tasks:
  a: {<<: *common, run: x, retries: 1}
  b: {<<: [{timeout: 5s}, *common], run: y, env: {<<: *env, B: "2"}}
"#,
    );
    let [a, b] = &compiled.workflow.tasks[..] else { panic!() };
    assert_eq!((a.retry.retries, b.retry.retries), (1, 3));
    assert_eq!(b.env.len(), 2);
    assert_eq!(b.timeout.unwrap().as_secs(), 5);
}

#[test]
fn likely_slips_are_warnings() {
    let compiled = accept(
        r#"
workflow: w
schedule: "@daily"
params: {must: {type: string}}
tasks:
  a: {run: x, outputs: [digest]}
  b: {run: "{{ tasks.a.outputs.digset }}"}
"#,
    );
    assert_snapshot!(pitcrew_lang::render_all(&compiled.warnings, false), @r#"
    w.yaml:2:11: warning: the schedule cannot start a run: the param `must` has no default
      |
    2 | schedule: "@daily"
      |           ^^^^^^^^
    hint: give it a `default`, or start runs by hand

    w.yaml:6:16: warning: the task `a` does not declare the output `digset`
      |
    6 |   b: {run: "{{ tasks.a.outputs.digset }}"}
      |                ^^^^^^^^^^^^^^^^^^^^^^
    hint: did you mean `digest`?
    "#);
}
