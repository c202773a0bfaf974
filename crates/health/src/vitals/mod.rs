//! What devices show over time: heat, the brake of the power supply, links that fall, and links whose errors pile up.
//!
//! One look says little: a GPU is warm under load, and a link repairs an error now and then. So something is told when it has
//! lasted, once, and again only after it was away as long: whatever swings about its limit is told once. What a device does not
//! tell changes nothing.

mod links;
mod rules;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::recovery::SignalKind;

use crate::action::Action;
use crate::check::{Links, SmiGpu};
use links::LinkHistory;

pub use rules::{Brake, Heat, LinkRules, VitalRules};

/// Errors of one link of a GPU: the link, what was counted, and how often.
pub type LinkErrors = Vec<(String, String, u64)>;

/// What one look at a node has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// In the order of the driver, which is DCGM's.
    pub gpus: Vec<SmiGpu>,
    pub links: Vec<Links>,
    /// By the numbers of DCGM.
    pub errors: Vec<(u32, LinkErrors)>,
}

/// What has lasted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vital {
    pub gpu: String,
    pub kind: SignalKind,
    pub action: Action,
    pub evidence: String,
}

/// What is known of the devices of a node, from look to look.
#[derive(Debug, Clone, Default)]
pub struct Vitals {
    gpus: BTreeMap<String, Device>,
}

#[derive(Debug, Clone, Default)]
struct Device {
    heat: Lasting,
    brake: Lasting,
    links: LinkHistory,
}

/// Something that is so for a while, or not any more.
#[derive(Debug, Clone, Default)]
struct Lasting {
    since: Option<Timestamp>,
    away: Option<Timestamp>,
    is_told: bool,
}

impl Lasting {
    /// Whether it is to be told now. `None`: it is neither clearly so nor clearly over.
    fn see(&mut self, is_so: Option<bool>, now: Timestamp, lasts: SignedDuration) -> bool {
        let is_so = is_so.unwrap_or(self.since.is_some());
        if is_so {
            self.away = None;
            let since = *self.since.get_or_insert(now);
            let is_due = !self.is_told && now.duration_since(since) >= lasts;
            self.is_told |= is_due;
            return is_due;
        }
        let away = *self.away.get_or_insert(now);
        if !self.is_told || now.duration_since(away) >= lasts {
            *self = Lasting::default();
        }
        false
    }
}

impl Shown {
    fn links_of(&self, at: u32) -> Option<&Links> {
        self.links.iter().find(|links| links.gpu == at)
    }

    fn errors_of(&self, at: u32) -> Option<&LinkErrors> {
        self.errors.iter().find(|(gpu, _)| *gpu == at).map(|(_, errors)| errors)
    }
}

impl Vitals {
    /// Takes in a look, and says what is to be told.
    pub fn see(&mut self, rules: &VitalRules, shown: &Shown, now: Timestamp) -> Vec<Vital> {
        let mut told = Vec::new();
        for (gpu, at) in shown.gpus.iter().zip(0..) {
            let Some(uuid) = gpu.uuid.clone() else { continue };
            let device = self.gpus.entry(uuid.clone()).or_default();
            let mut tell = |kind, action, evidence| told.push(Vital { gpu: uuid.clone(), kind, action, evidence });
            let heat = &rules.thermal;
            if device.heat.see(heat.is_hot(gpu), now, heat.lasts) {
                tell(SignalKind::Thermal, heat.action, heat.in_words(gpu));
            }
            let brake = &rules.power_brake;
            if device.brake.see(gpu.power_braked, now, brake.lasts) {
                let text = format!("it is slowed down by the power supply, for {:#}", brake.lasts);
                tell(SignalKind::Power, brake.action, text);
            }
            for text in device.links.see(&rules.nvlink, shown.links_of(at), shown.errors_of(at), now) {
                tell(SignalKind::NvLink, rules.nvlink.action, text);
            }
        }
        told
    }

    /// Links that were up when they were seen before and are not any more, by their GPU.
    pub fn fallen(&self, shown: &Shown) -> Vec<(String, Vec<usize>)> {
        let of = |(gpu, at): (&SmiGpu, u32)| {
            let uuid = gpu.uuid.clone()?;
            let fallen = self.gpus.get(&uuid)?.links.fallen(shown.links_of(at)?);
            (!fallen.is_empty()).then_some((uuid, fallen))
        };
        shown.gpus.iter().zip(0..).filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests;
