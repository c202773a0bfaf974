//! The memory of Pitcrew: one [`Store`] over SQLite, PostgreSQL or the memory of the process.
//!
//! The store holds no rules of the engine; it keeps rows, and guards what must hold whoever writes them:
//! - **A run belongs to one living process.** [`Store::commit`] writes only rows of runs that its [`Owner`]
//!   owns; a run whose owner has died can be claimed at once. Life is a lock that the operating system or
//!   the database server releases, so nobody writes heartbeats: an idle server writes nothing.
//! - **A commit is all or nothing**, and concurrent commits share one transaction.
//! - **A final run stays final**, but for an explicit reopening; a task instance has one live attempt; a
//!   workflow has one run per logical time. The schema checks these too.
//!
//! The three kinds behave alike: one conformance suite and one differential test run on all of them, and
//! the one in memory (`mem`) is the model that the others are compared with.

mod api;
mod error;
mod figures;
mod given;
mod mem;
mod normalise;
mod owner;
mod sql;
mod types;
mod url;
mod watch;

pub use error::{Result, StoreError};
pub use given::Given;
pub use owner::Owner;
pub use types::*;
pub use url::StoreUrl;
pub use watch::Subscription;

use std::sync::Arc;
use std::time::Duration;

/// The store. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Store {
    kind: Kind,
    url: Arc<StoreUrl>,
    observer: Option<Observer>,
    given: Arc<Given>,
}

/// Is told the method, how long it took, and whether it succeeded.
type Observer = Arc<dyn Fn(&'static str, Duration, bool) + Send + Sync>;

/// Where the rows are. Private, so that nothing outside can depend on it.
#[derive(Clone)]
enum Kind {
    Memory(Arc<mem::Mem>),
    Sql(Arc<sql::Sql>),
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.url).finish()
    }
}
