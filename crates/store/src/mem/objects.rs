//! Objects in memory.

use super::{Mem, reads::page};
use crate::error::Result;
use crate::types::*;

pub type Key = (String, String, String);

pub fn key(kind: &str, namespace: &str, name: &str) -> Key {
    (kind.to_owned(), namespace.to_owned(), name.to_owned())
}

/// The row of an object, after the one that was there.
pub fn row(new: NewObject, old: Option<&ObjectRow>) -> ObjectRow {
    ObjectRow {
        kind: new.kind,
        namespace: new.namespace,
        name: new.name,
        uid: old.map_or(new.uid, |old| old.uid.clone()),
        generation: old.map_or(1, |old| old.generation + 1),
        doc: new.doc,
        sealed: new.sealed,
        run: old.and_then(|old| old.run),
        created: old.map_or(new.at, |old| old.created),
        changed: new.at,
    }
}

impl Mem {
    pub fn object(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<ObjectRow>> {
        Ok(self.lock().objects.get(&key(kind, namespace, name)).cloned())
    }

    pub fn objects(&self, filter: &ObjectFilter, paging: Paging) -> Result<Page<ObjectRow>> {
        let state = self.lock();
        let kept = state.objects.values().filter(|row| {
            (filter.kinds.is_empty() || filter.kinds.contains(&row.kind))
                && filter.namespace.as_ref().is_none_or(|namespace| *namespace == row.namespace)
                && (filter.run.is_none() || filter.run == row.run)
        });
        Ok(page(kept.cloned().collect(), paging))
    }

    pub fn put_object(&self, new: NewObject, audit: AuditEntry) -> Result<ObjectRow> {
        let mut state = self.lock();
        let key = key(&new.kind, &new.namespace, &new.name);
        let row = row(new, state.objects.get(&key));
        state.objects.insert(key, row.clone());
        state.write_audit([audit]);
        Ok(row)
    }

    pub fn delete_object(&self, kind: &str, namespace: &str, name: &str, audit: AuditEntry) -> Result<bool> {
        let mut state = self.lock();
        let existed = state.objects.remove(&key(kind, namespace, name)).is_some();
        if existed {
            state.write_audit([audit]);
        }
        Ok(existed)
    }
}
