//! Traces, as a collector gets them from the real program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use pitcrew_exec::python::{EnvRequest, ensure};
use serde_json::Value;

use crate::harness::Place;

const FLOW: &str = r#"
workflow: traced
tasks:
  first: {run: 'echo "$TRACEPARENT" > "$PITCREW_WORKSPACE/parent"'}
  second:
    needs: [first]
    run: exit $((3 * (PITCREW_TRY == 1)))
    retries: 1
    retry_delay: 0s
"#;

struct Request {
    head: String,
    body: Value,
}

/// A collector that gives these answers, one after the other and the last for ever.
fn collector(answers: &'static [&'static str]) -> (String, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        let mut answers = answers.iter().copied().chain(std::iter::repeat(*answers.last().unwrap()));
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let head: Vec<String> = reader.by_ref().lines().map(Result::unwrap).take_while(|l| !l.is_empty()).collect();
            let head = head.join("\n").to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let body = serde_json::from_slice(&body).unwrap();
            write!(
                stream,
                "HTTP/1.1 {}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}",
                answers.next().unwrap()
            )
            .unwrap();
            if sender.send(Request { head, body }).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

fn run(place: &Place, env: &[(&str, &str)]) {
    place.file("flow.yaml", FLOW);
    let line = "run flow.yaml";
    let output = place.command(line).envs(env.iter().copied()).output().unwrap();
    place.ran(line, output).ends(0);
}

fn spans(requests: &Receiver<Request>) -> Vec<Value> {
    let requests = requests.try_iter().flat_map(|request| {
        let spans = &request.body["resourceSpans"][0]["scopeSpans"][0]["spans"];
        spans.as_array().unwrap().clone()
    });
    requests.collect()
}

fn attribute(span: &Value, key: &str) -> Value {
    let found = span["attributes"].as_array().unwrap().iter().find(|entry| entry["key"] == key);
    found.map_or(Value::Null, |entry| entry["value"].as_object().unwrap().values().next().unwrap().clone())
}

#[test]
fn a_run_is_a_trace_with_a_span_for_each_attempt() {
    let place = Place::new();
    // Busy at first: what was sent comes again.
    let (address, requests) = collector(&["503 busy", "200 OK"]);
    run(
        &place,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &address),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ],
    );
    let request = requests.recv().unwrap();
    assert!(request.head.starts_with("post /v1/traces http/1.1\n") && request.head.contains("\nx-key: a b\n"));
    let resource = &request.body["resourceSpans"][0]["resource"];
    assert_eq!(attribute(resource, "service.name"), "pitcrew");
    assert_eq!(attribute(resource, "deployment.environment.name"), "test");

    let mut spans = spans(&requests);
    spans.sort_by_key(|span| span["parentSpanId"].is_null());
    let [first, failed, second, root] = spans.as_slice() else { panic!("{spans:#?}") };
    let shown = |span: &Value| {
        let code = span["status"]["code"].clone();
        let (attempt, result) = (attribute(span, "pitcrew.task.try"), attribute(span, "cicd.pipeline.task.run.result"));
        format!("{} {attempt} {result} {code}", span["name"])
    };
    assert_eq!(shown(first), r#""RUN first" "1" "success" 1"#);
    assert_eq!(shown(failed), r#""RUN second" "1" "failure" 2"#);
    assert_eq!(failed["status"]["message"], "exit code 3");
    assert_eq!(attribute(failed, "process.exit.code"), "3");
    assert_eq!(shown(second), r#""RUN second" "2" "success" 1"#);
    assert_eq!((&root["name"], &root["parentSpanId"]), (&Value::from("RUN traced"), &Value::Null));
    let time = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
    for span in [first, failed, second] {
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&root["traceId"], &root["spanId"]));
        assert!(time(root, "startTimeUnixNano") <= time(span, "startTimeUnixNano"));
        assert!(time(span, "endTimeUnixNano") <= time(root, "endTimeUnixNano"));
        assert!(time(span, "startTimeUnixNano") < time(span, "endTimeUnixNano"));
    }
    let parent = std::fs::read_to_string(place.path("data/runs/1/workspace/parent")).unwrap();
    let [trace, span] = [&first["traceId"], &first["spanId"]].map(|id| id.as_str().unwrap());
    assert_eq!(parent.trim(), format!("00-{trace}-{span}-01"));
    read_by_the_official_types(&request.body);
}

/// Unknown fields and wrong types are errors there. Under `scripts/test` alone, because it fetches a package.
fn read_by_the_official_types(body: &Value) {
    let Some(cache) = std::env::var_os("PITCREW_TEST_CACHE").map(PathBuf::from) else {
        eprintln!("PITCREW_TEST_CACHE is not set; `scripts/test` sets it");
        return;
    };
    let request = EnvRequest { requirements: vec!["opentelemetry-proto==1.*".to_owned()], ..EnvRequest::default() };
    let env = ensure(&request, &cache.join("python"), &mut |line| eprintln!("{line}")).unwrap();
    let script = "import sys\n\
         from google.protobuf.json_format import Parse\n\
         from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest\n\
         request = Parse(sys.argv[1], ExportTraceServiceRequest())\n\
         spans = request.resource_spans[0].scope_spans[0].spans\n\
         print(len(spans), *sorted({span.name for span in spans}))";
    let out = Command::new(env.bin().join("python")).args(["-c", script, &body.to_string()]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert_eq!(said.trim(), "4 RUN first RUN second RUN traced", "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_collector_that_is_away_or_refuses_or_is_named_wrongly_does_not_hurt_a_run() {
    let (refusing, requests) = collector(&["400 Bad Request"]);
    run(&Place::new(), &[("PITCREW_OTLP_ENDPOINT", &refusing)]);
    assert_eq!(spans(&requests).len(), 4, "what is refused for good is not sent again");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    run(&Place::new(), &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("http://{free}/v1/traces"))]);
    run(&Place::new(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317")]);
}
