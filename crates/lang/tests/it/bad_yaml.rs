//! Files that are no YAML, or not ours.

use insta::assert_snapshot;

use crate::support::refuse;

#[test]
fn a_tab_for_indentation() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
	a: {run: x}
"#), @r#"
    w.yaml:3:2: error: a tab cannot be used for indentation
      |
    3 |  a: {run: x}
      |  ^
    hint: indent with spaces
    "#);
}

#[test]
fn an_unclosed_quote() {
    assert_snapshot!(refuse(r#"
workflow: w
description: "never closed
tasks:
  a: {run: x}
"#), @r#"
    w.yaml:2:14: error: this quoted text is not closed: the next line is indented too little to be part of it
      |
    2 | description: "never closed
      |              ^
    hint: close the quote
    "#);
}

#[test]
fn an_unclosed_bracket() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x
  b: {run: y}
"#), @r#"
    w.yaml:4:4: error: a `{` is not closed, or a `,` is missing between two entries
      |
    4 |   b: {run: y}
      |    ^
    hint: close it with `}`
    "#);
}

#[test]
fn a_colon_in_a_text() {
    assert_snapshot!(refuse(r#"
workflow: w
description: note: this
tasks:
  a: {run: x}
"#), @r#"
    w.yaml:2:18: error: `:` begins a value where none can be
      |
    2 | description: note: this
      |                  ^
    hint: a text that holds `: ` needs quotes; or the line above has no `:` behind its key
    "#);
}

#[test]
fn a_template_without_quotes() {
    assert_snapshot!(refuse(r#"
workflow: w
params: {n: 1}
tasks:
  a:
    run: echo
    workdir: {{ params.n }}
"#), @r#"
    w.yaml:6:15: error: a key must be a text
      |
    6 |     workdir: {{ params.n }}
      |               ^^
    hint: put a value that begins with `{{` in quotes: `key: "{{ … }}"`
    "#);
}

#[test]
fn wrong_indentation() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a:
    run: x
   needs: [b]
"#), @r#"
    w.yaml:5:4: error: this line is not part of the mapping above: it has no `key:`, or its indentation does not fit
      |
    5 |    needs: [b]
      |    ^
    hint: give it the indentation of its neighbours
    "#);
}

#[test]
fn a_missing_colon() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a
    run: x
"#), @r#"
    w.yaml:4:8: error: `:` begins a value where none can be
      |
    4 |     run: x
      |        ^
    hint: a text that holds `: ` needs quotes; or the line above has no `:` behind its key
    "#);
}

#[test]
fn a_key_twice() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a:
    run: x
    run: y
"#), @r#"
    w.yaml:5:5: error: the key `run` is there twice
      |
    5 |     run: y
      |     ^^^
    hint: it is first given in line 4
    "#);
}

#[test]
fn a_task_twice() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x}
  b: {run: x}
  a: {run: y}
"#), @r#"
    w.yaml:5:3: error: the key `a` is there twice
      |
    5 |   a: {run: y}
      |   ^
    hint: it is first given in line 3
    "#);
}

#[test]
fn an_unknown_alias() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x, env: *common}
"#), @r#"
    w.yaml:3:20: error: this alias has no anchor
      |
    3 |   a: {run: x, env: *common}
      |                    ^
    hint: write `&name` before the value that `*name` stands for, above it
    "#);
}

#[test]
fn a_billion_laughs() {
    assert_snapshot!(refuse(r#"
workflow: w
x-a: &a [x, x, x, x, x, x, x, x, x, x]
x-b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]
x-c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]
x-d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]
x-e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]
x-f: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]
x-g: &g [*f, *f, *f, *f, *f, *f, *f, *f, *f, *f]
tasks:
  a: {run: x}
"#), @r#"
    w.yaml:7:34: error: the aliases of this file stand for more than 1000000 values
      |
    7 | x-f: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]
      |                                  ^^
    hint: an alias of aliases grows fast; write the values out, or use `foreach`
    "#);
}

#[test]
fn a_custom_tag() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: !!python/object x}
"#), @r#"
    w.yaml:3:12: error: the tag `!!python/object` is not known here
      |
    3 |   a: {run: !!python/object x}
      |            ^^^^^^^^^^^^^^^^^
    hint: leave it out, or quote a text that begins with `!`
    "#);
}

#[test]
fn a_bad_merge() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x, <<: 5}
"#), @r#"
    w.yaml:3:19: error: `<<` merges a mapping, or a list of mappings
      |
    3 |   a: {run: x, <<: 5}
      |                   ^
    hint: give it an alias: `<<: *name`
    "#);
}

#[test]
fn no_mapping_at_all() {
    assert_snapshot!(refuse(r#"
just some text
"#), @r#"
    w.yaml:1:1: error: a workflow is a mapping, found the text `just some text`
      |
    1 | just some text
      | ^^^^^^^^^^^^^^
    hint: a workflow begins with `workflow: name` and has `tasks:`
    "#);
}

#[test]
fn an_empty_file() {
    assert_snapshot!(refuse(r#"
# nothing here
"#), @r#"
    w.yaml:1:1: error: the file holds no workflow
      |
    1 | # nothing here
      | ^
    hint: a workflow begins with `workflow: name` and has `tasks:`
    "#);
}
