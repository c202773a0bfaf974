//! What exit codes say, in the words of a configuration: `exit_codes: {1: diagnose, 3-5: application, 143: infrastructure}`.
//!
//! An exit code alone repairs nothing: at most the node is checked. Which of several containers counts is the business of
//! whoever runs them.

use std::collections::BTreeMap;

use pitcrew_core::recovery::{Advice, ExitRules};
use pitcrew_core::state::Exit;
use serde::{Deserialize, Serialize};

use crate::text::{did_you_mean, evidence};

/// What an exit code says about who is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum EndClass {
    /// The task; its node is not looked at.
    Application,
    /// Whatever ran it: it is tried again as if its machine had gone, and draws on no retries of its own.
    Infrastructure,
    /// Nobody knows, so the node is checked.
    Diagnose,
}

/// By code, or by codes from one to another; `otherwise` stands for all that are not named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExitCodes(pub BTreeMap<String, EndClass>);

/// Exit codes, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    codes: BTreeMap<i32, EndClass>,
    otherwise: EndClass,
}

impl EndClass {
    const ALL: [EndClass; 3] = [EndClass::Application, EndClass::Infrastructure, EndClass::Diagnose];

    pub fn name(self) -> &'static str {
        match self {
            EndClass::Application => "application",
            EndClass::Infrastructure => "infrastructure",
            EndClass::Diagnose => "diagnose",
        }
    }
}

impl TryFrom<String> for EndClass {
    type Error = String;

    fn try_from(text: String) -> Result<EndClass, String> {
        EndClass::ALL.into_iter().find(|class| class.name() == text).ok_or_else(|| {
            let names = EndClass::ALL.map(EndClass::name);
            let near = did_you_mean(&text, names.into_iter());
            format!("an exit code is one of {}, and not `{}`{near}", names.join(", "), evidence(&text))
        })
    }
}

impl From<EndClass> for &'static str {
    fn from(class: EndClass) -> &'static str {
        class.name()
    }
}

impl ExitCodes {
    /// On top of what is usual; or all that is wrong with it.
    pub fn read(&self) -> Result<Ends, Vec<String>> {
        self.over(Ends::default())
    }

    /// On top of others: of two that name a code, these count.
    pub fn over(&self, mut ends: Ends) -> Result<Ends, Vec<String>> {
        let mut wrong = Vec::new();
        for (key, class) in &self.0 {
            match codes(key) {
                _ if key == "otherwise" => ends.otherwise = *class,
                Some(codes) => ends.codes.extend(codes.map(|code| (code, *class))),
                None => wrong.push(format!(
                    "`exit_codes.{}`: give a code from 1 to 255, two of them as `3-5`, or `otherwise`",
                    evidence(key)
                )),
            }
        }
        if wrong.is_empty() { Ok(ends) } else { Err(wrong) }
    }
}

fn codes(key: &str) -> Option<std::ops::RangeInclusive<i32>> {
    let (first, last) = key.split_once('-').unwrap_or((key, key));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (1 <= first && first <= last && last <= 255).then_some(first..=last)
}

impl Default for Ends {
    fn default() -> Ends {
        let rules = ExitRules::default();
        let class = |advice: &Advice| if *advice >= Advice::Check { EndClass::Diagnose } else { EndClass::Application };
        let codes = rules.codes.iter().map(|(code, advice)| (*code, class(advice))).collect();
        Ends { codes, otherwise: class(&rules.otherwise) }
    }
}

impl Ends {
    /// What a code says; 0 says nothing.
    pub fn class(&self, code: i32) -> EndClass {
        self.codes.get(&code).copied().unwrap_or(self.otherwise)
    }

    /// As recovery takes them for a job.
    pub fn rules(&self) -> ExitRules {
        let advice = |class: EndClass| match class {
            EndClass::Diagnose => Advice::Check,
            EndClass::Application | EndClass::Infrastructure => Advice::RestartApp,
        };
        let codes = self.codes.iter().map(|(code, class)| (*code, advice(*class))).collect();
        ExitRules { codes, otherwise: advice(self.otherwise) }
    }

    /// An end as recovery is told of it: one by fault of whatever ran the task is a loss.
    pub fn exit(&self, exit: Exit) -> Exit {
        match &exit {
            Exit::Code { .. } | Exit::Signal { .. } if !exit.is_success() => {
                let code = exit.code().unwrap_or_default();
                match self.class(code) {
                    EndClass::Infrastructure => {
                        Exit::Lost { reason: format!("it ended with {code}, which is its machine's") }
                    }
                    EndClass::Application | EndClass::Diagnose => exit,
                }
            }
            Exit::Code { .. }
            | Exit::Signal { .. }
            | Exit::OutOfMemory
            | Exit::TimedOut
            | Exit::Cancelled
            | Exit::StartFailed { .. }
            | Exit::Lost { .. } => exit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Ends, String> {
        let codes: ExitCodes = serde_json::from_str(json).map_err(|error| error.to_string())?;
        codes.read().map_err(|wrong| wrong.join("\n"))
    }

    /// Weakness 11: only 1 was diagnosed, and 134, 137, 139 and 143 were nobody's business.
    #[test]
    fn every_code_is_diagnosed_unless_somebody_knows_better() {
        let ends = Ends::default();
        for code in [1, 2, 134, 135, 137, 139, 143, 255] {
            assert_eq!(ends.class(code), EndClass::Diagnose, "{code}");
        }
        for code in [78, 126, 127] {
            assert_eq!(ends.class(code), EndClass::Application, "{code}");
        }
        assert_eq!(ends.rules(), ExitRules::default());
        let ends = read(r#"{"3-5": "application", "143": "infrastructure", "127": "diagnose"}"#).unwrap();
        let classes = [2, 3, 5, 6, 143, 127, 78].map(|code| ends.class(code).name());
        assert_eq!(
            classes,
            ["diagnose", "application", "application", "diagnose", "infrastructure", "diagnose", "application"]
        );
        assert_eq!(ends.rules().advice(&Exit::Code { code: 4 }), Advice::RestartApp);
        assert_eq!(ends.rules().advice(&Exit::Signal { signal: 11 }), Advice::Check);
        assert_eq!(read(r#"{"otherwise": "application"}"#).unwrap().class(1), EndClass::Application);
    }

    #[test]
    fn those_of_a_task_come_on_top_of_those_of_the_server() {
        let all = read(r#"{"3-5": "application", "otherwise": "infrastructure"}"#).unwrap();
        let own: ExitCodes = serde_json::from_str(r#"{"4": "diagnose"}"#).unwrap();
        let ends = own.over(all).unwrap();
        let classes = [3, 4, 5, 9].map(|code| ends.class(code).name());
        assert_eq!(classes, ["application", "diagnose", "application", "infrastructure"]);
    }

    #[test]
    fn what_the_machine_did_is_a_loss_and_success_stays_success() {
        let ends = read(r#"{"143": "infrastructure", "otherwise": "infrastructure"}"#).unwrap();
        assert!(matches!(ends.exit(Exit::Signal { signal: 15 }), Exit::Lost { reason } if reason.contains("143")));
        assert_eq!(ends.exit(Exit::Code { code: 0 }), Exit::Code { code: 0 });
        assert_eq!(ends.exit(Exit::OutOfMemory), Exit::OutOfMemory);
        assert_eq!(Ends::default().exit(Exit::Code { code: 1 }), Exit::Code { code: 1 });
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = read(r#"{"1": "diagnos"}"#).unwrap_err();
        assert!(
            error.contains("one of application, infrastructure, diagnose, and not `diagnos`; did you mean `diagnose`?"),
            "{error}"
        );
        for key in ["0", "256", "5-3", "x", "-1", "1-"] {
            let error = read(&format!(r#"{{"{key}": "diagnose"}}"#)).unwrap_err();
            assert!(error.contains("from 1 to 255"), "{key}: {error}");
        }
    }
}
