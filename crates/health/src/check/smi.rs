//! `nvidia-smi -q`: what the driver says of its devices. The check where there is no DCGM.
//!
//! The whole answer is asked for, and not single fields: a driver that does not know one field of a query refuses all of
//! them. It is a tree by indentation; what is not in it is not known, and never well or broken.

use serde::{Deserialize, Serialize};

use super::csv::yes_or_no;
use super::diag::missing;
use super::{Checker, Ended, Expected, Fault, Report, Verdict, text_of};
use crate::action::Action;
use crate::kernel::Pci;
use crate::recovery_action::RecoveryAction;
use crate::text::evidence;

const MOST_LINES: usize = 50_000;
/// More errors of SRAM that cannot be mended, over its life, than a GPU may have.
const MOST_SRAM_ERRORS: u64 = 4;

/// A device, as far as it tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmiGpu {
    pub pci: Option<Pci>,
    pub uuid: Option<String>,
    pub recovery: Option<RecoveryAction>,
    pub remap_pending: Option<bool>,
    pub remap_failure: Option<bool>,
    /// The driver's own word for the threshold of errors of SRAM.
    pub sram_over: Option<bool>,
    /// Errors of SRAM that could not be mended, over its life.
    pub sram_aggregate: Option<u64>,
    /// The same since the last reset.
    pub sram_volatile: Option<u64>,
    pub dram_volatile: Option<u64>,
    /// Pages that wait to be retired, before Ampere.
    pub pages_pending: Option<bool>,
    pub hot: Option<bool>,
    /// Of its core.
    pub celsius: Option<u32>,
    pub power_braked: Option<bool>,
    /// In place of a value it says that it is broken.
    pub complaint: Option<String>,
    /// What it says that it needs, in words that nobody knows.
    pub odd_recovery: Option<String>,
}

/// Reads a check by `nvidia-smi -q` alone.
pub fn read_smi(ended: &Ended, output: &[u8], expected: &Expected) -> Report {
    let text = text_of(output);
    let mut remarks = Vec::new();
    let verdict = verdict(&text, ended, expected, &mut remarks);
    remarks.truncate(16);
    Report { by: Checker::NvidiaSmi, verdict, remarks }
}

/// The devices of an answer of `nvidia-smi -q`.
pub fn parse_smi(output: &[u8]) -> Vec<SmiGpu> {
    let text = text_of(output);
    let mut all: Vec<SmiGpu> = Vec::new();
    let mut path: Vec<(usize, &str)> = Vec::new();
    for line in text.lines().take(MOST_LINES) {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        if indent == 0 {
            path.clear();
            if let Some(pci) = trimmed.strip_prefix("GPU ").and_then(Pci::read) {
                all.push(SmiGpu { pci: Some(pci), ..SmiGpu::default() });
            }
            continue;
        }
        path.retain(|(depth, _)| *depth < indent);
        let Some(gpu) = all.last_mut() else { continue };
        match trimmed.split_once(" : ").or_else(|| trimmed.split_once(": ")) {
            Some((key, value)) => {
                let above = path.last().map_or("", |(_, name)| *name);
                let part = path.iter().rev().nth(1).map_or("", |(_, name)| *name);
                gpu.tell(part, above, key.trim(), value.trim());
            }
            None if path.len() < 16 => path.push((indent, trimmed)),
            None => {}
        }
    }
    all
}

impl SmiGpu {
    fn tell(&mut self, part: &str, above: &str, key: &str, value: &str) {
        // Only these: fields are in brackets for many harmless reasons, such as those that are no longer offered.
        let bare = value.strip_prefix('[').and_then(|value| value.strip_suffix(']')).unwrap_or(value);
        if matches!(bare, "GPU requires reset" | "GPU is lost" | "Unknown Error") {
            self.complaint.get_or_insert_with(|| bare.to_owned());
        }
        match (part, above, key) {
            (_, _, "GPU UUID") if value.starts_with("GPU-") && value.len() <= 80 => self.uuid = Some(evidence(value)),
            (_, _, "GPU Recovery Action") => {
                self.recovery = RecoveryAction::from_words(value);
                let is_odd = self.recovery.is_none() && !bare.eq_ignore_ascii_case("n/a") && bare != "Not Supported";
                self.odd_recovery = is_odd.then(|| evidence(bare));
            }
            (_, "Remapped Rows", "Pending") => self.remap_pending = yes_or_no(value),
            (_, "Remapped Rows", "Remapping Failure Occurred") => self.remap_failure = yes_or_no(value),
            (_, "Retired Pages", "Pending Page Blacklist" | "Pending") => self.pages_pending = yes_or_no(value),
            (_, _, "SRAM Threshold Exceeded") => self.sram_over = yes_or_no(value),
            ("ECC Errors", "Volatile", key) if key.starts_with("SRAM Uncorrectable") => {
                add(&mut self.sram_volatile, value)
            }
            ("ECC Errors", "Volatile", "DRAM Uncorrectable") => add(&mut self.dram_volatile, value),
            ("ECC Errors", "Aggregate", key) if key.starts_with("SRAM Uncorrectable") => {
                add(&mut self.sram_aggregate, value)
            }
            (_, "Temperature", "GPU Current Temp") => {
                self.celsius = value.strip_suffix(" C").and_then(|degrees| degrees.trim().parse().ok());
            }
            (_, _, "HW Thermal Slowdown") => self.hot = yes_or_no(value),
            (_, _, "HW Power Brake Slowdown") => self.power_braked = yes_or_no(value),
            _ => {}
        }
    }

    /// Errors of SRAM are over what the vendor allows; `None`: the device does not tell.
    pub fn is_over_sram_threshold(&self) -> Option<bool> {
        self.sram_over.or(self.sram_aggregate.map(|errors| errors > MOST_SRAM_ERRORS))
    }

    fn faults(&self, expected: &Expected, remarks: &mut Vec<String>) -> Vec<Fault> {
        let gpu = self.uuid.clone().or_else(|| expected.by_pci(self.pci?));
        let place = self.pci.map_or(String::new(), |pci| pci.to_string());
        let mut faults = Vec::new();
        let mut fault = |test: &str, action: Action, text: String| {
            faults.push(Fault {
                gpu: gpu.clone(),
                test: test.to_owned(),
                error: None,
                action,
                text: format!("{place}: {text}"),
            });
        };
        if let Some(complaint) = &self.complaint {
            let is_reset = complaint.eq_ignore_ascii_case("gpu requires reset");
            let action = if is_reset { Action::ResetGpu } else { Action::RebootNode };
            fault("device", action, format!("it answers `{complaint}`"));
        }
        if let Some(recovery) = self.recovery.filter(|recovery| *recovery != RecoveryAction::None) {
            // Work is off the GPU while it is checked.
            let action = if recovery.action() == Action::ResetWhenIdle { Action::ResetGpu } else { recovery.action() };
            fault("recovery action", action, format!("the driver says: {}", recovery.words()));
        }
        if self.remap_failure == Some(true) {
            fault("remapped rows", Action::FieldDiag, "a bad row of memory could not be replaced".to_owned());
        } else if self.remap_pending == Some(true) || self.pages_pending == Some(true) {
            fault("remapped rows", Action::ResetGpu, "memory waits for a reset to be replaced".to_owned());
        }
        if self.is_over_sram_threshold() == Some(true) {
            fault("ECC", Action::FieldDiag, "errors of SRAM are over the threshold".to_owned());
        } else if let Some(errors) = self.sram_volatile.filter(|errors| *errors > 0) {
            fault("ECC", Action::ResetGpu, format!("{errors} errors of SRAM since the last reset cannot be mended"));
        }
        if let Some(errors) = self.dram_volatile.filter(|errors| *errors > 0) {
            remarks.push(format!("{place}: {errors} errors of DRAM since the last reset could not be mended"));
        }
        if let Some(odd) = &self.odd_recovery {
            remarks.push(format!("{place}: the driver says that it needs `{odd}`, which is in no table"));
        }
        if self.hot == Some(true) {
            remarks.push(format!("{place}: it is slowed down by the hardware for heat"));
        }
        if self.power_braked == Some(true) {
            remarks.push(format!("{place}: it is slowed down by the power supply"));
        }
        faults
    }
}

/// Parity and SEC-DED are told apart by newer drivers; what counts is their sum.
fn add(sum: &mut Option<u64>, value: &str) {
    if let Ok(count) = value.parse::<u64>() {
        *sum = Some(sum.unwrap_or(0).saturating_add(count));
    }
}

fn verdict(text: &str, ended: &Ended, expected: &Expected, remarks: &mut Vec<String>) -> Verdict {
    let mut faults = Vec::new();
    for line in text.lines().take(MOST_LINES).map(str::trim) {
        if let Some(rest) = line.strip_prefix("Unable to determine the device handle for GPU") {
            let pci = rest.split_whitespace().next().and_then(|word| Pci::read(word.trim_end_matches(':')));
            let gpu = pci.and_then(|pci| expected.by_pci(pci));
            faults.push(Fault {
                gpu,
                test: "device".to_owned(),
                error: None,
                action: Action::RebootNode,
                text: evidence(line),
            });
        }
    }
    faults.truncate(64);
    let gpus = parse_smi(text.as_bytes());
    for fault in gpus.iter().flat_map(|gpu| gpu.faults(expected, remarks)).collect::<Vec<_>>() {
        let is_meant =
            |uuid: &String| expected.devices.is_empty() || expected.devices.iter().any(|device| device.uuid == *uuid);
        // Of GPUs that this check is not about, somebody else may be making use.
        if fault.gpu.as_ref().is_none_or(is_meant) { faults.push(fault) } else { remarks.push(fault.text) }
    }
    let node = |action, text: &str| Fault {
        gpu: None,
        test: "nvidia-smi".to_owned(),
        error: None,
        action,
        text: text.to_owned(),
    };
    let none_found = text.contains("No devices were found");
    let is_known_lost = !faults.is_empty();
    match ended {
        Ended::Code(8) => faults.push(node(Action::CheckMechanicals, "a power cable is missing (it ended with 8)")),
        Ended::Code(10) => faults.push(node(Action::RebootNode, "a device has no interrupts (it ended with 10)")),
        Ended::Code(14) => faults.push(node(Action::ResetGpu, "the infoROM is corrupted (it ended with 14)")),
        Ended::Code(15) if !is_known_lost => {
            faults.push(node(Action::RebootNode, "a GPU has fallen off the bus (it ended with 15)"));
        }
        Ended::Code(_) | Ended::Signal(_) | Ended::TimedOut | Ended::NeverRan(_) => {}
    }
    let has_answered = !gpus.is_empty() || none_found;
    if has_answered {
        let told = |uuid: &str| {
            let is_it = |gpu: &SmiGpu| gpu.uuid.as_deref() == Some(uuid);
            gpus.iter().any(is_it) || faults.iter().any(|fault| fault.gpu.as_deref() == Some(uuid))
        };
        let lost: Vec<Fault> = expected.devices.iter().filter(|device| !told(&device.uuid)).map(missing).collect();
        if !lost.is_empty() {
            // A complaint about nobody in particular is about those that are not there.
            let (named, nameless): (Vec<_>, Vec<_>) =
                faults.into_iter().partition(|fault| fault.gpu.is_some() || fault.action != Action::RebootNode);
            remarks.extend(nameless.into_iter().map(|fault| fault.text));
            faults = named;
        }
        faults.extend(lost);
    }
    if !faults.is_empty() {
        return Verdict::Fail { faults };
    }
    match ended {
        Ended::NeverRan(why) => Verdict::Infrastructure { why: evidence(why), again_after: 60 },
        Ended::Code(126 | 127) => Verdict::Infrastructure {
            why: "there is no `nvidia-smi`, or it may not be run".to_owned(),
            again_after: 300,
        },
        Ended::Code(12) => {
            Verdict::Infrastructure { why: "the driver's library is missing".to_owned(), again_after: 300 }
        }
        Ended::Code(4) => {
            Verdict::Infrastructure { why: "`nvidia-smi` may not ask the devices".to_owned(), again_after: 300 }
        }
        Ended::TimedOut | Ended::Code(124 | 137) | Ended::Signal(9) => Verdict::Inconclusive {
            why: "`nvidia-smi` did not answer in time: the driver or a device hangs".to_owned(),
        },
        Ended::Code(9) => Verdict::Inconclusive { why: "the driver is not loaded, or does not answer (9)".to_owned() },
        Ended::Code(0) if !gpus.is_empty() => Verdict::Pass,
        Ended::Code(0) => Verdict::Inconclusive { why: "`nvidia-smi` told of no device".to_owned() },
        Ended::Code(code) => Verdict::Inconclusive { why: format!("`nvidia-smi` ended with {code}") },
        Ended::Signal(signal) => Verdict::Inconclusive { why: format!("`nvidia-smi` was ended by signal {signal}") },
    }
}
