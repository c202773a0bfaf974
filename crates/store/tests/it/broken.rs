//! Databases that cannot be used, and that do not get used for nothing.

use std::time::Duration;

use pitcrew_core::state::State;
use pitcrew_store::{ClaimFilter, PutWorkflow, RunCommit, Store, StoreError, StoreUrl};
use sqlx::{Connection, Executor, Row, SqliteConnection};

use crate::sample::{at, audit, instance, row, run, workflow};

async fn raw(path: &std::path::Path) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap()
}

#[tokio::test]
async fn a_place_that_cannot_hold_a_database_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no database").unwrap();
    for path in [file.join("pitcrew.db"), "/proc/nowhere/pitcrew.db".into(), folder.path().to_owned()] {
        let error = Store::open(&StoreUrl::Sqlite(path.clone())).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    let error = Store::open(&StoreUrl::Sqlite(file)).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
    assert_eq!(std::fs::read_to_string(folder.path().join("file")).unwrap(), "no database");
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pitcrew.db");
    Store::open(&StoreUrl::Sqlite(path.clone())).await.unwrap().close().await;
    raw(&path).await.execute("INSERT INTO schema_version (version, name) VALUES (999, 'later')").await.unwrap();
    let error = Store::open(&StoreUrl::Sqlite(path)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 999, .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_open_a_new_database_at_the_same_moment() {
    let folder = tempfile::tempdir().unwrap();
    let url = StoreUrl::Sqlite(folder.path().join("pitcrew.db"));
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let url = url.clone();
        opening.spawn(async move {
            let store = Store::open(&url).await?;
            let owner = store.register_owner().await?;
            for n in 0..10 {
                let made = store.create_run(run("same", &format!("run{n}")), Some(&owner)).await?.into_run();
                let commit = RunCommit { instances: vec![instance("t", State::Queued)], ..RunCommit::new(made.key) };
                store.commit(&owner, vec![commit]).await?;
            }
            Ok::<_, StoreError>(())
        });
    }
    for result in opening.join_all().await {
        result.unwrap();
    }
    let store = Store::open(&url).await.unwrap();
    assert_eq!(store.run_counts().await.unwrap()[&workflow("same")].queued, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_one_under_every_name() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let store = Store::open(&StoreUrl::Sqlite(place("real/pitcrew.db"))).await.unwrap();
    std::os::unix::fs::symlink(place("real"), place("folder")).unwrap();
    std::os::unix::fs::symlink(place("real/pitcrew.db"), place("file.db")).unwrap();
    let owner = store.register_owner().await.unwrap();
    assert!(store.try_lead(&owner).await.unwrap());
    store.create_run(run("names", "one"), Some(&owner)).await.unwrap();
    for name in ["folder/pitcrew.db", "file.db"] {
        let other = Store::open(&StoreUrl::Sqlite(place(name))).await.unwrap();
        let second = other.register_owner().await.unwrap();
        assert_eq!(other.claim_runs(&second, ClaimFilter::All).await.unwrap(), [], "{name}: its owner lives");
        assert!(!other.try_lead(&second).await.unwrap(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_server_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pitcrew.db");
    let url = StoreUrl::Sqlite(path.clone());
    let store = Store::open(&url).await.unwrap();
    let owner = store.register_owner().await.unwrap();
    store.put_workflow(&row("idle"), "source", at(1)).await.unwrap();
    store.put_setting("k", "v").await.unwrap();
    store.put_file_error("/x.yaml", "bad", at(1)).await.unwrap();
    let mut other = raw(&path).await;
    let mut version = async || other.fetch_one("PRAGMA data_version").await.unwrap().get::<i64, _>(0);
    let before = version().await;

    let mut changes = store.subscribe(Duration::from_millis(1));
    for n in 2..5 {
        assert!(store.try_lead(&owner).await.unwrap());
        assert_eq!(store.claim_runs(&owner, ClaimFilter::All).await.unwrap(), []);
        assert_eq!(store.put_workflow(&row("idle"), "source", at(n)).await.unwrap(), PutWorkflow::Unchanged);
        store.set_next_run(&workflow("idle"), row("idle").next_run).await.unwrap();
        store.put_setting("k", "v").await.unwrap();
        store.setting_or_insert("k", "w").await.unwrap();
        store.put_file_error("/x.yaml", "bad", at(n)).await.unwrap();
        store.clear_file_error("/y.yaml").await.unwrap();
        store.set_paused(&workflow("idle"), false, audit("workflow.unpause", n)).await.unwrap();
        store.retention(at(-1000)).await.unwrap();
        store.retention_done(&[]).await.unwrap();
    }
    assert_eq!(Store::open(&url).await.unwrap().setting("k").await.unwrap().as_deref(), Some("v"));
    assert_eq!(version().await, before);
    // Which is no wonder if nothing is ever seen: so see something.
    store.put_setting("k", "changed").await.unwrap();
    assert_ne!(version().await, before);
    other.execute("UPDATE settings SET value = 'from outside'").await.unwrap();
    crate::suite::ownership::within(changes.changed()).await;
}

/// Another process may change a run after the subscription was made and before its first look at the database.
#[tokio::test]
async fn no_change_is_missed_at_the_start_of_a_subscription() {
    let folder = tempfile::tempdir().unwrap();
    let url = StoreUrl::Sqlite(folder.path().join("pitcrew.db"));
    let store = Store::open(&url).await.unwrap();
    let mut changes = store.subscribe(Duration::from_millis(1));
    // This thread is held up, so nothing of the subscription has happened yet when the other one has written.
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { Store::open(&url).await.unwrap().put_setting("k", "v").await.unwrap() });
    });
    other.join().unwrap();
    crate::suite::ownership::within(changes.changed()).await;
}
