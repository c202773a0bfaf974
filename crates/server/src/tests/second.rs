//! What speaks in other ways than Airflow 3's API: Airflow 2's, and its command line.

use axum::http::{Method, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use insta::assert_json_snapshot;
use serde_json::json;

use super::{Rig, settled};

const TWO: &str = "
workflow: two
tags: [ci]
params: {n: {type: integer, default: 3}}
tasks:
  first: {backend: fake, run: x, env: {FAKE_LOG: hello, FAKE_OUTPUT_size: '5'}}
  second: {backend: fake, needs: [first], run: x, env: {FAKE_EXIT_CODE: '3'}}
";

#[tokio::test]
async fn scripts_for_airflow_2_go_on_working() {
    let rig = Rig::with(TWO).await;
    rig.finish("two").await;
    let dag = rig.get("/api/v1/dags/two").await.json();
    assert_eq!((&dag["is_active"], &dag["tags"]), (&json!(true), &json!([{ "name": "ci" }])));
    let body = json!({ "conf": { "n": 4 }, "execution_date": "2026-01-02T00:00:00Z", "state": "queued" });
    let made = rig.post("/api/v1/dags/two/dagRuns", body).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    let mut made = made.json();
    made["dag_run_id"] = json!("…");
    assert_json_snapshot!(settled(made));
    let listed = rig.get("/api/v1/dags/~/dagRuns?execution_date_gte=2026-01-01&order_by=-execution_date&limit=1").await;
    assert_eq!(listed.json()["dag_runs"][0]["execution_date"], "2026-01-02T00:00:00Z");
    let base = "/api/v1/dags/two/dagRuns/r/taskInstances";
    assert_eq!(rig.get(base).await.json()["total_entries"], 2);
    assert_eq!(rig.get(&format!("{base}/second")).await.json()["state"], "failed");
    let log = rig.get(&format!("{base}/first/logs/1?full_content=true")).await;
    assert!(log.text.ends_with("hello\n") && log.header("content-type").starts_with("text/plain"), "{}", log.text);
    assert_eq!(rig.get(&format!("{base}/first/xcomEntries/size")).await.json()["value"], "5");
    let would = rig.post("/api/v1/dags/two/clearTaskInstances", json!({ "dag_run_id": "r" })).await.json();
    assert_eq!(would["task_instances"][0]["task_id"], "second");
    let set = rig.post("/api/v1/variables", json!({ "key": "a", "value": "1" })).await;
    assert_eq!((set.status, set.json()), (StatusCode::OK, json!({ "key": "a", "value": "1", "description": null })));
    let masked = json!({ "key": "a", "value": "2", "description": "d" });
    let path = "/api/v1/variables/a?update_mask=description";
    assert_eq!(rig.ask(Method::PATCH, path, masked.to_string()).await.json()["value"], "1");
    let pool = rig.post("/api/v1/pools", json!({ "name": "p", "slots": 3 })).await;
    assert_eq!((pool.status, &pool.json()["open_slots"]), (StatusCode::OK, &json!(3)));
    let connection = json!({ "connection_id": "db", "conn_type": "postgres", "password": "hunter2" });
    let connection = rig.post("/api/v1/connections", connection).await;
    assert!(connection.status == StatusCode::OK && !connection.text.contains("hunter2"));
    for path in
        ["connections/db", "pools/p", "pools", "connections", "variables", "importErrors", "version", "health", "dags"]
    {
        assert_eq!(rig.get(&format!("/api/v1/{path}")).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(rig.ask(Method::DELETE, "/api/v1/variables/a", "").await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn errors_of_airflow_2_are_problem_documents() {
    let rig = Rig::with(TWO).await;
    let missing = rig.get("/api/v1/dags/none").await;
    assert_eq!(missing.header("content-type"), "application/problem+json");
    assert_json_snapshot!(missing.json());
    let wrong = rig.post("/api/v1/dags/two/dagRuns", json!({ "conf": 5, "what": 1 })).await;
    assert_eq!((wrong.status, &wrong.json()["status"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!(422)));
    let anonymous = rig.request(Method::GET, "/api/v1/dags").body(axum::body::Body::empty()).unwrap();
    let anonymous = rig.send(anonymous).await;
    assert_eq!((anonymous.status, &anonymous.json()["title"]), (StatusCode::UNAUTHORIZED, &json!("Unauthorized")));
}

impl Rig {
    /// Status, stdout and stderr of a command line.
    async fn line(&self, line: &str) -> (StatusCode, String, String) {
        let request = self
            .request(Method::POST, "/aws_mwaa/cli")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "text/plain");
        let answer = self.send(request.body(line.to_owned().into()).unwrap()).await;
        let text = |key: &str| String::from_utf8(BASE64.decode(answer.json()[key].as_str().unwrap()).unwrap()).unwrap();
        (answer.status, text("stdout"), text("stderr"))
    }
}

#[tokio::test]
async fn airflows_command_line_works_through_the_door_of_mwaa() {
    let rig = Rig::with(TWO).await;
    rig.finish("two").await;
    let ok = async |line: &str| {
        let (status, stdout, stderr) = rig.line(line).await;
        assert_eq!((status, stderr.as_str()), (StatusCode::OK, ""), "{line}: {stderr}");
        stdout
    };
    let run = ok(r#"dags trigger two -c '{"n": 7}' -r by-hand -o json"#).await;
    assert!(run.contains(r#""dag_run_id":"by-hand""#) && run.contains(r#""n":7"#), "{run}");
    assert_eq!(ok("dags state two r").await, "failed\n");
    assert!(ok("dags list-runs -d two --state failed -o plain").await.contains("two    r"));
    assert_eq!(ok("tasks list two").await, "first\nsecond\n");
    assert_eq!(ok("tasks state two first r").await, "success\n");
    assert!(ok("tasks states-for-dag-run two r").await.contains("| second  | -1        | failed"));
    ok("dags pause two").await;
    assert!(ok("dags list").await.lines().last().unwrap().ends_with("| True"));
    assert_eq!(ok("variables set greeting 'hello there'").await, "Variable greeting created\n");
    assert_eq!(ok("variables get greeting").await, "hello there\n");
    assert_eq!(ok("variables get none --default x").await, "x\n");
    ok("pools set gpu 4 cards").await;
    assert!(ok("pools list -o yaml").await.contains(r#""name":"gpu""#));
    ok("connections add db --conn-type postgres --conn-password hunter2").await;
    assert!(!ok("connections get db -o json").await.contains("hunter2"));
    ok("version").await;
    assert!(ok("dags --help").await.contains("trigger"));
}

#[tokio::test]
async fn a_wrong_command_line_is_refused_and_nothing_runs() {
    let rig = Rig::with(TWO).await;
    for (line, why) in [
        ("", "Usage: airflow"),
        ("dags explode", "unrecognized subcommand"),
        ("dags trigger", "required arguments"),
        ("dags trigger none", "was not found"),
        ("dags trigger two -c '{", "No closing quotation"),
        ("dags trigger two -c '[1]'", "must be an object"),
        ("dags trigger two; touch /tmp/x", "unexpected argument"),
        ("dags delete two", "--yes"),
        ("variables get none", "was not found"),
        ("variables set k '{' --json", "not JSON"),
        ("pools set p -7 d", "from -1"),
        ("users create", "unrecognized subcommand"),
    ] {
        let (status, stdout, stderr) = rig.line(line).await;
        assert_eq!((status, stdout.as_str()), (StatusCode::BAD_REQUEST, ""), "{line}: {stdout}");
        assert!(stderr.contains(why), "{line}: {stderr}");
    }
    assert_eq!(rig.get("/api/v2/dags/two/dagRuns").await.json()["total_entries"], 0);
}
