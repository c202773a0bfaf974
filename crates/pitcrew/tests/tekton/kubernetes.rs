//! `run -f … --on kubernetes`: a pipeline whose pods a real cluster runs.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::harness::Place;

/// Things of a cluster, in a namespace that goes with it.
struct Cluster {
    kubeconfig: String,
    namespace: String,
}

impl Cluster {
    /// `None`: there is none, and so nothing to test with.
    fn find(place: &Place) -> Option<Cluster> {
        let Some(kubeconfig) = std::env::var("PITCREW_TEST_KUBERNETES").ok().filter(|path| !path.is_empty()) else {
            eprintln!("NOT TESTED: `PITCREW_TEST_KUBERNETES` names no cluster; `scripts/kubernetes` makes one");
            return None;
        };
        let own = place.path("").parent().unwrap().join("x").parent().unwrap().to_string_lossy().to_lowercase();
        let own: String = own.chars().filter(char::is_ascii_alphanumeric).collect();
        let namespace = format!("tekton-{}", &own[own.len().saturating_sub(12)..]);
        let cluster = Cluster { kubeconfig, namespace };
        cluster.kubectl(&["create", "namespace", &cluster.namespace]).expect("no namespace");
        Some(cluster)
    }

    fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("kubectl");
        let out = command.arg("--kubeconfig").arg(&self.kubeconfig).args(args).stdin(Stdio::null()).output().unwrap();
        match out.status.success() {
            true => Ok(String::from_utf8(out.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        }
    }

    fn list(&self, kind: &str) -> Vec<Value> {
        let text = self.kubectl(&["--namespace", &self.namespace, "get", kind, "--output", "json"]).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["items"].as_array().cloned().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.kubectl(&["delete", "namespace", "--wait=false", &self.namespace]);
        let _ = self.kubectl(&["delete", "persistentvolume", "--wait=false", &self.namespace]);
    }
}

const PIPELINE: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: token}
stringData: {word: hunter2}
---
apiVersion: tekton.dev/v1
kind: Task
metadata: {name: make}
spec:
  params: [{name: what}]
  results: [{name: made}]
  workspaces: [{name: files}]
  steps:
  - name: write
    image: busybox:local
    imagePullPolicy: Never
    env: [{name: WORD, valueFrom: {secretKeyRef: {name: token, key: word}}}]
    script: |
      echo "making $(params.what) with $WORD"
      echo "$(params.what)" >$(workspaces.files.path)/made
  - name: tell
    image: busybox:local
    imagePullPolicy: Never
    script: printf '%s!' "$(cat $(workspaces.files.path)/made)" >$(results.made.path)
---
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: build}
spec:
  params: [{name: what, value: bread}]
  workspaces:
  - name: shared
    volumeClaimTemplate:
      spec: {accessModes: [ReadWriteOnce], storageClassName: NAMESPACE, resources: {requests: {storage: 1Mi}}}
  pipelineSpec:
    params: [{name: what}]
    workspaces: [{name: shared}]
    results: [{name: made, value: $(tasks.make.results.made)}]
    tasks:
    - name: make
      taskRef: {name: make}
      params: [{name: what, value: $(params.what)}]
      workspaces: [{name: files, workspace: shared}]
    - name: use
      params: [{name: made, value: $(tasks.make.results.made)}]
      workspaces: [{name: files, workspace: shared}]
      taskSpec:
        params: [{name: made}]
        workspaces: [{name: files}]
        steps:
        - name: show
          image: busybox:local
          imagePullPolicy: Never
          computeResources: {limits: {nvidia.com/gpu: 1}}
          script: |
            cat $(workspaces.files.path)/made
            test "$(params.made)" = 'bread!'
    - name: never
      when: [{input: $(tasks.make.results.made), operator: in, values: [cake]}]
      taskSpec:
        steps: [{name: a, image: busybox:local, imagePullPolicy: Never, script: exit 1}]
    finally:
    - name: report
      params: [{name: status, value: $(tasks.use.status)}]
      taskSpec:
        params: [{name: status}]
        steps: [{name: say, image: busybox:local, imagePullPolicy: Never, script: echo use ended $(params.status)}]
"#;

#[test]
fn a_pipeline_runs_in_a_cluster_as_it_does_in_sandboxes() {
    let place = Place::new();
    let Some(cluster) = Cluster::find(&place) else { return };
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": cluster.namespace},
        "spec": {
            "storageClassName": cluster.namespace, "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": place.path("volume"), "type": "DirectoryOrCreate"},
        },
    });
    let file = place.file("volume.json", &volume.to_string());
    cluster.kubectl(&["apply", "--filename", &file.display().to_string()]).unwrap();
    place.file("build.yaml", &PIPELINE.replace("NAMESPACE", &cluster.namespace));
    let line = format!("run -f build.yaml --on kubernetes -n {} -o json --taskruns", cluster.namespace);
    let ran = place.run_with(&line, &[("KUBECONFIG", &cluster.kubeconfig)]).ends(0);
    assert!(ran.stderr.contains("[make : write] making bread with ***"), "{}", ran.stderr);
    assert!(ran.stderr.contains("[use : show] bread"), "{}", ran.stderr);
    assert!(ran.stderr.contains("[report : say] use ended Succeeded"), "{}", ran.stderr);
    let list = ran.json();
    let documents = list["items"].as_array().unwrap();
    let run = documents.iter().find(|one| one["kind"] == "PipelineRun").unwrap();
    assert_eq!(run["status"]["conditions"][0]["reason"], "Completed");
    assert_eq!(run["status"]["results"], json!([{"name": "made", "type": "string", "value": "bread!"}]));
    assert_eq!(run["status"]["skippedTasks"][0]["name"], "never");
    let made = documents.iter().find(|one| one["metadata"]["name"] == "build-make").unwrap();
    let steps = made["status"]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2);
    assert!(steps[0]["imageID"].as_str().unwrap().contains("sha256:"), "{steps:?}");
    assert_eq!(steps[1]["terminated"]["reason"], "Completed");
    // What was made for the run is gone with it.
    let is_left = |one: &Value| {
        one["metadata"]["labels"]["pitcrew.dev/instance"].is_string() && one["metadata"]["deletionTimestamp"].is_null()
    };
    for kind in ["pods", "secrets", "persistentvolumeclaims"] {
        assert!(!cluster.list(kind).iter().any(is_left), "{kind}: {:?}", cluster.list(kind));
    }
}

#[test]
fn a_cluster_that_is_not_there_is_told_in_words() {
    let place = Place::new();
    place.file("run.yaml", "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: a}\nspec: {taskSpec: {steps: [{name: a, image: b, script: 'true'}]}}\n");
    let ran = place.run("run -f run.yaml --on kubernetes").ends(1);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("it is not said how the cluster is reached"), "{ran:?}");
}
