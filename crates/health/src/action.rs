//! What a sign asks for, and who is to blame for it.
//!
//! An [`Action`] is the advice in a table, as fine as vendors give it. Recovery knows fewer: an [`Advice`] is what it can
//! do without a person, weakest first, so of several signs the strongest one counts.

use std::fmt;
use std::str::FromStr;

use pitcrew_core::recovery::{Advice, Class};
use serde::{Deserialize, Serialize};

use crate::text::did_you_mean;

/// Advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Action {
    Ignore,
    RestartApp,
    Diagnose,
    ResetWhenIdle,
    ResetGpu,
    Nvlink,
    RebootNode,
    RestartVm,
    FieldDiag,
    CheckMechanicals,
    CheckThermals,
    CheckUvm,
    UpdateSoftware,
    ReportIssue,
    ContactSupport,
}

/// Whose fault it is, as far as the sign alone tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// What the task itself did.
    Application,
    /// The GPU, the board, a link.
    Hardware,
    /// Driver, firmware, configuration.
    System,
}

impl Action {
    pub const ALL: [Action; 15] = [
        Action::Ignore,
        Action::RestartApp,
        Action::Diagnose,
        Action::ResetWhenIdle,
        Action::ResetGpu,
        Action::Nvlink,
        Action::RebootNode,
        Action::RestartVm,
        Action::FieldDiag,
        Action::CheckMechanicals,
        Action::CheckThermals,
        Action::CheckUvm,
        Action::UpdateSoftware,
        Action::ReportIssue,
        Action::ContactSupport,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Action::Ignore => "ignore",
            Action::RestartApp => "restart_app",
            Action::Diagnose => "diagnose",
            Action::ResetWhenIdle => "reset_when_idle",
            Action::ResetGpu => "reset_gpu",
            Action::Nvlink => "nvlink",
            Action::RebootNode => "reboot_node",
            Action::RestartVm => "restart_vm",
            Action::FieldDiag => "field_diag",
            Action::CheckMechanicals => "check_mechanicals",
            Action::CheckThermals => "check_thermals",
            Action::CheckUvm => "check_uvm",
            Action::UpdateSoftware => "update_software",
            Action::ReportIssue => "report_issue",
            Action::ContactSupport => "contact_support",
        }
    }

    /// What recovery does about it.
    pub fn advice(self) -> Advice {
        match self {
            Action::Ignore | Action::CheckThermals | Action::UpdateSoftware | Action::ReportIssue => Advice::Ignore,
            Action::RestartApp => Advice::RestartApp,
            // What waits for a reset is found by the check, which lets work end before.
            Action::Diagnose | Action::CheckUvm | Action::ContactSupport | Action::ResetWhenIdle => Advice::Check,
            Action::ResetGpu | Action::Nvlink => Advice::ResetGpu,
            Action::RebootNode | Action::RestartVm => Advice::Reboot,
            Action::FieldDiag => Advice::Replace,
            Action::CheckMechanicals => Advice::ContactSupport,
        }
    }

    /// Somebody has to do something that no program can.
    pub fn needs_person(self) -> bool {
        match self {
            Action::FieldDiag
            | Action::CheckMechanicals
            | Action::CheckThermals
            | Action::CheckUvm
            | Action::UpdateSoftware
            | Action::ReportIssue
            | Action::ContactSupport => true,
            Action::Ignore
            | Action::RestartApp
            | Action::Diagnose
            | Action::ResetWhenIdle
            | Action::ResetGpu
            | Action::Nvlink
            | Action::RebootNode
            | Action::RestartVm => false,
        }
    }

    /// What Pitcrew does, for people.
    pub fn what_is_done(self) -> &'static str {
        match self {
            Action::Ignore => "writes it down",
            Action::RestartApp => {
                "tries the task again, and the node stays in use; checks the node, when the same GPU shows such an XID again \
                 within a day, and its task does so on no other GPU"
            }
            Action::Diagnose => "checks the node before anything else runs there",
            Action::ResetWhenIdle => {
                "gives the node no new work, checks it, and resets the GPU when nothing runs there"
            }
            Action::ResetGpu => "takes work off the GPU, resets it, and checks it",
            Action::Nvlink => "resets the GPU and checks it; reboots when that does not help",
            Action::RebootNode => "takes work off the node, reboots it, and checks it",
            Action::RestartVm => "restarts the virtual machine, and checks it",
            Action::FieldDiag => "replaces the node where a provider can, or takes it out of service",
            Action::CheckMechanicals => "takes the node out of service",
            Action::CheckThermals => "writes it down and tells people",
            Action::CheckUvm => "checks the node, and tells people",
            Action::UpdateSoftware => "writes it down and tells people",
            Action::ReportIssue => "writes it down and tells people",
            Action::ContactSupport => "checks the node, and tells people",
        }
    }

    /// What a person does, where the table says nothing else.
    pub fn for_person(self) -> &'static str {
        match self {
            Action::Ignore => "nothing",
            Action::RestartApp => "nothing; when it comes back under one program, look at the program",
            Action::Diagnose => "nothing, unless the check fails",
            Action::ResetWhenIdle => "nothing",
            Action::ResetGpu | Action::Nvlink => "nothing at once; when it comes back, have the GPU replaced",
            Action::RebootNode | Action::RestartVm => "nothing at once; when it comes back, have the GPU replaced",
            Action::FieldDiag => "run the vendor's field diagnostics; have the GPU replaced if they fail",
            Action::CheckMechanicals => "look at the machine: cables, seats, power",
            Action::CheckThermals => "look at the cooling: fans, air, dust, the room",
            Action::CheckUvm => "look for another XID beside it; alone, report it to the vendor",
            Action::UpdateSoftware => "update the driver, or the manager of virtual GPUs, so that both fit",
            Action::ReportIssue => "look at the configuration it names; report it to the vendor if that is right",
            Action::ContactSupport => "ask the vendor, with the line of the log",
        }
    }
}

impl Blame {
    pub fn name(self) -> &'static str {
        match self {
            Blame::Application => "application",
            Blame::Hardware => "hardware",
            Blame::System => "system",
        }
    }
}

impl Blame {
    /// The budget that a failure draws on.
    pub fn class(self) -> Class {
        match self {
            Blame::Application => Class::Application,
            Blame::Hardware | Blame::System => Class::Infrastructure,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Action, String> {
        Action::ALL.into_iter().find(|action| action.name() == text).ok_or_else(|| {
            let names = Action::ALL.map(Action::name);
            let near = did_you_mean(text, names.into_iter());
            format!("there is no action `{}`{near} (one of {})", crate::text::evidence(text), names.join(", "))
        })
    }
}

impl TryFrom<String> for Action {
    type Error = String;

    fn try_from(text: String) -> Result<Action, String> {
        text.parse()
    }
}

impl From<Action> for &'static str {
    fn from(action: Action) -> &'static str {
        action.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_has_a_name_of_its_own_and_is_read_back() {
        for action in Action::ALL {
            assert_eq!(action.name().parse(), Ok(action));
            let json = serde_json::to_string(&action).unwrap();
            assert_eq!(serde_json::from_str::<Action>(&json).unwrap(), action);
        }
        let names: std::collections::BTreeSet<_> = Action::ALL.map(Action::name).into_iter().collect();
        assert_eq!(names.len(), Action::ALL.len());
        let error = "reboot".parse::<Action>().unwrap_err();
        assert!(error.starts_with("there is no action `reboot` (one of ignore, "), "{error}");
        let error = "reset-gpu".parse::<Action>().unwrap_err();
        assert!(error.starts_with("there is no action `reset-gpu`; did you mean `reset_gpu`?"), "{error}");
    }

    #[test]
    fn what_only_a_person_can_do_is_not_tried_by_a_reset_or_a_reboot() {
        for action in Action::ALL.into_iter().filter(|action| action.needs_person()) {
            assert!(!matches!(action.advice(), Advice::ResetGpu | Advice::Reboot), "{action}");
        }
        assert_eq!(Action::ResetWhenIdle.advice(), Advice::Check, "what runs there may end first");
    }
}
