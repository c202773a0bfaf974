//! Which servers have files of a run that nobody else has.

use pitcrew_core::id::RunKey;

use super::Sql;
use super::db::{Row, args};
use crate::error::Result;
use crate::types::*;

const PUT: &str = "INSERT INTO run_files (run, home, version) VALUES ($1, $2, 1) \
     ON CONFLICT (run, home) DO UPDATE SET version = run_files.version + 1";

fn files(row: &Row) -> Result<RunFiles> {
    let mut row = row.fields();
    Ok(RunFiles { home: row.take()?, version: row.take()? })
}

impl Sql {
    pub fn is_shared(&self) -> bool {
        !self.db.is_sqlite()
    }

    pub async fn run_files(&self, run: RunKey) -> Result<Vec<RunFiles>> {
        let sql = "SELECT home, version FROM run_files WHERE run = $1 ORDER BY home";
        self.all(sql.to_owned(), args![run.0], files).await
    }

    pub async fn put_run_files(&self, run: RunKey, home: &str) -> Result<()> {
        self.execute(PUT, args![run.0, home]).await.map(drop)
    }

    pub async fn take_run_files(&self, run: RunKey, files: &RunFiles, to: &str) -> Result<()> {
        let mut tx = self.db.begin().await?;
        tx.execute(PUT, args![run.0, to]).await?;
        let sql = "DELETE FROM run_files WHERE run = $1 AND home = $2 AND version = $3";
        tx.execute(sql, args![run.0, &files.home, files.version]).await?;
        tx.commit().await
    }
}
