//! The users, tokens and workers of the store, as requests need them: asked often, so remembered for a moment.
//!
//! Invariant: what is remembered is at most [`FRESH`] old, so a user who was deactivated, or a token or a worker that was
//! revoked, by whichever process, is refused everywhere within that time; in the process that did it, at once, also where
//! its row was being read meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::{SignedDuration, Timestamp};
use pitcrew_store::{Store, StoreError, TokenRow, UserRow, WorkerRow};

const FRESH: SignedDuration = SignedDuration::from_secs(1);
/// Rows of each kind that are remembered.
const MAX_ROWS: usize = 5_000;

/// Reads users, tokens and workers.
pub struct People {
    store: Store,
    users: Memory<UserRow>,
    tokens: Memory<TokenRow>,
    workers: Memory<WorkerRow>,
}

struct Memory<T>(Mutex<Rows<T>>);

struct Rows<T> {
    rows: HashMap<String, (Timestamp, Arc<T>)>,
    /// How often all was forgotten: what was read before that is not kept after it.
    turn: u64,
    /// When those that were too old were last dropped.
    swept: Timestamp,
}

impl People {
    pub fn new(store: Store) -> People {
        People { store, users: Memory::new(), tokens: Memory::new(), workers: Memory::new() }
    }

    /// The user of that name, unless there is none or it is not active.
    pub async fn active(&self, name: &str, now: Timestamp) -> Result<Option<Arc<UserRow>>, StoreError> {
        let row = match self.users.get(name, now) {
            Ok(row) => Some(row),
            Err(turn) => self.store.user(name).await?.map(|row| self.users.keep(name, row, now, turn)),
        };
        Ok(row.filter(|row| row.active))
    }

    /// The token with that hash, unless there is none or it has expired.
    pub async fn token(&self, hash: &str, now: Timestamp) -> Result<Option<Arc<TokenRow>>, StoreError> {
        let row = match self.tokens.get(hash, now) {
            Ok(row) => Some(row),
            Err(turn) => self.store.token_by_hash(hash).await?.map(|row| self.tokens.keep(hash, row, now, turn)),
        };
        Ok(row.filter(|row| row.expires.is_none_or(|expires| expires > now)))
    }

    /// The worker whose credential has that hash, unless there is none or it was revoked.
    pub async fn worker(&self, hash: &str, now: Timestamp) -> Result<Option<Arc<WorkerRow>>, StoreError> {
        Ok(match self.workers.get(hash, now) {
            Ok(row) => Some(row),
            Err(turn) => {
                self.store.worker_by_credential(hash).await?.map(|row| self.workers.keep(hash, row, now, turn))
            }
        })
    }

    /// Something was changed here.
    pub fn forget(&self) {
        self.users.forget();
        self.tokens.forget();
    }

    /// A worker was changed here.
    pub fn forget_workers(&self) {
        self.workers.forget();
    }
}

impl<T> Memory<T> {
    fn new() -> Memory<T> {
        Memory(Mutex::new(Rows { rows: HashMap::new(), turn: 0, swept: Timestamp::UNIX_EPOCH }))
    }

    fn lock(&self) -> MutexGuard<'_, Rows<T>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What is remembered; else what is to be said when the row that is then read is [kept](Memory::keep).
    fn get(&self, key: &str, now: Timestamp) -> Result<Arc<T>, u64> {
        let known = self.lock();
        let row = known.rows.get(key).filter(|(at, _)| is_fresh(*at, now));
        row.map(|(_, row)| row.clone()).ok_or(known.turn)
    }

    fn keep(&self, key: &str, row: T, now: Timestamp, turn: u64) -> Arc<T> {
        let row = Arc::new(row);
        let mut known = self.lock();
        if known.turn != turn {
            return row;
        }
        if !is_fresh(known.swept, now) {
            known.rows.retain(|_, (at, _)| is_fresh(*at, now));
            known.swept = now;
        }
        if known.rows.len() >= MAX_ROWS {
            known.rows.clear();
        }
        known.rows.insert(key.to_owned(), (now, row.clone()));
        row
    }

    fn forget(&self) {
        let mut known = self.lock();
        known.rows.clear();
        known.turn += 1;
    }
}

fn is_fresh(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at).abs() < FRESH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_or_was_forgotten_is_read_again_and_what_was_read_before_that_is_not_kept() {
        let memory: Memory<u32> = Memory::new();
        let at = |ms: i64| Timestamp::from_millisecond(1_000_000 + ms).unwrap();
        let turn = memory.get("a", at(0)).unwrap_err();
        memory.keep("a", 1, at(0), turn);
        assert_eq!(memory.get("a", at(999)).as_deref(), Ok(&1));
        assert!(memory.get("a", at(1000)).is_err());
        // Somebody changes it while it is being read.
        memory.forget();
        memory.keep("a", 1, at(1000), turn);
        let turn = memory.get("a", at(1000)).unwrap_err();
        memory.keep("a", 2, at(1000), turn);
        assert_eq!(memory.get("a", at(1500)).as_deref(), Ok(&2));
        // Nobody asks for it any more.
        memory.keep("b", 3, at(2100), turn);
        assert_eq!(memory.lock().rows.len(), 1);
    }
}
