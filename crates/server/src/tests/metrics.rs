//! `/metrics`: what is recorded is what the documentation says, and what the dashboard and the alerts ask for.

use std::collections::{BTreeSet, VecDeque};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use axum::body::Body;
use axum::http::{Method, StatusCode};
use pitcrew_control::clock;
use pitcrew_control::config::{Overrides, Settings};
use pitcrew_control::metrics::table::{ALL, Def, Kind};
use pitcrew_control::recovery::Service;
use pitcrew_core::recovery::{
    Act, Advice, CheckOutcome, Input, JobSpec, Mode, NodeFacts, Place, Policy, Recovery, Rung, Seen, Signal, SignalKind,
};
use pitcrew_exec::gpu::Reading;
use pitcrew_exec::ssh::Fault;
use pitcrew_store::{AuditEntry, Settled, VariableSet};
use serde_json::Value;

use super::Rig;

const PAGE: &str = include_str!("../../../../docs/metrics.md");

const BUSY: &str = "
workflow: busy
tasks:
  again: {backend: fake, run: x, retries: 1, retry_delay: 0s, env: {FAKE_FAIL_UNTIL_ATTEMPT: '2'}}
  gpu: {backend: fake, run: x, resources: {gpu: 1}}
  remember: {uses: variables.set, with: {values: {a: '1'}}}
---
workflow: served
tasks:
  a: {queue: s21, run: 'echo hi'}
---
workflow: unserved
tasks:
  a: {queue: nobodys, run: 'echo hi'}
";

fn def(name: &str) -> Option<&'static Def> {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    ALL.iter().find(|def| def.name == name || (def.name == base && matches!(def.kind, Kind::Histogram(_))))
}

/// Recovery is on, and a node was repaired while its job began anew; nobody does anything to a real one.
fn recovers(rig: &mut Rig) {
    let file = rig._dir.path().join("pitcrew.yaml");
    std::fs::write(&file, "recovery: {mode: auto}\n").unwrap();
    let settings = Settings::read(&Overrides { config: Some(file), ..Overrides::default() }, &|_| None).unwrap();
    let (desk, _) = Service::open(&settings.recovery.unwrap(), rig.app.store.clone());
    rig.site.app.recovery = desk;
    rig.router = crate::router(rig.site.clone());

    let mut recovery = Recovery::new(Policy { mode: Mode::Auto, ..Policy::default() });
    let (node, job) = (|| "s21".to_owned(), || "1/a".to_owned());
    let facts = NodeFacts { rungs: [Rung::ResetGpu].into(), boot_id: Some("b".to_owned()), ..NodeFacts::default() };
    let seen = || Seen { boot_id: Some("b".to_owned()), agent: true, gpus: Some(1) };
    let started = |attempt| {
        let ranks = vec![Place { node: node(), gpus: vec!["gpu-0".to_owned()] }];
        Input::JobStarted { job: job(), attempt, ranks, spec: JobSpec::default() }
    };
    let signal = Input::Signal(Signal {
        id: "b/7".to_owned(),
        node: node(),
        boot_id: Some("b".to_owned()),
        gpu: Some("gpu-0".to_owned()),
        job: None,
        at: clock::now(),
        kind: SignalKind::Xid { code: 119 },
        advice: Advice::ResetGpu,
        evidence: "timeout".to_owned(),
    });
    let mut told =
        VecDeque::from([Input::Node { node: node(), facts }, Input::Observed { node: node(), seen: seen() }]);
    told.extend([started(1), signal]);
    rig.app.metrics.expect_recovery(&recovery);
    while let Some(input) = told.pop_front() {
        let changes = recovery.apply(input, clock::now());
        rig.app.metrics.recovered(&changes, &recovery, clock::now());
        told.extend(changes.effects.into_iter().map(|effect| match effect.act {
            Act::StopJob { job, attempt, .. } => Input::JobStopped { job, attempt },
            Act::RestartJob { attempt, .. } => started(attempt),
            Act::Observe { node } => Input::Observed { node, seen: seen() },
            Act::RunCheck { .. } => {
                Input::CheckEnded { effect: effect.id, outcome: CheckOutcome::Pass, evidence: String::new() }
            }
            _ => Input::Done { effect: effect.id },
        }));
    }
}

/// A server that has recorded something in every family.
async fn busy() -> Rig {
    let mut rig = Rig::placing(None).await.knowing(BUSY).await;
    recovers(&mut rig);
    let quota = serde_json::json!({ "gpus": 4 });
    assert!(rig.patch("/api/pitcrew/v1/quotas/default", quota).await.status.is_success());
    rig.finish("busy").await;
    let set = VariableSet { key: "b".into(), value: "2".into(), description: None };
    rig.app.store.set_variable(set, AuditEntry::new(clock::now(), "admin", "variable.set")).await.unwrap();
    // Nothing that the store in memory is asked here can fail.
    (rig.app.metrics.store_observer())("commit", std::time::Duration::ZERO, false);
    // Only a server with a channel has the one, only one with a collector the other.
    rig.app.metrics.notice_settled("mail", &Settled::Sent { at: clock::now() });
    rig.app.metrics.spans("sent", 1);
    rig.app.metrics.event("deliveries", "run");
    // No host is connected to here.
    rig.app.metrics.connected("gpu-1", Ok(std::time::Duration::from_millis(90)));
    rig.app.metrics.connected("gpu-1", Err(&Fault::ClosedPort { at: "gpu-1:22".into() }.into()));
    let secrets = pitcrew_control::secrets::open(&rig.app.store, &rig.app.vault, &rig.app.aws).unwrap();
    rig.app.metrics.follow(&pitcrew_control::ssh::pool(&rig.app.data, &secrets));
    let told =
        Reading { uuid: "gpu-0".into(), use_percent: Some(40.0), power_watts: Some(300.0), ..Reading::default() };
    rig.app.fleet.told("local", vec![told]);
    // No repository is fetched here.
    let figures = [("fetch_seconds", 0.5), ("fetch_bytes", 1024.0)].map(|(name, n)| (name.to_owned(), n.into()));
    rig.app.metrics.action_succeeded("git.checkout", &figures.into());
    // A worker that was heard and that ran something, and a queue that nobody serves.
    super::workers::works_off(&rig, "served").await;
    let run = rig.start("unserved", serde_json::json!({})).await;
    rig.until(run.key, "a", "scheduled").await;
    // The first scrape records itself.
    rig.get("/metrics").await;
    rig
}

#[tokio::test]
async fn what_is_recorded_is_what_the_documentation_says() {
    let rig = busy().await;
    let answer = rig.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4");
    let mut seen = BTreeSet::new();
    for line in answer.text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().unwrap() >= 0.0, "{line}");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let def = def(name).unwrap_or_else(|| panic!("{line}"));
        let labels: BTreeSet<&str> = labels.split('"').step_by(2).filter_map(label_before).collect();
        let expected: BTreeSet<&str> =
            def.labels.iter().copied().chain(name.ends_with("_bucket").then_some("le")).collect();
        assert_eq!(labels, expected, "{line}");
        seen.insert(def.name);
    }
    for def in ALL {
        assert!(seen.contains(def.name), "`{}` is never recorded", def.name);
        let labels: Vec<String> = def.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = match def.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let row = format!("| `{}` | {kind} | {} | {} |", def.name, labels.join(", "), def.help);
        assert!(PAGE.contains(&row), "docs/metrics.md needs this line:\n{row}");
    }
    let rows = PAGE.lines().filter(|line| line.starts_with("| `pitcrew_") || line.starts_with("| `process_")).count();
    assert_eq!(rows, ALL.len(), "docs/metrics.md has lines about metrics that are not there");
    for expected in [
        "pitcrew_runs_finished_total{state=\"success\",workflow=\"busy\"} 1",
        "pitcrew_tasks_finished_total{state=\"success\",workflow=\"busy\"} 3",
        "pitcrew_task_retries_total{workflow=\"busy\"} 1",
        "pitcrew_attempts_total{backend=\"fake\",outcome=\"failed\"} 1",
        "pitcrew_variables_set_total{by=\"task\"} 1",
        "pitcrew_variables_set_total{by=\"user\"} 1",
        "pitcrew_http_requests_total{method=\"GET\",route=\"/metrics\",status=\"2xx\"} 1",
        "pitcrew_gpus 2",
        "pitcrew_nodes{standing=\"ready\"} 2",
        "pitcrew_node_gpus{condition=\"usable\",node=\"local\"} 1",
        "pitcrew_node_gpu_use_percent{node=\"local\"} 40",
        "pitcrew_node_gpu_power_watts{node=\"local\"} 300",
        "pitcrew_ssh_connect_seconds_count{host=\"gpu-1\"} 1",
        "pitcrew_ssh_connect_failures_total{host=\"gpu-1\",reason=\"unreachable\"} 1",
        "pitcrew_ssh_connections 0",
        "pitcrew_workers{standing=\"ready\"} 1",
        "pitcrew_worker_slots{worker=\"w1\"} 2",
        "pitcrew_worker_slots_used{worker=\"w1\"} 0",
        "pitcrew_worker_attempts_total{outcome=\"success\",worker=\"w1\"} 1",
        "pitcrew_queue_slots{queue=\"s21\"} 2",
        "pitcrew_queue_slots{queue=\"nobodys\"} 0",
        "pitcrew_queue_waiting{queue=\"nobodys\"} 1",
        "pitcrew_queue_waiting{queue=\"s21\"} 0",
        "pitcrew_incidents_total{cause=\"xid\",verdict=\"fail\"} 1",
        "pitcrew_repairs_total{rung=\"reset_gpu\"} 1",
        "pitcrew_incident_seconds_count{cause=\"xid\",outcome=\"repaired\"} 1",
        "pitcrew_job_recovery_seconds_count{class=\"infrastructure\",step=\"whole\"} 1",
        "pitcrew_incidents_open{state=\"checking\"} 0",
        "pitcrew_nodes_out_of_service 0",
    ] {
        assert!(answer.text.lines().any(|line| line == expected), "{expected}\n{}", answer.text);
    }
}

/// `{workflow=` and `,state=` name a label.
fn label_before(text: &str) -> Option<&str> {
    Some(text.trim_start_matches(['{', ',']).strip_suffix('=')?.trim_end_matches(['!', '=']).trim())
}

#[tokio::test]
async fn what_somebody_types_into_an_address_makes_no_series() {
    let rig = Rig::new().await;
    for path in ["/nonsense/12345", "/runs/12345", "/api/v2/dags/%22%7D%0A"] {
        rig.get(path).await;
    }
    rig.ask(Method::from_bytes(b"BREW").unwrap(), "/runs/12345", "").await;
    let text = rig.get("/metrics").await.text;
    assert!(!text.contains("12345") && !text.contains("BREW") && text.contains("route=\"none\""), "{text}");
}

#[tokio::test]
async fn a_scrape_needs_a_token_unless_it_is_open() {
    let rig = Rig::new().await;
    let anonymous = |path: &str| rig.request(Method::GET, path).body(Body::empty()).unwrap();
    assert_eq!(rig.send(anonymous("/metrics")).await.status, StatusCode::UNAUTHORIZED);
    let mut open = Rig::new().await;
    open.site.metrics_open = true;
    open.router = crate::router(open.site.clone());
    let answer = open.send(anonymous("/metrics")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(open.send(anonymous("/api/v2/dags")).await.status, StatusCode::UNAUTHORIZED);
}

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/monitoring")
}

/// Every PromQL expression of the dashboard, with its variables filled in.
fn dashboard_queries() -> Vec<String> {
    fn collect(value: &Value, queries: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                queries.extend(map.get("expr").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| collect(value, queries));
            }
            Value::Array(list) => list.iter().for_each(|value| collect(value, queries)),
            _ => {}
        }
    }
    let text = std::fs::read_to_string(monitoring().join("dashboard.json")).unwrap();
    let mut queries = Vec::new();
    collect(&serde_json::from_str(&text).unwrap(), &mut queries);
    queries.iter().map(|query| query.replace("$__rate_interval", "5m").replace("$__range", "1h")).collect()
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_what_there_is() {
    let rules = std::fs::read_to_string(monitoring().join("alerts.yaml")).unwrap();
    let queries = dashboard_queries();
    assert!(queries.len() > 20);
    let mut asked = BTreeSet::new();
    for text in queries.iter().chain([&rules]) {
        for start in text.match_indices("pitcrew_").chain(text.match_indices("process_")).map(|(at, _)| at) {
            let rest = &text[start..];
            let (name, after) =
                rest.split_at(rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len()));
            let def = def(name).unwrap_or_else(|| panic!("there is no metric `{name}`: {text}"));
            asked.insert(def.name);
            let Some(labels) = after.strip_prefix('{').and_then(|rest| rest.split_once('}')) else { continue };
            for label in labels.0.split('"').step_by(2).filter(|part| !part.is_empty()) {
                let label = label.trim_matches([',', ' ', '=', '~', '!']);
                let known = def.labels.contains(&label) || ["instance", "job", "le"].contains(&label);
                assert!(known, "`{name}` has no label `{label}`: {text}");
            }
        }
    }
    assert!(asked.len() >= ALL.len() - 6, "much is recorded that nothing shows: {asked:?}");
}

/// `promtool`, which `scripts/test` provides; `None` where nobody asked for these tests.
fn promtool(args: &[&str], input: &str) -> Option<(bool, String)> {
    let path = std::env::var("PITCREW_TEST_PROMTOOL");
    let program = path.as_deref().unwrap_or("promtool");
    let child = Command::new(program)
        .args(args)
        .current_dir(monitoring())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(_) if path.is_err() => {
            eprintln!("skipped: `promtool` is not in PATH; `scripts/test` fetches it");
            return None;
        }
        Err(error) => panic!("cannot start `{program}` of PITCREW_TEST_PROMTOOL: {error}"),
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    Some((out.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[tokio::test]
async fn promtool_finds_nothing_to_say_about_the_exposition() {
    let text = busy().await.get("/metrics").await.text;
    let Some(said) = promtool(&["check", "metrics"], &text) else { return };
    assert_eq!(said, (true, String::new()), "{text}");
}

#[test]
fn the_alerts_fire_when_they_should_and_the_dashboards_queries_are_right() {
    let Some(checked) = promtool(&["check", "rules", "alerts.yaml"], "") else { return };
    assert!(checked.0, "{}", checked.1);
    let (is_right, said) = promtool(&["test", "rules", "alerts.test.yaml"], "").unwrap();
    assert!(is_right, "{said}");
    let rules: Vec<Value> = dashboard_queries()
        .iter()
        .enumerate()
        .map(|(n, query)| serde_json::json!({ "record": format!("query_{n}"), "expr": query }))
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    std::fs::write(file.path(), groups.to_string()).unwrap();
    let (is_right, said) = promtool(&["check", "rules", &file.path().display().to_string()], "").unwrap();
    assert!(is_right, "{said}");
}
