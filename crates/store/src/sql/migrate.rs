//! Brings a schema up to date. Forward only: a migration that was released is never changed.
//!
//! Each migration and the note that it was applied are one transaction, so a crash leaves a schema that the
//! next start continues from. Where nothing is to do, nothing is written.

use super::db::{Db, Tx, args};
use crate::error::{Result, StoreError};

/// A migration, for both databases. Its number is its place in [`MIGRATIONS`], from 1.
struct Migration {
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! migration {
    ($name:literal) => {
        Migration {
            name: $name,
            sqlite: include_str!(concat!("../../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../../migrations/postgres/", $name, ".sql")),
        }
    };
}

static MIGRATIONS: &[Migration] = &[
    migration!("0001_start"),
    migration!("0002_across"),
    migration!("0003_parts"),
    migration!("0004_secrets"),
    migration!("0005_placement"),
    migration!("0006_nodes"),
    migration!("0007_quotas"),
    migration!("0008_workers"),
    migration!("0009_worker_ends"),
    migration!("0010_run_files"),
    migration!("0011_granted"),
    migration!("0012_recovery"),
    migration!("0013_ecs"),
    migration!("0014_details"),
    migration!("0015_objects"),
    migration!("0016_deliveries"),
];

/// A lock of the whole database for migrating, out of the way of the owners' random ones.
const LOCK: i64 = 0x5049_5443_5245_5700;

/// Applies what is missing.
pub(super) async fn run(db: &Db) -> Result<()> {
    apply_to(db, MIGRATIONS.len() as i64).await
}

async fn apply_to(db: &Db, target: i64) -> Result<()> {
    let known = MIGRATIONS.len() as i64;
    if version(&mut db.snapshot().await?).await? == Some(target) {
        return Ok(());
    }
    loop {
        let mut tx = db.begin().await?;
        if tx.is_postgres() {
            tx.execute("SELECT pg_advisory_xact_lock($1)", args![LOCK]).await?;
        }
        // Read again under the lock: another process may have been quicker.
        let found = match version(&mut tx).await? {
            Some(found) => found,
            None => {
                tx.script("CREATE TABLE schema_version (version BIGINT PRIMARY KEY, name TEXT NOT NULL)").await?;
                0
            }
        };
        if found > known {
            return Err(StoreError::TooNew { found, known });
        }
        let next = usize::try_from(found).ok().and_then(|found| MIGRATIONS.get(found));
        let Some(migration) = next.filter(|_| found < target) else { return Ok(()) };
        tx.script(if tx.is_postgres() { migration.postgres } else { migration.sqlite }).await?;
        let sql = "INSERT INTO schema_version (version, name) VALUES ($1, $2)";
        tx.execute(sql, args![found + 1, migration.name]).await?;
        tx.commit().await?;
        tracing::info!(name = migration.name, "migrated the database");
    }
}

/// The number of the last migration, or `None` in a database without any schema.
async fn version(tx: &mut Tx) -> Result<Option<i64>> {
    let exists = if tx.is_postgres() {
        "SELECT 1 WHERE to_regclass('schema_version') IS NOT NULL"
    } else {
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'"
    };
    if tx.fetch_one(exists, args![]).await?.is_none() {
        return Ok(None);
    }
    let row = tx.fetch_one("SELECT COALESCE(max(version), 0) FROM schema_version", args![]).await?;
    row.map(|row| row.get(0)).transpose()
}

#[cfg(test)]
#[path = "../../tests/it/databases.rs"]
mod databases;

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pitcrew_core::engine::record::{RunStop, SkipReason};
    use pitcrew_core::id::{RunKey, WorkflowId};

    use super::super::{Sql, postgres, sqlite};
    use super::*;
    use crate::types::{AuditFilter, EcsFilter, Paging, WorkerEnds, WorkflowFilter};

    /// What a database may hold after each migration; every migration has its own, so that the next ones meet it.
    static SAMPLES: &[&str] = &[
        include_str!("../../tests/data/0001_start.sql"),
        include_str!("../../tests/data/0002_across.sql"),
        include_str!("../../tests/data/0003_parts.sql"),
        include_str!("../../tests/data/0004_secrets.sql"),
        include_str!("../../tests/data/0005_placement.sql"),
        include_str!("../../tests/data/0006_nodes.sql"),
        include_str!("../../tests/data/0007_quotas.sql"),
        include_str!("../../tests/data/0008_workers.sql"),
        include_str!("../../tests/data/0009_worker_ends.sql"),
        include_str!("../../tests/data/0010_run_files.sql"),
        include_str!("../../tests/data/0011_granted.sql"),
        include_str!("../../tests/data/0012_recovery.sql"),
        include_str!("../../tests/data/0013_ecs.sql"),
        include_str!("../../tests/data/0014_details.sql"),
        include_str!("../../tests/data/0015_objects.sql"),
        include_str!("../../tests/data/0016_deliveries.sql"),
    ];

    /// Empties the database, then migrates it step by step, with data in between.
    async fn step_by_step(sql: &Sql) {
        let drop_all = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
        let mut tx = sql.db.begin().await.unwrap();
        if tx.is_postgres() {
            tx.script("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await.unwrap();
        } else {
            for view in tx.fetch("SELECT name FROM sqlite_master WHERE type = 'view'", args![]).await.unwrap() {
                let view: String = view.get(0).unwrap();
                tx.execute(sqlx::AssertSqlSafe(format!("DROP VIEW {view}")), args![]).await.unwrap();
            }
            for table in tx.fetch(drop_all, args![]).await.unwrap() {
                let table: String = table.get(0).unwrap();
                tx.execute(sqlx::AssertSqlSafe(format!("DROP TABLE {table}")), args![]).await.unwrap();
            }
        }
        tx.commit().await.unwrap();
        assert_eq!(SAMPLES.len(), MIGRATIONS.len(), "a migration needs sample data");
        for (n, sample) in SAMPLES.iter().enumerate() {
            apply_to(&sql.db, n as i64 + 1).await.unwrap();
            let mut tx = sql.db.begin().await.unwrap();
            tx.script(sample).await.unwrap();
            tx.commit().await.unwrap();
        }
        run(&sql.db).await.unwrap();
    }

    async fn old_data_is_readable(sql: &Sql) {
        let failed = sql.stored_run(RunKey(1)).await.unwrap().unwrap();
        assert!(matches!(failed.run.stop, Some(RunStop::FailFast { .. })));
        assert!(failed.run.data_interval.is_some());
        let running = sql.stored_run(RunKey(2)).await.unwrap().unwrap();
        assert_eq!((running.instances.len(), running.live.len()), (2, 1));
        assert_eq!(running.live[0].gpus, ["GPU-1"]);
        assert_eq!(running.instances[1].outputs["rows"], 7);
        assert_eq!(running.instances[0].skip, Some(SkipReason::MissingResults));
        assert_eq!((running.run.finally_start.is_some(), failed.run.finally_start), (true, None));
        assert_eq!(running.live[0].detail, serde_json::json!({"containers": []}));
        let workflows = sql.workflows(&WorkflowFilter::default(), Paging::ALL).await.unwrap();
        assert_eq!((workflows.total, workflows.rows[1].tags.as_slice()), (2, &["ci".to_owned(), "gpu".to_owned()][..]));
        let etl = WorkflowId::new("etl").unwrap();
        assert_eq!(sql.version_source(&etl, "h1").await.unwrap().as_deref(), Some("workflow: etl"));
        assert_eq!(sql.file_errors().await.unwrap().len(), 1);
        assert_eq!(sql.variables(Paging::ALL).await.unwrap().total, 1);
        assert_eq!(sql.pools().await.unwrap().len(), 2);
        assert_eq!(sql.quotas().await.unwrap()[0].limits.memory_mib, Some(262_144));
        assert_eq!(sql.audit(&AuditFilter::default(), Paging::ALL).await.unwrap().rows.len(), 2);
        assert_eq!(sql.setting("secret").await.unwrap().as_deref(), Some("x"));
        assert_eq!(sql.users(Paging::ALL).await.unwrap().total, 2);
        assert_eq!(sql.token_by_hash("abc").await.unwrap().unwrap().workflows, [etl]);
        assert_eq!(sql.connection("warehouse").await.unwrap().unwrap().port, Some(5432));
        assert_eq!(sql.secret("gpu/ssh").await.unwrap().unwrap().revision, 2);
        assert_eq!(running.run.run_type.name(), "event");
        let due = sql.due_notices(Timestamp::MAX, 10).await.unwrap();
        assert_eq!((due.len(), due[0].notice.run), (1, Some(RunKey(1))));
        assert!(sql.backfill(1).await.unwrap().unwrap().is_open());
        assert_eq!((failed.run.backfill, running.run.backfill), (Some(1), None));
        let workers = sql.workers().await.unwrap();
        assert_eq!((workers.len(), workers[0].revoked, workers[1].drain), (2, None, true));
        assert_eq!(sql.worker_ends().await.unwrap()["w1"], WorkerEnds { ended: 7, failed: 2 });
        assert_eq!(sql.worker_token("def").await.unwrap().unwrap().uses, Some(3));
        let hello = sql.object("Task", "default", "hello").await.unwrap().unwrap();
        assert_eq!((hello.generation, hello.run), (3, None));
        assert_eq!(sql.object("PipelineRun", "ci", "build-x7k2p").await.unwrap().unwrap().run, Some(RunKey(1)));
        let delivery = sql.delivery(1).await.unwrap().unwrap();
        assert_eq!((delivery.bytes, delivery.outcome[0]["trigger"].as_str()), (10_240, Some("push")));
        assert_eq!(sql.run_files(RunKey(2)).await.unwrap()[0].version, 3);
        let jobs = sql.ecs_jobs(&EcsFilter::default(), Paging::ALL).await.unwrap();
        assert_eq!((jobs.total, jobs.rows[0].submitted_ecs_task_ids.as_slice()), (1, &["t1".to_owned()][..]));
        let removed = sql.retention(Timestamp::UNIX_EPOCH).await.unwrap();
        assert_eq!(removed.runs[0].key, RunKey(99), "left over from a retention that did not finish");
    }

    #[tokio::test]
    async fn every_migration_keeps_the_data_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let sql = sqlite::open(&folder.path().join("pitcrew.db")).await.unwrap();
        step_by_step(&sql).await;
        old_data_is_readable(&sql).await;
        if let Some(database) = databases::Postgres::create().await {
            let sql = postgres::open(&database.url).await.unwrap();
            step_by_step(&sql).await;
            old_data_is_readable(&sql).await;
            sql.close().await;
            database.drop().await;
        }
    }

    /// The constraints hold whoever writes, so a hand on the database cannot break them either.
    #[tokio::test]
    async fn the_schema_itself_refuses_what_must_not_be() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = vec![(sqlite::open(&folder.path().join("pitcrew.db")).await.unwrap(), None)];
        if let Some(database) = databases::Postgres::create().await {
            all.push((postgres::open(&database.url).await.unwrap(), Some(database)));
        }
        for (sql, database) in all {
            step_by_step(&sql).await;
            for wrong in [
                "UPDATE runs SET state = 'running' WHERE key = 1",
                "UPDATE runs SET state = 'happy' WHERE key = 2",
                "UPDATE runs SET logical_date = 1700000000000000 WHERE key = 2",
                "UPDATE runs SET run_id = 'manual__1' WHERE key = 1",
                "UPDATE instances SET wake_at = NULL WHERE task = 'load'",
                "UPDATE instances SET wake_at = 1 WHERE task = 'map'",
                "UPDATE attempts SET number = 0 WHERE task = 'map'",
                "UPDATE pools SET slots = -1",
                "UPDATE users SET role = 'root'",
                "UPDATE quotas SET weight = 0",
                "UPDATE tokens SET user_name = 'nobody'",
                "UPDATE connections SET port = 70000",
                "UPDATE runs SET run_type = 'odd' WHERE key = 2",
                "UPDATE notices SET state = 'lost'",
                "UPDATE backfills SET to_date = 0",
                "UPDATE workers SET revoked = NULL",
                "UPDATE worker_tokens SET uses = -1",
                "UPDATE objects SET generation = 0",
                "UPDATE deliveries SET state = 'lost'",
                "INSERT INTO backfills (workflow, from_date, to_date, reprocess, reversed, max_active_runs, conf, \
                 made_by, created, updated) VALUES ('etl', 1, 2, 'none', FALSE, 1, '{}', '', 1, 1)",
                "INSERT INTO attempts (run, task, map_index, number, backend, handle, queued_at, message) \
                 VALUES (2, 'map', 0, 2, 'local', 'null', 1, '')",
            ] {
                let mut tx = sql.db.begin().await.unwrap();
                let error = tx.execute(wrong, args![]).await.unwrap_err();
                assert!(error.is_about_rows(), "{wrong}: {error:?}");
            }
            // The same change is fine as a reopening.
            let mut tx = sql.db.begin().await.unwrap();
            let reopen = "UPDATE runs SET state = 'running', reopened = reopened + 1 WHERE key = 1";
            assert_eq!(tx.execute(reopen, args![]).await.unwrap(), 1);
            drop(tx);
            sql.close().await;
            if let Some(database) = database {
                database.drop().await;
            }
        }
    }
}
