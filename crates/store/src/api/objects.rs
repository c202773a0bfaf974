//! Objects as Kubernetes has them, and the runs that have a name among them.

use super::ask;
use crate::error::Result;
use crate::types::*;
use crate::{Kind, Owner, Store, normalise};

impl Store {
    pub async fn object(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<ObjectRow>> {
        ask!(self, object(kind, namespace, name))
    }

    /// By kind, namespace and name in order.
    pub async fn objects(&self, filter: &ObjectFilter, paging: Paging) -> Result<Page<ObjectRow>> {
        ask!(self, objects(filter, paging))
    }

    /// Makes an object, or changes what it says; gives it as it then is. One that stands for a run stays one.
    pub async fn put_object(&self, mut new: NewObject, mut audit: AuditEntry) -> Result<ObjectRow> {
        normalise::object(&mut new)?;
        normalise::audit(&mut audit);
        ask!(self, put_object(new, audit))
    }

    /// Says whether it was there, and only then writes the audit entry.
    pub async fn delete_object(&self, kind: &str, namespace: &str, name: &str, mut audit: AuditEntry) -> Result<bool> {
        normalise::audit(&mut audit);
        ask!(self, delete_object(kind, namespace, name, audit))
    }

    /// Makes a run, and the object that stands for it, both or none. A run whose object has that name already is in the way
    /// as one with the same id is.
    pub async fn create_run_as(
        &self,
        mut run: NewRun,
        owner: Option<&Owner>,
        mut object: NewObject,
    ) -> Result<CreateRun> {
        normalise::new_run(&mut run);
        normalise::object(&mut object)?;
        ask!(self, create_run_as(run, owner, Some(object)))
    }
}
