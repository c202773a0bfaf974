//! Names that mean nothing, and graphs that cannot be.

use insta::assert_snapshot;

use crate::support::refuse;

#[test]
fn an_unknown_need() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  checkout: {run: x}
  build: {run: x, needs: [chekout, deploy]}
"#), @r#"
    w.yaml:4:27: error: the task `build` needs `chekout`, which is not a task
      |
    4 |   build: {run: x, needs: [chekout, deploy]}
      |                           ^^^^^^^
    hint: did you mean `checkout`?

    w.yaml:4:36: error: the task `build` needs `deploy`, which is not a task
      |
    4 |   build: {run: x, needs: [chekout, deploy]}
      |                                    ^^^^^^
    hint: the tasks are `build` and `checkout`
    "#);
}

#[test]
fn a_circle() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x, needs: [c]}
  b: {run: x, needs: [a]}
  c: {run: x, needs: [b]}
  d: {run: x}
"#), @r#"
    w.yaml:3:23: error: the tasks need each other in a circle: b → c → a → b
      |
    3 |   a: {run: x, needs: [c]}
      |                       ^
    hint: take one of these `needs` away; a template that uses `tasks.x` counts as one
    "#);
}

#[test]
fn a_task_that_needs_itself() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x, needs: [a]}
"#), @r#"
    w.yaml:3:23: error: the tasks need each other in a circle: a → a
      |
    3 |   a: {run: x, needs: [a]}
      |                       ^
    hint: a task cannot wait for itself
    "#);
}

#[test]
fn a_circle_through_a_template() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: "echo {{ tasks.b.outputs.x }}"}
  b: {run: x, needs: [a]}
"#), @r#"
    w.yaml:3:21: error: the tasks need each other in a circle: b → a → b
      |
    3 |   a: {run: "echo {{ tasks.b.outputs.x }}"}
      |                     ^^^^^^^^^^^^^^^^^
    hint: take one of these `needs` away; a template that uses `tasks.x` counts as one
    "#);
}

#[test]
fn ids_that_are_paths() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a/b: {run: x}
  ..: {run: x}
  a.b: {run: x}
  "": {run: x}
  a b: {run: x}
"#), @r#"
    w.yaml:3:3: error: `a/b` is not an id: `/` is not allowed, use letters, digits, `_`, `-` and `.`
      |
    3 |   a/b: {run: x}
      |   ^^^

    w.yaml:4:3: error: `..` is not an id: it cannot contain `..`, nor begin or end with `.`
      |
    4 |   ..: {run: x}
      |   ^^

    w.yaml:5:3: error: `a.b`: the name of a task has no `.`, which parts a group from its tasks
      |
    5 |   a.b: {run: x}
      |   ^^^
    hint: to put a task in a group, write the group's name and the task below its `tasks:`

    w.yaml:6:3: error: an id cannot be empty
      |
    6 |   "": {run: x}
      |   ^^

    w.yaml:7:3: error: `a b` is not an id: ` ` is not allowed, use letters, digits, `_`, `-` and `.`
      |
    7 |   a b: {run: x}
      |   ^^^
    "#);
}

#[test]
fn a_name_in_tasks_and_finally() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x}
finally:
  a: {run: y}
"#), @r#"
    w.yaml:5:3: error: the name `a` is there twice
      |
    5 |   a: {run: y}
      |   ^
    hint: it is first given in line 3
    "#);
}

#[test]
fn finally_in_the_graph() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x, needs: [clean]}
  b: {run: x}
finally:
  clean: {run: x, needs: [b]}
"#), @r"
    w.yaml:3:23: error: `a` cannot need `clean`, which stands in `finally`
      |
    3 |   a: {run: x, needs: [clean]}
      |                       ^^^^^
    hint: tasks in `finally` start when all other tasks are finished

    w.yaml:6:27: error: `clean` stands in `finally` and cannot need `b`
      |
    6 |   clean: {run: x, needs: [b]}
      |                           ^
    hint: tasks in `finally` start when all other tasks are finished
    ");
}

#[test]
fn finally_with_rules_of_others() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  b: {run: x}
finally:
  mail: {run: x, trigger_rule: one_failed}
  up: {run: x, setup: true}
  g: {tasks: {a: {run: x}}}
"#), @r#"
    w.yaml:5:32: error: the rule `one_failed` has no effect here
      |
    5 |   mail: {run: x, trigger_rule: one_failed}
      |                                ^^^^^^^^^^
    hint: a task under `finally` runs whatever became of the others; use `when` for a condition, such as `tasks.build.state == 'failed'`

    w.yaml:6:16: error: a task under `finally` cannot be a setup
      |
    6 |   up: {run: x, setup: true}
      |                ^^^^^

    w.yaml:7:3: error: a group cannot stand in `finally`
      |
    7 |   g: {tasks: {a: {run: x}}}
      |   ^
    hint: write the tasks directly below `finally`
    "#);
}

#[test]
fn groups() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  g:
    tasks:
      a: {run: x, needs: [g]}
      b: {run: x, needs: [out]}
  c: {run: x, needs: [b]}
  outer: {run: x}
"#), @r#"
    w.yaml:5:27: error: `g` is the group that this stands in
      |
    5 |       a: {run: x, needs: [g]}
      |                           ^
    hint: name the tasks of the group that are meant

    w.yaml:6:27: error: the task `g.b` needs `out`, which is not a task
      |
    6 |       b: {run: x, needs: [out]}
      |                           ^^^
    hint: did you mean `outer`?

    w.yaml:7:23: error: the task `c` needs `b`, which is not a task
      |
    7 |   c: {run: x, needs: [b]}
      |                       ^
    hint: did you mean `g.b`?
    "#);
}

#[test]
fn setups_and_teardowns() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  up: {run: x}
  both: {run: x, setup: true, teardown: true}
  down: {run: x, teardown: {of: [up, nope]}, trigger_rule: always}
"#), @r#"
    w.yaml:4:31: error: a task is either a setup or a teardown
      |
    4 |   both: {run: x, setup: true, teardown: true}
      |                               ^^^^^^^^

    w.yaml:5:34: error: `up` is not a setup
      |
    5 |   down: {run: x, teardown: {of: [up, nope]}, trigger_rule: always}
      |                                  ^^
    hint: add `setup: true` to `up`

    w.yaml:5:38: error: `nope` is not a task
      |
    5 |   down: {run: x, teardown: {of: [up, nope]}, trigger_rule: always}
      |                                      ^^^^
    hint: the tasks are `both`, `down` and `up`

    w.yaml:5:60: error: a teardown has no `trigger_rule` of its own
      |
    5 |   down: {run: x, teardown: {of: [up, nope]}, trigger_rule: always}
      |                                                            ^^^^^^
    hint: a teardown always runs once its work is done, if its setup succeeded; leave `trigger_rule` out
    "#);
}

#[test]
fn nested_mappings() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  g:
    foreach: [1, 2]
    tasks:
      a: {run: x, foreach: [3, 4]}
"#), @r#"
    w.yaml:6:19: error: a `foreach` inside the group `g`, which is mapped itself
      |
    6 |       a: {run: x, foreach: [3, 4]}
      |                   ^^^^^^^
    hint: map the group over both lists: `foreach: {a: […], b: […]}`
    "#);
}

#[test]
fn a_branch_to_nowhere() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x, branch: "{{ outputs.next }}"}
"#), @r#"
    w.yaml:3:3: error: the task `a` has a `branch`, but no task needs it
      |
    3 |   a: {run: x, branch: "{{ outputs.next }}"}
      |   ^
    hint: let the tasks to choose from need it
    "#);
}

#[test]
fn two_workflows_of_one_name() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks: {a: {run: x}}
---
workflow: w
tasks: {a: {run: x}}
"#), @r#"
    w.yaml:4:11: error: the workflow `w` is there twice in this file
      |
    4 | workflow: w
      |           ^
    "#);
}
