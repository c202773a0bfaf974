//! What Tekton's own examples rely on, in documents of our own: these run where there is no checkout of them.

use crate::harness::{Place, contents, has_sandbox};

/// A PipelineRun with these tasks, or other fields of its `pipelineSpec`.
fn pipeline(spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("    {line}\n")).collect();
    format!("apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {{name: all}}\nspec:\n  pipelineSpec:\n{spec}")
}

#[test]
fn artifacts_of_a_task_reach_the_tasks_after_it() {
    if !has_sandbox() {
        return;
    }
    let place = Place::new();
    let text = pipeline(
        r#"tasks:
- name: make
  taskSpec:
    steps:
    - name: build
      image: busybox
      script: |
        echo '{"outputs": [{"name": "image", "values": [{"uri": "pkg:one"}]}]}' > $(artifacts.path)
    - name: scan
      image: busybox
      script: |
        echo '{"inputs": [{"name": "source", "values": [{"uri": "git:two"}]}], "outputs": []}' > $(step.artifacts.path)
- name: use
  taskSpec:
    steps:
    - name: show
      image: busybox
      script: |
        echo 'image $(tasks.make.outputs.image)'
        echo 'source $(tasks.make.inputs.source)'
        echo 'none $(tasks.make.outputs.other)'
"#,
    );
    let file = place.file("all.yaml", &text);
    let ran = place.run(&format!("run -f {} -o json --taskruns", file.display())).ends(0);
    for line in [
        r#"[use : show] image [{"uri":"pkg:one"}]"#,
        r#"[use : show] source [{"uri":"git:two"}]"#,
        "[use : show] none $(tasks.make.outputs.other)",
    ] {
        assert!(ran.stderr.contains(line), "{line}: {ran:#?}");
    }
    let all = ran.json();
    let made = all["items"].as_array().unwrap().iter().find(|doc| doc["metadata"]["name"] == "all-make").unwrap();
    let status = &made["status"];
    let image = serde_json::json!([{ "name": "image", "values": [{ "uri": "pkg:one" }] }]);
    let source = serde_json::json!([{ "name": "source", "values": [{ "uri": "git:two" }] }]);
    assert_eq!(status["artifacts"], serde_json::json!({ "inputs": source, "outputs": image }), "{status:#}");
    assert_eq!(status["steps"][1]["inputs"], source, "{status:#}");
    assert!(status.get("results").is_none(), "{status:#}");
}

#[test]
fn steps_find_what_their_service_account_signs_in_with() {
    if !has_sandbox() {
        return;
    }
    let place = Place::new();
    let text = r#"apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: sign-in}
spec:
  serviceAccountName: robot
  taskSpec:
    steps:
    - name: look
      image: busybox
      script: |
        cat $HOME/.git-credentials
        test ! -e $HOME/.docker
        stat -c '%a' $HOME/.ssh/id_key
        cmp $HOME/.ssh/config $(credentials.path)/.ssh/config && grep -c IdentityFile $HOME/.ssh/config
    - name: other
      image: busybox
      securityContext: {runAsUser: 1234}
      env: [{name: HOME, value: /tekton/home}]
      script: stat -c 'mine %u' $HOME/.gitconfig
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
secrets: [{name: login}, {name: key}]
---
apiVersion: v1
kind: Secret
metadata: {name: login, annotations: {tekton.dev/git-0: "https://git.test"}}
type: kubernetes.io/basic-auth
stringData: {username: ada, password: correct-horse-battery}
---
apiVersion: v1
kind: Secret
metadata: {name: key, annotations: {tekton.dev/git-0: git.test}}
type: kubernetes.io/ssh-auth
stringData: {ssh-privatekey: a-key-of-robots}
"#;
    let file = place.file("sign-in.yaml", text);
    let ran = place.run(&format!("run -f {} -o json", file.display())).ends(0);
    for line in ["look] https://ada:***@git.test", "look] 600", "look] 1", "other] mine 1234"] {
        assert!(ran.stderr.contains(line), "{line}: {ran:#?}");
    }
    let mut found = Vec::new();
    contents(&place.path("data"), &mut found);
    let text = String::from_utf8_lossy(&found);
    assert!(text.contains("mine 1234") && !text.contains("correct-horse") && !text.contains("a-key-of"), "on a disk");

    let lost = place.file("lost.yaml", &LOST.replace("NAME", "nobody"));
    let ran = place.run(&format!("run -f {} -o json", lost.display())).ends(1);
    let condition = ran.json()["status"]["conditions"][0].to_string();
    assert!(condition.contains("serviceaccount \\\"nobody\\\" not found"), "{condition}");
}

const LOST: &str = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: lost}\nspec:\n  serviceAccountName: NAME\n  \
                    taskSpec: {steps: [{name: s, image: busybox, script: echo}]}\n";

#[test]
fn a_limit_range_bounds_containers_and_fills_in_what_they_leave_open() {
    if !has_sandbox() {
        return;
    }
    let place = Place::new();
    let text = |asked: &str| {
        format!(
            "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {{generateName: bound-}}\nspec:\n  taskSpec:\n    steps:\n    \
             - name: s\n      image: busybox\n      computeResources: {asked}\n      env:\n      - name: SPACE\n        \
             valueFrom: {{resourceFieldRef: {{resource: limits.ephemeral-storage, divisor: 1Mi}}}}\n      script: echo space $SPACE\n---\n\
             apiVersion: v1\nkind: LimitRange\nmetadata: {{name: bounds}}\nspec:\n  limits:\n  - type: Container\n    \
             default: {{ephemeral-storage: 96Mi}}\n    max: {{ephemeral-storage: 128Mi}}\n"
        )
    };
    let file = place.file("filled.yaml", &text("{}"));
    let ran = place.run(&format!("run -f {}", file.display())).ends(0);
    assert!(ran.stdout.contains("space 96"), "{ran:#?}");
    let file = place.file("beyond.yaml", &text("{limits: {ephemeral-storage: 1Gi}}"));
    let ran = place.run(&format!("run -f {} -o json", file.display())).ends(1);
    let condition = &ran.json()["status"]["conditions"][0];
    assert_eq!(condition["reason"], "PodCreationFailed", "{condition}");
    let said = "maximum ephemeral-storage usage per Container is 128Mi, but the limit of `step-s` is 1Gi";
    assert!(condition["message"].as_str().unwrap().contains(said), "{condition}");
}

#[test]
fn what_a_run_makes_for_itself_goes_with_it_and_a_claim_stays() {
    if !has_sandbox() {
        return;
    }
    let place = Place::new();
    let text = r#"apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: all}
spec:
  workspaces:
  - name: own
    volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
  - name: named
    persistentVolumeClaim: {claimName: kept}
  pipelineSpec:
    workspaces: [{name: own}, {name: named}]
    tasks:
    - name: write
      workspaces: [{name: own}]
      taskSpec:
        workspaces: [{name: own}]
        steps: [{name: s, image: busybox, script: echo made-for-the-run > $(workspaces.own.path)/file}]
    - name: copy
      runAfter: [write]
      workspaces: [{name: own}, {name: named}]
      taskSpec:
        workspaces: [{name: own}, {name: named}]
        steps: [{name: s, image: busybox, script: cp $(workspaces.own.path)/file $(workspaces.named.path)/copy}]
"#;
    let file = place.file("all.yaml", text);
    place.run(&format!("run -f {}", file.display())).ends(0);
    let copies = || {
        let mut found = Vec::new();
        contents(&place.path("data"), &mut found);
        // The script says it as well.
        String::from_utf8_lossy(&found).matches("made-for-the-run\n").count()
    };
    assert_eq!(copies(), 2);
    place.run("pr delete all").ends(0);
    assert_eq!(copies(), 1);
    assert!(place.path("data/claims/default/kept/copy").exists());
}

#[test]
fn a_condition_that_cannot_be_evaluated_is_the_reason_of_its_run() {
    if !has_sandbox() {
        return;
    }
    let place = Place::new();
    let text = pipeline(
        r#"tasks:
- name: count
  taskSpec:
    results: [{name: number}]
    steps: [{name: s, image: busybox, script: printf many > $(results.number.path)}]
- name: guarded
  when: [{cel: "int('$(tasks.count.results.number)') > 1"}]
  taskSpec: {steps: [{name: s, image: busybox, script: echo never}]}
"#,
    );
    let file = place.file("all.yaml", &text);
    let ran = place.run(&format!("run -f {} -o json", file.display())).ends(1);
    let condition = &ran.json()["status"]["conditions"][0];
    assert_eq!(condition["reason"], "CELEvaluationFailed", "{condition}");
    assert!(condition["message"].as_str().unwrap().contains("int('many') > 1"), "{condition}");
}
