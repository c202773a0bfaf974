//! Nodes: what people do to them, and what is seen of them.

use pitcrew_core::engine::record::AttemptRecord;
use pitcrew_core::state::Exit;
use pitcrew_store::{
    CreateRun, Enrolment, NodeChange, NodeSample, RunCommit, Store, StoreError, WorkerChange, WorkerEnds,
};
use serde_json::json;

use super::workers::{token, worker};
use crate::sample::{at, attempt, audit, run};

pub async fn changes_of_a_node_add_up_beside_what_is_seen_of_it(store: &Store) {
    let label = |key: &str, value: Option<&str>| NodeChange {
        labels: [(key.to_owned(), value.map(str::to_owned))].into(),
        ..NodeChange::default()
    };
    let cordon = NodeChange { cordoned: Some(true), ..NodeChange::default() };
    let seen = json!({ "cores": 64 });
    let nothing = store.marks().await.unwrap();
    // At the same time, on a node that has no row yet.
    let (a, b, c) = tokio::join!(
        store.change_node("s21", label("rack", Some("a")), audit("node.label", 1)),
        store.change_node("s21", cordon, audit("node.cordon", 1)),
        store.see_node("s21", &seen, at(5)),
    );
    a.unwrap();
    b.unwrap();
    c.unwrap();
    // What people did is a mark, and what was seen is none.
    let marks = store.marks().await.unwrap();
    assert_ne!(marks, nothing);
    store.see_node("s21", &json!({}), at(4)).await.unwrap();
    store.see_node("s22", &seen, at(5)).await.unwrap();
    store.see_node("s21", &seen, at(5)).await.unwrap();
    assert_eq!(store.marks().await.unwrap(), marks);
    let taint = NodeChange { taints: [("gpu:NoSchedule".to_owned(), None)].into(), ..NodeChange::default() };
    store.change_node("s21", taint, audit("node.taint", 2)).await.unwrap();
    let row = store.change_node("s21", label("zone", None), audit("node.label", 3)).await.unwrap();
    assert_ne!(store.marks().await.unwrap(), marks);
    assert_eq!(store.nodes().await.unwrap()[0], row);
    assert!(row.cordoned && row.taints == [("gpu:NoSchedule".to_owned(), None)].into());
    assert_eq!(row.labels, [("rack".to_owned(), Some("a".to_owned())), ("zone".to_owned(), None)].into());
    assert_eq!((row.seen, row.seen_at), (seen, Some(at(5))));
    let error = store.change_node("", NodeChange::default(), audit("node.cordon", 4)).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error}");
}

pub async fn samples_of_a_node_are_kept_for_a_while(store: &Store) {
    let sample =
        |node: &str, second| NodeSample { node: node.to_owned(), at: at(second), sample: json!({ "n": second }) };
    for (node, second) in [("a", 1), ("a", 2), ("b", 1), ("a", 3), ("a", 3)] {
        store.put_node_sample(sample(node, second), at(second - 1)).await.unwrap();
    }
    assert_eq!(store.node_samples("a").await.unwrap(), [sample("a", 2), sample("a", 3)]);
    assert_eq!(store.node_samples("b").await.unwrap(), [sample("b", 1)]);
    assert!(store.node_samples("c").await.unwrap().is_empty());
}

pub async fn what_ended_on_a_node_is_found_and_what_ended_on_a_worker_is_counted(store: &Store) {
    let owner = store.register_owner().await.unwrap();
    let CreateRun::Created(run) = store.create_run(run("ended", "r1"), Some(&owner)).await.unwrap() else { panic!() };
    let ended = |task: &str, node: &str, second: Option<i64>| AttemptRecord {
        node: Some(node.to_owned()),
        end: second.map(at),
        exit: second.map(|_| Exit::Code { code: 0 }),
        ..attempt(task, 1)
    };
    let ends = |ended, failed| [("w9".to_owned(), WorkerEnds { ended, failed })].into();
    let attempts = vec![
        ended("a", "n9", Some(5)),
        ended("b", "n9", Some(7)),
        ended("c", "other", Some(9)),
        ended("d", "n9", None),
        ended("e", "n9", Some(7)),
    ];
    let commit = RunCommit { attempts, worker_ends: ends(3, 1), ..RunCommit::new(run.key) };
    let more = RunCommit { worker_ends: ends(1, 1), ..RunCommit::new(run.key) };
    store.commit(&owner, vec![commit, more.clone()]).await.unwrap();
    store.commit(&owner, vec![more.clone()]).await.unwrap();
    let found = async |limit| {
        let rows = store.attempts_ended_on("n9", limit).await.unwrap();
        rows.into_iter().map(|row| (row.run_id.to_string(), row.attempt.task.to_string())).collect::<Vec<_>>()
    };
    let used = store.used_nodes().await.unwrap();
    assert!(used.contains("n9") && !used.contains("other"), "{used:?}");
    let of = |task: &str| ("r1".to_owned(), task.to_owned());
    assert_eq!(found(10).await, [of("b"), of("e"), of("a")], "the newest first");
    assert_eq!(found(2).await, [of("b"), of("e")]);
    assert_eq!(store.worker_ends().await.unwrap()["w9"], WorkerEnds { ended: 5, failed: 3 });
    // Whoever does not own the run counts nothing.
    let other = store.register_owner().await.unwrap();
    assert_eq!(store.commit(&other, vec![more]).await.unwrap().lost, [run.key]);
    assert_eq!(store.worker_ends().await.unwrap()["w9"].ended, 5);
    // Nor is anything kept of one that is let in no more.
    store.put_worker_token(token("ends", None, None), audit("worker.token", 1)).await.unwrap();
    let enrolled = store.enrol_worker("hash of ends", worker("w9", "s9", 2), audit("ends.enrol", 2)).await.unwrap();
    assert_eq!(enrolled, Enrolment::Done);
    let revoked = WorkerChange { revoked: Some(at(9)), ..WorkerChange::default() };
    store.change_worker("w9", revoked, None).await.unwrap();
    assert!(!store.worker_ends().await.unwrap().contains_key("w9"));
    store.delete_worker_token("ends", audit("worker.token.delete", 9)).await.unwrap();
    store.release_runs(&owner, &[run.key]).await.unwrap();
    owner.end().await;
    other.end().await;
}
