//! What a check of a node found: by DCGM, or where there is none, by `nvidia-smi` alone.
//!
//! Running a check is the caller's, under a deadline; here is what it printed and how it ended, and what that means. There
//! are four answers and never a fifth: it passed; it failed, with what is broken; it ran and found neither; it could not be
//! run, which says nothing about the GPUs. An end that nobody understands is not a pass.

mod codes;
mod csv;
mod diag;
mod diag_text;
mod health;
mod nvlink;
mod smi;

use pitcrew_core::recovery::{Advice, CheckLevel, CheckOutcome};
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::kernel::Pci;

pub use csv::{ClockReasons, RemappedRows, parse_remapped_rows};
pub use diag::read_diag;
pub use health::read_health;
pub use nvlink::{Link, Links, parse_link_errors, parse_links};
pub use smi::{SmiGpu, parse_smi, read_smi};

/// Text of an answer that is looked at.
const MOST_TEXT: usize = 1 << 20;

/// How a program that was asked ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// As a shell tells it.
    Code(i32),
    Signal(i32),
    /// Whoever asked gave up.
    TimedOut,
    /// It was never started, and why: no such program, no image, no connection.
    NeverRan(String),
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    Pass,
    /// At least one fault.
    Fail {
        faults: Vec<Fault>,
    },
    /// It ran, and says neither.
    Inconclusive {
        why: String,
    },
    /// It could not be run. It may be worth trying again after so many seconds.
    Infrastructure {
        why: String,
        again_after: u32,
    },
}

/// Something that is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// UUID; `None`: it is not known which, or it is the node's.
    pub gpu: Option<String>,
    /// The test, or what was asked.
    pub test: String,
    /// In DCGM's numbering.
    pub error: Option<u32>,
    pub action: Action,
    /// What was said about it.
    pub text: String,
}

/// Who checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checker {
    DcgmDiag,
    DcgmHealth,
    /// Only what the driver says of itself: a pass says less than one of DCGM's.
    NvidiaSmi,
}

/// A check, read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub by: Checker,
    pub verdict: Verdict,
    /// What is worth knowing and is no fault.
    pub remarks: Vec<String>,
}

/// A GPU of the node that is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// As DCGM and `nvidia-smi` count them.
    pub index: u32,
    pub uuid: String,
    pub pci: Option<Pci>,
}

/// What should be there. With no devices nothing is missed, and faults have no names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    pub devices: Vec<Device>,
}

impl Ended {
    /// As a shell shows it.
    fn code(&self) -> Option<i32> {
        match self {
            Ended::Code(code) => Some(*code),
            Ended::Signal(signal) => Some(128 + signal),
            Ended::TimedOut | Ended::NeverRan(_) => None,
        }
    }
}

impl Expected {
    pub(crate) fn by_index(&self, index: u32) -> Option<String> {
        self.devices.iter().find(|device| device.index == index).map(|device| device.uuid.clone())
    }

    pub(crate) fn by_pci(&self, pci: Pci) -> Option<String> {
        self.devices.iter().find(|device| device.pci == Some(pci)).map(|device| device.uuid.clone())
    }
}

impl Report {
    /// As recovery takes it.
    pub fn outcome(&self) -> CheckOutcome {
        match &self.verdict {
            Verdict::Pass => CheckOutcome::Pass,
            Verdict::Inconclusive { .. } => CheckOutcome::Inconclusive,
            Verdict::Infrastructure { .. } => CheckOutcome::Infrastructure,
            Verdict::Fail { faults } => {
                // A fault whose GPU is not known may be any of them.
                let mut gpus: Vec<String> = faults.iter().filter_map(|fault| fault.gpu.clone()).collect();
                gpus.sort();
                gpus.dedup();
                if faults.iter().any(|fault| fault.gpu.is_none()) {
                    gpus.clear();
                }
                CheckOutcome::Fail { gpus, advice: advice(faults) }
            }
        }
    }

    /// It says less than a check of DCGM would.
    pub fn is_weaker(&self) -> bool {
        match self.by {
            Checker::DcgmDiag => false,
            Checker::DcgmHealth | Checker::NvidiaSmi => true,
        }
    }

    /// In a line, for people.
    pub fn in_words(&self) -> String {
        let by = match self.by {
            Checker::DcgmDiag => "DCGM's diagnostics",
            Checker::DcgmHealth => "DCGM's health watches",
            Checker::NvidiaSmi => "`nvidia-smi` (weaker than DCGM's diagnostics)",
        };
        match &self.verdict {
            Verdict::Pass => format!("{by}: passed"),
            Verdict::Fail { faults } => {
                let mut all: Vec<String> = Vec::new();
                for words in faults.iter().map(Fault::in_words) {
                    // Two tests may say the same.
                    if all.len() < 8 && !all.contains(&words) {
                        all.push(words);
                    }
                }
                format!("{by}: {}", all.join("; "))
            }
            Verdict::Inconclusive { why } => format!("{by}: no verdict: {why}"),
            Verdict::Infrastructure { why, again_after } => {
                format!("{by}: could not be run: {why}; again after {again_after} s")
            }
        }
    }
}

impl Fault {
    fn in_words(&self) -> String {
        let gpu = self.gpu.as_deref().map_or(String::new(), |gpu| format!("{gpu}: "));
        format!("{gpu}{}: {} ({})", self.test, self.text, self.action)
    }
}

/// The strongest of what the faults ask for. One that asks for nothing is a fault all the same; nothing that can be done from
/// here cools a machine that is too hot while it is checked.
fn advice(faults: &[Fault]) -> Advice {
    let of = |fault: &Fault| match fault.action {
        Action::CheckThermals => Advice::ContactSupport,
        action => action.advice(),
    };
    faults.iter().map(of).max().unwrap_or(Advice::Check).max(Advice::Check)
}

/// What is asked of DCGM for a level, and for how many seconds.
pub fn level(level: CheckLevel) -> (u8, u32) {
    match level {
        CheckLevel::Quick => (1, 120),
        CheckLevel::Medium => (2, 360),
        CheckLevel::Long => (3, 1800),
    }
}

/// As much of an answer as is looked at.
fn text_of(output: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&output[..output.len().min(MOST_TEXT)])
}

#[cfg(test)]
mod tests;
