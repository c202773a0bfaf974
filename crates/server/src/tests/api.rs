//! Airflow's shapes, and its manners with wrong input.

use axum::http::{Method, StatusCode};
use insta::{assert_json_snapshot, assert_snapshot};
use serde_json::{Value, json};

use super::{Rig, settled};

const TWO: &str = "
workflow: two
tags: [ci]
params:
  n: {type: integer, minimum: 1, default: 3}
tasks:
  first: {backend: fake, run: x, env: {FAKE_LOG: hello, FAKE_OUTPUT_size: '5'}}
  second: {backend: fake, needs: [first], run: x, env: {FAKE_EXIT_CODE: '3'}}
";

const SLOW: &str = "
workflow: slow
tasks:
  long: {backend: fake, run: x, env: {FAKE_SLEEP_MS: '3600000'}}
  after: {backend: fake, needs: [long], run: x}
";

const MAPPED: &str = "
workflow: mapped
tasks:
  each: {backend: fake, foreach: {n: [a, b, c]}, run: x}
";

#[tokio::test]
async fn a_triggered_run_has_all_keys_of_airflows_shape() {
    let rig = Rig::with(TWO).await;
    let body = json!({ "conf": { "n": 4 }, "logical_date": null, "dag_run_id": "manual__1", "note": "try" });
    let answer = rig.post("/api/v2/dags/two/dagRuns", body).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_json_snapshot!(settled(answer.json()), @r#"
    {
      "dag_run_id": "manual__1",
      "dag_id": "two",
      "dag_display_name": "two",
      "logical_date": null,
      "queued_at": "…",
      "start_date": null,
      "end_date": null,
      "duration": null,
      "data_interval_start": null,
      "data_interval_end": null,
      "run_after": "…",
      "last_scheduling_decision": null,
      "run_type": "manual",
      "state": "queued",
      "triggered_by": "rest_api",
      "triggering_user_name": "admin",
      "conf": {
        "n": 4
      },
      "note": "try",
      "dag_versions": [
        {
          "id": "…",
          "version_number": 1,
          "dag_id": "two",
          "bundle_name": "workflows",
          "bundle_version": "…",
          "bundle_url": null,
          "created_at": "…",
          "dag_display_name": "two"
        }
      ],
      "bundle_version": "…",
      "partition_key": null,
      "partition_date": null
    }
    "#);
}

#[tokio::test]
async fn a_finished_run_shows_its_instances_attempts_and_logs() {
    let rig = Rig::with(TWO).await;
    rig.finish("two").await;
    let run = rig.get("/api/v2/dags/two/dagRuns/r").await.json();
    assert_eq!(run["state"], "failed");
    let list = rig.get("/api/v2/dags/two/dagRuns/r/taskInstances").await.json();
    assert_eq!(list["total_entries"], 2);
    assert_json_snapshot!(settled(list["task_instances"][0].clone()), @r#"
    {
      "task_id": "first",
      "task_display_name": "first",
      "dag_id": "two",
      "dag_display_name": "two",
      "dag_run_id": "r",
      "map_index": -1,
      "max_tries": 0,
      "hostname": null,
      "unixname": null,
      "pid": null,
      "pool": "default_pool",
      "pool_slots": 1,
      "queue": null,
      "priority_weight": 0,
      "operator": "shell",
      "operator_name": "shell",
      "executor": "fake",
      "executor_config": "{}",
      "dag_version": {
        "id": "…",
        "version_number": 1,
        "dag_id": "two",
        "bundle_name": "workflows",
        "bundle_version": "…",
        "bundle_url": null,
        "created_at": "…",
        "dag_display_name": "two"
      },
      "id": "…",
      "run_after": "…",
      "logical_date": null,
      "try_number": 1,
      "state": "success",
      "start_date": "…",
      "end_date": "…",
      "duration": "…",
      "queued_when": "…",
      "scheduled_when": "…",
      "note": null,
      "rendered_map_index": null,
      "rendered_fields": {},
      "trigger": null,
      "triggerer_job": null
    }
    "#);
    let tries = rig.get("/api/v2/dags/two/dagRuns/r/taskInstances/second/tries").await.json();
    assert_eq!(tries["task_instances"][0]["state"], "failed");
    let log = rig.get("/api/v2/dags/two/dagRuns/r/taskInstances/first/logs/1").await.json();
    assert_eq!(log["content"][0]["event"], "hello");
    assert_eq!(log["continuation_token"], Value::Null);
    let no_such_attempt = rig.get("/api/v2/dags/two/dagRuns/r/taskInstances/first/logs/9").await;
    assert_eq!(no_such_attempt.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn wrong_input_is_told_and_never_a_fault_of_the_server() {
    let rig = Rig::with(TWO).await;
    rig.finish("two").await;
    let mut told = String::new();
    for (path, body) in [
        ("/api/v2/dags/none/dagRuns", "{}"),
        ("/api/v2/dags/..%2Fetc/dagRuns", "{}"),
        ("/api/v2/dags/two/dagRuns", r#"{"conf": {"n": 0}}"#),
        ("/api/v2/dags/two/dagRuns", r#"{"conf": {"m": 1}}"#),
        ("/api/v2/dags/two/dagRuns", r#"{"dag_run_id": "r"}"#),
        ("/api/v2/dags/two/dagRuns", r#"{"dag_run_id": "a/b", "conf": 5, "what": 1}"#),
        ("/api/v2/dags/two/dagRuns", "[1"),
        ("/api/v2/dags/two/clearTaskInstances", r#"{"dag_run_id": "r", "task_ids": [["first"]]}"#),
        ("/api/v2/dags/two/clearTaskInstances", r#"{"dag_run_id": "r", "task_ids": ["third"]}"#),
    ] {
        let answer = rig.ask(Method::POST, path, body).await;
        told.push_str(&format!("{} {}\n", answer.status.as_u16(), answer.text));
    }
    for path in [
        "/api/v2/dags/two/dagRuns?limit=x",
        "/api/v2/dags/two/dagRuns?order_by=; drop",
        "/api/v2/dags/two/dagRuns?state=great",
        "/api/v2/dags/two/dagRuns/r/taskInstances/first/-7",
        "/api/v2/dags/two/dagRuns/r/taskInstances/first/logs/1?token=z",
        "/api/v2/nothing",
    ] {
        let answer = rig.get(&path.replace(' ', "%20")).await;
        told.push_str(&format!("{} {}\n", answer.status.as_u16(), answer.text));
    }
    assert_snapshot!(told, @r#"
    404 {"detail":"The Dag with ID: `none` was not found"}
    404 {"detail":"The Dag with ID: `../etc` was not found"}
    400 {"detail":"the param `n` must be at least 1, found `0`"}
    400 {"detail":"the workflow `two` has no param `m`; its params are `n`"}
    409 {"detail":"`two` has the run `r` already"}
    422 {"detail":[{"loc":["body","conf"],"msg":"must be an object","type":"dict_type"},{"loc":["body","dag_run_id"],"msg":"`a/b` is not an id: `/` is not allowed, use letters, digits and `_ - . ~ : + @`","type":"value_error"},{"loc":["body","what"],"msg":"is not a field of this request","type":"extra_forbidden"}]}
    422 {"detail":[{"loc":["body"],"msg":"is not JSON: EOF while parsing a list at line 1 column 2","type":"json_invalid"}]}
    422 {"detail":[{"loc":["body","task_ids"],"msg":"must be names, or pairs of a name and a map index","type":"value_error"}]}
    404 {"detail":"The Task with ID: `third` was not found"}
    422 {"detail":[{"loc":["query","limit"],"msg":"`x` is not such a number","type":"int_parsing"}]}
    400 {"detail":"Ordering with `; drop` is disallowed or the attribute does not exist on the model"}
    422 {"detail":[{"loc":["query","state"],"msg":"`great` is not the state of a run","type":"enum"}]}
    404 {"detail":"The Task Instance with dag_id: `two`, run_id: `r`, task_id: `first` and map_index: `-7` was not found"}
    400 {"detail":"the continuation token is not one of ours"}
    404 {"detail":"Not Found"}
    "#);
    let large = rig.ask(Method::POST, "/api/v2/dags/two/dagRuns", vec![b' '; 3 << 20]).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn lists_take_what_airflows_clients_send() {
    let rig = Rig::with(TWO).await;
    rig.finish("two").await;
    let total = async |query: &str| {
        let answer = rig.get(&format!("/api/v2/dags/~/dagRuns?{query}")).await;
        answer.json()["total_entries"].as_u64().unwrap()
    };
    assert_eq!(total("limit=").await, 1);
    assert_eq!(total("state=failed&state=queued&order_by=-start_date").await, 1);
    assert_eq!(total("state=success").await, 0);
    assert_eq!(total("run_after_gte=2000-01-01T00:00:00Z").await, 1);
    assert_eq!(total("run_after_lte=2000-01-01").await, 0);
    let dags = rig.get("/api/v2/dags?dag_id_pattern=%25tw%25&tags=ci&limit=").await.json();
    assert_eq!(dags["dags"][0]["dag_id"], "two");
    let paused = rig.ask(Method::PATCH, "/api/v2/dags/two", r#"{"is_paused": true}"#).await.json();
    assert_eq!(paused["is_paused"], true);
    assert_eq!(rig.get("/api/v2/dags?paused=false").await.json()["total_entries"], 0);
}

#[tokio::test]
async fn an_instance_that_was_not_tried_has_no_state_and_says_why() {
    let rig = Rig::with(SLOW).await;
    let run = rig.start("slow", json!({})).await;
    rig.until(run.key, "long", "running").await;
    let after = rig.get("/api/v2/dags/slow/dagRuns/r/taskInstances/after").await.json();
    assert_eq!((&after["state"], &after["try_number"]), (&Value::Null, &json!(0)));
    let why = rig.get(&format!("/api/pitcrew/v1/runs/{}/explain/after", run.key)).await.json();
    assert_eq!(why["reasons"], json!(["waits for `long`, which is running"]));
}

#[tokio::test]
async fn a_run_set_to_failed_is_cancelled_and_shown_as_failed() {
    let rig = Rig::with(SLOW).await;
    let mut changes = rig.app.scheduler.subscribe();
    let run = rig.start("slow", json!({})).await;
    rig.until(run.key, "long", "running").await;
    let answer = rig.ask(Method::PATCH, "/api/v2/dags/slow/dagRuns/r", r#"{"state": "failed"}"#).await;
    assert_eq!(answer.status, StatusCode::OK);
    while !changes.recv().await.unwrap().finished {}
    assert_eq!(rig.get("/api/v2/dags/slow/dagRuns/r").await.json()["state"], "failed");
    assert_eq!(rig.get("/api/v2/dags/slow/dagRuns?state=failed").await.json()["total_entries"], 1);
    let ours = rig.get(&format!("/api/pitcrew/v1/runs/{}", run.key)).await.json();
    assert_eq!(ours["state"], "cancelled");
}

#[tokio::test]
async fn clearing_is_tried_first_and_done_when_asked() {
    let rig = Rig::with(TWO).await;
    let run = rig.finish("two").await;
    let clear = async |body: Value| rig.post("/api/v2/dags/two/clearTaskInstances", body).await.json();
    let tried = clear(json!({ "dag_run_id": "r" })).await;
    assert_eq!(tried["task_instances"][0]["task_id"], "second");
    assert_eq!(rig.run(run.key).await.state.name(), "failed");
    let all = clear(
        json!({ "dag_run_id": "r", "only_failed": false, "task_ids": [["first", -1]], "include_downstream": true }),
    )
    .await;
    assert_eq!(all["total_entries"], 2);
    let mut changes = rig.app.scheduler.subscribe();
    let done = clear(json!({ "dag_run_id": "r", "dry_run": false, "reset_dag_runs": true })).await;
    assert_eq!(done["total_entries"], 1);
    while !changes.recv().await.unwrap().finished {}
    let tries = rig.get("/api/v2/dags/two/dagRuns/r/taskInstances/second/tries").await.json();
    assert_eq!(tries["total_entries"], 2);
}

#[tokio::test]
async fn a_person_can_say_how_an_instance_ended() {
    let rig = Rig::with(TWO).await;
    rig.finish("two").await;
    let path = "/api/v2/dags/two/dagRuns/r/taskInstances/second";
    let marked = rig.ask(Method::PATCH, path, r#"{"new_state": "success"}"#).await;
    assert_eq!(marked.status, StatusCode::OK, "{}", marked.text);
    assert_eq!(rig.get(path).await.json()["state"], "success");
    let refused = rig.ask(Method::PATCH, path, r#"{"new_state": "running"}"#).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn instances_of_a_mapped_task_are_found_by_their_index() {
    let rig = Rig::with(MAPPED).await;
    rig.finish("mapped").await;
    let base = "/api/v2/dags/mapped/dagRuns/r/taskInstances/each";
    assert_eq!(rig.get(base).await.status, StatusCode::NOT_FOUND);
    let list = rig.get(&format!("{base}/listMapped?order_by=-map_index&limit=2")).await.json();
    assert_eq!((&list["total_entries"], &list["task_instances"][0]["map_index"]), (&json!(3), &json!(2)));
    assert_eq!(rig.get(&format!("{base}/1")).await.json()["state"], "success");
    let log = rig.get(&format!("{base}/logs/1?map_index=1")).await;
    assert_eq!(log.status, StatusCode::OK);
}
