//! Objects as Kubernetes has them.

use pitcrew_store::*;
use serde_json::json;

use crate::sample::{at, audit, run};

fn new(kind: &str, namespace: &str, name: &str, seconds: i64) -> NewObject {
    NewObject {
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{seconds}"),
        doc: json!({ "n": seconds, "text": "nul\u{1}" }),
        sealed: (kind == "Secret").then(|| format!("v1:{seconds}")),
        at: at(seconds),
    }
}

async fn count(store: &Store, filter: ObjectFilter) -> u64 {
    store.objects(&filter, Paging::ALL).await.unwrap().total
}

pub async fn an_object_is_itself_through_its_changes(store: &Store) {
    assert_eq!(store.object("Secret", "ci", "token").await.unwrap(), None);
    let first = store.put_object(new("Secret", "ci", "token", 1), audit("object.put", 1)).await.unwrap();
    assert_eq!((first.generation, first.uid.as_str(), first.sealed.as_deref()), (1, "uid-1", Some("v1:1")));
    let second = store.put_object(new("Secret", "ci", "token", 2), audit("object.put", 2)).await.unwrap();
    assert_eq!((second.generation, second.uid.as_str(), second.created, second.changed), (2, "uid-1", at(1), at(2)));
    assert_eq!((second.doc["n"].as_i64(), second.sealed.as_deref(), second.run), (Some(2), Some("v1:2"), None));
    assert_eq!(store.object("Secret", "ci", "token").await.unwrap(), Some(second));
    for (kind, namespace) in [("Secret", "default"), ("Task", "ci"), ("ConfigMap", "ci")] {
        store.put_object(new(kind, namespace, "token", 3), audit("object.put", 3)).await.unwrap();
    }
    let of = |kinds: &[&str], namespace: Option<&str>| ObjectFilter {
        kinds: kinds.iter().map(|kind| kind.to_string()).collect(),
        namespace: namespace.map(str::to_owned),
        run: None,
    };
    assert_eq!(count(store, of(&["Secret"], None)).await, 2);
    assert_eq!(count(store, of(&["Secret", "Task"], Some("ci"))).await, 2);
    let page = store.objects(&of(&[], Some("ci")), Paging { limit: 1, offset: 1 }).await.unwrap();
    assert_eq!((page.rows[0].kind.as_str(), page.total), ("Secret", 3));
    assert!(store.delete_object("Task", "ci", "token", audit("object.delete", 4)).await.unwrap());
    assert!(!store.delete_object("Task", "ci", "token", audit("object.delete", 4)).await.unwrap());
    let error = store.put_object(new("Task", "ci", "", 5), audit("object.put", 5)).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error}");
}

pub async fn a_run_and_its_object_are_made_together_and_go_together(store: &Store) {
    let make = async |of: &str, id: &str, seconds| {
        store.create_run_as(run(of, id), None, new("PipelineRun", "ci", id, seconds)).await.unwrap()
    };
    let CreateRun::Created(made) = make("objects", "build-1", 1).await else { panic!("it is new") };
    let row = store.object("PipelineRun", "ci", "build-1").await.unwrap().unwrap();
    assert_eq!((row.run, row.generation), (Some(made.key), 1));
    // The name is taken in its namespace, also for a run of something else, and nothing is left of the attempt.
    for of in ["objects", "others"] {
        match make(of, "build-1", 2).await {
            CreateRun::Exists { run, same } => assert_eq!((run.key, same), (made.key, Same::RunId)),
            CreateRun::Created(run) => panic!("{of} has made run {}", run.key),
        }
    }
    let of_others = RunFilter { workflow: Some(crate::sample::workflow("others")), ..RunFilter::default() };
    assert_eq!(store.runs(&of_others, Paging::ALL).await.unwrap().total, 0);
    let changed = store.put_object(new("PipelineRun", "ci", "build-1", 3), audit("object.put", 3)).await.unwrap();
    assert_eq!((changed.run, changed.generation), (Some(made.key), 2));

    let owner = store.register_owner().await.unwrap();
    store.claim_runs(&owner, ClaimFilter::Only(made.key)).await.unwrap();
    let mut ended = made.clone();
    ended.state = pitcrew_core::state::RunState::Success;
    ended.end = Some(at(9));
    let commit = RunCommit { run: Some(ended), ..RunCommit::new(made.key) };
    store.commit(&owner, vec![commit]).await.unwrap();
    store.release_runs(&owner, &[made.key]).await.unwrap();
    assert!(store.delete_run(made.key, audit("run.delete", 9)).await.unwrap());
    assert_eq!(store.object("PipelineRun", "ci", "build-1").await.unwrap(), None);
    assert_eq!(count(store, ObjectFilter { run: Some(made.key), ..ObjectFilter::default() }).await, 0);
    store.retention_done(&[made.key]).await.unwrap();
}
