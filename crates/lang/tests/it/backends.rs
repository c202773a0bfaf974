//! Where tasks run: what `backend` may say, and what a default of it applies to.

use insta::assert_snapshot;
use pitcrew_core::ir::{BackendKind, Work};
use pitcrew_lang::{Options, parse, render_all};

use crate::support::{accept, refuse};

#[test]
fn a_default_backend_is_for_what_can_run_there() {
    let compiled = accept(
        r#"
workflow: w
params: {server: {type: string}}
defaults: {backend: {ssh: {host: "{{ params.server }}", port: 2222}}, resources: {cpu: 2}}
tasks:
  there: {run: x}
  also: {uses: git.checkout, with: {url: u}}
  here: {uses: variables.set, with: {values: {}}}
  own: {run: x, backend: local}
  placed: {run: x, resources: {gpu: 1}}
"#,
    );
    let place = serde_json::json!({ "host": "{{ params.server }}", "port": 2222 });
    let of = |name: &str| {
        let task = compiled.workflow.task(compiled.workflow.find(name).unwrap());
        (task.backend, task.place.clone(), task.resources.cpu.is_some())
    };
    assert_eq!(of("there"), (BackendKind::Ssh, Some(place.clone()), false));
    assert_eq!(of("placed"), (BackendKind::Ssh, Some(place.clone()), true));
    assert_eq!(of("also"), (BackendKind::Ssh, Some(place), false));
    assert_eq!(of("here"), (BackendKind::Local, None, true));
    assert_eq!(of("own"), (BackendKind::Local, None, true));
    // Without a host, what is asked for decides; an action that cannot run there stays here.
    let compiled = accept(
        r#"
workflow: w
defaults: {backend: ssh, node_selector: {zone: west}}
tasks: {there: {run: x}, here: {uses: variables.set, with: {values: {}}}}
"#,
    );
    let of = |name: &str| {
        let task = compiled.workflow.task(compiled.workflow.find(name).unwrap());
        (task.backend, task.place.clone(), task.placement.node_selector.len())
    };
    assert_eq!((of("there"), of("here")), ((BackendKind::Ssh, None, 1), (BackendKind::Local, None, 1)));
}

#[test]
fn a_backend_that_the_caller_does_not_have() {
    let source = "workflow: w\ntasks: {a: {run: x, backend: {ssh: {connection: c}}}}\n";
    let options = Options { backends: Some(&[BackendKind::Local, BackendKind::Fake]), ..Options::default() };
    let found = parse(source, "w.yaml", &options).map_err(|found| render_all(&found, false)).unwrap_err();
    assert!(found.contains("the backend `ssh` is not supported yet"), "{found}");
    assert!(found.contains("the backends are `local` and `fake`"), "{found}");
}

#[test]
fn a_task_of_ecs_says_what_runs_or_leaves_it_to_its_definition() {
    let compiled = accept(
        r#"
workflow: w
params: {rev: {type: string}}
defaults: {backend: {ecs: {cluster: gpus, task_definition: "train:{{ params.rev }}", gpus: 8}}}
tasks:
  own: {backend: {ecs: {cluster: gpus, task_definition: train, command: [train.py]}}, resources: {cpu: 4, memory: 16Gi}}
  script: {run: x, node_selector: {zone: west}}
  here: {uses: variables.set, with: {values: {}}}
  join: {needs: [own, script]}
"#,
    );
    let of = |name: &str| compiled.workflow.task(compiled.workflow.find(name).unwrap());
    let own = of("own");
    assert_eq!((own.backend, own.place.as_ref().unwrap()["command"][0].as_str()), (BackendKind::Ecs, Some("train.py")));
    // It has something to run, and keeps its limits.
    assert!(matches!(&own.work, Work::Steps(steps) if steps.len() == 1 && steps[0].run.is_empty()));
    assert!(own.resources.cpu.is_some() && own.resources.memory.is_some());
    assert_eq!(of("script").place.as_ref().unwrap()["task_definition"], "train:{{ params.rev }}");
    assert!(of("script").placement.node_selector.is_empty(), "ECS knows no nodes of ours");
    assert_eq!((of("here").backend, of("join").backend), (BackendKind::Local, BackendKind::Local));
    assert!(matches!(of("join").work, Work::Noop));
}

#[test]
fn a_task_of_ecs_that_is_wrong_says_how_it_is_written() {
    let told = |task: &str| refuse(&format!("workflow: w\ntasks: {{a: {task}}}\n"));
    let how = "write `backend: {ecs: {cluster: NAME, task_definition: FAMILY}}`";
    for (task, message, hint) in [
        ("{backend: ecs}", "the backend `ecs` does not know its cluster", how),
        ("{backend: {ecs: gpus}}", "`ecs` must be a mapping", how),
        ("{backend: {ecs: {cluster: gpus}}}", "`ecs` has no `task_definition`", how),
        ("{backend: {ecs: {cluster: g, task_definition: t, gpus: 0}}}", "`gpus` must be a number from 1 to 64", ""),
        ("{backend: {ecs: {cluster: g, task_definition: t, clustr: g}}}", "unknown key `clustr`", ""),
        (
            "{backend: {ecs: {cluster: g, task_definition: t}}, resources: {gpu: 8}}",
            "ECS places the task itself",
            "write `gpus` under `ecs`",
        ),
        (
            "{uses: variables.set, with: {values: {}}, backend: {ecs: {cluster: g, task_definition: t}}}",
            "cannot run on another machine",
            "leave `backend` out",
        ),
        (
            "{run: x, nodes: 2, backend: {ecs: {cluster: g, task_definition: t, machine: i-0f1}}}",
            "a task with `nodes` cannot have `machine` under `ecs`",
            "leave `machine` out: each member gets a machine of its own",
        ),
        (
            "{run: x, nodes: 2, backend: {ecs: {cluster: g, task_definition: t, subnets: [s]}}}",
            "a task with `nodes` cannot have `subnets` under `ecs`",
            "leave `subnets` out",
        ),
    ] {
        let found = told(task);
        assert!(found.contains(message) && found.contains(hint), "{task}: {found}");
        assert_eq!(found.matches("error:").count(), 1, "{task}: {found}");
    }
}

#[test]
fn backends_that_are_wrong() {
    assert_snapshot!(refuse(r#"
workflow: w
defaults: {backend: ssh}
tasks:
  a: {run: x, backend: docker}
  b: {run: x, backend: {local: {}}}
  c: {run: x, backend: {ssh: {user: ubuntu}}}
  d: {run: x, backend: {ssh: gpu-1}}
  e: {run: x, backend: {ssh: {host: "gpu-1:22", port: 0, hots: x, workdir: "~/a"}}}
  f: {run: x, backend: {ssh: {host: "{{ paramz.h }}", key: "{{ tasks.a.outputs.key }}"}}}
  g: {uses: variables.set, with: {values: {}}, backend: {ssh: {host: h}}}
  h: {run: x}
  i: {uses: ssh.upload}
  j: {uses: ssh.upload, backend: local}
"#), @r#"
    w.yaml:4:24: error: the backend `docker` is not supported yet
      |
    4 |   a: {run: x, backend: docker}
      |                        ^^^^^^
    hint: the backends are `local`, `fake`, `ssh` and `ecs`

    w.yaml:5:32: error: the backend `local` takes no settings
      |
    5 |   b: {run: x, backend: {local: {}}}
      |                                ^
    hint: write `backend: local`

    w.yaml:6:24: error: the backend `ssh` does not know its host
      |
    6 |   c: {run: x, backend: {ssh: {user: ubuntu}}}
      |                        ^
    hint: write `backend: {ssh: {connection: NAME}}`, or say with `resources` or `node_selector` what a node must have

    w.yaml:7:30: error: `ssh` must be a mapping, found the text `gpu-1`
      |
    7 |   d: {run: x, backend: {ssh: gpu-1}}
      |                              ^^^^^
    hint: write `backend: {ssh: {connection: NAME}}` or `backend: {ssh: {host: gpu-1, user: ubuntu}}`

    w.yaml:8:37: error: `host` is a name or an address alone, found `gpu-1:22`; write `port: 22`
      |
    8 |   e: {run: x, backend: {ssh: {host: "gpu-1:22", port: 0, hots: x, workdir: "~/a"}}}
      |                                     ^^^^^^^^^^

    w.yaml:8:55: error: `port` must be a whole number from 1 to 65535, found `0`
      |
    8 |   e: {run: x, backend: {ssh: {host: "gpu-1:22", port: 0, hots: x, workdir: "~/a"}}}
      |                                                       ^

    w.yaml:8:58: error: unknown key `hots` in `ssh`
      |
    8 |   e: {run: x, backend: {ssh: {host: "gpu-1:22", port: 0, hots: x, workdir: "~/a"}}}
      |                                                          ^^^^
    hint: did you mean `host`?

    w.yaml:9:41: error: unknown name `paramz` in a template
      |
    9 |   f: {run: x, backend: {ssh: {host: "{{ paramz.h }}", key: "{{ tasks.a.outputs.key }}"}}}
      |                                         ^^^^^^^^
    hint: did you mean `params`?

    w.yaml:10:57: error: the action `variables.set` cannot run on another machine
       |
    10 |   g: {uses: variables.set, with: {values: {}}, backend: {ssh: {host: h}}}
       |                                                         ^
    hint: leave `backend` out, or write `backend: local`

    w.yaml:11:3: error: the backend `ssh` does not know its host
       |
    11 |   h: {run: x}
       |   ^
    hint: write `backend: {ssh: {connection: NAME}}`, or say with `resources` or `node_selector` what a node must have

    w.yaml:12:3: error: the backend `ssh` does not know its host
       |
    12 |   i: {uses: ssh.upload}
       |   ^
    hint: write `backend: {ssh: {connection: NAME}}`, or say with `resources` or `node_selector` what a node must have

    w.yaml:13:34: error: the action `ssh.upload` needs a host, and the task has none
       |
    13 |   j: {uses: ssh.upload, backend: local}
       |                                  ^^^^^
    hint: write `backend: {ssh: {connection: NAME}}` or `backend: {ssh: {host: gpu-1, user: ubuntu}}`
    "#);
}

#[test]
fn a_queue_is_for_what_a_worker_can_run() {
    let compiled = accept(
        r#"
workflow: w
params: {machine: {type: string}}
defaults: {queue: s21}
tasks:
  given: {run: x}
  own: {run: x, queue: "{{ params.machine }}"}
  process: {uses: notebook, with: {}}
  here: {run: x, backend: local}
  there: {run: x, backend: {ssh: {host: h}}}
  none: {uses: variables.set, with: {values: {}}, backend: local}
"#,
    );
    let of = |name: &str| {
        let placement = &compiled.workflow.task(compiled.workflow.find(name).unwrap()).placement;
        (placement.queue.as_deref(), placement.may_queue)
    };
    assert_eq!(of("given"), (Some("s21"), true));
    assert_eq!(of("own"), (Some("{{ params.machine }}"), true));
    assert_eq!(of("process"), (Some("s21"), true));
    for name in ["here", "there", "none"] {
        assert_eq!(of(name), (None, false), "{name}");
    }
    let compiled = accept("workflow: w\ndefaults: {backend: {ssh: {host: h}}}\ntasks: {a: {run: x, queue: s21}}\n");
    let task = &compiled.workflow.tasks[0];
    assert_eq!((task.backend, task.placement.queue.as_deref()), (BackendKind::Local, Some("s21")), "its own wins");
}

#[test]
fn queues_that_are_wrong() {
    assert_snapshot!(refuse(r#"
workflow: w
defaults: {queue: "a b"}
tasks:
  a: {run: x, queue: s21, backend: local}
  b: {run: x, backend: worker}
  c: {uses: ssh.upload, queue: s21}
  d: {run: x, queue: [s21]}
  e: {run: x, queue: "{{ paramz.q }}"}
"#), @r#"
    w.yaml:2:19: error: `a b` is no name of a queue: it has letters, digits, `-`, `_` and `.` alone
      |
    2 | defaults: {queue: "a b"}
      |                   ^^^^^

    w.yaml:4:15: error: a task has a `queue` or a `backend`, not both
      |
    4 |   a: {run: x, queue: s21, backend: local}
      |               ^^^^^
    hint: leave `backend` out: a worker of the queue runs the task

    w.yaml:5:24: error: a worker is not named as a backend
      |
    5 |   b: {run: x, backend: worker}
      |                        ^^^^^^
    hint: write `queue: NAME` for the workers of that queue, and leave `backend` out

    w.yaml:6:3: error: the action `ssh.upload` needs a host, and the task has none
      |
    6 |   c: {uses: ssh.upload, queue: s21}
      |   ^
    hint: write `backend: {ssh: {connection: NAME}}` or `backend: {ssh: {host: gpu-1, user: ubuntu}}`

    w.yaml:6:25: error: the action `ssh.upload` cannot run on a worker
      |
    6 |   c: {uses: ssh.upload, queue: s21}
      |                         ^^^^^
    hint: leave `queue` out: it runs on the machine of the server

    w.yaml:7:22: error: `queue` must be a text, found a list
      |
    7 |   d: {run: x, queue: [s21]}
      |                      ^

    w.yaml:8:26: error: unknown name `paramz` in a template
      |
    8 |   e: {run: x, queue: "{{ paramz.q }}"}
      |                          ^^^^^^^^
    hint: did you mean `params`?
"#);
}
