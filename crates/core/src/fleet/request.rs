//! What a task asks for, and where it may go, in the words of Kubernetes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::amount::Amount;
use super::node::{Effect, Node, Taint};

/// What one member of a job needs. Two that are equal fit the same nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// Cores.
    pub cpu: Amount,
    pub memory_mib: u64,
    pub custom: BTreeMap<String, Amount>,
    pub gpus: Gpus,
    /// The queue whose workers take it; `None`: that of all who name none.
    pub queue: Option<String>,
    /// Models of GPU that will do; empty: any.
    pub models: Vec<String>,
    /// Labels that the node has to have.
    pub node_selector: BTreeMap<String, String>,
    /// The node has to meet all expressions of one of these; empty: no more is asked.
    pub required: Vec<Term>,
    pub preferred: Vec<Preferred>,
    pub tolerations: Vec<Toleration>,
}

/// More than the weights of all preferred terms together.
const LAST: i64 = 1 << 32;

/// How much of GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gpus {
    #[default]
    None,
    /// So many for itself.
    Count(u32),
    /// A part of one that is shared: more than 0, less than 1.
    Share(Amount),
    /// So many MiB of one: a part of a shared GPU, or a whole one that has as much.
    MemoryMib(u64),
    /// Instances of a profile, on one node.
    Mig { profile: String, count: u32 },
}

/// Expressions that all have to hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Term(pub Vec<Expression>);

/// A node that meets the term is worth so much more, 1 to 100.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Preferred {
    pub weight: u32,
    pub term: Term,
}

/// What a label has to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Expression {
    pub key: String,
    pub operator: Operator,
    #[serde(default)]
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operator {
    In,
    /// Holds for a node without the label, too.
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

/// Which taints do not keep the task away.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Toleration {
    /// Empty: of any key.
    #[serde(default)]
    pub key: String,
    /// `None`: of any value.
    #[serde(default)]
    pub value: Option<String>,
    /// `None`: of any effect.
    #[serde(default)]
    pub effect: Option<Effect>,
    /// How long a taint that ends what runs is tolerated; `None`: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
}

/// Why a request makes no sense, whatever machines there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("a share of a GPU is more than 0 and less than 1, and this is {0}; for whole GPUs ask for a count")]
    Share(Amount),
    #[error("{0} GPUs cannot be divided: ask for a part of one, or for a whole number of GPUs")]
    PartOfSeveral(Amount),
    #[error("0 MiB of a GPU's memory is none")]
    NoMemory,
    #[error("0 instances of `{0}` are none")]
    NoInstances(String),
    #[error("`{key} {operator:?}` takes {wants}")]
    Expression { key: String, operator: Operator, wants: &'static str },
    #[error("a weight is 1 to 100, and this is {0}")]
    Weight(u32),
}

impl Gpus {
    /// What a plain number of GPUs means: a count, or a part of one.
    pub fn of(amount: Amount) -> Result<Gpus, BadRequest> {
        if amount.is_zero() {
            return Ok(Gpus::None);
        }
        if amount < Amount::ONE {
            return Ok(Gpus::Share(amount));
        }
        let whole = amount.to_f64() as u32;
        match amount == Amount::whole(whole) {
            true => Ok(Gpus::Count(whole)),
            false => Err(BadRequest::PartOfSeveral(amount)),
        }
    }
}

impl fmt::Display for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gpus::None => f.write_str("no GPU"),
            Gpus::Count(1) => f.write_str("1 GPU"),
            Gpus::Count(count) => write!(f, "{count} GPUs"),
            Gpus::Share(share) => write!(f, "{share} of a GPU"),
            Gpus::MemoryMib(memory) => write!(f, "{memory} MiB of a GPU"),
            Gpus::Mig { profile, count: 1 } => write!(f, "an instance `{profile}`"),
            Gpus::Mig { profile, count } => write!(f, "{count} instances `{profile}`"),
        }
    }
}

impl Request {
    /// Undivided GPUs, then CPU: which of two is harder to place.
    pub fn size(&self) -> (Amount, Amount) {
        let gpus = match &self.gpus {
            Gpus::Count(count) => Amount::whole(*count),
            Gpus::Share(share) => *share,
            Gpus::None | Gpus::MemoryMib(_) | Gpus::Mig { .. } => Amount::ZERO,
        };
        (gpus, self.cpu)
    }

    /// Whether it makes sense.
    pub fn check(&self) -> Result<(), BadRequest> {
        match &self.gpus {
            Gpus::Share(share) if share.is_zero() || *share >= Amount::ONE => return Err(BadRequest::Share(*share)),
            Gpus::MemoryMib(0) => return Err(BadRequest::NoMemory),
            Gpus::Mig { profile, count: 0 } => return Err(BadRequest::NoInstances(profile.clone())),
            _ => {}
        }
        if let Some(wrong) = self.preferred.iter().find(|term| !(1..=100).contains(&term.weight)) {
            return Err(BadRequest::Weight(wrong.weight));
        }
        let terms = self.required.iter().chain(self.preferred.iter().map(|preferred| &preferred.term));
        terms.flat_map(|term| &term.0).try_for_each(Expression::check)
    }
}

impl Expression {
    fn check(&self) -> Result<(), BadRequest> {
        let is_number = |text: &String| text.parse::<i64>().is_ok();
        let wants = match self.operator {
            Operator::In | Operator::NotIn if self.values.is_empty() => "at least one value",
            Operator::Exists | Operator::DoesNotExist if !self.values.is_empty() => "no value",
            Operator::Gt | Operator::Lt if self.values.len() != 1 || !self.values.iter().all(is_number) => {
                "one whole number"
            }
            _ => return Ok(()),
        };
        Err(BadRequest::Expression { key: self.key.clone(), operator: self.operator, wants })
    }

    /// Whether a node with these labels meets it.
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let label = labels.get(&self.key);
        let is_listed = |label: &String| self.values.contains(label);
        // Labels that are no numbers are neither greater nor less.
        let compared = || {
            let (label, value) = (label?.parse::<i64>().ok()?, self.values.first()?.parse::<i64>().ok()?);
            Some(label.cmp(&value))
        };
        match self.operator {
            Operator::In => label.is_some_and(is_listed),
            Operator::NotIn => !label.is_some_and(is_listed),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::Gt => compared().is_some_and(|order| order.is_gt()),
            Operator::Lt => compared().is_some_and(|order| order.is_lt()),
        }
    }
}

impl Term {
    pub fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        self.holds_but(labels, |_| false)
    }

    /// The same, whatever the labels are of which this is true.
    pub fn holds_but(&self, labels: &BTreeMap<String, String>, is_open: impl Fn(&String) -> bool) -> bool {
        // As in Kubernetes, where a term that says nothing means no node.
        !self.0.is_empty() && self.0.iter().all(|expression| is_open(&expression.key) || expression.holds(labels))
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.key, self.operator)?;
        if self.values.is_empty() { Ok(()) } else { write!(f, " {}", self.values.join(", ")) }
    }
}

impl Toleration {
    pub fn tolerates(&self, taint: &Taint) -> bool {
        (self.key.is_empty() || self.key == taint.key)
            && self.value.as_ref().is_none_or(|value| *value == taint.value)
            && self.effect.is_none_or(|wanted| wanted == taint.effect)
    }
}

impl Request {
    /// What the node is worth to the request beyond what it has: preferred terms, less taints that it would rather keep
    /// work away by. One of those weighs more than all terms together: such a node is the last choice.
    pub fn preference(&self, node: &Node) -> i64 {
        let met = self.preferred.iter().filter(|preferred| preferred.term.holds(&node.labels));
        let wanted: i64 = met.map(|preferred| i64::from(preferred.weight)).sum();
        let unwanted = node.taints.iter().filter(|taint| taint.effect == Effect::PreferNoSchedule);
        let unwanted = unwanted.filter(|taint| !self.tolerations.iter().any(|one| one.tolerates(taint))).count();
        wanted - LAST * unwanted as i64
    }
}
