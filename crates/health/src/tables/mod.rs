//! What each XID of the driver and each error of DCGM means: data, not code.
//!
//! `xid.json` and `dcgm.json` are read when they are first needed, and a test reads them at every change. Users override
//! single entries ([`Overrides`]). A number that is in no table asks for the vendor's support, and is never an error of ours.

mod overrides;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::action::{Action, Blame};

pub use overrides::{DcgmOverride, Meanings, Overrides, XidOverride};

/// What an XID of the kernel log means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xid {
    pub xid: u32,
    pub name: String,
    /// What happened, for people.
    pub about: String,
    pub action: Action,
    pub blame: Blame,
    /// Without a rule the action always holds.
    #[serde(default)]
    pub when: Option<Rule>,
    /// What a person does, where it is more than the action says.
    #[serde(default)]
    pub person: Option<String>,
}

/// What changes the action of an XID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// It follows from another XID of the same GPU, which is acted upon in its place.
    Secondary,
    /// Rows that wait to be replaced make the GPU be reset when it is idle.
    RemapPending,
    /// Over the vendor's threshold of errors of SRAM the GPU is to be replaced.
    SramThreshold,
    /// The line itself says what the driver wants.
    RecoveryText,
    /// The line says whether it was fatal; what else is in it depends on the version of the driver.
    LinkSeverity,
}

/// What an error of DCGM's checks means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DcgmError {
    pub id: u32,
    /// As in DCGM, without `DCGM_FR_`.
    pub name: String,
    pub about: String,
    pub action: Action,
    pub severity: Severity,
    pub category: Category,
}

/// DCGM's word for how bad an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    None,
    /// Work can go on; somebody should keep an eye on it.
    Monitor,
    /// The GPU can do no work.
    Isolate,
    Unknown,
    /// Somebody has to find out.
    Triage,
    /// The configuration is at fault.
    Config,
    /// Drain it and reset it.
    Reset,
}

/// DCGM's word for what an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    None,
    PerfThreshold,
    PerfViolation,
    SoftwareConfig,
    SoftwareLibrary,
    SoftwareXid,
    SoftwareCuda,
    SoftwareEud,
    SoftwareOther,
    HardwareThermal,
    HardwareMemory,
    HardwareNvlink,
    HardwareNvswitch,
    HardwarePcie,
    HardwarePower,
    HardwareOther,
    InternalOther,
}

/// All meanings, with a user's overrides in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    xids: BTreeMap<u32, Xid>,
    dcgm: BTreeMap<u32, DcgmError>,
}

static USUAL: LazyLock<Tables> = LazyLock::new(|| {
    let xids: Vec<Xid> = serde_json::from_str(include_str!("xid.json")).expect("a test reads this table");
    let dcgm: Vec<DcgmError> = serde_json::from_str(include_str!("dcgm.json")).expect("a test reads this table");
    Tables {
        xids: xids.into_iter().map(|xid| (xid.xid, xid)).collect(),
        dcgm: dcgm.into_iter().map(|error| (error.id, error)).collect(),
    }
});

impl Tables {
    /// Without overrides.
    pub fn usual() -> &'static Tables {
        &USUAL
    }

    /// `None`: nobody has told what it means.
    pub fn xid(&self, code: u32) -> Option<&Xid> {
        self.xids.get(&code)
    }

    pub fn xids(&self) -> impl Iterator<Item = &Xid> {
        self.xids.values()
    }

    pub fn dcgm(&self, id: u32) -> Option<&DcgmError> {
        self.dcgm.get(&id)
    }

    pub fn dcgm_errors(&self) -> impl Iterator<Item = &DcgmError> {
        self.dcgm.values()
    }

    /// What an XID asks for and whose fault it is, before any rule.
    pub fn xid_action(&self, code: u32) -> (Action, Blame) {
        self.xid(code).map_or((Action::ContactSupport, Blame::System), |xid| (xid.action, xid.blame))
    }

    /// What an error of DCGM asks for.
    pub fn dcgm_action(&self, id: u32) -> Action {
        self.dcgm(id).map_or(Action::ContactSupport, |error| error.action)
    }
}

impl Severity {
    pub fn from_code(code: u32) -> Severity {
        match code {
            0 => Severity::None,
            1 => Severity::Monitor,
            2 => Severity::Isolate,
            4 => Severity::Triage,
            5 => Severity::Config,
            6 => Severity::Reset,
            _ => Severity::Unknown,
        }
    }
}

impl Category {
    const ALL: [Category; 17] = [
        Category::None,
        Category::PerfThreshold,
        Category::PerfViolation,
        Category::SoftwareConfig,
        Category::SoftwareLibrary,
        Category::SoftwareXid,
        Category::SoftwareCuda,
        Category::SoftwareEud,
        Category::SoftwareOther,
        Category::HardwareThermal,
        Category::HardwareMemory,
        Category::HardwareNvlink,
        Category::HardwareNvswitch,
        Category::HardwarePcie,
        Category::HardwarePower,
        Category::HardwareOther,
        Category::InternalOther,
    ];

    /// In DCGM's numbering; one that it does not have is [`Category::InternalOther`].
    pub fn from_code(code: u32) -> Category {
        Category::ALL.get(code as usize).copied().unwrap_or(Category::InternalOther)
    }

    /// An XID that the driver told of is about the device as well.
    pub fn is_hardware(self) -> bool {
        match self {
            Category::HardwareThermal
            | Category::HardwareMemory
            | Category::HardwareNvlink
            | Category::HardwareNvswitch
            | Category::HardwarePcie
            | Category::HardwarePower
            | Category::HardwareOther
            | Category::SoftwareXid => true,
            Category::None
            | Category::PerfThreshold
            | Category::PerfViolation
            | Category::SoftwareConfig
            | Category::SoftwareLibrary
            | Category::SoftwareCuda
            | Category::SoftwareEud
            | Category::SoftwareOther
            | Category::InternalOther => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Vec<u32> {
        let range = |part: &str| -> std::ops::RangeInclusive<u32> {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            first.parse().unwrap()..=last.parse().unwrap()
        };
        text.split_whitespace().flat_map(range).collect()
    }

    #[test]
    fn every_xid_that_vendors_list_is_in_the_table_with_its_action() {
        let tables = Tables::usual();
        let restart = "8 11 13 25 31 32 39-41 60 68-72 75-77 80 82-86 94 96-105 126-135 139";
        let ignored = "14 37 38 43 44 63 66 67 92 93 106 107 121 137 141 152 153 157 160 161";
        let reset = "46 48 62 64 95 109 110 119 120 136 140 143 155 156 158";
        for (list, action) in [
            (restart, Action::RestartApp),
            (ignored, Action::Ignore),
            (reset, Action::ResetGpu),
            ("74 144-150", Action::Nvlink),
            ("79", Action::RebootNode),
            ("151", Action::RestartVm),
            ("54", Action::CheckMechanicals),
            ("78", Action::UpdateSoftware),
            ("159", Action::CheckUvm),
            ("142", Action::ContactSupport),
            ("154", Action::Diagnose),
        ] {
            for code in numbers(list) {
                assert_eq!(tables.xid(code).map(|xid| xid.action), Some(action), "XID {code}");
            }
        }
        assert_eq!(tables.xid_action(9999), (Action::ContactSupport, Blame::System));
    }

    #[test]
    fn what_depends_on_something_says_on_what() {
        let rule = |code| Tables::usual().xid(code).unwrap().when;
        assert_eq!((rule(48), rule(172)), (Some(Rule::SramThreshold), Some(Rule::SramThreshold)));
        assert_eq!((rule(63), rule(154)), (Some(Rule::RemapPending), Some(Rule::RecoveryText)));
        assert_eq!(rule(45), Some(Rule::Secondary));
        assert!((144..=150).all(|code| rule(code) == Some(Rule::LinkSeverity)));
        assert_eq!((rule(79), rule(94)), (None, None));
    }

    #[test]
    fn errors_of_dcgm_have_no_gaps_and_names_of_their_own() {
        let tables = Tables::usual();
        let ids: Vec<u32> = tables.dcgm_errors().map(|error| error.id).collect();
        assert_eq!(ids, (0..=132).collect::<Vec<_>>());
        let names: std::collections::BTreeSet<_> = tables.dcgm_errors().map(|error| &error.name).collect();
        assert_eq!(names.len(), ids.len());
        for (id, name, action) in [
            (4, "VOLATILE_DBE_DETECTED", Action::ResetGpu),
            (9, "CORRUPT_INFOROM", Action::ResetGpu),
            (14, "NVLINK_DOWN", Action::RebootNode),
            (40, "THERMAL_VIOLATIONS", Action::CheckThermals),
            (47, "ABORTED", Action::Ignore),
            (52, "FAULTY_MEMORY", Action::FieldDiag),
            (80, "ROW_REMAP_FAILURE", Action::FieldDiag),
            (81, "UNCONTAINED_ERROR", Action::RebootNode),
            (85, "PENDING_ROW_REMAP", Action::ResetGpu),
            (101, "XID_ERROR", Action::RebootNode),
            (120, "FALLEN_OFF_BUS", Action::RebootNode),
            (125, "GPU_RECOVERY_RESET", Action::ResetGpu),
            (126, "GPU_RECOVERY_REBOOT", Action::RebootNode),
            (28, "BAD_CUDA_ENV", Action::ReportIssue),
        ] {
            let error = tables.dcgm(id).unwrap();
            assert_eq!((error.name.as_str(), error.action), (name, action));
        }
        assert_eq!(tables.dcgm_action(5000), Action::ContactSupport);
    }

    #[test]
    fn severities_and_categories_are_numbered_as_in_dcgm() {
        assert_eq!(Severity::from_code(6), Severity::Reset);
        assert_eq!(Severity::from_code(77), Severity::Unknown);
        for (code, category) in [
            (5, Category::SoftwareXid),
            (9, Category::HardwareThermal),
            (10, Category::HardwareMemory),
            (11, Category::HardwareNvlink),
            (12, Category::HardwareNvswitch),
            (13, Category::HardwarePcie),
            (14, Category::HardwarePower),
            (99, Category::InternalOther),
        ] {
            assert_eq!(Category::from_code(code), category);
        }
    }
}
