//! Quotas as people set and see them: the same words on the command line, over REST and in forms.

use pitcrew_core::admission::{Amounts, Limits, Quota, Resource};
use pitcrew_core::fleet::Amount;
use pitcrew_lang::parse_memory;
use pitcrew_store::{AuditEntry, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock;

/// What can be set of a quota, each by a text; without one it is taken away.
pub const KEYS: [&str; 8] = ["gpus", "cpu", "memory", "cohort", "borrow_gpus", "borrow_cpu", "borrow_memory", "weight"];

/// What a namespace holds at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct NamespaceUse {
    pub namespace: String,
    pub used: Limits,
    pub borrowed: Limits,
    /// Tasks in line for their turn.
    pub waiting: usize,
}

/// A namespace, its quota, and what it holds where somebody knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuotaView {
    pub namespace: String,
    /// Otherwise nothing limits it.
    pub has_quota: bool,
    pub cohort: Option<String>,
    pub weight: u32,
    pub limits: Limits,
    pub borrow: Limits,
    pub used: Option<Limits>,
    pub borrowed: Option<Limits>,
    pub waiting: usize,
}

/// Amounts of every resource.
pub fn amounts(all: &Amounts) -> Limits {
    let memory = all.get(Resource::Memory).to_f64() as u64;
    Limits { gpus: Some(all.get(Resource::Gpus)), cpu: Some(all.get(Resource::Cpu)), memory_mib: Some(memory) }
}

/// All quotas with what is known of their use, and namespaces without one that hold or want something.
pub fn views(quotas: Vec<Quota>, uses: &[NamespaceUse]) -> Vec<QuotaView> {
    let of = |name: &str| uses.iter().find(|one| one.namespace == name);
    let view = |quota: Quota, has_quota: bool| {
        let known = of(&quota.namespace);
        QuotaView {
            has_quota,
            used: known.map(|known| known.used),
            borrowed: known.map(|known| known.borrowed),
            waiting: known.map_or(0, |known| known.waiting),
            namespace: quota.namespace,
            cohort: quota.cohort,
            weight: quota.weight,
            limits: quota.limits,
            borrow: quota.borrow,
        }
    };
    let is_free = |one: &&NamespaceUse| !quotas.iter().any(|quota| quota.namespace == one.namespace);
    let free: Vec<Quota> =
        uses.iter().filter(is_free).map(|one| Quota::new(&one.namespace, Limits::default())).collect();
    let mut all: Vec<QuotaView> = quotas.into_iter().map(|quota| view(quota, true)).collect();
    all.extend(free.into_iter().map(|quota| view(quota, false)));
    all.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    all
}

/// Sets one of [`KEYS`], or takes it away.
pub fn change(quota: &mut Quota, key: &str, text: Option<&str>) -> Result<(), String> {
    let amount = || text.map(|text| text.parse::<Amount>().map_err(|why| why.to_string())).transpose();
    let memory = || text.map(mib).transpose();
    match key {
        "gpus" => quota.limits.gpus = amount()?,
        "cpu" => quota.limits.cpu = amount()?,
        "memory" => quota.limits.memory_mib = memory()?,
        "borrow_gpus" => quota.borrow.gpus = amount()?,
        "borrow_cpu" => quota.borrow.cpu = amount()?,
        "borrow_memory" => quota.borrow.memory_mib = memory()?,
        "cohort" => quota.cohort = text.map(str::to_owned),
        "weight" => {
            let weight = text.map_or(Ok(1), str::parse).ok().filter(|weight| (1..=1000).contains(weight));
            quota.weight = weight.ok_or("a weight is a whole number from 1 to 1000")?;
        }
        _ => return Err(format!("a quota has no `{key}`: {}", KEYS.join(", "))),
    }
    Ok(())
}

fn mib(text: &str) -> Result<u64, String> {
    Ok(parse_memory(&Value::from(text))?.div_ceil(1 << 20))
}

/// What makes no sense as a whole.
pub fn check(quota: &Quota) -> Result<(), String> {
    if let Err(error) = pitcrew_core::TaskId::new(&quota.namespace) {
        return Err(error.to_string());
    }
    for (of, borrow) in [
        (quota.limits.gpus.is_some(), quota.borrow.gpus.is_some()),
        (quota.limits.cpu.is_some(), quota.borrow.cpu.is_some()),
        (quota.limits.memory_mib.is_some(), quota.borrow.memory_mib.is_some()),
    ] {
        if borrow && !of {
            return Err("what is not limited needs no limit of borrowing: set `gpus`, `cpu` or `memory` too".to_owned());
        }
    }
    if quota.cohort.is_none() && quota.borrow != Limits::default() {
        return Err("only a quota with a `cohort` can borrow".to_owned());
    }
    Ok(())
}

/// Changes the quota of the namespace, or makes one. Of changes at the same moment none is lost.
pub async fn set(
    store: &Store,
    who: &str,
    namespace: &str,
    changes: &[(String, Option<String>)],
) -> Result<(), StoreError> {
    loop {
        let before = store.quotas().await?.into_iter().find(|quota| quota.namespace == namespace);
        let mut quota = before.clone().unwrap_or_else(|| Quota::new(namespace, Limits::default()));
        for (key, text) in changes {
            change(&mut quota, key, text.as_deref()).map_err(|why| StoreError::Invalid(format!("`{key}`: {why}")))?;
        }
        check(&quota).map_err(StoreError::Invalid)?;
        let audit = audit(who, &quota);
        // Somebody else was quicker: what they made of it is changed.
        if store.change_quota(before, quota, audit).await? {
            return Ok(());
        }
    }
}

/// The audit entry of a quota that is set, here and on the command line.
pub fn audit(who: &str, quota: &Quota) -> AuditEntry {
    let mut audit = AuditEntry::new(clock::now(), who, "quota.set");
    audit.detail = json!(quota);
    audit
}

pub fn audit_of_deletion(who: &str, namespace: &str) -> AuditEntry {
    let mut audit = AuditEntry::new(clock::now(), who, "quota.delete");
    audit.detail = json!({ "namespace": namespace });
    audit
}

/// `262144` MiB as `256 GiB`.
pub fn memory(mib: u64) -> String {
    match mib {
        mib if mib < 1024 || mib % 512 != 0 => format!("{mib} MiB"),
        mib => format!("{} GiB", mib as f64 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_set_in_the_words_of_the_language_and_nonsense_is_refused() {
        let mut quota = Quota::new("ml", Limits::default());
        for (key, text) in
            [("gpus", "7.5"), ("cpu", "500m"), ("memory", "256Gi"), ("cohort", "lab"), ("borrow_gpus", "2")]
        {
            change(&mut quota, key, Some(text)).unwrap();
        }
        assert_eq!(quota.limits.memory_mib, Some(256 * 1024));
        assert_eq!(
            serde_json::to_value(quota.limits).unwrap(),
            json!({"gpus": 7.5, "cpu": 0.5, "memory_mib": 262_144})
        );
        assert_eq!(check(&quota), Ok(()));
        change(&mut quota, "gpus", None).unwrap();
        assert!(check(&quota).unwrap_err().contains("needs no limit of borrowing"));
        for (key, text) in
            [("gpus", "-1"), ("gpus", "all"), ("memory", "much"), ("weight", "0"), ("weight", "2.5"), ("colour", "1")]
        {
            assert!(change(&mut quota, key, Some(text)).is_err(), "{key}: {text}");
        }
        assert!(check(&Quota::new("a b", Limits::default())).is_err());
    }
}
