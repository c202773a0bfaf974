//! Python environments and what runs in them, for real: with the package index, kernels and tests.
//!
//! Environments are kept in `PITCREW_TEST_CACHE`, or in the system's directory for temporary files, so that the
//! index is asked once.

#[path = "backends/program.rs"]
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pitcrew_exec::python::{
    CONVERT_REQUIREMENTS, COVERAGE_REQUIREMENTS, Conversion, Env, EnvRequest, NOTEBOOK_REQUIREMENTS, NotebookRun,
    PYTEST_REQUIREMENTS, Pytest, PythonError, ensure, ensure_in, ensure_shared_in, evict,
};
use pitcrew_exec::report;
use serde_json::{Value, json};

use program::write_program;

fn request(requirements: &[&str]) -> EnvRequest {
    EnvRequest { requirements: requirements.iter().map(|r| (*r).to_owned()).collect(), ..EnvRequest::default() }
}

fn kept_cache() -> PathBuf {
    let kept = std::env::var_os("PITCREW_TEST_CACHE").map(PathBuf::from);
    kept.unwrap_or_else(|| std::env::temp_dir().join("pitcrew-test-cache")).join("python")
}

/// One environment for all tests here, built by uv, which is itself a package.
fn tools() -> &'static Env {
    static ENV: OnceLock<Env> = OnceLock::new();
    ENV.get_or_init(|| {
        let uv = ensure(&request(&["uv"]), &kept_cache(), &mut |line| eprintln!("{line}")).unwrap();
        let path = format!("{}:{}", uv.bin().display(), std::env::var("PATH").unwrap());
        let all = [NOTEBOOK_REQUIREMENTS, CONVERT_REQUIREMENTS, PYTEST_REQUIREMENTS, COVERAGE_REQUIREMENTS].concat();
        ensure_in(&request(&all), &kept_cache(), &path, &mut |line| eprintln!("{line}")).unwrap()
    })
}

fn run(mut command: Command) -> (i32, String, String) {
    // What a service or a container gives: no home.
    let Output { status, stdout, stderr } = command.env_remove("HOME").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

fn notebook(dir: &Path, cells: &[(&str, &str)]) -> PathBuf {
    let cells: Vec<Value> = cells
        .iter()
        .map(|(tag, source)| {
            let tags = if tag.is_empty() { json!([]) } else { json!([tag]) };
            json!({"cell_type": "code", "metadata": {"tags": tags}, "source": source, "outputs": [], "execution_count": null})
        })
        .collect();
    let file = dir.join("in.ipynb");
    fs::write(&file, json!({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}).to_string()).unwrap();
    file
}

fn read_json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

#[test]
fn an_environment_is_built_once_found_again_and_never_half_made() {
    let cache = tempfile::tempdir().unwrap();
    let request = request(&["iniconfig==2.0.0"]);
    let ready: Vec<Env> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| ensure(&request, cache.path(), &mut |_| {}).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ready.iter().filter(|env| env.created).count(), 1, "built by one, found by the others");
    let env = &ready[0];
    let (code, version, _) = run({
        let mut python = Command::new(&env.python);
        python.args(["-c", "import iniconfig, importlib.metadata as m; print(m.version('iniconfig'))"]);
        python
    });
    assert_eq!((code, version.trim()), (0, "2.0.0"));

    let mut said = Vec::new();
    let again = ensure(&request, cache.path(), &mut |line| said.push(line.to_owned())).unwrap();
    assert!(!again.created && said.is_empty(), "{said:?}");

    // In use: kept, however old. Left: removed.
    let late = Timestamp::MAX;
    assert_eq!(evict(cache.path(), SignedDuration::ZERO, 0, late).unwrap(), Vec::<PathBuf>::new());
    let dir = env.dir.clone();
    drop((ready, again));
    assert_eq!(
        evict(cache.path(), SignedDuration::ZERO, 1, late).unwrap(),
        Vec::<PathBuf>::new(),
        "the newest is kept"
    );

    // What a killed builder leaves has no marker: it is thrown away and made anew.
    fs::remove_file(dir.join(".complete")).unwrap();
    fs::write(dir.join("half"), "made").unwrap();
    let rebuilt = ensure(&request, cache.path(), &mut |_| {}).unwrap();
    assert!(rebuilt.created && !dir.join("half").exists());
    drop(rebuilt);
    assert_eq!(evict(cache.path(), SignedDuration::ZERO, 0, late).unwrap(), vec![dir.clone()]);
    assert!(!dir.exists());
}

#[test]
fn a_requirement_that_does_not_exist_fails_with_the_installers_last_words() {
    let cache = tempfile::tempdir().unwrap();
    let error = ensure(&request(&["iniconfig==0.0.0.dev99"]), cache.path(), &mut |_| {}).unwrap_err();
    let PythonError::Install { tail, .. } = &error else { panic!("{error}") };
    assert!(tail.contains("iniconfig==0.0.0.dev99"), "{tail}");
    let left: Vec<_> = fs::read_dir(cache.path().join("envs")).unwrap().flatten().collect();
    assert!(left.iter().all(|entry| !entry.path().join(".complete").exists()));
}

#[test]
fn what_the_machine_lacks_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let program = |name: &str, text: &str| {
        write_program(&dir.path().join(name), &format!("#!/bin/sh\n{text}\n"));
    };
    let error = || {
        let cache = dir.path().join("cache");
        ensure_in(&request(&["numpy"]), &cache, dir.path().to_str().unwrap(), &mut |_| {}).unwrap_err().to_string()
    };
    assert!(error().contains("no Python interpreter for `python3`"));

    let itself = dir.path().join("python3").display().to_string();
    let answer = json!({"executable": itself, "version": "3.12.1", "platform": "linux-x86_64"});
    // As Debian's Python without its `python3-venv`.
    program(
        "python3",
        &format!("[ $1 = -I ] && echo '{answer}' && exit\necho 'ensurepip is not available' >&2; exit 1"),
    );
    assert!(error().contains("apt install python3.12-venv"), "{}", error());

    program(
        "uv",
        "for last; do :; done; [ $1 = venv ] && exec /bin/mkdir $last\necho 'error: https://me:hush@index/x: dns error' >&2; exit 2",
    );
    let unreachable = error();
    assert!(unreachable.contains("the package index cannot be reached"), "{unreachable}");
    assert!(unreachable.contains("https://***@index/x") && !unreachable.contains("hush"), "{unreachable}");
}

#[test]
fn a_notebook_runs_with_typed_parameters_and_shows_what_it_does_while_it_does_it() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = notebook(
        dir.path(),
        &[
            ("parameters", "n = 1\nname = 'x'"),
            (
                "",
                "import sys\nprint('n is', n + 1, name[::-1])\nprint('a warning', file=sys.stderr)\nopen('made', 'w').close()",
            ),
            ("", "import os\nassert 'ipython' in os.environ['IPYTHONDIR']\n{'answer': n * 2}"),
        ],
    );
    let work = dir.path().join("work");
    fs::create_dir(&work).unwrap();
    let job = NotebookRun {
        notebook,
        output: dir.path().join("out/done.ipynb"),
        parameters: json!({"n": 20, "name": "abc", "nmae": true}).as_object().unwrap().clone(),
        workdir: Some(work.clone()),
        ..NotebookRun::default()
    };
    let (code, stdout, stderr) = run(job.command(tools(), &dir.path().join("scratch")).unwrap());
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    for part in ["[1/4] started: n = 1", "n is 21 cba\n", "[3/4] done in", "{'answer': 40}", "4 cells in"] {
        assert!(stdout.contains(part), "{part:?} in {stdout}");
    }
    assert!(stderr.contains("a warning\n"), "{stderr}");
    assert!(stderr.contains("has no `nmae`; did you mean `name`?"), "{stderr}");
    assert!(work.join("made").exists());

    let done = read_json(&job.output);
    assert_eq!(done["metadata"]["papermill"]["parameters"]["n"], 20);
    let figures = read_json(&dir.path().join("out/figures.json"));
    assert_eq!(figures["error"], Value::Null);
    assert_eq!(figures["cells"].as_array().unwrap().len(), 4);
    assert!(figures["peak_memory_bytes"].as_u64().unwrap() > 10_000_000);
}

#[test]
fn the_pictures_of_a_run_notebook_are_in_its_report() {
    let dir = tempfile::tempdir().unwrap();
    // The smallest PNG that there is, made by the kernel like any figure.
    let source = "import struct, zlib\nfrom IPython.display import Image, display\n\
                  part = lambda kind, data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))\n\
                  display(Image(b'\\x89PNG\\r\\n\\x1a\\n' + part(b'IHDR', struct.pack('>IIBBBBB', 1, 1, 8, 2, 0, 0, 0))\n\
                  \x20 + part(b'IDAT', zlib.compress(b'\\0\\xff\\0\\0')) + part(b'IEND', b'')))";
    let job = NotebookRun {
        notebook: notebook(dir.path(), &[("", "before = 1"), ("", source)]),
        output: dir.path().join("done.ipynb"),
        ..NotebookRun::default()
    };
    let (code, stdout, stderr) = run(job.command(tools(), &dir.path().join("scratch")).unwrap());
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    let input = report::ReportInput { notebooks: vec!["figures.json".into()], ..Default::default() };
    let made = report::collect(&input, dir.path(), "2026-03-01T02:00:00Z".parse().unwrap());
    assert_eq!(made.problems, Vec::<String>::new());
    let [picture] = &made.notebooks[0].pictures[..] else { panic!("{:?}", made.notebooks) };
    assert_eq!((picture.cell, picture.media_type.as_str(), picture.size), (2, "image/png", Some((1, 1))));
    assert!(report::to_html(&made).contains("<img src=\"data:image/png;base64,iVBOR"));
    assert!(String::from_utf8_lossy(&report::to_pdf(&made)).contains("/Subtype /Image"));
}

#[test]
fn tools_share_an_environment_unless_the_user_has_a_say_in_it() {
    let uv = ensure(&request(&["uv"]), &kept_cache(), &mut |line| eprintln!("{line}")).unwrap();
    let path = format!("{}:{}", uv.bin().display(), std::env::var("PATH").unwrap());
    let env = |needs: &[&str], asked: &[&str]| {
        ensure_shared_in(needs, &request(asked), &kept_cache(), &path, &mut |line| eprintln!("{line}")).unwrap()
    };
    let dir = |needs: &[&str], asked: &[&str]| env(needs, asked).dir;
    assert_eq!(dir(NOTEBOOK_REQUIREMENTS, &[]), dir(PYTEST_REQUIREMENTS, &[]), "one for both");
    let has = |env: &Env, name: &str| env.contents().installed.iter().any(|line| line.starts_with(name));
    // A say about another task's tool: then only what is needed, at the version that was asked for.
    let own = env(&["iniconfig"], &["pytest==7.4.4"]);
    assert!(has(&own, "pytest==7.4.4") && !has(&own, "papermill"), "{:?}", own.contents());
    // Requirements that do not go together with another task's tool: the same.
    let own = env(&["iniconfig"], &["pluggy==0.13.1"]);
    assert!(has(&own, "pluggy==0.13.1") && !has(&own, "pytest"), "{:?}", own.contents());
}

#[test]
fn a_cell_that_fails_ends_the_run_and_leaves_the_notebook_as_far_as_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let cells = [
        ("", "print('before', end='')"),
        ("", "def broken():\n    raise ValueError('no such thing')\nbroken()"),
        ("", "1"),
    ];
    let job = NotebookRun {
        notebook: notebook(dir.path(), &cells),
        output: dir.path().join("o.ipynb"),
        ..NotebookRun::default()
    };
    let (code, stdout, stderr) = run(job.command(tools(), &dir.path().join("scratch")).unwrap());
    assert_eq!(code, 1);
    assert!(stdout.contains("before\n[1/3] done"), "{stdout}");
    assert!(stderr.contains("error: cell 2/3 (`def broken():`) raised ValueError: no such thing"), "{stderr}");
    assert!(stderr.contains("raise ValueError('no such thing')") && !stderr.contains('\x1b'), "{stderr}");
    let saved = fs::read_to_string(&job.output).unwrap();
    assert!(saved.contains("no such thing"), "the traceback is in the notebook");
    let figures = read_json(&dir.path().join("figures.json"));
    let states: Vec<_> = figures["cells"].as_array().unwrap().iter().map(|c| c["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["ok", "error", "not_run"]);
    assert_eq!((&figures["error"]["cell"], &figures["error"]["kind"]), (&json!(2), &json!("ValueError")));
}

#[test]
fn a_dead_or_endless_kernel_is_a_prompt_failure_that_says_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("import os\nos._exit(0)", 1, "the kernel ended by itself with exit code 0"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", 137, "killed by SIGKILL; out of memory, perhaps"),
        ("import ctypes\nctypes.string_at(0)", 139, "killed by SIGSEGV; a fault in native code"),
        ("import threading\nthreading.Event().wait()", 124, "ran longer than 1.5 s"),
    ];
    for (source, expected, words) in cases {
        let job = NotebookRun {
            notebook: notebook(dir.path(), &[("", "before = 1\nbefore"), ("", source)]),
            output: dir.path().join("o.ipynb"),
            cell_timeout: Some(Duration::from_millis(1500)),
            ..NotebookRun::default()
        };
        let (code, stdout, stderr) = run(job.command(tools(), &dir.path().join("scratch")).unwrap());
        assert_eq!(code, expected, "{stdout}{stderr}");
        assert!(stderr.contains("error: cell 2/2 (`import") && stderr.contains(words), "{stderr}");
        assert_eq!(read_json(&dir.path().join("figures.json"))["error"]["cell"], 2);
        assert_eq!(read_json(&job.output)["cells"][0]["outputs"][0]["data"]["text/plain"], json!(["1"]));
    }
}

#[test]
fn input_that_cannot_work_is_refused_before_a_kernel_starts() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bad.ipynb"), "not json").unwrap();
    let at = |name: &str| dir.path().join(name);
    let good = notebook(dir.path(), &[("", "1")]);
    let cases = [
        (at("bda.ipynb"), None, "did you mean"),
        (at("bad.ipynb"), None, "is not a notebook"),
        (good, Some("julia"), "there is no kernel `julia`; known: `python3`"),
    ];
    for (notebook, kernel, words) in cases {
        let job = NotebookRun {
            notebook,
            output: at("o.ipynb"),
            kernel: kernel.map(str::to_owned),
            ..NotebookRun::default()
        };
        let (code, _, stderr) = run(job.command(tools(), &at("scratch")).unwrap());
        assert!(code == 2 && stderr.contains(words), "{code} {stderr}");
    }
    assert!(!at("o.ipynb").exists());
}

#[test]
fn a_notebook_becomes_one_page_that_needs_no_network() {
    let dir = tempfile::tempdir().unwrap();
    let input = notebook(dir.path(), &[("", "SECRET_SOURCE = 1")]);
    let mut content = read_json(&input);
    let markdown = |text: &str| json!({"cell_type": "markdown", "metadata": {}, "source": text});
    content["cells"].as_array_mut().unwrap().push(markdown("# A title\n![dot](dot.png)"));
    fs::write(dir.path().join("dot.png"), b"\x89PNG\r\n").unwrap();
    fs::write(&input, content.to_string()).unwrap();
    let mut job = Conversion { notebook: input.clone(), output: dir.path().join("page.html"), ..Conversion::default() };
    let convert = |job: &Conversion| {
        let (code, stdout, stderr) = run(job.command(tools(), &dir.path().join("scratch")).unwrap());
        assert_eq!(code, 0, "{stderr}");
        (fs::read_to_string(&job.output).unwrap(), stdout)
    };
    let (page, _) = convert(&job);
    assert!(page.contains("SECRET_SOURCE") && page.contains("A title") && page.contains("data:image/png;base64,"));
    assert!(!page.contains("<script src=") && !page.contains("cdnjs"), "no script from elsewhere");

    job.hide_input = true;
    content["cells"].as_array_mut().unwrap().push(markdown("$a^2$"));
    fs::write(&input, content.to_string()).unwrap();
    let (page, stdout) = convert(&job);
    assert!(!page.contains("SECRET_SOURCE"));
    assert!(page.contains("MathJax") && stdout.contains("from the network for its formulas"), "{stdout}");
}

#[test]
fn pytest_leaves_results_and_coverage_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("repo");
    fs::create_dir(&repo).unwrap();
    fs::write(repo.join("area.py"), "def area(r):\n    return 3 * r\n\n\ndef unused():\n    return 1\n").unwrap();
    fs::write(repo.join("test_area.py"), "import area\n\n\ndef test_one():\n    assert area.area(2) == 6\n\n\ndef test_two():\n    assert area.area(1) == 4\n")
        .unwrap();
    let scratch = dir.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    let job = Pytest {
        junit: dir.path().join("results/junit.xml"),
        coverage: vec!["area".into()],
        coverage_xml: Some(dir.path().join("results/coverage.xml")),
        workdir: Some(repo.clone()),
        ..Pytest::default()
    };
    let (code, stdout, _) = run(job.command(tools(), &scratch).unwrap());
    assert_eq!(code, 1, "{stdout}");
    assert!(fs::read_to_string(&job.junit).unwrap().contains("failures=\"1\""));
    assert!(fs::read_to_string(dir.path().join("results/coverage.xml")).unwrap().contains("filename=\"area.py\""));
    let mut left: Vec<_> = fs::read_dir(&repo).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["area.py", "test_area.py"]);
}
