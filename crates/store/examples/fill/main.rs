//! Fills a store with many instances, and measures every question that a page or the API asks:
//! `cargo run --release -p pitcrew-store --example fill -- [ADDRESS] [INSTANCES] [WORKFLOWS]`.
//!
//! A store that has runs is only measured, so a filled one serves many measurements, and pages can be looked at on it.
//! The figures are for a person to read; nothing is asserted.

#![allow(clippy::disallowed_methods, reason = "it measures the wall clock")]

mod filler;

use std::time::Instant;

use pitcrew_core::Timestamp;
use pitcrew_core::engine::record::RunType;
use pitcrew_core::id::{RunKey, TaskId, WorkflowId};
use pitcrew_core::state::RunState;
use pitcrew_store::*;

use filler::{Filler, moment};

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
