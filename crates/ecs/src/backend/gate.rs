//! Who places tasks in a cluster, and who makes instances of it active or drains them.
//!
//! An instance that is drained takes nothing, not even the check that it is drained for; so it is active for as long as the call
//! takes that starts the check. Nothing of ours may be placed meanwhile, and nobody may drain it in between. Invariant: of one cluster
//! nobody waits for what happens in another, and who only drains an instance, or makes it active again, keeps nobody from placing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The gates of all clusters.
#[derive(Clone, Default)]
pub struct Gates(Arc<Mutex<HashMap<(String, String), Gate>>>);

/// That of one cluster.
#[derive(Clone, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Before `states`, whoever wants both.
    placing: RwLock<()>,
    states: tokio::sync::Mutex<()>,
}

/// Nothing is placed and no instance is changed while it is held.
pub struct Alone<'g>(#[allow(dead_code, reason = "held")] (RwLockWriteGuard<'g, ()>, MutexGuard<'g, ()>));

impl Gates {
    /// That of a cluster, by its name or ARN.
    pub fn of(&self, region: &str, cluster: &str) -> Gate {
        let key = (region.to_owned(), crate::arn::cluster_name(cluster).to_owned());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
    }
}

impl Gate {
    /// To place something.
    pub async fn placing(&self) -> RwLockReadGuard<'_, ()> {
        self.0.placing.read().await
    }

    /// To drain an instance, or to make it active.
    pub async fn changing(&self) -> MutexGuard<'_, ()> {
        self.0.states.lock().await
    }

    /// To have an instance active that is to take one thing and nothing else.
    pub async fn alone(&self) -> Alone<'_> {
        let placing = self.0.placing.write().await;
        Alone((placing, self.0.states.lock().await))
    }
}
