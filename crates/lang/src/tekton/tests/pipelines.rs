//! Runs of pipelines.

use pitcrew_core::engine::Answer;
use pitcrew_core::engine::record::SkipReason;
use pitcrew_core::ir::{Kind, When};
use pitcrew_core::trigger_rule::TriggerRule;

use super::*;
use crate::tekton::run::{TaskFacts, TaskState, answer, combinations};

const BUILD: &str = r#"
apiVersion: tekton.dev/v1
kind: Task
metadata: {name: build}
spec:
  params: [{name: source}, {name: flags, type: array, default: []}]
  workspaces: [{name: out}]
  results: [{name: image}, {name: layers, type: array}]
  steps:
  - {name: make, image: maker, script: "make $(params.source) > $(workspaces.out.path)/log", args: ["$(params.flags[*])"]}
"#;

const PIPELINE: &str = r#"
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: {name: release}
spec:
  params:
  - {name: branch, default: main}
  - {name: targets, type: array, default: [a, b]}
  workspaces: [{name: shared}, {name: extra, optional: true}]
  results:
  - {name: image, value: "$(tasks.build.results.image)"}
  - {name: report, value: "$(finally.tell.results.text)"}
  tasks:
  - name: build
    taskRef: {name: build}
    displayName: Build $(params.branch)
    params: [{name: source, value: "$(params.branch)@$(context.pipelineRun.name)"}, {name: flags, value: ["-x", "$(params.targets[*])"]}]
    workspaces: [{name: out, workspace: shared, subPath: build}]
    retries: 2
    timeout: 5m
  - name: test
    runAfter: [build]
    when: [{input: "$(workspaces.extra.bound)", operator: notin, values: ["true"]}]
    matrix:
      params: [{name: target, value: "$(params.targets[*])"}, {name: mode, value: [fast]}]
    taskSpec:
      metadata: {labels: {kind: test}}
      params: [{name: target}, {name: branch, default: own}]
      results: [{name: score}]
      steps:
      - {name: run, image: tester, script: "test $(params.target) $(params.mode) $(params.branch) $(params.targets[0]) $(tasks.build.results.image) $(workspaces.shared.path)"}
  - name: publish
    onError: continue
    params: [{name: image, value: "$(tasks.build.results.image)"}, {name: scores, value: "$(tasks.test.results.score[*])"}]
    when: [{input: "$(tasks.build.results.layers[0])", operator: in, values: [base]}]
    taskSpec:
      params: [{name: image}, {name: scores, type: array}]
      steps: [{name: push, image: pusher, command: [push], args: ["$(params.image)", "$(params.scores[*])"]}]
  finally:
  - name: tell
    params: [{name: state, value: "$(tasks.status) $(tasks.publish.status) $(tasks.publish.reason)"}]
    taskSpec:
      params: [{name: state}]
      results: [{name: text}]
      steps: [{name: say, image: teller, script: "say $(params.state)"}]
"#;

const RUN: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: release-1, uid: u1, labels: {team: x}}
spec:
  pipelineRef: {name: release}
  params: [{name: branch, value: "dev-$(context.pipelineRun.name)"}, {name: extra, value: kept}]
  workspaces: [{name: shared, volumeClaimTemplate: {spec: {}}, subPath: top}]
  timeouts: {pipeline: 1h30m, tasks: 1h}
  taskRunTemplate: {serviceAccountName: robot, podTemplate: {nodeSelector: {disk: ssd}}}
  taskRunSpecs:
  - {pipelineTaskName: build, timeout: 30s, podTemplate: {nodeSelector: {branch: "$(params.branch)"}}, stepSpecs: [{name: make, computeResources: {limits: {nvidia.com/gpu: 2}}}]}
"#;

fn release() -> Workflow {
    workflow(&yaml(RUN), &[BUILD, PIPELINE])
}

fn facts(tasks: &[(&str, TaskState, Value)]) -> Facts {
    let made = |(name, state, results): &(&str, TaskState, Value)| {
        let results = match results {
            Value::Array(all) => all.clone(),
            one => vec![one.clone()],
        };
        let facts = TaskFacts {
            state: *state,
            reason: if *state == TaskState::Failed { "Failed".into() } else { String::new() },
            is_matrix: results.len() > 1,
            results: results.into_iter().map(|one| serde_json::from_value(one).unwrap()).collect(),
            ..TaskFacts::default()
        };
        ((*name).to_owned(), facts)
    };
    Facts { tasks: tasks.iter().map(made).collect() }
}

fn asked(workflow: &Workflow, task: &str, facts: &Facts) -> Answer {
    match &workflow.task(workflow.find(task).unwrap()).when {
        Some(When::Guard(template)) => answer(template, facts).unwrap(),
        other => panic!("{task} has no guard but {other:?}"),
    }
}

fn done() -> Facts {
    facts(&[
        ("build", TaskState::Succeeded, json!({"image": "img", "layers": ["base", "top"]})),
        ("test", TaskState::Succeeded, json!([{"score": "1"}, {"score": "2"}])),
    ])
}

#[test]
fn a_pipeline_run_becomes_a_workflow() {
    let workflow = release();
    assert_eq!(workflow.refusal, None);
    assert_eq!(workflow.id.as_str(), "release");
    let task = |name: &str| workflow.task(workflow.find(name).unwrap());
    let needs =
        |name: &str| -> Vec<&str> { task(name).needs.iter().map(|ix| workflow.task(*ix).id.as_str()).collect() };
    assert_eq!(needs("build"), [""; 0]);
    assert_eq!(needs("test"), ["build"]);
    assert_eq!(needs("publish"), ["build", "test"]);
    assert_eq!(needs("tell"), [""; 0]);
    assert_eq!(
        (task("tell").kind.clone(), task("tell").trigger_rule),
        (Kind::Finally, TriggerRule::AllDone),
        "also after a failure"
    );
    assert!(task("publish").ignore_failure);
    let build = task("build");
    assert_eq!(build.retry.retries, 2);
    assert_eq!(build.timeout, Some(jiff::SignedDuration::from_secs(30)));
    assert_eq!(task("test").timeout, Some(jiff::SignedDuration::from_hours(1)));
    assert_eq!(build.resources.gpu, Some(json!(2)));
    assert_eq!(build.placement.node_selector["disk"], "ssd");
    assert_eq!(build.placement.node_selector["branch"], "dev-release-1");
    assert_eq!(build.description, "Build dev-release-1");
    assert_eq!(task("tell").resources.gpu, None);
}

#[test]
fn a_task_of_a_pipeline_gets_what_the_run_gives_it() {
    let workflow = release();
    let made = launched(&workflow, "build", &Facts::default());
    insta::assert_snapshot!("pipeline_task_document", rendered(&made.taskrun));
    let step = &made.pod.steps[0];
    assert_eq!(step.script.as_deref(), Some("#!/bin/sh\nset -e\nmake dev-release-1@release-1 > /workspace/out/log"));
    assert_eq!(step.args, ["-x", "a", "b"]);
    assert_eq!(step.mounts[0].sub_path.as_deref(), Some("top/build"));
    let source = &made.pod.volumes[0].source;
    let claim =
        made.taskrun["spec"]["workspaces"][0]["persistentVolumeClaim"]["claimName"].as_str().unwrap().to_owned();
    assert_eq!(*source, pitcrew_core::pod::Source::Shared { dir: format!("volumes/default/{claim}") });
}

#[test]
fn a_spec_in_the_pipeline_sees_what_is_around_it() {
    let workflow = release();
    let task = workflow.task(workflow.find("test").unwrap());
    let found = combinations(&task.foreach.as_ref().unwrap().axes[0].1, &Facts::default()).unwrap();
    assert_eq!(found, [json!({"target": "a", "mode": "fast"}), json!({"target": "b", "mode": "fast"})]);
    let at = Instance { index: Some(1), item: &found[1], retries: 0 };
    let made = pod(template(&workflow, "test"), &done(), at).unwrap();
    assert_eq!(made.taskrun["metadata"]["name"], "release-1-test-1");
    // Its own default goes before the param of the pipeline.
    let script = "#!/bin/sh\nset -e\ntest b fast own a img /workspace/shared";
    assert_eq!(made.pod.steps[0].script.as_deref(), Some(script));
    assert_eq!(made.pod.labels["tekton.dev/pipelineTask"], "test");
    assert_eq!(made.pod.labels["kind"], "test");
}

#[test]
fn results_of_a_matrix_are_lists_for_those_after_it() {
    let made = launched(&release(), "publish", &done());
    assert_eq!(made.pod.steps[0].args, ["img", "1", "2"]);
}

#[test]
fn guards_ask_for_conditions_parents_and_results() {
    let workflow = release();
    assert_eq!(asked(&workflow, "test", &done()), Answer::Go);
    assert_eq!(asked(&workflow, "publish", &done()), Answer::Go);
    let other = facts(&[
        ("build", TaskState::Succeeded, json!({"image": "img", "layers": ["other"]})),
        ("test", TaskState::Succeeded, json!([{"score": "1"}, {"score": "2"}])),
    ]);
    assert_eq!(asked(&workflow, "publish", &other), Answer::Skip(SkipReason::When));
    let skipped = facts(&[
        ("build", TaskState::Succeeded, json!({"image": "img", "layers": ["base"]})),
        ("test", TaskState::Skipped(crate::tekton::run::Skip::When), json!({})),
    ]);
    assert_eq!(asked(&workflow, "publish", &skipped), Answer::Skip(SkipReason::MissingResults));
}

#[test]
fn finally_tasks_see_how_the_others_ended() {
    let mut all = done();
    all.tasks.extend(facts(&[("publish", TaskState::Failed, json!({}))]).tasks);
    let made = launched(&release(), "tell", &all);
    assert_eq!(made.pod.steps[0].script.as_deref(), Some("#!/bin/sh\nset -e\nsay Failed Failed Failed"));
}

#[test]
fn a_pipeline_run_that_cannot_begin_is_refused_with_the_reason() {
    let run = |spec: &str| yaml(&format!("{{kind: PipelineRun, metadata: {{name: r}}, spec: {spec}}}"));
    let inline = |pipeline: &str| run(&format!("{{pipelineSpec: {pipeline}}}"));
    let step = "taskSpec: {steps: [{image: i}]}";
    for (run, reason) in [
        (run("{pipelineRef: {name: other}}"), "CouldntGetPipeline"),
        (inline(&format!("{{params: [{{name: p}}], tasks: [{{name: a, {step}}}]}}")), "ParameterMissing"),
        (
            run(&format!(
                "{{params: [{{name: p, value: [a]}}], pipelineSpec: {{params: [{{name: p}}], tasks: [{{name: a, {step}}}]}}}}"
            )),
            "ParameterTypeMismatch",
        ),
        (
            run(&format!(
                "{{params: [{{name: p, value: c}}], pipelineSpec: {{params: [{{name: p, enum: [a]}}], tasks: [{{name: a, {step}}}]}}}}"
            )),
            "InvalidParamValue",
        ),
        (
            run(&format!(
                "{{params: [{{name: p, value: {{k: v}}}}], pipelineSpec: {{params: [{{name: p, type: object, properties: {{k: {{}}, l: {{}}}}}}], tasks: [{{name: a, {step}}}]}}}}"
            )),
            "ObjectParameterMissKeys",
        ),
        (
            run(
                "{params: [{name: p, value: [a]}], pipelineSpec: {params: [{name: p, type: array}], tasks: [{name: a, params: [{name: q, value: '$(params.p[1])'}], taskSpec: {steps: [{image: i}]}}]}}",
            ),
            "ParamArrayIndexingInvalid",
        ),
        (inline(&format!("{{workspaces: [{{name: w}}], tasks: [{{name: a, {step}}}]}}")), "InvalidWorkspaceBindings"),
        (
            run(&format!(
                "{{taskRunSpecs: [{{pipelineTaskName: b}}], pipelineSpec: {{tasks: [{{name: a, {step}}}]}}}}"
            )),
            "InvalidTaskRunSpecs",
        ),
        (inline("{tasks: [{name: a, taskRef: {name: nothing}}]}"), "CouldntGetTask"),
        (inline("{tasks: [{name: a, taskRef: {name: build}}]}"), "PipelineValidationFailed"),
        (
            inline(&format!(
                "{{tasks: [{{name: a, {step}}}, {{name: b, params: [{{name: p, value: $(tasks.a.results.x)}}], {step}}}]}}"
            )),
            "InvalidTaskResultReference",
        ),
        (
            inline(
                "{workspaces: [{name: w, optional: true}], tasks: [{name: a, workspaces: [{name: v, workspace: w}], taskSpec: {workspaces: [{name: v}], steps: [{image: i}]}}]}",
            ),
            "RequiredWorkspaceMarkedOptional",
        ),
    ] {
        let refusal = workflow(&run, &[BUILD]).refusal.unwrap_or_else(|| panic!("{reason}: {run}"));
        assert_eq!(refusal.reason, reason, "{}", refusal.message);
    }
}

#[test]
fn a_pipeline_run_shows_its_children_results_and_what_was_skipped() {
    let run = yaml(RUN);
    let documents: Vec<Value> = [BUILD, PIPELINE].map(yaml).to_vec();
    let bundle = Bundle::collect(&run, &documents);
    let workflow = release();
    let ok = Some(Exit::Code { code: 0 });
    let mut build = instance("build", UNMAPPED, State::Success, ok.clone());
    build.outputs = [("image".to_owned(), json!("img")), ("layers".to_owned(), json!(["other"]))].into();
    let mut tests = [0, 1].map(|index| {
        let mut one = instance("test", index, State::Success, ok.clone());
        one.outputs = [("score".to_owned(), json!(index.to_string()))].into();
        let target = ["a", "b"][index as usize];
        one.item = Some(json!({"target": target, "mode": "fast"}));
        one
    });
    tests.reverse();
    let mut publish = instance("publish", UNMAPPED, State::Skipped, None);
    publish.attempt = 0;
    publish.skip = Some(SkipReason::When);
    let mut tell = instance("tell", UNMAPPED, State::Success, ok);
    tell.outputs = [("text".to_owned(), json!("said"))].into();
    let mut instances = vec![publish, build, tell];
    instances.extend(tests);
    let run_record = record(RunState::Success);
    let input = StatusInput {
        doc: &run,
        bundle: &bundle,
        workflow: &workflow,
        run: &run_record,
        instances: &instances,
        attempts: &[],
    };
    let mut docs = status(&input);
    let names: Vec<&str> = docs.task_runs.iter().map(|doc| doc["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["release-1-build", "release-1-test-0", "release-1-test-1", "release-1-tell"]);
    assert_eq!(docs.task_runs[3]["spec"]["params"][0]["value"], "Completed None None");
    docs.run["status"].as_object_mut().unwrap().remove("pipelineSpec");
    insta::assert_snapshot!("pipeline_run_status", rendered(&docs.run["status"]));
}

#[test]
fn the_condition_of_a_pipeline_run_counts_its_tasks() {
    let run = yaml(
        "{kind: PipelineRun, metadata: {name: r}, spec: {timeouts: {pipeline: 10s}, pipelineSpec: {tasks: [{name: a, taskSpec: {steps: [{image: i}]}}, {name: b, onError: continue, taskSpec: {steps: [{image: i}]}}, {name: c, runAfter: [a], taskSpec: {steps: [{image: i}]}}]}}}",
    );
    let workflow = workflow(&run, &[]);
    let code = |code: i32| Some(Exit::Code { code });
    let never = |task: &str, skip| {
        let mut one = instance(task, UNMAPPED, State::Skipped, None);
        (one.attempt, one.skip) = (0, Some(skip));
        one
    };
    let good = |task: &str| instance(task, UNMAPPED, State::Success, code(0));
    let ignored = instance("b", UNMAPPED, State::Success, code(1));
    let failed = instance("a", UNMAPPED, State::Failed, code(1));
    let invalid = || {
        let mut one = instance("c", UNMAPPED, State::Failed, None);
        (one.attempt, one.skip, one.message) = (0, Some(SkipReason::Invalid), "no result".into());
        one
    };
    let running = instance("b", UNMAPPED, State::Running, None);
    for (state, instances, expected) in [
        (
            RunState::Success,
            vec![good("a"), good("b"), good("c")],
            ("True", "Succeeded", "Tasks Completed: 3 (Failed: 0, Cancelled 0), Skipped: 0"),
        ),
        (
            RunState::Success,
            vec![good("a"), ignored.clone(), never("c", SkipReason::When)],
            ("True", "Completed", "Tasks Completed: 2 (Failed: 1 (Ignored: 1), Cancelled 0), Skipped: 1"),
        ),
        (
            RunState::Failed,
            vec![failed.clone(), good("b"), never("c", SkipReason::Stopping)],
            ("False", "Failed", "Tasks Completed: 2 (Failed: 1, Cancelled 0), Skipped: 1"),
        ),
        (
            RunState::Failed,
            vec![good("a"), good("b"), invalid()],
            (
                "False",
                "PipelineValidationFailed",
                "Tasks Completed: 2 (Failed: 0, Cancelled 0), Skipped: 0, Failed Validation: 1",
            ),
        ),
        (
            RunState::Running,
            vec![good("a"), running.clone()],
            ("Unknown", "Running", "Tasks Completed: 1 (Failed: 0, Cancelled 0), Incomplete: 2, Skipped: 0"),
        ),
        (
            RunState::Running,
            vec![failed, running],
            (
                "Unknown",
                "PipelineRunStopping",
                "Tasks Completed: 1 (Failed: 1, Cancelled 0), Incomplete: 2, Skipped: 0",
            ),
        ),
        (RunState::Cancelled, vec![], ("False", "Cancelled", "PipelineRun \"r\" was cancelled")),
    ] {
        let run_record = record(state);
        let bundle = bundle(&run, &[]);
        let input = StatusInput {
            doc: &run,
            bundle: &bundle,
            workflow: &workflow,
            run: &run_record,
            instances: &instances,
            attempts: &[],
        };
        let found = condition(&status(&input).run);
        assert_eq!((found.0.as_str(), found.1.as_str(), found.2.as_str()), expected);
    }
}

#[test]
fn a_pipeline_in_a_pipeline_runs_as_its_tasks() {
    let inner = "{kind: Pipeline, metadata: {name: inner}, spec: {results: [{name: out, value: '$(tasks.a.results.r)'}], tasks: [{name: a, taskSpec: {results: [{name: r}], steps: [{image: i}]}}]}}";
    let run = yaml(
        "{kind: PipelineRun, metadata: {name: r}, spec: {pipelineSpec: {tasks: [{name: sub, pipelineRef: {name: inner}}, {name: last, params: [{name: p, value: $(tasks.sub.results.out)}], taskSpec: {params: [{name: p}], steps: [{image: i, args: [$(params.p)]}]}}]}}}",
    );
    let workflow = workflow(&run, &[inner]);
    assert_eq!(workflow.refusal, None);
    let names: Vec<&str> = workflow.tasks.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(names, ["sub_a", "sub", "last"]);
    assert_eq!(workflow.tasks[1].work, Work::Noop);
    let given = facts(&[("sub_a", TaskState::Succeeded, json!({"r": "deep"}))]);
    assert_eq!(asked(&workflow, "last", &given), Answer::Go);
    assert_eq!(launched(&workflow, "last", &given).pod.steps[0].args, ["deep"]);
}
