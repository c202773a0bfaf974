//! The users and tokens of the store, as requests need them: asked often, so remembered for a moment.
//!
//! Invariant: what is remembered is at most [`FRESH`] old, so a user who was deactivated, or a token that was revoked,
//! by whichever process, is refused everywhere within that time; in the process that did it, at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::{SignedDuration, Timestamp};
use pitcrew_store::{Store, StoreError, TokenRow, UserRow};

const FRESH: SignedDuration = SignedDuration::from_secs(1);
/// Rows of each kind that are remembered.
const MAX_ROWS: usize = 5_000;

/// Reads users and tokens.
pub struct People {
    store: Store,
    users: Memory<UserRow>,
    tokens: Memory<TokenRow>,
}

struct Memory<T>(Mutex<HashMap<String, (Timestamp, Arc<T>)>>);

impl People {
    pub fn new(store: Store) -> People {
        People { store, users: Memory(Mutex::default()), tokens: Memory(Mutex::default()) }
    }

    /// The user of that name, unless there is none or it is not active.
    pub async fn active(&self, name: &str, now: Timestamp) -> Result<Option<Arc<UserRow>>, StoreError> {
        let row = match self.users.get(name, now) {
            Some(row) => Some(row),
            None => self.store.user(name).await?.map(|row| self.users.keep(name, row, now)),
        };
        Ok(row.filter(|row| row.active))
    }

    /// The token with that hash, unless there is none or it has expired.
    pub async fn token(&self, hash: &str, now: Timestamp) -> Result<Option<Arc<TokenRow>>, StoreError> {
        let row = match self.tokens.get(hash, now) {
            Some(row) => Some(row),
            None => self.store.token_by_hash(hash).await?.map(|row| self.tokens.keep(hash, row, now)),
        };
        Ok(row.filter(|row| row.expires.is_none_or(|expires| expires > now)))
    }

    /// Something was changed here.
    pub fn forget(&self) {
        self.users.lock().clear();
        self.tokens.lock().clear();
    }
}

impl<T> Memory<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Timestamp, Arc<T>)>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn get(&self, key: &str, now: Timestamp) -> Option<Arc<T>> {
        let rows = self.lock();
        let (at, row) = rows.get(key)?;
        (now.duration_since(*at).abs() < FRESH).then(|| row.clone())
    }

    fn keep(&self, key: &str, row: T, now: Timestamp) -> Arc<T> {
        let row = Arc::new(row);
        let mut rows = self.lock();
        if rows.len() >= MAX_ROWS {
            rows.clear();
        }
        rows.insert(key.to_owned(), (now, row.clone()));
        row
    }
}
