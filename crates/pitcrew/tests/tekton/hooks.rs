//! Webhooks through a real server: what is posted, what it starts, and what becomes of it when the server is killed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ring::hmac;
use serde_json::{Value, json};

use crate::harness::{Place, example, has_sandbox};

pub const PATIENCE: Duration = Duration::from_secs(120);
pub const KEY: &[u8] = b"hunter2-of-the-hook";
const SECRET: &str = "
apiVersion: v1
kind: Secret
metadata: {name: github-hook}
stringData: {token: hunter2-of-the-hook}
";

#[allow(clippy::disallowed_methods, reason = "a test has to give up at some time")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "what another process does is looked at again and again")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "still not: {what}");
        pause();
    }
}

/// A server, killed with the test.
pub struct Server {
    pub child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer: its status and its body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Server {
    /// A server of this place; `name` tells its data directory from others.
    pub fn start(place: &Place, name: &str, more: &[(&str, String)]) -> Server {
        let log = place.path(&format!("{name}.log"));
        let file = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
        command
            .args(["server", "--no-auth", "--listen", "127.0.0.1:0", "--workflows", "workflows"])
            .current_dir(place.path(""))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", place.path(""))
            .env("PITCREW_DATA_DIR", place.path(name))
            .env("USER", "tester")
            .envs(more.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        let mut child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        let port = until("the server answers", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if child.try_wait().unwrap().is_some() {
                panic!("the server ended: {text}");
            }
            let (_, rest) = text.split_once("http://127.0.0.1:")?;
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            text.contains("workflows").then(|| digits.parse().unwrap())
        });
        Server { child, port }
    }

    fn open(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_post(path, headers, body).unwrap()
    }

    /// `None`: there was no whole answer.
    fn try_post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&head(path, headers, Some(body.len()))).ok()?;
        stream.write_all(body).ok()?;
        answer(&mut stream)
    }

    /// A push of this commit, as GitHub would send it.
    pub fn push(&self, commit: &str, secret: &[u8]) -> Answer {
        let body = push(commit);
        let signature = sign(&body, secret);
        let headers = [("X-GitHub-Event", "push"), ("X-Hub-Signature-256", signature.as_str())];
        self.post("/hooks/default/forge", &headers, &body)
    }
}

fn head(path: &str, headers: &[(&str, &str)], length: Option<usize>) -> Vec<u8> {
    let mut text =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    match length {
        Some(length) => text.push_str(&format!("Content-Length: {length}\r\n\r\n")),
        None => text.push_str("Transfer-Encoding: chunked\r\n\r\n"),
    }
    text.into_bytes()
}

fn answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    // A server that did not want the rest of the body may reset the connection after its answer.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

pub fn push(commit: &str) -> Vec<u8> {
    let body = json!({
        "ref": "refs/heads/main", "after": commit, "repository": {"full_name": "acme/app"},
        "head_commit": {"message": "Say $(params.token) and \"hello\""},
    });
    body.to_string().into_bytes()
}

pub fn sign(body: &[u8], secret: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), body);
    format!("sha256={}", tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// A place with the example of the documentation applied.
pub fn place() -> Place {
    let place = Place::new();
    std::fs::create_dir_all(place.path("workflows")).unwrap();
    place.file("secret.yaml", SECRET);
    place.run(&format!("apply -f {} -f secret.yaml", example("webhook.yaml"))).ends(0);
    place
}

pub fn deliveries(place: &Place) -> Vec<Value> {
    let list = place.run("hooks list --limit 1000 --output json").ends(0).json();
    list.as_array().unwrap().clone()
}

/// The delivery of an event, once it was looked at.
pub fn settled(place: &Place, event: &str) -> Value {
    until("the delivery is settled", || {
        deliveries(place).into_iter().find(|line| line["event"] == event && line["state"] != "waiting")
    })
}

pub fn runs(place: &Place) -> Vec<Value> {
    let list = place.run("taskruns list -o json").ends(0).json();
    // One alone is not put into a list.
    match list["kind"].as_str() {
        Some("TaskRun") => vec![list],
        _ => list["items"].as_array().cloned().unwrap_or_default(),
    }
}

#[test]
fn a_push_starts_a_run_once_and_whatever_else_comes_starts_nothing() {
    let place = place();
    let server = Server::start(&place, "data", &[]);
    let first = server.push("c0ffee", KEY);
    assert_eq!(first.status, 202, "{first:?}");
    let told = first.json();
    assert_eq!((&told["eventListener"], &told["namespace"]), (&json!("forge"), &json!("default")));
    assert!(told["eventListenerUID"].as_str().is_some_and(|uid| uid.len() == 36), "{told}");
    let event = told["eventID"].as_str().unwrap().to_owned();
    let line = settled(&place, &event);
    let made = &line["outcome"][0]["made"][0];
    assert_eq!((&line["outcome"][0]["result"], &made["kind"]), (&json!("fired"), &json!("TaskRun")), "{line}");
    let name = made["name"].as_str().unwrap();
    assert!(name.starts_with("push-") && name.len() == 10, "{name}");
    let all = runs(&place);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["metadata"]["labels"]["triggers.tekton.dev/triggers-eventid"], json!(event));
    if has_sandbox() {
        until("the run is over", || {
            place.run(&format!("taskruns describe {name}")).stdout.contains("Succeeded").then_some(())
        });
        let log = place.run(&format!("taskruns logs {name}")).ends(0).stdout;
        assert!(log.contains("pushed: acme/app main c0ffee"), "{log}");
    }

    // The same body again, under another name of the delivery, which nobody has signed.
    let body = push("c0ffee");
    let signature = sign(&body, KEY);
    let headers =
        [("X-GitHub-Event", "push"), ("X-Hub-Signature-256", signature.as_str()), ("X-GitHub-Delivery", "other")];
    let again = server.post("/hooks/default/forge", &headers, &body);
    assert_eq!((again.status, &again.json()["eventID"]), (202, &json!(event)));
    assert!(again.json()["message"].as_str().unwrap().contains("redeliver"), "{again:?}");

    // Signed with another secret, and not at all: nothing of it is looked at or kept.
    for headers in [&headers[..1], &[("X-Hub-Signature-256", "sha256=00"), ("X-GitHub-Event", "push")]] {
        let forged = server.post("/hooks/default/forge", headers, b"{ this is not JSON, hunter2-body");
        assert_eq!(forged.status, 202, "{forged:?}");
        let line = settled(&place, forged.json()["eventID"].as_str().unwrap());
        assert_eq!((&line["state"], &line["outcome"][0]["result"]), (&json!("refused"), &json!("stopped")), "{line}");
        assert_eq!(line["outcome"][0]["by"], json!("github"), "{line}");
        let shown = place.run(&format!("hooks show {} --output json", line["id"])).ends(0);
        assert!(shown.json()["posted"].is_null(), "{shown:?}");
    }

    // Proved, but not for this trigger; and proved, but no JSON.
    let signed = |body: &[u8], event: &str| {
        let signature = sign(body, KEY);
        server.post("/hooks/default/forge", &[("X-GitHub-Event", event), ("X-Hub-Signature-256", &signature)], body)
    };
    let ping = signed(b"{\"zen\": \"x\"}", "ping");
    let line = settled(&place, ping.json()["eventID"].as_str().unwrap());
    assert_eq!(line["outcome"][0]["result"], json!("filtered"), "{line}");
    let tag = signed(br#"{"ref": "refs/tags/v1"}"#, "push");
    let line = settled(&place, tag.json()["eventID"].as_str().unwrap());
    assert_eq!(
        (&line["outcome"][0]["result"], &line["outcome"][0]["by"]),
        (&json!("filtered"), &json!("cel")),
        "{line}"
    );
    let broken = signed(b"{", "push");
    assert_eq!(broken.status, 400, "{broken:?}");
    let unbound = signed(br#"{"ref": "refs/heads/x"}"#, "push");
    let line = settled(&place, unbound.json()["eventID"].as_str().unwrap());
    assert_eq!(
        (&line["outcome"][0]["result"], &line["outcome"][0]["by"]),
        (&json!("error"), &json!("bindings")),
        "{line}"
    );
    assert_eq!(server.post("/hooks/default/nobody", &[], b"{}").status, 404);
    assert_eq!(runs(&place).len(), 1);

    // From here it is sent once more, past the guard, and is another event.
    let id = deliveries(&place).iter().find(|line| line["event"] == event.as_str()).unwrap()["id"].clone();
    let said = place.run(&format!("hooks redeliver {id}")).ends(0);
    assert!(said.stderr.contains(&format!("delivery {id} is sent once more")), "{said:?}");
    until("it has started another run", || (runs(&place).len() == 2).then_some(()));
    let shown = place.run(&format!("hooks show {id}")).ends(0).stdout;
    for part in ["push fired TaskRun default/push-", "X-Github-Event: push", "X-Hub-Signature-256: ***", "c0ffee"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let kept = place.run("hooks list").ends(0).stdout;
    assert!(kept.contains("duplicate") && kept.contains("refused") && kept.contains("filtered"), "{kept}");
}

/// A second address takes events, at `/` too where there is one listener, and answers nothing else.
#[test]
fn a_second_address_takes_events_and_nothing_else() {
    let place = place();
    let listen = [("PITCREW_HOOKS_LISTEN", "127.0.0.1:0".to_owned())];
    let mut server = Server::start(&place, "data", &listen);
    let log = std::fs::read_to_string(place.path("data.log")).unwrap();
    let (_, rest) = log.split_once("webhooks").unwrap_or_else(|| panic!("{log}"));
    let (_, rest) = rest.split_once("http://127.0.0.1:").unwrap();
    server.port = rest.split('/').next().unwrap().parse().unwrap();
    assert_eq!(server.push("c0ffee", KEY).status, 202);
    let body = push("beef");
    let signature = sign(&body, KEY);
    let told = server.post("/", &[("X-GitHub-Event", "push"), ("X-Hub-Signature-256", &signature)], &body);
    assert_eq!((told.status, &told.json()["eventListener"]), (202, &json!("forge")));
    assert_eq!(server.post("/api/v2/variables", &[], b"{}").status, 404);
    until("both have started", || (runs(&place).len() == 2).then_some(()));
}

/// Answers as interceptors of one's own do, one connection after the other; what it was asked goes to `asked`.
fn interceptor(answers: Vec<Value>) -> (u16, std::sync::mpsc::Receiver<Value>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, (sender, asked)) = (listener.local_addr().unwrap().port(), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut bytes = Vec::new();
            let mut part = [0; 4096];
            let body = loop {
                let read = stream.read(&mut part).unwrap_or(0);
                bytes.extend_from_slice(&part[..read]);
                let text = String::from_utf8_lossy(&bytes);
                let whole = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
                if let Some(body) = whole {
                    break body;
                }
                assert!(read > 0, "the request broke off: {text}");
            };
            let _ = sender.send(body);
            let text = answer.to_string();
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json";
            let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        }
    });
    (port, asked)
}

#[test]
fn interceptors_elsewhere_are_asked_and_what_they_add_reaches_the_run() {
    let yes = json!({"continue": true, "extensions": {"team": "blue $(params.x)"}});
    let no = json!({"continue": false, "status": {"message": "not on a Friday"}});
    let (port, asked) = interceptor(vec![yes, no]);
    let place = Place::new();
    std::fs::create_dir_all(place.path("workflows")).unwrap();
    place.file(
        "own.yaml",
        &format!(
            "apiVersion: triggers.tekton.dev/v1alpha1
kind: ClusterInterceptor
metadata: {{name: ours}}
spec: {{clientConfig: {{url: 'http://127.0.0.1:{port}/ask'}}}}
---
apiVersion: triggers.tekton.dev/v1beta1
kind: ClusterTriggerBinding
metadata: {{name: team}}
spec: {{params: [{{name: team, value: $(extensions.team)}}]}}
---
apiVersion: triggers.tekton.dev/v1beta1
kind: EventListener
metadata: {{name: open}}
spec:
  triggers:
    - name: any
      interceptors: [{{ref: {{name: ours}}, params: [{{name: color, value: blue}}]}}]
      bindings: [{{ref: team, kind: ClusterTriggerBinding}}]
      template:
        spec:
          params: [{{name: team}}]
          resourcetemplates:
            - {{apiVersion: v1, kind: ConfigMap, metadata: {{generateName: note-}}, data: {{team: $(tt.params.team)}}}}
            - apiVersion: tekton.dev/v1
              kind: TaskRun
              metadata: {{name: fixed}}
              spec: {{taskSpec: {{steps: [{{name: a, image: busybox, script: 'true'}}]}}}}
"
        ),
    );
    place.run("apply -f own.yaml").ends(0);
    let server = Server::start(&place, "data", &[]);
    let post = |n: u32| {
        let told = server.post("/hooks/default/open?from=here", &[], format!("{{\"n\": {n}}}").as_bytes());
        assert_eq!(told.status, 202, "{told:?}");
        settled(&place, told.json()["eventID"].as_str().unwrap())
    };
    let line = post(1);
    let request = asked.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&request["body"], &request["interceptor_params"]["color"]), (&json!("{\"n\": 1}"), &json!("blue")));
    assert_eq!(request["context"]["event_url"], json!("/hooks/default/open?from=here"));
    let made = line["outcome"][0]["made"].as_array().unwrap_or_else(|| panic!("{line}"));
    assert_eq!((&made[0]["kind"], &made[1]["name"]), (&json!("ConfigMap"), &json!("fixed")), "{line}");
    let line = post(2);
    assert_eq!(
        (&line["outcome"][0]["result"], &line["outcome"][0]["by"]),
        (&json!("filtered"), &json!("ours")),
        "{line}"
    );
    assert_eq!(line["outcome"][0]["why"], json!("not on a Friday"), "{line}");
    // Nobody answers any more; the trigger says so.
    let line = post(3);
    assert_eq!((&line["outcome"][0]["result"], &line["outcome"][0]["by"]), (&json!("error"), &json!("ours")), "{line}");
    assert_eq!(runs(&place).len(), 1);
    // A template that makes what cannot be made here is refused with its place.
    place.file(
        "odd.yaml",
        "apiVersion: triggers.tekton.dev/v1beta1\nkind: TriggerTemplate\nmetadata: {name: odd}\nspec:\n  \
         resourcetemplates:\n    - {apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}\n",
    );
    let refused = place.run("apply -f odd.yaml").ends(2);
    assert!(refused.stderr.contains("odd.yaml:6:") && refused.stderr.contains("cannot be made here"), "{refused:?}");
}

/// Events are accepted, and then the server is killed, at whatever it is doing.
#[test]
fn a_server_that_is_killed_loses_no_event_and_starts_none_twice() {
    let place = place();
    let kills: usize = std::env::var("PITCREW_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4).clamp(4, 50);
    let mut accepted = Vec::new();
    for round in 0..kills {
        let mut server = Server::start(&place, "data", &[]);
        for n in 0..5 {
            let told = server.push(&format!("{round:02}{n:02}"), KEY);
            assert_eq!(told.status, 202, "{told:?}");
            accepted.push(told.json()["eventID"].as_str().unwrap().to_owned());
        }
        // At another moment each time: as soon as so many of these are settled.
        until("some are settled", || {
            let settled = deliveries(&place).iter().filter(|line| line["state"] == "done").count();
            (settled >= accepted.len() - 5 + round % 4).then_some(())
        });
        server.child.kill().unwrap();
        server.child.wait().unwrap();
    }
    let _server = Server::start(&place, "data", &[]);
    until("every delivery is settled", || deliveries(&place).iter().all(|line| line["state"] == "done").then_some(()));
    let all = runs(&place);
    let mut events: Vec<&str> = all
        .iter()
        .filter_map(|run| run["metadata"]["labels"]["triggers.tekton.dev/triggers-eventid"].as_str())
        .collect();
    events.sort_unstable();
    accepted.sort_unstable();
    assert_eq!(events, accepted);
}

/// Two servers of one database: the one that does not lead takes events all the same.
#[test]
fn a_standby_takes_events_and_the_leader_starts_their_runs() {
    let place = place();
    let store = [
        ("PITCREW_STORE", place.path("data/pitcrew.db").display().to_string()),
        ("PITCREW_SECRET_KEY", std::fs::read_to_string(place.path("data/secret.key")).unwrap_or_default()),
    ];
    // Sealed under the key that both are given.
    let with = |line: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
        command.args(line.split_whitespace()).current_dir(place.path("")).env("PITCREW_DATA_DIR", place.path("data"));
        let output = command.envs(store.iter().map(|(name, value)| (name, value))).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    with("apply -f secret.yaml");
    let leader = Server::start(&place, "data", &store);
    let standby = Server::start(&place, "other", &store);
    let told = standby.push("beef", KEY);
    assert_eq!(told.status, 202, "{told:?}");
    let event = told.json()["eventID"].as_str().unwrap().to_owned();
    let line = settled(&place, &event);
    assert_eq!(line["outcome"][0]["result"], json!("fired"), "{line}");
    // What the leader takes after its standby has it is a duplicate as well.
    let again = leader.push("beef", KEY);
    assert_eq!(again.json()["eventID"], json!(event));
    assert_eq!(runs(&place).len(), 1);
}

#[test]
fn bodies_that_never_end_and_senders_that_never_finish_hold_nobody_up() {
    let place = place();
    let server = Server::start(&place, "data", &[]);
    // One that says how long it is, is refused before any of it is read.
    let mut long = server.open();
    long.write_all(&head("/hooks/default/forge", &[], Some(100 << 20))).unwrap();
    assert_eq!(answer(&mut long).unwrap().status, 413);
    // One that does not say it is cut off.
    let mut chunked = server.open();
    chunked.write_all(&head("/hooks/default/forge", &[], None)).unwrap();
    let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    let sent = (0..100).take_while(|_| chunked.write_all(&chunk).is_ok()).count();
    assert!(sent < 100, "all of it was taken");
    // Those that begin and say no more.
    let slow: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = server.open();
            stream.write_all(&head("/hooks/default/forge", &[], Some(1000))).unwrap();
            stream.write_all(b"{").unwrap();
            stream
        })
        .collect();
    let told = server.push("feed", KEY);
    assert_eq!(told.status, 202, "{told:?}");
    settled(&place, told.json()["eventID"].as_str().unwrap());
    drop(slow);
    // Events in another order than they came about are each by themselves, and bytes that are no text are no JSON.
    for commit in ["9", "1", "5"] {
        assert_eq!(server.push(commit, KEY).status, 202);
    }
    let bytes = [0xff, 0xfe, 0];
    let signature = sign(&bytes, KEY);
    let told = server.post("/hooks/default/forge", &[("X-Hub-Signature-256", &signature)], &bytes);
    assert_eq!(told.status, 400, "{told:?}");
    until("all have started", || (runs(&place).len() == 4).then_some(()));
}
