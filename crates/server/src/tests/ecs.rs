//! What is on Amazon ECS, in the fields of the system before. That the documents are true of each answer is looked at with
//! every request of these tests.

use axum::http::StatusCode;
use pitcrew_control::clock;
use pitcrew_store::{AuditEntry, EcsImport, EcsKind};
use serde_json::{Value, json};

use super::Rig;

#[tokio::test]
async fn what_is_on_ecs_is_told_by_the_api() {
    let rig = Rig::new().await;
    let import = |kind, key: &str, body: Value| EcsImport {
        kind,
        key: key.to_owned(),
        source: "old".to_owned(),
        body,
        node: None,
    };
    let job = |status: &str| {
        json!({ "num_nodes": 2, "assigned_nodes": ["gpu-1"], "submitted_container_inst_ids": [],
            "submitted_ecs_task_ids": ["t1", "t2"], "retry": 1, "job_status": status })
    };
    let items = [
        import(EcsKind::Job, "llm-1", job("FAILED")),
        import(EcsKind::Job, "llm-2", job("COMPLETE")),
        import(EcsKind::Task, "t1", json!({ "job_id": "llm-1", "retry": 0, "task_status": "TERMINATED" })),
        import(EcsKind::Node, "gpu-1", json!({ "node_status": "REBOOTING", "ip": "10.0.0.7" })),
    ];
    rig.app.store.import_ecs(&items, clock::now(), AuditEntry::new(clock::now(), "ada", "ecs.import")).await.unwrap();

    let jobs = rig.get("/api/pitcrew/v1/ecs/jobs?limit=1").await.json();
    assert_eq!((&jobs["total_entries"], jobs["jobs"].as_array().unwrap().len()), (&json!(2), 1));
    let jobs = rig.get("/api/pitcrew/v1/ecs/jobs?status=COMPLETE&origin=imported").await.json();
    assert_eq!((&jobs["total_entries"], &jobs["jobs"][0]["job_id"]), (&json!(1), &json!("llm-2")), "{jobs}");
    assert_eq!(jobs["jobs"][0]["submitted_ecs_task_ids"], json!(["t1", "t2"]));
    let tasks = rig.get("/api/pitcrew/v1/ecs/tasks?job_id=llm-1").await.json();
    assert_eq!((&tasks["total_entries"], &tasks["tasks"][0]["ecs_task_id"]), (&json!(1), &json!("t1")), "{tasks}");
    assert_eq!(rig.get("/api/pitcrew/v1/ecs/tasks?job_id=llm-2").await.json()["total_entries"], 0);
    let nodes = rig.get("/api/pitcrew/v1/ecs/nodes?status=REBOOTING").await.json();
    assert_eq!((&nodes["nodes"][0]["node_name"], &nodes["nodes"][0]["origin"]), (&json!("gpu-1"), &json!("imported")));
    for wrong in ["jobs?status=DONE", "tasks?status=FAILED_OTHERS", "nodes?origin=elsewhere"] {
        let answer = rig.get(&format!("/api/pitcrew/v1/ecs/{wrong}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert!(answer.text.contains("is none of"), "{wrong}: {}", answer.text);
    }
}
