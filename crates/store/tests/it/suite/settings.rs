//! Variables, pools, the audit log and settings.

use pitcrew_store::{AuditFilter, DEFAULT_POOL, DEFAULT_POOL_SLOTS, Paging, Pool, Store, StoreError, VariableSet};
use serde_json::json;

use crate::sample::{audit, run_id, task, workflow};

fn set(key: &str, value: &str, description: Option<&str>) -> VariableSet {
    VariableSet { key: key.to_owned(), value: value.to_owned(), description: description.map(str::to_owned) }
}

async fn events(store: &Store) -> Vec<String> {
    let page = store.audit(&AuditFilter::default(), Paging::ALL).await.unwrap();
    page.rows.into_iter().map(|row| row.entry.event).collect()
}

pub async fn a_new_store_has_the_default_pool(store: &Store) {
    let pool = Pool { name: DEFAULT_POOL.to_owned(), slots: DEFAULT_POOL_SLOTS, description: String::new() };
    assert_eq!(store.pools().await.unwrap(), [pool]);
}

pub async fn variables_are_set_described_and_deleted_with_an_audit_entry(store: &Store) {
    store.set_variable(set("b", "1", Some("two")), audit("variable.set", 1)).await.unwrap();
    store.set_variable(set("a", "nul\0 and ünï", None), audit("variable.set", 2)).await.unwrap();
    store.set_variable(set("b", "2", None), audit("variable.change", 3)).await.unwrap();
    let b = store.variable("b").await.unwrap().unwrap();
    assert_eq!((b.value.as_str(), b.description.as_str()), ("2", "two"), "the description stays unless given");
    assert_eq!(store.variable("a").await.unwrap().unwrap().value, "nul\u{fffd} and ünï");
    let page = store.variables(Paging { limit: 1, offset: 1 }).await.unwrap();
    assert_eq!((page.rows[0].key.as_str(), page.total), ("b", 2));
    assert!(store.delete_variable("a", audit("variable.delete", 4)).await.unwrap());
    assert!(!store.delete_variable("a", audit("variable.delete", 5)).await.unwrap());
    assert_eq!(events(store).await, ["variable.delete", "variable.change", "variable.set", "variable.set"]);
    for bad in ["", "a\nb", &"x".repeat(251)] {
        let error = store.set_variable(set(bad, "", None), audit("variable.set", 6)).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{bad:?}: {error}");
    }

    let mut entry = audit("task.clear", 7);
    entry.workflow = Some(workflow("audited"));
    entry.run = Some(run_id("manual__2026-01-02T03:04:05+00:00"));
    entry.task = Some(task("g.t"));
    entry.detail = json!({"attempts": [1, 2], "nul": "\0"});
    store.record_audit(entry.clone()).await.unwrap();
    for filter in [
        AuditFilter { workflow: entry.workflow.clone(), ..AuditFilter::default() },
        AuditFilter { run: entry.run.clone(), ..AuditFilter::default() },
        AuditFilter { event: Some("task.clear".to_owned()), ..AuditFilter::default() },
    ] {
        let page = store.audit(&filter, Paging::first(10)).await.unwrap();
        assert_eq!((page.total, &page.rows[0].entry), (1, &entry));
    }
    let newest = store.audit(&AuditFilter::default(), Paging::first(2)).await.unwrap();
    assert_eq!(newest.total, 5);
    let older = AuditFilter { before: Some(newest.rows[1].id), ..AuditFilter::default() };
    let older = store.audit(&older, Paging::first(2)).await.unwrap();
    assert!(older.total == 3 && older.rows[0].id < newest.rows[1].id, "{older:?}");
}

pub async fn pools_change_but_the_default_one_stays(store: &Store) {
    let gpu = Pool { name: "gpu".to_owned(), slots: 0, description: "cards".to_owned() };
    store.put_pool(gpu.clone(), audit("pool.put", 1)).await.unwrap();
    let small = Pool { name: DEFAULT_POOL.to_owned(), slots: 3, description: String::new() };
    store.put_pool(small.clone(), audit("pool.put", 2)).await.unwrap();
    assert_eq!(store.pools().await.unwrap(), [small, gpu.clone()]);
    assert_eq!(store.pool("gpu").await.unwrap(), Some(gpu));
    let error = store.delete_pool(DEFAULT_POOL, audit("pool.delete", 3)).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error}");
    assert!(store.delete_pool("gpu", audit("pool.delete", 3)).await.unwrap());
    assert!(!store.delete_pool("gpu", audit("pool.delete", 3)).await.unwrap());
    assert_eq!(events(store).await.iter().filter(|event| event.starts_with("pool.")).count(), 3);
}

pub async fn a_setting_is_kept_and_made_once(store: &Store) {
    assert_eq!(store.setting("s").await.unwrap(), None);
    assert_eq!(store.setting_or_insert("s", "first").await.unwrap(), "first");
    assert_eq!(store.setting_or_insert("s", "second").await.unwrap(), "first");
    store.put_setting("s", "third").await.unwrap();
    assert_eq!(store.setting("s").await.unwrap().as_deref(), Some("third"));
    // Only whoever saw what is there changes it.
    assert!(!store.swap_setting("s", None, "fourth").await.unwrap());
    assert!(!store.swap_setting("s", Some("second"), "fourth").await.unwrap());
    assert!(store.swap_setting("s", Some("third"), "fourth").await.unwrap());
    assert!(!store.swap_setting("t", Some("x"), "fourth").await.unwrap());
    assert!(store.swap_setting("t", None, "first").await.unwrap());
    assert_eq!(store.setting("s").await.unwrap().as_deref(), Some("fourth"));
    assert_eq!(store.setting("t").await.unwrap().as_deref(), Some("first"));
    // With a word about it, or not at all.
    store.put_setting_audited("t", "second", audit("setting.put", 7)).await.unwrap();
    assert_eq!(store.setting("t").await.unwrap().as_deref(), Some("second"));
    assert_eq!(events(store).await.iter().filter(|event| *event == "setting.put").count(), 1);
}
