//! An API server with one node and its pods, as far as orders to a node need one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

#[derive(Clone)]
pub struct Server {
    pub url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub struct State {
    pub node: Value,
    pub pods: BTreeMap<String, Value>,
    /// What pods that are made come to.
    pub status: Value,
    /// What was asked that changes something, and was not refused: the method, and the kind of thing.
    pub done: Vec<String>,
    /// Whoever asks for this next is answered with that code.
    pub refusals: Vec<(&'static str, u16)>,
    /// What breaks with 500 reboots the node all the same.
    pub is_heeded: bool,
}

impl Server {
    /// The node `n1` in the boot `b1`.
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let node = json!({
            "metadata": { "name": "n1", "resourceVersion": "1", "annotations": {} },
            "spec": {},
            "status": { "nodeInfo": { "bootID": "b1" }, "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        let server = Server { url, state: Arc::new(Mutex::new(State { node, ..State::default() })) };
        let answering = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answering = answering.clone();
                std::thread::spawn(move || answering.serve(stream));
            }
        });
        server
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// One question; whoever asks has gone if it cannot be read or answered.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next()?, words.next()?);
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let (name, value) = match header.trim_end().split_once(": ") {
                Some(pair) => pair,
                None => break,
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let (code, answer) = self.state().answer(&method, path.split('?').next()?, &body);
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 {code} .\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            answer.len()
        );
        stream.write_all(format!("{head}{answer}").as_bytes()).ok()
    }
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (kind, name) = path.rsplit_once('/').unwrap_or_default();
        let (kind, name) = match kind.rsplit('/').next().unwrap_or_default() {
            "nodes" | "pods" => (kind.rsplit('/').next().unwrap_or_default(), name),
            _ => (name, ""),
        };
        let asked = format!("{method} {kind}");
        if let Some(at) = self.refusals.iter().position(|(what, _)| *what == asked) {
            let (_, code) = self.refusals.remove(at);
            if code == 500 && self.is_heeded {
                self.node["status"]["nodeInfo"]["bootID"] = json!("b2");
            }
            return (code, json!({ "message": format!("{asked}: not now") }));
        }
        if method != "GET" {
            self.done.push(asked.clone());
        }
        match asked.as_str() {
            "GET nodes" => (200, self.node.clone()),
            "PATCH nodes" => {
                let read = body["metadata"]["resourceVersion"].clone();
                if read != self.node["metadata"]["resourceVersion"] {
                    return (409, json!({ "message": "it has changed" }));
                }
                let next = read.as_str().unwrap().parse::<u32>().unwrap() + 1;
                merge(&mut self.node, body);
                self.node["metadata"]["resourceVersion"] = json!(next.to_string());
                (200, self.node.clone())
            }
            "POST pods" => {
                let mut pod = body.clone();
                pod["status"] = self.status.clone();
                self.pods.insert(pod["metadata"]["name"].as_str().unwrap().to_owned(), pod.clone());
                (201, pod)
            }
            "GET pods" => match self.pods.get(name) {
                Some(pod) => (200, pod.clone()),
                None => (404, json!({ "message": "there is none" })),
            },
            "DELETE pods" => {
                self.pods.remove(name);
                (200, json!({}))
            }
            _ => (404, json!({ "message": "nobody knows that" })),
        }
    }
}

/// What stands in `change` is set, and what is null there is removed.
fn merge(value: &mut Value, change: &Value) {
    let Some(change) = change.as_object() else {
        *value = change.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    for (key, new) in change {
        match new {
            Value::Null => drop(value.as_object_mut().unwrap().remove(key)),
            new => merge(&mut value[key], new),
        }
    }
}
