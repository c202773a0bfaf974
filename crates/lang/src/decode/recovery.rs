//! `recovery` and `hang` of a task: what its failures mean, and when it is believed to hang.
//!
//! What they ask for is checked by the very readers that will use it, so a rule that compiles works.

use pitcrew_core::recovery::{Asks, Hang, Progress, Restart};
use pitcrew_health::{ExitCodes, LogRules, log};

use super::{Decoder, keys};
use crate::diagnostic::meant_or_known;
use crate::yaml::Node;

const RESTARTS: [(&str, Restart); 2] =
    [("immediately", Restart::Immediately), ("after_verdict", Restart::AfterVerdict)];

impl Decoder<'_, '_> {
    pub fn recovery(&mut self, node: &Node, asks: &mut Asks) {
        let Some(entries) = node.as_map() else {
            return self.mismatch(node, "`recovery`", "a mapping such as `{exit_codes: {3: application}}`");
        };
        for entry in entries {
            let node = &entry.value;
            match &*entry.key.text {
                "restart" => asks.restart = self.restart(node),
                "infrastructure_restarts" => {
                    let most = self.whole(node, "infrastructure_restarts", 0, 10_000);
                    asks.infrastructure_restarts = most.map(|most| most as u32);
                }
                "check_peers" => asks.check_peers = self.flag(node, "check_peers"),
                "exit_codes" => self.meanings(node, asks),
                _ => self.unknown(&entry.key, keys::RECOVERY, "`recovery`"),
            }
        }
    }

    fn restart(&mut self, node: &Node) -> Option<Restart> {
        let text = self.text(node, "restart")?;
        let found = RESTARTS.into_iter().find(|(name, _)| *name == text).map(|(_, restart)| restart);
        if found.is_none() {
            let hint = meant_or_known(&text, &RESTARTS.map(|(name, _)| name), "there are");
            self.r.error_maybe(node.at, format!("`restart` cannot be `{text}`"), hint);
        }
        found
    }

    /// Each by itself, so that each mistake has its place.
    fn meanings(&mut self, node: &Node, asks: &mut Asks) {
        let Some(entries) = node.as_map() else {
            return self.mismatch(node, "`exit_codes`", "a mapping such as `{3-5: application, otherwise: diagnose}`");
        };
        for entry in entries {
            let Some(class) = self.text(&entry.value, "exit_codes") else { continue };
            match class.clone().try_into() {
                Ok(known) => {
                    let one = ExitCodes([(entry.key.text.to_string(), known)].into());
                    for why in one.read().err().unwrap_or_default() {
                        self.r.error(entry.key.at, why);
                    }
                }
                Err(why) => self.r.error(entry.value.at, why),
            }
            asks.exit_codes.insert(entry.key.text.to_string(), class);
        }
    }

    pub fn hang(&mut self, node: &Node) -> Hang {
        let mut hang = Hang::default();
        let Some(entries) = node.as_map() else {
            self.mismatch(node, "`hang`", "a mapping such as `{silence: 10m}`");
            return hang;
        };
        for entry in entries {
            let node = &entry.value;
            match &*entry.key.text {
                "silence" => hang.silence = self.duration(node, "silence", true),
                "pattern" => hang.pattern = self.pattern(node),
                "progress" => hang.progress = self.progress(node),
                _ => self.unknown(&entry.key, keys::HANG, "`hang`"),
            }
        }
        if entries.is_empty() {
            let hint = "say when it does: `silence: 10m`, a `pattern`, or `progress`";
            self.r.error_hint(node.at, "`hang` does not say when the task hangs", hint);
        }
        let rules = LogRules { silence: hang.silence, ..LogRules::default() };
        for why in rules.read().err().unwrap_or_default() {
            self.r.error(node.at, why);
        }
        hang
    }

    fn progress(&mut self, node: &Node) -> Option<Progress> {
        let Some(entries) = node.as_map() else {
            self.mismatch(node, "`progress`", "a mapping such as `{pattern: 'step \\d+', every: 5m}`");
            return None;
        };
        let (mut pattern, mut first_within, mut every) = (None, None, None);
        for entry in entries {
            let node = &entry.value;
            match &*entry.key.text {
                "pattern" => pattern = Some(self.pattern(node)?),
                "first_within" => first_within = Some(self.duration(node, "first_within", true)?),
                "every" => every = Some(self.duration(node, "every", true)?),
                _ => self.unknown(&entry.key, keys::PROGRESS, "`progress`"),
            }
        }
        let (Some(pattern), Some(every)) = (pattern, every) else {
            let hint = "write `{pattern: 'step \\d+', every: 5m}`";
            self.r.error_hint(node.at, "`progress` needs a `pattern` and how often it comes (`every`)", hint);
            return None;
        };
        let first_within = first_within.unwrap_or(every);
        let progress = log::Progress { pattern: pattern.clone(), first_within, every };
        for why in (LogRules { progress: Some(progress), ..LogRules::default() }).read().err().unwrap_or_default() {
            self.r.error(node.at, why);
        }
        Some(Progress { pattern, first_within, every })
    }

    /// A regular expression that is not in every line.
    fn pattern(&mut self, node: &Node) -> Option<String> {
        let pattern = self.text(node, "pattern")?;
        let one = log::Pattern::hang(&pattern);
        match (LogRules { patterns: vec![one], only_these: true, ..LogRules::default() }).read() {
            Ok(_) => Some(pattern),
            Err(all) => {
                all.into_iter().for_each(|why| self.r.error(node.at, why));
                None
            }
        }
    }
}
