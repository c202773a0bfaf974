//! Records to store.

use pitcrew_core::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunType};
use pitcrew_core::id::{RunId, TaskId, UNMAPPED, WorkflowId};
use pitcrew_core::state::State;
use pitcrew_store::{AuditEntry, NewRun, WorkflowRow};
use serde_json::{Map, Value};

/// A time, in seconds.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

pub fn workflow(name: &str) -> WorkflowId {
    WorkflowId::new(name).unwrap()
}

pub fn task(name: &str) -> TaskId {
    TaskId::new(name).unwrap()
}

pub fn run_id(name: &str) -> RunId {
    RunId::new(name).unwrap()
}

pub fn run(of: &str, id: &str) -> NewRun {
    NewRun {
        workflow: workflow(of),
        run_id: run_id(id),
        run_type: RunType::Manual,
        version: "v1".to_owned(),
        params: Map::new(),
        conf: Map::new(),
        logical_date: None,
        data_interval: None,
        run_after: at(0),
        queued_at: at(0),
        triggered_by: "test".to_owned(),
        note: String::new(),
        backfill: None,
        audit: Vec::new(),
    }
}

pub fn instance(name: &str, state: State) -> InstanceRecord {
    InstanceRecord {
        task: task(name),
        map_index: UNMAPPED,
        state,
        attempt: 0,
        max_attempt: 1,
        lost: 0,
        queued_at: None,
        start: None,
        end: None,
        exit: None,
        message: String::new(),
        outputs: Default::default(),
        item: None,
        followed: None,
        stop: None,
        skip: None,
    }
}

pub fn attempt(name: &str, number: u32) -> AttemptRecord {
    AttemptRecord {
        task: task(name),
        map_index: UNMAPPED,
        number,
        backend: "fake".to_owned(),
        handle: Value::Null,
        queued_at: at(1),
        start: None,
        end: None,
        exit: None,
        message: String::new(),
        node: None,
        gpus: Vec::new(),
        request: None,
        usage: Value::Null,
        names: Value::Null,
        detail: Value::Null,
    }
}

pub fn row(id: &str) -> WorkflowRow {
    WorkflowRow {
        id: workflow(id),
        path: format!("/flows/{id}.yaml"),
        version: "v1".to_owned(),
        description: "It works".to_owned(),
        tags: vec!["gpu".to_owned(), "ci".to_owned()],
        schedule: Some("0 2 * * *".to_owned()),
        is_paused: false,
        active: true,
        next_run: Some(at(100)),
    }
}

pub fn audit(event: &str, seconds: i64) -> AuditEntry {
    AuditEntry::new(at(seconds), "ada", event)
}
