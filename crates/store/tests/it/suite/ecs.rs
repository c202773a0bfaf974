//! Jobs, tasks and nodes of Amazon ECS: derived from what is stored, and what was imported beside it.

use pitcrew_core::RunKey;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, RunStop};
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::recovery::{
    Advice, Changes, Input, JobSpec, JobState, Mode, NodeFacts, Place, Policy, Recovery, Seen, Signal, SignalKind,
};
use pitcrew_core::state::{Exit, RunState, State};
use pitcrew_store::{
    EcsFilter, EcsImport, EcsImported, EcsJob, EcsJobStatus, EcsKind, EcsNodeStatus, EcsOrigin, EcsTaskStatus,
    IMPORTED_STATUS, NodeChange, Owner, Paging, RunCommit, Store,
};
use serde_json::{Value, json};

use super::writes::{committed, owned};
use crate::sample::{at, attempt, audit, instance};

const ARN: &str = "arn:aws:ecs:us-east-1:111122223333";

/// An attempt on ECS, of a job of so many members.
fn on_ecs(name: &str, map_index: i32, number: u32, names: Value) -> AttemptRecord {
    AttemptRecord { map_index, backend: "ecs".to_owned(), names, ..attempt(name, number) }
}

/// What is told of an attempt once ECS has a task for it, on a machine.
fn names(run: RunKey, size: u32, id: &str, machine: &str) -> Value {
    json!({
        "job": format!("{run}/train"), "job_id": format!("{run}-train"), "size": size,
        "definition": format!("{ARN}:task-definition/llm:11"), "task": format!("{ARN}:task/gpus/{id}"),
        "instance": format!("{ARN}:container-instance/gpus/c-{machine}"),
    })
}

async fn begun(store: &Store, owner: &Owner, id: &str) -> RunCommit {
    let made = owned(store, owner, "on-ecs", id).await;
    let record = RunRecord { state: RunState::Running, start: Some(at(1)), ..made };
    RunCommit { run: Some(record.clone()), ..RunCommit::new(record.key) }
}

async fn jobs(store: &Store, filter: &EcsFilter) -> Vec<EcsJob> {
    store.ecs_jobs(filter, Paging::ALL).await.unwrap().rows
}

/// The job of that run.
async fn job(store: &Store, run: RunKey) -> EcsJob {
    let all = jobs(store, &EcsFilter { run: Some(run), ..EcsFilter::default() }).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

/// Weaknesses 2, 10, 17, 18 and 19: rows of our own say what each attempt was, as long as they are kept.
pub async fn what_is_on_ecs_is_told_in_the_words_of_the_system_before(store: &Store) {
    let owner = store.register_owner().await.unwrap();
    a_gang_is_what_the_least_of_its_members_is(store, &owner).await;
    a_job_is_as_its_task_and_recovery_say(store, &owner).await;
    machines_are_as_recovery_and_their_use_say(store, &owner).await;
    what_was_imported_stands_beside_it_and_an_import_again_is_none(store).await;
}

async fn a_gang_is_what_the_least_of_its_members_is(store: &Store, owner: &Owner) {
    let mut commit = begun(store, owner, "gang").await;
    let run = commit.key;
    let member = |rank: i32, state, exit: Option<Exit>| InstanceRecord {
        map_index: rank,
        attempt: 1,
        exit,
        end: Some(at(9)),
        item: Some(json!(rank)),
        ..instance("train", state)
    };
    // The second is not known by its name yet.
    let unnamed = json!({ "job": format!("{run}/train"), "job_id": "llm", "size": 2 });
    let mut named = names(run, 2, "t0", "i-0");
    named["job_id"] = json!("llm");
    commit.instances = vec![member(0, State::Running, None), member(1, State::Queued, None)];
    commit.attempts = vec![
        AttemptRecord { node: Some("i-0".to_owned()), ..on_ecs("train", 0, 1, named.clone()) },
        on_ecs("train", 1, 1, unnamed),
    ];
    committed(store, owner, commit.clone()).await;
    let found = job(store, run).await;
    assert_eq!((found.job_id.as_str(), found.num_nodes, found.retry), ("llm", 2, 0));
    assert_eq!((found.job_status, found.origin, found.ended), (EcsJobStatus::InProgress, EcsOrigin::Pitcrew, None));
    assert_eq!((found.assigned_nodes, found.submitted_ecs_task_ids), (vec!["i-0".to_owned()], vec!["t0".to_owned()]));
    assert_eq!(found.job, Some(format!("{run}/train")));
    let tasks = store.ecs_tasks(&EcsFilter { run: Some(run), ..EcsFilter::default() }, Paging::ALL).await.unwrap();
    assert_eq!(tasks.total, 1, "the other is no task of ECS yet");

    // One has succeeded; that is not the job's success.
    let mut second = named.clone();
    (second["task"], second["instance"]) =
        (json!(format!("{ARN}:task/t1")), json!(format!("{ARN}:container-instance/c-1")));
    commit.instances = vec![member(0, State::Deferred, Some(Exit::Code { code: 0 })), member(1, State::Running, None)];
    let done = AttemptRecord { exit: Some(Exit::Code { code: 0 }), end: Some(at(8)), ..commit.attempts[0].clone() };
    let other = AttemptRecord { node: Some("i-1".to_owned()), ..on_ecs("train", 1, 1, second) };
    commit.attempts = vec![done, other.clone()];
    committed(store, owner, commit.clone()).await;
    let found = job(store, run).await;
    assert_eq!(found.job_status, EcsJobStatus::InProgress, "{found:?}");
    assert_eq!(found.submitted_ecs_task_ids, ["t0", "t1"]);
    assert_eq!(found.submitted_container_inst_ids, ["c-i-0", "c-1"]);

    commit.instances = [0, 1].map(|rank| member(rank, State::Success, Some(Exit::Code { code: 0 }))).to_vec();
    commit.attempts = vec![AttemptRecord { exit: Some(Exit::Code { code: 0 }), end: Some(at(9)), ..other }];
    committed(store, owner, commit).await;
    let found = job(store, run).await;
    assert_eq!((found.job_status, found.ended), (EcsJobStatus::Complete, Some(at(9))));
    let tasks = store.ecs_tasks(&EcsFilter { run: Some(run), ..EcsFilter::default() }, Paging::ALL).await.unwrap().rows;
    let of = |n: usize| (tasks[n].node_index_in_job, tasks[n].job_num_nodes, tasks[n].container_inst_id.as_deref());
    assert_eq!((of(0), of(1)), ((Some(0), Some(2), Some("c-i-0")), (Some(1), Some(2), Some("c-1"))));
    assert!(tasks.iter().all(|task| task.task_status == EcsTaskStatus::Complete), "{tasks:?}");
    assert_eq!(tasks[1].ecs_task_arn, Some(format!("{ARN}:task/t1")));
    assert_eq!(tasks[1].task_def_arn, Some(format!("{ARN}:task-definition/llm:11")));
}

async fn a_job_is_as_its_task_and_recovery_say(store: &Store, owner: &Owner) {
    let mut commit = begun(store, owner, "one").await;
    let run = commit.key;
    let first =
        AttemptRecord { node: Some("i-1".to_owned()), ..on_ecs("train", UNMAPPED, 1, names(run, 1, "a", "i-1")) };
    let ended = AttemptRecord { exit: Some(Exit::Code { code: 1 }), end: Some(at(5)), ..first.clone() };
    let one = |state, attempt, exit| InstanceRecord { attempt, exit, end: Some(at(7)), ..instance("train", state) };
    let code = |code| Some(Exit::Code { code });
    // An attempt without a name is as one from before there were names.
    let unnamed = AttemptRecord { names: Value::Null, ..first.clone() };
    for (attempts, row, stop, expected) in [
        (vec![unnamed], one(State::Running, 1, None), None, EcsJobStatus::InProgress),
        (vec![ended.clone()], one(State::Recovering, 1, code(1)), None, EcsJobStatus::PendingHealthcheck),
        (vec![], one(State::UpForRetry { at: at(6) }, 1, code(1)), None, EcsJobStatus::PendingRestart),
        (
            vec![on_ecs("train", UNMAPPED, 2, names(run, 1, "b", "i-2"))],
            one(State::Queued, 2, None),
            None,
            EcsJobStatus::Restarting,
        ),
        (vec![], one(State::Running, 2, None), None, EcsJobStatus::InProgress),
        (vec![], one(State::Failed, 2, code(1)), None, EcsJobStatus::Failed),
        (vec![], one(State::Failed, 2, code(137)), None, EcsJobStatus::FailedOthers),
        (vec![], one(State::Failed, 2, Some(Exit::Cancelled)), None, EcsJobStatus::UserStopped),
        (vec![], one(State::Failed, 2, Some(Exit::Cancelled)), Some(RunStop::TimedOut), EcsJobStatus::FailedOthers),
    ] {
        let mut next = RunCommit { attempts, instances: vec![row], ..commit.clone() };
        next.run.as_mut().unwrap().stop = stop;
        committed(store, owner, next).await;
        let found = job(store, run).await;
        assert_eq!(found.job_status, expected, "{found:?}");
        assert_eq!(found.job_id, format!("{run}-train"));
        assert_eq!(found.ended.is_some(), expected.is_final());
    }
    let found = job(store, run).await;
    assert_eq!((found.retry, found.submitted_ecs_task_ids), (1, vec!["b".to_owned()]));
    // Each attempt keeps what it was; a later end of the job changes no earlier one.
    let second = on_ecs("train", UNMAPPED, 2, names(run, 1, "b", "i-2"));
    commit.attempts = vec![AttemptRecord { exit: code(1), end: Some(at(7)), ..second }];
    commit.instances = vec![one(State::Failed, 2, code(1))];
    committed(store, owner, commit.clone()).await;
    let of_job = EcsFilter { job_id: Some(format!("{run}-train")), ..EcsFilter::default() };
    let tasks = store.ecs_tasks(&of_job, Paging::ALL).await.unwrap().rows;
    let told: Vec<_> = tasks.iter().map(|task| (task.ecs_task_id.as_str(), task.retry, task.task_status)).collect();
    assert_eq!(told, [("b", 1, EcsTaskStatus::Failed), ("a", 0, EcsTaskStatus::Terminated)]);
    assert_eq!(tasks[1].node_name.as_deref(), Some("i-1"));

    // While it goes on, what recovery knows of a job counts.
    commit.instances = vec![one(State::Running, 2, None)];
    committed(store, owner, commit).await;
    let term = store.take_recovery().await.unwrap();
    let mut recovery = Recovery::new(Policy { mode: Mode::Auto, ..Policy::default() });
    let name = format!("{run}/train");
    let place = Place { node: "i-1".to_owned(), gpus: Vec::new() };
    let ended = Input::RankEnded {
        job: name.clone(),
        attempt: 2,
        rank: 0,
        exit: Exit::Code { code: 1 },
        message: "\0".to_owned(),
    };
    let facts = Input::Node { node: "i-1".to_owned(), facts: NodeFacts::default() };
    let seen = Seen { boot_id: Some("b".to_owned()), agent: true, gpus: Some(1) };
    let seen = Input::Observed { node: "i-1".to_owned(), seen };
    let started = Input::JobStarted { job: name.clone(), attempt: 2, ranks: vec![place], spec: JobSpec::default() };
    for input in [facts, seen, started, ended] {
        write(store, term, &recovery.apply(input, at(8))).await;
    }
    assert_eq!(recovery.job(&name).map(|job| job.state), Some(JobState::AwaitingVerdict));
    assert_eq!(job(store, run).await.job_status, EcsJobStatus::PendingHealthcheck);
    let pending = EcsFilter { status: Some("PENDING_HEALTHCHECK".to_owned()), ..EcsFilter::default() };
    assert_eq!(jobs(store, &pending).await.len(), 1);
    let keys: Vec<_> = store.recovery_records().await.unwrap().iter().map(|record| record.key()).collect();
    store.write_recovery(term, &[], &keys).await.unwrap();
    assert_eq!(job(store, run).await.job_status, EcsJobStatus::InProgress);
    assert!(store.ecs_runs(at(100)).await.unwrap().contains(&run));
}

async fn write(store: &Store, term: u64, changes: &Changes) {
    store.write_recovery(term, &changes.records, &changes.removed).await.unwrap();
}

async fn machines_are_as_recovery_and_their_use_say(store: &Store, owner: &Owner) {
    let at_ecs = |machine: &str| {
        json!({ "ecs": { "at": { "region": "us-east-1", "cluster": "gpus", "id": machine,
            "instance": format!("{ARN}:container-instance/gpus/c-{machine}") }, "is_gone": machine == "i-gone" } })
    };
    for machine in ["i-a", "i-b", "i-c", "i-gone"] {
        store.see_node(machine, &at_ecs(machine), at(1)).await.unwrap();
    }
    let mut away = at_ecs("i-d");
    away["down"] = json!("its agent\0 is away");
    store.see_node("i-d", &away, at(1)).await.unwrap();
    let mut commit = begun(store, owner, "use").await;
    commit.instances = vec![InstanceRecord { attempt: 1, ..instance("train", State::Running) }];
    commit.attempts = vec![AttemptRecord {
        node: Some("i-b".to_owned()),
        ..on_ecs("train", UNMAPPED, 1, names(commit.key, 1, "u", "i-b"))
    }];
    committed(store, owner, commit).await;
    let term = store.take_recovery().await.unwrap();
    let mut recovery = Recovery::new(Policy { mode: Mode::Auto, ..Policy::default() });
    let kind = SignalKind::Xid { code: 79 };
    let signal = Signal {
        id: "x".to_owned(),
        node: "i-c".to_owned(),
        boot_id: None,
        gpu: None,
        job: None,
        at: at(1),
        kind,
        advice: Advice::Check,
        evidence: "it fell off\0 the bus".to_owned(),
    };
    let seen = Seen { boot_id: Some("b".to_owned()), agent: true, gpus: Some(1) };
    for input in [
        Input::Node { node: "i-c".to_owned(), facts: NodeFacts::default() },
        Input::Observed { node: "i-c".to_owned(), seen },
        Input::Signal(signal),
    ] {
        write(store, term, &recovery.apply(input, at(2))).await;
    }
    let nodes = store.ecs_nodes(&EcsFilter::default(), Paging::ALL).await.unwrap().rows;
    let told: Vec<_> = nodes.iter().map(|node| (node.node_name.as_str(), node.node_status, node.incident)).collect();
    let expected = [
        ("i-a", EcsNodeStatus::Available, None),
        ("i-b", EcsNodeStatus::InProgress, None),
        ("i-c", EcsNodeStatus::Pending, Some(1)),
        ("i-d", EcsNodeStatus::Unknown, None),
    ];
    assert_eq!(told, expected);
    assert_eq!(nodes[0].container_instance_id.as_deref(), Some("c-i-a"));
    assert_eq!((nodes[0].cluster.as_deref(), nodes[0].node.as_deref()), (Some("gpus"), Some("i-a")));
    let keys: Vec<_> = store.recovery_records().await.unwrap().iter().map(|record| record.key()).collect();
    store.write_recovery(term, &[], &keys).await.unwrap();
}

async fn what_was_imported_stands_beside_it_and_an_import_again_is_none(store: &Store) {
    let import = |kind, key: &str, body: Value, node: Option<&str>| EcsImport {
        kind,
        key: key.to_owned(),
        source: "old".to_owned(),
        body,
        node: node.map(str::to_owned),
    };
    let lists = json!({ "num_nodes": 2, "assigned_nodes": ["gpu-1"], "submitted_container_inst_ids": ["c1"],
        "submitted_ecs_task_ids": ["x"], "retry": 1, "job_status": "FAILED_OTHERS" });
    let of_task = json!({ "node_name": "gpu-1", "node_index_in_job": 0, "job_id": "old-1", "job_num_nodes": 2,
        "task_def_arn": null, "container_inst_id": "c1", "container_instance_arn": null, "retry": 1,
        "task_status": "TERMINATED" });
    let of_node = |status: &str| {
        json!({ "container_instance_id": "c1", "container_instance_arn": null, "node_status": status,
            "ip": "10.0.0.7", "ibdev": "mlx5_0" })
    };
    let mut items = vec![
        import(EcsKind::Job, "old-1", lists, None),
        import(EcsKind::Task, "x", of_task, None),
        import(EcsKind::Node, "gpu-1", of_node("FAILED"), Some("i-a")),
        import(EcsKind::Node, "gpu-2", of_node("REBOOTING"), None),
    ];
    let entries = async || {
        let filter = pitcrew_store::AuditFilter { event: Some("ecs.import".to_owned()), ..Default::default() };
        store.audit(&filter, Paging::ALL).await.unwrap().total
    };
    let note = || audit("ecs.import", 3);
    assert_eq!(store.import_ecs(&items, at(3), note()).await.unwrap(), [EcsImported::Added; 4]);
    assert_eq!(store.import_ecs(&items, at(4), note()).await.unwrap(), [EcsImported::Same; 4]);
    assert_eq!(entries().await, 1, "what changes nothing is no event");
    items[3].body = of_node("AVAILABLE");
    let done = store.import_ecs(&items[2..], at(5), note()).await.unwrap();
    assert_eq!(done, [EcsImported::Same, EcsImported::Changed]);
    assert_eq!(store.ecs_imported(EcsKind::Node, "gpu-2").await.unwrap().as_ref(), items.get(3));
    assert_eq!(store.ecs_imported(EcsKind::Job, "gpu-2").await.unwrap(), None);

    let old = EcsFilter { origin: Some(EcsOrigin::Imported), ..EcsFilter::default() };
    let found = jobs(store, &old).await;
    assert_eq!((found.len(), found[0].job_id.as_str(), found[0].retry), (1, "old-1", 1));
    assert_eq!((found[0].job_status, found[0].source.as_deref()), (EcsJobStatus::FailedOthers, Some("old")));
    assert_eq!((&found[0].assigned_nodes[..], found[0].run), (&["gpu-1".to_owned()][..], None));
    let all = store.ecs_jobs(&EcsFilter::default(), Paging { limit: 2, offset: 0 }).await.unwrap();
    assert_eq!((all.rows.len(), all.total), (2, 4), "a page, and how many there are");
    assert_eq!(jobs(store, &EcsFilter::default()).await.last().map(|job| job.origin), Some(EcsOrigin::Imported));
    let tasks = store.ecs_tasks(&old, Paging::ALL).await.unwrap().rows;
    assert_eq!((tasks[0].task_status, tasks[0].job_id.as_deref()), (EcsTaskStatus::Terminated, Some("old-1")));

    // A machine that is known is one row, under its old name; cordoned for what it was, it is that until somebody says otherwise.
    let cordon = |cordoned| NodeChange {
        cordoned: Some(cordoned),
        labels: [(IMPORTED_STATUS.to_owned(), Some("FAILED".to_owned()))].into(),
        ..NodeChange::default()
    };
    store.change_node("i-a", cordon(true), audit("node.cordon", 4)).await.unwrap();
    let nodes = store.ecs_nodes(&EcsFilter::default(), Paging::ALL).await.unwrap().rows;
    let told: Vec<_> = nodes.iter().map(|node| (node.node_name.as_str(), node.node_status, node.origin)).collect();
    let expected = [
        ("gpu-1", EcsNodeStatus::Failed, EcsOrigin::Pitcrew),
        ("gpu-2", EcsNodeStatus::Available, EcsOrigin::Imported),
        ("i-b", EcsNodeStatus::InProgress, EcsOrigin::Pitcrew),
        ("i-c", EcsNodeStatus::Available, EcsOrigin::Pitcrew),
        ("i-d", EcsNodeStatus::Unknown, EcsOrigin::Pitcrew),
    ];
    assert_eq!(told, expected);
    let first = (nodes[0].node.as_deref(), nodes[0].ip.as_deref(), nodes[0].source.as_deref());
    assert_eq!(first, (Some("i-a"), Some("10.0.0.7"), Some("old")));
    store.change_node("i-a", cordon(false), audit("node.uncordon", 5)).await.unwrap();
    let failed = EcsFilter { status: Some("FAILED".to_owned()), ..EcsFilter::default() };
    assert_eq!(store.ecs_nodes(&failed, Paging::ALL).await.unwrap().total, 0);
}
