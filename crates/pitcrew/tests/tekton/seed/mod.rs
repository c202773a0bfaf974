//! GPU notebook pipelines as somebody wrote them for Tekton, where a checkout of their repository is named: unmodified, by fixtures of ours.
//!
//! `PITCREW_TEST_PIPELINES=DIR` names a clone, with its history, of the public repository `johnnynv/Real-world_Tekton_Installation_Guide`. What its newest
//! commit misses is taken from an older one, or made by `fixtures`. Without them a run fails at the same task and for the same reason as with Tekton.
//! Without the clone this says so, and nothing is tested.

mod fixtures;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use self::fixtures::{CLAIM, Lacks};
use crate::harness::{Place, Ran, has_sandbox};

const PIPELINE: &str = "pipelines/gpu-scrna-analysis-preprocessing-workflow.yaml";
/// The Tasks that it uses, as far as they are there.
const TASKS: [&str; 4] = [
    "safe-git-clone-task",
    "large-dataset-download-task",
    "jupyter-nbconvert-complete",
    "results-validation-cleanup-task",
];
/// Where the one is that is not there any more.
const PYTEST: &str = "7a3fb8e:examples/basic/tasks/pytest-execution-task.yaml";

struct Seed {
    examples: PathBuf,
    clone: PathBuf,
}

impl Seed {
    fn find() -> Option<Seed> {
        let Some(clone) = std::env::var_os("PITCREW_TEST_PIPELINES").map(PathBuf::from) else {
            eprintln!("NOT TESTED: PITCREW_TEST_PIPELINES names no clone of the pipelines");
            return None;
        };
        has_sandbox().then(|| Seed { examples: clone.join("examples/tekton"), clone })
    }

    fn file(&self, name: &str) -> String {
        self.examples.join(name).display().to_string()
    }

    /// A file of an older commit.
    fn old(&self, place: &Place, name: &str, object: &str) -> PathBuf {
        let shown = Command::new("git").arg("-C").arg(&self.clone).args(["show", object]).output().unwrap();
        assert!(shown.status.success(), "{shown:?}");
        place.file(name, &String::from_utf8(shown.stdout).unwrap())
    }

    /// The arguments of a run of the pipeline with all of its Tasks.
    fn line(&self, place: &Place, secret: Option<&Path>) -> String {
        let mut line = format!("run -f {}", self.file(PIPELINE));
        let old = self.old(place, "pytest-execution.yaml", PYTEST).display().to_string();
        let tasks = TASKS.map(|name| self.file(&format!("tasks/{name}.yaml")));
        let secret = secret.map(|path| path.display().to_string());
        for file in tasks.into_iter().chain([old]).chain(secret) {
            line.push_str(&format!(" -f {file}"));
        }
        line
    }

    fn run(&self, lacks: Lacks) -> (Place, Ran) {
        let place = Place::new();
        let secret = fixtures::lay_out(&place, lacks);
        let line = self.line(&place, secret.as_deref());
        let ran = place.run(&format!("{line} -o json --taskruns"));
        (place, ran)
    }
}

/// Of each task whose TaskRun did not succeed: its name, the reason, and the exit codes of its steps.
fn failed(ran: &Ran) -> Vec<(String, String, Vec<i64>)> {
    let all = ran.json();
    let failed = all["items"].as_array().unwrap().iter().filter(|run| run["kind"] == "TaskRun");
    let failed = failed.filter(|run| run["status"]["conditions"][0]["status"] != "True");
    failed
        .map(|run| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let steps = run["status"]["steps"].as_array().cloned().unwrap_or_default();
            let codes = steps.iter().filter_map(|step| step["terminated"]["exitCode"].as_i64()).collect();
            let task = text(&run["metadata"]["labels"]["tekton.dev/pipelineTask"]);
            (task, text(&run["status"]["conditions"][0]["reason"]), codes)
        })
        .collect()
}

#[test]
fn the_pipeline_runs_unmodified_with_what_is_missing_upstream() {
    let Some(seed) = Seed::find() else { return };
    let (place, ran) = seed.run(Lacks::Nothing);
    let ran = ran.ends(0);
    assert_eq!(failed(&ran), []);
    let claim = place.path(CLAIM);
    let text = |name: &str| std::fs::read_to_string(claim.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    // Its own notebook ran, and its output is that of this run.
    assert!(text("output_analysis.ipynb").contains("cells found: 42"));
    assert!(text("artifacts/output_analysis.html").contains("cells found: 42"));
    assert!(text("artifacts/pytest_results.xml").contains("tests=\"1\""), "one of two tests has the marker");
    let runs: Vec<_> =
        std::fs::read_dir(claim.join("pipeline-runs")).unwrap().map(|e| e.unwrap().file_name()).collect();
    let own = runs.iter().filter_map(|name| name.to_str()?.strip_prefix("run-")).collect::<Vec<_>>();
    let name = ran.json()["items"].as_array().unwrap().last().unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(own, [&name[name.len() - 5..]], "the last five letters of the name of the run");
    assert!(text(&format!("pipeline-runs/run-{}/web/index.html", own[0])).contains(&name));
}

#[test]
fn a_task_that_is_not_there_fails_the_run_before_anything_begins() {
    let Some(seed) = Seed::find() else { return };
    let place = Place::new();
    let secret = fixtures::lay_out(&place, Lacks::Nothing).unwrap();
    let tasks: String = TASKS.iter().map(|name| format!(" -f {}", seed.file(&format!("tasks/{name}.yaml")))).collect();
    let line = format!("run -f {}{tasks} -f {} -o json", seed.file(PIPELINE), secret.display());
    let run = place.run(&line).ends(1).json();
    let condition = &run["status"]["conditions"][0];
    assert_eq!(condition["reason"], "CouldntGetTask", "{condition}");
    assert!(condition["message"].as_str().unwrap().contains("pytest-execution"), "{condition}");
    assert!(run["status"]["childReferences"].is_null(), "{run:#}");
}

#[test]
fn without_a_fixture_it_fails_where_and_why_it_does_with_tekton() {
    let Some(seed) = Seed::find() else { return };
    let expected: [(Lacks, &str, &str, &[i64]); 4] = [
        (Lacks::Secret, "step2-git-clone-blueprint", "CreateContainerConfigError", &[]),
        // `useradd` finds no group of that number.
        (Lacks::Group, "step4-papermill-execution", "Failed", &[6, 1]),
        (Lacks::Artifact, "step5-nbconvert-to-html", "Failed", &[0, 1, 1]),
        (Lacks::Web, "step9-final-summary", "Failed", &[0, 1]),
    ];
    for (lacks, task, reason, codes) in expected {
        let (_, ran) = seed.run(lacks);
        let ran = ran.ends(1);
        assert_eq!(failed(&ran), [(task.to_owned(), reason.to_owned(), codes.to_vec())], "{lacks:?}: {}", ran.stderr);
    }
}

#[test]
fn its_other_tasks_run_by_themselves() {
    let Some(seed) = Seed::find() else { return };
    let place = Place::new();
    fixtures::lay_out(&place, Lacks::Nothing);
    let source = place.path("git/NVIDIA-AI-Blueprints/single-cell-analysis-blueprint.git/notebooks");
    let copied = Command::new("cp").arg("-r").arg(source).arg(place.path(CLAIM)).status().unwrap();
    assert!(copied.success());
    for (task, params, made) in [
        // As a user of its own, without any capability.
        ("gpu-papermill-production-init-rmm-fixed", "", "01_scRNA_analysis_preprocessing_output.ipynb"),
        (
            "jupyter-nbconvert",
            "{name: input-notebook-name, value: output_analysis.ipynb}",
            "staging/executed_notebook.html",
        ),
    ] {
        let run = format!(
            "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {{generateName: run-, namespace: tekton-pipelines}}\nspec:\n  taskRef: {{name: \
             {task}}}\n  params: [{params}]\n  workspaces: [{{name: shared-storage, persistentVolumeClaim: {{claimName: \
             source-code-workspace}}}}]\n"
        );
        let run = place.file("run.yaml", &run);
        let named = if task.starts_with("jupyter") { "jupyter-nbconvert-task" } else { task };
        place.run(&format!("run -f {} -f {}", seed.file(&format!("tasks/{named}.yaml")), run.display())).ends(0);
        let page = std::fs::read_to_string(place.path(CLAIM).join("artifacts").join(made)).unwrap();
        assert!(page.contains("cells found: 42"), "{made}");
    }
}

#[test]
fn a_field_of_an_older_version_is_refused_with_its_place() {
    let Some(seed) = Seed::find() else { return };
    let file = seed.file("tasks/gpu-papermill-execution-production-init-rmm-fixed.yaml");
    let ran = Place::new().run(&format!("run -f {} -f {file}", seed.file(PIPELINE))).ends(2);
    assert!(
        ran.stderr.contains(&format!("{file}:57:5: error: `resources` is no field of `stepTemplate` in v1")),
        "{ran:#?}"
    );
    assert!(ran.stderr.contains("in v1 it is `computeResources`"), "{ran:#?}");
}
