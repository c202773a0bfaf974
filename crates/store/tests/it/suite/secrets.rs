//! Secrets under names.

use pitcrew_store::{Paging, Store, StoreError};

use crate::sample::{at, audit};

pub async fn a_secret_counts_its_values(store: &Store) {
    assert_eq!(store.secret("gpu/ssh").await.unwrap(), None);
    for (revision, sealed) in [(1, "v1:a"), (2, "v1:b")] {
        let put = store.put_secret("gpu/ssh", sealed, at(revision), audit("secret.set", revision)).await.unwrap();
        assert_eq!(put, revision);
        let row = store.secret("gpu/ssh").await.unwrap().unwrap();
        assert_eq!((row.value.as_str(), row.revision, row.updated), (sealed, revision, at(revision)));
    }
    store.put_secret("a", "v1:c", at(3), audit("secret.set", 3)).await.unwrap();
    let page = store.secrets(Paging::first(1)).await.unwrap();
    assert_eq!((page.rows[0].name.as_str(), page.total), ("a", 2));
    assert!(store.delete_secret("a", audit("secret.delete", 4)).await.unwrap());
    assert!(!store.delete_secret("a", audit("secret.delete", 4)).await.unwrap());
    let error = store.put_secret("", "v1:d", at(4), audit("secret.set", 4)).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error}");
}
