//! Which Python environments the tasks of a run used, from a file per task that its action left.
//!
//! A file is left before the work begins, so a task that failed tells its versions too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Files that are read, and bytes of one.
const FILES_MAX: usize = 2_000;
const FILE_MAX: u64 = 1 << 20;
/// Packages that matter wherever they are installed; with `*`, all whose names begin so.
const KNOWN: [&str; 18] = [
    "numpy",
    "scipy",
    "pandas",
    "torch",
    "tensorflow",
    "jax",
    "jaxlib",
    "cupy*",
    "numba",
    "triton",
    "nvidia-cuda-runtime*",
    "nvidia-cudnn*",
    "nvidia-nccl*",
    "papermill",
    "nbconvert",
    "ipykernel",
    "pytest",
    "pytest-cov",
];

/// What an action leaves about its environment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvironmentInput {
    /// As in the report: with the index of a mapped instance.
    pub task: String,
    pub python: String,
    /// Names of packages that the workflow asked for.
    pub asked: Vec<String>,
    /// `name==version`, as installed.
    pub installed: Vec<String>,
    /// Of the GPUs, where there are any.
    pub driver: Option<String>,
}

/// One environment, with the tasks that used it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    pub tasks: Vec<String>,
    pub python: String,
    /// Those that were asked for, and those that matter anyway.
    pub packages: BTreeMap<String, String>,
    /// Installed in all.
    pub installed: usize,
    pub driver: Option<String>,
}

/// The environments of a run; none when nothing was left. Files that cannot be read are passed over.
pub(super) fn read(dir: &Path) -> Vec<Environment> {
    let mut files: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut found: Vec<(EnvironmentInput, Vec<String>)> = Vec::new();
    for file in files.iter().take(FILES_MAX) {
        let mut text = String::new();
        let whole = File::open(file).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
        let Ok(mut input) =
            whole.map_err(drop).and_then(|_| serde_json::from_str::<EnvironmentInput>(&text).map_err(drop))
        else {
            continue;
        };
        let task = std::mem::take(&mut input.task);
        match found.iter_mut().find(|(known, _)| *known == input) {
            Some((_, tasks)) => tasks.push(task),
            None => found.push((input, vec![task])),
        }
    }
    found.into_iter().map(|(input, tasks)| environment(input, tasks)).collect()
}

fn environment(input: EnvironmentInput, tasks: Vec<String>) -> Environment {
    let matters = |name: &str| {
        input.asked.iter().any(|asked| canonical(asked) == name)
            || KNOWN.iter().any(|known| match known.strip_suffix('*') {
                Some(begin) => name.starts_with(begin),
                None => name == *known,
            })
    };
    let packages = input
        .installed
        .iter()
        .filter_map(|line| line.split_once("=="))
        .map(|(name, version)| (canonical(name), version.to_owned()))
        .filter(|(name, _)| matters(name))
        .collect();
    Environment { tasks, python: input.python, packages, installed: input.installed.len(), driver: input.driver }
}

/// `Num_Py` and `num.py` are `num-py`.
fn canonical(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_with_the_same_environment_are_told_together_and_damage_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let leave = |name: &str, text: String| fs::write(dir.path().join(name), text).unwrap();
        let input = |task: &str, driver: Option<&str>| {
            let installed = ["Heat_Lib==1.2", "numpy==2.1.0", "six==1.16"].map(str::to_owned).to_vec();
            let driver = driver.map(str::to_owned);
            let asked = vec!["heat.lib".to_owned()];
            let left = EnvironmentInput { task: task.into(), python: "3.12.4".into(), asked, installed, driver };
            serde_json::to_string(&left).unwrap()
        };
        leave("a.json", input("a", None));
        leave("b.json", input("b", None));
        leave("c.json", input("c", Some("550.54")));
        leave("d.json", "{\"task\": 3}".into());
        let found = read(dir.path());
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].tasks, ["a", "b"]);
        let packages = found[0].packages.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>();
        assert_eq!(packages, ["heat-lib 1.2", "numpy 2.1.0"]);
        assert_eq!((found[0].installed, found[1].driver.as_deref()), (3, Some("550.54")));
        assert_eq!(read(&dir.path().join("nowhere")), []);
    }
}
