//! What a TaskRun asks of a machine.
//!
//! Steps run one after the other, so they need the most that one of them asks for, not the sum as Kubernetes takes it; sidecars run
//! beside all of them. Only limits count for cores and memory: a request of Kubernetes is no limit, and here an amount is.

use std::collections::BTreeMap;

use pitcrew_core::ir::Resources;
use serde_json::{Value, json};

use super::container::{items, resources};
use super::limits;
use super::template::Template;
use crate::quantity::{parse_cpu, parse_memory};
use crate::tekton::substitute::{Replacements, params};

/// How a part of a GPU, or the model of one, is asked for.
pub const GPU_ANNOTATION: &str = "pitcrew.dev/gpu";

/// What Kubernetes' devices of GPUs are called.
const GPUS: [&str; 2] = ["nvidia.com/gpu", "amd.com/gpu"];

/// What all tries of a task ask for, by what is known before anything runs.
pub fn demand_of(template: &Template) -> Result<Resources, String> {
    let own = params::resolve(&template.spec["params"], &template.params).unwrap_or_default();
    let values = params::overlay(&params::overlay(&template.propagated, &template.params), &own);
    let known = params::replacements(&values);
    match super::steps::steps(template, &known) {
        Ok(steps) => demand(template, &steps, &known),
        // That is told when the Task is checked; nothing of it runs.
        Err(_) => Ok(Resources::default()),
    }
}

/// `steps` are complete; a variable that only results can fill in is told.
fn demand(template: &Template, steps: &[Value], known: &Replacements) -> Result<Resources, String> {
    let mut total: BTreeMap<String, f64> = BTreeMap::new();
    let whole = known.fill_value(&template.compute_resources);
    if whole.is_object() {
        total = amounts(&whole, &[])?;
    } else {
        for step in steps {
            let of_run = template.step_resources.get(step["name"].as_str().unwrap_or_default());
            let asked = of_run.unwrap_or(&step["computeResources"]);
            for (name, amount) in amounts(&known.fill_value(asked), &template.limits)? {
                let most = total.entry(name).or_insert(0.0);
                *most = most.max(amount);
            }
        }
    }
    for sidecar in items(&template.spec["sidecars"]) {
        let of_run = template.sidecar_resources.get(sidecar["name"].as_str().unwrap_or_default());
        let asked = of_run.unwrap_or(&sidecar["computeResources"]);
        for (name, amount) in amounts(&known.fill_value(asked), &template.limits)? {
            *total.entry(name).or_insert(0.0) += amount;
        }
    }
    let gpus: f64 = GPUS.iter().filter_map(|name| total.get(*name)).sum();
    let annotated = template.annotations.get(GPU_ANNOTATION).map(|written| known.fill_value(written));
    let gpu = match annotated {
        Some(Value::String(text)) => Some(serde_json::from_str(&text).unwrap_or(Value::String(text))),
        Some(other) => Some(other),
        None if gpus > 0.0 => Some(json!(gpus as u64)),
        None => None,
    };
    Ok(Resources {
        gpu,
        cpu: total.get("cpu").map(|cores| json!(cores)),
        memory: total.get("memory").map(|bytes| json!(*bytes as u64)),
        custom: BTreeMap::new(),
    })
}

/// The amounts that count, of one container.
fn amounts(of: &Value, ranges: &[Value]) -> Result<BTreeMap<String, f64>, String> {
    let mut asked = resources(of);
    limits::fill(&mut asked, ranges);
    let mut found = BTreeMap::new();
    for name in GPUS {
        let Some(text) = asked.limits.get(name).or_else(|| asked.requests.get(name)) else { continue };
        let count: u32 = text.parse().map_err(|_| format!("`{name}` is a whole number, not `{text}`"))?;
        found.insert(name.to_owned(), f64::from(count));
    }
    if let Some(text) = asked.limits.get("cpu") {
        found.insert("cpu".into(), f64::from(parse_cpu(&json!(text))?) / 1_000.0);
    }
    if let Some(text) = asked.limits.get("memory") {
        found.insert("memory".into(), parse_memory(&json!(text))? as f64);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_take_turns_and_sidecars_do_not() {
        let steps = [
            json!({"name": "a", "computeResources": {"limits": {"nvidia.com/gpu": "$(params.n)", "cpu": "500m"}}}),
            json!({"name": "b", "computeResources": {"limits": {"nvidia.com/gpu": 1, "memory": "1Gi"}, "requests": {"cpu": "8"}}}),
        ];
        let template = Template {
            spec: json!({"sidecars": [{"name": "s", "computeResources": {"limits": {"cpu": "1"}}}]}),
            ..Template::default()
        };
        let mut known = Replacements::new();
        known.param("n", &json!("2"));
        let found = demand(&template, &steps, &known).unwrap();
        assert_eq!(found.gpu, Some(json!(2)));
        assert_eq!(found.cpu, Some(json!(1.5)));
        assert_eq!(found.memory, Some(json!(1u64 << 30)));
        let error = demand(&template, &steps, &Replacements::new()).unwrap_err();
        assert_eq!(error, "`nvidia.com/gpu` is a whole number, not `$(params.n)`");
    }

    #[test]
    fn a_container_that_says_nothing_asks_for_what_a_limit_range_says() {
        let template =
            Template { limits: vec![json!({"default": {"cpu": "700m", "memory": "1Gi"}})], ..Template::default() };
        let steps = [json!({"name": "a"}), json!({"name": "b", "computeResources": {"limits": {"cpu": "2"}}})];
        let found = demand(&template, &steps, &Replacements::new()).unwrap();
        assert_eq!((found.cpu, found.memory), (Some(json!(2.0)), Some(json!(1u64 << 30))));
    }

    #[test]
    fn a_part_of_a_gpu_is_asked_for_by_an_annotation() {
        let mut template = Template::default();
        template.annotations.insert(GPU_ANNOTATION.into(), json!("0.5"));
        assert_eq!(demand(&template, &[], &Replacements::new()).unwrap().gpu, Some(json!(0.5)));
    }
}
