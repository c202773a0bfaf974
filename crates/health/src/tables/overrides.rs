//! What a user says about single entries of the tables: `recovery: {xid: {63: {action: reset_gpu}}}`.
//!
//! An action that is overridden stands without the table's rule, unless a rule is given with it: whoever says what to do
//! means it. A number that is in no table may be given as well, for a driver that is newer than the table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Rule, Severity, Tables, Xid};
use crate::action::{Action, Blame};
use crate::exits::{Ends, ExitCodes};
use crate::log::{LogRules, LogWatch};
use crate::tables::{Category, DcgmError};
use crate::text::{did_you_mean, evidence};
use crate::vitals::{Brake, Heat, LinkRules, VitalRules};

/// The greatest number that an XID or an error of DCGM may have.
const GREATEST: u32 = 99_999;

/// Overrides of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overrides {
    /// By number.
    pub xid: BTreeMap<u32, XidOverride>,
    /// By number, or by name with or without `DCGM_FR_`.
    pub dcgm: BTreeMap<String, DcgmOverride>,
    pub exit_codes: ExitCodes,
    pub log: LogRules,
    pub thermal: Heat,
    pub power_brake: Brake,
    pub nvlink: LinkRules,
}

/// All that signs mean, with what a user says about them.
#[derive(Debug, Clone)]
pub struct Meanings {
    pub tables: Tables,
    pub ends: Ends,
    pub log: LogWatch,
    pub vitals: VitalRules,
}

impl Overrides {
    /// Or all that is wrong, each with its place and a remedy.
    pub fn read(&self) -> Result<Meanings, Vec<String>> {
        let mut wrong = Vec::new();
        let mut keep =
            |place: &str, more: Vec<String>| wrong.extend(more.into_iter().map(|why| format!("{place}{why}")));
        let tables = Tables::with(self).map_err(|more| keep("", more)).ok();
        let ends = self.exit_codes.read().map_err(|more| keep("", more)).ok();
        let log = self.log.read().map_err(|more| keep("in `log`: ", more)).ok();
        let (thermal, power_brake, nvlink) = (self.thermal.clone(), self.power_brake.clone(), self.nvlink.clone());
        let vitals = VitalRules { thermal, power_brake, nvlink };
        keep("", vitals.wrong());
        match (tables, ends, log) {
            (Some(tables), Some(ends), Some(log)) if wrong.is_empty() => Ok(Meanings { tables, ends, log, vitals }),
            (Some(_) | None, Some(_) | None, Some(_) | None) => Err(wrong),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XidOverride {
    pub action: Action,
    #[serde(default)]
    pub blame: Option<Blame>,
    #[serde(default)]
    pub when: Option<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DcgmOverride {
    pub action: Action,
}

impl Tables {
    /// The usual tables with these entries in place of theirs; or all that is wrong, each with its place and a remedy.
    pub fn with(overrides: &Overrides) -> Result<Tables, Vec<String>> {
        let mut tables = Tables::usual().clone();
        let mut wrong = Vec::new();
        for (&code, given) in &overrides.xid {
            if code == 0 || code > GREATEST {
                wrong.push(format!("`xid.{code}`: an XID is a number from 1 to {GREATEST}"));
                continue;
            }
            let entry = tables.xids.entry(code).or_insert_with(|| Xid {
                xid: code,
                name: format!("XID {code}"),
                about: "named by the configuration".to_owned(),
                action: given.action,
                blame: Blame::System,
                when: None,
                person: None,
            });
            (entry.action, entry.when) = (given.action, given.when);
            entry.blame = given.blame.unwrap_or(entry.blame);
        }
        for (key, given) in &overrides.dcgm {
            match tables.dcgm_id(key) {
                Ok(id) => {
                    let entry = tables.dcgm.entry(id).or_insert_with(|| DcgmError {
                        id,
                        name: format!("error {id}"),
                        about: "named by the configuration".to_owned(),
                        action: given.action,
                        severity: Severity::Unknown,
                        category: Category::InternalOther,
                    });
                    entry.action = given.action;
                }
                Err(why) => wrong.push(why),
            }
        }
        if wrong.is_empty() { Ok(tables) } else { Err(wrong) }
    }

    fn dcgm_id(&self, key: &str) -> Result<u32, String> {
        if let Ok(id) = key.parse::<u32>() {
            let fine = (1..=GREATEST).contains(&id);
            return if fine { Ok(id) } else { Err(format!("`dcgm.{id}`: an error has a number from 1 to {GREATEST}")) };
        }
        let name = key.strip_prefix("DCGM_FR_").unwrap_or(key);
        let found = self.dcgm.values().find(|error| error.name == name).map(|error| error.id);
        found.ok_or_else(|| {
            let near = did_you_mean(name, self.dcgm.values().map(|error| error.name.as_str()));
            let key = evidence(key);
            format!("`dcgm.{key}`: DCGM has no such error{near} (a name as in `DCGM_FR_…`, or its number)")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Tables, Vec<String>> {
        let overrides = serde_json::from_str::<Overrides>(json).map_err(|error| vec![error.to_string()])?;
        Tables::with(&overrides)
    }

    #[test]
    fn single_entries_are_overridden_and_all_others_stay() {
        let json = r#"{"xid": {"63": {"action": "reset_gpu"}, "45": {"action": "diagnose", "when": "secondary"},
                       "200": {"action": "reboot_node", "blame": "hardware"}},
                       "dcgm": {"DCGM_FR_SRAM_THRESHOLD": {"action": "reset_gpu"}, "NVLINK_DOWN": {"action": "ignore"}, "300": {"action": "ignore"}}}"#;
        let tables = read(json).unwrap();
        let xid = tables.xid(63).unwrap();
        assert_eq!((xid.action, xid.when, xid.blame), (Action::ResetGpu, None, Blame::Hardware));
        assert_eq!(tables.xid(45).unwrap().when, Some(Rule::Secondary));
        assert_eq!(tables.xid_action(200), (Action::RebootNode, Blame::Hardware));
        assert_eq!((tables.dcgm_action(118), tables.dcgm_action(14)), (Action::ResetGpu, Action::Ignore));
        assert_eq!(tables.dcgm_action(300), Action::Ignore);
        assert_eq!(tables.xid(79), Tables::usual().xid(79));
        assert_eq!(Tables::usual().xid(63).unwrap().action, Action::Ignore);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let json =
            r#"{"xid": {"0": {"action": "ignore"}}, "exit_codes": {"999": "diagnose"}, "log": {"silence": "PT0S"}}"#;
        let wrong = serde_json::from_str::<Overrides>(json).unwrap().read().unwrap_err();
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[2].starts_with("in `log`: `silence`"), "{wrong:?}");
        let meanings = Overrides::default().read().unwrap();
        assert_eq!((&meanings.tables, &meanings.ends), (Tables::usual(), &Ends::default()));
    }

    #[test]
    fn what_is_wrong_is_said_with_a_way_out() {
        let wrong = |json: &str| read(json).unwrap_err().join("\n");
        let error = wrong(r#"{"xid": {"63": {"action": "reset_gpus"}}}"#);
        assert!(error.contains("no action `reset_gpus`; did you mean `reset_gpu`?"), "{error}");
        let error = wrong(r#"{"xid": {"63": {"action": "ignore", "acton": 1}}}"#);
        assert!(error.contains("unknown field `acton`"), "{error}");
        assert!(wrong(r#"{"xids": {}}"#).contains("unknown field `xids`"));
        assert!(wrong(r#"{"xid": {"0": {"action": "ignore"}}}"#).contains("from 1 to 99999"));
        assert!(wrong(r#"{"xid": {"-3": {"action": "ignore"}}}"#).contains("invalid"));
        let error = wrong(r#"{"dcgm": {"NVLINK_DWN": {"action": "ignore"}, "0": {"action": "ignore"}}}"#);
        assert!(error.contains("did you mean `NVLINK_DOWN`?") && error.contains("`dcgm.0`"), "{error}");
    }
}
