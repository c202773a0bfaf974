//! How fast the store is: `cargo run --release -p pitcrew-store --example speed -- [ADDRESS] [MILLION_ROWS]`.
//!
//! Without an address a new SQLite file in the temporary folder is measured; with a second argument also pages
//! out of a run of that many million rows. The figures are for a person to read; nothing is asserted.

#![allow(clippy::disallowed_methods, reason = "it measures the wall clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use pitcrew_core::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunType};
use pitcrew_core::id::{RunId, RunKey, TaskId, WorkflowId};
use pitcrew_core::state::{Exit, State};
use pitcrew_store::*;
use serde_json::{Map, Value};

fn instance(task: &str, map_index: i32, state: State) -> InstanceRecord {
    InstanceRecord {
        task: TaskId::new(task).unwrap(),
        map_index,
        state,
        attempt: 1,
        max_attempt: 3,
        lost: 0,
        queued_at: Some(Timestamp::UNIX_EPOCH),
        start: Some(Timestamp::UNIX_EPOCH),
        end: None,
        exit: state.is_final().then_some(Exit::Code { code: 0 }),
        message: String::new(),
        outputs: Default::default(),
        item: None,
        followed: None,
        stop: None,
        skip: None,
    }
}

fn attempt(of: &InstanceRecord) -> AttemptRecord {
    AttemptRecord {
        task: of.task.clone(),
        map_index: of.map_index,
        number: of.attempt,
        backend: "local".to_owned(),
        handle: serde_json::json!({"pid": 12345, "started": 987654321}),
        queued_at: Timestamp::UNIX_EPOCH,
        start: None,
        end: None,
        exit: of.exit.clone(),
        message: String::new(),
        node: None,
        gpus: Vec::new(),
        request: None,
        usage: Value::Null,
        names: Value::Null,
        detail: Value::Null,
    }
}

async fn new_run(store: &Store, owner: &Owner, id: &str) -> RunKey {
    let new = NewRun {
        workflow: WorkflowId::new("speed").unwrap(),
        run_id: RunId::new(&format!("{id}_{}", uuid::Uuid::now_v7())).unwrap(),
        run_type: RunType::Manual,
        version: "v".to_owned(),
        params: Map::new(),
        conf: Map::new(),
        logical_date: None,
        data_interval: None,
        run_after: Timestamp::UNIX_EPOCH,
        queued_at: Timestamp::UNIX_EPOCH,
        triggered_by: "speed".to_owned(),
        note: String::new(),
        backfill: None,
        audit: Vec::new(),
    };
    store.create_run(new, Some(owner)).await.unwrap().into_run().key
}

fn per_second(rows: usize, taken: Duration) -> String {
    format!("{:.0}/s", rows as f64 / taken.as_secs_f64())
}

/// The middle and the 99th percentile.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    format!("p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100])
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let folder = tempfile::tempdir().unwrap();
    let default = folder.path().join("speed.db").display().to_string();
    let url: StoreUrl = args.next().filter(|address| address != "-").unwrap_or(default).parse().unwrap();
    let million = args.next().map_or(0.0, |rows| rows.parse::<f64>().unwrap());
    let start = Instant::now();
    let store = Store::open(&url).await.unwrap();
    println!("{url}: open {:?}", start.elapsed());
    let owner = Arc::new(store.register_owner().await.unwrap());

    for batch in [1000, 100, 10] {
        let key = new_run(&store, &owner, "batch").await;
        let rows = 30_000;
        for (what, state) in [("insert", State::Queued), ("update", State::Success)] {
            let start = Instant::now();
            for first in (0..rows).step_by(batch) {
                let instances = (first..first + batch).map(|n| instance("task", n as i32, state)).collect();
                let commit = RunCommit { instances, ..RunCommit::new(key) };
                store.commit(&owner, vec![commit]).await.unwrap();
            }
            println!("{what} of {batch} instances per commit: {}", per_second(rows, start.elapsed()));
        }
    }

    let key = new_run(&store, &owner, "single").await;
    let mut times = Vec::new();
    for n in 0..3000 {
        let row = instance("task", n, State::Running);
        let commit = RunCommit { attempts: vec![attempt(&row)], instances: vec![row], ..RunCommit::new(key) };
        let start = Instant::now();
        store.commit(&owner, vec![commit]).await.unwrap();
        times.push(start.elapsed());
    }
    println!("one instance and one attempt per commit, one caller: {}", spread(times));

    let (callers, each) = (64, 200);
    let start = Instant::now();
    let mut writing = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let (store, owner) = (store.clone(), owner.clone());
        let key = new_run(&store, &owner, &format!("caller{caller}")).await;
        writing.spawn(async move {
            for n in 0..each {
                for state in [State::Queued, State::Running, State::Success] {
                    let row = instance("task", n, state);
                    let commit =
                        RunCommit { attempts: vec![attempt(&row)], instances: vec![row], ..RunCommit::new(key) };
                    store.commit(&owner, vec![commit]).await.unwrap();
                }
            }
        });
    }
    writing.join_all().await;
    let commits = callers * each as usize * 3;
    println!(
        "{callers} callers, one instance and one attempt per commit: {} commits",
        per_second(commits, start.elapsed())
    );

    if million > 0.0 {
        pages(&store, &owner, (million * 1e6) as i32).await;
    }
}

async fn pages(store: &Store, owner: &Owner, rows: i32) {
    let key = new_run(store, owner, "big").await;
    let start = Instant::now();
    for first in (0..rows).step_by(2000) {
        let state = |n| if n % 1000 == 0 { State::Failed } else { State::Success };
        let row = |n| instance(&format!("task_{:05}", n % 100), n / 100, state(n));
        let commit = RunCommit { instances: (first..first + 2000).map(row).collect(), ..RunCommit::new(key) };
        store.commit(owner, vec![commit]).await.unwrap();
    }
    println!("a run of {rows} instances: written at {}", per_second(rows as usize, start.elapsed()));
    let filter = |states: &[&'static str]| InstanceFilter { states: states.to_vec(), task: None };
    for (what, filter, offset) in [
        ("first page", filter(&[]), 0),
        ("last page", filter(&[]), rows as u64 - 50),
        ("failed", filter(&["failed"]), 0),
        ("success, in the middle", filter(&["success"]), rows as u64 / 2),
        ("failed or running", filter(&["failed", "running"]), 0),
        ("failed or success", filter(&["failed", "success"]), 0),
    ] {
        let start = Instant::now();
        let page = store.instances(key, &filter, Paging { limit: 50, offset }).await.unwrap();
        println!("  {what}: {:?} ({} of {})", start.elapsed(), page.rows.len(), page.total);
    }
    let start = Instant::now();
    store.state_counts(&[key]).await.unwrap();
    println!("  state counts: {:?}", start.elapsed());
    let start = Instant::now();
    let stored = store.stored_run(key).await.unwrap().unwrap();
    println!("  the whole run, as for a restart: {:?} ({} rows)", start.elapsed(), stored.instances.len());
}
