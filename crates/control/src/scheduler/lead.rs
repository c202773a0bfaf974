//! Whether this process leads at this very moment, as far as it can know.
//!
//! The scheduler finds out that it leads no more when it looks; meanwhile the session that holds the lock may be gone, and
//! another server may lead. Workers are promised by each answer that nobody else takes what they have, so they are answered
//! only by a server whose session is the one with which it came to lead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pitcrew_store::Owner;
use tokio::sync::watch;

/// Cheap to clone.
#[derive(Clone)]
pub struct Lead {
    leads: watch::Receiver<bool>,
    owner: Arc<Owner>,
    breaks: Arc<AtomicU64>,
}

/// The side of the scheduler, which finds it out.
pub(super) struct Standing {
    told: watch::Sender<bool>,
    /// How often the lock of the owner had been lost when it came to lead.
    breaks: Arc<AtomicU64>,
}

/// Until somebody finds out: `leads`.
pub(super) fn standing(owner: &Arc<Owner>, leads: bool) -> (Standing, Lead) {
    let (told, leads) = watch::channel(leads);
    let breaks = Arc::new(AtomicU64::new(owner.breaks()));
    (Standing { told, breaks: breaks.clone() }, Lead { leads, owner: owner.clone(), breaks })
}

impl Standing {
    /// What was found, after so many losses of the lock.
    pub fn tell(&self, leads: bool, breaks: u64) {
        self.breaks.store(breaks, Ordering::Release);
        self.told.send_if_modified(|told| std::mem::replace(told, leads) != leads);
    }
}

impl Lead {
    pub fn leads(&self) -> bool {
        *self.leads.borrow()
    }

    pub fn watched(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    /// Whether it leads, and its lock is held and was not lost since.
    pub fn is_held(&self) -> bool {
        self.leads() && self.owner.is_held() && self.owner.breaks() == self.breaks.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use pitcrew_store::{Store, StoreUrl};

    use super::*;

    #[tokio::test]
    async fn whoever_lost_its_lock_does_not_lead_before_it_looked_again() {
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let owner = Arc::new(store.register_owner().await.unwrap());
        let (standing, lead) = standing(&owner, false);
        assert!(!lead.is_held());
        standing.tell(true, owner.breaks());
        assert!(lead.is_held());
        // As if it had been lost and taken again since.
        standing.tell(true, owner.breaks() + 1);
        assert!(lead.leads() && !lead.is_held());
        standing.tell(true, owner.breaks());
        assert!(lead.is_held());
        standing.tell(false, owner.breaks());
        assert!(!lead.is_held() && !*lead.watched().borrow());
    }
}
