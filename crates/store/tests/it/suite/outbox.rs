//! The outbox and backfills.

use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::id::RunKey;
use pitcrew_core::state::RunState;
use pitcrew_store::*;
use serde_json::json;

use super::writes::{committed, owned};
use crate::sample::{at, audit, run, workflow};

fn notice(dedupe: &str, seconds: i64) -> NewNotice {
    NewNotice {
        dedupe: dedupe.to_owned(),
        channel: "slack".to_owned(),
        event: "run.failed".to_owned(),
        workflow: Some(workflow("outbox")),
        run: Some(RunKey(7)),
        body: json!({"text": "boom \0"}),
        created: at(seconds),
    }
}

pub async fn notices_are_sent_once_and_tried_again(store: &Store) {
    let owner = store.register_owner().await.unwrap();
    let key = owned(store, &owner, "outbox", "one").await.key;
    let notices = vec![notice("b", 20), notice("a", 10)];
    committed(store, &owner, RunCommit { notices, ..RunCommit::new(key) }).await;
    let mail = NewNotice { channel: "mail".to_owned(), workflow: None, run: None, ..notice("c", 30) };
    assert_eq!(store.add_notices(vec![notice("a", 1), mail.clone(), mail.clone()]).await.unwrap(), 1);
    // The commit of a run that is lost writes no notice either.
    let lost = RunCommit { notices: vec![notice("lost", 1)], ..RunCommit::new(RunKey(i64::MAX)) };
    store.commit(&owner, vec![lost]).await.unwrap();

    assert_eq!(store.next_notice_due().await.unwrap(), Some(at(10)));
    let due = store.due_notices(at(20), 10).await.unwrap();
    let [a, b] = &due[..] else { panic!("{due:?}") };
    assert_eq!((&a.notice, &b.notice, a.state, a.tries), (&notice("a", 10), &notice("b", 20), NoticeState::Waiting, 0));
    assert_eq!(store.due_notices(at(99), 1).await.unwrap(), std::slice::from_ref(a));

    let retry = Settled::Retry { at: at(500), error: "503".to_owned() };
    assert!(store.settle_notice(a.id, retry).await.unwrap());
    assert!(store.settle_notice(b.id, Settled::Merged { into: a.id }).await.unwrap());
    let again = store.notice(a.id).await.unwrap().unwrap();
    assert_eq!((again.due, again.tries, again.error.as_str(), again.state), (at(500), 1, "503", NoticeState::Waiting));
    assert_eq!(store.due_notices(at(499), 10).await.unwrap().len(), 1);
    assert!(store.settle_notice(a.id, Settled::Sent { at: at(501) }).await.unwrap());
    assert!(!store.settle_notice(a.id, Settled::Failed { error: "late".to_owned() }).await.unwrap());
    let sent = store.notice(a.id).await.unwrap().unwrap();
    assert_eq!((sent.sent, sent.tries, sent.state), (Some(at(501)), 2, NoticeState::Sent));
    let list = async |filter: NoticeFilter| {
        let page = store.notices(&filter, Paging::first(2)).await.unwrap();
        (page.rows.into_iter().map(|row| row.notice.dedupe).collect::<String>(), page.total)
    };
    let all = NoticeFilter::default;
    assert_eq!(list(all()).await.1, 3);
    assert_eq!(list(NoticeFilter { channel: Some("mail".to_owned()), ..all() }).await, ("c".to_owned(), 1));
    assert_eq!(list(NoticeFilter { state: Some(NoticeState::Merged), ..all() }).await, ("b".to_owned(), 1));
    assert_eq!(list(NoticeFilter { workflow: Some(workflow("outbox")), ..all() }).await.1, 2);

    let c = store.due_notices(at(99), 10).await.unwrap().remove(0);
    let retry = async |id, seconds| {
        let audit = AuditEntry::new(at(seconds), "op", "notice.retry");
        store.retry_notice(id, at(seconds), audit).await.unwrap()
    };
    // One that is settled is left alone, also among others; putting off is no try.
    let later = [a.id, c.id].map(|id| (id, Settled::Later { at: at(700) })).to_vec();
    assert_eq!(store.settle_notices(later).await.unwrap(), 1);
    let failed = (c.id, Settled::Failed { error: "404".to_owned() });
    assert_eq!(store.settle_notices(vec![failed]).await.unwrap(), 1);
    let given_up = store.notice(c.id).await.unwrap().unwrap();
    assert_eq!((given_up.due, given_up.tries, given_up.state), (at(700), 1, NoticeState::Failed));
    assert_eq!([retry(a.id, 800).await, retry(c.id, 800).await, retry(i64::MAX, 800).await], [false, true, false]);
    let again = store.notice(c.id).await.unwrap().unwrap();
    assert_eq!((again.due, again.tries, again.state), (at(800), 0, NoticeState::Waiting));
    let filter = AuditFilter { event: Some("notice.retry".to_owned()), ..AuditFilter::default() };
    assert_eq!(store.audit(&filter, Paging::ALL).await.unwrap().total, 1);
}

pub async fn a_backfill_is_paused_cancelled_and_completed(store: &Store) {
    let new = |of: &str| NewBackfill {
        workflow: workflow(of),
        from: at(0),
        to: at(100),
        reprocess: Reprocess::Failed,
        reverse: true,
        max_active_runs: 3,
        conf: json!({"a": [1]}).as_object().unwrap().clone(),
        by: "ada".to_owned(),
        created: at(1),
    };
    let made = store.create_backfill(new("filled"), audit("backfill.create", 1)).await.unwrap();
    assert_eq!((&made.new, made.is_paused, made.planned, made.updated), (&new("filled"), false, false, at(1)));
    assert_eq!(store.backfill(made.id).await.unwrap(), Some(made.clone()));
    let error = store.create_backfill(new("filled"), audit("backfill.create", 2)).await.unwrap_err();
    assert!(matches!(&error, StoreError::Conflict(text) if text.contains(&format!("backfill {}", made.id))), "{error}");
    let other = store.create_backfill(new("filled2"), audit("backfill.create", 2)).await.unwrap();
    for bad in [NewBackfill { to: at(-1), ..new("bad") }, NewBackfill { max_active_runs: 0, ..new("bad") }] {
        let error = store.create_backfill(bad, audit("backfill.create", 2)).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{error}");
    }

    let update = async |change, seconds| {
        let entry = Some(audit("backfill.change", seconds));
        store.update_backfill(made.id, change, at(seconds), entry).await.unwrap()
    };
    assert!(update(BackfillChange::Planned, 2).await && !update(BackfillChange::Planned, 3).await);
    assert!(update(BackfillChange::Pause(true), 4).await && !update(BackfillChange::Pause(true), 5).await);
    assert!(update(BackfillChange::Pause(false), 6).await);
    assert!(update(BackfillChange::Cancelled, 7).await && !update(BackfillChange::Pause(true), 8).await);
    let cancelled = store.backfill(made.id).await.unwrap().unwrap();
    assert!(cancelled.is_open() && cancelled.cancelled && cancelled.planned && !cancelled.is_paused);
    // Another one may begin while the last runs of a cancelled one end.
    let next = store.create_backfill(new("filled"), audit("backfill.create", 8)).await.unwrap();
    assert!(update(BackfillChange::Completed, 9).await && !update(BackfillChange::Completed, 10).await);
    let done = store.backfill(made.id).await.unwrap().unwrap();
    assert_eq!((done.completed, done.updated), (Some(at(9)), at(9)));
    let changes = AuditFilter { event: Some("backfill.change".to_owned()), ..AuditFilter::default() };
    assert_eq!(store.audit(&changes, Paging::ALL).await.unwrap().total, 5);
    let missing = store.update_backfill(i64::MAX, BackfillChange::Cancelled, at(1), None).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing}");

    let ids = async |workflow, open| {
        let filter = BackfillFilter { workflow, open };
        let page = store.backfills(&filter, Paging::ALL).await.unwrap();
        page.rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(None, None).await, [next.id, other.id, made.id]);
    assert_eq!(ids(Some(workflow("filled")), Some(true)).await, [next.id]);
    assert_eq!(ids(None, Some(false)).await, [made.id]);

    let owner = store.register_owner().await.unwrap();
    for n in 0..3 {
        let new = NewRun { backfill: Some(next.id), ..run("filled", &format!("r{n}")) };
        store.create_run(new, Some(&owner)).await.unwrap();
    }
    let late = NewRun { backfill: Some(made.id), ..run("filled", "late") };
    let error = store.create_run(late, None).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    let taken = owned(store, &owner, "filled", "taken").await;
    let taken = RunRecord { backfill: Some(next.id), state: RunState::Running, ..taken };
    committed(store, &owner, RunCommit { run: Some(taken.clone()), ..RunCommit::new(taken.key) }).await;
    let counts = store.backfill_counts(&[next.id, made.id]).await.unwrap();
    assert_eq!(counts.len(), 1);
    assert_eq!(counts[&next.id], RunCounts { queued: 3, running: 1, ..RunCounts::default() });
    let filter = RunFilter { backfill: Some(next.id), ..RunFilter::default() };
    let page = store.runs(&filter, Paging::first(1)).await.unwrap();
    assert_eq!((page.rows, page.total), (vec![taken], 4));
}
