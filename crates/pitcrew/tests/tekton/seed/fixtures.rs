//! What the pipelines need and their repository does not have: an image with Python, repositories of git, files on the claim, a Secret.
//!
//! `Lacks` leaves one of them out, as somebody does who takes the repository as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::Place;
use crate::python;

/// Where the claim of the pipelines lies in a data directory.
pub const CLAIM: &str = "data/claims/tekton-pipelines/source-code-workspace";

/// Packages of which only the name is there: nothing of the pipelines uses them without a GPU.
const NAMES: [&str; 11] = [
    "h5py",
    "jupyter",
    "matplotlib",
    "numpy",
    "pandas",
    "poetry",
    "rapids-singlecell",
    "scanpy",
    "scipy",
    "seaborn",
    "wget",
];

/// A program that says what it was asked for, and succeeds.
const APT: &str = "#!/bin/sh\necho \"apt-get $*\"\n";
/// Gives an installer of Poetry: a program that runs others.
const CURL: &str = "#!/bin/sh\ncat /opt/programs/poetry.py\n";
const POETRY: &str = r##"import os, pathlib
path = pathlib.Path.home() / ".local/bin/poetry"
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text('#!/bin/sh\nif [ "$1" = run ]; then shift; exec "$@"; fi\necho "poetry $*"\n')
path.chmod(0o755)
"##;
const RMM: &str = "def reinitialize(**settings):\n    print('without a GPU', settings)\n";
const TEST: &str = r#"import pathlib

import pytest

PAGE = next(pathlib.Path("input").glob("*.html"))


@pytest.mark.single_cell
def test_the_page_shows_what_the_notebook_found():
    assert "cells found: 42" in PAGE.read_text()


def test_of_another_kind():
    assert False, "its marker was not asked for"
"#;

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacks {
    Nothing,
    /// The directory that the last task writes to.
    Web,
    /// The notebook of an earlier run, which is converted.
    Artifact,
    /// The group that a user is made in.
    Group,
    /// The Secret with the token.
    Secret,
}

/// Puts everything into a place; gives the file with the Secret, if there is one.
pub fn lay_out(place: &Place, lacks: Lacks) -> Option<PathBuf> {
    let conda = conda(&place.path("conda"));
    let programs = place.path("programs");
    fs::create_dir(&programs).unwrap();
    for (name, text) in [("apt-get", APT), ("curl", CURL), ("poetry.py", POETRY)] {
        write(&programs.join(name), text, 0o755);
    }
    let git = place.path("git");
    let cells = ["import rmm\nrmm.reinitialize()", "found = 42\nprint('cells found:', found)"];
    let source = [("notebooks/01_scRNA_analysis_preprocessing.ipynb", notebook(&cells, false).to_string())];
    repository(&git, "NVIDIA-AI-Blueprints/single-cell-analysis-blueprint", &source);
    repository(&git, "johnnynv/Real-world_Tekton_Installation_Guide", &source);
    let tests = [
        ("test_page.py", TEST.to_owned()),
        ("pytest.ini", "[pytest]\nmarkers = single_cell: of the analysis\n".to_owned()),
    ];
    repository(&git, "NVIDIA-AI-Blueprints/blueprint-github-test", &tests);

    let claim = place.path(CLAIM);
    fs::create_dir_all(claim.join("artifacts")).unwrap();
    write(&claim.join("7b91e7f8-d997-4ed3-a0cc-b88272ea7d15.h5ad"), "not the real one", 0o644);
    if lacks != Lacks::Web {
        fs::create_dir(claim.join("web")).unwrap();
    }
    if lacks != Lacks::Artifact {
        write(&claim.join("artifacts/output_analysis.ipynb"), &notebook(&cells, true).to_string(), 0o644);
    }
    let users = if lacks == Lacks::Group { "{}" } else { "{rapids: 1001}" };
    let pip = "PIP_NO_INDEX: '1', PIP_DISABLE_PIP_VERSION_CHECK: '1', PIP_ROOT_USER_ACTION: ignore";
    let (conda, programs, git) = (conda.display(), programs.display(), git.display());
    let binds = format!("/opt/conda: {conda}, /opt/programs: {programs}");
    // Its user has programs of its own, too.
    let own = format!("{binds}, /home/rapids/.local/bin: {conda}/bin");
    let config = format!(
        "sandbox:\n  images:\n    - {{match: nvcr.io/nvidia/rapidsai/notebooks, bind: {{{own}}}, path: [/opt/conda/bin], user: 1001, \
         users: {users}, env: {{{pip}, JUPYTER_RUNTIME_DIR: /tmp/jupyter}}}}\n    - {{match: jupyter/minimal-notebook, bind: {{{binds}}}, \
         path: [/opt/conda/bin], env: {{{pip}}}}}\n    - {{match: python, shell: dash, bind: {{{binds}}}, path: [/opt/programs, \
         /opt/conda/bin], env: {{{pip}}}}}\n    - {{match: alpine/git, shell: busybox, entrypoint: [git], workdir: /git, bind: \
         {{/opt/git: {git}}}, env: {{GIT_CONFIG_COUNT: '1', GIT_CONFIG_KEY_0: url.file:///opt/git/.insteadOf, GIT_CONFIG_VALUE_0: \
         'https://github.com/'}}}}\n"
    );
    place.file("pitcrew.yaml", &config);
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: github-token-secret, namespace: tekton-pipelines}\nstringData: {token: ''}\n";
    (lacks != Lacks::Secret).then(|| place.file("secret.yaml", secret))
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A notebook of code cells, run or not.
pub fn notebook(cells: &[&str], is_run: bool) -> Value {
    let cells: Vec<Value> = cells
        .iter()
        .enumerate()
        .map(|(number, source)| {
            let outputs = match is_run {
                true => json!([{"output_type": "stream", "name": "stdout", "text": "cells found: 42\n"}]),
                false => json!([]),
            };
            let count = if is_run { json!(number + 1) } else { Value::Null };
            json!({"cell_type": "code", "id": format!("c{number}"), "metadata": {}, "execution_count": count, "source": source,
                "outputs": outputs})
        })
        .collect();
    let kernel = json!({"name": "python3", "display_name": "Python 3", "language": "python"});
    json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells})
}

/// A bare repository with one commit on `main`.
fn repository(git: &Path, name: &str, files: &[(&str, String)]) {
    let dir = git.join(format!("{name}.git"));
    for (path, text) in files {
        write(&dir.join(path), text, 0o644);
    }
    let run = |args: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(&dir).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        let done = command.args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).args(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {done:?}");
    };
    run(&["init", "-q", "-b", "main"]);
    run(&["add", "."]);
    run(&["commit", "-q", "-m", "All"]);
}

/// The programs of the image at `/opt/conda`.
fn conda(dir: &Path) -> PathBuf {
    let packages = python::copied(dir, "/opt/conda");
    write(&packages.join("rmm.py"), RMM, 0o644);
    for name in NAMES {
        let info = packages.join(format!("{}-99.0.dist-info", name.replace('-', "_")));
        write(&info.join("METADATA"), &format!("Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n"), 0o644);
        write(&info.join("INSTALLER"), "pip\n", 0o644);
    }
    dir.to_owned()
}
