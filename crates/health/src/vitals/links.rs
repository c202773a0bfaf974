//! The links of one GPU: which of them were up, and how fast their errors pile up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::rules::LinkRules;
use super::{Lasting, LinkErrors};
use crate::check::{Link, Links};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// Looks of an hour that are remembered one by one.
const LOOKS: usize = 4096;

#[derive(Debug, Clone, Default)]
pub(super) struct LinkHistory {
    /// Were up at some time.
    up: BTreeSet<usize>,
    down: Lasting,
    /// Were up at the last look.
    were_up: BTreeSet<usize>,
    /// Looks at which a link had just fallen: one that is up again by the next is no less sick.
    falls: Rate,
    /// Counters as they were last; `None`: never seen, so nothing is known of what is new.
    counters: Option<BTreeMap<(String, String), u64>>,
    hard: Rate,
    crc: Rate,
}

/// What came of one kind of errors within the last hour.
#[derive(Debug, Clone, Default)]
struct Rate {
    looks: VecDeque<(Timestamp, u64)>,
    told: Lasting,
}

impl Rate {
    fn add(&mut self, count: u64, now: Timestamp) {
        self.looks.retain(|(at, _)| now.duration_since(*at) < HOUR);
        if count > 0 {
            self.looks.push_back((now, count));
        }
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
    }

    fn sum(&self) -> u64 {
        self.looks.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Whether there are too many now, and it was not told. Half as many are clearly fewer.
    fn see(&mut self, most: u64, now: Timestamp) -> bool {
        let sum = self.sum();
        let is_so = if sum >= most.max(1) { Some(true) } else { (sum <= most / 2).then_some(false) };
        self.told.see(is_so, now, SignedDuration::ZERO)
    }
}

impl LinkHistory {
    /// What is to be told. Where nothing was told of links or errors, nothing is known anew.
    pub fn see(
        &mut self,
        rules: &LinkRules,
        links: Option<&Links>,
        errors: Option<&LinkErrors>,
        now: Timestamp,
    ) -> Vec<String> {
        let mut told = Vec::new();
        if let Some(links) = links {
            let fallen = self.fallen(links);
            let up = links.links.iter().enumerate().filter(|(_, link)| **link == Link::Up).map(|(at, _)| at).collect();
            let were_up = std::mem::replace(&mut self.were_up, up);
            self.up.extend(&self.were_up);
            // However many fell at once: that is one trouble.
            self.falls.add(u64::from(fallen.iter().any(|at| were_up.contains(at))), now);
            if self.falls.see(rules.falls_per_hour, now) {
                told.push(format!("its NVLinks fell {} times within an hour", self.falls.sum()));
            }
            if self.down.see(Some(!fallen.is_empty()), now, rules.lasts) {
                told.push(format!(
                    "{} down that {} up before",
                    numbers(&fallen),
                    if fallen.len() == 1 { "was" } else { "were" }
                ));
            }
        }
        let Some(errors) = errors else { return told };
        let counted = errors.iter().map(|(link, what, count)| ((link.clone(), what.clone()), *count)).collect();
        // What stood there before anybody looked may be years old.
        let before = self.counters.replace(counted);
        if let Some(before) = before {
            let (mut hard, mut crc) = (0u64, 0u64);
            for (link, what, count) in errors {
                let was = before.get(&(link.clone(), what.clone())).copied().unwrap_or(0);
                // A counter that fell began anew.
                let new = if *count >= was { count - was } else { *count };
                let sum = if what.to_ascii_lowercase().starts_with("crc") { &mut crc } else { &mut hard };
                *sum = sum.saturating_add(new);
            }
            self.hard.add(hard, now);
            self.crc.add(crc, now);
        }
        if self.hard.see(rules.errors_per_hour, now) {
            told.push(format!("{} replays and recoveries of its NVLinks within an hour", self.hard.sum()));
        }
        if self.crc.see(rules.crc_errors_per_hour, now) {
            told.push(format!("{} CRC errors of its NVLinks within an hour", self.crc.sum()));
        }
        told
    }

    /// Links that were up, and are down now.
    pub fn fallen(&self, links: &Links) -> Vec<usize> {
        links.down().filter(|at| self.up.contains(at)).collect()
    }
}

fn numbers(links: &[usize]) -> String {
    let all: Vec<String> = links.iter().map(usize::to_string).collect();
    match links {
        [one] => format!("NVLink {one} is"),
        _ => format!("NVLinks {} are", all.join(", ")),
    }
}
