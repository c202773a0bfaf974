//! Templates over a real run.

use std::collections::BTreeMap;
use std::sync::Arc;

use insta::assert_snapshot;
use pitcrew_core::engine::record::{RunRecord, RunType, SkipReason};
use pitcrew_core::engine::{Answer, Evaluate, Event, Report, Run, Slot};
use pitcrew_core::fleet::{Amount, BACKEND_LABEL, CONNECTION_LABEL, Gpus, HOST_LABEL, PORT_LABEL, Request};
use pitcrew_core::ir::{MapUnit, Workflow};
use pitcrew_core::state::{Exit, RunState, State};
use pitcrew_core::{RunId, RunKey, Timestamp};
use pitcrew_lang::{Evaluator, resolve_params};
use serde_json::{Value, json};

use crate::support::accept;

struct World {
    run: Run,
    evaluator: Evaluator,
    now: Timestamp,
}

impl World {
    fn new(source: &str) -> World {
        let workflow: Workflow = accept(source).workflow;
        let now: Timestamp = "2026-01-31T02:00:05Z".parse().unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let record = RunRecord {
            key: RunKey(7),
            workflow: workflow.id.clone(),
            run_id: RunId::new("scheduled__2026-01-31T02:00:00+00:00").unwrap(),
            run_type: RunType::Scheduled,
            version: String::new(),
            params: resolve_params(&workflow, &serde_json::Map::new()).unwrap(),
            conf: json!({"from": "form"}).as_object().unwrap().clone(),
            logical_date: Some(at("2026-01-31T02:00:00Z")),
            data_interval: Some((at("2026-01-30T02:00:00Z"), at("2026-01-31T02:00:00Z"))),
            run_after: now,
            queued_at: now,
            triggered_by: "schedule".into(),
            state: RunState::Queued,
            start: None,
            end: None,
            stop: None,
            note: String::new(),
            backfill: None,
            finally_start: None,
        };
        let variables = |name: &str| match name {
            "region" => Some(json!("eu")),
            "limits" => Some(json!({"cpu": 4})),
            "text" => Some(json!("{\"a\": [1, 2]}")),
            _ => None,
        };
        let evaluator =
            Evaluator::new(Arc::new(variables)).with_run_url(|run| format!("http://localhost/runs/{}", run.key));
        let mut world = World { run: Run::new(record, Arc::new(workflow)), evaluator, now };
        world.apply(Event::Begin);
        world
    }

    fn apply(&mut self, event: Event) {
        self.run.apply(event, self.now, &self.evaluator);
        self.run.sanity_check();
    }

    fn slot(&self, task: &str, index: u32) -> Slot {
        Slot::new(self.run.workflow.find(task).unwrap(), index)
    }

    /// Runs an instance to its success with these outputs.
    fn succeed(&mut self, task: &str, index: u32, outputs: Value) {
        let slot = self.slot(task, index);
        assert_eq!(self.run.instance(slot).state, State::Scheduled, "{task}");
        self.apply(Event::Admitted(slot));
        let attempt = self.run.instance(slot).attempt;
        self.apply(Event::Started { slot, attempt, at: self.now });
        let outputs: BTreeMap<String, Value> = serde_json::from_value(outputs).unwrap();
        let report = Report {
            exit: Exit::Code { code: 0 },
            at: self.now,
            started_at: None,
            error: None,
            message: String::new(),
            outputs,
            held: false,
        };
        self.apply(Event::Ended { slot, attempt, report });
    }

    fn value(&self, task: &str, index: u32, value: Value) -> Result<Value, String> {
        self.evaluator.rendering(&self.run, self.slot(task, index)).value(&value)
    }

    fn text(&self, task: &str, text: &str) -> String {
        self.evaluator.rendering(&self.run, self.slot(task, 0)).text(text).unwrap_or_else(|why| format!("ERROR {why}"))
    }
}

const SOURCE: &str = r#"
workflow: w
params: {n: 3, list: [1, two], map: {default: {k: v}}, rate-limit: 5, nothing: {type: "null", default: null}}
tasks:
  per-server: {run: x, outputs: [version]}
  group:
    tasks:
      first: {run: x}
      second: {needs: [first], run: x}
  mapped: {needs: [per-server], foreach: {host: [a, b], level: [1, 2]}, run: x}
  after: {needs: [mapped, group], run: x, resources: {gpu: "{{ params.n - 1 }}", cpu: "{{ tasks.per-server.outputs.cpu }}", memory: 1Gi}}
"#;

#[test]
fn a_lone_expression_keeps_its_type() {
    let mut world = World::new(SOURCE);
    world.succeed("per-server", 0, json!({"version": "1.10", "cpu": "500m"}));
    let table = [
        (json!("{{ params.n }}"), json!(3)),
        (json!(" {{ params.list }} "), json!([1, "two"])),
        (json!("n={{ params.n }}"), json!("n=3")),
        (json!("{{ params.list }}{{ params.map }}"), json!("[1,\"two\"]{\"k\":\"v\"}")),
        (json!({"a": ["{{ params.n > 2 }}", 1.5], "b": "{{ params.nothing }}"}), json!({"a": [true, 1.5], "b": null})),
        (json!("{{ tasks.per-server.outputs.version }}"), json!("1.10")),
        (json!("{{ tasks['per-server'].state }}"), json!("success")),
        (json!("{{ params.rate-limit * 2 }}"), json!(10)),
        (json!("{{ params.n-1 }}"), json!(2)),
        (json!("{{ logical_date }}"), json!("2026-01-31T02:00:00+00:00")),
        (json!("{{ 'a.b' if params.n else 'c' }}"), json!("a.b")),
        (json!("no template {x} ${#a[@]}"), json!("no template {x} ${#a[@]}")),
    ];
    for (template, value) in table {
        assert_eq!(world.value("after", 0, template.clone()), Ok(value), "{template}");
    }
}

#[test]
fn everything_that_a_template_may_name() {
    let mut world = World::new(SOURCE);
    world.succeed("group.first", 0, json!({"x": {"y": [10, 20]}}));
    let text = r#"
{{ ds }} {{ ds_nodash }} {{ ts }} {{ ts_nodash }} {{ data_interval_start | ds }}
{{ logical_date.add(days=1).strftime('%d.%m.%Y') }} {{ logical_date.in_timezone('Asia/Seoul') }} {{ logical_date.year + 1 }}
{{ run.id }} {{ run.key }} {{ run.workflow }} {{ run.type }} {{ run.triggered_by }} {{ run.url }}
{{ dag_run.run_id }} {{ dag_run.conf.from }} {{ conf.from }} {{ map_index }} {{ try_number }} {{ task.id }} {{ task.group }}
{{ var.region }} {{ var.value.limits }} {{ var.json.text.a[1] }} {{ var.limits.cpu }} {{ var.missing | default('none') }}
{{ tasks.first.outputs.x.y[1] }} {{ tasks.group.first.outputs.x | tojson }} {{ tasks['group.first'].state }}
{{ "it's" | sh }} {{ params.list | sh }} {{ '/a/b.txt' | basename }} {{ '/a/b.txt' | dirname }} {{ 'a: [1]' | fromyaml }} {{ "[1]" | fromjson }}
{% for item in params.list %}<{{ item }}>{% endfor %}{# gone #}{% raw %}{{ kept }}{% endraw %}
"#;
    assert_snapshot!(world.text("group.second", text).trim(), @r#"
    2026-01-31 20260131 2026-01-31T02:00:00+00:00 20260131T020000 2026-01-30
    01.02.2026 2026-01-31T11:00:00+09:00 2027
    scheduled__2026-01-31T02:00:00+00:00 7 w scheduled schedule http://localhost/runs/7
    scheduled__2026-01-31T02:00:00+00:00 form form -1 0 group.second group
    eu {"cpu":4} 2 4 none
    20 {"y":[10,20]} success
    'it'\''s' 1 two b.txt /a {"a":[1]} [1]
    <1><two>{{ kept }}
    "#);
}

#[test]
fn a_mapped_task_has_an_item_and_hands_on_lists() {
    let mut world = World::new(SOURCE);
    world.succeed("per-server", 0, json!({"version": "1"}));
    let mapped = world.run.workflow.find("mapped").unwrap();
    let items = world.evaluator.items(&world.run, MapUnit::Task(mapped)).unwrap();
    assert_eq!(
        serde_json::to_string(&items).unwrap(),
        r#"[{"host":"a","level":1},{"host":"a","level":2},{"host":"b","level":1},{"host":"b","level":2}]"#
    );
    assert_eq!(world.value("mapped", 2, json!("{{ item.host }}{{ map_index }}")), Ok(json!("b2")));
    for index in 0..4 {
        world.succeed("mapped", index, json!({"at": index}));
    }
    assert_eq!(world.value("after", 0, json!("{{ tasks.mapped.outputs.at }}")), Ok(json!([0, 1, 2, 3])));
    assert_eq!(world.value("after", 0, json!("{{ tasks.mapped.outputs.at | sum }}")), Ok(json!(6)));
}

#[test]
fn what_an_attempt_holds_is_rendered() {
    let mut world = World::new(SOURCE);
    world.succeed("per-server", 0, json!({"cpu": "1500m"}));
    let demand = world.evaluator.demand(&world.run, world.slot("after", 0)).unwrap();
    assert_eq!((demand.cpu_milli, demand.memory_bytes), (Some(1_500), Some(1 << 30)));
    let request = demand.request.unwrap();
    let expected = Request { cpu: Amount::milli(1_500), memory_mib: 1024, gpus: Gpus::Count(2), ..Request::default() };
    assert_eq!(*request, expected);
}

#[test]
fn conditions_and_branches() {
    let mut world = World::new(
        r#"
workflow: w
params: {on: "false", n: 2}
tasks:
  a: {run: x, branch: "{{ outputs.next }}"}
  g: {needs: [a], tasks: {b: {run: x}, c: {needs: [b], run: x}}}
  d: {needs: [a], run: x, when: params.on}
  e: {run: x, when: "{{ params.n == 2 and run.type == 'scheduled' }}"}
  f: {run: x, when: "{% if params.n > 5 %}yes{% endif %}"}
"#,
    );
    let when = |world: &World, task: &str| world.evaluator.when(&world.run, world.slot(task, 0));
    let no = || Ok(Answer::Skip(SkipReason::When));
    assert_eq!((when(&world, "d"), when(&world, "e"), when(&world, "f")), (no(), Ok(Answer::Go), no()));
    assert_eq!(world.run.instance(world.slot("f", 0)).state, State::Skipped);
    world.succeed("a", 0, json!({"next": ["g", "d"]}));
    let branch = world.evaluator.branch(&world.run, world.slot("a", 0));
    assert_eq!(branch, Ok(vec!["g.b".to_owned(), "d".to_owned()]));
    assert_eq!(world.run.instance(world.slot("g.b", 0)).state, State::Scheduled);
}

#[test]
fn errors_at_run_time_say_which_part_failed() {
    let mut world = World::new(SOURCE);
    world.succeed("per-server", 0, json!({"version": "1", "text": "not json"}));
    let errors = [
        "{{ tasks.per-server.outputs.nope }}",
        "v={{ tasks.per-server.outputs.nope }}",
        "{{ var.missing }}",
        "{{ var.json.region }}",
        "{{ tasks.per-server.outputs.text | fromjson }}",
        "{{ params.n + 'x' }}",
        "{% for a in range(1000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
        "{% for a in range(1000) %}{{ 'xxxxxxxxxx' * 1000 }}{% endfor %}",
        "{{ item.x }}",
    ];
    let lines: Vec<String> = errors.iter().map(|text| format!("{text}\n    {}", world.text("after", text))).collect();
    assert_snapshot!(lines.join("\n"), @r"
    {{ tasks.per-server.outputs.nope }}
        ERROR `tasks.per-server.outputs.nope` is not defined: the task `per-server` gave `text` and `version`
    v={{ tasks.per-server.outputs.nope }}
        ERROR `tasks.per-server.outputs.nope` is not defined: the task `per-server` gave `text` and `version`
    {{ var.missing }}
        ERROR `var.missing` is not defined: there is no variable `missing`
    {{ var.json.region }}
        ERROR `var.json.region`: the variable `region` is not JSON: expected value at line 1 column 1
    {{ tasks.per-server.outputs.text | fromjson }}
        ERROR `fromjson`: this is not JSON: expected ident at line 1 column 2
    {{ params.n + 'x' }}
        ERROR `params.n + 'x'`: tried to use + operator on unsupported types number and string
    {% for a in range(1000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}
        ERROR the template takes too many steps
    {% for a in range(1000) %}{{ 'xxxxxxxxxx' * 1000 }}{% endfor %}
        ERROR this template makes its text grow too much
    {{ item.x }}
        ERROR `item.x` is not defined
    ");
    assert_eq!(
        world.value("after", 0, json!("{{ tasks.group.first.outputs.x }}")),
        Err("`tasks.group.first.outputs.x` is not defined: the task `group.first` is scheduled and gave no outputs"
            .into())
    );
}

#[test]
fn a_finally_task_can_be_mapped_over_what_came_out() {
    let mut world = World::new(
        r#"
workflow: w
tasks:
  a: {run: x}
finally:
  mail: {run: x, foreach: "{{ tasks.a.outputs.people }}", when: tasks.a.state == 'success'}
"#,
    );
    world.succeed("a", 0, json!({"people": ["ann", "bob"]}));
    assert_eq!(world.value("mail", 1, json!("{{ item }} {{ tasks.a.state }}")), Ok(json!("bob success")));
    world.succeed("mail", 0, json!({}));
    world.succeed("mail", 1, json!({}));
    assert_eq!(world.run.record.state, RunState::Success);
}

#[test]
fn what_a_node_must_have_is_said_short_or_in_the_words_of_kubernetes() {
    let world = World::new(
        r#"
workflow: w
params: {type: A100}
defaults: {tolerations: [{key: nvidia.com/gpu}, {key: team, operator: Exists}]}
tasks:
  short:
    run: x
    resources: {gpu: {share: 0.5, model: A100}, licences: 2}
    node_selector: {gpu-type: "{{ params.type }}"}
    affinity:
      required: [{key: zone, values: [west, east]}, {key: gpu-count, operator: Gt, values: 4}]
      preferred: [{weight: 10, key: nvlink, operator: Exists}]
  long:
    run: x
    resources: {gpu: {share: "500m", model: [A100]}, licences: "2"}
    node_selector: {gpu-type: A100}
    affinity:
      nodeAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms:
            - matchExpressions:
                - {key: zone, operator: In, values: [west, east]}
                - {key: gpu-count, operator: Gt, values: ["4"]}
        preferredDuringSchedulingIgnoredDuringExecution:
          - {weight: 10, preference: {matchExpressions: [{key: nvlink, operator: Exists}]}}
  here: {run: x, backend: local, resources: {gpu: 1}}
  cores: {run: x, resources: {cpu: 2}}
  nothing: {run: x, resources: {gpu: 0}}
  any: {run: x, backend: ssh, resources: {gpu: 1}}
  at: {run: x, backend: {ssh: {user: u, workdir: /srv}}, resources: {gpu: 0}}
  there: {run: x, backend: {ssh: {connection: "{{ params.type }}"}}, resources: {gpu: 1}}
  host: {run: x, backend: {ssh: {host: "[::1]", port: 2222}}, resources: {cpu: 1}}
  free: {run: x, backend: {ssh: {connection: c}}, resources: {gpu: 0}}
  wrong: {run: x, backend: {ssh: {host: "{{ 'a b' }}"}}, resources: {gpu: 1}}
"#,
    );
    let request = |task: &str| world.evaluator.demand(&world.run, world.slot(task, 0)).unwrap().request;
    let short = request("short").unwrap();
    assert_eq!(request("long").unwrap(), short);
    assert_eq!(short.gpus, Gpus::Share("0.5".parse().unwrap()));
    assert_eq!((short.required[0].0.len(), short.preferred[0].weight, short.tolerations.len()), (2, 10, 2));
    let values: Vec<Option<&str>> = short.tolerations.iter().map(|one| one.value.as_deref()).collect();
    assert_eq!(values, [Some(""), None], "without an operator a toleration is of one value, which is empty");
    assert_eq!((short.node_selector["gpu-type"].as_str(), short.custom["licences"]), ("A100", Amount::whole(2)));
    // Who names the backend goes only where that leads; who asks for cores alone stays with the files of the run.
    for task in ["here", "cores"] {
        let selector = request(task).unwrap().node_selector.clone();
        assert_eq!(selector, BTreeMap::from([(BACKEND_LABEL.to_owned(), "local".to_owned())]), "{task}");
    }
    assert_eq!(request("nothing"), None);
    // Over SSH: any node that is reached so, or the one that is meant.
    let of = |task: &str| request(task).unwrap().node_selector.clone();
    let ssh = |more: &[(&str, &str)]| {
        let all = [&[(BACKEND_LABEL, "ssh")], more].concat();
        all.into_iter().map(|(label, value)| (label.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
    };
    assert_eq!((of("any"), of("at")), (ssh(&[]), ssh(&[])));
    assert_eq!(of("there"), ssh(&[(CONNECTION_LABEL, "A100")]));
    assert_eq!(of("host"), ssh(&[(HOST_LABEL, "::1"), (PORT_LABEL, "2222")]));
    assert_eq!(request("free"), None, "it goes there, a node or not");
    let wrong = world.evaluator.demand(&world.run, world.slot("wrong", 0)).unwrap_err();
    assert!(wrong.starts_with("`backend.ssh.host`"), "{wrong}");
}
