//! A living process that can own runs.
//!
//! Invariant: as long as an [`Owner`] exists nobody else can claim its runs, and as soon as its process is
//! gone, however it went, everybody can. What is held is a lock that goes with the process.

use std::sync::Arc;

use crate::mem;
use crate::sql::postgres::Session;
use crate::sql::sqlite::LockFile;

/// A registered process. Dropping it gives its runs free, as the end of the process does.
pub struct Owner {
    id: String,
    pub(crate) hold: Hold,
}

/// What keeps an owner alive.
pub(crate) enum Hold {
    Memory(Arc<mem::Life>),
    Sqlite(LockFile),
    Postgres(Session),
}

impl Owner {
    pub(crate) fn new(id: String, hold: Hold) -> Self {
        Owner { id, hold }
    }

    /// A name that no other owner has had.
    pub(crate) fn fresh_id() -> String {
        uuid::Uuid::now_v7().to_string()
    }

    /// Unique for ever.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Gives its runs free, and returns when everybody can claim them. Merely dropping it may take a moment longer.
    pub async fn end(self) {
        match self.hold {
            Hold::Memory(life) => drop(life),
            Hold::Sqlite(file) => drop(file),
            Hold::Postgres(session) => session.end().await,
        }
    }

    /// Whether its lock is held at this moment. On PostgreSQL a broken connection gives the lock free until it is
    /// taken again by itself; meanwhile another process may claim the runs, and `commit` then says which are lost.
    pub fn is_held(&self) -> bool {
        match &self.hold {
            Hold::Memory(_) | Hold::Sqlite(_) => true,
            Hold::Postgres(session) => session.is_held(),
        }
    }

    /// How often its lock was lost so far. After each time its runs may have had another owner, even where they are
    /// its own again: what was known of them is to be read anew.
    pub fn breaks(&self) -> u64 {
        match &self.hold {
            Hold::Memory(_) | Hold::Sqlite(_) => 0,
            Hold::Postgres(session) => session.breaks(),
        }
    }
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Owner").field(&self.id).finish()
    }
}
