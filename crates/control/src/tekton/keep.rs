//! Removing runs, with what they made for themselves; a claim that somebody named stays.

use pitcrew_core::RunKey;
use pitcrew_store::{AuditEntry, Store};

use crate::paths::DataDir;

/// Removes a run that is over: its rows, and its files, among which are the claims that were made for it. Says whether it was there.
pub async fn remove(store: &Store, data: &DataDir, run: RunKey, audit: AuditEntry) -> anyhow::Result<bool> {
    if !store.delete_run(run, audit).await? {
        return Ok(false);
    }
    let data = data.clone();
    tokio::task::spawn_blocking(move || data.remove_run(run)).await??;
    store.retention_done(&[run]).await?;
    Ok(true)
}
