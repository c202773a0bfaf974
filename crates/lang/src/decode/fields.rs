//! Values of the simple types, each with its own words for a wrong one.

use std::collections::BTreeMap;

use pitcrew_core::SignedDuration;
use pitcrew_core::retry::RetryPolicy;
use pitcrew_core::trigger_rule::TriggerRule;
use serde_json::Value;

use super::{Decoder, Named, Owner, Role};
use crate::diagnostic::{did_you_mean, listing, meant_or_known};
use crate::quantity;
use crate::yaml::Node;

impl Decoder<'_, '_> {
    /// `what` must be `wanted`, found something else.
    pub fn mismatch(&mut self, node: &Node, what: &str, wanted: &str) {
        self.r.error(node.at, format!("{what} must be {wanted}, found {}", node.describe()));
    }

    /// A text; numbers and booleans count as what was written.
    pub fn text(&mut self, node: &Node, key: &str) -> Option<String> {
        match node.as_scalar() {
            Some(scalar) => Some(scalar.text.to_string()),
            None => {
                self.mismatch(node, &format!("`{key}`"), "a text");
                None
            }
        }
    }

    /// A list of texts; one text alone is a list of one.
    pub fn texts(&mut self, node: &Node, key: &str) -> Option<Vec<String>> {
        match node.as_list() {
            Some(items) => Some(items.iter().filter_map(|item| self.text(item, key)).collect()),
            None if node.as_scalar().is_some() => Some(vec![self.text(node, key)?]),
            None => {
                self.mismatch(node, &format!("`{key}`"), "a list of texts");
                None
            }
        }
    }

    pub fn names(&mut self, node: &Node, key: &str) -> Vec<Named> {
        let nodes = match node.as_list() {
            Some(items) => items,
            None if node.as_scalar().is_some() => std::slice::from_ref(node),
            None => {
                self.mismatch(node, &format!("`{key}`"), "a list of task names");
                return Vec::new();
            }
        };
        nodes.iter().filter_map(|n| Some(Named { name: self.text(n, key)?, at: n.at })).collect()
    }

    pub fn flag(&mut self, node: &Node, key: &str) -> Option<bool> {
        let scalar = node.as_scalar();
        let flag = scalar.and_then(|s| s.as_bool());
        if flag.is_none() {
            let hint = match scalar.map(|s| s.text.to_lowercase()).as_deref() {
                Some("true" | "false") => Some("write it without quotes".to_owned()),
                Some("yes" | "on" | "y" | "1") => Some("write `true`".to_owned()),
                Some("no" | "off" | "n" | "0") => Some("write `false`".to_owned()),
                _ => None,
            };
            self.r.error_maybe(node.at, format!("`{key}` must be `true` or `false`, found {}", node.describe()), hint);
        }
        flag
    }

    pub fn whole(&mut self, node: &Node, key: &str, least: i64, most: i64) -> Option<i64> {
        let number = node.as_scalar().and_then(|s| s.as_number()).and_then(|n| n.as_i64());
        match number {
            Some(number) if (least..=most).contains(&number) => Some(number),
            _ => {
                self.mismatch(node, &format!("`{key}`"), &format!("a whole number from {least} to {most}"));
                None
            }
        }
    }

    /// A duration; with `positive`, not 0.
    pub fn duration(&mut self, node: &Node, key: &str, positive: bool) -> Option<SignedDuration> {
        let Some(scalar) = node.as_scalar() else {
            self.mismatch(node, &format!("`{key}`"), "a duration such as `30s` or `1h30m`");
            return None;
        };
        match quantity::parse_duration(&scalar.text) {
            Ok(duration) if positive && duration.is_zero() => {
                self.r.error_hint(node.at, format!("`{key}` cannot be 0"), "leave it out for no limit");
                None
            }
            Ok(duration) => Some(duration),
            Err(message) => {
                self.r.error(node.at, format!("`{key}`: {message}"));
                None
            }
        }
    }

    pub fn pool(&mut self, node: &Node) -> Option<String> {
        let pool = self.text(node, "pool")?;
        self.no_template(&pool, node.at, "`pool`");
        Some(pool)
    }

    pub fn priority(&mut self, node: &Node) -> Option<i64> {
        self.whole(node, "priority", -1_000_000_000, 1_000_000_000)
    }

    /// Reads a key of the retry policy into `policy`; `false`: it is not one.
    pub fn retry_key(&mut self, key: &str, node: &Node, policy: &mut RetryPolicy) -> bool {
        match key {
            "retries" => {
                if let Some(n) = self.whole(node, key, 0, 10_000) {
                    policy.retries = n as u32;
                }
            }
            "retry_delay" => {
                if let Some(delay) = self.duration(node, key, false) {
                    policy.delay = delay;
                }
            }
            "retry_max_delay" => {
                if let Some(delay) = self.duration(node, key, false) {
                    policy.max_delay = delay;
                }
            }
            "retry_backoff" => match node.as_scalar().and_then(|s| s.as_number()).and_then(|n| n.as_f64()) {
                Some(factor) if (1.0..=100.0).contains(&factor) => policy.backoff = factor,
                _ => self.mismatch(node, "`retry_backoff`", "a number from 1 (constant delay) to 100"),
            },
            "retry_jitter" => {
                if let Some(jitter) = self.flag(node, key) {
                    policy.jitter = jitter;
                }
            }
            _ => return false,
        }
        true
    }

    pub fn trigger_rule(&mut self, node: &Node) -> Option<TriggerRule> {
        let text = self.text(node, "trigger_rule")?;
        let rule = TriggerRule::from_name(&text);
        if rule.is_none() {
            let names: Vec<&str> = TriggerRule::ALL.iter().map(|rule| rule.name()).collect();
            let hint = meant_or_known(&text, &names, "the rules are");
            self.r.error_maybe(node.at, format!("unknown trigger rule `{text}`"), hint);
        }
        rule
    }

    /// An interpreter with its options, as one text or a list.
    pub fn shell(&mut self, node: &Node) -> Option<Vec<String>> {
        let words = match node.as_list() {
            Some(_) => self.texts(node, "shell")?,
            None => self.text(node, "shell")?.split_whitespace().map(str::to_owned).collect(),
        };
        words.iter().for_each(|word| self.no_template(word, node.at, "`shell`"));
        if words.is_empty() || words[0].is_empty() {
            self.mismatch(node, "`shell`", "an interpreter such as `bash -e` or `python3`");
            return None;
        }
        Some(words)
    }

    /// Names and templates of environment variables.
    pub fn env(&mut self, node: &Node, owner: Owner, role: Role) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let Some(entries) = node.as_map() else {
            self.mismatch(node, "`env`", "a mapping of names to texts");
            return env;
        };
        for entry in entries {
            let name = &*entry.key.text;
            let mut letters = name.chars();
            let starts_right = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
            if !starts_right || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
                let hint = "use letters, digits and `_`, and no digit first";
                self.r.error_hint(entry.key.at, format!("`{name}` is not a name for an environment variable"), hint);
                continue;
            }
            let text = match (entry.value.as_scalar(), entry.value.is_null()) {
                (Some(scalar), _) => scalar.text.to_string(),
                (None, true) => String::new(),
                (None, false) => {
                    self.mismatch(&entry.value, &format!("the variable `{name}`"), "a text");
                    continue;
                }
            };
            if text.contains('\0') {
                self.r.error(entry.value.at, format!("the variable `{name}` holds a zero byte"));
                continue;
            }
            self.site(owner, role, &text, &entry.value);
            env.insert(name.to_owned(), text);
        }
        env
    }

    pub fn json(&mut self, node: &Node) -> Option<Value> {
        node.to_json().map_err(|(at, message)| self.r.error(at, message)).ok()
    }

    /// One word out of a few.
    pub fn choice<T: Copy>(&mut self, node: &Node, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, key)?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let message = format!("`{key}` must be {}, found `{text}`", listing(names.iter().copied(), "or"));
            self.r.error_maybe(node.at, message, did_you_mean(&text, names));
        }
        found
    }
}
