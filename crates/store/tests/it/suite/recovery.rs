//! What recovery knows: rows of nodes and jobs that are replaced, and incidents that stay.

use pitcrew_core::RunKey;
use pitcrew_core::recovery::{
    Advice, IncidentId, Input, Key, NodeFacts, Policy, Record, Recovery, Rung, Seen, Signal, SignalKind,
};
use pitcrew_store::{IncidentFilter, Paging, Store, StoreError};

use crate::sample::at;

fn signal(node: &str, second: i64) -> Input {
    Input::Signal(Signal {
        id: format!("{node}@{second}"),
        node: node.to_owned(),
        boot_id: None,
        gpu: Some("GPU-1".to_owned()),
        job: None,
        at: at(second),
        kind: SignalKind::Xid { code: 79 },
        advice: Advice::Reboot,
        evidence: "GPU has fallen off the bus".to_owned(),
    })
}

pub async fn what_recovery_knows_is_written_at_once_and_read_by_the_next(store: &Store) {
    let term = store.take_recovery().await.unwrap();
    let mut recovery = Recovery::new(Policy::default());
    for node in ["n1", "n2"] {
        let facts = NodeFacts { rungs: [Rung::Reboot].into(), ..NodeFacts::default() };
        let seen = Seen { boot_id: Some("b1".to_owned()), agent: true, gpus: Some(1) };
        for input in [
            Input::Node { node: node.to_owned(), facts },
            Input::Observed { node: node.to_owned(), seen },
            signal(node, 1),
        ] {
            let changes = recovery.apply(input, at(2));
            store.write_recovery(term, &changes.records, &changes.removed).await.unwrap();
        }
    }
    let open = IncidentFilter { open: Some(true), ..IncidentFilter::default() };
    let all = store.incidents(&open, Paging::ALL).await.unwrap();
    assert_eq!(all.rows.iter().map(|row| row.node.as_str()).collect::<Vec<_>>(), ["n2", "n1"], "the newest first");
    let by = || "ada".to_owned();
    let dismiss = Input::Dismiss { incident: IncidentId(1), by: by(), why: "it is well".to_owned() };
    let changes = recovery.apply(dismiss, at(3));
    store.write_recovery(term, &changes.records, &changes.removed).await.unwrap();
    // What is over, but the newest of its node, is still needed; then it is history.
    let (again, _) = Recovery::restore(Policy::default(), store.recovery_records().await.unwrap());
    assert_eq!(again, recovery);
    let changes = recovery.apply(signal("n1", 4), at(5));
    store.write_recovery(term, &changes.records, &changes.removed).await.unwrap();
    let needed = store.recovery_records().await.unwrap();
    assert!(!needed.iter().any(|record| record.key() == Key::Incident(IncidentId(1))));
    let (again, _) = Recovery::restore(Policy::default(), needed);
    assert_eq!(again, recovery);
    let of_n1 = IncidentFilter { node: Some("n1".to_owned()), ..IncidentFilter::default() };
    let page = store.incidents(&of_n1, Paging { limit: 1, offset: 1 }).await.unwrap();
    assert_eq!((page.total, page.rows[0].id), (2, IncidentId(1)));
    assert!(!page.rows[0].is_open());
    let history = page.rows[0].clone();
    assert_eq!(store.incident(IncidentId(1)).await.unwrap().as_ref(), page.rows.first());
    assert_eq!(store.incident(IncidentId(99)).await.unwrap(), None);
    let over = IncidentFilter { open: Some(false), ..IncidentFilter::default() };
    assert_eq!(store.incidents(&over, Paging::ALL).await.unwrap().total, 1);

    let fleet = Key::Node("n2".to_owned());
    store.write_recovery(term, &[], std::slice::from_ref(&fleet)).await.unwrap();
    let left = store.recovery_records().await.unwrap();
    assert!(!left.iter().map(Record::key).any(|key| key == fleet));
    let keys: Vec<Key> = left.iter().map(Record::key).collect();
    store.write_recovery(term, &[], &keys).await.unwrap();
    store.write_recovery(term, &[], &[Key::Incident(IncidentId(1))]).await.unwrap();
    assert!(store.recovery_records().await.unwrap().is_empty());

    // Another server takes over: what the one before still has to write is not written.
    let next = store.take_recovery().await.unwrap();
    let node = Input::Node { node: "n3".to_owned(), facts: NodeFacts::default() };
    let records = Recovery::new(Policy::default()).apply(node, at(9)).records;
    let refused = store.write_recovery(term, &records, &[]).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict(_)) && !refused.is_transient(), "{refused}");
    assert!(store.recovery_records().await.unwrap().is_empty());
    store.write_recovery(next, &records, &[]).await.unwrap();
    assert_eq!(store.recovery_records().await.unwrap(), records);

    // Those of a run, by the jobs that they hit, and not by what only reads like one.
    let mut hit = history;
    for (id, job, evidence) in
        [(50, "7/train", "x"), (51, "7/train[2]", "x"), (52, "17/train", "7/train: x"), (53, "70/train", "x")]
    {
        (hit.id, hit.opened, hit.jobs) = (IncidentId(id), at(20 + id as i64), [job.to_owned()].into());
        hit.signals[0].evidence = evidence.to_owned();
        store.write_recovery(next, &[Record::Incident(hit.clone())], &[]).await.unwrap();
    }
    let of_run = async |run, second| {
        let found = store.incidents_of_run(RunKey(run), at(second)).await.unwrap();
        found.into_iter().map(|incident| incident.id.0).collect::<Vec<_>>()
    };
    assert_eq!((of_run(7, 0).await, of_run(7, 71).await, of_run(8, 0).await), (vec![51, 50], vec![51], vec![]));
}
