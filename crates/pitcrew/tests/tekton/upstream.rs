//! Tekton's own examples, where a checkout of its repository is named: each in a data directory of its own.
//!
//! `PITCREW_TEST_TEKTON=DIR` names the checkout; `DIR/examples/v1` is read. `PITCREW_TEST_TEKTON_ONLY=TEXT` takes only files
//! whose path has the text, and those must all succeed. Without the checkout it says so, and nothing is tested.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::harness::{Place, Ran, has_sandbox};

/// At the same time.
const WIDTH: usize = 4;

/// So many of them succeed here at least.
const SUCCEED: usize = 120;

/// Not run: without these no sandbox can do them. docs/tekton.md lists them by name.
const NEED_MORE: [(&str, &[&str]); 3] = [
    (
        "a network or a registry",
        &[
            "pipelineruns/beta/git-resolver.yaml",
            "pipelineruns/beta/http-resolver-credentials.yaml",
            "pipelineruns/beta/http-resolver.yaml",
            "pipelineruns/no-ci/git-resolver-custom-apiurl.yaml",
            "pipelineruns/no-ci/git-resolver-custom-secret.yaml",
            "pipelineruns/no-ci/git-resolver.yaml",
            "pipelineruns/no-ci/hub-resolver.yaml",
            "pipelineruns/pipelinerun-with-final-tasks.yaml",
            "pipelineruns/pipelinerun.yaml",
            "taskruns/beta/bundles-resolver.yaml",
            "taskruns/beta/git-resolver.yaml",
            "taskruns/beta/hub-resolver.yaml",
            "taskruns/beta/stepaction-git-resolver.yaml",
            "taskruns/no-ci/docker-creds.yaml",
            "taskruns/no-ci/git-basic-auth-multiple-repos.yaml",
            "taskruns/no-ci/git-ssh-auth-multiple-repos.yaml",
            "taskruns/no-ci/git-volume.yaml",
            "taskruns/no-ci/pull-private-image.yaml",
        ],
    ),
    (
        "images with programs of their own",
        &[
            "taskruns/alpha/step-stream-results.yaml",
            "taskruns/alpha/step-stream-workspace.yaml",
            "taskruns/authenticating-git-commands.yaml",
            "taskruns/beta/authenticating-git-commands.yaml",
        ],
    ),
    (
        "a cluster, or a container engine in a container",
        &[
            "pipelineruns/no-ci/cluster-resolver.yaml",
            "taskruns/dind-sidecar.yaml",
            "taskruns/no-ci/cluster-resolver.yaml",
        ],
    ),
];

/// What the configuration of the cluster must say for an example.
const CONFIGURED: [(&str, &str); 1] = [(
    "taskruns/no-ci/default-workspaces.yaml",
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-defaults}\ndata:\n  default-task-run-workspace-binding: |\n    \
     emptyDir: {}\n",
)];

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
}

/// The last thing that it said of how it ended.
fn reason(ran: &Ran) -> String {
    let lines: Vec<&str> = ran.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    let told = lines.iter().rfind(|line| line.contains("Run ") || line.starts_with("error"));
    told.or(lines.last()).map_or(String::new(), |line| line.chars().take(200).collect())
}

#[test]
fn the_examples_of_tekton_succeed() {
    let Some(checkout) = std::env::var_os("PITCREW_TEST_TEKTON") else {
        eprintln!("NOT TESTED: PITCREW_TEST_TEKTON names no checkout of Tekton's repository");
        return;
    };
    if !has_sandbox() {
        return;
    }
    let root = Path::new(&checkout).join("examples/v1");
    let only = std::env::var("PITCREW_TEST_TEKTON_ONLY").unwrap_or_default();
    let mut all = Vec::new();
    files(&root, &mut all);
    let name = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string();
    let needs = |name: &str| NEED_MORE.iter().find(|(_, names)| names.contains(&name)).map(|(what, _)| *what);
    for path in all.iter().filter(|path| name(path).contains(&only)) {
        if let Some(what) = needs(&name(path)) {
            eprintln!("NOT TESTED: `{}` needs {what}", name(path));
        }
    }
    all.retain(|path| name(path).contains(&only) && needs(&name(path)).is_none());
    assert!(!all.is_empty(), "there are no examples below `{}`", root.display());
    let queue = Mutex::new(all.clone());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WIDTH {
            scope.spawn(|| {
                while let Some(path) = { queue.lock().unwrap().pop() } {
                    let place = Place::new();
                    let mut line = format!("run -f {}", path.display());
                    if let Some((_, text)) = CONFIGURED.iter().find(|(of, _)| *of == name(&path)) {
                        line.push_str(&format!(" -f {}", place.file("config.yaml", text).display()));
                    }
                    let ran = place.run(&line);
                    if ran.status != Some(0) {
                        failed.lock().unwrap().push(format!("{}: {}", name(&path), reason(&ran)));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    let succeeded = all.len() - failed.len();
    eprintln!("{succeeded} of {} succeeded; the others:\n{}", all.len(), failed.join("\n"));
    let wanted = if only.is_empty() { SUCCEED } else { all.len() };
    assert!(succeeded >= wanted, "{succeeded} succeeded, and {wanted} should");
}
