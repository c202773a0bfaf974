//! Who has files of a run.

use pitcrew_core::id::RunKey;
use pitcrew_store::{RunFiles, Store};

pub async fn who_has_files_of_a_run_is_noted_until_another_has_them(store: &Store) {
    let run = RunKey(7_000_001);
    let has = async || store.run_files(run).await.unwrap();
    let files = |home: &str, version| RunFiles { home: home.to_owned(), version };
    assert_eq!(has().await, []);
    store.put_run_files(run, "one").await.unwrap();
    store.put_run_files(RunKey(7_000_002), "other").await.unwrap();
    let seen = has().await;
    assert_eq!(seen, [files("one", 1)]);
    // It changed after somebody looked: that stays.
    store.put_run_files(run, "one").await.unwrap();
    store.take_run_files(run, &seen[0], "two").await.unwrap();
    assert_eq!(has().await, [files("one", 2), files("two", 1)]);
    store.take_run_files(run, &files("one", 2), "two").await.unwrap();
    assert_eq!(has().await, [files("two", 2)]);
    // Whoever has them already, has them.
    store.take_run_files(run, &files("one", 2), "two").await.unwrap();
    assert_eq!(has().await, [files("two", 3)]);
}
