//! Tekton's tasks on an engine, as people run them.

use serde_json::Value;

use crate::engine::Engine;
use crate::harness::Place;

const RUN: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {greeting: good morning}
---
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: greet}
spec:
  params: [{name: who, value: Ada}]
  pipelineSpec:
    params: [{name: who}]
    workspaces: [{name: shared}]
    tasks:
      - name: say
        workspaces: [{name: shared}]
        taskSpec:
          workspaces: [{name: shared}]
          results: [{name: text}]
          steps:
            - name: write
              image: busybox
              env: [{name: GREETING, valueFrom: {configMapKeyRef: {name: words, key: greeting}}}]
              script: |
                printf '%s, %s' "$GREETING" "$(params.who)" > $(results.text.path)
                echo kept > $(workspaces.shared.path)/file
            - name: read
              image: alpine
              command: [cat]
              args: [$(results.text.path)]
      - name: hear
        workspaces: [{name: shared}]
        taskSpec:
          workspaces: [{name: shared}]
          steps:
            - name: hear
              image: bash
              args: [-c, "echo heard: $(tasks.say.results.text), $(cat $(workspaces.shared.path)/file)"]
  workspaces:
    - name: shared
      volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}
"#;

#[test]
fn a_pipeline_runs_on_an_engine_with_its_params_results_and_volumes() {
    let Some(engine) = Engine::new() else { return };
    let place = Place::new();
    place.file("run.yaml", RUN);
    let mut command = place.command("run -f run.yaml --on docker -o json --taskruns");
    command.env("PITCREW_DOCKER_HOST", engine.address());
    let ran = place.ran("run -f run.yaml --on docker", command.output().unwrap()).ends(0);
    assert!(ran.stderr.contains("heard: good morning, Ada, kept"), "{ran}");
    let documents: Value = serde_json::from_str(&ran.stdout).unwrap();
    let first = &documents["items"][0];
    let say = documents["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|doc| doc["kind"] == "TaskRun" && doc["status"]["results"][0]["value"] == "good morning, Ada");
    let step = &say.unwrap_or_else(|| panic!("{first}"))["status"]["steps"][0];
    assert!(step["container"] == "step-write" && step["imageID"].as_str().unwrap().contains("sha256:"), "{step}");
}

#[test]
fn without_an_engine_the_reason_is_told() {
    if Engine::new().is_none() {
        return;
    }
    let place = Place::new();
    place.file("run.yaml", RUN);
    let mut command = place.command("run -f run.yaml --on docker");
    command.env("PITCREW_DOCKER_HOST", "unix:///nowhere.sock");
    let ran = place.ran("run -f run.yaml --on docker", command.output().unwrap()).ends(1);
    assert!(ran.to_string().contains("the engine at `unix:///nowhere.sock` cannot be connected to"), "{ran}");
}
