//! Tasks that are found by a resolver.

use std::path::Path;
use std::process::Command;

use crate::harness::{Place, has_sandbox};

const TASK: &str = "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: greet}\nspec:\n  params: [{name: who}]\n  steps: [{name: say, \
                    image: busybox, script: echo hello $(params.who) of WHERE}]\n";

fn git(dir: &Path, line: &[&str]) {
    let who = ["-c", "user.name=a", "-c", "user.email=a@test"];
    let ran = Command::new("git").args(who).args(line).current_dir(dir).output().unwrap();
    assert!(ran.status.success(), "{line:?}: {ran:?}");
}

/// A PipelineRun of one task, with this reference.
fn run(name: &str, reference: &str) -> String {
    format!(
        "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {{name: {name}}}\nspec:\n  params: [{{name: file, value: tasks/greet.yaml}}]\n  \
         pipelineSpec:\n    params: [{{name: file}}]\n    tasks:\n    - name: a\n      params: [{{name: who, value: Ada}}]\n      \
         taskRef: {reference}\n"
    )
}

#[test]
fn a_task_is_found_in_a_repository_and_among_what_was_applied_and_one_that_is_not_there_ends_its_run() {
    if !has_sandbox() {
        return;
    }
    let place = Place::new();
    let repository = place.path("repository");
    std::fs::create_dir_all(repository.join("tasks")).unwrap();
    git(&repository, &["init", "-q", "-b", "main"]);
    std::fs::write(repository.join("tasks/greet.yaml"), TASK.replace("WHERE", "git")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", repository.join("tasks/out.yaml")).unwrap();
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "-q", "-m", "one"]);

    let in_git = |path: &str| {
        let url = repository.display();
        format!("{{resolver: git, params: [{{name: url, value: \"{url}\"}}, {{name: pathInRepo, value: {path}}}]}}")
    };
    let file = place.file("git.yaml", &run("by-git", &in_git("$(params.file)")));
    let ran = place.run(&format!("run -f {}", file.display())).ends(0);
    assert!(ran.stdout.contains("[a : say] hello Ada of git"), "{ran:#?}");

    let near = place.file("near.yaml", &TASK.replace("WHERE", "files"));
    let cluster = "{resolver: cluster, params: [{name: kind, value: task}, {name: name, value: greet}]}";
    let file = place.file("cluster.yaml", &run("by-cluster", cluster));
    let ran = place.run(&format!("run -f {} -f {}", file.display(), near.display())).ends(0);
    assert!(ran.stdout.contains("[a : say] hello Ada of files"), "{ran:#?}");

    for (path, why) in [
        ("tasks/nobody.yaml", "cannot be read"),
        ("../x.yaml", "leaves the repository"),
        ("tasks/out.yaml", "leads out of the repository"),
    ] {
        let file = place.file("lost.yaml", &run("lost", &in_git(path)).replace("name: lost", "generateName: lost-"));
        let ran = place.run(&format!("run -f {} -o json", file.display())).ends(1);
        let condition = &ran.json()["status"]["conditions"][0];
        assert_eq!(condition["reason"], "CouldntGetTask", "{condition}");
        assert!(condition["message"].as_str().unwrap().contains(why), "{condition}");
        let said = place.run(&format!("validate {}", file.display())).ends(0);
        assert!(said.stderr.contains("this run would fail at once: CouldntGetTask"), "{said:#?}");
    }
}
