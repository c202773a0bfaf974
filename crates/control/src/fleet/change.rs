//! What somebody does to a node, in the words of `kubectl label` and `kubectl taint`.

use std::collections::BTreeMap;

use pitcrew_store::NodeChange;

use super::NodeView;
use super::config::{check_key, check_value, parse_effect, parse_taint};

/// `key=value` sets a label, `key-` takes it away.
pub fn labels(texts: &[String]) -> Result<NodeChange, String> {
    let mut change = NodeChange::default();
    for text in texts {
        let (key, value) = match (text.split_once('='), text.strip_suffix('-')) {
            (Some((key, value)), _) => (key, Some(value.to_owned())),
            (None, Some(key)) => (key, None),
            (None, None) => return Err(format!("`{text}` is no label: write `key=value`, or `key-` to take one away")),
        };
        label(key, value.as_deref())?;
        twice(change.labels.insert(key.to_owned(), value).is_some(), text)?;
    }
    Ok(change)
}

/// `key=value:Effect` sets a taint; `key:Effect-` takes it away, `key-` with every effect that it has on the node.
pub fn taints(texts: &[String], node: &NodeView) -> Result<NodeChange, String> {
    let mut change = NodeChange::default();
    for text in texts {
        let mut set = BTreeMap::new();
        match text.strip_suffix('-') {
            None => {
                let taint = parse_taint(text).map_err(|why| format!("`{text}` is no taint: {why}"))?;
                set.insert(format!("{}:{:?}", taint.key, taint.effect), Some(taint.value));
            }
            Some(name) => match name.rsplit_once(':') {
                Some((key, effect)) => {
                    let effect = parse_effect(effect)?;
                    // As kubectl, which takes `key=value:Effect-` too.
                    let key = key.split_once('=').map_or(key, |(key, _)| key);
                    set.insert(format!("{key}:{effect:?}"), None);
                }
                None => {
                    let there = node.taints.iter().filter_map(|taint| parse_taint(taint).ok());
                    let names = there.filter(|taint| taint.key == name).map(|t| format!("{}:{:?}", t.key, t.effect));
                    set.extend(names.map(|name| (name, None)));
                    if set.is_empty() {
                        return Err(format!("the node `{}` has no taint `{name}`", node.name));
                    }
                }
            },
        }
        for (name, value) in set {
            twice(change.taints.insert(name, value).is_some(), text)?;
        }
    }
    Ok(change)
}

/// Checks a label that is set, or taken away.
pub fn label(key: &str, value: Option<&str>) -> Result<(), String> {
    check_key(key).map_err(|why| format!("`{key}` is no key of a label: {why}"))?;
    check_value(value.unwrap_or_default()).map_err(|why| format!("the value of the label `{key}`: {why}"))
}

/// Checks a taint by its `key:Effect`, with the value that it is given.
pub fn taint(name: &str, value: Option<&str>) -> Result<(), String> {
    let text = match (name.rsplit_once(':'), value) {
        (Some((key, effect)), Some(value)) => format!("{key}={value}:{effect}"),
        _ => name.to_owned(),
    };
    parse_taint(&text).map(drop).map_err(|why| format!("`{name}` is no taint: {why}"))
}

fn twice(is: bool, text: &str) -> Result<(), String> {
    if is { Err(format!("`{text}` contradicts what stands before it")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Fleet, NodeConfig};

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    #[tokio::test]
    async fn labels_and_taints_are_written_as_for_kubectl() {
        let change = labels(&texts(&["rack=a", "empty=", "old-", "nvidia.com/gpu=x"])).unwrap();
        let shown: Vec<String> = change.labels.iter().map(|(key, value)| format!("{key} {value:?}")).collect();
        assert_eq!(shown, ["empty Some(\"\")", "nvidia.com/gpu Some(\"x\")", "old None", "rack Some(\"a\")"]);
        for wrong in [&["rack"][..], &["=a"], &["a b=c"], &["a=b c"], &["a=b", "a-"], &["a=<script>"]] {
            assert!(labels(&texts(wrong)).is_err(), "{wrong:?}");
        }
        let mut config = NodeConfig::plain("n");
        config.taints = ["gpu:NoSchedule", "gpu=x:NoExecute"].map(|text| parse_taint(text).unwrap()).into();
        let store = pitcrew_store::Store::open(&pitcrew_store::StoreUrl::Memory).await.unwrap();
        let node = Fleet::of(store, vec![(config, None)]).view("n").unwrap();
        let change = taints(&texts(&["gpu-", "a=b:NoSchedule", "c:PreferNoSchedule-"]), &node).unwrap();
        let shown: Vec<String> = change.taints.iter().map(|(name, value)| format!("{name} {value:?}")).collect();
        let expected =
            ["a:NoSchedule Some(\"b\")", "c:PreferNoSchedule None", "gpu:NoExecute None", "gpu:NoSchedule None"];
        assert_eq!(shown, expected);
        for wrong in
            [&["a"][..], &["a:Never"], &["b-"], &["a:Never-"], &[":NoSchedule"], &["a:NoSchedule", "a:NoSchedule-"]]
        {
            assert!(taints(&texts(wrong), &node).is_err(), "{wrong:?}");
        }
    }
}
