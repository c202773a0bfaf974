//! What is refused before anything is made.

use crate::harness::{Place, example};

const PIPELINE: &str = "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: a}\nspec:\n  steps: [{name: s, image: busybox, script: echo}]\n";

#[test]
fn wrong_input_ends_with_status_two_and_makes_nothing() {
    let place = Place::new();
    let hello = example("hello.yaml");
    let task = place.file("task.yaml", PIPELINE);
    let stray = place.file("stray.yaml", &PIPELINE.replace("steps:", "stepz:"));
    let native = place.file("native.yaml", "workflow: w\ntasks:\n  a: {run: echo}\n");
    let run = |name: &str, spec: &str| {
        let text = format!("apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {{name: r}}\nspec:\n  {spec}\n");
        place.file(name, &text).display().to_string()
    };
    let hub = run("hub.yaml", "taskRef: {resolver: hub, params: [{name: name, value: x}]}");
    let pending = run("pending.yaml", "taskRef: {name: a}\n  status: TaskRunPending");
    for (line, expected) in [
        (format!("run -f {hello} -p nmae=x"), "did you mean `name`?".to_owned()),
        (format!("run -f {hello} -p name"), "`-p name` is no param".to_owned()),
        (format!("run -f {hello} -w name=w"), "what it is bound to is missing".to_owned()),
        (format!("run -f {hello} --workflow w"), "`--workflow` is for workflows".to_owned()),
        (format!("run -f {}", task.display()), "there is no PipelineRun and no TaskRun".to_owned()),
        (format!("run -f {}", stray.display()), format!("{}:5:", stray.display())),
        (format!("run -f {hub}"), format!("{hub}:5:23: error: the resolver `hub` cannot be used here")),
        (format!("run -f {pending}"), format!("{pending}:6:11: error: a run cannot wait as `TaskRunPending` here")),
        ("tr cancel x --grace StoppedRunFinally".to_owned(), "`--grace` is for PipelineRuns".to_owned()),
        (format!("run -f {} -o yaml", native.display()), "are for Tekton's documents".to_owned()),
        (format!("run -f {} -f {}", native.display(), native.display()), "a workflow is run from one file".to_owned()),
        ("pr describe nobody".to_owned(), "there is no PipelineRun `nobody` in the namespace `default`".to_owned()),
        ("p start nobody".to_owned(), "there is no Pipeline `nobody`".to_owned()),
    ] {
        let ran = place.run(&line).ends(2);
        assert!(ran.stderr.contains(&expected), "{line}: {ran:#?}");
    }
    assert_eq!(place.run("tr list").ends(0).stderr, "No TaskRuns found\n");
}

#[test]
fn what_is_applied_is_listed_described_and_deleted() {
    let place = Place::new();
    let file = example("tasks.yaml");
    let ran = place.run(&format!("apply -f {file}")).ends(0);
    let said: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        said,
        ["task/compile created", "task/publish created", "configmap/build-settings created", "secret/registry created"]
    );
    assert!(place.run(&format!("apply -f {file}")).ends(0).stdout.lines().all(|line| line.ends_with(" unchanged")));
    let list = place.run("task ls --no-headers").ends(0);
    let names: Vec<&str> = list.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["compile", "publish"]);
    let described = place.run("t desc publish").ends(0).stdout;
    assert!(described.contains("version") && described.contains("sign-in"), "{described}");
    // A label chooses, whether or not `--all` is there; flags of runs mean nothing here.
    let labelled = "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: old, labels: {env: dev}}\nspec:\n  steps: [{image: a}]\n";
    place.run(&format!("apply -f {}", place.file("old.yaml", labelled).display())).ends(0);
    let ran = place.run("t rm --all --label env=dev").ends(0);
    assert_eq!(ran.stdout, "Task deleted: old\n");
    assert_eq!(place.run("t rm --label env=dev").ends(0).stdout, "");
    for line in ["t rm --all --keep 1", "t rm --all -p x", "t rm compile -o yaml", "t ls compile", "t desc --last"] {
        place.run(line).ends(2);
    }
    assert_eq!(place.run("t ls -o name").ends(0).stdout.lines().count(), 2);
    place.run("t rm compile").ends(0);
    assert_eq!(place.run("t ls -o name").ends(0).stdout, "task.tekton.dev/publish\n");
}
