//! Values of the right key and the wrong kind.

use insta::assert_snapshot;

use crate::support::refuse;

#[test]
fn wrong_types() {
    assert_snapshot!(refuse(r#"
workflow: w
max_active_runs: many
fail_fast: yes
tags: {a: b}
tasks:
  a:
    run: x
    retries: -1
    timeout: soon
    priority: high
    pool_slots: 0
    env: [A=b]
    skip_exit_codes: [0, 300]
    retry_backoff: 0.5
    depends_on_past: "true"
"#), @r#"
    w.yaml:2:18: error: `max_active_runs` must be a whole number from 1 to 100000, found the text `many`
      |
    2 | max_active_runs: many
      |                  ^^^^

    w.yaml:3:12: error: `fail_fast` must be `true` or `false`, found the text `yes`
      |
    3 | fail_fast: yes
      |            ^^^
    hint: write `true`

    w.yaml:4:7: error: `tags` must be a list of texts, found a mapping
      |
    4 | tags: {a: b}
      |       ^

    w.yaml:8:14: error: `retries` must be a whole number from 0 to 10000, found the number `-1`
      |
    8 |     retries: -1
      |              ^^

    w.yaml:9:14: error: `timeout`: `soon` is not a duration; write for example `30s`, `1h30m`, `500ms` or `2d`
      |
    9 |     timeout: soon
      |              ^^^^

    w.yaml:10:15: error: `priority` must be a whole number from -1000000000 to 1000000000, found the text `high`
       |
    10 |     priority: high
       |               ^^^^

    w.yaml:11:17: error: `pool_slots` must be a whole number from 1 to 1000000, found the number `0`
       |
    11 |     pool_slots: 0
       |                 ^

    w.yaml:12:10: error: `env` must be a mapping of names to texts, found a list
       |
    12 |     env: [A=b]
       |          ^

    w.yaml:13:23: error: `skip_exit_codes` must be a whole number from 1 to 255, found the number `0`
       |
    13 |     skip_exit_codes: [0, 300]
       |                       ^

    w.yaml:13:26: error: `skip_exit_codes` must be a whole number from 1 to 255, found the number `300`
       |
    13 |     skip_exit_codes: [0, 300]
       |                          ^^^

    w.yaml:14:20: error: `retry_backoff` must be a number from 1 (constant delay) to 100, found the number `0.5`
       |
    14 |     retry_backoff: 0.5
       |                    ^^^

    w.yaml:15:22: error: `depends_on_past` must be `true` or `false`, found the text `true`
       |
    15 |     depends_on_past: "true"
       |                      ^^^^^^
    hint: write it without quotes
    "#);
}

#[test]
fn a_wrong_trigger_rule() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x}
  b: {run: x, needs: [a], trigger_rule: all_sucess}
"#), @r#"
    w.yaml:4:41: error: unknown trigger rule `all_sucess`
      |
    4 |   b: {run: x, needs: [a], trigger_rule: all_sucess}
      |                                         ^^^^^^^^^^
    hint: did you mean `all_success`?
    "#);
}

#[test]
fn schedules() {
    assert_snapshot!(refuse(r#"
workflow: a
schedule: "0 25 * * *"
tasks: {a: {run: x}}
---
workflow: b
schedule: {cron: "@daily", timezone: Seoul}
tasks: {a: {run: x}}
---
workflow: c
schedule: {cron: "@daily", interval: 10m}
tasks: {a: {run: x}}
---
workflow: d
schedule: {catchup: true}
tasks: {a: {run: x}}
---
workflow: e
schedule: {interval: 10m, start: yesterday}
tasks: {a: {run: x}}
---
workflow: f
schedule: "@fortnightly"
tasks: {a: {run: x}}
"#), @r#"
    w.yaml:2:14: error: the hour field `25` of the cron expression `0 25 * * *` is not understood; it takes 0-23; write `*`, a list `1,3`, a range `1-5` or a step `*/5` or `1-5/2`
      |
    2 | schedule: "0 25 * * *"
      |              ^^

    w.yaml:6:38: error: `Seoul` is not a time zone
      |
    6 | schedule: {cron: "@daily", timezone: Seoul}
      |                                      ^^^^^
    hint: did you mean `Asia/Seoul`?

    w.yaml:10:38: error: `schedule` has both `cron` and `interval`
       |
    10 | schedule: {cron: "@daily", interval: 10m}
       |                                      ^^^
    hint: keep one of them

    w.yaml:14:11: error: `schedule` says no time
       |
    14 | schedule: {catchup: true}
       |           ^
    hint: add `cron: "0 2 * * *"` or `interval: 10m`, or leave `schedule` out to start runs by hand

    w.yaml:18:34: error: `start` must be a date or time such as `2026-01-31` or `2026-01-31T02:00:00Z`, found `yesterday`
       |
    18 | schedule: {interval: 10m, start: yesterday}
       |                                  ^^^^^^^^^

    w.yaml:22:11: error: the cron expression `@fortnightly` is not a known name; use `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@quarterly`, `@yearly`, `@annually` or five fields
       |
    22 | schedule: "@fortnightly"
       |           ^^^^^^^^^^^^^^
    "#);
}

#[test]
fn params_that_are_wrong() {
    assert_snapshot!(refuse(r#"
workflow: w
params:
  a: {type: int, default: 1}
  b: {type: integer, minimum: 1, default: 0}
  c: {enum: [x, y], default: xx}
  d:
  e: {path: /tmp}
  f: {type: string, pattern: "("}
  g: {type: array, items: {type: string}, default: [1]}
  1h: 5
  i: {type: string, format: email, default: nobody}
tasks:
  a: {run: x}
"#), @r#"
    w.yaml:3:13: error: unknown type `int`
      |
    3 |   a: {type: int, default: 1}
      |             ^^^
    hint: did you mean `integer`?

    w.yaml:4:43: error: the default of `b` must be at least 1, found `0`
      |
    4 |   b: {type: integer, minimum: 1, default: 0}
      |                                           ^

    w.yaml:5:30: error: the default of `c` must be `x` or `y`, found the text `xx`
      |
    5 |   c: {enum: [x, y], default: xx}
      |                              ^^
    hint: did you mean `x`?

    w.yaml:6:3: error: the param `d` has neither a type nor a default
      |
    6 |   d:
      |   ^
    hint: write `{type: string}` for one that must be given, or a default

    w.yaml:7:7: error: unknown key `path` in a param
      |
    7 |   e: {path: /tmp}
      |       ^^^^
    hint: to give an object as the default, write `{type: object, default: {…}}`

    w.yaml:8:6: error: the schema of the param `f` is not right: `pattern` must have the format `regex`, found the text `(`
      |
    8 |   f: {type: string, pattern: "("}
      |      ^

    w.yaml:9:53: error: the default of `g[0]` must be a text, found `1`
      |
    9 |   g: {type: array, items: {type: string}, default: [1]}
      |                                                     ^

    w.yaml:10:3: error: `1h` is not a name for a param
       |
    10 |   1h: 5
       |   ^^
    hint: use letters, digits, `_` and `-`, and no digit first

    w.yaml:11:45: error: the default of `i` must have the format `email`, found the text `nobody`
       |
    11 |   i: {type: string, format: email, default: nobody}
       |                                             ^^^^^^
    "#);
}

#[test]
fn resources() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x, resources: {gpu: half, cpu: 0, memory: 16 gigs}}
"#), @r"
    w.yaml:3:32: error: `gpu`: `half` is not an amount of GPUs; write for example `2`, `0.5`, `{count: 2, model: H100}`, `{memory: 20Gi}` or `{mig: 1g.10gb}`
      |
    3 |   a: {run: x, resources: {gpu: half, cpu: 0, memory: 16 gigs}}
      |                                ^^^^

    w.yaml:3:43: error: `cpu`: `0` is not an amount of cores; write for example `2`, `0.5` or `500m`
      |
    3 |   a: {run: x, resources: {gpu: half, cpu: 0, memory: 16 gigs}}
      |                                           ^

    w.yaml:3:54: error: `memory`: `16 gigs` is not an amount of memory; write for example `16Gi` or `512M`
      |
    3 |   a: {run: x, resources: {gpu: half, cpu: 0, memory: 16 gigs}}
      |                                                      ^^^^^^^
    ");
}

#[test]
fn foreach_that_is_no_list() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x, foreach: 5}
  b: {run: x, foreach: {n: 3}}
  c: {run: x, foreach: {zip: {a: [1, 2], b: [1]}}}
  d: {run: x, foreach: [1, 2, 3], foreach_max: 2}
"#), @r#"
    w.yaml:3:24: error: `foreach` must be a list, found the number `5`
      |
    3 |   a: {run: x, foreach: 5}
      |                        ^
    hint: write a list, or a template that gives one: `"{{ params.servers }}"`

    w.yaml:4:28: error: `foreach.n` must be a list, found the number `3`
      |
    4 |   b: {run: x, foreach: {n: 3}}
      |                            ^
    hint: write a list, or a template that gives one: `"{{ params.servers }}"`

    w.yaml:5:24: error: `zip` needs lists of one length: `a` has 2 items, `b` has 1
      |
    5 |   c: {run: x, foreach: {zip: {a: [1, 2], b: [1]}}}
      |                        ^
    hint: without `zip`, every item is combined with every other

    w.yaml:6:15: error: the `foreach` of `d` has 3 items, at most 2 are allowed
      |
    6 |   d: {run: x, foreach: [1, 2, 3], foreach_max: 2}
      |               ^^^^^^^
    hint: raise `foreach_max` if that is meant
    "#);
}

#[test]
fn what_kubernetes_would_not_take_or_means_otherwise_is_refused() {
    for (affinity, why) in [
        ("{nodeAffinity: {required: [{key: a, operator: Exists}]}, podAntiAffinity: {}}", "`podAntiAffinity` is not"),
        ("{nodeAffinity: {}, required: []}", "unknown key `required` in `affinity`"),
        ("{required: []}", "`required` asks for nothing"),
        ("{required: [{matchExpressions: []}]}", "a term without expressions means no node"),
        ("{preferred: [{weight: 1, preference: {}}]}", "a term without expressions means no node"),
    ] {
        let said = refuse(&format!("workflow: w\ntasks:\n  a: {{run: x, affinity: {affinity}}}\n"));
        assert!(said.contains(why) && said.contains("w.yaml:3:"), "{affinity}: {said}");
    }
}

#[test]
fn what_a_node_must_have() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x, resources: {gpu: 1.5, licences: -1, memroy: 4Gi}}
  b: {run: x, resources: {gpu: {share: 0.5, count: 2}}, node_selector: A100}
  c: {run: x, affinity: {required: [{key: zone, operator: Is, values: [west]}]}}
  d: {run: x, affinity: {required: [{key: gpu-count, operator: Gt, values: [many]}, {operator: In}]}}
  e: {run: x, affinity: {preferred: [{weight: 0, key: zone, operator: Exists}], podAffinity: {}}}
  f: {run: x, tolerations: [{operator: Equal}, {key: a, operator: Exists, value: b}, {key: a, effect: Never}]}
  g: {run: x, affinity: {required: [{key: "{{ params.zone }}", operator: Exists}]}}
"#), @r#"
    w.yaml:3:32: error: `gpu`: 1.5 GPUs cannot be divided: ask for a part of one, or for a whole number of GPUs
      |
    3 |   a: {run: x, resources: {gpu: 1.5, licences: -1, memroy: 4Gi}}
      |                                ^^^

    w.yaml:3:47: error: `licences`: `-1` is no amount: write a number like 2, 0.5 or 500m, with four decimals at most
      |
    3 |   a: {run: x, resources: {gpu: 1.5, licences: -1, memroy: 4Gi}}
      |                                               ^^

    w.yaml:3:51: error: unknown key `memroy` in `resources`
      |
    3 |   a: {run: x, resources: {gpu: 1.5, licences: -1, memroy: 4Gi}}
      |                                                   ^^^^^^
    hint: did you mean `memory`?

    w.yaml:4:32: error: `gpu`: `share` is of one GPU, so `count` says nothing beside it
      |
    4 |   b: {run: x, resources: {gpu: {share: 0.5, count: 2}}, node_selector: A100}
      |                                ^

    w.yaml:4:72: error: `node_selector` must be a mapping of labels, such as `{gpu-type: nvidia-a100}`, found the text `A100`
      |
    4 |   b: {run: x, resources: {gpu: {share: 0.5, count: 2}}, node_selector: A100}
      |                                                                        ^^^^

    w.yaml:5:59: error: `operator` must be `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`, found `Is`
      |
    5 |   c: {run: x, affinity: {required: [{key: zone, operator: Is, values: [west]}]}}
      |                                                           ^^
    hint: did you mean `In`?

    w.yaml:6:37: error: `gpu-count Gt` takes one whole number
      |
    6 |   d: {run: x, affinity: {required: [{key: gpu-count, operator: Gt, values: [many]}, {operator: In}]}}
      |                                     ^

    w.yaml:6:85: error: an expression needs the `key` of a label
      |
    6 |   d: {run: x, affinity: {required: [{key: gpu-count, operator: Gt, values: [many]}, {operator: In}]}}
      |                                                                                     ^
    hint: write for example `{key: gpu-type, operator: In, values: [nvidia-a100]}`

    w.yaml:7:47: error: `weight` must be a whole number from 1 to 100, found the number `0`
      |
    7 |   e: {run: x, affinity: {preferred: [{weight: 0, key: zone, operator: Exists}], podAffinity: {}}}
      |                                               ^

    w.yaml:7:81: error: `podAffinity` is not supported
      |
    7 |   e: {run: x, affinity: {preferred: [{weight: 0, key: zone, operator: Exists}], podAffinity: {}}}
      |                                                                                 ^^^^^^^^^^^
    hint: say which nodes will do, with `required` and `preferred`

    w.yaml:8:29: error: a toleration needs the `key` of a taint
      |
    8 |   f: {run: x, tolerations: [{operator: Equal}, {key: a, operator: Exists, value: b}, {key: a, effect: Never}]}
      |                             ^
    hint: without a `key`, write `operator: Exists`: it tolerates every taint

    w.yaml:8:48: error: `operator: Exists` takes no `value`
      |
    8 |   f: {run: x, tolerations: [{operator: Equal}, {key: a, operator: Exists, value: b}, {key: a, effect: Never}]}
      |                                                ^

    w.yaml:8:103: error: `effect` must be `NoSchedule`, `PreferNoSchedule` or `NoExecute`, found `Never`
      |
    8 |   f: {run: x, tolerations: [{operator: Equal}, {key: a, operator: Exists, value: b}, {key: a, effect: Never}]}
      |                                                                                                       ^^^^^

    w.yaml:9:43: error: `key` cannot be a template
      |
    9 |   g: {run: x, affinity: {required: [{key: "{{ params.zone }}", operator: Exists}]}}
      |                                           ^^^^^^^^^^^^^^^^^^^
    "#);
}
