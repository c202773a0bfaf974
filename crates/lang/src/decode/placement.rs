//! What a task asks of a node, and which nodes it may go to, in the words of Kubernetes.
//!
//! Amounts and selectors may be templates; expressions are fixed. Whatever is no template is checked here, by what reads
//! it when an attempt asks for its place.

use std::collections::BTreeMap;

use pitcrew_core::fleet::{Effect, Expression, Operator, Preferred, Request, Term, Toleration, check_queue};
use pitcrew_core::ir::Resources;
use serde_json::Value;

use super::{Decoder, Owner, Role, keys};
use crate::diagnostic::did_you_mean;
use crate::quantity;
use crate::yaml::{Entry, Node};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

const OPERATORS: &[(&str, Operator)] = &[
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
    ("Gt", Operator::Gt),
    ("Lt", Operator::Lt),
];

const EFFECTS: &[(&str, Effect)] = &[
    ("NoSchedule", Effect::NoSchedule),
    ("PreferNoSchedule", Effect::PreferNoSchedule),
    ("NoExecute", Effect::NoExecute),
];

impl Decoder<'_, '_> {
    pub fn resources(&mut self, node: &Node, owner: Owner, role: Role, base: Resources) -> Resources {
        let mut resources = base;
        let Some(entries) = node.as_map() else {
            self.mismatch(node, "`resources`", "a mapping such as `{gpu: 1, cpu: 4, memory: 16Gi}`");
            return resources;
        };
        for entry in entries {
            let (name, node) = (&*entry.key.text, &entry.value);
            let is_known = keys::RESOURCES.contains(&name);
            let is_mistaken = || {
                let meant = keys::ELSEWHERE.iter().any(|(word, ours)| *word == name && keys::RESOURCES.contains(ours));
                meant || did_you_mean(name, keys::RESOURCES.iter().copied()).is_some()
            };
            if !is_known && is_mistaken() {
                self.unknown(&entry.key, keys::RESOURCES, "`resources`");
                continue;
            }
            let Some(value) = self.json(node) else { continue };
            if is_template(&value) {
                self.sites_in(owner, role, node);
            } else if let Err(message) = check(name, &value) {
                self.r.error(node.at, format!("`{name}`: {message}"));
                continue;
            }
            match name {
                "gpu" => resources.gpu = Some(value),
                "cpu" => resources.cpu = Some(value),
                "memory" => resources.memory = Some(value),
                _ => drop(resources.custom.insert(name.to_owned(), value)),
            }
        }
        resources
    }

    /// Labels that a node has to have; values may be templates.
    pub fn node_selector(
        &mut self,
        node: &Node,
        owner: Owner,
        role: Role,
        base: BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let mut labels = base;
        let Some(entries) = node.as_map() else {
            self.mismatch(node, "`node_selector`", "a mapping of labels, such as `{gpu-type: nvidia-a100}`");
            return labels;
        };
        for entry in entries {
            self.no_template(&entry.key.text, entry.key.at, "a label");
            if let Some(value) = self.text(&entry.value, &entry.key.text) {
                self.site(owner, role, &value, &entry.value);
                labels.insert(entry.key.text.to_string(), value);
            }
        }
        labels
    }

    /// The queue whose workers take the task; it may be a template.
    pub fn queue(&mut self, node: &Node, owner: Owner, role: Role) -> Option<String> {
        let queue = self.text(node, "queue")?;
        if is_template(&Value::String(queue.clone())) {
            self.site(owner, role, &queue, node);
        } else if let Err(why) = check_queue(&queue) {
            self.r.error(node.at, format!("`{queue}` is no name of a queue: {why}"));
            return None;
        }
        Some(queue)
    }

    /// What a node has to meet, and what makes it worth more; short, or as Kubernetes' `nodeAffinity`.
    pub fn affinity(&mut self, node: &Node) -> (Vec<Term>, Vec<Preferred>) {
        let (mut required, mut preferred) = (Vec::new(), Vec::new());
        let inner = node.get("nodeAffinity").unwrap_or(node);
        // Whatever stands beside `nodeAffinity` says something that is not done.
        let beside = node.as_map().filter(|_| node.get("nodeAffinity").is_some()).unwrap_or_default();
        for entry in beside.iter().filter(|entry| &*entry.key.text != "nodeAffinity") {
            self.not_affinity(entry);
        }
        let Some(entries) = inner.as_map() else {
            self.mismatch(inner, "`affinity`", "a mapping with `required` or `preferred`");
            return (required, preferred);
        };
        for entry in entries {
            match &*entry.key.text {
                "required" | REQUIRED => {
                    let terms = entry.value.get("nodeSelectorTerms").unwrap_or(&entry.value);
                    if terms.as_list().is_some_and(<[Node]>::is_empty) {
                        let hint = "say what the labels of a node have to be, or leave it out";
                        self.r.error_hint(entry.key.at, format!("`{}` asks for nothing", entry.key.text), hint);
                    }
                    required = self.terms(terms);
                }
                "preferred" | PREFERRED => {
                    preferred = self.list(&entry.value, "preferred").iter().filter_map(|n| self.preferred(n)).collect();
                }
                _ => self.not_affinity(entry),
            }
        }
        (required, preferred)
    }

    fn not_affinity(&mut self, entry: &Entry) {
        match &*entry.key.text {
            "podAffinity" | "podAntiAffinity" => {
                let hint = "say which nodes will do, with `required` and `preferred`";
                let message = format!("`{}` is not supported", entry.key.text);
                self.r.error_hint(entry.key.at, message, hint);
            }
            _ => self.unknown(&entry.key, keys::AFFINITY, "`affinity`"),
        }
    }

    fn list<'n>(&mut self, node: &'n Node, key: &str) -> &'n [Node] {
        match node.as_list() {
            Some(items) => items,
            None => {
                self.mismatch(node, &format!("`{key}`"), "a list");
                &[]
            }
        }
    }

    /// A list of expressions is one term; a list of `matchExpressions` is several, of which one has to hold.
    fn terms(&mut self, node: &Node) -> Vec<Term> {
        let items = self.list(node, "required");
        if items.iter().any(|item| item.get("matchExpressions").is_some()) {
            return items.iter().map(|item| self.term(item)).collect();
        }
        let expressions: Vec<Expression> = items.iter().filter_map(|item| self.expression(item)).collect();
        if expressions.is_empty() { Vec::new() } else { vec![Term(expressions)] }
    }

    fn term(&mut self, node: &Node) -> Term {
        let Some(entries) = node.as_map() else {
            self.mismatch(node, "a term", "a mapping with `matchExpressions`");
            return Term(Vec::new());
        };
        let mut expressions = Vec::new();
        for entry in entries {
            match &*entry.key.text {
                "matchExpressions" => {
                    let items = self.list(&entry.value, "matchExpressions");
                    expressions.extend(items.iter().filter_map(|item| self.expression(item)));
                }
                _ => self.unknown(&entry.key, &["matchExpressions"], "a term"),
            }
        }
        let is_empty = |list: &Node| list.as_list().is_some_and(<[Node]>::is_empty);
        if node.get("matchExpressions").is_none_or(is_empty) {
            let hint = "say what its labels have to be, or leave the term out";
            self.r.error_hint(node.at, "a term without expressions means no node", hint);
        }
        Term(expressions)
    }

    fn preferred(&mut self, node: &Node) -> Option<Preferred> {
        let entries = self.entries(node, "a preference")?;
        let mut weight = 1;
        if let Some(at) = node.get("weight") {
            weight = u32::try_from(self.whole(at, "weight", 1, 100)?).ok()?;
        }
        let term = match node.get("preference") {
            Some(preference) => {
                let known = ["weight", "preference"];
                for entry in entries.iter().filter(|entry| !known.contains(&&*entry.key.text)) {
                    self.unknown(&entry.key, &known, "a preference");
                }
                self.term(preference)
            }
            None => Term(vec![self.expression_of(node, entries, &["weight"])?]),
        };
        Some(Preferred { weight, term })
    }

    fn entries<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Entry]> {
        let entries = node.as_map();
        if entries.is_none() {
            self.mismatch(node, what, "a mapping");
        }
        entries
    }

    fn expression(&mut self, node: &Node) -> Option<Expression> {
        let entries = self.entries(node, "an expression")?;
        self.expression_of(node, entries, &[])
    }

    fn expression_of(&mut self, node: &Node, entries: &[Entry], beside: &[&str]) -> Option<Expression> {
        for entry in entries {
            let name = &*entry.key.text;
            if !keys::EXPRESSION.contains(&name) && !beside.contains(&name) {
                self.unknown(&entry.key, keys::EXPRESSION, "an expression");
            }
        }
        let Some(key) = node.get("key") else {
            let hint = "write for example `{key: gpu-type, operator: In, values: [nvidia-a100]}`";
            self.r.error_hint(node.at, "an expression needs the `key` of a label", hint);
            return None;
        };
        let key = self.fixed(key, "key")?;
        let operator = match node.get("operator") {
            Some(operator) => self.choice(operator, "operator", OPERATORS)?,
            None => Operator::In,
        };
        let values = match node.get("values") {
            Some(values) => {
                let items = values.as_list().unwrap_or(std::slice::from_ref(values));
                items.iter().map(|item| self.fixed(item, "values")).collect::<Option<_>>()?
            }
            None => Vec::new(),
        };
        let expression = Expression { key, operator, values };
        let asked = Request { required: vec![Term(vec![expression.clone()])], ..Request::default() };
        match asked.check() {
            Ok(()) => Some(expression),
            Err(why) => {
                self.r.error(node.at, why.to_string());
                None
            }
        }
    }

    /// A text that is no template.
    fn fixed(&mut self, node: &Node, key: &str) -> Option<String> {
        let text = self.text(node, key)?;
        self.no_template(&text, node.at, &format!("`{key}`"));
        Some(text)
    }

    pub fn tolerations(&mut self, node: &Node) -> Vec<Toleration> {
        let items = self.list(node, "tolerations");
        items.iter().filter_map(|item| self.toleration(item)).collect()
    }

    fn toleration(&mut self, node: &Node) -> Option<Toleration> {
        let entries = self.entries(node, "a toleration")?;
        for entry in entries.iter().filter(|entry| !keys::TOLERATION.contains(&&*entry.key.text)) {
            self.unknown(&entry.key, keys::TOLERATION, "a toleration");
        }
        let text = |this: &mut Self, key: &str| node.get(key).map(|value| this.fixed(value, key));
        let key = text(self, "key").unwrap_or(Some(String::new()))?;
        let value = match text(self, "value") {
            None => None,
            Some(value) => Some(value?),
        };
        let exists = match node.get("operator") {
            Some(operator) => self.choice(operator, "operator", &[("Equal", false), ("Exists", true)])?,
            None => false,
        };
        let value = match (exists, value) {
            (true, Some(_)) => {
                self.r.error(node.at, "`operator: Exists` takes no `value`");
                return None;
            }
            (true, None) => None,
            (false, value) => Some(value.unwrap_or_default()),
        };
        if key.is_empty() && !exists {
            let hint = "without a `key`, write `operator: Exists`: it tolerates every taint";
            self.r.error_hint(node.at, "a toleration needs the `key` of a taint", hint);
            return None;
        }
        let effect = match node.get("effect") {
            Some(effect) => Some(self.choice(effect, "effect", EFFECTS)?),
            None => None,
        };
        let seconds = match node.get("tolerationSeconds") {
            Some(_) if !matches!(effect, None | Some(Effect::NoExecute)) => {
                self.r.error(
                    node.at,
                    "`tolerationSeconds` is for `effect: NoExecute` alone: the other effects end nothing",
                );
                return None;
            }
            Some(seconds) => Some(self.whole(seconds, "tolerationSeconds", 0, i64::from(u32::MAX))? as u32),
            None => None,
        };
        Some(Toleration { key, value, effect, seconds })
    }
}

fn is_template(value: &Value) -> bool {
    match value {
        Value::String(text) => crate::template::is_template(text),
        Value::Array(items) => items.iter().any(is_template),
        Value::Object(fields) => fields.values().any(is_template),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether an amount that is no template can be read.
fn check(name: &str, value: &Value) -> Result<(), String> {
    match name {
        "gpu" => quantity::parse_gpus(value).map(drop),
        "cpu" => quantity::parse_cpu(value).map(drop),
        "memory" => quantity::parse_memory(value).map(drop),
        _ => quantity::parse_amount(value).map(drop),
    }
}
