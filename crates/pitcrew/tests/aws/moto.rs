//! Moto's server: AWS on this machine, with checks of signatures and policies where they are asked for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use pitcrew_exec::python::{Env, EnvRequest, ensure, ensure_in};
use serde_json::Value;

use crate::harness::{Running, World};

pub struct Moto {
    _process: Running,
    pub address: String,
}

impl Moto {
    pub fn start() -> Moto {
        Moto::start_in(&python())
    }

    /// With the programs of that environment.
    pub fn start_in(env: &Env) -> Moto {
        let mut process = Command::new(env.bin().join("moto_server"))
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines().map(Result::unwrap);
        let process = Running(process);
        let mut lines = lines.skip_while(|line| !line.contains("Running on http://"));
        let address = lines.next().unwrap().rsplit_once("http://").unwrap().1.trim().to_owned();
        // What it goes on to say must not fill the pipe.
        std::thread::spawn(move || lines.count());
        Moto { _process: process, address }
    }

    pub fn port(&self) -> u16 {
        self.address.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// Points a world's programs here, as somebody whom everything is allowed to.
    pub fn serve(&self, world: &mut World) {
        world.env.extend([
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "id".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "hush-hush".to_owned()),
        ]);
    }

    /// One request; the body of an answer that must be a success.
    pub fn request(&self, service: &str, method: &str, path: &str, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        // The server looks for which service a signature is; unless asked to, it does not check it.
        let key = format!(
            "AWS4-HMAC-SHA256 Credential=id/20260301/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {key}\r\n{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        assert!(head.starts_with("HTTP/1.1 2"), "{service} {path}: {answer}");
        body.to_owned()
    }

    /// A call of a service that takes a form.
    pub fn form(&self, service: &str, form: &str) -> String {
        self.request(service, "POST", "/", "Content-Type: application/x-www-form-urlencoded\r\n", form)
    }

    /// A call of a service that speaks JSON: `secretsmanager.CreateSecret`.
    pub fn json(&self, service: &str, target: &str, input: &Value) -> Value {
        let head = format!("Content-Type: application/x-amz-json-1.1\r\nX-Amz-Target: {target}\r\n");
        let body = self.request(service, "POST", "/", &head, &input.to_string());
        if body.is_empty() { Value::Null } else { serde_json::from_str(&body).unwrap() }
    }

    /// A user with an access key whom these actions are allowed to: the key and its secret.
    pub fn user(&self, name: &str, actions: &[&str]) -> (String, String) {
        self.form("iam", &format!("Version=2010-05-08&Action=CreateUser&UserName={name}"));
        let answer = self.form("iam", &format!("Version=2010-05-08&Action=CreateAccessKey&UserName={name}"));
        let field = |name: &str| {
            let text = answer.split_once(&format!("<{name}>")).unwrap().1;
            text.split_once('<').unwrap().0.to_owned()
        };
        let list = actions.iter().map(|action| format!("%22{action}%22")).collect::<Vec<_>>().join(",");
        let policy = format!(
            "%7B%22Version%22:%222012-10-17%22,%22Statement%22:[%7B%22Effect%22:%22Allow%22,%22Action%22:[{list}],%22Resource%22:%22*%22%7D]%7D"
        );
        if !actions.is_empty() {
            self.form(
                "iam",
                &format!(
                    "Version=2010-05-08&Action=PutUserPolicy&UserName={name}&PolicyName=p&PolicyDocument={policy}"
                ),
            );
        }
        (field("AccessKeyId"), field("SecretAccessKey"))
    }

    /// From now on signatures and policies are checked.
    pub fn check_everything(&self) {
        self.request("none", "POST", "/moto-api/reset-auth", "", "0");
    }
}

/// The Python programs of these tests: built once per machine.
pub fn python() -> Env {
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
    let all = ["moto[s3,awslambda,stepfunctions]>=5,<6", "flask", "flask-cors"];
    ensure_in(&of(&all), &cache, &path, &mut say).unwrap()
}
