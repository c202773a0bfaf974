//! Where a pod may go, in the words of its pod template.

use pitcrew_core::fleet::{Effect, Expression, Operator, Preferred, Term, Toleration};
use pitcrew_core::ir::Placement;
use serde_json::Value;

use crate::tekton::run::container::{items, text, text_of_map, texts};

/// Labels that every machine has, and that hold here too.
const KNOWN: [(&str, &[&str]); 2] = [("kubernetes.io/os", &["linux"]), ("kubernetes.io/arch", &["amd64", "arm64"])];

/// What a pod template says of nodes. `one_machine`: only what is known of every machine is asked, since there is no choice; then
/// the second value says what was left out. An error is a label that no machine here can have.
pub fn placement(pod_template: &Value, one_machine: bool) -> Result<(Placement, Vec<String>), String> {
    let mut placement = Placement::default();
    let mut told = Vec::new();
    for (label, value) in text_of_map(&pod_template["nodeSelector"]) {
        if let Some((_, values)) = KNOWN.iter().find(|(known, _)| *known == label) {
            if !values.contains(&value.as_str()) {
                return Err(format!("no machine here has the label `{label}` with the value `{value}`"));
            }
            continue;
        }
        if one_machine {
            told.push(format!("nodeSelector `{label}`"));
        } else {
            placement.node_selector.insert(label, value);
        }
    }
    let affinity = &pod_template["affinity"]["nodeAffinity"];
    let mut required = Vec::new();
    let terms = items(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]);
    let mut why_not = None;
    for from in terms {
        match possible(term(from)?) {
            Ok(term) => required.push(term),
            Err(why) => why_not = Some(why),
        }
    }
    if required.is_empty()
        && let Some(why) = why_not
    {
        return Err(why);
    }
    // A term of which nothing is left holds everywhere.
    let holds_anyway = required.iter().any(|term| term.0.is_empty());
    let mut preferred = Vec::new();
    for from in items(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]) {
        let weight = from["weight"].as_u64().unwrap_or(1).clamp(1, 100) as u32;
        preferred.push(Preferred { weight, term: term(&from["preference"])? });
    }
    let tolerations: Vec<Toleration> =
        items(&pod_template["tolerations"]).iter().map(toleration).collect::<Result<_, _>>()?;
    if one_machine {
        if !required.is_empty() && !holds_anyway || !preferred.is_empty() {
            told.push("affinity".to_owned());
        }
        if !tolerations.is_empty() {
            told.push("tolerations".to_owned());
        }
        return Ok((placement, told));
    }
    if !holds_anyway {
        placement.required = required;
    }
    placement.preferred = preferred;
    placement.tolerations = tolerations;
    Ok((placement, told))
}

fn term(from: &Value) -> Result<Term, String> {
    let expression = |from: &Value| {
        let operator = match from["operator"].as_str() {
            Some("In") => Operator::In,
            Some("NotIn") => Operator::NotIn,
            Some("Exists") => Operator::Exists,
            Some("DoesNotExist") => Operator::DoesNotExist,
            Some("Gt") => Operator::Gt,
            Some("Lt") => Operator::Lt,
            other => return Err(format!("`{}` is no operator of a node's affinity", other.unwrap_or_default())),
        };
        Ok(Expression { key: text(from, "key"), operator, values: texts(&from["values"]) })
    };
    Ok(Term(items(&from["matchExpressions"]).iter().map(expression).collect::<Result<_, _>>()?))
}

/// The term without what is known of every machine; an error is what cannot hold.
fn possible(term: Term) -> Result<Term, String> {
    let mut left = Vec::new();
    for expression in term.0 {
        let Some((_, values)) = KNOWN.iter().find(|(known, _)| *known == expression.key) else {
            left.push(expression);
            continue;
        };
        let named = expression.values.iter().any(|value| values.contains(&value.as_str()));
        let all_named = values.iter().all(|value| expression.values.iter().any(|other| other == value));
        let holds = match expression.operator {
            Operator::In => named,
            Operator::NotIn => !all_named,
            Operator::Exists => true,
            Operator::DoesNotExist | Operator::Gt | Operator::Lt => false,
        };
        if !holds {
            let wanted = expression.values.join(", ");
            return Err(format!(
                "no machine here has the label `{}` as the affinity wants it ({wanted})",
                expression.key
            ));
        }
    }
    Ok(Term(left))
}

fn toleration(from: &Value) -> Result<Toleration, String> {
    let effect = match from["effect"].as_str() {
        None | Some("") => None,
        Some("NoSchedule") => Some(Effect::NoSchedule),
        Some("PreferNoSchedule") => Some(Effect::PreferNoSchedule),
        Some("NoExecute") => Some(Effect::NoExecute),
        Some(other) => return Err(format!("`{other}` is no effect of a taint")),
    };
    let exists = from["operator"] == "Exists";
    Ok(Toleration {
        key: text(from, "key"),
        value: if exists { None } else { Some(text(from, "value")) },
        effect,
        seconds: from["tolerationSeconds"].as_u64().map(|s| s.min(u32::MAX.into()) as u32),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_every_machine_has_is_checked_and_not_asked() {
        let (placement, told) = placement(
            &json!({
                "nodeSelector": {"kubernetes.io/os": "linux", "disktype": "ssd"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "NotIn", "values": ["windows"]}]}]}}},
            }),
            false,
        )
        .unwrap();
        assert_eq!(placement.node_selector, [("disktype".to_owned(), "ssd".to_owned())].into());
        assert_eq!((placement.required.len(), placement.tolerations.len()), (0, 1));
        assert!(told.is_empty());
    }

    #[test]
    fn windows_is_refused_however_it_is_asked_for() {
        for template in [
            json!({"nodeSelector": {"kubernetes.io/os": "windows"}}),
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["windows"]}]}]}}}}),
        ] {
            for one_machine in [true, false] {
                let why = placement(&template, one_machine).unwrap_err();
                assert!(why.contains("kubernetes.io/os"), "{why}");
            }
        }
    }

    #[test]
    fn on_one_machine_labels_are_told_and_not_asked() {
        let template = json!({"nodeSelector": {"disktype": "ssd"}, "tolerations": [{"operator": "Exists"}]});
        let (placement, told) = placement(&template, true).unwrap();
        assert_eq!(placement, Placement::default());
        assert_eq!(told, ["nodeSelector `disktype`", "tolerations"]);
    }
}
