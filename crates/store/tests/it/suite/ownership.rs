//! Who may write a run.

use std::time::Duration;

use pitcrew_core::state::{RunState, State};
use pitcrew_store::{ClaimFilter, RunCommit, Store};

use super::runs::created;
use super::writes::owned;
use crate::sample::{at, instance, run};

pub async fn only_the_owner_writes(store: &Store) {
    let (mine, other) = (store.register_owner().await.unwrap(), store.register_owner().await.unwrap());
    assert_ne!(mine.id(), other.id());
    assert!(mine.is_held());
    let key = owned(store, &mine, "fence", "mine").await.key;
    let theirs = owned(store, &other, "fence", "theirs").await.key;
    let nobodys = created(store, run("fence", "nobodys")).await.key;
    let commit = |key| RunCommit { instances: vec![instance("t", State::Success)], ..RunCommit::new(key) };
    let result = store.commit(&mine, vec![commit(nobodys), commit(key), commit(theirs)]).await.unwrap();
    assert_eq!(result.lost, [theirs, nobodys]);
    assert_eq!(store.state_counts(&[key, theirs, nobodys]).await.unwrap().into_keys().collect::<Vec<_>>(), [key]);
    store.release_runs(&mine, &[key, theirs]).await.unwrap();
    assert_eq!(store.commit(&mine, vec![commit(key)]).await.unwrap().lost, [key]);
    assert_eq!(store.commit(&other, vec![commit(theirs)]).await.unwrap().lost, []);
    assert_eq!(store.commit(&mine, vec![]).await.unwrap().lost, []);
}

pub async fn runs_of_the_dead_are_claimed_and_of_the_living_not(store: &Store) {
    let claimer = store.register_owner().await.unwrap();
    // What earlier tests have left.
    store.claim_runs(&claimer, ClaimFilter::All).await.unwrap();
    assert_eq!(store.claim_runs(&claimer, ClaimFilter::All).await.unwrap(), [], "its own are not claimed again");

    let living = store.register_owner().await.unwrap();
    let dying = store.register_owner().await.unwrap();
    let kept = owned(store, &living, "claim", "kept").await.key;
    let orphan = owned(store, &dying, "claim", "orphan").await.key;
    let mut ended = owned(store, &dying, "claim", "ended").await;
    (ended.state, ended.end) = (RunState::Success, Some(at(9)));
    let end = RunCommit { run: Some(ended.clone()), ..RunCommit::new(ended.key) };
    let half = RunCommit { instances: vec![instance("t", State::Running)], ..RunCommit::new(orphan) };
    store.commit(&dying, vec![end, half]).await.unwrap();
    assert_eq!(store.claim_runs(&claimer, ClaimFilter::All).await.unwrap(), []);
    for key in [kept, orphan, ended.key] {
        assert_eq!(store.claim_runs(&claimer, ClaimFilter::Only(key)).await.unwrap(), [], "its owner lives");
    }
    let free = created(store, run("claim", "free")).await.key;

    drop(dying);
    // The end of a connection takes a moment to arrive; that of a file lock does not.
    let claimed = eventually(async || {
        let found = store.claim_runs(&claimer, ClaimFilter::Only(orphan)).await.unwrap();
        (!found.is_empty()).then_some(found)
    })
    .await;
    assert_eq!(claimed[0].instances, [instance("t", State::Running)]);
    let claimed = store.claim_runs(&claimer, ClaimFilter::All).await.unwrap();
    assert_eq!(claimed.iter().map(|stored| stored.run.key).collect::<Vec<_>>(), [free], "the ended one stays");
    let mine = store.claim_runs(&claimer, ClaimFilter::Only(free)).await.unwrap();
    assert_eq!(mine.len(), 1, "asked for by key, one's own is returned again");
    let again = store.claim_runs(&claimer, ClaimFilter::Only(ended.key)).await.unwrap();
    assert_eq!(again[0].run, ended, "a final run is claimed to be cleared");
    let commits = [free, orphan, ended.key].map(RunCommit::new).to_vec();
    assert_eq!(store.commit(&claimer, commits).await.unwrap().lost, []);
    assert_eq!(store.claim_runs(&living, ClaimFilter::All).await.unwrap(), []);
}

pub async fn one_owner_leads(store: &Store) {
    let (first, second) = (store.register_owner().await.unwrap(), store.register_owner().await.unwrap());
    assert!(store.try_lead(&first).await.unwrap());
    assert!(store.try_lead(&first).await.unwrap(), "it stays");
    assert!(!store.try_lead(&second).await.unwrap());
    drop(first);
    eventually(async || store.try_lead(&second).await.unwrap().then_some(())).await;
}

pub async fn a_change_wakes_those_who_wait(store: &Store) {
    let mut changes = store.subscribe(Duration::from_secs(3600));
    let owner = store.register_owner().await.unwrap();
    for n in 0..3 {
        let key = owned(store, &owner, "wake", &format!("run{n}")).await.key;
        within(changes.changed()).await;
        let commit = RunCommit { instances: vec![instance("t", State::Queued)], ..RunCommit::new(key) };
        store.commit(&owner, vec![commit]).await.unwrap();
        within(changes.changed()).await;
    }
}

pub async fn two_stores_respect_each_other(one: &Store, two: &Store) {
    let mut changes = two.subscribe(Duration::from_millis(20));
    let (first, second) = (one.register_owner().await.unwrap(), two.register_owner().await.unwrap());
    two.claim_runs(&second, ClaimFilter::All).await.unwrap();
    assert!(one.try_lead(&first).await.unwrap());
    assert!(!two.try_lead(&second).await.unwrap());
    let key = owned(one, &first, "two", "one").await.key;
    eventually(async || {
        within(changes.changed()).await;
        two.run(key).await.unwrap()
    })
    .await;
    assert_eq!(two.claim_runs(&second, ClaimFilter::All).await.unwrap(), []);
    assert_eq!(two.commit(&second, vec![RunCommit::new(key)]).await.unwrap().lost, [key]);
    // Both want what nobody owns: each run goes to exactly one of them.
    let mut free = Vec::new();
    for n in 0..20 {
        free.push(created(one, run("two", &format!("free{n}"))).await.key);
    }
    let (a, b) = tokio::join!(one.claim_runs(&first, ClaimFilter::All), two.claim_runs(&second, ClaimFilter::All));
    let mut claimed: Vec<_> = a.unwrap().into_iter().chain(b.unwrap()).map(|stored| stored.run.key).collect();
    claimed.sort();
    assert_eq!(claimed, free);
}

/// Asks until there is an answer.
pub async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    within(async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    })
    .await
}

/// Fails rather than hangs.
pub async fn within<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("it should have happened by now")
}
