//! What an XID asks for, once its rule is applied to what is known besides.
//!
//! A rule whose fact is not known leaves the table's action, and says which fact would change it ([`Judgement::open`]), so
//! whoever can ask the machine does so and judges again.

use serde::{Deserialize, Serialize};

use crate::action::{Action, Blame};
use crate::check::SmiGpu;
use crate::kernel::{DriverVersion, XidLine};
use crate::tables::{Rule, Tables};

/// What is known besides the line itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    pub driver: Option<DriverVersion>,
    /// Rows of memory wait to be replaced.
    pub remap_pending: Option<bool>,
    /// Errors of SRAM are over the vendor's threshold.
    pub sram_over: Option<bool>,
    /// Another XID of the same GPU came just before.
    pub is_secondary: bool,
}

impl Facts {
    /// With what the driver says of the GPU by now.
    pub fn with_device(self, gpu: &SmiGpu) -> Facts {
        Facts {
            remap_pending: gpu.remap_pending.or(self.remap_pending),
            sram_over: gpu.is_over_sram_threshold().or(self.sram_over),
            ..self
        }
    }
}

/// What is to be done, by whose fault, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    pub action: Action,
    pub blame: Blame,
    /// For people.
    pub why: String,
    /// This rule could not be applied: its fact is not known.
    #[serde(default)]
    pub open: Option<Rule>,
}

/// Judges an XID.
pub fn judge(line: &XidLine, tables: &Tables, facts: &Facts) -> Judgement {
    let Some(entry) = tables.xid(line.code) else {
        let why = format!("XID {} is in no table", line.code);
        return Judgement { action: Action::ContactSupport, blame: Blame::System, why, open: None };
    };
    let as_table = |more: &str, open| Judgement {
        action: entry.action,
        blame: entry.blame,
        why: format!("XID {}, {}: {}{more}", entry.xid, entry.name, entry.about),
        open,
    };
    let other = |action, blame, more: &str| Judgement { action, blame, ..as_table(more, None) };
    match (entry.when, facts) {
        (None, _) => as_table("", None),
        (Some(Rule::Secondary), Facts { is_secondary: true, .. }) => {
            other(Action::Ignore, Blame::System, "; it follows another XID of the same GPU")
        }
        (Some(Rule::Secondary), Facts { is_secondary: false, .. }) => as_table("; it came alone", None),
        (Some(rule @ Rule::RemapPending), facts) => match facts.remap_pending {
            Some(true) => other(Action::ResetWhenIdle, entry.blame, "; it waits for a reset"),
            Some(false) => as_table("; no row waits to be replaced", None),
            None => as_table("", Some(rule)),
        },
        (Some(rule @ Rule::SramThreshold), facts) => match facts.sram_over {
            Some(true) => other(Action::FieldDiag, entry.blame, "; errors of SRAM are over the threshold"),
            Some(false) => as_table("", None),
            None => as_table("", Some(rule)),
        },
        (Some(rule @ Rule::RecoveryText), _) => match line.recovery {
            Some(recovery) => other(recovery.action(), entry.blame, &format!(" ({})", recovery.words())),
            None => as_table("", Some(rule)),
        },
        (Some(Rule::LinkSeverity), facts) => {
            let details = facts.driver.map_or("", DriverVersion::link_details);
            let form = if details.is_empty() { String::new() } else { format!(" (details in form {details})") };
            match line.is_fatal_link {
                Some(false) => other(Action::Ignore, entry.blame, &format!("; not fatal{form}")),
                Some(true) => as_table(&format!("; fatal{form}"), None),
                None => as_table(&form, None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{KernelEvent, read_message};

    fn judged(text: &str, facts: &Facts) -> (Action, Blame, Option<Rule>) {
        let text = format!("NVRM: Xid (PCI:0000:66:00): {text}");
        let Some(KernelEvent::Xid(line)) = read_message(text.as_bytes()) else { panic!("{text}") };
        let judgement = judge(&line, Tables::usual(), facts);
        assert!(judgement.why.contains("XID"), "{judgement:?}");
        (judgement.action, judgement.blame, judgement.open)
    }

    #[test]
    fn rules_are_applied_to_what_is_known() {
        let none = Facts::default();
        assert_eq!(judged("79, GPU has fallen off the bus.", &none), (Action::RebootNode, Blame::Hardware, None));
        assert_eq!(judged("4711, x", &none), (Action::ContactSupport, Blame::System, None));

        assert_eq!(judged("13, x", &none), (Action::RestartApp, Blame::Application, None));
        assert_eq!(judged("45, x", &none).0, Action::RestartApp);
        assert_eq!(judged("45, x", &Facts { is_secondary: true, ..none }).0, Action::Ignore);

        assert_eq!(judged("63, x", &none), (Action::Ignore, Blame::Hardware, Some(Rule::RemapPending)));
        assert_eq!(judged("63, x", &Facts { remap_pending: Some(true), ..none }).0, Action::ResetWhenIdle);
        assert_eq!(
            judged("63, x", &Facts { remap_pending: Some(false), ..none }),
            (Action::Ignore, Blame::Hardware, None)
        );

        assert_eq!(judged("48, x", &none), (Action::ResetGpu, Blame::Hardware, Some(Rule::SramThreshold)));
        assert_eq!(judged("48, x", &Facts { sram_over: Some(true), ..none }).0, Action::FieldDiag);
        assert_eq!(
            judged("48, x", &Facts { sram_over: Some(false), ..none }),
            (Action::ResetGpu, Blame::Hardware, None)
        );

        let reboot = "154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)";
        assert_eq!(judged(reboot, &none).0, Action::RebootNode);
        let well = "154, GPU recovery action changed from 0x2 (Node Reboot Required) to 0x0 (None)";
        assert_eq!(judged(well, &none).0, Action::Ignore);
        assert_eq!(judged("154, ?", &none), (Action::Diagnose, Blame::Hardware, Some(Rule::RecoveryText)));

        let new = Facts { driver: DriverVersion::read("575.57.08"), ..none };
        assert_eq!(judged("149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x0)", &new).0, Action::Nvlink);
        assert_eq!(judged("149, NETIR_LINK_EVT Nonfatal XC0 i0 Link 08 (0x0)", &new).0, Action::Ignore);
        assert_eq!(judged("149, ?", &none).0, Action::Nvlink);
    }

    #[test]
    fn what_the_driver_says_of_the_gpu_closes_what_was_open() {
        let smi = "GPU 00000000:66:00.0\n    Remapped Rows\n        Pending : Yes\n    ECC Errors\n        Aggregate\n            SRAM Uncorrectable : 9\n";
        let gpu = crate::check::parse_smi(smi.as_bytes()).remove(0);
        let facts = Facts::default().with_device(&gpu);
        assert_eq!(judged("63, x", &facts), (Action::ResetWhenIdle, Blame::Hardware, None));
        assert_eq!(judged("48, x", &facts), (Action::FieldDiag, Blame::Hardware, None));
        assert_eq!(Facts::default().with_device(&SmiGpu::default()), Facts::default());
    }

    #[test]
    fn an_override_stands_without_the_rule_of_the_table() {
        let overrides = serde_json::from_str(r#"{"xid": {"63": {"action": "reset_gpu"}}}"#).unwrap();
        let tables = Tables::with(&overrides).unwrap();
        let Some(KernelEvent::Xid(line)) = read_message(b"NVRM: Xid (PCI:0000:66:00): 63, x") else { panic!() };
        let facts = Facts { remap_pending: Some(false), ..Facts::default() };
        assert_eq!(judge(&line, &tables, &facts).action, Action::ResetGpu);
    }
}
