//! `notify`: rules that say which events of a run are told to which channels.

use pitcrew_core::ir::{NotifyEvent, NotifyRule};

use super::{Decoder, keys};
use crate::diagnostic::{Place, closest, did_you_mean, listing, meant_or_known};
use crate::template::{is_template, notice};
use crate::yaml::Node;

impl Decoder<'_, '_> {
    /// One rule, or a list of them.
    pub fn notify(&mut self, node: &Node) -> Vec<NotifyRule> {
        if node.is_null() {
            return Vec::new();
        }
        let rules = node.as_list().unwrap_or(std::slice::from_ref(node));
        rules.iter().filter_map(|rule| self.notify_rule(rule)).collect()
    }

    /// One rule; `None` when it is too broken to be kept.
    fn notify_rule(&mut self, node: &Node) -> Option<NotifyRule> {
        let Some(entries) = node.as_map() else {
            self.mismatch(node, "a rule of `notify`", "a mapping such as `{on: [failure], to: my-channel}`");
            return None;
        };
        let mut rule = NotifyRule { on: Vec::new(), to: Vec::new(), after: None, subject: None, message: None };
        let mut after_at = None;
        for entry in entries {
            let node = &entry.value;
            match &*entry.key.text {
                "on" => rule.on = self.events(node),
                "to" => rule.to = self.channels(node),
                "after" => {
                    after_at = Some(entry.key.at);
                    rule.after = self.duration(node, "after", true);
                }
                "subject" => rule.subject = self.notice_template(node, "subject"),
                "message" => rule.message = self.notice_template(node, "message"),
                _ => self.unknown(&entry.key, keys::NOTIFY, "a rule of `notify`"),
            }
        }
        let at = Place { length: 1, ..node.at };
        for (key, hint) in [("on", "add `on: [failure]`"), ("to", "add `to:` with the name of a channel")] {
            if node.get(key).is_none() {
                self.r.error_hint(at, format!("the rule of `notify` has no `{key}`"), hint);
            }
        }
        match (rule.on.contains(&NotifyEvent::Late), after_at) {
            (true, None) => {
                let hint = "add for example `after: 2h`";
                self.r.error_hint(at, "a rule with `late` needs `after`: how long a run may take", hint);
            }
            (false, Some(at)) if node.get("on").is_some() => {
                self.r.error_hint(at, "`after` has a meaning for `late` only", "add `late` to `on`, or remove it");
            }
            _ => {}
        }
        (!rule.on.is_empty() && !rule.to.is_empty()).then_some(rule)
    }

    fn events(&mut self, node: &Node) -> Vec<NotifyEvent> {
        let nodes = node.as_list().unwrap_or(std::slice::from_ref(node));
        if nodes.is_empty() {
            self.r.error(node.at, "`on` names no event");
        }
        let mut events = Vec::new();
        for node in nodes {
            let Some(text) = self.text(node, "on") else { continue };
            match NotifyEvent::from_name(&text) {
                Some(event) if events.contains(&event) => {
                    self.r.error(node.at, format!("the event `{text}` is there twice"));
                }
                Some(event) => events.push(event),
                None => {
                    let names: Vec<&str> = NotifyEvent::ALL.iter().map(|event| event.name()).collect();
                    let hint = match &*text {
                        "failed" | "error" | "failing" => Some("did you mean `failure`?".to_owned()),
                        "long" | "slow" | "sla" | "timeout" => Some("did you mean `late`?".to_owned()),
                        "recovered" | "fixed" => Some("did you mean `recovery`?".to_owned()),
                        _ => meant_or_known(&text, &names, "the events are"),
                    };
                    self.r.error_maybe(node.at, format!("unknown event `{text}`"), hint);
                }
            }
        }
        events
    }

    fn channels(&mut self, node: &Node) -> Vec<String> {
        let nodes = node.as_list().unwrap_or(std::slice::from_ref(node));
        if nodes.is_empty() {
            self.r.error(node.at, "`to` names no channel");
        }
        let mut names: Vec<String> = Vec::new();
        for node in nodes {
            let Some(name) = self.text(node, "to") else { continue };
            if name.is_empty() || is_template(&name) {
                self.mismatch(node, "`to`", "the name of a channel");
                continue;
            }
            if let Some(known) = self.options.channels.filter(|known| !known.contains(&name)) {
                let known = || known.iter().map(String::as_str);
                let hint = match closest(&name, known()) {
                    Some(_) => did_you_mean(&name, known()).unwrap_or_default(),
                    None if known().next().is_none() => "add it under `channels` in `pitcrew.yaml`".to_owned(),
                    None => format!("add it under `channels` in `pitcrew.yaml`, which has {}", listing(known(), "and")),
                };
                self.r.warning_hint(node.at, format!("no channel `{name}` is configured: nobody will be told"), hint);
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn notice_template(&mut self, node: &Node, key: &str) -> Option<String> {
        let text = self.text(node, key)?;
        if let Err((message, hint)) = notice::check(&text) {
            self.r.error_maybe(node.at, format!("`{key}`: {message}"), hint);
        }
        Some(text)
    }
}
