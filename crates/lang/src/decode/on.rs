//! `on`: what other services start runs by; webhooks are in `hooks`.

use pitcrew_core::ir::{HookSender, HookSource, SqsSource};
use serde_json::Value;

use super::{Decoder, keys};
use crate::diagnostic::{Place, meant_or_known};
use crate::event;
use crate::yaml::{Node, Yaml};

impl Decoder<'_, '_> {
    pub fn on(&mut self, node: &Node) {
        let Some(entries) = node.as_map() else {
            self.mismatch(node, "`on`", "a mapping such as `{sqs: {queue: my-queue}}`");
            return;
        };
        for entry in entries {
            let items = entry.value.as_list().unwrap_or(std::slice::from_ref(&entry.value));
            let sender = HookSender::ALL.into_iter().find(|sender| *sender.name() == *entry.key.text);
            match (&*entry.key.text, sender) {
                ("sqs", _) => {
                    let sources: Vec<SqsSource> = items.iter().filter_map(|queue| self.sqs(queue)).collect();
                    self.workflow.on.extend(sources);
                }
                (_, Some(sender)) => {
                    let hooks: Vec<HookSource> = items.iter().filter_map(|hook| self.hook(sender, hook)).collect();
                    self.workflow.hooks.extend(hooks);
                }
                _ => self.unknown(&entry.key, keys::ON, "`on`"),
            }
        }
    }

    /// One queue; `None` when it is too broken to be kept.
    fn sqs(&mut self, node: &Node) -> Option<SqsSource> {
        let Some(entries) = node.as_map() else {
            self.mismatch(node, "`sqs`", "a mapping with a `queue`");
            return None;
        };
        let mut source = SqsSource { queue: String::new(), region: None, filter: None, conf: None };
        for entry in entries {
            let node = &entry.value;
            match &*entry.key.text {
                "queue" => source.queue = self.plain(node, "queue").unwrap_or_default(),
                "region" => source.region = self.plain(node, "region"),
                "filter" => {
                    let filter = self.json(node)?;
                    if let Err(why) = event::Pattern::parse(&filter) {
                        self.r.error(node.at, format!("`filter`: {why}"));
                    }
                    source.filter = Some(filter);
                }
                "conf" => match self.json(node)? {
                    Value::Object(conf) => {
                        self.event_templates(node);
                        source.conf = Some(conf);
                    }
                    _ => self.mismatch(node, "`conf`", "a mapping of params to values"),
                },
                _ => self.unknown(&entry.key, keys::SQS, "`sqs`"),
            }
        }
        if node.get("queue").is_none() {
            let hint = "add `queue:` with the name or the URL of a queue";
            self.r.error_hint(Place { length: 1, ..node.at }, "`sqs` has no `queue`", hint);
        }
        (!source.queue.is_empty()).then_some(source)
    }

    /// A text that holds before there is a run.
    pub(super) fn plain(&mut self, node: &Node, key: &str) -> Option<String> {
        let text = self.text(node, key)?;
        self.no_template(&text, node.at, &format!("`{key}`"));
        if text.trim().is_empty() || text.chars().any(char::is_control) {
            self.r.error(node.at, format!("`{key}` is empty, or has characters that no name has"));
            return None;
        }
        Some(text)
    }

    pub(super) fn event_templates(&mut self, node: &Node) {
        match &node.yaml {
            Yaml::Scalar(scalar) => {
                if let Err((message, hint)) = event::check(&scalar.text) {
                    self.r.error_maybe(node.at, message, hint);
                }
            }
            Yaml::List(items) => items.iter().for_each(|item| self.event_templates(item)),
            Yaml::Map(entries) => entries.iter().for_each(|entry| self.event_templates(&entry.value)),
        }
    }

    /// What an event gives must be a param; looked at once all of them are known.
    pub(super) fn check_event_params(&mut self, node: &Node) {
        let names: Vec<String> = self.workflow.params.iter().map(|param| param.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let of = |node: &'_ Node| node.as_list().map_or_else(|| vec![node.clone()], <[Node]>::to_vec);
        let senders = node.as_map().unwrap_or_default().iter();
        for source in senders.flat_map(|entry| of(&entry.value)) {
            let given = source.get("conf").or_else(|| source.get("params"));
            for entry in given.and_then(Node::as_map).unwrap_or_default() {
                if !names.contains(&&*entry.key.text) {
                    let hint = meant_or_known(&entry.key.text, &names, "the params are");
                    self.r.error_maybe(entry.key.at, format!("unknown param `{}`", entry.key.text), hint);
                }
            }
        }
    }
}
