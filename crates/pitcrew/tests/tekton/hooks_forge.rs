//! Statuses that are written back to a forge: a real HTTP server on loopback keeps what it got.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Value, json};

use crate::harness::{Place, has_sandbox};
use crate::hooks::{KEY, PATIENCE, Server, place, settled, until};

const TOKEN: &str = "hunter2-of-the-forge";

/// A forge that answers with the statuses that it is given, and then with 201.
pub struct Forge {
    pub port: u16,
    pub got: Receiver<Got>,
    pub replies: Sender<u16>,
}

/// A request that it got.
#[derive(Debug)]
pub struct Got {
    pub path: String,
    pub head: String,
    pub body: Value,
}

impl Forge {
    pub fn start() -> Forge {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ((sender, got), (replies, answers)) = (channel(), channel::<u16>());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut bytes = Vec::new();
                let mut part = [0; 4096];
                let (head, body) = loop {
                    let read = stream.read(&mut part).unwrap_or(0);
                    bytes.extend_from_slice(&part[..read]);
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    if let Some((head, body)) = text.split_once("\r\n\r\n") {
                        let length = head
                            .to_lowercase()
                            .split_once("content-length: ")
                            .map_or(0, |(_, rest)| rest.lines().next().unwrap().trim().parse::<usize>().unwrap());
                        if body.len() >= length {
                            break (head.to_owned(), body.to_owned());
                        }
                    }
                    if read == 0 {
                        // The server was killed while it asked.
                        break (String::new(), String::new());
                    }
                };
                if head.is_empty() {
                    continue;
                }
                let status = answers.try_recv().unwrap_or(201);
                let _ = write!(stream, "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                if sender.send(Got { path, head, body: serde_json::from_str(&body).unwrap_or_default() }).is_err() {
                    return;
                }
            }
        });
        Forge { port, got, replies }
    }

    /// What it gets until a status says that all is over, each as (state, target).
    pub fn states(&self) -> Vec<Got> {
        let mut all = Vec::new();
        loop {
            let got = self.got.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{error}: {all:?}"));
            let state = got.body["state"].clone();
            all.push(got);
            if ["success", "failure", "error"].iter().any(|over| state == *over) {
                return all;
            }
        }
    }
}

/// The example, whose trigger reports to a forge of ours.
fn reporting(forge: &Forge, script: &str) -> Place {
    let place = place();
    let text = std::fs::read_to_string(crate::harness::example("webhook.yaml")).unwrap();
    let annotations = format!(
        "kind: Trigger\nmetadata:\n  annotations:\n    pitcrew.dev/report: github\n    \
         pitcrew.dev/report-token: forge/token\n    pitcrew.dev/report-url: http://127.0.0.1:{}/api/v3\n",
        forge.port
    );
    let text =
        text.replace("kind: Trigger\nmetadata:\n", &annotations).replace("echo \"pushed: $(params.what)\"", script);
    place.file("report.yaml", &text);
    place.file(
        "token.yaml",
        &format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: forge}}\nstringData: {{token: {TOKEN}}}\n"),
    );
    place.run("apply -f report.yaml -f token.yaml").ends(0);
    place
}

#[test]
fn a_push_is_pending_and_then_what_its_run_came_to() {
    if !has_sandbox() {
        return;
    }
    for (script, state) in [("true", "success"), ("exit 3", "failure")] {
        let forge = Forge::start();
        let place = reporting(&forge, script);
        let server = Server::start(&place, "data", &[]);
        let told = server.push("c0ffee", KEY);
        let line = settled(&place, told.json()["eventID"].as_str().unwrap());
        let made = &line["outcome"][0]["made"][0];
        assert_eq!(made["report"], json!("acme/app@c0ffee, pitcrew/push"), "{line}");
        let states = forge.states();
        let last = states.last().unwrap();
        assert_eq!(last.body["state"], json!(state), "{states:?}");
        assert_eq!(last.path, "/api/v3/repos/acme/app/statuses/c0ffee");
        assert!(last.head.to_lowercase().contains(&format!("authorization: bearer {TOKEN}")));
        let page = last.body["target_url"].as_str().unwrap();
        assert!(page.ends_with(&format!("/runs/{}", made["name"].as_str().unwrap())), "{page}");
        assert!(states[..states.len() - 1].iter().all(|got| got.body["state"] == "pending"), "{states:?}");
        // The token is in no log, and in nothing that is shown.
        let log = std::fs::read_to_string(place.path("data.log")).unwrap();
        let shown = place.run("notify list --output json").stdout + &place.run("hooks list --output json").stdout;
        assert!(!log.contains("hunter2") && !shown.contains("hunter2"), "{log}\n{shown}");
    }
}

/// The forge is away, and the server is killed before it has told anything.
#[test]
fn a_server_that_comes_back_tells_what_was_not_told() {
    if !has_sandbox() {
        return;
    }
    let forge = Forge::start();
    (0..2).for_each(|_| forge.replies.send(503).unwrap());
    let place = reporting(&forge, "true");
    let mut server = Server::start(&place, "data", &[]);
    server.push("c0ffee", KEY);
    let refused = forge.got.recv_timeout(PATIENCE).unwrap();
    assert_eq!(refused.path, "/api/v3/repos/acme/app/statuses/c0ffee");
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let _server = Server::start(&place, "data", &[]);
    let states = forge.states();
    assert_eq!(states.last().unwrap().body["state"], json!("success"), "{states:?}");
    until("everything is told", || {
        let outbox = place.run("notify list --output json").ends(0).json();
        let waits = |notice: &Value| notice["state"] == "waiting";
        (!outbox.as_array().unwrap().iter().any(waits)).then_some(())
    });
    let late: Vec<Got> = forge.got.try_iter().collect();
    assert!(late.iter().all(|got| got.body["state"] == "success"), "{late:?}");
}

/// Nobody who has proved nothing has a status written with our token.
#[test]
fn an_event_that_proves_nothing_has_nothing_written() {
    let forge = Forge::start();
    let place = place();
    place.file(
        "open.yaml",
        &format!(
            "apiVersion: triggers.tekton.dev/v1beta1
kind: EventListener
metadata:
  name: open
  annotations:
    pitcrew.dev/report: github
    pitcrew.dev/report-token: forge/token
    pitcrew.dev/report-url: http://127.0.0.1:{}
spec:
  triggers:
    - name: any
      template:
        spec:
          resourcetemplates:
            - apiVersion: tekton.dev/v1
              kind: TaskRun
              metadata: {{generateName: any-}}
              spec: {{taskSpec: {{steps: [{{name: a, image: busybox, script: 'true'}}]}}}}
",
            forge.port
        ),
    );
    place.run("apply -f open.yaml").ends(0);
    let server = Server::start(&place, "data", &[]);
    let told = server.post("/hooks/default/open", &[], &crate::hooks::push("c0ffee"));
    let line = settled(&place, told.json()["eventID"].as_str().unwrap());
    let made = &line["outcome"][0]["made"][0];
    assert!(made["unreported"].as_str().unwrap().contains("secretRef") && made["report"].is_null(), "{line}");
    assert_eq!(place.run("notify list --output json").ends(0).json(), json!([]));
    // What cannot be is refused when it is applied, with its place.
    let text = std::fs::read_to_string(place.path("open.yaml")).unwrap();
    for (from, to, why) in [
        ("report: github", "report: gihub", "github, github-checks"),
        ("report-token: forge/token", "report-token: hunter2", "SECRET/KEY"),
        ("report: github", "sample: ten", "no share"),
        ("report: github", "sample: 10%\n    sample.pitcrew.dev/other: 5%", "no trigger `other`"),
    ] {
        place.file("odd.yaml", &text.replacen(from, to, 1));
        let refused = place.run("apply -f odd.yaml").ends(2);
        assert!(refused.stderr.contains("odd.yaml:") && refused.stderr.contains(why), "{refused:?}");
        assert!(!refused.stderr.contains("`hunter2`"), "{refused:?}");
    }
}

/// What somebody has applied is not changed by whoever can post.
#[test]
fn a_template_with_a_fixed_name_makes_an_object_once_and_changes_none() {
    let place = place();
    place.file("theirs.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {key: theirs}\n");
    place.file(
        "fixed.yaml",
        "apiVersion: triggers.tekton.dev/v1beta1
kind: EventListener
metadata: {name: fixed}
spec:
  triggers:
    - name: secret
      template: {spec: {resourcetemplates: [{apiVersion: v1, kind: Secret, metadata: {name: keys}, stringData: {key: ours}}]}}
    - name: config
      template: {spec: {resourcetemplates: [{apiVersion: v1, kind: ConfigMap, metadata: {name: note}, data: {key: ours}}]}}
",
    );
    place.run("apply -f theirs.yaml -f fixed.yaml").ends(0);
    let server = Server::start(&place, "data", &[]);
    let post = || {
        let told = server.post("/hooks/default/fixed", &[], b"{}");
        settled(&place, told.json()["eventID"].as_str().unwrap())["outcome"].clone()
    };
    let first = post();
    assert_eq!((&first[0]["result"], &first[1]["result"]), (&json!("error"), &json!("fired")), "{first}");
    assert!(first[0]["why"].as_str().unwrap().contains("there is a Secret `keys` in `default` already"), "{first}");
    let second = post();
    assert_eq!((&second[0]["result"], &second[1]["result"]), (&json!("error"), &json!("error")), "{second}");
    // It says still what was applied.
    let same = place.run("apply -f theirs.yaml").ends(0);
    assert!(same.stdout.contains("unchanged") || same.stderr.contains("unchanged"), "{same:?}");
}

/// A share of the triggers that are written in a listener: the same for the same commit, whatever the event.
#[test]
fn a_share_of_inline_triggers_is_sticky_by_commit() {
    let place = place();
    place.file(
        "share.yaml",
        "apiVersion: triggers.tekton.dev/v1beta1
kind: EventListener
metadata:
  name: share
  annotations: {pitcrew.dev/sample: 30%, sample.pitcrew.dev/all: 100%, sample.pitcrew.dev/none: 0%}
spec:
  triggers:
    - name: some
      template: &note {spec: {resourcetemplates: [{apiVersion: v1, kind: ConfigMap, metadata: {generateName: note-}, data: {a: b}}]}}
    - {name: all, template: *note}
    - {name: none, template: *note}
",
    );
    place.run("apply -f share.yaml").ends(0);
    let server = Server::start(&place, "data", &[]);
    let taken = |n: usize| {
        let told = server.post("/hooks/default/share", &[], &crate::hooks::push(&format!("{n:040x}")));
        let outcome = settled(&place, told.json()["eventID"].as_str().unwrap())["outcome"].clone();
        let results: Vec<String> = (0..3).map(|at| outcome[at]["result"].as_str().unwrap().to_owned()).collect();
        assert_eq!((results[1].as_str(), results[2].as_str()), ("fired", "not sampled"), "{outcome}");
        results[0] == "fired"
    };
    let first: Vec<bool> = (1..=20).map(taken).collect();
    // The digests of these commits do not change, so neither does this.
    let count = first.iter().filter(|taken| **taken).count();
    assert!((1..=14).contains(&count), "{first:?}");
    assert_eq!((1..=20).map(taken).collect::<Vec<bool>>(), first);
}
