//! Resources of Airflow's API besides runs: each made, changed, listed and deleted, with right and wrong input.

use axum::http::{Method, StatusCode};
use insta::assert_json_snapshot;
use serde_json::{Value, json};

use super::{Rig, settled};

const TWO: &str = "
workflow: two
description: Two tasks.
tasks:
  first: {backend: fake, run: x, timeout: 2h, pool: gpu, env: {FAKE_OUTPUT_size: '5'}}
  second: {backend: fake, needs: [first], run: x, retries: 2, retry_delay: 1m30s}
";

impl Rig {
    pub(super) async fn patch(&self, path: &str, body: Value) -> super::Answer {
        self.ask(Method::PATCH, path, body.to_string()).await
    }

    async fn run_key(&self, workflow: &str) -> pitcrew_core::RunKey {
        self.app.store.latest_run(&workflow.parse().unwrap()).await.unwrap().unwrap().key
    }

    pub(super) async fn delete(&self, path: &str) -> StatusCode {
        self.ask(Method::DELETE, path, "").await.status
    }
}

#[tokio::test]
async fn tasks_and_versions_of_a_workflow_are_shown() {
    let rig = Rig::with(TWO).await;
    let tasks = rig.get("/api/v2/dags/two/tasks?order_by=-task_id").await.json();
    assert_eq!((&tasks["total_entries"], &tasks["tasks"][0]["task_id"]), (&json!(2), &json!("second")));
    assert_json_snapshot!(rig.get("/api/v2/dags/two/tasks/first").await.json());
    assert_eq!(tasks["tasks"][0]["retry_delay"]["seconds"], 90);
    assert_eq!(rig.get("/api/v2/dags/two/tasks/third").await.status, StatusCode::NOT_FOUND);
    let versions = rig.get("/api/v2/dags/two/dagVersions").await.json();
    assert_eq!((&versions["total_entries"], &versions["dag_versions"][0]["version_number"]), (&json!(1), &json!(1)));
    assert_eq!(rig.get("/api/v2/dags/two/dagVersions/1").await.json()["id"], versions["dag_versions"][0]["id"]);
    for wrong in ["0", "2", "99999999999999999999", "x"] {
        let status = rig.get(&format!("/api/v2/dags/two/dagVersions/{wrong}")).await.status;
        assert!(status.is_client_error(), "{wrong}: {status}");
    }
}

#[tokio::test]
async fn runs_are_counted_by_state() {
    let rig = Rig::with(TWO).await;
    rig.app.store.put_pool(pool("gpu", 1), audit()).await.unwrap();
    rig.finish("two").await;
    let counts = |answer: Value| {
        answer["dags"][0]["stats"].as_array().unwrap().iter().map(|s| s["count"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(counts(rig.get("/api/v2/dagStats").await.json()), [0, 0, 1, 0]);
    let named = rig.get("/api/v2/dagStats?dag_ids=two&dag_ids=none&dag_ids=..%2Fx").await.json();
    assert_eq!(named["total_entries"], 1);
    let batch = rig
        .post("/api/v2/dags/~/dagRuns/list", json!({ "states": ["success"], "dag_ids": ["two"], "duration_gte": 0 }))
        .await;
    assert_eq!(batch.json()["total_entries"], 1);
    let none = rig.post("/api/v2/dags/two/dagRuns/list", json!({ "dag_ids": ["other"], "page_limit": 5 })).await;
    assert_eq!(none.json()["total_entries"], 0);
    let wrong = rig.post("/api/v2/dags/~/dagRuns/list", json!({ "states": [{}], "what": 1 })).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
}

fn pool(name: &str, slots: u32) -> pitcrew_store::Pool {
    pitcrew_store::Pool { name: name.to_owned(), slots, description: String::new() }
}

fn audit() -> pitcrew_store::AuditEntry {
    pitcrew_store::AuditEntry::new(pitcrew_control::clock::now(), "test", "test")
}

#[tokio::test]
async fn pools_are_made_changed_and_deleted() {
    let rig = Rig::new().await;
    let made = rig.post("/api/v2/pools", json!({ "name": "gpu", "slots": 2, "include_deferred": false })).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_json_snapshot!(made.json());
    let again = rig.post("/api/v2/pools", json!({ "name": "gpu", "slots": 2 })).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    let changed =
        rig.patch("/api/v2/pools/gpu?update_mask=description", json!({ "slots": 9, "description": "cards" })).await;
    assert_eq!((&changed.json()["slots"], &changed.json()["description"]), (&json!(2), &json!("cards")));
    let unlimited = rig.patch("/api/v2/pools/gpu", json!({ "slots": -1 })).await.json();
    assert_eq!((&unlimited["slots"], &unlimited["open_slots"]), (&json!(-1), &json!(-1)));
    assert_eq!(rig.get("/api/v2/pools?pool_name_pattern=GP&order_by=-name").await.json()["total_entries"], 1);
    for wrong in [
        json!({}),
        json!({ "name": 1, "slots": "2" }),
        json!({ "name": "x", "slots": 1.5 }),
        json!({ "name": "x", "slots": 1, "y": 0 }),
    ] {
        assert_eq!(rig.post("/api/v2/pools", wrong.clone()).await.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
    assert_eq!(rig.delete("/api/v2/pools/gpu").await, StatusCode::NO_CONTENT);
    assert_eq!(rig.delete("/api/v2/pools/gpu").await, StatusCode::NOT_FOUND);
    assert_eq!(rig.delete("/api/v2/pools/default_pool").await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn variables_are_changed_and_secret_ones_never_shown() {
    let rig = Rig::new().await;
    let made = rig.post("/api/v2/variables", json!({ "key": "a/b", "value": { "n": 1, "token": "t" } })).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.json()["value"], r#"{"n":1,"token":"***"}"#);
    rig.post("/api/v2/variables", json!({ "key": "db_password", "value": "hunter2", "description": "d" })).await;
    let listed = rig.get("/api/v2/variables?order_by=-key").await;
    assert!(!listed.text.contains("hunter2") && listed.json()["variables"][0]["value"] == "***");
    // What was shown masked may come back with a change of something else.
    let back = json!({ "key": "db_password", "value": "***", "description": "new" });
    assert_eq!(rig.patch("/api/v2/variables/db_password", back).await.json()["description"], "new");
    assert_eq!(rig.app.store.variable("db_password").await.unwrap().unwrap().value, "hunter2");
    assert_eq!(rig.patch("/api/v2/variables/a%2Fb", json!({ "key": "a/b", "value": "x" })).await.json()["value"], "x");
    assert_eq!(
        rig.patch("/api/v2/variables/a%2Fb", json!({ "key": "b", "value": "x" })).await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        rig.patch("/api/v2/variables/none", json!({ "key": "none", "value": "x" })).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(rig.get("/api/v2/variables?variable_key_prefix_pattern=DB").await.json()["total_entries"], 1);
    assert_eq!(rig.delete("/api/v2/variables/a/b").await, StatusCode::NO_CONTENT);
    assert_eq!(rig.get("/api/v2/variables/a%2Fb").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn many_things_are_changed_in_one_request() {
    let rig = Rig::new().await;
    let ask = async |actions: Value| rig.patch("/api/v2/variables", json!({ "actions": actions })).await;
    let entry = |key: &str, value: &str| json!({ "key": key, "value": value });
    let first = ask(json!([
        { "action": "create", "entities": [entry("a", "1"), entry("b", "1")] },
        { "action": "create", "entities": [entry("a", "2"), entry("c", "2")] },
        { "action": "create", "entities": [entry("a", "3"), entry("d", "3")], "action_on_existence": "skip" },
        { "action": "update", "entities": [entry("x", "4")] },
        { "action": "delete", "entities": ["b", { "key": "y" }], "action_on_non_existence": "skip" },
    ]))
    .await;
    assert_eq!(first.status, StatusCode::OK);
    assert_json_snapshot!(first.json());
    let left = rig.get("/api/v2/variables").await.json();
    let left: Vec<&str> = left["variables"].as_array().unwrap().iter().map(|v| v["key"].as_str().unwrap()).collect();
    assert_eq!(left, ["a", "d"]);
    let over =
        ask(json!([{ "action": "create", "entities": [entry("a", "5")], "action_on_existence": "overwrite" }])).await;
    assert_eq!((&over.json()["create"]["success"], &over.json()["update"]), (&json!(["a"]), &Value::Null));
    // Nothing is changed when any part cannot be read.
    let wrong = ask(json!([
        { "action": "create", "entities": [entry("e", "1")] },
        { "action": "explode", "entities": [] },
        { "action": "delete", "entities": [5] },
    ]))
    .await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(rig.get("/api/v2/variables/e").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn outputs_are_read_and_changed_as_xcoms() {
    let rig = Rig::with(TWO).await;
    rig.app.store.put_pool(pool("gpu", 1), audit()).await.unwrap();
    rig.finish("two").await;
    let base = "/api/v2/dags/two/dagRuns/r/taskInstances/first/xcomEntries";
    let all = rig.get("/api/v2/dags/two/dagRuns/r/taskInstances/~/xcomEntries").await.json();
    assert_eq!(all["total_entries"], 1);
    assert_json_snapshot!(settled(rig.get(&format!("{base}/size")).await.json()));
    let made = rig.post(base, json!({ "key": "a/b", "value": { "n": [1] } })).await;
    assert_eq!((made.status, &made.json()["value"]), (StatusCode::CREATED, &json!({ "n": [1] })));
    assert_eq!(rig.post(base, json!({ "key": "a/b", "value": 1 })).await.status, StatusCode::CONFLICT);
    let changed = rig.patch(&format!("{base}/a%2Fb"), json!({ "value": null })).await;
    assert_eq!((changed.status, &changed.json()["value"]), (StatusCode::OK, &Value::Null));
    assert_eq!(rig.get(&format!("{base}/a/b?stringify=true")).await.json()["value"], "null");
    assert_eq!(rig.delete(&format!("{base}/a%2Fb?map_index=-1")).await, StatusCode::NO_CONTENT);
    assert_eq!(rig.delete(&format!("{base}/a%2Fb")).await, StatusCode::NOT_FOUND);
    assert_eq!(rig.patch(&format!("{base}/none"), json!({ "value": 1 })).await.status, StatusCode::NOT_FOUND);
    for wrong in [
        json!({}),
        json!({ "key": "", "value": 1 }),
        json!({ "key": "k" }),
        json!({ "key": "k", "value": 1, "map_index": 7.5 }),
    ] {
        assert_eq!(rig.post(base, wrong.clone()).await.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
    let run = rig.get("/api/v2/dags/two/dagRuns/r").await.json();
    assert_eq!(run["state"], "success", "a change of an output changes nothing else");
}

#[tokio::test]
async fn a_run_is_waited_for_noted_and_cleared() {
    let rig = Rig::with(TWO).await;
    rig.app.store.put_pool(pool("gpu", 1), audit()).await.unwrap();
    rig.start("two", json!({})).await;
    let waited = rig.get("/api/v2/dags/two/dagRuns/r/wait?interval=60&result=first&result=second").await;
    let last: Value = serde_json::from_str(waited.text.lines().last().unwrap()).unwrap();
    assert_eq!(last, json!({ "state": "success", "results": { "first": { "size": 5 }, "second": {} } }));
    for wrong in ["0", "-1", "x", "NaN", "1e9"] {
        let status = rig.get(&format!("/api/v2/dags/two/dagRuns/r/wait?interval={wrong}")).await.status;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
    let noted = rig.patch("/api/v2/dags/two/dagRuns/r", json!({ "note": "checked" })).await.json();
    assert_eq!((&noted["note"], &noted["state"]), (&json!("checked"), &json!("success")));
    let would = rig.post("/api/v2/dags/two/dagRuns/r/clear", json!({})).await.json();
    assert_eq!(would["total_entries"], 2);
    let mut changes = rig.app.scheduler.subscribe();
    let cleared =
        rig.post("/api/v2/dags/two/dagRuns/r/clear", json!({ "dry_run": false, "note": "again" })).await.json();
    assert_eq!((&cleared["note"], &cleared["dag_run_id"]), (&json!("again"), &json!("r")));
    while !changes.recv().await.unwrap().finished {}
    let base = "/api/v2/dags/two/dagRuns/r/taskInstances";
    assert_eq!(rig.get(&format!("{base}/first/tries/2")).await.json()["state"], "success");
    assert_eq!(rig.get(&format!("{base}/first/dependencies")).await.json()["dependencies"], json!([]));
    assert_eq!(rig.get(&format!("{base}/first/links")).await.json()["total_entries"], 0);
    assert_eq!(rig.get(&format!("{base}/none/links")).await.status, StatusCode::NOT_FOUND);
    let listed = async |query: &str| rig.get(&format!("{base}?{query}")).await.json()["total_entries"].clone();
    assert_eq!(listed("pool=gpu&try_number=2&duration_gte=0").await, 1);
    assert_eq!(listed("operator=shell&order_by=-start_date&limit=1").await, 2);
    assert_eq!(listed("task_display_name_pattern=SEC&executor=fake").await, 1);
    let across = async |query: &str| rig.get(&format!("/api/v2/dags/~/dagRuns/~/taskInstances?{query}")).await;
    let found = across("task_id=first&state=success&order_by=-start_date&start_date_gte=2000-01-01").await.json();
    assert_eq!((&found["total_entries"], &found["task_instances"][0]["pool"]), (&json!(1), &json!("gpu")));
    assert_eq!(rig.get("/api/v2/dags/two/dagRuns/~/taskInstances?limit=1").await.json()["total_entries"], 2);
    for wrong in ["pool=gpu", "duration_gt=1", "order_by=state", "task_id=a&task_id=b", "dag_run_ids=r"] {
        assert_eq!(across(wrong).await.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let reports = rig.app.data.artifacts(rig.run_key("two").await).join("results");
    std::fs::create_dir_all(&reports).unwrap();
    std::fs::write(reports.join("report.html"), "<p>").unwrap();
    let key = rig.run_key("two").await;
    let listed_reports = rig.get(&format!("/api/pitcrew/v1/runs/{key}/reports")).await.json();
    assert_eq!(
        (&listed_reports["total_entries"], &listed_reports["reports"][0]["folder"]),
        (&json!(1), &json!("results"))
    );
    let batch =
        rig.post(&format!("{base}/list"), json!({ "task_ids": ["first", "second"], "state": ["success", null] })).await;
    assert_eq!(batch.json()["total_entries"], 2);
    let would = rig.patch(&format!("{base}/first/dry_run"), json!({ "new_state": "failed" })).await.json();
    assert_eq!(would["total_entries"], 1);
}

#[tokio::test]
async fn what_pitcrew_has_not_is_empty_or_not_found() {
    let rig = Rig::with(TWO).await;
    for path in [
        "assets",
        "assets/aliases",
        "assets/events",
        "dagWarnings",
        "plugins",
        "plugins/importErrors",
        "dags/two/assets/queuedEvents",
    ] {
        let answer = rig.get(&format!("/api/v2/{path}?limit=")).await;
        assert_eq!((answer.status, &answer.json()["total_entries"]), (StatusCode::OK, &json!(0)), "{path}");
    }
    assert_eq!(rig.get("/api/v2/assets/1").await.status, StatusCode::NOT_FOUND);
    assert_eq!(rig.post("/api/v2/assets/1/materialize", json!({})).await.status, StatusCode::NOT_FOUND);
    rig.app
        .store
        .put_file_error("bad.yaml", "bad.yaml:1:1: nothing here", pitcrew_control::clock::now())
        .await
        .unwrap();
    let listed = rig.get("/api/v2/importErrors?filename_pattern=bad").await.json();
    let id = listed["import_errors"][0]["import_error_id"].as_u64().unwrap();
    assert_eq!(rig.get(&format!("/api/v2/importErrors/{id}")).await.json()["filename"], "bad.yaml");
    assert_eq!(rig.get("/api/v2/importErrors/1").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn connections_are_kept_and_their_secrets_never_shown() {
    let rig = Rig::new().await;
    let body = json!({
        "connection_id": "db", "conn_type": "postgres", "host": "db.example.com", "port": 5432, "login": "me",
        "password": "hunter2", "extra": r#"{"sslmode": "require", "api_key": "k3y"}"#,
    });
    let made = rig.post("/api/v2/connections", body.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_json_snapshot!(made.json());
    assert_eq!(rig.post("/api/v2/connections", body).await.status, StatusCode::CONFLICT);
    let stored = rig.app.store.connection("db").await.unwrap().unwrap();
    assert!(!format!("{stored:?}").contains("hunter2") && !format!("{stored:?}").contains("k3y"));
    // What was shown masked comes back with a change of something else.
    let mut back = made.json();
    back["host"] = json!("other.example.com");
    let changed = rig.patch("/api/v2/connections/db", back).await;
    assert_eq!((changed.status, &changed.json()["host"]), (StatusCode::OK, &json!("other.example.com")));
    let kept = rig.app.store.connection("db").await.unwrap().unwrap();
    assert_eq!((kept.password, kept.extra), (stored.password, stored.extra));
    let masked = rig.patch("/api/v2/connections/db?update_mask=login", json!({ "login": "you", "host": null })).await;
    assert_eq!((&masked.json()["login"], &masked.json()["host"]), (&json!("you"), &json!("other.example.com")));
    let listed = rig.get("/api/v2/connections?connection_id_pattern=DB&order_by=-conn_type").await;
    assert!(listed.json()["total_entries"] == 1 && !listed.text.contains("hunter2"));
    for wrong in [
        json!({ "connection_id": "x" }),
        json!({ "connection_id": "x", "conn_type": "http", "port": 70000 }),
        json!({ "connection_id": "x", "conn_type": "http", "extra": "no json" }),
        json!({ "connection_id": "<script>", "conn_type": "http" }),
    ] {
        assert_eq!(
            rig.post("/api/v2/connections", wrong.clone()).await.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{wrong}"
        );
    }
    let bulk = json!({ "actions": [{ "action": "delete", "entities": ["db"] }] });
    assert_eq!(rig.patch("/api/v2/connections", bulk).await.json()["delete"]["success"], json!(["db"]));
    assert_eq!(rig.get("/api/v2/connections/db").await.status, StatusCode::NOT_FOUND);
    let log = rig.get("/api/v2/eventLogs?event_pattern=connection&order_by=-when").await.json();
    assert_eq!((&log["total_entries"], &log["event_logs"][0]["event"]), (&json!(4), &json!("connection.delete")));
    let id = log["event_logs"][0]["event_log_id"].as_i64().unwrap();
    assert_eq!(rig.get(&format!("/api/v2/eventLogs/{id}")).await.json()["owner"], "admin");
    assert_eq!(rig.get("/api/v2/eventLogs/999999").await.status, StatusCode::NOT_FOUND);
    let oldest = rig.get("/api/v2/eventLogs?limit=1&excluded_events=login&excluded_events=user.password").await.json();
    assert_eq!(oldest["event_logs"][0]["event"], "connection.set");
}

const DAILY: &str = "
workflow: daily
schedule: {cron: '0 0 * * *', timezone: UTC}
tasks:
  only: {backend: fake, run: x}
";

#[tokio::test]
async fn backfills_are_planned_paused_and_cancelled() {
    let rig = Rig::with(&[DAILY, "---", TWO].concat()).await;
    let body = json!({ "dag_id": "daily", "from_date": "2026-01-01T00:00:00Z", "to_date": "2026-01-03T00:00:00Z" });
    let dry = rig.post("/api/v2/backfills/dry_run", body.clone()).await.json();
    assert_eq!(
        (&dry["total_entries"], &dry["backfills"][0]["logical_date"]),
        (&json!(3), &json!("2026-01-01T00:00:00Z"))
    );
    let made = rig.post("/api/v2/backfills", body.clone()).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    assert_json_snapshot!(settled(made.json()));
    assert_eq!(rig.post("/api/v2/backfills", body).await.status, StatusCode::CONFLICT);
    let id = made.json()["id"].as_i64().unwrap();
    let change = async |method, word: &str| rig.ask(method, &format!("/api/v2/backfills/{id}/{word}"), "").await;
    assert_eq!(change(Method::PUT, "pause").await.json()["is_paused"], true);
    assert_eq!(change(Method::POST, "unpause").await.json()["is_paused"], false);
    assert!(!change(Method::PUT, "cancel").await.json()["completed_at"].is_null());
    assert_eq!(change(Method::PUT, "pause").await.status, StatusCode::CONFLICT);
    assert_eq!(rig.get("/api/v2/backfills?dag_id=daily").await.json()["total_entries"], 1);
    assert_eq!(rig.get("/api/v2/backfills/7777").await.status, StatusCode::NOT_FOUND);
    for (wrong, status) in [
        (json!({}), 422),
        (json!({ "dag_id": "none", "from_date": "2026-01-01", "to_date": "2026-01-02" }), 404),
        (json!({ "dag_id": "two", "from_date": "2026-01-01", "to_date": "2026-01-02" }), 400),
        (json!({ "dag_id": "daily", "from_date": "2026-01-02", "to_date": "2026-01-01" }), 400),
        (json!({ "dag_id": "daily", "from_date": "0001-01-01", "to_date": "9999-01-01" }), 400),
        (json!({ "dag_id": "daily", "from_date": "x", "to_date": 5, "max_active_runs": 0 }), 422),
    ] {
        assert_eq!(rig.post("/api/v2/backfills", wrong.clone()).await.status.as_u16(), status, "{wrong}");
    }
}

#[tokio::test]
async fn runs_are_deleted_with_their_files_and_workflows_with_their_runs() {
    let rig = Rig::with(TWO).await;
    rig.app.store.put_pool(pool("gpu", 1), audit()).await.unwrap();
    let run = rig.finish("two").await;
    let files = rig.app.data.run(run.key);
    std::fs::create_dir_all(&files).unwrap();
    assert_eq!(rig.delete("/api/v2/dags/two/dagRuns/r").await, StatusCode::NO_CONTENT);
    assert_eq!(rig.delete("/api/v2/dags/two/dagRuns/r").await, StatusCode::NOT_FOUND);
    assert!(!files.exists());
    rig.finish("two").await;
    assert_eq!(rig.delete("/api/v2/dags/two").await, StatusCode::OK);
    let left = rig.get("/api/v2/dags/two/dagRuns").await.json();
    assert_eq!(left["total_entries"], 0, "its file is there, so it stays without its history");
    rig.app.store.deactivate(&run.workflow).await.unwrap();
    assert_eq!(rig.delete("/api/v2/dags/two").await, StatusCode::OK);
    assert_eq!(rig.get("/api/v2/dags/two").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_server_tells_of_itself() {
    let rig = Rig::new().await;
    assert_eq!(rig.get("/api/v2/jobs?job_type=SchedulerJob&is_alive=true").await.json()["total_entries"], 1);
    assert_eq!(rig.get("/api/v2/jobs?job_type=TriggererJob").await.json()["total_entries"], 0);
    let providers = rig.get("/api/v2/providers?limit=1").await.json();
    assert!(
        providers["total_entries"].as_u64().unwrap() >= 10 && providers["providers"].as_array().unwrap().len() == 1
    );
    let config = rig.get("/api/v2/config").await.json();
    let key = config["sections"][0]["options"][0]["key"].as_str().unwrap();
    let one = rig.get(&format!("/api/v2/config/section/pitcrew/option/{key}")).await.json();
    assert_eq!(one["sections"][0]["options"][0]["key"], key);
    assert_eq!(rig.get("/api/v2/config?section=core").await.status, StatusCode::NOT_FOUND);
    assert_eq!(rig.get("/api/v2/config/section/pitcrew/option/none").await.status, StatusCode::NOT_FOUND);
}
