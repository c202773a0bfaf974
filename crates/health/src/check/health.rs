//! `dcgmi health -c -j`: what DCGM has watched while work went on. It disturbs nobody, and says less than a diagnosis.

use serde_json::Value;

use super::codes;
use super::{Checker, Ended, Expected, Fault, Report, Verdict, text_of};
use crate::action::Action;
use crate::text::evidence;

/// Reads a look at the watches.
pub fn read_health(ended: &Ended, output: &[u8], expected: &Expected) -> Report {
    let text = text_of(output);
    let mut remarks = Vec::new();
    let verdict = verdict(&text, ended, expected, &mut remarks);
    remarks.truncate(16);
    Report { by: Checker::DcgmHealth, verdict, remarks }
}

fn verdict(text: &str, ended: &Ended, expected: &Expected, remarks: &mut Vec<String>) -> Verdict {
    if text.contains("watches not enabled") {
        let why = "DCGM's health watches are off; `dcgmi health -s a` switches them on".to_owned();
        return Verdict::Infrastructure { why, again_after: 60 };
    }
    let body = text.match_indices('{').take(16).find_map(|(at, _)| {
        let value = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>().next()?.ok()?;
        value.get("body").and_then(Value::as_object).cloned()
    });
    let Some(body) = body else { return codes::verdict(ended, "dcgmi health") };
    let overall = body.get("Overall Health").and_then(word);
    let mut faults = Vec::new();
    for (group, entities) in body.iter().filter(|(group, _)| *group != "Overall Health") {
        for (id, entity) in children(entities) {
            let systems =
                children(entity).filter(|(name, _)| *name == "Errors").flat_map(|(_, errors)| children(errors));
            for (system, told) in systems {
                let said: Vec<&str> = told
                    .get("overflow")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                let text = format!("{group} {}: {}: {}", evidence(id), evidence(system), evidence(&said.join(" ")));
                match word(told) {
                    Some("Failure") => faults.push(Fault {
                        gpu: id.parse().ok().filter(|_| group == "GPU").and_then(|id| expected.by_index(id)),
                        test: evidence(system),
                        error: None,
                        action: action(system),
                        text,
                    }),
                    Some("Healthy") => {}
                    Some(_) | None => remarks.push(text),
                }
            }
        }
    }
    match overall {
        _ if !faults.is_empty() => Verdict::Fail { faults },
        Some("Healthy" | "Warning") if *ended == Ended::Code(0) => Verdict::Pass,
        Some("Failure") => Verdict::Inconclusive { why: "DCGM tells of a failure, and not of what".to_owned() },
        Some(_) | None => codes::verdict(ended, "dcgmi health"),
    }
}

/// By what DCGM watches.
fn action(system: &str) -> Action {
    let system = system.to_ascii_lowercase();
    let is = |word: &str| system.starts_with(word);
    if is("nvlink") {
        Action::Nvlink
    } else if is("memory") || is("sm") || is("pmu") || is("mcu") || is("inforom") {
        Action::ResetGpu
    } else if is("thermal") {
        Action::CheckThermals
    } else if is("nvswitch f") {
        Action::FieldDiag
    } else if is("pcie") || is("power") || is("driver") {
        Action::RebootNode
    } else {
        Action::Diagnose
    }
}

fn word(value: &Value) -> Option<&str> {
    value.get("value").and_then(Value::as_str)
}

fn children(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.get("children").and_then(Value::as_object).into_iter().flatten().take(1024)
}
