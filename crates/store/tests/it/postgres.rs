//! What only a database server does: refuse a login, be away, and drop a connection.

use pitcrew_store::{ClaimFilter, RunCommit, Store, StoreError, StoreUrl};
use sqlx::{Connection, Executor, PgConnection};

use crate::databases::Postgres;
use crate::sample::run;
use crate::suite::ownership::eventually;

async fn open_error(url: &str) -> String {
    match Store::open(&url.parse::<StoreUrl>().unwrap()).await {
        Err(error @ StoreError::Unavailable(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_named_without_the_password() {
    // Bound and not listening: nobody can take the port meanwhile.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let error = open_error(&format!("postgres://user:secret@127.0.0.1:{port}/db")).await;
    assert!(error.contains(&format!("127.0.0.1:{port}")) && !error.contains("secret"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_says_what_to_check() {
    let Some(database) = Postgres::create().await else { return };
    let (login, place) = database.url.rsplit_once('@').unwrap();
    let (user, _) = login.rsplit_once(':').unwrap();
    let error = open_error(&format!("{user}:wrong@{place}")).await;
    assert!(error.contains("user and password") && !error.contains("wrong"), "{error}");
    let (server, _) = database.url.rsplit_once('/').unwrap();
    let error = open_error(&format!("{server}/no_such_database")).await;
    assert!(error.contains("no_such_database") && error.contains("createdb"), "{error}");
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_connection_breaks_may_lose_runs_but_never_shares_them() {
    let Some(database) = Postgres::create().await else { return };
    let url = database.url.parse().unwrap();
    let (one, two) = (Store::open(&url).await.unwrap(), Store::open(&url).await.unwrap());
    let first = one.register_owner().await.unwrap();
    let key = one.create_run(run("broken", "one"), Some(&first)).await.unwrap().into_run().key;
    assert!(one.try_lead(&first).await.unwrap());

    let cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    PgConnection::connect(&database.url).await.unwrap().execute(cut).await.unwrap();
    let second = two.register_owner().await.unwrap();
    eventually(async || {
        let claimed = two.claim_runs(&second, ClaimFilter::All).await.unwrap();
        (!claimed.is_empty()).then_some(())
    })
    .await;
    assert!(two.try_lead(&second).await.unwrap());
    assert_eq!(one.commit(&first, vec![RunCommit::new(key)]).await.unwrap().lost, [key]);
    // Asking makes the owner notice, and connect again.
    eventually(async || {
        assert!(!one.try_lead(&first).await.unwrap(), "the other one leads");
        first.is_held().then_some(())
    })
    .await;
    let later = one.create_run(run("broken", "two"), Some(&first)).await.unwrap().into_run().key;
    assert_eq!(two.claim_runs(&second, ClaimFilter::All).await.unwrap(), []);
    assert_eq!(one.commit(&first, vec![RunCommit::new(later)]).await.unwrap().lost, []);
    database.drop().await;
}
