//! A process that is killed loses its runs and its lead at once.
//!
//! The child is this test binary again, so that a real process with real locks dies.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use pitcrew_core::id::RunKey;
use pitcrew_store::{ClaimFilter, RunCommit, Store, StoreUrl};

use crate::databases::Postgres;
use crate::suite::ownership::{eventually, within};

const ADDRESS: &str = "PITCREW_TEST_CHILD_OF";

/// Registers, leads, makes a run, says so, and lives on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child of the other tests here"]
async fn child() {
    let url: StoreUrl = std::env::var(ADDRESS).expect("started by its parent").parse().unwrap();
    let store = Store::open(&url).await.unwrap();
    let owner = store.register_owner().await.unwrap();
    assert!(store.try_lead(&owner).await.unwrap());
    let run = store.create_run(crate::sample::run("killed", "run"), Some(&owner)).await.unwrap().into_run();
    store.commit(&owner, vec![RunCommit::new(run.key)]).await.unwrap();
    println!("ready {}", run.key);
    std::future::pending::<()>().await;
}

async fn a_killed_owner_is_succeeded(url: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "killed::child", "--nocapture"])
        .env(ADDRESS, url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let key = lines.map_while(Result::ok).find_map(|line| {
        let (_, key) = line.split_once("ready ")?;
        key.trim().parse().ok().map(RunKey)
    });
    let key = key.expect("the child should have made a run");
    let store = Store::open(&url.parse().unwrap()).await.unwrap();
    let owner = store.register_owner().await.unwrap();
    assert_eq!(store.claim_runs(&owner, ClaimFilter::All).await.unwrap(), [], "the child lives");
    assert!(!store.try_lead(&owner).await.unwrap());

    child.kill().unwrap();
    child.wait().unwrap();

    within(eventually(async || store.try_lead(&owner).await.unwrap().then_some(()))).await;
    let claimed = eventually(async || {
        let claimed = store.claim_runs(&owner, ClaimFilter::All).await.unwrap();
        (!claimed.is_empty()).then_some(claimed)
    })
    .await;
    assert_eq!(claimed[0].run.key, key);
    assert_eq!(store.commit(&owner, vec![RunCommit::new(key)]).await.unwrap().lost, []);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_killed_owner_is_succeeded_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pitcrew.db");
    a_killed_owner_is_succeeded(path.to_str().unwrap()).await;
    // Only the fixed files are left: the dead owner's and, at its end, the living one's are gone.
    let mut left: Vec<_> = std::fs::read_dir(folder.path().join("pitcrew.db-locks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["leader", "open"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_killed_owner_is_succeeded_at_once() {
    let Some(database) = Postgres::create().await else { return };
    a_killed_owner_is_succeeded(&database.url).await;
    database.drop().await;
}
