//! Workers over HTTP: a machine enrols, takes its orders, and tells how they went.

mod doors;
mod versions;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use pitcrew_control::clock;
use pitcrew_core::AttemptId;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::fleet::Amount;
use pitcrew_core::state::Exit;
use pitcrew_exec::Ended;
use pitcrew_exec::gpu::{Probe, Reading, Smi};
use pitcrew_exec::worker::protocol::{
    About, Answer, End, Enrol, Enrolled, Has, How, Load, LogTail, Order, PROTOCOL, REPLACED, REVOKED, Sync,
};
use pitcrew_store::{AuditEntry, WorkerToken};
use serde_json::{Value, json};

use super::Rig;
use crate::auth::{Role, digest};

const SOURCE: &str = "
workflow: demo
workspaces: [data]
tasks:
  a: {queue: s21, run: 'echo hi', outputs: {n: {}}}
---
workflow: timed
tasks:
  a: {queue: s21, run: x, timeout: 30m, retries: 1, retry_delay: 1s}
---
workflow: here
tasks:
  a: {backend: fake, run: x}
";

/// A machine as the protocol knows it.
struct Machine<'r> {
    rig: &'r Rig,
    credential: String,
    incarnation: u64,
    seq: AtomicU64,
}

fn about(queues: &[&str]) -> About {
    About {
        version: "1.2.3".into(),
        host: "s21.lab".into(),
        data_dir: "/srv/worker".into(),
        program: "/opt/pitcrew".into(),
        queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
        slots: 2,
        labels: BTreeMap::from([("rack".to_owned(), "a".to_owned())]),
        cpu: None,
        memory_mib: None,
        resources: BTreeMap::new(),
        place: Some("here".to_owned()),
        errands: Vec::new(),
    }
}

fn probe(gpus: &[&str]) -> Probe {
    let gpu = |id: &&str| Reading { uuid: (*id).into(), name: "NVIDIA A100".into(), ..Reading::default() };
    Probe {
        cores: Some(8),
        memory_mib: Some(1 << 15),
        host: Some("s21.lab".into()),
        boot: None,
        smi: Smi::Answered,
        gpus: gpus.iter().map(gpu).collect(),
        remarks: Vec::new(),
    }
}

fn has(attempt: &str, how: How) -> Has {
    Has { attempt: attempt.parse().unwrap(), how }
}

fn running() -> How {
    How::Running { started_at: clock::now() }
}

fn ended(code: i32, outputs: &[(&str, &str)], log: &str) -> How {
    let outputs = outputs.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let now = clock::now();
    let ended = Ended { outputs, started_at: Some(now), ..Ended::bare(Exit::Code { code }, now) };
    How::Ended { end: Some(Box::new(End::Ended { ended, log: Some(LogTail { offset: 0, text: log.into() }) })) }
}

async fn call(rig: &Rig, bearer: &str, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
    let path = format!("/api/pitcrew/v1/worker/{path}");
    let request = rig.request(Method::POST, &path).header(header::AUTHORIZATION, format!("Bearer {bearer}"));
    let answer = rig.send(request.body(body.into()).unwrap()).await;
    (answer.status, answer.text)
}

async fn token(rig: &Rig, body: Value) -> String {
    let answer = rig.post("/api/pitcrew/v1/workers/token", body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    answer.json()["token"].as_str().unwrap().to_owned()
}

async fn enrol(rig: &Rig, token: &str, name: &str, about: About) -> (StatusCode, String) {
    let wish = Enrol { protocol: PROTOCOL, name: name.into(), about, credential: None };
    call(rig, token, "enrol", serde_json::to_string(&wish).unwrap()).await
}

impl<'r> Machine<'r> {
    async fn new(rig: &'r Rig, name: &str, queues: &[&str]) -> Machine<'r> {
        let token = token(rig, json!({ "queues": queues, "expires": "1h", "uses": 1 })).await;
        let (status, text) = enrol(rig, &token, name, about(queues)).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let Enrolled { credential, .. } = serde_json::from_str(&text).unwrap();
        Machine { rig, credential, incarnation: 1, seq: AtomicU64::new(0) }
    }

    fn says(&self, has: Vec<Has>) -> Sync {
        Sync {
            protocol: PROTOCOL,
            incarnation: self.incarnation,
            seq: self.seq.fetch_add(1, Ordering::Relaxed) + 1,
            about: None,
            draining: false,
            drained: false,
            prefetch: 0,
            has,
            probe: None,
            load: None,
            clock: None,
            wait_ms: 0,
            server: None,
            keeps: Vec::new(),
            brings_logs: true,
            done: Vec::new(),
            kernel: None,
        }
    }

    async fn ask(&self, sync: &Sync) -> (StatusCode, String) {
        call(self.rig, &self.credential, "sync", serde_json::to_string(sync).unwrap()).await
    }

    async fn sync(&self, sync: Sync) -> Answer {
        let (status, text) = self.ask(&sync).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Says what it has until it is ordered something.
    async fn ordered(&self) -> Order {
        loop {
            let answer = self.sync(Sync { wait_ms: 20_000, server: None, ..self.says(Vec::new()) }).await;
            if let Some(order) = answer.start.into_iter().next() {
                return order;
            }
            tokio::task::yield_now().await;
        }
    }

    /// It is there, with a probe.
    async fn appears(&self) -> Answer {
        self.sync(Sync { probe: Some(probe(&["GPU-1"])), ..self.says(Vec::new()) }).await
    }
}

/// Waits for the end of a run, and that its task is in this state then.
async fn over(rig: &Rig, run: &RunRecord, state: &str) {
    while !rig.run(run.key).await.state.is_final() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let row = rig.app.store.instance(run.key, &"a".parse().unwrap(), -1).await.unwrap().unwrap();
    assert_eq!(row.state.name(), state, "{}", row.message);
}

/// A worker `w1` of the queue `s21` enrols, and runs the task `a` of a workflow to its end.
pub(super) async fn works_off(rig: &Rig, workflow: &str) {
    let machine = Machine::new(rig, "w1", &["s21"]).await;
    machine.appears().await;
    let run = rig.start(workflow, json!({})).await;
    let id = machine.ordered().await.handle.id.to_string();
    machine.sync(machine.says(vec![has(&id, ended(0, &[("n", "1")], ""))])).await;
    over(rig, &run, "success").await;
    machine.sync(machine.says(Vec::new())).await;
}

async fn rig() -> Rig {
    Rig::placing(None).await.knowing(SOURCE).await
}

#[tokio::test]
async fn a_worker_takes_a_task_of_its_queue_and_tells_how_it_went() {
    let rig = rig().await;
    let run = rig.start("demo", json!({})).await;
    rig.until(run.key, "a", "scheduled").await;
    let explained = rig.get(&format!("/api/pitcrew/v1/runs/{}/explain/a", run.key)).await;
    assert!(explained.text.contains("no worker serves the queue `s21`"), "{}", explained.text);
    let machine = Machine::new(&rig, "w1", &["s21"]).await;
    machine.appears().await;
    let order = machine.ordered().await;
    let id = order.handle.id.to_string();
    assert_eq!(order.spec.env["PITCREW_WORKSPACE"], format!("/srv/worker/runs/{}/workspace", run.key));
    assert_eq!(order.spec.dir, order.handle.dir);
    assert!(order.spec.dir.starts_with("/srv/worker/runs") && order.spec.place.is_none());
    assert!(order.spec.dirs.iter().any(|dir| dir.ends_with("workspace/data")), "{:?}", order.spec.dirs);
    machine.sync(machine.says(vec![has(&id, running())])).await;
    rig.until(run.key, "a", "running").await;
    let (status, text) =
        call(&rig, &machine.credential, &format!("log?attempt={id}&offset=0"), "1767225600000001 o0 hi\n").await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, r#"{"offset":23}"#));
    let log = || "/api/v2/dags/demo/dagRuns/r/taskInstances/a/logs/1".to_owned();
    assert!(rig.get(&log()).await.text.contains("hi"), "while it runs");
    machine.sync(machine.says(vec![has(&id, ended(0, &[("n", "42")], "1767225600000001 o0 hi\n"))])).await;
    over(&rig, &run, "success").await;
    let output = rig.get("/api/v2/dags/demo/dagRuns/r/taskInstances/a/xcomEntries/n").await;
    assert_eq!(output.json()["value"], "42");
    assert_eq!(rig.get(&log()).await.text.matches("hi").count(), 1, "a tail that was there adds nothing");
    // The end is committed; the worker may forget it, and the run.
    let mut forgotten = Vec::new();
    while !forgotten.contains(&order.handle.id) {
        let sync = machine.says(vec![has(&id, How::Ended { end: None })]);
        forgotten.extend(machine.sync(sync).await.forget);
        tokio::task::yield_now().await;
    }
    let answer = machine.sync(machine.says(Vec::new())).await;
    assert!(answer.forget.is_empty() && answer.start.is_empty());
    let worker = rig.get("/api/pitcrew/v1/workers/w1").await.json();
    assert_eq!((&worker["standing"], &worker["ended"], &worker["failed"]), (&json!("ready"), &json!(1), &json!(0)));
    assert_eq!((&worker["gpus"], &worker["version"], &worker["slots"]), (&json!(1), &json!("1.2.3"), &json!(2)));
    let node = rig.get("/api/pitcrew/v1/nodes/w1").await.json();
    assert_eq!((&node["is_worker"], &node["labels"]["pitcrew/queue.s21"]), (&json!(true), &json!("true")));
    let list = rig.get("/api/pitcrew/v1/workers").await.json();
    assert_eq!(list["total_entries"], 1);
}

#[tokio::test]
async fn a_device_is_given_to_one_worker_alone_and_a_resource_to_who_asks_for_it() {
    let source = "
workflow: gpus
tasks:
  a: {resources: {gpu: 1}, queue: s21, run: 'true'}
  b: {resources: {gpu: 1}, queue: s21, run: 'true'}
---
workflow: licences
tasks:
  a: {resources: {licence: 3}, queue: s22, run: 'true'}
  b: {resources: {licence: 3}, queue: s22, run: 'true'}
---
workflow: never
tasks:
  a: {resources: {licence: 5}, queue: s22, run: 'true'}
";
    let rig = Rig::placing(None).await.knowing(source).await;
    // Two workers on one machine, which both tell of its only device.
    let one = Machine::new(&rig, "w1", &["s21"]).await;
    one.appears().await;
    let other = Machine::new(&rig, "w2", &["s21"]).await;
    other.appears().await;
    let fault = async |name: &str| {
        let node = rig.get(&format!("/api/pitcrew/v1/nodes/{name}")).await.json();
        node["gpus"][0]["fault"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(fault("w1").await, "");
    assert_eq!(fault("w2").await, "it is also on the node `w1`, which has it first: it is used there alone");
    let run = rig.start("gpus", json!({})).await;
    let order = one.ordered().await;
    assert_eq!(order.spec.gpus, Some(vec!["GPU-1".to_owned()]));
    let waits = if order.handle.id.task.as_str() == "a" { "b" } else { "a" };
    rig.until(run.key, waits, "scheduled").await;
    let waits = rig.get(&format!("/api/pitcrew/v1/runs/{}/explain/{waits}", run.key)).await.text;
    assert!(waits.contains("w1") && waits.contains("w2"), "{waits}");

    let token = token(&rig, json!({ "queues": ["s22"], "uses": 1 })).await;
    let about = About {
        resources: [("licence".to_owned(), Amount::whole(4))].into(),
        cpu: Some(Amount::whole(2)),
        memory_mib: Some(1024),
        ..about(&["s22"])
    };
    let (status, text) = enrol(&rig, &token, "w3", about).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let Enrolled { credential, .. } = serde_json::from_str(&text).unwrap();
    let third = Machine { rig: &rig, credential, incarnation: 1, seq: AtomicU64::new(0) };
    third.sync(Sync { probe: Some(probe(&[])), ..third.says(Vec::new()) }).await;
    let node = rig.get("/api/pitcrew/v1/nodes/w3").await.json();
    assert_eq!(
        (&node["resources"], &node["cpu"], &node["memory_mib"]),
        (&json!({"licence": 4}), &json!(2), &json!(1024))
    );
    assert!(rig.get("/fleet/w3").await.text.contains("<dt>licence</dt>"));
    let run = rig.start("licences", json!({})).await;
    let order = third.ordered().await;
    let waits = if order.handle.id.task.as_str() == "a" { "b" } else { "a" };
    rig.until(run.key, waits, "scheduled").await;
    let waits = rig.get(&format!("/api/pitcrew/v1/runs/{}/explain/{waits}", run.key)).await.text;
    assert!(waits.contains("3 of `licence` are asked for and 1 are free"), "{waits}");
    let run = rig.start("never", json!({})).await;
    over(&rig, &run, "failed").await;
}

#[tokio::test]
async fn what_a_worker_says_of_attempts_that_are_not_its_own_is_not_believed() {
    let rig = rig().await;
    let (own, other) = (Machine::new(&rig, "w1", &["s21"]).await, Machine::new(&rig, "w2", &["other"]).await);
    own.appears().await;
    other.appears().await;
    let run = rig.start("demo", json!({})).await;
    let order = own.ordered().await;
    let id = order.handle.id.to_string();
    own.sync(own.says(vec![has(&id, running())])).await;
    rig.until(run.key, "a", "running").await;
    other.sync(other.says(vec![has(&id, ended(0, &[("n", "stolen")], ""))])).await;
    let (status, _) = call(&rig, &other.credential, &format!("log?attempt={id}&offset=0"), "forged\n").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "it says that it has it, and nobody here confirms that");
    let snapshot = rig.app.scheduler.snapshot(run.key).await.unwrap();
    assert_eq!(snapshot.instances[0].state.name(), "running");
    for bad in ["log?attempt=nonsense", "log?attempt=../../etc/passwd&offset=0", "log?attempt=1/a.1&offset=x"] {
        let (status, text) = call(&rig, &own.credential, bad, "x").await;
        assert!(status.is_client_error(), "{bad}: {text}");
    }
    // Cancelling reaches the one that has it.
    rig.app.scheduler.cancel(run.key, "ada").await.unwrap();
    let cancelled = loop {
        let answer = own.sync(own.says(vec![has(&id, running())])).await;
        if let Some(cancel) = answer.cancel.into_iter().next() {
            break cancel;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((cancelled.handle.id, cancelled.handle.dir), (order.handle.id, order.handle.dir));
}

#[tokio::test]
async fn a_device_told_twice_is_one_and_a_clock_that_is_off_changes_nothing() {
    let rig = rig().await;
    let machine = Machine::new(&rig, "w1", &["s21"]).await;
    machine.sync(Sync { probe: Some(probe(&["GPU-1", "GPU-1", "GPU-2"])), ..machine.says(Vec::new()) }).await;
    let node = rig.get("/api/pitcrew/v1/nodes/w1").await.json();
    assert_eq!(node["gpus"].as_array().unwrap().len(), 2);
    assert_eq!(node["remarks"][0], "it reports `GPU-1` twice");
    let run = rig.start("demo", json!({})).await;
    let order = machine.ordered().await;
    let id = order.handle.id.to_string();
    let hour = SignedDuration::from_hours(1);
    let off = How::Running { started_at: clock::now() + hour };
    machine.sync(machine.says(vec![has(&id, off)])).await;
    rig.until(run.key, "a", "running").await;
    let ended = Ended::bare(Exit::Code { code: 7 }, clock::now() - hour);
    let end = How::Ended { end: Some(Box::new(End::Ended { ended, log: None })) };
    machine.sync(machine.says(vec![has(&id, end)])).await;
    over(&rig, &run, "failed").await;
}

#[tokio::test]
async fn what_waited_on_a_worker_and_is_not_there_any_more_is_ordered_again() {
    let rig = rig().await;
    let machine = Machine::new(&rig, "w1", &["s21"]).await;
    machine.appears().await;
    let run = rig.start("demo", json!({})).await;
    let id = machine.ordered().await.handle.id;
    let waiting = || vec![has(&id.to_string(), How::Waiting)];
    assert!(machine.sync(machine.says(waiting())).await.start.is_empty());
    // Its process was started anew, or its lease was over for a moment.
    assert_eq!(machine.ordered().await.handle.id, id);
    machine.sync(machine.says(waiting())).await;
    machine.sync(machine.says(vec![has(&id.to_string(), ended(0, &[("n", "1")], ""))])).await;
    over(&rig, &run, "success").await;
}

#[tokio::test]
async fn a_server_that_cannot_write_answers_its_workers_and_takes_their_ends_when_it_can() {
    let rig = rig().await;
    let machine = Machine::new(&rig, "w1", &["s21"]).await;
    machine.appears().await;
    let run = rig.start("demo", json!({})).await;
    let id = machine.ordered().await.handle.id;
    // As good as a disk without room.
    let attempts = rig.app.data.attempt(&id).parent().unwrap().to_owned();
    let _ = std::fs::remove_dir_all(&attempts);
    std::fs::create_dir_all(attempts.parent().unwrap()).unwrap();
    std::fs::write(&attempts, "").unwrap();
    let end = || vec![has(&id.to_string(), ended(0, &[("n", "1")], "x\n"))];
    let answer = machine.sync(machine.says(end())).await;
    assert!(answer.lease_ms > 0 && answer.forget.is_empty());
    // It was told to this server, and is not told again.
    let told = machine.says(vec![has(&id.to_string(), How::Ended { end: None })]);
    assert!(machine.sync(told).await.forget.is_empty());
    let (status, _) = call(&rig, &machine.credential, &format!("log?attempt={id}&offset=0"), "x\n").await;
    assert!(!status.is_success(), "{status}");
    std::fs::remove_file(&attempts).unwrap();
    over(&rig, &run, "success").await;
}

#[tokio::test]
async fn the_pages_of_workers_show_how_they_stand_and_what_an_administrator_may_do() {
    let rig = rig().await;
    let none = rig.get("/workers").await.text;
    assert!(none.contains("No workers") && none.contains("/worker-tokens/new"), "{none}");
    // Made on a page: shown once, with what is typed on the machine.
    let made = rig.submit("/worker-tokens/new", "queues=s21, default&hours=24&uses=1").await.text;
    let token = made.split("class=\"secret\">").nth(1).and_then(|rest| rest.split('<').next()).unwrap().to_owned();
    assert!(token.starts_with("pwt_") && made.contains("--queue s21 --queue default"), "{made}");
    assert!(!rig.get("/worker-tokens").await.text.contains(&token));
    for (wrong, why) in [
        ("queues=a%2Fb&hours=1&uses=1", "is no name of a queue"),
        ("queues=&hours=1&uses=0", "a token that nobody can use is none"),
        ("queues=&hours=2&uses=1", "choose one of these"),
    ] {
        let answer = rig.submit("/worker-tokens/new", wrong).await;
        assert!(answer.status == StatusCode::UNPROCESSABLE_ENTITY && answer.said().contains(why), "{}", answer.text);
    }
    let run = rig.start("demo", json!({})).await;
    rig.until(run.key, "a", "scheduled").await;
    let (status, text) = enrol(&rig, &token, "w1", about(&["s21"])).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let Enrolled { credential, .. } = serde_json::from_str(&text).unwrap();
    assert!(rig.get("/worker-tokens").await.text.contains("used up"));
    let unheard = rig.get("/workers").await.text;
    assert!(unheard.contains("it does not call") && unheard.contains("nobody now"), "{unheard}");

    let machine = Machine { rig: &rig, credential, incarnation: 1, seq: AtomicU64::new(0) };
    let load = Load { load1: 9.5, load5: Some(2.25), load15: None, memory_used_mib: 1024 };
    machine.sync(Sync { load: Some(load), probe: Some(probe(&["GPU-1"])), ..machine.says(Vec::new()) }).await;
    let id = machine.ordered().await.handle.id.to_string();
    machine.sync(machine.says(vec![has(&id, running())])).await;
    rig.until(run.key, "a", "running").await;
    let list = rig.get("/workers").await.text;
    for shown in
        ["1 of 2", "9.50 2.25", "8 cores", "1.0 GiB of 32.0 GiB", "href=\"/workers/w1\"", "s21.lab", "chip bad"]
    {
        assert!(list.contains(shown), "{shown}: {list}");
    }
    let page = rig.get("/workers/w1").await.text;
    for shown in ["Drain", "Revoke", "GPU-1", "NVIDIA A100", "enrolled", "/tasks/a", "rack=a", "1 of 2 in use"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(rig.get("/fleet/w1").await.text.contains("href=\"/workers/w1\""));
    assert_eq!(rig.get("/workers/none").await.status, StatusCode::NOT_FOUND);

    let drained = rig.submit("/workers/w1/drain", "drain=true").await;
    assert_eq!((drained.status, drained.header("location")), (StatusCode::SEE_OTHER, "/workers/w1"));
    assert!(machine.sync(machine.says(vec![has(&id, running())])).await.drain);
    let page = rig.get("/workers/w1").await.text;
    assert!(page.contains("Undrain") && page.contains("draining") && page.contains(">drained<"), "{page}");
    rig.submit("/workers/w1/drain", "drain=false").await;
    assert!(!machine.sync(machine.says(vec![has(&id, running())])).await.drain);
    let viewer = rig.token_of(&rig.user("ada", Role::Viewer).await);
    let request = rig.request(Method::GET, "/workers/w1").header(header::AUTHORIZATION, format!("Bearer {viewer}"));
    let seen = rig.send(request.body(Body::empty()).unwrap()).await.text;
    assert!(seen.contains("GPU-1") && !seen.contains("Revoke") && !seen.contains("Undrain"), "{seen}");
    assert_eq!(rig.submit("/workers/w1/revoke", "").await.header("location"), "/workers");
    assert_eq!(machine.ask(&machine.says(Vec::new())).await.0, StatusCode::UNAUTHORIZED);
    assert!(rig.get("/workers").await.text.contains("No workers"));
    let id = rig.app.store.worker_tokens().await.unwrap()[0].id.clone();
    assert_eq!(rig.submit("/worker-tokens/delete", &format!("id={id}")).await.header("location"), "/worker-tokens");
    assert_eq!(rig.submit("/worker-tokens/delete", &format!("id={id}")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn timeouts_and_retries_are_counted_by_the_clock_of_the_server() {
    let rig = rig().await;
    let machine = Machine::new(&rig, "w1", &["s21"]).await;
    machine.appears().await;
    let run = rig.start("timed", json!({})).await;
    let hour = SignedDuration::from_hours(1);
    for off in [-hour, hour] {
        let id = machine.ordered().await.handle.id.to_string();
        let clock = || clock::now() + off;
        let began = has(&id, How::Running { started_at: clock() });
        machine.sync(Sync { clock: Some(clock()), ..machine.says(vec![began.clone()]) }).await;
        rig.until(run.key, "a", "running").await;
        let row = rig.app.store.instance(run.key, &"a".parse().unwrap(), -1).await.unwrap().unwrap();
        assert!(clock::now().duration_since(row.start.unwrap()).abs() < SignedDuration::from_mins(10), "{row:?}");
        // With a timeout that counts from an hour ago it would be cancelled by now.
        rig.app.scheduler.snapshot(run.key).await.unwrap();
        assert!(machine.sync(Sync { clock: Some(clock()), ..machine.says(vec![began]) }).await.cancel.is_empty());
        let ended = Ended { started_at: Some(clock()), ..Ended::bare(Exit::Code { code: 7 }, clock()) };
        let end = has(&id, How::Ended { end: Some(Box::new(End::Ended { ended, log: None })) });
        machine.sync(Sync { clock: Some(clock()), ..machine.says(vec![end]) }).await;
    }
    // The second one was ordered a second after the first, and not an hour.
    over(&rig, &run, "failed").await;
}

#[tokio::test]
async fn a_copy_of_a_worker_elsewhere_does_not_make_what_the_first_one_runs_lost() {
    let rig = rig().await;
    let first = Machine::new(&rig, "w1", &["s21"]).await;
    first.appears().await;
    let run = rig.start("demo", json!({})).await;
    let id = first.ordered().await.handle.id;
    first.sync(first.says(vec![has(&id.to_string(), running())])).await;
    rig.until(run.key, "a", "running").await;
    let copy = Machine { rig: &rig, credential: first.credential.clone(), incarnation: 2, seq: AtomicU64::new(0) };
    let there = About { place: Some("there".into()), ..about(&["s21"]) };
    copy.sync(Sync { about: Some(there), ..copy.says(Vec::new()) }).await;
    assert!(rig.app.workers.has("a worker that nobody knows", &id).is_none());
    let worker = rig.get("/api/pitcrew/v1/workers/w1").await.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(rig.app.workers.has(&worker, &id), Some(true), "it may run where it was");
    // The same place, started again: what it has not, nobody has.
    let again = Machine { rig: &rig, credential: first.credential.clone(), incarnation: 3, seq: AtomicU64::new(0) };
    let back = About { place: Some("there".into()), ..about(&["s21"]) };
    again.sync(Sync { about: Some(back), ..again.says(Vec::new()) }).await;
    assert_eq!(rig.app.workers.has(&worker, &id), Some(true), "what is elsewhere stays there");
    let snapshot = rig.app.scheduler.snapshot(run.key).await.unwrap();
    assert_eq!((snapshot.instances[0].state.name(), snapshot.instances[0].attempt), ("running", 1));
}

#[tokio::test]
async fn a_worker_that_keeps_directories_of_runs_is_told_which_of_them_are_over() {
    let rig = rig().await;
    works_off(&rig, "demo").await;
    let done = rig.app.store.latest_run(&"demo".parse().unwrap()).await.unwrap().unwrap().key;
    let body = json!({ "dag_run_id": "second", "logical_date": null });
    assert_eq!(rig.post("/api/v2/dags/demo/dagRuns", body).await.status, StatusCode::OK);
    let open = rig.app.store.latest_run(&"demo".parse().unwrap()).await.unwrap().unwrap().key;
    assert_ne!(open, done);
    let deleted = pitcrew_core::RunKey(open.0 + 100);
    // One that had nothing of them while this server leads.
    let machine = Machine::new(&rig, "w2", &["other"]).await;
    machine.appears().await;
    let answer = machine.sync(Sync { keeps: vec![done, open, deleted], ..machine.says(Vec::new()) }).await;
    assert_eq!(answer.leave, [done, deleted]);
    // Nobody names them any more; it may be said again, and not for ever.
    for _ in 0..3 {
        machine.sync(machine.says(Vec::new())).await;
    }
    assert_eq!(machine.sync(machine.says(Vec::new())).await.leave, []);
    assert_eq!(machine.sync(Sync { keeps: vec![done], ..machine.says(Vec::new()) }).await.leave, [done]);
}
