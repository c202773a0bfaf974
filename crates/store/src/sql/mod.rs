//! The store over SQL: one set of statements for SQLite and PostgreSQL.
//!
//! What differs is small and has its place: connections and locks in [`sqlite`] and [`postgres`], statements in
//! [`db`]. Everything else is written once.

mod across;
mod claim;
mod commit;
mod db;
mod deliveries;
mod ecs;
mod files;
mod lists;
mod migrate;
mod nodes;
mod objects;
mod outbox;
mod people;
pub(crate) mod postgres;
mod quotas;
mod reads;
mod recovery;
mod retention;
mod rows;
mod runs;
mod secrets;
mod settings;
pub(crate) mod sqlite;
mod workers;
mod workflows;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::commit::Job;
use self::db::{Db, Tx};
use crate::error::{Result, StoreError};
use crate::owner::{Hold, Owner};
use crate::watch::{Bell, Subscription};

/// An open database.
pub(crate) struct Sql {
    db: Db,
    /// To the task that writes commits.
    jobs: mpsc::Sender<Job>,
    bell: Bell,
    place: Place,
    /// The task that looks for changes by other processes; started when somebody first wants to know.
    watcher: Mutex<Option<JoinHandle<()>>>,
}

/// What is particular to the database.
enum Place {
    Sqlite(sqlite::Locks),
    Postgres(postgres::Server),
}

/// Commits that may wait for the writing task; beyond that, callers wait.
const WAITING_COMMITS: usize = 1024;

impl Sql {
    fn new(db: Db, place: Place) -> Self {
        let bell = Bell::new();
        let (jobs, waiting) = mpsc::channel(WAITING_COMMITS);
        tokio::spawn(commit::write_all(db.clone(), waiting, bell.clone()));
        Sql { db, jobs, bell, place, watcher: Mutex::new(None) }
    }

    pub async fn close(&self) {
        if let Some(watcher) = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).take() {
            watcher.abort();
        }
        self.db.close().await;
    }

    pub async fn register_owner(&self) -> Result<Owner> {
        let (id, hold) = match &self.place {
            Place::Sqlite(locks) => {
                let (id, file) = locks.register()?;
                (id, Hold::Sqlite(file))
            }
            Place::Postgres(server) => {
                let id = Owner::fresh_id();
                let session = server.register(&id).await?;
                (id, Hold::Postgres(session))
            }
        };
        Ok(Owner::new(id, hold))
    }

    pub async fn try_lead(&self, owner: &Owner) -> Result<bool> {
        match (&self.place, &owner.hold) {
            (Place::Sqlite(locks), Hold::Sqlite(file)) => locks.try_lead(file),
            (Place::Postgres(_), Hold::Postgres(session)) => session.try_lead().await,
            _ => Err(StoreError::Invalid("this owner is registered in another store".to_owned())),
        }
    }

    pub fn subscribe(&self, poll: Duration) -> Subscription {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let subscription = self.bell.subscribe();
        // The first listener starts the task; one that is just ending because nobody listened is of no use.
        if self.bell.has_one_listener() {
            let (db, bell) = (self.db.clone(), self.bell.clone());
            let watch = tokio::spawn(async move {
                match db {
                    Db::Sqlite { readers, .. } => sqlite::watch(&readers, &bell, poll).await,
                    Db::Postgres(pool) => postgres::watch(&pool, &bell, poll).await,
                }
            });
            if let Some(old) = watcher.replace(watch) {
                old.abort();
            }
        }
        subscription
    }

    /// Tells other processes, as part of the transaction, that runs have changed. On SQLite they see the file change.
    async fn tell_others(tx: &mut Tx) -> Result<()> {
        if tx.is_postgres() {
            tx.execute("SELECT pg_notify($1, '')", db::args![postgres::CHANNEL]).await?;
        }
        Ok(())
    }
}

impl Drop for Sql {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            watcher.abort();
        }
    }
}
