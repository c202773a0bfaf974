//! What a commit writes, and what it refuses.

use pitcrew_core::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, RunStop, SkipReason, Stop, StopHow};
use pitcrew_core::fleet::{Amount, Request};
use pitcrew_core::id::{RunKey, TaskId};
use pitcrew_core::state::{Exit, RunState, State};
use pitcrew_store::{InstanceFilter, Owner, Page, Paging, RunCommit, Store, StoreError, VariableSet};
use serde_json::json;

use crate::sample::{at, attempt, audit, instance, run, task};

/// A new run that `owner` owns.
pub async fn owned(store: &Store, owner: &Owner, of: &str, id: &str) -> RunRecord {
    store.create_run(run(of, id), Some(owner)).await.unwrap().into_run()
}

pub async fn committed(store: &Store, owner: &Owner, commit: RunCommit) {
    assert_eq!(store.commit(owner, vec![commit]).await.unwrap().lost, []);
}

pub async fn every_field_survives(store: &Store) {
    let owner = store.register_owner().await.unwrap();
    let mut made = owned(store, &owner, "fields", "one").await;
    (made.state, made.start, made.note) = (RunState::Running, Some(at(3)), "look\nhere".to_owned());
    (made.version, made.run_after, made.queued_at) = ("v2".to_owned(), at(1), at(2));

    let states = [
        State::None,
        State::Scheduled,
        State::Queued,
        State::Running,
        State::Success,
        State::Failed,
        State::Skipped,
        State::UpstreamFailed,
        State::UpForRetry { at: at(77) },
        State::UpForReschedule { at: at(-2_000_000_000) },
        State::Deferred,
        State::Recovering,
        State::Removed,
    ];
    let exits = [
        Exit::Code { code: 0 },
        Exit::Signal { signal: 11 },
        Exit::OutOfMemory,
        Exit::TimedOut,
        Exit::Cancelled,
        Exit::start_failed("no `python`\n"),
        Exit::Lost { reason: "gone".to_owned() },
    ];
    let stops =
        [Stop::TimedOut, Stop::Cancelled, Stop::Cleared, Stop::MarkedSuccess, Stop::MarkedFailed, Stop::Recovery];
    let mut instances: Vec<InstanceRecord> = Vec::new();
    let mut attempts: Vec<AttemptRecord> = Vec::new();
    for (n, state) in states.into_iter().enumerate() {
        let map_index = n as i32 - 1;
        instances.push(InstanceRecord {
            map_index,
            attempt: n as u32,
            max_attempt: u32::MAX,
            lost: 2,
            queued_at: Some(at(4)),
            start: (n % 2 == 0).then(|| at(5)),
            end: Some(Timestamp::from_microsecond(1_700_000_000_123_456).unwrap()),
            exit: exits.get(n).cloned(),
            message: "é\n".repeat(n),
            outputs: (0..n).map(|o| (format!("out{o}"), json!({"x": [o, null, 1.5, "\0"]}))).collect(),
            item: [None, Some(json!(null)), Some(json!({"server": "a"}))][n % 3].clone(),
            followed: [None, Some(vec![]), Some(vec![task("a"), task("g.b")])][n % 3].clone(),
            stop: stops.get(n).copied(),
            skip: SkipReason::ALL.get(n).copied(),
            ..instance("t", state)
        });
        attempts.push(AttemptRecord {
            map_index,
            handle: [json!(null), json!({"pid": 7, "boot": "x"})][n % 2].clone(),
            start: Some(at(8)),
            end: exits.get(n).map(|_| at(9)),
            exit: exits.get(n).cloned(),
            message: "m".repeat(n),
            node: (n % 2 == 0).then(|| format!("node-{n}")),
            gpus: (0..n % 3).map(|gpu| format!("GPU-{gpu}")).collect(),
            request: (n % 3 == 0).then(|| Request { cpu: Amount::milli(n as u32 * 500), ..Request::default() }),
            usage: [json!(null), json!({"cpu_seconds": 0.5})][n % 2].clone(),
            names: [json!(null), json!({"job": "7/train", "size": 2})][n % 2].clone(),
            detail: [json!({"containers": [{"name": "step-é"}]}), json!(null)][n % 2].clone(),
            ..attempt("t", n as u32 + 1)
        });
    }
    let commit = RunCommit {
        run: Some(made.clone()),
        instances: instances.clone(),
        attempts: attempts.clone(),
        variables: vec![VariableSet { key: "from-run".to_owned(), value: "1".to_owned(), description: None }],
        audit: vec![audit("run.start", 3)],
        ..RunCommit::new(made.key)
    };
    committed(store, &owner, commit).await;

    let stored = store.stored_run(made.key).await.unwrap().unwrap();
    assert_eq!(stored.run, made);
    assert_eq!(stored.instances, instances);
    assert_eq!(stored.live, attempts.iter().filter(|attempt| attempt.exit.is_none()).cloned().collect::<Vec<_>>());
    for (instance, attempt) in instances.iter().zip(&attempts) {
        let read = store.instance(made.key, &instance.task, instance.map_index).await.unwrap();
        assert_eq!(read.as_ref(), Some(instance));
        let read = store.attempts(made.key, &attempt.task, attempt.map_index).await.unwrap();
        assert_eq!(read, std::slice::from_ref(attempt));
    }
    assert_eq!(store.variable("from-run").await.unwrap().unwrap().value, "1");

    let cancelled = |how| RunStop::Cancelled { by: "ada".to_owned(), how };
    for stop in [
        cancelled(StopHow::ThenFinally),
        cancelled(StopHow::DrainThenFinally),
        cancelled(StopHow::Everything),
        RunStop::TimedOut,
        RunStop::TasksTimedOut,
        RunStop::FinallyTimedOut,
        RunStop::FailFast { task: task("t") },
        RunStop::Drain { task: task("t") },
        RunStop::Refused { reason: "ParameterMissing".to_owned(), message: "`p` is missing".to_owned() },
    ] {
        made.stop = Some(stop);
        made.finally_start = made.finally_start.map_or(Some(at(12)), |_| None);
        committed(store, &owner, RunCommit { run: Some(made.clone()), ..RunCommit::new(made.key) }).await;
        assert_eq!(store.run(made.key).await.unwrap().unwrap(), made);
    }
    // What a run keeps for life stays, whatever a commit says.
    let other = RunRecord { triggered_by: "mallory".to_owned(), logical_date: Some(at(1)), ..made.clone() };
    committed(store, &owner, RunCommit { run: Some(other), ..RunCommit::new(made.key) }).await;
    assert_eq!(store.run(made.key).await.unwrap().unwrap(), made);
    // Times are kept to the microsecond, texts without NUL.
    let mut blurred = instance("blurred", State::UpForRetry { at: Timestamp::from_nanosecond(-1).unwrap() });
    blurred.message = "a\0b".to_owned();
    committed(store, &owner, RunCommit { instances: vec![blurred], ..RunCommit::new(made.key) }).await;
    let read = store.instance(made.key, &task("blurred"), -1).await.unwrap().unwrap();
    assert_eq!(read.state, State::UpForRetry { at: Timestamp::from_microsecond(-1).unwrap() });
    assert_eq!(read.message, "a\u{fffd}b");
}

pub async fn the_last_of_equal_rows_counts(store: &Store) {
    let owner = store.register_owner().await.unwrap();
    let key = owned(store, &owner, "equal", "one").await.key;
    let commit = |states: &[State]| RunCommit {
        instances: states.iter().map(|state| instance("t", *state)).collect(),
        ..RunCommit::new(key)
    };
    let commits = vec![commit(&[State::Queued, State::Running]), commit(&[State::Failed, State::Success])];
    assert_eq!(store.commit(&owner, commits).await.unwrap().lost, []);
    let stored = store.stored_run(key).await.unwrap().unwrap();
    assert_eq!(stored.instances, [instance("t", State::Success)]);
}

pub async fn a_mapping_replaces_its_placeholder(store: &Store) {
    let owner = store.register_owner().await.unwrap();
    let key = owned(store, &owner, "mapping", "one").await.key;
    let skipped = instance("t", State::Skipped);
    committed(
        store,
        &owner,
        RunCommit { instances: vec![skipped, instance("u", State::Skipped)], ..RunCommit::new(key) },
    )
    .await;
    let mapped = |map_index| InstanceRecord { map_index, ..instance("t", State::None) };
    let expanded =
        RunCommit { expanded: vec![task("t")], instances: vec![mapped(0), mapped(1)], ..RunCommit::new(key) };
    committed(store, &owner, expanded).await;
    let stored = store.stored_run(key).await.unwrap().unwrap();
    assert_eq!(stored.instances, [mapped(0), mapped(1), instance("u", State::Skipped)]);
}

pub async fn a_final_run_stays_final_until_it_is_reopened(store: &Store) {
    let owner = store.register_owner().await.unwrap();
    let mut made = owned(store, &owner, "final", "one").await;
    (made.state, made.end) = (RunState::Failed, Some(at(9)));
    let commit = |run: &RunRecord, reopen| RunCommit { run: Some(run.clone()), reopen, ..RunCommit::new(run.key) };
    committed(store, &owner, commit(&made, false)).await;
    // The same state again is no change: a note may still be written.
    made.note = "flaky".to_owned();
    committed(store, &owner, commit(&made, false)).await;
    for state in [RunState::Running, RunState::Success] {
        let changed = RunRecord { state, end: None, ..made.clone() };
        let error = store.commit(&owner, vec![commit(&changed, false)]).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
        assert_eq!(store.run(made.key).await.unwrap().unwrap(), made);
    }
    let running = RunRecord { state: RunState::Running, end: None, ..made.clone() };
    committed(store, &owner, commit(&running, true)).await;
    assert_eq!(store.run(made.key).await.unwrap().unwrap(), running);
    committed(store, &owner, commit(&made, true)).await;
    assert_eq!(store.run(made.key).await.unwrap().unwrap(), made);
}

/// Weakness 17: attempts are rows of their own by their numbers; the next one leaves those before as they ended.
pub async fn an_instance_has_one_live_attempt(store: &Store) {
    let owner = store.register_owner().await.unwrap();
    let key = owned(store, &owner, "live", "one").await.key;
    let commit = |attempts: Vec<AttemptRecord>| RunCommit { attempts, ..RunCommit::new(key) };
    committed(store, &owner, commit(vec![attempt("t", 1), attempt("u", 1)])).await;
    let error = store.commit(&owner, vec![commit(vec![attempt("t", 2)])]).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    // The end of one and the start of the next may come together, in any order.
    let ended = AttemptRecord { exit: Some(Exit::Code { code: 1 }), end: Some(at(5)), ..attempt("t", 1) };
    committed(store, &owner, commit(vec![attempt("t", 2), ended.clone()])).await;
    assert_eq!(store.attempts(key, &task("t"), -1).await.unwrap(), [ended, attempt("t", 2)]);
    let stored = store.stored_run(key).await.unwrap().unwrap();
    assert_eq!(stored.live, [attempt("t", 2), attempt("u", 1)]);
}

pub async fn a_commit_is_all_or_nothing_and_spoils_no_other(store: &Store) {
    let owner = store.register_owner().await.unwrap();
    let bad = owned(store, &owner, "spoil", "bad").await.key;
    let commit = |key: RunKey| RunCommit { instances: vec![instance("t", State::Success)], ..RunCommit::new(key) };
    let two_live = vec![attempt("t", 1), attempt("t", 2)];
    let mut good = Vec::new();
    for n in 0..20 {
        good.push(owned(store, &owner, "spoil", &format!("good{n}")).await.key);
    }
    // Asked for at the same time, so that they are written together.
    let mut writing = tokio::task::JoinSet::new();
    let owner = std::sync::Arc::new(owner);
    for key in good.iter().copied().chain([bad]) {
        let commits = if key == bad {
            let sound = RunCommit {
                variables: vec![VariableSet { key: "spoiled".to_owned(), value: String::new(), description: None }],
                ..commit(bad)
            };
            vec![sound, RunCommit { attempts: two_live.clone(), ..RunCommit::new(bad) }]
        } else {
            vec![commit(key)]
        };
        let (store, owner) = (store.clone(), owner.clone());
        writing.spawn(async move { (key, store.commit(&owner, commits).await) });
    }
    for (key, result) in writing.join_all().await {
        match result {
            Ok(committed) => assert!(key != bad && committed.lost.is_empty()),
            Err(error) => assert!(key == bad && matches!(error, StoreError::Conflict(_)), "{error}"),
        }
    }
    assert_eq!(store.stored_run(bad).await.unwrap().unwrap().instances, []);
    assert_eq!(store.variable("spoiled").await.unwrap(), None);
    let counts = store.state_counts(&[good.clone(), vec![bad]].concat()).await.unwrap();
    assert_eq!(counts.len(), good.len());
    assert!(counts.values().all(|states| *states == [("success", 1)].into()));
    // A row of one run in the commit of another is a mistake of the caller.
    let stray = RunCommit { run: store.run(bad).await.unwrap(), ..RunCommit::new(good[0]) };
    assert!(matches!(store.commit(&owner, vec![stray]).await, Err(StoreError::Invalid(_))));
}

pub async fn instances_are_paged_and_filtered(store: &Store) {
    let owner = store.register_owner().await.unwrap();
    let key = owned(store, &owner, "pages", "one").await.key;
    // More than any one statement takes, and no round number.
    let state = |n: i32| [State::Success, State::Failed, State::Running][n as usize % 3];
    let instances = (0..331).rev().map(|n| InstanceRecord { map_index: n, ..instance("m", state(n)) });
    let commit =
        RunCommit { instances: instances.chain([instance("a", State::Skipped)]).collect(), ..RunCommit::new(key) };
    committed(store, &owner, commit).await;
    let page = async |states: &[&'static str], of: Option<TaskId>, limit, offset| {
        let filter = InstanceFilter { states: states.to_vec(), task: of };
        let Page { rows, total } = store.instances(key, &filter, Paging { limit, offset }).await.unwrap();
        (rows.iter().map(|row| (row.task.to_string(), row.map_index)).collect::<Vec<_>>(), total)
    };
    let names = |rows: &[(&str, i32)]| rows.iter().map(|(task, n)| ((*task).to_owned(), *n)).collect::<Vec<_>>();
    assert_eq!(page(&[], None, 2, 0).await, (names(&[("a", -1), ("m", 0)]), 332));
    assert_eq!(page(&[], None, 5, 330).await, (names(&[("m", 329), ("m", 330)]), 332));
    assert_eq!(page(&["failed"], None, 2, 1).await, (names(&[("m", 4), ("m", 7)]), 110));
    assert_eq!(page(&["running", "skipped", "failed"], None, 3, 0).await.1, 221);
    assert_eq!(page(&["skipped"], Some(task("m")), 3, 0).await, (vec![], 0));
    assert_eq!(page(&[], Some(task("a")), 3, 0).await.1, 1);
    let counts = store.state_counts(&[key]).await.unwrap();
    assert_eq!(counts[&key], [("success", 111), ("failed", 110), ("running", 110), ("skipped", 1)].into());
}
