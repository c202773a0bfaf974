//! Which triggers a listener has: those that it writes or names, and those that its selectors find.

use std::collections::BTreeMap;

use super::model::{LabelExpression, LabelSelector, NamespaceSelector};
use super::set::{Group, Set};
use super::{Stop, Trigger};

/// The triggers of a listener, each as it is or why it cannot be had.
#[derive(Debug)]
pub struct Selected<'s> {
    pub triggers: Vec<(String, Result<Trigger, Stop>)>,
    /// With the interceptors that an event passes before it comes to them.
    pub groups: Vec<(&'s Group, Vec<(String, Result<Trigger, Stop>)>)>,
}

impl Set {
    /// The triggers of a listener; `None` if there is no such listener.
    pub fn select(&self, namespace: &str, listener: &str) -> Option<Selected<'_>> {
        let listener = self.listener(namespace, listener)?;
        let spec = &listener.spec;
        let mut triggers = self.found(namespace, &spec.namespace_selector, spec.label_selector.as_ref());
        for written in &spec.triggers {
            let (name, trigger) = if written.trigger_ref.is_empty() {
                (written.name.clone(), self.inline(listener, written))
            } else {
                let missing =
                    || Stop::failed(format!("there is no Trigger `{}` in `{namespace}`", written.trigger_ref));
                let found = self.trigger(namespace, &written.trigger_ref).ok_or_else(missing);
                (written.trigger_ref.clone(), found.and_then(|trigger| self.link(trigger)))
            };
            triggers.push((name, trigger));
        }
        let groups = listener.groups.iter().map(|group| {
            let selector = &group.selector;
            (group, self.found(namespace, &selector.namespace_selector, selector.label_selector.as_ref()))
        });
        Some(Selected { triggers, groups: groups.collect() })
    }

    /// Selectors that say nothing find nothing.
    fn found(
        &self,
        own: &str,
        namespaces: &NamespaceSelector,
        labels: Option<&LabelSelector>,
    ) -> Vec<(String, Result<Trigger, Stop>)> {
        let names = &namespaces.match_names;
        if names.is_empty() && labels.is_none() {
            return Vec::new();
        }
        let everywhere = names.len() == 1 && names[0] == "*";
        let there = |namespace: &str| match names.is_empty() {
            true => namespace == own,
            false => everywhere || names.iter().any(|name| name == namespace),
        };
        let triggers = self.triggers().filter(|trigger| there(&trigger.namespace));
        let triggers = triggers.filter(|trigger| labels.is_none_or(|selector| matches(selector, &trigger.labels)));
        triggers.map(|trigger| (trigger.name.clone(), self.link(trigger))).collect()
    }
}

/// Whether labels are what a selector looks for; an operator that is not known fits nothing.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let one = |expression: &LabelExpression| {
        let value = labels.get(&expression.key);
        let among = || value.is_some_and(|value| expression.values.contains(value));
        match expression.operator.as_str() {
            "In" => among(),
            "NotIn" => !among(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    };
    selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().all(one)
}
