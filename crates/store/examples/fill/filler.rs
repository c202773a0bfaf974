//! A store as it is after a week of a busy server: a million task instances, or as many as are wanted.
//!
//! One workflow, `wide`, has 100 runs of 500 tasks, for the grid; the others have five tasks and share the rest. Every
//! twentieth run failed, and of the newest some still run.

use std::time::Duration;

use pitcrew_core::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, RunType};
use pitcrew_core::id::{AttemptId, RunId, TaskId, WorkflowId};
use pitcrew_core::state::{Exit, RunState, State};
use pitcrew_store::*;
use serde_json::{Map, json};

const WIDE_TASKS: usize = 500;
const WIDE_RUNS: usize = 100;
const TASKS: [&str; 5] = ["checkout", "train", "evaluate", "notebook", "report"];

/// When the run came that is so many runs back: each workflow has one every ten minutes.
pub fn moment(now: Timestamp, back: usize) -> Timestamp {
    now - Duration::from_secs(600 * back as u64)
}

/// The definition, tasks of a group one after the other.
fn source(id: &str, tasks: &[String]) -> String {
    let mut text = format!("workflow: {id}\ntasks:\n");
    let mut open = "";
    for task in tasks {
        match task.split_once('.') {
            Some((group, name)) => {
                if group != open {
                    text.push_str(&format!("  {group}:\n    tasks:\n"));
                    open = group;
                }
                text.push_str(&format!("      {name}: {{run: 'true'}}\n"));
            }
            None => text.push_str(&format!("  {task}: {{run: 'true'}}\n")),
        }
    }
    text
}

/// Fills a store that is empty.
pub struct Filler {
    pub store: Store,
    pub owner: Owner,
    pub now: Timestamp,
}

impl Filler {
    async fn workflow(&self, id: &str, tasks: &[String], group: usize) -> WorkflowId {
        let id = WorkflowId::new(id).unwrap();
        let row = WorkflowRow {
            id: id.clone(),
            path: format!("/flows/{id}.yaml"),
            version: "v1".to_owned(),
            description: "Made to measure".to_owned(),
            tags: vec![format!("team{}", group % 7)],
            schedule: None,
            is_paused: group % 10 == 9,
            active: true,
            next_run: None,
        };
        self.store.put_workflow(&row, &source(id.as_str(), tasks), self.now).await.unwrap();
        id
    }

    /// One run with all its rows, `back` runs before now. Every 20th failed; the newest of some still runs.
    async fn run(&self, workflow: &WorkflowId, tasks: &[TaskId], back: usize) -> RunCommit {
        let at = moment(self.now, back);
        let new = NewRun {
            workflow: workflow.clone(),
            run_id: RunId::new(&format!("scheduled__{at}")).unwrap(),
            run_type: if back.is_multiple_of(50) { RunType::Manual } else { RunType::Scheduled },
            version: "v1".to_owned(),
            params: Map::new(),
            conf: Map::new(),
            logical_date: Some(at),
            data_interval: Some((at, at)),
            run_after: at,
            queued_at: at,
            triggered_by: "fill".to_owned(),
            note: String::new(),
            backfill: None,
            audit: vec![AuditEntry { workflow: Some(workflow.clone()), ..AuditEntry::new(at, "fill", "run.trigger") }],
        };
        let made = self.store.create_run(new, Some(&self.owner)).await.unwrap().into_run();
        let failed = back % 20 == 7;
        let open = back == 0 && made.key.0 % 4 == 0;
        let after = |seconds: usize| at + Duration::from_secs(seconds as u64);
        let mut commit = RunCommit::new(made.key);
        for (n, task) in tasks.iter().enumerate() {
            let last = n + 1 == tasks.len();
            let state = match (last, open, failed) {
                (true, true, _) => State::Running,
                (true, _, true) => State::Failed,
                _ => State::Success,
            };
            let (start, end) = (after(n % 300 + 2), state.is_final().then(|| after(n % 300 + 30 + back % 40)));
            let exit = end.map(|_| Exit::Code { code: i32::from(state == State::Failed) });
            commit.instances.push(InstanceRecord {
                task: task.clone(),
                map_index: -1,
                state,
                attempt: 1,
                max_attempt: 1,
                lost: 0,
                queued_at: Some(after(n % 300 + 1)),
                start: Some(start),
                end,
                exit: exit.clone(),
                message: String::new(),
                outputs: Default::default(),
                item: None,
                followed: None,
                stop: None,
                skip: None,
            });
            // One task of each run held a GPU.
            if n == 1 {
                let attempt = AttemptId { run: made.key, task: task.clone(), map_index: -1, number: 1 };
                commit.attempts.push(AttemptRecord {
                    task: task.clone(),
                    map_index: -1,
                    number: 1,
                    backend: "local".to_owned(),
                    // Its log is gone, as those of old runs may be.
                    handle: json!({ "id": attempt, "dir": "/nonexistent" }),
                    queued_at: start,
                    start: Some(start),
                    end,
                    exit: exit.or(Some(Exit::Code { code: 0 })),
                    message: String::new(),
                    node: Some("local".to_owned()),
                    gpus: vec!["GPU-8a5f2c1e".to_owned()],
                    request: None,
                    usage: json!({"wall_seconds": 28.0, "user_cpu_seconds": 20.0, "system_cpu_seconds": 1.0,
                        "peak_memory_bytes": 1u64 << 30, "gpus": [{"uuid": "GPU-8a5f2c1e", "samples": 28,
                        "mean_utilization_percent": 60.0 + (back % 30) as f64, "max_utilization_percent": 100.0,
                        "mean_memory_bytes": 1u64 << 34, "max_memory_bytes": 1u64 << 35}]}),
                    names: serde_json::Value::Null,
                    detail: serde_json::Value::Null,
                });
            }
        }
        let state = match (open, failed) {
            (true, _) => RunState::Running,
            (_, true) => RunState::Failed,
            _ => RunState::Success,
        };
        let end = state.is_final().then(|| after(400));
        commit.run = Some(RunRecord { state, start: Some(after(1)), end, ..made });
        commit
    }

    pub async fn fill(&self, instances: usize, workflows: usize) {
        let wide: Vec<String> = (0..WIDE_TASKS).map(|n| format!("stage_{:02}.task_{n:03}", n / 25)).collect();
        let five: Vec<String> = TASKS.iter().map(|task| (*task).to_owned()).collect();
        let ids = |names: &[String]| names.iter().map(|name| TaskId::new(name).unwrap()).collect::<Vec<_>>();
        let mut flows = Vec::new();
        for n in 0..workflows {
            flows.push(self.workflow(&format!("flow_{n:03}"), &five, n).await);
        }
        let runs = instances.saturating_sub(WIDE_TASKS * WIDE_RUNS) / (workflows * TASKS.len()).max(1);
        let tasks = ids(&five);
        // The oldest first, as they would have come.
        for back in (0..runs).rev() {
            let mut commits = Vec::with_capacity(workflows);
            for flow in &flows {
                commits.push(self.run(flow, &tasks, back).await);
            }
            self.store.commit(&self.owner, commits).await.unwrap();
        }
        let (flow, tasks) = (self.workflow("wide", &wide, 0).await, ids(&wide));
        for back in (0..WIDE_RUNS).rev() {
            let commit = self.run(&flow, &tasks, back).await;
            self.store.commit(&self.owner, vec![commit]).await.unwrap();
        }
    }
}
