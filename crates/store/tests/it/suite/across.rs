//! Questions over many runs.

use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, RunType};
use pitcrew_core::id::RunKey;
use pitcrew_core::state::{Exit, RunState, State};
use pitcrew_store::*;
use serde_json::json;

use super::writes::committed;
use crate::sample::{at, attempt, audit, instance, run, run_id, task, workflow};

/// Three runs of `wide` and one of `wide2`, an hour apart, each with two tasks; as keys.
async fn made(store: &Store, owner: &Owner) -> Vec<RunKey> {
    let hour = |n: i64| at(n * 3600);
    let mut keys = Vec::new();
    for (n, of) in ["wide", "wide", "wide", "wide2"].into_iter().enumerate() {
        let n = n as i64;
        let run_type = if n == 0 { RunType::Scheduled } else { RunType::Manual };
        let new = NewRun {
            run_type,
            run_after: hour(n),
            queued_at: hour(n),
            logical_date: (n < 2).then(|| hour(n)),
            ..run(of, &format!("Run_{n}"))
        };
        let made = store.create_run(new, Some(owner)).await.unwrap().into_run();
        // Failed, failed, well, and one that still runs.
        let state = [RunState::Failed, RunState::Failed, RunState::Success, RunState::Running][n as usize];
        let end = state.is_final().then(|| hour(n) + jiff::SignedDuration::from_secs(100 + n));
        let start = Some(hour(n) + jiff::SignedDuration::from_secs(10));
        let record = RunRecord { state, start, end, ..made.clone() };
        let done = |map_index, seconds| InstanceRecord {
            map_index,
            start,
            queued_at: start,
            end: start.map(|start| start + jiff::SignedDuration::from_secs(seconds)),
            outputs: [("rows".to_owned(), json!(n))].into(),
            ..instance("b", if state == RunState::Failed { State::Failed } else { State::Success })
        };
        let waiting = instance("a", if state.is_final() { State::Skipped } else { State::Queued });
        let used = AttemptRecord {
            start,
            end,
            exit: end.map(|_| Exit::Code { code: 0 }),
            gpus: vec!["GPU-1".to_owned()],
            usage: json!({"gpus": [{"uuid": "GPU-1", "mean_utilization_percent": 30.0 * n as f64}]}),
            ..attempt("b", 1)
        };
        let commit = RunCommit {
            run: Some(record),
            instances: vec![done(0, 5), done(1, 6), waiting],
            attempts: vec![used],
            ..RunCommit::new(made.key)
        };
        committed(store, owner, commit).await;
        keys.push(made.key);
    }
    keys
}

pub async fn many_runs_are_asked_at_once(store: &Store) {
    let owner = store.register_owner().await.unwrap();
    let keys = made(store, &owner).await;
    runs_are_found_by_times_and_more(store, &keys).await;
    instances_are_found_over_runs(store, &keys).await;
    a_grid_counts_states(store, &keys).await;
    a_calendar_and_the_figures(store, &keys).await;
}

async fn runs_are_found_by_times_and_more(store: &Store, keys: &[RunKey]) {
    let found = async |filter: RunFilter| {
        let filter = RunFilter { among: vec![workflow("wide"), workflow("wide2"), workflow("none")], ..filter };
        let page = store.runs(&filter, Paging::first(3)).await.unwrap();
        (page.rows.iter().map(|run| run.run_id.as_str()[4..].to_owned()).collect::<String>(), page.total)
    };
    let all = RunFilter::default;
    let span = |from: i64, to: i64| Between { from: Some(at(from)), to: Some(at(to)) };
    for (filter, ids, total) in [
        (all(), "321", 4),
        (RunFilter { workflow: Some(workflow("wide2")), ..all() }, "3", 1),
        (RunFilter { run_type: Some(RunType::Scheduled), ..all() }, "0", 1),
        (RunFilter { before: Some(keys[2]), ..all() }, "10", 2),
        (RunFilter { contains: Some("uN_2".to_owned()), ..all() }, "2", 1),
        (RunFilter { run_after: span(3600, 7200), ..all() }, "21", 2),
        (RunFilter { queued: span(3601, 7200), ..all() }, "2", 1),
        (RunFilter { logical_date: span(0, 99999), ..all() }, "10", 2),
        (RunFilter { start: Between { from: Some(at(7210)), to: None }, ..all() }, "32", 2),
        (RunFilter { end: Between { from: None, to: Some(at(3701)) }, ..all() }, "10", 2),
        (RunFilter { states: vec![RunState::Success, RunState::Failed, RunState::Failed], ..all() }, "210", 3),
        (
            RunFilter { states: vec![RunState::Running, RunState::Failed], order: RunOrder::EndDescending, ..all() },
            "103",
            3,
        ),
    ] {
        assert_eq!(found(filter.clone()).await, (ids.to_owned(), total), "{filter:?}");
    }
    let recent = store.recent_runs(&[workflow("wide"), workflow("none"), workflow("wide")], 2).await.unwrap();
    let ids: Vec<&str> = recent[&workflow("wide")].iter().map(|run| run.run_id.as_str()).collect();
    assert_eq!((ids, recent.len()), (vec!["Run_2", "Run_1"], 1));
}

async fn instances_are_found_over_runs(store: &Store, keys: &[RunKey]) {
    let place = |key: RunKey| keys.iter().position(|known| *known == key).unwrap();
    let found = async |query: InstanceQuery, paging| {
        let page = store.task_instances(&query, paging).await.unwrap();
        let name =
            |row: &InstanceOfRun| format!("{}{}{}", place(row.run.key), row.instance.task, row.instance.map_index);
        (page.rows.iter().map(name).collect::<Vec<_>>().join(" "), page.total)
    };
    let of = |name: &str| InstanceQuery { workflow: Some(workflow(name)), ..InstanceQuery::default() };
    use InstanceOrder::*;
    let wide = || of("wide");
    for (query, names, total) in [
        (wide(), "2a-1 2b0 2b1 1a-1", 9),
        (InstanceQuery { order: Oldest, ..wide() }, "0a-1 0b0 0b1 1a-1", 9),
        (InstanceQuery { order: StartDescending, ..wide() }, "2b1 2b0 1b1 1b0", 9),
        (InstanceQuery { order: Start, task: Some(task("a")), ..wide() }, "0a-1 1a-1 2a-1", 3),
        (InstanceQuery { order: EndDescending, ..of("wide2") }, "3b1 3b0 3a-1", 3),
        (InstanceQuery { order: End, states: vec!["failed", "skipped"], ..wide() }, "0b0 0b1 1b0 1b1", 7),
        (InstanceQuery { states: vec!["failed", "success"], map_index: Some(1), ..wide() }, "2b1 1b1 0b1", 3),
        (InstanceQuery { run: Some(keys[1]), ..InstanceQuery::default() }, "1a-1 1b0 1b1", 3),
        (InstanceQuery { run: Some(keys[3]), states: vec!["queued"], ..of("wide") }, "", 0),
        (
            InstanceQuery {
                among: vec![workflow("wide2"), workflow("none")],
                states: vec!["queued"],
                ..InstanceQuery::default()
            },
            "3a-1",
            1,
        ),
        (InstanceQuery { start: Between { from: Some(at(7210)), to: Some(at(7210)) }, ..wide() }, "2b0 2b1", 2),
    ] {
        assert_eq!(found(query.clone(), Paging::first(4)).await, (names.to_owned(), total), "{query:?}");
    }
    assert_eq!(found(wide(), Paging { limit: 2, offset: 8 }).await, ("0b1".to_owned(), 9));
    // Over everything, where other tests left theirs.
    let page = |query: InstanceQuery| async move { store.task_instances(&query, Paging::first(500)).await.unwrap() };
    for order in [Newest, Oldest, Start, StartDescending, End, EndDescending] {
        let all = page(InstanceQuery { order, ..InstanceQuery::default() }).await;
        assert_eq!(all.rows.len() as u64, all.total, "{order:?}");
        let states = vec!["failed", "success", "skipped", "failed"];
        let some = page(InstanceQuery { order, states: states.clone(), ..InstanceQuery::default() }).await;
        let kept: Vec<_> = all.rows.into_iter().filter(|row| states.contains(&row.instance.state.name())).collect();
        assert_eq!((some.total, some.rows), (kept.len() as u64, kept), "{order:?}");
    }
    let late = Between { from: Some(at(7212)), to: None };
    let ended = page(InstanceQuery { end: late, ..InstanceQuery::default() }).await;
    assert_eq!((ended.rows.len(), ended.rows[0].run.run_id.as_str()), (4, "Run_3"));
    assert_eq!(ended.rows[0].instance.outputs["rows"], 3);
    let counts = store.instances_in().await.unwrap();
    assert!(counts["failed"] >= 4 && counts.values().all(|count| *count > 0), "{counts:?}");
    assert!(store.runs_in(RunState::Running).await.unwrap() >= 1);
}

async fn a_grid_counts_states(store: &Store, keys: &[RunKey]) {
    let grid = store.grid(&workflow("wide"), None, 2).await.unwrap();
    assert_eq!(grid.tasks, [task("a"), task("b")]);
    let cell = |task, state, count| GridCell { task, state, count };
    let columns: Vec<_> = grid.runs.iter().map(|column| (column.run.key, column.cells.clone())).collect();
    let expected = |key, state| (key, vec![cell(0, "skipped", 1), cell(1, state, 2)]);
    assert_eq!(columns, [expected(keys[2], "success"), expected(keys[1], "failed")]);
    let before = store.grid(&workflow("wide"), Some(keys[1]), 5).await.unwrap();
    assert_eq!(before.runs.iter().map(|column| column.run.key).collect::<Vec<_>>(), [keys[0]]);
    assert_eq!(store.grid(&workflow("none"), None, 5).await.unwrap(), Grid::default());
}

async fn a_calendar_and_the_figures(store: &Store, keys: &[RunKey]) {
    let bounds = [at(-1), at(1), at(3600), at(3600), at(7200), at(99999)];
    let days = store.run_days(Some(&workflow("wide")), &bounds).await.unwrap();
    let failed = RunCounts { failed: 1, ..RunCounts::default() };
    let well = RunCounts { success: 1, ..RunCounts::default() };
    let none = RunCounts::default();
    assert_eq!(days, [failed, none, none, failed, well]);
    let all = store.run_days(None, &[at(7200), at(99999)]).await.unwrap();
    assert_eq!(all, [RunCounts { success: 1, running: 1, ..none }]);
    assert_eq!(store.run_days(None, &[at(1)]).await.unwrap(), []);
    assert!(matches!(store.run_days(None, &[at(2), at(1)]).await, Err(StoreError::Invalid(_))));

    let of = FiguresOf { workflow: Some(workflow("wide")), since: at(0), until: at(99999) };
    let figures = store.figures(&of).await.unwrap();
    assert_eq!(figures.runs, RunCounts { failed: 2, success: 1, ..none });
    // The one good run took from 7210 to 7302; each waited for 10 s.
    assert_eq!((figures.duration.count, figures.duration.mean, figures.duration.p95), (1, Some(92.0), Some(92.0)));
    assert_eq!((figures.queue.count, figures.queue.p50), (3, Some(10.0)));
    // Failed at 100, failed again, well at 7302.
    assert_eq!((figures.recovery.count, figures.recovery.mean), (1, Some(7202.0)));
    // 0, 30 and 60 % for 90, 91 and 92 s.
    let utilization = (91.0 * 30.0 + 92.0 * 60.0) / 273.0;
    assert!((figures.gpu_utilization.unwrap() - utilization).abs() < 1e-9 && figures.gpu_seconds == 273.0);
    let later = FiguresOf { since: at(3701), until: at(7302), ..of };
    let figures = store.figures(&later).await.unwrap();
    assert_eq!((figures.runs, figures.recovery.mean), (failed, None), "from the first moment to before the last");
    let nothing = FiguresOf { workflow: None, since: at(-99), until: at(-98) };
    assert_eq!(store.figures(&nothing).await.unwrap(), Figures::default());
    assert_eq!(store.figures(&FiguresOf { workflow: None, ..later }).await.unwrap().runs, failed);
    assert_eq!(keys.len(), 4);
}

pub async fn the_audit_log_is_searched(store: &Store) {
    for (n, (event, who, of)) in
        [("a.one", "zoe", "searched"), ("a.two", "zoe", "searched"), ("ab.one", "yan", "searched2")].iter().enumerate()
    {
        let mut entry = AuditEntry { who: (*who).to_owned(), ..audit(event, 3900 + n as i64) };
        entry.workflow = Some(workflow(of));
        entry.run = Some(run_id("r"));
        store.record_audit(entry).await.unwrap();
    }
    let found = async |filter: AuditFilter| {
        let page = store.audit(&filter, Paging::first(9)).await.unwrap();
        page.rows.into_iter().map(|row| row.entry.event).collect::<Vec<_>>().join(" ")
    };
    let all = AuditFilter::default;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(found(AuditFilter { event_prefix: text("a."), ..all() }).await, "a.two a.one");
    assert_eq!(found(AuditFilter { event_prefix: text("ab"), who: text("yan"), ..all() }).await, "ab.one");
    assert_eq!(found(AuditFilter { event_prefix: text("%"), ..all() }).await, "");
    assert_eq!(found(AuditFilter { who: text("zoe"), event: text("a.one"), ..all() }).await, "a.one");
    let span = Between { from: Some(at(3901)), to: Some(at(3902)) };
    assert_eq!(found(AuditFilter { at: span, ..all() }).await, "ab.one a.two");
    let among = vec![workflow("searched2"), workflow("none")];
    assert_eq!(found(AuditFilter { among, ..all() }).await, "ab.one");
    let events = store.audit_events().await.unwrap();
    assert!(events.is_sorted() && events.contains(&"a.one".to_owned()) && events.len() > 5, "{events:?}");
    let rows = store.audit(&AuditFilter { who: text("zoe"), ..all() }, Paging::ALL).await.unwrap().rows;
    assert!(rows[0].id > rows[1].id);
    assert_eq!(store.audit_entry(rows[1].id).await.unwrap().as_ref(), Some(&rows[1]));
    assert_eq!(store.audit_entry(i64::MAX).await.unwrap(), None);
}
