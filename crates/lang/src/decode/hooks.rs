//! `on: {github: …}` and its like: events that a forge, or any program, posts to the server.

use pitcrew_core::ir::{HookReport, HookSender, HookSource};
use serde_json::{Map, Value};

use super::{Decoder, keys};
use crate::diagnostic::Place;
use crate::triggers::sample::Share;
use crate::triggers::{native, report};
use crate::yaml::Node;

impl Decoder<'_, '_> {
    /// One webhook; `None` when it is too broken to be kept.
    pub(super) fn hook(&mut self, sender: HookSender, node: &Node) -> Option<HookSource> {
        let what = format!("`{}`", sender.name());
        let Some(entries) = node.as_map() else {
            self.mismatch(node, &what, "a mapping with a `secret`");
            return None;
        };
        let mut hook = HookSource {
            sender,
            secret: String::new(),
            events: Vec::new(),
            branches: Vec::new(),
            paths: Vec::new(),
            filter: None,
            params: Map::new(),
            sample: None,
            report: None,
        };
        for entry in entries {
            let (key, node) = (&*entry.key.text, &entry.value);
            match key {
                "secret" => hook.secret = self.reference(node, key).unwrap_or_default(),
                "events" => hook.events = self.words(node, key),
                "branches" => hook.branches = self.words(node, key),
                "paths" => hook.paths = self.words(node, key),
                "filter" => {
                    hook.filter = self.plain(node, key);
                    if let Some(Err(why)) = hook.filter.as_deref().map(native::check_filter) {
                        self.r.error(node.at, why);
                    }
                }
                "params" => match self.json(node)? {
                    Value::Object(params) => {
                        self.event_templates(node);
                        hook.params = params;
                    }
                    _ => self.mismatch(node, "`params`", "a mapping of params to values"),
                },
                "sample" => {
                    hook.sample = self.plain(node, key);
                    if let Some(Err(why)) = hook.sample.as_deref().map(Share::parse) {
                        self.r.error(node.at, format!("`sample`: {why}"));
                    }
                }
                "report" => hook.report = self.report(node),
                _ => self.unknown(&entry.key, keys::HOOK, &what),
            }
        }
        let at = Place { length: 1, ..node.at };
        if node.get("secret").is_none() {
            let hint = "add `secret:` with the name of one, such as `store:forge-hook`; see docs/secrets.md";
            self.r.error_hint(at, format!("{what} has no `secret`, so anybody could start runs"), hint);
        }
        for (field, why) in native::refused(&hook) {
            self.r.error(node.get(field).map_or(at, |node| node.at), format!("`{field}`: {why}"));
        }
        (!hook.secret.is_empty()).then_some(hook)
    }

    fn report(&mut self, node: &Node) -> Option<HookReport> {
        let Some(entries) = node.as_map() else {
            self.mismatch(node, "`report`", "a mapping with a `token`");
            return None;
        };
        let mut made = HookReport { token: String::new(), url: None, context: None, checks: false };
        for entry in entries {
            let (key, node) = (&*entry.key.text, &entry.value);
            match key {
                "token" => made.token = self.reference(node, key).unwrap_or_default(),
                "url" => made.url = self.checked(node, key, report::api_of),
                "context" => made.context = self.checked(node, key, report::context_of),
                "checks" => made.checks = self.flag(node, key).unwrap_or_default(),
                _ => self.unknown(&entry.key, keys::HOOK_REPORT, "`report`"),
            }
        }
        if node.get("token").is_none() {
            let hint = "add `token:` with the name of a secret, such as `store:forge-token`; see docs/secrets.md";
            self.r.error_hint(Place { length: 1, ..node.at }, "`report` has no `token`", hint);
        }
        (!made.token.is_empty()).then_some(made)
    }

    fn checked(&mut self, node: &Node, key: &str, check: fn(&str) -> Result<String, String>) -> Option<String> {
        let text = self.plain(node, key)?;
        check(&text).map_err(|why| self.r.error(node.at, format!("`{key}`: {why}"))).ok()
    }

    /// The name of a secret; what stands there instead may be the secret, so it is not shown.
    fn reference(&mut self, node: &Node, key: &str) -> Option<String> {
        let text = self.text(node, key)?;
        let is_name = ["store:", "env:", "file:", "conn:", "aws-sm:", "arn:"].iter().any(|kind| text.starts_with(kind));
        if !is_name || text.chars().any(|c| c.is_control() || c.is_whitespace()) || crate::template::is_template(&text)
        {
            let hint = "write `store:NAME`, `env:NAME`, `file:/PATH`, `conn:ID` or `aws-sm:NAME`";
            let message = format!("`{key}` is the name of a secret, and never the secret itself");
            self.r.error_unshown(node.at, message, hint);
            return None;
        }
        Some(text)
    }

    /// Texts that hold before there is a run.
    fn words(&mut self, node: &Node, key: &str) -> Vec<String> {
        let nodes = node.as_list().unwrap_or(std::slice::from_ref(node));
        if nodes.is_empty() {
            self.r.error(node.at, format!("`{key}` lists nothing, so no event would fit"));
        }
        nodes.iter().filter_map(|node| self.plain(node, key)).collect()
    }
}
