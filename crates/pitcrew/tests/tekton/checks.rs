//! `validate` and `graph` of Tekton's documents: nothing is run, and nothing is made.

use crate::harness::{Place, example};

#[test]
fn documents_of_several_files_are_checked_as_one_set() {
    let place = Place::new();
    let (build, tasks) = (example("build.yaml"), example("tasks.yaml"));
    let ran = place.run(&format!("validate {build} {tasks}")).ends(0);
    let said: Vec<String> =
        ran.stdout.lines().map(|line| line.replace(&build, "build").replace(&tasks, "tasks")).collect();
    assert_eq!(
        said,
        [
            "✓ build: Pipeline `build` is valid, 2 tasks",
            "✓ build: PipelineRun `build-` is valid, 2 tasks",
            "✓ tasks: Task `compile` is valid, 1 step",
            "✓ tasks: Task `publish` is valid, 2 steps",
            "✓ tasks: ConfigMap `build-settings` is valid",
            "✓ tasks: Secret `registry` is valid",
        ]
    );
    let alone = place.run(&format!("validate {build}")).ends(0);
    // The place is that of the run.
    let expected = format!("{build}:34:1: warning: this run would fail at once: CouldntGetTask");
    assert!(alone.stderr.starts_with(&expected), "{alone:#?}");
    let native = place.file("native.yaml", "workflow: w\ntasks:\n  a: {run: echo}\n");
    let both = place.run(&format!("validate {} {build} {tasks} --output json", native.display())).ends(0);
    let files: serde_json::Value = serde_json::from_str(&both.stdout).unwrap();
    assert_eq!(files[0]["workflows"], serde_json::json!([{ "id": "w", "tasks": 1 }]));
    assert_eq!(files[1]["workflows"][0], serde_json::json!({ "id": "build", "tasks": 2 }));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let place = Place::new();
    let text = "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: a}\nspec:\n  steps: [{name: s, image: busybox, resources: {}}]\n";
    let file = place.file("task.yaml", text);
    let ran = place.run(&format!("validate {}", file.display())).ends(2);
    assert!(ran.stderr.contains(&format!("{}:5:", file.display())), "{ran:#?}");
    assert!(ran.stderr.contains("`computeResources`") && ran.stderr.ends_with("1 error in 1 file\n"), "{ran:#?}");
}

#[test]
fn a_pipeline_is_drawn_from_all_its_files() {
    let place = Place::new();
    let (build, tasks) = (example("build.yaml"), example("tasks.yaml"));
    let drawn = place.run(&format!("graph {build} {tasks} --format mermaid")).ends(0).stdout;
    assert!(drawn.contains("compile") && drawn.contains("publish") && drawn.contains("-->"), "{drawn}");
    let ran = place.run(&format!("graph {tasks}")).ends(2);
    assert!(ran.stderr.contains("which one is to be drawn: `compile`, `publish`?"), "{ran:#?}");
    place.run(&format!("graph {tasks} --workflow publish")).ends(0);
    let ran = place.run(&format!("graph {tasks} --workflow nobody")).ends(2);
    assert!(ran.stderr.contains("there is no `nobody` in these files; they hold `compile`, `publish`"), "{ran:#?}");
}
