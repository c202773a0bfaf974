//! TaskRuns by themselves.

use pitcrew_core::pod::EnvSource;

use super::*;

const TASK: &str = r#"
apiVersion: tekton.dev/v1
kind: Task
metadata: {name: greet, annotations: {pitcrew.dev/gpu: "0.5"}}
spec:
  description: Says hello.
  params:
  - {name: who, type: string}
  - {name: words, type: array, default: [a, "b c"]}
  - {name: place, type: object, properties: {town: {}, land: {}}, default: {town: "here", land: "$(params.who)"}}
  workspaces:
  - {name: data, mountPath: /data, readOnly: true}
  - {name: cache, optional: true}
  results:
  - {name: said}
  - {name: list, type: array}
  - {name: copied, value: "$(steps.second.results.out)"}
  volumes:
  - {name: scratch, emptyDir: {medium: Memory}}
  stepTemplate:
    image: alpine
    env: [{name: A, value: "1"}]
    volumeMounts: [{name: scratch, mountPath: /scratch}]
  steps:
  - script: |
      echo $(params.who) $(params.place.land) $(date) > $(results.said.path)
      ls $(workspaces.data.path) "$(workspaces.cache.path)" $(workspaces.cache.bound)
  - name: second
    command: [echo]
    args: ["-n", "$(params.words[*])", "$(params.words[1])", "$(A)"]
    onError: continue
    timeout: 30s
    results: [{name: out}]
    env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: s, key: token}}}, {name: A, value: "2"}]
    workingDir: /workspace/x
    computeResources: {limits: {cpu: 500m, nvidia.com/gpu: "1"}}
  - name: third
    image: python
    script: |
      #!/usr/bin/env python3
      print("$(steps.second.results.out)", open("$(steps.step-second.exitCode.path)").read())
    when: [{input: "$(steps.second.results.out)", operator: notin, values: ["$(params.words[*])"]}]
  sidecars:
  - name: db
    image: db
    ports: [{name: main, containerPort: 5432}]
    readinessProbe: {tcpSocket: {port: main}, periodSeconds: 1}
"#;

const RUN: &str = r#"
apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: greet-1, namespace: team, uid: "u1", labels: {a: b}}
spec:
  taskRef: {name: greet}
  params:
  - {name: who, value: world}
  - {name: place, value: {town: there}}
  - {name: extra, value: ignored}
  workspaces:
  - {name: data, persistentVolumeClaim: {claimName: files}, subPath: in}
  podTemplate:
    securityContext: {runAsUser: 1001, fsGroup: 2000}
    nodeSelector: {disk: ssd}
"#;

#[test]
fn a_task_run_becomes_a_pod() {
    let run = yaml(RUN);
    let workflow = workflow(&run, &[TASK]);
    assert_eq!(workflow.id.as_str(), "team.task.greet");
    assert_eq!(workflow.refusal, None);
    let task = &workflow.tasks[0];
    assert_eq!(task.resources.gpu, Some(json!(0.5)));
    assert_eq!(task.placement.node_selector["disk"], "ssd");
    assert_eq!(task.timeout, Some(jiff::SignedDuration::from_mins(60)));
    let made = launched(&workflow, "greet", &Facts::default());
    insta::assert_snapshot!("task_run_pod", rendered(&json!(made.pod)));
    insta::assert_snapshot!("task_run_document", rendered(&made.taskrun));
}

#[test]
fn a_task_run_that_succeeded_shows_its_steps_and_results() {
    let run = yaml(RUN);
    let workflow = workflow(&run, &[TASK]);
    let mut second = step("step-second", 3, TerminationReason::Continued);
    second.results = vec![("out".into(), json!("x"))];
    let ended = PodEnded {
        containers: vec![
            step("step-unnamed-0", 0, TerminationReason::Completed),
            second,
            step("step-third", 0, TerminationReason::Skipped),
            step("sidecar-db", 0, TerminationReason::Completed),
        ],
        results: vec![("said".into(), json!("hello\n")), ("list".into(), json!(["a"]))],
        ..PodEnded::default()
    };
    let exit = Exit::Code { code: 0 };
    let instances = [instance("greet", UNMAPPED, State::Success, Some(exit.clone()))];
    let attempt = attempt("greet", 1, Some(exit));
    let attempts = [Attempt { record: &attempt, pod: Some(&ended) }];
    let run_record = record(RunState::Success);
    let input = StatusInput {
        doc: &run,
        bundle: &Bundle::default(),
        workflow: &workflow,
        run: &run_record,
        instances: &instances,
        attempts: &attempts,
    };
    let mut doc = status(&input).run;
    assert!(doc["status"]["taskSpec"]["steps"][0]["script"].as_str().unwrap().contains("echo world world $(date)"));
    doc["status"].as_object_mut().unwrap().remove("taskSpec");
    insta::assert_snapshot!("task_run_status", rendered(&doc["status"]));
}

#[test]
fn a_task_run_that_cannot_run_is_refused_with_the_reason() {
    let refused = |text: &str| {
        let refusal = workflow(&yaml(text), &[TASK]).refusal.unwrap();
        (refusal.reason, refusal.message)
    };
    let spec = |spec: &str| format!("{{kind: TaskRun, metadata: {{name: r}}, spec: {spec}}}");
    for (text, reason, part) in [
        (spec("{taskRef: {name: other}}"), "TaskRunResolutionFailed", "`other` is not there"),
        (spec("{taskRef: {name: greet}}"), "TaskRunValidationFailed", "params `who`, which have no default"),
        (
            spec("{taskRef: {name: greet}, params: [{name: who, value: [a]}]}"),
            "TaskRunValidationFailed",
            "is of the type string, and what is given is array",
        ),
        (
            spec(
                "{taskRef: {name: greet}, params: [{name: who, value: a}, {name: words, value: [a]}], workspaces: [{name: data, emptyDir: {}}]}",
            ),
            "TaskRunValidationFailed",
            "`$(params.words[1])`, and the param `words` has 1 elements",
        ),
        (
            spec("{taskRef: {name: greet}, params: [{name: who, value: a}]}"),
            "TaskRunValidationFailed",
            "needs the workspace `data`",
        ),
        (
            spec("{taskSpec: {params: [{name: p, enum: [a, b]}], steps: [{image: i}]}, params: [{name: p, value: c}]}"),
            "InvalidParamValue",
            "is `a` or `b`, not `c`",
        ),
    ] {
        let (found, message) = refused(&text);
        assert_eq!(found, reason, "{message}");
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_workspace_of_some_steps_is_not_seen_by_the_others() {
    let run = yaml(
        r#"
kind: TaskRun
metadata: {name: r}
spec:
  workspaces: [{name: w, emptyDir: {}}, {name: all, emptyDir: {}}]
  taskSpec:
    workspaces: [{name: w}, {name: all}]
    steps:
    - {name: a, image: i, script: "$(workspaces.w.path)", workspaces: [{name: w, mountPath: /own}]}
    - {name: b, image: i, script: x}
    sidecars:
    - {name: s, image: i, workspaces: [{name: w}]}
"#,
    );
    let made = launched(&workflow(&run, &[]), "task", &Facts::default());
    let mounts = |c: &pitcrew_core::pod::Container| -> Vec<String> { c.mounts.iter().map(|m| m.at.clone()).collect() };
    assert_eq!(mounts(&made.pod.steps[0]), ["/own", "/workspace/all"]);
    assert_eq!(made.pod.steps[0].script.as_deref(), Some("#!/bin/sh\nset -e\n/own"));
    assert_eq!(mounts(&made.pod.steps[1]), ["/workspace/all"]);
    assert_eq!(mounts(&made.pod.sidecars[0]), ["/workspace/w", "/workspace/all"]);
}

#[test]
fn what_the_configuration_binds_is_bound_where_nothing_is() {
    let defaults = "{kind: ConfigMap, metadata: {name: config-defaults}, data: {default-task-run-workspace-binding: 'emptyDir: {}', default-timeout-minutes: '5'}}";
    let run =
        yaml("{kind: TaskRun, metadata: {name: r}, spec: {taskSpec: {workspaces: [{name: w}], steps: [{image: i}]}}}");
    assert_eq!(workflow(&run, &[]).refusal.unwrap().reason, "TaskRunValidationFailed");
    let workflow = workflow(&run, &[defaults]);
    assert_eq!(workflow.refusal, None);
    assert_eq!(workflow.tasks[0].timeout, Some(jiff::SignedDuration::from_mins(5)));
    assert_eq!(launched(&workflow, "task", &Facts::default()).pod.volumes.len(), 1);
}

#[test]
fn a_task_that_is_tried_again_keeps_what_became_of_each_try() {
    let run = yaml(
        "{kind: TaskRun, metadata: {name: r}, spec: {retries: 1, taskSpec: {steps: [{name: a, image: i, script: 'echo $(context.task.retry-count)'}]}}}",
    );
    let workflow = workflow(&run, &[]);
    assert_eq!(workflow.tasks[0].retry.retries, 1);
    let failed = Some(Exit::Code { code: 1 });
    let ended = PodEnded { containers: vec![step("step-a", 1, TerminationReason::Error)], ..PodEnded::default() };
    let (first, second) = (attempt("task", 1, failed.clone()), attempt("task", 2, failed.clone()));
    let instances = [instance("task", UNMAPPED, State::Failed, failed)];
    let attempts = [Attempt { record: &first, pod: Some(&ended) }, Attempt { record: &second, pod: Some(&ended) }];
    let run_record = record(RunState::Failed);
    let input = StatusInput {
        doc: &run,
        bundle: &Bundle::default(),
        workflow: &workflow,
        run: &run_record,
        instances: &instances,
        attempts: &attempts,
    };
    let doc = status(&input).run;
    assert_eq!(doc["status"]["podName"], "r-pod-retry1");
    assert_eq!(doc["status"]["taskSpec"]["steps"][0]["script"], "echo 1");
    let retries = doc["status"]["retriesStatus"].as_array().unwrap();
    assert_eq!(retries.len(), 1);
    assert_eq!(retries[0]["podName"], "r-pod");
    assert_eq!(retries[0]["conditions"][0]["reason"], "Failed");
}

/// Steps take turns, so what is said of the whole task is what each of them asks for.
#[test]
fn what_a_task_run_asks_for_as_a_whole_each_of_its_steps_asks_for() {
    let mut run = yaml(RUN);
    run["spec"]["computeResources"] = json!({"limits": {"nvidia.com/gpu": 1}, "requests": {"cpu": "2"}});
    let workflow = workflow(&run, &[TASK]);
    let made = launched(&workflow, "greet", &Facts::default());
    for step in &made.pod.steps {
        let asked = serde_json::to_value(&step.resources).unwrap();
        assert_eq!(asked, json!({"limits": {"nvidia.com/gpu": "1"}, "requests": {"cpu": "2"}}), "{}", step.name);
    }
    assert_eq!(made.pod.sidecars[0].resources, Default::default());
}

fn inline(spec: &str) -> Value {
    yaml(&format!("kind: TaskRun\nmetadata: {{name: r}}\nspec:\n{spec}"))
}

#[test]
fn the_environment_of_a_pod_template_keeps_its_sources_and_goes_before_that_of_a_step() {
    let run = inline(
        "  podTemplate:\n    env:\n    - {name: TOKEN, valueFrom: {secretKeyRef: {name: s, key: k}}}\n    - {name: ROOT, value: \"$(params.dir)\"}\n\
         \x20 params: [{name: dir, value: data}]\n\
         \x20 taskSpec:\n    params: [{name: dir}]\n    volumes: [{name: v, emptyDir: {}}]\n    steps:\n    - image: i\n      script: x\n\
         \x20     env: [{name: TOKEN, value: own}, {name: SUB, value: \"$(ROOT)\"}]\n\
         \x20     volumeMounts: [{name: v, mountPath: /v, subPathExpr: \"$(ROOT)/$$(x)\"}]\n",
    );
    let pod = launched(&workflow(&run, &[]), "task", &Facts::default()).pod;
    let step = &pod.steps[0];
    let token = step.env.iter().filter(|env| env.name == "TOKEN").map(|env| &env.from).collect::<Vec<_>>();
    assert!(token == [&EnvSource::Secret { name: "s".into(), key: "k".into(), optional: false }]);
    assert_eq!(step.mounts[0].sub_path.as_deref(), Some("data/$(x)"));
    for (path, said) in [("$(TOKEN)", "`TOKEN` is no variable"), ("$(UP)/x", "`../x` leaves the volume")] {
        let run = inline(&format!(
            "  taskSpec:\n    volumes: [{{name: v, emptyDir: {{}}}}]\n    steps:\n    - image: i\n      script: x\n      env: [{{name: UP, value: ..}}]\n\
             \x20     volumeMounts: [{{name: v, mountPath: /v, subPathExpr: \"{path}\"}}]\n"
        ));
        let refusal = workflow(&run, &[]).refusal.unwrap();
        assert!(refusal.message.contains(said), "{}", refusal.message);
    }
}

#[test]
fn a_run_of_nothing_is_refused() {
    for (run, reason) in [
        (inline("  taskRef: {resolver: hub, params: [{name: name, value: x}]}"), "TaskRunResolutionFailed"),
        (inline("  taskSpec: {steps: [{ref: {resolver: hub}}]}"), "TaskRunResolutionFailed"),
        (inline("  taskSpec: {steps: []}"), "TaskRunValidationFailed"),
        (yaml("kind: PipelineRun\nmetadata: {name: r}\nspec: {pipelineRef: {resolver: hub}}"), "CouldntGetPipeline"),
        (yaml("kind: PipelineRun\nmetadata: {name: r}\nspec: {pipelineSpec: {tasks: []}}"), "PipelineValidationFailed"),
        (
            yaml(
                "kind: PipelineRun\nmetadata: {name: r}\nspec: {pipelineSpec: {tasks: [{name: a, taskRef: {resolver: git}}]}}",
            ),
            "CouldntGetTask",
        ),
    ] {
        let refusal = workflow(&run, &[]).refusal.unwrap_or_else(|| panic!("{reason}: {run}"));
        assert_eq!(refusal.reason, reason, "{}", refusal.message);
    }
}

#[test]
fn the_configuration_has_a_pod_template_for_what_says_nothing() {
    let config = "kind: ConfigMap\nmetadata: {name: config-defaults}\ndata:\n  default-pod-template: |\n    schedulerName: own\n    \
                  priorityClassName: low\n    env: [{name: A, value: usual}, {name: B, value: usual}]\n";
    let run = inline(
        "  podTemplate: {priorityClassName: high, env: [{name: A, value: mine}]}\n  taskSpec: {steps: [{image: i, script: x}]}",
    );
    let pod = launched(&workflow(&run, &[config]), "task", &Facts::default()).pod;
    assert_eq!(pod.cluster, json!({"schedulerName": "own", "priorityClassName": "high"}));
    let env: Vec<_> = pod.steps[0].env.iter().map(|env| (env.name.as_str(), env.from.clone())).collect();
    assert!(env == [("A", EnvSource::Text("mine".into())), ("B", EnvSource::Text("usual".into()))]);
}

#[test]
fn what_has_effect_only_in_a_cluster_is_told() {
    let run = inline(
        "  taskSpec:\n    steps:\n    - image: i\n      script: x\n      securityContext: {seccompProfile: {type: RuntimeDefault}}\n\
         \x20     computeResources: {requests: {cpu: 1}}\n",
    );
    let told = |options: Options| -> Vec<String> {
        let made = compile(&bundle(&run, &[]), Some(&run), &options).unwrap();
        made.warnings.into_iter().map(|told| told.message).collect()
    };
    assert_eq!(
        told(Options::default()),
        [
            "`seccompProfile` in `securityContext` of the task `task` has effect only in a cluster",
            "`requests` of cores or memory of the task `task` has effect only in a cluster: here `limits` say what a task gets",
        ]
    );
    assert!(told(Options { in_cluster: true, ..Options::default() }).is_empty());
}
