//! Python for containers of a sandbox: an environment that is built once per machine, and copied to where it is told from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pitcrew_exec::python::{Env, EnvRequest, ensure, ensure_in};

/// What runs, converts and tests notebooks.
const WANTED: [&str; 8] = [
    "ipykernel>=6.29,<8",
    "nbclient>=0.10,<1",
    "nbconvert>=7.16,<8",
    "papermill>=2.6,<3",
    "pip",
    "pytest>=8,<10",
    "pytest-cov>=5,<8",
    "pytest-html>=4,<5",
];

/// One that is built here unless it was.
pub fn environment(requirements: &[&str], python: Option<&str>) -> Env {
    let kept = std::env::var_os("PITCREW_TEST_CACHE")
        .map_or_else(|| std::env::temp_dir().join("pitcrew-test-cache"), Into::into);
    let cache = kept.join("python");
    let mut say = |line: &str| eprintln!("{line}");
    let uv = ensure(&EnvRequest { requirements: vec!["uv".to_owned()], ..EnvRequest::default() }, &cache, &mut say);
    let path = format!("{}:{}", uv.unwrap().bin().display(), std::env::var("PATH").unwrap());
    let requirements = requirements.iter().map(|wanted| (*wanted).to_owned()).collect();
    let request = EnvRequest { requirements, python: python.map(str::to_owned), ..EnvRequest::default() };
    ensure_in(&request, &cache, &path, &mut say).unwrap()
}

/// Copies an environment to `dir`, for containers that see it at `at`; gives the directory of its packages.
pub fn copied(dir: &Path, at: &str) -> PathBuf {
    // Its interpreter lies in no home directory, as those are empty in a sandbox.
    let env = environment(&WANTED, Some("/usr/bin/python3"));
    assert!(Command::new("cp").arg("-a").arg(&env.dir).arg(dir).status().unwrap().success());
    let settings = fs::read_to_string(dir.join("pyvenv.cfg")).unwrap();
    // `pip install --user` is refused without.
    let settings = settings.replace("include-system-site-packages = false", "include-system-site-packages = true");
    fs::write(dir.join("pyvenv.cfg"), settings).unwrap();
    let own = env.dir.display().to_string();
    for entry in fs::read_dir(dir.join("bin")).unwrap() {
        let path = entry.unwrap().path();
        if let (false, Ok(text)) = (path.is_symlink(), fs::read_to_string(&path)) {
            // The first line of a program names its interpreter.
            fs::write(&path, text.replace(&own, at)).unwrap();
        }
    }
    let libraries = fs::read_dir(dir.join("lib")).unwrap().map(|entry| entry.unwrap().path());
    libraries.map(|path| path.join("site-packages")).find(|path| path.is_dir()).unwrap()
}
