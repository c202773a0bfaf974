//! The sample repositories of the demo, made from files in this binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Path and content.
type File = (&'static str, &'static str);

macro_rules! files {
    ($repository:literal: $($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../../demo/", $repository, "/", $path)))),+]
    };
}

const NOTEBOOK_REPO: &[File] =
    files!("notebook-repo": "README.md", "analysis.ipynb", "requirements.txt", "www/version.yaml");
const TEST_REPO: &[File] = files!("test-repo": "plate.py", "test_plate.py");

/// The repositories, as git knows them.
pub struct Samples {
    pub notebook: PathBuf,
    pub tests: PathBuf,
}

/// Makes the repositories anew, so that the demo always begins the same.
pub fn make(dir: &Path) -> anyhow::Result<Samples> {
    let samples = Samples { notebook: dir.join("notebook-repo"), tests: dir.join("test-repo") };
    repository(&samples.notebook, NOTEBOOK_REPO)?;
    repository(&samples.tests, TEST_REPO)?;
    Ok(samples)
}

fn repository(dir: &Path, files: &[File]) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove the old `{}`", dir.display()));
        }
        _ => {}
    }
    for (path, content) in files {
        let path = dir.join(path);
        let parent = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, content))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    git(dir, &["init", "--quiet", "--initial-branch=main"])?;
    git(dir, &["add", "--all"])?;
    git(dir, &["commit", "--quiet", "--message=Sample"])
}

/// Runs git without the user's configuration, so that no hook, signature or template of theirs gets in the way.
fn git(dir: &Path, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("git")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .envs([
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_AUTHOR_NAME", "Pitcrew demo"),
            ("GIT_AUTHOR_EMAIL", "demo@pitcrew.invalid"),
            ("GIT_COMMITTER_NAME", "Pitcrew demo"),
            ("GIT_COMMITTER_EMAIL", "demo@pitcrew.invalid"),
            ("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z"),
            ("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z"),
        ])
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("the demo needs git, which is not installed\nhint: install it, for example `apt install git`")
        }
        Err(error) => return Err(error).context("cannot run git"),
    };
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("`git {}` failed in `{}`: {}", args.join(" "), dir.display(), words.trim());
    }
    Ok(())
}
