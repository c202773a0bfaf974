//! Notebook CI as `examples/tekton/notebook-ci.yaml` has it, in the sandbox: a server with a pretend GPU that is shared, a quota, claims that
//! stay, a real SMTP server with TLS, and what Slack would get.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Place, example, has_sandbox};
use crate::python;

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(300);

const TEST: &str = "import means\n\n\ndef test_the_mean():\n    assert means.mean([1, 2, 6]) == 3\n";

#[allow(clippy::disallowed_methods, reason = "a test with processes has to wait for them in real time")]
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "still not: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A process that ends with the test, also with one that fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes messages as Slack does; the body of each.
fn slack() -> (u16, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, got) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            if sender.send(serde_json::from_slice(&body).unwrap()).is_err() {
                return;
            }
        }
    });
    (port, got)
}

/// An SMTP server that wants TLS and a login: its port, and each mail.
fn mail(certificates: &Path) -> (Running, u64, impl FnMut() -> Value + use<>) {
    let wanted = ["moto[s3]>=5,<6", "flask", "flask-cors", "aiosmtpd>=1.4,<2", "trustme>=1,<2"];
    let env = python::environment(&wanted, None);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/notify/smtp.py");
    let mut command = Command::new(env.bin().join("python"));
    command.arg(script).arg(certificates).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut smtp = command.spawn().unwrap();
    let mut lines = BufReader::new(smtp.stdout.take().unwrap()).lines();
    let mut said = move || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let port = said()["starttls"].as_u64().unwrap();
    (Running(smtp), port, said)
}

/// A repository with a notebook, a module and a test of it; on `broken` the notebook fails.
fn repository(dir: &Path) {
    let cells = |last: &str| {
        let cell = |id: &str, tags: Value, source: &str| json!({"cell_type": "code", "id": id, "metadata": {"tags": tags}, "execution_count": null, "outputs": [], "source": source});
        let kernel = json!({"name": "python3", "display_name": "Python 3", "language": "python"});
        let cells = [
            cell("a", json!(["parameters"]), "values = [1, 2, 3]"),
            cell("b", json!([]), "import os\nprint('GPU:', os.environ['CUDA_VISIBLE_DEVICES'])"),
            cell("c", json!([]), last),
        ];
        json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}).to_string()
    };
    let run = |args: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(dir).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        let done = command.args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).args(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {done:?}");
    };
    std::fs::create_dir_all(dir.join("tests")).unwrap();
    std::fs::write(dir.join("means.py"), "def mean(values):\n    return sum(values) / len(values)\n").unwrap();
    std::fs::write(dir.join("tests/test_means.py"), TEST).unwrap();
    std::fs::write(dir.join("pytest.ini"), "[pytest]\npythonpath = .\n").unwrap();
    std::fs::write(dir.join("analysis.ipynb"), cells("from means import mean\nprint('mean:', mean(values))")).unwrap();
    run(&["init", "-q", "-b", "main"]);
    run(&["add", "."]);
    run(&["commit", "-q", "-m", "A notebook"]);
    run(&["checkout", "-q", "-b", "broken"]);
    std::fs::write(dir.join("analysis.ipynb"), cells("raise ValueError('no plate')")).unwrap();
    run(&["commit", "-q", "-a", "-m", "It fails"]);
    run(&["checkout", "-q", "main"]);
}

struct World {
    place: Place,
    slack: mpsc::Receiver<Value>,
    mail: Box<dyn FnMut() -> Value>,
    _running: [Running; 2],
}

impl World {
    fn new() -> World {
        let place = Place::new();
        python::copied(&place.path("notebooks"), "/opt/notebooks");
        repository(&place.path("repository"));
        let (smtp, port, mail) = mail(&place.path(""));
        let (hook, slack) = slack();
        place.file("hook", &format!("http://127.0.0.1:{hook}/T0KEN"));
        place.file("password", "mail-s3cret\n");
        let dir = place.path("").display().to_string();
        let config = format!(
            "nodes: [{{name: here, sharing: {{time_slicing: {{replicas: 4}}}}}}]\nchannels:\n  team-slack: {{type: slack, webhook: {{file: hook}}}}\n  \
             team-mail: {{type: mail, server: localhost, port: {port}, security: starttls, user: ci, password: {{file: password}}, from: \
             ci@example.com, to: [team@example.com], ca_file: {dir}/ca.pem}}\nsandbox:\n  images:\n    - {{match: localhost/notebooks, bind: \
             {{/opt/notebooks: notebooks}}, path: [/opt/notebooks/bin]}}\n    - {{match: alpine/git, shell: busybox, entrypoint: [git], \
             bind: {{/opt/repository: repository}}}}\n"
        );
        place.file("pitcrew.yaml", &config);
        std::fs::create_dir(place.path("workflows")).unwrap();
        let log = std::fs::File::create(place.path("server.log")).unwrap();
        let mut server = place.command("server --no-auth --listen 127.0.0.1:0 --workflows workflows -v");
        let server = server.env("PITCREW_GPUS", "1").stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        place.run("quotas set ci --gpus 0.5").ends(0);
        World { place, slack, mail: Box::new(mail), _running: [smtp, Running(server)] }
    }

    /// Starts a run; gives its name.
    fn start(&self, params: &str) -> String {
        let bound = "-w name=work,volumeClaimTemplateFile=claim.yaml -w name=cache,claimName=notebook-cache -w name=published,claimName=reports";
        let line = format!("pipelines start notebook-ci -n ci -p repo=/opt/repository {params} {bound} -o name");
        let started = self.place.run(&line).ends(0).stdout;
        started.trim().rsplit('/').next().unwrap().to_owned()
    }

    /// Its document, once it is over.
    fn over(&self, name: &str) -> Value {
        let mut run = Value::Null;
        wait(&format!("{name} is over\n{}", self.log()), || {
            run = self.place.run(&format!("pr describe {name} -n ci -o json")).ends(0).json();
            run["status"]["completionTime"].is_string()
        });
        run
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.place.path("server.log")).unwrap_or_default()
    }

    fn published(&self, name: &str) -> PathBuf {
        self.place.path("data/claims/ci/reports").join(name)
    }
}

fn results(run: &Value) -> Vec<(&str, &str)> {
    let of = |result: &'_ Value, key: &str| -> Option<()> { result[key].as_str().map(drop) };
    let all = run["status"]["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter()
        .filter(|result| of(result, "name").is_some() && of(result, "value").is_some())
        .map(|result| (result["name"].as_str().unwrap_or_default(), result["value"].as_str().unwrap_or_default()))
        .collect()
}

fn condition(run: &Value) -> (&str, &str) {
    let condition = &run["status"]["conditions"][0];
    (condition["status"].as_str().unwrap_or_default(), condition["reason"].as_str().unwrap_or_default())
}

#[test]
fn a_notebook_is_run_tested_reported_and_told_of() {
    if !has_sandbox() {
        return;
    }
    let mut world = World::new();
    world.place.file("claim.yaml", "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n");
    world.place.run(&format!("apply -n ci -f {}", example("notebook-ci.yaml"))).ends(0);

    let first = world.start("-p keep=1");
    let run = world.over(&first);
    assert_eq!(condition(&run), ("True", "Succeeded"), "{run:#}\n{}", world.log());
    let found = results(&run);
    assert!(found.contains(&("cached", "false")), "{found:?}");
    let report: Value =
        serde_json::from_slice(&std::fs::read(world.published(&first).join("report.json")).unwrap()).unwrap();
    let tasks = json!({"prepare": "Succeeded", "notebook": "Succeeded", "convert": "Succeeded", "test": "Succeeded"});
    assert_eq!((&report["tasks"], &report["tests"]), (&tasks, &json!({"count": 1, "failed": []})), "{report:#}");
    assert_eq!(report["notebook"]["cells"], 3, "{report:#}");
    let output = report["notebook"]["output"].to_string();
    assert!(output.contains("GPU: pretend-0") && output.contains("mean: 2.0"), "it had a part of the GPU: {output}");
    let page = std::fs::read_to_string(world.published(&first).join("report.html")).unwrap();
    assert!(page.contains("mean: 2.0") && page.contains("notebook.html"), "{page}");
    let pdf = std::fs::read(world.published(&first).join("report.pdf")).unwrap();
    assert!(pdf.starts_with(b"%PDF-1.4") && pdf.ends_with(b"%%EOF\n"));
    assert!(world.published("latest").join("notebook.html").is_file());
    let told = world.slack.recv_timeout(PATIENCE).unwrap().to_string();
    assert!(told.contains("notebook-ci") && told.contains(&first), "{told}");
    let mail = (world.mail)();
    assert_eq!((&mail["tls"], &mail["to"]), (&json!(true), &json!(["team@example.com"])));
    assert!(mail["text"].as_str().unwrap().contains(&first), "{mail}");

    // The same once more is taken from the cache, and only the newest report is kept.
    let second = world.start("-p keep=1");
    let run = world.over(&second);
    assert_eq!(condition(&run), ("True", "Succeeded"), "{run:#}\n{}", world.log());
    assert!(results(&run).contains(&("cached", "true")), "{run:#}");
    assert!(world.published(&second).join("report.html").is_file());
    assert!(!world.published(&first).exists(), "one report is kept");
    assert!(world.slack.recv_timeout(PATIENCE).unwrap().to_string().contains(&second));
    (world.mail)();

    // What is more than the quota waits, and says for what.
    let third = world.start("-p gpu=1");
    let mut why = String::new();
    wait("the quota is named", || {
        let ran = world.place.run(&format!("explain {third} notebook"));
        why = format!("{}{}", ran.stdout, ran.stderr);
        why.contains("quota") || why.contains("namespace `ci`")
    });
    world.place.run(&format!("pr cancel {third} -n ci")).ends(0);
    assert_eq!(condition(&world.over(&third)), ("False", "Cancelled"));

    // A notebook that fails is reported too, and told as a failure.
    let fourth = world.start("-p revision=broken");
    let run = world.over(&fourth);
    assert_eq!(condition(&run), ("False", "Failed"), "{run:#}");
    let report: Value =
        serde_json::from_slice(&std::fs::read(world.published(&fourth).join("report.json")).unwrap()).unwrap();
    let tasks = json!({"prepare": "Succeeded", "notebook": "Failed", "convert": "None", "test": "Succeeded"});
    assert_eq!(report["tasks"], tasks);
    let told = world.slack.recv_timeout(PATIENCE).unwrap().to_string();
    assert!(told.contains(&fourth) && told.contains("no plate"), "{told}");

    // Runs that are over go with what they made for themselves; the claims that were named stay.
    world.place.run("pr delete --keep 1 -n ci").ends(0);
    assert_eq!(world.place.run("pr list -n ci -o name").ends(0).stdout.lines().count(), 1);
    assert!(world.published(&fourth).join("report.pdf").is_file());
    assert!(world.place.path("data/claims/ci/notebook-cache").is_dir());
}
