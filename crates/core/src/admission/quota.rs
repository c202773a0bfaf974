//! How much of the machines each namespace may hold, what namespaces lend each other, and whose turn it is.
//!
//! A quota gives its namespace something of its own. Quotas of one cohort lend each other what they do not use: a
//! namespace may then hold more than its own, up to its limit of borrowing. Invariants: no namespace holds more than its
//! own and what it may borrow; all of a cohort together never hold more than all of it has of its own. Both are counted by
//! what was given ([`super::charge`]), in fixed point, so what is taken is given back exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fleet::{Amount, Gpus, Node, Request, of_profile};

/// The namespace of a workflow that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What a quota can limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    Gpus,
    Cpu,
    Memory,
}

impl Resource {
    pub const ALL: [Resource; 3] = [Resource::Gpus, Resource::Cpu, Resource::Memory];

    /// An amount of it, with its unit.
    fn told(self, amount: Amount) -> String {
        match self {
            Resource::Gpus if amount == Amount::ONE => "1 GPU".to_owned(),
            Resource::Gpus => format!("{amount} GPUs"),
            Resource::Cpu if amount == Amount::ONE => "1 core".to_owned(),
            Resource::Cpu => format!("{amount} cores"),
            Resource::Memory => format!("{amount} MiB of memory"),
        }
    }
}

/// Of each resource, so much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts([Amount; 3]);

impl Amounts {
    /// What is asked for. A GPU that is asked for by memory counts as a whole one, since how large a part it is depends on
    /// where it goes; an instance `2g.…` is two sevenths of one.
    pub fn of(request: &Request) -> Amounts {
        let gpus = match &request.gpus {
            Gpus::None => Amount::ZERO,
            Gpus::Count(count) => Amount::whole(*count),
            Gpus::Share(share) => *share,
            Gpus::MemoryMib(_) => Amount::ONE,
            Gpus::Mig { profile, count } => (0..*count).map(|_| of_profile(profile)).sum(),
        };
        Amounts([gpus, request.cpu, mib(request.memory_mib)])
    }

    pub(super) fn with_gpus(self, gpus: Amount) -> Amounts {
        let [_, cpu, memory] = self.0;
        Amounts([gpus, cpu, memory])
    }

    /// All that these nodes have.
    pub fn of_nodes(nodes: &[Node]) -> Amounts {
        let mut all = Amounts::default();
        for node in nodes {
            let gpus = u32::try_from(node.gpus.len()).unwrap_or(u32::MAX);
            all.add(Amounts([Amount::whole(gpus), node.cpu, mib(node.memory_mib)]));
        }
        all
    }

    pub fn get(&self, resource: Resource) -> Amount {
        self.0[resource as usize]
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|amount| amount.is_zero())
    }

    /// So many times as much.
    pub(super) fn times(self, count: u32) -> Amounts {
        (0..count).fold(Amounts::default(), |sum, _| sum.plus(self))
    }

    pub(super) fn plus(mut self, other: Amounts) -> Amounts {
        self.add(other);
        self
    }

    fn add(&mut self, other: Amounts) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, one)| *sum += one);
    }

    fn sub(&mut self, other: Amounts) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, one)| *sum -= one);
    }
}

/// No machine has as much, so sums cannot overflow.
fn mib(memory: u64) -> Amount {
    Amount::ten_thousandths(memory.saturating_mul(10_000))
}

/// So much of each; `None`: as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
}

impl Limits {
    pub fn get(&self, resource: Resource) -> Option<Amount> {
        match resource {
            Resource::Gpus => self.gpus,
            Resource::Cpu => self.cpu,
            Resource::Memory => self.memory_mib.map(mib),
        }
    }
}

/// What a namespace may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    pub namespace: String,
    /// Quotas with the same name here lend each other what they do not use.
    #[serde(default)]
    pub cohort: Option<String>,
    /// Of two that want the same, the one with the double weight gets twice as much.
    #[serde(default = "one")]
    pub weight: u32,
    /// What is its own; what is not named here is not limited.
    #[serde(default)]
    pub limits: Limits,
    /// How much it may hold beyond its own; what is not named here: as much as its cohort lends.
    #[serde(default)]
    pub borrow: Limits,
}

fn one() -> u32 {
    1
}

impl Quota {
    pub fn new(namespace: &str, limits: Limits) -> Quota {
        Quota { namespace: namespace.to_owned(), cohort: None, weight: 1, limits, borrow: Limits::default() }
    }
}

/// A namespace, its quota if it has one, and what it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct QuotaUse<'a> {
    pub namespace: &'a str,
    pub quota: Option<&'a Quota>,
    pub used: Amounts,
    /// What it holds beyond its own.
    pub borrowed: Amounts,
    /// Candidates in line.
    pub waiting: usize,
}

/// What keeps a namespace from taking more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    pub namespace: String,
    pub resource: Resource,
    pub asked: Amount,
    /// In use by the namespace; or, if `cohort` is there, by all of it.
    pub used: Amount,
    /// The most that may be.
    pub most: Amount,
    /// All that the cohort has is in use.
    pub cohort: Option<String>,
    /// It asks for no more than is its own: others hold it.
    pub is_own: bool,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lack { namespace, resource, asked, used, most, cohort, is_own } = self;
        let all = resource.told(*most);
        match (cohort, is_own) {
            (None, _) if asked > most => write!(
                f,
                "it asks for {}, and the quota of the namespace `{namespace}` is {most} at most; \
                 `pitcrew quotas set {namespace}` changes it",
                resource.told(*asked)
            ),
            (None, _) => {
                write!(f, "namespace `{namespace}` has {used} of {all} in use; {asked} more would exceed its quota")
            }
            (Some(cohort), true) => write!(
                f,
                "it is within the quota of namespace `{namespace}`, and waits for what others of the cohort `{cohort}` \
                 borrowed: {used} of {all} are in use"
            ),
            (Some(cohort), false) => write!(
                f,
                "namespace `{namespace}` would have to borrow, and the cohort `{cohort}` has {used} of {all} in use; it \
                 asks for {asked}"
            ),
        }
    }
}

/// All quotas, and what each namespace holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Quotas {
    quotas: BTreeMap<String, Quota>,
    used: BTreeMap<Arc<str>, Amounts>,
    /// Kept for somebody who waits for room; within a pass alone.
    kept: BTreeMap<Arc<str>, Amounts>,
    /// The most that the last pass kept.
    was_kept: BTreeMap<Arc<str>, Amounts>,
    /// What there is: by that is measured what a namespace uses that has no quota.
    whole: Amounts,
}

impl Quotas {
    pub fn set(&mut self, quotas: Vec<Quota>) -> bool {
        let quotas = quotas.into_iter().map(|quota| (quota.namespace.clone(), quota)).collect();
        let is_other = self.quotas != quotas;
        self.quotas = quotas;
        is_other
    }

    pub fn set_whole(&mut self, whole: Amounts) {
        self.whole = whole;
    }

    /// The name, kept once.
    pub fn name(&mut self, namespace: &str) -> Arc<str> {
        if let Some((name, _)) = self.used.get_key_value(namespace) {
            return name.clone();
        }
        let name: Arc<str> = Arc::from(namespace);
        self.used.insert(name.clone(), Amounts::default());
        name
    }

    pub fn used(&self, namespace: &str) -> Amounts {
        self.used.get(namespace).copied().unwrap_or_default()
    }

    pub fn take(&mut self, namespace: &Arc<str>, amounts: Amounts) {
        self.used.entry(namespace.clone()).or_default().add(amounts);
    }

    pub fn give_back(&mut self, namespace: &str, amounts: Amounts) {
        if let Some(used) = self.used.get_mut(namespace) {
            used.sub(amounts);
        }
    }

    /// Keeps so much until the end of the pass, for the first of the namespace that waits for room and for those that are
    /// promised it.
    pub fn keep(&mut self, namespace: &Arc<str>, amounts: Amounts, is_promised: bool) {
        match self.kept.get_mut(namespace) {
            Some(kept) if is_promised => kept.add(amounts),
            Some(_) => {}
            None => drop(self.kept.insert(namespace.clone(), amounts)),
        }
        self.was_kept.insert(namespace.clone(), self.kept[namespace]);
    }

    /// Keeps no longer what those of the cohort who wait for room would borrow. Says whether there was any.
    pub fn drop_kept_loans(&mut self, cohort: &str) -> bool {
        let is_loan = |(namespace, kept): (&Arc<str>, &Amounts)| {
            let held = self.used(namespace).plus(*kept);
            let own =
                self.quota(namespace).filter(|quota| quota.cohort.as_deref() == Some(cohort)).map(|quota| quota.limits);
            let is_beyond = |resource: Resource| {
                let own = own.and_then(|own| own.get(resource));
                !kept.get(resource).is_zero() && own.is_some_and(|own| held.get(resource) > own)
            };
            Resource::ALL.into_iter().any(is_beyond)
        };
        let loans: Vec<Arc<str>> =
            self.kept.iter().filter(|entry| is_loan(*entry)).map(|(name, _)| name.clone()).collect();
        self.kept.retain(|namespace, _| !loans.contains(namespace));
        !loans.is_empty()
    }

    pub fn end_pass(&mut self) {
        self.kept.clear();
    }

    pub fn begin_pass(&mut self) {
        self.was_kept.clear();
    }

    /// As it was in the last pass, with what was kept then for those that wait for room.
    pub fn in_pass(&self) -> Quotas {
        Quotas { kept: self.was_kept.clone(), ..self.clone() }
    }

    /// The same, with nothing kept.
    pub fn without_kept(&self) -> Quotas {
        Quotas { kept: BTreeMap::new(), ..self.clone() }
    }

    /// What is used, or kept.
    fn counted(&self, namespace: &str) -> Amounts {
        match self.kept.get(namespace) {
            Some(kept) => self.used(namespace).plus(*kept),
            None => self.used(namespace),
        }
    }

    pub fn quota(&self, namespace: &str) -> Option<&Quota> {
        self.quotas.get(namespace)
    }

    pub fn cohort(&self, namespace: &str) -> Option<&str> {
        self.quotas.get(namespace)?.cohort.as_deref()
    }

    /// Every namespace that has a quota, or was ever seen.
    pub fn namespaces(&self) -> BTreeSet<&str> {
        self.quotas.keys().map(String::as_str).chain(self.used.keys().map(AsRef::as_ref)).collect()
    }

    /// What all of a cohort together use and have of their own.
    pub fn of_cohort(&self, cohort: &str, resource: Resource) -> (Amount, Amount) {
        let members = self.quotas.values().filter(|quota| quota.cohort.as_deref() == Some(cohort));
        let limited = members.filter_map(|quota| Some((quota, quota.limits.get(resource)?)));
        let sums = limited.map(|(quota, own)| (self.counted(&quota.namespace).get(resource), own));
        sums.fold((Amount::ZERO, Amount::ZERO), |(used, all), (one, own)| (used + one, all + own))
    }

    /// What the namespace holds of the resource beyond its own.
    pub fn borrowed(&self, namespace: &str, resource: Resource) -> Amount {
        match self.quota(namespace).and_then(|quota| quota.limits.get(resource)) {
            Some(own) => self.used(namespace).get(resource).saturating_sub(own),
            None => Amount::ZERO,
        }
    }

    /// What stands against the namespace taking so much more.
    pub fn lack(&self, namespace: &str, asked: &Amounts) -> Option<Lack> {
        let quota = self.quota(namespace)?;
        let is_own = self.would_borrow(namespace, asked).next().is_none();
        let mut of_others = None;
        for resource in Resource::ALL {
            let (more, used) = (asked.get(resource), self.counted(namespace).get(resource));
            let Some(own) = quota.limits.get(resource).filter(|_| !more.is_zero()) else { continue };
            let namespace = quota.namespace.clone();
            let most = self.most(quota, resource, own);
            if used + more > most {
                return Some(Lack { namespace, resource, asked: more, used, most, cohort: None, is_own });
            }
            if let Some(cohort) = &quota.cohort {
                let (used, most) = self.of_cohort(cohort, resource);
                if used + more > most && of_others.is_none() {
                    let cohort = Some(cohort.clone());
                    of_others = Some(Lack { namespace, resource, asked: more, used, most, cohort, is_own });
                }
            }
        }
        of_others
    }

    /// Whether it could have so much if nobody held anything.
    pub fn could_ever(&self, namespace: &str, asked: &Amounts) -> bool {
        let Some(quota) = self.quota(namespace) else { return true };
        Resource::ALL.into_iter().all(|resource| match quota.limits.get(resource) {
            Some(own) => asked.get(resource).is_zero() || asked.get(resource) <= self.most(quota, resource, own),
            None => true,
        })
    }

    fn most(&self, quota: &Quota, resource: Resource, own: Amount) -> Amount {
        let Some(cohort) = &quota.cohort else { return own };
        let all = self.of_cohort(cohort, resource).1;
        quota.borrow.get(resource).map_or(all, |more| (own + more).min(all))
    }

    /// Of what the namespace would hold more than its own, were it given so much more.
    pub fn would_borrow(&self, namespace: &str, asked: &Amounts) -> impl Iterator<Item = Resource> {
        let (quota, used) = (self.quota(namespace), self.counted(namespace));
        Resource::ALL.into_iter().filter(move |resource| {
            let own = quota.and_then(|quota| quota.limits.get(*resource));
            let more = asked.get(*resource);
            !more.is_zero() && own.is_some_and(|own| used.get(*resource) + more > own)
        })
    }

    /// How much the namespace uses of what is its own, in parts of its weight: the largest over all resources.
    pub fn share(&self, namespace: &str) -> f64 {
        let (quota, used) = (self.quota(namespace), self.used(namespace));
        let part = |resource: Resource| {
            let own = quota.and_then(|quota| quota.limits.get(resource)).unwrap_or(self.whole.get(resource));
            match (used.get(resource).to_f64(), own.to_f64()) {
                (used, _) if used <= 0.0 => 0.0,
                (_, own) if own <= 0.0 => f64::INFINITY,
                (used, own) => used / own,
            }
        };
        let most = Resource::ALL.into_iter().map(part).fold(0.0, f64::max);
        most / f64::from(quota.map_or(1, |quota| quota.weight.max(1)))
    }

    pub fn of(&self, namespace: &str, waiting: usize) -> Option<QuotaUse<'_>> {
        let (namespace, quota) = match (self.quotas.get_key_value(namespace), self.used.get_key_value(namespace)) {
            (Some((name, quota)), _) => (name.as_str(), Some(quota)),
            (None, Some((name, _))) => (name.as_ref(), None),
            (None, None) => return None,
        };
        let borrowed = Amounts(Resource::ALL.map(|resource| self.borrowed(namespace, resource)));
        Some(QuotaUse { namespace, quota, used: self.used(namespace), borrowed, waiting })
    }

    /// Panics when a namespace holds more than it may.
    pub fn sanity_check(&self, used: &BTreeMap<&str, Amounts>, over: bool) {
        for (namespace, held) in &self.used {
            let told = used.get(namespace.as_ref()).copied().unwrap_or_default();
            assert_eq!(*held, told, "what namespace {namespace} holds");
        }
        for quota in self.quotas.values().filter(|_| !over) {
            for resource in Resource::ALL {
                let Some(own) = quota.limits.get(resource) else { continue };
                let held = self.used(&quota.namespace).get(resource);
                let most = self.most(quota, resource, own);
                assert!(held <= most, "{} holds {held} of {most} {resource:?}", quota.namespace);
                if let Some(cohort) = &quota.cohort {
                    let (used, all) = self.of_cohort(cohort, resource);
                    assert!(used <= all, "the cohort {cohort} holds {used} of {all} {resource:?}");
                }
            }
        }
    }
}
