//! Keys and shapes that do not fit.

use insta::assert_snapshot;

use crate::support::refuse;

#[test]
fn no_name() {
    assert_snapshot!(refuse(r#"
tasks:
  a: {run: x}
"#), @r#"
    w.yaml:1:1: error: the workflow has no name
      |
    1 | tasks:
      | ^
    hint: begin with `workflow: my-workflow`
    "#);
}

#[test]
fn a_name_that_is_a_path() {
    assert_snapshot!(refuse(r#"
workflow: ../etc
tasks:
  a: {run: x}
"#), @r#"
    w.yaml:1:11: error: `../etc` is not an id: `/` is not allowed, use letters, digits, `_`, `-` and `.`
      |
    1 | workflow: ../etc
      |           ^^^^^^
    "#);
}

#[test]
fn no_tasks() {
    assert_snapshot!(refuse(r#"
workflow: w
description: nothing to do
"#), @r#"
    w.yaml:1:1: error: the workflow has no `tasks`
      |
    1 | workflow: w
      | ^
    hint: add `tasks:` with at least one task below it
    "#);
}

#[test]
fn zero_tasks() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks: {}
finally:
  a: {run: x}
"#), @r#"
    w.yaml:2:8: error: the workflow has 0 tasks
      |
    2 | tasks: {}
      |        ^
    hint: add a task below `tasks:`, for example `hello: {run: echo hello}`
    "#);
}

#[test]
fn unknown_keys_everywhere() {
    assert_snapshot!(refuse(r#"
workflow: w
shedule: "@daily"
image: x
defaults: {retry: 2}
tasks:
  a:
    command: x
    image: alpine
    color: red
  b:
    run: x
    catchup: true
    resources: {gpus: 1}
    steps_timeout: 5m
"#), @r#"
    w.yaml:2:1: error: unknown key `shedule` in a workflow
      |
    2 | shedule: "@daily"
      | ^^^^^^^
    hint: did you mean `schedule`?

    w.yaml:3:1: error: `image` is not supported yet
      |
    3 | image: x
      | ^^^^^
    hint: for now, tasks run as plain processes; call your container tool in `run`

    w.yaml:4:12: error: unknown key `retry` in `defaults`
      |
    4 | defaults: {retry: 2}
      |            ^^^^^
    hint: did you mean `retries`?

    w.yaml:7:5: error: unknown key `command` in a task
      |
    7 |     command: x
      |     ^^^^^^^
    hint: did you mean `run`?

    w.yaml:8:5: error: `image` is not supported yet
      |
    8 |     image: alpine
      |     ^^^^^
    hint: for now, tasks run as plain processes; call your container tool in `run`

    w.yaml:9:5: error: unknown key `color` in a task
      |
    9 |     color: red
      |     ^^^^^
    hint: known here: needs, run, steps, uses, with, tasks, description, when, trigger_rule, foreach, foreach_max, max_parallel, env, workdir, shell, outputs, retries, retry_delay, retry_backoff, retry_max_delay, retry_jitter, resume_from, recovery, hang, timeout, grace, pool, pool_slots, priority, preemptible, depends_on_past, skip_exit_codes, branch, setup, teardown, resources, nodes, node_selector, affinity, tolerations, queue, backend

    w.yaml:12:5: error: unknown key `catchup` in a task
       |
    12 |     catchup: true
       |     ^^^^^^^
    hint: `catchup` belongs into `schedule`

    w.yaml:13:17: error: unknown key `gpus` in `resources`
       |
    13 |     resources: {gpus: 1}
       |                 ^^^^
    hint: did you mean `gpu`?

    w.yaml:14:5: error: unknown key `steps_timeout` in a task
       |
    14 |     steps_timeout: 5m
       |     ^^^^^^^^^^^^^
    hint: known here: needs, run, steps, uses, with, tasks, description, when, trigger_rule, foreach, foreach_max, max_parallel, env, workdir, shell, outputs, retries, retry_delay, retry_backoff, retry_max_delay, retry_jitter, resume_from, recovery, hang, timeout, grace, pool, pool_slots, priority, preemptible, depends_on_past, skip_exit_codes, branch, setup, teardown, resources, nodes, node_selector, affinity, tolerations, queue, backend
    "#);
}

#[test]
fn a_task_that_is_a_text() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: echo hello
"#), @r#"
    w.yaml:3:6: error: the task `a` must be a mapping, found the text `echo hello`
      |
    3 |   a: echo hello
      |      ^^^^^^^^^^
    hint: to run a command, write `run: …` below the name
    "#);
}

#[test]
fn tasks_as_a_list() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  - name: a
    run: x
"#), @r#"
    w.yaml:3:3: error: `tasks` must be a mapping of names to tasks, found a list
      |
    3 |   - name: a
      |   ^
    hint: write `name:` and, indented below it, what the task does
    "#);
}

#[test]
fn run_and_uses() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a:
    run: x
    uses: git.checkout
"#), @r#"
    w.yaml:5:5: error: a task has either `run` or `uses`
      |
    5 |     uses: git.checkout
      |     ^^^^
    hint: keep one of them; `steps` is for several scripts in one task (`run` is in line 4)
    "#);
}

#[test]
fn run_as_a_list() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a:
    run: [make, test]
"#), @r#"
    w.yaml:4:10: error: `run` must be a text, found a list
      |
    4 |     run: [make, test]
      |          ^
    hint: for several commands write `run: |` and one command per line, or use `steps`
    "#);
}

#[test]
fn with_without_uses() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x, with: {url: y}}
"#), @r#"
    w.yaml:3:15: error: `with` without `uses` has no meaning
      |
    3 |   a: {run: x, with: {url: y}}
      |               ^^^^
    hint: name an action: `uses: git.checkout`
    "#);
}

#[test]
fn steps_that_are_wrong() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a:
    steps:
      - {name: one, run: x}
      - {name: one, run: y}
      - {name: two, on_error: ignore}
"#), @r#"
    w.yaml:6:16: error: the step `one` is there twice
      |
    6 |       - {name: one, run: y}
      |                ^^^
    hint: give it another `name`

    w.yaml:7:9: error: the step `two` has no `run`
      |
    7 |       - {name: two, on_error: ignore}
      |         ^
    hint: add `run: …`

    w.yaml:7:31: error: `on_error` must be `fail` or `continue`, found `ignore`
      |
    7 |       - {name: two, on_error: ignore}
      |                               ^^^^^^
    "#);
}

#[test]
fn an_unknown_action() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {uses: git.chekout, with: {url: x}}
"#), @r#"
    w.yaml:3:13: error: unknown action `git.chekout`
      |
    3 |   a: {uses: git.chekout, with: {url: x}}
      |             ^^^^^^^^^^^
    hint: did you mean `git.checkout`?
    "#);
}

#[test]
fn an_action_with_wrong_values() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a:
    uses: git.checkout
    with:
      urll: x
      depth: 0
  b:
    uses: variables.set
    with: {values: "text"}
  c:
    uses: git.checkout
"#), @r#"
    w.yaml:6:7: error: `with` of `git.checkout` has no `urll`
      |
    6 |       urll: x
      |       ^^^^
    hint: did you mean `url`?

    w.yaml:6:7: error: `with` of `git.checkout` needs `url`
      |
    6 |       urll: x
      |       ^

    w.yaml:7:14: error: `with.depth` of `git.checkout` must be at least 1, found `0`
      |
    7 |       depth: 0
      |              ^

    w.yaml:10:20: error: `with.values` of `variables.set` must be a mapping, found the text `text`
       |
    10 |     with: {values: "text"}
       |                    ^^^^^^

    w.yaml:12:11: error: `with` of `git.checkout` needs `url`
       |
    12 |     uses: git.checkout
       |           ^^^^^^^^^^^^
    "#);
}

#[test]
fn outputs_that_are_wrong() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a:
    run: x
    outputs:
      one: {from: ../secret}
      two: {parse: xml}
      three: stdout
      a.b: {}
"#), @r#"
    w.yaml:6:19: error: the file `../secret` is outside the run's workspace
      |
    6 |       one: {from: ../secret}
      |                   ^^^^^^^^^
    hint: the path is relative to the run's workspace, and stays inside it

    w.yaml:7:20: error: `parse` must be `text`, `json`, `yaml` or `lines`, found `xml`
      |
    7 |       two: {parse: xml}
      |                    ^^^
    hint: did you mean `yaml`?

    w.yaml:8:14: error: the output `three` must be a mapping, found the text `stdout`
      |
    8 |       three: stdout
      |              ^^^^^^
    hint: for example `{from: stdout, parse: json}`, or nothing for a `name=value` line in `$PITCREW_OUTPUT`

    w.yaml:9:7: error: `a.b` is not a name for an output
      |
    9 |       a.b: {}
      |       ^^^
    hint: use letters, digits, `_` and `-`
    "#);
}

#[test]
fn a_group_with_work() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  g:
    run: x
    retries: 2
    tasks:
      a: {run: x}
"#), @r#"
    w.yaml:4:5: error: unknown key `run` in a group
      |
    4 |     run: x
      |     ^^^
    hint: an entry with `tasks` is a group, and a group has no `run`; give it to its tasks

    w.yaml:5:5: error: unknown key `retries` in a group
      |
    5 |     retries: 2
      |     ^^^^^^^
    hint: an entry with `tasks` is a group, and a group has no `retries`; give it to its tasks
    "#);
}

#[test]
fn an_empty_group() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  g: {tasks: }
  a: {run: x}
"#), @r#"
    w.yaml:3:7: error: the group has 0 tasks
      |
    3 |   g: {tasks: }
      |       ^^^^^
    hint: add a task below `tasks:`
    "#);
}

#[test]
fn max_parallel_alone() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x, max_parallel: 2}
"#), @r#"
    w.yaml:3:15: error: `max_parallel` without `foreach` has no meaning
      |
    3 |   a: {run: x, max_parallel: 2}
      |               ^^^^^^^^^^^^
    hint: add `foreach`, or limit tasks with `pool` or the workflow's `max_active_tasks`
    "#);
}
