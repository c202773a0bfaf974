//! The true state of nodes: what is broken, until when, and what was done to them.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::super::{Rung, Seen};

/// Something is broken in a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub number: u32,
    pub gpu: String,
    /// The weakest rung that helps; `None`: none does.
    pub fix: Option<Rung>,
    /// The GPU does not show any more.
    pub hides_gpu: bool,
    /// What was done about it so far. Begins anew when a check has passed although it is there.
    pub done: Vec<Rung>,
    /// It came up anew since the fault was there.
    pub restarted: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub name: String,
    pub boot: u32,
    pub gpus: u32,
    pub fault: Option<Fault>,
    /// No line to it until then; what runs there ends when it has lasted too long.
    pub away: Option<Timestamp>,
    pub away_since: Option<Timestamp>,
    /// It is coming up until then.
    pub starting: Option<Timestamp>,
    /// It hangs: only power helps.
    pub hangs: bool,
    pub gone: bool,
    /// Something that speaks against it was sent since the last time that a fault of it was mended.
    pub evidence: bool,
    pub fenced: bool,
    /// Repairs that were begun, with the time of each.
    pub repairs: Vec<(Timestamp, Rung)>,
    /// One of them is under way until then.
    pub repair: Option<(Rung, Timestamp)>,
}

impl Machine {
    pub fn new(name: String) -> Machine {
        Machine {
            name,
            boot: 1,
            gpus: 2,
            fault: None,
            away: None,
            away_since: None,
            starting: None,
            hangs: false,
            gone: false,
            evidence: false,
            fenced: false,
            repairs: Vec::new(),
            repair: None,
        }
    }

    pub fn gpu(&self, at: u32) -> String {
        format!("{}/{at}", self.name)
    }

    pub fn boot_id(&self) -> String {
        format!("{}-boot-{}", self.name, self.boot)
    }

    /// It would answer.
    pub fn answers(&self) -> bool {
        !self.gone && self.away.is_none() && self.starting.is_none() && !self.hangs
    }

    pub fn seen(&self) -> Seen {
        if !self.answers() {
            return Seen { boot_id: None, agent: false, gpus: None };
        }
        let hidden = u32::from(self.fault.as_ref().is_some_and(|fault| fault.hides_gpu));
        Seen { boot_id: Some(self.boot_id()), agent: true, gpus: Some(self.gpus - hidden) }
    }

    /// It comes up anew, as after a reboot of this kind.
    pub fn comes_up(&mut self, by: Rung) {
        self.boot += 1;
        (self.starting, self.hangs) = (None, false);
        if let Some(fault) = &mut self.fault {
            fault.restarted = true;
            if by == Rung::Replace || fault.fix.is_some_and(|fix| fix <= by) {
                (self.fault, self.evidence) = (None, false);
            }
        }
    }

    pub fn reset(&mut self) {
        if self.fault.as_ref().is_some_and(|fault| fault.fix == Some(Rung::ResetGpu)) {
            (self.fault, self.evidence) = (None, false);
        }
    }

    pub fn broken(&self) -> BTreeSet<String> {
        self.fault.iter().map(|fault| fault.gpu.clone()).collect()
    }
}
