//! From documents to a pod and to a status, for whole runs.

use pitcrew_core::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, RunType};
use pitcrew_core::id::{RunId, RunKey, TaskId, UNMAPPED};
use pitcrew_core::ir::{Work, Workflow};
use pitcrew_core::pod::{ContainerEnded, ContainerState, PodEnded, PodFailure, TerminationReason};
use pitcrew_core::state::{Exit, RunState, State};
use serde_json::{Map, Value, json};

use super::compile::{Bundle, Options, compile};
use super::run::{Facts, Instance, TaskRunPod, pod};
use super::status::{Attempt, StatusInput, status};

mod pipelines;
mod taskruns;

pub fn yaml(text: &str) -> Value {
    crate::yaml::to_json(text).unwrap()
}

pub fn bundle(run: &Value, documents: &[&str]) -> Bundle {
    let documents: Vec<Value> = documents.iter().map(|text| yaml(text)).collect();
    Bundle::collect(run, &documents)
}

pub fn workflow(run: &Value, documents: &[&str]) -> Workflow {
    let bundle = bundle(run, documents);
    let compiled = compile(&bundle, Some(run), &Options::default()).unwrap();
    // What is stored of a version compiles to the same.
    let again = compile(&Bundle::from_source(&compiled.source).unwrap(), Some(run), &Options::default()).unwrap();
    assert_eq!(json!(again.workflow), json!(compiled.workflow));
    compiled.workflow
}

pub fn template<'w>(workflow: &'w Workflow, task: &str) -> &'w Value {
    match &workflow.task(workflow.find(task).unwrap()).work {
        Work::Pod { template } => template,
        other => panic!("{task} is {other:?}"),
    }
}

pub fn launched(workflow: &Workflow, task: &str, facts: &Facts) -> TaskRunPod {
    pod(template(workflow, task), facts, Instance::FIRST).unwrap()
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub fn record(state: RunState) -> RunRecord {
    RunRecord {
        key: RunKey(1),
        workflow: "w".parse().unwrap(),
        run_id: RunId::new("r").unwrap(),
        run_type: RunType::Manual,
        version: String::new(),
        params: Map::new(),
        conf: Map::new(),
        logical_date: None,
        data_interval: None,
        run_after: at(0),
        queued_at: at(0),
        triggered_by: "cli".into(),
        state,
        start: Some(at(1)),
        end: state.is_final().then(|| at(90)),
        stop: None,
        finally_start: None,
        note: String::new(),
        backfill: None,
    }
}

pub fn instance(task: &str, map_index: i32, state: State, exit: Option<Exit>) -> InstanceRecord {
    let has_ended = exit.is_some();
    InstanceRecord {
        task: TaskId::new(task).unwrap(),
        map_index,
        state,
        attempt: 1,
        max_attempt: 1,
        lost: 0,
        queued_at: Some(at(2)),
        start: Some(at(3)),
        end: has_ended.then(|| at(60)),
        exit,
        message: String::new(),
        outputs: Default::default(),
        item: None,
        followed: None,
        stop: None,
        skip: None,
    }
}

pub fn attempt(task: &str, number: u32, exit: Option<Exit>) -> AttemptRecord {
    AttemptRecord {
        task: TaskId::new(task).unwrap(),
        map_index: UNMAPPED,
        number,
        backend: "local".into(),
        handle: Value::Null,
        queued_at: at(2),
        start: Some(at(3)),
        end: exit.is_some().then(|| at(60)),
        exit,
        message: String::new(),
        node: None,
        gpus: Vec::new(),
        request: None,
        usage: Value::Null,
        names: Value::Null,
        detail: Value::Null,
    }
}

pub fn step(name: &str, exit_code: i32, reason: TerminationReason) -> ContainerEnded {
    ContainerEnded {
        name: name.into(),
        image: "alpine".into(),
        image_id: "alpine@sha256:00".into(),
        container_id: "sandbox://1".into(),
        state: ContainerState::Terminated { exit_code, reason, message: String::new(), started_at: at(3), at: at(59) },
        results: Vec::new(),
        artifacts: Value::Null,
    }
}

pub fn rendered(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

pub fn condition(doc: &Value) -> (String, String, String) {
    let condition = &doc["status"]["conditions"][0];
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

#[test]
fn a_failed_pod_has_the_reason_of_its_failure() {
    let run = yaml(
        "{kind: TaskRun, metadata: {name: r}, spec: {taskSpec: {steps: [{name: a, image: i, script: x}]}, timeout: 10s}}",
    );
    let workflow = workflow(&run, &[]);
    let steps = |reason| vec![step("step-a", 3, reason)];
    let failure = |failure: PodFailure| PodEnded { failure: Some(failure), ..PodEnded::default() };
    let image = PodFailure::ImagePull { container: "step-a".into(), image: "i".into(), message: "not there".into() };
    let config = PodFailure::Config { container: "step-a".into(), message: "no secret".into() };
    for (exit, pod, reason, message) in [
        (
            Exit::Code { code: 3 },
            PodEnded { containers: steps(TerminationReason::Error), ..PodEnded::default() },
            "Failed",
            "\"step-a\" exited with code 3",
        ),
        (
            Exit::OutOfMemory,
            PodEnded { containers: steps(TerminationReason::OutOfMemory), ..PodEnded::default() },
            "StepOOM",
            "\"step-a\" exited because it had no more memory",
        ),
        (Exit::TimedOut, PodEnded::default(), "TaskRunTimeout", "TaskRun \"r\" failed to finish within \"10s\""),
        (Exit::Cancelled, PodEnded::default(), "TaskRunCancelled", "TaskRun \"r\" was cancelled"),
        (
            Exit::Code { code: 1 },
            failure(PodFailure::StepTimeout { container: "step-a".into() }),
            "TaskRunTimeout",
            "\"step-a\" exited because the step exceeded the specified timeout limit",
        ),
        (
            Exit::start_failed("x"),
            failure(image),
            "TaskRunImagePullFailed",
            "the step \"a\" in TaskRun \"r\" failed to pull the image \"i\": not there",
        ),
        (
            Exit::start_failed("x"),
            failure(config),
            "CreateContainerConfigError",
            "the container \"step-a\" cannot be made: no secret",
        ),
    ] {
        let instances = [instance("task", UNMAPPED, State::Failed, Some(exit.clone()))];
        let attempt = attempt("task", 1, Some(exit));
        let attempts = [Attempt { record: &attempt, pod: Some(&pod) }];
        let run_record = record(RunState::Failed);
        let input = StatusInput {
            doc: &run,
            bundle: &Bundle::default(),
            workflow: &workflow,
            run: &run_record,
            instances: &instances,
            attempts: &attempts,
        };
        let expected = ("False".to_owned(), reason.to_owned(), message.to_owned());
        assert_eq!(condition(&status(&input).run), expected);
    }
}
