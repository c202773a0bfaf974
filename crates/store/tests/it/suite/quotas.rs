//! Quotas of namespaces.

use pitcrew_core::admission::{Limits, Quota};
use pitcrew_core::fleet::Amount;
use pitcrew_store::{AuditFilter, Paging, Store, StoreError};

use crate::sample::audit;

pub async fn quotas_are_put_changed_and_deleted_with_an_audit_entry(store: &Store) {
    assert_eq!(store.quotas().await.unwrap(), []);
    let limits = Limits { gpus: Some("7.5".parse().unwrap()), cpu: None, memory_mib: Some(1 << 20) };
    let mut ml = Quota { cohort: Some("research".to_owned()), weight: 3, ..Quota::new("ml", limits) };
    let ci = Quota::new("ci", Limits { gpus: Some(Amount::ZERO), ..Limits::default() });
    store.put_quota(ml.clone(), audit("quota.set", 1)).await.unwrap();
    store.put_quota(ci.clone(), audit("quota.set", 2)).await.unwrap();
    assert_eq!(store.quotas().await.unwrap(), [ci.clone(), ml.clone()]);
    ml = Quota { cohort: None, borrow: Limits { cpu: Some(Amount::ONE), ..Limits::default() }, ..ml };
    store.put_quota(ml.clone(), audit("quota.set", 3)).await.unwrap();
    assert_eq!(store.quotas().await.unwrap(), [ci, ml.clone()]);
    for bad in [
        Quota { weight: 0, ..ml.clone() },
        Quota { weight: 1001, ..ml.clone() },
        Quota { namespace: String::new(), ..ml.clone() },
        Quota { cohort: Some("a\nb".to_owned()), ..ml.clone() },
    ] {
        let error = store.put_quota(bad, audit("quota.set", 4)).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{error}");
    }
    // Only whoever saw what is there changes it.
    let heavier = Quota { weight: 9, ..ml.clone() };
    for before in [None, Some(heavier.clone())] {
        assert!(!store.change_quota(before, heavier.clone(), audit("quota.set", 5)).await.unwrap());
    }
    assert!(store.change_quota(Some(ml.clone()), heavier.clone(), audit("quota.set", 5)).await.unwrap());
    assert!(!store.change_quota(Some(ml), heavier.clone(), audit("quota.set", 5)).await.unwrap());
    let fresh = Quota::new("fresh", limits);
    assert!(!store.change_quota(Some(fresh.clone()), fresh.clone(), audit("quota.set", 5)).await.unwrap());
    assert!(store.change_quota(None, fresh.clone(), audit("quota.set", 5)).await.unwrap());
    assert!(store.quotas().await.unwrap().contains(&fresh) && store.quotas().await.unwrap().contains(&heavier));
    assert!(store.delete_quota("fresh", audit("quota.delete", 5)).await.unwrap());
    let ml = heavier;
    assert!(store.delete_quota("ci", audit("quota.delete", 5)).await.unwrap());
    assert!(!store.delete_quota("ci", audit("quota.delete", 6)).await.unwrap());
    assert_eq!(store.quotas().await.unwrap(), [ml]);
    let noted = AuditFilter { event_prefix: Some("quota.".to_owned()), ..AuditFilter::default() };
    assert_eq!(store.audit(&noted, Paging::ALL).await.unwrap().rows.len(), 7);
}
