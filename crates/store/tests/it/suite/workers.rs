//! Workers: they enrol with a token, are changed, and are revoked for good.

use pitcrew_store::{AuditFilter, Enrolment, Paging, Store, WorkerChange, WorkerRow, WorkerToken};
use serde_json::json;

use crate::sample::{at, audit};

pub(super) fn worker(id: &str, name: &str, second: i64) -> WorkerRow {
    WorkerRow {
        id: id.to_owned(),
        name: name.to_owned(),
        credential: format!("digest of {id}"),
        about: json!({ "slots": 2 }),
        drain: false,
        enrolled: at(second),
        revoked: None,
    }
}

pub(super) fn token(id: &str, uses: Option<u32>, expires: Option<i64>) -> WorkerToken {
    WorkerToken {
        id: id.to_owned(),
        hash: format!("hash of {id}"),
        queues: vec!["s21".to_owned()],
        made_by: "ada".to_owned(),
        created: at(1),
        expires: expires.map(at),
        uses,
    }
}

pub async fn a_worker_enrols_with_a_token_that_works_and_a_name_that_is_free(store: &Store) {
    for token in [token("twice", Some(2), None), token("old", None, Some(5)), token("any", None, Some(900))] {
        store.put_worker_token(token, audit("worker.token", 1)).await.unwrap();
    }
    let enrol = async |token: &str, worker| {
        store.enrol_worker(&format!("hash of {token}"), worker, audit("worker.enrol", 2)).await.unwrap()
    };
    assert_eq!(enrol("none", worker("w1", "s21", 2)).await, Enrolment::NoSuchToken);
    assert_eq!(enrol("old", worker("w1", "s21", 5)).await, Enrolment::Expired);
    assert_eq!(enrol("old", worker("w1", "s21", 4)).await, Enrolment::Done);
    assert_eq!(enrol("twice", worker("w2", "s21", 6)).await, Enrolment::NameTaken);
    let left = || async { store.worker_token("hash of twice").await.unwrap().unwrap().uses };
    assert_eq!(left().await, Some(2), "who did not get in used nothing up");
    // At the same moment: as many get in as may.
    let (a, b, c) = tokio::join!(
        enrol("twice", worker("w3", "s22", 7)),
        enrol("twice", worker("w4", "s23", 7)),
        enrol("twice", worker("w5", "s24", 7)),
    );
    let mut all = [a, b, c].map(|enrolment| format!("{enrolment:?}"));
    all.sort();
    assert_eq!((all, left().await), (["Done", "Done", "UsedUp"].map(str::to_owned), Some(0)));
    let (a, b) = tokio::join!(enrol("any", worker("w6", "s25", 8)), enrol("any", worker("w7", "s25", 8)));
    assert!([a, b].contains(&Enrolment::Done) && [a, b].contains(&Enrolment::NameTaken), "{a:?} {b:?}");

    // Other tests have workers of other names in the same store.
    let enrolled = async || {
        let rows = store.workers().await.unwrap();
        rows.into_iter().filter(|row| row.name.starts_with("s2")).collect::<Vec<_>>()
    };
    assert_eq!(enrolled().await.len(), 4);
    let row = store.worker_by_credential("digest of w1").await.unwrap().unwrap();
    assert_eq!(row, worker("w1", "s21", 4));
    let change = WorkerChange { about: Some(json!({ "slots": 8 })), drain: Some(true), revoked: None };
    let row = store.change_worker("w1", change, None).await.unwrap().unwrap();
    assert_eq!((&row.about, row.drain), (&json!({ "slots": 8 }), true));
    let revoke = || WorkerChange { revoked: Some(at(9)), ..WorkerChange::default() };
    let row = store.change_worker("w1", revoke(), Some(audit("worker.revoke", 9))).await.unwrap().unwrap();
    assert_eq!((row.revoked, row.drain), (Some(at(9)), true));
    assert_eq!(store.change_worker("w1", revoke(), Some(audit("worker.revoke", 9))).await.unwrap(), None);
    assert_eq!(store.worker_by_credential("digest of w1").await.unwrap(), None);
    assert_eq!(enrol("any", worker("w8", "s21", 10)).await, Enrolment::Done, "its name is free again");
    let names: Vec<(String, bool)> =
        enrolled().await.into_iter().map(|row| (row.name, row.revoked.is_some())).collect();
    assert_eq!((names.first().unwrap(), names.last().unwrap()), (&("s21".into(), false), &("s21".into(), true)));

    assert_eq!(store.worker_tokens().await.unwrap().len(), 3);
    assert!(store.delete_worker_token("any", audit("worker.token.delete", 11)).await.unwrap());
    assert!(!store.delete_worker_token("any", audit("worker.token.delete", 11)).await.unwrap());
    assert_eq!(enrol("any", worker("w9", "s29", 12)).await, Enrolment::NoSuchToken);
    let audited = |event: &str| AuditFilter { event: Some(event.to_owned()), ..AuditFilter::default() };
    let count = async |event| store.audit(&audited(event), Paging::ALL).await.unwrap().rows.len();
    assert_eq!((count("worker.enrol").await, count("worker.revoke").await), (5, 1), "what was refused is not noted");
}
