//! Workers of the version before, of the next, and of one further away.

use super::*;

/// Says something as it stands; the status and what came back.
async fn raw(machine: &Machine<'_>, sync: Value) -> (StatusCode, Value) {
    let (status, text) = call(machine.rig, &machine.credential, "sync", sync.to_string()).await;
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// A whole life of a task with a worker of another version: what it says, by the number and what it has.
async fn lives(says: impl Fn(u64, Value) -> Value, ended: Value) {
    let rig = rig().await;
    let machine = Machine::new(&rig, "w1", &["s21"]).await;
    let (status, answer) = raw(&machine, says(1, json!([]))).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let run = rig.start("demo", json!({})).await;
    let mut seq = 1;
    let attempt = loop {
        seq += 1;
        let (_, answer) = raw(&machine, says(seq, json!([]))).await;
        if let Some(order) = answer["start"].as_array().and_then(|start| start.first()) {
            break order["handle"]["id"].clone();
        }
        tokio::task::yield_now().await;
    };
    let has = |how: Value| {
        let mut has = how;
        has["attempt"] = attempt.clone();
        json!([has])
    };
    let (status, answer) = raw(&machine, says(seq + 1, has(json!({ "how": "waiting" })))).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    raw(&machine, says(seq + 2, has(json!({ "how": "running", "started_at": clock::now(), "later": 1 })))).await;
    rig.until(run.key, "a", "running").await;
    let (status, answer) = raw(&machine, says(seq + 3, has(json!({ "how": "ended", "end": ended })))).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    over(&rig, &run, "success").await;
    let view = rig.get("/api/pitcrew/v1/workers/w1").await.json();
    assert_eq!((&view["ended"], &view["failed"]), (&json!(1), &json!(0)), "{view}");
}

fn ended_plainly() -> Value {
    let ended =
        Ended { outputs: [("n".to_owned(), json!("1"))].into(), ..Ended::bare(Exit::Code { code: 0 }, clock::now()) };
    serde_json::to_value(End::Ended { ended, log: None }).unwrap()
}

#[tokio::test]
async fn a_worker_of_the_version_before_says_less_and_works() {
    let says = |seq, has: Value| {
        let load = json!({ "load1": 0.5, "memory_used_mib": 100 });
        let protocol = PROTOCOL - 1;
        json!({ "protocol": protocol, "incarnation": 1, "seq": seq, "has": has, "wait_ms": 0, "load": load,
            "probe": probe(&["GPU-1"]) })
    };
    lives(says, ended_plainly()).await;
}

#[tokio::test]
async fn a_worker_of_the_next_version_says_more_and_works() {
    let says = |seq, has: Value| {
        let mut about = serde_json::to_value(about(&["s21"])).unwrap();
        about["zone"] = json!({ "name": "b" });
        let load = json!({ "load1": 0.5, "load5": 0.4, "load15": 0.3, "memory_used_mib": 100, "io": [1, 2] });
        json!({ "protocol": PROTOCOL + 1, "incarnation": 1, "seq": seq, "has": has, "wait_ms": 0, "load": load,
            "about": about, "draining": false, "prefetch": 0, "probe": probe(&["GPU-1"]), "mood": "good" })
    };
    let mut ended = ended_plainly();
    ended["ended"]["energy"] = json!(7);
    lives(says, ended).await;
}

#[tokio::test]
async fn a_worker_further_away_is_told_which_side_to_upgrade() {
    let rig = rig().await;
    let machine = Machine::new(&rig, "w1", &["s21"]).await;
    let sync = json!({ "protocol": PROTOCOL + 2, "incarnation": 1, "seq": 1, "has": [], "wait_ms": 0 });
    let (status, answer) = raw(&machine, sync).await;
    assert_eq!(status, StatusCode::UPGRADE_REQUIRED);
    assert!(answer["detail"].as_str().unwrap().contains("upgrade the server"), "{answer}");
    let (status, answer) = raw(&machine, json!({ "protocol": PROTOCOL, "seq": 1 })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer["detail"].as_str().unwrap().contains("missing field `incarnation`"), "{answer}");
}
