//! Files that are wrong, and what is said of each: all in one snapshot, so that it can be read as a whole.

use std::fmt::Write as _;

use super::*;

fn document(kind: &str, spec: &str) -> String {
    format!("apiVersion: tekton.dev/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec:\n{spec}\n")
}

/// The `spec` of a Task; its steps are given.
fn task(spec: &str) -> String {
    document("Task", spec)
}

/// A Task with one step that has this.
fn step(fields: &str) -> String {
    task(&format!("  steps:\n  - name: s\n    image: alpine\n    {fields}"))
}

/// A Pipeline with these tasks.
fn pipeline(tasks: &str) -> String {
    document("Pipeline", &format!("  tasks:\n  {tasks}"))
}

fn run(fields: &str) -> String {
    document("PipelineRun", &format!("  pipelineRef: {{name: p}}\n  {fields}"))
}

fn object(kind: &str, rest: &str) -> String {
    format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: x}}\n{rest}\n")
}

fn cases() -> Vec<(&'static str, String)> {
    let head = |text: &str| text.to_owned();
    vec![
        ("no version", head("kind: Task\nmetadata: {name: x}\n")),
        ("no kind", head("apiVersion: tekton.dev/v1\nmetadata: {name: x}\n")),
        ("a list", head("- a\n")),
        ("another kind", head("apiVersion: tekton.dev/v1\nkind: Tsak\nmetadata: {name: x}\n")),
        ("a kind of a cluster", head("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\n")),
        ("another version", head("apiVersion: tekton.dev/v2\nkind: Task\nmetadata: {name: x}\n")),
        ("a step action of v1", head("apiVersion: tekton.dev/v1\nkind: StepAction\nmetadata: {name: x}\n")),
        ("no spec", head("apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: x}\n")),
        ("no name", head("apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {}\nspec: {steps: [{image: a}]}\n")),
        (
            "a task has a fixed name",
            head("apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {generateName: x-}\nspec: {steps: [{image: a}]}\n"),
        ),
        (
            "a wrong name",
            head("apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: My_Task}\nspec: {steps: [{image: a}]}\n"),
        ),
        (
            "a label is a text",
            head(
                "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: x, labels: {a: yes}}\nspec: {steps: [{image: a}]}\n",
            ),
        ),
        (
            "a resolver that is not here",
            pipeline("- {name: a, taskRef: {resolver: hub, params: [{name: name, value: x}]}}"),
        ),
        (
            "a bundle",
            head(
                "apiVersion: tekton.dev/v1beta1\nkind: PipelineRun\nmetadata: {name: x}\nspec: {pipelineRef: {name: p, bundle: registry/p}}\n",
            ),
        ),
        (
            "a resolver without its params",
            task("  steps:\n  - name: s\n    ref: {resolver: git, params: [{name: ulr, value: x}]}"),
        ),
        ("a run that is to wait", run("status: PipelineRunPending")),
        ("a run that is cancelled", run("status: Cancelled")),
        ("a run of another controller", run("managedBy: kueue.x-k8s.io/multikueue")),
        ("a breakpoint", document("TaskRun", "  taskRef: {name: t}\n  debug: {breakpoints: {onFailure: enabled}}")),
        (
            "mounts as they cannot be",
            step(
                "volumeMounts: [{name: v, mountPath: /v, mountPropagation: Bidirectional, recursiveReadOnly: Enabled, subPath: a, subPathExpr: $(B)}]",
            ),
        ),
        ("a slip of the hand", step("scirpt: echo")),
        ("a name of v1beta1", step("resources: {limits: {cpu: 1}}")),
        ("runs of v1beta1", run("timeout: 1h\n  podTemplate: {}\n  serviceAccountName: a")),
        ("a name of v1 in v1beta1", step("computeResources: {limits: {cpu: 1}}").replace("dev/v1", "dev/v1beta1")),
        ("what is gone from steps", step("tty: true")),
        ("pipeline resources", task("  resources: {inputs: []}\n  steps: [{image: a}]")),
        ("conditions", pipeline("- {name: a, taskRef: {name: t}, conditions: []}")),
        ("a number for a text", step("env: [{name: A, value: 1}]")),
        ("a word of YAML for a text", step("env: [{name: A, value: yes}]")),
        ("a text for a number", pipeline("- {name: a, taskRef: {name: t}, retries: \"2\"}")),
        ("a number that is too small", pipeline("- {name: a, taskRef: {name: t}, retries: -1}")),
        ("a mapping for a list", task("  steps: {image: a}")),
        ("a duration without a unit", step("timeout: 10")),
        ("a duration with another unit", step("timeout: 1d")),
        ("a wrong quantity", step("computeResources: {limits: {memory: 1GiB}}")),
        ("a word of a few", step("imagePullPolicy: Allways")),
        ("windows", step("securityContext: {windowsOptions: {}}")),
        ("a script of windows", step("script: |\n      #!win pwsh\n      echo")),
        ("fsGroup is of the pod", step("securityContext: {fsGroup: 1}")),
        ("an unknown type", task("  params: [{name: a, type: strng}]\n  steps: [{image: a}]")),
        ("no steps", task("  params: []")),
        ("no image", task("  steps: [{name: a}]")),
        ("steps of one name", task("  steps: [{name: a, image: a}, {name: a, image: a}]")),
        ("script and command", step("script: a\n    command: [b]")),
        ("image beside ref", step("ref: {name: a}")),
        ("params without ref", step("params: [{name: a, value: b}]")),
        ("onError", step("onError: ignore")),
        (
            "a param that is not there",
            step("script: echo $(params.nmae)").replace("spec:\n", "spec:\n  params: [{name: name}]\n"),
        ),
        (
            "a name with points",
            step("script: echo $(params.a.b)").replace("spec:\n", "spec:\n  params: [{name: a.b}]\n"),
        ),
        (
            "an array in a script",
            step("script: echo $(params.a[*])").replace("spec:\n", "spec:\n  params: [{name: a, type: array}]\n"),
        ),
        (
            "an array among letters",
            step("args: [\"x$(params.a[*])\"]").replace("spec:\n", "spec:\n  params: [{name: a, type: array}]\n"),
        ),
        (
            "a key that is not there",
            step("script: echo $(params.o.vv)")
                .replace("spec:\n", "spec:\n  params: [{name: o, properties: {v: {}}}]\n"),
        ),
        ("params of one name", task("  params: [{name: a}, {name: A}]\n  steps: [{image: a}]")),
        ("a default of another type", task("  params: [{name: a, type: array, default: [1]}]\n  steps: [{image: a}]")),
        ("an object without properties", task("  params: [{name: a, type: object}]\n  steps: [{image: a}]")),
        ("a default that is no choice", task("  params: [{name: a, enum: [b, b], default: c}]\n  steps: [{image: a}]")),
        ("a result that is not there", step("script: date > $(results.now.path)")),
        ("a value that is no result of a step", task("  results: [{name: a, value: b}]\n  steps: [{image: a}]")),
        (
            "workspaces of one place",
            task("  workspaces: [{name: a, mountPath: /x}, {name: b, mountPath: /x/}]\n  steps: [{image: a}]"),
        ),
        (
            "a workspace that is not there",
            step("workspaces: [{name: sorce}]").replace("spec:\n", "spec:\n  workspaces: [{name: source}]\n"),
        ),
        ("a mount in Tekton's own place", step("volumeMounts: [{name: v, mountPath: /tekton/results}]")),
        ("a volume with two sources", task("  volumes: [{name: a, emptyDir: {}, secret: {}}]\n  steps: [{image: a}]")),
        ("nothing to run", pipeline("- {name: a}")),
        ("two things to run", pipeline("- {name: a, taskRef: {name: t}, taskSpec: {steps: [{image: a}]}}")),
        ("a custom task", pipeline("- {name: a, taskRef: {apiVersion: example.dev/v1, kind: Wait, name: w}}")),
        ("tasks of one name", pipeline("- {name: a, taskRef: {name: t}}\n  - {name: a, taskRef: {name: t}}")),
        (
            "after a task that is not there",
            pipeline("- {name: build, taskRef: {name: t}}\n  - {name: test, taskRef: {name: t}, runAfter: [biuld]}"),
        ),
        (
            "a circle",
            pipeline(
                "- {name: a, taskRef: {name: t}, runAfter: [b]}\n  - {name: b, taskRef: {name: t}, params: [{name: p, value: $(tasks.a.results.r)}]}",
            ),
        ),
        ("waits for itself", pipeline("- {name: a, taskRef: {name: t}, runAfter: [a]}")),
        ("a workspace that the pipeline lacks", pipeline("- {name: a, taskRef: {name: t}, workspaces: [{name: w}]}")),
        (
            "a status among tasks",
            pipeline(
                "- {name: a, taskRef: {name: t}}\n  - {name: b, taskRef: {name: t}, params: [{name: p, value: $(tasks.a.status)}]}",
            ),
        ),
        (
            "runAfter in finally",
            pipeline("- {name: a, taskRef: {name: t}}\n  finally:\n  - {name: b, taskRef: {name: t}, runAfter: [a]}"),
        ),
        ("finally alone", document("Pipeline", "  finally: [{name: a, taskRef: {name: t}}]")),
        ("onError and retries", pipeline("- {name: a, taskRef: {name: t}, onError: continue, retries: 1}")),
        ("an operator", pipeline("- {name: a, taskRef: {name: t}, when: [{input: a, operator: equals, values: [a]}]}")),
        ("cel of a step", step("when: [{cel: \"'$(steps.a.results.r)' == 'x'\"}]")),
        ("cel beside input", pipeline("- {name: a, taskRef: {name: t}, when: [{cel: \"true\", input: a}]}")),
        ("a matrix of a text", pipeline("- {name: a, taskRef: {name: t}, matrix: {params: [{name: p, value: x}]}}")),
        (
            "a matrix with a word of YAML",
            pipeline("- {name: a, taskRef: {name: t}, matrix: {params: [{name: p, value: [x, y]}]}}"),
        ),
        (
            "a matrixed result",
            pipeline(
                "- {name: a, taskRef: {name: t}, matrix: {params: [{name: p, value: [x]}]}}\n  - {name: b, taskRef: {name: t}, params: [{name: q, value: $(tasks.a.results.r)}]}",
            ),
        ),
        ("a shell's variable", pipeline("- {name: a, taskRef: {name: t}, params: [{name: p, value: $(HOME)}]}")),
        (
            "a context",
            pipeline("- {name: a, taskRef: {name: t}, params: [{name: p, value: $(context.pipelineRun.nme)}]}"),
        ),
        (
            "a result of no task",
            pipeline(
                "- {name: a, taskRef: {name: t}}\n  results: [{name: r, value: $(tasks.b.results.r)}, {name: q, value: x}]",
            ),
        ),
        ("neither ref nor spec", document("PipelineRun", "  params: []")),
        ("both", document("TaskRun", "  taskRef: {name: t}\n  taskSpec: {steps: [{image: a}]}")),
        ("timeouts that do not fit", run("timeouts: {pipeline: 1m, tasks: 50s, finally: 20s}")),
        ("a longer part", run("timeouts: {tasks: 2h}")),
        ("a status of a run", run("status: Canceled")),
        ("a workspace without a source", run("workspaces: [{name: w}]")),
        ("a workspace with two", run("workspaces: [{name: w, emptyDir: {}, secret: {secretName: s}}]")),
        ("a workspace that is left", run("workspaces: [{name: w, emptyDir: {}, subPath: ../x}]")),
        ("params of one name in a run", run("params: [{name: a, value: b}, {name: a, value: c}]")),
        ("a result as a param of a run", run("params: [{name: a, value: $(tasks.t.results.r)}]")),
        ("a secret that is not encoded", object("Secret", "data: {token: hunter}")),
        ("a key", object("ConfigMap", "data: {\"a/b\": c}")),
        ("a limit", head("apiVersion: v1\nkind: LimitRange\nmetadata: {name: x}\nspec: {limits: [{type: Box}]}\n")),
        ("not YAML", head("apiVersion: tekton.dev/v1\nkind: \"Task\nmetadata: {}\n")),
        ("a key that is there twice", head("apiVersion: tekton.dev/v1\nkind: Task\nkind: Task\n")),
        ("aliases of aliases", bomb()),
    ]
}

fn bomb() -> String {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..8 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        let _ = writeln!(text, "a{level}: &a{level} [{before}]");
    }
    text
}

#[test]
fn each_is_refused_with_its_place_and_what_to_do() {
    let mut all = String::new();
    for (name, text) in cases() {
        let found = read(&[Source { file: "f.yaml", text: &text }], &ReadOptions::default()).err().unwrap_or_default();
        assert!(found.iter().any(|d| d.severity == Severity::Error), "{name} is not refused:\n{text}");
        let _ = writeln!(all, "# {name}");
        for problem in &found {
            assert!(problem.line > 0, "{name}: {problem:?}");
            let _ = writeln!(all, "{}:{} {}", problem.line, problem.column, problem.message);
            if let Some(hint) = &problem.hint {
                let _ = writeln!(all, "    {hint}");
            }
        }
    }
    insta::assert_snapshot!(all);
}

#[test]
fn what_a_secret_holds_is_in_no_error() {
    let text = object("Secret", "data: {token: hunter!}\nstringData: {\"a b\": hunter}");
    let found = read(&[Source { file: "f.yaml", text: &text }], &ReadOptions::default()).unwrap_err();
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|d| !d.render(false).contains("hunter")), "{found:?}");
    let text = object("Secret", "stringData: {pin: 4711}");
    let found = read(&[Source { file: "f.yaml", text: &text }], &ReadOptions::default()).unwrap_err();
    assert_eq!((found.len(), found[0].message.as_str()), (1, "expected a text"));
    assert!(!found[0].render(false).contains("4711"), "{found:?}");
}
