//! A PostgreSQL database for one test, on the server that `PITCREW_TEST_POSTGRES` names.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

pub struct Postgres {
    server: String,
    name: String,
    /// The address of the database.
    pub url: String,
}

impl Postgres {
    /// `None`, with a word about it, where no server is named.
    pub async fn create() -> Option<Postgres> {
        let Ok(server) = std::env::var("PITCREW_TEST_POSTGRES") else {
            eprintln!("skipped: PITCREW_TEST_POSTGRES names no server; `scripts/postgres start` makes one");
            return None;
        };
        let name = format!("pitcrew_{}", uuid::Uuid::now_v7().simple());
        let mut connection = PgConnection::connect(&server).await.expect("PITCREW_TEST_POSTGRES");
        connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        let (base, _) = server.rsplit_once('/').expect("a database in PITCREW_TEST_POSTGRES");
        let url = format!("{base}/{name}");
        Some(Postgres { server, name, url })
    }

    pub async fn drop(self) {
        let mut connection = PgConnection::connect(&self.server).await.unwrap();
        connection.execute(AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name))).await.unwrap();
    }
}
