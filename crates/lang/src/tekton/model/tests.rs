//! What is read is what is written again, and nothing else is taken.

use serde_json::{Value, json};

use super::*;

/// Reading and writing gives the same JSON.
fn round<T: Resource>(value: Value) -> Doc<T> {
    let doc = Doc::<T>::from_json(value.clone()).unwrap();
    assert_eq!(doc.to_json(), value);
    assert_eq!(Doc::<T>::from_json(doc.to_json()).unwrap().to_json(), value);
    doc
}

#[test]
fn a_run_of_a_pipeline_is_written_as_it_was_read() {
    let run = round::<RunSpec>(json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": {"generateName": "x-", "labels": {"a.b/c": "d"}, "finalizers": ["f"]},
        "spec": {
            "params": [{"name": "p", "value": ""}, {"name": "q", "value": ["a"]}, {"name": "r", "value": {"k": "v"}}],
            "timeouts": {"pipeline": "1h0m0s", "finally": "0s"},
            "pipelineSpec": {
                "params": [{"name": "p", "type": "string", "default": "", "enum": ["", "a"]}],
                "tasks": [
                    {"name": "one", "taskRef": {"name": "t", "kind": "Task"}, "retries": 2, "onError": "continue",
                     "when": [{"input": "a", "operator": "in", "values": ["a"]}], "runAfter": ["two"]},
                    {"name": "two", "taskSpec": {"metadata": {"labels": {"l": "m"}}, "steps": [
                        {"name": "s", "image": "alpine", "script": "echo", "onError": "continue", "timeout": "10s",
                         "ref": {"resolver": "git", "params": [{"name": "url", "value": "u"}]},
                         "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}]},
                     "matrix": {"params": [{"name": "m", "value": ["a", "b"]}], "include": [{"name": "i", "params": []}]}},
                    {"name": "three", "pipelineSpec": {"tasks": [{"name": "x", "taskRef": {"name": "y"}}]}}
                ],
                "results": [{"name": "r", "value": "$(tasks.one.results.r)"}]
            },
            "taskRunTemplate": {"podTemplate": {"nodeSelector": {"a": "b"}}},
            "workspaces": [{"name": "w", "emptyDir": {}}]
        }
    }).drop_empty_include());
    let RunSpec::Pipeline(spec) = &run.spec else { panic!("{run:?}") };
    let tasks = &spec.pipeline_spec.as_ref().unwrap().tasks;
    assert!(matches!(tasks[0].uses(), TaskUse::Ref(used) if used.name == "t"));
    assert!(matches!(tasks[1].uses(), TaskUse::Inline(used) if used.task.steps.len() == 1));
    assert!(matches!(tasks[2].uses(), TaskUse::InlinePipeline(used) if used.tasks.len() == 1));
    assert_eq!(run.meta.other["finalizers"], json!(["f"]));
}

/// An empty list is not written.
trait DropEmptyInclude {
    fn drop_empty_include(self) -> Value;
}

impl DropEmptyInclude for Value {
    fn drop_empty_include(mut self) -> Value {
        if let Some(include) = self.pointer_mut("/spec/pipelineSpec/tasks/1/matrix/include/0") {
            include.as_object_mut().unwrap().remove("params");
        }
        self
    }
}

#[test]
fn objects_stand_beside_their_metadata() {
    let map = round::<ConfigMap>(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}),
    );
    assert_eq!(map.spec.entries()["a"], b"b");
    round::<Secret>(
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "Yg=="}}),
    );
    round::<Claim>(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}));
    round::<LimitRange>(json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"},
        "spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "100m"}}]}}));
    round::<ServiceAccount>(
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}, "secrets": [{"name": "s"}]}),
    );
    round::<TaskSpec>(json!({"apiVersion": "tekton.dev/v1", "kind": "Task", "metadata": {"name": "t"},
        "spec": {"steps": [{"image": "a"}], "stepTemplate": {"env": []}}}));
    round::<StepActionSpec>(
        json!({"apiVersion": "tekton.dev/v1beta1", "kind": "StepAction", "metadata": {"name": "t"},
        "spec": {"image": "a", "results": [{"name": "r", "type": "array"}]}}),
    );
    round::<TriggerObject>(
        json!({"apiVersion": "triggers.tekton.dev/v1beta1", "kind": "TriggerBinding", "metadata": {"name": "t"},
        "spec": {"params": []}}),
    );
}

#[test]
fn unknown_names_and_other_kinds_are_refused() {
    let task =
        |spec: Value| json!({"apiVersion": "tekton.dev/v1", "kind": "Task", "metadata": {"name": "t"}, "spec": spec});
    let refused = |value: Value| Doc::<TaskSpec>::from_json(value).unwrap_err();
    assert!(refused(task(json!({"step": []}))).contains("unknown field `step`"));
    assert!(refused(task(json!({"steps": [{"resources": {}}]}))).contains("unknown field `resources`"));
    let run = json!({"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": {}, "spec": {}});
    assert!(refused(run.clone()).contains("expected a Task, found a TaskRun"));
    assert!(Doc::<RunSpec>::from_json(task(json!({}))).unwrap_err().contains("found a Task"));
    let inline = json!({"name": "x", "taskSpec": {"metadata": {}, "stepz": []}});
    let error = serde_json::from_value::<PipelineTask>(inline).unwrap_err().to_string();
    assert!(error.contains("unknown field `stepz`"), "{error}");
    assert!(Doc::<RunSpec>::from_json(run).is_ok());
}
