//! The store from outside: one suite and one random test for all kinds, and what only a real database can show.

mod broken;
mod databases;
mod differential;
mod killed;
mod postgres;
mod sample;
mod suite;

use pitcrew_store::{Store, StoreUrl};

#[tokio::test]
async fn memory_does_what_every_store_does() {
    suite::exercise(&Store::open(&StoreUrl::Memory).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_does_what_every_store_does() {
    let folder = tempfile::tempdir().unwrap();
    let url = StoreUrl::Sqlite(folder.path().join("deep/er/pitcrew.db"));
    let store = Store::open(&url).await.unwrap();
    suite::exercise(&store).await;
    suite::exercise_two(&store, &Store::open(&url).await.unwrap()).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_does_what_every_store_does() {
    let Some(database) = databases::Postgres::create().await else { return };
    let url = database.url.parse().unwrap();
    let store = Store::open(&url).await.unwrap();
    suite::exercise(&store).await;
    suite::exercise_two(&store, &Store::open(&url).await.unwrap()).await;
    store.close().await;
    database.drop().await;
}
