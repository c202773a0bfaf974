//! What is read, and what is said of what is wrong.

use proptest::prelude::*;

use super::super::model::{RunSpec, TaskUse};
use super::*;
use crate::diagnostic::render_all;

fn one(text: &str) -> Docs {
    let source = Source { file: "a.yaml", text };
    read(&[source], &ReadOptions::default()).unwrap_or_else(|found| panic!("{}", render_all(&found, false)))
}

#[test]
fn a_task_run_is_read_with_its_places() {
    let docs = one(
        "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata:\n  generateName: hello-\nspec:\n  taskSpec:\n    steps:\n    - name: say\n      image: alpine\n      script: |\n        echo hello\n",
    );
    let [run] = docs.runs.as_slice() else { panic!("{docs:?}") };
    assert_eq!((run.meta.generate_name.as_str(), run.meta.namespace.as_str()), ("hello-", "default"));
    let RunSpec::Task(spec) = &run.spec else { panic!("{run:?}") };
    assert_eq!(spec.task_spec.as_ref().unwrap().steps[0].script, "echo hello\n");
    let line = |path: &str| run.origin.place(path).map(|at| (at.line, at.column));
    assert_eq!(line("spec.taskSpec.steps[0].image"), Some((9, 14)));
    assert_eq!(line("spec.taskSpec.steps[0].args[3]"), Some((8, 7)));
    let problem = run.origin.problem(Severity::Error, "spec.taskSpec.steps[0].image", "no such image", Some("mend it"));
    assert_eq!((problem.file.as_str(), problem.line, problem.hint.as_deref()), ("a.yaml", 9, Some("mend it")));
}

#[test]
fn what_was_read_is_read_again_from_its_json() {
    let docs = one(include_str!("good.yaml"));
    for run in &docs.runs {
        let again = Doc::<RunSpec>::from_json(run.to_json()).unwrap();
        assert_eq!(&again, run);
        let written = crate::yaml::write::to_yaml(&run.to_json());
        assert_eq!(&one(&written).runs[0], run, "{written}");
    }
    assert_eq!(docs.runs.len(), 2);
    assert_eq!(docs.tasks.len() + docs.pipelines.len() + docs.step_actions.len(), 3);
    assert_eq!(docs.config_maps.get("default", "settings").unwrap().spec.data["true"], "511");
    assert_eq!(docs.secrets.get("other", "token").unwrap().spec.entries()["token"], b"hunter");
    let RunSpec::Pipeline(run) = &docs.runs[0].spec else { panic!() };
    let tasks = &run.pipeline_spec.as_ref().unwrap().tasks;
    assert!(matches!(tasks[0].uses(), TaskUse::Inline(_)));
    // `true` and 0777 are what Kubernetes makes of them, as text.
    assert_eq!(run.params[0].value, super::super::model::ParamValue::Text("true".into()));
    assert_eq!(run.params[1].value, super::super::model::ParamValue::Text("511".into()));
}

#[test]
fn the_names_of_v1beta1_become_those_of_v1() {
    let docs = one(
        "apiVersion: tekton.dev/v1beta1\nkind: PipelineRun\nmetadata: {name: old}\nspec:\n  timeout: 1h\n  serviceAccountName: bot\n  podTemplate: {nodeSelector: {a: b}}\n  taskRunSpecs:\n  - pipelineTaskName: t\n    taskPodTemplate: {priorityClassName: high}\n    stepOverrides: [{name: s, resources: {limits: {cpu: 1}}}]\n  pipelineSpec:\n    tasks:\n    - name: t\n      taskSpec:\n        steps: [{name: s, image: a, resources: {requests: {cpu: 500m}}}]\n",
    );
    insta::assert_snapshot!(crate::yaml::write::to_yaml(&docs.runs[0].to_json()));
}

#[test]
fn several_files_make_one_set_and_a_list_is_its_items() {
    let task = "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: t}\nspec: {steps: [{image: a}]}\n";
    let run = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: tekton.dev/v1\n  kind: TaskRun\n  metadata: {name: r}\n  spec: {taskRef: {name: t}}\n  status: {conditions: []}\n";
    let both = [Source { file: "a.yaml", text: task }, Source { file: "b.yaml", text: run }];
    let docs = read(&both, &ReadOptions { namespace: "ns".into() }).unwrap();
    assert!(docs.tasks.get("ns", "t").is_some() && docs.runs.len() == 1);
    let twice = [both[0], both[1], both[0]];
    let found = read(&twice, &ReadOptions::default()).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].message.contains("the Task `t` is there twice"), "{}", found[0].message);
    assert!(is_tekton(task) && !is_tekton("workflow: w\ntasks: {}\n") && !is_tekton("a: [\n"));
    assert!(read(&[], &ReadOptions::default()).unwrap_err()[0].message.contains("no document"));
}

/// Bytes and lines of a good file in disorder.
fn mutated() -> impl Strategy<Value = String> {
    let good = include_str!("good.yaml");
    let count = good.lines().count();
    let piece = prop_oneof![
        Just(String::new()),
        "[ a-z:\\[\\]{}\"'|>&*!%@`#,.$()\n-]{1,6}",
        any::<char>().prop_map(|c| c.to_string()),
        (0..count).prop_map(move |line| good.lines().nth(line).unwrap_or_default().to_owned() + "\n"),
    ];
    prop::collection::vec((0..good.len(), 0_usize..12, piece), 1..6).prop_map(move |edits| {
        let mut text = good.to_owned();
        for (at, length, piece) in edits {
            let near = |mut at: usize| {
                at = at.min(text.len());
                while !text.is_char_boundary(at) {
                    at -= 1;
                }
                at
            };
            let (start, end) = (near(at), near(at + length));
            text.replace_range(start..end, &piece);
        }
        text
    })
}

proptest! {
    #[test]
    fn whatever_is_in_a_file_reading_it_ends_with_documents_or_with_what_is_wrong(text in mutated()) {
        match read(&[Source { file: "f.yaml", text: &text }], &ReadOptions::default()) {
            Ok(docs) => {
                for run in &docs.runs {
                    let again = Doc::<RunSpec>::from_json(run.to_json());
                    prop_assert_eq!(again.as_ref(), Ok(run));
                }
            }
            Err(found) => prop_assert!(found.iter().any(|d| d.severity == Severity::Error)),
        }
    }
}

/// The examples of a checkout of Tekton's own that `PITCREW_TEST_TEKTON` names, but for kinds that only a cluster has.
#[test]
fn the_examples_of_tekton_are_read() {
    let Some(checkout) = std::env::var_os("PITCREW_TEST_TEKTON") else {
        eprintln!("NOT TESTED: `PITCREW_TEST_TEKTON` names no checkout of Tekton's pipelines");
        return;
    };
    let mut folders = vec![std::path::Path::new(&checkout).join("examples/v1")];
    let (mut count, mut refused) = (0, Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "yaml") {
                count += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                let file = path.display().to_string();
                if let Err(found) = read(&[Source { file: &file, text: &text }], &ReadOptions::default()) {
                    let clusters = ["`ClusterRoleBinding`", "`SecretProviderClass`"];
                    if !found.iter().all(|d| clusters.iter().any(|kind| d.message.contains(kind))) {
                        refused.push(render_all(&found, false));
                    }
                }
            }
        }
    }
    assert!(count > 100, "{count} files");
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
