//! Notifications with real other sides: an SMTP server with TLS and a login (aiosmtpd), Amazon SNS (moto), and a webhook;
//! and a server that is killed between the commit of a notice and the answer of its channel.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use pitcrew_exec::python::{Env, EnvRequest, ensure, ensure_in};
use serde_json::{Value, json};

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(180);

#[allow(clippy::disallowed_methods, reason = "a test with processes has to wait for them in real time")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "a test with processes has to wait for them in real time")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

/// A data directory, a configuration and a folder of workflows.
struct World {
    dir: tempfile::TempDir,
    env: Vec<(&'static str, String)>,
}

impl World {
    fn new(config: &str) -> World {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pitcrew.yaml"), config).unwrap();
        std::fs::create_dir(dir.path().join("workflows")).unwrap();
        World { dir, env: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
        command.args(args).current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.dir.path());
        command.env("PITCREW_DATA_DIR", self.path("data")).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}", text(&out));
        serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}\n{}", text(&out)))
    }

    fn serve(&self) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("server.log")).unwrap();
        let mut command =
            self.command(&["server", "--no-auth", "--listen", "127.0.0.1:0", "--workflows", "workflows", "-v"]);
        Running(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
    }

    fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = now();
        while !holds() {
            let log = || std::fs::read_to_string(self.path("server.log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "still not: {what}\n{}", log());
            pause();
        }
    }
}

fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// A process that ends with the test, also with one that fails.
struct Running(Child);

impl Running {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A webhook that answers, or takes a request and never answers it.
struct Hook {
    port: u16,
    silent: Arc<AtomicBool>,
    /// Head and body of each request.
    got: mpsc::Receiver<(String, String)>,
}

impl Hook {
    fn start() -> Hook {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = Arc::new(AtomicBool::new(false));
        let (sender, got) = mpsc::channel();
        let is_silent = silent.clone();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = request(&mut stream) else { continue };
                // Decided before the test hears of the request.
                let hold = is_silent.load(Ordering::SeqCst);
                if sender.send(request).is_err() {
                    return;
                }
                if hold {
                    held.push(stream);
                } else {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                }
            }
        });
        Hook { port, silent, got }
    }

    fn next(&self) -> (String, String) {
        self.got.recv_timeout(PATIENCE).expect("a request")
    }
}

fn request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).ok()?))
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
}

#[test]
fn a_server_that_is_killed_before_the_answer_sends_again_and_after_it_does_not() {
    let hook = Hook::start();
    let config = "channels: {hook: {type: webhook, url: {env: HOOK}}}\nnotify: [{on: [failure], to: hook}]\n";
    let mut world = World::new(config);
    world.env.push(("HOOK", format!("http://127.0.0.1:{}/T0KEN", hook.port)));
    std::fs::write(world.path("workflows/fails.yaml"), "workflow: fails\ntasks: {t: {run: 'echo at work; exit 3'}}\n")
        .unwrap();
    let mut server = world.serve();
    world.wait("the workflow is there", || text(&world.run(&["dags", "list"])).contains("fails"));

    hook.silent.store(true, Ordering::SeqCst);
    assert!(world.run(&["dags", "trigger", "fails", "--run-id", "first"]).status.success());
    let (head, body) = hook.next();
    let delivery = header(&head, "x-pitcrew-delivery").to_owned();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["event"], &body["run"]["id"]), (&json!("failure"), &json!("first")));
    assert_eq!(body["tasks"][0]["log"], "at work");
    server.kill();

    hook.silent.store(false, Ordering::SeqCst);
    let mut server = world.serve();
    assert_eq!(header(&hook.next().0, "x-pitcrew-delivery"), delivery, "sent again, under the same id");
    let sent = || world.json(&["notify", "list", "--state", "sent", "--output", "json"]).as_array().unwrap().len();
    world.wait("it is settled", || sent() == 1);
    server.kill();

    let _server = world.serve();
    assert!(world.run(&["dags", "trigger", "fails", "--run-id", "second"]).status.success());
    let (_, body) = hook.next();
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap()["run"]["id"],
        "second",
        "the first is not sent a third time"
    );
    world.wait("it is settled", || sent() == 2);

    let log = std::fs::read_to_string(world.path("server.log")).unwrap();
    let shown = [log, text(&world.run(&["config", "show"])), text(&world.run(&["notify", "list"]))].join("\n");
    assert!(!shown.contains("T0KEN"), "{shown}");
    assert!(shown.contains("webhook, address from env HOOK"), "{shown}");
}

/// The Python programs of these tests: built once per machine.
fn python() -> Env {
    let kept = std::env::var_os("PITCREW_TEST_CACHE")
        .map_or_else(|| std::env::temp_dir().join("pitcrew-test-cache"), Into::into);
    let cache = kept.join("python");
    let of = |requirements: &[&str]| EnvRequest {
        requirements: requirements.iter().map(|r| (*r).to_owned()).collect(),
        ..EnvRequest::default()
    };
    let mut say = |line: &str| eprintln!("{line}");
    let uv = ensure(&of(&["uv"]), &cache, &mut say).unwrap();
    let path = format!("{}:{}", uv.bin().display(), std::env::var("PATH").unwrap());
    let all = ["moto[s3]>=5,<6", "flask", "flask-cors", "aiosmtpd>=1.4,<2", "trustme>=1,<2"];
    ensure_in(&of(&all), &cache, &path, &mut say).unwrap()
}

#[test]
fn mail_goes_over_tls_with_a_login_and_never_without() {
    let env = python();
    let certificates = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/notify/smtp.py");
    let mut smtp = Command::new(env.bin().join("python"))
        .arg(script)
        .arg(certificates.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(smtp.stdout.take().unwrap()).lines();
    let _smtp = Running(smtp);
    let mut said = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let ports = said();
    let channel = |security: &str, more: &str| {
        let port = &ports[security];
        format!(
            "{{type: mail, server: localhost, port: {port}, security: {security}, user: ci, password: {{file: password}}, \
             from: Pitcrew <ci@example.com>, to: [a@example.com, b@example.com]{more}}}",
        )
    };
    let ca = format!(", ca_file: {}", certificates.path().join("ca.pem").display());
    let world = World::new(&format!(
        "channels:\n  starttls: {}\n  tls: {}\n  stranger: {}\n",
        channel("starttls", &ca),
        channel("tls", &ca),
        channel("starttls", "")
    ));
    std::fs::write(world.path("password"), "mail-s3cret\n").unwrap();
    for name in ["starttls", "tls"] {
        let out = world.run(&["notify", "test", name]);
        assert!(out.status.success(), "{}", text(&out));
        let mail = said();
        assert_eq!(mail["tls"], true);
        assert_eq!((&mail["login"], &mail["to"]), (&json!("ci"), &json!(["a@example.com", "b@example.com"])));
        assert_eq!(mail["subject"], "[pitcrew] A test of Pitcrew");
        assert_eq!(mail["automatic"], "auto-generated");
        assert!(mail["id"].as_str().unwrap().ends_with("@example.com>"), "{mail}");
        assert!(mail["text"].as_str().unwrap().contains(&format!("The channel {name} works")), "{mail}");
        assert!(mail["html"].as_str().unwrap().contains("<h2"), "{mail}");
    }
    let out = world.run(&["notify", "test", "stranger"]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out));
    assert!(text(&out).contains("certificate"), "{}", text(&out));

    std::fs::write(world.path("password"), "wr0ng-password").unwrap();
    let out = world.run(&["notify", "test", "tls"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out).contains("535") && !text(&out).contains("wr0ng-password"), "{}", text(&out));
}

#[test]
fn sns_takes_a_signed_message() {
    let hook = Hook::start();
    let env = python();
    let mut moto = Command::new(env.bin().join("moto_server"))
        .args(["-H", "127.0.0.1", "-p", "0"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(moto.stderr.take().unwrap()).lines().map(Result::unwrap);
    let _moto = Running(moto);
    let mut lines = lines.skip_while(|line| !line.contains("Running on http://"));
    let address = lines.next().unwrap().rsplit_once("http://").unwrap().1.trim().to_owned();
    // What it goes on to say must not fill the pipe.
    std::thread::spawn(move || lines.count());
    let call = |form: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        let key = "AWS4-HMAC-SHA256 Credential=id/20260301/us-east-1/sns/aws4_request, SignedHeaders=host, Signature=0";
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: {address}\r\nAuthorization: {key}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{form}",
            form.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    call("Version=2010-03-31&Action=CreateTopic&Name=alerts");
    call(&format!(
        "Version=2010-03-31&Action=Subscribe&TopicArn=arn:aws:sns:us-east-1:123456789012:alerts&Protocol=http&Endpoint=http://127.0.0.1:{}/x",
        hook.port
    ));
    let topic = |name: &str| format!("{{type: sns, topic: 'arn:aws:sns:us-east-1:123456789012:{name}'}}");
    let mut world = World::new(&format!("channels:\n  topic: {}\n  none: {}\n", topic("alerts"), topic("nothing")));
    world.env.extend([
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9".to_owned()),
        ("AWS_ENDPOINT_URL_SNS", format!("http://{address}")),
        ("AWS_ACCESS_KEY_ID", "id".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "hush-hush".to_owned()),
    ]);
    let out = world.run(&["notify", "test", "topic"]);
    assert!(out.status.success(), "{}", text(&out));
    let body: Value = serde_json::from_str(&hook.next().1).unwrap();
    assert_eq!((&body["Type"], &body["Subject"]), (&json!("Notification"), &json!("pitcrew: A test of Pitcrew")));
    assert!(body["Message"].as_str().unwrap().contains("The channel topic works"), "{body}");

    let out = world.run(&["notify", "test", "none"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out).contains("`sns` in us-east-1 refused `Publish`: NotFound") && !text(&out).contains("hush-hush"),
        "{}",
        text(&out)
    );
}
