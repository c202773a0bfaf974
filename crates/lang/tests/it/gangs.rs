//! `nodes`: what it comes to, and what no gang can be.

use insta::assert_snapshot;
use pitcrew_core::fleet::{Gang, Topology};
use pitcrew_core::ir::{BackendKind, Work};

use crate::support::{accept, refuse};

#[test]
fn members_are_mapped_over_their_ranks() {
    let workflow = accept(
        r#"
workflow: w
max_active_tasks: 3
defaults: {backend: local}
tasks:
  short: {run: x, nodes: 2}
  long: {run: x, queue: q, nodes: {count: 3, near: rack, near_required: true}}
  near: {run: "echo {{ map_index }}", nodes: {count: 3, near: rack}}
"#,
    )
    .workflow;
    let gang = |name: &str| workflow.task(workflow.find(name).unwrap()).gang.clone().unwrap();
    let near = |is_required| Some(Topology { label: "rack".to_owned(), is_required });
    assert_eq!(gang("short"), Gang::of(2));
    assert_eq!(gang("long"), Gang { topology: near(true), ..Gang::of(3) });
    assert_eq!(gang("near"), Gang { topology: near(false), ..Gang::of(3) });
    let task = workflow.task(workflow.find("short").unwrap());
    assert_eq!(task.foreach.as_ref().unwrap().axes[0].1, serde_json::json!([0, 1]));
    assert!(task.placement.is_free, "the backend of `defaults` is for tasks on one node");
}

#[test]
fn members_may_be_tasks_of_ecs_which_finds_machines_itself() {
    let workflow = accept(
        r#"
workflow: w
defaults: {backend: {ecs: {cluster: other, task_definition: tools}}}
tasks:
  train: {nodes: {count: 4, near: ecs.availability-zone}, backend: {ecs: {cluster: gpus, task_definition: llm, gpus: 8}}}
  here: {run: x, nodes: 2}
"#,
    )
    .workflow;
    let of = |name: &str| workflow.task(workflow.find(name).unwrap());
    let gang = of("train").gang.as_ref().unwrap();
    assert_eq!((of("train").backend, gang.is_elsewhere, gang.count), (BackendKind::Ecs, true, 4));
    assert_eq!(gang.topology.as_ref().unwrap().label, "ecs.availability-zone");
    assert_eq!(of("train").foreach.as_ref().unwrap().axes[0].1, serde_json::json!([0, 1, 2, 3]));
    assert!(
        matches!(&of("train").work, Work::Steps(steps) if steps[0].run.is_empty()),
        "its definition says what it runs"
    );
    assert_eq!((of("here").backend, of("here").gang.as_ref().unwrap().is_elsewhere), (BackendKind::Local, false));
}

#[test]
fn numbers_that_are_no_gang() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x, nodes: 0}
  b: {run: x, nodes: 1}
  c: {run: x, nodes: -3}
  d: {run: x, nodes: 2.5}
  e: {run: x, nodes: "{{ params.n }}"}
  f: {run: x, nodes: {near: rack}}
  g: {run: x, nodes: {count: 2, near_required: true, far: x}}
  h: {run: x, nodes: [2]}
"#), @r#"
    w.yaml:3:22: error: `nodes` must be a whole number from 2 to 1024, found the number `0`
      |
    3 |   a: {run: x, nodes: 0}
      |                      ^

    w.yaml:4:22: error: `nodes`: 1 member is no gang
      |
    4 |   b: {run: x, nodes: 1}
      |                      ^
    hint: leave `nodes` out: a task has one node unless it says otherwise

    w.yaml:5:22: error: `nodes` must be a whole number from 2 to 1024, found the number `-3`
      |
    5 |   c: {run: x, nodes: -3}
      |                      ^^

    w.yaml:6:22: error: `nodes` must be a whole number from 2 to 1024, found the number `2.5`
      |
    6 |   d: {run: x, nodes: 2.5}
      |                      ^^^

    w.yaml:7:22: error: `nodes` must be a whole number from 2 to 1024, found the text `{{ params.n }}`
      |
    7 |   e: {run: x, nodes: "{{ params.n }}"}
      |                      ^^^^^^^^^^^^^^^^

    w.yaml:8:22: error: `nodes` does not say how many
      |
    8 |   f: {run: x, nodes: {near: rack}}
      |                      ^
    hint: write `nodes: {count: 4, …}`

    w.yaml:9:33: error: `near_required` without `near` has no meaning
      |
    9 |   g: {run: x, nodes: {count: 2, near_required: true, far: x}}
      |                                 ^^^^^^^^^^^^^
    hint: say which label nodes that are near each other agree in: `near: rack`

    w.yaml:9:54: error: unknown key `far` in `nodes`
      |
    9 |   g: {run: x, nodes: {count: 2, near_required: true, far: x}}
      |                                                      ^^^
    hint: did you mean `near`?

    w.yaml:10:22: error: `nodes` must be a whole number from 2 to 1024, found a list
       |
    10 |   h: {run: x, nodes: [2]}
       |                      ^
    "#);
}

#[test]
fn what_a_gang_cannot_have() {
    assert_snapshot!(refuse(r#"
workflow: w
max_active_tasks: 3
tasks:
  a: {run: x, nodes: 2, foreach: [1, 2]}
  b: {run: x, nodes: 2, backend: local}
  c: {run: x, nodes: 2, branch: "{{ 'd' }}"}
  d: {needs: [c], nodes: 2}
  e: {run: x, nodes: 4}
  f: {run: x, nodes: 2, max_parallel: 1, foreach_max: 9}
  g:
    foreach: [1, 2]
    tasks:
      h: {run: x, nodes: 2}
"#), @r#"
    w.yaml:4:25: error: a task has `nodes` or a `foreach`, not both
      |
    4 |   a: {run: x, nodes: 2, foreach: [1, 2]}
      |                         ^^^^^^^
    hint: members know their number by `PITCREW_RANK`; for several gangs, write several tasks

    w.yaml:5:34: error: a task has `nodes` or a `backend`, not both
      |
    5 |   b: {run: x, nodes: 2, backend: local}
      |                                  ^^^^^
    hint: leave `backend` out: a node is chosen for each member; only `backend: {ecs: …}` finds them itself

    w.yaml:6:15: error: a task with `nodes` cannot have a `branch`: each member would decide
      |
    6 |   c: {run: x, nodes: 2, branch: "{{ 'd' }}"}
      |               ^^^^^
    hint: let a task after it have the `branch`

    w.yaml:7:19: error: a task with `nodes` has nothing to run
      |
    7 |   d: {needs: [c], nodes: 2}
      |                   ^^^^^
    hint: say what each member runs, with `run` or `steps`

    w.yaml:8:15: error: `e` has 4 members that run at a time, and `max_active_tasks` of the workflow allows 3
      |
    8 |   e: {run: x, nodes: 4}
      |               ^^^^^
    hint: raise `max_active_tasks`, or ask for fewer `nodes`

    w.yaml:9:25: error: a task with `nodes` cannot have `max_parallel`: its members begin together
      |
    9 |   f: {run: x, nodes: 2, max_parallel: 1, foreach_max: 9}
      |                         ^^^^^^^^^^^^
    hint: leave `max_parallel` out; to have fewer gangs run at a time, give their tasks a `pool`, or set the workflow's `max_active_runs`

    w.yaml:9:42: error: a task with `nodes` cannot have `foreach_max`
      |
    9 |   f: {run: x, nodes: 2, max_parallel: 1, foreach_max: 9}
      |                                          ^^^^^^^^^^^
    hint: leave `foreach_max` out: `nodes` says how many members there are

    w.yaml:13:19: error: `nodes` inside the group `g`, which is mapped
       |
    13 |       h: {run: x, nodes: 2}
       |                   ^^^^^
    hint: take the task out of the group
    "#);
}
