//! Fills a store with many instances, and measures every question that a page or the API asks:
//! `cargo run --release -p pitcrew-store --example fill -- [ADDRESS] [INSTANCES] [WORKFLOWS]`.
//!
//! One workflow, `wide`, has 100 runs of 500 tasks, for the grid; the others have five tasks and share the rest. A
//! store that has runs is only measured, so a filled one serves many measurements, and pages can be looked at on it.
//! The figures are for a person to read; nothing is asserted.

#![allow(clippy::disallowed_methods, reason = "it measures the wall clock")]

use std::time::{Duration, Instant};

use pitcrew_core::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, RunType};
use pitcrew_core::id::{RunId, RunKey, TaskId, WorkflowId};
use pitcrew_core::state::{Exit, RunState, State};
use pitcrew_store::*;
use serde_json::{Map, json};

const WIDE_TASKS: usize = 500;
const WIDE_RUNS: usize = 100;
const TASKS: [&str; 5] = ["checkout", "train", "evaluate", "notebook", "report"];

/// How many runs back it reaches: one every ten minutes for each workflow.
fn moment(now: Timestamp, back: usize) -> Timestamp {
    now - Duration::from_secs(600 * back as u64)
}

fn source(id: &str, tasks: &[String]) -> String {
    let tasks: Vec<String> = tasks.iter().map(|task| format!("  {task}: {{run: 'true'}}\n")).collect();
    format!("workflow: {id}\ntasks:\n{}", tasks.concat())
}

struct Filler {
    store: Store,
    owner: Owner,
    now: Timestamp,
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
            });
            // One task of each run held a GPU.
            if n == 1 {
                commit.attempts.push(AttemptRecord {
                    task: task.clone(),
                    map_index: -1,
                    number: 1,
                    backend: "local".to_owned(),
                    handle: json!({"pid": 12345}),
                    queued_at: start,
                    start: Some(start),
                    end,
                    exit: exit.or(Some(Exit::Code { code: 0 })),
                    message: String::new(),
                    gpus: vec!["GPU-8a5f2c1e".to_owned()],
                    usage: json!({"wall_seconds": 28.0, "user_cpu_seconds": 20.0, "system_cpu_seconds": 1.0,
                        "peak_memory_bytes": 1u64 << 30, "gpus": [{"uuid": "GPU-8a5f2c1e", "samples": 28,
                        "mean_utilization_percent": 60.0 + (back % 30) as f64, "max_utilization_percent": 100.0,
                        "mean_memory_bytes": 1u64 << 34, "max_memory_bytes": 1u64 << 35}]}),
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

    async fn fill(&self, instances: usize, workflows: usize) {
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

/// Asks often, and prints how long it took.
async fn measure<T>(what: &str, repeats: usize, mut ask: impl AsyncFnMut() -> T, size: impl Fn(&T) -> u64) {
    let mut times = Vec::new();
    let mut rows = 0;
    for _ in 0..repeats {
        let start = Instant::now();
        let answer = ask().await;
        times.push(start.elapsed());
        rows = size(&answer);
    }
    times.sort();
    let ms = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!("{what:<58} p50 {:>8.2} ms  p95 {:>8.2} ms  ({rows})", ms(50), ms(95));
}

async fn measure_all(store: &Store, now: Timestamp) {
    let flow = WorkflowId::new("flow_007").unwrap();
    let wide = WorkflowId::new("wide").unwrap();
    let newest = store.latest_run(&flow).await.unwrap().unwrap();
    let middle = RunKey(newest.key.0 / 2);
    let page = Paging::first(50);
    let day = Between { from: Some(moment(now, 144 * 3)), to: Some(moment(now, 144 * 2)) };

    let runs = |filter: RunFilter| async move { store.runs(&filter, page).await.unwrap().total };
    let of = |states: &[RunState], order| RunFilter { states: states.to_vec(), order, ..RunFilter::default() };
    use RunState::{Cancelled, Failed, Queued, Running, Success};
    for (what, filter) in [
        ("runs: all, newest", of(&[], RunOrder::Newest)),
        ("runs: failed, newest", of(&[Failed, Cancelled], RunOrder::Newest)),
        ("runs: failed, by end", of(&[Failed], RunOrder::EndDescending)),
        ("runs: queued or running", of(&[Queued, Running], RunOrder::Newest)),
        ("runs: success or failed, by start", of(&[Success, Failed], RunOrder::StartDescending)),
        ("runs: all, by logical date", of(&[], RunOrder::LogicalDateDescending)),
        ("runs: all, by start, upwards", of(&[], RunOrder::Start)),
        ("runs: of a workflow", RunFilter { workflow: Some(flow.clone()), ..RunFilter::default() }),
        ("runs: of a workflow, by end", RunFilter { workflow: Some(flow.clone()), ..of(&[], RunOrder::EndDescending) }),
        ("runs: backfill (none)", RunFilter { run_type: Some(RunType::Backfill), ..RunFilter::default() }),
        ("runs: started in one day", RunFilter { start: day, ..RunFilter::default() }),
        ("runs: run_after in one day, failed", RunFilter { run_after: day, ..of(&[Failed], RunOrder::Newest) }),
        ("runs: part of the id (none)", RunFilter { contains: Some("nothing".to_owned()), ..RunFilter::default() }),
        (
            "runs: of a token's two workflows",
            RunFilter { among: vec![flow.clone(), wide.clone()], ..RunFilter::default() },
        ),
    ] {
        measure(what, 40, async || runs(filter.clone()).await, |total| *total).await;
    }
    let deep = Paging { limit: 50, offset: 9_000 };
    measure("runs: all, page 181", 40, async || store.runs(&RunFilter::default(), deep).await.unwrap(), |p| p.total)
        .await;
    measure("run_counts", 10, async || store.run_counts().await.unwrap(), |c| c.len() as u64).await;
    measure("runs_in: success", 40, async || store.runs_in(Success).await.unwrap(), |n| *n).await;
    let all_flows: Vec<WorkflowId> = {
        let page = store.workflows(&WorkflowFilter::default(), Paging::ALL).await.unwrap();
        page.rows.into_iter().map(|row| row.id).collect()
    };
    let recent = async || store.recent_runs(&all_flows, 15).await.unwrap();
    measure("recent_runs: 15 of every workflow", 20, recent, |r| r.len() as u64).await;
    let flows = async || store.workflows(&WorkflowFilter::default(), page).await.unwrap();
    measure("workflows", 40, flows, |p| p.total).await;

    let all = InstanceQuery::default;
    use InstanceOrder::{EndDescending, Newest, Start, StartDescending};
    for (what, query) in [
        ("instances: all, newest", all()),
        ("instances: all, by start", InstanceQuery { order: StartDescending, ..all() }),
        ("instances: failed, by end", InstanceQuery { states: vec!["failed"], order: EndDescending, ..all() }),
        ("instances: failed, newest", InstanceQuery { states: vec!["failed"], ..all() }),
        (
            "instances: running, queued or scheduled",
            InstanceQuery { states: vec!["running", "queued", "scheduled"], ..all() },
        ),
        (
            "instances: success or failed, newest",
            InstanceQuery { states: vec!["success", "failed"], order: Newest, ..all() },
        ),
        ("instances: started in one day", InstanceQuery { start: day, order: Start, ..all() }),
        ("instances: of a workflow", InstanceQuery { workflow: Some(flow.clone()), ..all() }),
        (
            "instances: of a workflow, failed",
            InstanceQuery { workflow: Some(flow.clone()), states: vec!["failed"], ..all() },
        ),
        (
            "instances: of a workflow, deferred (none)",
            InstanceQuery { workflow: Some(flow.clone()), states: vec!["deferred"], ..all() },
        ),
        (
            "instances: of a workflow, by start",
            InstanceQuery { workflow: Some(flow.clone()), order: StartDescending, ..all() },
        ),
        (
            "instances: of the wide workflow, by start",
            InstanceQuery { workflow: Some(wide.clone()), order: StartDescending, ..all() },
        ),
        (
            "instances: of one task",
            InstanceQuery { workflow: Some(flow.clone()), task: Some(TaskId::new("train").unwrap()), ..all() },
        ),
        ("instances: of a run", InstanceQuery { run: Some(middle), ..all() }),
        ("instances: of a token's two workflows", InstanceQuery { among: vec![flow.clone(), wide.clone()], ..all() }),
    ] {
        let ask = async || store.task_instances(&query, page).await.unwrap();
        measure(what, 40, ask, |p| p.total).await;
    }
    measure("instances_in", 20, async || store.instances_in().await.unwrap(), |c| c.values().sum()).await;
    let grid = async || store.grid(&wide, None, 100).await.unwrap();
    measure("grid: 500 tasks x 100 runs", 20, grid, |g| g.runs.iter().map(|run| run.cells.len() as u64).sum()).await;
    let grid = async || store.grid(&flow, None, 30).await.unwrap();
    measure("grid: 5 tasks x 30 runs", 20, grid, |g| g.runs.len() as u64).await;
    let bounds: Vec<Timestamp> = (0..=365).rev().map(|day| moment(now, 144 * day)).collect();
    let counted = |days: &Vec<RunCounts>| days.iter().map(|day| day.open() + day.success + day.failed).sum();
    measure("run_days: a year, all", 10, async || store.run_days(None, &bounds).await.unwrap(), counted).await;
    let of_flow = async || store.run_days(Some(&flow), &bounds).await.unwrap();
    measure("run_days: a year, one workflow", 20, of_flow, counted).await;
    for (what, workflow, days) in
        [("figures: a day", None, 1), ("figures: all", None, 400), ("figures: of a workflow", Some(flow.clone()), 400)]
    {
        let of = FiguresOf { workflow, since: moment(now, 144 * days), until: now };
        measure(what, 10, async || store.figures(&of).await.unwrap(), |f| f.runs.success + f.runs.failed).await;
    }
    let entries = |filter: AuditFilter| async move { store.audit(&filter, page).await.unwrap().total };
    for (what, filter) in [
        ("audit: all", AuditFilter::default()),
        ("audit: of a workflow", AuditFilter { workflow: Some(flow.clone()), ..AuditFilter::default() }),
        (
            "audit: an event's beginning",
            AuditFilter { event_prefix: Some("run.".to_owned()), ..AuditFilter::default() },
        ),
        ("audit: of a day", AuditFilter { at: day, ..AuditFilter::default() }),
        ("audit: of nobody", AuditFilter { who: Some("nobody".to_owned()), ..AuditFilter::default() }),
    ] {
        measure(what, 40, async || entries(filter.clone()).await, |total| *total).await;
    }
    measure("audit_events", 40, async || store.audit_events().await.unwrap(), |e| e.len() as u64).await;
    measure("stored_run", 40, async || store.stored_run(middle).await.unwrap(), |r| u64::from(r.is_some())).await;
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let folder = tempfile::tempdir().unwrap();
    let default = folder.path().join("fill.db").display().to_string();
    let url: StoreUrl = args.next().filter(|address| address != "-").unwrap_or(default).parse().unwrap();
    let instances = args.next().map_or(1_000_000, |count| count.parse().unwrap());
    let workflows = args.next().map_or(200, |count| count.parse().unwrap());
    let store = Store::open(&url).await.unwrap();
    let now = Timestamp::now();
    if store.runs(&RunFilter::default(), Paging::first(1)).await.unwrap().total == 0 {
        let start = Instant::now();
        let owner = store.register_owner().await.unwrap();
        Filler { store: store.clone(), owner, now }.fill(instances, workflows).await;
        println!("{url}: filled in {:?}", start.elapsed());
    }
    measure_all(&store, now).await;
    store.close().await;
}
