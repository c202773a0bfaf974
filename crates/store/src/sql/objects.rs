//! Objects as Kubernetes has them.

use pitcrew_core::id::RunKey;

use super::db::{Row, Tx, args};
use super::lists::Where;
use super::rows::json;
use super::{Sql, commit};
use crate::error::Result;
use crate::types::*;

const OBJECT: &str = "SELECT kind, namespace, name, uid, generation, doc, sealed, run, created, changed FROM objects";

pub fn object(row: &Row) -> Result<ObjectRow> {
    let mut row = row.fields();
    Ok(ObjectRow {
        kind: row.take()?,
        namespace: row.take()?,
        name: row.take()?,
        uid: row.take()?,
        generation: row.take()?,
        doc: row.json()?,
        sealed: row.take()?,
        run: row.take::<Option<i64>>()?.map(RunKey),
        created: row.time()?,
        changed: row.time()?,
    })
}

/// Inserts the object of a new run; says whether the name was free.
pub async fn insert(tx: &mut Tx, new: &NewObject, run: RunKey) -> Result<bool> {
    let sql = "INSERT INTO objects (kind, namespace, name, uid, generation, doc, sealed, run, created, changed) \
         VALUES ($1, $2, $3, $4, 1, $5, $6, $7, $8, $8) ON CONFLICT (kind, namespace, name) DO NOTHING";
    let doc = json(&new.doc)?;
    let (kind, namespace, name, uid) = (&new.kind, &new.namespace, &new.name, &new.uid);
    let values = args![kind, namespace, name, uid, doc, new.sealed.as_deref(), run.0, new.at];
    Ok(tx.execute(sql, values).await? > 0)
}

impl Sql {
    pub async fn object(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<ObjectRow>> {
        let sql = format!("{OBJECT} WHERE kind = $1 AND namespace = $2 AND name = $3");
        self.one(sql, args![kind, namespace, name], object).await
    }

    pub async fn objects(&self, filter: &ObjectFilter, paging: Paging) -> Result<Page<ObjectRow>> {
        let mut kept = Where::default();
        kept.any_of("kind", filter.kinds.iter().map(String::as_str));
        if let Some(namespace) = &filter.namespace {
            kept.and("namespace = ?", namespace);
        }
        if let Some(run) = filter.run {
            kept.and("run = ?", run.0);
        }
        let text = kept.text();
        let (limit, args) = kept.paged(paging);
        let sql = format!("{OBJECT}{text} ORDER BY kind, namespace, name{limit}");
        let rows = self.all(sql, args, object).await?;
        let total = self.count(format!("SELECT count(*) FROM objects{text}"), kept.args()).await?;
        Ok(Page { rows, total })
    }

    pub async fn put_object(&self, new: NewObject, audit: AuditEntry) -> Result<ObjectRow> {
        let sql = "INSERT INTO objects (kind, namespace, name, uid, generation, doc, sealed, created, changed) \
             VALUES ($1, $2, $3, $4, 1, $5, $6, $7, $7) ON CONFLICT (kind, namespace, name) DO UPDATE SET \
             generation = objects.generation + 1, doc = excluded.doc, sealed = excluded.sealed, \
             changed = excluded.changed \
             RETURNING kind, namespace, name, uid, generation, doc, sealed, run, created, changed";
        let doc = json(&new.doc)?;
        let (kind, namespace, name, uid) = (&new.kind, &new.namespace, &new.name, &new.uid);
        let values = args![kind, namespace, name, uid, doc, new.sealed.as_deref(), new.at];
        let mut tx = self.db.begin().await?;
        let row = tx.fetch_one(sql, values).await?;
        let row = row.as_ref().map(object).transpose()?;
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await?;
        row.ok_or_else(|| crate::StoreError::not_found("object", &new.name))
    }

    pub async fn delete_object(&self, kind: &str, namespace: &str, name: &str, audit: AuditEntry) -> Result<bool> {
        let sql = "DELETE FROM objects WHERE kind = $1 AND namespace = $2 AND name = $3";
        let mut tx = self.db.begin().await?;
        let existed = tx.execute(sql, args![kind, namespace, name]).await? > 0;
        if existed {
            commit::write_audit(&mut tx, [&audit]).await?;
        }
        tx.commit().await?;
        Ok(existed)
    }
}
