//! SQLite: one file, one writing connection per process, and lock files for who lives.
//!
//! The log (WAL) lets readers and one writer work side by side. `synchronous=NORMAL` syncs it when it is folded into
//! the file and not at every commit: a crash of the process loses nothing; a power cut may lose the newest
//! commits, always whole ones from the end, and never damages the file.
//!
//! Beside `FILE` lies the folder `FILE-locks`: `open` serialises opening, `leader` is held by the leader, and
//! each living owner holds a file named after itself. The kernel releases these locks when a process ends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Row};

use super::db::Db;
use super::{Place, Sql, migrate};
use crate::error::{Result, StoreError};
use crate::owner::Owner;
use crate::watch::Bell;

/// How long a writer waits for the writers of other processes.
const BUSY: Duration = Duration::from_secs(60);
/// Connections that only read.
const READERS: u32 = 4;

pub(crate) async fn open(path: &Path) -> Result<Sql> {
    let path = real_path(path).map_err(|error| unusable("the database", path, &error))?;
    let locks = Locks::prepare(&path)?;
    // Switching to the log and migrating need the file alone; other processes queue here, not inside SQLite.
    let opening = locks.lock_open().await?;
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .busy_timeout(BUSY)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .pragma("temp_store", "memory")
        .statement_cache_capacity(200)
        .disable_statement_logging();
    // After an error like a full disk, SQLite has rolled back by itself, and the driver waits for ever for the end
    // of a transaction that is over: such a connection is closed, and the next caller gets a new one.
    let pool = || {
        let options = SqlitePoolOptions::new().max_lifetime(None).test_before_acquire(false);
        let sound = |connection: &mut SqliteConnection| !connection.is_in_transaction();
        options
            .acquire_timeout(2 * BUSY)
            .before_acquire(move |connection, _| Box::pin(std::future::ready(Ok(sound(connection)))))
    };
    // 16 MiB of pages for the writer, fetched as needed; the log is cut back to 64 MiB after a peak.
    let writing = options.clone().pragma("cache_size", "-16000").pragma("journal_size_limit", "67108864");
    let named = |error: sqlx::Error| match StoreError::from(error) {
        StoreError::Unavailable(text) => StoreError::Unavailable(format!("`{}`: {text}", path.display())),
        StoreError::Corrupt(text) => StoreError::Corrupt(format!("`{}`: {text}", path.display())),
        other => other,
    };
    let writer = pool().max_connections(1).idle_timeout(None).connect_with(writing).await.map_err(named)?;
    let reading = options.pragma("query_only", "on");
    let readers = pool().max_connections(READERS).idle_timeout(Duration::from_secs(60)).connect_lazy_with(reading);
    let db = Db::Sqlite { writer, readers };
    migrate::run(&db).await?;
    drop(opening);
    Ok(Sql::new(db, Place::Sqlite(locks)))
}

/// The path without symbolic links, with its folder made. Who comes by another name must find the same lock files:
/// otherwise it would take the living for dead.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(path) };
    fs::create_dir_all(folder)?;
    match fs::canonicalize(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(fs::canonicalize(folder)?.join(name)),
        found => found,
    }
}

/// Rings whenever anybody has written. `PRAGMA data_version` tells this without reading a row.
///
/// It counts what other connections wrote as seen by its own, so it is asked on one connection that nobody else
/// uses: one of the pool may be busy, or be replaced by another that counts anew.
pub(super) async fn watch(pool: &SqlitePool, bell: &Bell, poll: Duration) {
    loop {
        let look = async {
            let mut connection = pool.connect_options().connect().await?;
            let mut seen = None;
            loop {
                let row = sqlx::query("PRAGMA data_version").fetch_one(&mut connection).await?;
                // The first look rings too: who subscribed may have read before it, and a change be in between.
                let version: i64 = row.get(0);
                if seen.replace(version) != Some(version) {
                    bell.ring();
                }
                tokio::select! {
                    () = tokio::time::sleep(poll) => {}
                    () = bell.unheard() => return Ok::<(), sqlx::Error>(()),
                }
            }
        };
        match look.await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "cannot see whether another process has changed the database"),
        }
        tokio::select! {
            () = tokio::time::sleep(poll) => {}
            () = bell.unheard() => return,
        }
    }
}

fn unusable(what: &str, path: &Path, error: &io::Error) -> StoreError {
    let text = format!("{what} `{}` cannot be used: {error}", path.display());
    if error.kind() == io::ErrorKind::StorageFull {
        StoreError::Full(format!("{text}: free some disk space"))
    } else {
        StoreError::Unavailable(format!("{text}; choose another place, or give this user write access to it"))
    }
}

/// The folder of lock files.
#[derive(Debug)]
pub(super) struct Locks {
    folder: PathBuf,
}

/// The file that a living owner holds locked.
pub(crate) struct LockFile {
    path: PathBuf,
    _file: File,
    /// Locked while this owner leads.
    leader: Mutex<Option<File>>,
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Unlinked before it is unlocked; left behind, it would be found unlocked and removed later.
        let _ = fs::remove_file(&self.path);
    }
}

impl Locks {
    fn prepare(database: &Path) -> Result<Self> {
        let mut folder = database.as_os_str().to_owned();
        folder.push("-locks");
        let folder = PathBuf::from(folder);
        fs::create_dir_all(&folder).map_err(|error| unusable("the folder", &folder, &error))?;
        Ok(Locks { folder })
    }

    fn open_file(path: &Path) -> io::Result<File> {
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
    }

    async fn lock_open(&self) -> Result<File> {
        let path = self.folder.join("open");
        let locked = tokio::task::spawn_blocking({
            let path = path.clone();
            move || {
                let file = Self::open_file(&path)?;
                flock(&file, FlockOperation::LockExclusive)?;
                Ok(file)
            }
        });
        let failed = |error: io::Error| unusable("the lock file", &path, &error);
        locked.await.map_err(|error| StoreError::Backend(error.to_string()))?.map_err(failed)
    }

    pub fn register(&self) -> Result<(String, LockFile)> {
        self.remove_dead();
        loop {
            let id = Owner::fresh_id();
            let path = self.folder.join(&id);
            let failed = |error: io::Error| unusable("the lock file", &path, &error);
            let file = Self::open_file(&path).map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Somebody who cleans up may have taken the file for a dead one's, just before it was locked.
                Ok(()) if file.metadata().map_err(failed)?.nlink() > 0 => {
                    return Ok((id, LockFile { path, _file: file, leader: Mutex::new(None) }));
                }
                Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
    }

    /// Whether the owner of this id lives. The file of a dead one is removed.
    pub fn lives(&self, id: &str) -> Result<bool> {
        // An id from a row changed by hand must not lead out of the folder.
        if uuid::Uuid::try_parse(id).is_err() {
            return Ok(false);
        }
        let path = self.folder.join(id);
        let failed = |error: io::Error| unusable("the lock file", &path, &error);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        // Shared, so that two who look at the same time do not take each other for the owner.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let _ = fs::remove_file(&path);
                Ok(false)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Removes the files of dead owners. Not doing so would cost nothing but directory entries.
    fn remove_dead(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if let Some(id) = entry.file_name().to_str() {
                // `open` and `leader` are no ids, so they stay.
                let _ = self.lives(id);
            }
        }
    }

    pub fn try_lead(&self, owner: &LockFile) -> Result<bool> {
        let mut leader = owner.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if leader.is_some() {
            return Ok(true);
        }
        let path = self.folder.join("leader");
        let failed = |error: io::Error| unusable("the lock file", &path, &error);
        let file = Self::open_file(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => *leader = Some(file),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(failed(error.into())),
        }
        Ok(leader.is_some())
    }
}

#[cfg(test)]
mod tests {
    use pitcrew_core::engine::record::{InstanceRecord, RunType};
    use pitcrew_core::id::{RunId, RunKey, TaskId, WorkflowId};
    use pitcrew_core::state::State;
    use serde_json::Map;
    use sqlx::Executor;

    use super::*;
    use crate::types::{InstanceFilter, NewRun, Paging, RunCommit};

    fn big(key: RunKey, map_index: i32) -> RunCommit {
        let instance = InstanceRecord {
            task: TaskId::new("t").unwrap(),
            map_index,
            state: State::Success,
            attempt: 1,
            max_attempt: 1,
            lost: 0,
            queued_at: None,
            start: None,
            end: None,
            exit: None,
            message: "x".repeat(20_000),
            outputs: Default::default(),
            item: None,
            followed: None,
            stop: None,
            skip: None,
        };
        RunCommit { instances: vec![instance], ..RunCommit::new(key) }
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_loses_nothing_that_was_committed() {
        let folder = tempfile::tempdir().unwrap();
        let sql = open(&folder.path().join("pitcrew.db")).await.unwrap();
        let owner = sql.register_owner().await.unwrap();
        let new = NewRun {
            workflow: WorkflowId::new("full").unwrap(),
            run_id: RunId::new("one").unwrap(),
            run_type: RunType::Manual,
            version: String::new(),
            params: Map::new(),
            conf: Map::new(),
            logical_date: None,
            data_interval: None,
            run_after: jiff::Timestamp::UNIX_EPOCH,
            queued_at: jiff::Timestamp::UNIX_EPOCH,
            triggered_by: String::new(),
            note: String::new(),
            backfill: None,
            audit: Vec::new(),
        };
        let key = sql.create_run(new, Some(&owner)).await.unwrap().into_run().key;
        let Db::Sqlite { writer, .. } = &sql.db else { panic!("SQLite") };
        // The limit stands for the end of the disk: SQLite reports both alike.
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(writer).await.unwrap();
        let limit = async |pages| writer.execute(sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"))).await;
        limit(pages + 40).await.unwrap();
        let mut committed = 0;
        let error = loop {
            match sql.commit(&owner, vec![big(key, committed)]).await {
                Ok(_) => committed += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Full(_)) && committed > 0, "{committed}: {error:?}");
        let stored = async || sql.instances(key, &InstanceFilter::default(), Paging::ALL).await.unwrap().total;
        assert_eq!(stored().await, u64::try_from(committed).unwrap());
        limit(1_000_000).await.unwrap();
        assert_eq!(sql.commit(&owner, vec![big(key, committed)]).await.unwrap().lost, []);
        assert_eq!(stored().await, u64::try_from(committed).unwrap() + 1);
    }
}
