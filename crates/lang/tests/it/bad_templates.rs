//! Templates that could not work.

use insta::assert_snapshot;

use crate::support::refuse;

#[test]
fn unknown_names() {
    assert_snapshot!(refuse(r#"
workflow: w
params: {revision: main}
tasks:
  fetch: {run: x, outputs: [digest]}
  noop: {}
  use:
    run: |
      echo {{ params.revison }}
      echo {{ tasks.fecth.outputs.digest }} {{ tasks.fetch.output.digest }} {{ tasks.fetch.digest }}
      echo {{ revision }} {{ fetch }} {{ run.idd }} {{ nonsense }}
      echo {{ tasks.noop.outputs.x }} {{ conn.db.hots }} {{ outputs.x }}
"#), @r"
    w.yaml:8:15: error: unknown param `revison`
      |
    8 |       echo {{ params.revison }}
      |               ^^^^^^^^^^^^^^
    hint: did you mean `revision`?

    w.yaml:9:15: error: unknown task `fecth`
      |
    9 |       echo {{ tasks.fecth.outputs.digest }} {{ tasks.fetch.output.digest }} {{ tasks.fetch.digest }}
      |               ^^^^^^^^^^^^^^^^^^^^^^^^^^
    hint: did you mean `fetch`?

    w.yaml:9:48: error: unknown `output` of the task `fetch`
      |
    9 |       echo {{ tasks.fecth.outputs.digest }} {{ tasks.fetch.output.digest }} {{ tasks.fetch.digest }}
      |                                                ^^^^^^^^^^^^^^^^^^^^^^^^^
    hint: a task has `outputs` and `state`

    w.yaml:9:80: error: unknown `digest` of the task `fetch`
      |
    9 |       echo {{ tasks.fecth.outputs.digest }} {{ tasks.fetch.output.digest }} {{ tasks.fetch.digest }}
      |                                                                                ^^^^^^^^^^^^^^^^^^
    hint: did you mean `tasks.fetch.outputs.digest`?

    w.yaml:10:15: error: unknown name `revision` in a template
       |
    10 |       echo {{ revision }} {{ fetch }} {{ run.idd }} {{ nonsense }}
       |               ^^^^^^^^
    hint: did you mean `params.revision`?

    w.yaml:10:30: error: unknown name `fetch` in a template
       |
    10 |       echo {{ revision }} {{ fetch }} {{ run.idd }} {{ nonsense }}
       |                              ^^^^^
    hint: did you mean `tasks.fetch`?

    w.yaml:10:42: error: unknown `run` value `idd`
       |
    10 |       echo {{ revision }} {{ fetch }} {{ run.idd }} {{ nonsense }}
       |                                          ^^^^^^^
    hint: did you mean `id`?

    w.yaml:10:56: error: unknown name `nonsense` in a template
       |
    10 |       echo {{ revision }} {{ fetch }} {{ run.idd }} {{ nonsense }}
       |                                                        ^^^^^^^^
    hint: templates know `params`, `tasks`, `run`, `item`, `var`, `ds`, `ts`, `logical_date` and others; a text needs quotes

    w.yaml:11:15: error: unknown output `x` of the task `noop`
       |
    11 |       echo {{ tasks.noop.outputs.x }} {{ conn.db.hots }} {{ outputs.x }}
       |               ^^^^^^^^^^^^^^^^^^^^
    hint: it does nothing, so it has no outputs

    w.yaml:11:42: error: unknown field of a connection `hots`
       |
    11 |       echo {{ tasks.noop.outputs.x }} {{ conn.db.hots }} {{ outputs.x }}
       |                                          ^^^^^^^^^^^^
    hint: did you mean `host`?

    w.yaml:11:61: error: `outputs` has no meaning here
       |
    11 |       echo {{ tasks.noop.outputs.x }} {{ conn.db.hots }} {{ outputs.x }}
       |                                                             ^^^^^^^^^
    hint: write `tasks.name.outputs.…`; `outputs` alone is a task's own, in its `branch`
    ");
}

#[test]
fn a_template_that_cannot_be_read() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: "echo {{ 1 + }}"}
  b: {run: "docker ps --format '{{.Names}}'"}
  c:
    run: |
      {% if true %}
      echo yes
"#), @r#"
    w.yaml:3:25: error: this template cannot be read: unexpected end of variable block
      |
    3 |   a: {run: "echo {{ 1 + }}"}
      |                         ^^
    hint: templates are Jinja: `{{ expression }}`, `{% if … %}…{% endif %}`; keep braces as they are with `{% raw %}…{% endraw %}`

    w.yaml:4:35: error: this template cannot be read: unexpected `.`
      |
    4 |   b: {run: "docker ps --format '{{.Names}}'"}
      |                                   ^
    hint: to keep braces as they are, write `{% raw %}{{ … }}{% endraw %}`

    w.yaml:7:7: error: this template cannot be read: unexpected end of input, expected end of block
      |
    7 |       {% if true %}
      |       ^
    hint: templates are Jinja: `{{ expression }}`, `{% if … %}…{% endif %}`; keep braces as they are with `{% raw %}…{% endraw %}`
    "#);
}

#[test]
fn unknown_filters_and_functions() {
    assert_snapshot!(refuse(r#"
workflow: w
params: {n: 1}
tasks:
  a: {run: "{{ params.n | shelquote }} {{ rnage(3) }} {{ params.n is evn }}"}
  b: {run: "{% include 'x' %} {% macro m() %}{% endmacro %}"}
"#), @r#"
    w.yaml:4:27: error: unknown filter `shelquote`
      |
    4 |   a: {run: "{{ params.n | shelquote }} {{ rnage(3) }} {{ params.n is evn }}"}
      |                           ^^^^^^^^^
    hint: did you mean `shellquote`?

    w.yaml:4:43: error: unknown function `rnage`
      |
    4 |   a: {run: "{{ params.n | shelquote }} {{ rnage(3) }} {{ params.n is evn }}"}
      |                                           ^^^^^^^^
    hint: did you mean `range`?

    w.yaml:4:70: error: unknown test `evn`
      |
    4 |   a: {run: "{{ params.n | shelquote }} {{ rnage(3) }} {{ params.n is evn }}"}
      |                                                                      ^^^
    hint: did you mean `even`?

    w.yaml:5:16: error: `{% include %}` is not supported here
      |
    5 |   b: {run: "{% include 'x' %} {% macro m() %}{% endmacro %}"}
      |                ^^^^^^^^^^^
    hint: use `if`, `for`, `set`, `with`, `filter` and `raw`

    w.yaml:5:34: error: `{% macro %}` is not supported here
      |
    5 |   b: {run: "{% include 'x' %} {% macro m() %}{% endmacro %}"}
      |                                  ^^^^^^^^^^^^^^^^^^^^^^^
    hint: use `if`, `for`, `set`, `with`, `filter` and `raw`
    "#);
}

#[test]
fn item_without_foreach() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: "{{ item }}"}
  b: {run: "{{ item.hots }}", foreach: {host: [x, y]}}
  c: {run: x, foreach: {host: ["{{ item }}"]}}
"#), @r#"
    w.yaml:3:16: error: `item` has no meaning here: nothing is mapped
      |
    3 |   a: {run: "{{ item }}"}
      |                ^^^^
    hint: add `foreach` to the task or to its group

    w.yaml:4:16: error: unknown list `hots` of `foreach`
      |
    4 |   b: {run: "{{ item.hots }}", foreach: {host: [x, y]}}
      |                ^^^^^^^^^
    hint: did you mean `host`?

    w.yaml:5:36: error: `item` has no meaning here
      |
    5 |   c: {run: x, foreach: {host: ["{{ item }}"]}}
      |                                    ^^^^
    hint: inside `foreach` there is no item yet
    "#);
}

#[test]
fn own_outputs() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: "{{ tasks.a.outputs.x }}"}
"#), @r#"
    w.yaml:3:16: error: the task `a` uses its own outputs
      |
    3 |   a: {run: "{{ tasks.a.outputs.x }}"}
      |                ^^^^^^^^^^^^^^^^^
    hint: only its `branch` can use a task's own outputs
    "#);
}

#[test]
fn tasks_where_there_are_none() {
    assert_snapshot!(refuse(r#"
workflow: w
env: {X: "{{ tasks.a.outputs.x }}"}
tasks:
  a: {run: x}
"#), @r#"
    w.yaml:2:14: error: `tasks` has no meaning here
      |
    2 | env: {X: "{{ tasks.a.outputs.x }}"}
      |              ^^^^^^^^^^^^^^^^^
    hint: it is there for every task; use `tasks` in the task that needs it
    "#);
}

#[test]
fn a_condition_that_cannot_be_read() {
    assert_snapshot!(refuse(r#"
workflow: w
params: {n: 1}
tasks:
  a: {run: x, when: params.n = 1}
  b: {run: x, when: param.n == 1}
  c: {run: x, when: "{{ params.m }}"}
"#), @r#"
    w.yaml:4:30: error: this template cannot be read: unexpected `=`, expected end of variable block
      |
    4 |   a: {run: x, when: params.n = 1}
      |                              ^
    hint: templates are Jinja: `{{ expression }}`, `{% if … %}…{% endif %}`; keep braces as they are with `{% raw %}…{% endraw %}`

    w.yaml:5:21: error: unknown name `param` in a template
      |
    5 |   b: {run: x, when: param.n == 1}
      |                     ^^^^^^^
    hint: did you mean `params`?

    w.yaml:6:25: error: unknown param `m`
      |
    6 |   c: {run: x, when: "{{ params.m }}"}
      |                         ^^^^^^^^
    hint: the params are: `n`
    "#);
}

#[test]
fn a_text_that_grows_without_end() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: "{% set a = 'xxxxxxxx' * 1000000 %}{{ a }}"}
  b: {run: "{% set a = 'x' ~ params.p %}{% set b = a ~ a ~ a ~ a ~ a ~ a ~ a ~ a %}{% set c = b ~ b ~ b ~ b ~ b ~ b ~ b ~ b %}{% set d = c ~ c ~ c ~ c ~ c ~ c ~ c ~ c %}{% set e = d ~ d ~ d ~ d ~ d ~ d ~ d ~ d %}{{ e }}"}
params: {p: x}
"#), @r#"
    w.yaml:3:24: error: this template makes its text grow too much
      |
    3 |   a: {run: "{% set a = 'xxxxxxxx' * 1000000 %}{{ a }}"}
      |                        ^^^^^^^^^^^^^^^^^^^^
    hint: a template fills in values; to make long texts use a script

    w.yaml:4:181: error: this template makes its text grow too much
      |
    4 | …~ b ~ b ~ b ~ b ~ b ~ b %}{% set d = c ~ c ~ c ~ c ~ c ~ c ~ c ~ c %}{% set e = d ~ d ~ d ~ d ~ d ~ d ~ d ~ d %}{{ e }}"}
      |                                                                                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    hint: a template fills in values; to make long texts use a script
    "#);
}

#[test]
fn a_group_as_a_task() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  g: {tasks: {a: {run: x}}}
  b: {run: "{{ tasks.g.outputs.x }}"}
"#), @r#"
    w.yaml:4:16: error: `g` is a group, and has no outputs of its own
      |
    4 |   b: {run: "{{ tasks.g.outputs.x }}"}
      |                ^^^^^^^^^^^^^^^^^
    hint: name a task in it: `tasks.g.name.outputs.…`
    "#);
}

#[test]
fn a_group_mapped_over_itself() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  g:
    foreach: "{{ tasks.a.outputs.x }}"
    tasks: {a: {run: x}}
"#), @r#"
    w.yaml:4:18: error: the group `g` waits for a task of its own here
      |
    4 |     foreach: "{{ tasks.a.outputs.x }}"
      |                  ^^^^^^^^^^^^^^^^^
    hint: use the output of a task outside the group
    "#);
}

#[test]
fn deep_templates_do_not_overflow_the_stack() {
    let deep = [
        format!("{{{{ {}1 }}}}", "not ".repeat(20_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(20_000)),
        format!("{{{{ x{} }}}}", ".a".repeat(20_000)),
        format!("{{{{ 1{} }}}}", " + 1".repeat(20_000)),
        format!("{{{{ x{} }}}}", " | upper".repeat(20_000)),
        format!("{{{{ x{} }}}}", "()".repeat(20_000)),
        format!("{{{{ {}1{} }}}}", "(".repeat(20_000), ")".repeat(20_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(20_000), "]".repeat(20_000)),
        format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(20_000)),
        format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(20_000)),
        format!("{}{}", "{% if 1 %}".repeat(20_000), "{% endif %}".repeat(20_000)),
        format!("{}{}", "{% set a %}".repeat(20_000), "{% endset %}".repeat(20_000)),
    ];
    for template in deep {
        let found = refuse(&format!("workflow: w\ntasks: {{a: {{run: '{template}'}}}}\n"));
        assert!(found.contains("too long") || found.contains("recursion"), "{:.200}", found);
    }
    // The longest that is allowed fits into a small stack.
    let longest = [format!("{{{{ 1{} }}}}", " + 1".repeat(240)), format!("{{{{ 'x'{} }}}}", " | upper".repeat(240))];
    let elifs = format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(240));
    for template in longest.into_iter().chain([elifs]) {
        crate::support::accept(&format!("workflow: w\ntasks: {{a: {{run: \"{template}\"}}}}\n"));
    }
}

#[test]
fn templates_where_none_are_rendered() {
    assert_snapshot!(
        refuse(
            r#"
workflow: w
params: {p: x}
tasks:
  a: {run: x, pool: "{{ params.p }}", shell: "{{ params.p }}", retries: "{{ params.p }}"}
  b: {uses: notebook, with: {parameters: {"{{ params.p }}": 1}}}
"#
        ),
        @r#"
    w.yaml:4:21: error: `pool` cannot be a template
      |
    4 |   a: {run: x, pool: "{{ params.p }}", shell: "{{ params.p }}", retries: "{{ params.p }}"}
      |                     ^^^^^^^^^^^^^^^^

    w.yaml:4:46: error: `shell` cannot be a template
      |
    4 |   a: {run: x, pool: "{{ params.p }}", shell: "{{ params.p }}", retries: "{{ params.p }}"}
      |                                              ^^^^^^^^^^^^^^^^

    w.yaml:4:73: error: `retries` must be a whole number from 0 to 10000, found the text `{{ params.p }}`
      |
    4 |   a: {run: x, pool: "{{ params.p }}", shell: "{{ params.p }}", retries: "{{ params.p }}"}
      |                                                                         ^^^^^^^^^^^^^^^^

    w.yaml:5:43: error: a key cannot be a template
      |
    5 |   b: {uses: notebook, with: {parameters: {"{{ params.p }}": 1}}}
      |                                           ^^^^^^^^^^^^^^^^
    "#
    );
}
