//! Making, listing and removing runs.

use pitcrew_core::engine::record::{RunRecord, RunType};
use pitcrew_core::id::RunKey;
use pitcrew_core::state::{RunState, State};
use pitcrew_store::{
    AuditFilter, Before, CreateRun, InstanceFilter, NewRun, Paging, RunCommit, RunCounts, RunFilter, RunOrder, Same,
    Store, StoreError, WorkflowRow,
};
use serde_json::json;

use crate::sample::{at, attempt, audit, instance, row, run, run_id, workflow};

pub async fn created(store: &Store, new: NewRun) -> RunRecord {
    match store.create_run(new, None).await.unwrap() {
        CreateRun::Created(run) => run,
        CreateRun::Exists { run, same } => panic!("{run:?} exists: same {same:?}"),
    }
}

pub async fn a_run_is_made_once_per_id_and_per_logical_date(store: &Store) {
    let params = json!({"z": 1, "a": [1.5, null, "ü"], "m": {"deep": true}});
    let new = NewRun {
        run_type: RunType::Scheduled,
        params: params.as_object().unwrap().clone(),
        conf: json!({"from": "hook"}).as_object().unwrap().clone(),
        logical_date: Some(at(10)),
        data_interval: Some((at(10), at(20))),
        note: "nul\0".to_owned(),
        audit: vec![audit("run.trigger", 1)],
        ..run("once", "one")
    };
    let first = created(store, new.clone()).await;
    assert_eq!((first.state, first.note.as_str(), first.start), (RunState::Queued, "nul\u{fffd}", None));
    assert_eq!(first.params, *params.as_object().unwrap());
    for stored in [store.run(first.key).await, store.run_by_id(&workflow("once"), &run_id("one")).await] {
        assert_eq!(stored.unwrap().unwrap(), first);
    }
    let exists = |same| CreateRun::Exists { run: first.clone(), same };
    assert_eq!(store.create_run(new.clone(), None).await.unwrap(), exists(Same::RunId));
    let same_date = NewRun { run_id: run_id("two"), ..new.clone() };
    assert_eq!(store.create_run(same_date, None).await.unwrap(), exists(Same::LogicalDate));
    let triggers = AuditFilter { event: Some("run.trigger".to_owned()), ..AuditFilter::default() };
    assert_eq!(store.audit(&triggers, Paging::ALL).await.unwrap().total, 1, "an entry only for a run that was made");
    // Neither the same date of another workflow nor no date at all is in the way.
    created(store, NewRun { workflow: workflow("once2"), ..new.clone() }).await;
    created(store, run("once", "three")).await;
    let last = created(store, run("once", "four")).await;
    assert_eq!(store.latest_run(&workflow("once")).await.unwrap().unwrap(), last);
    assert!(last.key > first.key);
    assert_eq!(store.run(RunKey(i64::MAX)).await.unwrap(), None);
}

pub async fn runs_are_listed_in_every_order(store: &Store) {
    let owner = store.register_owner().await.unwrap();
    // (id, logical date, start, state)
    let rows = [
        ("a", Some(30), Some(5), RunState::Running),
        ("b", None, Some(4), RunState::Failed),
        ("c", Some(10), None, RunState::Queued),
        ("d", None, None, RunState::Queued),
    ];
    for (id, date, start, state) in rows {
        let new = NewRun { logical_date: date.map(at), ..run("list", id) };
        let CreateRun::Created(mut made) = store.create_run(new, Some(&owner)).await.unwrap() else { panic!("{id}") };
        made.start = start.map(at);
        made.end = state.is_final().then(|| at(50));
        made.state = state;
        let commit = RunCommit { run: Some(made.clone()), ..RunCommit::new(made.key) };
        assert!(store.commit(&owner, vec![commit]).await.unwrap().lost.is_empty());
    }
    let list = async |filter: RunFilter, paging| {
        let page = store.runs(&RunFilter { workflow: Some(workflow("list")), ..filter }, paging).await.unwrap();
        (page.rows.iter().map(|run| run.run_id.to_string()).collect::<String>(), page.total)
    };
    for (order, ids) in [
        (RunOrder::Newest, "dcba"),
        (RunOrder::Oldest, "abcd"),
        (RunOrder::LogicalDate, "cabd"),
        (RunOrder::LogicalDateDescending, "acdb"),
        (RunOrder::Start, "bacd"),
        (RunOrder::StartDescending, "abdc"),
        (RunOrder::End, "bacd"),
        (RunOrder::EndDescending, "bdca"),
    ] {
        let filter = RunFilter { order, ..RunFilter::default() };
        assert_eq!(list(filter.clone(), Paging::ALL).await, (ids.to_owned(), 4), "{order:?}");
        assert_eq!(list(filter, Paging { limit: 2, offset: 1 }).await, (ids[1..3].to_owned(), 4), "{order:?}");
    }
    let states = |states: &[RunState]| RunFilter { states: states.to_vec(), ..RunFilter::default() };
    assert_eq!(list(states(&[RunState::Queued]), Paging::ALL).await, ("dc".to_owned(), 2));
    let three = states(&[RunState::Running, RunState::Failed, RunState::Cancelled]);
    assert_eq!(list(three, Paging::ALL).await, ("ba".to_owned(), 2));
    let scheduled = RunFilter { run_type: Some(RunType::Scheduled), ..RunFilter::default() };
    assert_eq!(list(scheduled, Paging::ALL).await, (String::new(), 0));
    let everything = store.runs(&RunFilter::default(), Paging::first(2)).await.unwrap();
    assert!(everything.rows.len() == 2 && everything.total > 4);
}

pub async fn counts_and_neighbours_of_runs(store: &Store) {
    // The runs that the lists above left behind: a running, b failed, c and d queued.
    let list = workflow("list");
    let counts = RunCounts { queued: 2, running: 1, failed: 1, ..RunCounts::default() };
    assert_eq!(store.run_counts().await.unwrap()[&list], counts);
    assert_eq!(store.open_run_counts(&list).await.unwrap(), RunCounts { failed: 0, ..counts });
    let previous = async |before| store.previous_run(&list, before).await.unwrap().map(|run| run.run_id.to_string());
    assert_eq!(previous(Before::LogicalDate(at(30))).await.as_deref(), Some("c"));
    assert_eq!(previous(Before::LogicalDate(at(10))).await, None);
    let c = store.run_by_id(&list, &run_id("c")).await.unwrap().unwrap();
    assert_eq!(previous(Before::Key(c.key)).await.as_deref(), Some("b"));
    assert_eq!(store.last_logical_date(&list, RunType::Manual).await.unwrap(), Some(at(30)));
    assert_eq!(store.last_logical_date(&list, RunType::Scheduled).await.unwrap(), None);
}

pub async fn retention_removes_what_is_old_and_reports_it_until_told(store: &Store) {
    let owner = store.register_owner().await.unwrap();
    let row = |version: &str| WorkflowRow { version: version.to_owned(), ..row("old") };
    for version in ["used", "unused", "current"] {
        store.put_workflow(&row(version), version, at(1000)).await.unwrap();
    }
    let mut keys = Vec::new();
    for (id, end) in [("old", Some(3000)), ("new", Some(5000)), ("open", None)] {
        let version = if id == "new" { "used" } else { "unused" };
        let new = NewRun { version: version.to_owned(), ..run("old", id) };
        let mut made = store.create_run(new, Some(&owner)).await.unwrap().into_run();
        let key = made.key;
        if let Some(end) = end {
            (made.state, made.end) = (RunState::Success, Some(at(end)));
        } else {
            // Still needed, but its version should not depend on the run that goes.
            made.version = "used".to_owned();
        }
        let commit = RunCommit {
            run: Some(made),
            instances: vec![instance("t", State::Success)],
            attempts: vec![attempt("t", 1)],
            audit: vec![audit("run.end", end.unwrap_or(5000))],
            ..RunCommit::new(key)
        };
        store.commit(&owner, vec![commit]).await.unwrap();
        keys.push(key);
    }
    let [old, new, open] = keys[..] else { panic!("three runs") };
    let removed = store.retention(at(4000)).await.unwrap();
    let ids: Vec<_> = removed.runs.iter().filter(|run| run.workflow == workflow("old")).collect();
    assert_eq!((ids.len(), ids[0].key, ids[0].run_id.as_str()), (1, old, "old"));
    assert!(removed.audit > 0, "the entries of earlier tests are older");
    assert_eq!((removed.notices, removed.backfills), (2, 1), "what is settled or completed, and nothing else");
    assert_eq!(store.version_source(&workflow("old"), "unused").await.unwrap(), None);
    for version in ["used", "current"] {
        assert!(store.version_source(&workflow("old"), version).await.unwrap().is_some(), "{version}");
    }
    assert_eq!(store.run(old).await.unwrap(), None);
    assert_eq!(store.stored_run(old).await.unwrap(), None);
    assert_eq!(store.instance(old, &instance("t", State::None).task, -1).await.unwrap(), None);
    assert!(store.attempts(old, &attempt("t", 1).task, -1).await.unwrap().is_empty());
    for kept in [new, open] {
        assert_eq!(store.stored_run(kept).await.unwrap().unwrap().live.len(), 1);
    }
    assert_eq!(store.audit(&AuditFilter::default(), Paging::ALL).await.unwrap().rows.len(), 2);
    // What its owner still wants to write of it is refused like any other loss.
    let late = RunCommit { instances: vec![instance("t", State::Failed)], ..RunCommit::new(old) };
    assert_eq!(store.commit(&owner, vec![late]).await.unwrap().lost, [old]);

    let again = store.retention(at(4000)).await.unwrap();
    assert_eq!((again.runs, again.audit, again.versions), (removed.runs.clone(), 0, 0), "reported until it is done");
    store.retention_done(&removed.runs.iter().map(|run| run.key).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(store.retention(at(4000)).await.unwrap(), Default::default());
}

pub async fn runs_and_workflows_are_deleted_when_nothing_needs_them(store: &Store) {
    let owner = store.register_owner().await.unwrap();
    let row = WorkflowRow { id: workflow("gone"), tags: vec!["gone-tag".to_owned()], ..row("gone") };
    store.put_workflow(&row, "source", at(1)).await.unwrap();
    let mut made = store.create_run(run("gone", "a"), Some(&owner)).await.unwrap().into_run();
    let delete = async |key| store.delete_run(key, audit("run.delete", 2)).await;
    assert!(matches!(delete(made.key).await.unwrap_err(), StoreError::Conflict(_)), "it is not over");
    (made.state, made.end) = (RunState::Success, Some(at(2)));
    let mut commit = RunCommit::new(made.key);
    commit.run = Some(made.clone());
    store.commit(&owner, vec![commit]).await.unwrap();
    let forget = async || store.delete_workflow(&row.id, audit("workflow.delete", 3)).await;
    assert!(matches!(forget().await.unwrap_err(), StoreError::Conflict(_)), "its file is there");
    store.deactivate(&row.id).await.unwrap();
    assert!(matches!(forget().await.unwrap_err(), StoreError::Conflict(_)), "it has a run");
    assert!(delete(made.key).await.unwrap());
    assert!(!delete(made.key).await.unwrap());
    assert_eq!(store.run(made.key).await.unwrap(), None);
    assert!(store.instances(made.key, &InstanceFilter::default(), Paging::ALL).await.unwrap().rows.is_empty());
    store.retention_done(&[made.key]).await.unwrap();
    assert!(forget().await.unwrap());
    assert!(!forget().await.unwrap());
    assert_eq!(store.workflow(&row.id).await.unwrap(), None);
    assert!(store.versions(&row.id).await.unwrap().is_empty());
}
